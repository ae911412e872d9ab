//! The REPL over real sessions: Delta tables in a folder, sources that are peeked at.

use std::io::Cursor;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use alluvium_catalog::store::CatalogStore;
use alluvium_catalog::{Connection, Result, Source};
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use async_trait::async_trait;

use super::super::input::{Input, Interrupt, ScriptFrom};
use super::super::run::tests::Captured;
use super::super::upkeep::Tended;
use super::super::{Console, Exit, Format, Repl, ReplOptions};
use super::*;
use crate::session::SessionSettings;
use crate::system::samples;
use crate::tables::fixture::{Lake, TestResult, people, with_hidden};

/// Answers with as many rows as it may, and remembers what it was asked.
#[derive(Debug, Default)]
struct Canned(Mutex<Vec<usize>>);

#[async_trait]
impl Peek for Canned {
    async fn peek(&self, source: &Source, _: &Connection, limit: PeekLimit) -> Result<Peeked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(limit.records_max);
        let n_rows = i64::try_from(limit.records_max).unwrap_or(i64::MAX);
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..n_rows));
        let rows = RecordBatch::try_from_iter([("order_id", ids)])
            .map_err(|cause| Error::internal(source.name.to_string()).with_source(cause))?;
        Ok(Peeked { n_records: rows.num_rows(), rows, n_tombstones: 0, n_unreadable: 0, first_fault: None })
    }
}

/// Answers with one row and says that there were records it could not read.
#[derive(Debug)]
struct Damaged;

#[async_trait]
impl Peek for Damaged {
    async fn peek(&self, source: &Source, _: &Connection, _: PeekLimit) -> Result<Peeked> {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values([7]));
        let rows = RecordBatch::try_from_iter([("order_id", ids)])
            .map_err(|cause| Error::internal(source.name.to_string()).with_source(cause))?;
        let first_fault = Some(format!("{}/0@1: not valid \u{1b}[2J", source.topic));
        Ok(Peeked { rows, n_records: 4, n_tombstones: 1, n_unreadable: 2, first_fault })
    }
}

/// Answers upkeep with what it was asked for.
#[derive(Debug)]
struct Asked;

impl Asked {
    fn row(table: &Tended, what: String) -> Result<RecordBatch> {
        let columns = [table.name.to_string(), what].map(|text| Arc::new(StringArray::from(vec![text])) as ArrayRef);
        let [name, what] = columns;
        RecordBatch::try_from_iter([("table", name), ("asked", what)])
            .map_err(|cause| Error::internal("rows").with_source(cause))
    }
}

#[async_trait]
impl Upkeep for Asked {
    async fn optimize(&self, table: &Tended, is_full: bool) -> Result<RecordBatch> {
        Self::row(table, format!("optimize, full {is_full}"))
    }

    async fn vacuum(&self, table: &Tended, retention: Option<Duration>, is_dry_run: bool) -> Result<RecordBatch> {
        Self::row(table, format!("vacuum, {retention:?}, dry {is_dry_run}"))
    }
}

async fn lake() -> TestResult<Lake> {
    let lake = Lake::new()?;
    let first = with_hidden(&people(&[(1, "ann")])?)?;
    let second = with_hidden(&people(&[(2, "bob")])?)?;
    lake.table("silver.people", &[first, second]).await?;
    lake.catalog.put_definition(&samples::definition()?).await?;
    lake.catalog.put_commit(&samples::commit()?).await?;
    Ok(lake)
}

async fn run(lake: &Lake, peek: Option<Arc<dyn Peek>>, script: &str) -> TestResult<(Exit, String, String)> {
    run_in(open(lake)?, lake, peek, script).await
}

fn open(lake: &Lake) -> TestResult<Session> {
    let settings = SessionSettings { threads: 1, ..SessionSettings::default() };
    Ok(Session::open(Arc::clone(&lake.catalog) as Arc<dyn CatalogStore>, Arc::clone(&lake.reader), &settings)?)
}

