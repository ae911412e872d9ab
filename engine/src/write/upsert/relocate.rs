//! Takes a compaction into the index: files that are gone, files in their place, and where each row is now.

use std::collections::HashMap;
use std::sync::Arc;

use super::UpsertWriter;
use crate::delta::action::Action;
use crate::write::compaction::{Compaction, Exchange, Input};
use crate::write::index::{Bounds, FileOrdinal, IndexedFile, RowPlace};

impl UpsertWriter {
    /// Moves the entries of the compaction's inputs to its outputs.
    pub(super) fn relocate(&mut self, compaction: &Compaction, exchange: &Exchange) {
        let index = Arc::make_mut(&mut self.index);
        let inputs: HashMap<FileOrdinal, &Input> =
            compaction.inputs.iter().filter_map(|input| Some((index.ordinal(&input.add.path)?, input))).collect();
        // An output may hold fewer rows than its inputs had, so their bounds together may be wide, never narrow.
        let mut bounds = vec![Bounds::default(); compaction.outputs.len()];
        for (ordinal, input) in &inputs {
            let Some(file) = index.file(*ordinal) else { continue };
            for output in input.way.outputs() {
                if let Some(bounds) = bounds.get_mut(output) {
                    bounds.widen(&file.bounds);
                }
            }
        }
        let mut outputs = Vec::with_capacity(compaction.outputs.len());
        for ((output, deleted), bounds) in compaction.outputs.iter().zip(&exchange.deleted).zip(bounds) {
            outputs.push(index.insert_file(IndexedFile::new(&output.add, output.rows, deleted.clone(), bounds)));
        }
        index.relocate(&|place: RowPlace| {
            let (output, row) = inputs.get(&place.file())?.place_of(u64::from(place.row()))?;
            Some(RowPlace::new(*outputs.get(output)?, u32::try_from(row).ok()?))
        });
        for ordinal in inputs.keys() {
            self.cache.forget(*ordinal);
        }
        for input in &compaction.inputs {
            index.remove_file(&input.add.path);
        }
        for (output, deleted) in compaction.outputs.iter().zip(&exchange.deleted) {
            if deleted.len() >= output.rows {
                index.remove_file(&output.add.path);
            }
        }
        for action in &exchange.actions {
            if let Action::Add(add) = action {
                index.set_vector(&add.path, add.deletion_vector.clone());
            }
        }
    }
}
