//! Runs scripts piece by piece: statements by the backend, commands by itself.
//!
//! Rows go to `out`, everything else to `err`. The first error ends a script unless it is to go on; an interrupt ends
//! everything but a terminal's prompt.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use alluvium_catalog::{Error, ErrorKind, Result, counted};
use arrow::array::RecordBatch;
use tokio::time::Instant;

use super::backend::{Backend, Written};
use super::command::{Command, RowsMax};
use super::describe::{self, Described};
use super::explain::{broken_off, explain};
use super::input::{Lines, STATEMENT_BYTES_MAX, read_file, stdin_text, too_long};
use super::render::{Appetite, Expanded, Format, RenderOptions, Rendered, Renderer, took, unwritable};
use super::script::{Piece, Script};
use super::work::{Part, Work};
use super::{Exit, ReplOptions};
use crate::diagnostic::SourceText;
use crate::visible::visible_lines;

/// Scripts within scripts: a script that includes itself ends here.
const DEPTH_MAX: usize = 16;

/// Whether the next piece may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Next {
    /// It may.
    Go,
    /// The REPL ends.
    Quit,
}

/// Why a piece did not run to its end.
#[derive(Debug)]
pub(super) enum Failure {
    /// It failed.
    Error(Error),
    /// It was interrupted.
    Interrupted,
    /// It asked to end the REPL with this.
    Exit(Exit),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// Runs pieces of scripts, and holds what commands change.
pub(super) struct Runner {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) options: ReplOptions,
    pub(super) out: Box<dyn Write + Send>,
    pub(super) err: Box<dyn Write + Send>,
    /// Where `\o` sends rows.
    file: Option<BufWriter<File>>,
    depth: usize,
    /// The first failure of a script that went on.
    pub(super) failed: Option<Exit>,
    /// Whether somebody types, and sees what fails.
    pub(super) is_typed: bool,
}

impl Runner {
    /// Returns a runner that has run nothing.
    pub(super) fn new(
        backend: Arc<dyn Backend>,
        options: ReplOptions,
        out: Box<dyn Write + Send>,
        err: Box<dyn Write + Send>,
    ) -> Self {
        Self { backend, options, out, err, file: None, depth: 0, failed: None, is_typed: false }
    }

    /// Runs all of a text; what does not end with `;` is its last statement.
    ///
    /// # Errors
    /// How the REPL must end, when it must.
    pub(super) async fn text(&mut self, source: &Arc<SourceText>) -> Result<Next, Exit> {
        for piece in Script::new(source.text()) {
            if self.piece(source, piece).await? == Next::Quit {
                return Ok(Next::Quit);
            }
        }
        Ok(Next::Go)
    }

    /// Runs a file.
    ///
    /// # Errors
    /// How the REPL must end, when it must.
    pub(super) async fn file(&mut self, path: &Path) -> Result<Next, Exit> {
        let interrupt = self.options.interrupt.clone();
        let read = tokio::select! {
            biased;
            () = interrupt.wait() => return self.settle(Failure::Interrupted, None, Exit::Interrupted),
            read = read_file(path.to_owned()) => read,
        };
        match read {
            Ok(text) => self.text(&Arc::new(SourceText::new(path.display().to_string(), text))).await,
            Err(error) => self.settle(Failure::Error(error), None, Exit::SqlError),
        }
    }

    /// Runs what arrives line by line, each statement as soon as it is finished.
    ///
    /// # Errors
    /// How the REPL must end, when it must.
    pub(super) async fn lines(&mut self, mut lines: Lines) -> Result<Next, Exit> {
        let mut pending = String::new();
        let mut line_number = 1;
        loop {
            let interrupt = self.options.interrupt.clone();
            let line = tokio::select! {
                biased;
                () = interrupt.wait() => return self.settle(Failure::Interrupted, None, Exit::Interrupted),
                line = lines.next() => line,
            };
            let line = match line {
                Some(Ok(line)) => line,
                Some(Err(error)) => return self.settle(Failure::Error(error), None, Exit::SqlError),
                None => break,
            };
            let may_end = pending.trim().is_empty() || line.contains([';', '\\']);
            pending.push_str(&line);
            if pending.len() > STATEMENT_BYTES_MAX {
                return self.settle(Failure::Error(too_long()), None, Exit::SqlError);
            }
            if may_end && self.finished(&mut pending, &mut line_number).await? == Next::Quit {
                return Ok(Next::Quit);
            }
        }
        self.text(&Arc::new(stdin_text(line_number, pending))).await
    }

