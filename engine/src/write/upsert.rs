//! Upserts: the newest row of each key stands.
//!
//! A batch writes its rows to new files, marks the rows that they supersede in deletion vectors, and commits both at
//! once; the cost is that of the batch. Where a row is, the [`KeyIndex`] knows; which of two changes is newer, [`Order`]
//! decides. Rows carry their position in hidden columns, so that the index can be made again from the table.

mod columns;
mod relocate;
mod scan;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use alluvium_catalog::{Effort, Error, Result};
use alluvium_sql::{HIDDEN_OFFSET, HIDDEN_PARTITION, HIDDEN_SEQUENCE};
use arrow::array::{Array, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::row::{RowConverter, SortField};
use async_trait::async_trait;
use deltalake::kernel::DeletionVectorDescriptor;
use roaring::RoaringTreemap;

pub use columns::UpsertColumns;

use super::compaction::{Compaction, Exchange};
use super::index::{Entry, FileOrdinal, KeyIndex, Place, RowPlace};
use super::parquet::DataFolder;
use super::stats::loosen;
use super::tombstones::TombstoneFolder;
use super::vectors::VectorFolder;
use super::{Draft, Staged, Writer};
use crate::delta::action::{Action, Add, Remove};
use crate::delta::log::LogEntry;
use crate::delta::state::TableState;
use crate::hop::{ChangeOrder, Changes};
use crate::order::{Order, Orders};

/// One change of a batch to a key.
#[derive(Debug, Clone)]
pub struct KeyChange {
    /// The key in the index's form.
    pub key: Box<[u8]>,
    /// Its place in the order of the key.
    pub order: Order,
    /// The offset of a tombstone without sequence that came before it in the batch, if one did.
    pub after_delete: Option<i64>,
    /// Its row: the place of the file in [`Staged::files`] and the row in it; `None` for deletes.
    pub stored: Option<(usize, u32)>,
}

/// What a change means to the table as the index knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// The key has a newer change already.
    Late,
    /// The key has no live row.
    New,
    /// The key's row is superseded.
    Supersedes(RowPlace),
    /// The change is late, but a tombstone before it deletes the key's row.
    OnlyDeletes(RowPlace),
}

/// Stages upserts and deletes for one table.
#[derive(Debug)]
pub struct UpsertWriter {
    folder: DataFolder,
    vectors: VectorFolder,
    tombstones: TombstoneFolder,
    columns: UpsertColumns,
    keys: RowConverter,
    orders: Orders,
    index: KeyIndex,
}

impl UpsertWriter {
    /// Returns a writer into `folder` whose index is made from `state` and from the deletes of the last `retention`.
    ///
    /// # Errors
    /// `Unavailable` or `Data` when a file of the table cannot be read.
    pub async fn open(
        folder: DataFolder,
        columns: UpsertColumns,
        state: &TableState,
        retention: Duration,
    ) -> Result<Self> {
        let (store, location, clock) = (Arc::clone(&folder.store), folder.location.clone(), Arc::clone(&folder.clock));
        let vectors = VectorFolder { store: Arc::clone(&store), location: location.clone(), clock: Arc::clone(&clock) };
        let tombstones = TombstoneFolder { store, location, clock };
        let key_types = columns
            .keys
            .iter()
            .map(|key| columns.declared.field_with_name(key).map(|field| SortField::new(field.data_type().clone())))
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(|cause| Error::internal("a key column is not declared").with_source(cause))?;
        let keys = RowConverter::new(key_types)
            .map_err(|cause| Error::invalid("a key column has a type that cannot be compared").with_source(cause))?;
        let orders = Orders::try_new(columns.sequence.clone())?;
        let index = KeyIndex::default();
        let mut writer = Self { folder, vectors, tombstones, columns, keys, orders, index };
        writer.index_table(state, retention).await?;
        Ok(writer)
    }

    /// Returns the index, for reports and checks.
    pub fn index(&self) -> &KeyIndex {
        &self.index
    }

    /// Forgets deletes older than `retention`, in memory and beside the table.
    ///
    /// # Errors
    /// `Unavailable` when the store does not answer.
    pub async fn forget(&mut self, retention: Duration) -> Result<()> {
        let before_ms = self.folder.clock.now().0 - i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
        self.index.forget(before_ms);
        self.tombstones.forget(before_ms).await.map(drop)
    }

