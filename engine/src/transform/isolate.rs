//! Runs the flow's SQL so that one record on which it fails, row or tombstone, does not stop the batch.
//!
//! The whole batch goes first. Only when it fails is it halved until the records at fault stand alone: for k of them in
//! n rows that costs about k log2(n) runs, all over the same versions of the tables that the SQL looks up. It gives up
//! as soon as more records have failed than the flow bears.

use alluvium_catalog::{Error, ErrorKind, Result, TableName};
use alluvium_sql::{Shaped, Transform};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};

use super::{Fault, join};
use crate::hop::RejectClass;

/// What came of a batch.
pub(crate) struct Isolated {
    /// The rows of all records that the SQL takes.
    pub(crate) shaped: Shaped,
    /// The records that it fails on.
    pub(crate) failed: Vec<Fault>,
    /// Whether more of them failed than the flow bears; then neither rows nor failed records are complete.
    pub(crate) is_given_up: bool,
    /// What was looked up, with versions where there are any.
    pub(crate) lookups: Vec<(TableName, Option<u64>)>,
}

/// What the records of a batch are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rows,
    Tombstones,
}

/// Applies `transform` to `rows`, of which at most `failed_max` may fail.
///
/// # Errors
/// As of [`Transform::apply`], but for what it says of single rows.
pub(crate) async fn apply(transform: &Transform, rows: RecordBatch, failed_max: usize) -> Result<Isolated> {
    isolate(transform, Kind::Rows, rows, failed_max).await
}

/// Turns `tombstones`, of which at most `failed_max` may fail, into deletes.
///
/// # Errors
/// As of [`Transform::apply_tombstones`], but for what it says of single tombstones.
pub(crate) async fn apply_tombstones(
    transform: &Transform,
    tombstones: RecordBatch,
    failed_max: usize,
) -> Result<Isolated> {
    isolate(transform, Kind::Tombstones, tombstones, failed_max).await
}

async fn isolate(transform: &Transform, kind: Kind, rows: RecordBatch, failed_max: usize) -> Result<Isolated> {
    let pinned = match kind {
        Kind::Rows => transform.pin(rows.num_rows()).await?,
        Kind::Tombstones => transform.pin_tombstones()?,
    };
    let error = match transform.apply_pinned(&pinned, rows.clone()).await {
        Ok(shaped) => {
            return Ok(Isolated { shaped, failed: Vec::new(), is_given_up: false, lookups: pinned.into_lookups() });
        }
        Err(error) => error,
    };
    if error.kind() != ErrorKind::Data || rows.num_rows() == 0 {
        return Err(error);
    }
    // The first part has the columns even where no row is good.
    let mut parts = vec![transform.apply_pinned(&pinned, rows.slice(0, 0)).await?];
    let (mut failed, mut pending) = (Vec::new(), Vec::new());
    match rows.num_rows() {
        1 => failed.push(fault(kind, &rows, &error)),
        _ => pending.extend(halves(&rows).into_iter().rev()),
    }
    while failed.len() <= failed_max
        && let Some(piece) = pending.pop()
    {
        match transform.apply_pinned(&pinned, piece.clone()).await {
            Ok(shaped) => parts.push(shaped),
            Err(error) if error.kind() != ErrorKind::Data => return Err(error),
            Err(error) if piece.num_rows() == 1 => failed.push(fault(kind, &piece, &error)),
            Err(_) => pending.extend(halves(&piece).into_iter().rev()),
        }
    }
    let is_given_up = failed.len() > failed_max;
    Ok(Isolated { shaped: join(&parts)?, failed, is_given_up, lookups: pinned.into_lookups() })
}

fn halves(rows: &RecordBatch) -> [RecordBatch; 2] {
    let middle = rows.num_rows() / 2;
    [rows.slice(0, middle), rows.slice(middle, rows.num_rows() - middle)]
}

