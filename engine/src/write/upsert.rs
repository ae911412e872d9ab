//! Upserts: the newest row of each key stands.
//!
//! A batch writes its rows to new files, marks the rows that they supersede in deletion vectors, and commits both at
//! once; the cost is that of the batch. In copy-on-write mode it writes the files of those rows anew instead. Where a row
//! is, the [`KeyIndex`] knows; which of two changes is newer, [`order`](crate::order) decides. Rows carry their position in
//! hidden columns, so that the index can be made again from the table.
//!
//! A key is looked up once a draft: what was found when the batch was staged holds until the index changes, and what was
//! drawn up for a commit is what is applied when it has landed.

mod ahead;
mod cap;
mod changes;
mod columns;
mod copy_on_write;
mod decide;
mod draw;
mod forget;
mod lookup;
mod memory;
mod order_cache;
mod relocate;
mod rows;
mod scan;
mod settings;
mod snapshots;
mod store;

use std::sync::Arc;

use alluvium_catalog::{Effort, Error, Result};
use alluvium_sql::UpsertMode;
use arrow::array::UInt32Array;
use arrow::buffer::BooleanBuffer;
use async_trait::async_trait;
use roaring::RoaringTreemap;
use tokio_util::task::AbortOnDropHandle;

pub use changes::{Decision, KeyChanges};
pub use columns::UpsertColumns;
pub use lookup::{FoundRow, FoundRows, KeyLookup};
pub use settings::UpsertSettings;
pub use snapshots::SnapshotDisk;

use self::ahead::{Foresight, Written};
use self::changes::{Columns, Stored, Verdict, Verdicts};
use self::order_cache::OrderCache;
use self::rows::RowReader;
use self::snapshots::Snapshots;
use self::store::Sidecar;
use super::compaction::{Compaction, Exchange};
use super::index::{Bounds, Footprint, IndexLender, IndexShare, IndexedFile, KeyIndex, RowPlace};
use super::parquet::DataFolder;
use super::rewrite::Rewrite;
use super::tombstones::TombstoneFolder;
use super::vectors::VectorFolder;
use super::{Draft, Staged, Writer};
use crate::delta::action::Action;
use crate::delta::log::{LogEntry, Version};
use crate::delta::state::TableState;
use crate::hop::Changes;
use crate::key::KeyForm;
use crate::order::OrderForm;

/// Stages upserts and deletes for one table.
#[derive(Debug)]
pub struct UpsertWriter {
    folder: DataFolder,
    vectors: VectorFolder,
    tombstones: TombstoneFolder,
    reader: Arc<RowReader>,
    settings: UpsertSettings,
    /// Shared with a look-up on another thread while it lasts.
    index: Arc<KeyIndex>,
    /// What it has taken of what all indexes of the process may take.
    share: IndexShare,
    /// What it took when memory was given back last.
    gave_back_bytes: u64,
    /// Lets others look into it between changes.
    lender: IndexLender,
    cache: OrderCache,
    /// When deletes were forgotten last in memory, epoch milliseconds.
    forgot_ms: i64,
    /// When the sidecars of forgotten deletes were removed last, epoch milliseconds.
    swept_ms: i64,
    /// The removal under way.
    sweep: Option<AbortOnDropHandle<()>>,
    snapshots: Snapshots,
    table_id: String,
    /// The version that the index is of, and the one that a draft was drawn up for.
    version: Version,
    drafted: Version,
    /// When that version was the newest, epoch milliseconds: what others have deleted since is not in the index.
    stood_ms: i64,
    foresight: Foresight,
    /// Files written anew for the draft at hand: after a conflict, those of which nothing has changed are taken again.
    rewrites: Vec<Arc<Rewrite>>,
    /// The sidecar that was written last for the batch at hand, if not the one of its staging.
    sidecar: Option<Sidecar>,
    /// Whether the index is that of a version, and not half on its way from one to another after an error.
    is_whole: bool,
}

