//! Every operation of the landing protocol fails once, in every way; each batch lands once all the same.
//!
//! The parts of the engine that land batches run in this process over a store with a script. A scenario without faults
//! counts its operations; then each of them fails, alone and with the two that follow. In memory every operation fails in
//! every way; on the S3 servers, where a scenario takes longer, each fails in one of them.

use std::sync::Arc;

use alluvium::commit::Attempts;
use alluvium::commit::land::Landing;
use alluvium::commit::probe::prove_conditional_create;
use alluvium_catalog::{Location, SystemClock};
use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch};
use futures::{Stream, StreamExt};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;

use crate::harness::fault::{Careless, Fault, FaultyStore, Script};
use crate::harness::lake::Lake;
use crate::harness::scene::{Kind, Scene, declared, expected};
use crate::harness::services::Bucket;
use crate::harness::{TestResult, reader, services, unique};

/// What became of a scenario.
#[derive(Debug, Clone, Copy)]
struct Played {
    n_operations: usize,
    n_fired: usize,
}

/// Runs a scenario with a script on `inner`, which is empty.
async fn play(kind: Kind, script: Option<Script>, inner: Arc<dyn ObjectStore>) -> TestResult<Played> {
    let faulty = Arc::new(FaultyStore::new(Arc::clone(&inner), script));
    let scene = Scene::new(kind, Arc::clone(&faulty) as Arc<dyn ObjectStore>, "memory:///".parse()?);
    let named = |error| format!("{kind:?} under {script:?}: {error}");
    scene.drive().await.map_err(named)?;
    scene.check(&inner).await.map_err(named)?;
    scene.check_discards(&inner).await.map_err(named)?;
    Ok(Played { n_operations: faulty.n_operations(), n_fired: faulty.n_fired() })
}

/// Lets each operation fail in each way.
async fn every_operation_fails(kind: Kind, n_faults: usize) -> TestResult {
    /// Most of the time is spent in the waits between looks at a version that is not there.
    const AT_ONCE: usize = 64;
    let n_operations = play(kind, None, Arc::new(InMemory::new())).await?.n_operations;
    assert!(n_operations > 10, "the scenario has {n_operations} operations only");
    let scripts = (0..n_operations).flat_map(|first| Fault::ALL.map(|fault| Script { first, n_faults, fault }));
    let plays = scripts.map(|script| play(kind, Some(script), Arc::new(InMemory::new())));
    let n_fired = all_of(futures::stream::iter(plays).buffer_unordered(AT_ONCE)).await?;
    assert_eq!(n_fired, n_operations * Fault::ALL.len(), "scripts never fired");
    Ok(())
}

/// Lets each operation fail on a server, in one way each: the ways take turns, and kinds begin with different ones.
async fn every_operation_fails_on(bucket: &Bucket) -> TestResult {
    /// Two cores serve both the scenarios and the server.
    const AT_ONCE: usize = 8;
    let lake = &Lake::in_bucket(bucket)?;
    for (turn, kind) in [Kind::Append, Kind::Filed, Kind::Late].into_iter().enumerate() {
        let n_operations = play(kind, None, folder(lake)?).await?.n_operations;
        let scripts = (0..n_operations).map(|first| {
            let fault = Fault::ALL[(first + turn) % Fault::ALL.len()];
            Script { first, n_faults: 1, fault }
        });
        let plays = scripts.map(|script| async move { play(kind, Some(script), folder(lake)?).await });
        let n_fired = all_of(futures::stream::iter(plays).buffer_unordered(AT_ONCE)).await?;
        assert_eq!(n_fired, n_operations, "scripts never fired");
    }
    Ok(())
}

/// Returns an empty folder of a bucket as a store.
fn folder(lake: &Lake) -> TestResult<Arc<dyn ObjectStore>> {
    let location = lake.warehouse().join(&unique("scene"))?;
    Ok(lake.stores().open(&location)?)
}

