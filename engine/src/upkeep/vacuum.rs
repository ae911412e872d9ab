//! Removes data files that no version within the retention names: replaced ones, and orphans of attempts that failed.
//!
//! What may go is decided by the log alone: every version since the cutoff is replayed, and whatever one of them names
//! stays, deletion vectors counted like data files. Tombstones decide nothing, so neither another writer's clock nor a
//! checkpoint that has forgotten them takes a reader its file. Files younger than the cutoff stay whatever they are, since
//! somebody may be about to commit them. It never touches the log, a folder whose name begins with `_` or `.`, another
//! table within this one, or a file of a kind that no writer of Delta makes.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use alluvium_catalog::{Clock, Error, Location, Result};
use chrono::{DateTime, TimeDelta, Utc};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};

use super::checkpoints::whole_checkpoints;
use crate::commit::create::check_features;
use crate::delta::action::{Action, Add, StorageType};
use crate::delta::log::{DeltaLog, Version, commit_version};
use crate::delta::retention::interval;
use crate::delta::state::TableState;
use crate::write::vectors::vector_file;

/// Shorter than this a retention has to be forced: a reader, or a batch that is being staged, may need the files.
pub const RETENTION_MIN: Duration = Duration::from_secs(7 * 86_400);

/// How far this host's clock and the store's may stand apart. More means that one of them is wrong.
const SKEW_MAX: Duration = Duration::from_secs(300);

/// Versions read at the same time.
const READS_IN_FLIGHT: usize = 16;

/// Files removed by one request, where the store takes several: what S3 takes.
const REMOVED_AT_ONCE: usize = 1_000;

/// What a vacuum does with the files that may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Counts them.
    DryRun,
    /// Removes them.
    Remove,
}

/// What a vacuum found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vacuumed {
    /// Files that may go.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many of them were removed so far.
    pub removed: u64,
    /// Data files that stay.
    pub kept: u64,
    /// The oldest version that can still be read.
    pub oldest_version: Version,
    /// The first of the files that may go, by name.
    pub sample: Vec<String>,
}

/// Returns how long a table's files are kept: what was asked for, else what the table says, and a week at least.
///
/// # Errors
/// `Invalid` when less was asked for and `may_be_short` is not set, or what the table says cannot be understood.
pub fn retention(state: &TableState, at: &Location, asked: Option<Duration>, may_be_short: bool) -> Result<Duration> {
    let own = match (interval(state, "delta.deletedFileRetentionDuration", at), asked) {
        (Ok(own), _) => own.unwrap_or_default().max(RETENTION_MIN),
        (Err(_), Some(asked)) if may_be_short => asked,
        (Err(error), _) => return Err(error),
    };
    match asked {
        None => Ok(own),
        Some(asked) if asked >= own || may_be_short => Ok(asked),
        Some(asked) => Err(Error::invalid(format!(
            "a retention of {} h is shorter than the {} h that this table's files are kept",
            asked.as_secs() / 3_600,
            own.as_secs() / 3_600
        ))
        .with_hint(
            "readers and batches under way may lose files they need; alluvium vacuum --force does it all the same",
        )),
    }
}

