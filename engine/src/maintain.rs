//! Keeps a table's log short beside the commits: checkpoints, and clean-up of what they make superfluous.
//!
//! Never part of a commit: a failure here is logged, and the next turn does the work. One task a table at a time.

use std::time::Duration;

use alluvium_catalog::{Error, Location, Result, Stores};
use deltalake::DeltaTable;
use deltalake::logstore::{StorageConfig, default_logstore};
use deltalake::protocol::checkpoints;
use tokio::task::JoinHandle;

/// How long a turn may take before it is given up.
const TURN_LIMIT: Duration = Duration::from_secs(600);

/// Upkeep of one table.
#[derive(Debug)]
pub struct Upkeep {
    stores: Stores,
    location: Location,
    interval: u64,
    last: u64,
    turn: Option<JoinHandle<()>>,
}

impl Upkeep {
    /// Returns the upkeep of the table at `location`, which stands at `version`: a checkpoint every `interval` versions.
    pub fn new(stores: Stores, location: Location, interval: u64, version: u64) -> Self {
        let last = version - version % interval.max(1);
        Self { stores, location, interval: interval.max(1), last, turn: None }
    }

    /// Begins a turn when `version` is due and none is under way.
    pub fn landed(&mut self, version: u64) {
        let busy = self.turn.as_ref().is_some_and(|turn| !turn.is_finished());
        if busy || version < self.last + self.interval {
            return;
        }
        self.last = version;
        let (stores, location) = (self.stores.clone(), self.location.clone());
        self.turn = Some(tokio::spawn(async move {
            let work = tokio::time::timeout(TURN_LIMIT, checkpoint(&stores, &location));
            match work.await {
                Ok(Ok(version)) => tracing::info!(table = %location, version, "checkpoint written"),
                Ok(Err(error)) => {
                    tracing::warn!(table = %location, error = %error.chain(), "no checkpoint; trying again later")
                }
                Err(_) => tracing::warn!(table = %location, "a checkpoint took too long; trying again later"),
            }
        }));
    }

    /// Waits for the turn under way, at most `limit`, then drops it.
    pub async fn close(&mut self, limit: Duration) {
        if let Some(mut turn) = self.turn.take()
            && tokio::time::timeout(limit, &mut turn).await.is_err()
        {
            turn.abort();
        }
    }
}

/// Writes a checkpoint of the newest version and removes what the log's retention no longer needs. Returns the version.
///
/// # Errors
/// `Unavailable` when the table cannot be read or written.
pub async fn checkpoint(stores: &Stores, location: &Location) -> Result<u64> {
    let failed = |cause: deltalake::DeltaTableError| {
        Error::unavailable(format!("cannot write a checkpoint of the table at {location}")).with_source(cause)
    };
    // deltalake's own builder finds log stores by their URL's scheme, and knows S3 only with the AWS SDK built in.
    let (prefixed, root) = (stores.open(location)?, stores.root(location)?);
    let mut table = DeltaTable::new(default_logstore(prefixed, root, &location.url()?, &StorageConfig::default()));
    table.load().await.map_err(failed)?;
    checkpoints::create_checkpoint(&table, None).await.map_err(failed)?;
    checkpoints::cleanup_metadata(&table, None).await.map_err(failed)?;
    Ok(table.version().unwrap_or_default())
}