/// Source rows end with partition and offset, and so do tombstones.
fn fault(kind: Kind, row: &RecordBatch, error: &Error) -> Fault {
    let n_columns = row.num_columns();
    let partition = row.column(n_columns - 2).as_primitive::<Int32Type>().value(0);
    let offset = row.column(n_columns - 1).as_primitive::<Int64Type>().value(0);
    let (class, message) = match kind {
        Kind::Rows => (RejectClass::Transform, error.chain()),
        Kind::Tombstones => {
            (RejectClass::Tombstone, format!("cannot compute what the tombstone deletes: {}", error.chain()))
        }
    };
    Fault { record: (partition, offset), class, message }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use alluvium_catalog::store::{CatalogStore, MemoryStore};
    use alluvium_catalog::{StorageSettings, Stores};
    use alluvium_sql::{Compiler, HIDDEN_OFFSET, HIDDEN_PARTITION, SourceText, TableReader};
    use arrow::array::{Int32Array, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::cli::CatalogNames;

    const SQL: &str = "
        CREATE CONNECTION shop TYPE kafka WITH ('bootstrap.servers' = 'localhost:9092');
        CREATE SOURCE events (word STRING) WITH ('connection' = 'shop', 'topic' = 'events');
        CREATE STREAMING TABLE lake.events (id BIGINT);
        CREATE FLOW events_append AS INSERT INTO lake.events BY NAME
            SELECT CAST(word AS BIGINT) AS id FROM STREAM(events);
    ";

    async fn transform() -> Result<Transform> {
        let (stores, catalog) = (Stores::new(StorageSettings::default()), Arc::new(MemoryStore::default()));
        let catalog: Arc<dyn CatalogStore> = catalog;
        let reader = || TableReader::new(stores.clone(), Arc::clone(&catalog));
        let names = Arc::new(CatalogNames::new(Arc::clone(&catalog), reader()));
        let text = Arc::new(SourceText::new("events.sql", SQL));
        let pipeline = Compiler::new("memory:///lake".parse()?, names).compile(&[text]).await?;
        let flow = pipeline.flows.first().ok_or_else(|| Error::internal("no flow"))?;
        Transform::compile(flow, Arc::new(reader())).await
    }

    /// Returns a record for each offset below `n_rows`; `bad` says which of them is no number.
    fn rows(n_rows: i64, bad: impl Fn(i64) -> bool) -> Result<RecordBatch> {
        let words = (0..n_rows).map(|offset| Some(if bad(offset) { "x".to_owned() } else { offset.to_string() }));
        let schema = Schema::new(vec![
            Field::new("word", DataType::Utf8, true),
            Field::new(HIDDEN_PARTITION, DataType::Int32, false),
            Field::new(HIDDEN_OFFSET, DataType::Int64, false),
        ]);
        let partitions = (0..n_rows).map(|_| Some(3)).collect::<Int32Array>();
        let offsets = Int64Array::from_iter_values(0..n_rows);
        let columns = vec![
            Arc::new(words.collect::<StringArray>()) as arrow::array::ArrayRef,
            Arc::new(partitions),
            Arc::new(offsets),
        ];
        RecordBatch::try_new(Arc::new(schema), columns).map_err(|cause| Error::internal(cause.to_string()))
    }

    #[tokio::test]
    async fn records_at_fault_are_found_and_the_others_keep_their_order() -> Result<()> {
        let (transform, bad) = (transform().await?, |offset: i64| offset % 7 == 3);
        let isolated = apply(&transform, rows(1_000, bad)?, 1_000).await?;
        let good: Vec<i64> = (0..1_000).filter(|offset| !bad(*offset)).collect();
        assert_eq!(isolated.shaped.offsets.values().to_vec(), good);
        assert_eq!(isolated.shaped.rows.column(0).as_primitive::<Int64Type>().values().to_vec(), good);
        let failed: Vec<_> = isolated.failed.iter().map(|fault| fault.record).collect();
        assert_eq!(failed, (0..1_000).filter(|offset| bad(*offset)).map(|offset| (3, offset)).collect::<Vec<_>>());
        assert!(!isolated.is_given_up);
        Ok(())
    }

    #[tokio::test]
    async fn a_batch_with_too_many_records_at_fault_is_given_up_early() -> Result<()> {
        let transform = transform().await?;
        let isolated = apply(&transform, rows(20_000, |_| true)?, 5).await?;
        assert!(isolated.is_given_up);
        assert_eq!(isolated.failed.len(), 6);
        assert_eq!(isolated.failed.first().map(|fault| fault.record), Some((3, 0)));
        let isolated = apply(&transform, rows(1, |_| true)?, 0).await?;
        assert!(isolated.is_given_up && isolated.shaped.rows.num_rows() == 0);
        Ok(())
    }
}
