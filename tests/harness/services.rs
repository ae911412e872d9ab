//! Which services there are: the variables that `tests/services env` prints.
//!
//! A test whose service is missing says so on standard error and passes, so that `cargo test` works on a bare machine.
//! `ALLUVIUM_TEST_REQUIRE=1` makes it fail instead: the README's test command sets it.

use std::collections::BTreeSet;
use std::env;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::TestResult;

/// A Kafka that asks who is there, and hides nothing of what is said.
#[derive(Debug, Clone)]
pub(crate) struct SaslBroker {
    pub(crate) bootstrap: String,
    pub(crate) user: String,
    pub(crate) password: String,
}

/// A Kafka that asks who is there, over TLS.
#[derive(Debug, Clone)]
pub(crate) struct SecureBroker {
    pub(crate) bootstrap: String,
    pub(crate) authority: PathBuf,
    pub(crate) user: String,
    pub(crate) password: String,
}

/// A Kafka that shows a certificate, and a listener of it that asks for ours.
#[derive(Debug, Clone)]
pub(crate) struct TlsBroker {
    pub(crate) bootstrap: String,
    pub(crate) asking: String,
    pub(crate) authority: PathBuf,
    /// An authority that has nothing to do with the broker; its key lies beside it.
    pub(crate) stranger: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) key_password: String,
}

/// A bucket of an S3 server.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    pub(crate) endpoint: String,
    pub(crate) name: String,
    pub(crate) key: String,
    pub(crate) secret: String,
}

/// Returns the broker's address.
pub(crate) fn kafka() -> TestResult<Option<String>> {
    wanted("Kafka", &["ALLUVIUM_TEST_KAFKA"]).map(|values| values.and_then(|values| values.into_iter().next()))
}

/// Returns the broker behind SASL without TLS.
pub(crate) fn sasl_kafka() -> TestResult<Option<SaslBroker>> {
    let variables = ["ALLUVIUM_TEST_KAFKA_SASL_PLAINTEXT", "ALLUVIUM_TEST_KAFKA_USER", "ALLUVIUM_TEST_KAFKA_PASSWORD"];
    let values = wanted("Kafka with SASL_PLAINTEXT", &variables)?.map(<[String; 3]>::try_from);
    Ok(values.and_then(Result::ok).map(|[bootstrap, user, password]| SaslBroker { bootstrap, user, password }))
}

/// Returns the broker behind SASL over TLS.
pub(crate) fn secure_kafka() -> TestResult<Option<SecureBroker>> {
    let variables = [
        "ALLUVIUM_TEST_KAFKA_SASL",
        "ALLUVIUM_TEST_KAFKA_CA",
        "ALLUVIUM_TEST_KAFKA_USER",
        "ALLUVIUM_TEST_KAFKA_PASSWORD",
    ];
    let values = wanted("Kafka with SASL_SSL", &variables)?.map(<[String; 4]>::try_from);
    Ok(values.and_then(Result::ok).map(|[bootstrap, authority, user, password]| SecureBroker {
        bootstrap,
        authority: authority.into(),
        user,
        password,
    }))
}

/// Returns the broker behind TLS alone.
pub(crate) fn tls_kafka() -> TestResult<Option<TlsBroker>> {
    let variables = [
        "ALLUVIUM_TEST_KAFKA_SSL",
        "ALLUVIUM_TEST_KAFKA_MTLS",
        "ALLUVIUM_TEST_KAFKA_CA",
        "ALLUVIUM_TEST_KAFKA_OTHER_CA",
        "ALLUVIUM_TEST_KAFKA_CERTIFICATE",
        "ALLUVIUM_TEST_KAFKA_KEY",
        "ALLUVIUM_TEST_KAFKA_PASSWORD",
    ];
    let values = wanted("Kafka with SSL", &variables)?.map(<[String; 7]>::try_from);
    Ok(values.and_then(Result::ok).map(|[bootstrap, asking, authority, stranger, certificate, key, key_password]| {
        TlsBroker {
            bootstrap,
            asking,
            authority: authority.into(),
            stranger: stranger.into(),
            certificate: certificate.into(),
            key: key.into(),
            key_password,
        }
    }))
}

