//! How many files and bytes a table's log has.

use std::path::Path;

use alluvium_catalog::{Error, Result};

/// What a log takes.
#[derive(Debug, Default)]
pub(crate) struct LogSize {
    /// Versions that are there as commits.
    pub(crate) n_versions: u64,
    /// All files: commits, checksums, checkpoints and their parts.
    pub(crate) n_files: u64,
    pub(crate) bytes: u64,
}

impl LogSize {
    pub(crate) fn of(log: &Path) -> Result<Self> {
        let failed = |cause| Error::unavailable(format!("cannot list {}", log.display())).with_source(cause);
        let (mut size, mut folders) = (Self::default(), vec![log.to_owned()]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                // Clean-up may have removed it since it was listed.
                let Ok(metadata) = entry.metadata() else { continue };
                if metadata.is_dir() {
                    folders.push(entry.path());
                    continue;
                }
                size.n_files += 1;
                size.bytes += metadata.len();
                size.n_versions += u64::from(is_commit(&entry.file_name().to_string_lossy()));
            }
        }
        Ok(size)
    }
}

/// Tells whether a file of a log is a commit: twenty digits, and nothing else before its ending.
fn is_commit(name: &str) -> bool {
    name.strip_suffix(".json")
        .is_some_and(|version| version.len() == 20 && version.bytes().all(|byte| byte.is_ascii_digit()))
}
