//! Reads rows whose places in their files are known, without the list of files: a selection of these rows, and no others.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::Statistics;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::ParquetRowSelection;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result as DfResult;
use datafusion::parquet::arrow::arrow_reader::RowSelection;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use object_store::ObjectMeta;

use super::LiveScan;
use crate::locate::{Located, LocatedRow};
use crate::tables::Asked;
use crate::tables::live::{self, LiveFile};
use crate::tables::point::KeyLookupExec;
use crate::tables::prune;

impl LiveScan {
    /// Returns a plan that reads the rows of `located`, which is of this version; `None` where a file is not one of this
    /// version, or cannot be found without the log.
    ///
    /// # Errors
    /// What evaluating a filter on partition values says.
    pub(in crate::tables) fn rows_at(
        &self,
        located: &Located,
        asked: Asked<'_>,
    ) -> DfResult<Option<Arc<dyn ExecutionPlan>>> {
        let Some(mut files) = self.files_of(&located.rows) else { return Ok(None) };
        self.keep_matching(&mut files, asked)?;
        let n_rows = files.iter().map(|(_, rows)| rows.len()).sum();
        let places = self.columns.places(asked.projection);
        let reading: Arc<dyn ExecutionPlan> = if files.is_empty() {
            let schema = self.columns.scanned.table_schema().project(&places)?;
            Arc::new(EmptyExec::new(Arc::new(schema)))
        } else {
            let files = files.into_iter().map(|(file, rows)| selected(file, rows)).collect();
            let config = FileScanConfigBuilder::new(
                self.url.clone(),
                Arc::new(self.parquet(&self.columns.scanned, asked.session)),
            )
            .with_file_groups(vec![FileGroup::new(files)])
            .with_projection_indices(Some(places))?
            .build();
            DataSourceExec::from_data_source(config)
        };
        Ok(Some(Arc::new(KeyLookupExec::new(reading, located.version, located.rows.len(), n_rows))))
    }

    /// Returns the files that `rows` stand in, each with the numbers of its rows, which ascend; `None` where two keys have
    /// one row, or two rows tell differently of their file: no selection can be made of those.
    fn files_of(&self, rows: &[Option<LocatedRow>]) -> Option<Vec<(LiveFile, Vec<usize>)>> {
        let mut by_path: BTreeMap<&str, (&LocatedRow, Vec<usize>)> = BTreeMap::new();
        for row in rows.iter().flatten() {
            if row.row >= row.n_rows {
                return None;
            }
            let (first, numbers) = by_path.entry(&row.path).or_insert_with(|| (row, Vec::new()));
            if row.n_rows != first.n_rows {
                return None;
            }
            numbers.push(usize::try_from(row.row).ok()?);
        }
        let file = |(row, mut numbers): (&LocatedRow, Vec<usize>)| {
            numbers.sort_unstable();
            let is_twice = numbers.windows(2).any(|pair| pair[0] == pair[1]);
            if is_twice { None } else { Some((self.file_of(row)?, numbers)) }
        };
        by_path.into_values().map(file).collect()
    }

    /// Returns the file of `row`: as the log has it, where its files have been listed, or else as `row` says itself.
    fn file_of(&self, row: &LocatedRow) -> Option<LiveFile> {
        let path = live::path_below(&row.path, self.location())?;
        if let Some(live) = self.live.get() {
            let is_it = |file: &&LiveFile| file.meta.location == path && file.n_rows == Some(row.n_rows);
            return live.files.iter().find(is_it).cloned();
        }
        let value = |name: &String| row.partition_values.get(name).and_then(Option::as_deref);
        let partition_columns = self.columns.scanned.table_partition_cols().iter();
        let partition = partition_columns.map(|field| live::partition_value(value(field.name()), field.data_type()));
        let meta = ObjectMeta {
            location: path,
            last_modified: Default::default(),
            size: row.size,
            e_tag: None,
            version: None,
        };
        Some(LiveFile {
            meta,
            partition: partition.collect::<Option<_>>()?,
            n_rows: Some(row.n_rows),
            vector: None,
            statistics: Arc::new(Statistics::new_unknown(&self.schema())),
        })
    }

    /// Leaves out the files that filters on partition values leave out: nobody filters by those again.
    fn keep_matching(&self, files: &mut Vec<(LiveFile, Vec<usize>)>, asked: Asked<'_>) -> DfResult<()> {
        let bare: Vec<LiveFile> = files.iter().map(|(file, _)| file.clone()).collect();
        let partitions = live::partitions(&bare, self.columns.in_log())?;
        if let Some(matched) = prune::matching(&partitions, &self.columns, asked.filters, asked.session)? {
            let mut matched = matched.into_iter();
            files.retain(|_| matched.next().unwrap_or(false));
        }
        Ok(())
    }
}

/// Returns `file` as DataFusion reads it, with `rows` selected.
fn selected(file: LiveFile, rows: Vec<usize>) -> PartitionedFile {
    let n_rows = file.n_rows.and_then(|n_rows| usize::try_from(n_rows).ok()).unwrap_or(usize::MAX);
    let ranges = rows.into_iter().map(|row| row..row + 1);
    let selection = RowSelection::from_consecutive_ranges(ranges, n_rows);
    let mut partitioned = PartitionedFile::new_from_meta(file.meta);
    partitioned.partition_values = file.partition;
    partitioned.extensions.insert_arc(Arc::new(ParquetRowSelection::new(selection)));
    partitioned
}
