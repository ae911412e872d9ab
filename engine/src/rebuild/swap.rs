//! Puts a catalog's file in the place of another one. It never reads what they hold.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use alluvium_catalog::{Error, Result};

/// What SQLite keeps beside a database while it is open, or when it could not end well.
const LOG: &str = "-wal";

/// Puts the closed database `fresh` where `catalog` is, and `catalog` beside it under `.before`.
///
/// # Errors
/// `Unavailable` when not all of `fresh` is in its file, which is then removed, and `catalog` stays. `Invalid` when the
/// files cannot be renamed.
pub(super) fn swap(fresh: &Path, catalog: &Path) -> Result<()> {
    let failed =
        |source| Error::invalid(format!("cannot put the new catalog at {}", catalog.display())).with_source(source);
    if has_log(fresh).map_err(failed)? {
        remove_database(fresh)?;
        return Err(Error::unavailable(format!("cannot write all of the new catalog for {}", catalog.display()))
            .with_hint("the old one is as it was; look at the space that is left on its disk, and try again"));
    }
    let before = beside(catalog, ".before");
    remove_database(&before)?;
    // SQLite would take a log that is left behind for the new file's own.
    for suffix in ["", LOG, "-shm"] {
        match fs::rename(beside(catalog, suffix), beside(&before, suffix)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    }
    fs::rename(fresh, catalog).map_err(failed)?;
    flush_folder(catalog).map_err(failed)?;
    remove_database(fresh)
}

/// Removes a database and all that belongs to it, if it is there.
///
/// # Errors
/// `Invalid` when it cannot be removed.
pub(super) fn remove_database(file: &Path) -> Result<()> {
    for suffix in ["", LOG, "-shm", ".lock"] {
        let path = beside(file, suffix);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                return Err(Error::invalid(format!("cannot remove {}", path.display())).with_source(source));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Returns the path of what belongs to `file` under `suffix`.
pub(super) fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Tells whether a part of the closed database is still in its log: closing could not bring it into the file.
fn has_log(file: &Path) -> io::Result<bool> {
    match fs::metadata(beside(file, LOG)) {
        Ok(log) => Ok(log.len() > 0),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes the names in the folder of `file` outlive a power cut.
fn flush_folder(file: &Path) -> io::Result<()> {
    match file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => fs::File::open(folder)?.sync_all(),
        None => fs::File::open(".")?.sync_all(),
    }
}
