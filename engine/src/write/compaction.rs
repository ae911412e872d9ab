//! Files that hold the rows of other files, and the commit that puts them in their place.
//!
//! A compaction reads files as they are at one version, with their deletion vectors, and writes the rows that live into
//! new files, in the same order or sorted. Batches go on meanwhile and may delete more rows of the files that were read. So
//! each row's [`Way`] is remembered, and [`draw_up`] takes the vectors along: what was deleted since is deleted in the new
//! files. Where whole inputs have left the table, or it has no vectors, [`shrink()`] takes those rows out of the new files.
//! Nothing here commits.
//!
//! Before it: [`upkeep`](crate::upkeep), which writes the files. After it: [`commit`](crate::commit), which lands them.

mod moves;
mod shrink;
mod way;

use alluvium_catalog::Result;
use roaring::RoaringTreemap;

pub use moves::Moves;
pub use shrink::shrink;
pub use way::{Run, Scattered, Way};

use super::Writer;
use super::stats::loosen;
use super::vectors::{VectorFolder, check_fit};
use crate::delta::action::{Action, Add, Metadata, Remove};
use crate::delta::log::Version;
use crate::delta::state::TableState;

/// New files, uploaded and in no version yet, that hold the live rows of others.
#[derive(Debug)]
pub struct Compaction {
    /// The version that was read.
    pub version: Version,
    /// Schema and partitioning at that version: the outputs fit no other.
    pub metadata: Metadata,
    /// The files that were read.
    pub inputs: Vec<Input>,
    /// The files that were written. Their Adds change no data.
    pub outputs: Vec<Output>,
}

/// A file that was read, and where its rows went.
#[derive(Debug, Clone)]
pub struct Input {
    /// The action that made it part of the version that was read.
    pub add: Add,
    /// Rows that were deleted already, and went nowhere.
    pub deleted: RoaringTreemap,
    /// How many rows went somewhere.
    pub live_rows: u64,
    /// Where the other rows went, by their rank among each other.
    pub way: Way,
}

/// A file that was written.
#[derive(Debug, Clone)]
pub struct Output {
    /// The action that makes it part of the table.
    pub add: Add,
    /// How many rows it has.
    pub rows: u64,
}

/// A compaction as it fits one version of the table.
#[derive(Debug)]
pub struct Exchange {
    /// Removes of the inputs, Adds of the outputs.
    pub actions: Vec<Action>,
    /// The rows of each output that are deleted by now. An output without a live row is not added.
    pub deleted: Vec<RoaringTreemap>,
}

/// What a compaction is against one version of the table.
#[derive(Debug)]
#[must_use]
pub enum Drawn {
    /// It fits.
    Fits(Exchange),
    /// It would without these rows of each output, which are gone by now and which no vector is to say: all of their inputs
    /// have left the table, or it has no deletion vectors. What is left of it fits ([`shrink()`]).
    Shrinks(Vec<RoaringTreemap>),
    /// It does not, for this reason: somebody else changed what it stands on.
    Stale(String),
}

impl Compaction {
    /// Returns the bytes that were read.
    pub fn bytes_read(&self) -> u64 {
        self.inputs.iter().map(|input| u64::try_from(input.add.size).unwrap_or(0)).sum()
    }

    /// Returns the bytes that were written.
    pub fn bytes_written(&self) -> u64 {
        self.outputs.iter().map(|output| u64::try_from(output.add.size).unwrap_or(0)).sum()
    }
}

impl Input {
    /// Returns the output that holds row `row` now, and its number there; `None` for a row that was deleted before. It counts
    /// through a container each time, and is what [`Moves`] are held against.
    #[cfg(test)]
    fn place_of(&self, row: u64) -> Option<(usize, u64)> {
        if self.deleted.contains(row) {
            return None;
        }
        self.way.place_of(row - self.deleted.rank(row))
    }
}

