//! What is registered, written beside the data: one small file per dataset in the warehouse.
//!
//! The catalog is rebuilt from the tables' logs, but a log can only be read by who knows where it is. A dataset that
//! lives outside the warehouse, or that no flow writes, is found again through these files alone.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};

use crate::{Dataset, Error, Result, TableName, storage_error};

/// Where the files are, from the warehouse.
const FOLDER: &str = "_alluvium/registry";

/// The version of the file format that this program writes.
const FORMAT: u32 = 1;

/// How many files are read at once: enough to hide the latency of S3, few enough for any server.
const READS_MAX: usize = 16;

/// The registrations in a warehouse: `_alluvium/registry/<schema>.<table>.json`.
#[derive(Debug, Clone)]
pub struct Registry {
    store: Arc<dyn ObjectStore>,
}

/// A file of the registry: `{"v":1,"dataset":{..}}`.
#[derive(Serialize, Deserialize)]
struct Entry<D> {
    v: u32,
    dataset: D,
}

impl Registry {
    /// Returns the registry of the warehouse that `store` is rooted at.
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store }
    }

    /// Writes down a dataset, over what was written of it before.
    ///
    /// # Errors
    /// As the store, by [`storage_error`].
    pub async fn put(&self, dataset: &Dataset) -> Result<()> {
        let path = path_of(&dataset.name);
        let bytes = serde_json::to_vec(&Entry { v: FORMAT, dataset })
            .map_err(|source| Error::internal(format!("cannot encode {path}")).with_source(source))?;
        let put = self.store.put(&path, bytes.into()).await;
        put.map_err(|source| storage_error(format!("cannot write {path}"), source))?;
        Ok(())
    }

    /// Forgets a dataset. One that is not there is forgotten already.
    ///
    /// # Errors
    /// As the store, by [`storage_error`].
    pub async fn remove(&self, name: &TableName) -> Result<()> {
        let path = path_of(name);
        match self.store.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(storage_error(format!("cannot remove {path}"), source)),
        }
    }

    /// Returns all datasets by name.
    ///
    /// # Errors
    /// `Data`, naming the file, when one cannot be read as a registration; otherwise as the store.
    pub async fn list(&self) -> Result<Vec<Dataset>> {
        let folder = Path::from(FOLDER);
        let files = self.store.list_with_delimiter(Some(&folder)).await;
        let files = files.map_err(|source| storage_error(format!("cannot list {folder}"), source))?;
        let paths = files.objects.into_iter().map(|file| file.location);
        let mut datasets: Vec<Dataset> = futures::stream::iter(paths.filter(|path| path.extension() == Some("json")))
            .map(|path| async move { self.read(&path).await })
            .buffer_unordered(READS_MAX)
            .try_filter_map(async |dataset| Ok(dataset))
            .try_collect()
            .await?;
        datasets.sort_by(|first, second| first.name.cmp(&second.name));
        Ok(datasets)
    }

    /// Reads one file; none if it was removed since it was listed.
    async fn read(&self, path: &Path) -> Result<Option<Dataset>> {
        let failed = |source| storage_error(format!("cannot read {path}"), source);
        let bytes = match self.store.get(path).await {
            Ok(found) => found.bytes().await.map_err(failed)?,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(source) => return Err(failed(source)),
        };
        let entry: Entry<serde_json::Value> = parsed(path, serde_json::from_slice(&bytes))?;
        if entry.v > FORMAT {
            return Err(Error::data(format!("{path} has format {}, newer than {FORMAT}", entry.v))
                .with_hint("a newer program wrote it; use that one"));
        }
        let dataset: Dataset = parsed(path, serde_json::from_value(entry.dataset))?;
        if path_of(&dataset.name) != *path {
            return Err(Error::data(format!("{path} registers {}, which its name does not say", dataset.name)));
        }
        Ok(Some(dataset))
    }
}

fn path_of(name: &TableName) -> Path {
    Path::from_iter(FOLDER.split('/').chain([format!("{name}.json").as_str()]))
}

fn parsed<T>(path: &Path, parsed: serde_json::Result<T>) -> Result<T> {
    parsed.map_err(|source| {
        Error::data(format!("{path} is not a registration"))
            .with_hint("remove the file and register the dataset again")
            .with_source(source)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DatasetKind, ErrorKind, Location, StorageSettings, Stores};

    fn dataset(name: &str, location: &str) -> Result<Dataset> {
        Ok(Dataset {
            name: name.parse()?,
            kind: DatasetKind::Parquet,
            location: location.parse()?,
            owner: Some("ops".to_owned()),
            description: None,
            tags: vec!["pii".to_owned()],
            table: None,
        })
    }

    async fn with_file(name: &str, text: &str) -> Result<Error> {
        let location: Location = "memory:///warehouse".parse()?;
        let store = Stores::new(StorageSettings::default()).open(&location)?;
        let path = Path::from(format!("{FOLDER}/{name}"));
        store.put(&path, text.to_owned().into()).await.map_err(|source| storage_error("put", source))?;
        Registry::new(store).list().await.err().ok_or_else(|| Error::internal(format!("{text} was taken")))
    }

    #[tokio::test]
    async fn what_is_put_is_listed_until_it_is_removed() -> Result<()> {
        let stores = Stores::new(StorageSettings::default());
        let registry = Registry::new(stores.open(&"memory:///warehouse".parse()?)?);
        assert_eq!(registry.list().await?, []);
        let (first, second) = (dataset("a.x-1", "s3://far/away")?, dataset("b.y", "/data/y")?);
        registry.put(&second).await?;
        registry.put(&dataset("a.x-1", "/old")?).await?;
        registry.put(&first).await?;
        assert_eq!(registry.list().await?, [first.clone(), second.clone()]);
        registry.remove(&second.name).await?;
        registry.remove(&second.name).await?;
        assert_eq!(registry.list().await?, [first]);
        Ok(())
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_named() -> Result<()> {
        let moved = serde_json::to_string(&Entry { v: 1, dataset: dataset("a.y", "/x")? })
            .map_err(|source| Error::internal("encode").with_source(source))?;
        for text in ["", "{", "{\"v\":2,\"dataset\":null}", "{\"v\":1,\"dataset\":{}}", &moved] {
            let error = with_file("a.x.json", text).await?;
            assert_eq!(error.kind(), ErrorKind::Data);
            assert!(error.message().contains("_alluvium/registry/a.x.json"), "{error}");
        }
        Ok(())
    }
}
