//! What the module `metrics` promises, tested.

use super::*;

fn check(metrics: &Metrics, now: i64, expected: &[&str]) -> Result<()> {
    let text = metrics.render(Timestamp(now))?;
    for line in expected {
        assert!(text.lines().any(|have| have == *line), "{line} is not in\n{text}");
    }
    Ok(())
}

#[test]
fn landed_batch_counts_each_record_under_one_fate() -> Result<()> {
    let metrics = Metrics::try_new()?;
    let flow: Name = "orders".parse()?;
    let fate = Fate { records_in: 7, applied: 4, merged: 2, dead_lettered: 1, ..Fate::default() };
    metrics.landed(&flow, 3, &fate, 700);
    metrics.rejects(&flow, RejectClass::Malformed, 1);
    metrics.batch(&flow, BatchOutcome::Landed);
    metrics.attempts(&flow, &Attempts { landed: 1, conflicts: 2, ..Attempts::default() });
    metrics.stage(&flow, Stage::Write, Duration::from_millis(20));
    metrics.law_broken("each_offset_once");
    metrics.index(&flow, 5, 120);
    check(
        &metrics,
        0,
        &[
            r#"alluvium_records_total{fate="applied",flow="orders"} 4"#,
            r#"alluvium_records_total{fate="merged",flow="orders"} 2"#,
            r#"alluvium_records_total{fate="dead_lettered",flow="orders"} 1"#,
            r#"alluvium_bytes_total{flow="orders"} 700"#,
            r#"alluvium_rejects_total{class="malformed",flow="orders"} 1"#,
            r#"alluvium_batches_total{flow="orders",outcome="landed"} 1"#,
            r#"alluvium_commits_total{flow="orders",outcome="landed"} 1"#,
            r#"alluvium_commits_total{flow="orders",outcome="conflict"} 2"#,
            r#"alluvium_commits_total{flow="orders",outcome="indeterminate"} 0"#,
            r#"alluvium_stage_seconds_bucket{flow="orders",stage="write",le="0.025"} 1"#,
            r#"alluvium_table_version{flow="orders"} 3"#,
            r#"alluvium_invariant_violations_total{law="each_offset_once"} 1"#,
            r#"alluvium_index_keys{flow="orders"} 5"#,
            r#"alluvium_index_bytes{flow="orders"} 120"#,
        ],
    )?;
    let progress = metrics.progress();
    assert_eq!(progress.len(), 1);
    assert_eq!(progress.first().map(|flow| (flow.records, flow.rejects, flow.version)), Some((7, 1, Some(3))));
    Ok(())
}

#[test]
fn lag_of_a_revoked_partition_disappears() -> Result<()> {
    let metrics = Metrics::try_new()?;
    let flow: Name = "orders".parse()?;
    let topic: Topic = "shop.orders".parse()?;
    let lag = |partition, records| Lag { partition: Partition(partition), records };
    metrics.lag(&flow, &topic, &[lag(0, 5), lag(1, 9)]);
    check(&metrics, 0, &[r#"alluvium_lag_records{flow="orders",partition="1",topic="shop.orders"} 9"#])?;
    metrics.lag(&flow, &topic, &[lag(0, 4)]);
    let text = metrics.render(Timestamp(0))?;
    assert!(!text.contains(r#"partition="1""#), "{text}");
    assert_eq!(metrics.progress().first().and_then(|flow| flow.lag), Some(4));
    metrics.unassigned(&flow);
    let text = metrics.render(Timestamp(0))?;
    assert!(!text.contains("alluvium_lag_records{"), "{text}");
    assert_eq!(metrics.progress().first().and_then(|flow| flow.lag), None);
    Ok(())
}

#[test]
fn freshness_is_the_age_of_the_newest_record_and_never_negative() -> Result<()> {
    let metrics = Metrics::try_new()?;
    let flow: Name = "orders".parse()?;
    metrics.newest(&flow, Timestamp(5_000));
    metrics.newest(&flow, Timestamp(2_000));
    check(&metrics, 6_500, &[r#"alluvium_freshness_seconds{flow="orders"} 1.5"#])?;
    check(&metrics, 1_000, &[r#"alluvium_freshness_seconds{flow="orders"} 0"#])
}

#[test]
fn a_flow_is_in_one_state_at_a_time() -> Result<()> {
    let metrics = Metrics::try_new()?;
    let flow: Name = "orders".parse()?;
    metrics.expect(&flow);
    metrics.set_state(&flow, FlowState::Halted);
    metrics.expect(&flow);
    check(
        &metrics,
        0,
        &[
            r#"alluvium_flow_state{flow="orders",state="halted"} 1"#,
            r#"alluvium_flow_state{flow="orders",state="starting"} 0"#,
        ],
    )
}

#[test]
fn every_family_is_documented_with_its_labels() {
    let page = include_str!("../../../docs/guide/metrics.md");
    for family in FAMILIES {
        let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        let row = format!("| `{}` | {} | {} | {} |", family.name, family.kind, labels.join(", "), family.help);
        assert!(page.contains(&row), "docs/guide/metrics.md lacks the row\n{row}");
    }
}

#[test]
fn names_follow_the_conventions() {
    for family in FAMILIES {
        assert!(family.name.starts_with("alluvium_"), "{}", family.name);
        assert_eq!(family.kind == "counter", family.name.ends_with("_total"), "{}", family.name);
        assert!(family.help.ends_with('.'), "{}", family.help);
    }
}