/// Removes, or counts, the files of the table of `log` that no version within `retention` names. `tell` hears how far it
/// is.
///
/// # Errors
/// `Invalid` when there is no table, or it has a feature that this program does not know; `Data` when its log does not
/// tell all; `Unavailable` when the store does not answer, or its clock and this host's stand too far apart.
pub async fn vacuum(
    log: &DeltaLog,
    retention: Duration,
    mode: Mode,
    clock: &dyn Clock,
    mut tell: impl FnMut(&Vacuumed),
) -> Result<Vacuumed> {
    let at = log.location();
    let state =
        TableState::load(log).await?.ok_or_else(|| Error::invalid(format!("there is no Delta table at {at}")))?;
    check_features(log, &state)?;
    let now = store_time(log, clock).await?;
    let cutoff = TimeDelta::from_std(retention).ok().and_then(|retention| now.checked_sub_signed(retention));
    let cutoff = cutoff.ok_or_else(|| Error::invalid(format!("nothing of {at} is as old as the retention")))?;
    // The list comes first: what is uploaded and committed after it is not in it.
    let listed: Vec<ObjectMeta> = log.store().list(None).try_collect().await.map_err(|cause| failed(log, cause))?;
    let named = named_since(log, &state, &listed, (cutoff, now)).await?;
    let nested = nested_tables(&listed);
    let mut vacuumed = Vacuumed { oldest_version: named.first, ..Vacuumed::default() };
    let mut doomed: Vec<ObjectMeta> = Vec::new();
    let partitioned_by = &state.metadata.partition_columns;
    for file in listed.into_iter().filter(|file| is_data_file(&file.location, &nested, partitioned_by)) {
        if file.last_modified < cutoff && !named.paths.contains(file.location.as_ref()) {
            vacuumed.files += 1;
            vacuumed.bytes += file.size;
            doomed.push(file);
        } else {
            vacuumed.kept += 1;
        }
    }
    doomed.sort_by(|one, other| one.location.cmp(&other.location));
    vacuumed.sample = doomed.iter().take(10).map(|file| file.location.to_string()).collect();
    tell(&vacuumed);
    if mode == Mode::Remove {
        for chunk in doomed.chunks(REMOVED_AT_ONCE) {
            remove(log, chunk).await?;
            vacuumed.removed += chunk.len() as u64;
            tell(&vacuumed);
        }
    }
    Ok(vacuumed)
}

/// Returns the time by the store's clock, read off an object that is written for it.
///
/// # Errors
/// `Unavailable` when the store does not answer, or its clock and this host's stand too far apart.
pub(super) async fn store_time(log: &DeltaLog, clock: &dyn Clock) -> Result<DateTime<Utc>> {
    let path = Path::from(format!("_alluvium/probe/{}", clock.new_id()));
    let store = log.store();
    let failed = |cause| {
        Error::unavailable(format!("cannot tell the time of the store of {}", log.location())).with_source(cause)
    };
    store.put(&path, bytes::Bytes::new().into()).await.map_err(failed)?;
    let told = store.head(&path).await;
    if let Err(cause) = store.delete(&path).await {
        tracing::debug!(%path, %cause, "cannot remove the probe");
    }
    let told = told.map_err(failed)?.last_modified;
    let apart = told.timestamp_millis().abs_diff(clock.now().0);
    if u128::from(apart) <= SKEW_MAX.as_millis() {
        return Ok(told);
    }
    Err(Error::unavailable(format!(
        "the clock of this host and that of the store of {} stand {} s apart",
        log.location(),
        apart / 1_000
    ))
    .with_hint("a wrong clock makes young files look old; set the clocks, then try again"))
}

/// What the versions since a cutoff name.
#[derive(Debug, Default)]
struct Named {
    paths: HashSet<String>,
    /// The version that was the newest at the cutoff.
    first: Version,
}

/// Where the replay of a log begins.
#[derive(Debug, PartialEq, Eq)]
struct Start {
    /// The checkpoint that it begins with, if not with version 0.
    checkpoint: Option<Version>,
    /// The version that was the newest at the cutoff, or the oldest one that can be read.
    first: Version,
}

/// Replays the log: what is live in the version that was the newest at the cutoff, and all that was added since.
async fn named_since(
    log: &DeltaLog,
    state: &TableState,
    listed: &[ObjectMeta],
    since: (DateTime<Utc>, DateTime<Utc>),
) -> Result<Named> {
    let Start { checkpoint, first } = start(listed, since);
    let mut live: HashMap<String, Vec<String>> = HashMap::new();
    let mut next = 0;
    if let Some(version) = checkpoint {
        take_in(log, &log.read_checkpoint_of(version).await?, &mut live)?;
        next = version + 1;
    }
    let mut paths: HashSet<String> = HashSet::new();
    let mut version = next;
    while version <= state.version {
        let wave: Vec<_> = (version..=state.version).take(READS_IN_FLIGHT).map(|wanted| log.read(wanted)).collect();
        let mut entries = futures::stream::iter(wave).buffered(READS_IN_FLIGHT);
        while let Some(entry) = entries.try_next().await? {
            let entry = entry.ok_or_else(|| {
                let at = log.location();
                Error::data(format!("the log of {at} lacks version {version}, so it cannot tell what is needed"))
            })?;
            if version <= first {
                take_in(log, &entry.actions, &mut live)?;
            } else {
                for add in adds(&entry.actions) {
                    paths.extend(names_of(log, add)?);
                }
            }
            version += 1;
        }
    }
    paths.extend(live.into_values().flatten());
    for add in state.files.values() {
        paths.extend(names_of(log, add)?);
    }
    Ok(Named { paths, first })
}

