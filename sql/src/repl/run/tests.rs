//! Scripted runs over a backend that knows DataFusion's own statements.

use std::io::Cursor;
use std::sync::{Mutex, PoisonError};

use alluvium_catalog::TableName;
use alluvium_catalog::store::{CatalogStore, MemoryStore};
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::StreamExt;
use futures::future::BoxFuture;
use tokio::sync::Notify;

use super::super::backend::{Answer, Opened};
use super::super::input::{Input, Interrupt, ScriptFrom};
use super::super::{Console, Repl};
use super::*;
use crate::diagnostic::{Diagnostic, code};
use crate::session::failure::from_datafusion;

type TestResult = Result<(), Box<dyn std::error::Error>>;

struct Plain {
    context: SessionContext,
    catalog: MemoryStore,
    /// Told when a statement or a command that never ends has begun.
    begun: Arc<Notify>,
}

impl std::fmt::Debug for Plain {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Plain").finish_non_exhaustive()
    }
}

impl Plain {
    fn new() -> Self {
        let config = SessionConfig::new().with_information_schema(true).with_target_partitions(1);
        Self {
            context: SessionContext::new_with_config(config),
            catalog: MemoryStore::default(),
            begun: Arc::default(),
        }
    }
}

impl Plain {
    async fn answer(&self, written: Written) -> Result<Answer> {
        match written.text() {
            "FOREVER" => {
                self.begun.notify_one();
                std::future::pending::<()>().await;
            }
            "GONE" => return Err(Error::unavailable("cannot open s3://lake/t").with_hint("is the service up?")),
            text if text.starts_with("WRONG") => {
                let statement = Arc::new(SourceText::new(written.source.name(), text));
                let diagnostic = Diagnostic::new(code::SYNTAX, &statement, 0..5, "expected a statement, found WRONG");
                return Err(Error::from(diagnostic.with_hint("write SELECT")));
            }
            _ => {}
        }
        let failed = |source| from_datafusion("cannot run the statement", source);
        let frame = self.context.sql(written.text()).await.map_err(failed)?;
        let schema = Arc::clone(frame.schema().inner());
        let rows = frame.execute_stream().await.map_err(failed)?;
        Ok(Answer { schema, rows: rows.map(move |batch| batch.map_err(failed)).boxed(), notes: vec![] })
    }
}

impl Backend for Plain {
    fn run(&self, written: Written) -> BoxFuture<'_, Result<Answer>> {
        Box::pin(self.answer(written))
    }

    fn catalog(&self) -> &dyn CatalogStore {
        &self.catalog
    }

    fn open<'a>(&'a self, name: &'a TableName) -> BoxFuture<'a, Result<Opened>> {
        Box::pin(async move {
            if name.table() == "forever" {
                self.begun.notify_one();
                std::future::pending::<()>().await;
            }
            Err(Error::invalid(format!("the catalog has no table {name}")))
        })
    }

    fn tables(&self) -> BoxFuture<'_, Result<Vec<TableName>>> {
        Box::pin(async { Ok(vec![]) })
    }

    fn functions(&self) -> BoxFuture<'_, Result<Vec<String>>> {
        Box::pin(async { Ok(vec!["abs".to_owned(), "date_part".to_owned()]) })
    }
}

/// A handle whose bytes stay readable.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    pub(in super::super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What a run wrote, and how it ended.
#[derive(Debug)]
struct Ran {
    exit: Exit,
    out: String,
    err: String,
}

async fn run_with(options: ReplOptions, stdin: &str, scripts: Vec<ScriptFrom>) -> Ran {
    let (out, err) = (Captured::default(), Captured::default());
    let stdin = Box::new(Cursor::new(stdin.as_bytes().to_vec()));
    let console = Console { stdin, out: Box::new(out.clone()), err: Box::new(err.clone()) };
    let repl = Repl::new(Arc::new(Plain::new()), options, console);
    let exit = repl.run(Input::Scripts(scripts)).await;
    Ran { exit, out: out.text(), err: err.text() }
}

fn csv() -> ReplOptions {
    ReplOptions { interrupt: Interrupt::Notified(Arc::default()), ..ReplOptions::script(Format::Csv) }
}

fn arguments(texts: &[&str]) -> Vec<ScriptFrom> {
    texts.iter().map(|text| ScriptFrom::Argument((*text).to_owned())).collect()
}

