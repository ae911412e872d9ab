//! Writes a snapshot beside the commits, one task a snapshot.
//!
//! What it is made of is shared with the index that batches change meanwhile, so whoever gives one up has to know when
//! it holds nothing any more: an abort does not end a piece that is being encoded.

use std::time::Duration;

use alluvium_catalog::{Error, Location, Result, Timestamp};
use bytes::Bytes;
use futures::{StreamExt, TryFutureExt};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};

use super::shelf::{Pieces, Shelf, Shelved};
use crate::delta::log::Version;
use crate::write::index::{KeyIndex, SnapshotOf, SnapshotWriter};

/// A snapshot under way.
#[derive(Debug)]
pub(super) struct Turn {
    version: Version,
    /// Answers on how many shelves it lies.
    saving: JoinHandle<usize>,
    /// Closes when nothing of the index is held any more.
    held: mpsc::Receiver<()>,
}

/// Says by being there that parts of an index are held.
type Hold = mpsc::Sender<()>;

impl Turn {
    /// Begins to write a snapshot.
    pub(super) fn begin(shelves: Vec<Shelf>, location: Location, index: KeyIndex, of: SnapshotOf) -> Self {
        let (hold, held) = mpsc::channel(1);
        let version = of.version;
        let saving = tokio::spawn(async move { save(&shelves, &location, (index, &hold), of).await });
        Self { version, saving, held }
    }

    /// Tells whether it has ended.
    pub(super) fn is_finished(&self) -> bool {
        self.saving.is_finished()
    }

    /// Waits for it, at most `limit`, then gives it up. Returns its version and on how many shelves it lies, if on any.
    pub(super) async fn end(mut self, limit: Duration, location: &Location) -> Option<(Version, usize)> {
        /// Far longer than a piece takes.
        const PIECE_LIMIT: Duration = Duration::from_secs(5);
        let version = self.version;
        match tokio::time::timeout(limit, &mut self.saving).await {
            Ok(Ok(0)) => None,
            Ok(Ok(n_shelves)) => Some((version, n_shelves)),
            Ok(Err(cause)) => {
                tracing::warn!(table = %location, version, %cause, "saving the key index stopped");
                None
            }
            Err(_) => {
                self.saving.abort();
                if tokio::time::timeout(PIECE_LIMIT, self.held.recv()).await.is_err() {
                    tracing::warn!(table = %location, version, "a snapshot that was given up holds parts of the index");
                }
                None
            }
        }
    }
}

/// Writes a snapshot to one shelf after the other: encoded for the first that takes it, and copied from there, so that the
/// index is not held up by a slow store behind the disk. One that refuses does not keep the others from theirs. Returns how
/// many have it.
async fn save(shelves: &[Shelf], location: &Location, (index, hold): (KeyIndex, &Hold), of: SnapshotOf) -> usize {
    let (version, now) = (of.version, Timestamp(of.at_ms));
    let mut index = Some(index);
    let mut first: Option<(&Shelf, Shelved)> = None;
    let mut n_saved = 0;
    for (number, shelf) in (1..).zip(shelves) {
        let pieces = match &first {
            Some((first, written)) => first.read(written),
            // Behind the last shelf nobody needs the index, and each part of it is dropped as soon as it is written.
            None => {
                let index = if number == shelves.len() { index.take() } else { index.clone() };
                encoded(index.unwrap_or_default(), of.clone(), hold.clone())
            }
        };
        match shelf.write(version, pieces).await {
            Ok(written) => {
                n_saved += 1;
                tracing::debug!(table = %location, version, %shelf, n_bytes = written.n_bytes, "key index saved");
                first.get_or_insert((shelf, written));
                index = None;
                // At once: where a slow store holds up the next shelf past the end of the run, this one is tidy.
                if let Err(error) = shelf.tidy(now).await {
                    tracing::warn!(table = %location, error = %error.chain(), "old snapshots of the key index stay");
                }
            }
            Err(error) => tracing::warn!(
                table = %location, version, error = %error.chain(), "key index not saved; the next start may take longer"
            ),
        }
    }
    n_saved
}

/// A snapshot that is being encoded, and what says so; dropped in this order.
struct Encoding {
    writer: SnapshotWriter,
    _hold: Hold,
}

/// Returns a snapshot as it is encoded.
fn encoded(index: KeyIndex, of: SnapshotOf, hold: Hold) -> Pieces {
    let begun = async move {
        let begin =
            move || -> Result<Encoding> { Ok(Encoding { writer: SnapshotWriter::try_new(index, of)?, _hold: hold }) };
        let begun = tokio::task::spawn_blocking(begin).await;
        Ok(futures::stream::try_unfold(begun.map_err(stopped)??, next_piece))
    };
    begun.try_flatten_stream().boxed()
}

async fn next_piece(mut encoding: Encoding) -> Result<Option<(Bytes, Encoding)>> {
    let turn = tokio::task::spawn_blocking(move || (encoding.writer.next(), encoding)).await;
    let (piece, encoding) = turn.map_err(stopped)?;
    Ok(piece.map(|piece| (Bytes::from(piece), encoding)))
}

fn stopped(cause: JoinError) -> Error {
    Error::internal("encoding a snapshot stopped").with_source(cause)
}