/// Finds where to begin, so that every version since `cutoff` that the log still tells of is replayed.
fn start(listed: &[ObjectMeta], (cutoff, now): (DateTime<Utc>, DateTime<Utc>)) -> Start {
    let mut commits: Vec<(Version, DateTime<Utc>)> = Vec::new();
    let mut others: Vec<&str> = Vec::new();
    for file in listed {
        let Some(name) = file.location.as_ref().strip_prefix("_delta_log/") else { continue };
        match commit_version(name) {
            Some(version) => commits.push((version, file.last_modified)),
            // Sidecars lie in a folder of their own.
            None if !name.contains('/') => others.push(name),
            None => {}
        }
    }
    let checkpoints = whole_checkpoints(others.into_iter());
    let at_cutoff = newest_at(&commits, now, |at| at <= cutoff);
    let below = checkpoints.iter().copied().filter(|version| at_cutoff.is_some_and(|at| *version <= at)).max();
    let begins = commits.iter().any(|(version, _)| *version == 0);
    let checkpoint = match below {
        None if !begins => checkpoints.into_iter().min(),
        below => below,
    };
    Start { checkpoint, first: at_cutoff.unwrap_or(0).max(checkpoint.unwrap_or(0)) }
}

/// Returns the newest of the versions that are old, as the moments tell at which the store has taken them; `None` where none
/// is. What follows a version that is not old is none either, though a clock that was behind has dated it before; and a
/// moment that is still to come, by a clock that was ahead, tells nothing of the versions behind it.
pub(super) fn newest_at(
    commits: &[(Version, DateTime<Utc>)],
    now: DateTime<Utc>,
    is_old: impl Fn(DateTime<Utc>) -> bool,
) -> Option<Version> {
    let young = commits.iter().filter(|(_, at)| !is_old(*at) && *at <= now).map(|(version, _)| *version).min();
    let comes_first = |version: Version| young.is_none_or(|young| version < young);
    let old = commits.iter().filter(|(version, at)| is_old(*at) && comes_first(*version));
    old.map(|(version, _)| *version).max()
}

/// Takes the files of a version into `live`: the names that each data file stands for.
fn take_in(log: &DeltaLog, actions: &[Action], live: &mut HashMap<String, Vec<String>>) -> Result<()> {
    for action in actions {
        if let Action::Remove(remove) = action {
            live.remove(&remove.path);
        }
    }
    for add in adds(actions) {
        live.insert(add.path.clone(), names_of(log, add)?);
    }
    Ok(())
}

fn adds(actions: &[Action]) -> impl Iterator<Item = &Add> {
    actions.iter().filter_map(|action| match action {
        Action::Add(add) => Some(add),
        _ => None,
    })
}

/// Returns the paths that a data file stands for: its own, as it is and as the store writes it, and its vector's.
fn names_of(log: &DeltaLog, add: &Add) -> Result<Vec<String>> {
    let mut names = names_below(&add.path, log.location())?;
    match &add.deletion_vector {
        Some(vector) if vector.storage_type == StorageType::AbsolutePath => {
            names.extend(names_below(&vector.path_or_inline_dv, log.location())?);
        }
        Some(vector) => names.extend(vector_file(vector, log.location())?.map(|path| path.to_string())),
        None => {}
    }
    Ok(names)
}

/// Returns how a file that the log names by `path` may be called below the table. The protocol allows URLs and paths from the
/// root of the store, too; a file that lies elsewhere, as in a shallow clone, has no name here.
///
/// # Errors
/// `Data` for an absolute path that cannot be understood: it may be that of a file of this table.
fn names_below(path: &str, at: &Location) -> Result<Vec<String>> {
    if !path.contains("://") && !path.starts_with('/') && !path.starts_with("file:/") {
        return Ok(vec![path.to_owned(), Path::from(path).to_string()]);
    }
    let unclear = || Error::data(format!("cannot tell whether {path} lies in the table at {at}, whose log names it"));
    let named: Location = path.parse().map_err(|cause: Error| unclear().with_source(cause))?;
    let below = named.path().prefix_match(at.path()).filter(|_| at.contains(&named));
    Ok(below.map(|parts| parts.collect::<Path>().to_string()).into_iter().collect())
}

