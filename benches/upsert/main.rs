//! Batches of random keys into large tables: our upsert beside delta-rs MERGE, on the same data files in the same run.
//!
//! `cargo bench --workspace --bench upsert -- --rows 1000000,10000000,50000000 --batches 1000,10000,100000`
//!
//! MERGE reads whole files into memory: `--merge-rows-max 10000000` leaves it out of larger tables.
//!
//! Each side works on a table of its own, whose data files are links to the same ones, in a process of its own.
//! `docs/BENCHMARKS.md` explains arguments and figures.

#[path = "../end_to_end/flow.rs"]
mod flow;
mod merge;
mod ours;
mod rows;
mod show;
mod sightings;
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use alluvium_benches::arguments::Arguments;
use alluvium_benches::child::{self, Nursery};
use alluvium_benches::report::{end, grouped, heading, keep, show};
use alluvium_catalog::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::runtime::Runtime;

use table::SharedFiles;

/// What a child is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// The table.
    pub(crate) folder: PathBuf,
    /// Its rows, whose keys are all numbers below.
    pub(crate) rows: u64,
    /// Batches, by their number of keys.
    pub(crate) batches: Vec<u64>,
    /// How often each is taken.
    pub(crate) rounds: u32,
    /// Whether our files are flushed to the disk, as they are by default.
    pub(crate) fsync: bool,
    /// Whether superseded rows leave by files that are written anew, not by vectors.
    pub(crate) rewrites: bool,
    /// Versions from one snapshot of the key index to the next while batches land; 0 for none meanwhile.
    pub(crate) snapshot_every: u64,
    /// Where the answer goes.
    pub(crate) answer: PathBuf,
}

/// What a child found.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// How long the table took to open; ours makes its key index from scratch.
    pub(crate) open_seconds: f64,
    /// What the process grew by.
    pub(crate) open_bytes: u64,
    /// What the key index itself takes then; ours only.
    pub(crate) index: Option<IndexSize>,
    /// The same when the last batch had landed; ours only.
    pub(crate) index_after: Option<IndexSize>,
    /// The snapshots of it that were taken meanwhile; ours only, where they were asked for.
    pub(crate) snapshots: Option<SnapshotsMeanwhile>,
    /// How long it took to open again after all batches, with the key index out of its snapshot; ours only.
    pub(crate) reopen_seconds: Option<f64>,
    /// The newest snapshot's size; 0 where none was written within the writer's limit, so that there was none to open from.
    pub(crate) snapshot_bytes: Option<u64>,
    /// By how many versions it is older than the table.
    pub(crate) snapshot_behind: Option<u64>,
    pub(crate) cells: Vec<Cell>,
    /// The most memory until the last batch had landed.
    pub(crate) rss_peak_bytes: u64,
    /// The most while the table was opened, and while batches landed; ours only.
    pub(crate) open_peak_bytes: Option<u64>,
    pub(crate) rounds_peak_bytes: Option<u64>,
    /// The most memory while the table was opened again, after what was free had been given back; ours only.
    pub(crate) reopen_peak_bytes: Option<u64>,
}

/// The key index of a table.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct IndexSize {
    pub(crate) keys: u64,
    pub(crate) bytes: u64,
}

/// The snapshots of the key index that were taken while batches landed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SnapshotsMeanwhile {
    /// Versions from one to the next.
    pub(crate) every: u64,
    /// The versions of those that were begun, and of those that became whole, before the last batch had landed.
    pub(crate) begun: Vec<u64>,
    pub(crate) written: Vec<u64>,
    /// Versions and bytes of those that lie beside the table then; the engine removes all but the newest.
    pub(crate) lying: Vec<(u64, u64)>,
    /// The batches behind the rounds, until the first snapshot was whole.
    pub(crate) overtime: Option<Cell>,
}

/// All batches of one size.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Cell {
    pub(crate) keys: u64,
    /// From decoded rows to the landed commit, one a round.
    pub(crate) seconds: Vec<f64>,
    /// The part of it that leaves the newest row of each key, one a round; ours only.
    pub(crate) collapse_seconds: Vec<f64>,
    /// The part that looks keys up, decides what is newer, and encodes and writes files, one a round; ours only.
    pub(crate) write_seconds: Vec<f64>,
    /// The part that writes vectors and the version and brings the index up to it, one a round; ours only.
    pub(crate) commit_seconds: Vec<f64>,
    /// The versions that the batches became, one a round; ours only.
    pub(crate) versions: Vec<u64>,
    /// Whether a snapshot of the index was begun or written meanwhile, one a round; ours only.
    pub(crate) beside_snapshot: Vec<bool>,
    /// Bytes that the table's folder grew by, snapshots aside, all rounds together.
    pub(crate) bytes_written: u64,
    /// Bytes of the batches as parquet files, all rounds together; ours only.
    pub(crate) batch_bytes: u64,
}

struct Asked {
    rows: Vec<u64>,
    batches: Vec<u64>,
    rounds: u32,
    merge_rounds: u32,
    /// The largest table that delta-rs merges into.
    merge_rows_max: u64,
    rewrite_rounds: u32,
    /// Versions from one snapshot of the index to the next during our rounds; 0 for none.
    snapshot_every: u64,
    fsync: bool,
    folder: PathBuf,
    json: Option<PathBuf>,
}

