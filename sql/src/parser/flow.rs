//! `CREATE FLOW`.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::cursor::{Cursor, Result};
use super::options::options;
use super::source::comment;
use crate::diagnostic::code;
use crate::statement::{AutoCdc, ChangeFeed, ColumnChoice, CreateFlow, FlowAction, Statement};

/// What does instead of a flow that runs ONCE.
const ONCE_HINT: &str = "leave ONCE out: alluvium run --once FILE reads what is there and ends";

/// Reads `name [COMMENT 'text'] [WITH (..)] AS (INSERT INTO .. | AUTO CDC INTO ..)`.
pub(super) fn flow(cursor: &mut Cursor<'_>, or_replace: bool) -> Result<Statement> {
    let name = cursor.ident("the flow's name")?;
    let comment = comment(cursor)?;
    let options = if cursor.accept(&["WITH"]) { options(cursor)? } else { Vec::new() };
    cursor.expect(&["AS"])?;
    let action = if cursor.begin(&["INSERT", "INTO"])? {
        append(cursor)?
    } else if cursor.begin(&["AUTO", "CDC"])? {
        FlowAction::AutoCdc(Box::new(auto_cdc(cursor)?))
    } else {
        return Err(cursor.expected("INSERT INTO or AUTO CDC INTO"));
    };
    Ok(Statement::CreateFlow(Box::new(CreateFlow { or_replace, name, comment, options, action })))
}

fn append(cursor: &mut Cursor<'_>) -> Result<FlowAction> {
    if cursor.at(&["ONCE"]) && !cursor.at_word(1, "BY") {
        return Err(cursor.unsupported("INSERT INTO ONCE", ONCE_HINT));
    }
    let into = cursor.object_name("the table's name")?;
    if !cursor.accept(&["BY", "NAME"]) {
        let hint = "columns are matched by name, not by place: write INSERT INTO table BY NAME SELECT ..";
        return Err(cursor.expected("BY NAME").with_hint(hint));
    }
    Ok(FlowAction::Append { into, query: cursor.query()? })
}

fn auto_cdc(cursor: &mut Cursor<'_>) -> Result<AutoCdc> {
    if cursor.at(&["ONCE"]) {
        return Err(cursor.unsupported("AUTO CDC ONCE", ONCE_HINT));
    }
    cursor.expect(&["INTO"])?;
    let into = cursor.object_name("the table's name")?;
    cursor.expect(&["FROM"])?;
    let from = change_feed(cursor)?;
    cursor.expect(&["KEYS"])?;
    let keys = cursor.names("a key column")?;
    let mut cdc = AutoCdc { into, from, keys, delete_when: None, sequence_by: None, columns: None };
    while clause(cursor, &mut cdc)? {}
    stored_as(cursor)?;
    Ok(cdc)
}

fn change_feed(cursor: &mut Cursor<'_>) -> Result<ChangeFeed> {
    if cursor.accept(&["STREAM"]) {
        cursor.expect_token(&Token::LParen)?;
        let source = cursor.ident("the source's name")?;
        cursor.expect_token(&Token::RParen)?;
        return Ok(ChangeFeed::Stream(source));
    }
    if !cursor.accept_token(&Token::LParen) {
        let error = cursor.expected("STREAM(source) or (SELECT ..)");
        return Err(error.with_hint("a source is read as STREAM(source)"));
    }
    let query = cursor.query()?;
    cursor.expect_token(&Token::RParen)?;
    Ok(ChangeFeed::Query(query))
}

/// Reads one clause behind KEYS, in any order, or tells that none comes.
fn clause(cursor: &mut Cursor<'_>, cdc: &mut AutoCdc) -> Result<bool> {
    for (words, what, instead) in [
        (&["IGNORE", "NULL"][..], "IGNORE NULL UPDATES", "leave it out: a change gives all columns of its row"),
        (&["APPLY", "AS", "TRUNCATE"], "APPLY AS TRUNCATE WHEN", "delete rows by key: APPLY AS DELETE WHEN condition"),
        (&["SYSTEM", "SEQUENCE"], "SYSTEM SEQUENCE BY", "order changes by a column of theirs: SEQUENCE BY updated_at"),
        (&["TRACK", "HISTORY"], "TRACK HISTORY", "keep every change with INSERT INTO a table of its own"),
    ] {
        if cursor.at(words) {
            return Err(cursor.unsupported(what, instead));
        }
    }
    let again = (cursor.at(&["APPLY"]) && cdc.delete_when.is_some())
        || (cursor.at(&["SEQUENCE"]) && cdc.sequence_by.is_some())
        || (cursor.at(&["COLUMNS"]) && cdc.columns.is_some());
    if again {
        return Err(cursor.error(code::SYNTAX, "the clause is given twice").with_hint("keep one of the two"));
    }
    if cursor.begin(&["APPLY", "AS", "DELETE", "WHEN"])? {
        cdc.delete_when = Some(cursor.expr()?);
    } else if cursor.begin(&["SEQUENCE", "BY"])? {
        cdc.sequence_by = Some(cursor.expr()?);
    } else if cursor.accept(&["COLUMNS"]) {
        cdc.columns = Some(column_choice(cursor)?);
    } else {
        return Ok(false);
    }
    Ok(true)
}

fn column_choice(cursor: &mut Cursor<'_>) -> Result<ColumnChoice> {
    if cursor.accept_token(&Token::Mul) {
        cursor.expect(&["EXCEPT"])?;
        return Ok(ColumnChoice::Except(cursor.names("a column")?.value));
    }
    if cursor.at_token(&Token::LParen) {
        return Ok(ColumnChoice::Only(cursor.names("a column")?.value));
    }
    Err(cursor.expected("(columns) or * EXCEPT (columns)"))
}

/// Reads `[STORED AS SCD TYPE 1]`.
fn stored_as(cursor: &mut Cursor<'_>) -> Result<()> {
    if cursor.at_end() {
        return Ok(());
    }
    if !cursor.begin(&["STORED", "AS", "SCD", "TYPE"])? {
        return Err(cursor.expected("APPLY AS DELETE WHEN, SEQUENCE BY, COLUMNS or STORED AS SCD TYPE 1"));
    }
    let instead = "write STORED AS SCD TYPE 1, or keep every change with INSERT INTO a table of its own";
    let (span, unsupported) = (cursor.next_span(), cursor.unsupported("SCD TYPE 2", instead));
    match cursor.count("1")? {
        1 => Ok(()),
        2 => Err(unsupported),
        _ => Err(cursor.error_at(code::SYNTAX, span, "SCD has types 1 and 2").with_hint("write STORED AS SCD TYPE 1")),
    }
}
