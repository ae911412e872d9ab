//! What upkeep promises, tested on tables in memory: readers see the same rows, and batches go on as if nothing were.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use alluvium_catalog::{Error, ManualClock, Result, StorageSettings, Stores, SystemClock};
use futures::TryStreamExt;
use serde_json::Value;

use super::fixture::{Model, Record, Rows, Scene, missing, rows_of, upsert};
use super::*;
use crate::delta::action::{Action, num_records};
use crate::delta::state::TableState;

fn live_rows(state: &TableState) -> u64 {
    let rows = |add: &crate::delta::action::Add| {
        let deleted = add.deletion_vector.as_ref().map_or(0, |vector| vector.cardinality);
        num_records(add).unwrap_or(0) - u64::try_from(deleted).unwrap_or(0)
    };
    state.files.values().map(rows).sum()
}

#[tokio::test]
async fn appended_files_become_few_and_every_row_stays() -> Result<()> {
    let scene = Scene::appends()?;
    let mut landing = scene.open().await?;
    let mut expected = Rows::new();
    for id in 0..6 {
        scene.land(&mut landing, &[(id, 1, Some("a")), (id, 2, Some("b"))]).await?;
        expected.extend([((id, 1), "a".to_owned()), ((id, 2), "b".to_owned())]);
    }
    let compaction = scene.compact(&landing).await?.ok_or_else(|| missing("compaction"))?;
    assert_eq!(compaction.inputs.len(), 6);
    let swapped = landing.swap(&compaction).await?;
    assert_eq!(swapped, Swapped::Landed { version: 7, remapped: 0 });
    assert_eq!(scene.rows().await?, expected);

    let state = scene.state().await?;
    assert_eq!(state.files.len(), 1);
    let add = state.files.values().next().ok_or_else(|| missing("file"))?;
    let stats: Value = serde_json::from_str(add.stats.as_deref().unwrap_or_default())
        .map_err(|cause| Error::data("stats").with_source(cause))?;
    assert_eq!((&stats["numRecords"], &stats["tightBounds"]), (&Value::from(12), &Value::from(true)));
    assert_eq!((&stats["minValues"]["id"], &stats["maxValues"]["id"]), (&Value::from(0), &Value::from(5)));
    assert_eq!(stats["nullCount"]["note"], Value::from(0));

    let entry = landing.log().read(7).await?.ok_or_else(|| missing("version 7"))?;
    assert_eq!(entry.info["operation"], "OPTIMIZE");
    let changes_data = entry.actions.iter().any(|action| match action {
        Action::Add(add) => add.data_change,
        Action::Remove(remove) => remove.data_change,
        _ => true,
    });
    assert!(!changes_data, "{entry:?}");
    scene.land(&mut landing, &[(9, 1, Some("after"))]).await?;
    assert_eq!(scene.rows().await?.len(), 13);
    Ok(())
}

#[tokio::test]
async fn rows_deleted_while_a_compaction_ran_stay_deleted_and_moved_keys_are_found() -> Result<()> {
    let scene = Scene::upserts()?;
    let (mut landing, mut model) = (scene.open().await?, Model::new());
    upsert(&scene, &mut landing, &mut model, &[(1, 1, Some("a")), (2, 1, Some("a")), (3, 1, Some("a"))]).await?;
    upsert(&scene, &mut landing, &mut model, &[(2, 2, Some("b")), (4, 1, Some("a"))]).await?;
    upsert(&scene, &mut landing, &mut model, &[(5, 1, Some("a")), (6, 1, Some("a"))]).await?;
    let compaction = scene.compact(&landing).await?.ok_or_else(|| missing("compaction"))?;
    assert_eq!(compaction.outputs.iter().map(|output| output.rows).sum::<u64>(), 6, "one row was deleted before");
    upsert(&scene, &mut landing, &mut model, &[(1, 2, Some("c")), (3, 2, None), (5, 0, Some("late"))]).await?;
    let swapped = landing.swap(&compaction).await?;
    assert!(matches!(swapped, Swapped::Landed { remapped: 2, .. }), "{swapped:?}");
    assert_eq!(scene.rows().await?, rows_of(&model));
    assert_eq!(live_rows(&scene.state().await?), 5);

    let records = [(2, 3, Some("d")), (3, 1, Some("late")), (4, 2, None), (6, 2, Some("d")), (7, 1, Some("d"))];
    upsert(&scene, &mut landing, &mut model, &records).await?;
    assert_eq!(scene.rows().await?, rows_of(&model));
    assert_eq!(live_rows(&scene.state().await?), rows_of(&model).len() as u64);

    let mut reopened = scene.open().await?;
    upsert(&scene, &mut reopened, &mut model, &[(1, 9, Some("e")), (2, 9, None), (6, 9, Some("e"))]).await?;
    assert_eq!(scene.rows().await?, rows_of(&model));
    Ok(())
}

#[tokio::test]
async fn a_swap_that_meets_a_foreign_commit_follows_it() -> Result<()> {
    let scene = Scene::upserts()?;
    let (mut landing, mut model) = (scene.open().await?, Model::new());
    for id in 0..4 {
        upsert(&scene, &mut landing, &mut model, &[(id, 1, Some("a")), (id + 10, 1, Some("a"))]).await?;
    }
    let compaction = scene.compact(&landing).await?.ok_or_else(|| missing("compaction"))?;
    let mut other = scene.open().await?;
    upsert(&scene, &mut other, &mut model, &[(0, 2, Some("b")), (11, 2, None)]).await?;
    assert_eq!(landing.swap(&compaction).await?, Swapped::Overtaken);
    landing.catch_up().await?;
    let swapped = landing.swap(&compaction).await?;
    assert_eq!(swapped, Swapped::Landed { version: 6, remapped: 2 });
    assert_eq!(scene.rows().await?, rows_of(&model));
    // The other process learns of the swap by the log alone.
    upsert(&scene, &mut other, &mut model, &[(0, 3, Some("c")), (1, 3, None), (10, 3, Some("c"))]).await?;
    assert_eq!(scene.rows().await?, rows_of(&model));
    upsert(&scene, &mut landing, &mut model, &[(2, 4, Some("d")), (10, 4, None)]).await?;
    assert_eq!(scene.rows().await?, rows_of(&model));
    Ok(())
}

#[tokio::test]
async fn files_that_came_and_went_while_a_process_was_away_are_not_asked_for() -> Result<()> {
    let mut scene = Scene::upserts()?;
    // Vectors are files, too.
    scene.inline_bytes_max = 0;
    let (mut landing, mut model) = (scene.open().await?, Model::new());
    upsert(&scene, &mut landing, &mut model, &[(1, 1, Some("a")), (2, 1, Some("a")), (3, 1, Some("a"))]).await?;
    let mut away = scene.open().await?;
    for sequence in 2..5 {
        let changes = [(1, sequence, Some("b")), (2, sequence, None), (4 + sequence, sequence, Some("b"))];
        upsert(&scene, &mut landing, &mut model, &changes).await?;
    }
    let compaction = scene.compact(&landing).await?.ok_or_else(|| missing("compaction"))?;
    assert!(matches!(landing.swap(&compaction).await?, Swapped::Landed { .. }));
    tokio::time::sleep(Duration::from_millis(20)).await;
    let removing = vacuum::Mode::Remove;
    let vacuumed = vacuum::vacuum(&scene.log()?, Duration::ZERO, removing, scene.clock.as_ref(), |_| {}).await?;
    assert!(vacuumed.removed > 4, "{vacuumed:?}");
    upsert(&scene, &mut away, &mut model, &[(1, 9, None), (2, 9, Some("c")), (3, 9, Some("c"))]).await?;
    assert_eq!(scene.rows().await?, rows_of(&model));
    Ok(())
}

