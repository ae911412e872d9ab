//! What a long run tells of itself, line by line, and how much each column grew.

use serde_json::{Map, Value, json};

use crate::Asked;

/// What a line tells after the number of commits, each with its decimals.
pub(crate) const COLUMNS: [(&str, usize); 11] = [
    ("commit p50 ms", 2),
    ("p99 ms", 2),
    ("rss MB", 0),
    ("index MB", 2),
    ("index keys", 0),
    ("log versions", 0),
    ("log files", 0),
    ("log MB", 2),
    ("data files", 0),
    ("data MB", 1),
    ("load ms", 1),
];

/// The lines so far.
#[derive(Debug, Default)]
pub(crate) struct Curves {
    lines: Vec<(usize, [f64; COLUMNS.len()])>,
}

impl Curves {
    pub(crate) fn heading() -> String {
        let names = COLUMNS.iter().map(|(name, _)| format!("  {name:>13}"));
        format!("{:<22}{}\n", "commits", names.collect::<String>())
    }

    /// Adds a line and returns its text.
    pub(crate) fn add(&mut self, commits: usize, values: [f64; COLUMNS.len()]) -> String {
        self.lines.push((commits, values));
        let cells = values.iter().zip(COLUMNS).map(|(value, (_, decimals))| format!("  {value:>13.decimals$}"));
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

    pub(crate) fn foot(&self) -> String {
        let Some(growth) = self.growth() else { return "fewer than four lines: no ratios\n".to_owned() };
        let cells = growth.iter().map(|ratio| format!("  {ratio:>13.2}"));
        format!("{:<22}{}\n", "last / second quarter", cells.collect::<String>())
    }

    pub(crate) fn to_json(&self, asked: &Asked) -> Value {
        let named = |values: &[f64; COLUMNS.len()]| -> Map<String, Value> {
            COLUMNS.iter().zip(values).map(|((name, _), value)| ((*name).to_owned(), json!(value))).collect()
        };
        let lines: Vec<Value> =
            self.lines.iter().map(|(commits, values)| json!({"commits": commits, "values": named(values)})).collect();
        json!({
            "commits": asked.commits, "rows": asked.rows, "keys": asked.keys, "lines": lines,
            "last_over_second_quarter": self.growth().map(|growth| named(&growth)),
        })
    }
}
