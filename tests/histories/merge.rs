//! The same records through delta-rs MERGE into a table of its own, and what delta-rs reads of ours.
//!
//! MERGE takes one row a key, so a batch becomes as many merges as a key has records: the first record of each key, then
//! the second. Nothing is collapsed, which keeps the oracle free of what it is to judge. Which row is newer stands in the
//! conditions of the clauses. A table cannot say that a row is late by a delete that left nothing behind: the deletes are
//! kept beside it, and rows that they bind are left out of the source. That is the only part which MERGE does not do.
//!
//! Failing stores, deaths, restarts and upkeep on our side change nothing of what MERGE of the same records leaves. Other
//! writers do: which of their rows counts, and until when, is policy, and no clause of MERGE says it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema};
use deltalake::datafusion::prelude::{SessionContext, col};
use object_store::ObjectStore;
use object_store::memory::InMemory;

use super::foreign;
use super::history::History;
use super::keys::Keys;
use super::model::{Change, Ledger, Record};
use super::protocol::Row;
use super::witness::TABLE;
use crate::harness::TestResult;

/// Where the merged table lies in its store.
const MERGED: &str = "lake/merged";

/// Whether the source's row is the newer one.
const NEWER: &str = "(source.seq IS NOT NULL AND source.seq > target.seq) \
    OR ((source.seq IS NULL OR source.seq = target.seq) \
        AND (source.pos > target.pos OR (source.pos = target.pos AND source.part > target.part)))";

/// Sequence, offset and partition.
type Order = (Option<i64>, i64, i32);

/// A table that delta-rs merges into.
pub(crate) struct Merged {
    keys: Arc<Keys>,
    store: Arc<dyn ObjectStore>,
    /// How many records of each partition are in it.
    reached: BTreeMap<i32, usize>,
    /// The deletes of keys without a row.
    graves: BTreeMap<i64, Order>,
}

/// A record, where it stands, and what it does.
type Placed<'a> = (i64, i64, i32, &'a Change);

fn columns(keys: &Keys) -> Vec<Field> {
    let mut columns = keys.fields();
    columns.extend([
        Field::new("seq", DataType::Int64, true),
        Field::new("pos", DataType::Int64, true),
        Field::new("part", DataType::Int32, true),
        Field::new("note", DataType::Utf8, true),
    ]);
    columns
}

/// Tells whether `mine` is newer than `standing`: a record without a sequence is by its offset alone.
fn is_newer(mine: Order, standing: Order) -> bool {
    let by_position = (mine.1, mine.2) > (standing.1, standing.2);
    match (mine.0, standing.0) {
        (Some(mine), Some(standing)) if mine != standing => mine > standing,
        _ => by_position,
    }
}

impl Merged {
    /// Returns an empty table. Its files have no bounds: delta-rs rounds those of decimals and times, and would look for a
    /// row in no file whose bounds leave it out.
    pub(crate) async fn new(keys: &Arc<Keys>) -> TestResult<Self> {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let empty = RecordBatch::new_empty(Arc::new(Schema::new(columns(keys))));
        let write = foreign::table(Arc::clone(&store), MERGED)?.write([empty]);
        write.with_configuration([("delta.dataSkippingNumIndexedCols", Some("0"))]).await?;
        Ok(Self { keys: Arc::clone(keys), store, reached: BTreeMap::new(), graves: BTreeMap::new() })
    }

    /// Merges the records that are new in `ledger`.
    pub(crate) async fn merge(&mut self, ledger: &Ledger) -> TestResult {
        let mut of_keys: BTreeMap<i64, Vec<Placed<'_>>> = BTreeMap::new();
        for (partition, records) in ledger {
            let reached = self.reached.insert(*partition, records.len()).unwrap_or(0);
            for (offset, Record { id, change }) in (0_i64..).zip(records).skip(reached) {
                if let Some(change) = change {
                    of_keys.entry(*id).or_default().push((*id, offset, *partition, change));
                }
            }
        }
        for round in 0.. {
            let records: Vec<Placed<'_>> = of_keys.values().filter_map(|records| records.get(round)).copied().collect();
            if records.is_empty() {
                return Ok(());
            }
            self.merge_round(&records).await?;
        }
        Ok(())
    }

