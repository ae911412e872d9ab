//! Shows results: an aligned table for people, and one JSON document for programs.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use alluvium_catalog::{Error, Result};
use serde_json::Value;

/// A table of text; the first column is aligned to the left, all others to the right.
#[derive(Debug, Default)]
pub struct TextTable {
    rows: Vec<Vec<String>>,
}

impl TextTable {
    /// Returns a table with its headings.
    pub fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|heading| (*heading).to_owned()).collect()] }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    /// Returns the table's text, one line a row.
    pub fn render(&self) -> String {
        let n_columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            let lengths = self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            lengths.max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..n_columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let padding = " ".repeat(width - cell.chars().count());
                // Writing to a string cannot fail.
                let _: std::fmt::Result = match column {
                    0 => write!(line, "{cell}{padding}"),
                    _ => write!(line, "  {padding}{cell}"),
                };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// What `tests/services` starts.
const SERVICES: &str = include_str!("../tests/services.d/versions");

/// Says which versions of libraries the program is built of.
const LOCK: &str = include_str!("../Cargo.lock");

/// Those that figures hang on. The last one has the version of librdkafka behind its own.
const LIBRARIES: [&str; 6] = ["arrow", "parquet", "arrow-json", "datafusion", "deltalake", "rdkafka-sys"];

/// Returns the line that a benchmark begins with: the program, its libraries, each with its version, and the machine.
pub fn heading() -> String {
    let libraries: Vec<String> =
        LIBRARIES.iter().filter_map(|name| Some(format!("{name} {}", locked_version(LOCK, name)?))).collect();
    let n_cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let processor = processor().unwrap_or_else(|| "a processor without a name".to_owned());
    format!("alluvium {}, {}; {n_cores} cores of {processor}\n", env!("CARGO_PKG_VERSION"), libraries.join(", "))
}

/// Returns the version of a library in the text of a `Cargo.lock`.
fn locked_version<'a>(lock: &'a str, name: &str) -> Option<&'a str> {
    let (_, behind) = lock.split_once(&format!("\nname = \"{name}\"\nversion = \""))?;
    behind.split('"').next()
}

/// Returns what the system calls the processor.
fn processor() -> Option<String> {
    let told = fs::read_to_string("/proc/cpuinfo").ok()?;
    let name = told.lines().find(|line| line.starts_with("model name"))?.split_once(':')?.1;
    Some(name.trim().to_owned())
}

/// Returns the version of a server as `tests/services` starts it, such as that of `KAFKA`.
pub fn service_version(name: &str) -> Option<&'static str> {
    let mut settings = SERVICES.lines().filter_map(|line| line.split_once('='));
    settings.find_map(|(key, version)| (key.strip_suffix("_VERSION")? == name).then_some(version))
}

/// Writes text to standard output.
///
/// # Errors
/// `Closed` when nobody reads it.
pub fn show(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let closed = |cause| Error::closed("cannot write to standard output").with_source(cause);
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(closed)
}

/// Returns the exit code of a benchmark; what went wrong stands on standard error.
pub fn end(outcome: Result<()>) -> ExitCode {
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    let hint = error.hint().map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
    // Where nobody reads, the exit code is all there is.
    let _: std::io::Result<()> = std::io::stderr().write_all(format!("error: {}\n{hint}", error.chain()).as_bytes());
    ExitCode::FAILURE
}

/// Writes `value` to `file`, if one is named.
///
/// # Errors
/// `Unavailable` when the file cannot be written.
pub fn keep(file: Option<&Path>, value: &Value) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    fs::write(file, format!("{value:#}\n"))
        .map_err(|cause| Error::unavailable(format!("cannot write {}", file.display())).with_source(cause))
}

/// Returns a number with its thousands set apart.
pub fn grouped(number: f64) -> String {
    let digits = format!("{:.0}", number.max(0.0));
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns bytes as MB, one million each.
pub fn megabytes(bytes: u64) -> String {
    format!("{:.0} MB", bytes as f64 / 1e6)
}

/// Returns the value below which `share` of `values` lie; the nearest that occurs.
pub fn percentile(values: &mut [f64], share: f64) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    values.get((last as f64 * share).round() as usize).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = TextTable::new(&["what", "rows/s"]);
        table.row(["append".to_owned(), grouped(1_234_567.4)]);
        table.row(["x".to_owned(), grouped(0.0)]);
        assert_eq!(table.render(), "what       rows/s\nappend  1,234,567\nx               0\n");
    }

    #[test]
    fn the_versions_of_servers_are_known() {
        for name in ["KAFKA", "MINIO"] {
            assert!(service_version(name).is_some_and(|version| version.contains('.')), "{name}");
        }
        assert_eq!(service_version("GO"), None);
    }

    #[test]
    fn the_versions_of_libraries_are_known() {
        for name in LIBRARIES {
            assert!(locked_version(LOCK, name).is_some_and(|version| version.contains('.')), "{name}");
        }
        assert_eq!(locked_version(LOCK, "no-such-library"), None);
    }

    #[test]
    fn percentiles_are_values_that_occur() {
        let mut values: Vec<f64> = (1..=101).rev().map(f64::from).collect();
        assert_eq!(percentile(&mut values, 0.5), Some(51.0));
        assert_eq!(percentile(&mut values, 0.99), Some(100.0));
        assert_eq!(percentile(&mut [], 0.5), None);
    }
}
