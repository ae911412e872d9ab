//! Every reader sees the same rows: our own session, delta-rs, DuckDB, Polars and Spark.
//!
//! A table of every kind that can be written ([`kinds`]) is read whole by each of them and compared with ours row by
//! row, hidden columns and all, and so is an older version of it; a new kind is one entry of that list. Where a reader
//! lacks a feature, [`GAPS`] says so by name and in which way it is wrong, and the test fails when it learns it or is wrong
//! in another way. Spark runs by its own command, `tests/spark`. Queries with predicates and aggregates are held against
//! DuckDB, and deltalake in this process, on the tables of the shop.

mod appends;
mod changes;
mod gap;
mod kind;
mod kinds;
mod other;
mod outline;

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use self::gap::GAPS;
use self::kinds::KINDS;
use self::other::{Answer, Reader};
use self::outline::Outline;

use crate::harness::lake::Lake;
use crate::harness::program::Program;
use crate::harness::reader::{self, without_nulls};
use crate::harness::shop::Shop;
use crate::harness::{TestResult, services};

/// Differences shown of a table: enough to see what is wrong.
const DIFFERENCES_MAX: usize = 3;

/// Columns of either table, in SQL that all dialects share.
const QUERIES: [&str; 5] = [
    "SELECT count(*) AS n_rows, count(customer) AS n_customers, sum(order_id) AS ids FROM t",
    "SELECT order_id, customer, status, CAST(amount AS VARCHAR) AS amount, revision FROM t ORDER BY revision, order_id, status",
    "SELECT order_id, revision, address['city'] AS city, array_to_string(tags, ',') AS tags FROM t ORDER BY revision, order_id, status",
    "SELECT order_id, revision, CAST(EXTRACT(EPOCH FROM updated_at) AS BIGINT) AS updated FROM t ORDER BY revision, order_id, status",
    "SELECT order_id, revision FROM t WHERE status = 'PAID' AND order_id BETWEEN 10 AND 60 ORDER BY revision, order_id, status",
];

/// Queries on the partitioned table.
const PARTITIONED: [&str; 2] = [
    "SELECT CAST(order_date AS VARCHAR) AS order_date, count(*) AS n_rows FROM t GROUP BY order_date ORDER BY 1",
    "SELECT order_id FROM t WHERE order_date = DATE '2026-03-02' ORDER BY order_id",
];

/// Returns the rows by our own session.
fn own_rows(program: &Program, location: &str, sql: &str) -> TestResult<Vec<Value>> {
    let answer = program.json(&["sql", location, "--quiet", "--json", "-c", sql])?;
    Ok(answer.as_array().cloned().ok_or("the answer is no list")?.into_iter().map(without_nulls).collect())
}

async fn check_table(shop: &Shop, name: &str, queries: &[&str]) -> TestResult {
    let table = shop.lake.table(name)?;
    for sql in queries {
        let rows = reader::rows(&shop.lake, &table, sql).await?;
        let own = own_rows(&shop.program, &table.to_string(), sql)?;
        assert_eq!(own, rows, "{sql} on {name}: our own rows first");
        assert!(!rows.is_empty(), "{sql} on {name} says nothing");
    }
    Ok(())
}

/// Tells which kinds of action and file a table's log has, so that no test passes for want of them: here, deletion
/// vectors that stand in the log itself.
async fn has_vectors(lake: &Lake, name: &str) -> TestResult<bool> {
    let log = reader::log(lake, &lake.table(name)?).await?;
    Ok(log.iter().any(|entry| entry.actions("add").any(|add| add["deletionVector"]["storageType"] == "i")))
}

async fn has_checkpoint(lake: &Lake, name: &str) -> TestResult<bool> {
    use object_store::ObjectStoreExt;

    let store = lake.stores().open(&lake.table(name)?)?;
    Ok(store.head(&object_store::path::Path::from("_delta_log/_last_checkpoint")).await.is_ok())
}

