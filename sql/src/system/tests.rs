//! What the module `system` promises, tested.

use alluvium_catalog::store::MemoryStore;
use datafusion::prelude::SessionContext;

use super::*;
use crate::tables::fixture::{TestResult, lines};

async fn catalog() -> TestResult<Arc<dyn CatalogStore>> {
    let catalog = MemoryStore::default();
    catalog.put_definition(&samples::definition()?).await?;
    catalog.put_dataset(&samples::dataset()?).await?;
    catalog.put_run(&samples::run()).await?;
    catalog.put_commit(&samples::commit()?).await?;
    Ok(Arc::new(catalog))
}

async fn check(sql: &str, expected: &[&str]) -> TestResult {
    let context = SessionContext::new();
    let schema = Arc::new(SystemSchema::new(catalog().await?));
    context.catalog("datafusion").ok_or("no catalog")?.register_schema(SCHEMA, schema)?;
    assert_eq!(lines(&context.sql(sql).await?.collect().await?)?, expected, "{sql}");
    Ok(())
}

#[tokio::test]
async fn every_table_can_be_selected_in_full() -> TestResult {
    for table in SystemTable::EVERY {
        let rows = table.rows(catalog().await?.as_ref(), ALL).await?;
        assert!(rows.num_rows() > 0, "{table:?} is empty");
        assert_eq!(rows.schema(), table.schema()?, "{table:?}");
        check(&format!("SELECT count(*) AS n FROM system.{}", table.name()), &["n", &rows.num_rows().to_string()])
            .await?;
    }
    Ok(())
}

#[tokio::test]
async fn datasets_show_what_was_declared_and_what_was_registered() -> TestResult {
    check(
        "SELECT schema, name, kind, owner, description, tags, primary_key FROM system.datasets ORDER BY schema",
        &[
            "schema|name|kind|owner|description|tags|primary_key",
            "legacy|orders|parquet|shop-team|before the move|[\"frozen\"]|",
            "silver|orders|delta||one row an order|[]|order_id",
        ],
    )
    .await
}

#[tokio::test]
async fn flows_show_every_version() -> TestResult {
    check(
        "SELECT flow, version, kind, source, \"table\", lookups, sql_hash, line FROM system.flows",
        &[
            "flow|version|kind|source|table|lookups|sql_hash|line",
            "orders_in|1|auto_cdc|orders_raw|silver.orders|silver.customers|5eed|7",
        ],
    )
    .await
}

#[tokio::test]
async fn commits_show_inputs_fates_and_timings() -> TestResult {
    check(
        "SELECT version, flow_version, committed_at, inputs, records_in, applied, merged, balanced, write_ms FROM system.commits",
        &[
            "version|flow_version|committed_at|inputs|records_in|applied|merged|balanced|write_ms",
            "1|1|1970-01-01T00:00:02Z|shop.orders 0@[5,9) 1@[0,2); silver.customers version 4|4|3|1|true|12",
        ],
    )
    .await
}

#[tokio::test]
async fn an_offset_finds_its_commit() -> TestResult {
    check(
        "SELECT version FROM system.commit_inputs \
         WHERE topic = 'shop.orders' AND \"partition\" = 0 AND 7 >= first_offset AND 7 < next_offset",
        &["version", "1"],
    )
    .await?;
    check(
        "SELECT kind, lookup_table, lookup_version FROM system.commit_inputs WHERE kind = 'table'",
        &["kind|lookup_table|lookup_version", "table|silver.customers|4"],
    )
    .await
}
