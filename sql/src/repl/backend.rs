//! What the REPL asks of whoever runs its statements.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use alluvium_catalog::store::CatalogStore;
use alluvium_catalog::{Result, TableName};
use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

use crate::diagnostic::SourceText;

/// One statement and the text that it stands in, so that errors can point there.
#[derive(Debug, Clone)]
pub struct Written {
    /// The whole text: a file, or what was typed.
    pub source: Arc<SourceText>,
    /// The statement's bytes, without its terminator.
    pub span: Range<usize>,
}

impl Written {
    /// Returns the statement.
    pub fn text(&self) -> &str {
        self.source.text().get(self.span.clone()).unwrap_or_default()
    }
}

/// What a statement answers.
pub struct Answer {
    /// The columns; none where the statement only does something.
    pub schema: SchemaRef,
    /// The rows, computed as they are asked for.
    pub rows: BoxStream<'static, Result<RecordBatch>>,
    /// What the reader should know about them, a line each.
    pub notes: Vec<String>,
}

impl Answer {
    /// Returns the answer of a statement that only did something, in words for people.
    pub fn of_deed(note: String) -> Self {
        Self { schema: Arc::new(Schema::empty()), rows: futures::stream::empty().boxed(), notes: vec![note] }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Answer")
            .field("schema", &self.schema)
            .field("notes", &self.notes)
            .finish_non_exhaustive()
    }
}

/// A dataset as it is now.
#[derive(Debug, Clone)]
pub struct Opened {
    /// Its columns.
    pub schema: SchemaRef,
    /// Its version, where it has versions.
    pub version: Option<u64>,
}

/// Runs statements and tells what there is. Dropping a future or a stream of it ends the work.
///
/// Its futures are boxed by hand, each with one lifetime. Under the bounds that `async_trait` writes, the compiler keeps no
/// proof that DataFusion's trees are `Send`, and makes it anew for each method: two to four seconds (Rust 1.95).
pub trait Backend: fmt::Debug + Send + Sync {
    /// Plans a statement and begins to run it.
    ///
    /// # Errors
    /// `Invalid` when the statement is wrong, with a [`Diagnostics`](crate::Diagnostics) among its sources where the
    /// place is known; `Unavailable` when a table, the catalog or a topic cannot be reached.
    fn run(&self, statement: Written) -> BoxFuture<'_, Result<Answer>>;

    /// Returns the catalog that names are looked up in.
    fn catalog(&self) -> &dyn CatalogStore;

    /// Opens a dataset.
    ///
    /// # Errors
    /// `Invalid` when there is none of that name, with the nearest name as hint.
    fn open<'a>(&'a self, name: &'a TableName) -> BoxFuture<'a, Result<Opened>>;

    /// Returns the names of the tables that queries can read now: those of the catalog and those only opened here.
    fn tables(&self) -> BoxFuture<'_, Result<Vec<TableName>>>;

    /// Returns the names of all functions.
    fn functions(&self) -> BoxFuture<'_, Result<Vec<String>>>;
}