#[tokio::test]
async fn arguments_run_in_order_and_need_no_semicolon() {
    let ran = run_with(csv(), "", arguments(&["SELECT 1 AS a", "SELECT 2 AS b; SELECT ';' AS c;"])).await;
    assert_eq!((ran.exit, ran.out.as_str(), ran.err.as_str()), (Exit::Ok, "a\n1\nb\n2\nc\n;\n", ""));
}

#[tokio::test]
async fn the_first_error_ends_a_script_and_is_shown_in_its_place() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("two.sql");
    std::fs::write(&path, "SELECT 1 AS a;\n-- then\nWRONG statement;\nSELECT 2 AS b;\n")?;
    let ran = run_with(csv(), "", vec![ScriptFrom::File(path.clone())]).await;
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::SqlError, "a\n1\n"));
    insta::assert_snapshot!(ran.err.replace(&path.display().to_string(), "two.sql"));
    Ok(())
}

#[tokio::test]
async fn a_file_with_a_byte_order_mark_may_begin_with_a_command() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("marked.sql");
    std::fs::write(&path, "\u{feff}\\format ndjson\nSELECT 1 AS a;\nSELECT wrng;\n")?;
    let ran = run_with(ReplOptions { is_quiet: true, ..csv() }, "", vec![ScriptFrom::File(path)]).await;
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::SqlError, "{\"a\":1}\n"), "{}", ran.err);
    assert!(ran.err.contains("marked.sql:3:8]"), "{}", ran.err);
    Ok(())
}

#[tokio::test]
async fn keep_going_runs_the_rest_and_still_fails() {
    let options = ReplOptions { keep_going: true, ..csv() };
    let ran = run_with(options, "", arguments(&["WRONG; SELECT 1 AS a; GONE", "SELECT 2 AS b"])).await;
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::SqlError, "a\n1\nb\n2\n"));
    assert!(ran.err.contains("[argument 1:1:23]") && ran.err.contains("help: is the service up?"), "{}", ran.err);
}

#[tokio::test]
async fn exits_tell_what_went_wrong() {
    let exit = async |script: &str| run_with(csv(), "", arguments(&[script])).await.exit;
    assert_eq!(exit("SELECT 1").await.code(), 0);
    assert_eq!(exit("SELECT nothing").await.code(), 1);
    assert_eq!(exit("\\nope").await.code(), 1);
    assert_eq!(exit("GONE").await.code(), 3);
    let missing = vec![ScriptFrom::File("/nowhere/x.sql".into())];
    let ran = run_with(csv(), "", missing).await;
    assert_eq!(ran.exit.code(), 1);
    assert!(ran.err.starts_with("error: cannot read /nowhere/x.sql: "), "{}", ran.err);
}

#[tokio::test]
async fn standard_input_runs_statements_as_they_end() {
    let stdin = "SELECT 1\n AS a;\n\\format json\nSELECT 2 AS b; SELECT\n3 AS c;\nSELECT 4 AS d";
    let ran = run_with(csv(), stdin, vec![ScriptFrom::Stdin]).await;
    assert_eq!(ran.exit, Exit::Ok);
    assert_eq!(ran.out, "a\n1\n[\n{\"b\":2}\n]\n[\n{\"c\":3}\n]\n[\n{\"d\":4}\n]\n");
    assert_eq!(ran.err, "format is json\n");
}

#[tokio::test]
async fn errors_on_standard_input_name_the_line() {
    let ran = run_with(csv(), "SELECT 1 AS a;\n\nWRONG;\n", vec![ScriptFrom::Stdin]).await;
    assert_eq!(ran.exit, Exit::SqlError);
    assert!(ran.err.contains("[stdin, from line 3:1:1]"), "{}", ran.err);
}

#[tokio::test]
async fn quitting_ends_everything() {
    let ran = run_with(csv(), "", arguments(&["SELECT 1 AS a; \\q\nSELECT 2 AS b", "SELECT 3 AS c"])).await;
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Ok, "a\n1\n"));
}

