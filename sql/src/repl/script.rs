//! Splits a script into statements and backslash commands.
//!
//! It comes before the parser and runs lazily, so that a script whose second half is broken still runs its first half
//! and a statement typed into a pipe runs as soon as its `;` arrives.

use super::lex::{Kind, Lexeme, Lexer};
use crate::diagnostic::BYTE_ORDER_MARK;

/// A part of a script, with the byte it begins at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// A statement without its terminator.
    Statement {
        /// The statement.
        text: &'a str,
        /// Where it begins.
        start: usize,
        /// Whether it ended with `\G`: show the rows expanded.
        is_expanded: bool,
    },
    /// A command without its line's end.
    Command {
        /// The command.
        text: &'a str,
        /// Where it begins.
        start: usize,
    },
    /// A statement that a command follows before it has ended: it is not run.
    Broken {
        /// The beginning of the statement.
        text: &'a str,
        /// Where it begins.
        start: usize,
    },
    /// What is left: a statement that does not end.
    Rest {
        /// The beginning of the statement.
        text: &'a str,
        /// Where it begins.
        start: usize,
    },
}

/// Walks over a script piece by piece. Comments between pieces are skipped.
#[derive(Debug, Clone)]
pub(super) struct Script<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Script<'a> {
    /// Returns a walk over `text`. A byte order mark at its beginning is no part of the first piece.
    pub(super) fn new(text: &'a str) -> Self {
        let at = if text.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len_utf8() } else { 0 };
        Self { text, at }
    }

    /// Returns the byte that the next piece is looked for at.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    fn command(&mut self, start: usize) -> Option<Piece<'a>> {
        let line = self.text[start..].lines().next()?;
        if !is_command(line) {
            return None;
        }
        self.at = start + line.len();
        Some(Piece::Command { text: line.trim_end(), start })
    }

    fn statement(&mut self, start: usize) -> Piece<'a> {
        let mut begins_line = false;
        for lexeme in Lexer::from(self.text, start) {
            if begins_line && lexeme.kind == Kind::Backslash && !matches!(lexeme.text, r"\G" | r"\g") {
                self.at = lexeme.start;
                return Piece::Broken { text: self.text[start..lexeme.start].trim_end(), start };
            }
            let is_break = lexeme.kind == Kind::Space && lexeme.text.contains('\n');
            begins_line = is_break || (begins_line && lexeme.kind == Kind::Space);
            let is_expanded = lexeme.kind == Kind::Backslash && lexeme.text == r"\G";
            if lexeme.kind == Kind::Semicolon || is_expanded || lexeme.text == r"\g" {
                self.at = lexeme.end();
                return Piece::Statement { text: self.text[start..lexeme.start].trim_end(), start, is_expanded };
            }
        }
        self.at = self.text.len();
        Piece::Rest { text: self.text[start..].trim_end(), start }
    }
}

impl<'a> Iterator for Script<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        let says_nothing = |lexeme: &Lexeme<'_>| {
            let is_open_comment = lexeme.kind == Kind::Comment && !lexeme.is_closed;
            (lexeme.is_blank() && !is_open_comment) || lexeme.kind == Kind::Semicolon
        };
        let start = Lexer::from(self.text, self.at).find(|lexeme| !says_nothing(lexeme)).map(|lexeme| lexeme.start)?;
        self.command(start).or_else(|| Some(self.statement(start)))
    }
}

/// Tells whether nothing in `text` waits for more.
pub(super) fn is_complete(text: &str) -> bool {
    !Script::new(text).any(|piece| matches!(piece, Piece::Rest { .. }))
}

