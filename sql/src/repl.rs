//! The REPL of `alluvium sql`: reads statements and commands, runs them by a [`SessionBackend`], writes rows.
//!
//! ```text
//! terminal --editor--+
//! -c, -f, stdin -----+--script--> statement --backend--> rows --render--> out
//!                          +----> command  --describe--> rows --render--> out
//! ```
//! It writes rows to one handle and everything else to another, both given by the caller, ends nothing but itself, and
//! never writes a table itself: OPTIMIZE and VACUUM are done through [`Upkeep`]. Connections and sources that are typed go
//! into the catalog; a SELECT on a source looks at the topic through [`Peek`]. Before it: `main`. After it: nothing.

mod backend;
mod command;
mod complete;
mod define;
mod describe;
mod editor;
mod explain;
mod highlight;
mod history;
mod input;
mod lex;
mod peek;
mod render;
mod run;
mod script;
mod session;
mod upkeep;
mod work;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::sync::Arc;

use alluvium_catalog::{Result, TableName};

pub use backend::{Answer, Backend, Opened, Written};
pub use command::{Command, RowsMax};
pub use input::{Input, Interrupt, ScriptFrom};
pub use peek::{Peek, PeekLimit, Peeked};
pub use render::{Appetite, Expanded, Format, RenderOptions, Rendered, Renderer};
pub use session::SessionBackend;
pub use upkeep::{Tended, Upkeep};

use crate::diagnostic::SourceText;
use complete::Vocabulary;
use editor::{Editor, Typed};
use input::Lines;
use run::{Next, Runner};

/// Rows of a table on a terminal: a few screens.
const TERMINAL_ROWS_MAX: usize = 200;

/// How the REPL ended. It never ends the process; the caller returns [`Exit::code`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All went well.
    Ok,
    /// A statement or command failed, or a script could not be read.
    SqlError,
    /// The catalog, a table or a topic could not be reached.
    Unavailable,
    /// Ctrl-C.
    Interrupted,
}

impl Exit {
    /// Returns the exit code of the process.
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::SqlError => 1,
            Self::Unavailable => 3,
            // 128 + SIGINT, as shells count.
            Self::Interrupted => 130,
        }
    }
}

/// How the REPL behaves.
#[derive(Debug, Clone)]
pub struct ReplOptions {
    /// How rows are written.
    pub render: RenderOptions,
    /// The columns of the screen, asked before each result where `render` does not say; none cuts nothing.
    pub width: fn() -> Option<u16>,
    /// Whether errors may have colours.
    pub is_coloured: bool,
    /// Whether the time of each statement is shown.
    pub timing: bool,
    /// Whether a script goes on after an error.
    pub keep_going: bool,
    /// Whether greeting and confirmations are left out.
    pub is_quiet: bool,
    /// The history of a terminal; none keeps it in memory.
    pub history: Option<PathBuf>,
    /// What ends a running statement.
    pub interrupt: Interrupt,
}

impl ReplOptions {
    /// Returns what suits a person at a terminal.
    pub fn terminal() -> Self {
        let render = RenderOptions {
            format: Format::Table,
            expanded: Expanded::Auto,
            rows_max: Some(TERMINAL_ROWS_MAX),
            width: None,
        };
        let width = || terminal_size::terminal_size().map(|(width, _)| width.0);
        Self { render, width, is_coloured: true, timing: true, ..Self::script(Format::Table) }
    }

    /// Returns what suits a script whose results `format` is for.
    pub fn script(format: Format) -> Self {
        Self {
            render: RenderOptions { format, ..RenderOptions::default() },
            width: || None,
            is_coloured: false,
            timing: false,
            keep_going: false,
            is_quiet: false,
            history: None,
            interrupt: Interrupt::Signal,
        }
    }
}

/// What the REPL reads and writes besides the terminal.
pub struct Console {
    /// Read by scripts that come from standard input.
    pub stdin: Box<dyn BufRead + Send>,
    /// Takes results.
    pub out: Box<dyn Write + Send>,
    /// Takes everything else.
    pub err: Box<dyn Write + Send>,
}

impl fmt::Debug for Console {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Console").finish_non_exhaustive()
    }
}

/// Reads statements and commands, runs them, writes their rows.
pub struct Repl {
    runner: Runner,
    stdin: Option<Box<dyn BufRead + Send>>,
}

