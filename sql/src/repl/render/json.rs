//! JSON by arrow-json: one array, or one object a line.

use std::io::Write;
use std::mem;
use std::sync::Arc;

use alluvium_catalog::Result;
use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::json::writer::{JsonFormat, LineDelimited, Writer, WriterBuilder};

use super::cells::{jsonable, unshowable};
use super::times::Times;
use super::{Layout, unwritable};

/// An array with one row a line, so that a long one can be read.
#[derive(Debug, Default)]
pub(super) struct RowALine;

impl JsonFormat for RowALine {
    fn start_stream<W: Write>(&self, writer: &mut W) -> Result<(), ArrowError> {
        Ok(writer.write_all(b"[")?)
    }

    fn start_row<W: Write>(&self, writer: &mut W, is_first_row: bool) -> Result<(), ArrowError> {
        Ok(writer.write_all(if is_first_row { b"\n" } else { b",\n" })?)
    }

    fn end_stream<W: Write>(&self, writer: &mut W) -> Result<(), ArrowError> {
        Ok(writer.write_all(b"\n]\n")?)
    }
}

/// Rows as JSON objects. NULL is written, so that every object has every column.
pub(super) struct Json<F: JsonFormat> {
    writer: Writer<Vec<u8>, F>,
}

impl Json<RowALine> {
    /// Returns the layout of one array.
    pub(super) fn array() -> Self {
        Self { writer: builder().build(Vec::new()) }
    }
}

impl Json<LineDelimited> {
    /// Returns the layout of one object a line.
    pub(super) fn lines() -> Self {
        Self { writer: builder().build(Vec::new()) }
    }
}

impl<F: JsonFormat> Json<F> {
    fn pour(&mut self, out: &mut dyn Write) -> Result<()> {
        let bytes = mem::take(self.writer.get_mut());
        out.write_all(&bytes).map_err(unwritable)
    }
}

impl<F: JsonFormat + Send> Layout for Json<F> {
    fn write(&mut self, batch: &RecordBatch, out: &mut dyn Write) -> Result<()> {
        if batch.num_columns() == 0 {
            return Ok(());
        }
        self.writer.write(&jsonable(batch)?).map_err(unshowable)?;
        self.pour(out)
    }

    fn finish(&mut self, out: &mut dyn Write) -> Result<()> {
        self.writer.finish().map_err(unshowable)?;
        self.pour(out)
    }
}

fn builder() -> WriterBuilder {
    WriterBuilder::new().with_explicit_nulls(true).with_encoder_factory(Arc::new(Times))
}
