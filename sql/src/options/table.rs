//! The properties of a table: ours, and Delta's as far as they do not break a promise.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::reading::{Reading, one_of, plain};
use super::{Known, units};
use crate::diagnostic::{Diagnostic, SourceText, TextSpan, code};
use crate::statement::WrittenOption;

const KNOWN: [Known; 3] = [
    Known {
        key: "alluvium.tombstone.retention",
        default: Some("7 days"),
        doc: "how long deletes are remembered against late rows",
    },
    Known { key: "alluvium.upsert", default: Some("merge-on-read"), doc: "merge-on-read" },
    Known { key: "delta.checkpointPolicy", default: Some("classic"), doc: "classic or v2" },
];

/// How properties begin that would break a promise or ask for what the writer does not write.
const REFUSED: [(&str, &str); 11] = [
    ("delta.setTransactionRetentionDuration", "positions are kept in the table's log and must not expire"),
    ("delta.enableChangeDataFeed", "change data feeds are not supported yet"),
    ("delta.columnMapping.", "column mapping is not supported yet"),
    ("delta.feature.", "the protocol follows from what the table uses"),
    ("delta.minReaderVersion", "the protocol follows from what the table uses"),
    ("delta.minWriterVersion", "the protocol follows from what the table uses"),
    ("delta.enableRowTracking", "row tracking is not supported yet"),
    ("delta.enableInCommitTimestamps", "in-commit timestamps are not supported yet"),
    ("delta.enableIcebergCompat", "Iceberg compatibility is not supported yet"),
    ("delta.universalFormat.", "Iceberg compatibility is not supported yet"),
    ("delta.constraints.", "constraints are not supported yet"),
];

/// What the properties of a table mean.
#[derive(Debug, Clone)]
pub(crate) struct TableSettings {
    /// How long deletes are remembered.
    pub(crate) tombstone_retention: Duration,
    /// All properties as written.
    pub(crate) written: BTreeMap<String, String>,
}

/// Returns what the properties of the table that is named at `owner` mean, and reports what is wrong with them.
pub(crate) fn table_settings(
    source: &Arc<SourceText>,
    owner: TextSpan,
    written: &[WrittenOption],
    diagnostics: &mut Vec<Diagnostic>,
) -> TableSettings {
    let mut reading = Reading { source, owner, written, known: KNOWN.to_vec(), diagnostics };
    let deltas: Vec<&str> =
        written.iter().map(|option| option.key.value.as_str()).filter(|key| key.starts_with("delta.")).collect();
    reading.check(&[], &deltas);
    for option in written {
        let key = option.key.value.as_str();
        let refused = REFUSED.iter().find(|(prefix, _)| key.starts_with(prefix));
        if let Some((_, reason)) = refused {
            let message = format!("property '{key}' cannot be set");
            let diagnostic = Diagnostic::new(code::OWNED_OPTION, source, option.key.span.clone(), message);
            reading.report(diagnostic.with_hint(*reason));
        }
    }
    reading.value("alluvium.upsert", upsert);
    reading.value("delta.checkpointPolicy", checkpoint_policy);
    TableSettings {
        tombstone_retention: reading
            .value("alluvium.tombstone.retention", units::duration)
            .unwrap_or(Duration::from_secs(7 * 86_400)),
        written: written
            .iter()
            .filter_map(|option| Some((option.key.value.clone(), plain(&option.value.value)?)))
            .collect(),
    }
}

/// Other engines compare the word exactly.
fn checkpoint_policy(text: &str) -> Result<(), String> {
    if matches!(text, "classic" | "v2") { Ok(()) } else { Err(format!("'{text}' is none of classic, v2")) }
}

fn upsert(text: &str) -> Result<(), String> {
    match one_of(text, &["merge-on-read", "copy-on-write"])? {
        "merge-on-read" => Ok(()),
        other => Err(format!("'{other}' is not supported yet")),
    }
}
