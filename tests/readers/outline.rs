//! What logs say of the tables that were written: what to ask the readers for, and how many rows they must leave out.

use std::collections::BTreeMap;

use serde_json::Value;

use super::kind::{self, Kind};
use crate::harness::TestResult;
use crate::harness::lake::Lake;

/// What the log says of a table's newest version.
#[derive(Debug)]
pub(super) struct Outline {
    /// Every column, hidden ones too.
    pub(super) schema: Value,
    /// How many rows deletion vectors leave out.
    pub(super) n_marked: usize,
}

/// Returns the outline of each table.
pub(super) async fn outlines(lake: &Lake, kinds: &[Kind]) -> TestResult<BTreeMap<&'static str, Outline>> {
    let mut outlines = BTreeMap::new();
    for kind in kinds {
        let state = kind::state(lake, kind).await?;
        let vectors = state.files.values().filter_map(|add| add.deletion_vector.as_ref());
        let n_marked = usize::try_from(vectors.map(|vector| vector.cardinality).sum::<i64>())?;
        outlines.insert(kind.name, Outline { schema: serde_json::from_str(&state.metadata.schema_string)?, n_marked });
    }
    Ok(outlines)
}
