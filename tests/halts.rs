//! Flows that need a human, as scripts and probes see them: who halts, who goes on, the exit code, and what is served.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use alluvium::source::kafka::embedded::{EmbeddedBroker, Message};
use serde_json::Value;

use crate::harness::lake::Lake;
use crate::harness::program::Program;
use crate::harness::shop::{Shop, embedded_options};
use crate::harness::{TestResult, reader};

/// How long a process may take to do what it is waited for.
const LIMIT: Duration = Duration::from_secs(60);

/// One flow that keeps what cannot become a row, and one that halts at it.
fn strict_and_lenient(shop: &Shop) -> String {
    let source = "order_id BIGINT NOT NULL, pos BIGINT METADATA FROM 'offset'";
    let topic = "'connection' = 'shop', 'topic' = 'shop.orders'";
    format!(
        "CREATE CONNECTION shop TYPE kafka WITH ({});
CREATE SOURCE lenient ({source}) WITH ({topic}, 'error-handling.mode' = 'ignore');
CREATE SOURCE strict ({source}) WITH ({topic});
CREATE STREAMING TABLE lake.all_but_bad (order_id BIGINT, pos BIGINT);
CREATE STREAMING TABLE lake.until_bad (order_id BIGINT, pos BIGINT);
CREATE FLOW goes_on AS INSERT INTO lake.all_but_bad BY NAME SELECT order_id, pos FROM STREAM(lenient);
CREATE FLOW stops AS INSERT INTO lake.until_bad BY NAME SELECT order_id, pos FROM STREAM(strict);
",
        embedded_options(shop.bootstrap())
    )
}

/// One flow that keeps what cannot become a row, up to `rejects_max` records of a batch.
fn bearing(shop: &Shop, rejects_max: u32) -> String {
    format!(
        "CREATE CONNECTION shop TYPE kafka WITH ({});
CREATE SOURCE bearing (order_id BIGINT NOT NULL, part INT METADATA FROM 'partition', pos BIGINT METADATA FROM 'offset')
WITH ('connection' = 'shop', 'topic' = 'shop.orders', 'error-handling.mode' = 'log',
      'error-handling.log.target' = 'ops.kept', 'error-handling.max.rejects' = '{rejects_max}');
CREATE STREAMING TABLE lake.borne (order_id BIGINT, part INT, pos BIGINT);
CREATE FLOW bears AS INSERT INTO lake.borne BY NAME SELECT order_id, part, pos FROM STREAM(bearing);
",
        embedded_options(shop.bootstrap())
    )
}

/// One flow whose key index grows with each record, and one without an index.
fn growing(bootstrap: &str) -> String {
    format!(
        "CREATE CONNECTION broker TYPE kafka WITH ({});
CREATE SOURCE keyed (id STRING NOT NULL, pos BIGINT METADATA FROM 'offset')
WITH ('connection' = 'broker', 'topic' = 'keys');
CREATE STREAMING TABLE lake.all_keys (id STRING, pos BIGINT);
CREATE STREAMING TABLE lake.newest (id STRING NOT NULL, pos BIGINT, PRIMARY KEY (id) NOT ENFORCED);
CREATE FLOW goes_on WITH ('commit.rows' = '1000') AS INSERT INTO lake.all_keys BY NAME SELECT id, pos FROM STREAM(keyed);
CREATE FLOW outgrows WITH ('commit.rows' = '1000') AS AUTO CDC INTO lake.newest FROM STREAM(keyed)
KEYS (id) SEQUENCE BY pos STORED AS SCD TYPE 1;
",
        embedded_options(bootstrap)
    )
}

/// Returns the offsets of the rows of a table, in order.
async fn offsets(lake: &Lake, table: &str) -> TestResult<Vec<i64>> {
    let rows = reader::deltalake_rows(lake, &lake.table(table)?, "SELECT pos FROM t ORDER BY pos").await?;
    Ok(rows.iter().filter_map(|row| row["pos"].as_i64()).collect())
}

/// What has landed of partition 1, which all bad records of the shop are in.
#[derive(Debug, PartialEq, Eq)]
struct Landed {
    position: Option<i64>,
    rows: Vec<i64>,
    rejects: Vec<i64>,
}

