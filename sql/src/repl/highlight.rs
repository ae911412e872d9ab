//! Colours a line while it is typed.

use reedline::{Color, Highlighter, StyledText};

use super::lex::{Kind, Lexeme, Lexer};
use super::script::{Piece, Script};

/// The words that are coloured and completed as keywords, sorted. DataFusion knows hundreds more, but colouring `name`
/// or `value` as one would mislead in most statements.
pub(super) const KEYWORDS: &[&str] = &[
    "ALL",
    "ANALYZE",
    "AND",
    "ANTI",
    "APPLY",
    "AS",
    "ASC",
    "AUTO",
    "BETWEEN",
    "BIGINT",
    "BOOLEAN",
    "BY",
    "CASE",
    "CAST",
    "CDC",
    "CLUSTER",
    "COLUMNS",
    "COMMENT",
    "CONNECTION",
    "CONSTRAINT",
    "COPY",
    "CREATE",
    "CROSS",
    "DATE",
    "DECIMAL",
    "DELETE",
    "DESC",
    "DESCRIBE",
    "DISTINCT",
    "DOUBLE",
    "DROP",
    "ELSE",
    "END",
    "EXCEPT",
    "EXISTS",
    "EXPECT",
    "EXPLAIN",
    "FALSE",
    "FILTER",
    "FLOW",
    "FOR",
    "FROM",
    "FULL",
    "GROUP",
    "HAVING",
    "HISTORY",
    "IN",
    "INNER",
    "INSERT",
    "INT",
    "INTERSECT",
    "INTERVAL",
    "INTO",
    "IS",
    "JOIN",
    "KEYS",
    "LATERAL",
    "LEFT",
    "LIKE",
    "LIMIT",
    "LOCATION",
    "METADATA",
    "NOT",
    "NULL",
    "NULLS",
    "OF",
    "OFFSET",
    "ON",
    "OPTIMIZE",
    "OR",
    "ORDER",
    "OUTER",
    "OVER",
    "PARTITION",
    "PARTITIONED",
    "PRIMARY",
    "REFRESH",
    "RIGHT",
    "SCD",
    "SELECT",
    "SEMI",
    "SEQUENCE",
    "SET",
    "SHOW",
    "SOURCE",
    "STORED",
    "STREAM",
    "STREAMING",
    "STRING",
    "STRUCT",
    "TABLE",
    "TABLES",
    "TBLPROPERTIES",
    "THEN",
    "TIMESTAMP",
    "TRUE",
    "UNION",
    "UNNEST",
    "USING",
    "VACUUM",
    "VALUES",
    "VERSION",
    "VIEW",
    "WHEN",
    "WHERE",
    "WINDOW",
    "WITH",
];

/// Tells whether `word` is one of [`KEYWORDS`].
pub(super) fn is_keyword(word: &str) -> bool {
    KEYWORDS.binary_search(&word.to_ascii_uppercase().as_str()).is_ok()
}

/// Colours by what a lexeme is; commands in one colour as a whole.
#[derive(Debug)]
pub(super) struct Colours;

impl Highlighter for Colours {
    fn highlight(&self, line: &str, _cursor: usize) -> StyledText {
        let mut styled = StyledText::new();
        let mut at = 0;
        for piece in Script::new(line) {
            let Piece::Command { text, start } = piece else { continue };
            push_sql(&mut styled, &line[at..start]);
            styled.push((Color::Purple.bold(), text.to_owned()));
            at = start + text.len();
        }
        push_sql(&mut styled, &line[at..]);
        styled
    }
}

fn push_sql(styled: &mut StyledText, sql: &str) {
    for lexeme in Lexer::new(sql) {
        let style = match lexeme.kind {
            Kind::Comment => Color::DarkGray.italic(),
            Kind::Text if lexeme.is_closed => Color::Green.normal(),
            Kind::Text => Color::LightGreen.underline(),
            Kind::Number => Color::Yellow.normal(),
            Kind::Quoted => Color::Cyan.normal(),
            Kind::Word if is_coloured(&lexeme) => Color::Blue.bold(),
            Kind::Backslash => Color::Purple.bold(),
            _ => Color::Default.normal(),
        };
        styled.push((style, lexeme.text.to_owned()));
    }
}

fn is_coloured(lexeme: &Lexeme<'_>) -> bool {
    is_keyword(lexeme.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_can_be_searched() {
        assert!(KEYWORDS.is_sorted());
        assert!(is_keyword("select"));
        assert!(!is_keyword("selected"));
    }

    #[test]
    fn highlighting_changes_no_character() {
        for line in ["SELECT 'a', 1 FROM t -- x", "\\d silver.orders\nSELECT 1;", "'open", ""] {
            assert_eq!(Colours.highlight(line, 0).raw_string(), line);
        }
        let styled = Colours.highlight("SELECT a", 0);
        assert_eq!(styled.buffer.first().map(|(style, _)| style.is_bold), Some(true));
    }
}
