//! What deletion vectors must not be: of a row that their file does not have, and, where the engine wrote them, in more
//! files than a commit needs or of a file that has no row left.
//!
//! `protocol.rs` has the versions before it, and reads the files that vectors lie in.

use std::collections::BTreeSet;

use roaring::RoaringTreemap;
use serde_json::Value;

use super::{MAGIC, Replay, is_ours};
use crate::harness::TestResult;

impl Replay {
    /// Notes what a version of the engine must not say of vectors.
    pub(super) fn check_vectors(&mut self, version: u64, lines: &[Value]) {
        let info = lines.iter().filter_map(|line| line.get("commitInfo")).find(|info| is_ours(info));
        let run = info.and_then(|info| info["alluvium.lineage"]["run"].as_str()).map(str::to_owned);
        if info.is_some() {
            let adds: Vec<&Value> = lines.iter().filter_map(|line| line.get("add")).collect();
            let faults = faults_of(&adds, files_max(run.as_deref(), self.landed_by.as_deref()));
            self.faults.extend(faults.into_iter().map(|fault| format!("version {version} {fault}")));
        }
        self.landed_by = run;
    }
}

/// Returns in how many files the vectors of a commit may lie that `run` has landed as a batch, where the version before
/// is a batch of the run `before`.
///
/// Vectors lie in one file. Those of a batch are written before its commit is drawn up, and some again where another
/// commit has come between. Right behind a batch of the same process none has. Of a compaction, which has no run here,
/// all are written when its commit is drawn up.
fn files_max(run: Option<&str>, before: Option<&str>) -> usize {
    if run.is_none() || run == before { 1 } else { 2 }
}

/// Returns what is wrong with the vectors of the files that a commit of the engine adds.
fn faults_of(adds: &[&Value], files_max: usize) -> Vec<String> {
    let mut faults = Vec::new();
    let files: BTreeSet<&str> = adds.iter().filter_map(|add| file_of(&add["deletionVector"])).collect();
    if files.len() > files_max {
        faults.push(format!("has its vectors in {} files, and {files_max} may be", files.len()));
    }
    for add in adds.iter().filter(|add| !add["deletionVector"].is_null()) {
        let path = add["path"].as_str().unwrap_or_default();
        faults.extend(fault_of(add).map(|fault| format!("adds {path} with a vector {fault}")));
    }
    faults
}

/// Returns what names the file that a vector lies in; nothing where it stands in the log.
fn file_of(vector: &Value) -> Option<&str> {
    if vector["storageType"] == "u" { vector["pathOrInlineDv"].as_str() } else { None }
}

/// Returns what is wrong with the vector of a file that the engine adds, as far as the log tells.
fn fault_of(add: &Value) -> Option<String> {
    let vector = &add["deletionVector"];
    let Some(n_rows) = n_rows(add) else { return Some("and without a number of rows".to_owned()) };
    if vector["cardinality"].as_u64().is_none_or(|n_gone| n_gone >= n_rows) {
        return Some(format!("that says {} of its {n_rows} rows are gone", vector["cardinality"]));
    }
    if vector["storageType"] != "i" {
        return None;
    }
    let bytes = z85::decode(vector["pathOrInlineDv"].as_str().unwrap_or_default());
    match bytes.map_err(Into::into).and_then(|bytes| decoded(vector, &bytes)) {
        Ok(gone) => row_behind(add, &gone),
        Err(error) => Some(format!("that cannot be read: {error}")),
    }
}

/// Returns the rows of a vector out of its bytes, held against what the log says of it.
pub(super) fn decoded(vector: &Value, bytes: &[u8]) -> TestResult<RoaringTreemap> {
    let size = usize::try_from(vector["sizeInBytes"].as_u64().ok_or("a vector has no size")?)?;
    let body = bytes.get(..size).ok_or("a vector is cut off")?;
    let body = body.strip_prefix(&MAGIC).ok_or("a vector does not begin with its mark")?;
    let gone = RoaringTreemap::deserialize_from(body)?;
    if vector["cardinality"].as_u64() != Some(gone.len()) {
        return Err(format!("a vector has {} rows, the log says {}", gone.len(), vector["cardinality"]).into());
    }
    Ok(gone)
}

/// Returns what is wrong where `gone` names a row at or behind the number of rows that the log tells of the file.
pub(super) fn row_behind(add: &Value, gone: &RoaringTreemap) -> Option<String> {
    let (n_rows, last) = (n_rows(add)?, gone.max()?);
    (last >= n_rows).then(|| format!("of row {last}, and has {n_rows} rows"))
}

