//! The statements of the dialect as values: what was written, before anybody asked what it means.
//!
//! Every value shows itself in one canonical form (`statement/display.rs`) that parses back to an equal value; hashes
//! and the catalog hold that form. Places in the text are kept for errors and do not take part in equality.

mod angled;
mod definition;
mod display;

use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{DataType, Expr, Ident, ObjectName, Query};

use crate::diagnostic::TextSpan;

pub(crate) use definition::{connection_text, source_text, table_text};
pub(crate) use display::string_literal;

/// A value and its place in the text; equal to any other place of an equal value.
#[derive(Debug, Clone)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Its place.
    pub span: TextSpan,
}

impl<T> Spanned<T> {
    /// Returns `value` at `span`.
    pub fn new(value: T, span: TextSpan) -> Self {
        Self { value, span }
    }
}

impl<T: PartialEq> PartialEq for Spanned<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for Spanned<T> {}

/// A statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// `CREATE CONNECTION`
    CreateConnection(CreateConnection),
    /// `CREATE SOURCE`
    CreateSource(CreateSource),
    /// `CREATE STREAMING TABLE`
    CreateStreamingTable(Box<CreateStreamingTable>),
    /// `CREATE FLOW`
    CreateFlow(Box<CreateFlow>),
    /// `DESCRIBE HISTORY`
    DescribeHistory(DescribeHistory),
    /// `EXPLAIN UPSERT`
    ExplainUpsert(ExplainUpsert),
    /// `SHOW SOURCES` and the like
    Show(Show),
    /// `OPTIMIZE`
    Optimize(Optimize),
    /// `VACUUM`
    Vacuum(Vacuum),
    /// Any statement that DataFusion knows.
    Sql(Box<DfStatement>),
}

/// `'key' = value`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenOption {
    /// The key.
    pub key: Spanned<String>,
    /// The value.
    pub value: Spanned<Literal>,
}

/// The value of an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Literal {
    /// `'text'`
    Text(String),
    /// `125000`
    Number(String),
    /// `true`
    Boolean(bool),
    /// `secret('env', 'NAME')`
    Secret {
        /// Who holds it.
        provider: String,
        /// Its name there.
        name: String,
    },
}

/// `CREATE CONNECTION name TYPE kafka WITH (..)`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateConnection {
    /// `OR REPLACE`
    pub or_replace: bool,
    /// `IF NOT EXISTS`
    pub if_not_exists: bool,
    /// Its name.
    pub name: Ident,
    /// What it speaks.
    pub kind: Ident,
    /// `WITH (..)`
    pub options: Vec<WrittenOption>,
}

/// `CREATE SOURCE name (columns) WITH (..)`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateSource {
    /// `OR REPLACE`
    pub or_replace: bool,
    /// `IF NOT EXISTS`
    pub if_not_exists: bool,
    /// Its name.
    pub name: Ident,
    /// Its columns.
    pub columns: Vec<SourceColumn>,
    /// `COMMENT`
    pub comment: Option<String>,
    /// `WITH (..)`
    pub options: Vec<WrittenOption>,
}

/// A column of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceColumn {
    /// `name TYPE [NOT NULL] [METADATA [FROM 'key']] ..`
    Stored {
        /// What it shares with columns of tables.
        column: Column,
        /// `METADATA FROM 'key'`; `METADATA` alone is the column's own name.
        metadata: Option<Spanned<String>>,
    },
    /// `name AS expression`
    Computed {
        /// Its name.
        name: Ident,
        /// How it is computed.
        expression: Spanned<Expr>,
    },
}

/// `name TYPE [NOT NULL] [COMMENT 'text'] [TAGS (a, b)]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: Ident,
    /// Its type.
    pub data_type: Spanned<DataType>,
    /// Whether `NOT NULL` is missing.
    pub nullable: bool,
    /// `COMMENT`
    pub comment: Option<String>,
    /// `TAGS`
    pub tags: Vec<Ident>,
}