#[tokio::test]
async fn a_compaction_whose_inputs_another_has_replaced_is_given_up() -> Result<()> {
    let scene = Scene::upserts()?;
    let (mut landing, mut model) = (scene.open().await?, Model::new());
    for id in 0..3 {
        upsert(&scene, &mut landing, &mut model, &[(id, 1, Some("a"))]).await?;
    }
    let first = scene.compact(&landing).await?.ok_or_else(|| missing("compaction"))?;
    let second = scene.compact(&landing).await?.ok_or_else(|| missing("compaction"))?;
    let mut other = scene.open().await?;
    assert!(matches!(other.swap(&first).await?, Swapped::Landed { .. }));
    assert_eq!(landing.swap(&second).await?, Swapped::Overtaken);
    landing.catch_up().await?;
    let swapped = landing.swap(&second).await?;
    assert!(matches!(&swapped, Swapped::GivenUp(why) if why.contains("no longer part of the table")), "{swapped:?}");
    upsert(&scene, &mut landing, &mut model, &[(1, 2, Some("b")), (2, 2, None)]).await?;
    assert_eq!(scene.rows().await?, rows_of(&model));
    Ok(())
}

#[tokio::test]
async fn a_crash_before_the_swap_leaves_orphans_only() -> Result<()> {
    let scene = Scene::upserts()?;
    let (mut landing, mut model) = (scene.open().await?, Model::new());
    for id in 0..3 {
        upsert(&scene, &mut landing, &mut model, &[(id, 1, Some("a"))]).await?;
    }
    let compaction = scene.compact(&landing).await?.ok_or_else(|| missing("compaction"))?;
    drop(landing);
    let reopened = scene.open().await?;
    assert_eq!(reopened.state().version, 3);
    assert_eq!(scene.rows().await?, rows_of(&model));
    let output = &compaction.outputs.first().ok_or_else(|| missing("output"))?.add.path;
    assert!(!reopened.state().files.contains_key(output), "{output} is an orphan");
    Ok(())
}

#[tokio::test]
async fn an_output_whose_rows_are_all_deleted_meanwhile_is_not_added() -> Result<()> {
    let scene = Scene::upserts()?;
    let (mut landing, mut model) = (scene.open().await?, Model::new());
    for id in 0..3 {
        upsert(&scene, &mut landing, &mut model, &[(id, 1, Some("a"))]).await?;
    }
    let compaction = scene.compact_to(&landing, 1).await?.ok_or_else(|| missing("compaction"))?;
    // Its file goes as a whole: no deletion vector, but an input that is gone.
    upsert(&scene, &mut landing, &mut model, &[(0, 2, None)]).await?;
    assert!(matches!(landing.swap(&compaction).await?, Swapped::Landed { remapped: 1, .. }));
    assert_eq!(scene.rows().await?, rows_of(&model));
    let state = scene.state().await?;
    let added: Vec<bool> = compaction.outputs.iter().map(|output| state.files.contains_key(&output.add.path)).collect();
    assert_eq!(added.iter().filter(|added| **added).count(), 2, "{added:?}");

    upsert(&scene, &mut landing, &mut model, &[(10, 1, Some("a")), (11, 1, Some("a"))]).await?;
    upsert(&scene, &mut landing, &mut model, &[(10, 2, None)]).await?;
    let compaction = scene.compact_to(&landing, 1).await?.ok_or_else(|| missing("compaction"))?;
    assert!(compaction.outputs.len() > 1, "each batch of rows has a file of its own");
    assert!(matches!(landing.swap(&compaction).await?, Swapped::Landed { .. }));
    assert_eq!(scene.rows().await?, rows_of(&model));
    assert_eq!(live_rows(&scene.state().await?), 3);
    Ok(())
}

#[tokio::test]
async fn partitions_are_compacted_one_by_one() -> Result<()> {
    let scene = Scene { partitioned_by: vec!["day".to_owned()], ..Scene::upserts()? };
    let (mut landing, mut model) = (scene.open().await?, Model::new());
    for id in 0..4 {
        upsert(&scene, &mut landing, &mut model, &[(2 * id, 1, Some("a")), (2 * id + 1, 1, Some("a"))]).await?;
    }
    for _partition in 0..2 {
        let compaction = scene.compact(&landing).await?.ok_or_else(|| missing("compaction"))?;
        assert_eq!(compaction.inputs.len(), 4);
        assert!(matches!(landing.swap(&compaction).await?, Swapped::Landed { .. }));
    }
    assert!(scene.compact(&landing).await?.is_none());
    upsert(&scene, &mut landing, &mut model, &[(2, 2, Some("b")), (3, 2, None)]).await?;
    assert_eq!(scene.rows().await?, rows_of(&model));
    let days: Vec<_> = scene.state().await?.files.into_values().map(|add| add.partition_values).collect();
    assert!(days.iter().all(|values| values.contains_key("day")), "{days:?}");
    Ok(())
}

#[tokio::test]
async fn a_table_that_could_not_be_followed_takes_no_compaction() -> Result<()> {
    let failed = |cause| Error::internal("store").with_source(cause);
    let scene = Scene::upserts()?;
    let (mut landing, mut model) = (scene.open().await?, Model::new());
    for id in 0..4 {
        upsert(&scene, &mut landing, &mut model, &[(id, 1, Some("a")), (id + 10, 1, Some("a"))]).await?;
    }
    let compaction = scene.compact(&landing).await?.ok_or_else(|| missing("compaction"))?;
    let mut other = scene.open().await?;
    upsert(&scene, &mut other, &mut model, &[(0, 2, None), (20, 1, Some("b"))]).await?;
    let (store, known) = (scene.stores.open(&scene.location)?, &landing.state().files);
    let fresh = scene.state().await?.files.into_keys().find(|path| !known.contains_key(path));
    let path = object_store::path::Path::from(fresh.ok_or_else(|| missing("new file"))?);
    let bytes =
        object_store::ObjectStoreExt::get(&store, &path).await.map_err(failed)?.bytes().await.map_err(failed)?;
    object_store::ObjectStoreExt::delete(&store, &path).await.map_err(failed)?;
    assert!(landing.catch_up().await.is_err());
    object_store::ObjectStoreExt::put(&store, &path, bytes.into()).await.map_err(failed)?;
    // What the writer knows of deleted rows is of the version before: a swap by that would bring row 0 back.
    let refused = landing.swap(&compaction).await;
    assert!(refused.is_err_and(|error| error.kind() == alluvium_catalog::ErrorKind::Conflict));
    assert!(landing.catch_up().await.is_err());
    assert_eq!(scene.rows().await?, rows_of(&model));
    let mut reopened = scene.open().await?;
    assert!(matches!(reopened.swap(&compaction).await?, Swapped::Landed { remapped: 1, .. }));
    assert_eq!(scene.rows().await?, rows_of(&model));
    Ok(())
}

#[tokio::test]
async fn a_process_without_an_index_compacts_a_table_that_another_writes() -> Result<()> {
    let scene = Scene::upserts()?;
    let (mut landing, mut model) = (scene.open().await?, Model::new());
    for id in 0..4 {
        upsert(&scene, &mut landing, &mut model, &[(id, 1, Some("a")), (id + 10, 1, Some("a"))]).await?;
    }
    let mut visitor = optimize::visit(scene.log()?, scene.state().await?, &scene.clock)?;
    let compaction = scene.compact(&visitor).await?.ok_or_else(|| missing("compaction"))?;
    upsert(&scene, &mut landing, &mut model, &[(0, 2, Some("b")), (11, 2, None)]).await?;
    assert_eq!(visitor.swap(&compaction).await?, Swapped::Overtaken);
    visitor.catch_up().await?;
    assert!(matches!(visitor.swap(&compaction).await?, Swapped::Landed { remapped: 2, .. }));
    upsert(&scene, &mut landing, &mut model, &[(0, 3, None), (12, 2, Some("b")), (13, 0, Some("late"))]).await?;
    assert_eq!(scene.rows().await?, rows_of(&model));
    Ok(())
}

#[tokio::test]
async fn upkeep_compacts_beside_batches_and_ends_what_it_began() -> Result<()> {
    for mut scene in [Scene::upserts()?, Scene::rewrites()?] {
        // The table's own interval goes over the setting.
        scene.properties.insert("delta.checkpointInterval".to_owned(), "5".to_owned());
        upkeep_compacts_beside_batches(&scene).await?;
    }
    Ok(())
}

