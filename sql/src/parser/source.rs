//! `CREATE CONNECTION` and `CREATE SOURCE`.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::cursor::{Cursor, Result};
use super::options::options;
use crate::statement::{Column, CreateConnection, CreateSource, SourceColumn, Spanned, Statement};

/// What does instead of a WATERMARK.
pub(super) const WATERMARK_HINT: &str = "leave it out: SEQUENCE BY of a flow tells which of two changes is newer";

/// Reads `[IF NOT EXISTS] name TYPE kafka WITH (..)`.
pub(super) fn connection(cursor: &mut Cursor<'_>, or_replace: bool) -> Result<Statement> {
    let if_not_exists = cursor.accept(&["IF", "NOT", "EXISTS"]);
    let name = cursor.ident("the connection's name")?;
    cursor.expect(&["TYPE"])?;
    let kind = cursor.ident("the connection's type, kafka")?;
    cursor.expect(&["WITH"])?;
    let options = options(cursor)?;
    Ok(Statement::CreateConnection(CreateConnection { or_replace, if_not_exists, name, kind, options }))
}

/// Reads `[IF NOT EXISTS] name (columns) [COMMENT 'text'] WITH (..)`.
pub(super) fn source(cursor: &mut Cursor<'_>, or_replace: bool) -> Result<Statement> {
    let if_not_exists = cursor.accept(&["IF", "NOT", "EXISTS"]);
    let name = cursor.ident("the source's name")?;
    let columns = cursor.parenthesized(source_column)?;
    let comment = comment(cursor)?;
    cursor.expect(&["WITH"])?;
    let options = options(cursor)?;
    Ok(Statement::CreateSource(CreateSource { or_replace, if_not_exists, name, columns, comment, options }))
}

fn source_column(cursor: &mut Cursor<'_>) -> Result<SourceColumn> {
    if cursor.at(&["WATERMARK", "FOR"]) {
        return Err(cursor.unsupported("WATERMARK", WATERMARK_HINT));
    }
    if cursor.at(&["PRIMARY", "KEY"]) || cursor.at(&["CONSTRAINT"]) && cursor.at_word(2, "PRIMARY") {
        let error = cursor.expected("a column");
        return Err(error.with_hint("a source has no primary key; declare it in CREATE STREAMING TABLE"));
    }
    let name = cursor.ident("a column's name")?;
    if cursor.accept(&["AS"]) {
        return Ok(SourceColumn::Computed { name, expression: cursor.expr()? });
    }
    let data_type = cursor.data_type()?;
    let mut column = Column { name, data_type, nullable: true, comment: None, tags: Vec::new() };
    let mut metadata = None;
    loop {
        if metadata.is_none() && cursor.at(&["METADATA"]) {
            metadata = Some(metadata_key(cursor, &column.name.value)?);
        } else if !column_note(cursor, &mut column)? {
            return Ok(SourceColumn::Stored { column, metadata });
        }
    }
}

/// Reads `METADATA [FROM 'key']`.
fn metadata_key(cursor: &mut Cursor<'_>, column: &str) -> Result<Spanned<String>> {
    let start = cursor.start();
    cursor.expect(&["METADATA"])?;
    if cursor.accept(&["FROM"]) {
        return cursor.string("a metadata key in single quotes");
    }
    Ok(Spanned::new(column.to_owned(), cursor.since(start)))
}

/// Reads one of `NOT NULL`, `COMMENT 'text'`, `TAGS (..)` into `column`, or tells that none comes.
pub(super) fn column_note(cursor: &mut Cursor<'_>, column: &mut Column) -> Result<bool> {
    if column.nullable && cursor.begin(&["NOT", "NULL"])? {
        column.nullable = false;
        return Ok(true);
    }
    if column.comment.is_none() && cursor.at(&["COMMENT"]) {
        column.comment = comment(cursor)?;
        return Ok(true);
    }
    if column.tags.is_empty() && cursor.accept(&["TAGS"]) {
        column.tags = cursor.names("a tag")?.value;
        return Ok(true);
    }
    for (word, instead) in [
        ("GENERATED", "compute the column in the flow's query: SELECT .. AS name"),
        ("DEFAULT", "give the value in the flow's query: coalesce(column, value) AS column"),
        ("MASK", "write in the flow's query what may be seen of it, as in left(email, 1) AS email"),
        ("CHECK", "leave bad rows out with WHERE in the flow's query"),
        ("UNIQUE", "declare PRIMARY KEY (column) and write the table by AUTO CDC: it keeps one row a key"),
        ("REFERENCES", "leave it out; a flow's query can JOIN the other table"),
    ] {
        if cursor.at(&[word]) {
            return Err(cursor.unsupported(word, instead));
        }
    }
    if cursor.at(&["PRIMARY", "KEY"]) {
        let error = cursor.expected("',' or ')'");
        return Err(error.with_hint("write PRIMARY KEY (column) as an entry of its own"));
    }
    if cursor.at_token(&Token::Comma) || cursor.at_token(&Token::RParen) {
        return Ok(false);
    }
    Err(cursor.expected("NOT NULL, COMMENT, TAGS, ',' or ')'"))
}

/// Reads `COMMENT 'text'` if it comes.
pub(super) fn comment(cursor: &mut Cursor<'_>) -> Result<Option<String>> {
    if !cursor.accept(&["COMMENT"]) {
        return Ok(None);
    }
    cursor.string("a comment in single quotes").map(|text| Some(text.value))
}
