//! Looking at a topic from SQL: a few records, decoded as a flow over the source would decode them. Commits nothing.

use std::sync::Arc;
use std::time::Duration;

use alluvium_catalog::{Connection, Error, Result, Source, Span, Topic, counted, grouped};
use alluvium_sql::repl::{Peek, PeekLimit, Peeked};
use alluvium_sql::{Compiler, Flow, SourceText, TableReader, Transform};
use async_trait::async_trait;
use futures::future::BoxFuture;

use crate::decode::Decoder;
use crate::hop::{Fetched, Reject, RejectClass};
use crate::source::kafka::{PeekLimits, peek};
use crate::transform::{Fault, isolate};

/// The most records on which computed columns may fail: to find each takes some runs of the SQL, and people wait.
const FAILED_MAX: usize = 1_000;

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

    async fn look(&self, source: &Source, connection: &Connection, limit: PeekLimit) -> Result<Peeked> {
        let flow = self.flow_over(source).await?;
        let PeekLimit { records_max, bytes_max, timeout } = limit;
        let records = peek(connection, &source.topic, PeekLimits { records_max, bytes_max, timeout }).await?;
        let n_records = records.len();
        let fetched = Fetched { records, span: Span::new(), took: Duration::ZERO };
        let mut decoder = Decoder::new(&flow)?;
        let decoded = tokio::task::spawn_blocking(move || decoder.decode(fetched)).await;
        let decoded = decoded.map_err(|source| Error::internal("decoding was broken off").with_source(source))??;
        let transform = Transform::compile(&flow, Arc::clone(&self.reader)).await?;
        let isolated = isolate::apply(&transform, decoded.rows, FAILED_MAX).await?;
        // The flow only adds rows, so decode rejects tombstones. To a flow that upserts they are deletes: no fault.
        let is_tombstone = |reject: &&Reject| reject.class == RejectClass::Tombstone;
        let (tombstones, rejects): (Vec<&Reject>, Vec<&Reject>) = decoded.rejects.iter().partition(is_tombstone);
        let first = first_fault(&source.topic, &rejects, &isolated.failed);
        if isolated.is_given_up {
            let (failed_max, looked_at) = (grouped(FAILED_MAX as u64), counted(n_records as u64, "record"));
            return Err(Error::data(format!(
                "computed columns of source {} fail on more than {failed_max} of {looked_at}, the first is {}",
                source.name,
                first.unwrap_or_default()
            ))
            .with_hint("look at fewer records, with LIMIT, or define the source without that column"));
        }
        Ok(Peeked {
            rows: isolated.shaped.rows,
            n_records,
            n_tombstones: tombstones.len(),
            n_unreadable: rejects.len() + isolated.failed.len(),
            first_fault: first,
        })
    }

    /// Boxed for the compiler's sake, as [`Backend`](alluvium_sql::repl::Backend) tells.
    fn boxed<'a>(
        &'a self,
        source: &'a Source,
        connection: &'a Connection,
        limit: PeekLimit,
    ) -> BoxFuture<'a, Result<Peeked>> {
        Box::pin(self.look(source, connection, limit))
    }
}

#[async_trait]
impl Peek for TopicPeek {
    async fn peek(&self, source: &Source, connection: &Connection, limit: PeekLimit) -> Result<Peeked> {
        self.boxed(source, connection, limit).await
    }
}

/// Returns where the first record stands that could not be read, by partition and offset, and what is wrong with it.
fn first_fault(topic: &Topic, rejects: &[&Reject], failed: &[Fault]) -> Option<String> {
    let rejected = rejects.iter().map(|reject| ((reject.partition.0, reject.offset.0), &reject.message));
    let failed = failed.iter().map(|fault| (fault.record, &fault.message));
    let ((partition, offset), message) = rejected.chain(failed).min_by_key(|(record, _)| *record)?;
    Some(format!("{topic}/{partition}@{offset}: {message}"))
}

#[cfg(test)]
mod tests {
    use alluvium_catalog::store::{CatalogStore, MemoryStore};
    use alluvium_catalog::{StorageSettings, Stores};
    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;

    use super::*;
    use crate::cli::CatalogNames;
    use crate::source::kafka::embedded::{EmbeddedBroker, Message};

