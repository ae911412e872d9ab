//! Answers queries over the catalog's tables, always at the newest version unless a query says another.
//!
//! ```text
//! text --parse--> Statement --pin versions, show hidden columns--> DataFusion's statement --plan--> Answer
//! ```
//! Tables are found in the catalog by each query anew and read at the version that is newest then, so that what a running
//! engine registers and commits is there at once; what was opened before is followed, not loaded again. A session never writes a table and never changes the catalog; what it creates (external tables) lives in
//! its memory. Memory is bounded, and what does not fit spills to disk.
//! Before it: the parser. After it: the REPL, which shows answers.

mod answer;
mod catalogs;
pub(crate) mod failure;
mod guard;
mod hidden;
mod key_filter;
mod keyed;
mod pin;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use alluvium_catalog::store::CatalogStore;
use alluvium_catalog::{Dataset, DatasetKind, Error, FlowKind, FlowVersion, Location, Name, Result, TableName};
use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use async_trait::async_trait;
use datafusion::execution::SessionState;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::ObjectName;

pub use answer::{Answer, Rows};
pub(crate) use pin::Pin;

use crate::compile::plan::dialect_session;
use crate::diagnostic::nearest;
use crate::locate::Locate;
use crate::options::kept_upsert_options;
use crate::pipeline::UpsertOptions;
use crate::statement::{DescribeHistory, ExplainUpsert, Show, Statement, string_literal};
use crate::system::Columns;
use crate::tables::{HistoryEntry, TableReader};
use crate::types::sql_type;
use catalogs::{Known, QueryCatalogs};

/// What a table that was opened by its location is called.
const OPENED: &str = "t";

/// How many of a flow's commits `EXPLAIN UPSERT` sums up, the newest: what a flow costs now, not what it cost last year.
const COSTED_COMMITS: u64 = 1000;

/// How many versions `DESCRIBE HISTORY` shows without `LIMIT`: as many as fit on a few screens.
const HISTORY_DEFAULT: u64 = 100;

/// Limits of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSettings {
    /// How many bytes all queries together may hold in memory.
    pub memory_bytes_max: usize,
    /// How many bytes they may spill to disk.
    pub spill_bytes_max: u64,
    /// Where they spill; the system's folder for temporary files if none.
    pub spill_folder: Option<PathBuf>,
    /// How many threads a query uses.
    pub threads: usize,
}

impl Default for SessionSettings {
    /// 1 GiB of memory leaves room for an engine beside it on a small machine; 64 GiB of disk end a runaway sort.
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { memory_bytes_max: 1 << 30, spill_bytes_max: 64 << 30, spill_folder: None, threads }
    }
}

/// Reads a few records of a source, for queries on sources. The engine has the implementation, as it speaks Kafka.
#[async_trait]
pub trait Peek: fmt::Debug + Send + Sync {
    /// Returns some recent records of `source`, bounded in number and time, and commits no position.
    async fn peek(&self, source: &Name) -> Result<RecordBatch>;
}

/// Runs queries over the catalog's tables.
pub struct Session {
    context: SessionContext,
    catalog: Arc<dyn CatalogStore>,
    reader: Arc<TableReader>,
    peek: Option<Arc<dyn Peek>>,
    locate: Option<Arc<dyn Locate>>,
    /// Tables that were opened by their location.
    opened: RwLock<Vec<Dataset>>,
}

