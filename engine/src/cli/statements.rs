//! `OPTIMIZE` and `VACUUM` in SQL: what the commands of these names do, answered with rows.

use std::sync::Arc;
use std::time::Duration;

use alluvium_catalog::{Clock, Error, Result, Stores, SystemClock};
use alluvium_sql::repl::{Tended, Upkeep};
use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray};
use async_trait::async_trait;

use super::upkeep::kept_for;
use super::workspace::Workspace;
use crate::config::UpkeepSettings;
use crate::delta::log::DeltaLog;
use crate::upkeep::optimize::{Extent, optimize};
use crate::upkeep::plan::Aims;
use crate::upkeep::vacuum::{Mode, vacuum};

/// Tends the tables that statements name.
#[derive(Debug)]
pub(super) struct TableUpkeep {
    stores: Stores,
    settings: UpkeepSettings,
}

impl TableUpkeep {
    /// Returns the upkeep of the tables of `workspace`, as its settings say.
    pub(super) fn new(workspace: &Workspace) -> Self {
        Self { stores: workspace.stores.clone(), settings: workspace.settings.limits().upkeep.clone() }
    }
}

#[async_trait]
impl Upkeep for TableUpkeep {
    async fn optimize(&self, table: &Tended, is_full: bool) -> Result<RecordBatch> {
        let log = DeltaLog::open(&self.stores, &table.location)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let extent = if is_full { Extent::Full } else { Extent::Worthwhile };
        let done = optimize(log, &Aims::all(&self.settings), extent, &clock, |_| {}).await?;
        row([
            ("table", text(table)),
            ("version", number(done.version)),
            ("commits", number(done.commits)),
            ("files_before", number(done.files_before)),
            ("bytes_before", number(done.bytes_before)),
            ("files_after", number(done.files_after)),
            ("bytes_after", number(done.bytes_after)),
        ])
    }

    async fn vacuum(&self, table: &Tended, retention: Option<Duration>, is_dry_run: bool) -> Result<RecordBatch> {
        let log = DeltaLog::open(&self.stores, &table.location)?;
        let kept_for = kept_for(&log, retention, false).await?;
        let mode = if is_dry_run { Mode::DryRun } else { Mode::Remove };
        let done = vacuum(&log, kept_for, mode, &SystemClock, |_| {}).await?;
        row([
            ("table", text(table)),
            ("dry_run", Arc::new(BooleanArray::from(vec![is_dry_run])) as ArrayRef),
            ("retention_hours", number(kept_for.as_secs() / 3_600)),
            ("files", number(done.files)),
            ("bytes", number(done.bytes)),
            ("removed", number(done.removed)),
            ("kept", number(done.kept)),
            ("oldest_version", number(done.oldest_version)),
        ])
    }
}

fn row<const N: usize>(columns: [(&str, ArrayRef); N]) -> Result<RecordBatch> {
    RecordBatch::try_from_iter(columns).map_err(|cause| Error::internal("cannot answer with a row").with_source(cause))
}

fn text(table: &Tended) -> ArrayRef {
    Arc::new(StringArray::from(vec![table.name.to_string()]))
}

fn number(number: u64) -> ArrayRef {
    Arc::new(Int64Array::from(vec![i64::try_from(number).unwrap_or(i64::MAX)]))
}
