//! Removes what a table's log no longer needs: versions, checksums, checkpoints and sidecars older than its retention.
//!
//! Every version within the retention can still be read: a checkpoint at or before the oldest of them stays, and all
//! versions from it on. What time it is the store itself says, by its newest file, but no later than it is there now: one
//! commit by a clock that was ahead makes no other version old.

use std::collections::HashSet;

use alluvium_catalog::{Clock, Error, Result};
use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};

use super::checkpoints::whole_checkpoints;
use super::vacuum::{newest_at, store_time};
use crate::delta::checkpoint::is_sidecar;
use crate::delta::log::{DeltaLog, Version, commit_version};
use crate::delta::retention::kept_log;
use crate::delta::state::TableState;

/// A file of a log.
#[derive(Debug, Clone)]
struct LogFile {
    meta: ObjectMeta,
    version: Version,
    is_checkpoint: bool,
    is_commit: bool,
}

impl LogFile {
    /// Tells whether nobody reads it who reads what `cutoff` keeps from checkpoint `safe` on.
    fn is_over(&self, safe: Version, cutoff: DateTime<Utc>) -> bool {
        self.version < safe && self.meta.last_modified < cutoff
    }
}

/// Removes what the log of `state` no longer needs and returns how many files that were.
///
/// # Errors
/// `Invalid` when the table's retention cannot be understood: nothing is removed then. `Unavailable` when the store does
/// not answer; what was removed before stays so. It is also `Unavailable` when the store's clock and this host's stand too
/// far apart: nothing is removed then.
pub async fn clean_log(log: &DeltaLog, state: &TableState, clock: &dyn Clock) -> Result<u64> {
    if state.metadata.flag("delta.enableExpiredLogCleanup") == Some(false) {
        return Ok(0);
    }
    let retention = kept_log(state, log.location())?;
    let failed =
        |cause| Error::unavailable(format!("cannot clean up the log of {}", log.location())).with_source(cause);
    let listed: Vec<ObjectMeta> =
        log.store().list(Some(&Path::from("_delta_log"))).try_collect().await.map_err(failed)?;
    let Some(newest) = listed.iter().map(|file| file.last_modified).max() else { return Ok(0) };
    let Ok(retention) = chrono::TimeDelta::from_std(retention) else { return Ok(0) };
    let Some(cutoff) = newest.checked_sub_signed(retention) else { return Ok(0) };
    let (sidecars, files): (Vec<_>, Vec<_>) = listed.into_iter().partition(|file| is_sidecar(&file.location));
    let files: Vec<LogFile> = files.into_iter().filter_map(log_file).collect();
    let Some(hinted) = log.last_checkpoint().await? else { return Ok(0) };
    // The latest that it can be: before all time no version is young.
    let Some(safe) = safe_version(&files, (cutoff, DateTime::<Utc>::MIN_UTC), hinted) else { return Ok(0) };
    // The store is asked for its time only where something may go, since that takes a file.
    if !files.iter().any(|file| file.is_over(safe, cutoff)) && !sidecars.iter().any(|file| file.last_modified < cutoff)
    {
        return Ok(0);
    }
    let now = store_time(log, clock).await?.min(newest);
    let Some(cutoff) = now.checked_sub_signed(retention) else { return Ok(0) };
    let Some(safe) = safe_version(&files, (cutoff, now), hinted) else { return Ok(0) };
    let (old, kept): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| file.is_over(safe, cutoff));
    let mut doomed: Vec<Path> = old.into_iter().map(|file| file.meta.location).collect();
    doomed.extend(unnamed_sidecars(log, &kept, sidecars, cutoff).await?);
    let n_files = doomed.len() as u64;
    let doomed = futures::stream::iter(doomed.into_iter().map(Ok)).boxed();
    log.store().delete_stream(doomed).try_for_each(|_| async { Ok(()) }).await.map_err(failed)?;
    Ok(n_files)
}

