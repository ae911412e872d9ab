//! The auditor: holds tables against the ledger. It reads tables and their logs as anyone could, and asks no engine.
//!
//! | law | what is held against what |
//! |---|---|
//! | nothing lost, nothing twice | the append table's (partition, offset) against the ledger's valid records |
//! | newest by key | the upsert table against a replay of the ledger |
//! | nothing vanishes | dead letters against the ledger's broken records; the fates of each commit against its records |
//! | no gap, no overlap | the spans of a table's commits against each other, and their end against the ledger's ends |
//! | one author | each write id is in one version |

use std::collections::{BTreeMap, BTreeSet};

use alluvium_catalog::Location;
use serde_json::Value;

use super::TestResult;
use super::lake::Lake;
use super::ledger::{Ledger, Place, Row};
use super::pipeline::{JOURNAL, REJECTS, STATE};
use super::reader::{self, LogVersion};

/// Holds the tables of both flows, and their dead letters, against the ledger.
pub(crate) async fn both_flows(lake: &Lake, ledger: &Ledger, topic: &str) -> TestResult {
    let mut faults = Vec::new();
    journal(lake, ledger, &mut faults).await?;
    state(lake, ledger, &mut faults).await?;
    rejects(lake, ledger, &mut faults).await?;
    let flow = |flow| Flow { flow, topic };
    log(lake, &lake.table(JOURNAL)?, ledger, (&flow("journal"), &mut faults)).await?;
    log(lake, &lake.table(STATE)?, ledger, (&flow("state"), &mut faults)).await?;
    verdict(&faults)
}

/// Which flow's positions are looked at.
struct Flow<'a> {
    flow: &'a str,
    topic: &'a str,
}

/// Fails with the first faults, if there are any.
fn verdict(faults: &[String]) -> TestResult {
    const SHOWN: usize = 20;
    if faults.is_empty() {
        return Ok(());
    }
    let shown = faults.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join("\n  ");
    Err(format!("{} faults:\n  {shown}", faults.len()).into())
}

async fn journal(lake: &Lake, ledger: &Ledger, faults: &mut Vec<String>) -> TestResult {
    let sql = "SELECT part, pos, id, seq, note FROM t ORDER BY part, pos";
    let mut wanted = ledger.journal();
    for row in reader::rows(lake, &lake.table(JOURNAL)?, sql).await? {
        let place = place(&row, "part", "pos")?;
        let read = (integer(&row, "id")?, integer(&row, "seq")?, text(&row, "note"));
        match wanted.remove(&place) {
            Some(produced) if produced == read => {}
            Some(produced) => faults.push(format!("journal {place:?} is {read:?}, produced was {produced:?}")),
            None => faults.push(format!("journal {place:?} {read:?} is there twice, or was never produced")),
        }
    }
    faults.extend(wanted.iter().map(|(place, row)| format!("journal {place:?} {row:?} is lost")));
    Ok(())
}

async fn state(lake: &Lake, ledger: &Ledger, faults: &mut Vec<String>) -> TestResult {
    let sql = "SELECT id, seq, note, part, pos FROM t ORDER BY id, pos";
    let mut wanted = ledger.state();
    for row in reader::rows(lake, &lake.table(STATE)?, sql).await? {
        let id = integer(&row, "id")?;
        let read = Row { seq: integer(&row, "seq")?, note: text(&row, "note"), place: place(&row, "part", "pos")? };
        match wanted.remove(&id) {
            Some(produced) if produced == read => {}
            Some(produced) => faults.push(format!("state {id} is {read:?}, the ledger says {produced:?}")),
            None => faults.push(format!("state {id} {read:?} is there twice, or should not be there")),
        }
    }
    faults.extend(wanted.iter().map(|(id, row)| format!("state {id} {row:?} is missing")));
    Ok(())
}

