//! Where the program writes: two handles, what they are, and how text looks on them.
//!
//! Everything that is shown goes through here, so that commands can be tested on a buffer. Colours and frames appear on a
//! terminal only; `NO_COLOR` takes the colours away (no-color.org).

use std::fmt;
use std::io::{self, ErrorKind, IsTerminal, Write};

use alluvium_catalog::{Error, Result};

use crate::config::Environment;

/// The width that output keeps to.
pub const WIDTH: usize = 80;

/// The program's output.
pub struct Console {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    /// How text on the first handle looks.
    pub style: Style,
    /// How text on the second handle looks.
    pub err_style: Style,
    /// Whether somebody types.
    pub reads_terminal: bool,
}

/// How text looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Style {
    /// Whether a person sees it at once: frames, trees and progress are drawn.
    pub is_terminal: bool,
    /// Whether colours are used.
    pub has_colour: bool,
}

/// What a piece of text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A heading or a name that matters.
    Strong,
    /// Something that explains.
    Faint,
    /// Something that went well.
    Good,
    /// Something to look at.
    Warning,
    /// Something that failed.
    Bad,
    /// Something to type.
    Command,
}

impl Console {
    /// Returns the console of the process.
    pub fn standard(environment: &Environment) -> Self {
        let plain = environment.text("NO_COLOR").is_some() || environment.text("TERM").as_deref() == Some("dumb");
        let style = |is_terminal| Style { is_terminal, has_colour: is_terminal && !plain };
        Self {
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
            style: style(io::stdout().is_terminal()),
            err_style: style(io::stderr().is_terminal()),
            reads_terminal: io::stdin().is_terminal(),
        }
    }

    /// Returns a console that writes plain text to two handles.
    pub fn plain(out: Box<dyn Write + Send>, err: Box<dyn Write + Send>) -> Self {
        Self { out, err, style: Style::default(), err_style: Style::default(), reads_terminal: false }
    }

    /// Returns the handle for what was asked for.
    pub fn out(&mut self) -> &mut (dyn Write + Send) {
        &mut *self.out
    }

    /// Gives both handles away, what was asked for first; what is written later is lost.
    pub fn take(&mut self) -> (Box<dyn Write + Send>, Box<dyn Write + Send>) {
        let sink = || Box::new(io::sink()) as Box<dyn Write + Send>;
        (std::mem::replace(&mut self.out, sink()), std::mem::replace(&mut self.err, sink()))
    }

    /// Writes a line of what was asked for.
    ///
    /// # Errors
    /// `Closed` when nobody reads any more.
    pub fn line(&mut self, text: impl AsRef<str>) -> Result<()> {
        writeln!(self.out, "{}", text.as_ref()).map_err(closed)
    }

    /// Writes text of what was asked for as it is.
    ///
    /// # Errors
    /// `Closed` when nobody reads any more.
    pub fn text(&mut self, text: &str) -> Result<()> {
        self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()).map_err(closed)
    }

    /// Writes a value as indented JSON.
    ///
    /// # Errors
    /// `Closed` when nobody reads any more.
    pub fn json(&mut self, value: &serde_json::Value) -> Result<()> {
        self.line(format!("{value:#}"))
    }

    /// Writes text about what happens. Nobody reading it is no reason to stop.
    pub fn note(&mut self, text: &str) {
        drop(self.err.write_all(text.as_bytes()).and_then(|()| self.err.flush()));
    }
}

impl fmt::Debug for Console {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Console").field("style", &self.style).finish_non_exhaustive()
    }
}

impl Style {
    /// Returns `text` as its role looks here.
    pub fn paint(self, role: Role, text: &str) -> String {
        if !self.has_colour || text.is_empty() {
            return text.to_owned();
        }
        let code = match role {
            Role::Strong => "1",
            Role::Faint => "2",
            Role::Good => "32",
            Role::Warning => "33",
            Role::Bad => "1;31",
            Role::Command => "36",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// Returns the error for a handle that takes no more.
pub fn closed(source: io::Error) -> Error {
    let message = match source.kind() {
        ErrorKind::BrokenPipe => "nobody reads the output any more",
        _ => "cannot write the output",
    };
    Error::closed(message).with_source(source)
}
