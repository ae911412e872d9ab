//! The live data files of one version of a Delta table, with what the log tells of each.
//!
//! They are listed once for a version, by the first query that wants rows, and serve all later ones: to skip files, to
//! estimate and to answer counts. Nothing here reads a data file. Before it: the kernel's replay of the log. After it: the
//! [scan](super::scan), which reads those files that are left.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use alluvium_catalog::{Error, Location, Result};
use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt64Array};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::{Column, ColumnStatistics, ScalarValue, Statistics};
use datafusion::error::Result as DfResult;
use deltalake::kernel::{DeletionVectorDescriptor, LogicalFileView, Snapshot};
use deltalake::logstore::LogStore;
use futures::TryStreamExt;
use object_store::ObjectMeta;
use object_store::path::Path;
use url::Url;

use super::columns::Columns;
use super::statistics::FileStatistics;

/// A data file of the table.
#[derive(Debug, Clone)]
pub(super) struct LiveFile {
    /// Where it is, from the root of its store.
    pub(super) meta: ObjectMeta,
    /// The values of the partition columns, in the order of a scan.
    pub(super) partition: Vec<ScalarValue>,
    /// How many rows it has, deleted ones included, if the log tells.
    pub(super) n_rows: Option<u64>,
    /// Which of them are deleted.
    pub(super) vector: Option<DeletionVectorDescriptor>,
    /// What is known of the live rows, for the columns of a scan.
    pub(super) statistics: Arc<Statistics>,
}

/// The files of one version.
#[derive(Debug)]
pub(super) struct LiveFiles {
    pub(super) files: Vec<LiveFile>,
    /// The columns of a scan.
    schema: SchemaRef,
    /// The partition columns: a row for each file.
    partitions: RecordBatch,
    /// For each column of a scan its bounds, as arrays over the files, once they were asked for.
    bounds: Vec<OnceLock<Option<ColumnBounds>>>,
    all: OnceLock<Statistics>,
}

/// The bounds of a column in each file.
#[derive(Debug, Clone)]
struct ColumnBounds {
    least: ArrayRef,
    greatest: ArrayRef,
}

impl LiveFiles {
    /// Lists the files of `snapshot`, whose table is at `location` and has these `columns`.
    ///
    /// # Errors
    /// `Unavailable` when the log cannot be read; `Data` when it is damaged or names files outside the table.
    pub(super) async fn list(
        snapshot: &Snapshot,
        logs: &dyn LogStore,
        location: &Location,
        columns: &Columns,
    ) -> Result<Self> {
        let failed = || Error::data(format!("cannot read the Delta log at {location}"));
        let views: Vec<LogicalFileView> =
            snapshot.file_views(logs, None).try_collect().await.map_err(|cause| failed().with_source(cause))?;
        let (location, columns) = (location.clone(), columns.clone());
        let read = tokio::task::spawn_blocking(move || Self::read(&views, &location, &columns));
        read.await.map_err(|cause| failed().with_source(cause))?
    }

    fn read(views: &[LogicalFileView], location: &Location, columns: &Columns) -> Result<Self> {
        let files: Vec<LiveFile> =
            views.iter().map(|view| LiveFile::read(view, location, columns)).collect::<Result<_>>()?;
        let schema = Arc::clone(columns.scanned.table_schema());
        let bounds = schema.fields().iter().map(|_| OnceLock::new()).collect();
        let partitions = partitions(&files, columns.in_log()).map_err(|cause| {
            Error::internal(format!("cannot hold the partition values of the table at {location}")).with_source(cause)
        })?;
        Ok(Self { files, schema, partitions, bounds, all: OnceLock::new() })
    }

    /// Returns about how many bytes the list takes.
    pub(super) fn bytes(&self) -> usize {
        let each = size_of::<LiveFile>() + self.schema.fields().len() * size_of::<ColumnStatistics>();
        self.files.len() * each
    }

    /// Returns a row of partition values for each file.
    pub(super) fn partitions(&self) -> &RecordBatch {
        &self.partitions
    }

