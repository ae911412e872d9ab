//! Golden pipelines: `pipelines/<name>.sql`, what its topics hold, and the tables that come of it.
//!
//! Each runs as a process on the embedded broker. A line of `<name>.input.jsonl` is a record (`topic`, and where given
//! `partition`, `key`, `value`, `text`, `headers`, `timestamp`), or `{"run": true}`: the program runs until all before it
//! has landed, and once more at the end; `{"file": path, "text": ..}` writes a file, and with `register` and `kind` its folder
//! is registered under that name. `value` is JSON, `text` raw text; without either the record is a tombstone. A
//! line of `<name>.expected.jsonl` is a row of a table, in order of its text. `ALLUVIUM_TEST_UPDATE=1` writes that file.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use alluvium::source::kafka::embedded::{EmbeddedBroker, Message};
use alluvium_catalog::Partition;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::harness::TestResult;
use crate::harness::lake::Lake;
use crate::harness::program::Program;
use crate::harness::reader::{self, without_nulls};
use crate::harness::shop::embedded_options;

/// What stands in the SQL files where the embedded broker's own options belong.
const BROKER: &str = "'bootstrap.servers' = 'broker:9092'";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines")
}

fn lines(path: &Path) -> TestResult<Vec<Value>> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let parse = |(number, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| format!("{}:{}: {error}", path.display(), number + 1).into())
    };
    text.lines().enumerate().filter(|(_, line)| !line.is_empty()).map(parse).collect()
}

/// Returns the topics of an input with the number of their partitions.
fn topics(input: &[Value]) -> BTreeMap<&str, i32> {
    let mut topics = BTreeMap::new();
    for line in input {
        let Some(topic) = line["topic"].as_str() else { continue };
        let partition = line["partition"].as_i64().and_then(|partition| i32::try_from(partition).ok()).unwrap_or(0);
        let n_partitions = topics.entry(topic).or_insert(1);
        *n_partitions = (*n_partitions).max(partition + 1);
    }
    topics
}

async fn produce(broker: &EmbeddedBroker, line: &Value) -> TestResult {
    let topic = line["topic"].as_str().ok_or_else(|| format!("{line} has no topic"))?;
    let key = line["key"].as_str().map(str::to_owned);
    let key = key.or_else(|| line.get("key").filter(|key| !key.is_null()).map(Value::to_string));
    let value = line["text"].as_str().map(str::to_owned).or_else(|| line.get("value").map(Value::to_string));
    let headers = line["headers"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.clone(), value.as_str().map(|text| Bytes::copy_from_slice(text.as_bytes()))));
    let partition = line["partition"].as_i64().unwrap_or(0);
    let message = Message {
        partition: Some(Partition(i32::try_from(partition)?)),
        key: key.as_deref().map(str::as_bytes),
        value: value.as_deref().map(str::as_bytes),
        headers: headers.collect(),
        timestamp_ms: Some(line["timestamp"].as_i64().unwrap_or(1_772_366_400_000)),
    };
    Ok(broker.produce(topic, message).await?)
}

/// Writes a file and registers its folder, where that is asked for.
fn lay(program: &Program, line: &Value, name: &str) -> TestResult {
    let path = program.folder().join(name);
    let folder = path.parent().ok_or_else(|| format!("{line} names no file"))?;
    fs::create_dir_all(folder)?;
    fs::write(&path, line["text"].as_str().ok_or_else(|| format!("{line} has no text"))?)?;
    let (Some(dataset), Some(kind)) = (line["register"].as_str(), line["kind"].as_str()) else { return Ok(()) };
    program.done(&["catalog", "register", dataset, &folder.display().to_string(), "--kind", kind]).map(drop)
}