#[tokio::test]
async fn a_statement_that_a_command_breaks_off_is_not_run() {
    let script = "SELECT 1 AS a;\nSELECT 2 AS b\n\\timing off\nSELECT 3 AS c;";
    let ran = run_with(csv(), "", arguments(&[script])).await;
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::SqlError, "a\n1\n"));
    assert!(ran.err.contains("argument 1:2:13") && ran.err.contains("end the statement with ';'"), "{}", ran.err);
    let ran = run_with(csv(), script, vec![ScriptFrom::Stdin]).await;
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::SqlError, "a\n1\n"));
}

#[tokio::test]
async fn whoever_types_goes_on_with_the_command() {
    let (out, err) = (Captured::default(), Captured::default());
    let mut runner = Runner::new(Arc::new(Plain::new()), csv(), Box::new(out.clone()), Box::new(err.clone()));
    runner.is_typed = true;
    let source = Arc::new(SourceText::new("input", "SELECT 2 AS b\n\\q"));
    assert_eq!(runner.text(&source).await, Ok(Next::Quit));
    assert_eq!(out.text(), "");
    assert!(err.text().contains("was not run"), "{}", err.text());
}

#[tokio::test]
async fn results_go_to_a_file_and_back() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("a b.csv");
    let script = format!("\\o {}\nSELECT 1 AS a;\n\\o\nSELECT 2 AS b;", path.display());
    let ran = run_with(csv(), "", arguments(&[&script])).await;
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Ok, "b\n2\n"));
    assert_eq!(std::fs::read_to_string(path)?, "a\n1\n");
    Ok(())
}

#[tokio::test]
async fn scripts_include_scripts_but_not_themselves() -> TestResult {
    let folder = tempfile::tempdir()?;
    let inner = folder.path().join("inner.sql");
    std::fs::write(&inner, "SELECT 1 AS a;")?;
    let ran = run_with(csv(), "", arguments(&[&format!("\\i {}\nSELECT 2 AS b", inner.display())])).await;
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Ok, "a\n1\nb\n2\n"));

    std::fs::write(&inner, format!("\\i {}", inner.display()))?;
    let ran = run_with(csv(), "", vec![ScriptFrom::File(inner)]).await;
    assert_eq!(ran.exit, Exit::SqlError);
    assert_eq!(ran.err.matches("does a script include itself?").count(), 1, "{}", ran.err);
    Ok(())
}

#[tokio::test]
async fn every_error_of_a_command_and_of_a_file_says_what_to_do() -> TestResult {
    let folder = tempfile::tempdir()?;
    let latin = folder.path().join("latin.sql");
    std::fs::write(&latin, b"SELECT '\xe9';")?;
    let huge = folder.path().join("huge.sql");
    File::create(&huge)?.set_len((64 << 20) + 1)?;
    let (latin, here) = (latin.display().to_string(), folder.path().display().to_string());
    for (command, hint) in [
        ("\\i nope.sql", "is the name spelt right?"),
        (format!("\\i {latin}").as_str(), "save the file as UTF-8"),
        (format!("\\i {here}").as_str(), "name the files in the folder"),
        (format!("\\i {}", huge.display()).as_str(), "a script on standard input"),
        (format!("\\o {here}/none/x").as_str(), "name a file in a folder that is there"),
        ("\\timing maybe", "write one of them"),
        ("\\x maybe", "write one of them"),
        ("\\rows 0", "write a number or 'all'"),
        ("\\dt zzz", "leave it out"),
        ("\\lineage", "write \\lineage NAME"),
        ("\\lineage nothing", "'\\d' lists what there is"),
        ("\\i", "write \\i FILE"),
        ("\\format xml", "formats are table, csv"),
        ("\\d nothing", "'\\d' lists what there is"),
        ("\\d a.b.c", "write schema.table"),
        ("\\nope", "lists the commands"),
    ] {
        let ran = run_with(csv(), "", arguments(&[command])).await;
        assert_eq!((ran.exit, ran.out.as_str()), (Exit::SqlError, ""), "{command}");
        let said = ran.err.split_once("\n  hint: ").map(|(_, said)| said).unwrap_or_default();
        assert!(ran.err.starts_with("error: ") && said.contains(hint), "{command}: {}", ran.err);
    }
    Ok(())
}

#[tokio::test]
async fn settings_change_what_follows() {
    let options = ReplOptions { is_quiet: true, ..csv() };
    let script = "\\format table\n\\rows 2\nSELECT * FROM (VALUES (1), (2), (3)) AS t(n);\n\\x on\nSELECT 1 AS a;\n\
                  \\x off\nSELECT 2 AS b\\G\nEXPLAIN FORMAT INDENT SELECT 1 AS one;";
    let ran = run_with(options, "", arguments(&[script])).await;
    assert_eq!(ran.exit, Exit::Ok);
    insta::assert_snapshot!(format!("{}--\n{}", ran.out, ran.err));
}

