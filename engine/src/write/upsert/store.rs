//! The form in which rows and deletes are stored: what is written before a commit.

use std::collections::HashMap;
use std::sync::Arc;

use alluvium_catalog::{Error, Result};
use alluvium_sql::{HIDDEN_OFFSET, HIDDEN_OVER_ROW, HIDDEN_PARTITION, HIDDEN_SEQUENCE};
use arrow::array::{ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{filter_record_batch, take};
use arrow::datatypes::{DataType, Field, Schema};

use super::UpsertWriter;
use super::changes::{Columns, Delete};
use crate::hop::{ChangeOrder, Changes, Keyed};
use crate::order::Order;
use crate::write::Staged;
use crate::write::tombstones::TombstoneFolder;

/// What was written last of the deletes of a batch.
#[derive(Debug)]
pub(super) struct Sidecar {
    deletes: Vec<Delete>,
    path: String,
}

impl UpsertWriter {
    /// Returns the stored form of the rows that `is_kept` names.
    pub(super) fn stored_rows(&self, changes: &Changes, is_kept: &BooleanBuffer) -> Result<RecordBatch> {
        let kept = &self.reader.columns;
        let mut columns = changes.rows.columns().to_vec();
        columns.push(Arc::new(changes.order.partitions.clone()));
        columns.push(Arc::new(changes.order.offsets.clone()));
        if kept.stored_sequence.is_none() {
            columns.push(kept.hidden_sequence(&changes.order.sequence)?);
        }
        let failed = |cause| Error::internal("cannot store the rows of a batch").with_source(cause);
        let rows = RecordBatch::try_new(kept.stored(), columns).map_err(failed)?;
        // Run by run: as a rule few rows of a batch are late or deletes.
        filter_record_batch(&rows, &BooleanArray::new(is_kept.clone(), None)).map_err(failed)
    }

    /// Returns the path of the sidecar that a commit of `staged` names when it makes these deletes. Other commits may
    /// have changed what is deleted, whether it takes a row, or the sequence that a tombstone takes over. Of two sidecars
    /// that tell of one record a start takes the later word, so once there is another, no commit names the one before it.
    pub(super) async fn told_deletes(
        &mut self,
        staged: &Staged,
        columns: &Columns,
        deletes: &[Delete],
    ) -> Result<Option<String>> {
        if deletes.is_empty() {
            return Ok(None);
        }
        let (told, path) = match &self.sidecar {
            Some(last) => (&last.deletes, Some(&last.path)),
            None => (&columns.verdicts.deletes, staged.tombstones.as_ref()),
        };
        if told.as_slice() == deletes {
            return Ok(path.cloned());
        }
        let path = self.remember_deletes(&columns.key_columns, deletes).await?;
        self.sidecar = path.clone().map(|path| Sidecar { deletes: deletes.to_vec(), path });
        Ok(path)
    }

    /// Writes deletes to a sidecar, each with the order that it has over the row it deletes, and returns its path. `keys`
    /// are the key columns of the batch.
    pub(super) async fn remember_deletes(&self, keys: &[ArrayRef], deletes: &[Delete]) -> Result<Option<String>> {
        if deletes.is_empty() {
            return Ok(None);
        }
        let failed = |cause| Error::internal("cannot remember the deletes of a batch").with_source(cause);
        let indices: UInt32Array = deletes.iter().map(|delete| Some(delete.change)).collect();
        let mut fields = Vec::new();
        let mut columns = Vec::new();
        for (name, column) in self.reader.columns.keys.iter().zip(keys) {
            fields.push(Field::new(name, column.data_type().clone(), true));
            columns.push(take(column, &indices, None).map_err(failed)?);
        }
        let orders = || deletes.iter().map(|delete| &delete.order);
        for (index, column) in self.reader.orders.columns(orders().map(Order::borrow))?.into_iter().enumerate() {
            fields.push(Field::new(format!("{HIDDEN_SEQUENCE}_{index}"), column.data_type().clone(), true));
            columns.push(column);
        }
        fields.push(Field::new(HIDDEN_PARTITION, DataType::Int32, false));
        columns.push(Arc::new(orders().map(|order| order.partition).collect::<Int32Array>()));
        fields.push(Field::new(HIDDEN_OFFSET, DataType::Int64, false));
        columns.push(Arc::new(orders().map(|order| order.offset).collect::<Int64Array>()));
        fields.push(Field::new(HIDDEN_OVER_ROW, DataType::Boolean, false));
        columns.push(Arc::new(deletes.iter().map(|delete| Some(delete.over_row)).collect::<BooleanArray>()));
        let metadata = HashMap::from([
            (TombstoneFolder::SEQUENCE.to_owned(), self.reader.columns.sequence_by.clone()),
            (TombstoneFolder::TABLE.to_owned(), self.table_id.clone()),
        ]);
        let schema = Schema::new_with_metadata(fields, metadata);
        let rows = RecordBatch::try_new(Arc::new(schema), columns).map_err(failed)?;
        self.tombstones.write(&rows).await.map(Some)
    }

    /// Returns the key columns of a batch.
    pub(super) fn key_columns(&self, changes: &Changes) -> Result<Vec<ArrayRef>> {
        let column = |key: &String| changes.rows.column_by_name(key).cloned();
        let columns = self.reader.columns.keys.iter().map(column).collect::<Option<Vec<_>>>();
        columns.ok_or_else(|| Error::internal("a key column is missing"))
    }

    /// Returns keys and orders of a batch, made here where the transform has not.
    pub(super) fn keyed(&self, changes: &mut Changes) -> Result<Keyed> {
        if let Some(keyed) = changes.keyed.take() {
            return Ok(keyed);
        }
        let keys = self.reader.pack(&changes.rows, &HashMap::new())?;
        let ChangeOrder { partitions, offsets, sequence, inherited, .. } = &changes.order;
        let orders = self.reader.orders.of(sequence, inherited.as_ref(), offsets, partitions)?;
        Ok(Keyed { keys, orders })
    }
}
