//! What to do about a statement that cannot be read: the word that was meant, an example of what is missing, or how the
//! whole statement is written.
//!
//! Pure: it looks at words and messages, and has an answer for each.

use alluvium_catalog::nearest;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::tokens::is_word;

/// What [`expected`](super::cursor::Cursor::expected) calls the end of a statement.
pub(super) const END: &str = "the end of the statement or ';'";

/// How a type is written.
pub(crate) const TYPES: &str = "write a type, such as BIGINT, STRING, DECIMAL(18,2), TIMESTAMP or ARRAY<INT>";

/// Shorter words are near to everything.
const WORD_MIN: usize = 3;

/// What a statement may begin with.
const BEGINNINGS: [&str; 11] =
    ["SELECT", "WITH", "VALUES", "CREATE", "DESCRIBE", "EXPLAIN", "SHOW", "OPTIMIZE", "VACUUM", "DROP", "COPY"];

/// The words that clauses of a query begin with.
const CLAUSES: [&str; 9] = ["FROM", "WHERE", "GROUP", "HAVING", "ORDER", "LIMIT", "JOIN", "UNION", "VERSION"];

/// What can stand behind the columns of a table.
const TABLE_CLAUSES: [&str; 5] = ["PARTITIONED BY", "CLUSTER BY", "LOCATION", "COMMENT", "TBLPROPERTIES"];

const QUERY: &str = "a query is SELECT columns FROM table [WHERE ..] [GROUP BY ..] [ORDER BY ..] [LIMIT n]";
const BEGIN: &str = "a statement begins with SELECT, WITH, CREATE, DESCRIBE, EXPLAIN, SHOW, OPTIMIZE or VACUUM";
const CREATED: &str = "what can be created is a CONNECTION, SOURCE, STREAMING TABLE, FLOW or EXTERNAL TABLE";
const CONNECTION: &str = "write CREATE CONNECTION name TYPE kafka WITH ('bootstrap.servers' = 'host:port')";
const SOURCE: &str = "write CREATE SOURCE name (column TYPE, ..) WITH ('connection' = '..', 'topic' = '..')";
const TABLE: &str = "write CREATE STREAMING TABLE name (column TYPE, .., PRIMARY KEY (column))";
const FLOW: &str = "write CREATE FLOW name AS INSERT INTO table BY NAME SELECT .. FROM STREAM(source)";
const CHANGES: &str = "write AUTO CDC INTO table FROM STREAM(source) KEYS (key) SEQUENCE BY column";
const NAMES: &str = "write names in parentheses, as in (a, b)";
const SECRET: &str = "write secret('env', 'NAME') or secret('file', '/path')";
const COLUMNS: &str = "write COLUMNS * EXCEPT (column), or COLUMNS (column, ..)";
const HOURS: &str = "write RETAIN 168 HOURS";

/// Returns how the statement that begins with `tokens` is written.
pub(super) fn form_of(tokens: &[TokenWithSpan]) -> &'static str {
    let has = |name: &str| tokens.iter().any(|token| matches!(&token.token, Token::Word(word) if is_word(word, name)));
    let is = |at: usize, name: &str| {
        tokens.get(at).is_some_and(|token| matches!(&token.token, Token::Word(word) if is_word(word, name)))
    };
    let begins = |words: &[&str]| words.iter().enumerate().all(|(at, name)| is(at, name));
    let creates = |kind: &str| begins(&["CREATE", kind]) || (begins(&["CREATE", "OR"]) && has(kind));
    match () {
        () if creates("CONNECTION") => CONNECTION,
        () if creates("SOURCE") => SOURCE,
        () if creates("STREAMING") => TABLE,
        () if creates("FLOW") && has("CDC") => CHANGES,
        () if creates("FLOW") => FLOW,
        () if begins(&["CREATE", "EXTERNAL"]) => "write CREATE EXTERNAL TABLE name STORED AS PARQUET LOCATION 'path'",
        () if begins(&["CREATE"]) => CREATED,
        () if begins(&["OPTIMIZE"]) => "write OPTIMIZE table [FULL]",
        () if begins(&["VACUUM"]) => "write VACUUM table [RETAIN n HOURS] [DRY RUN]",
        () if begins(&["DESCRIBE", "HISTORY"]) || begins(&["DESC", "HISTORY"]) => {
            "write DESCRIBE HISTORY table [LIMIT n]"
        }
        () if begins(&["DESCRIBE"]) || begins(&["DESC"]) => "write DESCRIBE table",
        () if begins(&["EXPLAIN", "UPSERT"]) => "write EXPLAIN UPSERT flow",
        () if begins(&["EXPLAIN"]) => "write EXPLAIN query, or EXPLAIN ANALYZE query",
        () if begins(&["SHOW"]) => "write SHOW CONNECTIONS, SHOW SOURCES, SHOW FLOWS, SHOW COMMITS or SHOW TABLES",
        () if begins(&["DROP"]) => "write DROP TABLE name",
        () if begins(&["COPY"]) => "\\o FILE writes answers to a file, in the format that \\format sets",
        () if has("SELECT") || begins(&["VALUES"]) || begins(&["FROM"]) => QUERY,
        () => BEGIN,
    }
}

