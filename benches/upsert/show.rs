//! Both sides as a table and as JSON.

use alluvium_benches::report::{TextTable, grouped, megabytes, percentile};
use serde_json::{Value, json};

use crate::{Answer, Cell};

/// Returns the table of one size.
pub(crate) fn text(rows: u64, ours: &Answer, merged: Option<&Answer>) -> String {
    let mut text = format!(
        "\n{} rows: opened, index from scratch, in {:.2} s; {:.1} bytes of memory a key; peak {}",
        grouped(rows as f64),
        ours.open_seconds,
        ours.open_bytes as f64 / (rows as f64).max(1.0),
        megabytes(ours.rss_peak_bytes)
    );
    if let Some(merged) = merged {
        text.push_str(&format!("; delta-rs peak {}", megabytes(merged.rss_peak_bytes)));
    }
    text.push_str("\n\n");
    let headings = [
        "keys",
        "best",
        "median",
        "of that collapse",
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
    text.push_str(&table.render());
    text
}

/// Returns both sides for programs.
pub(crate) fn to_json(rows: u64, ours: &Answer, merged: Option<&Answer>) -> Value {
    let ratios: Vec<Value> =
        ours.cells.iter().map(|cell| json!({"keys": cell.keys, "ratio_of_bests": ratio(cell, merged)})).collect();
    json!({"rows": rows, "ours": ours, "delta_rs": merged, "ratios": ratios})
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
