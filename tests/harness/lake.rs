//! A warehouse of a test's own: a folder of the local disk or of a bucket, and how the program and readers reach it.

use std::path::Path;

use alluvium_catalog::{Location, StorageSettings, Stores, TableName};
use tempfile::TempDir;

use super::services::Bucket;
use super::{TestResult, unique};

/// A warehouse, and a folder on the local disk for what lies beside it: the catalog, SQL files, output.
#[derive(Debug)]
pub(crate) struct Lake {
    folder: TempDir,
    warehouse: Location,
    storage: StorageSettings,
}

impl Lake {
    /// Returns a warehouse on the local disk.
    pub(crate) fn on_disk() -> TestResult<Self> {
        let folder = TempDir::new()?;
        let warehouse = folder.path().join("warehouse");
        let warehouse = warehouse.to_str().ok_or("the temporary folder is not UTF-8")?.parse()?;
        Ok(Self { folder, warehouse, storage: StorageSettings::default() })
    }

    /// Returns a warehouse in a bucket.
    pub(crate) fn in_bucket(bucket: &Bucket) -> TestResult<Self> {
        let storage = StorageSettings {
            endpoint: Some(bucket.endpoint.clone()),
            region: Some("us-east-1".to_owned()),
            access_key_id: Some(bucket.key.clone()),
            secret_access_key: Some(bucket.secret.clone()),
            allow_http: Some(true),
            ..StorageSettings::default()
        };
        let warehouse = format!("s3://{}/{}", bucket.name, unique("lake")).parse()?;
        Ok(Self { folder: TempDir::new()?, warehouse, storage })
    }

    /// Returns the folder on the local disk.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns where tables without a location of their own live.
    pub(crate) fn warehouse(&self) -> &Location {
        &self.warehouse
    }

    /// Returns where a table lies that has no location of its own.
    pub(crate) fn table(&self, name: &str) -> TestResult<Location> {
        let name: TableName = name.parse()?;
        Ok(self.warehouse.join(&format!("{}/{}", name.schema(), name.table()))?)
    }

    /// Returns stores that reach the lake from this process.
    pub(crate) fn stores(&self) -> Stores {
        Stores::new(self.storage.clone())
    }

    /// Looks for a secret in all that lies in the folder on the local disk, where it must not be.
    pub(crate) fn check_free_of(&self, secret: &str) -> TestResult {
        let mut folders = vec![self.folder().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if std::fs::read(&path)?.windows(secret.len()).any(|window| window == secret.as_bytes()) {
                    return Err(format!("the secret stands in {}", path.display()).into());
                }
            }
        }
        Ok(())
    }

    /// Returns the variables by which other processes reach the lake.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let StorageSettings { endpoint, region, access_key_id, secret_access_key, .. } = &self.storage;
        let own = [
            ("AWS_ENDPOINT_URL", endpoint),
            ("AWS_REGION", region),
            ("AWS_ACCESS_KEY_ID", access_key_id),
            ("AWS_SECRET_ACCESS_KEY", secret_access_key),
        ];
        let mut variables: Vec<_> = own.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect();
        if endpoint.is_some() {
            variables.push(("AWS_ALLOW_HTTP", "true".to_owned()));
        }
        variables
    }
}
