//! What the module `rebuild` promises, tested.

use alluvium_catalog::store::MemoryStore;
use alluvium_catalog::{ErrorKind, Lineage, StorageSettings};
use object_store::ObjectStoreExt;
use object_store::path::Path as StorePath;
use serde_json::{Value, json};

use super::*;

const WAREHOUSE: &str = "memory:///lake";

/// Another warehouse, for what was moved or copied.
const ELSEWHERE: &str = "memory:///elsewhere";

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
    put_file(stores, table, &format!("{version:020}.json"), &[json!({"commitInfo": info})]).await
}

/// Writes a file into the log of the table at `location`.
async fn put_file(stores: &Stores, location: &str, name: &str, lines: &[Value]) -> Result<()> {
    let location: Location = location.parse()?;
    let path = StorePath::from(format!("_delta_log/{name}"));
    let text = lines.iter().map(ToString::to_string).collect::<Vec<String>>().join("\n");
    let done = stores.open(&location)?.put(&path, text.into_bytes().into()).await;
    done.map(drop).map_err(|source| Error::internal("test put").with_source(source))
}

/// Returns the commit info of a version that the flow made.
fn made(version: u64, lineage: &Lineage) -> Value {
    json!({"timestamp": 1_000 * version, "alluvium.lineage": lineage})
}

async fn lake() -> Result<Stores> {
    let stores = Stores::new(StorageSettings::default());
    put_lake(&stores, WAREHOUSE).await?;
    Ok(stores)
}

/// Writes the tables of [`lake`] into any warehouse, word for word.
async fn put_lake(stores: &Stores, warehouse: &str) -> Result<()> {
    let at = |table: &str| format!("{warehouse}/{table}");
    let orders = at("silver/orders");
    put(stores, &orders, 0, json!({"timestamp": 0, "operation": "CREATE TABLE"})).await?;
    put(stores, &orders, 1, made(1, &lineage(1, Some(&definition(1)?))?)).await?;
    put(stores, &orders, 2, made(2, &lineage(2, None)?)).await?;
    put(stores, &orders, 3, made(3, &lineage(3, Some(&definition(2)?))?)).await?;
    put(stores, &at("ops/orders_dlq"), 0, made(4, &lineage(0, None)?)).await?;
    put(stores, &at("others/table"), 0, json!({"operation": "WRITE"})).await?;
    put(stores, &at("_alluvium/table"), 0, json!({"operation": "WRITE"})).await
}

/// Writes all of [`lake`] into another warehouse, as a copy of its folder does: everything names the former place.
async fn copy_lake(stores: &Stores) -> Result<()> {
    put_lake(stores, ELSEWHERE).await?;
    let registry = Registry::new(stores.open(&ELSEWHERE.parse()?)?);
    let orders: Dataset = read(json!({
        "name": "silver.orders", "kind": "delta", "location": format!("{WAREHOUSE}/silver/orders"), "owner": "shop",
        "table": definition(2)?.table}))?;
    let rejects: Dataset = read(json!({
        "name": "ops.orders_dlq", "kind": "dead_letter", "location": format!("{WAREHOUSE}/ops/orders_dlq")}))?;
    for dataset in [&orders, &rejects] {
        registry.put(dataset).await?;
    }
    Ok(())
}

async fn restore_elsewhere(stores: &Stores, store: &MemoryStore) -> Result<Restored> {
    let warehouse: Location = ELSEWHERE.parse()?;
    let rebuild = Rebuild { stores, warehouse: &warehouse, locations: &[], catalog: Path::new("unused") };
    rebuild.restore_into(store).await
}

