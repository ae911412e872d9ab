//! The properties of a table: ours, beside [Delta's](super::delta).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::reading::{Reading, one_of, plain};
use super::{Known, delta, units};
use crate::diagnostic::{Diagnostic, SourceText, TextSpan};
use crate::pipeline::{RewriteCap, RewritePolicy, UpsertMode, UpsertOptions};
use crate::statement::WrittenOption;

const KNOWN: [Known; 5] = [
    Known {
        key: "alluvium.tombstone.retention",
        default: Some("7 days"),
        doc: "how long deletes are remembered against late rows",
    },
    Known { key: "alluvium.upsert", default: Some("merge-on-read"), doc: "merge-on-read or copy-on-write" },
    Known {
        key: REWRITE_MAX,
        default: None,
        doc: "the most that one commit may rewrite beside its own rows, as in '512 MB'; without it there is no cap",
    },
    Known { key: REWRITE_POLICY, default: Some("split"), doc: "split or halt" },
    Known { key: "delta.checkpointPolicy", default: Some("classic"), doc: "classic or v2" },
];

/// Those of [`KNOWN`] that say how rows are superseded: where rows are only added, nobody reads them.
pub(crate) const OF_UPSERTS: [&str; 4] =
    ["alluvium.tombstone.retention", "alluvium.upsert", REWRITE_MAX, REWRITE_POLICY];

/// The cap on what a commit rewrites.
const REWRITE_MAX: &str = "alluvium.upsert.rewrite.max";

/// What becomes of a batch above the cap.
const REWRITE_POLICY: &str = "alluvium.upsert.rewrite.policy";

/// What the properties of a table mean.
#[derive(Debug, Clone)]
pub(crate) struct TableSettings {
    /// How long deletes are remembered.
    pub(crate) tombstone_retention: Duration,
    /// How superseded rows leave an upsert table.
    pub(crate) upsert: UpsertOptions,
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
    let upsert = upsert_options(&mut reading);
    reading.value("delta.checkpointPolicy", checkpoint_policy);
    TableSettings {
        tombstone_retention: reading
            .value("alluvium.tombstone.retention", units::duration)
            .unwrap_or(Duration::from_secs(7 * 86_400)),
        upsert,
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

/// Returns how superseded rows leave the table, and reports what does not go together.
fn upsert_options(reading: &mut Reading<'_>) -> UpsertOptions {
    const VECTORS: &str = "delta.enableDeletionVectors";
    let mode = reading.value("alluvium.upsert", upsert_mode).unwrap_or_default();
    let has_vectors = reading.find(VECTORS).and_then(|option| plain(&option.value.value));
    if mode == UpsertMode::CopyOnWrite && has_vectors.is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        reading.refuse(VECTORS, "copy-on-write is for readers without deletion vectors");
    }
    let bytes_max = reading.value(REWRITE_MAX, units::bytes);
    let policy = reading.value(REWRITE_POLICY, rewrite_policy);
    if reading.find(REWRITE_POLICY).is_some() && reading.find(REWRITE_MAX).is_none() {
        reading.refuse(REWRITE_POLICY, format!("it says nothing without '{REWRITE_MAX}'"));
    }
    let cap = bytes_max.zip(policy).map(|(bytes_max, policy)| RewriteCap { bytes_max: bytes_max as u64, policy });
    UpsertOptions { mode, cap }
}

/// Returns how superseded rows leave a table whose properties the catalog keeps: they were checked when it was defined.
pub(crate) fn kept_upsert_options(properties: &BTreeMap<String, String>) -> UpsertOptions {
    let value = |key: &str| properties.get(key).map(String::as_str);
    let mode = value("alluvium.upsert").and_then(|text| upsert_mode(text).ok()).unwrap_or_default();
    let policy = rewrite_policy(value(REWRITE_POLICY).unwrap_or("split")).unwrap_or(RewritePolicy::Split);
    let bytes_max = value(REWRITE_MAX).and_then(|text| units::bytes(text).ok());
    UpsertOptions { mode, cap: bytes_max.map(|bytes_max| RewriteCap { bytes_max: bytes_max as u64, policy }) }
}

fn upsert_mode(text: &str) -> Result<UpsertMode, String> {
    match one_of(text, &["merge-on-read", "copy-on-write"])? {
        "copy-on-write" => Ok(UpsertMode::CopyOnWrite),
        _ => Ok(UpsertMode::MergeOnRead),
    }
}

fn rewrite_policy(text: &str) -> Result<RewritePolicy, String> {
    match one_of(text, &["split", "halt"])? {
        "halt" => Ok(RewritePolicy::Halt),
        _ => Ok(RewritePolicy::Split),
    }
}