fn n_rows(add: &Value) -> Option<u64> {
    let stats: Value = serde_json::from_str(add["stats"].as_str()?).ok()?;
    stats["numRecords"].as_u64()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Checks which faults the vectors of versions from 0 on have.
    fn check(versions: &[Vec<Value>], expected: &[&str]) {
        let mut replay = Replay::default();
        for (version, lines) in (0..).zip(versions) {
            replay.check_vectors(version, lines);
        }
        assert_eq!(replay.faults, expected, "{versions:?}");
    }

    /// A batch, with these vectors on files of four rows.
    fn batch(run: &str, vectors: &[Value]) -> Vec<Value> {
        commit(&json!({"engineInfo": "alluvium/0.1.0", "alluvium.lineage": {"run": run}}), vectors)
    }

    fn compaction(vectors: &[Value]) -> Vec<Value> {
        commit(&json!({"engineInfo": "alluvium/0.1.0", "operation": "OPTIMIZE"}), vectors)
    }

    fn foreign(vectors: &[Value]) -> Vec<Value> {
        commit(&json!({"engineInfo": "delta-rs:1", "operation": "DELETE"}), vectors)
    }

    fn commit(info: &Value, vectors: &[Value]) -> Vec<Value> {
        let add = |(place, vector): (usize, &Value)| {
            let (path, stats) = (format!("f{place}"), r#"{"numRecords":4}"#);
            json!({"add": {"path": path, "stats": stats, "deletionVector": vector}})
        };
        let mut lines = vec![json!({"commitInfo": info}), json!({"add": {"path": "whole", "deletionVector": null}})];
        lines.extend(vectors.iter().enumerate().map(add));
        lines
    }

    fn filed(file: &str, cardinality: u64) -> Value {
        json!({"storageType": "u", "pathOrInlineDv": file, "offset": 1, "sizeInBytes": 40, "cardinality": cardinality})
    }

    fn inline(rows: &[u64]) -> TestResult<Value> {
        let mut bytes = MAGIC.to_vec();
        RoaringTreemap::from_iter(rows.iter().copied()).serialize_into(&mut bytes)?;
        let size = bytes.len();
        bytes.resize(size.next_multiple_of(4), 0);
        let text = z85::encode(&bytes);
        Ok(json!({"storageType": "i", "pathOrInlineDv": text, "sizeInBytes": size, "cardinality": rows.len()}))
    }

    #[test]
    fn a_second_file_of_vectors_needs_a_commit_that_came_between() -> TestResult {
        let (one, two) = (vec![filed("x", 1), filed("x", 2), inline(&[3])?], vec![filed("x", 1), filed("y", 1)]);
        let three = vec![filed("x", 1), filed("y", 1), filed("z", 1)];
        check(&[batch("a", &one), batch("a", &one), compaction(&one)], &[]);
        check(&[batch("a", &one), foreign(&three), batch("a", &two)], &[]);
        check(&[batch("b", &one), batch("a", &two)], &[]);
        check(&[batch("a", &one), batch("a", &two)], &["version 1 has its vectors in 2 files, and 1 may be"]);
        check(&[foreign(&one), batch("a", &three)], &["version 1 has its vectors in 3 files, and 2 may be"]);
        check(&[foreign(&one), compaction(&two)], &["version 1 has its vectors in 2 files, and 1 may be"]);
        Ok(())
    }

    #[test]
    fn a_file_without_a_row_left_is_no_file_of_ours() -> TestResult {
        let (left, none_left) = (vec![inline(&[0, 1, 2])?, filed("x", 3)], vec![inline(&[0, 1, 2, 3])?, filed("x", 4)]);
        let faults = [
            "version 0 adds f0 with a vector that says 4 of its 4 rows are gone",
            "version 0 adds f1 with a vector that says 4 of its 4 rows are gone",
        ];
        check(&[batch("a", &left), compaction(&left), foreign(&none_left)], &[]);
        check(&[batch("a", &none_left)], &faults);
        check(&[compaction(&none_left)], &faults);
        let mut untold = batch("a", &[filed("x", 1)]);
        untold[2]["add"]["stats"] = Value::Null;
        check(&[untold], &["version 0 adds f0 with a vector and without a number of rows"]);
        Ok(())
    }

    #[test]
    fn a_vector_has_rows_of_its_file_only() -> TestResult {
        check(&[batch("a", &[inline(&[0, 3])?])], &[]);
        let faults = ["version 0 adds f0 with a vector of row 4, and has 4 rows"];
        check(&[batch("a", &[inline(&[0, 4])?])], &faults);
        check(&[compaction(&[inline(&[0, 4])?])], &faults);
        let mut miscounted = inline(&[0, 3])?;
        miscounted["cardinality"] = json!(1);
        let fault = "version 0 adds f0 with a vector that cannot be read: a vector has 2 rows, the log says 1";
        check(&[batch("a", &[miscounted])], &[fault]);
        // What lies in a file is held against the log when the rows are read.
        let add = json!({"path": "f0", "stats": r#"{"numRecords":4}"#});
        assert_eq!(row_behind(&add, &RoaringTreemap::from_iter([3])), None);
        assert_eq!(row_behind(&add, &RoaringTreemap::from_iter([4])).as_deref(), Some("of row 4, and has 4 rows"));
        Ok(())
    }
}