impl Session {
    /// Returns a session on the tables of `catalog`, read through `reader`.
    ///
    /// # Errors
    /// `Invalid` when the folder to spill to cannot be used.
    pub fn open(catalog: Arc<dyn CatalogStore>, reader: Arc<TableReader>, settings: &SessionSettings) -> Result<Self> {
        let mode = match &settings.spill_folder {
            Some(folder) => DiskManagerMode::Directories(vec![folder.clone()]),
            None => DiskManagerMode::OsTmpDirectory,
        };
        let disk = DiskManagerBuilder::default().with_mode(mode).with_max_temp_directory_size(settings.spill_bytes_max);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(settings.memory_bytes_max)))
            .with_disk_manager_builder(disk)
            // The list of a folder would be kept for ever, and files that are added would never be seen.
            .with_object_list_cache_limit(0)
            .build_arc()
            .map_err(|cause| failure::from_datafusion("cannot set up a place for queries to spill to", cause))?;
        let config = SessionConfig::new().with_target_partitions(settings.threads.max(1)).with_information_schema(true);
        let context = dialect_session(config, runtime);
        Ok(Self { context, catalog, reader, peek: None, locate: None, opened: RwLock::default() })
    }

    /// Lets queries name sources, which are then read through `peek`.
    #[must_use]
    pub fn with_peek(mut self, peek: Arc<dyn Peek>) -> Self {
        self.peek = Some(peek);
        self
    }

    /// Lets queries that name rows by their key look them up through `locate`, where it knows.
    #[must_use]
    pub fn with_locate(mut self, locate: Arc<dyn Locate>) -> Self {
        self.locate = Some(locate);
        self
    }

    /// Makes the Delta table at `location` known as `t` and under the last part of its path, and returns these names. A
    /// later location takes `t` over.
    ///
    /// # Errors
    /// As [`TableReader::open`].
    pub async fn open_location(&self, location: &Location) -> Result<Vec<TableName>> {
        self.reader.open(location, crate::tables::Version::Latest).await?;
        let mut names: Vec<TableName> = vec![OPENED.parse()?];
        // A folder's name need not be a table's; `t` is enough then.
        if let Some(name) = location.path().filename().and_then(|last| last.parse().ok()) {
            names.push(name);
        }
        let mut opened = self.opened.write().unwrap_or_else(PoisonError::into_inner);
        opened.retain(|dataset| !names.contains(&dataset.name));
        opened.extend(names.iter().map(|name| Dataset {
            name: name.clone(),
            kind: DatasetKind::Delta,
            location: location.clone(),
            owner: None,
            description: None,
            tags: Vec::new(),
            table: None,
        }));
        Ok(names)
    }

    /// Plans the one statement of `text`. A query begins to run when its rows are asked for.
    ///
    /// # Errors
    /// `Invalid` when the text is not one statement, the statement would write or define something, or names what there
    /// is not; and what opening its tables says.
    pub async fn sql(&self, text: &str) -> Result<Answer> {
        let mut statements = crate::parser::parse_statements(text)?;
        match (statements.pop(), statements.pop()) {
            (Some(statement), None) => self.run(statement.value).await,
            (None, _) => Err(Error::invalid("there is no statement in the text")),
            (Some(_), Some(_)) => Err(Error::invalid("the text has more than one statement")),
        }
    }

    /// Plans `statement`, as [`Session::sql`] does.
    ///
    /// # Errors
    /// As [`Session::sql`].
    pub async fn run(&self, statement: Statement) -> Result<Answer> {
        match statement {
            Statement::Sql(statement) => self.run_sql(*statement).await,
            Statement::DescribeHistory(describe) => self.describe_history(&describe).await,
            Statement::ExplainUpsert(explain) => self.explain_upsert(&explain).await,
            Statement::Show(show) => self.run_sql(show_statement(&show)?).await,
            Statement::CreateConnection(_)
            | Statement::CreateSource(_)
            | Statement::CreateStreamingTable(_)
            | Statement::CreateFlow(_) => Err(Error::invalid("a session does not define anything")
                .with_hint("write the statement into a file and start it with alluvium run FILE")),
            Statement::Optimize(_) | Statement::Vacuum(_) => {
                Err(Error::invalid(format!("cannot run {statement}: a session only reads")))
            }
        }
    }

    async fn run_sql(&self, mut statement: DfStatement) -> Result<Answer> {
        crate::unread::check_all_is_read(&statement)?;
        let (mut state, catalogs) = self.query_state().await?;
        crate::time_travel::pin_versions(&mut statement)?;
        hidden::reveal(&mut statement, &catalogs).await?;
        crate::time_travel::check_no_version_remains(&statement)?;
        guard::prepare(&statement, &self.context, &catalogs, &self.reader)?;
        state.register_catalog_list(Arc::new(catalogs.clone()));
        let plan = match state.statement_to_plan(statement.clone()).await {
            Ok(plan) => plan,
            Err(cause) => return Err(catalogs.explain(&state, &statement, cause)),
        };
        guard::check(&plan, &catalogs)?;
        if let LogicalPlan::DescribeTable(describe) = &plan {
            return self.show(described(&describe.schema)?);
        }
        let frame = self.context.execute_logical_plan(plan).await;
        frame.map(Answer::new).map_err(|cause| failure::from_datafusion(failure::RUNNING, cause))
    }

    async fn describe_history(&self, describe: &DescribeHistory) -> Result<Answer> {
        let name = table_name(&describe.table)?;
        let (_, catalogs) = self.query_state().await?;
        let dataset = catalogs.dataset(&name).ok_or_else(|| catalogs.unknown(&name))?;
        if !matches!(dataset.kind, DatasetKind::Delta | DatasetKind::DeadLetter) {
            return Err(Error::invalid(format!("{name} is not a Delta table and has no history")));
        }
        let limit = usize::try_from(describe.limit.unwrap_or(HISTORY_DEFAULT)).unwrap_or(usize::MAX);
        let entries = self.reader.history(&dataset.location, limit).await?;
        self.show(HistoryEntry::rows(&entries)?)
    }

    /// Answers with one row: what the newest commits of the flow cost its table.
    async fn explain_upsert(&self, explain: &ExplainUpsert) -> Result<Answer> {
        let flows = self.catalog.flows().await?;
        let name = explain.flow.value.as_str();
        let Some(entry) = flows.iter().rev().find(|entry| entry.version.flow.as_str() == name) else {
            let error = Error::invalid(format!("the catalog has no flow {name}"));
            let known = flows.iter().map(|entry| entry.version.flow.as_str());
            return Err(match nearest(name, known) {
                Some(hint) => error.with_hint(hint),
                None => error,
            });
        };
        if entry.version.kind == FlowKind::Append {
            return Err(Error::invalid(format!("flow {name} adds rows; it has no keys to upsert by"))
                .with_hint("ask SHOW COMMITS for what its commits wrote"));
        }
        let table = self.catalog.dataset(&entry.version.table).await?.and_then(|dataset| dataset.table);
        let options = table.map(|table| kept_upsert_options(&table.properties)).unwrap_or_default();
        self.run_sql(query_statement(&upsert_costs(&entry.version, options))?).await
    }

    fn show(&self, rows: RecordBatch) -> Result<Answer> {
        let frame: Result<DataFrame, _> = self.context.read_batch(rows);
        frame.map(Answer::new).map_err(|cause| failure::from_datafusion("cannot show rows", cause))
    }

    /// Returns the datasets that can be named now: those opened by their location, then the catalog's.
    pub(crate) async fn datasets(&self) -> Result<Vec<Dataset>> {
        let mut datasets = self.opened.read().unwrap_or_else(PoisonError::into_inner).clone();
        datasets.extend(self.catalog.datasets().await?);
        Ok(datasets)
    }

    /// Returns what one query plans with: it sees the tables that the catalog has now.
    async fn query_state(&self) -> Result<(SessionState, QueryCatalogs)> {
        let datasets = self.datasets().await?;
        let sources = match &self.peek {
            Some(_) => self.catalog.sources().await?.into_iter().map(|source| source.name).collect(),
            None => Vec::new(),
        };
        let known = Known {
            datasets,
            sources,
            catalog: Arc::clone(&self.catalog),
            reader: Arc::clone(&self.reader),
            peek: self.peek.clone(),
            locate: self.locate.clone(),
        };
        Ok((self.context.state(), QueryCatalogs::new(known, self.context.clone())))
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { catalog, opened, .. } = self;
        formatter.debug_struct("Session").field("catalog", catalog).field("opened", opened).finish_non_exhaustive()
    }
}