/// Checks that the tables of [`copy_lake`] are where they are now, and nowhere else.
async fn check_elsewhere(store: &MemoryStore) -> Result<()> {
    for (name, folder, newest) in [("silver.orders", "silver/orders", 3), ("ops.orders_dlq", "ops/orders_dlq", 0)] {
        let (name, here): (TableName, Location) = (name.parse()?, format!("{ELSEWHERE}/{folder}").parse()?);
        let dataset = store.dataset(&name).await?;
        assert_eq!(dataset.as_ref().map(|dataset| &dataset.location), Some(&here));
        let table = dataset.and_then(|dataset| dataset.table);
        assert!(table.is_none_or(|table| table.location == here));
        assert_eq!(store.last_version(&name).await?, Some(newest));
        assert!(store.commits(Some(&name), 10).await?.iter().all(|commit| commit.location == here));
    }
    let orders = store.dataset(&"silver.orders".parse()?).await?;
    assert!(orders.is_some_and(|orders| orders.owner.as_deref() == Some("shop") && orders.table.is_some()));
    Ok(())
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

#[tokio::test]
async fn tables_of_a_warehouse_that_was_moved_are_where_they_are_found() -> Result<()> {
    let (stores, store) = (Stores::new(StorageSettings::default()), MemoryStore::default());
    copy_lake(&stores).await?;
    let restored = restore_elsewhere(&stores, &store).await?;
    assert_eq!((restored.tables.len(), restored.n_datasets, restored.skipped.len()), (2, 0, 1), "{restored:?}");
    check_elsewhere(&store).await
}

#[tokio::test]
async fn a_definition_alone_does_not_keep_a_table_where_it_was() -> Result<()> {
    let (stores, store) = (Stores::new(StorageSettings::default()), MemoryStore::default());
    put_lake(&stores, ELSEWHERE).await?;
    restore_elsewhere(&stores, &store).await?;
    let dataset = store.dataset(&"silver.orders".parse()?).await?;
    let here: Location = format!("{ELSEWHERE}/silver/orders").parse()?;
    assert_eq!(dataset.and_then(|dataset| dataset.table).map(|table| table.location), Some(here));
    assert_eq!(store.last_version(&"silver.orders".parse()?).await?, Some(3));
    Ok(())
}

#[tokio::test]
async fn a_warehouse_that_was_copied_has_its_own_tables_and_not_those_that_were_copied() -> Result<()> {
    let (stores, store) = (lake().await?, MemoryStore::default());
    copy_lake(&stores).await?;
    let restored = restore_elsewhere(&stores, &store).await?;
    let skipped: BTreeSet<String> = restored.skipped.iter().map(|skipped| skipped.location.to_string()).collect();
    let originals = ["silver/orders", "ops/orders_dlq"].map(|folder| format!("{WAREHOUSE}/{folder}"));
    assert!(originals.iter().all(|original| skipped.contains(original)), "{restored:?}");
    assert_eq!((restored.tables.len(), skipped.len()), (2, 3), "{restored:?}");
    check_elsewhere(&store).await
}

#[tokio::test]
async fn a_log_with_a_hole_is_read_behind_it() -> Result<()> {
    let (stores, store) = (Stores::new(StorageSettings::default()), MemoryStore::default());
    let orders = format!("{WAREHOUSE}/silver/orders");
    put(&stores, &orders, 12, made(12, &lineage(12, Some(&definition(1)?))?)).await?;
    for version in 100..103 {
        put(&stores, &orders, version, made(version, &lineage(version, None)?)).await?;
    }
    // The text that is at work was written by a version that is gone.
    let checkpoint = [
        json!({"checkpointMetadata": {"version": 100}}),
        json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}),
        json!({"metaData": {"id": "t", "schemaString": "{}", "partitionColumns": [], "configuration": {
            "alluvium.definition.orders_upsert": json!(definition(2)?).to_string()}}}),
    ];
    let name = format!("{:020}.checkpoint.016ae953-37a9-438e-8683-9a9a4a79a395.json", 100);
    put_file(&stores, &orders, &name, &checkpoint).await?;

    let restored = restore(&stores, &[], &store).await?;
    assert_eq!(restored.tables.iter().map(|table| table.commits).collect::<Vec<_>>(), [4]);
    let versions: Vec<u64> = store.commits(None, 10).await?.iter().map(|commit| commit.version).collect();
    assert_eq!(versions, [102, 101, 100, 12]);
    assert_eq!(store.recorded(&orders.parse()?).await?, Some(102));
    let texts: Vec<String> = store.flows().await?.into_iter().map(|entry| entry.version.sql).collect();
    assert_eq!(texts, ["text 1", "text 2"]);
    Ok(())
}

#[test]
fn a_new_catalog_that_is_not_whole_in_its_file_is_refused() -> Result<()> {
    let failed = |source: std::io::Error| Error::internal("test file").with_source(source);
    let folder = tempfile::tempdir().map_err(failed)?;
    let catalog = folder.path().join("catalog.db");
    let (fresh, before) = (beside(&catalog, ".rebuild"), beside(&catalog, ".before"));
    let write = |path: &Path, text: &str| std::fs::write(path, text).map_err(failed);
    let holds = |path: &Path, text: &str| std::fs::read_to_string(path).is_ok_and(|held| held == text);
    write(&catalog, "old")?;
    write(&fresh, "torn")?;
    write(&beside(&fresh, "-wal"), "the rest")?;
    let refused = swap(&fresh, &catalog);
    assert!(refused.is_err_and(|error| error.kind() == ErrorKind::Unavailable));
    assert!(holds(&catalog, "old") && !before.exists());
    assert!(!fresh.exists() && !beside(&fresh, "-wal").exists());

    write(&fresh, "whole")?;
    write(&beside(&fresh, "-wal"), "")?;
    swap(&fresh, &catalog)?;
    assert!(holds(&catalog, "whole") && holds(&before, "old"));
    assert!(!fresh.exists() && !beside(&fresh, "-wal").exists());
    Ok(())
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_to_the_catalog_stays_one_and_the_file_behind_it_is_replaced() -> Result<()> {
    let failed = |source: std::io::Error| Error::internal("test file").with_source(source);
    let folder = tempfile::tempdir().map_err(failed)?;
    let (file, link) = (folder.path().join("catalog.db"), folder.path().join("link.db"));
    std::os::unix::fs::symlink(&file, &link).map_err(failed)?;
    let (stores, warehouse) = (lake().await?, WAREHOUSE.parse::<Location>()?);
    let rebuild = Rebuild { stores: &stores, warehouse: &warehouse, locations: &[], catalog: &link };
    let store = SqliteStore::open(&file).await?;
    let refused = rebuild.run().await;
    assert!(refused.is_err_and(|error| error.message().contains("another process has it open")));
    store.close().await;

    rebuild.run().await?;
    assert!(link.is_symlink());
    let store = SqliteStore::open(&file).await?;
    assert_eq!(store.commits(None, 10).await?.len(), 4);
    store.close().await;
    Ok(())
}
