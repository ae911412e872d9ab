//! The section `[upkeep]`: what the engine may do to its tables beside landing batches, and how much of it.

use std::ops::RangeInclusive;
use std::time::Duration;

use alluvium_catalog::Result;

use super::value::Values;

/// Below a megabyte a file is all footer; above 4 GiB one upload is too long.
const TARGET_BYTES: RangeInclusive<u64> = 1 << 20..=4 << 30;
/// One file is no compaction, and a thousand wait too long.
const FILES_MIN: RangeInclusive<u64> = 2..=1_000;
/// Shares are percent.
const PERCENT: RangeInclusive<u64> = 1..=100;
/// What one compaction, or an hour of them, may read.
const WORK_BYTES: RangeInclusive<u64> = 1 << 20..=1 << 44;
/// Less does not hold what a merge of sorted pieces reads at once.
const SORT_BYTES: RangeInclusive<u64> = 64 << 20..=1 << 40;
/// A log of less is replayed in no time.
const LOG_BYTES: RangeInclusive<u64> = 64 << 10..=1 << 34;
/// Shorter than a week needs the command with its flag, since it takes running readers their files.
const RETENTION: RangeInclusive<Duration> = Duration::from_secs(7 * 86_400)..=Duration::from_secs(3_650 * 86_400);
/// A vacuum lists the whole table.
const INTERVAL: RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(30 * 86_400);

/// What upkeep may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpkeepSettings {
    /// Whether small files, and files with many deleted rows, are rewritten.
    pub compaction: bool,
    /// The size that compacted files are given.
    pub target_bytes: u64,
    /// How many files of like size one compaction waits for.
    pub files_min: usize,
    /// The share of deleted rows, in percent, from which on a file is rewritten.
    pub deleted_percent: u64,
    /// What one compaction reads at most.
    pub compaction_bytes: u64,
    /// What sorting the rows of a clustered table may take in memory; the rest goes to local disk.
    pub sort_bytes: usize,
    /// What the upkeep of one table reads in an hour at most.
    pub hourly_bytes: u64,
    /// The share of time, in percent, that each kind of upkeep of one table may be at work.
    pub wall_percent: u64,
    /// How much log between two checkpoints, whatever the number of versions.
    pub checkpoint_bytes: u64,
    /// Whether version checksums are written.
    pub checksums: bool,
    /// Whether files that no version needs are removed.
    pub vacuum: bool,
    /// How long files are kept that no live version names.
    pub vacuum_retention: Duration,
    /// How long from one vacuum to the next.
    pub vacuum_interval: Duration,
}

impl Default for UpkeepSettings {
    /// Files of 128 MiB are what scans like; eight of a size at once rewrite a row about `log8` times over its life.
    fn default() -> Self {
        Self {
            compaction: true,
            target_bytes: 128 << 20,
            files_min: 8,
            deleted_percent: 20,
            compaction_bytes: 1 << 30,
            sort_bytes: 256 << 20,
            hourly_bytes: 64 << 30,
            wall_percent: 25,
            checkpoint_bytes: 32 << 20,
            checksums: true,
            vacuum: false,
            vacuum_retention: Duration::from_secs(7 * 86_400),
            vacuum_interval: Duration::from_secs(86_400),
        }
    }
}

/// Reads the section.
pub(super) fn upkeep(values: &Values) -> Result<UpkeepSettings> {
    let default = UpkeepSettings::default();
    let files_min = values.count("upkeep.files_min", FILES_MIN)?.and_then(|n| usize::try_from(n).ok());
    let sort_bytes = values.bytes("upkeep.sort_memory", SORT_BYTES)?.and_then(|bytes| usize::try_from(bytes).ok());
    Ok(UpkeepSettings {
        compaction: values.switch("upkeep.compaction")?.unwrap_or(default.compaction),
        target_bytes: values.bytes("upkeep.target_size", TARGET_BYTES)?.unwrap_or(default.target_bytes),
        files_min: files_min.unwrap_or(default.files_min),
        deleted_percent: values.count("upkeep.deleted_share", PERCENT)?.unwrap_or(default.deleted_percent),
        compaction_bytes: values.bytes("upkeep.compaction_size", WORK_BYTES)?.unwrap_or(default.compaction_bytes),
        sort_bytes: sort_bytes.unwrap_or(default.sort_bytes),
        hourly_bytes: values.bytes("upkeep.hourly_size", WORK_BYTES)?.unwrap_or(default.hourly_bytes),
        wall_percent: values.count("upkeep.wall_share", PERCENT)?.unwrap_or(default.wall_percent),
        checkpoint_bytes: values.bytes("upkeep.checkpoint_size", LOG_BYTES)?.unwrap_or(default.checkpoint_bytes),
        checksums: values.switch("upkeep.checksums")?.unwrap_or(default.checksums),
        vacuum: values.switch("upkeep.vacuum")?.unwrap_or(default.vacuum),
        vacuum_retention: values.duration("upkeep.vacuum_retention", RETENTION)?.unwrap_or(default.vacuum_retention),
        vacuum_interval: values.duration("upkeep.vacuum_interval", INTERVAL)?.unwrap_or(default.vacuum_interval),
    })
}