async fn run_in(
    session: Session,
    lake: &Lake,
    peek: Option<Arc<dyn Peek>>,
    script: &str,
) -> TestResult<(Exit, String, String)> {
    let catalog = Arc::clone(&lake.catalog) as Arc<dyn CatalogStore>;
    let (out, err) = (Captured::default(), Captured::default());
    let stdin = Box::new(Cursor::new(vec![]));
    let console = Console { stdin, out: Box::new(out.clone()), err: Box::new(err.clone()) };
    let options = ReplOptions {
        keep_going: true,
        is_quiet: true,
        interrupt: Interrupt::Notified(Arc::default()),
        ..ReplOptions::script(Format::Csv)
    };
    let backend = SessionBackend::new(session, catalog).with_upkeep(Arc::new(Asked));
    let backend = match peek {
        Some(peek) => backend.with_peek(peek),
        None => backend,
    };
    let repl = Repl::new(Arc::new(backend), options, console);
    let exit = repl.run(Input::Scripts(vec![ScriptFrom::Argument(script.to_owned())])).await;
    Ok((exit, out.text(), err.text()))
}

#[tokio::test]
async fn tables_are_queried_and_described() -> TestResult {
    let lake = lake().await?;
    let folder = lake.location("")?.to_string();
    let script = "SELECT * FROM silver.people ORDER BY id; SELECT name FROM silver.people VERSION AS OF 1;\n\
                  \\format markdown\n\\d\n\\dt\n\\format table\n\\dn\n\\d silver.people\n\\d orders_raw\n\\sources\n\\flows\n\
                  \\commits\n\\lineage silver.orders\nDESCRIBE silver.people;\n";
    let (exit, out, err) = run(&lake, None, script).await?;
    assert_eq!((exit, err.as_str()), (Exit::Ok, ""));
    insta::assert_snapshot!(out.replace(folder.trim_end_matches('/'), "lake"));
    Ok(())
}

#[tokio::test]
async fn nested_types_are_described_in_the_words_of_the_dialect() -> TestResult {
    let lake = Lake::new()?;
    let columns = [
        ("id", "BIGINT"),
        ("amount", "DECIMAL(18,2)"),
        ("at", "TIMESTAMP"),
        ("items", "ARRAY<STRUCT<sku: STRING, sizes: ARRAY<INT>>>"),
        ("attributes", "MAP<STRING, DOUBLE>"),
        ("address", "STRUCT<city: STRING, since: DATE>"),
    ];
    let mut fields = Vec::new();
    for (name, text) in columns {
        let parsed = crate::types::arrow_type(&crate::parser::parse_type(text)?)?;
        fields.push(arrow::datatypes::Field::new(name, parsed, true));
    }
    let location = lake.location("nested")?;
    crate::tables::fixture::create(&location, &arrow::datatypes::Schema::new(fields), &[]).await?;
    lake.register("nested", alluvium_catalog::DatasetKind::Delta, &location).await?;
    let (exit, out, err) = run(&lake, None, "\\format tsv\n\\d nested\nDESCRIBE nested;").await?;
    assert_eq!((exit, err.as_str()), (Exit::Ok, ""));
    for (name, text) in columns {
        assert_eq!(out.matches(&format!("{name}\t{text}\t")).count(), 2, "{name}:\n{out}");
    }
    Ok(())
}

#[tokio::test]
async fn a_table_that_was_opened_by_its_location_is_listed() -> TestResult {
    let lake = Lake::new()?;
    let location = lake.location("orders")?;
    crate::tables::fixture::create(&location, &people(&[])?.schema(), &[]).await?;
    let session = open(&lake)?;
    session.open_location(&location).await?;
    let (exit, out, err) = run_in(session, &lake, None, "\\dt\n\\d t\nDESCRIBE t").await?;
    assert_eq!((exit, err.as_str()), (Exit::Ok, ""));
    assert!(out.contains("default.orders,opened") && out.contains("default.t,opened"), "{out}");
    assert!(out.contains("id,BIGINT,true") && out.contains("id,BIGINT,YES"), "{out}");
    Ok(())
}

