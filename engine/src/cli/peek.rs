//! Looking at a topic from SQL: a few records, decoded as a flow over the source would decode them. Commits nothing.

use std::sync::Arc;
use std::time::Duration;

use alluvium_catalog::{Connection, Error, Result, Source, Span};
use alluvium_sql::repl::{Peek, PeekLimit, Peeked};
use alluvium_sql::{Compiler, Flow, SourceText, TableReader, Transform};
use async_trait::async_trait;

use crate::decode::Decoder;
use crate::hop::{Fetched, Reject};
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
            "CREATE STREAMING TABLE alluvium_peek.seen LOCATION 'memory:///alluvium_peek/seen';\n\
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
    async fn peek(&self, source: &Source, connection: &Connection, limit: PeekLimit) -> Result<Peeked> {
        let flow = self.flow_over(source).await?;
        let PeekLimit { records_max, bytes_max, timeout } = limit;
        let records = peek(connection, &source.topic, PeekLimits { records_max, bytes_max, timeout }).await?;
        let n_records = records.len();
        let fetched = Fetched { records, span: Span::new(), took: Duration::ZERO };
        let mut decoder = Decoder::new(&flow)?;
        let decoded = tokio::task::spawn_blocking(move || decoder.decode(fetched)).await;
        let decoded = decoded.map_err(|source| Error::internal("decoding was broken off").with_source(source))??;
        let transform = Transform::compile(&flow, Arc::clone(&self.reader)).await?;
        let fault =
            |reject: &Reject| format!("{}/{}@{}: {}", source.topic, reject.partition, reject.offset, reject.message);
        Ok(Peeked {
            rows: transform.apply(decoded.rows).await?.shaped.rows,
            n_records,
            n_unreadable: decoded.rejects.len(),
            first_fault: decoded.rejects.first().map(fault),
        })
    }
}

#[cfg(test)]
mod tests {
    use alluvium_catalog::store::{CatalogStore, MemoryStore};
    use alluvium_catalog::{StorageSettings, Stores};

    use super::*;
    use crate::cli::CatalogNames;
    use crate::source::kafka::embedded::{EmbeddedBroker, Message};

    #[tokio::test]
    async fn a_peek_shows_all_declared_columns_and_tells_of_what_cannot_be_read() -> Result<()> {
        let broker = EmbeddedBroker::start(&[("things", 1)])?;
        for value in [r#"{"id": 1, "name": "cup"}"#, "no JSON", r#"{"id": 2}"#] {
            broker.produce("things", Message { value: Some(value.as_bytes()), ..Message::default() }).await?;
        }
        broker.flush().await?;
        let text = format!(
            "CREATE CONNECTION shop TYPE kafka WITH ('bootstrap.servers' = '{}');\n\
             CREATE SOURCE raw (id BIGINT NOT NULL, name STRING, at BIGINT METADATA FROM 'offset', \
             twice AS id * 2) WITH ('connection' = 'shop', 'topic' = 'things');\n\
             CREATE STREAMING TABLE bronze.things;\n\
             CREATE FLOW things AS INSERT INTO bronze.things BY NAME SELECT id FROM STREAM(raw);",
            broker.bootstrap()
        );
        let stores = Stores::new(StorageSettings::default());
        let catalog: Arc<dyn CatalogStore> = Arc::new(MemoryStore::default());
        let reader = || TableReader::new(stores.clone(), Arc::clone(&catalog));
        let names = CatalogNames::new(Arc::clone(&catalog), reader());
        let compiler = Compiler::new("memory:///lake".parse()?, Arc::new(names));
        let pipeline = compiler.compile(&[Arc::new(SourceText::new("things.sql", text))]).await?;
        let definition = pipeline.flows.first().map(|flow| flow.definition.clone());
        let definition = definition.ok_or_else(|| Error::internal("no flow"))?;
        catalog.put_definition(&definition).await?;

        let peek = TopicPeek::new(compiler, Arc::new(reader()));
        let limit = PeekLimit { timeout: Duration::from_secs(20), ..PeekLimit::default() };
        let Peeked { rows, n_records, n_unreadable, first_fault } =
            peek.peek(&definition.source, &definition.connection, limit).await?;
        let columns: Vec<String> = rows.schema().fields().iter().map(|field| field.name().clone()).collect();
        assert_eq!(columns, ["id", "name", "at", "twice"]);
        assert_eq!((rows.num_rows(), n_records, n_unreadable), (2, 3, 1));
        let first_fault = first_fault.ok_or_else(|| Error::internal("no fault was told"))?;
        assert!(first_fault.starts_with("things/0@1: "), "{first_fault}");
        Ok(())
    }
}
