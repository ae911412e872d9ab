//! Reads a table's Delta log beside the kernel: which versions there are, when they were committed, and by what.
//!
//! The kernel replays a log into a snapshot and says little when it cannot; this file finds out why.

use alluvium_catalog::{Error, Location, Result, Timestamp, storage_error};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use serde_json::Value;
use std::sync::Arc;

use super::delta::LoadFailure;
use super::history::HistoryEntry;

/// The folder of the log in a table.
const FOLDER: &str = "_delta_log";

/// How many commits are read at once: enough to hide the way to S3, few enough for any store.
const READS_AT_ONCE: usize = 16;

/// The log of one table.
pub(super) struct Log {
    store: Arc<dyn ObjectStore>,
    location: Location,
}

/// The files of a log that a version can be read from.
#[derive(Debug, Default)]
struct Listing {
    /// Commits in order of version.
    commits: Vec<(u64, ObjectMeta)>,
    /// The oldest checkpoint.
    first_checkpoint: Option<u64>,
    /// The newest checkpoint.
    last_checkpoint: Option<u64>,
}

impl Log {
    /// Returns the log of the table at the root of `store`, which errors call `location`.
    pub(super) fn new(store: Arc<dyn ObjectStore>, location: &Location) -> Self {
        Self { store, location: location.clone() }
    }

    /// Returns the newest version that was committed at or before `time`.
    ///
    /// # Errors
    /// `Invalid` when there is no table or it has no such version.
    pub(super) async fn version_at(&self, time: Timestamp) -> Result<u64> {
        let listing = self.list().await?;
        // Commits are in order of time, but for clocks of several writers that differ; the search then ends near.
        let (mut low, mut high) = (0, listing.commits.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.committed_at(&listing.commits[middle]).await? <= time {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let found = low.checked_sub(1).map(|index| listing.commits[index].0);
        match (found, listing.range()) {
            (Some(version), Some((first, _))) if version >= first => Ok(version),
            (_, None) => Err(self.not_a_table()),
            (_, Some((first, _))) => {
                let error = Error::invalid(format!("the table at {} had no version at {time}", self.location));
                let oldest = listing.commits.iter().find(|(version, _)| *version >= first);
                Err(match oldest {
                    Some(commit) => error.with_hint(format!(
                        "its oldest version that can be read is {} of {}",
                        commit.0,
                        self.committed_at(commit).await?
                    )),
                    None => error,
                })
            }
        }
    }

    /// Returns the newest `limit` commits, newest first.
    ///
    /// # Errors
    /// `Invalid` when there is no table.
    pub(super) async fn history(&self, limit: usize) -> Result<Vec<HistoryEntry>> {
        let listing = self.list().await?;
        if listing.range().is_none() {
            return Err(self.not_a_table());
        }
        futures::stream::iter(listing.commits.into_iter().rev().take(limit))
            .map(|(version, file)| async move {
                let info = self.commit_info(&file).await?.unwrap_or_default();
                Ok(HistoryEntry::read(version, Timestamp(file.last_modified.timestamp_millis()), &info))
            })
            .buffered(READS_AT_ONCE)
            .try_collect()
            .await
    }

    /// Finds out why `version`, or the newest, could not be loaded.
    pub(super) async fn explain(&self, version: Option<u64>, cause: LoadFailure) -> Error {
        let cause = match cause {
            LoadFailure::Ours(error) => return error,
            LoadFailure::Delta(cause) => cause,
        };
        let range = match self.list().await {
            Ok(listing) => listing.range(),
            Err(error) => return error,
        };
        match (range, version) {
            (None, _) => self.not_a_table(),
            (Some((first, last)), Some(version)) if !(first..=last).contains(&version) => {
                Error::invalid(format!("version {version} of the table at {} does not exist", self.location))
                    .with_hint(format!("versions {first} to {last} can be read"))
            }
            _ => Error::data(format!("cannot read the Delta log at {}", self.location)).with_source(cause),
        }
    }

    fn not_a_table(&self) -> Error {
        Error::invalid(format!("there is no Delta table at {}", self.location))
            .with_hint(format!("a Delta table has commits in the folder {FOLDER}"))
    }

    async fn list(&self) -> Result<Listing> {
        let files: Vec<ObjectMeta> = match self.store.list(Some(&Path::from(FOLDER))).try_collect().await {
            Ok(files) => files,
            Err(object_store::Error::NotFound { .. }) => Vec::new(),
            Err(cause) => return Err(storage_error(format!("cannot list the Delta log at {}", self.location), cause)),
        };
        let mut listing = Listing::default();
        for file in files {
            // Only files at the root of the folder count; engines keep others in folders below.
            if file.location.parts().count() != 2 {
                continue;
            }
            match file.location.filename().and_then(log_file) {
                Some(LogFile::Commit(version)) => listing.commits.push((version, file)),
                Some(LogFile::Checkpoint(version)) => listing.add_checkpoint(version),
                None => {}
            }
        }
        listing.commits.sort_unstable_by_key(|(version, _)| *version);
        Ok(listing)
    }

    async fn committed_at(&self, (_, file): &(u64, ObjectMeta)) -> Result<Timestamp> {
        let info = self.commit_info(file).await?.unwrap_or_default();
        Ok(commit_time(&info).unwrap_or(Timestamp(file.last_modified.timestamp_millis())))
    }

    async fn commit_info(&self, file: &ObjectMeta) -> Result<Option<Value>> {
        let fail =
            |cause| storage_error(format!("cannot read {} of the table at {}", file.location, self.location), cause);
        let answer = self.store.get(&file.location).await.map_err(fail)?;
        let bytes = answer.bytes().await.map_err(fail)?;
        for line in bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let mut action: Value = serde_json::from_slice(line).map_err(|cause| {
                Error::data(format!("{} of the table at {} is not JSON", file.location, self.location))
                    .with_source(cause)
            })?;
            if let Some(info) = action.get_mut("commitInfo") {
                return Ok(Some(info.take()));
            }
        }
        Ok(None)
    }
}

impl Listing {
    fn add_checkpoint(&mut self, version: u64) {
        self.first_checkpoint = Some(self.first_checkpoint.map_or(version, |first| first.min(version)));
        self.last_checkpoint = Some(self.last_checkpoint.map_or(version, |last| last.max(version)));
    }

