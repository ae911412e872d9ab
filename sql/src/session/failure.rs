//! Turns what DataFusion says into this program's error.
//!
//! DataFusion's error stays within the source, so that whoever shows it finds the place in the query that it knows of; what
//! the source says are [plain words](words), without the names of the libraries on the way.

mod buried;
pub(crate) mod words;

use std::fmt;

use alluvium_catalog::{Error, ErrorKind};
use datafusion::error::DataFusionError;

use buried::{Buried, buried};
use words::{CUT_SHORT, GONE, advice, is_cut_short, plain_words};

/// What is tried with every query before its first row is read.
pub(crate) const PLANNING: &str = "cannot plan the query";
/// What is tried with every statement.
pub(crate) const RUNNING: &str = "cannot run the statement";
/// What is tried with every query while its rows are read.
pub(crate) const ANSWERING: &str = "cannot answer the query";

/// The messages that say no more than that there was a query.
pub(crate) const OF_QUERY: [&str; 3] = [PLANNING, RUNNING, ANSWERING];

/// DataFusion's error as the source of this program's.
#[derive(Debug)]
pub(crate) struct Cause {
    said: String,
    error: DataFusionError,
}

impl Cause {
    /// Returns DataFusion's error.
    pub(crate) fn error(&self) -> &DataFusionError {
        &self.error
    }

    /// Returns what the innermost cause says.
    pub(crate) fn said(&self) -> &str {
        &self.said
    }

    /// Tells whether the query wanted more memory or disk than it may take.
    pub(crate) fn is_exhaustion(&self) -> bool {
        matches!(self.error.find_root(), DataFusionError::ResourcesExhausted(_))
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.said)
    }
}

/// It has no source of its own: what DataFusion's error says is said already.
impl std::error::Error for Cause {}

/// Returns `cause` as an error that says `message`: what was tried and with what.
///
/// | DataFusion says | kind |
/// |---|---|
/// | an error of this program on its way through | that error; where it is shared, its kind and hint |
/// | the query is wrong, wants what there is not, or more memory than it may take | `Invalid` |
/// | a store or disk failed or has no such file, however deep below that is said | `Unavailable` |
/// | a row cannot be computed | `Data` |
/// | a defect | `Internal` |
pub(crate) fn from_datafusion(message: impl Into<String>, cause: DataFusionError) -> Error {
    let cause = match root(cause) {
        Root::Ours(error) => return *error,
        Root::Theirs(cause) => cause,
    };
    let cause = Cause { said: plain_words(&cause), error: cause };
    let kind = kind(cause.error());
    let error = Error::new(kind, message);
    let error = match hint(&cause, kind) {
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
    match buried(cause) {
        Some(Buried::Ours(error)) => return error.kind(),
        // A file that is gone is nobody's row: a newer version of its table may be whole, and a flow that looks rows up in
        // it must not blame the records at hand.
        Some(Buried::Missing | Buried::Refused) => return ErrorKind::Unavailable,
        None => {}
    }
    match cause.find_root() {
        // A function that takes no such arguments is no defect, whatever the planner calls it.
        DataFusionError::Internal(said) if said.contains(words::NO_SIGNATURE) => ErrorKind::Invalid,
        DataFusionError::SQL(..)
        | DataFusionError::NotImplemented(_)
        | DataFusionError::Plan(_)
        | DataFusionError::Configuration(_)
        | DataFusionError::SchemaError(..)
        | DataFusionError::ResourcesExhausted(_) => ErrorKind::Invalid,
        DataFusionError::IoError(_) => ErrorKind::Unavailable,
        DataFusionError::Internal(_) | DataFusionError::ExecutionJoin(_) => ErrorKind::Internal,
        _ => ErrorKind::Data,
    }
}

/// Returns what to do where no look at the query is needed to tell: the planner's errors are looked into by
/// [`planner_errors`](crate::compile::places::Place::planner_errors).
fn hint(cause: &Cause, kind: ErrorKind) -> Option<String> {
    const MEMORY: &str = "ask for less at once, or raise limits.sql_memory (ALLUVIUM_SQL_MEMORY)";
    const ROWS: &str = "narrow the query down with WHERE or LIMIT to the rows that cannot be computed";
    const STORE: &str = "try again; when that does not help, look after the store, and whether it lets you read there";
    if cause.is_exhaustion() {
        return Some(MEMORY.to_owned());
    }
    match buried(cause.error()) {
        Some(Buried::Ours(error)) => return error.hint().map(str::to_owned),
        Some(Buried::Missing) => return Some(GONE.to_owned()),
        Some(Buried::Refused) if is_cut_short(cause.said()) => return Some(CUT_SHORT.to_owned()),
        Some(Buried::Refused) => return Some(STORE.to_owned()),
        None => {}
    }
    (kind == ErrorKind::Data).then(|| advice(cause.said()).unwrap_or_else(|| ROWS.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::parquet::errors::ParquetError;

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
        check(DataFusionError::Internal("Function 'sum' failed to match any signature".into()), ErrorKind::Invalid);
        check(DataFusionError::Internal("no such state".into()), ErrorKind::Internal);
        check(DataFusionError::IoError(std::io::Error::other("disk full")), ErrorKind::Unavailable);
        check(DataFusionError::ParquetError(Box::new(ParquetError::EOF("cut off".into()))), ErrorKind::Data);
    }

    #[test]
    fn a_store_that_fails_within_a_file_is_unavailable_and_so_is_a_file_that_is_gone() {
        let reading = |store: object_store::Error| {
            let cause = DataFusionError::ParquetError(Box::new(ParquetError::External(Box::new(store))));
            from_datafusion(ANSWERING, DataFusionError::Shared(Arc::new(cause)))
        };
        let refused = reading(object_store::Error::Generic { store: "S3", source: "503".into() });
        assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused:?}");
        assert!(refused.hint().is_some_and(|hint| hint.starts_with("try again")), "{refused:?}");
        assert!(refused.chain().contains("503"), "{}", refused.chain());
        // Its name says nothing about what to do.
        let path = "interval/divide by zero.parquet".to_owned();
        let gone = reading(object_store::Error::NotFound { path, source: "404".into() });
        assert_eq!((gone.kind(), gone.hint()), (ErrorKind::Unavailable, Some(GONE)), "{gone:?}");
    }

    #[test]
    fn a_shared_error_of_ours_keeps_its_kind_and_hint() {
        let ours = Error::unavailable("no answer").with_hint("is it up?");
        let error = from_datafusion(
            "cannot answer",
            DataFusionError::Shared(Arc::new(DataFusionError::External(Box::new(ours)))),
        );
        assert_eq!((error.kind(), error.hint()), (ErrorKind::Unavailable, Some("is it up?")));
        assert_eq!(error.chain(), "cannot answer: no answer");
    }

    #[test]
    fn the_chain_says_what_was_tried_and_the_innermost_cause() {
        let cause =
            DataFusionError::Execution("Arrow error: Cast error: Cannot cast string 'x'.".into()).context("scan");
        let error = from_datafusion("cannot answer the query", cause);
        assert_eq!(error.chain(), "cannot answer the query: cannot cast string 'x'");
        assert!(error.hint().is_some_and(|hint| hint.contains("TRY_CAST")), "{:?}", error.hint());
    }
}
