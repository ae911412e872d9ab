//! Runs the REPL's statements by a [`Session`], and lets it look at topics.
//!
//! A session peeks at a source when a query names it. How many records that takes depends on the query, and what was
//! seen is worth a note; both pass through the one statement that runs at a time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use alluvium_catalog::store::CatalogStore;
use alluvium_catalog::{Error, Location, Name, Result, Source, Stores, TableName};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use async_trait::async_trait;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast;
use futures::future::BoxFuture;

use super::backend::{Answer, Backend, Opened, Written};
use super::define::{Defining, define};
use super::peek::{Peek, PeekLimit, Peeked, bare_relations, limit_of, unstream};
use super::upkeep::{Upkeep, tend};

use crate::compile::Compiler;
use crate::diagnostic::SourceText;
use crate::parser::parse_file;
use crate::session::{self, Session};
use crate::statement::Statement;

/// A session as the REPL's backend.
#[derive(Debug)]
pub struct SessionBackend {
    session: Session,
    catalog: Arc<dyn CatalogStore>,
    peeking: Option<Arc<Peeking>>,
    defining: Option<Defining>,
    upkeep: Option<Arc<dyn Upkeep>>,
}

impl SessionBackend {
    /// Returns a backend over `session`, which reads the tables of `catalog`, and neither topics nor definitions.
    pub fn new(session: Session, catalog: Arc<dyn CatalogStore>) -> Self {
        Self { session, catalog, peeking: None, defining: None, upkeep: None }
    }

    /// Lets sources be queried, through `peek`.
    #[must_use]
    pub fn with_peek(self, peek: Arc<dyn Peek>) -> Self {
        let catalog = Arc::clone(&self.catalog);
        let peeking = Arc::new(Peeking { peek, catalog, current: Mutex::default() });
        let session = self.session.with_peek(Arc::clone(&peeking) as Arc<dyn session::Peek>);
        Self { session, peeking: Some(peeking), ..self }
    }

    /// Lets connections and sources be defined, as `compiler` understands them; they are kept in the catalog and, through
    /// `stores`, in the registry of `warehouse`.
    #[must_use]
    pub fn with_definitions(self, compiler: Compiler, stores: Stores, warehouse: Location) -> Self {
        Self { defining: Some(Defining { compiler, stores, warehouse }), ..self }
    }

    /// Lets OPTIMIZE and VACUUM be run, through `upkeep`.
    #[must_use]
    pub fn with_upkeep(self, upkeep: Arc<dyn Upkeep>) -> Self {
        Self { upkeep: Some(upkeep), ..self }
    }

    /// Makes the peek of `statement` ready, if it reads a source.
    async fn prepare(&self, statement: &mut Statement) -> Result<()> {
        let Statement::Sql(written) = statement else { return Ok(()) };
        let Some(sql) = sql_of(written) else { return Ok(()) };
        let relations = bare_relations(sql);
        if relations.is_empty() {
            return Ok(());
        }
        let sources = self.catalog.sources().await?;
        let named = |relation: &&String| sources.iter().any(|source| source.name.as_str() == relation.as_str());
        let Some(source) = relations.iter().find(named) else { return Ok(()) };
        let Some(peeking) = &self.peeking else {
            return Err(Error::invalid(format!("cannot look at source {source}: this session reads no topics"))
                .with_hint("query the table that a flow writes: \\flows lists them"));
        };
        let limit = match sql {
            ast::Statement::Query(query) => limit_of(query),
            _ => PeekLimit::default(),
        };
        peeking.begin(limit);
        unstream(sql);
        Ok(())
    }

    async fn rows(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        self.session.sql(sql).await?.collect().await
    }

    async fn names(&self, sql: &str) -> Result<Vec<Vec<String>>> {
        let mut names = Vec::new();
        for batch in self.rows(sql).await? {
            let columns: Vec<_> = batch.columns().iter().filter_map(|column| column.as_string_opt::<i32>()).collect();
            let row = |row: usize| columns.iter().map(|column| column.value(row).to_owned()).collect();
            names.extend((0..batch.num_rows()).map(row));
        }
        Ok(names)
    }

    async fn answer(&self, written: Written) -> Result<Answer> {
        if let Some(peeking) = &self.peeking {
            // What one saw that was interrupted is still there.
            peeking.begin(PeekLimit::default());
        }
        let source = Arc::new(SourceText::new(written.source.name(), written.text()));
        let mut statements = parse_file(&source)?;
        let Some(mut statement) = statements.pop().map(|statement| statement.value) else {
            return Err(Error::invalid("there is no statement in the text"));
        };
        if let Some(defining) = &self.defining
            && let Some(done) = define(defining, self.catalog.as_ref(), &source, &statement).await?
        {
            return Ok(Answer::of_deed(done));
        }
        if let Some(answer) = tend(&self.session, self.catalog.as_ref(), self.upkeep.as_deref(), &statement).await? {
            return Ok(answer);
        }
        self.prepare(&mut statement).await?;
        let answer = self.session.run(statement).await;
        let notes = self.peeking.as_ref().map(|peeking| peeking.end()).unwrap_or_default();
        let answer = answer?;
        Ok(Answer { schema: answer.schema(), rows: answer.stream().await?, notes })
    }

