//! The section `[index]`: what the key index of each upsert table may take, and where it is kept for the next start.

use std::path::Path;

use alluvium_catalog::{Error, Location, Result};

use super::keys;
use super::value::Values;

/// Bounds of the key index of each upsert table, and where its snapshots are kept on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexLimits {
    /// The memory that one index may take before its flow stops.
    pub memory_bytes_max: u64,
    /// The memory that all indexes of a process may take together; half of what there is where it is not said.
    pub total_bytes_max: Option<u64>,
    /// The memory for the orders of rows that were written lately.
    pub order_cache_bytes: u64,
    /// The number of versions from one snapshot to the next; 0 for none.
    pub snapshot_interval: u64,
    /// The local folder where snapshots of tables that do not lie on the local disk are kept as well.
    pub snapshot_folder: Option<Location>,
}

impl Default for IndexLimits {
    /// 2 GiB hold some 85 million keys of 64 bits; 32 MiB hold the orders of some one and a half million rows; replaying 500
    /// versions takes less than a restart of the process does. No folder.
    fn default() -> Self {
        Self {
            memory_bytes_max: 2 << 30,
            total_bytes_max: None,
            order_cache_bytes: 32 << 20,
            snapshot_interval: 500,
            snapshot_folder: None,
        }
    }
}

/// Reads the section; snapshots lie beside the file `catalog` where nothing else is said.
pub(super) fn index(values: &Values, catalog: &Path) -> Result<IndexLimits> {
    let default = IndexLimits::default();
    Ok(IndexLimits {
        memory_bytes_max: values.bytes("index.memory", keys::INDEX_MEMORY)?.unwrap_or(default.memory_bytes_max),
        total_bytes_max: values.bytes("index.total_memory", keys::INDEX_MEMORY)?,
        order_cache_bytes: values.bytes("index.order_cache", 0..=1 << 44)?.unwrap_or(default.order_cache_bytes),
        snapshot_interval: values.count("index.snapshot_interval", 0..=1_000_000)?.unwrap_or(default.snapshot_interval),
        snapshot_folder: folder(values, catalog)?,
    })
}

fn folder(values: &Values, catalog: &Path) -> Result<Option<Location>> {
    const KEY: &str = "index.snapshot_folder";
    let Some(text) = values.text(KEY)? else {
        // A path that no location can have is no reason not to start: the copy on this machine is a shortcut.
        return Ok(format!("{}.index", catalog.display()).parse().ok());
    };
    if text.is_empty() {
        return Ok(None);
    }
    let folder = values.location(KEY)?.filter(|folder| folder.local_path().is_some());
    let refused = || Error::invalid("snapshots are kept on the local disk").with_hint("write a path, or \"\" for none");
    folder.map(Some).ok_or_else(|| values.at(KEY, refused()))
}
