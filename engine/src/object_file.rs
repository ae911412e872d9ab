//! A parquet file in an object store, as the asynchronous reader wants it: ranges on demand, the footer first.

use std::ops::Range;
use std::sync::Arc;

use alluvium_catalog::Error;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

/// Bytes fetched from the end of a file in the hope that they hold the whole footer: most do, and a second round trip
/// costs more than the bytes.
const FOOTER_HINT: usize = 64 << 10;

/// One parquet file.
#[derive(Debug, Clone)]
pub(crate) struct ObjectFile {
    store: Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
}

impl ObjectFile {
    /// Returns the file at `path`, which has `size` bytes; reads nothing.
    pub(crate) fn new(store: Arc<dyn ObjectStore>, path: Path, size: u64) -> Self {
        Self { store, path, size }
    }
}

impl AsyncFileReader for ObjectFile {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        self.store.get_range(&self.path, range).map(|read| read.map_err(external)).boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>>> {
        async move { self.store.get_ranges(&self.path, &ranges).await.map_err(external) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>>> {
        let size = self.size;
        async move {
            let reader = ParquetMetaDataReader::new().with_prefetch_hint(Some(FOOTER_HINT));
            reader.load_and_finish(self, size).await.map(Arc::new)
        }
        .boxed()
    }
}

/// Returns the error of a read that failed with `cause`: `Unavailable` where the store did not answer, else `Data`, also
/// where it has no such file.
pub(crate) fn read_error(message: String, cause: ParquetError) -> Error {
    let mut link: Option<&(dyn std::error::Error + 'static)> = Some(&cause);
    while let Some(error) = link {
        if let Some(store) = error.downcast_ref::<object_store::Error>() {
            return match store {
                object_store::Error::NotFound { .. } => Error::data(message).with_source(cause),
                _ => Error::unavailable(message).with_source(cause),
            };
        }
        link = error.source();
    }
    Error::data(message).with_source(cause)
}

/// Tells whether `error` comes of a file that the store does not have.
pub(crate) fn is_missing(error: &Error) -> bool {
    let mut link: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = link {
        let store = cause.downcast_ref::<object_store::Error>();
        if matches!(store, Some(object_store::Error::NotFound { .. })) {
            return true;
        }
        link = cause.source();
    }
    false
}

fn external(cause: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(cause))
}

#[cfg(test)]
mod tests {
    use alluvium_catalog::ErrorKind;

    use super::*;

    #[test]
    fn a_store_that_does_not_answer_is_no_damage() {
        let kind = |cause| read_error("cannot read a".to_owned(), cause).kind();
        let lost = || object_store::Error::Generic { store: "s", source: "reset".into() };
        let missing = || object_store::Error::NotFound { path: "a".to_owned(), source: "gone".into() };
        assert_eq!(kind(external(lost())), ErrorKind::Unavailable);
        assert_eq!(kind(ParquetError::External(Box::new(external(lost())))), ErrorKind::Unavailable);
        assert_eq!(kind(external(missing())), ErrorKind::Data);
        assert_eq!(kind(ParquetError::General("no footer".to_owned())), ErrorKind::Data);
    }

    #[test]
    fn a_file_that_is_missing_is_told_from_one_that_cannot_be_read() {
        let lost = || object_store::Error::Generic { store: "s", source: "reset".into() };
        let missing = || object_store::Error::NotFound { path: "a".to_owned(), source: "gone".into() };
        let read = |cause| read_error("cannot read a".to_owned(), cause);
        assert!(is_missing(&read(external(missing()))));
        assert!(is_missing(&read(ParquetError::External(Box::new(external(missing()))))));
        assert!(is_missing(&Error::unavailable("cannot read a").with_source(missing())));
        assert!(!is_missing(&read(external(lost()))));
        assert!(!is_missing(&read(ParquetError::General("no footer".to_owned()))));
        assert!(!is_missing(&Error::data("a is damaged")));
    }
}