#[tokio::test]
async fn errors_point_into_the_script() -> TestResult {
    let lake = lake().await?;
    let script = "SELECT 1;\nSELECT nme\nFROM silver.people;\nSELEC 1;\n\\d silver.peple\n\
                  CREATE CONNECTION c TYPE kafka WITH ('bootstrap.servers' = 'localhost:9092');\n\
                  SELECT * FROM STREAM(orders_raw);\nSELECT abss(id)\nFROM silver.people;\nSELECT id + name FROM silver.people;\n\
                  SELECT CAST(id AS NUMBR) FROM silver.people;\nSELECT *\nFROM silver.people VERSION AS OF 99;\n\
                  DESCRIBE HISTORY silver.peple;\nDELETE FROM silver.people WHERE id = 1;\n\
                  SELECT id FROM silver.people JOIN silver.people AS p ON true;";
    let (exit, _, err) = run(&lake, None, script).await?;
    assert_eq!(exit, Exit::SqlError);
    let folder = lake.location("")?.to_string();
    insta::assert_snapshot!(err.replace(folder.trim_end_matches('/'), "lake"));
    Ok(())
}

/// What libraries put before a cause, in lowercase; none of it is of use to whoever wrote the query.
const WRAPPERS: [&str; 10] = [
    "arrow error",
    "parquet error",
    "external:",
    "external error",
    "execution error",
    "internal error",
    "compute error",
    "cast error",
    "during planning",
    "datafusion",
];

/// Runs `statement` as the second line of a script and checks that its error is shown at `column` of that line, with a
/// hint, and `said`.
async fn fails_at_its_place(
    lake: &Lake,
    session: Session,
    (statement, column, said): (&str, usize, &str),
) -> TestResult {
    let (exit, _, err) = run_in(session, lake, None, &format!("SELECT 1 AS one;\n{statement};\n")).await?;
    assert_ne!(exit, Exit::Ok, "{statement}");
    assert!(err.contains(&format!("[argument 1:2:{column}]")), "{statement}, expected at {column}:\n{err}");
    // The picture between message and hint repeats the statement, whose words prove nothing.
    let lower = err.to_lowercase();
    let message = lower.split("[argument").next().unwrap_or_default();
    let hint = lower.split("help: ").nth(1).ok_or_else(|| format!("{statement} has no hint:\n{err}"))?;
    assert!(message.contains(said) || hint.contains(said), "{statement}:\n{err}");
    assert!(!WRAPPERS.iter().any(|wrapper| message.contains(wrapper)), "{statement}:\n{err}");
    Ok(())
}

/// Returns a session with a table `numbers` over a file that holds a word among them, and the folder of the file.
async fn with_numbers(lake: &Lake) -> TestResult<(tempfile::TempDir, Session)> {
    let folder = tempfile::tempdir()?;
    let csv = folder.path().join("numbers.csv");
    std::fs::write(&csv, "n\n1\nthree\n")?;
    let external = format!("CREATE EXTERNAL TABLE numbers (n INT) STORED AS CSV LOCATION '{}'", csv.display());
    let external = format!("{external} OPTIONS ('format.has_header' 'true')");
    let session = open(lake)?;
    session.sql(&external).await?.collect().await?;
    Ok((folder, session))
}