impl UpsertWriter {
    /// Returns a writer into `folder` whose index is made from `state` and from the deletes that are remembered.
    ///
    /// # Errors
    /// `Unavailable` or `Data` when a file of the table cannot be read; `Invalid` when the index does not fit into the
    /// memory that it may take.
    pub async fn open(
        folder: DataFolder,
        columns: UpsertColumns,
        state: &TableState,
        settings: UpsertSettings,
    ) -> Result<Self> {
        let (store, location, clock) = (Arc::clone(&folder.store), folder.location.clone(), Arc::clone(&folder.clock));
        let vectors = VectorFolder {
            store: Arc::clone(&store),
            location: location.clone(),
            clock: Arc::clone(&clock),
            inline_bytes_max: settings.inline_bytes_max,
        };
        let tombstones = TombstoneFolder { store: Arc::clone(&store), location: location.clone(), clock };
        let key_types = columns
            .keys
            .iter()
            .map(|key| columns.declared.field_with_name(key).map(|field| field.data_type().clone()))
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(|cause| Error::internal("a key column is not declared").with_source(cause))?;
        let (keys, orders) = (KeyForm::try_new(key_types)?, OrderForm::try_new(columns.sequence.clone())?);
        let interval = settings.snapshot_interval;
        let snapshots = Snapshots::new(Arc::clone(&store), location.clone(), interval, state.version)
            .also_on(settings.snapshot_disk.clone(), &state.metadata.id)
            .await;
        let reader = RowReader { store, location, vectors: vectors.clone(), columns, keys, orders };
        let (forgot_ms, share) = (folder.clock.now().0, settings.budget.share());
        let mut writer = Self {
            folder,
            vectors,
            tombstones,
            reader: Arc::new(reader),
            cache: OrderCache::new(settings.order_cache_bytes),
            settings,
            index: Arc::default(),
            share,
            gave_back_bytes: 0,
            lender: IndexLender::new(),
            forgot_ms,
            swept_ms: forgot_ms,
            sweep: None,
            snapshots,
            table_id: state.metadata.id.clone(),
            version: state.version,
            drafted: state.version,
            stood_ms: forgot_ms,
            foresight: Foresight::new(),
            rewrites: Vec::new(),
            sidecar: None,
            is_whole: true,
        };
        if !writer.restore(state).await? {
            writer.index_table(state).await?;
        }
        writer.lend();
        Ok(writer)
    }

    /// Returns the index, for reports and checks.
    pub fn index(&self) -> &KeyIndex {
        &self.index
    }

    /// Returns what the changes mean to the index as it is now.
    async fn verdicts(&mut self, columns: &Columns) -> Result<Arc<Verdicts>> {
        if columns.verdicts.epoch == self.index.epoch() {
            return Ok(Arc::clone(&columns.verdicts));
        }
        let is_delete = |index: usize| columns.stored.get(index).is_none_or(|stored| stored.is_nowhere());
        self.decide(columns, &is_delete).await.map(Arc::new)
    }

    /// Makes the staged files known, each with the orders of its rows, and returns the place of each change's row.
    fn place_rows(&mut self, staged: &Staged, columns: &Columns, decision: &Decision) -> Vec<RowPlace> {
        let index = Arc::make_mut(&mut self.index);
        let mut rows_of_files: Vec<Vec<u32>> = staged.files.iter().map(|file| vec![0; file.indices.len()]).collect();
        for (change, stored) in (0_u32..).zip(&columns.stored) {
            if let Stored::At { file, row } = stored
                && let Some(slot) = rows_of_files.get_mut(*file as usize).and_then(|rows| rows.get_mut(*row as usize))
            {
                *slot = change;
            }
        }
        let mut ordinals = Vec::with_capacity(staged.files.len());
        for ((place, file), changes) in (0_u32..).zip(&staged.files).zip(rows_of_files) {
            if decision.leaves_out(place, file) {
                ordinals.push(None);
                continue;
            }
            let late = decision.late_rows.get(&place).cloned().unwrap_or_default();
            let n_rows = file.indices.len() as u64;
            let rows = UInt32Array::from(changes);
            // Orders that cannot be taken leave the bounds empty, which means: look into the file.
            let orders = columns.keyed.orders.take(&rows, &rows).ok();
            let bounds = orders.as_ref().map(Bounds::of).unwrap_or_default();
            let ordinal = index.insert_file(IndexedFile::new(&file.add, n_rows, late, bounds));
            if let Some(orders) = orders {
                self.cache.put(ordinal, orders);
            }
            ordinals.push(Some(ordinal));
        }
        let place = |(verdict, stored): (&Verdict, &Stored)| match (verdict, stored) {
            (Verdict::New | Verdict::Supersedes(_), Stored::At { file, row }) => {
                let ordinal = ordinals.get(*file as usize).copied().flatten();
                ordinal.map_or(RowPlace::NONE, |ordinal| RowPlace::new(ordinal, *row))
            }
            _ => RowPlace::NONE,
        };
        decision.verdicts.each.iter().zip(&columns.stored).map(place).collect()
    }
}

