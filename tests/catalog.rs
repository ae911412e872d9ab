//! The catalog after a run, and after it was lost and written again from the tables: the same content. And what others
//! have written, once it is registered.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alluvium_catalog::Location;
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use deltalake::DeltaTableBuilder;
use deltalake::kernel::StructType;
use deltalake::kernel::engine::arrow_conversion::TryFromArrow;
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};

use crate::harness::TestResult;
use crate::harness::lake::Lake;
use crate::harness::program::{LIMIT, Program};
use crate::harness::shop::{self, Shop, embedded_options};

/// Everything that the catalog can be asked, with what it answers.
fn ask_everything(program: &Program) -> TestResult<BTreeMap<String, Value>> {
    let mut answers = BTreeMap::new();
    let mut ask = |arguments: &[&str]| -> TestResult {
        answers.insert(arguments.join(" "), program.json(arguments)?);
        Ok(())
    };
    ask(&["catalog", "list", "--json"])?;
    for name in ["silver.orders", "bronze.orders", "ops.orders_rejects", "lake.files"] {
        ask(&["catalog", "show", name, "--json"])?;
        ask(&["catalog", "history", name, "--limit", "1000", "--json"])?;
        ask(&["catalog", "lineage", name, "--json"])?;
    }
    for name in ["orders_upsert", "orders_append"] {
        ask(&["catalog", "show", name, "--json"])?;
        ask(&["catalog", "history", name, "--limit", "1000", "--json"])?;
    }
    for name in ["orders_raw", "shop"] {
        ask(&["catalog", "show", name, "--json"])?;
    }
    ask(&["catalog", "lineage", "shop.orders", "--json"])?;
    let runs = "SELECT DISTINCT run FROM system.commits ORDER BY run";
    ask(&["sql", "--quiet", "--json", "-c", runs])?;
    ask(&["sql", "--quiet", "--json", "-c", "SELECT run FROM system.runs ORDER BY run"])?;
    Ok(answers)
}

fn remove_catalog(lake: &Lake) -> TestResult {
    let mut n_removed = 0;
    for entry in std::fs::read_dir(lake.folder())? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("catalog.db")) {
            std::fs::remove_file(path)?;
            n_removed += 1;
        }
    }
    if n_removed == 0 { Err("there was no catalog to remove".into()) } else { Ok(()) }
}

/// A shop whose upsert flow was changed after two waves, with a folder of files registered beside its tables.
async fn shop_with_a_past() -> TestResult<Shop> {
    let shop = Shop::open(Lake::on_disk()?, 2).await?;
    let changed =
        shop::pipeline(shop.bootstrap()).replace("WHEN status = 'DELETED'", "WHEN status IN ('DELETED', 'GONE')");
    shop.program.write("orders.sql", &changed)?;
    shop.sell(2).await?;
    shop.program.done(&["run", "--once", "orders.sql"])?;
    let files = shop.lake.folder().join("files");
    std::fs::create_dir(&files)?;
    std::fs::write(files.join("a.json"), "{\"a\": 1}\n")?;
    let location = files.display().to_string();
    let registered =
        ["catalog", "register", "lake.files", &location, "--kind", "json", "--owner", "ann", "--tag", "pii"];
    shop.program.done(&registered)?;
    Ok(shop)
}

