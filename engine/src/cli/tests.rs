//! What the module `cli` promises, tested.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use super::*;

/// A handle whose text can be read back.
#[derive(Debug, Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Shared {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn call(arguments: &[&str], variables: &[(&str, &str)]) -> (Exit, String, String) {
    let (out, err) = (Shared::default(), Shared::default());
    let console = Console::plain(Box::new(out.clone()), Box::new(err.clone()));
    let environment =
        Environment::new(variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))));
    let arguments = std::iter::once("alluvium").chain(arguments.iter().copied()).map(OsString::from);
    (main(arguments, &environment, console), out.text(), err.text())
}

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn help_is_an_answer_and_nonsense_is_not() {
    let (exit, out, err) = call(&["--help"], &[]);
    assert_eq!((exit, err.as_str()), (Exit::Done, ""));
    for command in ["demo", "check", "run", "optimize", "vacuum", "sql", "catalog"] {
        assert!(out.contains(&format!("\n  {command}")), "{command} is not in\n{out}");
    }
    let pages = [
        "",
        "demo",
        "check",
        "run",
        "optimize",
        "vacuum",
        "sql",
        "catalog",
        "catalog register",
        "catalog forget",
        "catalog history",
        "catalog lineage",
    ];
    for page in pages {
        let (_, out, _) = call(&page.split_whitespace().chain(["--help"]).collect::<Vec<_>>(), &[]);
        assert!(out.lines().all(|line| line.chars().count() <= 80), "{out}");
    }

    let (exit, out, err) = call(&["runn"], &[]);
    assert_eq!((exit, out.as_str()), (Exit::Usage, ""));
    assert!(err.contains("run"), "{err}");
}

#[test]
fn a_history_without_commits_is_not_shown() {
    let (exit, out, err) = call(&["catalog", "history", "silver.orders", "--limit", "0"], &[]);
    assert_eq!((exit, out.as_str()), (Exit::Usage, ""));
    assert!(err.contains("--limit <N>") && err.contains("0 is not in 1.."), "{err}");
}

#[test]
fn settings_that_are_wrong_end_the_program_before_it_does_anything() {
    let (exit, out, err) = call(&["catalog", "list"], &[("ALLUVIUM_WAREHAUS", "/tmp")]);
    assert_eq!((exit, out.as_str()), (Exit::Usage, ""));
    let expected = "error: unknown environment variable ALLUVIUM_WAREHAUS\n  hint: did you mean ALLUVIUM_WAREHOUSE?\n";
    assert_eq!(err, expected);
}

