//! What a name that is typed stands for in the catalog, and what to say when it stands for nothing.

use alluvium_catalog::store::{CatalogStore, FlowEntry};
use alluvium_catalog::{Connection, Dataset, Error, Name, Node, Result, Source, TableName, Topic, nearest};

/// What a name stands for. Where several things have one name, the first of this list is meant.
#[derive(Debug)]
pub(super) enum Found {
    /// A table or other dataset.
    Dataset(Box<Dataset>),
    /// A flow, with its versions.
    Flow(Vec<FlowEntry>),
    /// A source.
    Source(Box<Source>),
    /// A connection.
    Connection(Connection),
    /// A topic that a source reads, or that was read by a flow that is gone.
    Topic(Topic),
}

/// Returns what `name` stands for.
///
/// # Errors
/// `Invalid` with the nearest name that stands for something; otherwise as of the catalog.
pub(super) async fn find(name: &str, catalog: &dyn CatalogStore) -> Result<Found> {
    if let Ok(table) = name.parse::<TableName>()
        && let Some(dataset) = catalog.dataset(&table).await?
    {
        return Ok(Found::Dataset(Box::new(dataset)));
    }
    let sources = catalog.sources().await?;
    if let Ok(word) = name.parse::<Name>() {
        let versions = catalog.flow(&word).await?;
        if !versions.is_empty() {
            return Ok(Found::Flow(versions));
        }
        if let Some(source) = sources.iter().find(|source| source.name == word) {
            return Ok(Found::Source(Box::new(source.clone())));
        }
        if let Some(connection) = catalog.connections().await?.into_iter().find(|known| known.name == word) {
            return Ok(Found::Connection(connection));
        }
    }
    if let Ok(topic) = name.parse::<Topic>() {
        let is_declared = sources.iter().any(|source| source.topic == topic);
        let node = Node::Topic(topic.clone());
        if is_declared || catalog.traffic().await?.iter().any(|(edge, _)| edge.from == node) {
            return Ok(Found::Topic(topic));
        }
    }
    Err(unknown_name(name, catalog).await?)
}

/// Returns the error for a name that stands for nothing that was asked for, with the nearest one that does.
pub(super) async fn unknown_name(name: &str, catalog: &dyn CatalogStore) -> Result<Error> {
    let mut known: Vec<String> = catalog.datasets().await?.iter().map(|dataset| dataset.name.to_string()).collect();
    known.extend(catalog.flows().await?.iter().map(|entry| entry.version.flow.to_string()));
    for source in catalog.sources().await? {
        known.extend([source.name.to_string(), source.topic.to_string()]);
    }
    known.extend(catalog.connections().await?.iter().map(|connection| connection.name.to_string()));
    // Whoever typed this very name means something else.
    known.retain(|known| known != name);
    let error = Error::invalid(format!("the catalog knows nothing by the name '{name}'"));
    Ok(match nearest(name, known.iter().map(String::as_str)) {
        Some(near) => error.with_hint(format!("did you mean {near}?")),
        None => error.with_hint("alluvium catalog list shows what there is"),
    })
}
