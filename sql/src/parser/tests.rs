//! Tests of the grammar: what is read, what is refused and how, and that no text brings the parser down.

use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{self, TableFactor, Visit, Visitor};
use proptest::prelude::*;

use super::*;
use crate::statement::ColumnChoice;
use crate::statement::FlowAction;

const EXAMPLE: &str = include_str!("../../examples/orders.sql");

fn only(text: &str) -> Result<Statement, Diagnostics> {
    let mut statements = parse_statements(text)?;
    assert_eq!(statements.len(), 1, "{text}");
    statements.pop().map(|statement| statement.value).ok_or_else(|| Diagnostics(Vec::new()))
}

fn refused(texts: &[&str]) -> String {
    let render = |text: &&str| match parse_file(&Arc::new(SourceText::new("orders.sql", *text))) {
        Ok(statements) => format!("taken: {statements:?}\n"),
        Err(diagnostics) => diagnostics.render(false),
    };
    texts.iter().map(render).collect()
}

#[test]
fn slips_in_our_grammar_are_shown_at_their_place() {
    let shown = refused(&[
        "CREATE CONNECTION shop WITH ('bootstrap.servers' = 'a:1')",
        "CREATE CONNECTION shop TYPE kafka WITH (bootstrap.servers = 'a:1')",
        "CREATE CONNECTION shop TYPE kafka WITH ('bootstrap.servers' = localhost)",
        "CREATE CONNECTION shop TYPE kafka WITH ('a' = 'b', 'a' = 'c')",
        "CREATE SOURCE s (id BIGINT NOT NULL METADATA FROM offset) WITH ('topic' = 't')",
        "CREATE SOURCE s (id BIGINT PRIMARY KEY) WITH ('topic' = 't')",
        "CREATE SOURCE s (id BIGINT NOTNULL) WITH ('topic' = 't')",
        "CREATE SOURCE s (id BIGINT, PRIMARY KEY (id)) WITH ('topic' = 't')",
        "CREATE SOURCE s (id ARRAY<BIGINT) WITH ('topic' = 't')",
        "CREATE SOURCE s ()",
        "CREATE OR REPLACE STREAMING TABLE t (id BIGINT)",
        "CREATE OR REFRESH SOURCE s (id BIGINT) WITH ('topic' = 't')",
        "CREATE STREAMING TABLE t (id BIGINT) WITH ('a' = 'b')",
        "CREATE STREAMING TABLE t (id BIGINT) USING DELTA",
        "CREATE STREAMING TABLE t (id BIGINT) COMMENT 'a' COMMENT 'b'",
        "CREATE STREAMING TABLE t (id BIGINT, PRIMARY KEY (id), PRIMARY KEY (id))",
        "CREATE FLOW f AS INSERT INTO t SELECT 1",
        "CREATE FLOW f AS SELECT 1",
        "CREATE FLOW f AS AUTO CDC INTO t FROM s KEYS (id) SEQUENCE BY a",
        "CREATE FLOW f AS AUTO CDC INTO t FROM STREAM(s) SEQUENCE BY a",
        "CREATE FLOW f AS AUTO CDC INTO t FROM STREAM(s) KEYS (id) SEQUENCE BY a STORED AS SCD TYPE 3",
        "CREATE FLOW f AS AUTO CDC INTO t FROM STREAM(s) KEYS (id) SEQUENCE BY a COLUMNS *",
        "CREATE FLOW f AS AUTO CDC INTO t FROM STREAM(s) KEYS (id) SEQUENCE BY a SEQUENCE BY b",
        "CREATE STREAMING TABLE t (id BIGINT) CLUSTER BY (id) CLUSTER BY NONE",
        "CREATE STREAMING TABLE t (id BIGINT) CLUSTER BY id",
        "CREATE STREAMING TABLE t (id BIGINT) CLUSTER BY ()",
        "OPTIMIZE",
        "OPTIMIZE t ZORDER BY (id)",
        "OPTIMIZE t FULL 7",
        "VACUUM t RETAIN a week",
        "VACUUM t RETAIN 168 DAYS",
        "VACUUM t RETAIN -1 HOURS",
        "VACUUM t DRY",
        "DESCRIBE HISTORY t LIMIT many",
        "SHOW COMMITS FOR",
    ]);
    insta::assert_snapshot!(shown);
}

