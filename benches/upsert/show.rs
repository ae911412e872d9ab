//! Both sides as a table and as JSON.

use alluvium_benches::report::{TextTable, grouped, megabytes, percentile};
use serde_json::{Value, json};

use crate::{Answer, Cell};

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
    let again = match (ours.reopen_seconds, ours.snapshot_bytes.unwrap_or(0)) {
        (None, _) => String::new(),
        (Some(seconds), 0) => format!(", again in {seconds:.2} s: no snapshot was written within its limit"),
        (Some(seconds), bytes) => format!(", from its snapshot of {} in {seconds:.2} s", megabytes(bytes)),
    };
    let peak_again =
        ours.reopen_peak_bytes.map_or_else(String::new, |bytes| format!(", {} while opened again", megabytes(bytes)));
    format!(
        "opened, index from scratch, in {:.2} s{again}\nindex{index}; the process grew by {:.1} bytes a key; \
         peak {} over the batches{peak_again}",
        ours.open_seconds,
        ours.open_bytes as f64 / (rows as f64).max(1.0),
        megabytes(ours.rss_peak_bytes)
    )
}

/// Returns the table of a side of ours beside delta-rs.
fn cells(ours: &Answer, merged: Option<&Answer>) -> String {
    let headings = [
        "keys",
        "best",
        "median",
        "collapse",
        "write",
        "commit",
        "delta-rs best",
        "median",
        "ratio of bests",
        "written / batch",
        "delta-rs",
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

fn millis(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{:.1} ms", seconds * 1e3))
}
