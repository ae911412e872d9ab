//! Reads SQL text into statements: ours by our own productions, everything else by DataFusion's parser.
//!
//! A wrapper, never a fork: the text is cut into statements at its semicolons, the first words of each decide who reads
//! it, and an error in one does not hide errors in the next. Nothing here knows the catalog or a type's meaning.

mod cursor;
mod depth;
mod dialect;
mod flow;
mod hints;
mod options;
mod show;
mod source;
mod table;
mod tokens;
mod upkeep;

use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Diagnostics, SourceText, code};
use crate::statement::{Spanned, Statement};
use cursor::{Cursor, Result};
#[cfg(test)]
pub(crate) use dialect::AlluviumDialect;
pub(crate) use hints::TYPES;
use tokens::chunks;

/// Returns the statements of a file in the order written.
///
/// # Errors
/// All statements that cannot be read, each with its place.
pub fn parse_file(source: &Arc<SourceText>) -> Result<Vec<Spanned<Statement>>, Diagnostics> {
    let mut statements = Vec::new();
    let mut diagnostics = Vec::new();
    for chunk in chunks(source)? {
        let span = chunk.span.clone();
        match Cursor::new(source, chunk).and_then(statement) {
            Ok(statement) => statements.push(Spanned::new(statement, span)),
            Err(diagnostic) => diagnostics.push(diagnostic),
        }
    }
    if diagnostics.is_empty() { Ok(statements) } else { Err(Diagnostics(diagnostics)) }
}

/// Returns the statements of a text that is typed rather than kept in a file.
///
/// # Errors
/// As [`parse_file`], under the name `input`.
pub fn parse_statements(text: &str) -> Result<Vec<Spanned<Statement>>, Diagnostics> {
    parse_file(&Arc::new(SourceText::new("input", text)))
}

fn statement(mut cursor: Cursor<'_>) -> Result<Statement> {
    let statement = dispatch(&mut cursor)?;
    if cursor.at_end() { Ok(statement) } else { Err(cursor.expected(hints::END)) }
}

fn dispatch(cursor: &mut Cursor<'_>) -> Result<Statement> {
    if let Some((what, instead)) = unsupported(cursor) {
        return Err(cursor.unsupported(what, instead));
    }
    if let Some(words) = create_words(cursor) {
        return create(cursor, words);
    }
    if let Some(error) = unknown_kind(cursor) {
        return Err(error);
    }
    let describes = cursor.at(&["DESCRIBE", "HISTORY"]) || cursor.at(&["DESC", "HISTORY"]);
    if describes && cursor.at_any_word(2) {
        return show::describe_history(cursor);
    }
    if cursor.at(&["EXPLAIN", "UPSERT"]) {
        return show::explain_upsert(cursor);
    }
    if cursor.at(&["OPTIMIZE"]) {
        return upkeep::optimize(cursor);
    }
    if cursor.at(&["VACUUM"]) {
        return upkeep::vacuum(cursor);
    }
    if cursor.at(&["SHOW"]) && show::is_ours(cursor) {
        return show::show(cursor);
    }
    cursor.sql().map(|statement| Statement::Sql(Box::new(statement)))
}

/// How many words stand before the kind of a `CREATE` that is ours.
fn create_words(cursor: &Cursor<'_>) -> Option<usize> {
    if !cursor.at(&["CREATE"]) {
        return None;
    }
    let words = if cursor.at_word(1, "OR") { 3 } else { 1 };
    let ours = ["CONNECTION", "SOURCE", "FLOW", "STREAMING"];
    ours.iter().any(|kind| cursor.at_word(words, kind)).then_some(words)
}

/// What a `CREATE` may name that DataFusion's parser reads, whoever refuses it then.
const THEIRS: [&str; 49] = [
    "AGGREGATE",
    "ALTER",
    "COLLATION",
    "CONNECTOR",
    "DATABASE",
    "DOMAIN",
    "DYNAMIC",
    "EXTENSION",
    "EXTERNAL",
    "FOREIGN",
    "FULLTEXT",
    "FUNCTION",
    "GLOBAL",
    "HYBRID",
    "ICEBERG",
    "INDEX",
    "LOCAL",
    "MACRO",
    "MATERIALIZED",
    "MULTISET",
    "OPERATOR",
    "OR",
    "PERSISTENT",
    "POLICY",
    "PROCEDURE",
    "PUBLICATION",
    "ROLE",
    "SCHEMA",
    "SECRET",
    "SECURE",
    "SEQUENCE",
    "SERVER",
    "SET",
    "SNAPSHOT",
    "STAGE",
    "SUBSCRIPTION",
    "TABLE",
    "TEMP",
    "TEMPORARY",
    "TEXT",
    "TRANSIENT",
    "TRIGGER",
    "TYPE",
    "UNBOUNDED",
    "UNIQUE",
    "USER",
    "VIEW",
    "VIRTUAL",
    "VOLATILE",
];

