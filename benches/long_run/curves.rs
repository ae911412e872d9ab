//! What a long run tells of itself, line by line, how much each column grew, and whether that is too much.

use alluvium_benches::report::{heading, megabytes};
use alluvium_catalog::{Error, Result};
use serde_json::{Map, Value, json};

use crate::Asked;

/// How much a column may grow from its second quarter to its last. What grows by the same with each commit, from
/// nothing on, grows 2.33-fold.
const GROWTH_MAX: Option<f64> = Some(1.5);

/// The same for the bytes of the log, which swing with the rounds of compaction, and for the time to load it.
const LOG_GROWTH_MAX: Option<f64> = Some(2.0);

/// Commits from which on growth is judged: the second quarter then begins past the first thousand, in which keys and
/// files gather.
const JUDGED_MIN: usize = 4_000;

/// What a line tells after the number of commits, each with its decimals and how much it may grow; what hangs on chance
/// or on what is judged beside it is not judged itself.
pub(crate) const COLUMNS: [(&str, usize, Option<f64>); 13] = [
    ("commit p50 ms", 2, GROWTH_MAX),
    ("p99 ms", 2, None),
    ("rss MB", 0, GROWTH_MAX),
    ("rss anon MB", 1, None),
    ("index MB", 2, None),
    ("index keys", 0, None),
    ("log versions", 0, None),
    ("log files", 0, GROWTH_MAX),
    ("log MB", 2, LOG_GROWTH_MAX),
    ("data files", 0, None),
    ("with vectors", 0, None),
    ("data MB", 1, None),
    ("load ms", 1, LOG_GROWTH_MAX),
];

/// The lines so far.
#[derive(Debug, Default)]
pub(crate) struct Curves {
    lines: Vec<(usize, [f64; COLUMNS.len()])>,
    /// What is told after the last commit.
    pub(crate) end: Option<End>,
}

impl Curves {
    pub(crate) fn heading() -> String {
        let names = COLUMNS.iter().map(|(name, ..)| format!("  {name:>13}"));
        format!("{:<22}{}\n", "commits", names.collect::<String>())
    }

    /// Adds a line and returns its text.
    pub(crate) fn add(&mut self, commits: usize, values: [f64; COLUMNS.len()]) -> String {
        self.lines.push((commits, values));
        let cells = values.iter().zip(COLUMNS).map(|(value, (_, decimals, _))| format!("  {value:>13.decimals$}"));
        format!("{commits:<22}{}\n", cells.collect::<String>())
    }

    /// Returns for each column the mean of its last quarter over that of its second; `None` below four lines.
    fn growth(&self) -> Option<[f64; COLUMNS.len()]> {
        let quarter = self.lines.len() / 4;
        let (second, last) = (self.lines.get(quarter..2 * quarter)?, self.lines.get(self.lines.len() - quarter..)?);
        let mean = |lines: &[(usize, [f64; COLUMNS.len()])], column: usize| {
            lines.iter().map(|(_, values)| values[column]).sum::<f64>() / lines.len() as f64
        };
        (quarter > 0).then(|| std::array::from_fn(|column| mean(last, column) / mean(second, column)))
    }

    /// Checks that no column grew by more than it may, where there were commits enough to tell.
    ///
    /// # Errors
    /// `Internal`, naming each column that did.
    pub(crate) fn check_flat(&self) -> Result<()> {
        let n_commits = self.lines.last().map_or(0, |(commits, _)| *commits);
        let Some(growth) = self.growth() else { return Ok(()) };
        let mut grown = Vec::new();
        for ((name, _, growth_max), ratio) in COLUMNS.iter().zip(growth) {
            if let Some(growth_max) = growth_max
                && ratio > *growth_max
            {
                grown.push(format!("{name} grew {ratio:.2}-fold, and {growth_max} is allowed"));
            }
        }
        if n_commits < JUDGED_MIN || grown.is_empty() {
            return Ok(());
        }
        Err(Error::internal(format!("not flat from the second quarter to the last: {}", grown.join("; "))))
    }

    pub(crate) fn foot(&self) -> String {
        let ratios = self.growth().map_or_else(
            || "fewer than four lines: no ratios\n".to_owned(),
            |growth| {
                // A column that stays at nothing has no ratio.
                let text = |ratio: f64| if ratio.is_finite() { format!("{ratio:.2}") } else { "-".to_owned() };
                let cells = growth.iter().map(|ratio| format!("  {:>13}", text(*ratio)));
                format!("{:<22}{}\n", "last / second quarter", cells.collect::<String>())
            },
        );
        let end = self.end.map_or_else(String::new, |End { rss_bytes, rss_in_use_bytes }| {
            let (held, in_use) = (megabytes(rss_bytes), megabytes(rss_in_use_bytes));
            format!("resident after the last commit {held}, {in_use} when free memory had been given back\n")
        });
        ratios + &end
    }

    pub(crate) fn to_json(&self, asked: &Asked) -> Value {
        let named = |values: &[f64; COLUMNS.len()]| -> Map<String, Value> {
            COLUMNS.iter().zip(values).map(|((name, ..), value)| ((*name).to_owned(), json!(value))).collect()
        };
        let lines: Vec<Value> =
            self.lines.iter().map(|(commits, values)| json!({"commits": commits, "values": named(values)})).collect();
        json!({
            "program": heading().trim_end(),
            "mode": asked.mode.as_str(), "commits": asked.commits, "rows": asked.rows, "keys": asked.keys, "lines": lines,
            "rss_bytes": self.end.map(|end| end.rss_bytes),
            "rss_in_use_bytes": self.end.map(|end| end.rss_in_use_bytes),
            "last_over_second_quarter": self.growth().map(|growth| named(&growth)),
        })
    }
}

/// The memory of the process after the last commit: what the allocator has kept of freed memory is no growth of ours.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    pub(crate) rss_bytes: u64,
    /// When what was free had been given back to the system.
    pub(crate) rss_in_use_bytes: u64,
}
