//! A place in a statement's tokens: what our own productions ask, over DataFusion's parser.
//!
//! Expressions, queries, types and names are read by sqlparser; words are compared by their text, because most of the
//! dialect's are no keywords there. Every error is a [`Diagnostic`] with a place.

use std::sync::Arc;

use alluvium_catalog::nearest;
use datafusion::error::DataFusionError;
use datafusion::sql::parser::{DFParser, DFParserBuilder};
use datafusion::sql::sqlparser::ast::{DataType, Expr, Ident, ObjectName, Query};
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan};

use super::depth::check_depth;
use super::dialect::AlluviumDialect;
use super::hints;
use super::tokens::{Chunk, is_word, lowercase_first, normalized};
use crate::diagnostic::{Diagnostic, SourceText, TextSpan, code};
use crate::statement::Spanned;

pub(super) type Result<T, E = Diagnostic> = std::result::Result<T, E>;

/// A reader of one statement.
pub(super) struct Cursor<'a> {
    parser: DFParser<'static>,
    source: &'a Arc<SourceText>,
    /// The statement's place.
    span: TextSpan,
    /// How the statement is written.
    form: &'static str,
}

impl<'a> Cursor<'a> {
    /// Returns a cursor at the first token of `chunk`.
    ///
    /// # Errors
    /// Where the statement is nested too deeply.
    pub(super) fn new(source: &'a Arc<SourceText>, chunk: Chunk) -> Result<Self> {
        check_depth(source, &chunk)?;
        let form = hints::form_of(&chunk.tokens);
        let parser = DFParserBuilder::new(normalized(&chunk.tokens)).with_dialect(&AlluviumDialect).build();
        let parser = parser.map_err(|error| {
            Diagnostic::new(code::SYNTAX, source, chunk.span.clone(), error.strip_backtrace()).with_hint(form)
        })?;
        Ok(Self { parser, source, span: chunk.span, form })
    }

    /// Returns the byte at which the next token begins.
    pub(super) fn start(&self) -> usize {
        self.source.range(self.parser.parser.peek_token_ref().span).map_or(self.span.end, |span| span.start)
    }

    /// Returns the place from `start` to the end of the last token read.
    pub(super) fn since(&self, start: usize) -> TextSpan {
        let last = self.source.range(self.parser.parser.get_current_token().span);
        start..last.map_or(self.span.end, |span| span.end).max(start)
    }

    /// Returns the place of the next token.
    pub(super) fn next_span(&self) -> TextSpan {
        self.source.range(self.parser.parser.peek_token_ref().span).unwrap_or(self.span.end..self.span.end)
    }

