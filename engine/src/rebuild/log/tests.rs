//! What the module `log` promises, tested.

use alluvium_catalog::Fate;
use serde_json::json;

use super::*;
use crate::delta::log::Version;

/// Reads the lines of a commit file, as the log's reader does.
fn entry(version: Version, lines: &[Value]) -> Result<LogEntry> {
    let mut entry = LogEntry { version, actions: Vec::new(), info: Value::Null };
    for line in lines {
        for (kind, body) in line.as_object().into_iter().flatten() {
            if kind == "commitInfo" {
                entry.info = body.clone();
                continue;
            }
            let action = Action::parse(kind, body.clone());
            entry.actions.extend(action.map_err(|source| Error::internal("test line").with_source(source))?);
        }
    }
    Ok(entry)
}

fn lineage() -> Value {
    json!({
        "v": 1, "flow": "orders_upsert", "sql_hash": "ab", "engine": "0.1.0",
        "run": "0190a0a0-0000-7000-8000-000000000001", "write_id": "0190a0a0-0000-7000-8000-000000000002",
        "inputs": [{"kind": "kafka", "topic": "shop.orders",
                    "ranges": [{"partition": 0, "first": 5, "next": 9, "records": 4}]}],
        "fate": {"records_in": 4, "applied": 3, "dead_lettered": 1},
        "rows_inserted": 2, "rows_updated": 1, "rows_deleted": 0, "millis": {"fetch": 10},
        "a field of a later version": true,
    })
}

fn add(path: &str, size: i64, vector: Option<&str>) -> Value {
    let mut body =
        json!({"path": path, "partitionValues": {}, "size": size, "modificationTime": 0, "dataChange": true});
    if let Some(id) = vector {
        body["deletionVector"] =
            json!({"storageType": "u", "pathOrInlineDv": id, "offset": 1, "sizeInBytes": 36, "cardinality": 2});
    }
    json!({"add": body})
}

fn remove(path: &str) -> Value {
    json!({"remove": {"path": path, "dataChange": true, "deletionTimestamp": 0}})
}

fn place() -> Result<(TableName, Location)> {
    Ok(("silver.orders".parse()?, "memory:///silver/orders".parse()?))
}

#[test]
fn version_of_a_flow_becomes_a_commit() -> Result<()> {
    let (table, location) = place()?;
    let info = json!({"commitInfo": {"timestamp": 1_700_000_000_000_i64, "alluvium.lineage": lineage()}});
    let lines = [
        info,
        add("new.parquet", 700, None),
        add("old.parquet", 90, Some("aaaaaaaaaaaaaaaaaaaa")),
        remove("old.parquet"),
        remove("gone.parquet"),
    ];
    let Some(commit) = commit_of(&entry(17, &lines)?, &table, &location)? else {
        return Err(Error::internal("no commit was found"));
    };
    assert_eq!((commit.version, commit.committed_at), (17, Timestamp(1_700_000_000_000)));
    assert_eq!((commit.files_added, commit.files_removed, commit.bytes_added, commit.vectors_written), (1, 1, 700, 1));
    assert_eq!(commit.lineage.fate, Fate { records_in: 4, applied: 3, dead_lettered: 1, ..Fate::default() });
    assert!(commit.lineage.fate.is_balanced());
    Ok(())
}

#[test]
fn version_of_another_writer_is_no_commit() -> Result<()> {
    let (table, location) = place()?;
    let lines = [json!({"commitInfo": {"timestamp": 1, "operation": "OPTIMIZE"}}), add("compacted.parquet", 1, None)];
    assert_eq!(commit_of(&entry(3, &lines)?, &table, &location)?, None);
    assert_eq!(commit_of(&entry(4, &[add("bare.parquet", 1, None)])?, &table, &location)?, None);
    Ok(())
}

#[test]
fn lineage_that_was_turned_into_text_still_reads() -> Result<()> {
    let (table, location) = place()?;
    let info =
        json!({"commitInfo": {"inCommitTimestamp": 7, "timestamp": 5, "alluvium.lineage": lineage().to_string()}});
    let commit = commit_of(&entry(1, &[info])?, &table, &location)?;
    assert_eq!(commit.map(|commit| commit.committed_at), Some(Timestamp(7)));
    Ok(())
}

#[test]
fn damaged_lineage_names_version_and_place() -> Result<()> {
    let (table, location) = place()?;
    for damaged in [json!("{"), json!(5), json!({"v": 1}), json!(null)] {
        let info = json!({"commitInfo": {"alluvium.lineage": damaged}});
        let refused = commit_of(&entry(9, &[info])?, &table, &location).map_err(|error| error.to_string());
        let expected = "cannot read the lineage of version 9 of the table at memory:///silver/orders";
        assert_eq!(refused.err().as_deref(), Some(expected), "{damaged}");
    }
    Ok(())
}
