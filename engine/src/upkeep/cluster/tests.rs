//! What clustering promises, tested on tables in memory: the same rows, files that can be skipped, and no row rewritten
//! without end.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Value, json};

use super::super::budget::BytesRead;
use super::super::fixture::{Model, Record, Rows, Scene, missing, rows_of, upsert};
use super::super::optimize::{Extent, Optimized, optimize};
use super::super::plan::{Aims, Zeal};
use super::*;
use crate::commit::create::encode;
use crate::commit::land::Swapped;
use crate::delta::action::{Action, DomainMetadata};
use crate::delta::clustering::{Clustered, Mark, clustered};
use crate::delta::log::PutOutcome;
use crate::delta::state::TableState;

fn columns(names: &[&str]) -> Option<Vec<String>> {
    Some(names.iter().map(|name| (*name).to_owned()).collect())
}

/// Numbers that look like chance, the same in every run.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Records whose ids are all numbers below `n_records`, in no order.
fn shuffled(n_records: i64) -> Vec<Record> {
    let mut ids: Vec<i64> = (0..n_records).collect();
    let mut draw = Draw(7);
    for place in (1..ids.len()).rev() {
        ids.swap(place, draw.below(place as u64 + 1) as usize);
    }
    ids.into_iter().map(|id| (id, id * 31 % n_records, Some("a"))).collect()
}

/// The bounds of a column in each file that has some, and whose the file is.
fn bounds(state: &TableState, column: &str) -> Result<Vec<(i64, i64, Clustered)>> {
    let mut bounds = Vec::new();
    for add in state.files.values() {
        let stats: Value = serde_json::from_str(add.stats.as_deref().unwrap_or_default())
            .map_err(|cause| Error::data("stats").with_source(cause))?;
        let bound = |which: &str| stats[which][column].as_i64().ok_or_else(|| missing(which));
        bounds.push((bound("minValues")?, bound("maxValues")?, clustered(add)));
    }
    bounds.sort_by_key(|(low, high, _)| (*low, *high));
    Ok(bounds)
}

fn check_disjoint(bounds: &[(i64, i64, Clustered)]) {
    for pair in bounds.windows(2) {
        assert!(pair[0].1 < pair[1].0, "two files hold one value: {pair:?}");
    }
}

async fn optimized(scene: &Scene, aims: &Aims, extent: Extent) -> Result<Optimized> {
    optimize(scene.log()?, aims, extent, &scene.clock, |_| ()).await
}