impl Landed {
    async fn of(lake: &Lake) -> TestResult<Self> {
        let log = reader::log(lake, &lake.table("lake.borne")?).await?;
        let txns = log.iter().flat_map(|entry| entry.actions("txn"));
        let own = txns.filter(|txn| txn["appId"] == "alluvium/bears/shop.orders/1");
        let position = own.filter_map(|txn| txn["version"].as_i64()).last();
        let rows = "SELECT pos FROM t WHERE part = 1 ORDER BY pos";
        let rejects = "SELECT \"offset\" AS pos FROM t WHERE \"partition\" = 1 ORDER BY pos";
        let offsets = async |table: &str, sql: &str| -> TestResult<Vec<i64>> {
            let rows = reader::deltalake_rows(lake, &lake.table(table)?, sql).await?;
            Ok(rows.iter().filter_map(|row| row["pos"].as_i64()).collect())
        };
        Ok(Self { position, rows: offsets("lake.borne", rows).await?, rejects: offsets("ops.kept", rejects).await? })
    }
}

/// Runs a file to its end, which must be exit code 1, and returns the flows of its summary.
fn halted_flows(program: &Program, file: &str) -> TestResult<Vec<Value>> {
    let ended = program.run(&["run", "--once", "--json", file])?;
    ended.check(1)?;
    let summary: Value = serde_json::from_str(&ended.out)?;
    Ok(summary["flows"].as_array().cloned().ok_or("a summary without flows")?)
}

