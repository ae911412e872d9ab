//! The judge of documents that are not plain: rows by arrow-json after all, or faults.
//!
//! It reads slowly and from scratch: the scan decides what is sound JSON, arrow-json what is a row, `fault.rs` why
//! something is not. **It alone says what is a row;** the quick way of `plain.rs` is held to agree with it. Before it:
//! json.rs, with what plain.rs did not take. After it: json.rs, which puts all rows in order.
//!
//! # What k bad documents cost
//!
//! Malformed ones are found by the scan and never decoded. Where arrow-json refuses a chunk, it says neither which
//! document is at fault nor can it go on, so the chunk is decoded again in [`FAN`] parts, and so on down to single
//! documents. Each document is decoded at most `1 + ceil(log16(8192)) = 5` times, however many are bad. Each bad
//! document is walked once more to name its fault. Plain documents beside them cost nothing: they do not come here.

use std::fmt;

use alluvium_catalog::{Error, Result};
use alluvium_sql::RecordLimits;
use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use arrow::json::reader::Decoder as ArrowDecoder;

use super::fault::Fault;
use super::json::JsonRows;
use super::scan::{Scanner, Verdict};
use super::watch::Watch;

/// Documents that are decoded at once: enough to amortise arrow's set-up, few enough for the second-level cache.
const CHUNK_ROWS: usize = 8192;

/// Bytes that are decoded at once: arrow-json's form of hostile input is five times as large as its text.
const CHUNK_BYTES: usize = 16 << 20;

/// Into how many parts a refused chunk is cut.
const FAN: usize = 16;

/// Decides about documents one by one, and reads those that are rows.
pub(super) struct Judge {
    schema: SchemaRef,
    limits: RecordLimits,
    scanner: Scanner,
    /// Kept between chunks for its buffers; gone when an error has spoilt its state.
    decoder: Option<ArrowDecoder>,
}

/// Batches in order, and what they are made of.
#[derive(Debug, Default)]
struct Progress {
    batches: Vec<RecordBatch>,
    kept: Vec<u32>,
    faults: Vec<(u32, Fault)>,
}

impl fmt::Debug for Judge {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Judge").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl Judge {
    /// Returns a judge of objects with the columns of `schema`.
    ///
    /// # Errors
    /// `Invalid` when JSON cannot hold a type of `schema`.
    pub(super) fn new(schema: SchemaRef, limits: RecordLimits) -> Result<Self> {
        // Built only to refuse the schema now and not with the first document that comes here.
        ReaderBuilder::new(SchemaRef::clone(&schema))
            .with_batch_size(1)
            .build_decoder()
            .map_err(|source| Error::invalid("cannot read the source's columns from JSON").with_source(source))?;
        let scanner = Scanner::new(Watch::new(schema.fields()), limits.json_depth_max);
        Ok(Self { schema, limits, scanner, decoder: None })
    }

    /// Reads `documents`, each with its index: one row each but for those at fault.
    ///
    /// # Errors
    /// `Data` when the rows together pass what one Arrow batch can hold (2 GiB in one column). No document, however
    /// bad, is an error.
    pub(super) fn read<'a>(&mut self, documents: impl IntoIterator<Item = (u32, &'a [u8])>) -> Result<JsonRows> {
        let mut progress = Progress::default();
        let mut chunk = Vec::new();
        let mut chunk_bytes = 0;
        for (index, document) in documents {
            if let Some(fault) = self.examine(document) {
                progress.faults.push((index, fault));
                continue;
            }
            if chunk.len() == CHUNK_ROWS || (chunk_bytes + document.len() > CHUNK_BYTES && !chunk.is_empty()) {
                self.read_part(&chunk, &mut progress);
                chunk.clear();
                chunk_bytes = 0;
            }
            chunk.push((index, document));
            chunk_bytes += document.len();
        }
        self.read_part(&chunk, &mut progress);
        let Progress { batches, kept, faults } = progress;
        let rows = concat_batches(&self.schema, &batches).map_err(|source| {
            Error::data("cannot join the rows of a batch").with_hint("lower the flow's batch bytes").with_source(source)
        })?;
        Ok(JsonRows { rows, kept, faults })
    }

    /// Looks for what arrow-json would not notice.
    fn examine(&mut self, document: &[u8]) -> Option<Fault> {
        match self.scanner.scan(document) {
            Ok(Verdict::Sound) => None,
            Ok(Verdict::Suspect) => Fault::find(self.schema.fields(), document),
            Err(flaw) => Some(Fault::of_flaw(flaw, document, self.limits.json_depth_max)),
        }
    }

    /// Decodes `part` in one go, or else piece by piece.
    fn read_part(&mut self, part: &[(u32, &[u8])], progress: &mut Progress) {
        if part.is_empty() {
            return;
        }
        let refusal = match self.decode(part) {
            Ok(batch) => {
                progress.kept.extend(part.iter().map(|(index, _)| *index));
                progress.batches.push(batch);
                return;
            }
            Err(refusal) => refusal,
        };
        if let [(index, document)] = part {
            let fault = Fault::of_refusal(self.schema.fields(), document, &refusal.to_string());
            progress.faults.push((*index, fault));
            return;
        }
        for piece in part.chunks(part.len().div_ceil(FAN)) {
            self.read_part(piece, progress);
        }
    }

    fn decode(&mut self, part: &[(u32, &[u8])]) -> Result<RecordBatch, ArrowError> {
        let mut decoder = self.decoder_for(part.len())?;
        for (rows, (_, document)) in (1..).zip(part) {
            let taken = decoder.decode(document)?;
            // The scan has seen to this; were it ever wrong, rows would shift, and nothing later could tell.
            if taken != document.len() || decoder.len() != rows || decoder.has_partial_record() {
                return Err(ArrowError::JsonError("the document is not exactly one row".to_owned()));
            }
        }
        let batch = decoder.flush()?.filter(|batch| batch.num_rows() == part.len());
        let batch = batch.ok_or_else(|| ArrowError::JsonError("rows and documents differ in number".to_owned()))?;
        if part.len() > CHUNK_ROWS / FAN {
            self.decoder = Some(decoder);
        }
        Ok(batch)
    }

    /// Takes the kept decoder for large parts; small ones get their own, whose buffers suit them.
    fn decoder_for(&mut self, rows: usize) -> Result<ArrowDecoder, ArrowError> {
        let large = rows > CHUNK_ROWS / FAN;
        if large && let Some(decoder) = self.decoder.take() {
            return Ok(decoder);
        }
        let batch_size = if large { CHUNK_ROWS } else { rows };
        ReaderBuilder::new(SchemaRef::clone(&self.schema)).with_batch_size(batch_size).build_decoder()
    }
}
