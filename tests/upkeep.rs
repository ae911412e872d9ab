//! Upserts and appends with upkeep beside them, on real stores: other readers see the same rows, and the commands of
//! the program do the same to a table that a flow writes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use alluvium::commit::land::Landing;
use alluvium::config::UpkeepSettings;
use alluvium::metrics::Metrics;
use alluvium::upkeep::{Upkeep, UpkeepParts};
use alluvium_catalog::{Location, Partition, SystemClock};
use object_store::ObjectStore;
use serde_json::{Value, json};

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
    scene.check_log(&store).await?;
    let mut wanted = expected(kind);
    if kind.is_upsert() {
        let keys = (100..110).chain([103, 107]);
        land_keys(&scene, (&mut landing, &mut upkeep), keys, &mut wanted).await?;
        assert!(!scene.land_change(&mut landing, (104, 0), false).await?, "a late row of a key whose row has moved");
    }
    upkeep.close(&mut landing, Duration::from_secs(30)).await;
    check_rows(lake, &location, &wanted).await?;
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

    check_rows(lake, &location, &wanted).await
}

/// Lands one change of each key, whose rows stay in files of their own until they are compacted.
async fn land_keys(
    scene: &Scene,
    (landing, upkeep): (&mut Landing, &mut Upkeep),
    keys: impl Iterator<Item = i64>,
    wanted: &mut BTreeSet<(i64, i64)>,
) -> TestResult {
    for key in keys {
        let next = landing.positions().get(&Partition(0)).map_or(0, |offset| offset.0);
        assert!(scene.land_change(landing, (key, next), false).await?);
        upkeep.landed(landing).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        wanted.retain(|(id, _)| *id != key);
        wanted.insert((key, next));
    }
    Ok(())
}

async fn check_rows(lake: &Lake, location: &Location, wanted: &BTreeSet<(i64, i64)>) -> TestResult {
    let rows = reader::rows(lake, location, "SELECT id, pos FROM t ORDER BY id, pos").await?;
    let found: BTreeSet<(i64, i64)> =
        rows.iter().filter_map(|row| Some((row["id"].as_i64()?, row["pos"].as_i64()?))).collect();
    assert_eq!(wanted, &found);
    assert_eq!(rows.len(), found.len(), "a row is there twice: {rows:?}");
    Ok(())
}

async fn compactions(lake: &Lake, location: &Location) -> TestResult<usize> {
    let log = reader::log(lake, location).await?;
    let operations = log.iter().flat_map(|entry| entry.actions("commitInfo"));
    Ok(operations.filter(|info| info["operation"] == "OPTIMIZE").count())
}

/// Rows of a statement, and its end.
fn sql(program: &Program, table: &str, statement: &str) -> TestResult<Value> {
    Ok(program.json(&["sql", table, "--quiet", "--json", "-c", statement])?[0].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upkeep_is_asked_for_in_sql() -> TestResult {
    let lake = Lake::on_disk()?;
    let location = lake.table("silver.sql")?;
    let scene = Scene::new(Kind::Append, lake.stores().open(&location)?, location.clone());
    let mut landing = scene.open().await?;
    while scene.land_next(&mut landing).await? {}
    let (program, table) = (Program::on(&lake), location.to_string());
    let refused = |statement: &str, said: &str| -> TestResult {
        let ended = program.run(&["sql", &table, "--quiet", "-c", statement])?;
        assert!(!ended.status.success() && ended.err.contains(said), "{statement}: {}", ended.err);
        Ok(())
    };
    refused("OPTIMIZE nowhere", "cannot OPTIMIZE default.nowhere: there is no table of this name")?;
    refused("OPTIMIZE t FULL", "has no clustering columns")?;
    refused("OPTIMIZE t WHERE id = 1", "OPTIMIZE .. WHERE is not supported yet")?;
    refused("VACUUM system.commits", "it is the catalog's")?;
    refused("VACUUM t RETAIN 1 HOURS", "a retention of 1 h is shorter than the 168 h")?;

    let done = sql(&program, &table, "OPTIMIZE t")?;
    assert!(done["files_before"].as_u64() > done["files_after"].as_u64(), "{done}");
    let again = sql(&program, &table, "OPTIMIZE t")?;
    assert_eq!((&again["commits"], &again["version"]), (&json!(0), &done["version"]), "{again}");
    let counted = sql(&program, &table, "VACUUM t RETAIN 168 HOURS DRY RUN")?;
    assert_eq!((&counted["dry_run"], &counted["files"]), (&json!(true), &json!(0)), "all is younger: {counted}");
    let removed = sql(&program, &table, "VACUUM t")?;
    assert_eq!((&removed["retention_hours"], &removed["removed"]), (&json!(168), &json!(0)), "{removed}");
    check_rows(&lake, &location, &expected(Kind::Append)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_agree_on_tables_that_upkeep_rewrites_on_disk() -> TestResult {
    let lake = Lake::on_disk()?;
    for kind in [Kind::Append, Kind::Upsert, Kind::Filed, Kind::Rewrite] {
        check(&lake, kind).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_agree_on_tables_that_upkeep_rewrites_on_minio() -> TestResult {
    let Some(bucket) = services::minio()? else { return Ok(()) };
    let lake = Lake::in_bucket(&bucket)?;
    for kind in [Kind::Append, Kind::Upsert, Kind::Rewrite] {
        check(&lake, kind).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_agree_on_tables_that_upkeep_rewrites_on_versity() -> TestResult {
    let Some(bucket) = services::versity()? else { return Ok(()) };
    let lake = Lake::in_bucket(&bucket)?;
    check(&lake, Kind::Append).await?;
    check(&lake, Kind::Filed).await
}