/// Asks the program's own listener and returns its whole answer.
fn ask(address: SocketAddr, path: &str) -> TestResult<String> {
    let mut connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(LIMIT))?;
    write!(connection, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flow_that_meets_a_bad_record_halts_alone_and_names_it() -> TestResult {
    let shop = Shop::open(Lake::on_disk()?, 0).await?;
    shop.sell(0).await?;
    let file = shop.program.write("both.sql", &strict_and_lenient(&shop))?;
    let flows = halted_flows(&shop.program, &file)?;
    let [lenient, strict] = flows.as_slice() else { return Err(format!("{flows:?}").into()) };
    assert!(lenient["halted"].is_null() && lenient["fate"]["dropped"].as_u64() > Some(0), "{lenient}");
    // The first record of the shop that is no order is its tenth, of which the odd ones are in partition 1.
    let reason = strict["halted"].as_str().unwrap_or_default();
    assert!(reason.contains("shop.orders/1@4") && reason.contains("order_id"), "{strict}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_with_more_rejects_than_the_source_bears_halts_its_flow_and_none_of_it_lands() -> TestResult {
    let shop = Shop::open(Lake::on_disk()?, 0).await?;
    // Each wave has four records that are no orders: as many as the source bears do not stop it.
    shop.sell(0).await?;
    let file = shop.program.write("bearing.sql", &bearing(&shop, 4))?;
    shop.program.done(&["run", "--once", &file])?;
    let before = Landed::of(&shop.lake).await?;
    assert_eq!((before.position, before.rows.len(), before.rejects.len()), (Some(20), 16, 4), "{before:?}");

    shop.sell(1).await?;
    shop.sell(2).await?;
    for _again in 0..2 {
        let flows = halted_flows(&shop.program, &file)?;
        let reason = flows[0]["halted"].as_str().unwrap_or_default();
        // The first order of a wave that is none is the fifth of its records in partition 1.
        let said = ["more than 4 rejects in one batch", "shop.orders/1@24", "'error-handling.max.rejects'"];
        assert!(said.iter().all(|part| reason.contains(part)), "{flows:?}");
        assert_eq!(flows[0]["kind"], "data", "{flows:?}");
        assert_eq!(Landed::of(&shop.lake).await?, before);
    }

    let file = shop.program.write("bearing.sql", &bearing(&shop, 8))?;
    shop.program.done(&["run", "--once", &file])?;
    let after = Landed::of(&shop.lake).await?;
    let mut places = [after.rows.as_slice(), after.rejects.as_slice()].concat();
    places.sort_unstable();
    assert_eq!((after.position, places), (Some(60), (0..60).collect()), "every record is there once");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flow_whose_key_index_outgrows_its_memory_halts_alone_and_goes_on_once_it_may_take_more() -> TestResult {
    outgrow("ALLUVIUM_INDEX_MEMORY", "index.memory").await?;
    outgrow("ALLUVIUM_INDEX_TOTAL_MEMORY", "index.total_memory").await
}

/// Runs the flow that grows with less memory than it needs by a variable, and then with enough.
async fn outgrow(variable: &str, setting: &str) -> TestResult {
    const RECORDS: i64 = 10_000;
    let (lake, broker) = (Lake::on_disk()?, EmbeddedBroker::start(&[("keys", 1)])?);
    for index in 0..RECORDS {
        // Of keys of so many bytes, the least that the setting allows holds four or five batches.
        let value = format!("{{\"id\": \"{index:0>200}\"}}");
        broker.produce("keys", Message { value: Some(value.as_bytes()), ..Message::default() }).await?;
    }
    broker.flush().await?;
    let program = Program::on(&lake);
    let file = program.write("keys.sql", &growing(broker.bootstrap()))?;
    let flows = halted_flows(&program.clone().with(variable, "1 MiB"), &file)?;
    let [goes_on, outgrows] = flows.as_slice() else { return Err(format!("{flows:?}").into()) };
    assert!(goes_on["halted"].is_null(), "{goes_on}");
    let reason = outgrows["halted"].as_str().unwrap_or_default();
    let said = [format!("{setting} allows 1048576"), format!("raise {setting} ({variable})")];
    assert!(outgrows["kind"] == "invalid" && said.iter().all(|part| reason.contains(part)), "{outgrows}");
    let landed = outgrows["fate"]["records_in"].as_i64().unwrap_or_default();
    assert!((1..RECORDS).contains(&landed), "{outgrows}");
    assert_eq!(offsets(&lake, "lake.newest").await?, (0..landed).collect::<Vec<_>>());
    assert_eq!(offsets(&lake, "lake.all_keys").await?, (0..RECORDS).collect::<Vec<_>>());

    let more = program.with(variable, "64 MiB");
    let summary = more.json(&["run", "--once", "--json", &file])?;
    // Rows of a key replace each other, so only the count tells that no record was read twice.
    assert_eq!(summary["flows"][1]["fate"]["records_in"].as_i64(), Some(RECORDS - landed), "{summary}");
    for table in ["lake.newest", "lake.all_keys"] {
        assert_eq!(offsets(&lake, table).await?, (0..RECORDS).collect::<Vec<_>>(), "{table}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_with_other_columns_halts_its_flow() -> TestResult {
    let shop = Shop::open(Lake::on_disk()?, 0).await?;
    shop.sell(0).await?;
    let sql = strict_and_lenient(&shop)
        .replace("'topic' = 'shop.orders')", "'topic' = 'shop.orders', 'error-handling.mode' = 'ignore')");
    let file = shop.program.write("both.sql", &sql)?;
    shop.program.done(&["run", "--once", &file])?;
    let other = sql.replace("lake.until_bad (order_id BIGINT,", "lake.until_bad (order_id BIGINT, note STRING,");
    let other = other.replace("pos FROM STREAM(strict)", "CAST(NULL AS STRING) AS note, pos FROM STREAM(strict)");
    shop.program.write("both.sql", &other)?;
    let flows = halted_flows(&shop.program, &file)?;
    let halted: Vec<_> = flows.iter().filter(|flow| !flow["halted"].is_null()).collect();
    let [halted] = halted.as_slice() else { return Err(format!("{flows:?}").into()) };
    let reason = halted["halted"].as_str().unwrap_or_default();
    assert!(halted["flow"] == "stops" && reason.contains("has no column 'note'"), "{halted}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_probes_ask_is_answered_while_flows_run() -> TestResult {
    let shop = Shop::open(Lake::on_disk()?, 0).await?;
    shop.sell(0).await?;
    // Free a moment ago; the program says so if it is taken meanwhile.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let program = Program::on(&shop.lake).with("ALLUVIUM_LISTEN", address.to_string());
    let mut running = program.start(&["run", "orders.sql"])?;
    running.wait_for("batch landed", 2, LIMIT)?;
    for (path, part) in [
        ("/healthz", "alive"),
        ("/readyz", " 200 OK"),
        ("/metrics", "alluvium_batches_total{flow=\"orders_append\",outcome=\"landed\"}"),
    ] {
        let answer = ask(address, path)?;
        assert!(answer.contains(part), "{path} answers\n{answer}");
    }
    running.terminate()?;
    running.wait(LIMIT)?.check(0)
}
