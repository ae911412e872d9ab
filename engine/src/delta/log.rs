//! The Delta log of one table, as bytes: read a version, read the tail, create a version. Checkpoints are read in
//! [`checkpoint`](super::checkpoint).
//!
//! Nothing here is cached and nothing is decided. Creating a version is one conditional PUT without any LIST; what its
//! failure means is settled by reading the version back, because a store's word is not taken for it: a lost response
//! after a successful PUT is retried by HTTP clients and then reads as "already exists".

use std::sync::Arc;
use std::time::Duration;

use alluvium_catalog::{Error, Location, Result, Stores, storage_error};
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use serde_json::Value;
use uuid::Uuid;

use super::action::Action;

/// Log files fetched at the same time during a long replay: enough to hide S3's latency, few enough for any store.
const FETCHES: usize = 16;

/// A Delta version.
pub type Version = u64;

/// How an attempt to create a version ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum PutOutcome {
    /// The version is ours.
    Landed,
    /// The version is somebody else's.
    Taken,
    /// The store did not say, and the version cannot be seen yet; the same bytes may be put again.
    Unknown,
}

/// One version as read: its actions, and its commitInfo.
#[derive(Debug, Clone)]
pub struct LogEntry {
    /// The version.
    pub version: Version,
    /// The actions without commitInfo.
    pub actions: Vec<Action>,
    /// commitInfo, or null.
    pub info: Value,
}

/// The log of one table.
#[derive(Debug, Clone)]
pub struct DeltaLog {
    location: Location,
    store: Arc<dyn ObjectStore>,
    commit_store: Arc<dyn ObjectStore>,
}

impl DeltaLog {
    /// Returns the log of the table at `location`; reads nothing.
    ///
    /// # Errors
    /// As of [`Stores::open`].
    pub fn open(stores: &Stores, location: &Location) -> Result<Self> {
        Ok(Self::with_stores(location.clone(), stores.open(location)?, stores.open_for_commit(location)?))
    }

    /// Returns the log of the table at `location` over two stores rooted there: one for everything, and one for the
    /// request that commits, which must not try again by itself.
    pub fn with_stores(location: Location, store: Arc<dyn ObjectStore>, commit_store: Arc<dyn ObjectStore>) -> Self {
        Self { location, store, commit_store }
    }

    /// Returns where the table is.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Returns the store rooted at the table.
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// Reads one version; `None` when it does not exist.
    ///
    /// # Errors
    /// `Unavailable` when the store does not answer, `Data` when the file is not a Delta commit.
    pub async fn read(&self, version: Version) -> Result<Option<LogEntry>> {
        match self.read_bytes(version).await? {
            Some(bytes) => parse_commit(&self.location, version, &bytes).map(Some),
            None => Ok(None),
        }
    }

    /// Reads the versions from `first` on, in order, until one does not exist.
    ///
    /// # Errors
    /// As of [`read`](Self::read).
    pub async fn read_tail(&self, first: Version) -> Result<Vec<LogEntry>> {
        self.read_some(first, usize::MAX).await
    }

    /// As [`read_tail`](Self::read_tail), at most `n_max` versions.
    ///
    /// # Errors
    /// As of [`read`](Self::read).
    pub async fn read_some(&self, first: Version, n_max: usize) -> Result<Vec<LogEntry>> {
        let mut tail = Vec::new();
        let mut next = first;
        // Each wave is twice the one before: what is asked for in vain is no more than what was there.
        let mut wave = 1;
        while tail.len() < n_max {
            let last = next + wave.min(n_max - tail.len()) as u64;
            // All of a wave is asked for, whatever is answered first, so that a replay does the same on any store.
            for entry in futures::future::join_all((next..last).map(|version| self.read(version))).await {
                match entry? {
                    Some(entry) => tail.push(entry),
                    None => return Ok(tail),
                }
            }
            next = last;
            wave = (wave * 2).min(FETCHES);
        }
        Ok(tail)
    }

    /// Returns the oldest and newest version that the log holds as JSON, by a LIST.
    ///
    /// # Errors
    /// `Unavailable` when the store does not answer.
    pub async fn version_range(&self) -> Result<Option<(Version, Version)>> {
        let mut files = self.store.list(Some(&Path::from("_delta_log")));
        let mut range: Option<(Version, Version)> = None;
        while let Some(file) = files.try_next().await.map_err(|cause| self.unavailable("list", "_delta_log", cause))? {
            let Some(version) = file.location.filename().and_then(commit_version) else { continue };
            range = Some(range.map_or((version, version), |(low, high)| (low.min(version), high.max(version))));
        }
        Ok(range)
    }

    /// Returns the versions that the log holds as JSON, in order, by a LIST. Clean-up deletes in no order of its own, so
    /// there may be holes between them.
    ///
    /// # Errors
    /// `Unavailable` when the store does not answer.
    pub async fn versions(&self) -> Result<Vec<Version>> {
        let mut files = self.store.list(Some(&Path::from("_delta_log")));
        let mut versions = Vec::new();
        while let Some(file) = files.try_next().await.map_err(|cause| self.unavailable("list", "_delta_log", cause))? {
            versions.extend(file.location.filename().and_then(commit_version));
        }
        versions.sort_unstable();
        Ok(versions)
    }

