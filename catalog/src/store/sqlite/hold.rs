//! Who has a catalog's file: all that open it share it, and whoever puts another file in its place has it alone.
//!
//! A lock on a file of its own (`<catalog>.lock`), because SQLite's locks are on the catalog's file and would be lost
//! with it. The system lets go of it when a process ends, however it ends. The empty file stays: removing it would let
//! two processes lock two files.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;

use crate::{Error, Result};

/// The right to use a catalog's file, until it is dropped.
#[derive(Debug)]
pub struct Hold {
    file: File,
}

impl Hold {
    /// Returns the right to use the catalog at `path` beside others.
    ///
    /// # Errors
    /// `Unavailable` while another process replaces the catalog, `Invalid` when no lock can be made there.
    pub(super) fn shared(path: &Path) -> Result<Self> {
        let file = lock_file(path)?;
        let locked = file.try_lock_shared();
        held(path, file, locked, || {
            Error::unavailable(format!("catalog {} is being written again by another process", path.display()))
                .with_hint("try again when its 'alluvium catalog rebuild' is done")
        })
    }

    /// Returns the right to replace the catalog at `path`, which nobody else uses meanwhile.
    ///
    /// # Errors
    /// `Invalid` when another process uses the catalog, or no lock can be made there.
    pub fn alone(path: &Path) -> Result<Self> {
        let file = lock_file(path)?;
        let locked = file.try_lock();
        held(path, file, locked, || {
            Error::invalid(format!("cannot replace catalog {}: another process has it open", path.display()))
                .with_hint("end 'alluvium run' and 'alluvium sql' on it first; what runs mends its catalog by itself")
        })
    }

    /// Lets go.
    pub(super) fn release(&self) {
        if let Err(error) = self.file.unlock() {
            tracing::debug!(%error, "the catalog's lock ends with the process");
        }
    }
}

fn lock_file(path: &Path) -> Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&name);
    opened.map_err(|source| Error::invalid(format!("cannot lock catalog {}", path.display())).with_source(source))
}

fn held(
    path: &Path,
    file: File,
    locked: std::result::Result<(), TryLockError>,
    taken: impl FnOnce() -> Error,
) -> Result<Hold> {
    match locked {
        Ok(()) => Ok(Hold { file }),
        Err(TryLockError::WouldBlock) => Err(taken()),
        // Where the file system knows no such locks, everybody is trusted.
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(Hold { file }),
        Err(TryLockError::Error(source)) => {
            Err(Error::invalid(format!("cannot lock catalog {}", path.display())).with_source(source))
        }
    }
}
