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

/// By which times the commits of a log count.
#[derive(Debug)]
struct Times {
    /// When the store got each of them, made to rise.
    stored: Vec<Timestamp>,
    /// How many, from the oldest on, count by these alone, whatever they carry.
    n_bare: usize,
}

impl Times {
    /// Returns when the commit at place `index` was made, which carries the time `carried`, if any.
    fn of(&self, index: usize, carried: Option<Timestamp>) -> Timestamp {
        carried.filter(|_| index >= self.n_bare).unwrap_or(self.stored[index])
    }
}

impl Log {
    /// Returns the log of the table at the root of `store`, which errors call `location`.
    pub(super) fn new(store: Arc<dyn ObjectStore>, location: &Location) -> Self {
        Self { store, location: location.clone() }
    }

    /// Returns the newest version that was committed at or before `time`.
    ///
    /// A commit's time is the one that Delta's other readers take, so that they find the same version. In a table with
    /// in-commit timestamps it is what the commit carries. In any other it is when the store got the commit, and where
    /// a clock went back, a millisecond after the commit before it: each is max(own, previous + 1 ms), over all commits
    /// that the log still has. What a commit says of its writer's clock counts for nothing here: that would have to be
    /// read out of every commit, while the list of the log has the store's times.
    ///
    /// Beside that list one commit is read, and with in-commit timestamps some twice the logarithm of their number.
    ///
    /// # Errors
    /// `Invalid` when there is no table or it has no such version.
    pub(super) async fn version_at(&self, time: Timestamp) -> Result<u64> {
        let listing = self.list().await?;
        let Some((first, _)) = listing.range() else { return Err(self.not_a_table()) };
        let times = self.times(&listing.commits).await?;
        let n_made = self.n_made_by(&listing.commits, &times, time).await?;
        let found = n_made.checked_sub(1).map(|index| listing.commits[index].0);
        if let Some(version) = found.filter(|version| *version >= first) {
            return Ok(version);
        }
        let error = Error::invalid(format!("the table at {} had no version at {time}", self.location));
        let oldest = listing.commits.iter().enumerate().find(|(_, (version, _))| *version >= first);
        let Some((index, (version, file))) = oldest else { return Err(error) };
        let made_at = times.of(index, self.carried_time(file).await?);
        Err(error.with_hint(format!("its oldest version that can be read is {version} of {made_at}")))
    }

    /// Returns the newest `limit` commits, newest first, each with the time by which [`version_at`](Self::version_at)
    /// finds it.
    ///
    /// # Errors
    /// `Invalid` when there is no table.
    pub(super) async fn history(&self, limit: usize) -> Result<Vec<HistoryEntry>> {
        let listing = self.list().await?;
        if listing.range().is_none() {
            return Err(self.not_a_table());
        }
        let times = &self.times(&listing.commits).await?;
        futures::stream::iter(listing.commits.into_iter().enumerate().rev().take(limit))
            .map(|(index, (version, file))| async move {
                let info = self.commit_info(&file).await?.unwrap_or_default();
                Ok(HistoryEntry::read(version, times.of(index, commit_time(&info)), &info))
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

    async fn times(&self, commits: &[(u64, ObjectMeta)]) -> Result<Times> {
        Ok(Times { stored: stored_times(commits), n_bare: self.n_bare(commits).await? })
    }

    /// Returns how many of `commits`, from the oldest on, were made at or before `time`.
    async fn n_made_by(&self, commits: &[(u64, ObjectMeta)], times: &Times, time: Timestamp) -> Result<usize> {
        let n_bare = times.n_bare;
        // Times that commits carry rise from version to version: whoever keeps them must see to that.
        let (mut low, mut high) = (n_bare, commits.len());
        while low < high {
            let middle = low.midpoint(high);
            if times.of(middle, self.carried_time(&commits[middle].1).await?) <= time {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        if low > n_bare {
            return Ok(low);
        }
        Ok(times.stored[..n_bare].partition_point(|stored_at| *stored_at <= time))
    }

    /// Returns how many of `commits`, from the oldest on, are from before the table began to keep in-commit timestamps:
    /// all where it keeps none now.
    async fn n_bare(&self, commits: &[(u64, ObjectMeta)]) -> Result<usize> {
        let Some((newest, others)) = commits.split_last() else { return Ok(0) };
        if self.carried_time(&newest.1).await?.is_none() {
            return Ok(commits.len());
        }
        let (mut low, mut high) = (0, others.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.carried_time(&others[middle].1).await?.is_none() {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    async fn carried_time(&self, file: &ObjectMeta) -> Result<Option<Timestamp>> {
        Ok(self.commit_info(file).await?.as_ref().and_then(commit_time))
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

/// Returns when a commit was made by what it carries, in a table with in-commit timestamps. Source: Delta transaction
/// log protocol, section "In-Commit Timestamps".
fn commit_time(info: &Value) -> Option<Timestamp> {
    info.get("inCommitTimestamp").and_then(Value::as_i64).map(Timestamp)
}

/// Returns when the store got each of `commits`, which are in order of version, made to rise.
fn stored_times(commits: &[(u64, ObjectMeta)]) -> Vec<Timestamp> {
    rising(commits.iter().map(|(_, file)| file.last_modified.timestamp_millis()))
}

/// Returns epoch milliseconds with each at least one above the one before it, as Spark makes commits' times rise.
fn rising(times_ms: impl Iterator<Item = i64>) -> Vec<Timestamp> {
    let mut previous_ms = i64::MIN;
    times_ms
        .map(|own_ms| {
            previous_ms = own_ms.max(previous_ms.saturating_add(1));
            Timestamp(previous_ms)
        })
        .collect()
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

    #[test]
    fn times_of_commits_rise() {
        let check = |own_ms: &[i64], expected: &[i64]| {
            let expected: Vec<Timestamp> = expected.iter().copied().map(Timestamp).collect();
            assert_eq!(rising(own_ms.iter().copied()), expected, "{own_ms:?}");
        };
        check(&[], &[]);
        check(&[10, 20, 30], &[10, 20, 30]);
        check(&[10, 20, 100, 30, 40], &[10, 20, 100, 101, 102]);
        check(&[10, 10, 10, 12, 20], &[10, 11, 12, 13, 20]);
        check(&[-5, i64::MIN, 3], &[-5, -4, 3]);
    }

    fn chrono_epoch<T: Default>() -> T {
        T::default()
    }
}
