//! Delta's own table properties: which may be set, to what, and why the others may not.
//!
//! A property that nobody honours would be a promise that the table does not keep, and a misspelt one is kept by every
//! engine and read by none. So the names are those of Delta Lake's `DeltaConfigs` and of the protocol, and a value is
//! written exactly as all engines read it: some take `true` and `interval 7 days`, and no other spelling.

use super::reading::Reading;
use super::{Known, units};
use crate::diagnostic::{Diagnostic, code};

/// Properties that mean something here or to the engines that read the table.
const KNOWN: [Known; 15] = [
    known("delta.appendOnly", "true or false: whether rows are only ever added"),
    known("delta.autoOptimize.autoCompact", "true or false, for other engines that write"),
    known("delta.autoOptimize.optimizeWrite", "true or false, for other engines that write"),
    known("delta.checkpoint.writeStatsAsJson", "true or false, for other engines that write checkpoints"),
    known("delta.checkpoint.writeStatsAsStruct", "true or false, for other engines that write checkpoints"),
    known("delta.checkpointInterval", "a number of commits from one checkpoint to the next"),
    known(
        "delta.dataSkippingNumIndexedCols",
        "a number of columns, -1 for all, for CLUSTER BY and for other engines that write",
    ),
    known("delta.dataSkippingStatsColumns", "columns, as in 'a, b', for CLUSTER BY and for other engines that write"),
    known("delta.deletedFileRetentionDuration", "how long removed files are kept, as in 'interval 7 days'"),
    known("delta.enableDeletionVectors", "true or false: whether rows may be deleted without rewriting their file"),
    known("delta.enableExpiredLogCleanup", "true or false: whether log entries past their retention are removed"),
    known("delta.isolationLevel", "Serializable or WriteSerializable, for other engines that write"),
    known("delta.logRetentionDuration", "how long log entries are kept, as in 'interval 30 days'"),
    known("delta.targetFileSize", "a size in bytes, for other engines that compact"),
    known("delta.tuneFileSizesForRewrites", "true or false, for other engines that compact"),
];

const fn known(key: &'static str, doc: &'static str) -> Known {
    Known { key, default: None, doc }
}

/// How properties begin that would break a promise or ask for what the writer does not write.
const REFUSED: [(&str, &str); 26] = [
    ("delta.setTransactionRetentionDuration", "positions are kept in the table's log and must not expire"),
    ("delta.enableChangeDataFeed", "change data feeds are not supported yet"),
    ("delta.columnMapping.", "column mapping is not supported yet"),
    ("delta.feature.", "the protocol follows from what the table uses"),
    ("delta.minReaderVersion", "the protocol follows from what the table uses"),
    ("delta.minWriterVersion", "the protocol follows from what the table uses"),
    ("delta.ignoreProtocolDefaults", "the protocol follows from what the table uses"),
    ("delta.enableRowTracking", "row tracking is not supported yet"),
    ("delta.rowTracking", "row tracking is not supported yet"),
    ("delta.enableInCommitTimestamps", "in-commit timestamps are not supported yet"),
    ("delta.inCommitTimestamp", "in-commit timestamps are not supported yet"),
    ("delta.enableIcebergCompat", "Iceberg compatibility is not supported yet"),
    ("delta.enableIcebergWriterCompat", "Iceberg compatibility is not supported yet"),
    ("delta.universalFormat.", "Iceberg compatibility is not supported yet"),
    ("delta.constraints.", "constraints are not supported yet"),
    ("delta.invariants", "constraints are not supported yet; NOT NULL is"),
    ("delta.generationExpression", "generated columns are computed in the flow's query"),
    ("delta.identity.", "identity columns are not supported"),
    ("delta.enableTypeWidening", "type widening is not supported yet"),
    ("delta.enableVariantShredding", "VARIANT is not supported yet"),
    ("delta.clustering", "a table is clustered by the columns of its CLUSTER BY"),
    ("delta.compatibility.symlinkFormatManifest.", "manifests are not written"),
    ("delta.coordinatedCommits.", "commits are put into the table's own log"),
    ("delta.redirect", "a table is where its LOCATION says"),
    ("delta.random", "data files are named by the program"),
    ("delta.parquet.", "data files are written as this program reads them best"),
];

