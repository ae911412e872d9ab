//! JSON documents to Arrow rows, so that one bad document costs its neighbours nothing.
//!
//! Nearly all documents are plain: `plain.rs` reads them in one pass. What it leaves, the judge (`judge.rs`) reads by
//! arrow-json or names the fault of. Both make the same rows of the same documents, so that nothing but speed depends
//! on who reads what; here the rows of both are put in the order of their documents.
//!
//! # What becomes what
//!
//! | column | JSON |
//! |---|---|
//! | BOOLEAN | `true`, `false` |
//! | TINYINT .. BIGINT | a number without fraction (`1`, `1.0`, `1e3`), or its digits in a string |
//! | FLOAT, DOUBLE | a number, or one in a string, where also `"NaN"` and `"Infinity"` are values |
//! | DECIMAL(p,s) | a number, or one in a string, of at most s digits after the point and p in all |
//! | STRING | a string; numbers and booleans are no strings |
//! | BINARY | a string of hexadecimal digits (for base64 declare STRING and `decode(column, 'base64')`) |
//! | DATE | `"2026-03-01"`, the date of RFC 3339 text, or a whole number of days since 1970-01-01 |
//! | TIMESTAMP | RFC 3339 text, `T` or space, cut to microseconds, UTC without zone; or whole epoch microseconds |
//! | TIMESTAMP_NTZ | the same; a zone in the text is converted to UTC |
//! | STRUCT, ARRAY, MAP | an object, an array, an object |
//!
//! Dates and timestamps are those of the years 1 to 9999, UTC, where Delta ends; others are type mismatches, as epoch
//! seconds of today are in a DATE. Epoch seconds and milliseconds are BIGINT columns and `to_timestamp_millis(column)`
//! in the flow. A value that would lose anything else on the way is a type mismatch. Members that no column names are
//! ignored. Of a repeated key the last counts; a map keeps both. Column names match keys exactly, case included.

use std::fmt;

use alluvium_catalog::{Error, Result};
use alluvium_sql::RecordLimits;
use arrow::array::{Array, RecordBatch, RecordBatchOptions};
use arrow::compute::interleave;
use arrow::datatypes::SchemaRef;

use super::fault::Fault;
use super::judge::Judge;
use super::plain::{NotPlain, PlainRows};

/// Reads JSON objects into rows of a schema.
pub struct JsonReader {
    schema: SchemaRef,
    /// None where it has no column for some type of the schema: then the judge reads everything.
    plain: Option<PlainRows>,
    judge: Judge,
}

/// What came of a list of documents: each is in exactly one of `kept` and `faults`.
#[derive(Debug)]
pub struct JsonRows {
    /// The rows, in the order of their documents.
    pub rows: RecordBatch,
    /// The index of each row's document.
    pub kept: Vec<u32>,
    /// The documents that are no rows, in no particular order.
    pub faults: Vec<(u32, Fault)>,
}

impl fmt::Debug for JsonReader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("JsonReader").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl JsonReader {
    /// Returns a reader of objects with the columns of `schema`.
    ///
    /// # Errors
    /// `Invalid` when JSON cannot hold a type of `schema`.
    pub fn new(schema: SchemaRef, limits: RecordLimits) -> Result<Self> {
        let judge = Judge::new(SchemaRef::clone(&schema), limits)?;
        let plain = PlainRows::new(SchemaRef::clone(&schema), limits.json_depth_max);
        Ok(Self { schema, plain, judge })
    }

    /// Reads `documents`, one row each but for those at fault.
    ///
    /// # Errors
    /// `Data` when the rows together pass what one Arrow batch can hold (2 GiB in one column). No document, however
    /// bad, is an error.
    pub fn read(&mut self, documents: &[&[u8]]) -> Result<JsonRows> {
        let n_documents = documents.len();
        let documents = (0_u32..).zip(documents.iter().copied());
        let Some(plain) = &mut self.plain else { return self.judge.read(documents) };
        let mut kept = Vec::with_capacity(n_documents);
        let mut left = Vec::new();
        plain.reserve(n_documents);
        for (index, document) in documents {
            match plain.push(document) {
                Ok(()) => kept.push(index),
                Err(NotPlain) => left.push((index, document)),
            }
        }
        let rows = plain.finish()?;
        if left.is_empty() {
            return Ok(JsonRows { rows, kept, faults: Vec::new() });
        }
        let judged = self.judge.read(left)?;
        in_order(JsonRows { rows, kept, faults: Vec::new() }, judged)
    }
}

/// Puts rows together by the order of their documents.
fn in_order(plain: JsonRows, judged: JsonRows) -> Result<JsonRows> {
    if judged.kept.is_empty() {
        return Ok(JsonRows { faults: judged.faults, ..plain });
    }
    if plain.kept.is_empty() {
        return Ok(judged);
    }
    let n_rows = plain.kept.len() + judged.kept.len();
    let (mut kept, mut places) = (Vec::with_capacity(n_rows), Vec::with_capacity(n_rows));
    let mut judged_next = judged.kept.iter().copied().enumerate().peekable();
    for (row, index) in plain.kept.iter().copied().enumerate() {
        while let Some((judged_row, judged_index)) = judged_next.next_if(|(_, judged_index)| *judged_index < index) {
            kept.push(judged_index);
            places.push((1, judged_row));
        }
        kept.push(index);
        places.push((0, row));
    }
    for (judged_row, judged_index) in judged_next {
        kept.push(judged_index);
        places.push((1, judged_row));
    }
    let columns = plain.rows.columns().iter().zip(judged.rows.columns());
    let columns = columns.map(|(plain, judged)| interleave(&[plain.as_ref(), judged.as_ref() as &dyn Array], &places));
    let options = RecordBatchOptions::new().with_row_count(Some(n_rows));
    let rows = columns
        .collect::<Result<Vec<_>, _>>()
        .and_then(|columns| RecordBatch::try_new_with_options(plain.rows.schema(), columns, &options))
        .map_err(|source| {
            Error::data("cannot join the rows of a batch").with_hint("lower the flow's batch bytes").with_source(source)
        })?;
    Ok(JsonRows { rows, kept, faults: judged.faults })
}