    /// Returns what is known of the live rows of the files `chosen`.
    pub(super) fn summary(&self, chosen: &[usize]) -> DfResult<Statistics> {
        let merge = |files: &mut dyn Iterator<Item = &LiveFile>| {
            Statistics::try_merge_iter(files.map(|file| file.statistics.as_ref()), &self.schema)
        };
        if chosen.len() < self.files.len() {
            return merge(&mut chosen.iter().map(|&index| &self.files[index]));
        }
        if let Some(all) = self.all.get() {
            return Ok(all.clone());
        }
        let all = merge(&mut self.files.iter())?;
        Ok(self.all.get_or_init(|| all).clone())
    }

    fn bounds(&self, column: &Column) -> Option<&ColumnBounds> {
        let index = self.schema.index_of(column.name()).ok()?;
        self.bounds[index].get_or_init(|| self.collect_bounds(index)).as_ref()
    }

    fn collect_bounds(&self, index: usize) -> Option<ColumnBounds> {
        let null = ScalarValue::try_new_null(self.schema.field(index).data_type()).ok()?;
        let collect = |get: fn(&ColumnStatistics) -> &Precision<ScalarValue>| {
            let known = |file: &LiveFile| get(&file.statistics.column_statistics[index]).get_value().cloned();
            ScalarValue::iter_to_array(self.files.iter().map(|file| known(file).unwrap_or_else(|| null.clone()))).ok()
        };
        Some(ColumnBounds {
            least: collect(|column| &column.min_value)?,
            greatest: collect(|column| &column.max_value)?,
        })
    }
}

/// Bounds, inexact ones too: to skip a file it is enough that no row lies outside.
impl PruningStatistics for LiveFiles {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        Some(Arc::clone(&self.bounds(column)?.least))
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        Some(Arc::clone(&self.bounds(column)?.greatest))
    }

    fn num_containers(&self) -> usize {
        self.files.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let index = self.schema.index_of(column.name()).ok()?;
        let nulls = |file: &LiveFile| {
            let nulls = file.statistics.column_statistics[index].null_count.get_value()?;
            u64::try_from(*nulls).ok()
        };
        Some(Arc::new(self.files.iter().map(nulls).collect::<UInt64Array>()))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(self.files.iter().map(|file| file.n_rows).collect::<UInt64Array>()))
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}

impl LiveFile {
    fn read(view: &LogicalFileView, location: &Location, columns: &Columns) -> Result<Self> {
        let damaged = |why: &str| Error::data(format!("the Delta log at {location} names {}: {why}", view.path()));
        let last_modified =
            view.modification_datetime().map_err(|cause| damaged("its time is none").with_source(cause))?;
        let size = u64::try_from(view.size()).map_err(|_| damaged("its size is negative"))?;
        let path = data_path(view, location).ok_or_else(|| damaged("it lies outside the table"))?;
        let values = view.partition_values_map();
        let mut partition = Vec::new();
        for field in columns.scanned.table_partition_cols() {
            let text = values.get(field.name()).and_then(Option::as_deref);
            partition.push(partition_value(text, field.data_type()).ok_or_else(|| {
                damaged(&format!("{text:?} is not a value of the partition column '{}'", field.name()))
            })?);
        }
        let vector = view.deletion_vector_descriptor();
        let known = match view.stats() {
            Some(text) => FileStatistics::read(&text, columns.in_files(), vector.is_some()),
            None => FileStatistics::unknown(columns.in_files()),
        };
        let n_deleted = match &vector {
            Some(vector) => {
                u64::try_from(vector.cardinality).map_err(|_| damaged("it has deleted less than no row"))?
            }
            None => 0,
        };
        let n_live = match known.n_rows {
            Some(n_rows) => {
                Some(n_rows.checked_sub(n_deleted).ok_or_else(|| damaged("it has more deleted rows than rows"))?)
            }
            None => None,
        };
        let n_live = match n_live.and_then(|n_live| usize::try_from(n_live).ok()) {
            Some(n_live) => Precision::Exact(n_live),
            None => Precision::Absent,
        };
        let mut column_statistics = known.columns;
        column_statistics.extend(partition.iter().map(|value| constant(value, n_live)));
        let statistics = Statistics {
            num_rows: n_live,
            total_byte_size: usize::try_from(size).map_or(Precision::Absent, Precision::Inexact),
            column_statistics,
        };
        let meta = ObjectMeta { location: path, last_modified, size, e_tag: None, version: None };
        Ok(Self { meta, partition, n_rows: known.n_rows, vector, statistics: Arc::new(statistics) })
    }