/// Draws up `compaction` against `state`. `writer` tells which rows are deleted by now where it knows; elsewhere the
/// vectors are read.
///
/// # Errors
/// `Unavailable` or `Data` when a vector cannot be read or written.
pub async fn draw_up(
    compaction: &Compaction,
    state: &TableState,
    writer: &dyn Writer,
    vectors: &VectorFolder,
) -> Result<Drawn> {
    let metadata = &compaction.metadata;
    if metadata.schema_string != state.metadata.schema_string
        || metadata.partition_columns != state.metadata.partition_columns
    {
        return Ok(Drawn::Stale("the table has other columns now".to_owned()));
    }
    let mut deleted = vec![RoaringTreemap::new(); compaction.outputs.len()];
    // Rows that are gone of inputs which are still there.
    let mut n_marked = 0_u64;
    let mut live: Vec<&Add> = Vec::with_capacity(compaction.inputs.len());
    for input in &compaction.inputs {
        let Some(add) = state.files.get(&input.add.path) else {
            // Whoever took it away has deleted its rows, or has them in other files: here they are gone in either case.
            input.way.mark_all(input.live_rows, &mut deleted);
            continue;
        };
        let now_deleted = deleted_by_now(input, add, writer, vectors).await?;
        if !input.deleted.is_subset(&now_deleted) {
            return Ok(Drawn::Stale(format!("rows of {} came back", input.add.path)));
        }
        let moves = Moves::of(input);
        for (output, row) in (now_deleted - &input.deleted).iter().filter_map(|row| moves.place_of(row)) {
            if let Some(gone) = deleted.get_mut(output) {
                gone.insert(row);
                n_marked += 1;
            }
        }
        live.push(add);
    }
    let n_rows: u64 = compaction.outputs.iter().map(|output| output.rows).sum();
    let n_gone: u64 = deleted.iter().map(RoaringTreemap::len).sum();
    if live.is_empty() || n_gone > n_rows / 2 {
        return Ok(Drawn::Stale(format!("{n_gone} of its {n_rows} rows are no longer part of the table")));
    }
    let mut features = state.protocol.writer_features.iter().flatten();
    let has_vectors = features.any(|feature| feature == "deletionVectors");
    // A table that is written anew now may list the feature for what it was before. Where its writer is not here to say, no
    // rows are marked unless somebody has.
    if n_gone > 0 && !(has_vectors && writer.marks_rows().unwrap_or(n_marked > 0)) {
        return Ok(Drawn::Shrinks(deleted));
    }
    let now_ms = vectors.clock.now().0;
    let mut actions: Vec<Action> = live.into_iter().map(|add| Action::Remove(removal(add, now_ms))).collect();
    actions.extend(additions(compaction, &deleted, vectors).await?);
    Ok(Drawn::Fits(Exchange { actions, deleted }))
}

async fn deleted_by_now(
    input: &Input,
    add: &Add,
    writer: &dyn Writer,
    vectors: &VectorFolder,
) -> Result<RoaringTreemap> {
    if add.deletion_vector == input.add.deletion_vector {
        return Ok(input.deleted.clone());
    }
    if let Some(deleted) = writer.deleted_rows(&add.path) {
        return Ok(deleted);
    }
    let Some(descriptor) = &add.deletion_vector else { return Ok(RoaringTreemap::new()) };
    let deleted = vectors.read(descriptor).await?;
    check_fit(&deleted, (&add.path, input.live_rows + input.deleted.len()), &vectors.location)?;
    Ok(deleted)
}

/// Returns the Adds of the outputs that have a live row, with their vectors.
async fn additions(compaction: &Compaction, deleted: &[RoaringTreemap], vectors: &VectorFolder) -> Result<Vec<Action>> {
    let gone: Vec<RoaringTreemap> = compaction
        .outputs
        .iter()
        .zip(deleted)
        .filter(|(output, gone)| !gone.is_empty() && gone.len() < output.rows)
        .map(|(_, gone)| gone.clone())
        .collect();
    let mut descriptors = vectors.write(&gone).await?.into_iter();
    let mut actions = Vec::with_capacity(compaction.outputs.len());
    for (output, gone) in compaction.outputs.iter().zip(deleted) {
        if gone.len() >= output.rows {
            continue;
        }
        let mut add = output.add.clone();
        if !gone.is_empty() {
            add.deletion_vector = descriptors.next();
            add.stats = add.stats.as_deref().map(loosen);
        }
        actions.push(Action::Add(add));
    }
    Ok(actions)
}

/// Returns the action that takes `add` with its present vector out of the table, while its rows stay.
fn removal(add: &Add, now_ms: i64) -> Remove {
    Remove {
        path: add.path.clone(),
        data_change: false,
        deletion_timestamp: Some(now_ms),
        extended_file_metadata: Some(true),
        partition_values: Some(add.partition_values.clone()),
        size: Some(add.size),
        deletion_vector: add.deletion_vector.clone(),
        ..Remove::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_were_deleted_before_went_nowhere() {
        let runs = vec![Run { first_rank: 0, output: 0, first_row: 7 }, Run { first_rank: 2, output: 1, first_row: 0 }];
        let deleted = RoaringTreemap::from_iter([0, 3]);
        let input = Input { add: Add::default(), deleted, live_rows: 4, way: Way::Runs(runs) };
        let places: Vec<_> = (0..6).map(|row| input.place_of(row)).collect();
        assert_eq!(places, [None, Some((0, 7)), Some((0, 8)), None, Some((1, 0)), Some((1, 1))]);
    }

    #[test]
    fn a_file_without_live_rows_has_no_places() {
        let deleted = RoaringTreemap::from_iter([0]);
        let input = Input { add: Add::default(), deleted, live_rows: 0, way: Way::Runs(Vec::new()) };
        assert_eq!(input.place_of(0), None);
        assert_eq!(input.place_of(1), None);
    }
}
