//! The README's tour without containers: what the services of docker-compose.yml run is run on the servers of the tests,
//! and the tour's commands are asked of the program.
//!
//! Addresses, keys and topics are those of the tests. The broker's own commands come with its image and are not run here.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;

use super::{Compose, read, tour};
use crate::docs::{commands, words};
use crate::harness::lake::Lake;
use crate::harness::program::{Program, Running};
use crate::harness::served::{LIMIT, Served};
use crate::harness::services::Bucket;
use crate::harness::topic::Topic;
use crate::harness::{TestResult, services};

/// What the tour asks of `service`, as words after its name.
fn asked_of(service: &str) -> TestResult<Vec<Vec<String>>> {
    let block = tour()?;
    let commands = commands(&block).into_iter().map(|command| words(&command));
    let asked = commands.filter_map(|words| match words.as_slice() {
        [docker, compose, exec, name, asked @ ..]
            if [docker, compose, exec].map(String::as_str) == ["docker", "compose", "exec"] && name == service =>
        {
            Some(asked.to_vec())
        }
        _ => None,
    });
    Ok(asked.collect())
}

/// Returns the records that the tour types.
fn records() -> TestResult<Vec<String>> {
    let text = tour()?.text;
    let comments = text.lines().filter_map(|line| line.strip_prefix("# "));
    let records: Vec<String> = comments.filter(|line| line.starts_with('{')).map(str::to_owned).collect();
    if records.is_empty() { Err("the tour types no record".into()) } else { Ok(records) }
}