    /// Returns what a peek sees of records with `values`, none for a tombstone, in a source that feeds an upsert and has
    /// the column `computed`.
    async fn peeked(values: &[Option<&str>], computed: &str) -> Result<Peeked> {
        let broker = EmbeddedBroker::start(&[("things", 1)])?;
        for value in values {
            let message = Message { key: Some(b"1"), value: value.map(str::as_bytes), ..Message::default() };
            broker.produce("things", message).await?;
        }
        broker.flush().await?;
        let text = format!(
            "CREATE CONNECTION shop TYPE kafka WITH ('bootstrap.servers' = '{}');\n\
             CREATE SOURCE raw (id BIGINT NOT NULL, name STRING, pos BIGINT METADATA FROM 'offset', \
             {computed}) WITH ('connection' = 'shop', 'topic' = 'things');\n\
             CREATE STREAMING TABLE silver.things (id BIGINT NOT NULL, name STRING, pos BIGINT, \
             PRIMARY KEY (id) NOT ENFORCED);\n\
             CREATE FLOW things AS AUTO CDC INTO silver.things FROM (SELECT id, name, pos FROM STREAM(raw)) \
             KEYS (id) SEQUENCE BY pos STORED AS SCD TYPE 1;",
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
        let limit = PeekLimit { timeout: Duration::from_secs(20), records_max: 5_000, ..PeekLimit::default() };
        peek.peek(&definition.source, &definition.connection, limit).await
    }

    /// Returns the ids of the rows, newest first.
    fn ids(peeked: &Peeked) -> Vec<i64> {
        let ids = peeked.rows.column_by_name("id").and_then(|ids| ids.as_primitive_opt::<Int64Type>().cloned());
        ids.map_or_else(Vec::new, |ids| ids.values().to_vec())
    }

    fn told(peeked: &Peeked) -> &str {
        peeked.first_fault.as_deref().unwrap_or_default()
    }

    #[tokio::test]
    async fn a_peek_shows_all_declared_columns_and_tells_of_what_cannot_be_read() -> Result<()> {
        let values = [r#"{"id": 1, "name": "cup"}"#, "no JSON", r#"{"id": 2}"#].map(Some);
        let seen = peeked(&values, "twice AS id * 2").await?;
        let columns: Vec<String> = seen.rows.schema().fields().iter().map(|field| field.name().clone()).collect();
        assert_eq!(columns, ["id", "name", "pos", "twice"]);
        assert_eq!((ids(&seen), seen.n_records, seen.n_unreadable), (vec![2, 1], 3, 1));
        assert!(told(&seen).starts_with("things/0@1: "), "{seen:?}");
        Ok(())
    }

    #[tokio::test]
    async fn a_record_on_which_a_computed_column_fails_is_counted_and_the_others_are_shown() -> Result<()> {
        let values = [
            r#"{"id": 1, "name": "7"}"#,
            r#"{"id": 2, "name": "cup"}"#,
            r#"{"id": 3, "name": "8"}"#,
            "no JSON",
            r#"{"id": 5, "name": "mug"}"#,
            r#"{"id": 6}"#,
        ];
        let seen = peeked(&values.map(Some), "size AS CAST(name AS BIGINT)").await?;
        assert_eq!((ids(&seen), seen.n_records, seen.n_unreadable), (vec![6, 3, 1], 6, 3));
        assert!(told(&seen).starts_with("things/0@1: ") && told(&seen).contains("cup"), "{seen:?}");
        // The first is that of both kinds.
        let seen = peeked(&[Some("no JSON"), Some(values[1])], "size AS CAST(name AS BIGINT)").await?;
        assert_eq!((ids(&seen), seen.n_unreadable), (vec![], 2));
        assert!(told(&seen).starts_with("things/0@0: "), "{seen:?}");
        Ok(())
    }

    #[tokio::test]
    async fn tombstones_are_counted_apart_from_what_cannot_be_read() -> Result<()> {
        let values = [None, Some(r#"{"id": 1}"#), None, Some(r#"{"id": 2}"#)];
        let seen = peeked(&values, "twice AS id * 2").await?;
        assert_eq!((ids(&seen), seen.n_records), (vec![2, 1], 4));
        assert_eq!((seen.n_tombstones, seen.n_unreadable, seen.first_fault.as_deref()), (2, 0, None));
        let seen = peeked(&[None, None], "twice AS id * 2").await?;
        assert_eq!((ids(&seen), seen.n_records, seen.n_tombstones, seen.n_unreadable), (vec![], 2, 2, 0));
        Ok(())
    }

    #[tokio::test]
    async fn a_computed_column_that_fails_on_too_many_records_is_given_up_with_the_first() -> Result<()> {
        let values = vec![Some(r#"{"id": 1, "name": "cup"}"#); FAILED_MAX + 1];
        let refused = peeked(&values, "size AS CAST(name AS BIGINT)").await;
        let error = refused.err().ok_or_else(|| Error::internal("all was shown"))?;
        for said in ["source raw", "more than 1,000 of 1,001 records", "things/0@0: ", "cup"] {
            assert!(error.message().contains(said), "{said} is not in {error}");
        }
        assert!(error.hint().is_some_and(|hint| hint.contains("LIMIT")), "{error:?}");
        Ok(())
    }
}
