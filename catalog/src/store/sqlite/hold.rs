//! Who has a catalog's file: all that open it share it, and whoever puts another file in its place has it alone.
//!
//! A lock on a file of its own (`<catalog>.lock`), because SQLite's locks are on the catalog's file and would be lost
//! with it. The system lets go of it when a process ends, however it ends. The empty file stays: removing it would let
//! two processes lock two files. So would links: a path is followed to the file itself once, before it is locked, and
//! that path is the one to open or replace.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The right to use a catalog's file, until it is dropped.
#[derive(Debug)]
pub struct Hold {
    file: File,
    path: PathBuf,
}

impl Hold {
    /// Returns the right to use the catalog at `path` beside others.
    ///
    /// # Errors
    /// `Unavailable` while another process replaces the catalog, `Invalid` when no lock can be made there.
    pub(super) fn shared(path: &Path) -> Result<Self> {
        let hold = Self::open(path)?;
        let locked = hold.file.try_lock_shared();
        hold.locked(locked, || {
            Error::unavailable(format!("catalog {} is being written again by another process", path.display()))
                .with_hint("try again when its 'alluvium catalog rebuild' is done")
        })
    }

    /// Returns the right to replace the catalog at `path`, which nobody else uses meanwhile.
    ///
    /// # Errors
    /// `Invalid` when another process uses the catalog, or no lock can be made there.
    pub fn alone(path: &Path) -> Result<Self> {
        let hold = Self::open(path)?;
        let locked = hold.file.try_lock();
        hold.locked(locked, || {
            Error::invalid(format!("cannot replace catalog {}: another process has it open", path.display()))
                .with_hint("end 'alluvium run' and 'alluvium sql' on it first; what runs mends its catalog by itself")
        })
    }

    /// Returns the catalog's file itself, wherever links led to it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets go.
    pub(super) fn release(&self) {
        if let Err(error) = self.file.unlock() {
            tracing::debug!(%error, "the catalog's lock ends with the process");
        }
    }

    /// Opens the lock of the catalog at `path` without taking it.
    fn open(path: &Path) -> Result<Self> {
        let path = resolve(path).map_err(|source| cannot_lock(path, source))?;
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&name);
        let file = opened.map_err(|source| cannot_lock(&path, source))?;
        Ok(Self { file, path })
    }

    fn locked(self, locked: std::result::Result<(), TryLockError>, taken: impl FnOnce() -> Error) -> Result<Self> {
        match locked {
            Ok(()) => Ok(self),
            Err(TryLockError::WouldBlock) => Err(taken()),
            // Where the file system knows no such locks, everybody is trusted.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(self),
            Err(TryLockError::Error(source)) => Err(cannot_lock(&self.path, source)),
        }
    }
}

fn cannot_lock(path: &Path, source: io::Error) -> Error {
    Error::invalid(format!("cannot lock catalog {}", path.display())).with_source(source)
}

/// Returns where a file is, or will be made, that is opened by `path`.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    /// As many as Linux follows.
    const LINKS_MAX: usize = 40;

    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        match fs::canonicalize(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            resolved => return resolved,
        }
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => fs::canonicalize(folder)?,
            _ => fs::canonicalize(".")?,
        };
        let Some(name) = path.file_name() else { return Err(io::ErrorKind::NotFound.into()) };
        let file = folder.join(name);
        match fs::read_link(&file) {
            // Nothing is there yet where the link leads to; opening the link would make it there.
            Ok(target) => path = folder.join(target),
            Err(_) => return Ok(file),
        }
    }
    Err(io::Error::other("too many links"))
}
