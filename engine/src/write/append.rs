//! Appends: every row of a batch becomes a row of the table.

use alluvium_catalog::{Effort, Result};
use async_trait::async_trait;

use super::parquet::DataFolder;
use super::upsert::KeyChanges;
use super::{Draft, Staged, Writer};
use crate::delta::action::Action;
use crate::delta::log::LogEntry;
use crate::delta::state::TableState;
use crate::hop::Changes;

/// Stages rows to add. It knows nothing of the rows that the table holds.
#[derive(Debug)]
pub struct AppendWriter {
    folder: DataFolder,
}

impl AppendWriter {
    /// Returns a writer into `folder`.
    pub fn new(folder: DataFolder) -> Self {
        Self { folder }
    }
}

#[async_trait]
impl Writer for AppendWriter {
    async fn stage(&mut self, changes: Changes) -> Result<Staged> {
        let files = self.folder.write(&changes.rows).await?;
        let Changes { lookups, fate, span, spent, .. } = changes;
        let (changes, tombstones, discarded_bytes) = (KeyChanges::default(), None, 0);
        Ok(Staged { files, discarded_bytes, changes, tombstones, lookups, fate, span, spent, excess: None })
    }

    async fn draft(&mut self, staged: &Staged, _state: &TableState) -> Result<Draft> {
        Ok(Draft {
            actions: staged.files.iter().map(|file| Action::Add(file.add.clone())).collect(),
            fate: staged.fate,
            rows_inserted: staged.files.iter().map(|file| file.indices.len() as u64).sum(),
            effort: Effort { batch_bytes: staged.bytes(), bytes_written: staged.bytes(), ..Effort::default() },
            ..Draft::default()
        })
    }

    async fn follow(&mut self, _tail: &[LogEntry]) -> Result<()> {
        Ok(())
    }

    fn landed(&mut self, _staged: &Staged, _draft: &Draft) {}
}
