//! Makes the key index out of the table and follows the log with it: one algorithm for start-up, recovery and rebase.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use alluvium_catalog::{Error, Result};
use alluvium_sql::{HIDDEN_OFFSET, HIDDEN_PARTITION, HIDDEN_SEQUENCE};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, StructArray, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use roaring::RoaringTreemap;

use super::{Order, UpsertWriter};
use crate::delta::action::{Action, Add};
use crate::delta::log::LogEntry;
use crate::delta::state::TableState;
use crate::object_file::ObjectFile;
use crate::write::stats::num_records;
use crate::write::tombstones::Remembered;

/// Files read at the same time while the index is made.
const FILES_IN_FLIGHT: usize = 4;

/// The keys of a file, with the order of each row.
struct FileKeys<'a> {
    add: &'a Add,
    deleted: RoaringTreemap,
    batches: Vec<RecordBatch>,
}

impl UpsertWriter {
    /// Makes the index from the live files of `state`, then adds the deletes of the last `retention`.
    pub(super) async fn index_table(&mut self, state: &TableState, retention: Duration) -> Result<()> {
        let this = &*self;
        let mut found = Vec::new();
        let reads: Vec<_> = state.files.values().map(|add| this.read_keys(add)).collect();
        let mut files = futures::stream::iter(reads).buffered(FILES_IN_FLIGHT);
        while let Some(keys) = files.try_next().await? {
            found.push(keys);
        }
        drop(files);
        for keys in found {
            self.index_file(keys)?;
        }
        let since_ms = self.folder.clock.now().0 - i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
        let remembered = self.tombstones.read(since_ms).await?;
        self.index_deletes(remembered)
    }

    fn index_deletes(&mut self, remembered: Vec<Remembered>) -> Result<()> {
        for remembered in remembered {
            let rows = &remembered.rows;
            let sequence: Vec<ArrayRef> = (0..self.columns.sequence.len())
                .map_while(|index| rows.column_by_name(&format!("{HIDDEN_SEQUENCE}_{index}")).cloned())
                .collect();
            let keys = self.convert_keys(rows, None)?;
            for (key, order) in keys.iter().zip(self.orders_of(rows, &sequence)?) {
                self.index.put_remembered_delete(key.data(), order, remembered.at_ms);
            }
        }
        Ok(())
    }

    /// Takes in a version of the log that somebody else wrote. Removes go first: a changed vector is a Remove and an Add.
    pub(super) async fn follow_log(&mut self, entry: &LogEntry) -> Result<()> {
        let added: HashSet<&str> = adds(entry).map(|add| add.path.as_str()).collect();
        for action in &entry.actions {
            if let Action::Remove(remove) = action
                && !added.contains(remove.path.as_str())
            {
                self.index.remove_file(&remove.path);
            }
        }
        for add in adds(entry) {
            if self.index.ordinal(&add.path).is_some() {
                let deleted = self.read_vector(add).await?;
                let rows = rows_of(add)?;
                self.index.put_file(&add.path, rows, deleted);
            } else {
                let keys = self.read_keys(add).await?;
                self.index_file(keys)?;
            }
        }
        let remembered = self.tombstones.read_of_commit(&entry.info).await?;
        self.index_deletes(remembered)
    }

    async fn read_vector(&self, add: &Add) -> Result<RoaringTreemap> {
        match &add.deletion_vector {
            Some(descriptor) => self.vectors.read(descriptor).await,
            None => Ok(RoaringTreemap::new()),
        }
    }

