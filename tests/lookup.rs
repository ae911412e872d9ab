//! Queries by key while another process lands batches: what its key index answers is what a scan answers, at a version
//! that stood while the question was asked; and an engine that is gone is not missed. Keys of every type are in `shapes`.

mod shapes;

use std::sync::Arc;
use std::time::{Duration, Instant};

use alluvium::lookup::Engines;
use alluvium_catalog::Location;
use alluvium_catalog::store::{CatalogStore, Run, SqliteStore};
use alluvium_sql::session::SessionSettings;
use alluvium_sql::tables::Version;
use alluvium_sql::{Session, TableReader};
use arrow::util::pretty::pretty_format_batches;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::TestResult;
use crate::harness::lake::Lake;
use crate::harness::program::Program;
use crate::harness::shop::Shop;

/// How long the flows may take to start, and to end: the embedded broker keeps its groups waiting.
const LIMIT: Duration = Duration::from_secs(60);

/// Two sessions of this process on the shop's tables; one of them asks engines.
struct Asker {
    catalog: Arc<dyn CatalogStore>,
    reader: Arc<TableReader>,
    by_key: Session,
    by_scan: Session,
    orders: Location,
}

impl Asker {
    async fn on(lake: &Lake) -> TestResult<Self> {
        let store = SqliteStore::open(&lake.folder().join("catalog.db")).await?;
        let catalog: Arc<dyn CatalogStore> = Arc::new(store);
        let reader = || Arc::new(TableReader::new(lake.stores(), Arc::clone(&catalog)));
        let session = || Session::open(Arc::clone(&catalog), reader(), &SessionSettings::default());
        let engines = Arc::new(Engines::new(Arc::clone(&catalog)));
        let (by_key, by_scan) = (session()?.with_locate(engines), session()?);
        Ok(Self { reader: reader(), by_key, by_scan, orders: lake.table("silver.orders")?, catalog })
    }

    async fn newest(&self) -> TestResult<u64> {
        Ok(self.reader.open(&self.orders, Version::Latest).await?.version())
    }

    /// Asks for one order by its key, and compares the answer with those of scans at the versions that stood meanwhile.
    async fn ask(&self, order_id: i64) -> TestResult<String> {
        let sql = |version: &str| {
            format!(
                "SELECT order_id, status, revision, tags, order_date, _alluvium_offset FROM silver.orders {version} \
                 WHERE order_id = {order_id}"
            )
        };
        let before = self.newest().await?;
        let answer = text(&self.by_key, &sql("")).await?;
        let after = self.newest().await?;
        for version in before..=after {
            if answer == text(&self.by_scan, &sql(&format!("VERSION AS OF {version}"))).await? {
                return Ok(answer);
            }
        }
        Err(format!("order {order_id} was never as this, at versions {before} to {after}:\n{answer}").into())
    }

    async fn is_looked_up(&self, order_id: i64) -> TestResult<bool> {
        let sql = format!("EXPLAIN SELECT * FROM silver.orders WHERE order_id = {order_id}");
        Ok(text(&self.by_key, &sql).await?.contains("KeyLookupExec"))
    }

    /// Waits until the engine has opened its table and serves queries.
    async fn wait(&self) -> TestResult {
        let begun = Instant::now();
        while !self.is_looked_up(4).await? {
            if begun.elapsed() > LIMIT {
                return Err("the index never served".into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Returns the newest run.
    async fn run(&self) -> TestResult<Run> {
        Ok(self.catalog.runs(1).await?.pop().ok_or("the catalog has no run")?)
    }
}

async fn text(session: &Session, sql: &str) -> TestResult<String> {
    let rows = session.sql(sql).await.map_err(|error| format!("{sql}: {}", error.chain()))?.collect().await?;
    Ok(pretty_format_batches(&rows)?.to_string())
}

async fn request(run: &Run, path: &str) -> TestResult<String> {
    let mut stream = TcpStream::connect(run.address.ok_or("the run does not listen")?).await?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_by_key_are_right_while_batches_land_and_after_the_engine_is_gone() -> TestResult {
    let shop = Shop::open(Lake::on_disk()?, 1).await?;
    let program = Program::on(&shop.lake).with("ALLUVIUM_LISTEN", "127.0.0.1:0");
    let asker = Asker::on(&shop.lake).await?;
    assert!(!asker.is_looked_up(1).await?, "nothing runs");

    let mut running = program.start(&["run", "orders.sql"])?;
    running.wait_for("serving", 1, LIMIT)?;
    asker.wait().await?;
    let (mut n_asked, mut n_looked_up, first) = (0, 0, asker.newest().await?);
    for wave in 1..5 {
        shop.sell(wave).await?;
        let (begun, version) = (Instant::now(), asker.newest().await?);
        // Deleted, updated, new and unknown orders, until the wave has landed.
        while asker.newest().await? < version + 1 {
            for order_id in (0..6).map(|index| wave * 10 + index * 7) {
                asker.ask(order_id).await?;
                n_looked_up += u64::from(asker.is_looked_up(order_id).await?);
                n_asked += 1;
            }
            if begun.elapsed() > LIMIT {
                return Err("a wave did not land".into());
            }
        }
    }
    assert!(asker.newest().await? >= first + 4);
    assert!(n_looked_up * 4 > n_asked, "{n_looked_up} of {n_asked} were looked up");

    let run = asker.run().await?;
    assert!(run.ended_at.is_none(), "{run:?}");
    let answer = request(&run, "/v1/lookup?table=silver.orders&key=%7B%22order_id%22:4%7D").await?;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"version\":"), "{answer}");
    for (path, status) in [
        ("/v1/lookup", "400"),
        ("/v1/lookup?table=nobody.orders&key=%7B%7D", "404"),
        ("/v1/lookup?table=bronze.orders&key=%7B%7D", "404"),
        ("/v1/lookup?table=silver.orders&key=%ff%00", "400"),
        ("/v1/lookup?table=silver.orders&key=%7B%22order_id%22:%221%22%7D", "400"),
    ] {
        let answer = request(&run, path).await?;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains("\"error\":"), "{path}: {answer}");
    }
    let overlong = format!("/v1/lookup?table=silver.orders&key={}", "x".repeat(60_000));
    assert!(request(&run, &overlong).await?.starts_with("HTTP/1.1 4"), "a long request is refused");

    running.terminate()?;
    running.wait(LIMIT)?.check(0)?;
    assert!(asker.run().await?.ended_at.is_some(), "the end is in the catalog");
    asker.ask(4).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_was_killed_costs_nothing() -> TestResult {
    let shop = Shop::open(Lake::on_disk()?, 1).await?;
    let program = Program::on(&shop.lake).with("ALLUVIUM_LISTEN", "127.0.0.1:0");
    let asker = Asker::on(&shop.lake).await?;
    let mut running = program.start(&["run", "orders.sql"])?;
    running.wait_for("serving", 1, LIMIT)?;
    asker.wait().await?;
    let there = asker.ask(4).await?;
    running.kill()?;
    assert!(asker.run().await?.ended_at.is_none(), "nobody could say so");
    let begun = Instant::now();
    assert_eq!(asker.ask(4).await?, there);
    assert!(!asker.is_looked_up(4).await?);
    assert!(begun.elapsed() < Duration::from_secs(5), "took {:?}", begun.elapsed());
    let said = program.json(&[
        "sql",
        "--quiet",
        "--json",
        "-c",
        "SELECT count(*) AS n FROM silver.orders WHERE order_id = 4",
    ])?;
    assert_eq!(said[0]["n"].as_i64(), Some(1), "{said}");
    Ok(())
}