#[tokio::test]
async fn files_of_one_clustering_column_hold_ranges_that_do_not_meet() -> Result<()> {
    let scene = Scene { clustered_by: columns(&["id"]), ..Scene::appends()? };
    let mut landing = scene.open().await?;
    let records = shuffled(40_000);
    for batch in records.chunks(5_000) {
        scene.land(&mut landing, batch).await?;
    }
    assert!(
        bounds(&scene.state().await?, "id")?
            .iter()
            .all(|(low, high, whose)| { high - low > 35_000 && *whose == Clustered::No })
    );
    let aims = Aims { target_bytes: 20_000, ..Scene::aims() };
    let done = optimized(&scene, &aims, Extent::Worthwhile).await?;
    assert_eq!((done.commits, done.files_before), (1, 8));
    let state = scene.state().await?;
    let found = bounds(&state, "id")?;
    assert!(found.len() >= 4, "{found:?}");
    check_disjoint(&found);
    let by = vec!["id".to_owned()];
    assert!(found.iter().all(|(_, _, whose)| matches!(whose, Clustered::Ours(mark) if mark.by == by)));
    for wanted in [0, 12_345, 39_999] {
        let opened = found.iter().filter(|(low, high, _)| (*low..=*high).contains(&wanted)).count();
        assert_eq!(opened, 1, "a query for one id opens one file");
    }
    let expected: Rows = records.iter().map(|(id, seq, _)| ((*id, *seq), "a".to_owned())).collect();
    assert_eq!(scene.rows().await?, expected);
    let again = optimized(&scene, &aims, Extent::Worthwhile).await?;
    assert_eq!(again.commits, 0, "what is clustered is left alone");
    let full = optimized(&scene, &aims, Extent::Full).await?;
    assert_eq!((full.commits, full.files_before), (1, found.len() as u64), "but for those who want it");
    check_disjoint(&bounds(&scene.state().await?, "id")?);
    assert_eq!(scene.rows().await?, expected);
    let entry = scene.log()?.read(full.version).await?.ok_or_else(|| missing("version"))?;
    assert_eq!(entry.info["operationParameters"]["clusterBy"], r#"["id"]"#);
    Ok(())
}

#[tokio::test]
async fn rows_of_one_value_stand_in_one_file() -> Result<()> {
    let scene = Scene { clustered_by: columns(&["seq"]), ..Scene::appends()? };
    let mut landing = scene.open().await?;
    // Each value has three thousand rows, so that batches of the sort end within them.
    let records: Vec<Record> = shuffled(30_000).into_iter().map(|(id, _, note)| (id, id % 10, note)).collect();
    for batch in records.chunks(15_000) {
        scene.land(&mut landing, batch).await?;
    }
    // Two batches of the sort take more than this, and one less than twice of it: a file is full within the rows of a value.
    optimized(&scene, &Aims { target_bytes: 30_000, ..Scene::aims() }, Extent::Worthwhile).await?;
    let found = bounds(&scene.state().await?, "seq")?;
    assert!(found.len() >= 2, "{found:?}");
    check_disjoint(&found);
    assert_eq!(scene.rows().await?.len(), 30_000);
    Ok(())
}

#[tokio::test]
async fn files_of_two_clustering_columns_are_narrow_in_both() -> Result<()> {
    let scene = Scene { clustered_by: columns(&["id", "seq"]), ..Scene::appends()? };
    let mut landing = scene.open().await?;
    let records: Vec<Record> = shuffled(65_536).into_iter().map(|(id, _, note)| (id / 256, id % 256, note)).collect();
    for batch in records.chunks(16_384) {
        scene.land(&mut landing, batch).await?;
    }
    let aims = Aims { target_bytes: 1, ..Scene::aims() };
    optimized(&scene, &aims, Extent::Worthwhile).await?;
    let state = scene.state().await?;
    let (ids, seqs) = (bounds(&state, "id")?, bounds(&state, "seq")?);
    assert_eq!(ids.len(), 8, "a file for each batch of the sort");
    for (name, found) in [("id", ids), ("seq", seqs)] {
        let opened =
            (0..256).map(|wanted| found.iter().filter(|(low, high, _)| (*low..=*high).contains(&wanted)).count());
        let (opened, n_files) = (opened.sum::<usize>(), found.len());
        assert!(opened <= 256 * n_files / 2, "a query on {name} opens {opened} of {} files", 256 * n_files);
    }
    assert_eq!(scene.rows().await?.len(), 65_536);
    Ok(())
}

#[tokio::test]
async fn what_does_not_fit_into_memory_is_sorted_on_disk() -> Result<()> {
    let scene = Scene { clustered_by: columns(&["id"]), ..Scene::appends()? };
    let mut landing = scene.open().await?;
    let records = shuffled(300_000);
    for batch in records.chunks(75_000) {
        scene.land(&mut landing, batch).await?;
    }
    // Rows of 300,000 times about 60 bytes, and their order, do not go into what is left of 16 MiB beside the merge's part.
    let aims = Aims { target_bytes: 100_000, sort_bytes: 16 << 20, ..Scene::aims() };
    let done = optimized(&scene, &aims, Extent::Worthwhile).await?;
    assert_eq!(done.files_before, 4);
    check_disjoint(&bounds(&scene.state().await?, "id")?);
    assert_eq!(scene.rows().await?.len(), 300_000);
    Ok(())
}

#[tokio::test]
async fn rows_that_change_while_they_are_sorted_are_found_where_they_went() -> Result<()> {
    let scene = Scene { clustered_by: columns(&["seq"]), ..Scene::upserts()? };
    let (mut landing, mut model) = (scene.open().await?, Model::new());
    let records = [(9, 1, Some("a")), (8, 7, Some("a")), (7, 3, Some("a"))];
    upsert(&scene, &mut landing, &mut model, &records).await?;
    upsert(&scene, &mut landing, &mut model, &[(6, 5, Some("b")), (5, 2, Some("b")), (8, 8, Some("b"))]).await?;
    let compaction = scene.compact(&landing).await?.ok_or_else(|| missing("compaction"))?;
    assert_eq!(compaction.outputs.iter().map(|output| output.rows).sum::<u64>(), 5);
    upsert(&scene, &mut landing, &mut model, &[(9, 9, Some("c")), (5, 9, None), (6, 1, Some("late"))]).await?;
    let swapped = landing.swap(&compaction).await?;
    assert!(matches!(swapped, Swapped::Landed { remapped: 2, .. }), "{swapped:?}");
    assert_eq!(scene.rows().await?, rows_of(&model));
    upsert(&scene, &mut landing, &mut model, &[(7, 10, None), (8, 10, Some("d")), (5, 3, Some("late"))]).await?;
    assert_eq!(scene.rows().await?, rows_of(&model));
    let mut reopened = scene.open().await?;
    upsert(&scene, &mut reopened, &mut model, &[(9, 11, None), (6, 11, Some("e"))]).await?;
    assert_eq!(scene.rows().await?, rows_of(&model));
    Ok(())
}

#[tokio::test]
async fn a_clustering_goes_on_without_the_inputs_that_a_batch_wrote_anew() -> Result<()> {
    let scene = Scene { clustered_by: columns(&["seq"]), ..Scene::rewrites()? };
    let (mut landing, mut model) = (scene.open().await?, Model::new());
    for id in 0..6 {
        upsert(&scene, &mut landing, &mut model, &[(id, 20 - id, Some("a")), (id + 10, id, Some("a"))]).await?;
    }
    let compaction = scene.compact_to(&landing, 1).await?.ok_or_else(|| missing("compaction"))?;
    // One row of the second input, both of the fourth.
    upsert(&scene, &mut landing, &mut model, &[(1, 30, Some("b")), (3, 30, None), (13, 30, Some("b"))]).await?;
    let swapped = landing.swap(&compaction).await?;
    assert!(matches!(swapped, Swapped::Landed { remapped: 4, .. }), "{swapped:?}");
    assert_eq!(scene.rows().await?, rows_of(&model));
    let state = scene.state().await?;
    assert!(state.files.values().all(|add| add.deletion_vector.is_none()));
    let marks: HashSet<String> =
        compaction.outputs.iter().map(|output| format!("{:?}", clustered(&output.add))).collect();
    let sorted = bounds(&state, "seq")?.into_iter().filter(|(.., whose)| *whose != Clustered::No);
    let sorted: Vec<_> = sorted.collect();
    assert!(!sorted.is_empty() && sorted.iter().all(|(.., whose)| marks.contains(&format!("{whose:?}"))), "{sorted:?}");
    check_disjoint(&sorted);

    let records = [(0, 40, Some("c")), (1, 40, None), (11, 40, Some("c")), (12, 0, Some("late")), (15, 40, None)];
    upsert(&scene, &mut landing, &mut model, &records).await?;
    assert_eq!(scene.rows().await?, rows_of(&model));
    let mut reopened = scene.open().await?;
    upsert(&scene, &mut reopened, &mut model, &[(10, 50, None), (2, 50, Some("d")), (14, 50, Some("d"))]).await?;
    assert_eq!(scene.rows().await?, rows_of(&model));
    Ok(())
}

/// A history of upserts, deletes, late rows and clusterings that begin at one batch and are swapped in at another.
#[tokio::test]
async fn histories_with_clusterings_agree_with_a_map() -> Result<()> {
    const NOTES: [Option<&str>; 4] = [Some("a"), Some("b"), None, Some("c")];
    let tables: [(u64, &[&str]); 5] =
        [(1, &["id"]), (2, &["seq"]), (3, &["note", "id"]), (4, &["seq", "day", "id"]), (5, &["day"])];
    for (seed, by) in tables.into_iter().chain(tables.map(|(seed, by)| (seed + 5, by))) {
        let of = if seed <= 5 { Scene::upserts()? } else { Scene::rewrites()? };
        let scene = Scene { clustered_by: columns(by), ..of };
        let (mut landing, mut model) = (scene.open().await?, Model::new());
        let mut draw = Draw(seed);
        let mut under_way = None;
        let mut swaps = 0;
        for batch in 0..30_i64 {
            let mut records: BTreeMap<i64, Record> = BTreeMap::new();
            for _record in 0..=draw.below(8) {
                let id = draw.below(30) as i64;
                let seq = batch * 10 + draw.below(15) as i64 - 5;
                records.insert(id, (id, seq, NOTES[draw.below(4) as usize]));
            }
            let records: Vec<Record> = records.into_values().collect();
            upsert(&scene, &mut landing, &mut model, &records).await?;
            match (draw.below(3), under_way.take()) {
                (0, None) => under_way = scene.compact_to(&landing, 1).await?,
                (0 | 2, Some(compaction)) => {
                    swaps += u32::from(matches!(landing.swap(&compaction).await?, Swapped::Landed { .. }));
                }
                (1, kept) if batch % 10 == 9 => {
                    landing = scene.open().await?;
                    under_way = kept;
                }
                (_, kept) => under_way = kept,
            }
            assert_eq!(scene.rows().await?, rows_of(&model), "seed {seed}, batch {batch}");
            assert_eq!(scene.state().await?.n_rows(), Some(rows_of(&model).len() as u64), "seed {seed}");
        }
        assert!(swaps > 0 || seed > 5, "no clustering landed with seed {seed}");
    }
    Ok(())
}

/// Lands batches and swaps in whatever is worth it beside them; returns how often a row was rewritten on average.
async fn rewritten(scene: &Scene, n_batches: i64, aims: &Aims) -> Result<f64> {
    const BATCH: i64 = 1_000;
    let mut landing = scene.open().await?;
    let mut n_rewritten = 0;
    for batch in 0..n_batches {
        let records: Vec<Record> = (0..BATCH).map(|row| (row * n_batches + batch, batch, Some("a"))).collect();
        scene.land(&mut landing, &records).await?;
        if let Some(choice) = super::super::plan::choose(landing.state(), aims, &HashSet::new()) {
            let compaction =
                super::super::compact::Job::new(landing.log(), landing.state(), choice, aims, &scene.clock)?;
            let compaction = compaction.run().await?;
            n_rewritten += compaction.outputs.iter().map(|output| output.rows).sum::<u64>();
            assert!(matches!(landing.swap(&compaction).await?, Swapped::Landed { .. }));
        }
    }
    Ok(n_rewritten as f64 / (n_batches * BATCH) as f64)
}

#[tokio::test]
async fn beside_batches_a_row_is_rewritten_once_a_tier() -> Result<()> {
    let scene = Scene { clustered_by: columns(&["id"]), ..Scene::appends()? };
    let zeal = Zeal::Tiers { files_min: 8 };
    let aims = Aims { zeal, bytes_max: 1 << 20, run_bytes: 1 << 20, target_bytes: 64 << 10, ..Scene::aims() };
    let times = rewritten(&scene, 100, &aims).await?;
    // Files of some KiB and runs of a MiB at most are three tiers of eight apart.
    assert!((0.5..=3.0).contains(&times), "a row was rewritten {times} times");
    let state = scene.state().await?;
    let runs: HashSet<String> = state
        .files
        .values()
        .filter_map(|add| match clustered(add) {
            Clustered::Ours(Mark { run, .. }) => Some(run),
            Clustered::No | Clustered::Theirs => None,
        })
        .collect();
    assert!(runs.len() < 100 / 4, "{} runs", runs.len());
    Ok(())
}

#[tokio::test]
async fn a_worn_file_of_a_run_keeps_within_its_bounds() -> Result<()> {
    let scene = Scene { clustered_by: columns(&["id"]), ..Scene::upserts()? };
    let (mut landing, mut model) = (scene.open().await?, Model::new());
    let records: Vec<Record> = (0..20_000).map(|id| (id, 1, Some("a"))).collect();
    for half in records.chunks(10_000) {
        upsert(&scene, &mut landing, &mut model, half).await?;
    }
    let aims = Aims { target_bytes: 1, ..Scene::aims() };
    optimized(&scene, &aims, Extent::Worthwhile).await?;
    landing.catch_up().await?;
    let before = bounds(&scene.state().await?, "id")?;
    assert_eq!(before.len(), 3, "{before:?}");
    // Half of the rows of the first file and of the last go, and those of the middle one stay.
    let doomed: Vec<Record> =
        (0..20_000).filter(|id| !(7_000..17_000).contains(id)).step_by(2).map(|id| (id, 2, None)).collect();
    upsert(&scene, &mut landing, &mut model, &doomed).await?;
    let done = optimized(&scene, &aims, Extent::Worthwhile).await?;
    assert!(done.files_before >= 2, "{done:?}");
    let after = bounds(&scene.state().await?, "id")?;
    check_disjoint(&after);
    let run = |bounds: &[(i64, i64, Clustered)]| bounds.first().map(|(_, _, whose)| whose.clone());
    assert!(after.iter().all(|(_, _, whose)| Some(whose.clone()) == run(&before)), "{after:?}");
    assert_eq!(scene.rows().await?, rows_of(&model));
    landing.catch_up().await?;
    upsert(&scene, &mut landing, &mut model, &[(1, 3, Some("b")), (19_999, 3, None)]).await?;
    assert_eq!(scene.rows().await?, rows_of(&model));
    Ok(())
}

#[tokio::test]
async fn all_of_a_table_without_clustering_columns_is_not_rewritten() -> Result<()> {
    let scene = Scene::appends()?;
    let mut landing = scene.open().await?;
    scene.land(&mut landing, &[(1, 1, Some("a"))]).await?;
    let refused = optimized(&scene, &Scene::aims(), Extent::Full).await;
    assert!(refused.is_err_and(|error| error.message().contains("has no clustering columns")));
    Ok(())
}

#[tokio::test]
async fn clustering_columns_survive_a_checkpoint() -> Result<()> {
    for policy in ["classic", "v2"] {
        let properties = BTreeMap::from([("delta.checkpointPolicy".to_owned(), policy.to_owned())]);
        let scene = Scene { properties, clustered_by: columns(&["seq", "id"]), ..Scene::upserts()? };
        let (mut landing, mut model) = (scene.open().await?, Model::new());
        for id in 0..4 {
            upsert(&scene, &mut landing, &mut model, &[(id, id, Some("a"))]).await?;
        }
        optimized(&scene, &Scene::aims(), Extent::Worthwhile).await?;
        let before = scene.state().await?;
        let has_v2 = super::super::kernel::has_v2(&before);
        super::super::kernel::write_checkpoint(&scene.stores, &scene.location, has_v2, &BytesRead::default()).await?;
        super::super::kernel::write_checksum(&scene.stores, &scene.location, &BytesRead::default()).await?;
        let (version, actions) = scene.log()?.read_checkpoint().await?.ok_or_else(|| missing("checkpoint"))?;
        let mut after = TableState::default();
        after.apply(version, &actions);
        assert_eq!(after.clustering(), ["seq", "id"], "{policy}");
        let whose = |state: &TableState| state.files.values().map(clustered).collect::<Vec<_>>();
        assert_eq!(whose(&after), whose(&before), "{policy}");
        assert!(matches!(whose(&after)[..], [Clustered::Ours(_)]), "{policy}");
        assert_eq!(scene.rows().await?, rows_of(&model), "deltalake reads {policy}");
    }
    Ok(())
}

#[tokio::test]
async fn the_columns_of_a_table_follow_its_declaration() -> Result<()> {
    let plain = Scene::appends()?;
    let mut landing = plain.open().await?;
    let records = shuffled(2_000);
    plain.land(&mut landing, &records[..1_000]).await?;
    assert_eq!(plain.state().await?.protocol.min_writer_version, 2);

    let by_id = Scene { clustered_by: columns(&["id"]), ..plain.clone() };
    let mut landing = by_id.open().await?;
    let state = by_id.state().await?;
    assert_eq!((state.version, state.clustering()), (2, vec!["id".to_owned()]));
    let listed = state.protocol.writer_features.clone().unwrap_or_default();
    assert_eq!((state.protocol.min_reader_version, state.protocol.min_writer_version), (1, 7));
    assert_eq!(listed, ["appendOnly", "invariants", "clustering", "domainMetadata"]);
    assert_eq!(by_id.open().await?.state().version, 2, "what is so already is not committed again");
    let entry = by_id.log()?.read(2).await?.ok_or_else(|| missing("version 2"))?;
    assert_eq!(entry.info["operation"], "CLUSTER BY");
    by_id.land(&mut landing, &records[1_000..]).await?;
    optimized(&by_id, &Scene::aims(), Extent::Worthwhile).await?;

    let by_seq = Scene { clustered_by: columns(&["seq"]), ..plain.clone() };
    by_seq.open().await?;
    assert_eq!(by_seq.state().await?.clustering(), ["seq"]);
    let done = optimized(&by_seq, &Aims { target_bytes: 1, ..Scene::aims() }, Extent::Worthwhile).await?;
    assert_eq!(done.files_before, 1, "a file clustered by other columns is as good as not clustered");
    assert_eq!(plain.open().await?.state().clustering(), ["seq"], "without the clause the columns stay");

    let by_none = Scene { clustered_by: columns(&[]), ..plain.clone() };
    by_none.open().await?;
    assert!(by_none.state().await?.clustering().is_empty());
    assert_eq!(optimized(&by_none, &Scene::aims(), Extent::Worthwhile).await?.commits, 0);
    assert_eq!(plain.rows().await?.len(), 2_000);

    let unknown = Scene { clustered_by: columns(&["idd"]), ..plain }.open().await;
    assert!(unknown.is_err_and(|error| error.message().contains("cannot be clustered by 'idd'")));
    Ok(())
}

#[tokio::test]
async fn a_table_that_is_clustered_by_what_gets_no_bounds_is_not_written() -> Result<()> {
    let scene = Scene { clustered_by: columns(&["id"]), ..Scene::appends()? };
    scene.open().await?;
    let configuration = r#"{"clusteringColumns":[["id"],["day","x"]]}"#.to_owned();
    let domain = DomainMetadata { domain: "delta.clustering".to_owned(), configuration, removed: false };
    let bytes = encode(&json!({"operation": "CLUSTER BY"}), &[Action::DomainMetadata(domain)])?;
    assert_eq!(scene.log()?.put(1, bytes, scene.clock.new_id()).await, PutOutcome::Landed);
    let opened = Scene { clustered_by: None, ..scene.clone() }.open().await;
    assert!(opened.is_err_and(|error| error.message().contains("clustered by 'day.x'")));
    scene.open().await?;
    assert_eq!(scene.state().await?.clustering(), ["id"], "unless the file says other columns");
    Ok(())
}