/// Returns the table that `name` means: `table`, `schema.table` or `alluvium.schema.table`.
pub(crate) fn table_name(name: &ObjectName) -> Result<TableName> {
    let parts: Option<Vec<&str>> =
        name.0.iter().map(|part| part.as_ident().map(|ident| ident.value.as_str())).collect();
    match parts.as_deref() {
        Some([table]) => TableName::try_new(TableName::DEFAULT_SCHEMA, table),
        Some([schema, table]) => TableName::try_new(schema, table),
        Some([catalog, schema, table]) if Pin::read(catalog).is_some() => TableName::try_new(schema, table),
        _ => Err(Error::invalid(format!("{name} is not a table's name")).with_hint("write schema.table")),
    }
}

/// Returns the query that a `SHOW` stands for.
fn show_statement(show: &Show) -> Result<DfStatement> {
    let query = match show {
        Show::Connections => "SELECT * FROM system.connections ORDER BY name".to_owned(),
        Show::Sources => "SELECT name, connection, topic, comment FROM system.sources ORDER BY name".to_owned(),
        Show::Flows => {
            "SELECT flow, version, kind, source, \"table\", lookups, file, line FROM system.flows ORDER BY flow, version"
                .to_owned()
        }
        Show::Commits { table } => {
            let only = match table {
                Some(table) => {
                    format!("WHERE \"table\" = {}", string_literal(&table_name(table)?.to_string()))
                }
                None => String::new(),
            };
            format!(
                "SELECT \"table\", version, committed_at, flow, inputs, records_in, applied, merged, filtered, dropped, \
                 quarantined, dead_lettered FROM system.commits {only} ORDER BY committed_at DESC, version DESC"
            )
        }
    };
    query_statement(&query)
}

