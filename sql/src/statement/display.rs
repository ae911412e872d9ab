//! The canonical form of statements: one spelling for each meaning, on few lines.
//!
//! What is shown parses back to an equal value. Comments and layout of the original are gone.

use std::fmt::{self, Display, Formatter};

use datafusion::sql::sqlparser::ast::{Expr, Ident};

use super::angled::{text, type_text};
use super::{
    AutoCdc, ChangeFeed, Column, ColumnChoice, CreateConnection, CreateFlow, CreateSource, CreateStreamingTable,
    DescribeHistory, ExplainUpsert, FlowAction, Literal, Optimize, Show, SourceColumn, Spanned, Statement, Vacuum,
    WrittenOption,
};

/// Returns `text` as a SQL string.
pub(crate) fn string_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

impl Display for Statement {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateConnection(statement) => statement.fmt(formatter),
            Self::CreateSource(statement) => statement.fmt(formatter),
            Self::CreateStreamingTable(statement) => statement.fmt(formatter),
            Self::CreateFlow(statement) => statement.fmt(formatter),
            Self::DescribeHistory(statement) => statement.fmt(formatter),
            Self::ExplainUpsert(statement) => statement.fmt(formatter),
            Self::Show(statement) => statement.fmt(formatter),
            Self::Optimize(statement) => statement.fmt(formatter),
            Self::Vacuum(statement) => statement.fmt(formatter),
            Self::Sql(statement) => statement.fmt(formatter),
        }
    }
}

impl Display for CreateConnection {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Self { or_replace, if_not_exists, name, kind, options } = self;
        write!(
            formatter,
            "CREATE {}CONNECTION {}{name} TYPE {kind}",
            when(*or_replace, "OR REPLACE "),
            when(*if_not_exists, "IF NOT EXISTS ")
        )?;
        options_clause(formatter, " WITH", options)
    }
}

impl Display for CreateSource {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Self { or_replace, if_not_exists, name, columns, comment, options } = self;
        write!(
            formatter,
            "CREATE {}SOURCE {}{name} (\n  {}\n)",
            when(*or_replace, "OR REPLACE "),
            when(*if_not_exists, "IF NOT EXISTS "),
            joined(columns, ",\n  ")
        )?;
        comment_clause(formatter, comment.as_deref())?;
        options_clause(formatter, " WITH", options)
    }
}

impl Display for SourceColumn {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stored { column, metadata } => {
                column.fmt_type(formatter)?;
                if let Some(key) = metadata {
                    write!(formatter, " METADATA FROM {}", string_literal(&key.value))?;
                }
                column.fmt_notes(formatter)
            }
            Self::Computed { name, expression } => write!(formatter, "{name} AS {}", text(&expression.value)),
        }
    }
}

impl Column {
    fn fmt_type(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let data_type = type_text(&self.data_type.value);
        write!(formatter, "{} {data_type}{}", self.name, when(!self.nullable, " NOT NULL"))
    }

    fn fmt_notes(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        comment_clause(formatter, self.comment.as_deref())?;
        names_clause(formatter, " TAGS", &self.tags)
    }
}

impl Display for Column {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        self.fmt_type(formatter)?;
        self.fmt_notes(formatter)
    }
}

impl Display for CreateStreamingTable {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "CREATE {}STREAMING TABLE {}{}",
            when(self.or_refresh, "OR REFRESH "),
            when(self.if_not_exists, "IF NOT EXISTS "),
            self.name
        )?;
        let mut parts: Vec<String> = self.columns.iter().map(ToString::to_string).collect();
        if let Some(key) = &self.primary_key {
            parts.push(format!("PRIMARY KEY ({}) NOT ENFORCED", joined(&key.value, ", ")));
        }
        if !parts.is_empty() {
            write!(formatter, " (\n  {}\n)", parts.join(",\n  "))?;
        }
        names_clause(formatter, "\nPARTITIONED BY", &self.partitioned_by)?;
        match self.clustered_by.as_deref() {
            Some([]) => formatter.write_str("\nCLUSTER BY NONE")?,
            Some(columns) => names_clause(formatter, "\nCLUSTER BY", columns)?,
            None => {}
        }
        if let Some(location) = &self.location {
            write!(formatter, "\nLOCATION {}", string_literal(&location.value))?;
        }
        comment_clause(formatter, self.comment.as_deref())?;
        options_clause(formatter, "\nTBLPROPERTIES", &self.properties)?;
        match &self.query {
            Some(query) => write!(formatter, "\nAS {}", text(&query.value)),
            None => Ok(()),
        }
    }
}

