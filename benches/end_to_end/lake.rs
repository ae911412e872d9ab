//! Where a measurement puts its tables: a fresh folder of the local disk or of a bucket, emptied afterwards.

use std::path::{Path, PathBuf};

use alluvium::delta::action::Action;
use alluvium::delta::log::DeltaLog;
use alluvium_catalog::{Clock, Error, Lineage, Location, Result, StageMillis, StorageSettings, Stores, SystemClock};
use futures::TryStreamExt;
use object_store::path::Path as StorePath;
use object_store::{ObjectMeta, ObjectStore};
use serde::Serialize;
use serde_json::Value;
use tempfile::TempDir;

use crate::asked::{Asked, Bucket};

/// Where a table has the snapshots of its key index.
const SNAPSHOTS: &str = "_alluvium/index";

/// A warehouse, and a folder on the local disk for plans, SQL files and logs.
#[derive(Debug)]
pub(crate) struct Lake {
    folder: TempDir,
    pub(crate) warehouse: Location,
    bucket: Option<Bucket>,
}

/// What a table's log says of the run that wrote it.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Written {
    pub(crate) commits: u64,
    /// Bytes of the data files added, vectors aside.
    pub(crate) file_bytes: u64,
    pub(crate) files: u64,
    /// Bytes of the files with the batches' own rows, as the flow's lineage records have them.
    pub(crate) batch_bytes: u64,
    /// Batches that were written ahead though they had late rows, and the bytes of their first files, which are removed.
    pub(crate) discards: u64,
    pub(crate) discarded_bytes: u64,
    /// Compactions, and the bytes of the data files that they added.
    pub(crate) compactions: u64,
    pub(crate) compacted_bytes: u64,
    /// Bytes of all files of the table in the end, live or not, its log included and snapshots of its key index aside. A run
    /// of minutes removes none that it has written, but for compactions of no use and what was discarded.
    pub(crate) table_bytes: u64,
    /// Rows that are there in the end.
    pub(crate) rows: u64,
    /// Seconds in each stage by the flow's own lineage records, all commits together; waiting for records included.
    pub(crate) fetch_seconds: f64,
    pub(crate) decode_seconds: f64,
    pub(crate) transform_seconds: f64,
    pub(crate) write_seconds: f64,
}

impl Lake {
    pub(crate) fn open(asked: &Asked) -> Result<Self> {
        let folder = TempDir::new().map_err(|cause| Error::unavailable("cannot make a folder").with_source(cause))?;
        let warehouse = match &asked.bucket {
            Some(bucket) => format!("s3://{}/bench-{}", bucket.name, SystemClock.new_id().simple()),
            None => folder.path().join("warehouse").display().to_string(),
        };
        Ok(Self { folder, warehouse: warehouse.parse()?, bucket: asked.bucket.clone() })
    }

    /// Returns a path of the folder on the local disk.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn table(&self, name: &str) -> Result<Location> {
        self.warehouse.join(&name.replace('.', "/"))
    }

    pub(crate) fn stores(&self) -> Stores {
        let Some(Bucket { endpoint, key, secret, .. }) = &self.bucket else {
            return Stores::new(StorageSettings::default());
        };
        Stores::new(StorageSettings {
            endpoint: Some(endpoint.clone()),
            region: Some("us-east-1".to_owned()),
            access_key_id: Some(key.clone()),
            secret_access_key: Some(secret.clone()),
            allow_http: Some(true),
            ..StorageSettings::default()
        })
    }

    /// Returns the variables by which children reach the warehouse.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let Some(Bucket { endpoint, key, secret, .. }) = &self.bucket else { return Vec::new() };
        vec![
            ("AWS_ENDPOINT_URL", endpoint.clone()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", key.clone()),
            ("AWS_SECRET_ACCESS_KEY", secret.clone()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
        ]
    }

    /// Reads what was written to a table.
    pub(crate) async fn written(&self, table: &str) -> Result<Written> {
        let location = self.table(table)?;
        let log = DeltaLog::open(&self.stores(), &location)?;
        let mut written = Written { table_bytes: self.bytes(&location).await?, ..Written::default() };
        for entry in log.read_tail(0).await? {
            if entry.info.get("operation").and_then(Value::as_str) == Some("OPTIMIZE") {
                written.compactions += 1;
                written.compacted_bytes += added_bytes(&entry.actions);
            }
            let Some(lineage) = entry.info.get(Lineage::KEY) else { continue };
            let lineage: Lineage = serde_json::from_value(lineage.clone())
                .map_err(|cause| Error::data("a commit's lineage cannot be read").with_source(cause))?;
            written.add(&lineage.millis);
            written.batch_bytes += lineage.effort.batch_bytes;
            written.discarded_bytes += lineage.effort.discarded_bytes;
            written.discards += u64::from(lineage.effort.discarded_bytes > 0);
            written.rows = (written.rows + lineage.rows_inserted).saturating_sub(lineage.rows_deleted);
            for action in &entry.actions {
                if let Action::Add(add) = action
                    && add.deletion_vector.is_none()
                {
                    written.files += 1;
                    written.file_bytes += u64::try_from(add.size).unwrap_or_default();
                }
            }
        }
        Ok(written)
    }

    /// Returns the bytes of all files of the table at `location`, snapshots of its key index aside.
    async fn bytes(&self, location: &Location) -> Result<u64> {
        let failed = |cause| Error::unavailable(format!("cannot list {location}")).with_source(cause);
        let store = self.stores().open(location)?;
        let files: Vec<ObjectMeta> = store.list(None).try_collect().await.map_err(failed)?;
        let snapshots = StorePath::from(SNAPSHOTS);
        Ok(files.iter().filter(|file| !file.location.prefix_matches(&snapshots)).map(|file| file.size).sum())
    }

    /// Removes everything; the local folder goes by itself.
    pub(crate) async fn remove(self) -> Result<()> {
        if self.bucket.is_none() {
            return Ok(());
        }
        let failed = |cause| Error::unavailable("cannot empty the bucket's folder").with_source(cause);
        let store = self.stores().open(&self.warehouse)?;
        let paths = Box::pin(store.list(None).map_ok(|file| file.location));
        store.delete_stream(paths).try_collect::<Vec<_>>().await.map(drop).map_err(failed)
    }
}

impl Written {
    /// Returns all bytes that were written to the table.
    pub(crate) fn bytes(&self) -> u64 {
        self.table_bytes + self.discarded_bytes
    }

    /// Returns the bytes that were written to the table for each byte of the batches' own files.
    pub(crate) fn amplification(&self) -> f64 {
        self.bytes() as f64 / (self.batch_bytes as f64).max(1.0)
    }

    fn add(&mut self, millis: &StageMillis) {
        let seconds = |millis: u64| millis as f64 / 1_000.0;
        self.commits += 1;
        self.fetch_seconds += seconds(millis.fetch);
        self.decode_seconds += seconds(millis.decode);
        self.transform_seconds += seconds(millis.transform);
        self.write_seconds += seconds(millis.write);
    }
}

fn added_bytes(actions: &[Action]) -> u64 {
    let added = actions.iter().map(|action| match action {
        Action::Add(add) => u64::try_from(add.size).unwrap_or_default(),
        _ => 0,
    });
    added.sum()
}
