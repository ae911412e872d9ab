//! Cuts a text into tokens and the tokens into statements, and writes what sqlparser does not read as it does.

use std::sync::Arc;

use datafusion::sql::sqlparser::keywords::{Keyword, RESERVED_FOR_TABLE_ALIAS};
use datafusion::sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan, Tokenizer, Word};

use super::dialect::AlluviumDialect;
use super::hints;
use crate::diagnostic::{Diagnostic, SourceText, TextSpan, code};

/// The tokens of one statement, without white space and comments, and its place without the semicolon.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) tokens: Vec<TokenWithSpan>,
    pub(super) span: TextSpan,
}

/// Returns the statements of a text.
///
/// # Errors
/// Where the text cannot be cut into tokens: an open string or comment, a stray character.
pub(super) fn chunks(source: &Arc<SourceText>) -> Result<Vec<Chunk>, Diagnostic> {
    let tokens = Tokenizer::new(&AlluviumDialect, source.readable()).tokenize_with_location().map_err(|error| {
        let start = source.byte(error.location).unwrap_or(source.text().len());
        let first = source.text()[start..].chars().next().map_or(0, char::len_utf8);
        Diagnostic::new(code::TOKEN, source, start..start + first, lowercase_first(&error.message))
            .with_label("begins here")
            .with_hint(hints::of_token(&error.message))
    })?;
    let mut chunks = Vec::new();
    let mut current = Vec::new();
    for token in tokens {
        match token.token {
            Token::Whitespace(_) | Token::EOF => {}
            Token::SemiColon => chunks.extend(chunk(source, std::mem::take(&mut current))),
            _ => current.push(token),
        }
    }
    chunks.extend(chunk(source, current));
    Ok(chunks)
}

fn chunk(source: &SourceText, tokens: Vec<TokenWithSpan>) -> Option<Chunk> {
    let start = source.range(tokens.first()?.span)?.start;
    let end = source.range(tokens.last()?.span)?.end;
    Some(Chunk { tokens, span: start..end })
}

/// Tells whether an unquoted `word` is `name`, in any case.
pub(super) fn is_word(word: &Word, name: &str) -> bool {
    word.quote_style.is_none() && word.value.eq_ignore_ascii_case(name)
}

/// Writes `STREAM(s)` for `STREAM s` and `STRUCT<` for `ROW<`, which sqlparser does not read, and STREAM in capitals, so
/// that the canonical form has one spelling.
pub(super) fn normalized(tokens: &[TokenWithSpan]) -> Vec<TokenWithSpan> {
    let mut written = Vec::with_capacity(tokens.len() + 2);
    for at in 0..tokens.len() {
        let mut token = tokens[at].clone();
        let next = |ahead: usize| tokens.get(at + ahead).map(|token| &token.token);
        if let Token::Word(word) = &mut token.token
            && is_word(word, "ROW")
            && begins_row_type(next(1), next(2), next(3))
        {
            "STRUCT".clone_into(&mut word.value);
            word.keyword = Keyword::STRUCT;
        }
        if let Token::Word(word) = &mut token.token
            && is_word(word, "STREAM")
            && (next(1) == Some(&Token::LParen) || next(1).is_some_and(|next| is_bare_stream(&tokens[..=at], next)))
        {
            word.value.make_ascii_uppercase();
        }
        let is_streamed = is_bare_stream(&tokens[..at], &token.token);
        let end = token.span.end;
        if is_streamed {
            written.push(TokenWithSpan::new(Token::LParen, Span::new(token.span.start, token.span.start)));
        }
        written.push(token);
        if is_streamed {
            written.push(TokenWithSpan::new(Token::RParen, Span::new(end, end)));
        }
    }
    written
}

/// Tells whether `before` ends with `FROM STREAM` or the like, and `token` is the source's name.
fn is_bare_stream(before: &[TokenWithSpan], token: &Token) -> bool {
    let [.., first, second] = before else {
        return false;
    };
    let Token::Word(name) = token else {
        return false;
    };
    let after_relation_word =
        matches!(&first.token, Token::Word(word) if matches!(word.keyword, Keyword::FROM | Keyword::JOIN));
    let is_name = name.quote_style.is_some()
        || (name.keyword != Keyword::AS && !RESERVED_FOR_TABLE_ALIAS.contains(&name.keyword));
    after_relation_word && is_name && matches!(&second.token, Token::Word(word) if is_word(word, "STREAM"))
}

/// Tells `ROW<a INT` from the comparison `row < a AND ..`.
fn begins_row_type(angle: Option<&Token>, field: Option<&Token>, after: Option<&Token>) -> bool {
    const OPERATORS: [Keyword; 9] = [
        Keyword::AND,
        Keyword::OR,
        Keyword::IS,
        Keyword::IN,
        Keyword::LIKE,
        Keyword::BETWEEN,
        Keyword::NOT,
        Keyword::THEN,
        Keyword::AS,
    ];
    let begins_type = match after {
        Some(Token::Word(word)) => !OPERATORS.contains(&word.keyword),
        other => other == Some(&Token::Colon),
    };
    angle == Some(&Token::Lt) && matches!(field, Some(Token::Word(_))) && begins_type
}

/// Returns `text` with a lowercase first letter, as messages of this program begin.
pub(super) fn lowercase_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}
