//! What the command line and the environment ask for, checked before anything is measured.

use std::path::PathBuf;
use std::thread::available_parallelism;

use alluvium_benches::arguments::Arguments;
use alluvium_benches::report::{heading, service_version};
use alluvium_catalog::{Error, Result};
use serde_json::{Value, json};

/// What to measure, and where.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) workloads: Vec<String>,
    pub(crate) records: u64,
    pub(crate) store: StoreKind,
    /// The cores that children are held to.
    pub(crate) cores: Option<usize>,
    /// `commit.rows` of the flows; the engine's default when not given.
    pub(crate) batch_rows: Option<u64>,
    pub(crate) partitions: i32,
    /// Sections that go into the flows' `alluvium.toml`.
    pub(crate) settings: String,
    /// How often each measurement is taken; the fastest counts.
    pub(crate) rounds: u32,
    pub(crate) json: Option<PathBuf>,
    pub(crate) freshness: bool,
    /// Records a second, when freshness is measured.
    pub(crate) rate: u64,
    /// How long, when freshness is measured.
    pub(crate) seconds: u64,
    pub(crate) bootstrap: String,
    pub(crate) bucket: Option<Bucket>,
}

/// Where tables are put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreKind {
    Local,
    S3,
}

/// A bucket of an S3 server.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    pub(crate) endpoint: String,
    pub(crate) name: String,
    pub(crate) key: String,
    pub(crate) secret: String,
}

impl Asked {
    pub(crate) fn read() -> Result<Self> {
        let arguments = Arguments::read(&[
            "workload",
            "records",
            "store",
            "cores",
            "batch-rows",
            "partitions",
            "settings",
            "rounds",
            "json",
            "freshness!",
            "rate",
            "seconds",
        ])?;
        let store = match arguments.text("store").unwrap_or("local") {
            "local" => StoreKind::Local,
            "s3" => StoreKind::S3,
            other => return Err(Error::invalid(format!("--store cannot be {other}")).with_hint("local or s3")),
        };
        let workloads = arguments.list("workload")?.unwrap_or_else(|| vec!["uniform".to_owned()]);
        let bucket = if store == StoreKind::S3 { Some(bucket()?) } else { None };
        let settings = arguments.text("settings").map(read_settings).transpose()?.unwrap_or_default();
        Ok(Self {
            workloads,
            records: arguments.get("records")?.unwrap_or(1_000_000),
            store,
            cores: arguments.get("cores")?,
            batch_rows: arguments.get("batch-rows")?,
            partitions: arguments.get("partitions")?.unwrap_or(4),
            settings,
            rounds: arguments.get("rounds")?.unwrap_or(1).max(1),
            json: arguments.get("json")?,
            freshness: arguments.has("freshness"),
            rate: arguments.get("rate")?.unwrap_or(10_000).max(1),
            seconds: arguments.get("seconds")?.unwrap_or(30).max(1),
            bootstrap: variable("ALLUVIUM_TEST_KAFKA")?,
            bucket,
        })
    }

    /// Returns the cores that children can use.
    pub(crate) fn n_cores(&self) -> usize {
        let all = available_parallelism().map_or(1, usize::from);
        self.cores.map_or(all, |cores| cores.clamp(1, all))
    }

    /// Returns lines that say what is measured on what.
    pub(crate) fn heading(&self) -> String {
        let servers: &[(&str, &str)] = match self.store {
            StoreKind::Local => &[("Kafka", "KAFKA")],
            StoreKind::S3 => &[("Kafka", "KAFKA"), ("MinIO", "MINIO")],
        };
        let servers = servers.iter().map(|(name, key)| format!("{name} {}", service_version(key).unwrap_or("unknown")));
        let servers: Vec<String> = servers.collect();
        let store = if self.store == StoreKind::Local { "local disk" } else { "S3" };
        let held = if self.cores.is_some() { " (held by taskset; broker and store are not)" } else { "" };
        format!(
            "{}tests/services starts {}\n{} cores{held}, tables on {store}, {} partitions\n",
            heading(),
            servers.join(" and "),
            self.n_cores(),
            self.partitions
        )
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "program": heading().trim_end(),
            "workloads": self.workloads,
            "records": self.records,
            "store": if self.store == StoreKind::Local { "local" } else { "s3" },
            "cores": self.n_cores(),
            "held_by_taskset": self.cores.is_some(),
            "batch_rows": self.batch_rows,
            "partitions": self.partitions,
            "settings": self.settings,
            "rounds": self.rounds,
        })
    }
}

/// Reads sections that follow the benchmark's own settings.
fn read_settings(path: &str) -> Result<String> {
    std::fs::read_to_string(path).map_err(|cause| Error::invalid(format!("cannot read {path}")).with_source(cause))
}

fn bucket() -> Result<Bucket> {
    Ok(Bucket {
        endpoint: variable("ALLUVIUM_TEST_S3")?,
        name: variable("ALLUVIUM_TEST_S3_BUCKET")?,
        key: variable("ALLUVIUM_TEST_S3_KEY")?,
        secret: variable("ALLUVIUM_TEST_S3_SECRET")?,
    })
}

fn variable(name: &str) -> Result<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty()).ok_or_else(|| {
        Error::invalid(format!("this benchmark runs against real services, and {name} is not set"))
            .with_hint("tests/services up && eval \"$(tests/services env)\"")
    })
}