/// Returns the folders below the table's that hold tables of their own.
fn nested_tables(listed: &[ObjectMeta]) -> HashSet<String> {
    listed
        .iter()
        .filter_map(|file| file.location.as_ref().split_once("/_delta_log/"))
        .map(|(folder, _)| format!("{folder}/"))
        .collect()
}

/// Tells whether a file is one that a writer of Delta makes beside the log, in this table.
fn is_data_file(path: &Path, nested: &HashSet<String>, partitioned_by: &[String]) -> bool {
    let text = path.as_ref();
    // The folder of a partition is one of data, whatever the name of its column begins with.
    let is_partition = |segment: &str| {
        segment.split_once('=').is_some_and(|(name, _)| partitioned_by.iter().any(|column| column == name))
    };
    let is_hidden = text.split('/').any(|segment| segment.starts_with(['_', '.']) && !is_partition(segment));
    let name = path.filename().unwrap_or_default();
    let is_known = name.ends_with(".parquet") || (name.starts_with("deletion_vector_") && name.ends_with(".bin"));
    is_known && !is_hidden && !nested.iter().any(|folder| text.starts_with(folder.as_str()))
}

/// Removes files; one that is gone already is as good.
async fn remove(log: &DeltaLog, files: &[ObjectMeta]) -> Result<()> {
    let paths: Vec<_> = files.iter().map(|file| Ok(file.location.clone())).collect();
    let mut removed = log.store().delete_stream(futures::stream::iter(paths).boxed());
    while let Some(done) = removed.next().await {
        match done {
            Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
            Err(cause) => return Err(failed(log, cause)),
        }
    }
    Ok(())
}