/// Returns the error that nobody can create what a `CREATE` names, at the word that says what it is. What DataFusion's
/// parser reads is left to it.
fn unknown_kind(cursor: &mut Cursor<'_>) -> Option<Diagnostic> {
    if !cursor.at(&["CREATE"]) {
        return None;
    }
    let words = if cursor.at_word(1, "OR") { 3 } else { 1 };
    let found = cursor.bare_word(words)?;
    if THEIRS.iter().any(|kind| found.eq_ignore_ascii_case(kind)) {
        return None;
    }
    (0..words).for_each(|_| drop(cursor.take()));
    let error = cursor.error(code::SYNTAX, format!("there is no CREATE {found}"));
    Some(error.with_hint(hints::of_created(&found)))
}

fn create(cursor: &mut Cursor<'_>, words: usize) -> Result<Statement> {
    cursor.expect(&["CREATE"])?;
    let qualified = words == 3;
    let or_refresh = qualified && cursor.accept(&["OR", "REFRESH"]);
    let or_replace = qualified && !or_refresh && cursor.accept(&["OR", "REPLACE"]);
    if qualified && !or_refresh && !or_replace {
        return Err(cursor.expected("OR REPLACE or OR REFRESH"));
    }
    if cursor.at(&["STREAMING"]) {
        if or_replace {
            let error = cursor.error(code::SYNTAX, "a streaming table is refreshed, not replaced");
            return Err(error.with_hint("write CREATE OR REFRESH STREAMING TABLE"));
        }
        return table::streaming_table(cursor, or_refresh);
    }
    if or_refresh {
        let error = cursor.error(code::SYNTAX, "OR REFRESH is for streaming tables");
        return Err(error.with_hint("write CREATE OR REPLACE"));
    }
    if cursor.accept(&["CONNECTION"]) {
        return source::connection(cursor, or_replace);
    }
    if cursor.accept(&["SOURCE"]) {
        return source::source(cursor, or_replace);
    }
    cursor.expect(&["FLOW"])?;
    flow::flow(cursor, or_replace)
}

/// Returns the name of a statement that belongs to the grammar but not to this version, and what does instead of it.
fn unsupported(cursor: &Cursor<'_>) -> Option<(&'static str, &'static str)> {
    const IN_FILE: &str = "change the flow in its file, and start the file again with alluvium run FILE";
    const FORGET: &str = "alluvium catalog forget NAME takes a table's name out of the catalog";
    const REPLACE: &str = "leave it; CREATE OR REPLACE changes one that is there already";
    let statements: [(&[&str], &'static str, &'static str); 11] = [
        (&["ALTER", "FLOW"], "ALTER FLOW", IN_FILE),
        (&["DROP", "FLOW"], "DROP FLOW", "take the flow out of its file: what no alluvium run reads does not run"),
        (&["DROP", "SOURCE"], "DROP SOURCE", REPLACE),
        (&["DROP", "CONNECTION"], "DROP CONNECTION", REPLACE),
        (&["DROP", "STREAMING"], "DROP STREAMING TABLE", FORGET),
        (&["EXPLAIN", "FLOW"], "EXPLAIN FLOW", "EXPLAIN UPSERT flow shows what the commits of a flow cost its table"),
        (&["RESTORE"], "RESTORE", "read the older version: SELECT .. FROM table VERSION AS OF n"),
        (
            &["DESCRIBE", "DETAIL"],
            "DESCRIBE DETAIL",
            "DESCRIBE table shows its columns, DESCRIBE HISTORY table its commits",
        ),
        (&["SHOW", "LINEAGE"], "SHOW LINEAGE", "\\lineage table in alluvium sql, or alluvium catalog lineage table"),
        (&["CREATE", "MATERIALIZED"], "CREATE MATERIALIZED VIEW", "write CREATE STREAMING TABLE and a flow into it"),
        (&["REFRESH"], "REFRESH", "leave it out: a running flow keeps its table fresh"),
    ];
    let found = statements.into_iter().find(|(words, ..)| cursor.at(words))?;
    // DESCRIBE DETAIL alone describes a table of that name.
    let describes = found.0 == ["DESCRIBE", "DETAIL"] && !cursor.at_any_word(2);
    (!describes).then_some((found.1, found.2))
}

/// Returns the type that `text` is.
///
/// # Errors
/// Where it is none.
pub(crate) fn parse_type(text: &str) -> Result<datafusion::sql::sqlparser::ast::DataType, Diagnostic> {
    let source = Arc::new(SourceText::new("type", text));
    let chunk = chunks(&source)?.pop();
    let chunk =
        chunk.ok_or_else(|| Diagnostic::new(code::SYNTAX, &source, 0..0, "expected a type").with_hint(TYPES))?;
    let mut cursor = Cursor::new(&source, chunk)?;
    let data_type = cursor.data_type()?;
    if cursor.at_end() { Ok(data_type.value) } else { Err(cursor.expected("the end of the type")) }
}

#[cfg(test)]
mod tests;