/// Returns what to do where our grammar expected `what`, in a statement that is written as `form`.
pub(super) fn of_expected(what: &str, form: &'static str) -> &'static str {
    match what {
        "an option's key in single quotes" => "write the key in single quotes, as in 'topic' = 'orders'",
        "a string, a number, true, false or secret('env', 'NAME')" => {
            "write text in single quotes, as in 'localhost:9092'"
        }
        "'='" => "write 'key' = value",
        "a secret's provider, 'env' or 'file'" | "a secret's name in single quotes" => SECRET,
        "a metadata key in single quotes" => {
            "write METADATA FROM 'offset', or 'key', 'topic', 'partition', 'timestamp', 'headers.<name>'"
        }
        "a comment in single quotes" => "write COMMENT 'text'",
        "a location in single quotes" => "write LOCATION 's3://bucket/folder'",
        "a column's name" => "name each column with its type, as in (id BIGINT, name STRING)",
        "a type" | "the end of the type" => TYPES,
        "a whole number of hours" | "HOURS" => HOURS,
        "how many commits" => "write LIMIT 20",
        "EXCEPT" | "(columns) or * EXCEPT (columns)" => COLUMNS,
        "KEYS" => "name the columns that tell rows apart, as in KEYS (order_id)",
        "TYPE" | "the connection's type, kafka" => "write TYPE kafka before WITH",
        "INSERT INTO or AUTO CDC INTO" => {
            "write AS INSERT INTO table BY NAME SELECT .., or AS AUTO CDC INTO table FROM .."
        }
        "a clustering column" => "name the columns, as in CLUSTER BY (customer_id), or write CLUSTER BY NONE",
        "a tag" | "a key column" | "a partition column" | "a column" => NAMES,
        "',' or ')'" => "separate entries by ',' and close the list with ')'",
        "NOT NULL, COMMENT, TAGS, ',' or ')'" => {
            "a type is followed by NOT NULL, COMMENT 'text', TAGS (tag), or ',' and the next column"
        }
        "OR REPLACE or OR REFRESH" => "write CREATE OR REPLACE, or CREATE OR REFRESH STREAMING TABLE",
        "1" => "write STORED AS SCD TYPE 1",
        _ => form,
    }
}

/// Returns what to do about `found`, behind `before`, where a statement that is written as `form` might end.
pub(super) fn of_surplus(found: &Token, before: &Token, form: &'static str) -> String {
    if matches!(found, Token::RParen) {
        return "take the ')' out, or open it with a '(' before it".to_owned();
    }
    if form == TABLE && word_of(found).is_some_and(|word| word.eq_ignore_ascii_case("PRIMARY")) {
        return "write PRIMARY KEY (column) among the columns, within their parentheses".to_owned();
    }
    let of_table = TABLE_CLAUSES.into_iter().filter(|_| form == TABLE);
    if let Some(meant) = word_of(found).and_then(|word| near(word, of_table.chain(CLAUSES))) {
        return format!("did you mean '{meant}'?");
    }
    // A word that nothing knows is read as a name: SELECT a FRM t is a column called FRM, and only then goes wrong.
    if let Some((word, meant)) = word_of(before).and_then(|word| Some((word, near(word, CLAUSES)?))) {
        return format!("did you mean '{meant}' for '{word}'?");
    }
    if form == QUERY { "end the statement before it with ';', or take it out".to_owned() } else { form.to_owned() }
}

/// Returns what to do about `message`, with which sqlparser refuses a statement that is written as `form`.
pub(super) fn of_refusal(message: &str, form: &'static str) -> String {
    let Some((expected, found)) = message.strip_prefix("expected ").and_then(|said| said.rsplit_once(", found "))
    else {
        return form.to_owned();
    };
    if expected == "an SQL statement" {
        return of_beginning(found);
    }
    let words = expected.split([' ', ',']).filter(|word| word.chars().all(|char| char.is_ascii_uppercase()));
    if let Some(meant) = near(found, words).or_else(|| near(found, CLAUSES)) {
        return format!("did you mean '{meant}'?");
    }
    let hint = match (expected, found) {
        ("an expression", ",") => "take the ',' out, or write an expression before it",
        ("an expression", _) => "write a column's name, a literal such as 1 or 'text', or a call such as upper(name)",
        (")", _) => "every '(' needs its ')'",
        (">", _) => "every '<' needs its '>', as in ARRAY<BIGINT>",
        ("]", _) => "every '[' needs its ']'",
        ("a string" | "literal string" | "string literal", _) => "write text in single quotes, as in 'text'",
        ("literal int" | "literal number", _) => "write a number, such as 10",
        ("a data type name" | "a type", _) => TYPES,
        (name, _) if name.contains("identifier") => {
            "write a name; one that is a word of SQL stands in double quotes, as in \"order\""
        }
        (end, _) if end.starts_with("end of statement") => "end the statement before it with ';', or take it out",
        _ => form,
    };
    hint.to_owned()
}

/// Returns what to do about a text that cannot be cut into tokens, of which the tokenizer says `message`.
pub(super) fn of_token(message: &str) -> &'static str {
    let said = message.to_ascii_lowercase();
    match () {
        () if said.contains("comment") => "close the comment with */",
        () if said.contains("dollar") => "close the string with the $ or $tag$ that it begins with",
        () if said.contains("close delimiter") || said.contains("nested delimiter") => {
            "close the name with the quote that it begins with; a quote within it is written twice"
        }
        () if said.contains("string") || said.contains("quote") => {
            "close the string with '; a quote within it is written ''"
        }
        () => "take the character out, or write it within quotes",
    }
}