async fn rejects(lake: &Lake, ledger: &Ledger, faults: &mut Vec<String>) -> TestResult {
    let sql = "SELECT flow, \"partition\", \"offset\", encode(\"value\", 'hex') AS value FROM t \
               ORDER BY flow, \"partition\", \"offset\"";
    let duckdb = "SELECT flow, \"partition\", \"offset\", lower(hex(\"value\")) AS value FROM t \
                  ORDER BY flow, \"partition\", \"offset\"";
    let table = lake.table(REJECTS)?;
    let rows: Vec<Value> =
        reader::deltalake_rows(lake, &table, sql).await?.into_iter().map(reader::without_nulls).collect();
    if let Some(others) = reader::duckdb_rows(lake, &table, duckdb)? {
        let others: Vec<Value> = others.into_iter().map(reader::without_nulls).collect();
        if rows != others {
            faults.push(format!("deltalake reads {} dead letters, DuckDB {} others", rows.len(), others.len()));
        }
    }
    let of = |flow: &'static str, places: Vec<Place>| places.into_iter().map(move |place| (flow.to_owned(), place));
    let mut wanted: BTreeSet<(String, Place)> =
        of("journal", ledger.journal_rejects()).chain(of("state", ledger.state_rejects())).collect();
    for row in rows {
        let letter = (text(&row, "flow").unwrap_or_default(), place(&row, "partition", "offset")?);
        let produced = ledger.record(letter.1).and_then(super::ledger::Record::value).map(|bytes| hex(&bytes));
        if produced != text(&row, "value") {
            faults.push(format!("dead letter {letter:?} does not hold the bytes that were produced"));
        }
        if !wanted.remove(&letter) {
            faults.push(format!("dead letter {letter:?} is there twice, or is no reject"));
        }
    }
    faults.extend(wanted.iter().map(|letter| format!("dead letter {letter:?} is lost")));
    Ok(())
}

/// Checks what a table's log says of positions, spans and fates.
async fn log(
    lake: &Lake,
    table: &Location,
    ledger: &Ledger,
    (flow, faults): (&Flow<'_>, &mut Vec<String>),
) -> TestResult {
    let versions = reader::log(lake, table).await?;
    let mut reached: BTreeMap<i32, i64> = BTreeMap::new();
    let mut authors = BTreeSet::new();
    let mut n_records = 0;
    for entry in &versions {
        let Some(lineage) = entry.lineage() else { continue };
        let at = format!("{} version {}", flow.flow, entry.version);
        if !authors.insert(lineage["write_id"].to_string()) {
            faults.push(format!("{at}: its write id stands in an earlier version"));
        }
        n_records += balance(&lineage["fate"], &at, faults);
        follow(lineage, &mut reached, &at, faults);
        for (partition, offset) in positions(entry, flow) {
            if reached.get(&partition) != Some(&offset) {
                faults.push(format!("{at}: txn of partition {partition} is {offset}, the spans reach {reached:?}"));
            }
        }
    }
    if n_records != ledger.len() as u64 {
        faults.push(format!("{}: the fates account for {n_records} of {} records", flow.flow, ledger.len()));
    }
    for (partition, end) in ledger.ends() {
        if reached.get(&partition) != Some(&end) {
            faults.push(format!("{}: partition {partition} ends at {end}, reached is {reached:?}", flow.flow));
        }
    }
    Ok(())
}

/// Returns the positions that a version sets for a flow's own table.
fn positions(entry: &LogVersion, flow: &Flow<'_>) -> BTreeMap<i32, i64> {
    let prefix = format!("alluvium/{}/{}/", flow.flow, flow.topic);
    let position = |txn: &Value| {
        let partition = txn["appId"].as_str()?.strip_prefix(&prefix)?.parse().ok()?;
        Some((partition, txn["version"].as_i64()?))
    };
    entry.actions("txn").filter_map(position).collect()
}

/// Checks that the fates of a commit add up, and returns how many records it had.
fn balance(fate: &Value, at: &str, faults: &mut Vec<String>) -> u64 {
    let count = |name: &str| fate[name].as_u64().unwrap_or_default();
    let records = count("records_in");
    let fates: u64 =
        ["applied", "merged", "filtered", "dropped", "quarantined", "dead_lettered"].into_iter().map(count).sum();
    if records != fates {
        faults.push(format!("{at}: {records} records have {fates} fates"));
    }
    records
}

/// Checks that each span begins where the one before it ended.
fn follow(lineage: &Value, reached: &mut BTreeMap<i32, i64>, at: &str, faults: &mut Vec<String>) {
    let inputs = lineage["inputs"].as_array().into_iter().flatten();
    for range in inputs.filter_map(|input| input["ranges"].as_array()).flatten() {
        let (Some(partition), Some(first), Some(next)) =
            (range["partition"].as_i64(), range["first"].as_i64(), range["next"].as_i64())
        else {
            faults.push(format!("{at}: {range} is not a range"));
            continue;
        };
        let partition = i32::try_from(partition).unwrap_or(-1);
        let before = reached.insert(partition, next).unwrap_or(0);
        if before != first {
            faults.push(format!("{at}: partition {partition} begins at {first}, the one before ended at {before}"));
        }
    }
}

fn place(row: &Value, partition: &str, offset: &str) -> TestResult<Place> {
    Ok((i32::try_from(integer(row, partition)?)?, integer(row, offset)?))
}

fn integer(row: &Value, name: &str) -> TestResult<i64> {
    row[name].as_i64().ok_or_else(|| format!("'{name}' of {row} is no integer").into())
}

fn text(row: &Value, name: &str) -> Option<String> {
    row[name].as_str().map(str::to_owned)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
