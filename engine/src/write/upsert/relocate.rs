//! Takes a compaction into the index: files that are gone, files in their place, and where each row is now.

use std::collections::HashMap;

use roaring::RoaringTreemap;

use super::UpsertWriter;
use crate::write::compaction::{Compaction, Exchange, Input};
use crate::write::index::FileOrdinal;

impl UpsertWriter {
    /// Returns the rows of a live file that are deleted as of the version that was followed last.
    pub(super) fn deleted_in(&self, path: &str) -> Option<RoaringTreemap> {
        let ordinal = self.index.ordinal(path)?;
        self.index.file(ordinal).map(|(_, _, deleted)| deleted.clone())
    }

    /// Moves the entries of the compaction's inputs to its outputs.
    pub(super) fn relocate(&mut self, compaction: &Compaction, exchange: &Exchange) {
        let outputs: Vec<FileOrdinal> = compaction
            .outputs
            .iter()
            .zip(&exchange.deleted)
            .map(|(output, deleted)| self.index.put_file(&output.add.path, output.rows, deleted.clone()))
            .collect();
        let inputs: HashMap<FileOrdinal, &Input> =
            compaction.inputs.iter().filter_map(|input| Some((self.index.ordinal(&input.add.path)?, input))).collect();
        self.index.move_rows(|(file, row)| {
            let (output, row) = inputs.get(&file)?.place_of(u64::from(row))?;
            Some((*outputs.get(output)?, u32::try_from(row).ok()?))
        });
        for input in &compaction.inputs {
            self.index.remove_file(&input.add.path);
        }
        for (output, deleted) in compaction.outputs.iter().zip(&exchange.deleted) {
            if deleted.len() >= output.rows {
                self.index.remove_file(&output.add.path);
            }
        }
    }
}
