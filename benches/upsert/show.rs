//! Both sides as a table and as JSON.

use alluvium_benches::report::{TextTable, grouped, megabytes, percentile};
use serde_json::{Value, json};

use crate::{Answer, Cell, SnapshotsMeanwhile};

/// What may be held beside the index.
const MEMORY_GOAL: u64 = 512_000_000;

/// What all sides did to tables of one size.
#[derive(Debug)]
pub(crate) struct Sides<'a> {
    pub(crate) rows: u64,
    /// Deletion vectors.
    pub(crate) ours: &'a Answer,
    /// Copy-on-write.
    pub(crate) rewritten: Option<&'a Answer>,
    /// delta-rs MERGE.
    pub(crate) merged: Option<&'a Answer>,
}

impl Sides<'_> {
    /// Returns all of it as text.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("\n{} rows: {}", grouped(self.rows as f64), opened(self.rows, self.ours));
        if let Some(merged) = self.merged {
            text.push_str(&format!("; delta-rs peak {}", megabytes(merged.rss_peak_bytes)));
        }
        text.push_str(&format!("\n\n{}", cells(self.ours, self.merged)));
        if let Some(snapshots) = &self.ours.snapshots {
            text.push_str(&format!("\n{}\n\n{}", meanwhile(snapshots), beside_snapshots(self.ours, snapshots)));
        }
        if let Some(rewritten) = self.rewritten {
            text.push_str(&format!("\ncopy-on-write: {}\n\n", opened(self.rows, rewritten)));
            text.push_str(&cells(rewritten, self.merged));
        }
        text
    }

    /// Returns all of it for programs.
    pub(crate) fn to_json(&self) -> Value {
        let Self { rows, ours, rewritten, merged } = self;
        let ratios: Vec<Value> =
            ours.cells.iter().map(|cell| json!({"keys": cell.keys, "ratio_of_bests": ratio(cell, *merged)})).collect();
        json!({"rows": rows, "ours": ours, "copy_on_write": rewritten, "delta_rs": merged, "ratios": ratios})
    }
}

/// Says how a table of ours was opened, and what memory it took.
fn opened(rows: u64, ours: &Answer) -> String {
    let index = ours.index.map_or_else(String::new, |index| {
        let each = index.bytes as f64 / (index.keys as f64).max(1.0);
        format!(": {} or {each:.1} bytes a key", megabytes(index.bytes))
    });
    let behind = match ours.snapshot_behind.unwrap_or(0) {
        0 => String::new(),
        n_versions => format!(", {n_versions} versions old,"),
    };
    let again = match (ours.reopen_seconds, ours.snapshot_bytes.unwrap_or(0)) {
        (None, _) => String::new(),
        (Some(seconds), 0) => format!(", again in {seconds:.2} s: no snapshot was written within its limit"),
        (Some(seconds), bytes) => format!(", from its snapshot of {}{behind} in {seconds:.2} s", megabytes(bytes)),
    };
    format!(
        "opened, index from scratch, in {:.2} s{again}\nindex{index}; the process grew by {:.1} bytes a key\n{}",
        ours.open_seconds,
        ours.open_bytes as f64 / (rows as f64).max(1.0),
        memory(ours),
    )
}

/// Says what memory a side of ours took, and what of it beside the index.
fn memory(ours: &Answer) -> String {
    let rounds = ours.rounds_peak_bytes.unwrap_or(ours.rss_peak_bytes);
    let mut text = format!("peak memory {} over the batches", megabytes(rounds));
    if let Some(index) = ours.index_after {
        text.push_str(&format!(
            ", {} beside the index of {} (goal {})",
            megabytes(rounds.saturating_sub(index.bytes)),
            megabytes(index.bytes),
            megabytes(MEMORY_GOAL),
        ));
    }
    if let Some(bytes) = ours.open_peak_bytes {
        text.push_str(&format!(", {} while opened from scratch", megabytes(bytes)));
    }
    if let Some(bytes) = ours.reopen_peak_bytes {
        text.push_str(&format!(", {} while opened again", megabytes(bytes)));
    }
    text
}

