//! Drives a flow's SQL over a batch, sets aside what cannot become a row, and leaves one change a key.
//!
//! After this stage every record of the batch has a fate, but for late rows, which only the table can tell.
//!
//! Before it: [`decode`](crate::decode). After it: [`write`](crate::write).

mod admission;
pub(crate) mod collapse;
pub(crate) mod isolate;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use alluvium_catalog::{Error, Fate, Input, Result, TableName};
use alluvium_sql::{Change, ErrorMode, Flow, Shaped, Transform};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{concat, concat_batches, filter, filter_record_batch, take, take_record_batch};
use arrow::datatypes::{Int32Type, Int64Type};
use arrow::error::ArrowError;

use crate::hop::{ChangeOrder, Changes, Decoded, Records, Reject, RejectClass};
use admission::{Admission, Bearing};
use collapse::Collapse;
use isolate::Isolated;

/// The transform stage of one flow.
#[derive(Debug)]
pub struct TransformStage {
    flow: Arc<Flow>,
    transform: Transform,
    admission: Admission,
    collapse: Option<Collapse>,
}

/// What the table takes of a batch, and how many records it does not.
struct Sifted {
    shaped: Shaped,
    /// The records that the SQL fails on.
    n_failed: usize,
    /// The records that the SQL makes rows of.
    n_with_rows: usize,
    /// Those among them that the table does not take.
    n_refused: usize,
}

impl TransformStage {
    /// Returns the stage of `flow`, whose SQL is compiled in `transform`.
    ///
    /// # Errors
    /// `Invalid` when keys or sequence have types that cannot be compared.
    pub fn try_new(flow: Arc<Flow>, transform: Transform) -> Result<Self> {
        let collapse = match &flow.change {
            Change::Append => None,
            Change::Upsert { keys, .. } => {
                Some(Collapse::try_new(&flow.table_schema, keys, transform.sequence_types())?)
            }
        };
        let admission = Admission::new(&flow);
        Ok(Self { flow, transform, admission, collapse })
    }

    /// Turns a decoded batch into changes of the table.
    ///
    /// # Errors
    /// `Data` when there are rejects and the source says `fail`, or more of them than `error-handling.max.rejects`;
    /// `Unavailable` when a table that the query joins cannot be read.
    pub async fn apply(&mut self, decoded: Decoded) -> Result<Changes> {
        let begun = Instant::now();
        let Decoded { records, rows, tombstones, mut rejects, span, mut spent, .. } = decoded;
        let n_candidates = records.len() - rejects.len();
        let mut isolated = isolate::apply(&self.transform, rows, self.bears(&rejects)).await?;
        let lookups = std::mem::take(&mut isolated.lookups).into_iter().map(input).collect();
        let mut sifted = self.sift(isolated, Bearing::Values, &records, &mut rejects)?;
        if let Some(tombstones) = tombstones.filter(|tombstones| tombstones.num_rows() > 0) {
            let isolated = isolate::apply_tombstones(&self.transform, tombstones, self.bears(&rejects)).await?;
            sifted = sifted.and(self.sift(isolated, Bearing::KeysAlone, &records, &mut rejects)?)?;
        }
        let Sifted { shaped, n_failed, n_with_rows, n_refused } = sifted;
        let (shaped, standing) = match &self.collapse {
            Some(collapse) => {
                let (newest, standing) = collapse.newest(shaped)?;
                (newest, Some(standing))
            }
            None => (shaped, None),
        };
        let n_applied = distinct_records(&shaped);
        let mut fate = Fate {
            records_in: records.len() as u64,
            applied: n_applied as u64,
            merged: (n_with_rows - n_refused - n_applied) as u64,
            filtered: (n_candidates - n_failed - n_with_rows) as u64,
            ..Fate::default()
        };
        self.settle_rejects(&mut fate, &rejects)?;
        spent.transform = begun.elapsed();
        let (inherited, after_delete, keyed) = match standing {
            Some(standing) => (Some(standing.inherited), standing.after_delete, Some(standing.keyed)),
            None => (None, None, None),
        };
        let Shaped { rows, partitions, offsets, sequence, deletes } = shaped;
        let order = ChangeOrder { partitions, offsets, sequence, inherited, after_delete };
        Ok(Changes { rows, order, keyed, deletes, rejects, lookups, fate, span, spent })
    }

