//! The catalog after a run, and after it was lost and written again from the tables: the same content.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::TestResult;
use crate::harness::lake::Lake;
use crate::harness::program::{LIMIT, Program};
use crate::harness::shop::{self, Shop};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_catalog_is_written_again_with_the_same_content() -> TestResult {
    let shop = shop_with_a_past().await?;
    let before = ask_everything(&shop.program)?;
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
    let program = Program::on(&lake);
    program.done(&["catalog", "list"])?;
    let ended = program.run(&["catalog", "show", "silver.orders"])?;
    ended.check(1)?;
    assert!(ended.err.contains("silver.orders"), "{}", ended.err);
    Ok(())
}