#[test]
fn a_misspelt_word_is_pointed_at_with_the_word_that_was_meant() {
    for (text, place, message, hint) in [
        ("CREATE STREAMING TABEL t (id BIGINT)", "1:18", "expected TABLE, found 'TABEL'", "TABLE"),
        ("CREATE SOURCE s (a INT NOT NUL) WITH ()", "1:28", "expected NULL, found 'NUL'", "NULL"),
        ("CREATE CONNECTION c TIPE kafka WITH ()", "1:21", "expected TYPE, found 'TIPE'", "TYPE"),
        ("CREATE FLOW f AS INSERT INOT t BY NAME SELECT 1", "1:25", "expected INTO, found 'INOT'", "INTO"),
        ("CREATE FLOW f AS AUTO CDC INTO t FROM STREAM(s) KEY (a)", "1:49", "expected KEYS, found 'KEY'", "KEYS"),
        (
            "CREATE FLOW f AS AUTO CDC INTO t FROM STREAM(s) KEYS (a) APPLY AS DELET WHEN b",
            "1:67",
            "expected DELETE, found 'DELET'",
            "DELETE",
        ),
    ] {
        let errors = parse_statements(text).err().map(|Diagnostics(errors)| errors).unwrap_or_default();
        let said: Vec<_> = errors
            .iter()
            .map(|error| (error.position().to_string(), error.message.clone(), error.hint.clone()))
            .collect();
        let hint = Some(format!("did you mean '{hint}'?"));
        assert_eq!(said, [(place.to_owned(), message.to_owned(), hint)], "{text}");
    }
}

#[test]
fn what_nobody_can_create_is_pointed_at_with_the_kind_that_was_meant() {
    for (text, place, word, meant) in [
        ("CREATE SORCE x (id INT) WITH ()", "1:8", "SORCE", "SOURCE"),
        ("CREATE FLWO f AS INSERT INTO t BY NAME SELECT 1", "1:8", "FLWO", "FLOW"),
        ("CREATE STREMING TABLE t (id INT)", "1:8", "STREMING", "STREAMING TABLE"),
        ("CREATE TABEL t (id INT)", "1:8", "TABEL", "STREAMING TABLE"),
        ("create conection c TYPE kafka WITH ()", "1:8", "conection", "CONNECTION"),
        ("CREATE OR REPLACE SUORCE s (id INT) WITH ()", "1:19", "SUORCE", "SOURCE"),
        ("CREATE OR REFRESH\n  STREAMNG TABLE t", "2:3", "STREAMNG", "STREAMING TABLE"),
    ] {
        let errors = parse_statements(text).err().map(|Diagnostics(errors)| errors).unwrap_or_default();
        let said: Vec<_> = errors
            .iter()
            .map(|error| (error.position().to_string(), error.message.clone(), error.hint.clone()))
            .collect();
        let (message, hint) = (format!("there is no CREATE {word}"), format!("did you mean '{meant}'?"));
        assert_eq!(said, [(place.to_owned(), message, Some(hint))], "{text}");
    }
    let errors = parse_statements("CREATE ZEBRA z").err().map(|Diagnostics(errors)| errors).unwrap_or_default();
    let hints: Vec<_> = errors.into_iter().filter_map(|error| error.hint).collect();
    assert!(hints.len() == 1 && hints[0].contains("STREAMING TABLE"), "{hints:?}");
    // What DataFusion's parser reads is left to it, and to the session to refuse.
    for theirs in ["CREATE TABLE t (id INT)", "CREATE VIEW v AS SELECT 1", "CREATE OR REPLACE VIEW v AS SELECT 1"] {
        assert!(parse_statements(theirs).is_ok(), "{theirs}");
    }
}