    fn verdict(&self, change: &KeyChange) -> Verdict {
        let Some(known) = self.index.get(&change.key) else { return Verdict::New };
        let is_newer = change.order.supersedes(&known.order);
        match known.place {
            Place::Row(place) if is_newer => Verdict::Supersedes(place),
            Place::Row(place) if change.after_delete.is_some_and(|offset| offset > known.order.offset) => {
                Verdict::OnlyDeletes(place)
            }
            Place::Deleted { .. } if is_newer => Verdict::New,
            Place::Row(_) | Place::Deleted { .. } => Verdict::Late,
        }
    }

    /// Returns the order that a change has over what it replaces.
    fn effective_order(&self, change: &KeyChange) -> Order {
        let Some(replaced) = self.index.get(&change.key) else { return change.order.clone() };
        match (self.verdict(change), change.after_delete) {
            (Verdict::OnlyDeletes(_), Some(offset)) => {
                Order { sequence: replaced.order.sequence.clone(), inherited: true, offset, ..change.order }
            }
            _ => change.order.clone().over(&replaced.order),
        }
    }

    /// Returns the stored form of the rows at `indices`.
    fn stored_rows(&self, changes: &Changes, indices: &UInt32Array) -> Result<RecordBatch> {
        let mut columns = changes.rows.columns().to_vec();
        columns.push(Arc::new(changes.order.partitions.clone()));
        columns.push(Arc::new(changes.order.offsets.clone()));
        if self.columns.stored_sequence.is_none() {
            columns.push(self.columns.hidden_sequence(&changes.order.sequence)?);
        }
        let failed = |cause| Error::internal("cannot store the rows of a batch").with_source(cause);
        let rows = RecordBatch::try_new(self.columns.stored(), columns).map_err(failed)?;
        take_record_batch(&rows, indices).map_err(failed)
    }

    /// Writes the deletes at `indices` to a sidecar, each with the sequence that it has over the row it deletes, and
    /// returns its path.
    async fn remember_deletes(
        &self,
        changes: &Changes,
        keyed: &[KeyChange],
        indices: &UInt32Array,
    ) -> Result<Option<String>> {
        if indices.is_empty() {
            return Ok(None);
        }
        let failed = |cause| Error::internal("cannot remember the deletes of a batch").with_source(cause);
        let mut fields = Vec::new();
        let mut columns = Vec::new();
        for key in &self.columns.keys {
            let column = changes.rows.column_by_name(key).ok_or_else(|| Error::internal("a key column is missing"))?;
            fields.push(Field::new(key, column.data_type().clone(), true));
            columns.push(Arc::clone(column));
        }
        let effective: Vec<Order> = keyed.iter().map(|change| self.effective_order(change)).collect();
        for (index, column) in self.orders.columns(&effective)?.into_iter().enumerate() {
            fields.push(Field::new(format!("{HIDDEN_SEQUENCE}_{index}"), column.data_type().clone(), true));
            columns.push(column);
        }
        fields.push(Field::new(HIDDEN_PARTITION, DataType::Int32, false));
        columns.push(Arc::new(changes.order.partitions.clone()));
        fields.push(Field::new(HIDDEN_OFFSET, DataType::Int64, false));
        columns.push(Arc::new(changes.order.offsets.clone()));
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(failed)?;
        self.tombstones.write(&take_record_batch(&rows, indices).map_err(failed)?).await.map(Some)
    }