impl Display for CreateFlow {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Self { or_replace, name, comment, options, action } = self;
        write!(formatter, "CREATE {}FLOW {name}", when(*or_replace, "OR REPLACE "))?;
        comment_clause(formatter, comment.as_deref())?;
        options_clause(formatter, " WITH", options)?;
        match action {
            FlowAction::Append { into, query } => {
                write!(formatter, " AS\nINSERT INTO {into} BY NAME\n{}", text(&query.value))
            }
            FlowAction::AutoCdc(cdc) => write!(formatter, " AS\n{cdc}"),
        }
    }
}

impl Display for AutoCdc {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Self { into, from, keys, delete_when, sequence_by, columns } = self;
        match from {
            ChangeFeed::Stream(source) => write!(formatter, "AUTO CDC INTO {into}\nFROM STREAM({source})")?,
            ChangeFeed::Query(query) => write!(formatter, "AUTO CDC INTO {into}\nFROM ({})", text(&query.value))?,
        }
        names_clause(formatter, "\nKEYS", &keys.value)?;
        expression_clause(formatter, "APPLY AS DELETE WHEN", delete_when.as_ref())?;
        expression_clause(formatter, "SEQUENCE BY", sequence_by.as_ref())?;
        match columns {
            Some(ColumnChoice::Only(names)) => write!(formatter, "\nCOLUMNS ({})", joined(names, ", "))?,
            Some(ColumnChoice::Except(names)) => write!(formatter, "\nCOLUMNS * EXCEPT ({})", joined(names, ", "))?,
            None => {}
        }
        formatter.write_str("\nSTORED AS SCD TYPE 1")
    }
}

impl Display for DescribeHistory {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "DESCRIBE HISTORY {}", self.table)?;
        match self.limit {
            Some(limit) => write!(formatter, " LIMIT {limit}"),
            None => Ok(()),
        }
    }
}

impl Display for ExplainUpsert {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "EXPLAIN UPSERT {}", self.flow)
    }
}

impl Display for Show {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connections => formatter.write_str("SHOW CONNECTIONS"),
            Self::Sources => formatter.write_str("SHOW SOURCES"),
            Self::Flows => formatter.write_str("SHOW FLOWS"),
            Self::Commits { table: None } => formatter.write_str("SHOW COMMITS"),
            Self::Commits { table: Some(table) } => write!(formatter, "SHOW COMMITS FOR {table}"),
        }
    }
}

impl Display for Optimize {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "OPTIMIZE {}{}", self.table.value, when(self.is_full, " FULL"))
    }
}

impl Display for Vacuum {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "VACUUM {}", self.table.value)?;
        if let Some(hours) = self.retain_hours {
            write!(formatter, " RETAIN {hours} HOURS")?;
        }
        formatter.write_str(when(self.is_dry_run, " DRY RUN"))
    }
}

impl Display for WrittenOption {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} = {}", string_literal(&self.key.value), self.value.value)
    }
}

impl Display for Literal {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => formatter.write_str(&string_literal(text)),
            Self::Number(number) => formatter.write_str(number),
            Self::Boolean(value) => value.fmt(formatter),
            Self::Secret { provider, name } => {
                write!(formatter, "secret({}, {})", string_literal(provider), string_literal(name))
            }
        }
    }
}

fn when(said: bool, words: &'static str) -> &'static str {
    if said { words } else { "" }
}

fn joined<T: Display>(items: &[T], separator: &str) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(separator)
}

fn comment_clause(formatter: &mut Formatter<'_>, comment: Option<&str>) -> fmt::Result {
    match comment {
        Some(comment) => write!(formatter, " COMMENT {}", string_literal(comment)),
        None => Ok(()),
    }
}

fn options_clause(formatter: &mut Formatter<'_>, words: &str, options: &[WrittenOption]) -> fmt::Result {
    if options.is_empty() {
        return Ok(());
    }
    write!(formatter, "{words} (\n  {}\n)", joined(options, ",\n  "))
}

fn names_clause(formatter: &mut Formatter<'_>, words: &str, names: &[Ident]) -> fmt::Result {
    if names.is_empty() {
        return Ok(());
    }
    write!(formatter, "{words} ({})", joined(names, ", "))
}

fn expression_clause(formatter: &mut Formatter<'_>, words: &str, expression: Option<&Spanned<Expr>>) -> fmt::Result {
    match expression {
        Some(expression) => write!(formatter, "\n{words} {}", text(&expression.value)),
        None => Ok(()),
    }
}