/// Returns a bucket of MinIO.
pub(crate) fn minio() -> TestResult<Option<Bucket>> {
    bucket("MinIO", "ALLUVIUM_TEST_S3")
}

/// Returns a bucket of the Versity gateway, which shares no code with MinIO.
pub(crate) fn versity() -> TestResult<Option<Bucket>> {
    bucket("the Versity gateway", "ALLUVIUM_TEST_S3_VERSITY")
}

/// Returns the Python that has DuckDB.
pub(crate) fn duckdb() -> TestResult<Option<PathBuf>> {
    Ok(wanted("DuckDB", &["ALLUVIUM_TEST_DUCKDB"])?.and_then(|values| values.into_iter().next()).map(PathBuf::from))
}

/// Returns a Python 3, whose standard library has pseudo-terminals.
pub(crate) fn python() -> TestResult<Option<PathBuf>> {
    let runs = std::process::Command::new("python3").args(["-c", "import pty"]).output();
    if runs.is_ok_and(|done| done.status.success()) {
        return Ok(Some(PathBuf::from("python3")));
    }
    let (service, why) = ("Python 3 with the module pty", "python3 does not run");
    if env::var("ALLUVIUM_TEST_REQUIRE").is_ok_and(|value| value == "1") {
        return Err(required(service, why));
    }
    leave_out(service, why)?;
    Ok(None)
}

/// Returns the Python that has Polars and the package deltalake.
pub(crate) fn readers() -> TestResult<Option<PathBuf>> {
    let values = wanted("Polars and the Python package deltalake", &["ALLUVIUM_TEST_READERS"])?;
    Ok(values.and_then(|values| values.into_iter().next()).map(PathBuf::from))
}

/// Returns the Python that has Spark, where `tests/spark` names one: it is not among what every run must have.
pub(crate) fn spark() -> TestResult<Option<PathBuf>> {
    let named = env::var_os("ALLUVIUM_TEST_SPARK").filter(|value| !value.is_empty()).map(PathBuf::from);
    if named.is_none() {
        leave_out("Spark", "ALLUVIUM_TEST_SPARK is not set")?;
    }
    Ok(named)
}

fn bucket(service: &str, endpoint: &str) -> TestResult<Option<Bucket>> {
    let variables = [endpoint, "ALLUVIUM_TEST_S3_BUCKET", "ALLUVIUM_TEST_S3_KEY", "ALLUVIUM_TEST_S3_SECRET"];
    let values = wanted(service, &variables)?.map(<[String; 4]>::try_from);
    Ok(values.and_then(Result::ok).map(|[endpoint, name, key, secret]| Bucket { endpoint, name, key, secret }))
}

/// Returns the values of `variables`, or says that the test goes without `service`.
fn wanted(service: &str, variables: &[&str]) -> TestResult<Option<Vec<String>>> {
    let set = |name: &&str| env::var(name).ok().filter(|value| !value.is_empty());
    let missing: Vec<&str> = variables.iter().filter(|name| set(name).is_none()).copied().collect();
    let why = match missing.as_slice() {
        [] => return Ok(Some(variables.iter().filter_map(set).collect())),
        [variable] => format!("{variable} is not set"),
        several => format!("{} are not set", several.join(", ")),
    };
    if env::var("ALLUVIUM_TEST_REQUIRE").is_ok_and(|value| value == "1") {
        return Err(required(service, &why));
    }
    leave_out(service, &why)?;
    Ok(None)
}

fn required(service: &str, why: &str) -> Box<dyn std::error::Error + Send + Sync> {
    let hint = "run tests/services up, then eval \"$(tests/services env)\"; \
                for a server that runs elsewhere, tests/services help says what each variable is";
    format!("{} needs {service}, but {why}: {hint}", test()).into()
}

/// Says that a test goes without `service`, once.
pub(crate) fn leave_out(service: &str, why: &str) -> TestResult {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

    let text = format!("left out: {}, which needs {service} ({why})", test());
    if SAID.lock().unwrap_or_else(PoisonError::into_inner).insert(text.clone()) {
        writeln!(std::io::stderr(), "{text}")?;
    }
    Ok(())
}

fn test() -> String {
    std::thread::current().name().unwrap_or("a test").to_owned()
}