#[async_trait]
impl Writer for UpsertWriter {
    async fn stage(&mut self, mut changes: Changes) -> Result<Staged> {
        self.check_memory().await?;
        let keyed = Arc::new(self.keyed(&mut changes)?);
        let n_changes = keyed.keys.len();
        let mut columns = Columns {
            keyed,
            key_columns: self.key_columns(&changes)?,
            after_delete: changes.order.after_delete.clone(),
            stored: vec![Stored::Nowhere; n_changes],
            verdicts: Arc::default(),
            marks: Vec::new(),
        };
        let is_delete = |index: usize| changes.deletes.as_ref().is_some_and(|deletes| deletes.value(index));
        let rows = BooleanBuffer::collect_bool(n_changes, |index| !is_delete(index));
        let ahead = self.write_ahead(&changes, &rows)?;
        let verdicts = self.decide(&columns, &is_delete).await?;
        self.rewrites.clear();
        self.sidecar = None;
        if let Some(excess) = self.excess(changes.fate.records_in, &verdicts.superseded)? {
            return Ok(Staged::exceeding(excess, changes));
        }
        for (index, verdict) in verdicts.each.iter().enumerate() {
            if *verdict == Verdict::Late && !is_delete(index) {
                columns.stored[index] = Stored::Dropped;
            }
        }
        let is_kept = BooleanBuffer::collect_bool(n_changes, |index| {
            matches!(verdicts.each[index], Verdict::New | Verdict::Supersedes(_)) && rows.value(index)
        });
        self.foresight.learn(is_kept != rows);
        let kept: Vec<u32> = is_kept.set_indices_u32().collect();
        // One does not wait for the other: where each is flushed to disk, a small batch is nothing but waits.
        let (written, marks, tombstones) = tokio::try_join!(
            self.write_kept(&changes, (&is_kept, &rows), ahead),
            self.mark_ahead(&verdicts),
            self.remember_deletes(&columns.key_columns, &verdicts.deletes),
        )?;
        let Written { files, discarded_bytes } = written;
        columns.stand_in(&files, &kept);
        columns.verdicts = Arc::new(verdicts);
        columns.marks = marks;
        let Changes { lookups, fate, span, spent, .. } = changes;
        let changes = KeyChanges { columns: Some(columns) };
        Ok(Staged { files, discarded_bytes, changes, tombstones, lookups, fate, span, spent, excess: None })
    }

