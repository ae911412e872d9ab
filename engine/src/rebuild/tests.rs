//! What the module `rebuild` promises, tested.

use alluvium_catalog::store::MemoryStore;
use alluvium_catalog::{Lineage, StorageSettings};
use object_store::ObjectStoreExt;
use object_store::path::Path as StorePath;
use serde_json::{Value, json};

use super::*;

const WAREHOUSE: &str = "memory:///lake";

fn read<T: serde::de::DeserializeOwned>(value: Value) -> Result<T> {
    serde_json::from_value(value).map_err(|source| Error::internal("test value").with_source(source))
}

fn definition(seq: u64) -> Result<Definition> {
    read(json!({
        "connection": {"name": "shop", "kind": "kafka", "options": {
            "bootstrap.servers": {"text": "localhost:9092"},
            "sasl.password": {"secret": {"provider": "env", "name": "KAFKA_PASSWORD"}}}},
        "source": {"name": "orders_raw", "connection": "shop", "topic": "shop.orders", "columns": [],
            "options": {"error-handling.mode": "log", "error-handling.log.target": "ops.orders_dlq"}, "comment": null},
        "table": {"name": "silver.orders", "location": "memory:///lake/silver/orders", "columns": [],
            "primary_key": ["order_id"], "partitioned_by": [], "comment": null, "properties": {}},
        "flow": {"flow": "orders_upsert", "kind": "auto_cdc", "source": "orders_raw", "table": "silver.orders",
            "lookups": [], "sql": format!("text {seq}"), "sql_hash": format!("{seq:064}"), "file": "orders.sql", "line": 1},
    }))
}

fn lineage(version: u64, definition: Option<&Definition>) -> Result<Lineage> {
    let mut lineage: Lineage = read(json!({
        "v": 1, "flow": "orders_upsert", "sql_hash": "ab", "engine": "0.1.0",
        "run": "0190a0a0-0000-7000-8000-000000000001", "write_id": "0190a0a0-0000-7000-8000-000000000002",
        "inputs": [{"kind": "kafka", "topic": "shop.orders",
                    "ranges": [{"partition": 0, "first": version, "next": version + 1, "records": 1}]}],
        "fate": {"records_in": 1, "applied": 1},
        "rows_inserted": 1, "rows_updated": 0, "rows_deleted": 0, "millis": {},
    }))?;
    lineage.definition = definition.cloned();
    Ok(lineage)
}

async fn put(stores: &Stores, table: &str, version: u64, info: Value) -> Result<()> {
    let location: Location = format!("{WAREHOUSE}/{table}").parse()?;
    let path = StorePath::from(format!("_delta_log/{version:020}.json"));
    let line = json!({"commitInfo": info}).to_string();
    let done = stores.open(&location)?.put(&path, line.into_bytes().into()).await;
    done.map(drop).map_err(|source| Error::internal("test put").with_source(source))
}

async fn lake() -> Result<Stores> {
    let stores = Stores::new(StorageSettings::default());
    let at = |version: u64, lineage: &Lineage| json!({"timestamp": 1_000 * version, "alluvium.lineage": lineage});
    put(&stores, "silver/orders", 0, json!({"timestamp": 0, "operation": "CREATE TABLE"})).await?;
    put(&stores, "silver/orders", 1, at(1, &lineage(1, Some(&definition(1)?))?)).await?;
    put(&stores, "silver/orders", 2, at(2, &lineage(2, None)?)).await?;
    put(&stores, "silver/orders", 3, at(3, &lineage(3, Some(&definition(2)?))?)).await?;
    put(&stores, "ops/orders_dlq", 0, at(4, &lineage(0, None)?)).await?;
    put(&stores, "others/table", 0, json!({"operation": "WRITE"})).await?;
    put(&stores, "_alluvium/table", 0, json!({"operation": "WRITE"})).await?;
    Ok(stores)
}

async fn restore(stores: &Stores, locations: &[Location], store: &MemoryStore) -> Result<Restored> {
    let warehouse: Location = WAREHOUSE.parse()?;
    let rebuild = Rebuild { stores, warehouse: &warehouse, locations, catalog: Path::new("unused") };
    rebuild.restore_into(store).await
}