/// Defines what no flow uses, by typing and by a file; and defines anew what flows have used, before and after they ran.
async fn define_more(shop: &Shop) -> TestResult {
    let connection = |name: &str, rest: &str| {
        format!("CREATE OR REPLACE CONNECTION {name} TYPE kafka WITH ({}{rest});", embedded_options(shop.bootstrap()))
    };
    let source = |name: &str, connection: &str, comment: &str| {
        format!(
            "CREATE OR REPLACE SOURCE {name} (order_id BIGINT NOT NULL, pos BIGINT METADATA FROM 'offset') \
             COMMENT '{comment}' WITH ('connection' = '{connection}', 'topic' = 'shop.orders');"
        )
    };
    let type_in = |text: &str| -> TestResult {
        shop.program.write("typed.sql", text)?;
        shop.program.done(&["sql", "--quiet", "-f", "typed.sql"]).map(drop)
    };
    // The file that runs says otherwise, and says it later.
    type_in(&source("orders_raw", "shop", "typed before the run"))?;
    shop.sell(3).await?;
    shop.program.done(&["run", "--once", "orders.sql"])?;
    type_in(&connection("shop", ", 'client.rack' = 'typed-after-the-run'"))?;
    type_in(&connection("typed", ""))?;
    type_in(&source("typed_raw", "typed", "first"))?;
    type_in(&source("typed_raw", "typed", "typed last"))?;
    let declared = [
        connection("filed", ""),
        source("filed_raw", "filed", "in a file"),
        "CREATE STREAMING TABLE silver.later (order_id BIGINT NOT NULL);".to_owned(),
    ];
    let declared = declared.join("\n").replace("CREATE OR REPLACE", "CREATE");
    shop.program.write("definitions.sql", &declared)?;
    shop.program.done(&["run", "--once", "definitions.sql"]).map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_catalog_is_written_again_with_the_same_content() -> TestResult {
    let shop = shop_with_a_past().await?;
    define_more(&shop).await?;
    let before = ask_everything(&shop.program)?;
    let listed = before["catalog list --json"].to_string();
    for defined in ["typed-after-the-run", "\"typed\"", "typed last", "\"filed\"", "in a file", "silver.later"] {
        assert!(listed.contains(defined), "{defined} is not in {listed}");
    }
    assert!(!listed.contains("typed before the run"), "{listed}");
    remove_catalog(&shop.lake)?;
    shop.program.done(&["catalog", "rebuild", "--json"])?;
    let after = ask_everything(&shop.program)?;
    let differing = before.iter().find(|(question, answer)| after.get(*question) != Some(answer));
    if let Some((question, answer)) = differing {
        let again = after.get(question).unwrap_or(&Value::Null);
        return Err(format!("{question}\n--- before\n{answer:#}\n--- after\n{again:#}").into());
    }
    // A second rebuild finds a catalog and changes nothing, either.
    shop.program.done(&["catalog", "rebuild"])?;
    assert_eq!(ask_everything(&shop.program)?, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_catalog_tells_what_ran_and_where_it_came_from() -> TestResult {
    let shop = shop_with_a_past().await?;
    let answers = ask_everything(&shop.program)?;
    let listed = answers["catalog list --json"]["datasets"].as_array().cloned().unwrap_or_default();
    let names: Vec<&str> = listed.iter().filter_map(|dataset| dataset["name"].as_str()).collect();
    assert_eq!(names, ["bronze.orders", "lake.files", "ops.orders_rejects", "silver.orders"]);
    let history = answers["catalog history silver.orders --limit 1000 --json"].as_array().cloned().unwrap_or_default();
    let hashes: std::collections::BTreeSet<&str> =
        history.iter().filter_map(|commit| commit["lineage"]["sql_hash"].as_str()).collect();
    assert_eq!(hashes.len(), 2, "the flow had two texts");
    let n_records: u64 = history.iter().filter_map(|commit| commit["lineage"]["fate"]["records_in"].as_u64()).sum();
    assert_eq!(n_records, 120);
    let versions: Vec<u64> = history.iter().filter_map(|commit| commit["version"].as_u64()).collect();
    assert!(versions.is_sorted_by(|newer, older| newer > older), "newest first: {versions:?}");
    let lineage = answers["catalog lineage shop.orders --json"].to_string();
    assert!(lineage.contains("silver.orders") && lineage.contains("bronze.orders"), "{lineage}");
    let shown = answers["catalog show lake.files --json"].to_string();
    assert!(shown.contains("ann") && shown.contains("pii"), "{shown}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catalog_is_not_written_again_under_a_running_program() -> TestResult {
    let shop = Shop::open(Lake::on_disk()?, 1).await?;
    let mut running = shop.program.start(&["run", "orders.sql"])?;
    running.wait_for("flow", 2, LIMIT)?;
    let refused = shop.program.run(&["catalog", "rebuild"])?;
    refused.check(1)?;
    assert!(refused.err.contains("another process has it open"), "{}", refused.err);
    assert!(running.is_running()?);
    // What it lands from now on is in the catalog that everybody sees.
    let before = n_commits(&shop.program)?;
    shop.sell(1).await?;
    let begun = Instant::now();
    while n_commits(&shop.program)? == before {
        assert!(begun.elapsed() < LIMIT, "no commit was recorded");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    running.terminate()?;
    running.wait(LIMIT)?.check(0)?;
    let history = ["catalog", "history", "silver.orders", "--limit", "1000", "--json"];
    let before = shop.program.json(&history)?;
    shop.program.done(&["catalog", "rebuild"])?;
    assert_eq!(shop.program.json(&history)?, before);
    Ok(())
}

fn n_commits(program: &Program) -> TestResult<usize> {
    let history = program.json(&["catalog", "history", "silver.orders", "--limit", "1000", "--json"])?;
    Ok(history.as_array().map_or(0, Vec::len))
}

#[test]
fn an_unknown_name_is_refused_with_the_nearest_one() -> TestResult {
    let lake = Lake::on_disk()?;
    let (program, folder) = (Program::on(&lake), lake.folder().join("orders"));
    write_file(&folder, "json")?;
    program.done(&["catalog", "register", "silver.orders", &folder.display().to_string(), "--kind", "json"])?;
    for asked in ["show", "history", "lineage", "forget"] {
        let ended = program.run(&["catalog", asked, "silver.ordres"])?;
        ended.check(1)?;
        assert!(ended.out.is_empty() && ended.err.contains("'silver.ordres'"), "{asked}: {}", ended.err);
        assert!(ended.err.contains("did you mean silver.orders?"), "{asked}: {}", ended.err);
        let ended = program.run(&["catalog", asked, "nothing_like_it_at_all"])?;
        ended.check(1)?;
        assert!(!ended.err.contains("did you mean"), "{asked}: {}", ended.err);
    }
    Ok(())
}

/// Two people, as others write them.
fn people() -> TestResult<RecordBatch> {
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let names: ArrayRef = Arc::new(StringArray::from(vec!["Ann", "Bob"]));
    Ok(RecordBatch::try_from_iter_with_nullable([("id", ids, true), ("name", names, true)])?)
}

/// Writes the people as a Delta table, with delta-rs.
async fn write_delta(folder: &Path) -> TestResult {
    std::fs::create_dir_all(folder)?;
    let (location, rows): (Location, _) = (folder.display().to_string().parse()?, people()?);
    let columns = StructType::try_from_arrow(rows.schema().as_ref())?;
    let table = DeltaTableBuilder::from_url(location.url()?)?.build()?;
    let table = table.create().with_columns(columns.fields().cloned()).await?;
    table.write([rows]).await?;
    Ok(())
}

/// Writes the people as the one file of a folder.
fn write_file(folder: &Path, kind: &str) -> TestResult {
    std::fs::create_dir_all(folder)?;
    let file = folder.join(format!("people.{kind}"));
    let text = match kind {
        "csv" => "id,name\n1,Ann\n2,Bob\n",
        "json" => "{\"id\": 1, \"name\": \"Ann\"}\n{\"id\": 2, \"name\": \"Bob\"}\n",
        _ => {
            let rows = people()?;
            let mut writer = ArrowWriter::try_new(std::fs::File::create(file)?, rows.schema(), None)?;
            writer.write(&rows)?;
            writer.close()?;
            return Ok(());
        }
    };
    Ok(std::fs::write(file, text)?)
}

fn query(program: &Program, sql: &str) -> TestResult<Value> {
    program.json(&["sql", "--quiet", "--json", "-c", sql])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_delta_rs_wrote_is_registered_shown_and_queried() -> TestResult {
    let lake = Lake::on_disk()?;
    let (program, folder) = (Program::on(&lake), lake.folder().join("elsewhere/people"));
    write_delta(&folder).await?;
    let place = folder.display().to_string();
    let said = ["--owner", "ann", "--description", "Who buys", "--tag", "pii", "--tag", "crm"];
    let told = program.done(&[&["catalog", "register", "ref.people", &place][..], &said].concat())?;
    assert_eq!(told, format!("registered ref.people at {place}\n"));

    let dataset = json!({
        "name": "ref.people", "kind": "delta", "location": place, "owner": "ann", "description": "Who buys",
        "tags": ["pii", "crm"],
    });
    assert_eq!(program.json(&["catalog", "list", "--json"])?["datasets"], json!([dataset]));
    assert_eq!(program.json(&["catalog", "show", "ref.people", "--json"])?["dataset"], dataset);
    let listed = program.done(&["catalog", "list"])?;
    let line = listed.lines().find(|line| line.starts_with("ref.people")).ok_or("the table is not listed")?;
    assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["ref.people", "table", "-", "ann", "pii,crm", &place]);
    let shown = program.done(&["catalog", "show", "ref.people"])?;
    let lines: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
    for line in ["table ref.people", &format!("location {place}"), "owner ann", "holds Who buys", "tags pii, crm"] {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert!(lines.contains(&words), "{line} is not in\n{shown}");
    }

    let rows = query(&program, "SELECT id, name FROM ref.people ORDER BY id")?;
    assert_eq!(rows, json!([{"id": 1, "name": "Ann"}, {"id": 2, "name": "Bob"}]));
    program.done(&["catalog", "forget", "ref.people"])?;
    program.run(&["sql", "--quiet", "-c", "SELECT id FROM ref.people"])?.check(1)?;
    program.done(&["catalog", "register", "ref.people", &place])?;
    assert_eq!(query(&program, "SELECT count(*) AS n FROM ref.people")?, json!([{"n": 2}]), "the data stays there");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_of_another_warehouse_of_ours_is_registered_and_queried_as_it_is_now() -> TestResult {
    let (shop, lake) = (Shop::open(Lake::on_disk()?, 1).await?, Lake::on_disk()?);
    let (program, place) = (Program::on(&lake), shop.lake.table("silver.orders")?.to_string());
    program.done(&["catalog", "register", "ref.orders", &place])?;
    let ask = |program: &Program, table: &str| {
        query(program, &format!("SELECT order_id, status, tags FROM {table} ORDER BY order_id"))
    };
    let before = ask(&program, "ref.orders")?;
    assert!(before.as_array().is_some_and(|rows| rows.len() > 20), "{before}");
    assert_eq!(before, ask(&shop.program, "silver.orders")?);
    shop.sell(1).await?;
    shop.program.done(&["run", "--once", "orders.sql"])?;
    let after = ask(&program, "ref.orders")?;
    assert_eq!(after, ask(&shop.program, "silver.orders")?);
    assert_ne!(after, before, "the second wave is not seen");
    Ok(())
}

#[test]
fn folders_of_files_are_registered_listed_by_their_kind_and_queried() -> TestResult {
    let lake = Lake::on_disk()?;
    let program = Program::on(&lake);
    for kind in ["csv", "json", "parquet"] {
        let (name, folder) = (format!("ref.{kind}_people"), lake.folder().join(kind));
        write_file(&folder, kind)?;
        let place = folder.display().to_string();
        let registered = program.json(&["catalog", "register", &name, &place, "--kind", kind, "--json"])?;
        assert_eq!((&registered["name"], &registered["kind"]), (&json!(name), &json!(kind)));
        let rows = query(&program, &format!("SELECT id, name FROM {name} ORDER BY id"))?;
        assert_eq!(rows, json!([{"id": 1, "name": "Ann"}, {"id": 2, "name": "Bob"}]), "{kind}");
        let listed = program.done(&["catalog", "list"])?;
        let line = listed.lines().find(|line| line.starts_with(&name)).ok_or("the folder is not listed")?;
        assert_eq!(line.split_whitespace().nth(1), Some(kind), "{line}");
    }
    Ok(())
}

#[test]
fn a_place_that_holds_nothing_of_the_kind_or_nothing_that_can_be_read_is_not_registered() -> TestResult {
    let lake = Lake::on_disk()?;
    let program = Program::on(&lake);
    let cases = [
        ("delta", "nothing", None, "there is no Delta table at"),
        ("csv", "nothing", None, "there is no file at"),
        ("delta", "files", Some("people.csv"), "there is no Delta table at"),
        ("delta", "notes", Some("_delta_log/notes.txt"), "there is no Delta table at"),
        ("delta", "garbage", Some("_delta_log/00000000000000000000.json"), "cannot read the Delta log at"),
        ("csv", "other", Some("people.txt"), "cannot read the csv files at"),
        ("json", "broken", Some("people.json"), "cannot read the json files at"),
        ("parquet", "torn", Some("people.parquet"), "cannot read the parquet files at"),
    ];
    for (kind, name, file, said) in cases {
        let folder = lake.folder().join(name);
        if let Some(file) = file.map(|file| folder.join(file)) {
            std::fs::create_dir_all(file.parent().ok_or("a file without a folder")?)?;
            std::fs::write(file, "{\"this is not what its name says")?;
        }
        let place = folder.display().to_string();
        let ended = program.run(&["catalog", "register", "ref.people", &place, "--kind", kind])?;
        ended.check(1)?;
        let message = format!("{said} {place}");
        assert!(ended.out.is_empty() && ended.err.contains(&message), "{kind} {name}: {}", ended.err);
        assert!(!ended.err.contains("panicked"), "{}", ended.err);
        let listed = program.json(&["catalog", "list", "--json"])?;
        assert_eq!(listed["datasets"], json!([]), "{kind} {name}");
    }
    Ok(())
}
