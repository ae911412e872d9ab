//! What a statement answers: rows, computed when they are asked for.

use std::pin::Pin;
use std::sync::Arc;

use alluvium_catalog::Result;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::prelude::DataFrame;
use futures::{Stream, StreamExt, TryStreamExt};

use super::failure;

/// The rows that a statement answers with; none for statements that only do something.
#[derive(Debug)]
pub struct Answer {
    frame: DataFrame,
}

/// Rows as they come.
pub type Rows = Pin<Box<dyn Stream<Item = Result<RecordBatch>> + Send>>;

impl Answer {
    pub(super) fn new(frame: DataFrame) -> Self {
        Self { frame }
    }

    /// Returns the columns.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(self.frame.schema().inner())
    }

    /// Runs the statement and returns its rows as they come.
    ///
    /// # Errors
    /// What planning says; later, as items, what running says: `Data` for a row that cannot be computed, `Unavailable`
    /// when a store does not answer or memory runs out.
    pub async fn stream(self) -> Result<Rows> {
        // No row is read before the first is asked for.
        let planned = self.frame.execute_stream().await;
        let rows = planned.map_err(|cause| failure::from_datafusion(failure::PLANNING, cause))?;
        let answered = |cause| failure::from_datafusion(failure::ANSWERING, cause);
        Ok(rows.map(move |batch| batch.map_err(answered)).boxed())
    }

    /// Runs the statement and returns all its rows.
    ///
    /// # Errors
    /// As [`Answer::stream`].
    pub async fn collect(self) -> Result<Vec<RecordBatch>> {
        self.stream().await?.try_collect().await
    }
}