impl Asked {
    fn read() -> Result<Self> {
        let known = [
            "rows",
            "batches",
            "rounds",
            "merge-rounds",
            "merge-rows-max",
            "rewrite-rounds",
            "snapshot-every",
            "no-fsync!",
            "folder",
            "json",
        ];
        let arguments = Arguments::read(&known)?;
        let asked = Self {
            rows: arguments.list("rows")?.unwrap_or_else(|| vec![1_000_000, 10_000_000]),
            batches: arguments.list("batches")?.unwrap_or_else(|| vec![1_000, 10_000, 100_000]),
            rounds: arguments.get("rounds")?.unwrap_or(5),
            merge_rounds: arguments.get("merge-rounds")?.unwrap_or(1),
            merge_rows_max: arguments.get("merge-rows-max")?.unwrap_or(u64::MAX),
            rewrite_rounds: arguments.get("rewrite-rounds")?.unwrap_or(0),
            snapshot_every: arguments.get("snapshot-every")?.unwrap_or(0),
            fsync: !arguments.has("no-fsync"),
            folder: arguments.get("folder")?.unwrap_or_else(std::env::temp_dir),
            json: arguments.get("json")?,
        };
        // Each round is one version.
        let n_versions = u64::from(asked.rounds) * asked.batches.len() as u64;
        if asked.snapshot_every > n_versions {
            return Err(Error::invalid(format!(
                "--snapshot-every is more than the {n_versions} versions of all rounds"
            ))
            .with_hint("raise --rounds, or no snapshot would be begun"));
        }
        Ok(asked)
    }
}

fn main() -> ExitCode {
    alluvium::heap::settle();
    end(match child::task() {
        Some((task, plan)) => be_child(&task, &plan),
        None => Asked::read().and_then(|asked| measure(&asked)),
    })
}

fn be_child(task: &str, plan: &Path) -> Result<()> {
    let plan: Plan = child::read_json(plan)?;
    let runtime = runtime()?;
    let answer = match task {
        "ours" | "rewrite" => runtime.block_on(ours::measure(&plan))?,
        "merge" => runtime.block_on(merge::measure(&plan))?,
        other => return Err(Error::invalid(format!("there is no task {other}"))),
    };
    child::write_json(&plan.answer, &answer)
}

fn measure(asked: &Asked) -> Result<()> {
    let runtime = runtime()?;
    show(&heading())?;
    let mut results = Vec::new();
    for &rows in &asked.rows {
        let folder = tempfile::TempDir::new_in(&asked.folder)
            .map_err(|cause| Error::unavailable("cannot make a folder for the tables").with_source(cause))?;
        show(&format!("making a table of {} rows\n", grouped(rows as f64)))?;
        let files = runtime.block_on(SharedFiles::make(&folder.path().join("files"), rows))?;
        let ours = side(asked, &runtime, (folder.path(), "ours"), &files)?;
        let rewritten = match asked.rewrite_rounds {
            0 => None,
            _ => Some(side(asked, &runtime, (folder.path(), "rewrite"), &files)?),
        };
        let merged = match asked.merge_rounds {
            0 => None,
            _ if rows > asked.merge_rows_max => None,
            _ => match side(asked, &runtime, (folder.path(), "merge"), &files) {
                Ok(answer) => Some(answer),
                // A side that runs out of memory is a result; a ratio is then not to be had.
                Err(error) => {
                    show(&format!("delta-rs MERGE failed: {}\n", error.chain()))?;
                    None
                }
            },
        };
        let sides = show::Sides { rows, ours: &ours, rewritten: rewritten.as_ref(), merged: merged.as_ref() };
        show(&sides.text())?;
        results.push(sides.to_json());
        let kept = json!({
            "program": heading().trim_end(), "fsync": asked.fsync, "snapshot_every": asked.snapshot_every,
            "results": results,
        });
        keep(asked.json.as_deref(), &kept)?;
    }
    Ok(())
}

/// Lets one side work on a table of its own, which is removed afterwards.
fn side(asked: &Asked, runtime: &Runtime, (folder, task): (&Path, &str), files: &SharedFiles) -> Result<Answer> {
    let plan = Plan {
        folder: folder.join(task),
        rows: files.rows,
        batches: asked.batches.clone(),
        rounds: match task {
            "ours" => asked.rounds,
            "rewrite" => asked.rewrite_rounds,
            _ => asked.merge_rounds,
        },
        fsync: asked.fsync,
        rewrites: task == "rewrite",
        snapshot_every: if task == "ours" { asked.snapshot_every } else { 0 },
        answer: folder.join(format!("{task}.answer")),
    };
    if plan.rounds == 0 {
        return Err(Error::invalid("--rounds cannot be 0"));
    }
    runtime.block_on(files.link_into(&plan.folder, task == "ours"))?;
    let file = folder.join(format!("{task}.json"));
    child::write_json(&file, &plan)?;
    Nursery::default().run(task, &file)?;
    let failed = |cause| Error::unavailable("cannot remove a table").with_source(cause);
    fs::remove_dir_all(&plan.folder).map_err(failed)?;
    child::read_json(&plan.answer)
}

fn runtime() -> Result<Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(8 << 20).build();
    runtime.map_err(|cause| Error::internal("cannot start a runtime").with_source(cause))
}
