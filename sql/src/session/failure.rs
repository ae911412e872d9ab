//! Turns what DataFusion says into this program's error.
//!
//! DataFusion's error stays the source, so that whoever shows it finds the place in the query that it knows of.

use alluvium_catalog::{Error, ErrorKind};
use datafusion::error::DataFusionError;

/// Returns `cause` as an error that says `message`: what was tried and with what.
///
/// | DataFusion says | kind |
/// |---|---|
/// | an error of this program on its way through | that error |
/// | the query is wrong, wants what there is not, or more memory than it may take | `Invalid` |
/// | a store or disk failed | `Unavailable` |
/// | a row cannot be computed | `Data` |
/// | a defect | `Internal` |
pub(crate) fn from_datafusion(message: impl Into<String>, cause: DataFusionError) -> Error {
    let cause = match root(cause) {
        Root::Ours(error) => return *error,
        Root::Theirs(cause) => cause,
    };
    let error = Error::new(kind(&cause), message);
    let error = match hint(&cause) {
        Some(hint) => error.with_hint(hint),
        None => error,
    };
    error.with_source(cause)
}

/// What lies below the wrappers of a [`DataFusionError`].
#[derive(Debug)]
pub(crate) enum Root {
    /// An error of this program that travelled through DataFusion.
    Ours(Box<Error>),
    /// DataFusion's own.
    Theirs(DataFusionError),
}

/// Looks for an error of this program below `cause`.
pub(crate) fn root(cause: DataFusionError) -> Root {
    match cause {
        DataFusionError::External(inner) => match inner.downcast::<Error>() {
            Ok(error) => Root::Ours(error),
            Err(inner) => match inner.downcast::<DataFusionError>() {
                Ok(cause) => root(*cause),
                Err(inner) => Root::Theirs(DataFusionError::External(inner)),
            },
        },
        DataFusionError::Context(context, inner) => match root(*inner) {
            Root::Theirs(inner) => Root::Theirs(inner.context(context)),
            ours => ours,
        },
        DataFusionError::Diagnostic(diagnostic, inner) => match root(*inner) {
            Root::Theirs(inner) => Root::Theirs(DataFusionError::Diagnostic(diagnostic, Box::new(inner))),
            ours => ours,
        },
        cause => Root::Theirs(cause),
    }
}

fn kind(cause: &DataFusionError) -> ErrorKind {
    match cause.find_root() {
        DataFusionError::SQL(..)
        | DataFusionError::NotImplemented(_)
        | DataFusionError::Plan(_)
        | DataFusionError::Configuration(_)
        | DataFusionError::SchemaError(..)
        | DataFusionError::ResourcesExhausted(_) => ErrorKind::Invalid,
        DataFusionError::ObjectStore(_) | DataFusionError::IoError(_) => ErrorKind::Unavailable,
        DataFusionError::Internal(_) | DataFusionError::ExecutionJoin(_) => ErrorKind::Internal,
        _ => ErrorKind::Data,
    }
}

fn hint(cause: &DataFusionError) -> Option<&'static str> {
    match cause.find_root() {
        DataFusionError::ResourcesExhausted(_) => {
            Some("ask for less at once, or raise limits.sql_memory (ALLUVIUM_SQL_MEMORY)")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_ours_comes_out_as_it_went_in() {
        let ours = DataFusionError::External(Box::new(Error::unavailable("no answer")));
        let error = from_datafusion("cannot plan", ours.context("scan").context("join"));
        assert_eq!((error.kind(), error.message()), (ErrorKind::Unavailable, "no answer"));
    }

    #[test]
    fn kinds_say_who_acts() {
        let check = |cause: DataFusionError, kind| assert_eq!(from_datafusion("x", cause).kind(), kind);
        check(DataFusionError::Plan("no such column".into()), ErrorKind::Invalid);
        check(DataFusionError::Execution("cannot cast".into()).context("row"), ErrorKind::Data);
        check(DataFusionError::ResourcesExhausted("pool".into()), ErrorKind::Invalid);
    }
}