fn failed(log: &DeltaLog, cause: object_store::Error) -> Error {
    Error::unavailable(format!("cannot vacuum the table at {}", log.location())).with_source(cause)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::CLOCK_BEHIND;
    use super::*;

    fn file(name: &str, day: i64) -> ObjectMeta {
        let last_modified = DateTime::from_timestamp(day * 86_400, 0).unwrap_or_default();
        ObjectMeta { location: Path::from(name), last_modified, size: 1, e_tag: None, version: None }
    }

    fn check(files: &[(&str, i64)], cutoff_day: i64, expected: (Option<Version>, Version)) {
        let listed: Vec<ObjectMeta> =
            files.iter().map(|(name, day)| file(&format!("_delta_log/{name}"), *day)).collect();
        let [cutoff, now] = [cutoff_day, 100].map(|day| DateTime::from_timestamp(day * 86_400, 0).unwrap_or_default());
        let (checkpoint, first) = expected;
        assert_eq!(start(&listed, (cutoff, now)), Start { checkpoint, first }, "{files:?} at day {cutoff_day}");
    }

    #[test]
    fn the_replay_begins_below_the_version_that_was_the_newest_at_the_cutoff() {
        let whole = [
            ("00000000000000000000.json", 1),
            ("00000000000000000001.json", 2),
            ("00000000000000000001.checkpoint.parquet", 2),
            ("00000000000000000002.json", 3),
            ("00000000000000000003.json", 5),
            ("_sidecars/00000000000000000003.checkpoint.x.parquet", 5),
        ];
        check(&whole, 4, (Some(1), 2));
        check(&whole, 1, (None, 0));
        check(&whole, 0, (None, 0));
        check(&whole, 9, (Some(1), 3));
        check(&whole[2..], 1, (Some(1), 1));
    }

    #[test]
    fn a_version_that_a_clock_has_dated_before_a_young_one_is_as_young() {
        check(&CLOCK_BEHIND, 5, (Some(1), 1));
        check(&CLOCK_BEHIND, 9, (Some(3), 3));
        let [first, _, checkpoint, ..] = CLOCK_BEHIND;
        let ahead = [first, ("00000000000000000001.json", 101), checkpoint, ("00000000000000000002.json", 3)];
        check(&ahead, 5, (Some(1), 2));
    }

    #[test]
    fn the_replay_does_not_begin_with_a_checkpoint_that_lacks_a_part() {
        let files = [
            ("00000000000000000000.checkpoint.0000000002.0000000002.parquet", 1),
            ("00000000000000000001.json", 2),
            ("00000000000000000001.checkpoint.parquet", 2),
            ("00000000000000000002.json", 3),
            ("00000000000000000002.checkpoint.0000000001.0000000002.parquet", 3),
            ("00000000000000000002.checkpoint.0000000002.0000000002.parquet", 3),
        ];
        check(&files[..5], 4, (Some(1), 2));
        check(&files[..5], 1, (Some(1), 1));
        check(&files, 4, (Some(2), 2));
    }

    #[test]
    fn only_files_of_writers_of_this_table_may_go() {
        let nested = nested_tables(&[file("inner/t/_delta_log/00000000000000000000.json", 1)]);
        for (path, expected) in [
            ("part-1.parquet", true),
            ("day=1/part-1.snappy.parquet", true),
            ("deletion_vector_1.bin", true),
            ("ab/deletion_vector_1.bin", true),
            ("notes.txt", false),
            ("_alluvium/tombstones/1.parquet", false),
            ("_delta_log/00000000000000000001.checkpoint.parquet", false),
            (".hidden/part-1.parquet", false),
            ("inner/t/part-1.parquet", false),
            ("inner/u/part-1.parquet", true),
            ("_day=2026-03-01/part-1.parquet", true),
            ("_night=2026-03-01/part-1.parquet", false),
        ] {
            assert_eq!(is_data_file(&Path::from(path), &nested, &["_day".to_owned()]), expected, "{path}");
        }
    }

    #[test]
    fn a_file_that_the_log_names_by_an_absolute_path_is_one_of_the_table() -> Result<()> {
        let check = |at: &str, path: &str, expected: &[&str]| -> Result<()> {
            assert_eq!(names_below(path, &at.parse()?)?, expected, "{path} of {at}");
            Ok(())
        };
        check("s3://lake/t", "day=1/a b.parquet", &["day=1/a b.parquet", "day=1/a b.parquet"])?;
        check("s3://lake/t", "s3://lake/t/day=1/a.parquet", &["day=1/a.parquet"])?;
        check("s3://lake/t", "s3a://lake/t/a.parquet", &["a.parquet"])?;
        check("s3://lake/t", "s3://lake/other/a.parquet", &[])?;
        check("s3://lake/t", "s3://elsewhere/t/a.parquet", &[])?;
        for path in ["/lake/t/a.parquet", "file:/lake/t/a.parquet", "file:///lake/t/a.parquet"] {
            check("file:///lake/t", path, &["a.parquet"])?;
        }
        assert!(names_below("gs://lake/t/a.parquet", &"s3://lake/t".parse()?).is_err());
        Ok(())
    }

    #[test]
    fn a_short_retention_has_to_be_forced() -> Result<()> {
        let (mut state, at) = (TableState::default(), "memory:///t".parse()?);
        state
            .metadata
            .configuration
            .insert("delta.deletedFileRetentionDuration".to_owned(), "interval 1 days".to_owned());
        let hours = |hours: u64| Some(Duration::from_secs(hours * 3_600));
        assert_eq!(retention(&state, &at, None, false)?, RETENTION_MIN);
        assert_eq!(retention(&state, &at, hours(200), false)?, Duration::from_secs(720_000));
        assert!(retention(&state, &at, hours(24), false).is_err());
        assert_eq!(retention(&state, &at, hours(0), true)?, Duration::ZERO);
        state
            .metadata
            .configuration
            .insert("delta.deletedFileRetentionDuration".to_owned(), "interval 30 days".to_owned());
        assert!(retention(&state, &at, hours(200), false).is_err(), "the table keeps its files longer");
        state
            .metadata
            .configuration
            .insert("delta.deletedFileRetentionDuration".to_owned(), "interval 1 month".to_owned());
        assert!(retention(&state, &at, None, false).is_err(), "a month is not a week");
        assert!(retention(&state, &at, hours(2_000), false).is_err());
        assert_eq!(retention(&state, &at, hours(24), true)?, Duration::from_secs(86_400));
        Ok(())
    }
}
