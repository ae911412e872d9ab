//! Refuses what no parser should be asked to read.
//!
//! The parser recurses over what it reads, and so does everything after it: showing, cloning, comparing, dropping. Only
//! some of that is guarded in the libraries, and a stack that overflows takes the process with it. So the nesting is
//! bounded here, on the tokens, before the recursion begins.

use std::sync::Arc;

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Word};

use super::tokens::{Chunk, is_word};
use crate::diagnostic::{Diagnostic, SourceText, code};

/// The deepest nesting of brackets; people write 10.
const BRACKETS_MAX: usize = 64;

/// The most tokens of one expression: a chain such as `1 + 1 + ..` nests one level a link. Tests show that half of
/// the 8 MiB of stack that the program's threads have holds such a chain, nothing optimised.
const RUN_TOKENS_MAX: usize = 500;

/// The most words in one statement that nest without brackets.
const NESTING_WORDS_MAX: usize = 100;

/// Checks that a statement may be parsed by recursion.
///
/// # Errors
/// At the token where a limit is passed.
pub(super) fn check_depth(source: &Arc<SourceText>, chunk: &Chunk) -> Result<(), Diagnostic> {
    let mut depth = Depth { brackets: 0, angles: 0, words: 0, runs: vec![0] };
    let mut before: Option<&Token> = None;
    for token in &chunk.tokens {
        depth.read(&token.token, before);
        if let Some((message, hint)) = depth.fault() {
            let span = source.range(token.span).unwrap_or(chunk.span.clone());
            return Err(Diagnostic::new(code::TOO_DEEP, source, span, message).with_hint(hint));
        }
        before = Some(&token.token);
    }
    Ok(())
}

/// How deep the statement is at a token.
struct Depth {
    brackets: usize,
    angles: usize,
    words: usize,
    /// Tokens of the current expression, one count for each open bracket.
    runs: Vec<usize>,
}

impl Depth {
    fn read(&mut self, token: &Token, before: Option<&Token>) {
        if let Some(run) = self.runs.last_mut() {
            *run = if ends_expression(token) { 0 } else { *run + 1 };
        }
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                self.brackets += 1;
                self.runs.push(0);
            }
            Token::RParen | Token::RBracket | Token::RBrace => {
                self.brackets = self.brackets.saturating_sub(1);
                if self.runs.len() > 1 {
                    self.runs.pop();
                }
            }
            Token::Lt if before.is_some_and(opens_type) => self.angles += 1,
            Token::Gt => self.angles = self.angles.saturating_sub(1),
            Token::ShiftRight => self.angles = self.angles.saturating_sub(2),
            Token::Word(word) if nests(word, before) => self.words += 1,
            _ => {}
        }
    }

    fn fault(&self) -> Option<(String, &'static str)> {
        if self.runs.last().is_some_and(|run| *run > RUN_TOKENS_MAX) {
            let message = format!("an expression has more than {RUN_TOKENS_MAX} tokens");
            return Some((message, "split it; IN (..) replaces a chain of OR"));
        }
        if self.brackets + self.angles > BRACKETS_MAX {
            let message = format!("the statement is nested more than {BRACKETS_MAX} deep");
            return Some((message, "split it with WITH name AS (..)"));
        }
        let message = || format!("the statement joins more than {NESTING_WORDS_MAX} queries");
        (self.words > NESTING_WORDS_MAX).then(|| (message(), "split it"))
    }
}

/// Tells whether what follows is no further link of an expression before it.
fn ends_expression(token: &Token) -> bool {
    const CLAUSES: [Keyword; 11] = [
        Keyword::SELECT,
        Keyword::FROM,
        Keyword::WHERE,
        Keyword::JOIN,
        Keyword::ON,
        Keyword::WHEN,
        Keyword::THEN,
        Keyword::ELSE,
        Keyword::AS,
        Keyword::GROUP,
        Keyword::HAVING,
    ];
    match token {
        Token::Comma => true,
        Token::Word(word) => word.quote_style.is_none() && CLAUSES.contains(&word.keyword),
        _ => false,
    }
}

fn opens_type(token: &Token) -> bool {
    matches!(token, Token::Word(word) if ["ARRAY", "MAP", "STRUCT", "ROW"].iter().any(|name| is_word(word, name)))
}

/// Tells whether a word opens a level without a bracket.
fn nests(word: &Word, before: Option<&Token>) -> bool {
    match word.keyword {
        Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT | Keyword::MINUS | Keyword::EXPLAIN => true,
        Keyword::INTERVAL => matches!(before, Some(Token::Word(before)) if before.keyword == Keyword::INTERVAL),
        _ => false,
    }
}