async fn upkeep_compacts_beside_batches(scene: &Scene) -> Result<()> {
    let (mut landing, mut model) = (scene.open().await?, Model::new());
    let settings = UpkeepSettings { files_min: 3, wall_percent: 100, ..UpkeepSettings::default() };
    let (mut upkeep, metrics) = scene.upkeep(settings, 1_000)?;
    for id in 0..12 {
        upsert(scene, &mut landing, &mut model, &[(id, 1, Some("a")), (20 + id / 2, id, Some("b"))]).await?;
        upkeep.landed(&mut landing).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    upkeep.close(&mut landing, Duration::from_secs(20)).await;
    assert_eq!(scene.rows().await?, rows_of(&model));
    let state = scene.state().await?;
    assert!(state.files.len() < 8, "{} files", state.files.len());
    let text = metrics.render(scene.clock.now())?;
    for (work, least) in [("compaction", 1), ("checkpoint", 1), ("checksum", 1)] {
        let line = format!(r#"alluvium_upkeep_total{{flow="flow",outcome="done",work="{work}"}} "#);
        let counted =
            text.lines().find_map(|have| have.strip_prefix(&line)).and_then(|count| count.parse::<u64>().ok());
        assert!(counted.is_some_and(|count| count >= least), "{work} in\n{text}");
    }
    Ok(())
}

#[tokio::test]
async fn a_checkpoint_that_comes_due_during_other_work_is_written_at_the_end() -> Result<()> {
    let mut scene = Scene::appends()?;
    scene.properties.insert("delta.checkpointInterval".to_owned(), "4".to_owned());
    let mut landing = scene.open().await?;
    // The checksum of the first version is under way while the others land.
    let settings = UpkeepSettings { compaction: false, ..UpkeepSettings::default() };
    let (mut upkeep, _) = scene.upkeep(settings, 1_000)?;
    for id in 0..5 {
        scene.land(&mut landing, &[(id, 1, Some("a"))]).await?;
        upkeep.landed(&mut landing).await;
    }
    upkeep.close(&mut landing, Duration::from_secs(20)).await;
    let checkpoint = landing.log().last_checkpoint().await?;
    assert!(checkpoint.is_some_and(|version| version >= 4), "{checkpoint:?}");
    Ok(())
}

#[tokio::test]
async fn files_of_which_a_compaction_made_no_fewer_are_not_taken_again_beside_batches() -> Result<()> {
    let scene = Scene::appends()?;
    let mut landing = scene.open().await?;
    for id in 0..3 {
        scene.land(&mut landing, &[(id, 1, Some("a"))]).await?;
    }
    let settings = UpkeepSettings { files_min: 2, wall_percent: 100, checksums: false, ..UpkeepSettings::default() };
    let (mut upkeep, metrics) = scene.upkeep(settings, 1_000)?;
    // Into files of a byte: each row has one of its own, as it had before.
    let compaction = scene.compact_to(&landing, 1).await?.ok_or_else(|| missing("compaction"))?;
    assert_eq!((compaction.inputs.len(), compaction.outputs.len()), (3, 3));
    upkeep.swap_in(Ended { result: Ok(compaction), took: Duration::ZERO }, 0, &mut landing).await;
    assert_eq!(landing.state().version, 3);
    upkeep.begin_compaction(&landing)?;
    assert!(!upkeep.compactions.is_busy(), "nothing is left to compact");
    for id in 3..5 {
        scene.land(&mut landing, &[(id, 1, Some("a"))]).await?;
        upkeep.landed(&mut landing).await;
    }
    upkeep.close(&mut landing, Duration::from_secs(20)).await;
    assert_eq!(scene.state().await?.files.len(), 4, "two others have become one");
    assert_eq!(scene.rows().await?.len(), 5);
    let text = metrics.render(scene.clock.now())?;
    let line = r#"alluvium_upkeep_total{flow="flow",outcome="given_up",work="compaction"} 1"#;
    assert!(text.lines().any(|have| have == line), "{line} in\n{text}");
    Ok(())
}

#[tokio::test]
async fn a_compaction_that_others_have_overtaken_follows_them_while_no_batch_comes() -> Result<()> {
    let scene = Scene::upserts()?;
    let (mut landing, mut model) = (scene.open().await?, Model::new());
    for id in 0..4 {
        upsert(&scene, &mut landing, &mut model, &[(id, 1, Some("a"))]).await?;
    }
    let settings = UpkeepSettings { files_min: 2, wall_percent: 100, checksums: false, ..UpkeepSettings::default() };
    let (mut upkeep, _) = scene.upkeep(settings, 1_000)?;
    let compaction = scene.compact(&landing).await?.ok_or_else(|| missing("compaction"))?;
    let mut other = scene.open().await?;
    upsert(&scene, &mut other, &mut model, &[(0, 2, Some("b")), (1, 2, None)]).await?;
    upkeep.swap_in(Ended { result: Ok(compaction), took: Duration::ZERO }, 0, &mut landing).await;
    assert!(upkeep.has_ended(), "it is kept for the next time");
    upkeep.tend(&mut landing).await?;
    assert!(!upkeep.has_ended());
    assert_eq!((landing.state().version, landing.state().files.len()), (6, 2));
    upkeep.tend(&mut landing).await?;
    assert_eq!(landing.state().version, 6, "there is nothing more to do");
    assert_eq!(scene.rows().await?, rows_of(&model));
    Ok(())
}

#[tokio::test]
async fn nothing_is_compacted_beyond_the_budget() -> Result<()> {
    let scene = Scene::appends()?;
    let mut landing = scene.open().await?;
    let settings = UpkeepSettings { files_min: 2, hourly_bytes: 10, checksums: false, ..UpkeepSettings::default() };
    let (mut upkeep, _) = scene.upkeep(settings, 1_000)?;
    for id in 0..6 {
        scene.land(&mut landing, &[(id, 1, Some("a"))]).await?;
        upkeep.landed(&mut landing).await;
    }
    upkeep.close(&mut landing, Duration::from_secs(20)).await;
    assert_eq!(scene.state().await?.files.len(), 6);
    Ok(())
}

#[tokio::test]
async fn what_work_on_the_log_reads_is_not_left_to_compactions() -> Result<()> {
    for checksums in [true, false] {
        let mut scene = Scene::appends()?;
        let interval = if checksums { 1_000 } else { 1 };
        scene.properties.insert("delta.checkpointInterval".to_owned(), interval.to_string());
        let mut landing = scene.open().await?;
        // Two files are less than this, and the first versions of the log are more than half of it.
        let settings = UpkeepSettings {
            files_min: 2,
            wall_percent: 100,
            hourly_bytes: 8_000,
            checksums,
            ..UpkeepSettings::default()
        };
        let (mut upkeep, metrics) = scene.upkeep(settings, 1_000)?;
        for id in 0..20 {
            scene.land(&mut landing, &[(id, 1, Some("a"))]).await?;
            upkeep.log_work.landed(&landing).await;
            upkeep.log_work.close(&landing, Duration::from_secs(20)).await;
        }
        assert_eq!(upkeep.compactions.allowance(scene.clock.as_ref()), None, "checksums: {checksums}");
        upkeep.unplanned = 20;
        upkeep.begin_compaction(&landing)?;
        assert!(!upkeep.compactions.is_busy() && upkeep.has_told_spent, "checksums: {checksums}");
        let (text, work) = (metrics.render(scene.clock.now())?, if checksums { "checksum" } else { "checkpoint" });
        let line = format!(r#"alluvium_upkeep_bytes_total{{flow="flow",work="{work}"}} "#);
        let read = text.lines().find_map(|have| have.strip_prefix(&line)).and_then(|count| count.parse::<u64>().ok());
        assert!(read.is_some_and(|read| read >= 8_000), "{line} in\n{text}");
    }
    Ok(())
}

#[tokio::test]
async fn compactions_beside_batches_rest_in_proportion_to_their_length() -> Result<()> {
    let clock = Arc::new(ManualClock::new(1, SystemClock.now()));
    let scene = Scene { clock: Arc::clone(&clock) as Arc<dyn Clock>, ..Scene::appends()? };
    let mut landing = scene.open().await?;
    let settings = UpkeepSettings { files_min: 2, wall_percent: 25, checksums: false, ..UpkeepSettings::default() };
    let (mut upkeep, _) = scene.upkeep(settings, 1_000)?;
    for id in 0..2 {
        scene.land(&mut landing, &[(id, 1, Some("a"))]).await?;
    }
    upkeep.landed(&mut landing).await;
    // A compaction of 40 s rests for 120 s.
    clock.advance(Duration::from_secs(40));
    upkeep.close(&mut landing, Duration::from_secs(20)).await;
    assert_eq!(scene.state().await?.files.len(), 1, "two files have become one");
    for id in 2..4 {
        scene.land(&mut landing, &[(id, 1, Some("a"))]).await?;
    }
    clock.advance(Duration::from_secs(119));
    upkeep.landed(&mut landing).await;
    assert!(!upkeep.compactions.is_busy(), "the rest is not over");
    clock.advance(Duration::from_secs(1));
    upkeep.landed(&mut landing).await;
    assert!(upkeep.compactions.is_busy(), "the rest is over");
    upkeep.close(&mut landing, Duration::from_secs(20)).await;
    Ok(())
}

/// A history of upserts, deletes, late rows and compactions that begin at one batch and are swapped in at another.
#[tokio::test]
async fn histories_with_compactions_agree_with_a_map() -> Result<()> {
    const NOTES: [Option<&str>; 4] = [Some("a"), Some("b"), None, Some("c")];
    for seed in 1..=12_u64 {
        let scene = if seed <= 6 { Scene::upserts()? } else { Scene::rewrites()? };
        let (mut landing, mut model) = (scene.open().await?, Model::new());
        let mut chance = seed;
        let mut draw = |below: u64| {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (chance >> 33) % below
        };
        let mut under_way = None;
        for batch in 0..30_i64 {
            let mut records: BTreeMap<i64, Record> = BTreeMap::new();
            for _record in 0..=draw(6) {
                let id = draw(20) as i64;
                let seq = batch * 10 + draw(15) as i64 - 5;
                records.insert(id, (id, seq, NOTES[draw(4) as usize]));
            }
            let records: Vec<Record> = records.into_values().collect();
            upsert(&scene, &mut landing, &mut model, &records).await?;
            match (draw(3), under_way.take()) {
                (0, None) => under_way = scene.compact_to(&landing, 600).await?,
                (0, Some(compaction)) => drop(landing.swap(&compaction).await?),
                (1, kept) if batch % 10 == 9 => {
                    landing = scene.open().await?;
                    under_way = kept;
                }
                (_, kept) => under_way = kept,
            }
            assert_eq!(scene.rows().await?, rows_of(&model), "seed {seed}, batch {batch}");
        }
        assert_eq!(live_rows(&scene.state().await?), rows_of(&model).len() as u64, "seed {seed}");
    }
    Ok(())
}

#[tokio::test]
async fn a_compaction_goes_on_without_the_inputs_that_a_batch_wrote_anew() -> Result<()> {
    let scene = Scene::rewrites()?;
    let (mut landing, mut model) = (scene.open().await?, Model::new());
    for id in 0..6 {
        upsert(&scene, &mut landing, &mut model, &[(id, 1, Some("a")), (id + 10, 1, Some("a"))]).await?;
    }
    let compaction = scene.compact(&landing).await?.ok_or_else(|| missing("compaction"))?;
    let several = scene.compact_to(&landing, 1).await?.ok_or_else(|| missing("compaction"))?;
    // One row of the second input, and both of the fourth, which is gone.
    upsert(&scene, &mut landing, &mut model, &[(1, 2, Some("b")), (3, 2, None), (13, 2, Some("b"))]).await?;
    assert_eq!(scene.state().await?.files.len(), 6, "four untouched, one written anew, the batch's own");
    let swapped = landing.swap(&compaction).await?;
    assert!(matches!(swapped, Swapped::Landed { remapped: 4, .. }), "{swapped:?}");
    let state = scene.state().await?;
    assert_eq!(state.files.len(), 3, "the four have become one");
    assert!(state.files.values().all(|add| add.deletion_vector.is_none()));
    assert_eq!((scene.rows().await?, live_rows(&state)), (rows_of(&model), rows_of(&model).len() as u64));
    let stats = |add: &crate::delta::action::Add| add.stats.clone().unwrap_or_default();
    assert!(state.files.values().all(|add| stats(add).contains(r#""tightBounds":true"#)));
    // All inputs of the other one have gone by now.
    assert!(matches!(landing.swap(&several).await?, Swapped::GivenUp(_)));

    let records = [(0, 3, Some("c")), (1, 3, None), (11, 3, Some("c")), (12, 0, Some("late")), (15, 3, None)];
    upsert(&scene, &mut landing, &mut model, &records).await?;
    assert_eq!(scene.rows().await?, rows_of(&model));
    let mut reopened = scene.open().await?;
    upsert(&scene, &mut reopened, &mut model, &[(10, 4, None), (2, 4, Some("d")), (13, 4, Some("d"))]).await?;
    assert_eq!(scene.rows().await?, rows_of(&model));
    Ok(())
}

#[tokio::test]
async fn a_table_that_was_changed_to_copy_on_write_gets_no_vectors_from_a_compaction() -> Result<()> {
    let scene = Scene::upserts()?;
    let (mut landing, mut model) = (scene.open().await?, Model::new());
    for id in 0..6 {
        upsert(&scene, &mut landing, &mut model, &[(id, 1, Some("a")), (id + 10, 1, Some("a"))]).await?;
    }
    drop(landing);
    let rewrites = Scene { options: Scene::rewrites()?.options, ..scene.clone() };
    let mut landing = rewrites.open().await?;
    let compaction = rewrites.compact(&landing).await?.ok_or_else(|| missing("compaction"))?;
    // One row of the second input, which is written anew, and both of the fourth, which is gone.
    let records = [(1, 2, Some("b")), (3, 2, None), (13, 2, Some("b"))];
    upsert(&rewrites, &mut landing, &mut model, &records).await?;
    let swapped = landing.swap(&compaction).await?;
    assert!(matches!(swapped, Swapped::Landed { remapped: 4, .. }), "{swapped:?}");
    let state = scene.state().await?;
    assert!(state.protocol.writer_features.iter().flatten().any(|feature| feature == "deletionVectors"));
    assert!(state.files.values().all(|add| add.deletion_vector.is_none()), "{:?}", state.files);
    assert_eq!((scene.rows().await?, live_rows(&state)), (rows_of(&model), rows_of(&model).len() as u64));

    let records = [(0, 3, Some("c")), (1, 3, None), (11, 3, Some("c")), (12, 0, Some("late")), (15, 3, None)];
    upsert(&rewrites, &mut landing, &mut model, &records).await?;
    assert_eq!(scene.rows().await?, rows_of(&model));
    let mut reopened = scene.open().await?;
    upsert(&scene, &mut reopened, &mut model, &[(10, 4, None), (2, 4, Some("d")), (13, 4, Some("d"))]).await?;
    assert_eq!(scene.rows().await?, rows_of(&model));
    Ok(())
}

#[tokio::test]
async fn a_compaction_with_several_outputs_writes_only_those_anew_of_which_rows_are_gone() -> Result<()> {
    let scene = Scene { partitioned_by: vec!["day".to_owned()], ..Scene::rewrites()? };
    let (mut landing, mut model) = (scene.open().await?, Model::new());
    for id in 0..6 {
        upsert(&scene, &mut landing, &mut model, &[(2 * id, 1, Some("a")), (2 * id + 20, 1, Some("a"))]).await?;
    }
    let compaction = scene.compact_to(&landing, 1).await?.ok_or_else(|| missing("compaction"))?;
    assert_eq!(compaction.outputs.len(), 6);
    upsert(&scene, &mut landing, &mut model, &[(2, 2, Some("b")), (22, 2, None), (4, 2, Some("b"))]).await?;
    assert!(matches!(landing.swap(&compaction).await?, Swapped::Landed { remapped: 4, .. }));
    let files = scene.state().await?.files;
    let kept = compaction.outputs.iter().filter(|output| files.contains_key(&output.add.path));
    assert_eq!(kept.count(), 4);
    assert_eq!(scene.rows().await?, rows_of(&model));
    upsert(&scene, &mut landing, &mut model, &[(0, 3, None), (24, 3, Some("c")), (30, 3, Some("c"))]).await?;
    assert_eq!(scene.rows().await?, rows_of(&model));
    Ok(())
}

#[tokio::test]
async fn a_process_without_an_index_compacts_a_table_whose_files_another_writes_anew() -> Result<()> {
    let scene = Scene::rewrites()?;
    let (mut landing, mut model) = (scene.open().await?, Model::new());
    for id in 0..4 {
        upsert(&scene, &mut landing, &mut model, &[(id, 1, Some("a")), (id + 10, 1, Some("a"))]).await?;
    }
    let mut visitor = optimize::visit(scene.log()?, scene.state().await?, &scene.clock)?;
    let compaction = scene.compact(&visitor).await?.ok_or_else(|| missing("compaction"))?;
    upsert(&scene, &mut landing, &mut model, &[(0, 2, Some("b"))]).await?;
    assert_eq!(visitor.swap(&compaction).await?, Swapped::Overtaken);
    visitor.catch_up().await?;
    assert!(matches!(visitor.swap(&compaction).await?, Swapped::Landed { remapped: 2, .. }));
    upsert(&scene, &mut landing, &mut model, &[(0, 3, None), (12, 2, Some("b")), (13, 0, Some("late"))]).await?;
    assert_eq!(scene.rows().await?, rows_of(&model));
    Ok(())
}

/// Every batch touches all files: no compaction would find an input unchanged, and none is needed.
#[tokio::test]
async fn files_stay_few_where_every_batch_touches_all_of_them() -> Result<()> {
    let scene = Scene::rewrites()?;
    let (mut landing, mut model) = (scene.open().await?, Model::new());
    let all: Vec<Record> = (0..40).map(|id| (id, 0, Some("a"))).collect();
    upsert(&scene, &mut landing, &mut model, &all).await?;
    for batch in 1..20_i64 {
        // One key of the batch before, and one of the first.
        upsert(&scene, &mut landing, &mut model, &[(batch, batch, Some("b")), (batch + 1, batch, Some("b"))]).await?;
        assert_eq!(scene.state().await?.files.len(), 2, "the batch's own, and one of all others");
    }
    assert_eq!(scene.rows().await?, rows_of(&model));
    Ok(())
}

#[tokio::test]
async fn a_table_with_vectors_is_written_on_without_them_and_one_without_is_not_given_any() -> Result<()> {
    let scene = Scene::upserts()?;
    let (mut landing, mut model) = (scene.open().await?, Model::new());
    for id in 0..3 {
        upsert(&scene, &mut landing, &mut model, &[(id, 1, Some("a")), (id + 10, 1, Some("a"))]).await?;
    }
    upsert(&scene, &mut landing, &mut model, &[(0, 2, Some("b")), (1, 2, None)]).await?;
    let vectors = |state: &TableState| state.files.values().filter(|add| add.deletion_vector.is_some()).count();
    assert_eq!(vectors(&scene.state().await?), 2);
    let rewrites = Scene { options: Scene::rewrites()?.options, ..scene.clone() };
    let mut landing = rewrites.open().await?;
    upsert(&rewrites, &mut landing, &mut model, &[(10, 3, Some("c")), (12, 3, Some("c")), (1, 1, Some("late"))])
        .await?;
    assert_eq!(vectors(&scene.state().await?), 1, "the file that no batch has touched since keeps its own");
    assert_eq!(scene.rows().await?, rows_of(&model));
    upsert(&rewrites, &mut landing, &mut model, &[(11, 4, None)]).await?;
    assert_eq!(vectors(&scene.state().await?), 0);
    let mut landing = scene.open().await?;
    upsert(&scene, &mut landing, &mut model, &[(10, 5, Some("d"))]).await?;
    assert_eq!((scene.rows().await?, vectors(&scene.state().await?)), (rows_of(&model), 1));

    let location = "memory:///other".parse()?;
    let rewrites = Scene { location, stores: Stores::new(StorageSettings::default()), ..rewrites };
    upsert(&rewrites, &mut rewrites.open().await?, &mut Model::new(), &[(1, 1, Some("a"))]).await?;
    let refused = Scene { options: scene.options, ..rewrites }.open().await;
    let hint = refused.err().and_then(|error| error.hint().map(str::to_owned)).unwrap_or_default();
    assert!(hint.contains("'alluvium.upsert' = 'copy-on-write'") && hint.contains("enableDeletionVectors"), "{hint}");
    Ok(())
}

/// A table on the local disk, whose files can be made old.
fn on_disk(folder: &tempfile::TempDir) -> Result<Scene> {
    let location = folder.path().join("t").display().to_string().parse()?;
    Ok(Scene { location, ..Scene::upserts()? })
}

/// Makes every file of the table as it is now look `days` older.
fn age(folder: &tempfile::TempDir, days: u64) -> Result<()> {
    let failed = |cause: std::io::Error| Error::internal("cannot age a file").with_source(cause);
    let mut folders = vec![folder.path().join("t")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let file = std::fs::File::options().write(true).open(&path).map_err(failed)?;
            let written = file.metadata().and_then(|told| told.modified()).map_err(failed)?;
            file.set_modified(written - Duration::from_secs(days * 86_400)).map_err(failed)?;
        }
    }
    Ok(())
}

async fn files(scene: &Scene) -> Result<Vec<String>> {
    let listed = scene.stores.open(&scene.location)?.list(None).try_collect::<Vec<_>>().await;
    let listed = listed.map_err(|cause| Error::internal("list").with_source(cause))?;
    let mut names: Vec<String> = listed.into_iter().map(|file| file.location.to_string()).collect();
    names.retain(|name| !name.starts_with('_'));
    names.sort();
    Ok(names)
}

#[tokio::test]
async fn vacuum_removes_what_no_version_within_the_retention_names() -> Result<()> {
    let folder = tempfile::tempdir().map_err(|cause| Error::internal("folder").with_source(cause))?;
    let scene = on_disk(&folder)?;
    let (mut landing, mut model) = (scene.open().await?, Model::new());
    for id in 0..3 {
        upsert(&scene, &mut landing, &mut model, &[(id, 1, Some("a")), (id + 10, 1, Some("a"))]).await?;
    }
    upsert(&scene, &mut landing, &mut model, &[(0, 2, Some("b"))]).await?;
    let orphans = scene.compact(&landing).await?.ok_or_else(|| missing("compaction"))?;
    age(&folder, 20)?;
    // Twenty days ago all that; ten days ago a compaction; now one more batch.
    let compaction = scene.compact(&landing).await?.ok_or_else(|| missing("compaction"))?;
    assert!(matches!(landing.swap(&compaction).await?, Swapped::Landed { version: 5, .. }));
    let kept_rows = scene.rows_at(Some(5)).await?;
    age(&folder, 10)?;
    upsert(&scene, &mut landing, &mut model, &[(1, 2, Some("c")), (11, 2, None)]).await?;
    let young_orphans = scene.compact_to(&landing, 1).await?;

    let (log, retention) = (scene.log()?, Duration::from_secs(8 * 86_400));
    let before = files(&scene).await?;
    let counted = vacuum::vacuum(&log, retention, vacuum::Mode::DryRun, scene.clock.as_ref(), |_| ()).await?;
    assert_eq!(files(&scene).await?, before, "a dry run removes nothing");
    let removed = vacuum::vacuum(&log, retention, vacuum::Mode::Remove, scene.clock.as_ref(), |_| ()).await?;
    // Four data files and the first orphans are named by versions up to 4 only, or by none. Vectors of so few rows stand in the log.
    assert_eq!((counted.files, removed.files, removed.removed), (removed.files, 5, 5), "{removed:?}");
    assert_eq!(removed.oldest_version, 5);
    let after = files(&scene).await?;
    assert_eq!(after.len() + 5, before.len());
    for orphan in &orphans.outputs {
        assert!(!after.contains(&orphan.add.path));
    }
    for young in young_orphans.iter().flat_map(|compaction| &compaction.outputs) {
        assert!(after.contains(&young.add.path), "it may be about to land");
    }
    assert_eq!(scene.rows().await?, rows_of(&model));
    assert_eq!(scene.rows_at(Some(5)).await?, kept_rows, "time travel within the retention");
    upsert(&scene, &mut landing, &mut model, &[(2, 2, None), (12, 2, Some("d"))]).await?;
    assert_eq!(scene.rows().await?, rows_of(&model));
    Ok(())
}

/// Returns the files that hold vectors.
async fn vector_files(scene: &Scene) -> Result<BTreeSet<String>> {
    Ok(files(scene).await?.into_iter().filter(|name| name.ends_with(".bin")).collect())
}

#[tokio::test]
async fn vacuum_keeps_vectors_that_are_named_or_young_and_removes_old_ones_that_are_neither() -> Result<()> {
    let folder = tempfile::tempdir().map_err(|cause| Error::internal("folder").with_source(cause))?;
    let scene = Scene { inline_bytes_max: 0, ..on_disk(&folder)? };
    let (mut landing, mut model) = (scene.open().await?, Model::new());
    let rows: Vec<Record> = (1..6).map(|id| (id, 1, Some("a"))).collect();
    upsert(&scene, &mut landing, &mut model, &rows).await?;
    // Twenty days ago the first file got a vector, then another; and a batch came to nothing.
    upsert(&scene, &mut landing, &mut model, &[(1, 2, Some("b"))]).await?;
    let replaced = vector_files(&scene).await?;
    upsert(&scene, &mut landing, &mut model, &[(2, 2, Some("b"))]).await?;
    let landed = vector_files(&scene).await?;
    let live = &landed - &replaced;
    scene.stage(&mut landing, &[(3, 2, Some("never"))]).await?;
    let orphaned = &vector_files(&scene).await? - &landed;
    age(&folder, 20)?;
    // Now another lands, and one is on its way.
    upsert(&scene, &mut landing, &mut model, &[(9, 1, Some("c"))]).await?;
    let before = vector_files(&scene).await?;
    scene.stage(&mut landing, &[(3, 3, Some("later"))]).await?;
    let staged = &vector_files(&scene).await? - &before;
    assert_eq!([replaced.len(), live.len(), orphaned.len(), staged.len()], [1; 4]);

    let kept_rows = scene.rows_at(Some(3)).await?;
    let (log, retention) = (scene.log()?, Duration::from_secs(8 * 86_400));
    let removed = vacuum::vacuum(&log, retention, vacuum::Mode::Remove, scene.clock.as_ref(), |_| ()).await?;
    // Two vectors, and the data file of the batch that came to nothing.
    assert_eq!((removed.files, removed.removed, removed.oldest_version), (3, 3, 3), "{removed:?}");
    assert_eq!(vector_files(&scene).await?, &live | &staged);
    assert_eq!(scene.rows().await?, rows_of(&model));
    assert_eq!(scene.rows_at(Some(3)).await?, kept_rows, "time travel within the retention");
    upsert(&scene, &mut landing, &mut model, &[(3, 4, Some("d")), (4, 4, None)]).await?;
    assert_eq!(scene.rows().await?, rows_of(&model));
    Ok(())
}

#[tokio::test]
async fn vacuum_refuses_a_clock_that_is_wrong() -> Result<()> {
    let scene = Scene::appends()?;
    let mut landing = scene.open().await?;
    scene.land(&mut landing, &[(1, 1, Some("a"))]).await?;
    let wrong = ManualClock::new(1, alluvium_catalog::Timestamp(scene.clock.now().0 + 86_400_000));
    let done = vacuum::vacuum(&scene.log()?, Duration::ZERO, vacuum::Mode::Remove, &wrong, |_| ()).await;
    assert!(done.is_err_and(|error| error.message().contains("stand 86")));
    assert_eq!(files(&scene).await?.len(), 1);
    Ok(())
}

/// A table on the local disk beside whose batches upkeep vacuums, by a clock that a test moves.
struct VacuumedTable {
    folder: tempfile::TempDir,
    clock: Arc<ManualClock>,
    scene: Scene,
    landing: Landing,
    upkeep: Upkeep,
    metrics: Arc<Metrics>,
}

impl VacuumedTable {
    /// How long the end of a vacuum is waited for.
    const LIMIT: Duration = Duration::from_secs(20);

    /// Returns settings by which upkeep vacuums every minute, and does nothing else.
    fn settings() -> UpkeepSettings {
        let vacuum_interval = Duration::from_secs(60);
        UpkeepSettings {
            compaction: false,
            checksums: false,
            vacuum: true,
            vacuum_interval,
            ..UpkeepSettings::default()
        }
    }

    /// Creates a table without rows.
    async fn open(settings: UpkeepSettings, properties: BTreeMap<String, String>) -> Result<Self> {
        let folder = tempfile::tempdir().map_err(|cause| Error::internal("folder").with_source(cause))?;
        // The store's clock is the machine's, and a vacuum takes five minutes between the two at most.
        let clock = Arc::new(ManualClock::new(1, SystemClock.now()));
        let told = Arc::clone(&clock) as Arc<dyn Clock>;
        let scene = Scene { clock: told, is_upsert: false, properties, ..on_disk(&folder)? };
        let landing = scene.open().await?;
        let (upkeep, metrics) = scene.upkeep(settings, 1_000)?;
        Ok(Self { folder, clock, scene, landing, upkeep, metrics })
    }

    /// Uploads a file that no version names, and returns its name.
    async fn orphan(&mut self) -> Result<String> {
        let before = files(&self.scene).await?;
        self.scene.stage(&mut self.landing, &[(0, 1, Some("never"))]).await?;
        let mut fresh = files(&self.scene).await?;
        fresh.retain(|name| !before.contains(name));
        fresh.pop().ok_or_else(|| missing("orphan"))
    }

    /// Lands a row, which nothing follows.
    async fn land_alone(&mut self, id: i64) -> Result<()> {
        self.scene.land(&mut self.landing, &[(id, 1, Some("a"))]).await
    }

    /// Lands a row, and waits for the upkeep that is due then.
    async fn land(&mut self, id: i64) -> Result<()> {
        self.land_alone(id).await?;
        self.upkeep.landed(&mut self.landing).await;
        self.upkeep.close(&mut self.landing, Self::LIMIT).await;
        Ok(())
    }

    /// Tells of each of these files whether it is there.
    async fn has<const N: usize>(&self, names: [&String; N]) -> Result<[bool; N]> {
        let there = files(&self.scene).await?;
        Ok(names.map(|name| there.contains(name)))
    }
}

#[tokio::test]
async fn vacuum_beside_batches_comes_once_an_interval_and_takes_what_is_old_and_unnamed() -> Result<()> {
    let mut table = VacuumedTable::open(VacuumedTable::settings(), BTreeMap::new()).await?;
    table.land_alone(1).await?;
    let old = table.orphan().await?;
    age(&table.folder, 20)?;
    let young = table.orphan().await?;
    table.land(2).await?;
    assert_eq!(table.has([&old, &young]).await?, [false, true], "the first vacuum is due at once");

    age(&table.folder, 20)?;
    table.clock.advance(Duration::from_secs(59));
    table.land(3).await?;
    assert_eq!(table.has([&young]).await?, [true], "the interval is not over");
    table.clock.advance(Duration::from_secs(1));
    table.land(4).await?;
    assert_eq!(table.has([&young]).await?, [false], "the interval is over");

    let rows = (1..=4).map(|id| ((id, 1), "a".to_owned())).collect::<Rows>();
    assert_eq!(table.scene.rows().await?, rows);
    let text = table.metrics.render(table.clock.now())?;
    for line in [
        r#"alluvium_upkeep_total{flow="flow",outcome="done",work="vacuum"} 2"#,
        r#"alluvium_upkeep_files_total{flow="flow",work="vacuum"} 2"#,
    ] {
        assert!(text.lines().any(|have| have == line), "{line} in\n{text}");
    }
    Ok(())
}

#[tokio::test]
async fn vacuum_beside_batches_rests_in_proportion_to_its_length() -> Result<()> {
    let settings = UpkeepSettings { wall_percent: 25, ..VacuumedTable::settings() };
    let mut table = VacuumedTable::open(settings, BTreeMap::new()).await?;
    table.land_alone(1).await?;
    table.upkeep.landed(&mut table.landing).await;
    // A vacuum of 40 s rests for 120 s, which is longer than the interval.
    table.clock.advance(Duration::from_secs(40));
    table.upkeep.close(&mut table.landing, VacuumedTable::LIMIT).await;
    let orphan = table.orphan().await?;
    age(&table.folder, 20)?;
    table.clock.advance(Duration::from_secs(119));
    table.land(2).await?;
    assert_eq!(table.has([&orphan]).await?, [true], "the rest is not over");
    table.clock.advance(Duration::from_secs(1));
    table.land(3).await?;
    assert_eq!(table.has([&orphan]).await?, [false], "the rest is over");
    Ok(())
}

#[tokio::test]
async fn vacuum_beside_batches_waits_for_the_bytes_of_an_hour() -> Result<()> {
    // The first one reads the log, and that is more.
    let settings = UpkeepSettings { hourly_bytes: 1, ..VacuumedTable::settings() };
    let mut table = VacuumedTable::open(settings, BTreeMap::new()).await?;
    let first = table.orphan().await?;
    age(&table.folder, 20)?;
    table.land(1).await?;
    let second = table.orphan().await?;
    age(&table.folder, 20)?;
    table.clock.advance(Duration::from_secs(60));
    table.land(2).await?;
    assert_eq!(table.has([&first, &second]).await?, [false, true]);
    Ok(())
}

#[tokio::test]
async fn vacuum_beside_batches_does_not_wait_for_a_clock_that_was_set_back() -> Result<()> {
    let mut table = VacuumedTable::open(VacuumedTable::settings(), BTreeMap::new()).await?;
    let right = table.clock.now();
    table.clock.advance(Duration::from_secs(240));
    table.land(1).await?;
    let orphan = table.orphan().await?;
    age(&table.folder, 20)?;
    table.clock.set(right);
    table.land(2).await?;
    assert_eq!(table.has([&orphan]).await?, [false], "the next one was due in five minutes by the clock as it is now");
    Ok(())
}

#[tokio::test]
async fn vacuum_beside_batches_goes_by_the_longer_of_two_retentions() -> Result<()> {
    for (of_table, setting_days) in [("interval 30 days", 7), ("interval 7 days", 30)] {
        let properties = BTreeMap::from([("delta.deletedFileRetentionDuration".to_owned(), of_table.to_owned())]);
        let vacuum_retention = Duration::from_secs(setting_days * 86_400);
        let settings = UpkeepSettings { vacuum_retention, ..VacuumedTable::settings() };
        let mut table = VacuumedTable::open(settings, properties).await?;
        let older_than_both = table.orphan().await?;
        age(&table.folder, 20)?;
        let older_than_one = table.orphan().await?;
        age(&table.folder, 20)?;
        table.land(1).await?;
        let there = table.has([&older_than_both, &older_than_one]).await?;
        assert_eq!(there, [false, true], "{of_table} by the table, {setting_days} days by the setting");
    }
    Ok(())
}

#[tokio::test]
async fn files_that_have_waited_until_a_vacuum_may_have_removed_them_are_not_swapped_in() -> Result<()> {
    const HOUR: Duration = Duration::from_secs(3_600);
    let clock = Arc::new(ManualClock::new(1, SystemClock.now()));
    let scene = Scene { clock: Arc::clone(&clock) as Arc<dyn Clock>, ..Scene::appends()? };
    let mut landing = scene.open().await?;
    for id in 0..8 {
        scene.land(&mut landing, &[(id, 1, Some("a"))]).await?;
    }
    let compaction = scene.compact(&landing).await?.ok_or_else(|| missing("compaction"))?;
    // No record has come for half a day, and the one that comes ends the wait.
    clock.advance(12 * HOUR + Duration::from_millis(1));
    scene.land(&mut landing, &[(8, 1, Some("a"))]).await?;
    let swapped = landing.swap(&compaction).await?;
    assert!(matches!(&swapped, Swapped::GivenUp(why) if why.contains("vacuum")), "{swapped:?}");
    assert_eq!((scene.state().await?.version, scene.rows().await?.len()), (9, 9));
    let compaction = scene.compact(&landing).await?.ok_or_else(|| missing("compaction"))?;
    clock.advance(11 * HOUR);
    assert!(matches!(landing.swap(&compaction).await?, Swapped::Landed { .. }));
    assert_eq!(scene.rows().await?.len(), 9);
    Ok(())
}

/// Writes a checkpoint and loads the table from it alone.
async fn checkpointed(scene: &Scene) -> Result<(TableState, TableState)> {
    let before = scene.state().await?;
    let version =
        kernel::write_checkpoint(&scene.stores, &scene.location, kernel::has_v2(&before), &BytesRead::default())
            .await?;
    assert_eq!(version, before.version);
    let mut after = TableState::default();
    let (version, actions) = scene.log()?.read_checkpoint().await?.ok_or_else(|| missing("checkpoint"))?;
    after.apply(version, &actions);
    Ok((before, after))
}

#[tokio::test]
async fn a_checkpoint_without_its_hint_is_found_whether_the_one_before_is_gone_or_not() -> Result<()> {
    let failed = |cause| Error::internal("store").with_source(cause);
    let scene = Scene::upserts()?;
    let (mut landing, mut model) = (scene.open().await?, Model::new());
    let (store, hint) =
        (scene.stores.open(&scene.location)?, object_store::path::Path::from("_delta_log/_last_checkpoint"));
    upsert(&scene, &mut landing, &mut model, &[(1, 1, Some("a")), (2, 1, Some("a"))]).await?;
    checkpointed(&scene).await?;
    let old = object_store::ObjectStoreExt::get(&store, &hint).await.map_err(failed)?.bytes().await.map_err(failed)?;
    upsert(&scene, &mut landing, &mut model, &[(1, 2, Some("b")), (2, 2, None)]).await?;
    let (before, _) = checkpointed(&scene).await?;
    upsert(&scene, &mut landing, &mut model, &[(3, 1, Some("c"))]).await?;
    // Another engine cleans up to the second checkpoint, whose hint was never written: the first one, which is younger than
    // the version behind it, goes last.
    object_store::ObjectStoreExt::put(&store, &hint, old.into()).await.map_err(failed)?;
    let in_log = |name: &str| object_store::path::Path::from(format!("_delta_log/{}{name}", "0".repeat(19)));
    let versions = ["0.json", "1.json", "2.json"].map(in_log).to_vec();
    for gone in [versions, vec![in_log("1.checkpoint.parquet")], vec![hint]] {
        for path in &gone {
            object_store::ObjectStoreExt::delete(&store, path).await.map_err(failed)?;
        }
        let state = scene.state().await?;
        assert_eq!((before.version, state.version), (2, 3));
        let mut reopened = scene.open().await?;
        assert_eq!(reopened.positions(), landing.positions());
        reopened.catch_up().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_hint_that_cannot_be_read_is_as_good_as_none() -> Result<()> {
    let failed = |cause| Error::internal("store").with_source(cause);
    let scene = Scene::upserts()?;
    let (mut landing, mut model) = (scene.open().await?, Model::new());
    let (store, hint) =
        (scene.stores.open(&scene.location)?, object_store::path::Path::from("_delta_log/_last_checkpoint"));
    upsert(&scene, &mut landing, &mut model, &[(1, 1, Some("a"))]).await?;
    let (before, _) = checkpointed(&scene).await?;
    // Another engine writes it in place, and it is empty meanwhile, or for good where that one is killed.
    for (seq, torn) in (2..).zip(["", r#"{"version":"#, "{}"]) {
        object_store::ObjectStoreExt::put(&store, &hint, torn.into()).await.map_err(failed)?;
        assert_eq!(scene.log()?.last_checkpoint().await?, Some(before.version), "{torn:?}");
        upsert(&scene, &mut landing, &mut model, &[(1, seq, Some("b")), (seq, 1, Some("c"))]).await?;
        let reopened = scene.open().await?;
        assert_eq!(reopened.positions(), landing.positions(), "{torn:?}");
        assert_eq!(reopened.state().n_rows(), Some(rows_of(&model).len() as u64), "{torn:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_first_version_that_clean_up_has_left_is_not_taken_for_the_newest() -> Result<()> {
    let failed = |cause| Error::internal("store").with_source(cause);
    let scene = Scene::upserts()?;
    let (mut landing, mut model) = (scene.open().await?, Model::new());
    for id in 1..4 {
        upsert(&scene, &mut landing, &mut model, &[(id, 1, Some("a"))]).await?;
    }
    checkpointed(&scene).await?;
    upsert(&scene, &mut landing, &mut model, &[(4, 1, Some("a"))]).await?;
    // Clean-up goes in no order of its own, and was stopped half way; then somebody has removed the hint.
    let store = scene.stores.open(&scene.location)?;
    for gone in ["00000000000000000001.json", "00000000000000000002.json", "_last_checkpoint"] {
        let path = object_store::path::Path::from(format!("_delta_log/{gone}"));
        object_store::ObjectStoreExt::delete(&store, &path).await.map_err(failed)?;
    }
    let state = scene.state().await?;
    assert_eq!((state.version, state.n_rows()), (4, Some(4)));
    let mut reopened = scene.open().await?;
    assert_eq!(reopened.positions(), landing.positions());
    upsert(&scene, &mut reopened, &mut model, &[(5, 1, Some("a"))]).await?;
    assert_eq!(scene.state().await?.version, 5);
    Ok(())
}

fn check_same(before: &TableState, after: &TableState) {
    let files = |state: &TableState| -> BTreeMap<String, (i64, Option<String>, bool)> {
        let told = |add: &crate::delta::action::Add| (add.size, add.stats.clone(), add.deletion_vector.is_some());
        state.files.iter().map(|(path, add)| (path.clone(), told(add))).collect()
    };
    assert_eq!(files(before), files(after));
    assert_eq!((&before.txns, &before.metadata), (&after.txns, &after.metadata));
    assert_eq!(before.version, after.version);
}

#[tokio::test]
async fn checkpoints_of_both_versions_are_read_back_whole() -> Result<()> {
    for policy in ["classic", "v2"] {
        let properties = BTreeMap::from([("delta.checkpointPolicy".to_owned(), policy.to_owned())]);
        let scene = Scene { properties, partitioned_by: vec!["day".to_owned()], ..Scene::upserts()? };
        let (mut landing, mut model) = (scene.open().await?, Model::new());
        upsert(&scene, &mut landing, &mut model, &[(1, 1, Some("a")), (2, 1, Some("a")), (3, 1, Some("a"))]).await?;
        upsert(&scene, &mut landing, &mut model, &[(1, 2, Some("b")), (2, 2, None)]).await?;
        let (before, after) = checkpointed(&scene).await?;
        check_same(&before, &after);
        assert_eq!(kernel::has_v2(&after), policy == "v2");
        let store = scene.stores.open(&scene.location)?;
        let sidecars = store.list(Some(&object_store::path::Path::from("_delta_log/_sidecars")));
        let sidecars: Vec<_> =
            sidecars.try_collect().await.map_err(|cause| Error::internal("list").with_source(cause))?;
        assert_eq!(sidecars.is_empty(), policy == "classic", "{sidecars:?}");
        assert_eq!(scene.rows().await?, rows_of(&model), "deltalake reads {policy}");
        let mut reopened = scene.open().await?;
        upsert(&scene, &mut reopened, &mut model, &[(1, 3, None), (3, 3, Some("c"))]).await?;
        assert_eq!(scene.rows().await?, rows_of(&model));
    }
    Ok(())
}

#[tokio::test]
async fn a_checksum_tells_the_files_and_positions_of_its_version() -> Result<()> {
    let scene = Scene::upserts()?;
    let (mut landing, mut model) = (scene.open().await?, Model::new());
    for id in 0..3 {
        upsert(&scene, &mut landing, &mut model, &[(id, 1, Some("a")), (9, id, Some("a"))]).await?;
    }
    let compaction = scene.compact(&landing).await?.ok_or_else(|| missing("compaction"))?;
    assert!(matches!(landing.swap(&compaction).await?, Swapped::Landed { .. }));
    let version = kernel::write_checksum(&scene.stores, &scene.location, &BytesRead::default()).await?;
    let path = object_store::path::Path::from(format!("_delta_log/{version:020}.crc"));
    let store = scene.stores.open(&scene.location)?;
    let bytes = object_store::ObjectStoreExt::get(&store, &path).await;
    let bytes = bytes.map_err(|cause| Error::internal("crc").with_source(cause))?.bytes().await;
    let bytes = bytes.map_err(|cause| Error::internal("crc").with_source(cause))?;
    let checksum: Value = serde_json::from_slice(&bytes).map_err(|cause| Error::data("crc").with_source(cause))?;
    let state = scene.state().await?;
    let size: i64 = state.files.values().map(|add| add.size).sum();
    assert_eq!(checksum["numFiles"], Value::from(state.files.len()));
    assert_eq!(checksum["tableSizeBytes"], Value::from(size));
    assert_eq!(checksum["setTransactions"][0]["version"], Value::from(6));
    Ok(())
}

#[tokio::test]
async fn positions_are_found_after_the_log_was_cleaned_up() -> Result<()> {
    let folder = tempfile::tempdir().map_err(|cause| Error::internal("folder").with_source(cause))?;
    let scene = on_disk(&folder)?;
    let (mut landing, mut model) = (scene.open().await?, Model::new());
    upsert(&scene, &mut landing, &mut model, &[(1, 1, Some("a"))]).await?;
    let mut stale = scene.state().await?;
    for id in 2..5 {
        upsert(&scene, &mut landing, &mut model, &[(id, 1, Some("a"))]).await?;
    }
    checkpointed(&scene).await?;
    age(&folder, 30)?;
    upsert(&scene, &mut landing, &mut model, &[(9, 1, Some("a"))]).await?;
    let removed = clean::clean_log(&scene.log()?, &scene.state().await?, scene.clock.as_ref()).await?;
    assert_eq!(removed, 4, "versions 0 to 3; the checkpoint at 4 and version 4 stay");
    assert!(stale.catch_up(&scene.log()?).await.is_err(), "what it lacks is gone");
    stale.refresh(&scene.log()?).await?;
    assert_eq!(stale.version, 5);
    assert_eq!(scene.rows().await?, rows_of(&model));
    let mut reopened = scene.open().await?;
    upsert(&scene, &mut reopened, &mut model, &[(9, 2, None)]).await?;
    assert_eq!(scene.rows().await?, rows_of(&model));
    Ok(())
}

#[tokio::test]
async fn one_commit_by_a_clock_that_was_ahead_makes_no_other_version_old() -> Result<()> {
    let folder = tempfile::tempdir().map_err(|cause| Error::internal("folder").with_source(cause))?;
    let scene = on_disk(&folder)?;
    let (mut landing, mut model) = (scene.open().await?, Model::new());
    for id in 1..5 {
        upsert(&scene, &mut landing, &mut model, &[(id, 1, Some("a"))]).await?;
    }
    checkpointed(&scene).await?;
    age(&folder, 3)?;
    upsert(&scene, &mut landing, &mut model, &[(9, 1, Some("a"))]).await?;
    let failed = |cause: std::io::Error| Error::internal("cannot date a file").with_source(cause);
    let path = folder.path().join("t/_delta_log").join(format!("{:020}.json", 5));
    let file = std::fs::File::options().write(true).open(path).map_err(failed)?;
    let written = file.metadata().and_then(|told| told.modified()).map_err(failed)?;
    file.set_modified(written + Duration::from_secs(30 * 86_400)).map_err(failed)?;

    let (log, state) = (scene.log()?, scene.state().await?);
    assert_eq!(clean::clean_log(&log, &state, scene.clock.as_ref()).await?, 0, "all is younger than a week");
    assert_eq!(scene.rows_at(Some(1)).await?.len(), 1);
    age(&folder, 25)?;
    let wrong = ManualClock::new(1, alluvium_catalog::Timestamp(scene.clock.now().0 + 86_400_000));
    let refused = clean::clean_log(&log, &state, &wrong).await;
    assert!(refused.is_err_and(|error| error.message().contains("stand 86")));
    let removed = clean::clean_log(&log, &state, scene.clock.as_ref()).await?;
    assert_eq!(removed, 4, "versions 0 to 3; the checkpoint at 4 and version 4 stay");
    assert_eq!(scene.rows().await?, rows_of(&model));
    Ok(())
}