    async fn read_keys<'a>(&self, add: &'a Add) -> Result<FileKeys<'a>> {
        let at = &self.folder.location;
        let damaged = |cause: parquet::errors::ParquetError| {
            Error::data(format!("cannot read {} of the table at {at}", add.path)).with_source(cause)
        };
        let deleted = self.read_vector(add).await?;
        let path = Path::parse(&add.path).map_err(|cause| {
            Error::data(format!("{} of the table at {at} is not a path", add.path)).with_source(cause)
        })?;
        let size = u64::try_from(add.size)
            .map_err(|_| Error::data(format!("{} of the table at {at} has a negative size", add.path)))?;
        let reader = ObjectFile::new(Arc::clone(&self.folder.store), path, size);
        let builder = ParquetRecordBatchStreamBuilder::new(reader).await.map_err(damaged)?;
        let wanted = self.scanned_columns();
        let mask = ProjectionMask::columns(builder.parquet_schema(), wanted.iter().map(String::as_str));
        let stream = builder.with_projection(mask).build().map_err(damaged)?;
        let batches = stream.try_collect().await.map_err(damaged)?;
        Ok(FileKeys { add, deleted, batches })
    }

    /// Returns the columns that order rows by key.
    fn scanned_columns(&self) -> Vec<String> {
        let mut names = self.columns.keys.clone();
        match &self.columns.stored_sequence {
            Some(stored) => names.extend(stored.iter().cloned()),
            None => names.push(HIDDEN_SEQUENCE.to_owned()),
        }
        names.extend([HIDDEN_PARTITION.to_owned(), HIDDEN_OFFSET.to_owned()]);
        names
    }

    fn index_file(&mut self, keys: FileKeys<'_>) -> Result<()> {
        let FileKeys { add, deleted, batches } = keys;
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        let ordinal = self.index.put_file(&add.path, rows as u64, deleted.clone());
        let mut row = 0_u32;
        for batch in &batches {
            let sequence = self.stored_sequence_of(batch, add)?;
            let keys = self.convert_keys(batch, Some(add))?;
            for (key, order) in keys.iter().zip(self.orders_of(batch, &sequence)?) {
                if !deleted.contains(u64::from(row)) {
                    self.index.put_found(key.data(), order, (ordinal, row));
                }
                row += 1;
            }
        }
        Ok(())
    }

    fn convert_keys(&self, rows: &RecordBatch, add: Option<&Add>) -> Result<arrow::row::Rows> {
        let failed = |cause| Error::data("cannot compare the keys of a data file").with_source(cause);
        let columns = self
            .columns
            .keys
            .iter()
            .map(|key| {
                let field = self.columns.declared.field_with_name(key).map_err(failed)?;
                cast(&self.column_of(rows, add, key, field.data_type())?, field.data_type()).map_err(failed)
            })
            .collect::<Result<Vec<_>>>()?;
        self.keys.convert_columns(&columns).map_err(failed)
    }

    fn stored_sequence_of(&self, rows: &RecordBatch, add: &Add) -> Result<Vec<ArrayRef>> {
        if let Some(stored) = &self.columns.stored_sequence {
            return stored
                .iter()
                .zip(&self.columns.sequence)
                .map(|(name, data_type)| self.column_of(rows, Some(add), name, data_type))
                .collect();
        }
        let whole = self.column_of(rows, Some(add), HIDDEN_SEQUENCE, &self.columns.hidden_sequence_type())?;
        match (&self.columns.sequence[..], whole.as_any().downcast_ref::<StructArray>()) {
            ([_, _, ..], Some(fields)) => Ok(fields.columns().to_vec()),
            _ => Ok(vec![whole]),
        }
    }

    fn orders_of(&self, rows: &RecordBatch, sequence: &[ArrayRef]) -> Result<Vec<Order>> {
        let failed = |cause| Error::data("cannot read the positions of a data file").with_source(cause);
        let partitions = self.column_of(rows, None, HIDDEN_PARTITION, &DataType::Int32)?;
        let offsets = self.column_of(rows, None, HIDDEN_OFFSET, &DataType::Int64)?;
        let partitions = cast(&partitions, &DataType::Int32).map_err(failed)?;
        let offsets = cast(&offsets, &DataType::Int64).map_err(failed)?;
        self.orders.of(sequence, None, offsets.as_primitive::<Int64Type>(), partitions.as_primitive::<Int32Type>())
    }

    /// Returns a column of a file: stored, or the value of its partition, or NULL where another writer left it out.
    fn column_of(&self, rows: &RecordBatch, add: Option<&Add>, name: &str, data_type: &DataType) -> Result<ArrayRef> {
        if let Some(column) = rows.column_by_name(name) {
            return Ok(Arc::clone(column));
        }
        match add.and_then(|add| add.partition_values.get(name)) {
            Some(Some(value)) => {
                let text: ArrayRef = Arc::new(StringArray::from(vec![value.as_str(); rows.num_rows()]));
                cast(&text, data_type).map_err(|cause| {
                    Error::data(format!("partition value '{value}' of column '{name}' cannot be read"))
                        .with_source(cause)
                })
            }
            _ => Ok(new_null_array(data_type, rows.num_rows())),
        }
    }
}

fn adds(entry: &LogEntry) -> impl Iterator<Item = &Add> {
    entry.actions.iter().filter_map(|action| match action {
        Action::Add(add) => Some(add),
        _ => None,
    })
}

fn rows_of(add: &Add) -> Result<u64> {
    num_records(add.stats.as_ref())
        .ok_or_else(|| Error::data(format!("the log does not tell how many rows {} has", add.path)))
}