/// Says which snapshots were taken while batches landed, or plainly that the figures are those without one.
fn meanwhile(snapshots: &SnapshotsMeanwhile) -> String {
    let span = |versions: &[u64]| match versions {
        [] => "none".to_owned(),
        [only] => format!("1, of version {only}"),
        [first, .., last] => format!("{}, of versions {first} to {last}", versions.len()),
    };
    let lying: Vec<String> =
        snapshots.lying.iter().map(|(version, bytes)| format!("{version} with {}", megabytes(*bytes))).collect();
    let beside = if lying.is_empty() { "none".to_owned() } else { lying.join(", ") };
    let warning = match (snapshots.begun.is_empty(), snapshots.written.is_empty()) {
        (true, _) => "; NO SNAPSHOT WAS BEGUN: the figures are those without one",
        (_, true) => "; NO SNAPSHOT BECAME WHOLE: the figures are those of a part of one",
        _ => "",
    };
    format!(
        "snapshots of the index each {} versions, while batches landed: begun {}; whole {}; beside the table when the last \
         batch had landed: {beside}{warning}",
        snapshots.every,
        span(&snapshots.begun),
        span(&snapshots.written),
    )
}

/// Returns the table of the rounds that a snapshot was begun or written beside, and of the others.
fn beside_snapshots(ours: &Answer, snapshots: &SnapshotsMeanwhile) -> String {
    let headings =
        ["keys", "rounds", "slowest", "beside a snapshot", "median", "slowest", "other rounds", "median", "slowest"];
    let mut table = TextTable::new(&headings);
    let rounds = ours.cells.iter().map(|cell| (cell, ""));
    for (cell, note) in rounds.chain(snapshots.overtime.iter().map(|cell| (cell, ", until it was whole"))) {
        let mut beside = Vec::new();
        let mut others = Vec::new();
        for (seconds, is_beside) in cell.seconds.iter().zip(&cell.beside_snapshot) {
            let kind = if *is_beside { &mut beside } else { &mut others };
            kind.push(*seconds);
        }
        table.row([
            format!("{}{note}", grouped(cell.keys as f64)),
            cell.seconds.len().to_string(),
            millis(slowest(&cell.seconds)),
            beside.len().to_string(),
            millis(median(&beside)),
            millis(slowest(&beside)),
            others.len().to_string(),
            millis(median(&others)),
            millis(slowest(&others)),
        ]);
    }
    table.render()
}

/// Returns the table of a side of ours beside delta-rs.
fn cells(ours: &Answer, merged: Option<&Answer>) -> String {
    let headings = [
        "keys",
        "best",
        "median",
        "slowest",
        "collapse",
        "write",
        "commit",
        "delta-rs best",
        "median",
        "ratio of bests",
        "written / batch",
        "delta-rs writes",
    ];
    let mut table = TextTable::new(&headings);
    for cell in &ours.cells {
        let other = matching(cell, merged);
        let amplification = |bytes: u64| format!("{:.1}", bytes as f64 / (cell.batch_bytes as f64).max(1.0));
        let dash = || "-".to_owned();
        table.row([
            grouped(cell.keys as f64),
            millis(best(&cell.seconds)),
            millis(median(&cell.seconds)),
            millis(slowest(&cell.seconds)),
            millis(median(&cell.collapse_seconds)),
            millis(median(&cell.write_seconds)),
            millis(median(&cell.commit_seconds)),
            other.map_or_else(dash, |other| millis(best(&other.seconds))),
            other.map_or_else(dash, |other| millis(median(&other.seconds))),
            ratio(cell, merged).map_or_else(dash, |ratio| format!("{ratio:.1}")),
            amplification(cell.bytes_written),
            other.map_or_else(dash, |other| {
                let rounds = other.seconds.len() as f64 / (cell.seconds.len() as f64).max(1.0);
                amplification((other.bytes_written as f64 / rounds) as u64)
            }),
        ]);
    }
    table.render()
}

fn ratio(cell: &Cell, merged: Option<&Answer>) -> Option<f64> {
    Some(best(&matching(cell, merged)?.seconds)? / best(&cell.seconds)?)
}

fn matching<'a>(cell: &Cell, merged: Option<&'a Answer>) -> Option<&'a Cell> {
    merged?.cells.iter().find(|other| other.keys == cell.keys)
}

fn best(seconds: &[f64]) -> Option<f64> {
    percentile(&mut seconds.to_vec(), 0.0)
}

fn median(seconds: &[f64]) -> Option<f64> {
    percentile(&mut seconds.to_vec(), 0.5)
}

fn slowest(seconds: &[f64]) -> Option<f64> {
    percentile(&mut seconds.to_vec(), 1.0)
}

fn millis(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{:.1} ms", seconds * 1e3))
}
