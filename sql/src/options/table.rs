//! The properties of a table: ours, beside [Delta's](super::delta).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::reading::{Reading, one_of, plain};
use super::{Known, delta, units};
use crate::diagnostic::{Diagnostic, SourceText, TextSpan};
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
    let known = KNOWN.into_iter().chain(delta::known_properties()).collect();
    let mut reading = Reading { source, owner, written, known, diagnostics };
    let refused: Vec<&str> =
        written.iter().map(|option| option.key.value.as_str()).filter(|key| delta::refusal(key).is_some()).collect();
    reading.check(&[], &refused);
    delta::check(&mut reading);
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