    /// Creates `version` with `bytes`, which must contain `write_id`.
    ///
    /// Whatever the store answers other than success, the version is read back and searched for `write_id`: the answer
    /// may have been lost after the PUT had succeeded.
    pub async fn put(&self, version: Version, bytes: Bytes, write_id: Uuid) -> PutOutcome {
        let path = commit_path(version);
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let refusal = match self.commit_store.put_opts(&path, bytes.into(), options).await {
            Ok(_) => return PutOutcome::Landed,
            Err(refusal) => refusal,
        };
        let outcome = self.settle(version, write_id).await;
        tracing::debug!(version, ?outcome, refusal = %refusal, "commit was not acknowledged, read it back");
        outcome
    }

    /// Finds out whose `version` is. Bounded: three reads within about two seconds.
    async fn settle(&self, version: Version, write_id: Uuid) -> PutOutcome {
        let mark = write_id.to_string();
        for wait in [0_u64, 300, 1500] {
            tokio::time::sleep(Duration::from_millis(wait)).await;
            match self.read_bytes(version).await {
                Ok(Some(bytes)) if find(&bytes, mark.as_bytes()) => return PutOutcome::Landed,
                Ok(Some(_)) => return PutOutcome::Taken,
                Ok(None) => {}
                Err(error) => tracing::warn!(version, error = %error.chain(), "cannot read the version back"),
            }
        }
        PutOutcome::Unknown
    }

    async fn read_bytes(&self, version: Version) -> Result<Option<Bytes>> {
        let path = commit_path(version);
        let result = match self.store.get(&path).await {
            Ok(result) => result,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(cause) => return Err(self.unavailable("read", path.as_ref(), cause)),
        };
        result.bytes().await.map(Some).map_err(|cause| self.unavailable("read", path.as_ref(), cause))
    }

    /// Returns the version of the newest checkpoint, as the log's own hint has it; `None` when there is none. A LIST tells
    /// where the hint cannot be read: some engines write it in place, and are met, or were killed, half way.
    ///
    /// # Errors
    /// `Unavailable` when the store does not answer.
    pub async fn last_checkpoint(&self) -> Result<Option<Version>> {
        let path = Path::from("_delta_log/_last_checkpoint");
        let bytes = match self.store.get(&path).await {
            Ok(result) => result.bytes().await.map_err(|cause| self.unavailable("read", path.as_ref(), cause))?,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(cause) => return Err(self.unavailable("read", path.as_ref(), cause)),
        };
        let hint: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        match hint.get("version").and_then(Value::as_u64) {
            Some(version) => Ok(Some(version)),
            None => {
                tracing::warn!(table = %self.location, %path, "the hint of a checkpoint cannot be read");
                self.listed_checkpoint().await
            }
        }
    }

    fn unavailable(&self, verb: &str, what: &str, cause: object_store::Error) -> Error {
        unread(&self.location, (verb, what), cause)
    }
}

/// Returns the error of a store that did not give what a log has. A key that is refused is refused again; a file that is gone
/// may have been cleaned up, and the table can be loaded anew.
pub(super) fn unread(location: &Location, (verb, what): (&str, &str), cause: object_store::Error) -> Error {
    let message = format!("cannot {verb} {what} of the table at {location}");
    match cause {
        object_store::Error::NotFound { .. } => Error::unavailable(message).with_source(cause),
        _ => storage_error(message, cause),
    }
}

/// Returns the path of a version's JSON.
pub fn commit_path(version: Version) -> Path {
    Path::from(format!("_delta_log/{version:020}.json"))
}

/// Returns the version that a file of the log is the JSON of.
pub fn commit_version(name: &str) -> Option<Version> {
    name.strip_suffix(".json").filter(|stem| stem.len() == 20).and_then(|stem| stem.parse().ok())
}

fn parse_commit(location: &Location, version: Version, bytes: &[u8]) -> Result<LogEntry> {
    let damaged = |line: usize, cause: serde_json::Error| {
        Error::data(format!("version {version} of the table at {location} is damaged at line {line}"))
            .with_source(cause)
    };
    let mut entry = LogEntry { version, actions: Vec::new(), info: Value::Null };
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let fields: serde_json::Map<String, Value> =
            serde_json::from_slice(line).map_err(|cause| damaged(index + 1, cause))?;
        for (kind, body) in fields {
            if kind == "commitInfo" {
                entry.info = body;
                continue;
            }
            entry.actions.extend(Action::parse(&kind, body).map_err(|cause| damaged(index + 1, cause))?);
        }
    }
    Ok(entry)
}

fn find(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use alluvium_catalog::ErrorKind;

    use super::*;

    #[test]
    fn a_key_that_is_refused_halts_and_a_file_that_is_gone_is_looked_for_again() -> Result<()> {
        let at = "s3://lake/t".parse()?;
        let (path, source) = (|| "a".to_owned(), || "no".into());
        for (cause, kind) in [
            (object_store::Error::PermissionDenied { path: path(), source: source() }, ErrorKind::Invalid),
            (object_store::Error::Unauthenticated { path: path(), source: source() }, ErrorKind::Invalid),
            (object_store::Error::NotFound { path: path(), source: source() }, ErrorKind::Unavailable),
            (object_store::Error::Generic { store: "S3", source: source() }, ErrorKind::Unavailable),
        ] {
            let told = cause.to_string();
            let error = unread(&at, ("read", "a"), cause);
            assert_eq!((error.kind(), error.hint().is_some()), (kind, kind == ErrorKind::Invalid), "{told}");
        }
        Ok(())
    }
}