    /// Tells whether the next tokens are these unquoted words.
    pub(super) fn at(&self, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(ahead, word)| self.at_word(ahead, word))
    }

    /// Tells whether the token `ahead` of the next is this unquoted word.
    pub(super) fn at_word(&self, ahead: usize, name: &str) -> bool {
        matches!(&self.parser.parser.peek_nth_token_ref(ahead).token, Token::Word(word) if is_word(word, name))
    }

    /// Returns the unquoted word that the token `ahead` of the next is.
    pub(super) fn bare_word(&self, ahead: usize) -> Option<String> {
        match &self.parser.parser.peek_nth_token_ref(ahead).token {
            Token::Word(word) if word.quote_style.is_none() => Some(word.value.clone()),
            _ => None,
        }
    }

    /// Tells whether the token `ahead` of the next is a name or word.
    pub(super) fn at_any_word(&self, ahead: usize) -> bool {
        matches!(self.parser.parser.peek_nth_token_ref(ahead).token, Token::Word(_))
    }

    /// Tells whether the next token is this one.
    pub(super) fn at_token(&self, token: &Token) -> bool {
        self.parser.parser.peek_token_ref().token == *token
    }

    /// Tells whether the statement is read.
    pub(super) fn at_end(&self) -> bool {
        self.at_token(&Token::EOF)
    }

    /// Reads these words if they come next.
    pub(super) fn accept(&mut self, words: &[&str]) -> bool {
        let comes = self.at(words);
        if comes {
            words.iter().for_each(|_| self.advance());
        }
        comes
    }

    /// Reads a token if it comes next.
    pub(super) fn accept_token(&mut self, token: &Token) -> bool {
        self.parser.parser.consume_token(token)
    }

    /// Reads these words, or returns the error at the first that is another.
    pub(super) fn expect(&mut self, words: &[&str]) -> Result<()> {
        for word in words {
            if !self.accept(&[*word]) {
                return Err(self.expected(word));
            }
        }
        Ok(())
    }

    /// Reads these words if the first of them comes next, behind which nothing but the others can stand.
    pub(super) fn begin(&mut self, words: &[&str]) -> Result<bool> {
        let begins = words.first().is_some_and(|word| self.at_word(0, word));
        if begins {
            self.expect(words)?;
        }
        Ok(begins)
    }

    /// Reads a token.
    pub(super) fn expect_token(&mut self, token: &Token) -> Result<()> {
        if self.accept_token(token) {
            return Ok(());
        }
        Err(self.expected(&format!("'{token}'")))
    }

    /// Returns the error that something else than `what` comes next. The hint is a word of the grammar in `what` that is
    /// near, an example of it, or how the statement is written.
    pub(super) fn expected(&self, what: &str) -> Diagnostic {
        let found = self.parser.parser.peek_token_ref();
        let (shown, meant) = match &found.token {
            Token::EOF => ("the end of the statement".to_owned(), None),
            Token::Word(word) if word.quote_style.is_none() => {
                (format!("'{word}'"), nearest(&word.value, grammar(what)))
            }
            token => (format!("'{token}'"), None),
        };
        let hint = match meant {
            Some(meant) => format!("did you mean '{meant}'?"),
            None if what == hints::END => {
                hints::of_surplus(&found.token, &self.parser.parser.get_current_token().token, self.form)
            }
            None => hints::of_expected(what, self.form).to_owned(),
        };
        self.error(code::SYNTAX, format!("expected {what}, found {shown}")).with_hint(hint)
    }

    /// Returns an error at the next token.
    pub(super) fn error(&self, code: &'static str, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(code, self.source, self.next_span(), message)
    }

    /// Returns an error at `span`.
    pub(super) fn error_at(&self, code: &'static str, span: TextSpan, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(code, self.source, span, message)
    }

    /// Returns the error that `what`, which begins with the next token, belongs to the grammar but not to this version;
    /// `instead` says what does.
    pub(super) fn unsupported(&self, what: &str, instead: &str) -> Diagnostic {
        self.error(code::UNSUPPORTED, format!("{what} is not supported yet")).with_hint(instead)
    }

    /// Reads a name.
    pub(super) fn ident(&mut self, what: &str) -> Result<Ident> {
        if !self.at_any_word(0) {
            return Err(self.expected(what));
        }
        self.parser.parser.parse_identifier().map_err(|error| self.refused(&error))
    }

    /// Reads a name with perhaps a schema before it.
    pub(super) fn object_name(&mut self, what: &str) -> Result<ObjectName> {
        if !self.at_any_word(0) {
            return Err(self.expected(what));
        }
        self.parser.parser.parse_object_name(false).map_err(|error| self.refused(&error))
    }

    /// Reads a string.
    pub(super) fn string(&mut self, what: &str) -> Result<Spanned<String>> {
        let span = self.next_span();
        match &self.parser.parser.peek_token_ref().token {
            Token::SingleQuotedString(text) => {
                let text = text.clone();
                self.advance();
                Ok(Spanned::new(text, span))
            }
            _ => Err(self.expected(what)),
        }
    }

    /// Returns the next token and reads it.
    pub(super) fn take(&mut self) -> TokenWithSpan {
        self.parser.parser.next_token()
    }

    /// Reads an expression.
    pub(super) fn expr(&mut self) -> Result<Spanned<Expr>> {
        let start = self.start();
        let expr = self.parser.parser.parse_expr().map_err(|error| self.refused(&error))?;
        Ok(Spanned::new(expr, self.since(start)))
    }

    /// Reads a query.
    pub(super) fn query(&mut self) -> Result<Spanned<Box<Query>>> {
        let start = self.start();
        let query = self.parser.parser.parse_query().map_err(|error| self.refused(&error))?;
        Ok(Spanned::new(query, self.since(start)))
    }

    /// Reads a type.
    pub(super) fn data_type(&mut self) -> Result<Spanned<DataType>> {
        let start = self.start();
        if !self.at_any_word(0) {
            return Err(self.expected("a type"));
        }
        let data_type = self.parser.parser.parse_data_type().map_err(|error| self.refused(&error))?;
        Ok(Spanned::new(data_type, self.since(start)))
    }

    /// Reads a whole statement of DataFusion's.
    pub(super) fn sql(&mut self) -> Result<datafusion::sql::parser::Statement> {
        self.parser.parse_statement().map_err(|error| match datafusion_cause(&error) {
            Some(parser_error) => self.refused(parser_error),
            None => {
                let message = lowercase_first(&error.strip_backtrace());
                self.error_at(code::SYNTAX, self.current_span(), message).with_hint(self.form)
            }
        })
    }

    /// Reads `( item, .. )`, with at least one item.
    pub(super) fn parenthesized<T>(&mut self, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        self.expect_token(&Token::LParen)?;
        let mut items = Vec::new();
        loop {
            items.push(item(self)?);
            if self.accept_token(&Token::RParen) {
                return Ok(items);
            }
            if !self.accept_token(&Token::Comma) {
                return Err(self.expected("',' or ')'"));
            }
        }
    }

    /// Reads `( name, .. )`.
    pub(super) fn names(&mut self, what: &str) -> Result<Spanned<Vec<Ident>>> {
        let start = self.start();
        if let Some(bare) = self.bare_word(0) {
            return Err(self.expected("'('").with_hint(format!("write ({bare})")));
        }
        let names = self.parenthesized(|cursor| cursor.ident(what))?;
        Ok(Spanned::new(names, self.since(start)))
    }

    /// Reads a number without sign and fraction.
    pub(super) fn count(&mut self, what: &str) -> Result<u64> {
        match &self.parser.parser.peek_token_ref().token {
            Token::Number(digits, _) => match digits.parse() {
                Ok(count) => {
                    self.advance();
                    Ok(count)
                }
                Err(_) => Err(self.expected(what)),
            },
            _ => Err(self.expected(what)),
        }
    }

    fn advance(&mut self) {
        self.parser.parser.advance_token();
    }

    fn current_span(&self) -> TextSpan {
        self.source.range(self.parser.parser.get_current_token().span).unwrap_or(self.span.end..self.span.end)
    }

    /// Returns sqlparser's error with its place, which it tells at the end of its message or not at all.
    fn refused(&self, error: &ParserError) -> Diagnostic {
        let text = match error {
            ParserError::TokenizerError(text) | ParserError::ParserError(text) => text.as_str(),
            ParserError::RecursionLimitExceeded => {
                return self
                    .error_at(code::TOO_DEEP, self.current_span(), "the statement is nested too deeply")
                    .with_hint("split it with WITH name AS (..)");
            }
        };
        let (message, location) = split_location(text);
        let span = match location.and_then(|location| self.source.byte(location)) {
            Some(start) => self.token_at(start),
            None if message.contains("found: EOF") => self.span.end..self.span.end,
            None => self.current_span(),
        };
        let message =
            message.replace("Expected: ", "expected ").replace(", found: EOF", ", found the end of the statement");
        let message = lowercase_first(&message.replace(", found: ", ", found "));
        let hint = hints::of_refusal(&message, self.form);
        Diagnostic::new(code::SYNTAX, self.source, span, message).with_hint(hint)
    }

    /// Returns the place of the token that begins at `start`: the current one, the next, or one character.
    fn token_at(&self, start: usize) -> TextSpan {
        let near = [self.current_span(), self.next_span()];
        let first = self.source.text().get(start..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
        near.into_iter().find(|span| span.start == start).unwrap_or(start..start + first)
    }
}

/// Returns the words of the grammar among the choices that `what` lists: they are in capitals.
fn grammar(what: &str) -> impl Iterator<Item = &str> {
    let choices = what.split(", ").flat_map(|choices| choices.split(" or "));
    choices.filter(|choice| choice.chars().all(|char| char.is_ascii_uppercase() || char == ' '))
}

fn datafusion_cause(error: &DataFusionError) -> Option<&ParserError> {
    match error.find_root() {
        DataFusionError::SQL(parser_error, _) => Some(parser_error),
        _ => None,
    }
}

/// Splits ` at Line: 3, Column: 9` off a message of sqlparser's.
fn split_location(text: &str) -> (&str, Option<Location>) {
    let Some((message, place)) = text.rsplit_once(" at Line: ") else {
        return (text, None);
    };
    let numbers =
        place.split_once(", Column: ").and_then(|(line, column)| Some((line.parse().ok()?, column.parse().ok()?)));
    match numbers {
        Some((line, column)) => (message, Some(Location { line, column })),
        None => (text, None),
    }
}
