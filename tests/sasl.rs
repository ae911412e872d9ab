//! The secured path, for real: every SASL mechanism over TLS, with a password that only the environment holds.

use std::time::Duration;

use crate::harness::lake::Lake;
use crate::harness::ledger::{Ledger, Workload};
use crate::harness::pipeline::{self, Variant};
use crate::harness::program::Program;
use crate::harness::services::SecureBroker;
use crate::harness::topic::Topic;
use crate::harness::{TestResult, audit, services};

/// How long a refused password may take to be said.
const REFUSED_WITHIN: Duration = Duration::from_secs(60);

/// Returns the connection's options, and the pipeline over `topic`.
fn secured(broker: &SecureBroker, topic: &Topic, mechanism: &str) -> String {
    let connection = format!(
        ", 'security.protocol' = 'SASL_SSL', 'sasl.mechanism' = '{mechanism}', 'sasl.username' = '{}', \
         'sasl.password' = secret('env', 'SHOP_PASSWORD'), 'ssl.ca.location' = '{}'",
        broker.user,
        broker.authority.display()
    );
    pipeline::both_flows(&broker.bootstrap, topic, &Variant { connection, ..Variant::default() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_land_through_every_sasl_mechanism_over_tls() -> TestResult {
    let (Some(kafka), Some(broker)) = (services::kafka()?, services::secure_kafka()?) else { return Ok(()) };
    let topic = Topic::create(&kafka, 2).await?;
    let mut ledger = Ledger::default();
    topic.produce(Workload::new(6, 40, 2).take(400), &mut ledger)?;
    for mechanism in ["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"] {
        let lake = Lake::on_disk()?;
        let program = Program::on(&lake).with("SHOP_PASSWORD", &broker.password);
        let file = program.write("pipeline.sql", &secured(&broker, &topic, mechanism))?;
        let ended = program.run(&["run", "--once", &file])?;
        ended.check(0)?;
        audit::both_flows(&lake, &ledger, topic.name()).await?;
        lake.check_free_of(&broker.password)?;
        assert!(!ended.err.contains(&broker.password) && !ended.out.contains(&broker.password));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_said_at_once_and_not_repeated() -> TestResult {
    let (Some(kafka), Some(broker)) = (services::kafka()?, services::secure_kafka()?) else { return Ok(()) };
    let topic = Topic::create(&kafka, 1).await?;
    let lake = Lake::on_disk()?;
    let program = Program::on(&lake).with("SHOP_PASSWORD", "not-the-password");
    let file = program.write("pipeline.sql", &secured(&broker, &topic, "SCRAM-SHA-512"))?;
    let ended = program.start(&["run", "--once", &file])?.wait(REFUSED_WITHIN)?;
    assert_ne!(ended.status.code(), Some(0));
    let said = format!("{}{}", ended.out, ended.err);
    assert!(said.to_lowercase().contains("authentication"), "{said}");
    assert!(!said.contains("not-the-password"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_is_not_set_is_named() -> TestResult {
    let (Some(kafka), Some(broker)) = (services::kafka()?, services::secure_kafka()?) else { return Ok(()) };
    let topic = Topic::create(&kafka, 1).await?;
    let lake = Lake::on_disk()?;
    let program = Program::on(&lake);
    let file = program.write("pipeline.sql", &secured(&broker, &topic, "SCRAM-SHA-512"))?;
    let ended = program.start(&["run", "--once", &file])?.wait(REFUSED_WITHIN)?;
    assert_ne!(ended.status.code(), Some(0));
    assert!(format!("{}{}", ended.out, ended.err).contains("SHOP_PASSWORD"), "{}", ended.err);
    Ok(())
}
