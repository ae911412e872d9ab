//! Our side: the writer and the landing of an upsert flow, from decoded rows to the landed commit.

use std::sync::Arc;
use std::time::Instant;

use alluvium::commit::Outcome;
use alluvium::commit::create::ENGINE_INFO;
use alluvium::commit::land::{LandLimits, Landing, LandingParts, Signature};
use alluvium::commit::positions::AppIds;
use alluvium::delta::state::TableState;
use alluvium::invariant::Watch;
use alluvium::metrics::Metrics;
use alluvium::write::upsert::{UpsertSettings, UpsertWriter};
use alluvium_benches::meter::{forget_peak, rss_bytes, rss_peak_bytes};
use alluvium_catalog::{Clock, Error, Input, Lineage, PartitionRange, Result, Span, SystemClock};
use alluvium_sql::{UpsertMode, UpsertOptions};

use crate::rows::Rows;
use crate::table::{bytes_below, columns, open};
use crate::{Answer, Cell, IndexSize, Plan};

/// Opens the table, which makes the key index from its files, lands all batches, and opens it again.
pub(crate) async fn measure(plan: &Plan) -> Result<Answer> {
    let (begun, bytes_before) = (Instant::now(), rss_bytes()?);
    let mut landing = open_landing(plan).await?;
    let mut answer = Answer {
        open_seconds: begun.elapsed().as_secs_f64(),
        open_bytes: rss_bytes()?.saturating_sub(bytes_before),
        index: landing.writer().footprint().map(|index| IndexSize { keys: index.n_keys, bytes: index.bytes }),
        ..Answer::default()
    };
    let mut rows = Rows::open(plan).await?;
    for &keys in &plan.batches {
        let mut cell = Cell { keys, ..Cell::default() };
        for _ in 0..plan.rounds {
            land(plan, &mut landing, &mut rows, &mut cell).await?;
        }
        answer.cells.push(cell);
    }
    answer.rss_peak_bytes = rss_peak_bytes()?;
    landing.writer().close().await;
    drop(landing);
    answer.snapshot_bytes = Some(snapshot_bytes(plan));
    // As a process of its own would begin.
    alluvium::heap::give_back();
    forget_peak()?;
    let begun = Instant::now();
    drop(open_landing(plan).await?);
    answer.reopen_seconds = Some(begun.elapsed().as_secs_f64());
    answer.reopen_peak_bytes = Some(rss_peak_bytes()?);
    Ok(answer)
}

/// Returns the bytes of the snapshots of the key index that are whole.
fn snapshot_bytes(plan: &Plan) -> u64 {
    let Ok(entries) = std::fs::read_dir(plan.folder.join("_alluvium/index")) else { return 0 };
    let whole = entries.filter_map(std::result::Result::ok).filter(|entry| {
        let path = entry.path();
        path.extension().is_some_and(|extension| extension == "snapshot")
    });
    whole.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

/// Opens the table as a flow that starts does: with the key index out of its snapshot where there is one.
async fn open_landing(plan: &Plan) -> Result<Landing> {
    let (log, folder) = open(&plan.folder, plan.fsync)?;
    let state = TableState::load(&log).await?.ok_or_else(|| Error::data("the table is not there"))?;
    let mode = if plan.rewrites { UpsertMode::CopyOnWrite } else { UpsertMode::MergeOnRead };
    let settings = UpsertSettings {
        options: UpsertOptions { mode, cap: None },
        // One at the end, and none while the clock runs.
        snapshot_interval: u64::MAX,
        ..UpsertSettings::default()
    };
    let writer = Box::new(UpsertWriter::open(folder, columns(), &state, settings).await?);
    let ids = AppIds::of_table(&"upsert".parse()?, &"orders".parse()?);
    let watch = Watch::new(Arc::new(Metrics::try_new()?));
    let parts = LandingParts { log, state, writer, ids, known_at: SystemClock.now() };
    Ok(Landing::new(parts, Arc::new(SystemClock), LandLimits::default(), watch))
}

async fn land(plan: &Plan, landing: &mut Landing, rows: &mut Rows, cell: &mut Cell) -> Result<()> {
    let decoded = rows.draw(cell.keys)?;
    let bytes_before = bytes_below(&plan.folder)?;
    let begun = Instant::now();
    let changes = rows.collapse(decoded).await?;
    let collapsed = begun.elapsed();
    let signature = sign(&changes.span)?;
    let staged = landing.writer().stage(changes).await?;
    let written = begun.elapsed();
    let outcome = landing.land(&staged, &signature).await?;
    let took = begun.elapsed();
    let updated = match outcome {
        Outcome::Landed(landed) => landed.lineage.rows_updated,
        other => return Err(Error::internal(format!("the batch did not land: {other:?}"))),
    };
    if updated != cell.keys {
        return Err(Error::internal(format!("{updated} of {} keys were updated", cell.keys)));
    }
    cell.seconds.push(took.as_secs_f64());
    cell.collapse_seconds.push(collapsed.as_secs_f64());
    cell.write_seconds.push((written - collapsed).as_secs_f64());
    cell.commit_seconds.push((took - written).as_secs_f64());
    cell.bytes_written += bytes_below(&plan.folder)? - bytes_before;
    cell.batch_bytes += staged.files.iter().map(|file| u64::try_from(file.add.size).unwrap_or_default()).sum::<u64>();
    Ok(())
}

fn sign(span: &Span) -> Result<Signature> {
    let input =
        Input::Kafka { cluster: None, topic: "orders".parse()?, topic_id: None, ranges: PartitionRange::of(span) };
    let lineage = Lineage {
        inputs: vec![input],
        ..Lineage::begin("upsert".parse()?, "bench", ENGINE_INFO, SystemClock.new_id(), SystemClock.new_id())
    };
    Ok(Signature { lineage, operation: "MERGE", definition: None })
}