/// Returns the newest checkpoint from which every version that `cutoff` keeps can be read; `None` when there is none. It
/// is never one after `hinted`, where every reader begins: the hint of a newer one may have been lost.
fn safe_version(files: &[LogFile], (cutoff, now): (DateTime<Utc>, DateTime<Utc>), hinted: Version) -> Option<Version> {
    let commits = files.iter().filter(|file| file.is_commit);
    let commits: Vec<_> = commits.map(|file| (file.version, file.meta.last_modified)).collect();
    // The version that was the newest one at the cutoff is still within the retention.
    let needed = newest_at(&commits, now, |at| at < cutoff)?;
    let last = needed.min(hinted);
    let names = files.iter().filter(|file| file.is_checkpoint).filter_map(|file| file.meta.location.filename());
    whole_checkpoints(names).into_iter().filter(|version| *version <= last).max()
}

/// Returns the old sidecars that no checkpoint names which is kept.
async fn unnamed_sidecars(
    log: &DeltaLog,
    kept: &[LogFile],
    sidecars: Vec<ObjectMeta>,
    cutoff: DateTime<Utc>,
) -> Result<Vec<Path>> {
    let old: Vec<ObjectMeta> = sidecars.into_iter().filter(|file| file.last_modified < cutoff).collect();
    if old.is_empty() {
        return Ok(Vec::new());
    }
    let mut named = HashSet::new();
    for checkpoint in kept.iter().filter(|file| file.is_checkpoint) {
        named.extend(log.sidecars_of(&checkpoint.meta).await?.into_iter().map(|sidecar| sidecar.path));
    }
    Ok(old.into_iter().map(|file| file.location).filter(|path| !named.contains(path)).collect())
}

