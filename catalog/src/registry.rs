//! What is registered, written beside the data: one small file per dataset, connection and source in the warehouse.
//!
//! The catalog is rebuilt from the tables' logs, but a log can only be read by who knows where it is, and tells only of
//! what a flow has used. A dataset that lives outside the warehouse, or that no flow writes, and a connection or source
//! that no flow reads are found again through these files alone.

use std::fmt::Display;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};

use crate::{Connection, Dataset, Error, Result, Source, TableName, storage_error};

/// Where the files are, from the warehouse.
const FOLDER: &str = "_alluvium/registry";

/// The folder of connections in it.
const CONNECTIONS: &str = "connections";

/// The folder of sources in it.
const SOURCES: &str = "sources";

/// The version of the file format that this program writes.
const FORMAT: u32 = 1;

/// How many files are read at once: enough to hide the latency of S3, few enough for any server.
const READS_MAX: usize = 16;

/// The registrations in a warehouse: `_alluvium/registry/<schema>.<table>.json`, and below `connections` and `sources`
/// one file by the name of each.
#[derive(Debug, Clone)]
pub struct Registry {
    store: Arc<dyn ObjectStore>,
}

/// A file of the registry: `{"v":1,"dataset":{..}}`.
#[derive(Serialize, Deserialize)]
struct Entry {
    v: u32,
    #[serde(flatten)]
    registered: Registered,
}

/// The format of a file, which is read before all else of it.
#[derive(Deserialize)]
struct Format {
    v: u32,
}

/// What a file holds.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Registered {
    Dataset(Box<Dataset>),
    Connection(Connection),
    Source(Source),
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
        self.write(Registered::Dataset(Box::new(dataset.clone()))).await
    }

    /// Writes down a connection, over what was written of it before.
    ///
    /// # Errors
    /// As the store, by [`storage_error`].
    pub async fn put_connection(&self, connection: &Connection) -> Result<()> {
        self.write(Registered::Connection(connection.clone())).await
    }

    /// Writes down a source, over what was written of it before.
    ///
    /// # Errors
    /// As the store, by [`storage_error`].
    pub async fn put_source(&self, source: &Source) -> Result<()> {
        self.write(Registered::Source(source.clone())).await
    }

    /// Forgets a dataset. One that is not there is forgotten already.
    ///
    /// # Errors
    /// As the store, by [`storage_error`].
    pub async fn remove(&self, name: &TableName) -> Result<()> {
        let path = path_of(&[], name);
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
        let mut datasets = Vec::new();
        for registered in self.files(&[]).await? {
            if let Registered::Dataset(dataset) = registered {
                datasets.push(*dataset);
            }
        }
        datasets.sort_by(|first, second| first.name.cmp(&second.name));
        Ok(datasets)
    }

    /// Returns all connections by name.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub async fn connections(&self) -> Result<Vec<Connection>> {
        let mut connections = Vec::new();
        for registered in self.files(&[CONNECTIONS]).await? {
            if let Registered::Connection(connection) = registered {
                connections.push(connection);
            }
        }
        connections.sort_by(|first, second| first.name.cmp(&second.name));
        Ok(connections)
    }

    /// Returns all sources by name.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub async fn sources(&self) -> Result<Vec<Source>> {
        let mut sources = Vec::new();
        for registered in self.files(&[SOURCES]).await? {
            if let Registered::Source(source) = registered {
                sources.push(source);
            }
        }
        sources.sort_by(|first, second| first.name.cmp(&second.name));
        Ok(sources)
    }

    async fn write(&self, registered: Registered) -> Result<()> {
        let path = registered.path();
        let bytes = serde_json::to_vec(&Entry { v: FORMAT, registered })
            .map_err(|source| Error::internal(format!("cannot encode {path}")).with_source(source))?;
        let put = self.store.put(&path, bytes.into()).await;
        put.map_err(|source| storage_error(format!("cannot write {path}"), source))?;
        Ok(())
    }

    /// Reads all files right below a folder of the registry.
    async fn files(&self, below: &[&str]) -> Result<Vec<Registered>> {
        let folder = folder(below);
        let files = self.store.list_with_delimiter(Some(&folder)).await;
        let files = files.map_err(|source| storage_error(format!("cannot list {folder}"), source))?;
        let paths = files.objects.into_iter().map(|file| file.location);
        futures::stream::iter(paths.filter(|path| path.extension() == Some("json")))
            .map(|path| async move { self.read(&path).await })
            .buffer_unordered(READS_MAX)
            .try_filter_map(async |registered| Ok(registered))
            .try_collect()
            .await
    }

    /// Reads one file; none if it was removed since it was listed.
    async fn read(&self, path: &Path) -> Result<Option<Registered>> {
        let failed = |source| storage_error(format!("cannot read {path}"), source);
        let bytes = match self.store.get(path).await {
            Ok(found) => found.bytes().await.map_err(failed)?,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(source) => return Err(failed(source)),
        };
        let Format { v } = parsed(path, serde_json::from_slice(&bytes))?;
        if v > FORMAT {
            return Err(Error::data(format!("{path} has format {v}, newer than {FORMAT}"))
                .with_hint("a newer program wrote it; use that one"));
        }
        let Entry { registered, .. } = parsed(path, serde_json::from_slice(&bytes))?;
        if registered.path() != *path {
            return Err(Error::data(format!("{path} registers {}, which its name does not say", registered.name())));
        }
        Ok(Some(registered))
    }
}