#[tokio::test]
async fn a_running_statement_or_command_is_interrupted() -> TestResult {
    for script in ["FOREVER; SELECT 1", "\\d forever\nSELECT 1"] {
        let interrupt: Arc<Notify> = Arc::default();
        let backend = Plain::new();
        let begun = Arc::clone(&backend.begun);
        let (out, err) = (Captured::default(), Captured::default());
        let console = Console { stdin: Box::new(Cursor::new(vec![])), out: Box::new(out), err: Box::new(err.clone()) };
        let options = ReplOptions { interrupt: Interrupt::Notified(Arc::clone(&interrupt)), keep_going: true, ..csv() };
        let repl = Repl::new(Arc::new(backend), options, console);
        let interrupted = async {
            begun.notified().await;
            interrupt.notify_waiters();
        };
        let ended = async { tokio::join!(repl.run(Input::Scripts(arguments(&[script]))), interrupted) };
        let (exit, ()) = tokio::time::timeout(std::time::Duration::from_secs(20), ended).await?;
        assert_eq!((exit.code(), err.text().as_str()), (130, "interrupted\n"), "{script}");
    }
    Ok(())
}

#[tokio::test]
async fn a_reader_that_went_away_ends_the_run_in_silence() {
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let err = Captured::default();
    let console = Console { stdin: Box::new(Cursor::new(vec![])), out: Box::new(Gone), err: Box::new(err.clone()) };
    let repl = Repl::new(Arc::new(Plain::new()), csv(), console);
    let exit = repl.run(Input::Scripts(arguments(&["SELECT 1; SELECT 2"]))).await;
    assert_eq!((exit, err.text().as_str()), (Exit::Ok, ""));
}

#[tokio::test]
async fn a_full_disk_is_a_failure_and_no_absent_service() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let err = Captured::default();
    let console = Console { stdin: Box::new(Cursor::new(vec![])), out: Box::new(Full), err: Box::new(err.clone()) };
    let repl = Repl::new(Arc::new(Plain::new()), csv(), console);
    let exit = repl.run(Input::Scripts(arguments(&["SELECT 1"]))).await;
    assert_eq!(exit, Exit::SqlError);
    assert!(err.text().starts_with("error: cannot write the result: "), "{}", err.text());
}

#[tokio::test]
async fn what_is_asked_for_is_said_where_confirmations_are_not() {
    let options = ReplOptions { is_quiet: true, ..csv() };
    let ran = run_with(options, "", arguments(&["\\timing off\n\\?\n\\format\n\\rows"])).await;
    assert!(ran.err.starts_with(Command::help().trim_end()), "{}", ran.err);
    assert!(ran.err.ends_with("\nformat is csv\na table shows all rows\n"), "{}", ran.err);
}

#[tokio::test]
async fn a_command_on_standard_input_waits_for_no_semicolon_behind_comments() {
    let (out, err) = (Captured::default(), Captured::default());
    let mut runner = Runner::new(Arc::new(Plain::new()), csv(), Box::new(out), Box::new(err));
    for (arrived, left, line_number) in [
        ("-- one\n", "", 2),
        ("SELECT 1; -- two\n", "", 2),
        ("/* open\n", "/* open\n", 1),
        ("\nSELECT\n", "SELECT\n", 2),
    ] {
        let (mut pending, mut line) = (arrived.to_owned(), 1);
        assert_eq!(runner.finished(&mut pending, &mut line).await, Ok(Next::Go));
        assert_eq!((pending.as_str(), line), (left, line_number), "{arrived:?}");
    }
}

#[tokio::test]
async fn functions_are_listed_by_pattern() {
    let ran = run_with(csv(), "", arguments(&["\\df DATE"])).await;
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Ok, "function\ndate_part\n"));
}

#[test]
fn times_are_said_as_people_say_them() {
    let said = [7, 1_234, 61_500].map(|millis| took(std::time::Duration::from_millis(millis)));
    assert_eq!(said, ["7 ms", "1.23 s", "1 min 1 s"]);
}
