//! `WITH ('key' = value, ..)` and `TBLPROPERTIES (..)`.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::cursor::{Cursor, Result};
use crate::diagnostic::code;
use crate::statement::{Literal, Spanned, WrittenOption};

/// Reads `('key' = value, ..)`, perhaps empty.
pub(super) fn options(cursor: &mut Cursor<'_>) -> Result<Vec<WrittenOption>> {
    cursor.expect_token(&Token::LParen)?;
    if cursor.accept_token(&Token::RParen) {
        return Ok(Vec::new());
    }
    let mut options: Vec<WrittenOption> = Vec::new();
    loop {
        let option = option(cursor)?;
        if options.iter().any(|earlier| earlier.key == option.key) {
            let message = format!("option '{}' is given twice", option.key.value);
            return Err(cursor.error_at(code::SYNTAX, option.key.span, message).with_hint("keep one of the two"));
        }
        options.push(option);
        if cursor.accept_token(&Token::RParen) {
            return Ok(options);
        }
        if !cursor.accept_token(&Token::Comma) {
            return Err(cursor.expected("',' or ')'"));
        }
    }
}

fn option(cursor: &mut Cursor<'_>) -> Result<WrittenOption> {
    let key = cursor.string("an option's key in single quotes")?;
    cursor.expect_token(&Token::Eq)?;
    Ok(WrittenOption { key, value: value(cursor)? })
}

fn value(cursor: &mut Cursor<'_>) -> Result<Spanned<Literal>> {
    let start = cursor.start();
    if cursor.at(&["secret"]) {
        let _ = cursor.take();
        return secret(cursor, start);
    }
    for (word, value) in [("true", true), ("false", false)] {
        if cursor.accept(&[word]) {
            return Ok(Spanned::new(Literal::Boolean(value), cursor.since(start)));
        }
    }
    let wrong = cursor.expected("a string, a number, true, false or secret('env', 'NAME')");
    let minus = cursor.accept_token(&Token::Minus);
    let literal = match cursor.take().token {
        Token::SingleQuotedString(text) if !minus => Literal::Text(text),
        Token::Number(digits, _) => Literal::Number(if minus { format!("-{digits}") } else { digits }),
        _ => return Err(wrong),
    };
    Ok(Spanned::new(literal, cursor.since(start)))
}

fn secret(cursor: &mut Cursor<'_>, start: usize) -> Result<Spanned<Literal>> {
    cursor.expect_token(&Token::LParen)?;
    let provider = cursor.string("a secret's provider, 'env' or 'file'")?.value;
    cursor.expect_token(&Token::Comma)?;
    let name = cursor.string("a secret's name in single quotes")?.value;
    cursor.expect_token(&Token::RParen)?;
    Ok(Spanned::new(Literal::Secret { provider, name }, cursor.since(start)))
}
