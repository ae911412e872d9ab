//! The snapshots of the key index beside a table while batches land: which were begun, which are whole. The engine writes
//! them in a task of its own, so that a look at their folder is all that tells.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use alluvium_catalog::{Error, Result};

/// Where the engine puts them, from the table's folder.
pub(crate) const FOLDER: &str = "_alluvium/index";

const SUFFIX: &str = ".snapshot";

/// What was seen of the snapshots of a table, look by look.
#[derive(Debug)]
pub(crate) struct Sightings {
    folder: PathBuf,
    /// The versions of those that were begun.
    pub(crate) begun: BTreeSet<u64>,
    /// The versions of those that were whole.
    pub(crate) written: BTreeSet<u64>,
}

/// What lies beside a table at one moment.
#[derive(Debug, Default)]
struct Lying {
    /// Versions and bytes of those that are whole.
    whole: Vec<(u64, u64)>,
    /// The versions of those under way.
    halves: Vec<u64>,
}

impl Sightings {
    /// Returns those of the table in `folder`, before the first look.
    pub(crate) fn of(table: &Path) -> Self {
        Self { folder: table.join(FOLDER), begun: BTreeSet::new(), written: BTreeSet::new() }
    }

    /// Looks, and tells whether one is being written at this moment.
    pub(crate) fn look(&mut self) -> Result<bool> {
        let Lying { whole, halves } = self.lying()?;
        self.written.extend(whole.iter().map(|(version, _)| version));
        self.begun.extend(whole.iter().map(|(version, _)| version).chain(&halves));
        Ok(!halves.is_empty())
    }

    /// Returns versions and bytes of those that are whole now, oldest first.
    pub(crate) fn whole(&self) -> Result<Vec<(u64, u64)>> {
        let mut whole = self.lying()?.whole;
        whole.sort_unstable();
        Ok(whole)
    }

    fn lying(&self) -> Result<Lying> {
        let failed = |cause| Error::unavailable(format!("cannot list {}", self.folder.display())).with_source(cause);
        let entries = match fs::read_dir(&self.folder) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Lying::default()),
            entries => entries.map_err(failed)?,
        };
        let mut lying = Lying::default();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            match parse(&entry.file_name().to_string_lossy()) {
                // One that has gone since it was listed has been replaced by others.
                Some((version, true)) => lying.whole.extend(entry.metadata().ok().map(|told| (version, told.len()))),
                Some((version, false)) => lying.halves.push(version),
                None => {}
            }
        }
        Ok(lying)
    }
}

/// Returns the version of a snapshot by its file's name, and whether it is whole: until then a number stands behind it.
fn parse(name: &str) -> Option<(u64, bool)> {
    let (digits, rest) = name.split_once(SUFFIX)?;
    let version = digits.parse().ok()?;
    (rest.is_empty() || rest.starts_with('#')).then_some((version, rest.is_empty()))
}