async fn check_shop(lake: Lake) -> TestResult {
    let shop = Shop::open(lake, 4).await?;
    assert!(has_vectors(&shop.lake, "silver.orders").await?, "no deletion vector was written");
    for name in ["bronze.orders", "silver.orders"] {
        assert!(has_checkpoint(&shop.lake, name).await?, "{name} has no checkpoint");
        check_table(&shop, name, &QUERIES).await?;
    }
    check_table(&shop, "silver.orders", &PARTITIONED).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_agree_on_tables_on_local_disk() -> TestResult {
    check_shop(Lake::on_disk()?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_agree_on_tables_on_minio() -> TestResult {
    let Some(bucket) = services::minio()? else { return Ok(()) };
    check_shop(Lake::in_bucket(&bucket)?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_agree_on_tables_on_versity() -> TestResult {
    let Some(bucket) = services::versity()? else { return Ok(()) };
    check_shop(Lake::in_bucket(&bucket)?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hidden_columns_are_stored_but_not_shown() -> TestResult {
    let shop = Shop::open(Lake::on_disk()?, 1).await?;
    let location = shop.lake.table("silver.orders")?;
    let sql = "SELECT * FROM t ORDER BY order_id LIMIT 1";
    let (own, others) = (
        own_rows(&shop.program, &location.to_string(), sql)?,
        reader::deltalake_rows(&shop.lake, &location, sql).await?,
    );
    let names = |rows: &[Value]| -> Vec<String> {
        let row = rows.first().and_then(Value::as_object);
        row.into_iter().flat_map(|row| row.keys().filter(|name| name.starts_with("_alluvium_")).cloned()).collect()
    };
    assert!(names(&own).is_empty(), "{own:?}");
    assert_eq!(names(&others), ["_alluvium_offset", "_alluvium_partition"]);
    let sql = "SELECT _alluvium_partition AS part, _alluvium_offset AS pos, order_id FROM t ORDER BY order_id";
    assert_eq!(own_rows(&shop.program, &location.to_string(), sql)?, reader::rows(&shop.lake, &location, sql).await?);
    Ok(())
}

/// Writes a table of every kind into `lake` and compares what each of `readers` reads with ours.
async fn check_every_kind(lake: &Lake, readers: &[Reader]) -> TestResult {
    let mut installed: Vec<(Reader, PathBuf)> = Vec::new();
    for reader in readers {
        installed.extend(reader.python()?.map(|python| (*reader, python)));
    }
    let Some((_, python)) = installed.first() else { return Ok(()) };
    let program = kind::write_all(lake, &KINDS).await?;
    let questions = questions(lake, &program).await?;
    let jobs: Vec<Value> = questions.iter().map(|question| question.job.clone()).collect();
    let own = Reader::Alluvium.read(python, lake, &jobs)?;
    let mut report = String::new();
    for (reader, python) in &installed {
        let answers = reader.read(python, lake, &jobs)?;
        for question in &questions {
            let name = &question.name;
            let own = own[name].as_ref().map_err(|error| format!("we cannot read {name}: {error}"))?;
            assert!(!matches!(question.asked, Asked::Part(_)) || !own.is_empty(), "no row is in {name}");
            if let Some(complaint) = complaint(*reader, question, own, &answers[name]) {
                writeln!(report, "{} reads {name} otherwise: {complaint}", reader.name())?;
            }
        }
    }
    if report.is_empty() { Ok(()) } else { Err(report.into()) }
}

/// Which rows of a table are asked for.
#[derive(Debug, Clone, Copy)]
enum Asked {
    /// All of the newest version.
    Whole,
    /// Those of the newest version that a predicate takes.
    Part(&'static str),
    /// All of an older version.
    Version(u64),
}

impl Asked {
    /// Returns what follows the table's name.
    fn sql(self) -> String {
        match self {
            Self::Whole => String::new(),
            Self::Part(filter) => format!(" WHERE {filter}"),
            Self::Version(version) => format!(" VERSION AS OF {version}"),
        }
    }
}

/// A table, or a part of it, to be read by everyone.
#[derive(Debug)]
struct Question {
    kind: &'static str,
    asked: Asked,
    /// The kind, and which of its rows.
    name: String,
    /// As `read.py` wants it.
    job: Value,
    /// How many rows deletion vectors leave out of the newest version.
    n_marked: usize,
}

/// Returns what is to be read of each table, every column by its name, with the rows that we read ourselves.
async fn questions(lake: &Lake, program: &Program) -> TestResult<Vec<Question>> {
    let tables = outline::outlines(lake, &KINDS).await?;
    let mut questions = Vec::new();
    for kind in &KINDS {
        let location = lake.table(&format!("lake.{}", kind.name))?.to_string();
        let Outline { schema, n_marked } = &tables[kind.name];
        let fields = schema["fields"].as_array().ok_or("a schema without fields")?;
        let columns: Vec<String> =
            fields.iter().filter_map(|field| Some(format!("`{}`", field["name"].as_str()?))).collect();
        let parts = kind.filters.iter().copied().map(Asked::Part);
        let older = kind.older_version(lake).await?.map(Asked::Version);
        for asked in [Asked::Whole].into_iter().chain(parts).chain(older) {
            let sql = format!("SELECT {} FROM t{}", columns.join(", "), asked.sql());
            let name = format!("{}{}", kind.name, asked.sql());
            let rows = program.done(&["sql", &location, "--quiet", "--format", "ndjson", "-c", &sql])?;
            let file = program.folder().join(format!("{}.ndjson", questions.len()));
            fs::write(&file, rows)?;
            let mut job = json!({"table": name, "location": location, "schema": schema.to_string(), "rows": file});
            match asked {
                Asked::Whole => {}
                Asked::Part(filter) => job["where"] = json!(filter),
                Asked::Version(version) => job["version"] = json!(version),
            }
            questions.push(Question { kind: kind.name, asked, name, job, n_marked: *n_marked });
        }
    }
    Ok(questions)
}

/// Tells how a reader's answer differs from what it should be: our own rows, or what is known of its gaps.
fn complaint(reader: Reader, question: &Question, own: &[String], answer: &Answer) -> Option<String> {
    let gap = GAPS.iter().find(|gap| gap.reader == reader && gap.kind == question.kind);
    match (difference(own, answer), gap) {
        // What a reader lacks may not show in an older version yet.
        (None, Some(_)) if matches!(question.asked, Asked::Version(_)) => None,
        (Some(_), Some(gap)) if gap.shows.is_in(question, own, answer) => None,
        (Some(difference), Some(gap)) => Some(format!("it lacks {}, but differs by: {difference}", gap.feature)),
        (None, Some(gap)) => Some(format!("it has learnt {}: remove the gap", gap.feature)),
        (difference, None) => difference,
    }
}

fn difference(own: &[String], answer: &Answer) -> Option<String> {
    let rows = match answer {
        Err(error) => return Some(error.clone()),
        Ok(rows) if rows == own => return None,
        Ok(rows) => rows,
    };
    let missing: Vec<_> = own.iter().filter(|row| !rows.contains(row)).take(DIFFERENCES_MAX).collect();
    let extra: Vec<_> = rows.iter().filter(|row| !own.contains(row)).take(DIFFERENCES_MAX).collect();
    Some(format!("{} rows, ours are {}\n  only ours: {missing:#?}\n  only its: {extra:#?}", rows.len(), own.len()))
}

/// The readers of every run.
const IN_THE_GATE: [Reader; 3] = [Reader::DuckDb, Reader::Polars, Reader::Deltalake];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reader_reads_every_kind_of_table_on_local_disk() -> TestResult {
    check_every_kind(&Lake::on_disk()?, &IN_THE_GATE).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reader_reads_every_kind_of_table_on_minio() -> TestResult {
    let Some(bucket) = services::minio()? else { return Ok(()) };
    check_every_kind(&Lake::in_bucket(&bucket)?, &IN_THE_GATE).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reader_reads_every_kind_of_table_on_versity() -> TestResult {
    let Some(bucket) = services::versity()? else { return Ok(()) };
    check_every_kind(&Lake::in_bucket(&bucket)?, &IN_THE_GATE).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spark_reads_every_kind_of_table() -> TestResult {
    check_every_kind(&Lake::on_disk()?, &[Reader::Spark]).await
}
