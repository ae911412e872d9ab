//! The table of settings: every key with its variable, default and meaning; and the ranges of numbers.
//!
//! The file's reader, the variables' reader, the checks for unknown names and the documentation all go by this table.

use std::ops::RangeInclusive;
use std::time::Duration;

use alluvium_catalog::{Error, nearest};

/// The variable that names the settings file; it is no key of the file itself.
pub(super) const CONFIG_VARIABLE: &str = "ALLUVIUM_CONFIG";

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Its place in the file: `section.key`, or `key` at the top.
    pub path: &'static str,
    /// The variable that goes over the file; empty where there is none.
    pub variable: &'static str,
    /// The default as it would be written in the file; empty where there is none.
    pub default: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

/// Every setting, in the order of the documentation.
pub const KEYS: [Key; 46] = [
    Key {
        path: "warehouse",
        variable: "ALLUVIUM_WAREHOUSE",
        default: r#""./warehouse""#,
        meaning: "Where tables without a LOCATION live, at `<warehouse>/<schema>/<table>`: a folder or `s3://bucket/folder`.",
    },
    Key {
        path: "catalog",
        variable: "ALLUVIUM_CATALOG",
        default: "",
        meaning: "The catalog's SQLite file, a path or `sqlite://path`. Without it, `_alluvium/catalog.db` in a local warehouse, else `./alluvium.db`.",
    },
    Key {
        path: "storage.endpoint",
        variable: "",
        default: "",
        meaning: "The S3 endpoint, such as `http://localhost:9000` for MinIO; without it, AWS. `AWS_ENDPOINT_URL` goes over it.",
    },
    Key { path: "storage.region", variable: "", default: "", meaning: "The S3 region. `AWS_REGION` goes over it." },
    Key {
        path: "storage.access_key_id",
        variable: "",
        default: "",
        meaning: "The S3 access key. `AWS_ACCESS_KEY_ID` goes over it.",
    },
    Key {
        path: "storage.secret_access_key",
        variable: "",
        default: "",
        meaning: "The S3 secret key; better left to the environment. `AWS_SECRET_ACCESS_KEY` goes over it.",
    },
    Key {
        path: "storage.session_token",
        variable: "",
        default: "",
        meaning: "The token of temporary S3 credentials. `AWS_SESSION_TOKEN` goes over it.",
    },
    Key {
        path: "storage.allow_http",
        variable: "",
        default: "",
        meaning: "Whether an `http://` endpoint is accepted. `AWS_ALLOW_HTTP` goes over it.",
    },
    Key {
        path: "storage.virtual_hosted_style",
        variable: "",
        default: "false",
        meaning: "Whether the bucket stands in the host name rather than in the path.",
    },
    Key {
        path: "storage.request_timeout",
        variable: "",
        default: r#""30s""#,
        meaning: "How long one request to a store may take, its body included.",
    },
    Key {
        path: "storage.connect_timeout",
        variable: "",
        default: r#""5s""#,
        meaning: "How long a connection to a store may take to open.",
    },
    Key {
        path: "storage.retries",
        variable: "",
        default: "10",
        meaning: "How many times a request to a store is tried again; commits never are.",
    },
    Key {
        path: "storage.retry_timeout",
        variable: "",
        default: r#""180s""#,
        meaning: "How long a request to a store is tried again at most.",
    },
    Key {
        path: "storage.fsync",
        variable: "",
        default: "true",
        meaning: "Whether files on local disk are flushed before a commit counts; false is for tests.",
    },
    Key {
        path: "batch.rows",
        variable: "ALLUVIUM_BATCH_ROWS",
        default: "125_000",
        meaning: "A batch closes at this many records, where its flow does not say otherwise.",
    },
    Key {
        path: "batch.bytes",
        variable: "ALLUVIUM_BATCH_BYTES",
        default: r#""256 MiB""#,
        meaning: "A batch closes at this many bytes of keys and values.",
    },
    Key {
        path: "batch.interval",
        variable: "ALLUVIUM_COMMIT_INTERVAL",
        default: r#""10s""#,
        meaning: "A batch closes this long after its first record.",
    },
    Key {
        path: "limits.commit_attempts",
        variable: "ALLUVIUM_COMMIT_ATTEMPTS",
        default: "20",
        meaning: "How many times a commit that meets conflicts is tried before its flow stops.",
    },
    Key {
        path: "limits.retry_wait_min",
        variable: "ALLUVIUM_RETRY_WAIT_MIN",
        default: r#""100ms""#,
        meaning: "The first wait before something that failed is tried again; it doubles each time.",
    },
    Key {
        path: "limits.retry_wait_max",
        variable: "ALLUVIUM_RETRY_WAIT_MAX",
        default: r#""10s""#,
        meaning: "The longest such wait.",
    },
    Key {
        path: "limits.once_timeout",
        variable: "ALLUVIUM_ONCE_TIMEOUT",
        default: r#""30s""#,
        meaning: "How long `run --once` waits for a service that does not answer before a flow gives up.",
    },
    Key {
        path: "limits.drain_timeout",
        variable: "ALLUVIUM_DRAIN_TIMEOUT",
        default: r#""30s""#,
        meaning: "How long a stop may wait for open batches to land before it drops them, which is safe.",
    },
    Key {
        path: "limits.sql_memory",
        variable: "ALLUVIUM_SQL_MEMORY",
        default: r#""1 GiB""#,
        meaning: "The memory that the queries of `alluvium sql` may use, and the query of each flow beside its batch: a join holds one side in it.",
    },
    Key {
        path: "limits.checkpoint_interval",
        variable: "ALLUVIUM_CHECKPOINT_INTERVAL",
        default: "100",
        meaning: "How many versions lie between two checkpoints of a table that says nothing else; written into tables that are created.",
    },
    Key {
        path: "upkeep.compaction",
        variable: "",
        default: "true",
        meaning: "Whether small files, and files with many deleted rows, are rewritten beside the batches.",
    },
    Key {
        path: "upkeep.target_size",
        variable: "",
        default: r#""128 MiB""#,
        meaning: "The size that compacted files are given.",
    },
    Key {
        path: "upkeep.files_min",
        variable: "",
        default: "8",
        meaning: "How many files of like size in one partition a compaction waits for.",
    },
    Key {
        path: "upkeep.deleted_share",
        variable: "",
        default: "20",
        meaning: "The share of deleted rows, in percent, from which on a file is rewritten.",
    },
    Key {
        path: "upkeep.compaction_size",
        variable: "",
        default: r#""1 GiB""#,
        meaning: "What one compaction reads at most; in a clustered table, also what a sorted run holds.",
    },
    Key {
        path: "upkeep.sort_memory",
        variable: "",
        default: r#""256 MiB""#,
        meaning: "The memory for sorting the rows of a clustered table; what does not fit goes to the folder for temporary files.",
    },
    Key {
        path: "upkeep.hourly_size",
        variable: "",
        default: r#""64 GiB""#,
        meaning: "What compactions, work on the log and vacuums of one table read in an hour at most, together; several times `upkeep.compaction_size`, or large compactions wait for long.",
    },
    Key {
        path: "upkeep.wall_share",
        variable: "",
        default: "25",
        meaning: "The share of time, in percent, that compactions, work on the log (checkpoints, checksums, clean-up) and vacuums of one table may each be at work.",
    },
    Key {
        path: "upkeep.checkpoint_size",
        variable: "",
        default: r#""32 MiB""#,
        meaning: "A checkpoint is due after this much log, if `limits.checkpoint_interval` does not come first.",
    },
    Key {
        path: "upkeep.checksums",
        variable: "",
        default: "true",
        meaning: "Whether version checksums (`.crc`) are written.",
    },
    Key {
        path: "upkeep.vacuum",
        variable: "",
        default: "false",
        meaning: "Whether a running flow removes files that no version within the retention names.",
    },
    Key {
        path: "upkeep.vacuum_retention",
        variable: "",
        default: r#""168h""#,
        meaning: "How long such files are kept; never less than the table's `delta.deletedFileRetentionDuration`.",
    },
    Key {
        path: "upkeep.vacuum_interval",
        variable: "",
        default: r#""24h""#,
        meaning: "How long from one vacuum of a table to the next.",
    },
    Key {
        path: "index.memory",
        variable: "ALLUVIUM_INDEX_MEMORY",
        default: r#""2 GiB""#,
        meaning: "The memory that the key index of one upsert table may take; a flow that needs more stops and says so.",
    },
    Key {
        path: "index.total_memory",
        variable: "ALLUVIUM_INDEX_TOTAL_MEMORY",
        default: "",
        meaning: "The memory that the key indexes of all flows of a process may take together; the flow that finds no more room stops and says so. Without it, half of the memory of the machine or of its control groups.",
    },
    Key {
        path: "index.order_cache",
        variable: "ALLUVIUM_INDEX_ORDER_CACHE",
        default: r#""32 MiB""#,
        meaning: "The memory for the order of rows written lately, by which late records are told from newer ones without reading files.",
    },
    Key {
        path: "index.snapshot_interval",
        variable: "ALLUVIUM_INDEX_SNAPSHOT_INTERVAL",
        default: "500",
        meaning: "How many versions lie between two snapshots of a key index, kept beside its table for the next start; 0 keeps none.",
    },
    Key {
        path: "index.snapshot_folder",
        variable: "ALLUVIUM_INDEX_SNAPSHOT_FOLDER",
        default: "",
        meaning: "Where the snapshots of tables in S3 are kept on this machine as well, so that its next start need not fetch them; `\"\"` in the file keeps none. Without it, beside the catalog: `alluvium.db.index` for `alluvium.db`.",
    },
    Key {
        path: "listen.metrics",
        variable: "ALLUVIUM_LISTEN",
        default: r#""127.0.0.1:9464""#,
        meaning: "Where `/metrics`, `/healthz`, `/readyz` and `/v1/lookup` are served: a loopback address, or `off`.",
    },
    Key {
        path: "log.format",
        variable: "ALLUVIUM_LOG_FORMAT",
        default: r#""auto""#,
        meaning: "`text`, `json`, or `auto`: text on a terminal, JSON lines elsewhere.",
    },
    Key {
        path: "log.level",
        variable: "ALLUVIUM_LOG",
        default: "",
        meaning: "`error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,alluvium=debug`. Without it, `info` of Alluvium itself for `run`, and `warn` for all else.",
    },
    Key {
        path: "otlp.endpoint",
        variable: "ALLUVIUM_OTLP_ENDPOINT",
        default: "",
        meaning: "Where OpenTelemetry traces go, OTLP over HTTP, such as `http://localhost:4318`. `OTEL_EXPORTER_OTLP_ENDPOINT` is read, too.",
    },
];

/// Below 16 MiB no join runs; above, the machine's memory is the bound.
pub(super) const SQL_MEMORY: RangeInclusive<u64> = 16 << 20..=1 << 44;
/// An empty index takes some tens of kilobytes; above, the machine's memory is the bound.
pub(super) const INDEX_MEMORY: RangeInclusive<u64> = 1 << 20..=1 << 44;
/// Waits below a millisecond are none.
pub(super) const RETRY_WAIT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(3_600);
/// Below a second, a broker that is well may seem not to be.
pub(super) const ONCE_WAIT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3_600);
/// Zero drops open batches at once.
pub(super) const DRAIN_WAIT: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3_600);
/// A request that takes longer is lost.
pub(super) const NETWORK_WAIT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(600);

/// Returns the error for a name that is in no table, with the nearest one that is.
pub(super) fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str> + Clone) -> Error {
    let error = Error::invalid(format!("unknown {what} {name}"));
    match nearest(name, known.clone()) {
        Some(near) => error.with_hint(format!("did you mean {near}?")),
        None => error.with_hint(format!("known are {}", known.collect::<Vec<_>>().join(", "))),
    }
}