/// Has the bucket of compose made by the command that makes it there, and returns a lake in it.
fn lake(compose: &Compose, bucket: Bucket) -> TestResult<Lake> {
    let name = compose.text("alluvium", "/environment/ALLUVIUM_WAREHOUSE")?.trim_start_matches("s3://").to_owned();
    let lake = Lake::in_bucket(&Bucket { name, ..bucket })?;
    let variables = lake.variables();
    let given: BTreeSet<&str> = variables.iter().map(|(name, _)| *name).collect();
    let environment = compose.value("minio-bucket", "/environment")?.as_object().into_iter().flatten();
    assert_eq!(given, environment.map(|(name, _)| name.as_str()).collect::<BTreeSet<_>>());
    let command = [compose.words("minio-bucket", "/entrypoint")?, compose.words("minio-bucket", "/command")?].concat();
    // Compose runs it each time that it comes up; the second time the bucket is there.
    for _ in 0..2 {
        let done = Command::new(&command[0]).args(&command[1..]).envs(variables.iter().cloned()).output()?;
        assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
    Ok(lake)
}

/// Returns the health check of the program, asked where it listens.
fn health_check(compose: &Compose, served: &Served) -> TestResult<Command> {
    let check = compose.words("alluvium", "/healthcheck/test")?;
    let words: Vec<&str> = check.iter().map(String::as_str).collect();
    let ["CMD", program, arguments @ ..] = words.as_slice() else {
        return Err(format!("{check:?} is run in another way").into());
    };
    let listens = compose.text("alluvium", "/environment/ALLUVIUM_LISTEN")?.replace(':', "/");
    let here = served.address.replace(':', "/");
    let mut command = Command::new(program);
    command.args(arguments.iter().map(|word| word.replace(&listens, &here)));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    Ok(command)
}

/// Starts the program with the arguments of compose, over the pipeline of compose with other topics.
fn start(compose: &Compose, program: &Program, pipeline: &str) -> TestResult<Running> {
    let file = program.write("orders.sql", pipeline)?;
    let command = compose.words("alluvium", "/command")?;
    let arguments: Vec<&str> =
        command.iter().map(|word| if word.ends_with("/orders.sql") { file.as_str() } else { word }).collect();
    program.start(&arguments)
}

fn produce(bootstrap: &str, topic: &str, records: &[String]) -> TestResult {
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", bootstrap).create()?;
    for record in records {
        producer.send(BaseRecord::<(), str>::to(topic).payload(record)).map_err(|(error, _)| error)?;
    }
    Ok(producer.flush(LIMIT)?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_services_run_makes_the_record_of_the_tour_its_row() -> TestResult {
    let (Some(bootstrap), Some(bucket)) = (services::kafka()?, services::minio()?) else { return Ok(()) };
    let (compose, records, begun) = (Compose::open()?, records()?, Instant::now());
    let lake = lake(&compose, bucket)?;
    let (orders, customers) = (Topic::create(&bootstrap, 4).await?, Topic::create(&bootstrap, 4).await?);
    let own = [("localhost:9092", &*bootstrap), ("shop.orders", orders.name()), ("shop.customers", customers.name())];
    let mut pipeline = read("sql/examples/orders.sql")?;
    for (shown, own) in own {
        pipeline = pipeline.replace(&format!("'{shown}'"), &format!("'{own}'"));
    }

    let served = Served::somewhere()?;
    let program = Program::on(&lake).with("ALLUVIUM_LISTEN", &served.address);
    let mut check = health_check(&compose, &served)?;
    assert!(!check.status()?.success(), "the health check passes where nothing runs");
    let mut running = start(&compose, &program, &pipeline)?;
    while !check.status()?.success() {
        assert!(running.is_running()? && begun.elapsed() < LIMIT, "not healthy:\n{}", running.said()?);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let healthy = begun.elapsed();

    produce(&bootstrap, orders.name(), &records)?;
    // Two flows read the topic.
    running.wait_for("batch landed", 2, LIMIT)?;
    let landed = begun.elapsed() - healthy;
    let record: Value = serde_json::from_str(&records[0])?;
    let row = ["order_id", "customer_id", "amount", "currency", "status"].map(|column| match &record[column] {
        Value::String(text) => text.clone(),
        number => number.to_string(),
    });
    let asked = asked_of("alluvium")?;
    assert!(asked.len() > 1, "the tour asks only for {asked:?}");
    for words in &asked {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let ["alluvium", arguments @ ..] = words.as_slice() else {
            return Err(format!("{words:?} is no command of the program").into());
        };
        let shown = program.done(arguments)?;
        let is_query = arguments.first() == Some(&"sql");
        let wanted = if is_query { row.to_vec() } else { vec![orders.name().to_owned()] };
        let missing: Vec<_> = wanted.iter().filter(|text| !shown.contains(text.as_str())).collect();
        assert!(missing.is_empty(), "{words:?} does not show {missing:?}:\n{shown}");
    }
    running.terminate()?;
    running.wait(LIMIT)?.check(0)?;
    writeln!(std::io::stderr(), "tour: healthy after {healthy:.1?}, batches {landed:.1?} after the record")?;
    Ok(())
}

#[test]
fn the_tour_asks_services_of_compose_for_what_they_have() -> TestResult {
    let compose = Compose::open()?;
    let broker = compose.text("kafka", "/environment/KAFKA_ADVERTISED_LISTENERS")?.trim_start_matches("PLAINTEXT://");
    let asked = asked_of("kafka")?;
    assert!(!asked.is_empty(), "the tour produces nothing");
    for words in &asked {
        let after = |option: &str| words.iter().skip_while(|word| *word != option).nth(1).map(String::as_str);
        assert_eq!(after("--bootstrap-server"), Some(broker), "{words:?}");
        let topic = after("--topic").unwrap_or_default();
        assert!(compose.topics()?.contains(topic), "nobody creates the topic of {words:?}");
    }
    let services = compose.services()?;
    let executed = tour()?.text.matches("docker compose exec").count();
    let known: usize =
        services.keys().map(|name| asked_of(name).map(|asked| asked.len())).sum::<TestResult<usize>>()?;
    assert_eq!(executed, known, "the tour asks a service that is not there");
    Ok(())
}
