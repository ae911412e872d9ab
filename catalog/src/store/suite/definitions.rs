//! What was declared: connections, sources, tables and flows with their versions, and datasets as they are registered.

use super::{ensure, ensure_eq, samples};
use crate::lineage::Definition;
use crate::store::{CatalogStore, FlowEntry, places};
use crate::{Dataset, DatasetKind, Result, TableName};

/// Connection, source, table and flow are found as they were put.
///
/// # Errors
/// As [`all`](super::all).
pub async fn a_definition_comes_back_whole(store: &dyn CatalogStore) -> Result<()> {
    let definition = samples::definition("whole")?;
    ensure_eq("place", &store.put_definition(&definition).await?, &1)?;
    ensure("connection", store.connections().await?.contains(&definition.connection))?;
    ensure("source", store.sources().await?.contains(&definition.source))?;
    let expected = samples::dataset_of(&definition.table);
    ensure_eq("dataset", &store.dataset(&definition.table.name).await?, &Some(expected))?;
    let expected = FlowEntry { seq: 1, version: definition.flow.clone() };
    ensure_eq("flow", &store.flow(&definition.flow.flow).await?, &vec![expected.clone()])?;
    ensure("flows", store.flows().await?.contains(&expected))
}

/// A connection and a source need no flow; the newest of a name counts.
///
/// # Errors
/// As [`all`](super::all).
pub async fn connections_and_sources_stand_alone_and_are_replaced(store: &dyn CatalogStore) -> Result<()> {
    let Definition { mut connection, mut source, .. } = samples::definition("alone")?;
    for _again in 0..2 {
        store.put_connection(&connection).await?;
        store.put_source(&source).await?;
        let same = store.connections().await?.into_iter().filter(|known| known.name == connection.name);
        ensure_eq("connection", &same.collect::<Vec<_>>(), &vec![connection.clone()])?;
        let same = store.sources().await?.into_iter().filter(|known| known.name == source.name);
        ensure_eq("source", &same.collect::<Vec<_>>(), &vec![source.clone()])?;
        connection.options.clear();
        source.comment = Some("another".to_owned());
    }
    Ok(())
}

/// The newest hash again adds nothing; another one does, also one that was there before the newest.
///
/// # Errors
/// As [`all`](super::all).
pub async fn a_text_adds_a_version_only_when_it_changes(store: &dyn CatalogStore) -> Result<()> {
    let mut definition = samples::definition("versions")?;
    let mut seqs = Vec::new();
    for hash in ["h1", "h1", "h2", "h2", "h1"] {
        definition.flow.sql_hash = hash.to_owned();
        seqs.push(store.put_definition(&definition).await?);
    }
    ensure_eq("places", &seqs, &vec![1, 1, 2, 2, 3])?;
    let versions = store.flow(&definition.flow.flow).await?;
    let found: Vec<_> = versions.iter().map(|entry| (entry.seq, entry.version.sql_hash.as_str())).collect();
    ensure_eq("versions", &found, &vec![(1, "h1"), (2, "h2"), (3, "h1")])?;
    let flow = &definition.flow.flow;
    let places = places(&versions);
    let place = |hash: &str| places.get(&(flow, hash)).copied();
    ensure_eq("places of texts", &[place("h1"), place("h2"), place("h3")], &[Some(3), Some(2), None])
}

/// Of many that put one definition at once, one adds the version and all learn its place.
///
/// # Errors
/// As [`all`](super::all).
pub async fn one_version_is_added_when_many_say_the_same(store: &dyn CatalogStore) -> Result<()> {
    let definition = samples::definition("crowd")?;
    let seqs = futures::future::try_join_all((0..8).map(|_| store.put_definition(&definition))).await?;
    ensure_eq("places", &seqs, &vec![1; 8])?;
    ensure_eq("versions", &store.flow(&definition.flow.flow).await?.len(), &1)
}

/// Putting a definition again changes the table, and neither owner nor tags nor a description it is silent about.
///
/// # Errors
/// As [`all`](super::all).
pub async fn a_definition_keeps_what_people_said_of_the_table(store: &dyn CatalogStore) -> Result<()> {
    let mut definition = samples::definition("said")?;
    definition.table.comment = None;
    store.put_definition(&definition).await?;
    let said = Dataset {
        owner: Some("shop-team".to_owned()),
        description: Some("by hand".to_owned()),
        tags: vec!["gold".to_owned(), "pii".to_owned()],
        ..samples::dataset_of(&definition.table)
    };
    store.put_dataset(&said).await?;

    definition.table.location = definition.table.location.join("moved")?;
    store.put_definition(&definition).await?;
    let table = definition.table.clone();
    let moved = Dataset { location: table.location.clone(), table: Some(table), ..said };
    ensure_eq("after a change", &store.dataset(&definition.table.name).await?, &Some(moved.clone()))?;

    definition.table.comment = Some("by the file".to_owned());
    store.put_definition(&definition).await?;
    let commented =
        Dataset { description: definition.table.comment.clone(), table: Some(definition.table.clone()), ..moved };
    ensure_eq("after a comment", &store.dataset(&definition.table.name).await?, &Some(commented))
}

/// A registration without a definition keeps the one that is known, and replaces all else.
///
/// # Errors
/// As [`all`](super::all).
pub async fn a_registration_keeps_the_declared_table(store: &dyn CatalogStore) -> Result<()> {
    let definition = samples::definition("declared")?;
    store.put_definition(&definition).await?;
    let silent = Dataset { owner: Some("me".to_owned()), table: None, ..samples::dataset_of(&definition.table) };
    store.put_dataset(&silent).await?;
    let expected = Dataset { table: Some(definition.table.clone()), ..silent.clone() };
    ensure_eq("with definition", &store.dataset(&silent.name).await?, &Some(expected))?;

    let files = samples::dataset("declared.files", DatasetKind::Csv)?;
    store.put_dataset(&files).await?;
    store.put_dataset(&files).await?;
    ensure_eq("files", &store.dataset(&files.name).await?, &Some(files.clone()))?;
    let bare = Dataset { owner: None, description: None, tags: Vec::new(), kind: DatasetKind::Json, ..files };
    store.put_dataset(&bare).await?;
    ensure_eq("replaced", &store.dataset(&bare.name).await?, &Some(bare))
}

/// Datasets are ordered by schema, then table, byte by byte.
///
/// # Errors
/// As [`all`](super::all).
pub async fn datasets_come_in_order_of_their_names(store: &dyn CatalogStore) -> Result<()> {
    // '-' comes before '.', and upper before lower case: an order of the joined or folded texts would differ.
    let expected = ["order.B", "order.a", "order.a-b", "order.a_b", "order-2.a"].map(str::parse::<TableName>);
    let mut expected = expected.into_iter().collect::<Result<Vec<_>>>()?;
    for name in expected.iter().rev() {
        store.put_dataset(&samples::dataset(&name.to_string(), DatasetKind::Parquet)?).await?;
    }
    expected.sort();
    let found = store.datasets().await?.into_iter().map(|dataset| dataset.name);
    let found: Vec<TableName> = found.filter(|name| name.schema().starts_with("order")).collect();
    ensure_eq("order", &found, &expected)
}
