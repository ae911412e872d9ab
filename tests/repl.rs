//! `alluvium sql` as scripts use it: formats, exit codes, places of errors, tables that were landed, and a look at a topic.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::TopicPartitionList;

use crate::harness::lake::Lake;
use crate::harness::ledger::{Ledger, Workload};
use crate::harness::program::{Finished, Program};
use crate::harness::shop::{Shop, embedded_options};
use crate::harness::topic::Topic;
use crate::harness::{TestResult, reader, services, unique};

/// How long the broker may take to answer.
const BROKER_LIMIT: Duration = Duration::from_secs(30);

async fn shop() -> TestResult<Shop> {
    Shop::open(Lake::on_disk()?, 2).await
}

fn holds(name: &str, said: &str) {
    insta::with_settings!({prepend_module_to_snapshot => false, omit_expression => true}, {
        insta::assert_snapshot!(name, said);
    });
}

fn sql(program: &Program, format: &str, text: &str) -> TestResult<Finished> {
    program.run(&["sql", "--quiet", "--format", format, "-c", text])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_written_in_every_format() -> TestResult {
    let shop = shop().await?;
    let query = "SELECT order_id, customer, amount, status, address, tags, order_date FROM silver.orders \
                 WHERE order_id BETWEEN 4 AND 6 ORDER BY order_id";
    for format in ["table", "csv", "tsv", "json", "ndjson", "markdown"] {
        let ended = sql(&shop.program, format, query)?;
        ended.check(0)?;
        holds(&format!("repl_{format}"), &ended.out);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_are_listed_and_described() -> TestResult {
    let shop = shop().await?;
    let ended = shop.program.run(&["sql", "--quiet", "-c", "\\dt"])?;
    ended.check(0)?;
    for name in ["silver", "bronze", "orders_rejects"] {
        assert!(ended.out.contains(name), "{}", ended.out);
    }
    let ended = shop.program.run(&["sql", "--quiet", "-c", "\\d silver.orders"])?;
    ended.check(0)?;
    let folder = shop.lake.folder().display().to_string();
    assert!(ended.out.contains("order_date"), "{}", ended.out.replace(&folder, "[folder]"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_versions_and_system_tables_can_be_asked() -> TestResult {
    let shop = shop().await?;
    let count = |text: &str| -> TestResult<i64> {
        let answer = shop.program.json(&["sql", "--quiet", "--json", "-c", text])?;
        answer[0]["n"].as_i64().ok_or_else(|| format!("{text}: {answer}").into())
    };
    assert_eq!(count("SELECT count(*) AS n FROM bronze.orders VERSION AS OF 0")?, 0);
    let now = count("SELECT count(*) AS n FROM bronze.orders")?;
    assert_eq!(now, 72, "80 records, 8 of them rejects");
    assert_eq!(count("SELECT count(*) AS n FROM ops.orders_rejects")?, 16, "each of two flows has its own");
    assert!(count("SELECT count(*) AS n FROM system.commits")? > 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_can_be_looked_at_and_nothing_is_committed() -> TestResult {
    let shop = shop().await?;
    let text = "SELECT order_id, status, pos FROM orders_raw ORDER BY part, pos LIMIT 3";
    for _again in 0..2 {
        let answer = shop.program.json(&["sql", "--quiet", "--json", "-c", text])?;
        assert_eq!(answer.as_array().map(Vec::len), Some(3), "{answer}");
    }
    let summary = shop.program.json(&["run", "--once", "--json", "orders.sql"])?;
    let flows = summary["flows"].as_array().cloned().unwrap_or_default();
    assert!(flows.iter().all(|flow| flow["fate"]["records_in"] == 0), "{summary}");
    Ok(())
}

/// Returns the names of the broker's groups.
fn groups(kafka: &str) -> TestResult<BTreeSet<String>> {
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", kafka).create()?;
    let listed = consumer.fetch_group_list(None, BROKER_LIMIT)?;
    Ok(listed.groups().iter().map(|group| group.name().to_owned()).collect())
}

/// Returns the offsets that `group` has committed of two partitions of `topic`, as text.
fn committed(kafka: &str, group: &str, topic: &str) -> TestResult<Vec<String>> {
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", kafka).set("group.id", group).create()?;
    let mut partitions = TopicPartitionList::new();
    for partition in 0..2 {
        partitions.add_partition(topic, partition);
    }
    let committed = consumer.committed_offsets(partitions, BROKER_LIMIT)?;
    Ok(committed.elements().iter().map(|element| format!("{:?}", element.offset())).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_at_a_topic_leaves_the_brokers_groups_and_the_table_as_they_are() -> TestResult {
    let Some(kafka) = services::kafka()? else { return Ok(()) };
    let (lake, topic, group) = (Lake::on_disk()?, Topic::create(&kafka, 2).await?, unique("group"));
    let mut workload = Workload::new(11, 20, 2);
    topic.produce(workload.take(60), &mut Ledger::default())?;
    let program = Program::on(&lake);
    let text = format!(
        "CREATE CONNECTION broker TYPE kafka WITH ('bootstrap.servers' = '{kafka}');\n\
         CREATE SOURCE events (id BIGINT, seq BIGINT) WITH ('connection' = 'broker', 'topic' = '{}', \
         'group.id' = '{group}', 'scan.startup.mode' = 'earliest-offset', 'error-handling.mode' = 'ignore');\n\
         CREATE STREAMING TABLE lake.events (id BIGINT, seq BIGINT);\n\
         CREATE FLOW events_flow AS INSERT INTO lake.events BY NAME SELECT * FROM STREAM(events);\n",
        topic.name()
    );
    program.write("events.sql", &text)?;
    program.done(&["run", "--once", "events.sql"])?;
    // These have not landed, so whoever took the look for a reader of the flow would land them.
    topic.produce(workload.take(60), &mut Ledger::default())?;

    let table = lake.table("lake.events")?;
    let versions = async || Ok::<_, Box<dyn std::error::Error + Send + Sync>>(reader::log(&lake, &table).await?.len());
    let before = (groups(&kafka)?, committed(&kafka, &group, topic.name())?, versions().await?);
    let looked = program.json(&["sql", "--quiet", "--json", "-c", "SELECT count(*) AS n FROM events"])?;
    assert!(looked[0]["n"].as_i64().is_some_and(|n| n > 60), "the look saw too little: {looked}");
    let after = (groups(&kafka)?, committed(&kafka, &group, topic.name())?, versions().await?);

    assert_eq!((before.1, before.2), (after.1, after.2));
    // Other tests have groups on this broker, too; none that is new has to do with this topic.
    for new in after.0.difference(&before.0) {
        let of_this_topic = committed(&kafka, new, topic.name())?;
        assert!(!new.contains("peek") && of_this_topic.iter().all(|offset| offset == "Invalid"), "{new}");
    }
    assert!(!after.0.contains("alluvium-peek"), "{:?}", after.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_and_a_source_that_are_typed_are_kept_shown_and_looked_at() -> TestResult {
    let shop = shop().await?;
    let lake = Lake::on_disk()?;
    let program = Program::on(&lake);
    let options = embedded_options(shop.bootstrap());
    program.write("shop.sql", &format!("CREATE CONNECTION mine TYPE kafka WITH ({options});"))?;
    let source = "CREATE SOURCE typed (order_id BIGINT, pos BIGINT METADATA FROM 'offset') \
                  WITH ('connection' = 'mine', 'topic' = 'shop.orders');";
    let define = program.run(&["sql", "-f", "shop.sql", "-c", source])?;
    define.check(0)?;
    assert!(define.err.contains("connection mine created\nsource typed created"), "{}", define.err);

    let shown =
        program.done(&["sql", "--quiet", "--format", "csv", "-c", "\\d", "-c", "\\d mine", "-c", "\\d typed"])?;
    for line in ["typed,source,topic shop.orders over mine,", "mine,connection,", "bootstrap.servers,", "pos,BIGINT"] {
        assert!(shown.contains(line), "{line} is not in\n{shown}");
    }
    let rows = program.json(&["sql", "--quiet", "--json", "-c", "SELECT count(*) AS n FROM typed"])?;
    assert!(rows[0]["n"].as_i64().is_some_and(|n| n > 0), "{rows}");

    let again = program.run(&["sql", "-c", source])?;
    again.check(1)?;
    assert!(again.err.contains("source typed exists already"), "{}", again.err);
    for (text, said) in [
        (source.replace("SOURCE", "SOURCE IF NOT EXISTS"), "kept"),
        (source.replace("CREATE", "CREATE OR REPLACE"), "source typed replaced"),
    ] {
        let ended = program.run(&["sql", "-c", &text])?;
        ended.check(0)?;
        assert!(ended.err.contains(said), "{}", ended.err);
    }
    for (text, said) in [
        (source.replace("typed", "other").replace("'mine'", "'nine'"), "did you mean 'mine'?"),
        (source.replace("'topic'", "'topics'").replace("typed", "other"), "argument 1:1:"),
    ] {
        let ended = program.run(&["sql", "-c", &text])?;
        ended.check(1)?;
        assert!(ended.err.contains(said), "{}", ended.err);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_show_their_place_and_exit_with_one() -> TestResult {
    let shop = shop().await?;
    let cases = [
        ("repl_misspelt_column", "SELECT order_idd FROM silver.orders"),
        ("repl_misspelt_table", "SELECT 1 FROM silver.ordres"),
        ("repl_syntax", "SELECT order_id FRM silver.orders"),
        ("repl_write_refused", "DELETE FROM silver.orders"),
    ];
    for (name, text) in cases {
        let ended = sql(&shop.program, "table", text)?;
        ended.check(1)?;
        assert!(ended.out.is_empty(), "{name} wrote {}", ended.out);
        holds(name, &ended.err);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_stops_at_its_first_error_unless_told_to_go_on() -> TestResult {
    let shop = shop().await?;
    shop.program.write("script.sql", "SELECT 1 AS one;\nSELECT nothing;\nSELECT 3 AS three;\n")?;
    let ended = shop.program.run(&["sql", "--quiet", "--format", "csv", "-f", "script.sql"])?;
    ended.check(1)?;
    assert!(ended.out.contains("one") && !ended.out.contains("three"), "{}", ended.out);
    assert!(ended.err.contains("script.sql:2"), "{}", ended.err);
    let ended = shop.program.run(&["sql", "--quiet", "--format", "csv", "--keep-going", "-f", "script.sql"])?;
    ended.check(1)?;
    assert!(ended.out.contains("three"), "{}", ended.out);
    Ok(())
}

#[test]
fn a_location_that_holds_no_table_is_refused() -> TestResult {
    let lake = Lake::on_disk()?;
    let ended = Program::on(&lake).run(&["sql", "nothing-here", "-c", "SELECT 1"])?;
    ended.check(1)?;
    assert!(ended.err.contains("nothing-here"), "{}", ended.err);
    assert!(!ended.err.contains("\"level\""), "log lines stand before the message:\n{}", ended.err);
    Ok(())
}
