//! Finds what decides who has to act below what DataFusion, Parquet and Arrow say. Pure.
//!
//! The error of a read comes up boxed, shared, or as an error of the disk; the reader of footers keeps no more of it than
//! its words. [`super`] asks here before it goes by the kind of DataFusion's own error.

use std::error::Error as StdError;
use std::io;

use alluvium_catalog::Error;
use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use datafusion::parquet::errors::ParquetError;

use super::words::{FOOTER, without_wrappers};

/// What lies below an error of DataFusion's.
#[derive(Debug, Clone, Copy)]
pub(super) enum Buried<'a> {
    /// An error of this program.
    Ours(&'a Error),
    /// The store has no such object.
    Missing,
    /// The store did not answer, or refused.
    Refused,
}

/// Looks for the outermost error of this program or of a store below `cause`.
pub(super) fn buried(cause: &DataFusionError) -> Option<Buried<'_>> {
    let first: &(dyn StdError + 'static) = cause;
    std::iter::successors(Some(first), |link| below(*link)).find_map(decisive)
}

/// Returns the cause of `link`. That of an error of the disk is the error that it was made of, which it would skip.
fn below<'a>(link: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    match link.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(made_of) => Some(made_of as &(dyn StdError + 'static)),
        None => link.source(),
    }
}

fn decisive<'a>(link: &'a (dyn StdError + 'static)) -> Option<Buried<'a>> {
    if let Some(error) = link.downcast_ref::<Error>() {
        return Some(Buried::Ours(error));
    }
    if let Some(error) = link.downcast_ref::<object_store::Error>() {
        let is_missing = matches!(error, object_store::Error::NotFound { .. });
        return Some(if is_missing { Buried::Missing } else { Buried::Refused });
    }
    if let Some(ParquetError::General(said)) = link.downcast_ref::<ParquetError>() {
        return of_words(said);
    }
    match link.downcast_ref::<ArrowError>() {
        Some(ArrowError::ParquetError(said)) => of_words(said),
        _ => None,
    }
}

/// Tells a store's error by its words, where nothing else is left of it.
fn of_words(said: &str) -> Option<Buried<'static>> {
    let said = without_wrappers(said);
    let of_footer = said.strip_prefix(FOOTER).and_then(|named| named.split_once(": "));
    let said = of_footer.map_or(said, |(_, cause)| without_wrappers(cause));
    if said.starts_with("Object at location ") && said.contains(" not found: ") {
        return Some(Buried::Missing);
    }
    let is_generic = said.starts_with("Generic ") && said.contains(" error: ");
    (is_generic || said.starts_with("The operation lacked ")).then_some(Buried::Refused)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    type Boxed = Box<dyn StdError + Send + Sync>;

    /// The ways in which DataFusion hands on an error that it met while it read.
    const WAYS: [fn(object_store::Error) -> DataFusionError; 13] = [
        |store| DataFusionError::ObjectStore(Box::new(store)),
        |store| DataFusionError::External(Box::new(store)),
        in_external,
        |store| in_parquet(ParquetError::External(Box::new(ParquetError::External(Box::new(store))))),
        |store| in_parquet(ParquetError::General(format!("{FOOTER}a/b=1/c.parquet: {}", in_external(store)))),
        |store| in_parquet(ParquetError::External(Box::new(DataFusionError::ObjectStore(Box::new(store))))),
        |store| in_arrow(ArrowError::ExternalError(Box::new(store))),
        |store| in_arrow(ArrowError::ExternalError(Box::new(in_external(store)))),
        |store| in_arrow(ArrowError::ParquetError(ParquetError::External(Box::new(store)).to_string())),
        |store| DataFusionError::IoError(io::Error::from(store)),
        |store| in_arrow(ArrowError::from(io::Error::other(in_external(store)))),
        |store| DataFusionError::Shared(Arc::new(in_external(store))).context("join"),
        |store| in_external(store).with_diagnostic(datafusion::common::Diagnostic::new_error("x", None)),
    ];

    fn in_parquet(cause: ParquetError) -> DataFusionError {
        DataFusionError::ParquetError(Box::new(cause))
    }

    fn in_arrow(cause: ArrowError) -> DataFusionError {
        DataFusionError::ArrowError(Box::new(cause), None)
    }

    fn in_external(store: object_store::Error) -> DataFusionError {
        in_parquet(ParquetError::External(Box::new(store)))
    }

    fn source() -> Boxed {
        "connection refused".into()
    }

    #[test]
    fn a_store_that_does_not_give_a_file_is_found_in_every_wrapping() {
        let refusals: [fn() -> object_store::Error; 3] = [
            || object_store::Error::Generic { store: "S3", source: source() },
            || object_store::Error::PermissionDenied { path: "a".to_owned(), source: source() },
            || object_store::Error::Unauthenticated { path: "a".to_owned(), source: source() },
        ];
        for (way, wrap) in WAYS.into_iter().enumerate() {
            for refusal in refusals {
                let error = wrap(refusal());
                assert!(matches!(buried(&error), Some(Buried::Refused)), "{way}: {error:?}");
            }
            let error = wrap(object_store::Error::NotFound { path: "a".to_owned(), source: source() });
            assert!(matches!(buried(&error), Some(Buried::Missing)), "{way}: {error:?}");
        }
    }

    #[test]
    fn wrappings_without_a_store_in_them_hold_nothing() {
        for error in [
            in_parquet(ParquetError::General(format!("{FOOTER}a.parquet: Parquet error: Invalid Parquet file"))),
            in_parquet(ParquetError::General("Generic thrift".to_owned())),
            in_parquet(ParquetError::EOF("Generic S3 error: is what a value says".to_owned())),
            in_parquet(ParquetError::External(Box::new(io::Error::other("corrupt page")))),
            in_arrow(ArrowError::ExternalError(Box::new(DataFusionError::Execution("divide by zero".to_owned())))),
            in_arrow(ArrowError::CastError("Cannot cast string 'Generic S3 error: x'".to_owned())),
            in_arrow(ArrowError::ParquetError("Parquet error: not enough bytes".to_owned())),
            DataFusionError::Execution("Generic S3 error: said by a function".to_owned()).context("scan"),
            DataFusionError::IoError(io::Error::other("disk full")),
            DataFusionError::Shared(Arc::new(DataFusionError::External("no type".into()))),
        ] {
            assert!(buried(&error).is_none(), "{error:?}");
        }
    }

    #[test]
    fn an_error_of_ours_counts_before_what_it_came_of() {
        let missing = object_store::Error::NotFound { path: "a".to_owned(), source: source() };
        let ours = Error::conflict("somebody else was first").with_source(missing);
        let error = DataFusionError::Shared(Arc::new(DataFusionError::External(Box::new(ours))));
        assert!(matches!(buried(&error), Some(Buried::Ours(error)) if error.message() == "somebody else was first"));
    }
}