    /// Adds the records that the SQL failed on and those that the table does not take to `rejects`.
    fn sift(
        &self,
        isolated: Isolated,
        bearing: Bearing,
        records: &Records,
        rejects: &mut Vec<Reject>,
    ) -> Result<Sifted> {
        rejects.extend(reject_all(records, &isolated.failed));
        if isolated.is_given_up {
            self.settle_rejects(&mut Fate::default(), rejects)?;
            return Err(Error::internal("a batch was given up that has few rejects"));
        }
        let n_with_rows = distinct_records(&isolated.shaped);
        let (shaped, refused) = self.admission.admit(isolated.shaped, bearing)?;
        rejects.extend(reject_all(records, &refused));
        let n_refused = distinct(refused.iter().map(|fault| fault.record));
        Ok(Sifted { shaped, n_failed: isolated.failed.len(), n_with_rows, n_refused })
    }

    /// Returns how many records more may be rejected in a batch that has `rejects` already.
    fn bears(&self, rejects: &[Reject]) -> usize {
        match &self.flow.errors {
            ErrorMode::Fail => 0,
            ErrorMode::Ignore | ErrorMode::Log(_) => self.flow.limits.rejects_max.saturating_sub(rejects.len()),
        }
    }

    /// Gives rejects their fate, or stops the flow.
    fn settle_rejects(&self, fate: &mut Fate, rejects: &[Reject]) -> Result<()> {
        let Some(first) = rejects.first() else { return Ok(()) };
        let at =
            |reject: &Reject| format!("{}/{}@{}", self.flow.definition.source.topic, reject.partition, reject.offset);
        if rejects.len() > self.flow.limits.rejects_max {
            return Err(Error::data(format!(
                "flow {} met more than {} rejects in one batch, the first at {}: {}",
                self.flow.name(),
                self.flow.limits.rejects_max,
                at(first),
                first.message
            ))
            .with_hint("raise 'error-handling.max.rejects' of the source if that many bad records are expected"));
        }
        let n_rejects = rejects.len() as u64;
        match &self.flow.errors {
            ErrorMode::Ignore => fate.dropped += n_rejects,
            ErrorMode::Log(_) => fate.dead_lettered += n_rejects,
            ErrorMode::Fail => {
                return Err(Error::data(format!(
                    "cannot land record at {}: {}: {}",
                    at(first),
                    first.class.as_str(),
                    first.message
                ))
                .with_hint(
                    "set 'error-handling.mode' = 'log' on the source to keep bad records in a dead-letter table",
                ));
            }
        }
        Ok(())
    }
}

impl Sifted {
    /// Adds what is taken of another part of the same batch.
    fn and(self, other: Self) -> Result<Self> {
        Ok(Self {
            shaped: in_order(&join(&[self.shaped, other.shaped])?)?,
            n_failed: self.n_failed + other.n_failed,
            n_with_rows: self.n_with_rows + other.n_with_rows,
            n_refused: self.n_refused + other.n_refused,
        })
    }
}

/// A record that failed after it was decoded.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    /// Partition and offset.
    pub(crate) record: (i32, i64),
    /// What kind of fault.
    pub(crate) class: RejectClass,
    /// What is wrong.
    pub(crate) message: String,
}

/// Returns the rejects of `faults`, one a record.
fn reject_all(records: &Records, faults: &[Fault]) -> Vec<Reject> {
    if faults.is_empty() {
        return Vec::new();
    }
    let mut wanted: std::collections::HashMap<(i32, i64), &Fault> = std::collections::HashMap::new();
    for fault in faults {
        wanted.entry(fault.record).or_insert(fault);
    }
    records
        .iter()
        .enumerate()
        .filter_map(|(index, record)| {
            let fault = wanted.get(&(record.partition.0, record.offset.0))?;
            Reject::new(records, index, fault.class, fault.message.clone())
        })
        .collect()
}

/// Returns partition and offset of each row.
pub(crate) fn positions(shaped: &Shaped) -> impl Iterator<Item = (i32, i64)> + '_ {
    shaped.partitions.values().iter().copied().zip(shaped.offsets.values().iter().copied())
}