fn log_file(meta: ObjectMeta) -> Option<LogFile> {
    let name = meta.location.filename()?;
    let is_commit = commit_version(name).is_some();
    let version = name.get(..20)?.parse().ok()?;
    let rest = name.get(20..)?;
    let is_checkpoint = rest.starts_with(".checkpoint.");
    // What this program does not know it does not remove.
    let is_known = is_commit || is_checkpoint || rest == ".crc";
    is_known.then_some(LogFile { meta, version, is_checkpoint, is_commit })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use alluvium_catalog::SystemClock;
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    use super::super::fixture::CLOCK_BEHIND;
    use super::*;

    fn file(name: &str, day: i64) -> Option<LogFile> {
        log_file(ObjectMeta {
            location: Path::from(format!("_delta_log/{name}")),
            last_modified: DateTime::from_timestamp(day * 86_400, 0)?,
            size: 1,
            e_tag: None,
            version: None,
        })
    }

    fn safe(files: &[(&str, i64)], cutoff_day: i64) -> Option<Version> {
        safe_by(files, cutoff_day, Version::MAX)
    }

    fn safe_by(files: &[(&str, i64)], cutoff_day: i64, hinted: Version) -> Option<Version> {
        let files: Vec<LogFile> = files.iter().filter_map(|(name, day)| file(name, *day)).collect();
        let moment = |day: i64| DateTime::from_timestamp(day * 86_400, 0);
        safe_version(&files, (moment(cutoff_day)?, moment(100)?), hinted)
    }

    #[test]
    fn the_checkpoint_below_the_oldest_kept_version_stays() {
        let files = [
            ("00000000000000000000.json", 1),
            ("00000000000000000001.json", 2),
            ("00000000000000000001.checkpoint.parquet", 2),
            ("00000000000000000002.json", 3),
            ("00000000000000000003.json", 5),
            ("00000000000000000003.checkpoint.parquet", 5),
        ];
        assert_eq!(safe(&files, 4), Some(1), "version 2 was the newest on day 4, and is read from checkpoint 1");
        assert_eq!(safe(&files, 6), Some(3));
        assert_eq!(safe_by(&files, 6, 1), Some(1), "checkpoint 3 has lost its hint, so readers begin at checkpoint 1");
        assert_eq!(safe_by(&files, 6, 0), None);
        assert_eq!(safe(&files, 2), None);
        assert_eq!(safe(&files, 1), None);
    }

    #[test]
    fn a_version_of_a_clock_that_was_behind_does_not_take_the_checkpoint_of_those_before_it() {
        let files = [&CLOCK_BEHIND[..], &[("00000000000000000004.json", 10)]].concat();
        assert_eq!(safe(&files, 5), Some(1), "version 2, of day 9, is read from checkpoint 1");
        assert_eq!(safe(&files, 10), Some(3));
        let of_a_day_to_come = ("00000000000000000002.json", 101);
        let later = [("00000000000000000003.json", 3), files[5]];
        let ahead = [&files[..3], &[of_a_day_to_come], &later[..]].concat();
        assert_eq!(safe(&ahead, 5), Some(3), "version 2 says nothing of version 3");
    }

    #[test]
    fn a_checkpoint_that_lacks_a_part_is_none() {
        let files = [
            ("00000000000000000000.json", 1),
            ("00000000000000000001.json", 2),
            ("00000000000000000001.checkpoint.parquet", 2),
            ("00000000000000000002.json", 3),
            ("00000000000000000002.checkpoint.0000000001.0000000002.parquet", 3),
            ("00000000000000000003.json", 5),
            ("00000000000000000002.checkpoint.0000000002.0000000002.parquet", 5),
        ];
        assert_eq!(safe(&files[..6], 4), Some(1), "version 2 is read from checkpoint 1");
        assert_eq!(safe(&files, 4), Some(2));
    }

    #[test]
    fn only_files_of_known_kinds_belong_to_a_log() {
        assert!(file("00000000000000000003.crc", 1).is_some_and(|file| !file.is_checkpoint && !file.is_commit));
        assert!(file("_last_checkpoint", 1).is_none());
        assert!(file("00000000000000000003.json.tmp", 1).is_none());
        assert!(file("readme.txt", 1).is_none());
    }

    /// Returns a log whose first version may go as soon as none has to be kept for a time.
    async fn log_with_a_version_too_many() -> Result<DeltaLog> {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let log = DeltaLog::with_stores("memory:///t".parse()?, Arc::clone(&store), Arc::clone(&store));
        let failed = |cause| Error::unavailable("test store").with_source(cause);
        for name in
            ["00000000000000000000.json", "00000000000000000001.json", "00000000000000000001.checkpoint.parquet"]
        {
            store.put(&Path::from(format!("_delta_log/{name}")), "{}".into()).await.map_err(failed)?;
        }
        let hint = r#"{"version":1,"size":1}"#;
        store.put(&Path::from("_delta_log/_last_checkpoint"), hint.into()).await.map_err(failed)?;
        tokio::time::sleep(Duration::from_millis(20)).await;
        store.put(&Path::from("_delta_log/00000000000000000002.json"), "{}".into()).await.map_err(failed)?;
        Ok(log)
    }

    #[tokio::test]
    async fn a_log_that_is_to_stay_stays_in_whatever_letters_that_is_said() -> Result<()> {
        let (log, mut state) = (log_with_a_version_too_many().await?, TableState::default());
        for (said, expected) in [("FALSE", 0), ("False", 0), ("false", 0), ("True", 1)] {
            state.metadata.configuration.extend(
                [("delta.logRetentionDuration", "interval 0 seconds"), ("delta.enableExpiredLogCleanup", said)]
                    .map(|(key, value)| (key.to_owned(), value.to_owned())),
            );
            assert_eq!(clean_log(&log, &state, &SystemClock).await?, expected, "{said}");
        }
        Ok(())
    }

    #[tokio::test]
    async fn a_retention_that_cannot_be_understood_removes_nothing() -> Result<()> {
        let log = log_with_a_version_too_many().await?;
        let mut state = TableState::default();
        let mut retain = |text: &str| {
            state.metadata.configuration.insert("delta.logRetentionDuration".to_owned(), text.to_owned());
            state.clone()
        };
        let error = clean_log(&log, &retain("interval 1 month"), &SystemClock).await.err();
        let message = error.map(|error| error.message().to_owned()).unwrap_or_default();
        assert_eq!(
            message,
            "cannot understand 'delta.logRetentionDuration' = 'interval 1 month' of the table at memory:///t"
        );
        let removed = clean_log(&log, &retain("interval 0 seconds"), &SystemClock).await?;
        assert_eq!(removed, 1, "the version before the checkpoint");
        Ok(())
    }
}
