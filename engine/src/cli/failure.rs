//! How an error is shown and which exit code it has.

use std::error::Error as StdError;

use alluvium_catalog::{Error, ErrorKind};
use alluvium_sql::{Diagnostic, Diagnostics};

use super::console::{Role, Style};

/// How the process ends. The codes are a promise to scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All was done.
    Done,
    /// Something failed; it has been shown.
    Failed,
    /// The command line or the settings cannot be understood.
    Usage,
    /// A service did not answer; trying again may help.
    Unavailable,
    /// A signal ended it before it was done.
    Interrupted,
}

impl Exit {
    /// Returns the process's exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unavailable => 3,
            Self::Interrupted => 130,
        }
    }

    /// Returns how a command ends that failed with `error`. One whose reader has gone away has done its work.
    pub fn of(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::Unavailable => Self::Unavailable,
            _ if is_broken_pipe(error) => Self::Done,
            _ => Self::Failed,
        }
    }
}

/// Returns the text that shows `error`: a picture of the place where there is one, else message, causes and hint.
pub fn render(error: &Error, style: Style) -> String {
    if is_broken_pipe(error) {
        return String::new();
    }
    if let Some(diagnostics) = diagnostics(error) {
        return diagnostics.render(style.has_colour);
    }
    let mut text = format!("{} {}\n", style.paint(Role::Bad, "error:"), tame(error.message()));
    for cause in causes(error) {
        text.push_str(&format!("  caused by: {}\n", tame(&cause)));
    }
    if let Some(hint) = error.hint() {
        text.push_str(&format!("  {} {}\n", style.paint(Role::Good, "hint:"), tame(hint)));
    }
    text
}

/// Returns `text` with spaces for control characters: what tables, topics and stores say must not steer a terminal.
pub(super) fn tame(text: &str) -> String {
    text.replace(|next: char| next.is_control() && !matches!(next, '\n' | '\t'), " ")
}

/// Returns the errors in SQL text that are among the causes of `error`.
pub fn diagnostics(error: &Error) -> Option<Diagnostics> {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(diagnostics) = current.downcast_ref::<Diagnostics>() {
            return Some(diagnostics.clone());
        }
        if let Some(diagnostic) = current.downcast_ref::<Diagnostic>() {
            return Some(diagnostic.clone().into());
        }
        cause = current.source();
    }
    None
}

/// Returns what each cause says that the one before it did not say already.
fn causes(error: &Error) -> Vec<String> {
    let mut said = error.message().to_owned();
    let mut causes = Vec::new();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !said.contains(&text) {
            said.clone_from(&text);
            causes.push(text);
        }
        source = cause.source();
    }
    causes
}

/// Connections to services break in the same words, and are no output that nobody reads.
fn is_broken_pipe(error: &Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
    error.kind() == ErrorKind::Closed && source.is_some_and(|source| source.kind() == std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_and_hint_stand_below_the_message() {
        let inner = Error::data("byte 3 is not UTF-8");
        let error = Error::invalid("cannot read orders.sql").with_source(inner).with_hint("save it as UTF-8");
        let expected = "error: cannot read orders.sql\n  caused by: byte 3 is not UTF-8\n  hint: save it as UTF-8\n";
        assert_eq!(render(&error, Style::default()), expected);
        assert_eq!(Exit::of(&error).code(), 1);
        assert_eq!(Exit::of(&Error::unavailable("no broker")).code(), 3);
    }

    #[test]
    fn a_connection_that_broke_is_shown() {
        let broken = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        let error = Error::unavailable("cannot reach the store").with_source(broken);
        assert_eq!(Exit::of(&error), Exit::Unavailable);
        assert!(render(&error, Style::default()).starts_with("error: cannot reach the store\n  caused by: "));
    }

    #[test]
    fn what_an_error_repeats_does_not_steer_the_terminal() {
        let inner = Error::data("no number: 'a\u{1b}[2J\u{9b}m'");
        let error = Error::data("cannot read \u{7}").with_source(inner).with_hint("see\r\nbelow\u{7f}");
        let expected = "error: cannot read  \n  caused by: no number: 'a [2J m'\n  hint: see \nbelow \n";
        assert_eq!(render(&error, Style::default()), expected);
    }

    #[test]
    fn a_reader_that_went_away_is_no_failure() {
        let gone = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        let error = super::super::console::closed(gone);
        assert_eq!(Exit::of(&error), Exit::Done);
        assert_eq!(render(&error, Style::default()), "");
    }
}