    /// Returns the oldest and the newest version that can be read: those that commits lead to from version 0 or from a
    /// checkpoint.
    fn range(&self) -> Option<(u64, u64)> {
        let first_commit = self.commits.first().map(|(version, _)| *version);
        let last_commit = self.commits.last().map(|(version, _)| *version);
        let first = if first_commit == Some(0) { first_commit } else { self.first_checkpoint.or(first_commit) };
        Some((first?, last_commit.max(self.last_checkpoint)?))
    }
}

/// Returns when a commit was made by what it says itself.
pub(super) fn commit_time(info: &Value) -> Option<Timestamp> {
    let millis = |key: &str| info.get(key).and_then(Value::as_i64);
    millis("inCommitTimestamp").or_else(|| millis("timestamp")).map(Timestamp)
}

#[derive(Debug, PartialEq, Eq)]
enum LogFile {
    Commit(u64),
    Checkpoint(u64),
}

fn log_file(name: &str) -> Option<LogFile> {
    let (digits, rest) = name.split_once('.')?;
    if digits.len() != 20 {
        return None;
    }
    let version = digits.parse().ok()?;
    match rest {
        "json" => Some(LogFile::Commit(version)),
        _ if rest.starts_with("checkpoint.") => Some(LogFile::Checkpoint(version)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_log_files_are_told_apart() {
        let check = |name: &str, expected: Option<LogFile>| assert_eq!(log_file(name), expected, "{name}");
        check("00000000000000000012.json", Some(LogFile::Commit(12)));
        check("00000000000000000012.checkpoint.parquet", Some(LogFile::Checkpoint(12)));
        check("00000000000000000012.checkpoint.0000000001.0000000002.parquet", Some(LogFile::Checkpoint(12)));
        check("00000000000000000012.crc", None);
        check("_last_checkpoint", None);
        check("12.json", None);
    }

    #[test]
    fn a_cleaned_log_begins_at_its_oldest_checkpoint() {
        let commit = |version: u64| {
            let location = Path::from(format!("{FOLDER}/{version:020}.json"));
            (version, ObjectMeta { location, last_modified: chrono_epoch(), size: 0, e_tag: None, version: None })
        };
        let mut listing = Listing { commits: vec![commit(7), commit(8), commit(11)], ..Listing::default() };
        listing.add_checkpoint(10);
        assert_eq!(listing.range(), Some((10, 11)));
        listing.commits.insert(0, commit(0));
        assert_eq!(listing.range(), Some((0, 11)));
        assert_eq!(Listing::default().range(), None);
    }

    fn chrono_epoch<T: Default>() -> T {
        T::default()
    }
}