/// Returns the properties that may be set.
pub(super) fn known_properties() -> impl Iterator<Item = Known> {
    KNOWN.into_iter()
}

/// Tells why a property may not be set, if it is known and may not.
pub(super) fn refusal(key: &str) -> Option<&'static str> {
    REFUSED.iter().find(|(prefix, _)| key.starts_with(prefix)).map(|(_, reason)| *reason)
}

/// Reports properties that may not be set and values that no engine would read as they are meant.
pub(super) fn check(reading: &mut Reading<'_>) {
    for option in reading.written {
        let key = option.key.value.as_str();
        if let Some(reason) = refusal(key) {
            let message = format!("property '{key}' cannot be set");
            let diagnostic = Diagnostic::new(code::OWNED_OPTION, reading.source, option.key.span.clone(), message);
            reading.report(diagnostic.with_hint(reason));
        }
    }
    for key in [
        "delta.appendOnly",
        "delta.autoOptimize.autoCompact",
        "delta.autoOptimize.optimizeWrite",
        "delta.checkpoint.writeStatsAsJson",
        "delta.checkpoint.writeStatsAsStruct",
        "delta.enableDeletionVectors",
        "delta.enableExpiredLogCleanup",
        "delta.tuneFileSizesForRewrites",
    ] {
        reading.value(key, boolean);
    }
    for key in ["delta.deletedFileRetentionDuration", "delta.logRetentionDuration"] {
        reading.value(key, interval);
    }
    reading.value("delta.checkpointInterval", units::count);
    reading.value("delta.dataSkippingNumIndexedCols", column_count);
    reading.value("delta.isolationLevel", isolation_level);
    reading.value("delta.targetFileSize", units::bytes);
}

fn boolean(text: &str) -> Result<(), String> {
    if matches!(text, "true" | "false") { Ok(()) } else { Err(format!("'{text}' is none of true, false")) }
}

/// Delta's kernels read one number and one unit behind the word `interval`, and no unit longer than a week.
fn interval(text: &str) -> Result<(), String> {
    let refuse = || format!("'{text}' is not an interval as Delta reads it: write 'interval 7 days'");
    let rest = text.strip_prefix("interval ").ok_or_else(refuse)?;
    let unit = rest.trim_start_matches(|digit: char| digit.is_ascii_digit()).trim_start();
    let is_read = ["second", "minute", "hour", "day", "week"].contains(&unit.strip_suffix('s').unwrap_or(unit));
    if !is_read || rest.trim_end() != rest {
        return Err(refuse());
    }
    units::duration(text).map(drop)
}

fn column_count(text: &str) -> Result<(), String> {
    match text.parse::<i32>() {
        Ok(-1..) => Ok(()),
        _ => Err(format!("'{text}' is neither -1 nor a number of columns")),
    }
}

fn isolation_level(text: &str) -> Result<(), String> {
    let is_known = matches!(text, "Serializable" | "WriteSerializable");
    if is_known { Ok(()) } else { Err(format!("'{text}' is none of Serializable, WriteSerializable")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_taken_as_every_engine_reads_them() {
        for text in
            ["interval 7 days", "interval 1 day", "interval 12 hours", "interval 90 seconds", "interval 2 weeks"]
        {
            assert_eq!(interval(text), Ok(()), "{text}");
        }
        for text in [
            "",
            "7 days",
            "interval",
            "interval ",
            "interval 7",
            "interval days",
            "interval 7days ago",
            "INTERVAL 7 days",
            "interval 1 month",
            "interval 500 ms",
            "interval -1 days",
            "interval 0 days",
            "interval 1 days 2 hours",
            "interval 7 days ",
            "interval 99999999999999999999 days",
        ] {
            assert!(interval(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn no_property_is_both_known_and_refused() {
        for known in KNOWN {
            assert_eq!(refusal(known.key), None, "{}", known.key);
            assert!(!REFUSED.iter().any(|(prefix, _)| known.key.starts_with(prefix)), "{}", known.key);
        }
    }
}
