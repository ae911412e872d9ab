//! Draws up the actions of a commit: what is staged comes in, what it supersedes goes out by deletion vectors.

use alluvium_catalog::{Error, Result};
use roaring::RoaringTreemap;

use super::{Decision, UpsertWriter};
use crate::delta::action::{Action, Add, Remove};
use crate::delta::state::TableState;
use crate::write::Staged;
use crate::write::index::IndexedFile;
use crate::write::stats::marked;

/// What a commit does to the table's files, all of it uploaded.
pub(super) struct Drawn {
    pub(super) actions: Vec<Action>,
    /// Deletion vectors written.
    pub(super) n_vectors: u64,
    /// Bytes written beside the files of the batch's own rows.
    pub(super) bytes: u64,
}

impl UpsertWriter {
    /// Returns the actions that a decision makes of staged files and of the rows that they supersede, which are marked in
    /// deletion vectors.
    pub(super) async fn mark_rows(&self, staged: &Staged, decision: &Decision, state: &TableState) -> Result<Drawn> {
        let mut actions = Vec::new();
        let mut hidden: Vec<(Add, RoaringTreemap)> = Vec::new();
        let with_count =
            |add: &Add, n_rows: u64| Add { stats: Some(marked(add.stats.as_deref(), n_rows)), ..add.clone() };
        for (ordinal, superseded) in &decision.superseded {
            let Some(file) = self.index.file(*ordinal) else { continue };
            let add = self.live_add(file, state)?;
            actions.push(Action::Remove(removal(add, self.folder.clock.now().0)));
            let gone = &*file.deleted | superseded;
            if gone.len() < file.n_rows {
                hidden.push((with_count(add, file.n_rows), gone));
            }
        }
        for (place, file) in (0_u32..).zip(&staged.files) {
            match decision.late_rows.get(&place) {
                Some(late) if late.len() == file.indices.len() as u64 => {}
                Some(late) => hidden.push((with_count(&file.add, file.indices.len() as u64), late.clone())),
                None => actions.push(Action::Add(file.add.clone())),
            }
        }
        let (adds, gone): (Vec<_>, Vec<_>) = hidden.into_iter().unzip();
        let descriptors = self.vectors.write(&gone).await?;
        let size = |size: i32| u64::try_from(size).unwrap_or_default();
        let bytes = descriptors.iter().map(|vector| size(vector.size_in_bytes)).sum();
        let n_vectors = descriptors.len() as u64;
        for (mut add, descriptor) in adds.into_iter().zip(descriptors) {
            add.deletion_vector = Some(descriptor);
            add.data_change = true;
            actions.push(Action::Add(add));
        }
        Ok(Drawn { actions, n_vectors, bytes })
    }

    /// Returns the action that made a file part of the table.
    pub(super) fn live_add<'a>(&self, file: &IndexedFile, state: &'a TableState) -> Result<&'a Add> {
        state.files.get(&file.path).ok_or_else(|| {
            let at = &self.folder.location;
            Error::internal(format!("the index knows {}, which the table at {at} does not", file.path))
        })
    }
}

/// Returns the action that takes `add` with its present vector out of the table.
pub(super) fn removal(add: &Add, now_ms: i64) -> Remove {
    Remove {
        path: add.path.clone(),
        data_change: true,
        deletion_timestamp: Some(now_ms),
        extended_file_metadata: Some(true),
        partition_values: Some(add.partition_values.clone()),
        size: Some(add.size),
        deletion_vector: add.deletion_vector.clone(),
        ..Remove::default()
    }
}