    /// Merges records of distinct keys.
    async fn merge_round(&mut self, records: &[Placed<'_>]) -> TestResult {
        let standing: BTreeMap<i64, Order> = self.rows().await?.iter().map(|row| (row.id, order_of(row))).collect();
        let mut source = Vec::new();
        for record @ (id, offset, partition, change) in records.iter().copied() {
            let sequence = match change {
                Change::Put { sequence, .. } | Change::Delete { sequence } => Some(*sequence),
                Change::Tombstone => None,
            };
            let (order, row, grave) = ((sequence, offset, partition), standing.get(&id), self.graves.get(&id).copied());
            let known = row.copied().or(grave);
            let is_newer = known.is_none_or(|known| is_newer(order, known));
            if row.is_none() && !is_newer {
                continue;
            }
            source.push(record);
            if is_newer {
                self.graves.remove(&id);
            }
            if is_newer && !matches!(change, Change::Put { .. }) {
                let taken_over = sequence.or(known.and_then(|known| known.0));
                self.graves.insert(id, (taken_over, offset, partition));
            }
        }
        let rows = source_rows(&source, &self.keys)?;
        let table = foreign::open(Arc::clone(&self.store), MERGED).await?;
        let columns = columns(&self.keys);
        let names = || columns.iter().map(|field| field.name().as_str());
        table
            .merge(SessionContext::new().read_batch(rows)?, self.keys.same()?)
            .with_source_alias("source")
            .with_target_alias("target")
            .when_matched_delete(|delete| delete.predicate(format!("source.gone AND ({NEWER})")))?
            .when_matched_update(|update| {
                let update = update.predicate(format!("NOT source.gone AND ({NEWER})"));
                names().fold(update, |update, name| update.update(name, col(format!("source.{name}"))))
            })?
            .when_not_matched_insert(|insert| {
                let insert = insert.predicate("NOT source.gone");
                names().fold(insert, |insert, name| insert.set(name, col(format!("source.{name}"))))
            })?
            .await?;
        Ok(())
    }

    async fn rows(&self) -> TestResult<Vec<Row>> {
        let sql = format!("SELECT {}, seq, pos, part, note FROM t", self.keys.names());
        rows(&foreign::query(Arc::clone(&self.store), MERGED, &sql).await?, &self.keys)
    }

    /// Holds the table of `history` against this one, row by row.
    pub(crate) async fn check(&self, history: &History) -> TestResult {
        let (ours, theirs) = (history.rows().await?, self.rows().await?);
        if ours == theirs {
            return Ok(());
        }
        let different = ours.iter().zip(&theirs).find(|(ours, theirs)| ours != theirs);
        Err(format!("{} rows, and MERGE has {}; first: {different:?}", ours.len(), theirs.len()).into())
    }
}

fn order_of(row: &Row) -> Order {
    (row.sequence, row.offset.unwrap_or(i64::MIN), row.partition.unwrap_or(-1))
}

fn source_rows(records: &[Placed<'_>], keys: &Keys) -> TestResult<RecordBatch> {
    let sequence = |change: &Change| match change {
        Change::Put { sequence, .. } | Change::Delete { sequence } => Some(*sequence),
        Change::Tombstone => None,
    };
    let note = |change: &'_ Change| match change {
        Change::Put { note, .. } => Some(note.clone()),
        _ => None,
    };
    let mut fields = columns(keys);
    fields.push(Field::new("gone", DataType::Boolean, false));
    let gone: Vec<bool> = records.iter().map(|record| !matches!(record.3, Change::Put { .. })).collect();
    let mut arrays = keys.arrays(&records.iter().map(|record| record.0).collect::<Vec<_>>())?;
    let others: [ArrayRef; 5] = [
        Arc::new(records.iter().map(|record| sequence(record.3)).collect::<Int64Array>()),
        Arc::new(records.iter().map(|record| Some(record.1)).collect::<Int64Array>()),
        Arc::new(records.iter().map(|record| Some(record.2)).collect::<Int32Array>()),
        Arc::new(records.iter().map(|record| note(record.3)).collect::<StringArray>()),
        Arc::new(BooleanArray::from(gone)),
    ];
    arrays.extend(others);
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
}

/// Returns rows of a key and the columns that [`columns`] names, sorted.
fn rows(batches: &[RecordBatch], keys: &Keys) -> TestResult<Vec<Row>> {
    let mut rows = Vec::new();
    for batch in batches {
        let column = |name: &str, data_type: &DataType| -> TestResult<ArrayRef> {
            let found = batch.column_by_name(name).ok_or_else(|| format!("{name} is missing"))?;
            Ok(cast(found, data_type)?)
        };
        let integers = |name: &str| -> TestResult<Int64Array> {
            Ok(column(name, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
        };
        let (ids, sequences, offsets) = (keys.ids(batch)?, integers("seq")?, integers("pos")?);
        let (partitions, notes) = (column("part", &DataType::Int32)?, column("note", &DataType::Utf8)?);
        let (partitions, notes) = (partitions.as_primitive::<Int32Type>(), notes.as_string::<i32>());
        for (index, id) in ids.into_iter().enumerate() {
            let integer = |column: &Int64Array| column.is_valid(index).then(|| column.value(index));
            rows.push(Row {
                id,
                sequence: integer(&sequences),
                offset: integer(&offsets),
                partition: partitions.is_valid(index).then(|| partitions.value(index)),
                note: notes.is_valid(index).then(|| notes.value(index).to_owned()),
            });
        }
    }
    rows.sort();
    Ok(rows)
}

/// Checks that delta-rs reads the rows of a history's table as the rules alone do, and that its dead letters are the
/// records that cannot be read.
pub(crate) async fn check_others(history: &History) -> TestResult {
    let ours = history.rows().await?;
    let sequence = if history.place.kind.stores_sequence() { "seq" } else { "_alluvium_sequence" };
    let keys = &history.place.keys;
    let sql = format!(
        "SELECT {}, {sequence} AS seq, _alluvium_offset AS pos, _alluvium_partition AS part, note FROM t",
        keys.names()
    );
    let theirs = rows(&foreign::query(history.store(), TABLE, &sql).await?, keys)?;
    if ours != theirs {
        return Err(format!("delta-rs reads {theirs:?}, the rules alone give {ours:?}").into());
    }
    let broken = history.ledger.iter().flat_map(|(partition, records)| {
        let broken = (0_i64..).zip(records).filter(|(_, record)| record.change.is_none());
        broken.map(move |(offset, _)| (*partition, offset))
    });
    let broken: BTreeSet<(i32, i64)> = broken.collect();
    if broken.is_empty() {
        return Ok(());
    }
    let sql = "SELECT \"partition\", \"offset\" FROM t";
    let mut letters = Vec::new();
    for batch in foreign::query(history.store(), "lake/rejects", sql).await? {
        let (partitions, offsets) =
            (batch.column(0).as_primitive::<Int32Type>(), batch.column(1).as_primitive::<Int64Type>());
        letters.extend(partitions.values().iter().copied().zip(offsets.values().iter().copied()));
    }
    letters.sort_unstable();
    if letters != broken.into_iter().collect::<Vec<_>>() {
        return Err(format!("the dead letters are {letters:?}").into());
    }
    Ok(())
}
