//! Looking at a topic from SQL: a few records, decoded as a flow over the source would decode them. Commits nothing.

use std::sync::Arc;
use std::time::Duration;

use alluvium_catalog::{Connection, Error, Result, Source, Span};
use alluvium_sql::repl::{Peek, PeekLimit};
use alluvium_sql::{Compiler, Flow, SourceText, TableReader, Transform};
use arrow::array::RecordBatch;
use async_trait::async_trait;

use crate::decode::Decoder;
use crate::hop::Fetched;
use crate::source::kafka::{PeekLimits, peek};

/// Reads topics for the REPL.
#[derive(Debug)]
pub(super) struct TopicPeek {
    compiler: Compiler,
    reader: Arc<TableReader>,
}

impl TopicPeek {
    /// Returns a peek at the sources that `compiler` knows.
    pub(super) fn new(compiler: Compiler, reader: Arc<TableReader>) -> Self {
        Self { compiler, reader }
    }

    /// Returns a flow that hands on all columns of `source`; it is never run.
    async fn flow_over(&self, source: &Source) -> Result<Arc<Flow>> {
        let text = format!(
            "CREATE STREAMING TABLE alluvium_peek.seen;\n\
             CREATE FLOW alluvium_peek AS INSERT INTO alluvium_peek.seen BY NAME SELECT * FROM STREAM(\"{}\");",
            source.name
        );
        let file = Arc::new(SourceText::new(format!("source {}", source.name), text));
        let pipeline = self.compiler.compile(&[file]).await?;
        let flow = pipeline.flows.into_iter().next();
        flow.ok_or_else(|| Error::internal(format!("there is no flow over source {}", source.name)))
    }
}

#[async_trait]
impl Peek for TopicPeek {
    async fn peek(&self, source: &Source, connection: &Connection, limit: PeekLimit) -> Result<RecordBatch> {
        let flow = self.flow_over(source).await?;
        let PeekLimit { records_max, bytes_max, timeout } = limit;
        let records = peek(connection, &source.topic, PeekLimits { records_max, bytes_max, timeout }).await?;
        let fetched = Fetched { records, span: Span::new(), took: Duration::ZERO };
        let mut decoder = Decoder::new(&flow)?;
        let decoded = tokio::task::spawn_blocking(move || decoder.decode(fetched)).await;
        let decoded = decoded.map_err(|source| Error::internal("decoding was broken off").with_source(source))??;
        let transform = Transform::compile(&flow, Arc::clone(&self.reader)).await?;
        Ok(transform.apply(decoded.rows).await?.shaped.rows)
    }
}