/// Counts the records that rows come from. Rows of one record usually stand together and in order of offset, and those of
/// one partition in stretches.
fn distinct_records(shaped: &Shaped) -> usize {
    let mut left: std::collections::HashMap<i32, i64> = std::collections::HashMap::new();
    let mut here: Option<(i32, i64)> = None;
    let mut n_records = 0;
    for (partition, offset) in positions(shaped) {
        let before = match here {
            Some((stretch, before)) if stretch == partition => Some(before),
            _ => {
                left.extend(here);
                left.get(&partition).copied()
            }
        };
        match before {
            Some(before) if before == offset => {}
            Some(before) if before > offset => return distinct(positions(shaped)),
            _ => n_records += 1,
        }
        here = Some((partition, offset));
    }
    n_records
}

/// Returns what was looked up as the lineage record has it.
fn input((name, version): (TableName, Option<u64>)) -> Input {
    match version {
        Some(version) => Input::Table { table: name, version },
        None => Input::Files { dataset: name },
    }
}

fn distinct(records: impl Iterator<Item = (i32, i64)>) -> usize {
    records.collect::<HashSet<_>>().len()
}

fn internal(cause: ArrowError) -> Error {
    Error::internal("cannot rearrange the rows of a batch").with_source(cause)
}

/// Returns the rows that `keep` says.
fn select(shaped: &Shaped, keep: &BooleanArray) -> Result<Shaped> {
    rearrange(shaped, |rows| filter_record_batch(rows, keep), |column| filter(column, keep))
}

/// Does the same to every part of `shaped`, of which rows and columns are two kinds.
fn rearrange(
    shaped: &Shaped,
    rows: impl Fn(&RecordBatch) -> std::result::Result<RecordBatch, ArrowError>,
    column: impl Fn(&dyn Array) -> std::result::Result<ArrayRef, ArrowError>,
) -> Result<Shaped> {
    let one = |array: &dyn Array| column(array).map_err(internal);
    Ok(Shaped {
        rows: rows(&shaped.rows).map_err(internal)?,
        partitions: one(&shaped.partitions)?.as_primitive::<Int32Type>().clone(),
        offsets: one(&shaped.offsets)?.as_primitive::<Int64Type>().clone(),
        sequence: shaped.sequence.iter().map(|array| one(array)).collect::<Result<_>>()?,
        deletes: shaped
            .deletes
            .as_ref()
            .map(|deletes| one(deletes).map(|array| array.as_boolean().clone()))
            .transpose()?,
    })
}

/// Returns the rows in order of partition and offset; rows of one record keep theirs.
fn in_order(shaped: &Shaped) -> Result<Shaped> {
    let mut places: Vec<(i32, i64, u32)> =
        positions(shaped).zip(0_u32..).map(|((partition, offset), place)| (partition, offset, place)).collect();
    places.sort_unstable();
    let places: UInt32Array = places.into_iter().map(|(_, _, place)| Some(place)).collect();
    rearrange(shaped, |rows| take_record_batch(rows, &places), |column| take(column, &places, None))
}

/// Returns the rows of all `parts`, of which there is one at least, in their order.
pub(crate) fn join(parts: &[Shaped]) -> Result<Shaped> {
    let Some(first) = parts.first() else { return Err(Error::internal("a batch without parts")) };
    let all = |part: &dyn Fn(&Shaped) -> Option<ArrayRef>| {
        let arrays: Vec<ArrayRef> = parts.iter().filter_map(part).collect();
        concat(&arrays.iter().map(|array| array.as_ref()).collect::<Vec<&dyn Array>>()).map_err(internal)
    };
    let sequence = (0..first.sequence.len())
        .map(|index| all(&|part| part.sequence.get(index).map(Arc::clone)))
        .collect::<Result<Vec<ArrayRef>>>()?;
    let deletes = match &first.deletes {
        Some(_) => {
            let marks = all(&|part| part.deletes.as_ref().map(|deletes| Arc::new(deletes.clone()) as ArrayRef))?;
            Some(marks.as_boolean().clone())
        }
        None => None,
    };
    Ok(Shaped {
        rows: concat_batches(&first.rows.schema(), parts.iter().map(|part| &part.rows)).map_err(internal)?,
        partitions: all(&|part| Some(Arc::new(part.partitions.clone())))?.as_primitive::<Int32Type>().clone(),
        offsets: all(&|part| Some(Arc::new(part.offsets.clone())))?.as_primitive::<Int64Type>().clone(),
        sequence,
        deletes,
    })
}

#[cfg(test)]
mod tests;
