//! `DESCRIBE HISTORY`, `EXPLAIN UPSERT` and `SHOW`, as far as they are ours.

use super::cursor::{Cursor, Result};
use crate::statement::{DescribeHistory, ExplainUpsert, Show, Statement};

/// Reads `DESCRIBE HISTORY table [LIMIT n]`.
pub(super) fn describe_history(cursor: &mut Cursor<'_>) -> Result<Statement> {
    let _ = cursor.take();
    cursor.expect(&["HISTORY"])?;
    let table = cursor.object_name("the table's name")?;
    let limit = if cursor.accept(&["LIMIT"]) { Some(cursor.count("how many commits")?) } else { None };
    Ok(Statement::DescribeHistory(DescribeHistory { table, limit }))
}

/// Reads `EXPLAIN UPSERT flow`.
pub(super) fn explain_upsert(cursor: &mut Cursor<'_>) -> Result<Statement> {
    cursor.expect(&["EXPLAIN", "UPSERT"])?;
    let flow = cursor.ident("the flow's name")?;
    Ok(Statement::ExplainUpsert(ExplainUpsert { flow }))
}

/// Tells whether what stands behind SHOW is ours.
pub(super) fn is_ours(cursor: &Cursor<'_>) -> bool {
    ["CONNECTIONS", "SOURCES", "FLOWS", "COMMITS"].iter().any(|what| cursor.at_word(1, what))
}

/// Reads `SHOW CONNECTIONS | SOURCES | FLOWS | COMMITS [FOR table]`.
pub(super) fn show(cursor: &mut Cursor<'_>) -> Result<Statement> {
    cursor.expect(&["SHOW"])?;
    let show = if cursor.accept(&["CONNECTIONS"]) {
        Show::Connections
    } else if cursor.accept(&["SOURCES"]) {
        Show::Sources
    } else if cursor.accept(&["FLOWS"]) {
        Show::Flows
    } else {
        cursor.expect(&["COMMITS"])?;
        let table = if cursor.accept(&["FOR"]) { Some(cursor.object_name("the table's name")?) } else { None };
        Show::Commits { table }
    };
    Ok(Statement::Show(show))
}