    async fn opened(&self, name: &TableName) -> Result<Opened> {
        let quoted = format!("\"{}\".\"{}\"", name.schema(), name.table());
        let schema = self.session.sql(&format!("SELECT * FROM {quoted} LIMIT 0")).await?.schema();
        // Files have no history, and that is all that can be wrong with a table that was just opened.
        let newest = self.rows(&format!("DESCRIBE HISTORY {quoted} LIMIT 1")).await.unwrap_or_default();
        Ok(Opened { schema, version: newest.first().and_then(first_version) })
    }

    async fn table_names(&self) -> Result<Vec<TableName>> {
        let all = "SELECT table_schema, table_name FROM information_schema.tables \
                   WHERE table_schema NOT IN ('information_schema', 'system') ORDER BY 1, 2";
        let names = self.names(all).await?;
        let parsed = names.iter().filter_map(|name| match &name[..] {
            [schema, table] => TableName::try_new(schema, table).ok(),
            _ => None,
        });
        Ok(parsed.collect())
    }

    async fn function_names(&self) -> Result<Vec<String>> {
        let all = "SELECT DISTINCT routine_name FROM information_schema.routines ORDER BY 1";
        Ok(self.names(all).await?.into_iter().flatten().collect())
    }
}

impl Backend for SessionBackend {
    fn run(&self, written: Written) -> BoxFuture<'_, Result<Answer>> {
        Box::pin(self.answer(written))
    }

    fn catalog(&self) -> &dyn CatalogStore {
        self.catalog.as_ref()
    }

    fn open<'a>(&'a self, name: &'a TableName) -> BoxFuture<'a, Result<Opened>> {
        Box::pin(self.opened(name))
    }

    fn tables(&self) -> BoxFuture<'_, Result<Vec<TableName>>> {
        Box::pin(self.table_names())
    }

    fn functions(&self) -> BoxFuture<'_, Result<Vec<String>>> {
        Box::pin(self.function_names())
    }
}

/// Returns the SQL statement in `written`, also below EXPLAIN and COPY.
fn sql_of(written: &mut DfStatement) -> Option<&mut ast::Statement> {
    match written {
        DfStatement::Statement(statement) => Some(statement),
        DfStatement::Explain(explain) => sql_of(&mut explain.statement),
        _ => None,
    }
}

fn first_version(newest: &RecordBatch) -> Option<u64> {
    let versions = newest.column_by_name("version")?;
    let versions = arrow::compute::cast(versions, &arrow::datatypes::DataType::Int64).ok()?;
    versions.as_primitive::<Int64Type>().iter().next().flatten().and_then(|version| u64::try_from(version).ok())
}

/// Peeks for a session, within the bounds of the statement that runs, and notes what was seen.
#[derive(Debug)]
struct Peeking {
    peek: Arc<dyn Peek>,
    catalog: Arc<dyn CatalogStore>,
    current: Mutex<Current>,
}

/// The statement that runs.
#[derive(Debug, Default)]
struct Current {
    limit: PeekLimit,
    /// What was seen, so that a statement that names a source twice sees the same records.
    seen: BTreeMap<Name, RecordBatch>,
    notes: Vec<String>,
}

impl Peeking {
    fn begin(&self, limit: PeekLimit) {
        *self.current() = Current { limit, ..Current::default() };
    }

    /// Returns the notes, and forgets what was seen.
    fn end(&self) -> Vec<String> {
        std::mem::take(&mut *self.current()).notes
    }

    fn remember(&self, source: &Source, peeked: &Peeked) {
        let mut current = self.current();
        current.seen.insert(source.name.clone(), peeked.rows.clone());
        current.notes.extend(peeked.notes(&source.topic));
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl session::Peek for Peeking {
    async fn peek(&self, name: &Name) -> Result<RecordBatch> {
        let (limit, seen) = {
            let current = self.current();
            (current.limit, current.seen.get(name).cloned())
        };
        if let Some(rows) = seen {
            return Ok(rows);
        }
        let sources = self.catalog.sources().await?;
        let Some(source) = sources.into_iter().find(|source| source.name == *name) else {
            return Err(Error::invalid(format!("the catalog has no source {name}")));
        };
        let connections = self.catalog.connections().await?;
        let Some(connection) = connections.into_iter().find(|connection| connection.name == source.connection) else {
            return Err(Error::invalid(format!("the catalog has no connection {}", source.connection)));
        };
        // The implementation is held to its bound here, so that no broker can hang a query.
        let grace = limit.timeout + PeekLimit::GRACE;
        let peeked = tokio::time::timeout(grace, self.peek.peek(&source, &connection, limit)).await;
        let peeked = peeked.map_err(|_| {
            Error::unavailable(format!("topic {} gave no answer within {} s", source.topic, grace.as_secs()))
        })??;
        self.remember(&source, &peeked);
        Ok(peeked.rows)
    }
}

#[cfg(test)]
mod tests;
