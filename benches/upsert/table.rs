//! Tables to upsert into: files of a million rows, written once and linked into a table of each side.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use alluvium::commit::create::{Blueprint, ENGINE_INFO, encode};
use alluvium::delta::action::{Action, Add};
use alluvium::delta::log::{DeltaLog, PutOutcome};
use alluvium::write::parquet::DataFolder;
use alluvium::write::upsert::UpsertColumns;
use alluvium_benches::orders_schema;
use alluvium_catalog::{Clock, Error, Location, Result, StorageSettings, Stores, SystemClock};
use arrow::array::{ArrayRef, Decimal128Array, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit};
use serde_json::json;

use crate::sightings::FOLDER as SNAPSHOTS;

/// Rows of a data file, as compaction leaves them.
const FILE_ROWS: u64 = 1_000_000;

/// Midnight of 2026-02-01, microseconds: older than every change.
const BEFORE_ALL_CHANGES: i64 = 1_769_904_000_000_000;

/// Data files that lie in no table yet.
#[derive(Debug)]
pub(crate) struct SharedFiles {
    pub(crate) rows: u64,
    folder: PathBuf,
    adds: Vec<Add>,
}

/// Returns the columns of the tables.
pub(crate) fn columns() -> UpsertColumns {
    UpsertColumns {
        declared: orders_schema(),
        keys: vec!["order_id".to_owned()],
        sequence: vec![instant_type()],
        sequence_by: "updated_at".to_owned(),
        stored_sequence: Some(vec!["updated_at".to_owned()]),
    }
}

/// Returns the log of the table in `folder`, and where its data files go.
pub(crate) fn open(folder: &Path, fsync: bool) -> Result<(DeltaLog, DataFolder)> {
    let location: Location = folder.display().to_string().parse()?;
    let stores = Stores::new(StorageSettings { local_fsync: fsync, ..StorageSettings::default() });
    let log = DeltaLog::open(&stores, &location)?;
    let (store, clock) = (Arc::clone(log.store()), Arc::new(SystemClock));
    Ok((log, DataFolder { store, location, partitioned_by: Vec::new(), clock }))
}

/// Returns the bytes of all files of the table in `folder`, snapshots of its key index aside: these come and go beside
/// the batches.
pub(crate) fn bytes_below(folder: &Path) -> Result<u64> {
    let failed = |cause| Error::unavailable(format!("cannot list {}", folder.display())).with_source(cause);
    let (mut bytes, mut folders) = (0, vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let metadata = entry.metadata().map_err(failed)?;
            if !metadata.is_dir() {
                bytes += metadata.len();
            } else if !entry.path().ends_with(SNAPSHOTS) {
                folders.push(entry.path());
            }
        }
    }
    Ok(bytes)
}

impl SharedFiles {
    /// Writes the files of a table with the keys from 0 to `rows`.
    pub(crate) async fn make(folder: &Path, rows: u64) -> Result<Self> {
        let (_, data) = open(folder, false)?;
        let mut adds = Vec::new();
        let mut first = 0;
        while first < rows {
            let next = rows.min(first + FILE_ROWS);
            adds.extend(data.write(&stored_rows(first, next)?).await?.into_iter().map(|file| file.add));
            first = next;
        }
        Ok(Self { rows, folder: folder.to_owned(), adds })
    }

    /// Makes a table of the files, all of them in its version 1; ours marks rows in vectors, others rewrite files.
    pub(crate) async fn link_into(&self, folder: &Path, vectors: bool) -> Result<()> {
        let failed = |cause| Error::unavailable(format!("cannot make {}", folder.display())).with_source(cause);
        fs::create_dir_all(folder).map_err(failed)?;
        for add in &self.adds {
            fs::hard_link(self.folder.join(&add.path), folder.join(&add.path)).map_err(failed)?;
        }
        let (log, _) = open(folder, false)?;
        let blueprint = Blueprint {
            schema: columns().stored(),
            partitioned_by: Vec::new(),
            clustered_by: None,
            deletion_vectors: vectors,
            comment: None,
            properties: std::collections::BTreeMap::new(),
        };
        let state = blueprint.open_or_create(&log, &SystemClock).await?;
        let write_id = SystemClock.new_id();
        let info = json!({
            "timestamp": SystemClock.now().0, "operation": "WRITE", "operationParameters": {},
            "isBlindAppend": true, "engineInfo": ENGINE_INFO, "txnId": write_id,
        });
        let actions: Vec<Action> = self.adds.iter().cloned().map(Action::Add).collect();
        match log.put(state.version + 1, encode(&info, &actions)?, write_id).await {
            PutOutcome::Landed => Ok(()),
            outcome => Err(Error::unavailable(format!("cannot commit to {}: {outcome:?}", folder.display()))),
        }
    }
}

fn instant_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// Returns the rows of the keys from `first` to `next`, hidden columns included. Values differ from row to row as those
/// of the workloads do.
fn stored_rows(first: u64, next: u64) -> Result<RecordBatch> {
    const STATUSES: [&str; 4] = ["PLACED", "PAID", "SHIPPED", "DELIVERED"];
    let failed = |cause| Error::internal("cannot make the rows of a table").with_source(cause);
    let mixed = |key: u64, salt: u64| (key ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let keys = first..next;
    let signed = |key: u64| i64::try_from(key).unwrap_or(i64::MAX);
    let amounts = keys.clone().map(|key| i128::from(100 + mixed(key, 1) % 99_900));
    let instants: Int64Array = keys.clone().map(|key| Some(BEFORE_ALL_CHANGES + signed(key))).collect();
    let n_rows = usize::try_from(next - first).unwrap_or(usize::MAX);
    let stored: Vec<ArrayRef> = vec![
        Arc::new(keys.clone().map(|key| Some(signed(key))).collect::<Int64Array>()),
        Arc::new(StringArray::from_iter_values(keys.clone().map(|key| format!("customer-{:06}", key % 10_000)))),
        Arc::new(Decimal128Array::from_iter_values(amounts).with_precision_and_scale(18, 2).map_err(failed)?),
        Arc::new(StringArray::from_iter_values(keys.clone().map(|key| STATUSES[(mixed(key, 2) % 4) as usize]))),
        Arc::new(keys.clone().map(|key| Some(signed(1 + key % 9))).collect::<Int64Array>()),
        cast(&instants, &instant_type()).map_err(failed)?,
        Arc::new(StringArray::from_iter_values(keys.clone().map(|_| "x".repeat(50)))),
        Arc::new(Int32Array::from(vec![0; n_rows])),
        Arc::new(keys.map(|key| Some(signed(key))).collect::<Int64Array>()),
    ];
    RecordBatch::try_new(columns().stored(), stored).map_err(failed)
}