    fn key_changes(&self, changes: &Changes) -> Result<Vec<KeyChange>> {
        let keys = self
            .columns
            .keys
            .iter()
            .map(|key| changes.rows.column_by_name(key).cloned())
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| Error::internal("rows lack a key column"))?;
        let keys = self
            .keys
            .convert_columns(&keys)
            .map_err(|cause| Error::internal("cannot compare keys").with_source(cause))?;
        let ChangeOrder { partitions, offsets, sequence, inherited, after_delete } = &changes.order;
        let orders = self.orders.of(sequence, inherited.as_ref(), offsets, partitions)?;
        let after =
            |index: usize| after_delete.as_ref().filter(|after| after.is_valid(index)).map(|after| after.value(index));
        Ok(keys
            .iter()
            .zip(orders)
            .enumerate()
            .map(|(index, (key, order))| KeyChange {
                key: key.data().into(),
                order,
                after_delete: after(index),
                stored: None,
            })
            .collect())
    }

    /// Draws up what the changes do to the table as the index knows it.
    fn outcome(&self, staged: &Staged) -> Outcome {
        let mut outcome = Outcome::default();
        for change in &staged.changes {
            let record = (change.order.partition, change.order.offset);
            let verdict = self.verdict(change);
            if matches!(verdict, Verdict::Late | Verdict::OnlyDeletes(_))
                && let Some((file, row)) = change.stored
            {
                outcome.late_rows.entry(file).or_default().insert(u64::from(row));
            }
            match verdict {
                Verdict::Late => {
                    outcome.late_records.insert(record);
                    continue;
                }
                Verdict::OnlyDeletes((file, row)) => {
                    outcome.superseded.entry(file).or_default().insert(u64::from(row));
                    outcome.deleted += 1;
                }
                Verdict::New => outcome.inserted += u64::from(change.stored.is_some()),
                Verdict::Supersedes((file, row)) => {
                    outcome.superseded.entry(file).or_default().insert(u64::from(row));
                    let counter = if change.stored.is_some() { &mut outcome.updated } else { &mut outcome.deleted };
                    *counter += 1;
                }
            }
            outcome.applied_records.insert(record);
        }
        for (file, row) in self.index.doubles() {
            outcome.superseded.entry(file).or_default().insert(u64::from(row));
        }
        outcome
    }
}

/// What a batch does to the table.
#[derive(Debug, Default)]
struct Outcome {
    inserted: u64,
    updated: u64,
    deleted: u64,
    /// Rows of live files that are gone after the commit.
    superseded: BTreeMap<FileOrdinal, RoaringTreemap>,
    /// Rows of staged files that never count, by the file's place.
    late_rows: HashMap<usize, RoaringTreemap>,
    late_records: HashSet<(i32, i64)>,
    applied_records: HashSet<(i32, i64)>,
}

impl Outcome {
    /// Returns the records that have no effect at all.
    fn merged(&self) -> u64 {
        self.late_records.difference(&self.applied_records).count() as u64
    }
}

#[async_trait]
impl Writer for UpsertWriter {
    async fn stage(&mut self, changes: Changes) -> Result<Staged> {
        let mut key_changes = self.key_changes(&changes)?;
        let mut kept = Vec::new();
        let mut deleted = Vec::new();
        for (index, change) in (0_u32..).zip(&key_changes) {
            let deletes = changes.deletes.as_ref().is_some_and(|deletes| deletes.value(index as usize));
            match (deletes, self.verdict(change)) {
                (_, Verdict::Late) => {}
                (_, Verdict::OnlyDeletes(_)) | (true, _) => deleted.push(index),
                (false, _) => kept.push(index),
            }
        }
        let kept = UInt32Array::from(kept);
        let files = self.folder.write(&self.stored_rows(&changes, &kept)?).await?;
        for (place, file) in files.iter().enumerate() {
            for (row, index) in (0_u32..).zip(&file.indices) {
                let index = kept.values().get(*index as usize).copied().unwrap_or_default() as usize;
                if let Some(change) = key_changes.get_mut(index) {
                    change.stored = Some((place, row));
                }
            }
        }
        let tombstones = self.remember_deletes(&changes, &key_changes, &UInt32Array::from(deleted)).await?;
        let Changes { lookups, fate, span, spent, .. } = changes;
        Ok(Staged { files, changes: key_changes, tombstones, lookups, fate, span, spent })
    }

