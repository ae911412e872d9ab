//! Our side: the writer and the landing of an upsert flow, from decoded rows to the landed commit.

use std::sync::Arc;
use std::time::{Duration, Instant};

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
use crate::sightings::Sightings;
use crate::table::{bytes_below, columns, open};
use crate::{Answer, Cell, IndexSize, Plan, SnapshotsMeanwhile};

/// How long batches go on landing behind the rounds until the first snapshot is whole: one of 50 M keys has a gigabyte,
/// which shares processor and disk with them.
const OVERTIME_MAX: Duration = Duration::from_secs(120);

/// Opens the table, which makes the key index from its files, lands all batches, and opens it again.
pub(crate) async fn measure(plan: &Plan) -> Result<Answer> {
    let (begun, bytes_before) = (Instant::now(), rss_bytes()?);
    let mut landing = open_landing(plan).await?;
    let mut answer = Answer {
        open_seconds: begun.elapsed().as_secs_f64(),
        open_bytes: rss_bytes()?.saturating_sub(bytes_before),
        index: index_size(&mut landing),
        ..Answer::default()
    };
    let rows = Rows::open(plan).await?;
    answer.rss_peak_bytes = rss_peak_bytes()?;
    answer.open_peak_bytes = Some(answer.rss_peak_bytes);
    // What opening has freed and the allocator keeps counts for the rounds, too, as it does in a flow.
    forget_peak()?;
    let mut run = Run { plan, landing, rows, sightings: Sightings::of(&plan.folder) };
    Box::pin(run.take_rounds(&mut answer)).await?;
    let rounds_peak_bytes = rss_peak_bytes()?;
    answer.rounds_peak_bytes = Some(rounds_peak_bytes);
    answer.rss_peak_bytes = answer.rss_peak_bytes.max(rounds_peak_bytes);
    answer.index_after = index_size(&mut run.landing);
    run.landing.writer().close().await;
    let newest = run.sightings.whole()?.pop();
    answer.snapshot_bytes = Some(newest.map_or(0, |(_, bytes)| bytes));
    answer.snapshot_behind = newest.map(|(version, _)| run.landing.state().version.saturating_sub(version));
    drop(run);
    // As a process of its own would begin.
    alluvium::heap::give_back();
    forget_peak()?;
    let begun = Instant::now();
    drop(open_landing(plan).await?);
    answer.reopen_seconds = Some(begun.elapsed().as_secs_f64());
    answer.reopen_peak_bytes = Some(rss_peak_bytes()?);
    Ok(answer)
}

/// A table that is open, and the batches for it.
struct Run<'a> {
    plan: &'a Plan,
    landing: Landing,
    rows: Rows,
    sightings: Sightings,
}

impl Run<'_> {
    /// Lands all batches of all rounds; where snapshots are to be taken meanwhile, as many more as it takes to see one.
    async fn take_rounds(&mut self, answer: &mut Answer) -> Result<()> {
        let plan = self.plan;
        for &keys in &plan.batches {
            let mut cell = Cell { keys, ..Cell::default() };
            for _ in 0..plan.rounds {
                self.land(&mut cell).await?;
            }
            answer.cells.push(cell);
        }
        if plan.snapshot_every == 0 {
            return Ok(());
        }
        let mut overtime = Cell { keys: plan.batches.last().copied().unwrap_or_default(), ..Cell::default() };
        let begun = Instant::now();
        while overtime.keys > 0 && self.sightings.written.is_empty() && begun.elapsed() < OVERTIME_MAX {
            self.land(&mut overtime).await?;
        }
        let begins = &self.sightings.begun;
        for cell in answer.cells.iter_mut().chain([&mut overtime]) {
            for (version, is_beside) in cell.versions.iter().zip(&mut cell.beside_snapshot) {
                // The batch that begins one waits until the index is ready to be read beside the next.
                *is_beside |= begins.contains(version);
            }
        }
        answer.snapshots = Some(SnapshotsMeanwhile {
            every: plan.snapshot_every,
            begun: begins.iter().copied().collect(),
            written: self.sightings.written.iter().copied().collect(),
            lying: self.sightings.whole()?,
            overtime: (!overtime.seconds.is_empty()).then_some(overtime),
        });
        Ok(())
    }

    async fn land(&mut self, cell: &mut Cell) -> Result<()> {
        let decoded = self.rows.draw(cell.keys)?;
        let bytes_before = bytes_below(&self.plan.folder)?;
        let was_under_way = self.sightings.look()?;
        let n_written = self.sightings.written.len();
        let begun = Instant::now();
        let changes = self.rows.collapse(decoded).await?;
        let collapsed = begun.elapsed();
        let signature = sign(&changes.span)?;
        let staged = self.landing.writer().stage(changes).await?;
        let written = begun.elapsed();
        let outcome = self.landing.land(&staged, &signature).await?;
        let took = begun.elapsed();
        let landed = match outcome {
            Outcome::Landed(landed) => landed,
            other => return Err(Error::internal(format!("the batch did not land: {other:?}"))),
        };
        let updated = landed.lineage.rows_updated;
        if updated != cell.keys {
            return Err(Error::internal(format!("{updated} of {} keys were updated", cell.keys)));
        }
        cell.seconds.push(took.as_secs_f64());
        cell.collapse_seconds.push(collapsed.as_secs_f64());
        cell.write_seconds.push((written - collapsed).as_secs_f64());
        cell.commit_seconds.push((took - written).as_secs_f64());
        cell.bytes_written += bytes_below(&self.plan.folder)? - bytes_before;
        cell.batch_bytes += staged.bytes();
        let is_under_way = self.sightings.look()?;
        cell.versions.push(landed.entry.version);
        cell.beside_snapshot.push(was_under_way || is_under_way || self.sightings.written.len() > n_written);
        Ok(())
    }
}

fn index_size(landing: &mut Landing) -> Option<IndexSize> {
    landing.writer().footprint().map(|index| IndexSize { keys: index.n_keys, bytes: index.bytes })
}

/// Opens the table as a flow that starts does: with the key index out of its snapshot where there is one.
async fn open_landing(plan: &Plan) -> Result<Landing> {
    let (log, folder) = open(&plan.folder, plan.fsync)?;
    let state = TableState::load(&log).await?.ok_or_else(|| Error::data("the table is not there"))?;
    let mode = if plan.rewrites { UpsertMode::CopyOnWrite } else { UpsertMode::MergeOnRead };
    // Without an interval there is one at the end, and none while the clock runs.
    let snapshot_interval = if plan.snapshot_every == 0 { u64::MAX } else { plan.snapshot_every };
    let settings =
        UpsertSettings { options: UpsertOptions { mode, cap: None }, snapshot_interval, ..UpsertSettings::default() };
    let writer = Box::new(UpsertWriter::open(folder, columns(), &state, settings).await?);
    let ids = AppIds::of_table(&"upsert".parse()?, &"orders".parse()?);
    let watch = Watch::new(Arc::new(Metrics::try_new()?));
    let parts = LandingParts { log, state, writer, ids, known_at: SystemClock.now() };
    Ok(Landing::new(parts, Arc::new(SystemClock), LandLimits::default(), watch))
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
