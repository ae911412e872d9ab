//! The other readers: each a process that reads all tables and answers in the one form of `canonical.py`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::lake::Lake;
use crate::harness::{TestResult, services};

/// Who reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    /// Our own session, by the program.
    Alluvium,
    DuckDb,
    Polars,
    /// The Python package.
    Deltalake,
    Spark,
}

/// What a reader makes of a table: the lines of its rows, sorted, or why it refuses it.
pub(super) type Answer = Result<Vec<String>, String>;

impl Reader {
    /// Returns the name by which `read.py` knows it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Alluvium => "alluvium",
            Self::DuckDb => "duckdb",
            Self::Polars => "polars",
            Self::Deltalake => "deltalake",
            Self::Spark => "spark",
        }
    }

    /// Returns the Python that has it; nothing where it is left out. Our own rows need no more than any Python.
    pub(super) fn python(self) -> TestResult<Option<PathBuf>> {
        match self {
            Self::Alluvium => Ok(Some("python3".into())),
            Self::DuckDb => services::duckdb(),
            Self::Polars | Self::Deltalake => services::readers(),
            Self::Spark => services::spark(),
        }
    }

    /// Reads the tables of `jobs`, as `read.py` wants them.
    pub(super) fn read(self, python: &Path, lake: &Lake, jobs: &[Value]) -> TestResult<BTreeMap<String, Answer>> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("readers/read.py");
        let mut process = Command::new(python)
            .arg(script)
            .arg(self.name())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONUTF8", "1")
            .envs(lake.variables())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{} at {}: {error}", self.name(), python.display()))?;
        let mut input = process.stdin.take().ok_or("no standard input")?;
        for job in jobs {
            writeln!(input, "{job}")?;
        }
        drop(input);
        let ended = process.wait_with_output()?;
        if !ended.status.success() {
            let said = String::from_utf8_lossy(&ended.stderr);
            return Err(format!("{} ended with {}:\n{said}", self.name(), ended.status).into());
        }
        let answers = answers(&ended.stdout)?;
        for job in jobs {
            let table = job["table"].as_str().unwrap_or_default();
            if !answers.contains_key(table) {
                return Err(format!("{} says nothing of {table}", self.name()).into());
            }
        }
        Ok(answers)
    }
}

/// Takes the lines of an answer apart; a table whose end is missing is an error.
fn answers(out: &[u8]) -> TestResult<BTreeMap<String, Answer>> {
    let mut rows: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut answers = BTreeMap::new();
    for line in out.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let line: Value = serde_json::from_slice(line)?;
        let table = line["table"].as_str().ok_or("a line without table")?.to_owned();
        if let Some(error) = line["error"].as_str() {
            answers.insert(table, Err(error.to_owned()));
        } else if let Some(n_rows) = line["n_rows"].as_u64() {
            let own = rows.remove(&table).unwrap_or_default();
            if own.len() as u64 != n_rows {
                return Err(format!("{} rows of {table}, not {n_rows}", own.len()).into());
            }
            answers.insert(table, Ok(own));
        } else {
            rows.entry(table).or_default().push(line["row"].to_string());
        }
    }
    Ok(answers)
}