impl Repl {
    /// Returns a REPL over anything that runs statements: as a rule a [`SessionBackend`].
    pub fn new(backend: Arc<dyn Backend>, options: ReplOptions, console: Console) -> Self {
        let Console { stdin, out, err } = console;
        Self { runner: Runner::new(backend, options, out, err), stdin: Some(stdin) }
    }

    /// Runs `input` to its end and tells how it ended.
    pub async fn run(mut self, input: Input) -> Exit {
        let exit = match input {
            Input::Terminal => self.terminal().await,
            Input::Scripts(scripts) => self.scripts(scripts).await,
        };
        match (exit, self.runner.failed) {
            (Exit::Ok, Some(failed)) => failed,
            (exit, _) => exit,
        }
    }

    async fn scripts(&mut self, scripts: Vec<ScriptFrom>) -> Exit {
        for (i, script) in scripts.into_iter().enumerate() {
            let next = match script {
                ScriptFrom::Argument(text) => {
                    let source = Arc::new(SourceText::new(format!("argument {}", i + 1), text));
                    self.runner.text(&source).await
                }
                ScriptFrom::File(path) => self.runner.file(&path).await,
                ScriptFrom::Stdin => match self.stdin.take().map(Lines::start) {
                    Some(Ok(lines)) => self.runner.lines(lines).await,
                    Some(Err(error)) => {
                        self.runner.say(&explain::explain(&error, None, false));
                        Err(Exit::Unavailable)
                    }
                    // Standard input was read to its end by an earlier script.
                    None => Ok(Next::Go),
                },
            };
            match next {
                Ok(Next::Go) => {}
                Ok(Next::Quit) => return Exit::Ok,
                Err(exit) => return exit,
            }
        }
        Exit::Ok
    }

    async fn terminal(&mut self) -> Exit {
        let mut editor = match Editor::open(self.runner.options.history.as_deref()) {
            Ok(editor) => editor,
            Err(error) => {
                // Without its history a session is poorer, not useless.
                self.runner.say(&explain::explain(&error, None, self.runner.options.is_coloured));
                match Editor::open(None) {
                    Ok(editor) => editor,
                    Err(_) => return Exit::Unavailable,
                }
            }
        };
        self.runner.is_typed = true;
        if !self.runner.options.is_quiet {
            self.runner.say("Alluvium SQL. End statements with ';', see the commands with '\\?', quit with '\\q'.");
        }
        let functions = self.runner.backend.functions().await.unwrap_or_default();
        loop {
            let vocabulary = self.vocabulary(functions.clone()).await.unwrap_or_default();
            match editor.read(vocabulary).await {
                Ok(Typed::Text(text)) => {
                    let source = Arc::new(SourceText::new("input", text));
                    let next = self.runner.text(&source).await;
                    // What failed was reported, and the prompt comes back.
                    self.runner.failed = None;
                    if next == Ok(Next::Quit) {
                        break;
                    }
                }
                Ok(Typed::GivenUp) => {}
                Ok(Typed::End) => break,
                Err(error) => {
                    self.runner.say(&explain::explain(&error, None, self.runner.options.is_coloured));
                    return Exit::Unavailable;
                }
            }
        }
        Exit::Ok
    }

    /// Returns what can be named now.
    async fn vocabulary(&self, functions: Vec<String>) -> Result<Vocabulary> {
        let backend = &self.runner.backend;
        let mut relations: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for table in backend.tables().await? {
            relations.insert(written(&table), vec![]);
        }
        for dataset in backend.catalog().datasets().await? {
            let columns = dataset.table.map(|table| table.columns).unwrap_or_default();
            let names = columns.into_iter().map(|column| column.name).collect();
            relations.insert(written(&dataset.name), names);
        }
        for source in backend.catalog().sources().await? {
            let names = source.columns.into_iter().map(|column| column.column.name).collect();
            relations.insert(source.name.to_string(), names);
        }
        Ok(Vocabulary { relations, functions: functions.into_iter().collect() })
    }
}

impl fmt::Debug for Repl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Repl").field("options", &self.runner.options).finish_non_exhaustive()
    }
}

/// Returns a table's name as people write it: without the schema that is meant anyway.
fn written(name: &TableName) -> String {
    if name.schema() == TableName::DEFAULT_SCHEMA { name.table().to_owned() } else { name.to_string() }
}