/// Tells whether a line at the start of a statement is a command: `\d`, `.tables`, or one of psql's bare words.
fn is_command(line: &str) -> bool {
    let mut chars = line.chars();
    match chars.next() {
        Some('\\') => true,
        Some('.') => chars.next().is_some_and(char::is_alphabetic),
        _ => {
            let word = line.trim_end().trim_end_matches(';').trim_end();
            ["quit", "exit", "help"].iter().any(|bare| word.eq_ignore_ascii_case(bare))
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

    use super::*;
    use crate::diagnostic::SourceText;
    use crate::parser::AlluviumDialect;

    fn check(script: &str, expected: &[&str]) {
        let pieces: Vec<String> = Script::new(script)
            .map(|piece| match piece {
                Piece::Statement { text, start, is_expanded: false } => format!("{start} {text}"),
                Piece::Statement { text, start, is_expanded: true } => format!("{start} expanded {text}"),
                Piece::Command { text, start } => format!("{start} command {text}"),
                Piece::Broken { text, start } => format!("{start} broken {text}"),
                Piece::Rest { text, start } => format!("{start} rest {text}"),
            })
            .collect();
        assert_eq!(pieces, expected, "{script:?}");
    }

    #[test]
    fn statements_end_at_semicolons_outside_quotes_and_comments() {
        check("SELECT 1; SELECT 2;", &["0 SELECT 1", "10 SELECT 2"]);
        check("SELECT ';' ;", &["0 SELECT ';'"]);
        check("SELECT 1 -- not; here\n;", &["0 SELECT 1 -- not; here"]);
        check("SELECT 'a\n;\nb';", &["0 SELECT 'a\n;\nb'"]);
        check("/* a; */ SELECT 1;", &["9 SELECT 1"]);
        check("-- only a comment", &[]);
        check(" ; ;; \n", &[]);
        check("SELECT 1\\G\nSELECT 2\\g", &["0 expanded SELECT 1", "11 SELECT 2"]);
    }

    #[test]
    fn commands_take_their_line_where_a_statement_would_begin() {
        check("\\d silver.orders\nSELECT 1;", &["0 command \\d silver.orders", "17 SELECT 1"]);
        check("SELECT 1; \\x on", &["0 SELECT 1", "10 command \\x on"]);
        check("-- then\n.tables\nquit ;\nEXIT", &["8 command .tables", "16 command quit ;", "23 command EXIT"]);
        check("SELECT\n.5;", &["0 SELECT\n.5"]);
        check("\\o it's.csv\nSELECT 1;", &["0 command \\o it's.csv", "12 SELECT 1"]);
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_what_follows_it() {
        check("\u{feff}\\d t\nSELECT 1;", &["3 command \\d t", "8 SELECT 1"]);
        check("\u{feff}.tables", &["3 command .tables"]);
        check("\u{feff}quit;", &["3 command quit;"]);
        check("\u{feff}SELECT 1;", &["3 SELECT 1"]);
        check("\u{feff}", &[]);
    }

    #[test]
    fn a_command_on_a_line_of_its_own_ends_no_statement_and_is_none_of_it() {
        check("SELECT 1\n\\q", &["0 broken SELECT 1", "9 command \\q"]);
        check("SELECT 1 -- one\n  \\d t\nSELECT 2;", &["0 broken SELECT 1 -- one", "18 command \\d t", "23 SELECT 2"]);
        check("SELECT 1 /* a\n */ \\x\n;", &["0 SELECT 1 /* a\n */ \\x"]);
        check("SELECT 1\n\\G", &["0 expanded SELECT 1"]);
        check("SELECT '\n\\q';", &["0 SELECT '\n\\q'"]);
        assert!(is_complete("SELECT 1\n\\q"));
    }

    #[test]
    fn what_does_not_end_is_the_rest() {
        check("SELECT 1; SELECT 'a;", &["0 SELECT 1", "10 rest SELECT 'a;"]);
        check("SELECT /* ;", &["0 rest SELECT /* ;"]);
        check("/* open", &["0 rest /* open"]);
        assert!(is_complete("SELECT 1;"));
        assert!(is_complete("\\d"));
        assert!(is_complete(" \n"));
        assert!(!is_complete("SELECT 1; SELECT"));
    }

    /// Compares where the two see semicolons, up to where the real one gives up.
    fn check_semicolons(text: &str) {
        let source = SourceText::new("script", text);
        let mut tokens = Vec::new();
        let outcome = Tokenizer::new(&AlluviumDialect, text).tokenize_with_location_into_buf(&mut tokens);
        let semicolons = tokens.iter().filter(|token| token.token == Token::SemiColon);
        let expected: Vec<_> = semicolons.map(|token| source.byte(token.span.start)).collect();
        let lexemes = Lexer::new(text).filter(|lexeme| lexeme.kind == Kind::Semicolon);
        let mut seen: Vec<_> = lexemes.map(|lexeme| Some(lexeme.start)).collect();
        if outcome.is_err() {
            seen.truncate(expected.len());
        }
        assert_eq!(seen, expected, "{text:?}");
    }

    #[test]
    fn an_integer_division_begins_no_comment() {
        check_semicolons("//*'';");
        check("SELECT 7 //* 2; SELECT 1;", &["0 SELECT 7 //* 2", "16 SELECT 1"]);
    }

    #[test]
    fn a_comment_is_a_comment_even_with_an_exclamation_mark() {
        check_semicolons("/*!50110 ; */ ;");
        check("SELECT /*! 1; */ 2;", &["0 SELECT /*! 1; */ 2"]);
    }

    /// What begins, ends or joins tokens, and a few that do neither.
    const PIECES: &[&str] = &[
        ";",
        ";",
        ";",
        "'",
        "'",
        "\"",
        "`",
        "\\",
        "\n",
        " ",
        "\t",
        "\r",
        "/",
        "*",
        "/*",
        "*/",
        "/*!",
        "-",
        "--",
        "e'",
        "E'",
        "x'",
        "X'",
        "b'",
        "B\"",
        "n'",
        "r'",
        "R\"",
        "r'''",
        "'''",
        "\"\"\"",
        "q'",
        "q'[",
        "]'",
        "nQ'!",
        "!'",
        "Q'\u{e9}",
        "\u{e9}'",
        "u&'",
        "$",
        "$$",
        "$a$",
        "$1",
        "#",
        "@",
        "@@",
        "<",
        ">",
        "^",
        "|",
        "&",
        "!",
        "~",
        "?",
        "=",
        "%",
        ":",
        "+",
        ".",
        ",",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "0",
        "0x",
        "1",
        "9",
        "e",
        "E",
        "L",
        "a",
        "q",
        "x",
        "_",
        "\u{e9}",
        "\u{663}",
        "\u{b2}",
        "\u{1f600}",
    ];

    proptest::proptest! {
        #[test]
        fn statements_end_where_the_real_tokenizer_sees_semicolons(text in "[ab'\"$;*/\\- \n]{0,40}") {
            check_semicolons(&text);
        }

        #[test]
        fn statements_end_alike_after_all_that_the_tokenizer_knows(
            pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..24)
        ) {
            check_semicolons(&pieces.concat());
        }
    }
}