impl Registered {
    fn name(&self) -> String {
        match self {
            Self::Dataset(dataset) => dataset.name.to_string(),
            Self::Connection(connection) => connection.name.to_string(),
            Self::Source(source) => source.name.to_string(),
        }
    }

    fn path(&self) -> Path {
        match self {
            Self::Dataset(dataset) => path_of(&[], &dataset.name),
            Self::Connection(connection) => path_of(&[CONNECTIONS], &connection.name),
            Self::Source(source) => path_of(&[SOURCES], &source.name),
        }
    }
}

fn folder(below: &[&str]) -> Path {
    Path::from_iter(FOLDER.split('/').chain(below.iter().copied()))
}

fn path_of(below: &[&str], name: &impl Display) -> Path {
    let file = format!("{name}.json");
    Path::from_iter(FOLDER.split('/').chain(below.iter().copied()).chain([file.as_str()]))
}

fn parsed<T>(path: &Path, parsed: serde_json::Result<T>) -> Result<T> {
    parsed.map_err(|source| {
        Error::data(format!("{path} is not a registration"))
            .with_hint("remove the file and register or define what it stands for again")
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
    async fn connections_and_sources_are_kept_apart_from_datasets_and_the_last_of_a_name_stands() -> Result<()> {
        let read = |source: serde_json::Error| Error::internal("read").with_source(source);
        let connection = |address: &str| -> Result<Connection> {
            let text =
                format!(r#"{{"name":"shop","kind":"kafka","options":{{"bootstrap.servers":{{"text":"{address}"}}}}}}"#);
            serde_json::from_str(&text).map_err(read)
        };
        let text =
            r#"{"name":"shop","connection":"shop","topic":"shop.orders","columns":[],"options":{},"comment":null}"#;
        let source: Source = serde_json::from_str(text).map_err(read)?;
        let stores = Stores::new(StorageSettings::default());
        let registry = Registry::new(stores.open(&"memory:///warehouse".parse()?)?);
        assert_eq!((registry.connections().await?, registry.sources().await?), (Vec::new(), Vec::new()));
        let dataset = dataset("default.shop", "/data/shop")?;
        registry.put(&dataset).await?;
        registry.put_connection(&connection("old:9092")?).await?;
        registry.put_source(&source).await?;
        registry.put_connection(&connection("new:9092")?).await?;
        assert_eq!(registry.list().await?, [dataset]);
        assert_eq!(registry.connections().await?, [connection("new:9092")?]);
        assert_eq!(registry.sources().await?, [source]);
        Ok(())
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_named() -> Result<()> {
        let moved = Entry { v: 1, registered: Registered::Dataset(Box::new(dataset("a.y", "/x")?)) };
        let moved = serde_json::to_string(&moved).map_err(|source| Error::internal("encode").with_source(source))?;
        let other = "{\"v\":1,\"connection\":{\"name\":\"x\",\"kind\":\"kafka\",\"options\":{}}}";
        for text in ["", "{", "{\"v\":2,\"dataset\":null}", "{\"v\":1,\"dataset\":{}}", "{\"v\":1}", &moved, other] {
            let error = with_file("a.x.json", text).await?;
            assert_eq!(error.kind(), ErrorKind::Data);
            assert!(error.message().contains("_alluvium/registry/a.x.json"), "{error}");
        }
        Ok(())
    }
}