    /// Runs the finished pieces of `pending` and takes them out of it.
    async fn finished(&mut self, pending: &mut String, line_number: &mut usize) -> Result<Next, Exit> {
        let source = Arc::new(stdin_text(*line_number, pending.clone()));
        let mut script = Script::new(source.text());
        let mut done = 0;
        let is_waiting = loop {
            match script.next() {
                None => break false,
                Some(Piece::Rest { .. }) => break true,
                Some(piece) => {
                    done = script.at();
                    if self.piece(&source, piece).await? == Next::Quit {
                        return Ok(Next::Quit);
                    }
                }
            }
        };
        // What follows is counted from where it begins, not from the line breaks before it.
        let rest = &source.text()[done..];
        // Comments alone wait for nothing: a command may follow them.
        done += if is_waiting { rest.len() - rest.trim_start().len() } else { rest.len() };
        *line_number += source.text()[..done].matches('\n').count();
        pending.drain(..done);
        Ok(Next::Go)
    }

    async fn piece(&mut self, source: &Arc<SourceText>, piece: Piece<'_>) -> Result<Next, Exit> {
        let (text, start, is_expanded) = match piece {
            Piece::Command { text, .. } => {
                return match self.command(text).await {
                    Ok(next) => Ok(next),
                    Err(failure) => self.settle(failure, None, Exit::SqlError),
                };
            }
            Piece::Broken { text, start } => {
                return self.broken(&Written { source: Arc::clone(source), span: start..start + text.len() });
            }
            Piece::Statement { text, start, is_expanded } => (text, start, is_expanded),
            Piece::Rest { text, start } => (text, start, false),
        };
        let written = Written { source: Arc::clone(source), span: start..start + text.len() };
        match self.statement(written.clone(), is_expanded).await {
            Ok(()) => Ok(Next::Go),
            Err(failure) => self.settle(failure, Some(&written), Exit::SqlError),
        }
    }

    /// Reports a statement that a command broke off. Whoever types sees it and goes on with the command.
    fn broken(&mut self, written: &Written) -> Result<Next, Exit> {
        let settled = self.settle(Failure::Error(broken_off(written)), Some(written), Exit::SqlError);
        if self.is_typed { Ok(Next::Go) } else { settled }
    }

    /// Reports a failure and decides whether the next piece runs.
    fn settle(&mut self, failure: Failure, written: Option<&Written>, exit: Exit) -> Result<Next, Exit> {
        let exit = match failure {
            Failure::Exit(exit) => return Err(exit),
            Failure::Interrupted => {
                self.say("interrupted");
                return Err(Exit::Interrupted);
            }
            Failure::Error(error) => {
                let text = explain(&error, written, self.options.is_coloured);
                self.say(text.trim_end());
                if error.kind() == ErrorKind::Unavailable { Exit::Unavailable } else { exit }
            }
        };
        self.failed.get_or_insert(exit);
        if self.options.keep_going { Ok(Next::Go) } else { Err(exit) }
    }

    async fn statement(&mut self, written: Written, is_expanded: bool) -> Result<(), Failure> {
        let started = Instant::now();
        let mut work = Work::start(Arc::clone(&self.backend), written);
        let shown = self.show(&mut work, is_expanded).await;
        let has_stopped = work.stop().await;
        if !has_stopped {
            self.say("the statement did not stop at once; it ends in the background");
        }
        let n_rows = shown?;
        if self.options.timing {
            let what = n_rows.map_or("done".to_owned(), |n_rows| counted(n_rows as u64, "row"));
            self.say(&format!("{what} in {}", took(started.elapsed())));
        }
        Ok(())
    }

    /// Shows the rows of `work` as they come and returns their number, or none where there are no columns.
    async fn show(&mut self, work: &mut Work, is_expanded: bool) -> Result<Option<usize>, Failure> {
        let interrupt = self.options.interrupt.clone();
        let interrupted = interrupt.wait();
        tokio::pin!(interrupted);
        let mut renderer = None;
        let mut said = Vec::new();
        loop {
            let part = tokio::select! {
                biased;
                () = &mut interrupted => return Err(Failure::Interrupted),
                part = work.next() => part,
            };
            match part.transpose()? {
                Some(Part::Begin { schema, notes }) => {
                    said = notes;
                    let options = self.render_options(is_expanded);
                    renderer = (!schema.fields().is_empty()).then(|| Renderer::new(&schema, options));
                }
                Some(Part::Rows(batch)) => {
                    if let Some(renderer) = &mut renderer
                        && self.write(|out| renderer.write(&batch, out))? == Appetite::Enough
                    {
                        break;
                    }
                }
                None => break,
            }
        }
        let rendered = match renderer {
            Some(renderer) => Some(self.write(|out| renderer.finish(out))?),
            None => None,
        };
        // After the rows, where they are seen however long the rows are.
        said.extend(rendered.as_ref().and_then(Rendered::note));
        // Among the notes is what records hold that cannot be read.
        said.iter().for_each(|note| self.say(&visible_lines(note)));
        Ok(rendered.map(|rendered| rendered.total))
    }

    fn render_options(&self, is_expanded: bool) -> RenderOptions {
        let mut options = self.options.render;
        if is_expanded {
            options.format = Format::Table;
            options.expanded = Expanded::On;
        }
        // A file is as wide as its lines.
        options.width = if self.file.is_some() { None } else { options.width.or_else(self.options.width) };
        options
    }

