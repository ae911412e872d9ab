//! The secured path, for real: every SASL mechanism with and without TLS, with a password that only the environment holds.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::harness::lake::Lake;
use crate::harness::ledger::{Ledger, Workload};
use crate::harness::pipeline::{self, Variant};
use crate::harness::program::Program;
use crate::harness::services::SecureBroker;
use crate::harness::topic::Topic;
use crate::harness::{TestResult, audit, services};

/// How long a refused password may take to be said.
const REFUSED_WITHIN: Duration = Duration::from_secs(60);

/// The mechanisms that the broker's listeners take.
const MECHANISMS: [&str; 3] = ["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"];

/// The options of a connection that says who it is.
fn signed_in(protocol: &str, mechanism: &str, user: &str) -> String {
    format!(
        ", 'security.protocol' = '{protocol}', 'sasl.mechanism' = '{mechanism}', 'sasl.username' = '{user}', \
         'sasl.password' = secret('env', 'SHOP_PASSWORD')"
    )
}

/// The options of a connection that does so over TLS.
fn over_tls(broker: &SecureBroker, mechanism: &str) -> String {
    let signed_in = signed_in("SASL_SSL", mechanism, &broker.user);
    format!("{signed_in}, 'ssl.ca.location' = '{}'", broker.authority.display())
}

/// Returns the pipeline over `topic` through a connection with these options.
fn through(bootstrap: &str, connection: String, topic: &Topic) -> String {
    pipeline::both_flows(bootstrap, topic, &Variant { connection, ..Variant::default() })
}

/// Lands a topic of the broker at `kafka` through each of `connections` to `bootstrap`; the password must be nowhere.
async fn lands(kafka: &str, bootstrap: &str, password: &str, connections: [String; 3]) -> TestResult {
    let topic = Topic::create(kafka, 2).await?;
    let mut ledger = Ledger::default();
    topic.produce(Workload::new(6, 40, 2).take(400), &mut ledger)?;
    for connection in connections {
        let lake = Lake::on_disk()?;
        let program = Program::on(&lake).with("SHOP_PASSWORD", password);
        let file = program.write("pipeline.sql", &through(bootstrap, connection, &topic))?;
        let ended = program.run(&["run", "--once", &file])?;
        ended.check(0)?;
        audit::both_flows(&lake, &ledger, topic.name()).await?;
        lake.check_free_of(password)?;
        assert!(!ended.err.contains(password) && !ended.out.contains(password));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_land_through_every_sasl_mechanism_over_tls() -> TestResult {
    let (Some(kafka), Some(broker)) = (services::kafka()?, services::secure_kafka()?) else { return Ok(()) };
    let connections = MECHANISMS.map(|mechanism| over_tls(&broker, mechanism));
    lands(&kafka, &broker.bootstrap, &broker.password, connections).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_land_through_every_sasl_mechanism_without_tls() -> TestResult {
    let (Some(kafka), Some(broker)) = (services::kafka()?, services::sasl_kafka()?) else { return Ok(()) };
    let connections = MECHANISMS.map(|mechanism| signed_in("SASL_PLAINTEXT", mechanism, &broker.user));
    lands(&kafka, &broker.bootstrap, &broker.password, connections).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_said_at_once_and_not_repeated() -> TestResult {
    let (Some(kafka), Some(broker)) = (services::kafka()?, services::secure_kafka()?) else { return Ok(()) };
    let topic = Topic::create(&kafka, 1).await?;
    let lake = Lake::on_disk()?;
    let program = Program::on(&lake).with("SHOP_PASSWORD", "not-the-password");
    let file =
        program.write("pipeline.sql", &through(&broker.bootstrap, over_tls(&broker, "SCRAM-SHA-512"), &topic))?;
    let ended = program.start(&["run", "--once", &file])?.wait(REFUSED_WITHIN)?;
    assert_ne!(ended.status.code(), Some(0));
    let said = format!("{}{}", ended.out, ended.err);
    assert!(said.to_lowercase().contains("authentication"), "{said}");
    assert!(!said.contains("not-the-password"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_is_not_set_is_named() -> TestResult {
    let (Some(kafka), Some(broker)) = (services::kafka()?, services::secure_kafka()?) else { return Ok(()) };
    let topic = Topic::create(&kafka, 1).await?;
    let lake = Lake::on_disk()?;
    let program = Program::on(&lake);
    let file =
        program.write("pipeline.sql", &through(&broker.bootstrap, over_tls(&broker, "SCRAM-SHA-512"), &topic))?;
    let ended = program.start(&["run", "--once", &file])?.wait(REFUSED_WITHIN)?;
    assert_ne!(ended.status.code(), Some(0));
    assert!(format!("{}{}", ended.out, ended.err).contains("SHOP_PASSWORD"), "{}", ended.err);
    Ok(())
}

/// Returns the variables that are named in `text` and begin with `prefix`.
fn variables<'a>(text: &'a str, prefix: &str) -> BTreeSet<&'a str> {
    let words = text.split(|char: char| !(char.is_ascii_uppercase() || char.is_ascii_digit() || char == '_'));
    words.filter(|word| word.starts_with(prefix)).collect()
}

#[test]
fn what_tests_want_of_a_broker_that_runs_elsewhere_is_explained_and_said_when_it_is_missing() -> TestResult {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cache = tempfile::TempDir::new()?;
    let services = |arguments: &[&str]| {
        let command = Command::new("bash")
            .arg(tests.join("services"))
            .args(arguments)
            .env_clear()
            .envs([
                ("PATH", std::env::var_os("PATH").unwrap_or_default()),
                ("HOME", cache.path().into()),
                ("ALLUVIUM_TEST_KAFKA", "elsewhere:9092".into()),
                ("ALLUVIUM_TEST_KAFKA_USER", "ann".into()),
            ])
            .output();
        command.map(|done| [done.stdout, done.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    };
    let asked = std::fs::read_to_string(tests.join("harness/services.rs"))?;
    let mut wanted = variables(&asked, "ALLUVIUM_TEST_KAFKA");
    assert!(wanted.len() > 10, "{wanted:?}");
    let [help, _] = services(&["help"])?;
    let explained = variables(&help, "ALLUVIUM_TEST_KAFKA");
    assert!(wanted.is_subset(&explained), "not explained: {:?}", wanted.difference(&explained));

    let [exports, said] = services(&["env", "kafka"])?;
    assert_eq!(exports, "export ALLUVIUM_TEST_KAFKA=elsewhere:9092\n");
    for set in ["ALLUVIUM_TEST_KAFKA", "ALLUVIUM_TEST_KAFKA_USER"] {
        wanted.remove(set);
    }
    assert_eq!(variables(&said, "ALLUVIUM_TEST_KAFKA"), wanted, "{said}");
    Ok(())
}
