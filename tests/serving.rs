//! A running program as its operators see it: metrics, health and readiness over HTTP, the REPL beside it, log lines,
//! progress on a terminal, and how it is told where S3 is.

use std::time::Instant;

use serde_json::{Value, json};

use crate::harness::lake::Lake;
use crate::harness::program::Program;
use crate::harness::served::{LIMIT, Served, sum};
use crate::harness::services::Bucket;
use crate::harness::shop::Shop;
use crate::harness::{TestResult, reader, services};

fn count(program: &Program, table: &str) -> TestResult<i64> {
    let answer = program.json(&["sql", "--quiet", "--json", "-c", &format!("SELECT count(*) AS n FROM {table}")])?;
    answer[0]["n"].as_i64().ok_or_else(|| format!("{table}: {answer}").into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_program_shows_what_it_does_and_lets_others_read() -> TestResult {
    let (shop, served) = (Shop::open(Lake::on_disk()?, 0).await?, Served::somewhere()?);
    let program = shop.program.clone().with("ALLUVIUM_LISTEN", &served.address);
    let mut running = program.start(&["run", "orders.sql"])?;
    served.wait("/healthz", |status, _| status == 200)?;
    // Before it has joined its group.
    served.wait("/readyz", |status, text| status == 503 && text.contains("orders_append waits for"))?;
    served.wait("/readyz", |status, text| status == 200 && text == "ready\n")?;

    shop.sell(0).await?;
    running.wait_for("batch landed", 2, LIMIT)?;
    for flow in [r#"flow="orders_append""#, r#"flow="orders_upsert""#] {
        let has_all = |text: &str| sum(text, "alluvium_records_total", &[flow]) == Some(40.0);
        let metrics = served.wait("/metrics", |_, text| has_all(text))?;
        let above_zero = [
            ("alluvium_bytes_total", ""),
            ("alluvium_batches_total", r#"outcome="landed""#),
            ("alluvium_commits_total", r#"outcome="landed""#),
            ("alluvium_rejects_total", ""),
            ("alluvium_freshness_seconds", ""),
            ("alluvium_table_version", ""),
            ("alluvium_stage_seconds_count", r#"stage="fetch""#),
            ("alluvium_stage_seconds_count", r#"stage="decode""#),
            ("alluvium_stage_seconds_count", r#"stage="transform""#),
            ("alluvium_stage_seconds_count", r#"stage="write""#),
            ("alluvium_stage_seconds_count", r#"stage="commit""#),
            ("alluvium_stage_seconds_count", r#"stage="record""#),
            ("alluvium_flow_state", r#"state="running""#),
        ];
        for (family, label) in above_zero {
            let found = sum(&metrics, family, &[flow, label]);
            assert!(found.is_some_and(|value| value > 0.0), "{family} {label} of {flow} is {found:?}\n{metrics}");
        }
        let landed = |family| sum(&metrics, family, &[flow, r#"outcome="landed""#]);
        assert!(landed("alluvium_commits_total") > landed("alluvium_batches_total"), "dead letters are commits, too");
        served.wait("/metrics", |_, text| sum(text, "alluvium_lag_records", &[flow]) == Some(0.0))?;
    }

    // Queries and the catalog's commands beside the program that writes.
    assert_eq!(count(&program, "bronze.orders")?, 36);
    shop.sell(1).await?;
    let begun = Instant::now();
    while count(&program, "bronze.orders")? < 72 {
        assert!(begun.elapsed() < LIMIT, "the second wave is not seen");
    }
    let history = program.json(&["catalog", "history", "silver.orders", "--json"])?;
    assert!(history.as_array().is_some_and(|commits: &Vec<Value>| commits.len() > 1), "{history}");

    let lake = shop.without_broker();
    let waits = "orders_append waits for its table, its partitions or its brokers";
    served.wait("/readyz", |status, text| status == 503 && text.contains(waits))?;
    assert_eq!(served.ask("/healthz")?.0, 200, "a broker that is gone is no reason to restart");
    assert!(running.is_running()?);
    running.terminate()?;
    running.wait(LIMIT)?;
    drop(lake);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_lines_are_json_objects_and_those_of_commits_tell_flow_version_and_fates() -> TestResult {
    let shop = Shop::open(Lake::on_disk()?, 0).await?;
    // Standard error is a file here, which is what `auto` goes by.
    for (wave, format) in [(0, "json"), (1, "auto")] {
        shop.sell(wave).await?;
        let ended = shop.program.clone().with("ALLUVIUM_LOG_FORMAT", format).run(&["run", "--once", "orders.sql"])?;
        ended.check(0)?;
        let parsed = ended.err.lines().map(|line| {
            serde_json::from_str::<Value>(line).map_err(|error| format!("{format} has no JSON, {error}: {line}"))
        });
        let lines = parsed.collect::<Result<Vec<Value>, String>>()?;
        for line in &lines {
            for key in ["timestamp", "level", "target", "message"] {
                assert!(line[key].is_string(), "{line} has no {key}");
            }
        }
        for flow in ["orders_append", "orders_upsert"] {
            let landed: Vec<&Value> =
                lines.iter().filter(|line| line["message"] == "batch landed" && line["flow"] == flow).collect();
            let fates = ["applied", "merged", "filtered", "dead_lettered"];
            let n_fates: Vec<u64> =
                landed.iter().filter_map(|line| fates.iter().map(|fate| line[*fate].as_u64()).sum()).collect();
            let n_records: Vec<u64> = landed.iter().filter_map(|line| line["records"].as_u64()).collect();
            assert_eq!(n_fates, n_records, "{flow}: {landed:?}");
            assert_eq!(n_records.iter().sum::<u64>(), 40, "{flow}: {landed:?}");
            let versions: Vec<u64> = landed.iter().filter_map(|line| line["version"].as_u64()).collect();
            assert_eq!(versions.len(), landed.len(), "{landed:?}");
            assert!(versions.is_sorted_by(|older, newer| older < newer), "{versions:?}");
            assert!(landed.iter().all(|line| line["level"] == "INFO"), "{landed:?}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_on_a_terminal_shows_a_line_a_flow_that_moves_on() -> TestResult {
    let Some(python) = services::python()? else { return Ok(()) };
    let shop = Shop::open(Lake::on_disk()?, 0).await?;
    shop.sell(0).await?;
    let line = |flow: &str, n_records: u64| format!("{flow:<18} {n_records:>10} records");
    // The flows wait for their group first, and run on after they have read all.
    let steps = json!([
        {"keys": "", "expect": line("orders_append", 0), "last": true},
        {"keys": "", "expect": line("orders_upsert", 40), "last": true},
        {"keys": "", "expect": line("orders_append", 40), "last": true},
        {"keys": "\u{3}", "expect": "", "last": true},
    ]);
    let ended = shop.program.on_terminal(&python, &["run", "orders.sql"], &steps)?;
    ended.check(0)?;
    // Each is drawn over and over.
    assert!(ended.out.matches(&line("orders_upsert", 40)).count() > 1, "{}", ended.out);
    Ok(())
}

/// Returns a settings file by which `lake`, which lies in `bucket`, is reached.
fn settings_file(lake: &Lake, bucket: &Bucket) -> String {
    let Bucket { endpoint, key, secret, .. } = bucket;
    format!(
        "warehouse = \"{}\"\n\n[storage]\nendpoint = \"{endpoint}\"\nregion = \"us-east-1\"\n\
         access_key_id = \"{key}\"\nsecret_access_key = \"{secret}\"\nallow_http = true\n",
        lake.warehouse()
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_settings_file_alone_suffices_for_a_warehouse_in_s3() -> TestResult {
    let Some(bucket) = services::minio()? else { return Ok(()) };
    let (shop, lake) = (Shop::open(Lake::on_disk()?, 0).await?, Lake::in_bucket(&bucket)?);
    shop.sell(0).await?;
    // The program of a lake on disk is given no AWS_* variable.
    let program = shop.program.clone().with("ALLUVIUM_WAREHOUSE", "");
    program.write("alluvium.toml", &settings_file(&lake, &bucket))?;
    let ended = program.run(&["run", "--once", "orders.sql"])?;
    ended.check(0)?;
    let rows = reader::deltalake_rows(&lake, &lake.table("bronze.orders")?, "SELECT order_id FROM t").await?;
    assert_eq!(rows.len(), 36, "40 records, 4 of them rejects");
    assert_eq!(count(&program, "bronze.orders")?, 36);
    assert!(shop.lake.warehouse().local_path().is_some_and(|folder| !folder.exists()), "something is on the disk");
    assert!(!ended.out.contains(&bucket.secret) && !ended.err.contains(&bucket.secret), "the secret is shown");
    std::fs::remove_file(program.folder().join("alluvium.toml"))?;
    shop.lake.check_free_of(&bucket.secret)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_s3_key_that_is_refused_ends_a_run_with_the_place_and_the_settings_to_look_at() -> TestResult {
    let Some(bucket) = services::minio()? else { return Ok(()) };
    let (shop, lake) = (Shop::open(Lake::on_disk()?, 0).await?, Lake::in_bucket(&bucket)?);
    let place = lake.warehouse().to_string().replace("s3://", "");
    let program = shop.program.clone().with("ALLUVIUM_WAREHOUSE", "");
    let (secret, key) = ("not-the-secret".to_owned(), "not-the-key".to_owned());
    for wrong in [Bucket { secret, ..bucket.clone() }, Bucket { key, ..bucket.clone() }] {
        program.write("alluvium.toml", &settings_file(&lake, &wrong))?;
        let begun = Instant::now();
        let ended = program.run(&["run", "--once", "orders.sql"])?;
        ended.check(1)?;
        assert!(begun.elapsed().as_secs() < 20, "it was tried again for {:?}", begun.elapsed());
        let said = format!("{}{}", ended.out, ended.err);
        for part in ["orders_append halted: ", &place, "403", "secret_access_key", "AWS_SECRET_ACCESS_KEY"] {
            assert!(said.contains(part), "{part} is not in\n{said}");
        }
        assert!(!said.contains(&wrong.secret), "the secret is shown:\n{said}");
        std::fs::remove_file(program.folder().join("alluvium.toml"))?;
        shop.lake.check_free_of(&wrong.secret)?;
    }
    Ok(())
}
