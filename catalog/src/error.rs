//! The one error that Alluvium's crates show each other: a kind that says who must act, and a message.
//!
//! Each crate keeps its causes private and turns them into this type at its edge. A message says what was tried and
//! with what; it never repeats its source, which the chain prints.

use std::fmt;

/// The result of every fallible public function.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Who has to act on an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The input (a SQL file, a setting, an argument) must be mended.
    Invalid,
    /// Somebody else changed the same thing, and the retries are spent.
    Conflict,
    /// A service did not answer; trying again may help.
    Unavailable,
    /// Stored or received bytes are not what they should be.
    Data,
    /// The thing was shut down.
    Closed,
    /// A defect in this program.
    Internal,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Invalid => "invalid",
            Self::Conflict => "conflict",
            Self::Unavailable => "unavailable",
            Self::Data => "data",
            Self::Closed => "closed",
            Self::Internal => "internal",
        })
    }
}

/// What went wrong: a [kind](ErrorKind), a message, perhaps a hint and a source.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// Returns an error of `kind` that says `message`: lowercase, no full stop, what was tried and with what.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, source: None }
    }

    /// Returns an [`ErrorKind::Invalid`] error.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// Returns an [`ErrorKind::Conflict`] error.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }

    /// Returns an [`ErrorKind::Unavailable`] error.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// Returns an [`ErrorKind::Data`] error.
    pub fn data(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Data, message)
    }

    /// Returns an [`ErrorKind::Closed`] error.
    pub fn closed(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Closed, message)
    }

    /// Returns an [`ErrorKind::Internal`] error.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds what the reader can do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Returns who has to act.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns the message without its sources.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns what the reader can do about it, if that is known.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Returns the message and those of all sources, outermost first, joined by `: `.
    pub fn chain(&self) -> String {
        let mut text = self.message.clone();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            let said = cause.to_string();
            if !text.ends_with(&said) {
                text.push_str(": ");
                text.push_str(&said);
            }
            source = cause.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_names_every_cause_once() {
        let inner = Error::data("byte 3 is not UTF-8");
        let outer = Error::invalid("cannot read orders.sql").with_source(inner);
        assert_eq!(outer.chain(), "cannot read orders.sql: byte 3 is not UTF-8");
        assert_eq!(outer.to_string(), "cannot read orders.sql");
        assert_eq!(outer.kind(), ErrorKind::Invalid);
    }
}
