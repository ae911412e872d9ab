//! Where statements come from when nobody sits at a terminal, and the interrupt that ends them early.

use std::fmt;
use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use alluvium_catalog::{Error, Result};
use tokio::sync::{Notify, mpsc};

use crate::diagnostic::{SourceText, unreadable};

/// The longest line and the longest statement that a pipe may deliver; more is not SQL.
pub(super) const STATEMENT_BYTES_MAX: usize = 16 << 20;

/// The longest file that is run: it is held as a whole, and what is longer is data that was taken for a script.
const FILE_BYTES_MAX: usize = 64 << 20;

/// Lines read ahead of the statement that runs.
const LINES_MAX: usize = 64;

/// What the REPL runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Whoever sits at the terminal.
    Terminal,
    /// Scripts, one after the other, and then nothing.
    Scripts(Vec<ScriptFrom>),
}

/// Where a script stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScriptFrom {
    /// In an argument: `-c`.
    Argument(String),
    /// In a file: `-f FILE`.
    File(PathBuf),
    /// On standard input: `-f -`, or no argument where standard input is no terminal. Statements run as they arrive.
    Stdin,
}

/// What ends a running statement early.
#[derive(Debug, Clone)]
pub enum Interrupt {
    /// Ctrl-C, as a signal to the process.
    Signal,
    /// Whoever notifies.
    Notified(Arc<Notify>),
}

impl Interrupt {
    /// Waits for the next interrupt.
    pub(super) async fn wait(&self) {
        match self {
            Self::Notified(notify) => notify.notified().await,
            // Where no signal can be caught, the default action ends the process: as good.
            Self::Signal => match tokio::signal::ctrl_c().await {
                Ok(()) => {}
                Err(_) => std::future::pending().await,
            },
        }
    }
}

/// The lines of a blocking reader.
pub(super) struct Lines {
    lines: mpsc::Receiver<Result<String>>,
}

impl Lines {
    /// Begins to read.
    ///
    /// The thread is not joined: one that waits for a terminal or a pipe can neither be woken nor waited for. It ends
    /// with the input, or at the first line that nobody takes.
    ///
    /// # Errors
    /// `Unavailable` when there is no thread to be had.
    pub(super) fn start(mut reader: Box<dyn BufRead + Send>) -> Result<Self> {
        let (sender, lines) = mpsc::channel(LINES_MAX);
        let read = move || {
            while let Some(line) = read_line(reader.as_mut()).transpose() {
                let is_last = line.is_err();
                if sender.blocking_send(line).is_err() || is_last {
                    break;
                }
            }
        };
        let thread = std::thread::Builder::new().name("stdin".to_owned()).spawn(read);
        thread.map_err(|source| Error::unavailable("cannot read standard input").with_source(source))?;
        Ok(Self { lines })
    }

    /// Returns the next line with its end, or none after the last.
    ///
    /// # Errors
    /// `Unavailable` when the reader fails, `Data` when a line is no text, `Invalid` when it is too long.
    pub(super) async fn next(&mut self) -> Option<Result<String>> {
        self.lines.recv().await
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Lines").finish_non_exhaustive()
    }
}

/// Reads a script. It can be given up while waiting, as for a pipe that nobody writes to.
///
/// # Errors
/// `Invalid` when there is no such file, or it is no text, or longer than any script.
pub(super) async fn read_file(path: PathBuf) -> Result<String> {
    let reading = tokio::task::spawn_blocking(move || read_script(&path)).await;
    reading.map_err(|source| Error::internal("reading a script was broken off").with_source(source))?
}

fn read_script(path: &Path) -> Result<String> {
    let failed = |cause| unreadable(path, cause);
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > FILE_BYTES_MAX {
        let error = Error::invalid(format!("{} is longer than {} MiB", path.display(), FILE_BYTES_MAX >> 20));
        return Err(error.with_hint("a script on standard input is run statement by statement, and may be longer"));
    }
    String::from_utf8(bytes).map_err(|source| failed(io::Error::new(io::ErrorKind::InvalidData, source)))
}

fn read_line(reader: &mut dyn BufRead) -> Result<Option<String>> {
    let mut bytes = Vec::new();
    let n_read = Read::take(reader, STATEMENT_BYTES_MAX as u64 + 1).read_until(b'\n', &mut bytes);
    let n_read = n_read.map_err(|source| Error::unavailable("cannot read standard input").with_source(source))?;
    if n_read == 0 {
        return Ok(None);
    }
    if n_read > STATEMENT_BYTES_MAX {
        return Err(too_long());
    }
    let text = String::from_utf8(bytes);
    text.map(Some).map_err(|source| {
        let error = Error::data("cannot read standard input: it is not UTF-8").with_source(source);
        error.with_hint("convert it, as by iconv -t UTF-8")
    })
}

/// Returns what arrived on standard input from a line on, which its name tells.
pub(super) fn stdin_text(line_number: usize, text: String) -> SourceText {
    let name = if line_number == 1 { "stdin".to_owned() } else { format!("stdin, from line {line_number}") };
    SourceText::new(name, text)
}

/// Says that a statement is longer than any statement.
pub(super) fn too_long() -> Error {
    let limit = STATEMENT_BYTES_MAX >> 20;
    Error::invalid(format!("a statement on standard input is longer than {limit} MiB"))
        .with_hint("is a ';' or a closing quote missing?")
}
