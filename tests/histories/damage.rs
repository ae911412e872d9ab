//! Damage to the snapshots of an index between two processes: to those beside the table, and to those on a machine's disk.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path as FilePath, PathBuf};

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::steps::Damage;
use super::witness::{TABLE, Witness};
use crate::harness::TestResult;

/// Damages the snapshots beside the table, and returns how many are gone or other than they were.
pub(crate) async fn damage_beside(witness: &Witness, damage: Damage) -> TestResult<usize> {
    let folder = Path::from(format!("{TABLE}/_alluvium/index"));
    let listed: Vec<_> = witness.list(Some(&folder)).try_collect().await?;
    let mut snapshots = BTreeMap::new();
    for file in listed {
        let bytes = witness.get(&file.location).await?.bytes().await?.to_vec();
        snapshots.insert(file.location, bytes);
    }
    let changes = changes(&snapshots, damage);
    let n_damaged = changes.len();
    for (path, left) in changes {
        match left {
            Some(bytes) => {
                witness.put(&path, bytes.into()).await?;
            }
            None => witness.delete(&path).await?,
        }
    }
    Ok(n_damaged)
}

/// Damages the snapshots of each table on `disk`, and returns how many are gone or other than they were.
pub(crate) fn damage_on_disk(disk: &FilePath, damage: Damage) -> TestResult<usize> {
    let mut n_damaged = 0;
    for table in listed(disk)? {
        for (path, left) in changes(&snapshots_in(&table)?, damage) {
            match left {
                Some(bytes) => fs::write(&path, bytes)?,
                None => if_there(fs::remove_file(&path))?.unwrap_or_default(),
            }
            n_damaged += 1;
        }
    }
    Ok(n_damaged)
}

/// Returns what a damage leaves of those snapshots of one folder that it changes: their bytes, or nothing where one is gone.
/// Names sort as versions do.
fn changes<N: Clone + Ord>(snapshots: &BTreeMap<N, Vec<u8>>, damage: Damage) -> BTreeMap<N, Option<Vec<u8>>> {
    let ends = snapshots.first_key_value().zip(snapshots.last_key_value());
    let Some(((_, oldest), (newest, whole))) = ends else { return BTreeMap::new() };
    let mut bytes = whole.clone();
    match damage {
        Damage::Cut => bytes.truncate(whole.len() * 2 / 3),
        Damage::Flip => {
            if let Some(byte) = bytes.get_mut(whole.len() / 2) {
                *byte ^= 1;
            }
        }
        Damage::Swap => bytes.clone_from(oldest),
        Damage::LoseNewest => return BTreeMap::from([(newest.clone(), None)]),
        Damage::LoseAll => return snapshots.keys().map(|name| (name.clone(), None)).collect(),
    }
    if bytes == *whole { BTreeMap::new() } else { BTreeMap::from([(newest.clone(), Some(bytes))]) }
}

/// Returns the snapshots in a table's folder; what is half written has a number behind its name.
fn snapshots_in(folder: &FilePath) -> io::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut snapshots = BTreeMap::new();
    for path in listed(folder)? {
        if path.extension().is_some_and(|extension| extension == "snapshot")
            && let Some(bytes) = if_there(fs::read(&path))?
        {
            snapshots.insert(path, bytes);
        }
    }
    Ok(snapshots)
}

/// Returns what lies in a folder: nothing before it is made.
fn listed(folder: &FilePath) -> io::Result<Vec<PathBuf>> {
    let Some(entries) = if_there(fs::read_dir(folder))? else { return Ok(Vec::new()) };
    entries.map(|entry| Ok(entry?.path())).collect()
}

/// Takes what is not there for none: a process that died in this one may still be tidying up.
fn if_there<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Err(failure) if failure.kind() == ErrorKind::NotFound => Ok(None),
        outcome => outcome.map(Some),
    }
}
