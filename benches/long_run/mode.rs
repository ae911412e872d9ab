//! What a long run does with its rows, and the commits that it lands.

use std::str::FromStr;
use std::sync::Arc;

use alluvium::hop::{ChangeOrder, Changes, Spent};
use alluvium_catalog::{Error, Fate, Offset, OffsetRange, Partition, Result, Span};
use arrow::array::{ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use rand::Rng;
use rand::rngs::StdRng;

use crate::Asked;

/// What becomes of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Each is added.
    Append,
    /// The newest of each key stands.
    Upsert,
}

impl Mode {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Upsert => "upsert",
        }
    }

    /// Returns what commits say of themselves.
    pub(crate) fn operation(self) -> &'static str {
        match self {
            Self::Append => "STREAMING UPDATE",
            Self::Upsert => "MERGE",
        }
    }

    /// Says what is run, and what of its numbers means something here: appends know no keys.
    pub(crate) fn heading(self, commits: &str, rows: &str, keys: &str) -> String {
        match self {
            Self::Append => format!("{commits} appends of {rows} rows"),
            Self::Upsert => format!("{commits} upserts of {rows} rows, {keys} keys"),
        }
    }
}

impl FromStr for Mode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = [Self::Append, Self::Upsert].into_iter().find(|mode| mode.as_str() == text);
        found.ok_or_else(|| Error::invalid(format!("there is no mode {text}")))
    }
}

/// Returns the declared columns of the table.
pub(crate) fn declared() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("seq", DataType::Int64, true),
        Field::new("note", DataType::Utf8, true),
    ]))
}

/// Returns the changes of a commit, whose offsets begin at `first`: to distinct keys, where the newest of each stands.
pub(crate) fn changes(asked: &Asked, chance: &mut StdRng, first: usize) -> Result<Changes> {
    let offset = |index: usize| i64::try_from(index).unwrap_or(i64::MAX);
    let (next, first) = (offset(first + asked.rows), offset(first));
    let mut ids: Vec<i64> = (0..asked.rows).map(|_| chance.random_range(0..asked.keys)).collect();
    if asked.mode == Mode::Upsert {
        ids.sort_unstable();
        ids.dedup();
    }
    let n_rows = ids.len();
    let sequence: ArrayRef = Arc::new(Int64Array::from(vec![first; n_rows]));
    let notes: StringArray = ids.iter().map(|id| Some(format!("order {id} as of {first}"))).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(ids)), Arc::clone(&sequence), Arc::new(notes)];
    let rows = RecordBatch::try_new(declared(), columns)
        .map_err(|cause| Error::internal("cannot make rows").with_source(cause))?;
    let n_records = asked.rows as u64;
    let mut span = Span::new();
    span.extend(Partition(0), OffsetRange { first: Offset(first), next: Offset(next), records: n_records })
        .map_err(|misfit| Error::internal(misfit.to_string()))?;
    Ok(Changes {
        rows,
        order: ChangeOrder {
            partitions: Int32Array::from(vec![0; n_rows]),
            offsets: (first..next).take(n_rows).map(Some).collect(),
            sequence: vec![sequence],
            inherited: None,
            after_delete: None,
        },
        keyed: None,
        deletes: (asked.mode == Mode::Upsert).then(|| BooleanArray::from(vec![false; n_rows])),
        rejects: Vec::new(),
        lookups: Vec::new(),
        fate: Fate {
            records_in: n_records,
            applied: n_rows as u64,
            merged: n_records - n_rows as u64,
            ..Fate::default()
        },
        span,
        spent: Spent::default(),
    })
}
