//! Reads the rows of data files that are not deleted, in the columns of the table.
//!
//! What is read is one row group at most, piece by piece, in the order of the file.

use std::sync::Arc;

use alluvium_catalog::{Error, Location, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::async_reader::ParquetRecordBatchStream;
use parquet::errors::ParquetError;
use roaring::RoaringTreemap;
use tokio_util::sync::CancellationToken;

use crate::delta::action::{Add, num_records};
use crate::object_file::{ObjectFile, read_error};
use crate::write::live::{conform, live_rows, open_file};
use crate::write::vectors::check_fit;

/// Rows read, filtered and encoded at once: slices of this size encode fastest (see `write/parquet.rs`).
const BATCH_ROWS: usize = 8192;

/// Reads files of one table.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    /// The store rooted at the table.
    pub(crate) store: Arc<dyn ObjectStore>,
    /// The table, for messages.
    pub(crate) location: Location,
    /// The columns to read.
    pub(crate) schema: SchemaRef,
    /// Whoever cancels it ends the reading, between two pieces.
    pub(crate) stop: CancellationToken,
}

/// The live rows of one file.
pub(crate) struct LiveRows {
    reading: Reading,
    add: Add,
    deleted: RoaringTreemap,
    batches: ParquetRecordBatchStream<ObjectFile>,
    /// How many rows were read, deleted ones counted.
    n_read: u64,
    /// How many rows the file has by its own account.
    n_rows: u64,
}

impl Reading {
    /// Opens the file of `add`, of which the rows `deleted` are no longer part of the table.
    ///
    /// # Errors
    /// `Unavailable` when the store does not answer; `Data` when the file cannot be read, has another number of rows than the
    /// log tells, or does not have all of `deleted`.
    pub(crate) async fn open(&self, add: &Add, deleted: &RoaringTreemap) -> Result<LiveRows> {
        let failed = |cause: ParquetError| read_error(self.unreadable(add), cause);
        let path = Path::parse(&add.path).map_err(|cause| self.damaged(add).with_source(cause))?;
        let size = u64::try_from(add.size).map_err(|cause| self.damaged(add).with_source(cause))?;
        let reader = ObjectFile::new(Arc::clone(&self.store), path, size);
        let builder = open_file(reader).await.map_err(failed)?;
        let n_rows = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
        if num_records(add).is_some_and(|told| told != n_rows) {
            return Err(Error::data(format!(
                "{} of the table at {} has {n_rows} rows, and its log tells another number",
                add.path, self.location
            )));
        }
        check_fit(deleted, (&add.path, n_rows), &self.location)?;
        let columns = builder.parquet_schema().root_schema().get_fields();
        let is_wanted = |place: &usize| self.schema.index_of(columns[*place].name()).is_ok();
        let mask = ProjectionMask::roots(builder.parquet_schema(), (0..columns.len()).filter(is_wanted));
        let batches = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build().map_err(failed)?;
        let (add, deleted) = (add.clone(), deleted.clone());
        Ok(LiveRows { reading: self.clone(), add, deleted, batches, n_read: 0, n_rows })
    }

    /// Returns the error where the reading is to stop.
    pub(crate) fn check_stop(&self) -> Result<()> {
        if self.stop.is_cancelled() { Err(Error::closed("the reading of data files was stopped")) } else { Ok(()) }
    }

    fn damaged(&self, add: &Add) -> Error {
        Error::data(self.unreadable(add))
    }

    fn unreadable(&self, add: &Add) -> String {
        format!("cannot read {} of the table at {}", add.path, self.location)
    }
}

impl LiveRows {
    /// Returns how many rows there are in all.
    pub(crate) fn n_live(&self) -> u64 {
        self.n_rows.saturating_sub(self.deleted.len())
    }

