//! Where tables are: every `<schema>/<table>` of the warehouse that has a Delta log.

use std::sync::Arc;

use alluvium_catalog::{Error, Location, Result, Stores, TableName, storage_error};
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;

/// A table that may have been written by a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// What the place calls it; its definition may know better.
    pub(super) name: TableName,
    pub(super) location: Location,
    /// Whether a person named the location.
    pub(super) is_given: bool,
}

impl Found {
    /// Returns a table that a person named by its location: the last two folders are its name.
    pub(super) fn given(location: Location) -> Result<Self> {
        let mut folders: Vec<String> = location.path().parts().map(|part| part.as_ref().to_owned()).collect();
        let table = folders.pop();
        let schema = folders.pop();
        let name = match (schema, table) {
            (Some(schema), Some(table)) => {
                TableName::try_new(&schema, &table).or_else(|_| TableName::try_new(TableName::DEFAULT_SCHEMA, &table))
            }
            (None, Some(table)) => TableName::try_new(TableName::DEFAULT_SCHEMA, &table),
            (_, None) => Err(Error::invalid(format!("{location} is no table's folder"))),
        };
        // A folder may have any name where the table's definition says what the table is called.
        let name = name.or_else(|_| TableName::try_new(TableName::DEFAULT_SCHEMA, "unnamed"))?;
        Ok(Self { name, location, is_given: true })
    }

    /// Returns a table that the registry names.
    pub(super) fn named(name: TableName, location: Location) -> Self {
        Self { name, location, is_given: false }
    }

    /// Takes over what `other` knows of the same place: the registry's names go over those of folders.
    pub(super) fn merge(&mut self, other: Self) {
        if other.is_given {
            self.is_given = true;
        } else {
            self.name = other.name;
        }
    }
}

/// Returns the tables at `<warehouse>/<schema>/<table>`; folders that begin with `_` are the program's own.
pub(super) async fn below(stores: &Stores, warehouse: &Location) -> Result<Vec<Found>> {
    let store = stores.open(warehouse)?;
    let mut found = Vec::new();
    for schema in folders(&store, None).await? {
        for table in folders(&store, Some(&schema)).await? {
            let (Some(schema_word), Some(table_word)) = (schema.filename(), table.filename()) else { continue };
            let Ok(name) = TableName::try_new(schema_word, table_word) else { continue };
            if has_log(&store, &table).await? {
                let location = warehouse.join(&format!("{schema_word}/{table_word}"))?;
                found.push(Found { name, location, is_given: false });
            }
        }
    }
    Ok(found)
}

async fn folders(store: &Arc<dyn ObjectStore>, parent: Option<&Path>) -> Result<Vec<Path>> {
    let listed = store.list_with_delimiter(parent).await;
    let listed = listed.map_err(|source| storage_error(String::from("cannot list the warehouse"), source))?;
    let ours = |path: &Path| path.filename().is_some_and(|name| name.starts_with('_'));
    Ok(listed.common_prefixes.into_iter().filter(|path| !ours(path)).collect())
}

async fn has_log(store: &Arc<dyn ObjectStore>, table: &Path) -> Result<bool> {
    let log = Path::from(format!("{table}/_delta_log"));
    let first = store.list(Some(&log)).try_next().await;
    let first = first.map_err(|source| storage_error(format!("cannot list {log}"), source))?;
    Ok(first.is_some())
}
