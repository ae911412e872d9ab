//! Upserts and appends with upkeep beside them, on real stores: other readers see the same rows, and the commands of
//! the program do the same to a table that a flow writes.

use std::sync::Arc;
use std::time::Duration;

use alluvium::config::UpkeepSettings;
use alluvium::metrics::Metrics;
use alluvium::upkeep::{Upkeep, UpkeepParts};
use alluvium_catalog::SystemClock;
use object_store::ObjectStore;

use crate::harness::lake::Lake;
use crate::harness::program::Program;
use crate::harness::scene::{Kind, Scene, expected};
use crate::harness::{TestResult, reader, services};

/// Lands the scenario's batches with upkeep beside them, then has the program compact and vacuum the table.
async fn check(lake: &Lake, kind: Kind) -> TestResult {
    let location = lake.table(&format!("silver.{kind:?}").to_lowercase())?;
    let stores = lake.stores();
    let store: Arc<dyn ObjectStore> = stores.open(&location)?;
    let scene = Scene::new(kind, Arc::clone(&store), location.clone());
    let mut landing = scene.open().await?;
    let parts = UpkeepParts {
        stores,
        location: location.clone(),
        flow: "flow".parse()?,
        checkpoint_interval: 2,
        settings: UpkeepSettings { files_min: 2, wall_percent: 100, ..UpkeepSettings::default() },
        clock: Arc::new(SystemClock),
        metrics: Arc::new(Metrics::try_new()?),
    };
    let mut upkeep = Upkeep::new(parts, 0);
    while scene.land_next(&mut landing).await? {
        upkeep.landed(&mut landing).await;
        // Long enough for a compaction of a few rows to end, so that some swap comes between two batches.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    upkeep.close(&mut landing, Duration::from_secs(30)).await;
    scene.check(&store).await?;
    assert!(compactions(lake, &location).await? > 0, "nothing was compacted at {location}");

    let program = Program::on(lake);
    let table = location.to_string();
    program.json(&["optimize", &table, "--json"])?;
    let vacuumed = program.json(&["vacuum", &table, "--dry-run", "--json"])?;
    assert_eq!(vacuumed["files"], 0, "nothing is old enough: {vacuumed}");
    let vacuumed = program.json(&["vacuum", &table, "--retention", "0s", "--force", "--json"])?;
    assert!(vacuumed["removed"].as_u64().is_some_and(|removed| removed > 0), "{vacuumed}");
    let refused = program.run(&["vacuum", &table, "--retention", "1h"])?;
    assert!(!refused.status.success() && refused.err.contains("--force"), "{}", refused.err);

    let rows = reader::rows(lake, &location, "SELECT id, pos FROM t ORDER BY id, pos").await?;
    let found = rows.iter().filter_map(|row| Some((row["id"].as_i64()?, row["pos"].as_i64()?))).collect();
    assert_eq!(expected(kind), found);
    Ok(())
}

async fn compactions(lake: &Lake, location: &alluvium_catalog::Location) -> TestResult<usize> {
    let log = reader::log(lake, location).await?;
    let operations = log.iter().flat_map(|entry| entry.actions("commitInfo"));
    Ok(operations.filter(|info| info["operation"] == "OPTIMIZE").count())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_agree_on_tables_that_upkeep_rewrites_on_disk() -> TestResult {
    let lake = Lake::on_disk()?;
    check(&lake, Kind::Append).await?;
    check(&lake, Kind::Upsert).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_agree_on_tables_that_upkeep_rewrites_on_minio() -> TestResult {
    let Some(bucket) = services::minio()? else { return Ok(()) };
    let lake = Lake::in_bucket(&bucket)?;
    check(&lake, Kind::Append).await?;
    check(&lake, Kind::Upsert).await
}
