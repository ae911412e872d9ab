//! Takes files whose rows stand in others now into the index: those that are gone, those in their place, and where each row
//! is.

use std::sync::Arc;

use hashbrown::HashMap;
use roaring::RoaringTreemap;

use super::UpsertWriter;
use crate::delta::action::Action;
use crate::write::compaction::{Compaction, Exchange, Input, Moves, Output};
use crate::write::index::{Bounds, FileOrdinal, IndexedFile, RowPlace};

/// Files in the place of others.
pub(super) struct Moved<'a> {
    /// The files that are gone, and where their rows went.
    pub(super) inputs: &'a [Input],
    /// The files that have them now.
    pub(super) outputs: &'a [Output],
    /// The rows of each output that are deleted.
    pub(super) deleted: &'a [RoaringTreemap],
}

impl UpsertWriter {
    /// Moves the entries of a compaction's inputs to its outputs.
    pub(super) fn relocate(&mut self, compaction: &Compaction, exchange: &Exchange) {
        let Compaction { inputs, outputs, .. } = compaction;
        self.move_rows(&Moved { inputs, outputs, deleted: &exchange.deleted });
        let index = Arc::make_mut(&mut self.index);
        for action in &exchange.actions {
            if let Action::Add(add) = action {
                index.set_vector(&add.path, add.deletion_vector.clone());
            }
        }
    }

    /// Moves the entries of rows that stand in other files now.
    pub(super) fn move_rows(&mut self, moved: &Moved<'_>) {
        let index = Arc::make_mut(&mut self.index);
        let inputs: HashMap<FileOrdinal, &Input> =
            moved.inputs.iter().filter_map(|input| Some((index.ordinal(&input.add.path)?, input))).collect();
        // An output may hold fewer rows than its inputs had, so their bounds together may be wide, never narrow.
        let mut bounds = vec![Bounds::default(); moved.outputs.len()];
        for (ordinal, input) in &inputs {
            let Some(file) = index.file(*ordinal) else { continue };
            for output in input.way.outputs() {
                if let Some(bounds) = bounds.get_mut(output) {
                    bounds.widen(&file.bounds);
                }
            }
        }
        let mut outputs = Vec::with_capacity(moved.outputs.len());
        for ((output, deleted), bounds) in moved.outputs.iter().zip(moved.deleted).zip(bounds) {
            outputs.push(index.insert_file(IndexedFile::new(&output.add, output.rows, deleted.clone(), bounds)));
        }
        // One look at each entry of the index: hashed fast.
        let moves: HashMap<FileOrdinal, Moves<'_>> =
            inputs.iter().map(|(ordinal, input)| (*ordinal, Moves::of(input))).collect();
        index.relocate(&|place: RowPlace| {
            let (output, row) = moves.get(&place.file())?.place_of(u64::from(place.row()))?;
            Some(RowPlace::new(*outputs.get(output)?, u32::try_from(row).ok()?))
        });
        for ordinal in inputs.keys() {
            self.cache.forget(*ordinal);
        }
        for input in moved.inputs {
            index.remove_file(&input.add.path);
        }
        for (output, deleted) in moved.outputs.iter().zip(moved.deleted) {
            if deleted.len() >= output.rows {
                index.remove_file(&output.add.path);
            }
        }
    }
}