    async fn draft(&mut self, staged: &Staged, state: &TableState) -> Result<Draft> {
        let outcome = self.outcome(staged);
        let mut draft = Draft {
            fate: staged.fate,
            rows_inserted: outcome.inserted,
            rows_updated: outcome.updated,
            rows_deleted: outcome.deleted,
            ..Draft::default()
        };
        draft.fate.merged += outcome.merged();
        draft.fate.applied = draft.fate.applied.saturating_sub(outcome.merged());
        let mut hidden: Vec<(Add, RoaringTreemap)> = Vec::new();
        for (ordinal, superseded) in &outcome.superseded {
            let Some((path, rows, deleted)) = self.index.file(*ordinal) else { continue };
            let add = state.files.get(path).ok_or_else(|| {
                Error::internal(format!("the index knows {path}, which the table at {} does not", self.folder.location))
            })?;
            draft.actions.push(Action::Remove(removal(add, self.folder.clock.now().0)));
            let gone = deleted | superseded;
            if gone.len() < rows {
                hidden.push((add.clone(), gone));
            }
        }
        for (place, file) in staged.files.iter().enumerate() {
            match outcome.late_rows.get(&place) {
                Some(late) if late.len() == file.indices.len() as u64 => {}
                Some(late) => hidden.push((file.add.clone(), late.clone())),
                None => draft.actions.push(Action::Add(file.add.clone())),
            }
        }
        let (adds, gone): (Vec<_>, Vec<_>) = hidden.into_iter().unzip();
        let descriptors = self.vectors.write(&gone).await?;
        draft.vectors_written = descriptors.len() as u64;
        draft.notes.extend(staged.tombstones.iter().map(|path| (TombstoneFolder::KEY, path.as_str().into())));
        draft.effort = Effort {
            files_touched: outcome.superseded.len() as u64,
            batch_bytes: staged.bytes(),
            bytes_written: staged.bytes() + descriptors.iter().map(size_of_vector).sum::<u64>(),
        };
        for (mut add, descriptor) in adds.into_iter().zip(descriptors) {
            add.stats = add.stats.as_deref().map(loosen);
            add.deletion_vector = Some(descriptor);
            add.data_change = true;
            draft.actions.push(Action::Add(add));
        }
        Ok(draft)
    }

    async fn follow(&mut self, entry: &LogEntry) -> Result<()> {
        self.follow_log(entry).await
    }

    fn landed(&mut self, staged: &Staged, _draft: &Draft) {
        let outcome = self.outcome(staged);
        let now_ms = self.folder.clock.now().0;
        let verdicts: Vec<_> = staged.changes.iter().map(|change| self.verdict(change)).collect();
        let ordinals: Vec<_> = staged
            .files
            .iter()
            .enumerate()
            .map(|(place, file)| {
                let late = outcome.late_rows.get(&place).cloned().unwrap_or_default();
                self.index.put_file(&file.add.path, file.indices.len() as u64, late)
            })
            .collect();
        for (change, verdict) in staged.changes.iter().zip(verdicts) {
            if verdict == Verdict::Late {
                continue;
            }
            let stored = change.stored.and_then(|(file, row)| Some((*ordinals.get(file)?, row)));
            let place = match (stored, verdict) {
                (None, _) | (_, Verdict::OnlyDeletes(_)) => Place::Deleted { at_ms: now_ms },
                (Some(place), _) => Place::Row(place),
            };
            let order = self.effective_order(change);
            self.index.put(&change.key, Entry { order, place });
        }
        for (ordinal, rows) in &outcome.superseded {
            self.index.delete_rows(*ordinal, rows);
        }
        self.index.settle_doubles();
    }

    fn deleted_rows(&self, path: &str) -> Option<RoaringTreemap> {
        self.deleted_in(path)
    }

    fn compacted(&mut self, compaction: &Compaction, exchange: &Exchange) {
        self.relocate(compaction, exchange);
    }
}

fn size_of_vector(descriptor: &DeletionVectorDescriptor) -> u64 {
    u64::try_from(descriptor.size_in_bytes).unwrap_or_default()
}

/// Returns the action that takes `add` with its present vector out of the table.
fn removal(add: &Add, now_ms: i64) -> Remove {
    Remove {
        path: add.path.clone(),
        data_change: true,
        deletion_timestamp: Some(now_ms),
        extended_file_metadata: Some(true),
        partition_values: Some(add.partition_values.clone()),
        size: Some(add.size),
        deletion_vector: add.deletion_vector.clone(),
        ..Remove::default()
    }
}
