//! The cap on what one commit rewrites beside the rows of its batch: known before a byte is written.
//!
//! What is rewritten are deletion vectors, or whole files in copy-on-write mode. A batch above the cap does not land as
//! it is: it is split, or its flow halts, by policy.

use alluvium_catalog::{Error, Result};
use alluvium_sql::{RewriteCap, RewritePolicy, UpsertMode};

use super::UpsertWriter;
use super::changes::RowsOfFile;
use crate::write::Excess;

/// The bytes of a serialised vector beside its bitmap.
const VECTOR_MARK_BYTES: u64 = 4;

impl UpsertWriter {
    /// Returns by how much a batch of `n_records` that supersedes the rows `touched` is above the cap, if it is. A single
    /// record cannot be split: it lands anyway.
    ///
    /// # Errors
    /// `Invalid`, with all that it takes to decide, where the policy is to halt.
    pub(super) fn excess(&self, n_records: u64, touched: &[RowsOfFile]) -> Result<Option<Excess>> {
        let Some(cap) = self.settings.options.cap else { return Ok(None) };
        let bytes = self.cost(touched);
        if bytes <= cap.bytes_max {
            return Ok(None);
        }
        let (bytes_max, n_files, at) = (cap.bytes_max, touched.len(), &self.folder.location);
        if cap.policy == RewritePolicy::Halt {
            let what = match self.settings.options.mode {
                UpsertMode::MergeOnRead => "the deletion vectors of ",
                UpsertMode::CopyOnWrite => "",
            };
            return Err(Error::invalid(format!(
                "a batch of {n_records} records would rewrite {what}{n_files} files ({bytes} bytes) of the table at {at}, and \
                 'alluvium.upsert.rewrite.max' allows {bytes_max} bytes; nothing of it has landed"
            ))
            .with_hint(
                "raise the property, let the flow land smaller batches ('commit.rows'), or set \
                 'alluvium.upsert.rewrite.policy' = 'split'",
            ));
        }
        // A record cannot be cut.
        if n_records <= 1 {
            return Ok(None);
        }
        Ok(Some(Excess { bytes, bytes_max, records: n_records }))
    }

    /// Says that a commit rewrites more than it may: that of a single record.
    pub(super) fn warn_above_cap(&self, bytes: u64) {
        if let Some(RewriteCap { bytes_max, .. }) = self.settings.options.cap.filter(|cap| bytes > cap.bytes_max) {
            tracing::warn!(
                table = %self.folder.location, bytes, bytes_max,
                "a commit above 'alluvium.upsert.rewrite.max' lands all the same: its batch cannot be split"
            );
        }
    }

    /// Returns the bytes that are written because these rows go. A file of which no row is left costs nothing.
    fn cost(&self, touched: &[RowsOfFile]) -> u64 {
        let cost = |(ordinal, rows): &RowsOfFile| {
            let file = self.index.file(*ordinal)?;
            let gone = file.deleted().as_ref() | rows;
            if gone.len() >= file.n_rows {
                return None;
            }
            match self.settings.options.mode {
                UpsertMode::MergeOnRead => Some(gone.serialized_size() as u64 + VECTOR_MARK_BYTES),
                UpsertMode::CopyOnWrite => u64::try_from(file.size).ok(),
            }
        };
        touched.iter().filter_map(cost).sum()
    }
}