#[test]
fn a_clause_that_is_misspelt_behind_the_columns_of_a_table_is_pointed_at_with_the_one_that_was_meant() {
    for (clause, meant) in [
        ("PARTITION BY (day)", "did you mean 'PARTITIONED BY'?"),
        ("CLUSTERED BY (day)", "did you mean 'CLUSTER BY'?"),
        ("LOCATON 's3://lake/t'", "did you mean 'LOCATION'?"),
        ("PRIMARY KEY (id)", "write PRIMARY KEY (column) among the columns, within their parentheses"),
    ] {
        let text = format!("CREATE STREAMING TABLE t (id BIGINT, day DATE) {clause}");
        let errors = parse_statements(&text).err().map(|Diagnostics(errors)| errors).unwrap_or_default();
        let said: Vec<_> = errors.iter().map(|error| (error.position().to_string(), error.hint.as_deref())).collect();
        assert_eq!(said, [("1:48".to_owned(), Some(meant))], "{text}");
    }
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_text() -> Result<(), Diagnostics> {
    assert_eq!(only("\u{feff}SELECT 1 AS one")?, only("SELECT 1 AS one")?);
    assert!(parse_statements("\u{feff}")?.is_empty());
    let source =
        Arc::new(SourceText::new("orders.sql", "\u{feff}CREATE FLOW f AS SELECT 1;\nCREATE FLOW g AS SELECT 1"));
    let errors = parse_file(&source).err().map(|Diagnostics(errors)| errors).unwrap_or_default();
    let places: Vec<String> = errors.iter().map(|error| error.position().to_string()).collect();
    assert_eq!(places, ["1:18", "2:18"]);
    for error in &errors {
        assert_eq!(source.text().get(error.span.clone()), Some("SELECT"));
    }
    // Only where a file begins is it a mark.
    assert!(parse_statements("SELECT \u{feff}1").is_err());
    Ok(())
}

#[test]
fn slips_in_sql_are_shown_at_their_place() {
    let shown = refused(&[
        "SELECT * FORM t",
        "SELECT a,\n  b,,\n  c FROM t",
        "SELECT (1 + 2",
        "SELECT 'never closed",
        "/* never closed",
        "SELECT \u{0} 1",
        "SELECT 'ä', \u{1f600} FROM t",
        "CREATE FLOW f AS\r\nINSERT INTO t BY NAME\r\nSELECT * FROM STREAM(s) WHERE",
        "CREATE FLOW f AS INSERT INTO t BY NAME SELECT a FROM STREAM(s)) ",
        "FOO BAR",
    ]);
    insta::assert_snapshot!(shown);
}

#[test]
fn clauses_of_later_versions_are_named() {
    let shown = refused(&[
        "CREATE SOURCE s (ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '5 minutes') WITH ('topic' = 't')",
        "CREATE STREAMING TABLE t (id BIGINT, CONSTRAINT positive EXPECT (id > 0) ON VIOLATION DROP ROW)",
        "CREATE STREAMING TABLE t (id BIGINT GENERATED ALWAYS AS (1))",
        "CREATE STREAMING TABLE t (id BIGINT MASK f)",
        "CREATE STREAMING TABLE t (id BIGINT) CLUSTER BY AUTO",
        "CREATE STREAMING TABLE t (id BIGINT) WITH ROW FILTER f ON (id)",
        "CREATE FLOW f AS INSERT INTO ONCE t BY NAME SELECT 1",
        "CREATE FLOW f AS AUTO CDC ONCE INTO t FROM STREAM(s) KEYS (id) SEQUENCE BY a",
        "CREATE FLOW f AS AUTO CDC INTO t FROM STREAM(s) KEYS (id) IGNORE NULL UPDATES SEQUENCE BY a",
        "CREATE FLOW f AS AUTO CDC INTO t FROM STREAM(s) KEYS (id) APPLY AS TRUNCATE WHEN a SEQUENCE BY a",
        "CREATE FLOW f AS AUTO CDC INTO t FROM STREAM(s) KEYS (id) SEQUENCE BY a STORED AS SCD TYPE 2",
        "CREATE MATERIALIZED VIEW v AS SELECT 1",
        "DROP FLOW f; ALTER FLOW f PAUSE; DESCRIBE DETAIL t",
        "OPTIMIZE t WHERE day = '2026-03-01'; VACUUM t LITE; VACUUM t USING INVENTORY (i)",
    ]);
    insta::assert_snapshot!(shown);
}

#[test]
fn all_statements_with_errors_are_reported() {
    let diagnostics = parse_statements("CREATE FLOW; SELECT 1; SELECT (; SHOW COMMITS FOR;");
    assert_eq!(diagnostics.map_err(|Diagnostics(all)| all.len()), Err(3));
}

#[test]
fn stream_is_read_with_and_without_parentheses() -> Result<(), Diagnostics> {
    for bare in ["SELECT a FROM STREAM s", "SELECT a FROM stream `s` o", "SELECT a FROM d JOIN STREAM s ON s.a = d.a"] {
        let written = bare.replace("STREAM s", "STREAM(s)").replace("stream `s`", "stream(`s`)");
        assert_eq!(only(bare)?, only(&written)?, "{bare}");
    }
    for untouched in ["SELECT stream s FROM t", "SELECT a FROM stream AS s", "SELECT a FROM stream WHERE a"] {
        assert!(!only(untouched)?.to_string().contains('('), "{untouched}");
    }
    Ok(())
}

#[test]
fn versions_of_tables_are_kept_for_time_travel() -> Result<(), Diagnostics> {
    struct Versions(usize);
    impl Visitor for Versions {
        type Break = ();
        fn pre_visit_table_factor(&mut self, relation: &TableFactor) -> std::ops::ControlFlow<()> {
            self.0 += usize::from(matches!(relation, TableFactor::Table { version: Some(_), .. }));
            std::ops::ControlFlow::Continue(())
        }
    }
    for text in [
        "SELECT * FROM silver.orders VERSION AS OF 41",
        "SELECT * FROM silver.orders TIMESTAMP AS OF '2026-09-01' AS o WHERE o.a = 1",
        "SELECT * FROM a JOIN b VERSION AS OF 2 ON a.x = b.x",
    ] {
        let Statement::Sql(statement) = only(text)? else { return Err(Diagnostics(Vec::new())) };
        let DfStatement::Statement(statement) = *statement else { return Err(Diagnostics(Vec::new())) };
        let mut versions = Versions(0);
        let _ = statement.visit(&mut versions);
        assert_eq!(versions.0, 1, "{text}");
    }
    Ok(())
}

#[test]
fn a_change_flow_is_read_in_any_order_of_clauses() -> Result<(), Diagnostics> {
    let statement = only(
        "create flow f with ('commit.rows' = 5) as auto cdc into s.t from stream(x) keys (a, b)
         columns * except (op) sequence by struct(ts, off) apply as delete when op = 'd' stored as scd type 1",
    )?;
    let Statement::CreateFlow(flow) = statement else { return Err(Diagnostics(Vec::new())) };
    let FlowAction::AutoCdc(cdc) = flow.action else { return Err(Diagnostics(Vec::new())) };
    assert_eq!(cdc.keys.value, [ast::Ident::new("a"), ast::Ident::new("b")]);
    assert_eq!(cdc.columns, Some(ColumnChoice::Except(vec![ast::Ident::new("op")])));
    assert!(cdc.delete_when.is_some() && cdc.sequence_by.is_some());
    Ok(())
}

#[test]
fn nesting_that_would_overflow_the_stack_is_refused() {
    let deep = |open: &str, inner: &str, close: &str, depth: usize| {
        format!("SELECT {}{inner}{}", open.repeat(depth), close.repeat(depth))
    };
    for depth in [100, 100_000] {
        for text in [
            deep("(", "1", ")", depth),
            deep("f(", "1", ")", depth),
            deep("[", "1", "]", depth),
            deep("", "1", " + 1", depth * 10),
            deep("", "1", "::INT", depth * 10),
            deep("NOT ", "a", "", depth),
            deep("- ", "a", "", depth * 10),
            deep("", "a", "[1]", depth * 10),
            deep("CASE WHEN ", "a", " THEN 1 END", depth),
            deep("INTERVAL ", "'1'", "", depth * 10),
            format!("SELECT CAST(a AS {}INT{})", "ARRAY<".repeat(depth), ">".repeat(depth)),
            format!("SELECT CAST(a AS INT{})", "[]".repeat(depth * 10)),
            format!("SELECT 1{}", " UNION SELECT 1, 2".repeat(depth + 1)),
            format!("{}SELECT 1", "EXPLAIN ".repeat(depth + 1)),
            format!("{}SELECT 1{}", "SELECT * FROM (".repeat(depth), ")".repeat(depth)),
        ] {
            let result = parse_statements(&text);
            assert!(result.is_err(), "{} was taken", text.chars().take(60).collect::<String>());
        }
    }
}

#[test]
fn the_longest_chain_that_is_taken_needs_half_of_a_thread_s_stack() -> std::io::Result<()> {
    let chains = || -> Result<(), Diagnostics> {
        for text in [
            format!("SELECT 1{}", " + 1".repeat(240)),
            format!("SELECT a{}", "::INT".repeat(240)),
            format!("SELECT * FROM t WHERE a = 1{}", " OR a = 1".repeat(120)),
        ] {
            let statement = only(&text)?;
            assert_eq!(only(&statement.clone().to_string())?, statement);
        }
        Ok(())
    };
    // Half of what the program's threads have.
    let done = std::thread::Builder::new().stack_size(4 << 20).spawn(chains)?.join();
    assert!(matches!(done, Ok(Ok(()))));
    Ok(())
}

#[test]
fn the_example_is_read() -> Result<(), Diagnostics> {
    assert_eq!(parse_statements(EXAMPLE)?.len(), 9);
    Ok(())
}

/// A statement whose every place within the file counts, so that spans are checked as well.
fn every_span_is_within_the_text(text: &str) -> std::result::Result<(), TestCaseError> {
    let source = Arc::new(SourceText::new("any.sql", text));
    let spans: Vec<_> = match parse_file(&source) {
        Ok(statements) => statements.into_iter().map(|statement| statement.span).collect(),
        Err(diagnostics) => {
            prop_assert!(!diagnostics.render(false).is_empty());
            prop_assert!(diagnostics.to_json().is_array());
            for diagnostic in &diagnostics.0 {
                prop_assert!(diagnostic.hint.as_ref().is_some_and(|hint| !hint.is_empty()), "{diagnostic} in {text:?}");
            }
            diagnostics.0.into_iter().map(|diagnostic| diagnostic.span).collect()
        }
    };
    for span in spans {
        prop_assert!(text.get(span.clone()).is_some(), "{span:?} is not in {text:?}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_brings_the_parser_down(text in any::<String>()) {
        every_span_is_within_the_text(&text)?;
    }

    #[test]
    fn no_words_bring_the_parser_down(words in prop::collection::vec(prop::sample::select(WORDS), 0..40)) {
        every_span_is_within_the_text(&words.join(" "))?;
    }

    #[test]
    fn no_slip_in_the_example_brings_the_parser_down(
        at in 0..EXAMPLE.len(), removed in 0_usize..20, added in "[(),;'<>a-z0-9 \u{0}ä]{0,6}",
    ) {
        let mut text = EXAMPLE.to_owned();
        let end = (at + removed).min(text.len());
        text.replace_range(at..end, &added);
        every_span_is_within_the_text(&text)?;
    }

    #[test]
    fn what_is_read_is_shown_so_that_it_is_read_again(
        words in prop::collection::vec(prop::sample::select(WORDS), 0..12), at in 0_usize..400,
    ) {
        let tokens: Vec<&str> = EXAMPLE.split_inclusive(' ').collect();
        let mut text: Vec<&str> = tokens.clone();
        if !words.is_empty() {
            text.splice(at.min(tokens.len())..at.min(tokens.len()), words.iter().flat_map(|word| [*word, " "]));
        }
        if let Ok(statements) = parse_statements(&text.concat()) {
            for statement in statements.into_iter().filter(|statement| !matches!(statement.value, Statement::Sql(_))) {
                let shown = statement.value.to_string();
                let again = only(&shown);
                prop_assert_eq!(again.as_ref(), Ok(&statement.value), "{}", shown);
            }
        }
    }
}

const WORDS: &[&str] = &[
    "CREATE",
    "OR",
    "REPLACE",
    "REFRESH",
    "CONNECTION",
    "SOURCE",
    "STREAMING",
    "TABLE",
    "FLOW",
    "AS",
    "AUTO",
    "CDC",
    "INSERT",
    "INTO",
    "BY",
    "NAME",
    "STREAM",
    "(",
    ")",
    ",",
    ";",
    "KEYS",
    "SEQUENCE",
    "COLUMNS",
    "*",
    "EXCEPT",
    "STORED",
    "SCD",
    "TYPE",
    "1",
    "2",
    "WITH",
    "'a'",
    "=",
    "secret",
    "'env'",
    "METADATA",
    "FROM",
    "'key'",
    "NOT",
    "NULL",
    "BIGINT",
    "STRUCT",
    "<",
    ">",
    ">>",
    "ARRAY",
    "MAP",
    "ROW",
    "a",
    "b",
    ":",
    "`x y`",
    "\"q\"",
    "COMMENT",
    "TAGS",
    "PRIMARY",
    "KEY",
    "ENFORCED",
    "PARTITIONED",
    "LOCATION",
    "TBLPROPERTIES",
    "SELECT",
    "WHERE",
    "AND",
    "CASE",
    "WHEN",
    "END",
    "+",
    "-",
    "::",
    "INT",
    "EXPLAIN",
    "DESCRIBE",
    "HISTORY",
    "SHOW",
    "COMMITS",
    "FOR",
    "LIMIT",
    "VERSION",
    "OF",
    "TIMESTAMP",
    "true",
    "IF",
    "EXISTS",
    "CONSTRAINT",
    "EXPECT",
    "WATERMARK",
    "DECIMAL",
    "(18,2)",
    ".",
    "-- note\n",
    "/*",
    "*/",
];