#[test]
fn catalog_is_shown_registered_and_asked_for_what_it_lacks() -> Result<()> {
    let folder = tempfile::tempdir().map_err(|source| Error::internal("test folder").with_source(source))?;
    let warehouse = folder.path().join("lake").display().to_string();
    let data = folder.path().join("zones");
    let written = std::fs::create_dir(&data).and_then(|()| std::fs::write(data.join("zones.csv"), "id\n1\n"));
    written.map_err(|source| Error::internal("test file").with_source(source))?;
    let variables = [("ALLUVIUM_WAREHOUSE", warehouse.as_str())];

    let (exit, out, err) = call(&["catalog", "list"], &variables);
    assert_eq!((exit, err.as_str()), (Exit::Done, ""));
    assert!(out.starts_with("nothing is registered yet"), "{out}");

    let place = data.display().to_string();
    let register = ["catalog", "register", "geo.zones", &place, "--kind", "csv", "--owner", "maps", "--tag", "public"];
    let (exit, out, err) = call(&register, &variables);
    assert_eq!((exit, out, err), (Exit::Done, format!("registered geo.zones at {place}\n"), String::new()));

    let (_, out, _) = call(&["catalog", "show", "geo.zones", "--json"], &variables);
    assert!(out.contains(r#""owner": "maps""#), "{out}");
    let (exit, _, err) = call(&["catalog", "lineage", "geo.zonez"], &variables);
    assert_eq!(exit, Exit::Failed);
    assert!(err.contains("hint: did you mean geo.zones?"), "{err}");
    let (exit, _, err) = call(&["catalog", "register", "geo.gone", "/nowhere/at/all"], &variables);
    assert_eq!(exit, Exit::Failed);
    assert!(err.contains("there is no Delta table at /nowhere/at/all"), "{err}");

    let (exit, out, err) = call(&["catalog", "rebuild"], &variables);
    assert_eq!((exit, err.as_str()), (Exit::Done, ""), "{out}");
    let (_, out, _) = call(&["catalog", "list"], &variables);
    assert!(out.contains("geo.zones"), "{out}");
    Ok(())
}

/// Fills a catalog as a run would: one flow over one source, with a lookup and two commits.
fn fill_catalog(warehouse: &str) -> Result<()> {
    use alluvium_catalog::store::{CatalogStore, SqliteStore};
    use alluvium_catalog::{Commit, Definition};

    fn read<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> Result<T> {
        serde_json::from_value(value).map_err(|source| Error::internal("test value").with_source(source))
    }
    let definition: Definition = read(serde_json::json!({
        "connection": {"name": "shop", "kind": "kafka", "options": {"bootstrap.servers": {"text": "localhost:9092"}}},
        "source": {"name": "orders_raw", "connection": "shop", "topic": "shop.orders-v2", "options": {}, "comment": null,
            "columns": [{"column": {"name": "trace", "data_type": "STRING", "nullable": true},
                         "origin": {"metadata": {"header": "Trace-Id"}}}]},
        "table": {"name": "silver.orders", "location": format!("{warehouse}/silver/orders"), "columns": [],
            "primary_key": [], "partitioned_by": [], "comment": null, "properties": {}},
        "flow": {"flow": "orders_append", "kind": "append", "source": "orders_raw", "table": "silver.orders",
            "lookups": ["silver.zones"], "sql": "text", "sql_hash": "ab", "file": "orders.sql", "line": 1},
    }))?;
    let commit = |version: u64| -> Result<Commit> {
        read(serde_json::json!({
            "table": "silver.orders", "location": format!("{warehouse}/silver/orders"), "version": version,
            "committed_at": 1_000 * version, "files_added": 1, "files_removed": 0, "bytes_added": 10, "vectors_written": 0,
            "lineage": {"v": 1, "flow": "orders_append", "sql_hash": "ab", "engine": "0.1.0", "fate": {"records_in": 20},
                "run": "0190a0a0-0000-7000-8000-000000000001", "write_id": "0190a0a0-0000-7000-8000-000000000002",
                "inputs": [
                    {"kind": "kafka", "topic": "shop.orders-v2",
                     "ranges": [{"partition": 0, "first": 20 * version, "next": 20 * version + 20, "records": 20}]},
                    {"kind": "table", "table": "silver.zones", "version": version}],
                "rows_inserted": 20, "rows_updated": 0, "rows_deleted": 0, "millis": {}},
        }))
    };
    let runtime = tokio::runtime::Runtime::new().map_err(|source| Error::internal("runtime").with_source(source))?;
    runtime.block_on(async {
        let store = SqliteStore::open(&Path::new(warehouse).join("_alluvium/catalog.db")).await?;
        store.put_definition(&definition).await?;
        store.put_commit(&commit(1)?).await?;
        store.put_commit(&commit(2)?).await?;
        store.close().await;
        Ok(())
    })
}

#[test]
fn every_name_of_the_catalog_is_shown_listed_and_traced() -> Result<()> {
    let folder = tempfile::tempdir().map_err(|source| Error::internal("test folder").with_source(source))?;
    let warehouse = folder.path().join("lake").display().to_string();
    fill_catalog(&warehouse)?;
    let variables = [("ALLUVIUM_WAREHOUSE", warehouse.as_str())];
    let mut said = String::new();
    for command in [
        "list",
        "show silver.orders",
        "show orders_append",
        "show orders_raw",
        "show shop",
        "show shop.orders-v2",
        "history silver.orders --limit 1",
        "history orders_append",
        "history orders_raw",
        "history shop.orders-v2",
        "history order_append",
        "lineage silver.orders",
        "lineage orders_append",
        "lineage orders_raw",
        "lineage shop.orders-v2",
        "lineage silver.zones",
        "lineage shop",
        "lineage shop.orders-v1",
    ] {
        let arguments: Vec<&str> = std::iter::once("catalog").chain(command.split(' ')).collect();
        let (exit, out, err) = call(&arguments, &variables);
        assert_ne!(exit, Exit::Usage, "{err}");
        said.push_str(&format!("$ {command}\n{out}{err}\n"));
    }
    insta::assert_snapshot!(said.replace(&warehouse, "[lake]"));
    Ok(())
}

#[test]
fn a_statement_on_the_command_line_may_begin_with_a_comment() -> Result<()> {
    let folder = tempfile::tempdir().map_err(|source| Error::internal("test folder").with_source(source))?;
    let warehouse = folder.path().join("lake").display().to_string();
    let arguments = ["sql", "--format", "csv", "-c", "-- one\nSELECT 1 AS a", "--command", "--two\nSELECT 2 AS b"];
    let (exit, out, err) = call(&arguments, &[("ALLUVIUM_WAREHOUSE", warehouse.as_str())]);
    assert_eq!((exit, out.as_str(), err.as_str()), (Exit::Done, "a\n1\nb\n2\n", ""));
    Ok(())
}

#[test]
fn check_shows_flows_and_points_at_errors() -> Result<()> {
    let folder = tempfile::tempdir().map_err(|source| Error::internal("test folder").with_source(source))?;
    let warehouse = folder.path().join("lake").display().to_string();
    let variables = [("ALLUVIUM_WAREHOUSE", warehouse.as_str())];
    let good = folder.path().join("good.sql");
    let sql = "CREATE CONNECTION shop TYPE kafka WITH ('bootstrap.servers' = 'localhost:9092');\n\
               CREATE SOURCE raw (id BIGINT NOT NULL, name STRING) \
               WITH ('connection' = 'shop', 'topic' = 't', 'format' = 'json');\n\
               CREATE STREAMING TABLE bronze.things (id BIGINT NOT NULL, name STRING);\n\
               CREATE FLOW things AS INSERT INTO bronze.things BY NAME SELECT id, name FROM STREAM(raw);\n";
    let failed = |source| Error::internal("test file").with_source(source);
    std::fs::write(&good, sql).map_err(failed)?;
    let (exit, out, err) = call(&["check", &good.display().to_string()], &variables);
    assert_eq!((exit, err.as_str()), (Exit::Done, ""), "{out}");
    assert!(out.contains("flow things") && out.contains("1 flow, no errors"), "{out}");
    assert!(!folder.path().join("lake").exists(), "check has made something");

    let bad = folder.path().join("bad.sql");
    std::fs::write(&bad, sql.replace("SELECT id, name", "SELECT id, nam")).map_err(failed)?;
    let (exit, out, err) = call(&["check", &bad.display().to_string()], &variables);
    assert_eq!((exit, out.as_str()), (Exit::Failed, ""));
    assert!(err.contains("bad.sql:4:") && err.contains("nam"), "{err}");
    let (exit, out, _) = call(&["check", "--json", &bad.display().to_string()], &variables);
    assert_eq!(exit, Exit::Failed);
    assert!(out.contains(r#""ok": false"#) && out.contains(r#""line": 4"#), "{out}");
    let (exit, out, err) = call(&["check", "--json", "nowhere.sql"], &variables);
    assert_eq!((exit, err.as_str()), (Exit::Failed, ""));
    assert!(out.contains(r#""ok": false"#) && out.contains(r#""kind": "invalid""#), "{out}");
    assert!(out.contains("cannot read nowhere.sql"), "{out}");
    Ok(())
}

#[test]
fn the_demo_ends_by_itself_and_its_tables_agree_with_the_shop() -> Result<()> {
    let folder = tempfile::tempdir().map_err(|source| Error::internal("test folder").with_source(source))?;
    let keep = folder.path().join("demo").display().to_string();
    for _ in 0..2 {
        let (exit, out, err) = call(&["demo", "--records", "1000", "--keep", &keep], &[]);
        assert_eq!(exit, Exit::Done, "{out}{err}");
        assert_eq!(out.matches("  agree\n").count(), 5, "{out}");
    }
    let settings = format!("{keep}/alluvium.toml");
    let (exit, out, err) = call(&["--config", &settings, "catalog", "lineage", "silver.orders"], &[]);
    assert_eq!((exit, err.as_str()), (Exit::Done, ""));
    assert!(out.contains("topic shop.orders  by orders_upsert: "), "{out}");

    let commits = || call(&["--config", &settings, "catalog", "history", "silver.orders", "--json"], &[]).1;
    let before = commits();
    std::fs::remove_file(folder.path().join("demo/warehouse/_alluvium/catalog.db"))
        .map_err(|source| Error::internal("test file").with_source(source))?;
    let (exit, out, err) = call(&["--config", &settings, "catalog", "rebuild"], &[]);
    assert_eq!((exit, err.as_str()), (Exit::Done, ""), "{out}");
    assert_eq!(commits(), before);
    Ok(())
}
