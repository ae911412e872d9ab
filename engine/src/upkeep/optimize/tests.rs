//! What compacting a table at once promises: it comes to an end, with few files of about the size that was asked for.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use serde_json::json;

use super::super::budget::BytesRead;
use super::super::fixture::Scene;
use super::super::kernel;
use super::*;
use crate::commit::create::{Blueprint, encode};
use crate::delta::action::{Action, Add};
use crate::delta::clustering::{FEATURES, clustering_action};
use crate::delta::log::PutOutcome;

const TARGET_BYTES: u64 = 1 << 20;

const COLUMNS: u64 = 10;

const ROWS: u64 = 1_200;

/// Returns the rows of a file: more bytes than a file is to have before they are compressed, and about an eighth of them then.
fn rows(file: u64) -> Result<RecordBatch> {
    // Sixteen digits that look like chance, and blanks.
    let text = |number: u64| {
        let spread = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let chance = (spread ^ (spread >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        Some(format!("{chance:016x}{:84}", ""))
    };
    let columns = (0..COLUMNS).map(|column| {
        let texts = (0..ROWS).map(|row| text((file * ROWS + row) * COLUMNS + column + 1));
        let texts: ArrayRef = Arc::new(texts.collect::<StringArray>());
        (format!("c{column}"), texts, true)
    });
    RecordBatch::try_from_iter_with_nullable(columns).map_err(|cause| Error::internal("rows").with_source(cause))
}

/// Creates a table of so many files, each as `told` has the log tell of it.
async fn table(n_files: u64, told: impl Fn(Add) -> Add) -> Result<Scene> {
    let scene = Scene::appends()?;
    let log = scene.log()?;
    let blueprint = Blueprint {
        schema: rows(0)?.schema(),
        partitioned_by: Vec::new(),
        clustered_by: None,
        deletion_vectors: false,
        comment: None,
        properties: BTreeMap::new(),
    };
    blueprint.open_or_create(&log, scene.clock.as_ref()).await?;
    let folder = DataFolder {
        store: Arc::clone(log.store()),
        location: scene.location.clone(),
        partitioned_by: Vec::new(),
        clock: Arc::clone(&scene.clock),
    };
    let mut actions = Vec::new();
    for file in 0..n_files {
        let files = folder.write(&rows(file)?).await?;
        actions.extend(files.into_iter().map(|file| Action::Add(told(file.add))));
    }
    let write_id = scene.clock.new_id();
    let bytes = encode(&json!({"operation": "WRITE", "txnId": write_id}), &actions)?;
    assert_eq!(log.put(1, bytes, write_id).await, PutOutcome::Landed);
    Ok(scene)
}

/// Compacts the table, which may take no more than a minute.
async fn optimized(scene: &Scene) -> Result<Optimized> {
    let aims = Aims { target_bytes: TARGET_BYTES, ..Scene::aims() };
    let work = optimize(scene.log()?, &aims, Extent::Worthwhile, &scene.clock, |_| ());
    let done = tokio::time::timeout(Duration::from_secs(60), Box::pin(work)).await;
    done.map_err(|_| Error::internal("it does not come to an end"))?
}

fn sizes(state: &TableState) -> Vec<u64> {
    let mut sizes: Vec<u64> = state.files.values().filter_map(|add| u64::try_from(add.size).ok()).collect();
    sizes.sort_unstable();
    sizes
}

#[tokio::test]
async fn rows_that_compress_well_become_few_files_of_a_fair_size() -> Result<()> {
    const FILES: u64 = 16;
    // Whether the log tells how many rows a file has or not: its footer does.
    let told: [fn(Add) -> Add; 2] = [|add| add, |add| Add { stats: None, ..add }];
    for told in told {
        let scene = table(FILES, told).await?;
        let before = sizes(&scene.state().await?);
        assert!(before.iter().all(|size| *size < TARGET_BYTES / 2), "{before:?}");
        let done = optimized(&scene).await?;
        assert_eq!((done.commits, done.files_before, done.under_way), (1, FILES, 0), "{done:?}");
        let state = scene.state().await?;
        let after = sizes(&state);
        // The last of them has what was left.
        assert!((2..=4).contains(&after.len()), "{after:?} of {before:?}");
        let is_fair = |size: &u64| (TARGET_BYTES / 2..TARGET_BYTES * 2).contains(size);
        assert!(after.iter().skip(1).all(is_fair), "{after:?} of {before:?}");
        assert_eq!(state.n_rows(), Some(FILES * ROWS));
        assert_eq!(optimized(&scene).await?.commits, 0, "what is done is left alone");
    }
    Ok(())
}

/// Adds a file to the table as Spark does, which leaves letters outside of ASCII as they are.
async fn add_as_spark(scene: &Scene) -> Result<()> {
    let (log, version) = (scene.log()?, scene.state().await?.version + 1);
    let folder = DataFolder {
        store: Arc::clone(log.store()),
        location: scene.location.clone(),
        partitioned_by: Vec::new(),
        clock: Arc::clone(&scene.clock),
    };
    let file = folder.write(&rows(99)?).await?.remove(0);
    let add = Add { path: "M\u{fc}nchen.parquet".to_owned(), ..file.add.clone() };
    let to = Path::parse(&add.path).map_err(|cause| Error::internal("the path").with_source(cause))?;
    let moved = log.store().rename(&Path::from(file.add.path.as_str()), &to).await;
    moved.map_err(|cause| Error::internal("the file").with_source(cause))?;
    let write_id = scene.clock.new_id();
    let bytes = encode(&json!({"operation": "WRITE", "txnId": write_id}), &[Action::Add(add)])?;
    let text = String::from_utf8_lossy(&bytes).replace("M%C3%BCnchen", "M\u{fc}nchen");
    assert!(text.contains("M\u{fc}nchen.parquet"), "{text}");
    assert_eq!(log.put(version, text.into_bytes().into(), write_id).await, PutOutcome::Landed);
    Ok(())
}

#[tokio::test]
async fn a_file_whose_path_another_writer_spells_in_its_own_way_is_gone_from_checkpoints_too() -> Result<()> {
    let scene = table(3, |add| add).await?;
    add_as_spark(&scene).await?;
    assert_eq!(optimized(&scene).await?.files_before, 4);
    let before = scene.state().await?;
    assert!(before.files.keys().all(|path| !path.contains('\u{fc}')), "{:?}", before.files.keys());
    // The kernel tells files apart by the spelling of their paths.
    kernel::write_checkpoint(&scene.stores, &scene.location, false, &BytesRead::default()).await?;
    let found = scene.log()?.read_checkpoint().await?;
    let (version, actions) = found.ok_or_else(|| Error::internal("there is no checkpoint"))?;
    let mut after = TableState::default();
    after.apply(version, &actions);
    assert_eq!((version, after.n_rows()), (before.version, Some(4 * ROWS)));
    assert_eq!(sizes(&after), sizes(&before));
    Ok(())
}

#[tokio::test]
async fn a_table_that_claims_to_be_partitioned_and_clustered_is_not_rewritten_whole() -> Result<()> {
    let scene = table(2, |add| add).await?;
    let mut state = scene.state().await?;
    state.protocol.min_writer_version = 7;
    state.protocol.writer_features = Some(FEATURES.map(str::to_owned).to_vec());
    state.metadata.partition_columns.push("c0".to_owned());
    let columns =
        clustering_action(&["c1".to_owned()]).map_err(|cause| Error::internal("columns").with_source(cause))?;
    let actions = [Action::Protocol(state.protocol), Action::MetaData(state.metadata), Action::DomainMetadata(columns)];
    let write_id = scene.clock.new_id();
    let bytes = encode(&json!({"operation": "SOMETHING ELSE", "txnId": write_id}), &actions)?;
    assert_eq!(scene.log()?.put(state.version + 1, bytes, write_id).await, PutOutcome::Landed);
    let refused = optimize(scene.log()?, &Scene::aims(), Extent::Full, &scene.clock, |_| ()).await;
    assert!(refused.is_err_and(|error| error.message().contains("both partitioned and clustered")));
    Ok(())
}
