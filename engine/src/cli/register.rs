//! `alluvium catalog register` and `forget`: names for what lies somewhere already.
//!
//! Neither touches data. What a flow writes keeps its name, its place and its kind, whatever is registered.

use std::sync::Arc;

use alluvium_catalog::store::CatalogStore;
use alluvium_catalog::{Dataset, DatasetKind, Error, FlowVersion, Location, Result, TableName};
use alluvium_sql::TableReader;
use alluvium_sql::tables::Version;
use clap::{Args, ValueEnum};
use serde_json::json;

use super::catalog::Format;
use super::console::Console;
use super::find::unknown_name;
use super::workspace::Workspace;

#[derive(Debug, Args)]
pub(crate) struct Register {
    /// The name: schema.table
    name: TableName,
    /// The folder: s3://bucket/folder or a path
    location: Location,
    /// delta, parquet, csv or json
    #[arg(long, value_enum, default_value_t = Kind::Delta, hide_possible_values = true)]
    kind: Kind,
    /// Who answers for it
    #[arg(long)]
    owner: Option<String>,
    /// What it holds
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// A label; repeatable
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Forget {
    /// The name: schema.table
    name: TableName,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Delta,
    Parquet,
    Csv,
    Json,
}

/// Registers a dataset.
///
/// # Errors
/// `Invalid` when the name is reserved, nothing of the kind is at the place, or a flow writes a table under the name or at
/// the place; `Data` when what is there cannot be read; otherwise as the catalog and the stores.
pub(super) async fn register(arguments: Register, workspace: &Workspace, console: &mut Console) -> Result<()> {
    let mut dataset = Dataset {
        name: arguments.name,
        kind: match arguments.kind {
            Kind::Delta => DatasetKind::Delta,
            Kind::Parquet => DatasetKind::Parquet,
            Kind::Csv => DatasetKind::Csv,
            Kind::Json => DatasetKind::Json,
        },
        location: arguments.location,
        owner: arguments.owner,
        description: arguments.description,
        tags: arguments.tags,
        table: None,
    };
    dataset.name.check_free()?;
    check_flows(&mut dataset, workspace.catalog.as_ref()).await?;
    check_place(&dataset, workspace).await?;
    // The warehouse's file comes first: from it the catalog's entry can be made again, not the other way round.
    workspace.registry()?.put(&dataset).await?;
    workspace.catalog.put_dataset(&dataset).await?;
    if arguments.format.json {
        return console.json(&json!(dataset));
    }
    console.line(format!("registered {} at {}", dataset.name, dataset.location))
}

/// Takes a name out of the catalog and the warehouse's registry.
///
/// # Errors
/// `Invalid` when the name is not known; otherwise as the catalog and the store.
pub(super) async fn forget(arguments: &Forget, workspace: &Workspace, console: &mut Console) -> Result<()> {
    let (name, catalog) = (&arguments.name, workspace.catalog.as_ref());
    let Some(dataset) = catalog.dataset(name).await? else {
        return Err(unknown_name(&name.to_string(), catalog).await?);
    };
    // As long as the warehouse's file is there, the catalog's entry can come back.
    workspace.registry()?.remove(name).await?;
    catalog.drop_dataset(name).await?;
    if arguments.format.json {
        return console.json(&json!({"forgotten": dataset}));
    }
    console.line(format!("forgot {name}; what is at {} stays there", dataset.location))
}

/// Refuses to take a name or a folder away from a table that a flow writes. Under its own name and at its own place such a
/// table can be given an owner, a description and tags; it stays what it is.
async fn check_flows(dataset: &mut Dataset, catalog: &dyn CatalogStore) -> Result<()> {
    let is_written = |known: &&Dataset| known.table.is_some() || known.kind == DatasetKind::DeadLetter;
    for known in catalog.datasets().await?.iter().filter(is_written) {
        let is_same_place = known.location == dataset.location;
        if known.name == dataset.name && is_same_place && dataset.kind == DatasetKind::Delta {
            dataset.kind = known.kind;
            dataset.table.clone_from(&known.table);
            continue;
        }
        let overlaps = known.location.contains(&dataset.location) || dataset.location.contains(&known.location);
        let (message, hint) = if known.name == dataset.name {
            (
                format!("cannot register {} at {}: {}", known.name, dataset.location, writer_of(known, catalog).await?),
                format!("register it under another name; {} is at {}", known.name, known.location),
            )
        } else if overlaps {
            let whose =
                format!("table {} is at {}, and {}", known.name, known.location, writer_of(known, catalog).await?);
            (
                format!("cannot register {} at {}: {whose}", dataset.name, dataset.location),
                format!("query it as {}, or register a folder of its own", known.name),
            )
        } else {
            continue;
        };
        return Err(Error::invalid(message).with_hint(hint));
    }
    Ok(())
}

/// Says who writes a table: `flow x writes it`.
async fn writer_of(known: &Dataset, catalog: &dyn CatalogStore) -> Result<String> {
    let flows = catalog.flows().await?;
    let writes = |version: &&FlowVersion| version.table == known.name;
    let mut names: Vec<&str> =
        flows.iter().map(|entry| &entry.version).filter(writes).map(|version| version.flow.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    Ok(match &names[..] {
        [] if known.kind == DatasetKind::DeadLetter => "it takes the rejects of a source".to_owned(),
        [] => "a pipeline's file declares it".to_owned(),
        [flow] => format!("flow {flow} writes it"),
        flows => format!("flows {} write it", flows.join(", ")),
    })
}

/// Refuses to register a place where nothing of the kind is, or nothing that can be read: a slip in a path would only show
/// when somebody reads it.
async fn check_place(dataset: &Dataset, workspace: &Workspace) -> Result<()> {
    use futures::TryStreamExt;

    let store = workspace.stores.open(&dataset.location)?;
    let is_delta = matches!(dataset.kind, DatasetKind::Delta | DatasetKind::DeadLetter);
    let folder = is_delta.then(|| object_store::path::Path::from("_delta_log"));
    let first = store.list(folder.as_ref()).try_next().await;
    let failed = |source| alluvium_catalog::storage_error(format!("cannot look at {}", dataset.location), source);
    if first.map_err(failed)?.is_none() {
        let what = if is_delta { "Delta table" } else { "file" };
        return Err(Error::invalid(format!("there is no {what} at {}", dataset.location))
            .with_hint("name a folder with files, and --kind parquet, csv or json where it is no Delta table"));
    }
    let reader = TableReader::new(workspace.stores.clone(), Arc::clone(&workspace.catalog));
    if is_delta {
        return reader.open(&dataset.location, Version::Latest).await.map(drop);
    }
    reader.columns_of_files(dataset.kind, &dataset.location).await.map(drop)
}

#[cfg(test)]
mod tests {
    use alluvium_catalog::store::MemoryStore;

    use super::*;
    use crate::decode::sample::{append_flow, value};

    /// A catalog with the table of flow `f`, whose name and place are as the sample has them, and rejects beside it.
    async fn catalog() -> Result<(MemoryStore, Dataset)> {
        let catalog = MemoryStore::default();
        let flow = append_flow(&[value("id", arrow::datatypes::DataType::Int64)])?;
        catalog.put_definition(&flow.definition).await?;
        let rejects = dataset("ops.rejects", "s3://lake/ops/rejects", DatasetKind::DeadLetter)?;
        catalog.put_dataset(&rejects).await?;
        let written = catalog.dataset(&flow.definition.table.name).await?;
        Ok((catalog, written.ok_or_else(|| Error::internal("the table was not kept"))?))
    }

    fn dataset(name: &str, location: &str, kind: DatasetKind) -> Result<Dataset> {
        let (name, location) = (name.parse()?, location.parse()?);
        Ok(Dataset { name, kind, location, owner: None, description: None, tags: Vec::new(), table: None })
    }

    #[tokio::test]
    async fn what_a_flow_writes_is_not_registered_over() -> Result<()> {
        let (catalog, written) = catalog().await?;
        let (name, place) = (written.name.to_string(), written.location.to_string());
        let (name, place, inside) = (name.as_str(), place.as_str(), format!("{place}/day=1"));
        for (name, location, kind) in [
            (name, "s3://lake/elsewhere", DatasetKind::Delta),
            (name, place, DatasetKind::Parquet),
            ("ref.alias", place, DatasetKind::Delta),
            ("ref.inside", inside.as_str(), DatasetKind::Parquet),
            ("ops.rejects", "s3://lake/other", DatasetKind::Csv),
            ("ref.around", "s3://lake/ops", DatasetKind::Json),
        ] {
            let checked = check_flows(&mut dataset(name, location, kind)?, &catalog).await;
            let error = checked.err().ok_or_else(|| Error::internal(format!("{name} at {location} was taken")))?;
            assert!(error.message().contains("flow ") || error.message().contains("rejects"), "{error}");
            assert!(error.hint().is_some(), "{error}");
        }
        check_flows(&mut dataset("ref.other", "s3://lake/ref/other", DatasetKind::Csv)?, &catalog).await
    }

    #[tokio::test]
    async fn a_written_table_can_be_given_an_owner_and_stays_what_it_is() -> Result<()> {
        let (catalog, written) = catalog().await?;
        let mut owned = Dataset { owner: Some("ann".to_owned()), table: None, ..written.clone() };
        check_flows(&mut owned, &catalog).await?;
        assert_eq!(owned, Dataset { owner: Some("ann".to_owned()), ..written });
        let mut rejects = dataset("ops.rejects", "s3://lake/ops/rejects", DatasetKind::Delta)?;
        check_flows(&mut rejects, &catalog).await?;
        assert_eq!(rejects.kind, DatasetKind::DeadLetter);
        Ok(())
    }
}