    /// Tells whether the log says that no row is left.
    pub(super) fn is_empty(&self) -> bool {
        self.statistics.num_rows == Precision::Exact(0)
    }
}

/// Returns the path in its store of a data file that the log names by a path below the table, and no other.
pub(super) fn path_below(written: &str, location: &Location) -> Option<Path> {
    if written.contains("://") || written.starts_with('/') {
        return None;
    }
    let path = Path::parse(written).ok()?;
    Some(location.path().parts().chain(path.parts()).collect())
}

/// Returns the path of a data file in its store, unless the file is not below the table.
fn data_path(view: &LogicalFileView, location: &Location) -> Option<Path> {
    let written = view.path();
    let absolute = if written.contains("://") {
        let (url, table) = (Url::parse(&written).ok()?, location.url().ok()?);
        let is_same_store = url.scheme() == table.scheme() && url.host_str() == table.host_str();
        Some(Path::from_url_path(url.path()).ok().filter(|_| is_same_store)?)
    } else if written.starts_with('/') {
        Some(Path::parse(written.as_ref()).ok()?)
    } else {
        None
    };
    if let Some(path) = absolute {
        let is_inside = path.prefix_matches(location.path());
        return is_inside.then_some(path);
    }
    Some(location.path().parts().chain(view.object_store_path().parts()).collect())
}

/// Returns the value that the log writes as `text`. An empty text is NULL for every type. Source: Delta transaction log
/// protocol, section "Partition Value Serialization".
pub(super) fn partition_value(text: Option<&str>, data_type: &DataType) -> Option<ScalarValue> {
    match (text, data_type) {
        (None | Some(""), _) => ScalarValue::try_new_null(data_type).ok(),
        (Some(text), DataType::Utf8) => Some(ScalarValue::from(text)),
        (Some(text), DataType::Binary) => Some(ScalarValue::Binary(Some(text.as_bytes().to_vec()))),
        (Some(text), _) => ScalarValue::from(text).cast_to(data_type).ok().filter(|value| !value.is_null()),
    }
}

/// Returns what is known of a column that has `value` in every one of `n_rows`.
fn constant(value: &ScalarValue, n_rows: Precision<usize>) -> ColumnStatistics {
    let mut column = ColumnStatistics::new_unknown();
    if value.is_null() {
        column.null_count = n_rows;
        return column;
    }
    column.null_count = Precision::Exact(0);
    column.min_value = Precision::Exact(value.clone());
    column.max_value = Precision::Exact(value.clone());
    column
}

/// Returns the partition values of `files`, a row each.
pub(super) fn partitions(files: &[LiveFile], schema: SchemaRef) -> DfResult<RecordBatch> {
    let mut values = Vec::with_capacity(schema.fields().len());
    for (index, field) in schema.fields().iter().enumerate() {
        values.push(match files {
            [] => arrow::array::new_empty_array(field.data_type()),
            _ => ScalarValue::iter_to_array(files.iter().map(|file| file.partition[index].clone()))?,
        });
    }
    let options = RecordBatchOptions::new().with_row_count(Some(files.len()));
    Ok(RecordBatch::try_new_with_options(schema, values, &options)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_partition_value_is_null_for_every_type() {
        let types = [DataType::Utf8, DataType::Binary, DataType::Int32, DataType::Date32, DataType::Boolean];
        for data_type in types {
            let null = ScalarValue::try_new_null(&data_type).ok();
            assert_eq!(partition_value(Some(""), &data_type), null, "{data_type}");
            assert_eq!(partition_value(None, &data_type), null, "{data_type}");
        }
        assert_eq!(partition_value(Some(" "), &DataType::Utf8), Some(ScalarValue::from(" ")));
        assert_eq!(partition_value(Some("x"), &DataType::Int32), None);
    }
}
