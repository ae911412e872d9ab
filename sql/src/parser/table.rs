//! `CREATE STREAMING TABLE`.

use datafusion::sql::sqlparser::ast::{Ident, ObjectName};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::cursor::{Cursor, Result};
use super::options::options;
use super::source::{WATERMARK_HINT, column_note, comment};
use crate::diagnostic::code;
use crate::statement::{Column, CreateStreamingTable, Spanned, Statement};

/// Reads `STREAMING TABLE [IF NOT EXISTS] name [(..)] clause* [AS query]`.
pub(super) fn streaming_table(cursor: &mut Cursor<'_>, or_refresh: bool) -> Result<Statement> {
    cursor.expect(&["STREAMING", "TABLE"])?;
    let if_not_exists = cursor.accept(&["IF", "NOT", "EXISTS"]);
    let mut table = empty(or_refresh, if_not_exists, cursor.object_name("the table's name")?);
    if cursor.at_token(&Token::LParen) {
        cursor.parenthesized(|cursor| entry(cursor, &mut table))?;
    }
    while clause(cursor, &mut table)? {}
    if cursor.accept(&["AS"]) {
        table.query = Some(cursor.query()?);
    }
    Ok(Statement::CreateStreamingTable(Box::new(table)))
}

fn empty(or_refresh: bool, if_not_exists: bool, name: ObjectName) -> CreateStreamingTable {
    CreateStreamingTable {
        or_refresh,
        if_not_exists,
        name,
        columns: Vec::new(),
        primary_key: None,
        partitioned_by: Vec::new(),
        clustered_by: None,
        location: None,
        comment: None,
        properties: Vec::new(),
        query: None,
    }
}

/// Reads a column or a constraint.
fn entry(cursor: &mut Cursor<'_>, table: &mut CreateStreamingTable) -> Result<()> {
    let named = cursor.at(&["CONSTRAINT"]) && cursor.at_any_word(1) && cursor.at_any_word(2);
    if named && cursor.at_word(2, "EXPECT") {
        return Err(cursor.unsupported("CONSTRAINT .. EXPECT", "leave bad rows out with WHERE in the flow's query"));
    }
    if named && cursor.at_word(2, "PRIMARY") {
        cursor.expect(&["CONSTRAINT"])?;
        let _ = cursor.ident("the constraint's name")?;
    }
    if cursor.at(&["PRIMARY", "KEY"]) {
        let key = primary_key(cursor)?;
        if table.primary_key.is_some() {
            let error = cursor.error_at(code::SYNTAX, key.span, "a table has one PRIMARY KEY");
            return Err(error.with_hint("a key of several columns is PRIMARY KEY (a, b)"));
        }
        table.primary_key = Some(key);
        return Ok(());
    }
    if cursor.at(&["WATERMARK", "FOR"]) {
        return Err(cursor.unsupported("WATERMARK", WATERMARK_HINT));
    }
    let name = cursor.ident("a column's name")?;
    let data_type = cursor.data_type()?;
    let mut column = Column { name, data_type, nullable: true, comment: None, tags: Vec::new() };
    while column_note(cursor, &mut column)? {}
    table.columns.push(column);
    Ok(())
}

fn primary_key(cursor: &mut Cursor<'_>) -> Result<Spanned<Vec<Ident>>> {
    let start = cursor.start();
    cursor.expect(&["PRIMARY", "KEY"])?;
    let columns = cursor.names("a key column")?.value;
    cursor.begin(&["NOT", "ENFORCED"])?;
    Ok(Spanned::new(columns, cursor.since(start)))
}

/// Reads one clause behind the columns, or tells that none comes.
fn clause(cursor: &mut Cursor<'_>, table: &mut CreateStreamingTable) -> Result<bool> {
    let again = match () {
        () if cursor.at(&["PARTITIONED", "BY"]) => !table.partitioned_by.is_empty(),
        () if cursor.at(&["CLUSTER", "BY"]) => table.clustered_by.is_some(),
        () if cursor.at(&["LOCATION"]) => table.location.is_some(),
        () if cursor.at(&["COMMENT"]) => table.comment.is_some(),
        () if cursor.at(&["TBLPROPERTIES"]) => !table.properties.is_empty(),
        () => false,
    };
    if again {
        return Err(cursor.error(code::SYNTAX, "the clause is given twice").with_hint("keep one of the two"));
    }
    if cursor.begin(&["PARTITIONED", "BY"])? {
        table.partitioned_by = cursor.names("a partition column")?.value;
    } else if cursor.begin(&["CLUSTER", "BY"])? {
        table.clustered_by = Some(cluster_columns(cursor)?);
    } else if cursor.accept(&["LOCATION"]) {
        table.location = Some(cursor.string("a location in single quotes")?);
    } else if cursor.at(&["COMMENT"]) {
        table.comment = comment(cursor)?;
    } else if cursor.accept(&["TBLPROPERTIES"]) {
        table.properties = options(cursor)?;
    } else {
        return refuse_later_clauses(cursor).map(|()| false);
    }
    Ok(true)
}

/// Reads `(a, b) | NONE`, which is what `CLUSTER BY` names.
fn cluster_columns(cursor: &mut Cursor<'_>) -> Result<Vec<Ident>> {
    if cursor.accept(&["NONE"]) {
        return Ok(Vec::new());
    }
    if cursor.at(&["AUTO"]) {
        return Err(cursor.unsupported("CLUSTER BY AUTO", "name the columns that queries filter by"));
    }
    Ok(cursor.names("a clustering column")?.value)
}

fn refuse_later_clauses(cursor: &Cursor<'_>) -> Result<()> {
    for (words, instead) in [
        (&["WITH", "ROW", "FILTER"][..], "leave rows out with WHERE in the flow's query"),
        (&["SCHEDULE"], "leave it out: a flow runs all the time, and commits by its 'commit.interval'"),
        (&["FLOW"], "write CREATE FLOW name AS .. as a statement of its own"),
    ] {
        if cursor.at(words) {
            return Err(cursor.unsupported(&words.join(" "), instead));
        }
    }
    if cursor.at(&["USING"]) {
        return Err(cursor.error(code::SYNTAX, "a streaming table is a Delta table").with_hint("leave USING out"));
    }
    if cursor.at(&["WITH"]) {
        let error = cursor.expected("TBLPROPERTIES");
        return Err(error.with_hint("the properties of a table stand in TBLPROPERTIES (..)"));
    }
    Ok(())
}