/// Returns the rows of every table, as lines.
async fn tables(lake: &Lake, program: &Program) -> TestResult<Vec<String>> {
    let listed = program.json(&["catalog", "list", "--json"])?;
    let mut rows = Vec::new();
    let is_table = |dataset: &&Value| matches!(dataset["kind"].as_str(), Some("delta" | "dead_letter"));
    for dataset in listed["datasets"].as_array().into_iter().flatten().filter(is_table) {
        let name = dataset["name"].as_str().unwrap_or_default();
        let location = dataset["location"].as_str().unwrap_or_default().parse()?;
        for row in reader::deltalake_rows(lake, &location, "SELECT * FROM t").await? {
            let Value::Object(mut row) = without_nulls(row) else { continue };
            // A hash of the pipeline's text says nothing that a reviewer could check.
            row.retain(|column, _| !column.starts_with("_alluvium_") && column != "sql_hash");
            rows.push(json!({"table": name, "row": row}).to_string());
        }
    }
    rows.sort_unstable();
    Ok(rows)
}

async fn check(name: &str) -> TestResult {
    let file = |extension: &str| folder().join(format!("{name}.{extension}"));
    let input = lines(&file("input.jsonl"))?;
    let topics: Vec<(&str, i32)> = topics(&input).into_iter().collect();
    let broker = EmbeddedBroker::start(&topics)?;
    let lake = Lake::on_disk()?;
    let program = Program::on(&lake).with("ALLUVIUM_COMMIT_INTERVAL", "300ms");
    let sql = fs::read_to_string(file("sql"))?.replace(BROKER, &embedded_options(broker.bootstrap()));
    program.write("pipeline.sql", &sql)?;
    for line in &input {
        if line["run"] == true {
            broker.flush().await?;
            program.done(&["run", "--once", "pipeline.sql"])?;
        } else if let Some(name) = line["file"].as_str() {
            lay(&program, line, name)?;
        } else {
            produce(&broker, line).await?;
        }
    }
    broker.flush().await?;
    program.done(&["run", "--once", "pipeline.sql"])?;
    let rows = tables(&lake, &program).await?;
    let text = rows.iter().map(|row| format!("{row}\n")).collect::<String>();
    if std::env::var("ALLUVIUM_TEST_UPDATE").is_ok_and(|value| value == "1") {
        fs::write(file("expected.jsonl"), &text)?;
        return Ok(());
    }
    let expected = fs::read_to_string(file("expected.jsonl"))?;
    let expected: Vec<&str> = expected.lines().collect();
    let lost: Vec<_> = expected.iter().filter(|row| !rows.iter().any(|found| found == *row)).collect();
    let extra: Vec<_> = rows.iter().filter(|row| !expected.contains(&row.as_str())).collect();
    assert!(
        lost.is_empty() && extra.is_empty(),
        "{name}\nexpected and not found: {lost:#?}\nfound and not expected: {extra:#?}"
    );
    assert_eq!(rows.len(), expected.len(), "{name}: rows are there twice");
    Ok(())
}

/// Every pipeline has a test of its own below; this finds one that was forgotten.
#[test]
fn every_golden_pipeline_has_a_test() -> TestResult {
    let source = include_str!("pipelines.rs");
    for entry in fs::read_dir(folder())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "sql") {
            let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            assert!(source.contains(&format!("check(\"{name}\")")), "{name} is not run");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nested_and_exact_types_land_as_declared() -> TestResult {
    check("types").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn casts_filters_computed_columns_and_functions_shape_rows() -> TestResult {
    check("shaping").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_of_records_becomes_columns() -> TestResult {
    check("metadata").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_reads_the_other_table_as_it_is_now() -> TestResult {
    check("lookup").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_reads_registered_files_as_they_are_now() -> TestResult {
    check("files").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_go_to_their_partitions() -> TestResult {
    check("partitions").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_apply_in_order_of_sequence_with_deletes_and_tombstones() -> TestResult {
    check("changes").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rejects_are_kept_with_their_reasons() -> TestResult {
    check("rejects").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_apply_alike_to_files_that_are_written_anew() -> TestResult {
    check("rewrites").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_is_refused_whole_and_a_delete_needs_its_place_in_the_order() -> TestResult {
    check("whole_records").await
}