#[tokio::test]
async fn every_error_of_a_statement_names_its_line_and_column_and_says_what_to_do() -> TestResult {
    let lake = lake().await?;
    for case in [
        (
            "SELECT CAST(name AS INT) AS n FROM silver.people WHERE id = 1",
            13,
            "cannot cast string 'ann' to value of int type",
        ),
        ("SELECT * FROM silver.people WHERE name = 3", 35, "cannot cast string"),
        ("SELECT name::DATE AS d FROM silver.people", 8, "cannot cast string"),
        ("SELECT CAST(name AS TIMESTAMP) AS t FROM silver.people", 13, "parsing timestamp"),
        ("SELECT CAST(id + 300 AS TINYINT) AS n FROM silver.people WHERE id = 1", 13, "301 to type tinyint"),
        ("SELECT CAST(id * 1000 AS DECIMAL(3,1)) AS n FROM silver.people", 13, "decimal"),
        ("SELECT id / 0 AS n FROM silver.people", 8, "divide by zero"),
        ("SELECT id % (id - id) AS n FROM silver.people", 8, "divide by zero"),
        ("SELECT * FROM silver.people WHERE 1 / (id - 1) = 0", 35, "divide by zero"),
        ("SELECT regexp_like(name, '(' || name) AS n FROM silver.people", 8, "regular expression"),
        ("SELECT date_trunc('fortnight', TIMESTAMP '2026-01-01T00:00:00Z') AS t FROM silver.people", 19, "fortnight"),
        ("SELECT TIMESTAMP '2026-99-99' AS t", 18, "2026-99-99"),
        ("SELECT INTERVAL 'soon' AS t", 17, "soon"),
        ("SELECT decode(name, 'hex') AS b FROM silver.people", 8, "hex"),
        ("SELECT arrow_cast(id, 'Nonsense') AS n FROM silver.people", 23, "nonsense"),
        ("SELECT sum(name) AS n FROM silver.people", 8, "function 'sum' takes no such arguments: sum(string)"),
        ("SELECT upper(name, name) AS n FROM silver.people", 8, "received 2"),
        ("SELECT abss(id) AS n FROM silver.people", 8, "invalid function 'abss'"),
        ("SELECT nme FROM silver.people", 8, "column 'nme' not found"),
        ("SELECT name, count(*) AS n FROM silver.people", 8, "name"),
        // The whole of it is wrong: one of the two has too many columns.
        ("SELECT id FROM silver.people UNION SELECT id, name FROM silver.people", 1, "union"),
        ("SELECT id FROM silver.people WHERE name", 36, "name"),
        ("SELECT id AS n FROM silver.people VERSION AS OF 99", 21, "version 99"),
        ("SELECT id FROM silver.people ORDER BY 9", 39, "order by"),
        // What is wrong is that it is this statement.
        ("CREATE TABLE t (id INT)", 1, "a session only reads"),
        ("CREATE SORCE s (id INT)", 8, "there is no create sorce"),
        ("OPTIMIZE silver.peple", 10, "silver.peple"),
    ] {
        fails_at_its_place(&lake, open(&lake)?, case).await?;
    }
    let (_folder, session) = with_numbers(&lake).await?;
    fails_at_its_place(&lake, session, ("SELECT sum(n) AS n FROM numbers", 25, "three")).await
}

#[tokio::test]
async fn the_error_that_the_guide_shows_is_what_a_script_gets() -> TestResult {
    let guide = include_str!("../../../../docs/guide/sql.md");
    let shown = guide.split("```text\n").find_map(|block| block.starts_with("AL").then(|| block.split("```").next()));
    let shown = shown.flatten().ok_or("the guide shows no error")?;
    let lake = Lake::new()?;
    let statuses: ArrayRef = Arc::new(StringArray::from(vec!["paid"]));
    lake.table("silver.orders", &[RecordBatch::try_from_iter_with_nullable([("status", statuses, true)])?]).await?;
    let (_, _, err) = run(&lake, None, "SELECT 1;\nSELECT * FROM silver.orders\nWHERE status = 3;").await?;
    assert_eq!(err.replace("argument 1", "report.sql").trim(), shown.trim());
    Ok(())
}

#[tokio::test]
async fn a_query_that_wants_too_much_memory_says_which_setting_gives_more() -> TestResult {
    let lake = lake().await?;
    let settings = SessionSettings { threads: 1, memory_bytes_max: 4096, ..SessionSettings::default() };
    let session =
        Session::open(Arc::clone(&lake.catalog) as Arc<dyn CatalogStore>, Arc::clone(&lake.reader), &settings)?;
    let statement = "SELECT value FROM generate_series(1, 100000) ORDER BY value DESC";
    // All of it wants the memory.
    fails_at_its_place(&lake, session, (statement, 1, "alluvium_sql_memory")).await
}

#[tokio::test]
async fn a_data_file_that_is_gone_fails_its_statement_at_its_place() -> TestResult {
    let lake = lake().await?;
    let folder = lake.location("silver.people")?.local_path().ok_or("the lake is not on disk")?;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "parquet") {
            std::fs::remove_file(path)?;
        }
    }
    fails_at_its_place(&lake, open(&lake)?, ("SELECT name FROM silver.people", 18, "not found")).await
}