    async fn draft(&mut self, staged: &Staged, state: &TableState) -> Result<Draft> {
        let Some(columns) = &staged.changes.columns else {
            return Err(Error::internal("a batch of appends was staged for an upsert table"));
        };
        self.drafted = state.version + 1;
        self.lender.expect(self.drafted);
        let verdicts = self.verdicts(columns).await?;
        let mut decision = Decision::new(columns, verdicts);
        let excess = self.excess(staged.fate.records_in, decision.superseded())?;
        if excess.is_some() {
            return Ok(Draft { excess, ..Draft::default() });
        }
        let tombstones = self.told_deletes(staged, columns, &decision.verdicts.deletes).await?;
        let drawn = match self.settings.options.mode {
            UpsertMode::MergeOnRead => self.mark_rows(staged, (columns, &decision), state).await?,
            UpsertMode::CopyOnWrite => self.rewrite_files(staged, &mut decision, state).await?,
        };
        self.warn_above_cap(drawn.bytes);
        let late_bytes = decision.late_bytes(&staged.files);
        let mut fate = staged.fate;
        fate.merged += decision.n_merged;
        fate.applied = fate.applied.saturating_sub(decision.n_merged);
        Ok(Draft {
            actions: drawn.actions,
            fate,
            rows_inserted: decision.n_inserted,
            rows_updated: decision.n_updated,
            rows_deleted: decision.n_deleted,
            vectors_written: drawn.n_vectors,
            effort: Effort {
                files_touched: decision.superseded().len() as u64,
                batch_bytes: staged.bytes() - late_bytes,
                discarded_bytes: staged.discarded_bytes + late_bytes,
                bytes_written: staged.discarded_bytes + staged.bytes() + drawn.bytes,
            },
            notes: tombstones.iter().map(|path| (TombstoneFolder::KEY, path.as_str().into())).collect(),
            decision: Some(Arc::new(decision)),
            excess: None,
        })
    }

    fn marks_rows(&self) -> Option<bool> {
        Some(self.settings.options.mode == UpsertMode::MergeOnRead)
    }

    async fn follow(&mut self, tail: &[LogEntry]) -> Result<()> {
        let Some(newest) = tail.last() else { return Ok(()) };
        self.is_whole = false;
        self.lender.take_back();
        for entry in tail {
            self.follow_log(entry).await.map_err(|error| self.outpaced(error, entry.version))?;
        }
        self.stand_at(newest.version);
        Ok(())
    }

    fn landed(&mut self, staged: &Staged, draft: &Draft) {
        let (Some(columns), Some(decision)) = (&staged.changes.columns, &draft.decision) else { return };
        let now_ms = self.folder.clock.now().0;
        self.lender.take_back();
        let places = self.place_rows(staged, columns, decision);
        let index = Arc::make_mut(&mut self.index);
        index.replace_rows(&decision.verdicts.found, &places);
        let keys = &columns.keyed.keys;
        for delete in &decision.verdicts.deletes {
            let change = delete.change as usize;
            index.put_delete((keys.get(change), keys.hashes()[change]), delete.order.clone(), now_ms);
        }
        for (ordinal, rows) in decision.superseded() {
            index.delete_rows(*ordinal, rows);
        }
        for action in &draft.actions {
            if let Action::Add(add) = action {
                index.set_vector(&add.path, add.deletion_vector.clone());
            }
        }
        for (ordinal, path) in self.emptied(decision) {
            Arc::make_mut(&mut self.index).remove_file(&path);
            self.cache.forget(ordinal);
        }
        self.take_rewrites(decision);
        self.forget_sometimes();
        self.stand_at(self.drafted);
        // Where there is no room for what has come, the next batch is refused.
        self.take_share().unwrap_or_default();
        self.save_when_due();
    }

    async fn close(&mut self) {
        self.forget_in_memory();
        // Before sidecars are removed, of which there may be very many: the next start is quick by it.
        self.save_and_wait().await;
        self.sweep_and_wait().await;
    }

    fn n_rows(&self) -> Option<u64> {
        self.index.check_count();
        Some(self.index.n_rows())
    }

    fn n_records(&self, path: &str) -> Option<u64> {
        self.index.n_records(path)
    }

    fn footprint(&self) -> Option<Footprint> {
        Some(self.index.footprint())
    }

    fn deleted_rows(&self, path: &str) -> Option<RoaringTreemap> {
        self.index.deleted_rows(path).cloned()
    }

    fn compacted(&mut self, compaction: &Compaction, exchange: &Exchange, version: Version) {
        self.lender.take_back();
        self.relocate(compaction, exchange);
        self.stand_at(version);
    }
}

#[cfg(test)]
mod tests;
