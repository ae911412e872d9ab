//! The options of a flow: when its batches close.

use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::reading::Reading;
use super::{Known, units};
use crate::diagnostic::{Diagnostic, SourceText, TextSpan};
use crate::pipeline::BatchLimits;
use crate::statement::WrittenOption;

const KNOWN: [Known; 3] = [
    Known { key: "commit.interval", default: Some("10 seconds"), doc: "the longest time that a batch gathers rows" },
    Known { key: "commit.rows", default: Some("125000"), doc: "the most records of a batch" },
    Known { key: "commit.bytes", default: Some("256 MB"), doc: "the most bytes of a batch" },
];

/// Returns when the batches of the flow that is named at `owner` close, by `default` where it says nothing, and reports
/// what is wrong with its options.
pub(crate) fn batch_limits(
    source: &Arc<SourceText>,
    owner: TextSpan,
    written: &[WrittenOption],
    default: BatchLimits,
    diagnostics: &mut Vec<Diagnostic>,
) -> BatchLimits {
    let mut reading = Reading { source, owner, written, known: KNOWN.to_vec(), diagnostics };
    reading.check(&[], &[]);
    let rows =
        |text: &str| units::count(text).and_then(|rows| within(rows as u64, &BatchLimits::ROWS, text).map(|_| rows));
    let bytes =
        |text: &str| units::bytes(text).and_then(|size| within(size as u64, &BatchLimits::BYTES, text).map(|_| size));
    let interval = |text: &str| units::duration(text).and_then(|wait| within(wait, &BatchLimits::INTERVAL, text));
    BatchLimits {
        rows_max: reading.written_value("commit.rows", rows).unwrap_or(default.rows_max),
        bytes_max: reading.written_value("commit.bytes", bytes).unwrap_or(default.bytes_max),
        interval: reading.written_value("commit.interval", interval).unwrap_or(default.interval),
    }
}

fn within<T: PartialOrd + Debug>(value: T, range: &RangeInclusive<T>, text: &str) -> Result<T, String> {
    if range.contains(&value) {
        return Ok(value);
    }
    Err(format!("'{text}' is not within {:?} and {:?}", range.start(), range.end()))
}
