//! A running program as its operators see it: metrics, health and readiness over HTTP, and the REPL beside it.

use std::time::Instant;

use serde_json::Value;

use crate::harness::TestResult;
use crate::harness::lake::Lake;
use crate::harness::program::Program;
use crate::harness::served::{LIMIT, Served, sum};
use crate::harness::shop::Shop;

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
