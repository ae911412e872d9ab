//! Runs the flow's SQL so that one record on which it fails does not stop the batch.
//!
//! The whole batch goes first. Only when it fails is it halved until the records at fault stand alone: for k of them in
//! n rows that costs about k log2(n) runs.

use alluvium_catalog::{ErrorKind, Result, TableName};
use alluvium_sql::{Shaped, Transform};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};

use super::{Fault, join};
use crate::hop::RejectClass;

/// What came of a batch.
pub(super) struct Isolated {
    /// The rows of all records that the SQL takes.
    pub(super) shaped: Shaped,
    /// The records that it fails on.
    pub(super) failed: Vec<Fault>,
    /// Tables looked up, with their versions.
    pub(super) lookups: Vec<(TableName, u64)>,
}

/// Applies `transform` to `rows`.
pub(super) async fn apply(transform: &Transform, rows: RecordBatch) -> Result<Isolated> {
    let empty = rows.slice(0, 0);
    let first = transform.apply(rows.clone()).await;
    let error = match first {
        Ok(applied) => return Ok(Isolated { shaped: applied.shaped, failed: Vec::new(), lookups: applied.lookups }),
        Err(error) => error,
    };
    if error.kind() != ErrorKind::Data || rows.num_rows() == 0 {
        return Err(error);
    }
    let start = transform.apply(empty).await?;
    let mut isolated = Isolated { shaped: start.shaped, failed: Vec::new(), lookups: start.lookups };
    let mut pending = halves(&rows);
    pending.reverse();
    if rows.num_rows() == 1 {
        isolated.failed.push(fault(&rows, error.chain()));
        return Ok(isolated);
    }
    while let Some(piece) = pending.pop() {
        match transform.apply(piece.clone()).await {
            Ok(applied) => isolated.shaped = join(&isolated.shaped, &applied.shaped)?,
            Err(error) if error.kind() != ErrorKind::Data => return Err(error),
            Err(error) if piece.num_rows() == 1 => isolated.failed.push(fault(&piece, error.chain())),
            Err(_) => pending.extend(halves(&piece).into_iter().rev()),
        }
    }
    Ok(isolated)
}

fn halves(rows: &RecordBatch) -> Vec<RecordBatch> {
    let middle = rows.num_rows() / 2;
    vec![rows.slice(0, middle), rows.slice(middle, rows.num_rows() - middle)]
}

/// Source rows end with partition and offset.
fn fault(row: &RecordBatch, message: String) -> Fault {
    let n_columns = row.num_columns();
    let partition = row.column(n_columns - 2).as_primitive::<Int32Type>().value(0);
    let offset = row.column(n_columns - 1).as_primitive::<Int64Type>().value(0);
    Fault { record: (partition, offset), class: RejectClass::Transform, message }
}