#[tokio::test]
async fn the_error_of_a_value_points_at_the_one_place_that_it_can_come_from() -> TestResult {
    let lake = lake().await?;
    for (statement, column) in [
        ("SELECT id, id / 0 AS n FROM silver.people", 12),
        ("SELECT id, id / (id - id) AS n FROM silver.people", 12),
        ("SELECT id FROM silver.people WHERE name = 3", 36),
        ("SELECT 1 + sum(name) AS n FROM silver.people", 12),
        ("SELECT id, CAST(name AS INT) AS n FROM silver.people", 17),
        // Of two that it can come from neither is taken.
        ("SELECT CAST(name AS INT) AS n, CAST(name || 'x' AS INT) AS d FROM silver.people", 1),
        ("SELECT sum(id) AS n, sum(name) AS m FROM silver.people", 1),
        ("SELECT id FROM silver.people WHERE CAST(name AS BIGINT) > id AND name = 3", 1),
        ("SELECT CAST(name AS TIMESTAMP) AS t, to_timestamp(name) AS u FROM silver.people", 1),
        ("SELECT id / (id - id) AS n, id % (id - id) AS m FROM silver.people", 1),
        ("SELECT CAST(id AS NUMBR) AS n, CAST(name AS NUMBR) AS m FROM silver.people", 1),
        // Arguments, types and quoted values tell them apart.
        ("SELECT upper(name) AS u, upper(name, name) AS v FROM silver.people", 26),
        ("SELECT sum(1) AS n, sum(name) AS m FROM silver.people", 21),
        ("SELECT CAST(id AS DOUBLE) AS n, CAST(name AS INT) AS m FROM silver.people", 38),
        ("SELECT id FROM silver.people WHERE name = 'ann' AND CAST(name AS INT) = 1", 58),
        ("SELECT CAST(name AS BIGINT) AS n FROM silver.people WHERE name = 'ann'", 13),
        ("SELECT CAST(name AS INT) AS n FROM silver.people WHERE id > CAST('x' AS INT)", 66),
        ("SELECT CAST(id AS NUMBR) AS n FROM silver.people", 19),
        ("SELECT name AS NUMBR, CAST(id AS NUMBR) AS n FROM silver.people", 34),
    ] {
        fails_at_its_place(&lake, open(&lake)?, (statement, column, "")).await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_error_of_a_value_in_a_file_points_at_its_table_and_speaks_of_the_file() -> TestResult {
    let lake = lake().await?;
    let what_to_do = "mend the value in the file";
    for (statement, column) in [
        ("SELECT sum(n) AS n FROM numbers", 25),
        ("SELECT sum(n) AS n FROM numbers WHERE n = 3", 25),
        ("WITH all_of AS (SELECT n FROM numbers) SELECT CAST(n AS BIGINT) AS n FROM all_of", 31),
        // Which of two files it is in is not known.
        ("SELECT count(a.n) AS n FROM numbers AS a, numbers AS b", 1),
    ] {
        let (_folder, session) = with_numbers(&lake).await?;
        fails_at_its_place(&lake, session, (statement, column, what_to_do)).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_name_that_nothing_has_is_not_described_and_the_nearest_one_is_named() -> TestResult {
    let lake = lake().await?;
    for (typed, named, near) in [
        ("silver.peple", "silver.people", true),
        ("ordersraw", "orders_raw", true),
        ("default.ordersraw", "orders_raw", true),
        ("something_else_altogether", "orders_raw", false),
    ] {
        let (exit, out, err) = run(&lake, None, &format!("\\d {typed}")).await?;
        assert_eq!((exit, out.as_str()), (Exit::SqlError, ""), "{typed}");
        let said = typed.trim_start_matches("default.");
        assert!(err.starts_with(&format!("error: the catalog has no table {said}\n  hint: ")), "{err}");
        assert_eq!(err.contains(&format!("did you mean '{named}'?")), near, "{err}");
    }
    Ok(())
}

#[tokio::test]
async fn a_peek_tells_of_what_it_could_not_read_and_keeps_that_out_of_the_rows() -> TestResult {
    let lake = lake().await?;
    for format in ["csv", "json"] {
        let script = format!("\\format {format}\nSELECT * FROM orders_raw;");
        let (exit, out, err) = run(&lake, Some(Arc::new(Damaged)), &script).await?;
        assert_eq!(exit, Exit::Ok, "{err}");
        assert!(out.contains('7') && !out.contains("peeked") && !out.contains("read"), "{out}");
        assert_eq!(
            err,
            "peeked at 4 records of topic shop.orders; nothing was committed\n\
             1 of them is a tombstone, which has no value to show\n\
             2 of them could not be read and are left out; the first is shop.orders/0@1: not valid \\u{1b}[2J\n"
        );
    }
    Ok(())
}

#[tokio::test]
async fn what_an_interrupted_statement_has_seen_is_no_part_of_the_next() -> TestResult {
    let lake = lake().await?;
    let catalog = Arc::clone(&lake.catalog) as Arc<dyn CatalogStore>;
    let backend = SessionBackend::new(open(&lake)?, catalog).with_peek(Arc::new(Damaged));
    let peeking = backend.peeking.as_ref().ok_or("there is no peek")?;
    // So it is left by a statement that is given up behind its peek.
    peeking.begin(PeekLimit::default());
    peeking.current().notes.push("peeked at 4 records".to_owned());
    let source = Arc::new(SourceText::new("input", "SELECT 1 AS a"));
    let answer = backend.run(Written { span: 0..source.text().len(), source }).await?;
    assert!(answer.notes.is_empty(), "{:?}", answer.notes);
    Ok(())
}

#[tokio::test]
async fn upkeep_is_handed_on_and_answers_with_rows() -> TestResult {
    let lake = lake().await?;
    let script = "OPTIMIZE silver.people; optimize alluvium.silver.people full; VACUUM silver.people;\
                  VACUUM silver.people RETAIN 200 HOURS DRY RUN;";
    let (exit, out, err) = run(&lake, None, script).await?;
    assert_eq!((exit, err.as_str()), (Exit::Ok, ""));
    let rows: Vec<&str> = out.lines().filter(|line| *line != "table,asked").collect();
    assert_eq!(
        rows,
        [
            "silver.people,\"optimize, full false\"",
            "silver.people,\"optimize, full true\"",
            "silver.people,\"vacuum, None, dry false\"",
            "silver.people,\"vacuum, Some(720000s), dry true\"",
        ]
    );
    Ok(())
}

#[tokio::test]
async fn upkeep_of_what_is_no_table_is_refused() -> TestResult {
    let lake = lake().await?;
    let script = "OPTIMIZE silver.peple; OPTIMIZE orders_raw; VACUUM system.commits; OPTIMIZE a.b.c.d;\
                  VACUUM silver.people RETAIN 18446744073709551615 HOURS; EXPLAIN OPTIMIZE silver.people;";
    let (exit, out, err) = run(&lake, None, script).await?;
    assert_eq!((exit, out.as_str()), (Exit::SqlError, ""));
    insta::assert_snapshot!(err);
    Ok(())
}

#[tokio::test]
async fn a_select_on_a_source_peeks_as_far_as_it_needs() -> TestResult {
    let lake = lake().await?;
    let canned = Arc::new(Canned::default());
    let script = "SELECT * FROM orders_raw LIMIT 2; SELECT s.order_id FROM STREAM(orders_raw) AS s LIMIT 1;\
                  SELECT count(*) AS n FROM STREAM(orders_raw); SELECT count(*) AS n FROM silver.people;\
                  SELECT count(*) AS n FROM orders_raw o JOIN orders_raw p ON o.order_id = p.order_id LIMIT 5;";
    let (exit, out, err) = run(&lake, Some(Arc::clone(&canned) as Arc<dyn Peek>), script).await?;
    assert_eq!(exit, Exit::Ok, "{err}");
    let asked = canned.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert_eq!(asked, [2, 1, 1000, 1000]);
    assert_eq!(out, "order_id\n0\n1\norder_id\n0\nn\n1000\nn\n2\nn\n1000\n");
    insta::assert_snapshot!(err);
    Ok(())
}