/// Returns the query that sums up what the newest commits of an upsert flow cost its table. What it rejected is in a table
/// of dead letters, which it only appends to.
fn upsert_costs(flow: &FlowVersion, options: UpsertOptions) -> String {
    let (bytes_max, policy) = match options.cap {
        Some(cap) => (cap.bytes_max.to_string(), string_literal(cap.policy.as_str())),
        None => ("CAST(NULL AS BIGINT)".to_owned(), "CAST(NULL AS STRING)".to_owned()),
    };
    format!(
        "SELECT flow, \"table\", count(*) AS commits, sum(records_in) AS records,
            sum(rows_inserted + rows_updated + rows_deleted) AS rows_changed,
            avg(files_touched) AS files_touched, max(files_touched) AS files_touched_max,
            sum(vectors_written) AS vectors_written, sum(batch_bytes) AS batch_bytes,
            sum(discarded_bytes) AS discarded_bytes, sum(bytes_written) AS bytes_written,
            CAST(sum(bytes_written) AS DOUBLE) / nullif(sum(batch_bytes), 0) AS amplification,
            max(amplification) AS amplification_max,
            {} AS mode, {bytes_max} AS rewrite_max, {policy} AS rewrite_policy
        FROM (
            SELECT * FROM system.commits WHERE flow = {} AND \"table\" = {} ORDER BY version DESC LIMIT {COSTED_COMMITS}
        )
        GROUP BY flow, \"table\"",
        string_literal(options.mode.as_str()),
        string_literal(flow.flow.as_str()),
        string_literal(&flow.table.to_string())
    )
}

/// Returns the columns of a table in the words of this dialect, without hidden ones.
fn described(schema: &Schema) -> Result<RecordBatch> {
    let shown: Vec<_> = schema.fields().iter().filter(|field| !hidden::is_hidden(field.name())).collect();
    let nullable = |is_nullable: bool| if is_nullable { "YES" } else { "NO" }.to_owned();
    Columns::new()
        .text("column_name", shown.iter().map(|field| Some(field.name().clone())))
        .text("data_type", shown.iter().map(|field| Some(sql_type(field.data_type()))))
        .text("is_nullable", shown.iter().map(|field| Some(nullable(field.is_nullable()))))
        .finish()
}

fn query_statement(query: &str) -> Result<DfStatement> {
    match crate::parser::parse_statements(query)?.pop().map(|statement| statement.value) {
        Some(Statement::Sql(statement)) => Ok(*statement),
        _ => Err(Error::internal(format!("{query} is not a query"))),
    }
}

#[cfg(test)]
mod tests;
