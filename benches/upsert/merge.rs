//! The other side: delta-rs MERGE with its own defaults, from the same rows to the landed commit. Its files are not
//! flushed to the disk.

use std::sync::Arc;
use std::time::Instant;

use alluvium_benches::meter::{rss_bytes, rss_peak_bytes};
use alluvium_catalog::{Error, Location, Result};
use arrow::array::{Array, RecordBatch};
use deltalake::datafusion::prelude::{SessionContext, col};
use deltalake::{DeltaTable, DeltaTableError};

use crate::rows::Rows;
use crate::table::{bytes_below, columns};
use crate::{Answer, Cell, Plan};

/// Opens the table and merges all batches.
pub(crate) async fn measure(plan: &Plan) -> Result<Answer> {
    let location: Location = plan.folder.display().to_string().parse()?;
    let (begun, bytes_before) = (Instant::now(), rss_bytes()?);
    let mut table = deltalake::open_table(location.url()?).await.map_err(failed)?;
    let mut answer = Answer {
        open_seconds: begun.elapsed().as_secs_f64(),
        open_bytes: rss_bytes()?.saturating_sub(bytes_before),
        ..Answer::default()
    };
    let mut rows = Rows::open(plan).await?;
    for &keys in &plan.batches {
        let mut cell = Cell { keys, ..Cell::default() };
        for _ in 0..plan.rounds {
            let source = stored(&mut rows, keys).await?;
            let bytes_before = bytes_below(&plan.folder)?;
            let begun = Instant::now();
            let (merged, updated) = merge(table, source).await.map_err(failed)?;
            cell.seconds.push(begun.elapsed().as_secs_f64());
            cell.bytes_written += bytes_below(&plan.folder)? - bytes_before;
            table = merged;
            if updated != keys {
                return Err(Error::internal(format!("{updated} of {keys} keys were updated")));
            }
        }
        answer.cells.push(cell);
    }
    answer.rss_peak_bytes = rss_peak_bytes()?;
    Ok(answer)
}

/// Returns a batch with the hidden columns, which are columns like others to delta-rs.
async fn stored(rows: &mut Rows, keys: u64) -> Result<RecordBatch> {
    let decoded = rows.draw(keys)?;
    let changes = rows.collapse(decoded).await?;
    let mut stored = changes.rows.columns().to_vec();
    stored.push(Arc::new(changes.order.partitions) as Arc<dyn Array>);
    stored.push(Arc::new(changes.order.offsets));
    RecordBatch::try_new(columns().stored(), stored)
        .map_err(|cause| Error::internal("cannot make the source of a merge").with_source(cause))
}

/// Merges `rows` and returns the table after it, with the number of rows that it updated.
async fn merge(table: DeltaTable, rows: RecordBatch) -> Result<(DeltaTable, u64), DeltaTableError> {
    let names: Vec<String> = rows.schema().fields().iter().map(|field| field.name().clone()).collect();
    let source = SessionContext::new().read_batch(rows)?;
    let from = |name: &String| col(format!("source.{name}"));
    let (table, metrics) = table
        .merge(source, col("target.order_id").eq(col("source.order_id")))
        .with_source_alias("source")
        .with_target_alias("target")
        .when_matched_update(|update| {
            names.iter().fold(update, |update, name| update.update(name.as_str(), from(name)))
        })?
        .when_not_matched_insert(|insert| {
            names.iter().fold(insert, |insert, name| insert.set(name.as_str(), from(name)))
        })?
        .await?;
    Ok((table, metrics.num_target_rows_updated as u64))
}

fn failed(cause: DeltaTableError) -> Error {
    Error::internal("delta-rs cannot merge").with_source(cause)
}