    /// Writes rows to where rows go now. A reader that has gone away ends the REPL in silence, as `head` expects.
    fn write<T>(&mut self, write: impl FnOnce(&mut dyn Write) -> Result<T>) -> Result<T, Failure> {
        let out: &mut dyn Write = match &mut self.file {
            Some(file) => file,
            None => self.out.as_mut(),
        };
        write(out).map_err(|error| {
            let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<std::io::Error>());
            match source.map(std::io::Error::kind) {
                Some(std::io::ErrorKind::BrokenPipe) => Failure::Exit(Exit::Ok),
                _ => Failure::Error(error),
            }
        })
    }

    async fn command(&mut self, text: &str) -> Result<Next, Failure> {
        let command = match text.parse()? {
            Command::Include(path) => return self.include(&path).await,
            Command::Quit => return Ok(Next::Quit),
            command => command,
        };
        let (backend, interrupt) = (Arc::clone(&self.backend), self.options.interrupt.clone());
        let described = tokio::select! {
            biased;
            () = interrupt.wait() => return Err(Failure::Interrupted),
            described = describe::answer(backend.as_ref(), &command) => described?,
        };
        match described {
            Some(described) => self.describe(&described)?,
            None => self.set(command)?,
        }
        Ok(Next::Go)
    }

    fn describe(&mut self, described: &Described) -> Result<(), Failure> {
        let Described { heading, rows } = described;
        let options = RenderOptions { rows_max: None, ..self.render_options(false) };
        if options.format == Format::Table {
            let heading: String = heading.iter().map(|line| format!("{}\n", visible_lines(line))).collect();
            self.write(|out| out.write_all(heading.as_bytes()).map_err(unwritable))?;
        }
        let batch: &RecordBatch = rows;
        let mut renderer = Renderer::new(&batch.schema(), options);
        let _: Appetite = self.write(|out| renderer.write(batch, out))?;
        self.write(|out| renderer.finish(out))?;
        Ok(())
    }

    async fn include(&mut self, path: &Path) -> Result<Next, Failure> {
        if self.depth == DEPTH_MAX {
            let error = Error::invalid(format!("cannot include {}: scripts nest too deeply", path.display()));
            return Err(error.with_hint("does a script include itself?").into());
        }
        self.depth += 1;
        let next = Box::pin(self.file(path)).await;
        self.depth -= 1;
        // The failure was reported where it happened.
        next.map_err(Failure::Exit)
    }

    /// Changes or shows a setting.
    fn set(&mut self, setting: Command) -> Result<(), Failure> {
        // What is asked for is no confirmation.
        let is_asked = matches!(setting, Command::Help | Command::Format(None) | Command::Rows(None));
        let options = &mut self.options;
        let said = match setting {
            Command::Timing(timing) => {
                options.timing = timing.unwrap_or(!options.timing);
                format!("timing is {}", if options.timing { "on" } else { "off" })
            }
            Command::Expanded(expanded) => {
                let other = if options.render.expanded == Expanded::On { Expanded::Off } else { Expanded::On };
                options.render.expanded = expanded.unwrap_or(other);
                format!("expanded is {:?}", options.render.expanded).to_lowercase()
            }
            Command::Format(format) => {
                options.render.format = format.unwrap_or(options.render.format);
                format!("format is {}", options.render.format)
            }
            Command::Rows(rows) => {
                options.render.rows_max = match rows {
                    Some(RowsMax::All) => None,
                    Some(RowsMax::Rows(rows_max)) => Some(rows_max),
                    None => options.render.rows_max,
                };
                let most = options.render.rows_max.map_or("all".to_owned(), |rows_max| rows_max.to_string());
                format!("a table shows {most} rows")
            }
            Command::Output(path) => return Ok(self.redirect(path.as_deref())?),
            // Everything else answers with rows and was dealt with; what is left is the help.
            _ => Command::help(),
        };
        if is_asked || !self.options.is_quiet {
            self.say(said.trim_end());
        }
        Ok(())
    }

    fn redirect(&mut self, path: Option<&Path>) -> Result<()> {
        if let Some(mut file) = self.file.take() {
            file.flush().map_err(unwritable)?;
        }
        let Some(path) = path else { return Ok(()) };
        let created = File::create(path);
        let failed = |source| {
            let error = Error::invalid(format!("cannot write to {}", path.display())).with_source(source);
            error.with_hint("name a file in a folder that is there and may be written to")
        };
        self.file = Some(BufWriter::new(created.map_err(failed)?));
        Ok(())
    }

    /// Says something that is not a result.
    pub(super) fn say(&mut self, text: &str) {
        // There is nowhere left to say that this failed.
        let _: std::io::Result<()> = writeln!(self.err, "{text}").and_then(|()| self.err.flush());
    }
}

#[cfg(test)]
pub(super) mod tests;
