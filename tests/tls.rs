//! TLS without SASL, for real: the broker's certificate alone, and ours as well, whose key only a password opens.

use std::path::Path;
use std::time::Duration;

use crate::harness::lake::Lake;
use crate::harness::ledger::{Ledger, Workload};
use crate::harness::pipeline::{self, Variant};
use crate::harness::program::{Finished, Program};
use crate::harness::services::TlsBroker;
use crate::harness::topic::Topic;
use crate::harness::{TestResult, audit, services};

/// How long it may take until a connection that cannot come about is given up: it must not be tried until something
/// times out.
const REFUSED_WITHIN: Duration = Duration::from_secs(20);

/// The options of a connection that trusts `authority` and shows no certificate.
fn trusting(authority: &Path) -> String {
    format!(", 'security.protocol' = 'SSL', 'ssl.ca.location' = '{}'", authority.display())
}

/// The options by which a connection shows a certificate.
fn showing(certificate: &Path, key: &Path) -> String {
    format!(
        ", 'ssl.certificate.location' = '{}', 'ssl.key.location' = '{}', \
         'ssl.key.password' = secret('env', 'SHOP_KEY_PASSWORD')",
        certificate.display(),
        key.display()
    )
}

/// Runs the flows through a connection that must be refused, and returns what was said.
async fn refusal(broker: &TlsBroker, bootstrap: &str, connection: String, password: &str) -> TestResult<String> {
    let lake = Lake::on_disk()?;
    let kafka = services::kafka()?.ok_or("a broker with TLS, but none without")?;
    let topic = Topic::create(&kafka, 1).await?;
    let program = Program::on(&lake).with("SHOP_KEY_PASSWORD", password);
    let variant = Variant { connection, ..Variant::default() };
    let file = program.write("pipeline.sql", &pipeline::both_flows(bootstrap, &topic, &variant))?;
    let ended: Finished = program.start(&["run", "--once", &file])?.wait(REFUSED_WITHIN)?;
    ended.check(1)?;
    let said = format!("{}{}", ended.out, ended.err);
    for secret in [password, &broker.key_password] {
        assert!(!said.contains(secret), "the password is repeated:\n{said}");
        lake.check_free_of(secret)?;
    }
    Ok(said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_land_over_tls_with_and_without_a_certificate_of_ours() -> TestResult {
    let (Some(kafka), Some(broker)) = (services::kafka()?, services::tls_kafka()?) else { return Ok(()) };
    let topic = Topic::create(&kafka, 2).await?;
    let mut ledger = Ledger::default();
    topic.produce(Workload::new(9, 40, 2).take(400), &mut ledger)?;
    let trusting = trusting(&broker.authority);
    let ours = format!("{trusting}{}", showing(&broker.certificate, &broker.key));
    for (bootstrap, connection) in [(&broker.bootstrap, trusting), (&broker.asking, ours)] {
        let lake = Lake::on_disk()?;
        let program = Program::on(&lake).with("SHOP_KEY_PASSWORD", &broker.key_password);
        let variant = Variant { connection, ..Variant::default() };
        let file = program.write("pipeline.sql", &pipeline::both_flows(bootstrap, &topic, &variant))?;
        let ended = program.run(&["run", "--once", &file])?;
        ended.check(0)?;
        audit::both_flows(&lake, &ledger, topic.name()).await?;
        lake.check_free_of(&broker.key_password)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_another_authority_vouches_for_is_refused() -> TestResult {
    let Some(broker) = services::tls_kafka()? else { return Ok(()) };
    let said = refusal(&broker, &broker.bootstrap, trusting(&broker.stranger), "unused-here").await?;
    for part in ["certificate verify failed", "'ssl.ca.location' must name the authority"] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_the_broker_asks_for_and_misses_is_named() -> TestResult {
    let Some(broker) = services::tls_kafka()? else { return Ok(()) };
    let said = refusal(&broker, &broker.asking, trusting(&broker.authority), "unused-here").await?;
    for part in ["do not let connection broker read", "set 'ssl.certificate.location' and 'ssl.key.location'"] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_the_broker_does_not_trust_is_named() -> TestResult {
    let Some(broker) = services::tls_kafka()? else { return Ok(()) };
    let strange = showing(&broker.stranger, &broker.stranger.with_extension("key"));
    let connection = format!("{}{strange}", trusting(&broker.authority));
    let said = refusal(&broker, &broker.asking, connection, "unused-here").await?;
    let part = "'ssl.certificate.location' must be current and by an authority that the brokers trust";
    assert!(said.contains(part), "{part} is not in\n{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_of_the_key_is_said_and_not_repeated() -> TestResult {
    let Some(broker) = services::tls_kafka()? else { return Ok(()) };
    let connection = format!("{}{}", trusting(&broker.authority), showing(&broker.certificate, &broker.key));
    let said = refusal(&broker, &broker.asking, connection, "not-the-password").await?;
    for part in ["ssl.key.location", "'ssl.key.password'"] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
    Ok(())
}