#[tokio::test]
async fn everything_that_flows_wrote_comes_back() -> Result<()> {
    let stores = lake().await?;
    let store = MemoryStore::default();
    let restored = restore(&stores, &[], &store).await?;

    let tables: Vec<_> = restored.tables.iter().map(|table| (table.table.to_string(), table.commits)).collect();
    assert_eq!(tables, [("ops.orders_dlq".to_owned(), 1), ("silver.orders".to_owned(), 3)]);
    assert_eq!(restored.skipped.len(), 1, "{restored:?}");

    let texts: Vec<_> = store.flows().await?.into_iter().map(|entry| (entry.seq, entry.version.sql)).collect();
    assert_eq!(texts, [(1, "text 1".to_owned()), (2, "text 2".to_owned())]);
    assert_eq!(store.connections().await?, [definition(2)?.connection]);
    assert_eq!(store.sources().await?, [definition(2)?.source]);
    let kinds: Vec<_> =
        store.datasets().await?.into_iter().map(|dataset| (dataset.name.to_string(), dataset.kind)).collect();
    let expected = [("ops.orders_dlq", DatasetKind::DeadLetter), ("silver.orders", DatasetKind::Delta)];
    assert_eq!(kinds, expected.map(|(name, kind)| (name.to_owned(), kind)));
    let versions: Vec<u64> = store.commits(None, 10).await?.iter().map(|commit| commit.version).collect();
    assert_eq!(versions, [0, 3, 2, 1]);
    let runs: Vec<_> =
        store.runs(10).await?.iter().map(|run| (run.id.as_u128(), run.started_at, run.ended_at)).collect();
    let id = 0x0190_a0a0_0000_7000_8000_0000_0000_0001;
    assert_eq!(runs, [(id, Timestamp(1_000), Some(Timestamp(4_000)))]);
    Ok(())
}

#[tokio::test]
async fn registrations_come_back_and_go_over_what_is_implied() -> Result<()> {
    let stores = lake().await?;
    let registry = Registry::new(stores.open(&WAREHOUSE.parse()?)?);
    let dataset: Dataset = read(json!({
        "name": "raw.zones", "kind": "parquet", "location": "memory:///elsewhere/zones", "owner": "geo", "tags": ["x"]}))?;
    registry.put(&dataset).await?;
    let store = MemoryStore::default();
    let restored = restore(&stores, &[], &store).await?;
    assert_eq!(restored.n_datasets, 1);
    assert_eq!(store.dataset(&dataset.name).await?, Some(dataset));
    Ok(())
}

#[tokio::test]
async fn what_was_registered_of_connections_and_sources_goes_over_what_flows_said() -> Result<()> {
    let stores = lake().await?;
    let registry = Registry::new(stores.open(&WAREHOUSE.parse()?)?);
    let at = |name: &str, address: &str| -> Result<Connection> {
        read(json!({"name": name, "kind": "kafka", "options": {"bootstrap.servers": {"text": address}}}))
    };
    let over = |name: &str, connection: &str| -> Result<Source> {
        read(
            json!({"name": name, "connection": connection, "topic": "t", "columns": [], "options": {}, "comment": null}),
        )
    };
    let (unused, moved) = (at("other", "elsewhere:9092")?, at("shop", "new:9092")?);
    let (typed, orphan) = (over("typed", "other")?, over("orphan", "gone")?);
    for connection in [&unused, &moved] {
        registry.put_connection(connection).await?;
    }
    for source in [&typed, &orphan] {
        registry.put_source(source).await?;
    }
    let store = MemoryStore::default();
    restore(&stores, &[], &store).await?;
    assert_eq!(store.connections().await?, [unused, moved]);
    assert_eq!(store.sources().await?, [definition(2)?.source, typed], "a source needs its connection");
    Ok(())
}

#[tokio::test]
async fn a_given_location_without_a_flow_is_refused() -> Result<()> {
    let stores = lake().await?;
    let given: Location = format!("{WAREHOUSE}/others/table").parse()?;
    let refused = restore(&stores, &[given], &MemoryStore::default()).await;
    assert!(refused.is_err_and(|error| error.message().starts_with("no flow has written a table at")));
    Ok(())
}

#[tokio::test]
async fn the_old_catalog_is_kept_beside_the_new_one() -> Result<()> {
    let folder = tempfile::tempdir().map_err(|source| Error::internal("test folder").with_source(source))?;
    let catalog = folder.path().join("catalog.db");
    let stores = lake().await?;
    let warehouse: Location = WAREHOUSE.parse()?;
    let rebuild = Rebuild { stores: &stores, warehouse: &warehouse, locations: &[], catalog: &catalog };
    for _ in 0..2 {
        assert_eq!(rebuild.run().await?.tables.len(), 2);
    }
    let store = SqliteStore::open(&catalog).await?;
    assert_eq!(store.commits(None, 10).await?.len(), 4);
    assert_eq!(store.recorded(&format!("{WAREHOUSE}/silver/orders").parse()?).await?, Some(3));
    let refused = rebuild.run().await;
    assert!(refused.is_err_and(|error| error.message().contains("another process has it open")));
    assert_eq!(store.commits(None, 10).await?.len(), 4);
    store.close().await;
    assert!(beside(&catalog, ".before").is_file());
    assert!(!beside(&catalog, ".rebuild").exists());
    Ok(())
}
