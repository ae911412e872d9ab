//! Every reader sees the same rows: our own session, deltalake in this process, and DuckDB.
//!
//! Held against each other on an append table, on one with deletion vectors, with partitions and nested columns, and
//! with checkpoints in the log. Queries keep to integers and strings, which all of them write alike.

use serde_json::Value;

use crate::harness::lake::Lake;
use crate::harness::program::Program;
use crate::harness::reader::{self, without_nulls};
use crate::harness::shop::Shop;
use crate::harness::{TestResult, services};

/// Columns of either table, in SQL that all dialects share.
const QUERIES: [&str; 5] = [
    "SELECT count(*) AS n_rows, count(customer) AS n_customers, sum(order_id) AS ids FROM t",
    "SELECT order_id, customer, status, CAST(amount AS VARCHAR) AS amount, revision FROM t ORDER BY revision, order_id, status",
    "SELECT order_id, revision, address['city'] AS city, array_to_string(tags, ',') AS tags FROM t ORDER BY revision, order_id, status",
    "SELECT order_id, revision, CAST(EXTRACT(EPOCH FROM updated_at) AS BIGINT) AS updated FROM t ORDER BY revision, order_id, status",
    "SELECT order_id, revision FROM t WHERE status = 'PAID' AND order_id BETWEEN 10 AND 60 ORDER BY revision, order_id, status",
];

/// Queries on the partitioned table.
const PARTITIONED: [&str; 2] = [
    "SELECT CAST(order_date AS VARCHAR) AS order_date, count(*) AS n_rows FROM t GROUP BY order_date ORDER BY 1",
    "SELECT order_id FROM t WHERE order_date = DATE '2026-03-02' ORDER BY order_id",
];

/// Returns the rows by our own session.
fn own_rows(program: &Program, location: &str, sql: &str) -> TestResult<Vec<Value>> {
    let answer = program.json(&["sql", location, "--quiet", "--json", "-c", sql])?;
    Ok(answer.as_array().cloned().ok_or("the answer is no list")?.into_iter().map(without_nulls).collect())
}

async fn check_table(shop: &Shop, name: &str, queries: &[&str]) -> TestResult {
    let table = shop.lake.table(name)?;
    for sql in queries {
        let rows = reader::rows(&shop.lake, &table, sql).await?;
        let own = own_rows(&shop.program, &table.to_string(), sql)?;
        assert_eq!(own, rows, "{sql} on {name}: our own rows first");
        assert!(!rows.is_empty(), "{sql} on {name} says nothing");
    }
    Ok(())
}

/// Tells which kinds of action and file a table's log has, so that no test passes for want of them: here, deletion
/// vectors that stand in the log itself.
async fn has_vectors(lake: &Lake, name: &str) -> TestResult<bool> {
    let log = reader::log(lake, &lake.table(name)?).await?;
    Ok(log.iter().any(|entry| entry.actions("add").any(|add| add["deletionVector"]["storageType"] == "i")))
}

async fn has_checkpoint(lake: &Lake, name: &str) -> TestResult<bool> {
    use object_store::ObjectStoreExt;

    let store = lake.stores().open(&lake.table(name)?)?;
    Ok(store.head(&object_store::path::Path::from("_delta_log/_last_checkpoint")).await.is_ok())
}

async fn check_shop(lake: Lake) -> TestResult {
    let shop = Shop::open(lake, 4).await?;
    assert!(has_vectors(&shop.lake, "silver.orders").await?, "no deletion vector was written");
    for name in ["bronze.orders", "silver.orders"] {
        assert!(has_checkpoint(&shop.lake, name).await?, "{name} has no checkpoint");
        check_table(&shop, name, &QUERIES).await?;
    }
    check_table(&shop, "silver.orders", &PARTITIONED).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_agree_on_tables_on_local_disk() -> TestResult {
    check_shop(Lake::on_disk()?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_agree_on_tables_on_minio() -> TestResult {
    let Some(bucket) = services::minio()? else { return Ok(()) };
    check_shop(Lake::in_bucket(&bucket)?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hidden_columns_are_stored_but_not_shown() -> TestResult {
    let shop = Shop::open(Lake::on_disk()?, 1).await?;
    let location = shop.lake.table("silver.orders")?;
    let sql = "SELECT * FROM t ORDER BY order_id LIMIT 1";
    let (own, others) = (
        own_rows(&shop.program, &location.to_string(), sql)?,
        reader::deltalake_rows(&shop.lake, &location, sql).await?,
    );
    let names = |rows: &[Value]| -> Vec<String> {
        let row = rows.first().and_then(Value::as_object);
        row.into_iter().flat_map(|row| row.keys().filter(|name| name.starts_with("_alluvium_")).cloned()).collect()
    };
    assert!(names(&own).is_empty(), "{own:?}");
    assert_eq!(names(&others), ["_alluvium_offset", "_alluvium_partition"]);
    let sql = "SELECT _alluvium_partition AS part, _alluvium_offset AS pos, order_id FROM t ORDER BY order_id";
    assert_eq!(own_rows(&shop.program, &location.to_string(), sql)?, reader::rows(&shop.lake, &location, sql).await?);
    Ok(())
}