    /// Returns the next rows, at least one; `None` after the last.
    ///
    /// # Errors
    /// `Unavailable` or `Data` when the file cannot be read on, or ends elsewhere than where its footer says; `Closed` when it
    /// is to stop.
    pub(crate) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let failed = |cause: ParquetError| read_error(self.reading.unreadable(&self.add), cause);
        while let Some(batch) = self.batches.try_next().await.map_err(failed)? {
            self.reading.check_stop()?;
            let live = live_rows(&batch, self.n_read, &self.deleted)?;
            self.n_read += batch.num_rows() as u64;
            if live.num_rows() > 0 {
                let rows = conform(&live, &self.reading.schema);
                return rows.map(Some).map_err(|cause| self.reading.damaged(&self.add).with_source(cause));
            }
        }
        if self.n_read != self.n_rows {
            let Self { n_read, n_rows, .. } = self;
            let unreadable = self.reading.unreadable(&self.add);
            return Err(Error::data(format!("{unreadable}: it has {n_read} rows, and its footer tells of {n_rows}")));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::{DataType, Field, Schema, TimeUnit, TimestampMicrosecondType};
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;
    use parquet::data_type::{Int32Type, Int96, Int96Type};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use super::*;

    type TestResult<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

    /// 9999-12-31, in days since the epoch.
    const LAST_DAY: u32 = 2_932_896;

    /// A file of one row as Spark writes it: the last day that there is as a time, in a list, in a map and in a struct.
    fn of_spark() -> TestResult<Vec<u8>> {
        let schema = "message spark_schema {
            required int96 seen;
            required group all (LIST) { repeated group list { required int96 element; } }
            required group by_number (MAP) { repeated group key_value { required int32 key; required int96 value; } }
            required group home { required int96 since; }
        }";
        let mut day = Int96::new();
        day.set_data(0, 0, 2_440_588 + LAST_DAY);
        let properties = Arc::new(WriterProperties::builder().build());
        let schema = Arc::new(parse_message_type(schema)?);
        let mut writer = SerializedFileWriter::new(Vec::<u8>::new(), schema, properties)?;
        let mut group = writer.next_row_group()?;
        let (one, first): (Option<&[i16]>, Option<&[i16]>) = (Some(&[1]), Some(&[0]));
        let in_one = |is_key: bool| (is_key, one, first);
        let alone = (false, None, None);
        for (is_key, defined, repeated) in [alone, in_one(false), in_one(true), in_one(false), alone] {
            let mut column = group.next_column()?.ok_or("the file has fewer columns")?;
            match is_key {
                true => column.typed::<Int32Type>().write_batch(&[7], defined, repeated)?,
                false => column.typed::<Int96Type>().write_batch(&[day], defined, repeated)?,
            };
            column.close()?;
        }
        group.close()?;
        Ok(writer.into_inner()?)
    }

    #[tokio::test]
    async fn times_beyond_those_that_nanoseconds_hold_come_whole() -> TestResult {
        let bytes = of_spark()?;
        let add = Add { path: "a.parquet".to_owned(), size: i64::try_from(bytes.len())?, ..Add::default() };
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        store.put(&Path::from("a.parquet"), bytes.into()).await?;
        let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let pair = vec![Field::new("key", DataType::Int32, false), Field::new("value", time.clone(), true)];
        let entries = Arc::new(Field::new("key_value", DataType::Struct(pair.into()), false));
        let schema = Arc::new(Schema::new(vec![
            Field::new("seen", time.clone(), true),
            Field::new("all", DataType::new_list(time.clone(), true), true),
            Field::new("by_number", DataType::Map(entries, false), true),
            Field::new("home", DataType::Struct(vec![Field::new("since", time, true)].into()), true),
        ]));
        let reading = Reading { store, location: "memory:///t".parse()?, schema, stop: CancellationToken::new() };
        let rows = reading.open(&add, &RoaringTreemap::new()).await?.next().await?.ok_or("no row came")?;
        let expected = i64::from(LAST_DAY) * 86_400_000_000;
        let (all, by_number) = (rows.column(1).as_list::<i32>().value(0), rows.column(2).as_map().values());
        for values in [rows.column(0), &all, by_number, rows.column(3).as_struct().column(0)] {
            assert_eq!(values.as_primitive::<TimestampMicrosecondType>().values(), &[expected]);
        }
        Ok(())
    }
}
