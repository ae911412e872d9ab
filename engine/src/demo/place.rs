//! The folder that a demo works in: made, marked, and only ever emptied if it carries the mark.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use alluvium_catalog::{Error, Result};

/// The file that says that a folder is a demo's, and may be emptied by the next one.
const MARKER: &str = ".alluvium-demo";

/// What the marker says to whoever finds it.
const MARKER_TEXT: &str = "This folder was made by `alluvium demo`, which empties it when it runs again.\n";

/// The files and folders that a demo makes; nothing else in the folder is ever removed.
const OWN: [&str; 3] = ["warehouse", "orders.sql", "alluvium.toml"];

/// A demo's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    folder: PathBuf,
}

impl Place {
    /// Makes the folder, or takes what an earlier demo left out of it.
    ///
    /// # Errors
    /// `Invalid` when there is something that no demo made, or it cannot be removed or written.
    pub(super) fn prepare(folder: &Path) -> Result<Self> {
        let marker = folder.join(MARKER);
        if marker.symlink_metadata().is_ok_and(|found| found.is_file()) {
            for name in OWN {
                remove(&folder.join(name))?;
            }
        } else if folder.symlink_metadata().is_ok() && !is_empty(folder)? {
            return Err(Error::invalid(format!("{} is there already, and no demo made it", folder.display()))
                .with_hint("name another folder: alluvium demo --keep DIR"));
        }
        std::fs::create_dir_all(folder).map_err(|source| unusable(folder, source))?;
        std::fs::write(&marker, MARKER_TEXT).map_err(|source| unusable(&marker, source))?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Returns the path of one of the demo's files.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes one of the demo's files.
    ///
    /// # Errors
    /// `Invalid` when it cannot be written.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path(name);
        std::fs::write(&path, text).map_err(|source| unusable(&path, source))?;
        Ok(path)
    }

    /// Returns the folder as it was named.
    pub(super) fn display(&self) -> String {
        self.folder.display().to_string()
    }
}

fn remove(path: &Path) -> Result<()> {
    let removed = match path.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        // A link is removed and never followed: what it leads to is not the demo's.
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
    };
    removed.map_err(|source| Error::invalid(format!("cannot remove {}", path.display())).with_source(source))
}

fn is_empty(folder: &Path) -> Result<bool> {
    let mut entries = std::fs::read_dir(folder).map_err(|source| unusable(folder, source))?;
    Ok(entries.next().is_none())
}

fn unusable(path: &Path, source: std::io::Error) -> Error {
    Error::invalid(format!("cannot use {}", path.display())).with_source(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> Result<tempfile::TempDir> {
        tempfile::tempdir().map_err(|source| Error::internal("test folder").with_source(source))
    }

    #[test]
    fn a_folder_that_no_demo_made_is_left_alone() -> Result<()> {
        let folder = folder()?;
        let own = folder.path().join("warehouse");
        std::fs::create_dir(&own).map_err(|source| unusable(&own, source))?;
        let refused = Place::prepare(folder.path());
        assert!(refused.is_err_and(|error| error.message().contains("no demo made it")));
        assert!(own.is_dir());
        Ok(())
    }

    #[test]
    fn the_next_demo_removes_only_what_demos_make() -> Result<()> {
        let folder = folder()?;
        let place = Place::prepare(&folder.path().join("demo"))?;
        let notes = place.write("notes.txt", "mine")?;
        let table = place.path("warehouse");
        std::fs::create_dir_all(table.join("silver")).map_err(|source| unusable(&table, source))?;
        Place::prepare(&folder.path().join("demo"))?;
        assert!(notes.is_file() && !table.exists());
        Ok(())
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_removed_and_not_followed() -> Result<()> {
        let folder = folder()?;
        let elsewhere = folder.path().join("elsewhere");
        std::fs::create_dir(&elsewhere).map_err(|source| unusable(&elsewhere, source))?;
        let place = Place::prepare(&folder.path().join("demo"))?;
        let linked = std::os::unix::fs::symlink(&elsewhere, place.path("warehouse"));
        linked.map_err(|source| unusable(&elsewhere, source))?;
        Place::prepare(&folder.path().join("demo"))?;
        assert!(elsewhere.is_dir());
        Ok(())
    }
}