/// Waits for all plays; tells in how many a fault came about, or which failed.
async fn all_of(plays: impl Stream<Item = TestResult<Played>>) -> TestResult<usize> {
    let played: Vec<_> = plays.collect().await;
    let n_fired = played.iter().flatten().filter(|played| played.n_fired > 0).count();
    let failed: Vec<String> = played.into_iter().filter_map(|played| Some(played.err()?.to_string())).collect();
    if failed.is_empty() { Ok(n_fired) } else { Err(failed.join("\n").into()) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_land_once_whichever_operation_fails() -> TestResult {
    every_operation_fails(Kind::Append, 1).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upserts_land_once_whichever_operation_fails() -> TestResult {
    every_operation_fails(Kind::Upsert, 1).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upserts_with_vectors_in_files_land_once_whichever_operation_fails() -> TestResult {
    every_operation_fails(Kind::Filed, 1).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upserts_with_vectors_in_files_land_once_whichever_three_operations_fail() -> TestResult {
    every_operation_fails(Kind::Filed, 3).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upserts_into_rewritten_files_land_once_whichever_operation_fails() -> TestResult {
    every_operation_fails(Kind::Rewrite, 1).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upserts_into_rewritten_files_land_once_whichever_three_operations_fail() -> TestResult {
    every_operation_fails(Kind::Rewrite, 3).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upserts_with_late_rows_land_once_whichever_operation_fails() -> TestResult {
    every_operation_fails(Kind::Late, 1).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upserts_with_late_rows_land_once_whichever_three_operations_fail() -> TestResult {
    every_operation_fails(Kind::Late, 3).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_land_once_whichever_three_operations_fail() -> TestResult {
    every_operation_fails(Kind::Append, 3).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upserts_land_once_whichever_three_operations_fail() -> TestResult {
    every_operation_fails(Kind::Upsert, 3).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_batch_lands_once_whichever_operation_fails_on_minio() -> TestResult {
    let Some(bucket) = services::minio()? else { return Ok(()) };
    every_operation_fails_on(&bucket).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_batch_lands_once_whichever_operation_fails_on_versity() -> TestResult {
    let Some(bucket) = services::versity()? else { return Ok(()) };
    every_operation_fails_on(&bucket).await
}

/// Lets writers of one flow race for every version.
async fn writers_race(store: Arc<dyn ObjectStore>) -> TestResult {
    for kind in [Kind::Append, Kind::Upsert, Kind::Filed, Kind::Rewrite, Kind::Late] {
        let location: Location = "memory:///".parse()?;
        let store: Arc<dyn ObjectStore> =
            Arc::new(object_store::prefix::PrefixStore::new(Arc::clone(&store), format!("{kind:?}")));
        let scenes = [0; 4].map(|_| Scene::new(kind, Arc::clone(&store), location.clone()));
        futures::future::try_join_all(scenes.iter().map(Scene::drive)).await?;
        scenes[0].check(&store).await?;
    }
    Ok(())
}

/// Lets creates race for one key, again and again, and writers for the versions of a table.
async fn creates_race_on(bucket: &Bucket) -> TestResult {
    const RACES: usize = 25;
    let lake = Lake::in_bucket(bucket)?;
    let store = folder(&lake)?;
    for _race in 0..RACES {
        prove_conditional_create(&store, lake.warehouse(), &SystemClock).await?;
    }
    writers_race(folder(&lake)?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_of_one_flow_land_each_batch_once() -> TestResult {
    writers_race(Arc::new(InMemory::new())).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_racing_creates_and_writers_one_wins_on_minio() -> TestResult {
    let Some(bucket) = services::minio()? else { return Ok(()) };
    creates_race_on(&bucket).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_racing_creates_and_writers_one_wins_on_versity() -> TestResult {
    let Some(bucket) = services::versity()? else { return Ok(()) };
    creates_race_on(&bucket).await
}

#[tokio::test]
async fn a_delete_by_another_process_binds_late_rows_of_this_one() -> TestResult {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let scene = Scene::new(Kind::Upsert, Arc::clone(&store), "memory:///".parse()?);
    let (mut one, mut other) = (scene.open().await?, scene.open().await?);
    assert!(scene.land_change(&mut one, (1, 10), false).await?);
    other.catch_up().await?;
    assert!(scene.land_change(&mut one, (1, 20), true).await?);
    other.catch_up().await?;
    assert!(!scene.land_change(&mut other, (1, 15), false).await?, "the row is older than the delete");
    assert_eq!(scene.rows(&store).await?, []);
    assert!(scene.land_change(&mut other, (1, 25), false).await?);
    assert_eq!(scene.rows(&store).await?, [(1, 3)]);
    Ok(())
}

/// A table on the local disk that a flow has landed two batches in, with the writer at work.
async fn table_on_disk(lake: &Lake, kind: Kind) -> TestResult<(Scene, Landing)> {
    let location = lake.table("lake.shared")?;
    let folder = location.local_path().ok_or("the lake is not on disk")?;
    std::fs::create_dir_all(&folder)?;
    let scene = Scene::new(kind, Arc::new(LocalFileSystem::new_with_prefix(&folder)?), location);
    let mut landing = scene.open().await?;
    for _ in 0..2 {
        scene.land_next(&mut landing).await?;
    }
    Ok((scene, landing))
}

async fn ids(lake: &Lake, scene: &Scene) -> TestResult<Vec<(i64, i64)>> {
    let rows = reader::rows(lake, &scene.location, "SELECT id, pos FROM t ORDER BY id, pos").await?;
    Ok(rows.iter().filter_map(|row| Some((row["id"].as_i64()?, row["pos"].as_i64()?))).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_append_between_two_commits_is_followed() -> TestResult {
    let lake = Lake::on_disk()?;
    let (scene, mut landing) = table_on_disk(&lake, Kind::Append).await?;
    let table = reader::open(&lake, &scene.location).await?;
    let foreign = |value: i64| -> ArrayRef { Arc::new(Int64Array::from(vec![value])) };
    let batch = RecordBatch::try_new(declared(), vec![foreign(77), foreign(0), foreign(7_700)])?;
    table.write([batch]).await?;
    while scene.land_next(&mut landing).await? {}
    let mut wanted = expected(Kind::Append);
    wanted.insert((77, 7_700));
    assert_eq!(ids(&lake, &scene).await?, wanted.into_iter().collect::<Vec<_>>());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_delete_of_rows_between_two_commits_is_followed() -> TestResult {
    let lake = Lake::on_disk()?;
    let (scene, mut landing) = table_on_disk(&lake, Kind::Append).await?;
    let table = reader::open(&lake, &scene.location).await?;
    table.delete().with_predicate("pos < 3").await?;
    while scene.land_next(&mut landing).await? {}
    let wanted: Vec<_> = expected(Kind::Append).into_iter().filter(|(_, pos)| *pos >= 3).collect();
    assert_eq!(ids(&lake, &scene).await?, wanted);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upsert_over_a_foreign_delete_and_a_foreign_append_keeps_one_row_a_key() -> TestResult {
    for kind in [Kind::Upsert, Kind::Rewrite] {
        an_upsert_over_foreign_commits(kind).await?;
    }
    Ok(())
}

async fn an_upsert_over_foreign_commits(kind: Kind) -> TestResult {
    let lake = Lake::on_disk()?;
    let (scene, mut landing) = table_on_disk(&lake, kind).await?;
    let table = reader::open(&lake, &scene.location).await?;
    let (table, _) = table.delete().with_predicate("id >= 0").await?;
    // A row of a key that comes again, as another writer adds it: without our hidden columns.
    let column = |value: i64| -> ArrayRef { Arc::new(Int64Array::from(vec![value])) };
    let hidden: [ArrayRef; 2] = [Arc::new(Int32Array::from(vec![None])), Arc::new(Int64Array::from(vec![None]))];
    let [partition, offset] = hidden;
    let batch =
        RecordBatch::try_new(Scene::columns().stored(), vec![column(2), column(0), column(-1), partition, offset])?;
    table.write([batch]).await?;
    while scene.land_next(&mut landing).await? {}
    // The last two batches bring every key again, so nothing of what the others did is left.
    assert_eq!(ids(&lake, &scene).await?, expected(kind).into_iter().collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn attempts_that_the_store_did_not_settle_are_counted() -> TestResult {
    let scene = |script: Option<Script>| -> TestResult<(Scene, Arc<FaultyStore>)> {
        let store = Arc::new(FaultyStore::new(Arc::new(InMemory::new()), script));
        let location: Location = "memory:///".parse()?;
        Ok((Scene::new(Kind::Append, Arc::clone(&store) as Arc<dyn ObjectStore>, location), store))
    };
    let (sound, counted) = scene(None)?;
    let mut landing = sound.open().await?;
    sound.land_next(&mut landing).await?;
    assert_eq!(landing.take_attempts(), Attempts { landed: 1, ..Attempts::default() });
    assert_eq!(landing.take_attempts(), Attempts::default(), "what was taken is not counted again");

    // The last operation of a landing puts its version.
    let script = Script { first: counted.n_operations() - 1, n_faults: 1, fault: Fault::Refused };
    let (refused, faulty) = scene(Some(script))?;
    let mut landing = refused.open().await?;
    refused.land_next(&mut landing).await?;
    assert_eq!(faulty.n_fired(), 1);
    assert_eq!(landing.take_attempts(), Attempts { landed: 1, indeterminate: 1, ..Attempts::default() });
    Ok(())
}

#[tokio::test]
async fn a_store_that_lets_two_creates_win_is_refused() -> TestResult {
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let careless: Arc<dyn ObjectStore> = Arc::new(Careless::new(inner));
    let refused = prove_conditional_create(&careless, &"memory:///t".parse()?, &SystemClock).await;
    let error = refused.err().ok_or("the store was taken")?;
    assert!(error.message().contains("conditional creates"), "{}", error.chain());
    Ok(())
}

#[tokio::test]
async fn a_store_whose_winner_lost_its_answer_is_taken() -> TestResult {
    for fault in [Fault::SaysExists, Fault::AnswerLost] {
        let script = Script { first: 0, n_faults: 1, fault };
        let store: Arc<dyn ObjectStore> = Arc::new(FaultyStore::new(Arc::new(InMemory::new()), Some(script)));
        let at: Location = "memory:///t".parse()?;
        prove_conditional_create(&store, &at, &SystemClock).await?;
    }
    Ok(())
}
