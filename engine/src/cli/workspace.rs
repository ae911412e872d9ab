//! What most commands work on: the catalog, the stores and the registry that the settings name.

use std::path::PathBuf;
use std::sync::Arc;

use alluvium_catalog::store::{CatalogStore, MemoryStore, SqliteStore};
use alluvium_catalog::{Registry, Result, Stores};

use crate::config::Settings;

/// The catalog, the stores and the registry.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) settings: Settings,
    pub(crate) stores: Stores,
    pub(crate) catalog: Arc<dyn CatalogStore>,
    file: Option<SqliteStore>,
}

impl Workspace {
    /// Opens the catalog, making it where there is none.
    ///
    /// # Errors
    /// As of [`SqliteStore::open`].
    pub(crate) async fn open(settings: &Settings) -> Result<Self> {
        let file = SqliteStore::open(settings.catalog()).await?;
        Ok(Self {
            settings: settings.clone(),
            stores: Stores::new(settings.storage().clone()),
            catalog: Arc::new(file.clone()),
            file: Some(file),
        })
    }

    /// Opens the catalog if there is one; otherwise works on an empty one and makes nothing on disk.
    ///
    /// # Errors
    /// As of [`SqliteStore::open`].
    pub(crate) async fn open_if_there(settings: &Settings) -> Result<Self> {
        if settings.catalog().exists() {
            return Self::open(settings).await;
        }
        let stores = Stores::new(settings.storage().clone());
        Ok(Self { settings: settings.clone(), stores, catalog: Arc::new(MemoryStore::default()), file: None })
    }

    /// Returns the warehouse's registry.
    ///
    /// # Errors
    /// `Invalid` when the settings do not suffice to reach the warehouse.
    pub(crate) fn registry(&self) -> Result<Registry> {
        Ok(Registry::new(self.stores.open(self.settings.warehouse())?))
    }

    /// Returns where the REPL's history is kept: beside the catalog.
    pub(crate) fn history_file(&self) -> Option<PathBuf> {
        let catalog = self.settings.catalog();
        self.file.is_some().then(|| catalog.with_file_name("sql_history"))
    }

    /// Tells whether the catalog is a file, which outlives the process.
    pub(crate) fn is_kept(&self) -> bool {
        self.file.is_some()
    }

    /// Closes the catalog's file, so that nothing of it is left beside it.
    pub(crate) async fn close(self) {
        if let Some(file) = self.file {
            file.close().await;
        }
    }
}