/// Returns what can be created in the place of `found`.
pub(super) fn of_created(found: &str) -> String {
    const KINDS: [(&str, &str); 6] = [
        ("CONNECTION", "CONNECTION"),
        ("SOURCE", "SOURCE"),
        ("FLOW", "FLOW"),
        ("STREAMING", "STREAMING TABLE"),
        ("TABLE", "STREAMING TABLE"),
        ("EXTERNAL", "EXTERNAL TABLE"),
    ];
    let meant = near(found, KINDS.iter().map(|(word, _)| *word));
    let kind = KINDS.iter().find(|(word, _)| Some(*word) == meant).map(|(_, kind)| *kind);
    kind.map_or(CREATED.to_owned(), |kind| format!("did you mean '{kind}'?"))
}

fn of_beginning(found: &str) -> String {
    near(found, BEGINNINGS).map_or(BEGIN.to_owned(), |meant| format!("did you mean '{meant}'?"))
}

fn word_of(token: &Token) -> Option<&str> {
    match token {
        Token::Word(word) if word.quote_style.is_none() => Some(&word.value),
        _ => None,
    }
}

/// Returns the one of `valid` that a misspelt `word` means; nothing for a word that is one of them.
fn near<'a>(word: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let is_word = word.len() >= WORD_MIN && word.chars().all(|char| char.is_ascii_alphabetic() || char == '_');
    let meant = if is_word { nearest(word, valid) } else { None };
    meant.filter(|meant| !meant.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_right_or_too_short_is_taken_for_no_other() {
        assert_eq!(near("FORM", CLAUSES), Some("FROM"));
        for word in ["from", "ORDER", "a", "fr", "silver", "'from'", "\u{1f600}\u{1f600}\u{1f600}"] {
            assert_eq!(near(word, CLAUSES), None, "{word}");
        }
    }

    #[test]
    fn a_clause_of_a_table_is_told_how_it_is_spelt() {
        let hint = |found: &str, form| of_surplus(&Token::make_word(found, None), &Token::RParen, form);
        for (found, meant) in [
            ("PARTITION", "PARTITIONED BY"),
            ("partioned", "PARTITIONED BY"),
            ("CLUSTERED", "CLUSTER BY"),
            ("LOCATON", "LOCATION"),
            ("COMENT", "COMMENT"),
            ("TBLPROPERTY", "TBLPROPERTIES"),
        ] {
            assert_eq!(hint(found, TABLE), format!("did you mean '{meant}'?"), "{found}");
            assert_ne!(hint(found, QUERY), format!("did you mean '{meant}'?"), "{found}");
        }
        assert!(hint("PRIMARY", TABLE).starts_with("write PRIMARY KEY (column) among the columns"));
        assert_eq!(hint("ZEBRA", TABLE), TABLE);
    }

    #[test]
    fn what_is_open_is_closed_by_what_it_was_opened_with() {
        for (said, close) in [
            ("Unterminated string literal", "'"),
            ("Unexpected EOF while in a multi-line comment", "*/"),
            ("Unterminated dollar-quoted string", "$"),
            ("Expected close delimiter '\"' before EOF.", "quote that it begins with"),
        ] {
            assert!(of_token(said).starts_with("close ") && of_token(said).contains(close), "{said}");
        }
    }
}
