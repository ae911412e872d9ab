//! Draws up the actions of a commit: what is staged comes in, what it supersedes goes out by deletion vectors.

use std::sync::Arc;

use alluvium_catalog::{Error, Result};
use alluvium_sql::UpsertMode;
use deltalake::kernel::DeletionVectorDescriptor;
use roaring::RoaringTreemap;

use super::changes::{Columns, Mark, Verdicts};
use super::{Decision, UpsertWriter};
use crate::delta::action::{Action, Add, Remove};
use crate::delta::state::TableState;
use crate::write::Staged;
use crate::write::index::{FileOrdinal, IndexedFile};
use crate::write::stats::marked;

/// What a commit does to the table's files, all of it uploaded.
pub(super) struct Drawn {
    pub(super) actions: Vec<Action>,
    /// Deletion vectors written.
    pub(super) n_vectors: u64,
    /// Bytes written beside the staged files.
    pub(super) bytes: u64,
}

/// A file of which some rows go, and their vector where it was written ahead; else all of them.
struct Hidden {
    add: Add,
    gone: RoaringTreemap,
    vector: Option<DeletionVectorDescriptor>,
}

impl UpsertWriter {
    /// Writes the vectors that the commit of a batch will need if the index does not change until it is drawn up.
    ///
    /// # Errors
    /// `Unavailable` when the store does not take them.
    pub(super) async fn mark_ahead(&self, verdicts: &Verdicts) -> Result<Vec<Mark>> {
        if self.settings.options.mode == UpsertMode::CopyOnWrite {
            return Ok(Vec::new());
        }
        let left = verdicts.superseded.iter().filter_map(|(ordinal, superseded)| {
            let file = self.index.file(*ordinal)?;
            let gone = file.deleted().as_ref() | superseded;
            (gone.len() < file.n_rows).then_some((*ordinal, gone))
        });
        let (files, gone): (Vec<_>, Vec<_>) = left.unzip();
        let vectors = self.vectors.write(&gone).await?;
        let marks = files.into_iter().zip(gone).zip(vectors);
        Ok(marks.map(|((file, gone), vector)| Mark { file, gone, vector }).collect())
    }

    /// Returns the actions that a decision makes of staged files and of the rows that they supersede, which are marked in
    /// deletion vectors.
    pub(super) async fn mark_rows(
        &self,
        staged: &Staged,
        (columns, decision): (&Columns, &Decision),
        state: &TableState,
    ) -> Result<Drawn> {
        let mut actions = Vec::new();
        let mut hidden = Vec::new();
        // Then the vectors that were written ahead are those of this commit, and need not be compared.
        let is_as_staged = Arc::ptr_eq(&decision.verdicts, &columns.verdicts);
        let with_count =
            |add: &Add, n_rows: u64| Add { stats: Some(marked(add.stats.as_deref(), n_rows)), ..add.clone() };
        for (ordinal, superseded) in decision.superseded() {
            let Some(file) = self.index.file(*ordinal) else { continue };
            let add = self.live_add(file, state)?;
            actions.push(Action::Remove(removal(add, self.folder.clock.now().0)));
            let mark = columns.marked(*ordinal);
            if let Some(mark) = mark.filter(|_| is_as_staged) {
                let (add, vector) = (with_count(add, file.n_rows), Some(mark.vector.clone()));
                hidden.push(Hidden { add, gone: RoaringTreemap::new(), vector });
                continue;
            }
            let gone = file.deleted().as_ref() | superseded;
            if gone.len() < file.n_rows {
                let vector = mark.filter(|mark| mark.gone == gone).map(|mark| mark.vector.clone());
                hidden.push(Hidden { add: with_count(add, file.n_rows), gone, vector });
            }
        }
        for (place, file) in (0_u32..).zip(&staged.files) {
            match decision.late_rows.get(&place) {
                Some(_) if decision.leaves_out(place, file) => {}
                Some(late) => {
                    let add = with_count(&file.add, file.indices.len() as u64);
                    hidden.push(Hidden { add, gone: late.clone(), vector: None });
                }
                None => actions.push(Action::Add(file.add.clone())),
            }
        }
        let missing = hidden.iter_mut().filter(|file| file.vector.is_none());
        let gone: Vec<RoaringTreemap> = missing.map(|file| std::mem::take(&mut file.gone)).collect();
        let mut written = self.vectors.write(&gone).await?.into_iter();
        let mut drawn = Drawn { actions, n_vectors: hidden.len() as u64, bytes: 0 };
        for Hidden { add, vector, .. } in hidden {
            let unwritten = || Error::internal(format!("no vector was written for {}", add.path));
            let vector = vector.or_else(|| written.next()).ok_or_else(unwritten)?;
            drawn.bytes += u64::try_from(vector.size_in_bytes).unwrap_or_default();
            drawn.actions.push(Action::Add(Add { deletion_vector: Some(vector), data_change: true, ..add }));
        }
        Ok(drawn)
    }

    /// Returns the files of which a decision leaves no row: the commit has removed them whole.
    pub(super) fn emptied(&self, decision: &Decision) -> Vec<(FileOrdinal, String)> {
        let touched = decision.superseded().iter();
        let files = touched.filter_map(|(ordinal, _)| Some((*ordinal, self.index.file(*ordinal)?)));
        files.filter(|(_, file)| file.n_live() == 0).map(|(ordinal, file)| (ordinal, file.path.clone())).collect()
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
