//! What compacting a table at once promises: it comes to an end, with few files of about the size that was asked for.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use serde_json::json;

use super::super::fixture::Scene;
use super::*;
use crate::commit::create::{Blueprint, encode};
use crate::delta::action::{Action, Add};
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