/// `CREATE STREAMING TABLE`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateStreamingTable {
    /// `OR REFRESH`
    pub or_refresh: bool,
    /// `IF NOT EXISTS`
    pub if_not_exists: bool,
    /// Its name.
    pub name: ObjectName,
    /// Its columns; none where the query says them.
    pub columns: Vec<Column>,
    /// `PRIMARY KEY (..)`
    pub primary_key: Option<Spanned<Vec<Ident>>>,
    /// `PARTITIONED BY (..)`
    pub partitioned_by: Vec<Ident>,
    /// `CLUSTER BY (..)`; empty for `CLUSTER BY NONE`.
    pub clustered_by: Option<Vec<Ident>>,
    /// `LOCATION`
    pub location: Option<Spanned<String>>,
    /// `COMMENT`
    pub comment: Option<String>,
    /// `TBLPROPERTIES (..)`
    pub properties: Vec<WrittenOption>,
    /// `AS query`: a flow of the table's name that appends.
    pub query: Option<Spanned<Box<Query>>>,
}

/// `CREATE FLOW`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateFlow {
    /// `OR REPLACE`
    pub or_replace: bool,
    /// Its name.
    pub name: Ident,
    /// `COMMENT`
    pub comment: Option<String>,
    /// `WITH (..)`
    pub options: Vec<WrittenOption>,
    /// What it does.
    pub action: FlowAction,
}

/// What a flow does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlowAction {
    /// `INSERT INTO table BY NAME query`
    Append {
        /// The table.
        into: ObjectName,
        /// The query.
        query: Spanned<Box<Query>>,
    },
    /// `AUTO CDC INTO`
    AutoCdc(Box<AutoCdc>),
}

/// `AUTO CDC INTO table FROM .. KEYS .. SEQUENCE BY ..`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AutoCdc {
    /// The table.
    pub into: ObjectName,
    /// `FROM`
    pub from: ChangeFeed,
    /// `KEYS (..)`
    pub keys: Spanned<Vec<Ident>>,
    /// `APPLY AS DELETE WHEN`
    pub delete_when: Option<Spanned<Expr>>,
    /// `SEQUENCE BY`; its absence is the compiler's to refuse.
    pub sequence_by: Option<Spanned<Expr>>,
    /// `COLUMNS`
    pub columns: Option<ColumnChoice>,
}

/// What AUTO CDC reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeFeed {
    /// `STREAM(source)`
    Stream(Ident),
    /// `(query)`
    Query(Spanned<Box<Query>>),
}

/// Which columns of its feed AUTO CDC stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ColumnChoice {
    /// `COLUMNS (a, b)`
    Only(Vec<Ident>),
    /// `COLUMNS * EXCEPT (a, b)`
    Except(Vec<Ident>),
}

/// `DESCRIBE HISTORY table [LIMIT n]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribeHistory {
    /// The table.
    pub table: ObjectName,
    /// At most so many commits, newest first.
    pub limit: Option<u64>,
}

/// `EXPLAIN UPSERT flow`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainUpsert {
    /// The flow.
    pub flow: Ident,
}

/// `OPTIMIZE table [FULL]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Optimize {
    /// The table.
    pub table: Spanned<ObjectName>,
    /// `FULL`: what is clustered already is clustered again.
    pub is_full: bool,
}

/// `VACUUM table [RETAIN n HOURS] [DRY RUN]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vacuum {
    /// The table.
    pub table: Spanned<ObjectName>,
    /// How long files are kept, in hours.
    pub retain_hours: Option<u64>,
    /// `DRY RUN`: files are counted, and none is removed.
    pub is_dry_run: bool,
}

/// `SHOW ..` over the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Show {
    /// `SHOW CONNECTIONS`
    Connections,
    /// `SHOW SOURCES`
    Sources,
    /// `SHOW FLOWS`
    Flows,
    /// `SHOW COMMITS [FOR table]`
    Commits {
        /// The table, or all.
        table: Option<ObjectName>,
    },
}

#[cfg(test)]
mod tests;
