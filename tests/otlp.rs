//! Traces as a collector receives them: a span of each batch and of each of its stages, and nothing of what is secret. A
//! collector that is not there, or does not answer, keeps no batch from landing and the program not from ending.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::trace::v1::Span;

use crate::harness::TestResult;
use crate::harness::collector::{Collector, text};
use crate::harness::lake::Lake;
use crate::harness::program::Program;
use crate::harness::shop::{self, Shop};

/// What every batch goes through.
const STAGES: [&str; 5] = ["decode", "transform", "write", "commit", "record"];

/// What must not be in a trace: credentials, and parts of what the records hold.
const SECRETS: [&str; 4] = ["the-password-of-the-broker", "the-token-of-the-collector", "customer \u{e9}", "gift"];

/// How long a program may go on trying to send its last traces, and how long two runs may differ otherwise.
const SLACK: Duration = Duration::from_secs(12);

/// Returns the commits of each flow of a run's summary.
fn commits(summary: &serde_json::Value) -> BTreeMap<String, u64> {
    let flows = summary["flows"].as_array().into_iter().flatten();
    flows.filter_map(|flow| Some((flow["flow"].as_str()?.to_owned(), flow["commits"].as_u64()?))).collect()
}

/// Returns how many spans called `name` there are below `batch`.
fn n_below(batch: &Span, name: &str, spans: &[Span]) -> usize {
    let is_below = |span: &&Span| span.parent_span_id == batch.span_id && span.trace_id == batch.trace_id;
    spans.iter().filter(is_below).filter(|span| span.name == name).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_span_of_each_batch_and_of_each_stage_leaves_and_no_secret_does() -> TestResult {
    let collector = Collector::start().await?;
    let shop = Shop::open(Lake::on_disk()?, 0).await?;
    shop.sell(0).await?;
    // The broker of the shop knows no passwords; what a run registers beside its flows has one.
    let vault = "CREATE CONNECTION vault TYPE kafka WITH ('bootstrap.servers' = '127.0.0.1:1',
        'security.protocol' = 'SASL_SSL', 'sasl.mechanism' = 'PLAIN', 'sasl.username' = 'shop',
        'sasl.password' = secret('env', 'SHOP_PASSWORD'));\n";
    let pipeline = format!("{vault}{}", shop::pipeline(shop.bootstrap()));
    let [password, token, ..] = SECRETS;
    let program = Program::on(&shop.lake)
        .with("SHOP_PASSWORD", password)
        .with("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint())
        .with("OTEL_EXPORTER_OTLP_HEADERS", format!("x-token={token}"));
    program.write("orders.sql", &pipeline)?;
    let landed = commits(&program.json(&["run", "--once", "--json", "orders.sql"])?);

    let spans = collector.spans();
    let batches: Vec<&Span> = spans.iter().filter(|span| span.name == "batch").collect();
    let mut sent: BTreeMap<String, u64> = BTreeMap::new();
    for batch in &batches {
        *sent.entry(text(&batch.attributes, "flow").ok_or("a batch without a flow")?).or_default() += 1;
        for stage in STAGES {
            assert_eq!(n_below(batch, stage, &spans), 1, "{stage} of {batch:?}");
        }
        assert!(batch.end_time_unix_nano > batch.start_time_unix_nano, "{batch:?}");
    }
    assert_eq!(sent, landed);
    assert!(landed.len() == 2 && landed.values().all(|n_commits| *n_commits > 0), "{landed:?}");
    let n_dead_letters: usize = batches.iter().map(|batch| n_below(batch, "dead_letters", &spans)).sum();
    assert!(n_dead_letters > 0, "no span of the dead letters, of which the shop has some");

    let exports = collector.exports();
    for export in &exports {
        assert_eq!(export.headers.get("x-token").map(|value| value.as_bytes()), Some(token.as_bytes()));
        let resources = export.request.resource_spans.iter().filter_map(|spans| spans.resource.as_ref());
        for resource in resources {
            assert_eq!(text(&resource.attributes, "service.name").as_deref(), Some("alluvium"));
        }
        for secret in SECRETS {
            let holds = export.body.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!holds, "'{secret}' left in a trace");
        }
    }
    for secret in [password, token] {
        shop.lake.check_free_of(secret)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_does_not_answer_stops_nothing() -> TestResult {
    let shop = Shop::open(Lake::on_disk()?, 0).await?;
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let silent = (format!("http://{}", silent.local_addr()?), silent);
    let mut took = Vec::new();
    for (wave, endpoint) in [None, Some("http://127.0.0.1:1"), Some(&silent.0)].into_iter().enumerate() {
        shop.sell(i64::try_from(wave)?).await?;
        let mut program = Program::on(&shop.lake);
        if let Some(endpoint) = endpoint {
            program = program.with("ALLUVIUM_OTLP_ENDPOINT", endpoint);
        }
        let begun = Instant::now();
        let landed = commits(&program.json(&["run", "--once", "--json", "orders.sql"])?);
        took.push(begun.elapsed());
        assert!(landed.len() == 2 && landed.values().all(|n_commits| *n_commits > 0), "{endpoint:?}: {landed:?}");
    }
    assert!(took.iter().all(|with| *with < took[0] + SLACK), "{took:?}, the first without a collector");
    Ok(())
}
