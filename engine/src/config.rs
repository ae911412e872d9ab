//! The program's settings: `alluvium.toml`, `ALLUVIUM_*` variables and flags become one value that cannot be wrong.
//!
//! A flag goes over a variable, a variable over the file, the file over the default. A key or variable that is not known
//! is refused, with its place and the nearest one that is. Nothing past this module reads a setting from anywhere else.
//! The table of keys is in [`keys`]; `docs/guide/settings.md` shows it, and a test holds the page to it.

mod document;
mod index;
mod keys;
mod upkeep;
mod value;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use alluvium_catalog::{Error, Location, Result, StorageSettings};
use alluvium_sql::BatchLimits;
use url::Url;

pub use index::IndexLimits;
pub use keys::{KEYS, Key};
pub use upkeep::UpkeepSettings;
use value::Values;

/// The file that is read from the current directory when no other is named.
const FILE: &str = "alluvium.toml";

/// Everything that can be set, parsed and checked.
#[derive(Debug, Clone)]
pub struct Settings {
    warehouse: Location,
    catalog: PathBuf,
    storage: StorageSettings,
    batch: BatchLimits,
    limits: Limits,
    listen: Listen,
    log: LogSettings,
    otlp: Option<Url>,
}

/// Bounds on attempts, waits, memory and upkeep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// How many times a commit that meets a conflict is tried before its flow stops.
    pub commit_attempts: NonZeroU32,
    /// The first wait before something that failed is tried again; it doubles each time.
    pub retry_wait_min: Duration,
    /// The longest such wait.
    pub retry_wait_max: Duration,
    /// How long `--once` waits for a service that does not answer before a flow gives up.
    pub once_timeout: Duration,
    /// How long a drain may take before the open batch is dropped.
    pub drain_timeout: Duration,
    /// The memory that the queries of a session, or one flow's query, may use before they spill or fail.
    pub sql_memory_bytes: NonZeroUsize,
    /// The number of versions from one checkpoint of a table's log to the next.
    pub checkpoint_interval: NonZeroU64,
    /// What upkeep may do.
    pub upkeep: UpkeepSettings,
    /// The bounds of key indexes.
    pub index: IndexLimits,
}

/// Where `/metrics`, `/healthz`, `/readyz` and `/v1/lookup` are served. Always loopback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// Nowhere.
    Off,
    /// Here by default; a second process on the same machine finds it taken and goes on without.
    Preferred(SocketAddr),
    /// Here, as was asked for; taken is an error.
    At(SocketAddr),
}

/// How log lines look and which there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// How they look.
    pub format: LogFormat,
    /// Which there are, where that is set: directives of `tracing_subscriber::EnvFilter`, which have parsed.
    filter: Option<String>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// Text for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What the command line says of settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--config`
    pub config: Option<PathBuf>,
    /// `--warehouse`
    pub warehouse: Option<String>,
    /// `--catalog`
    pub catalog: Option<String>,
}

/// The environment variables of the process, taken once.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, OsString>,
}

impl Settings {
    /// Reads the settings.
    ///
    /// # Errors
    /// `Invalid`, naming file, line and column, or the variable, or the flag, when something is unknown or out of range.
    pub fn load(flags: &Flags, environment: &Environment) -> Result<Self> {
        environment.refuse_unknown()?;
        let mut values = Values::default();
        if let Some(file) = find_file(flags, environment)? {
            values = document::read(&file)?;
        }
        values.lay_over_variables(environment)?;
        values.lay_over_flags(flags);
        Self::build(&values, environment)
    }

    fn build(values: &Values, environment: &Environment) -> Result<Self> {
        let warehouse = values.location("warehouse")?.map_or_else(|| "./warehouse".parse(), Ok)?;
        let catalog = match values.catalog("catalog")? {
            Some(path) => path,
            None => catalog_of(&warehouse),
        };
        Ok(Self {
            limits: limits(values, &catalog)?,
            catalog,
            warehouse,
            storage: storage(values)?.with_environment(&|name| environment.text(name))?,
            batch: batch(values)?,
            listen: values.listen("listen.metrics")?.unwrap_or(Listen::DEFAULT),
            log: log(values)?,
            otlp: values.http_url("otlp.endpoint")?,
        })
    }

    /// Returns the folder of tables that have no LOCATION of their own.
    pub fn warehouse(&self) -> &Location {
        &self.warehouse
    }

    /// Returns the catalog's SQLite file.
    pub fn catalog(&self) -> &Path {
        &self.catalog
    }

    /// Returns how stores are reached.
    pub fn storage(&self) -> &StorageSettings {
        &self.storage
    }

    /// Returns when the batches of flows close that do not say so themselves.
    pub fn batch(&self) -> BatchLimits {
        self.batch
    }

    /// Returns the bounds on attempts, waits, memory and upkeep.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Returns where metrics and health are served.
    pub fn listen(&self) -> Listen {
        self.listen
    }

    /// Returns how log lines look and which there are.
    pub fn log(&self) -> &LogSettings {
        &self.log
    }

    /// Returns the base URL of the OTLP endpoint, if traces are sent.
    pub fn otlp(&self) -> Option<&Url> {
        self.otlp.as_ref()
    }
}

impl Default for Limits {
    /// Waits add up to some two minutes over all attempts, which outlasts a store's restart; a checkpoint each 100
    /// versions keeps the replay of a log's tail below what one LIST returns.
    fn default() -> Self {
        Self {
            commit_attempts: NonZeroU32::MIN.saturating_add(19),
            retry_wait_min: Duration::from_millis(100),
            retry_wait_max: Duration::from_secs(10),
            once_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(30),
            sql_memory_bytes: NonZeroUsize::MIN.saturating_add((1 << 30) - 1),
            checkpoint_interval: NonZeroU64::MIN.saturating_add(99),
            upkeep: UpkeepSettings::default(),
            index: IndexLimits::default(),
        }
    }
}

impl Listen {
    /// The port that OpenTelemetry's Prometheus exporter has, too.
    const DEFAULT: Self = Self::Preferred(SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9464));
}

impl LogSettings {
    /// Returns log settings with the directives `filter`.
    ///
    /// # Errors
    /// `Invalid` when they do not parse.
    pub fn try_new(format: LogFormat, filter: Option<String>) -> Result<Self> {
        if let Some(filter) = &filter {
            tracing_subscriber::EnvFilter::try_new(filter).map_err(|source| {
                Error::invalid(format!("'{filter}' is not a log level"))
                    .with_hint("write error, warn, info, debug or trace, or directives such as info,alluvium=debug")
                    .with_source(source)
            })?;
        }
        Ok(Self { format, filter })
    }

    /// Returns the directives, where they are set; they parse.
    pub fn filter(&self) -> Option<&str> {
        self.filter.as_deref()
    }
}

impl Environment {
    /// Returns an environment of `variables`, such as those of `std::env::vars_os`.
    pub fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let named = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value));
        Self { variables: variables.into_iter().filter_map(named).collect() }
    }

    /// Returns the value of a variable that is set, not empty and UTF-8.
    pub fn text(&self, name: &str) -> Option<String> {
        let value = self.variables.get(name)?.to_str()?;
        (!value.is_empty()).then(|| value.to_owned())
    }

    fn refuse_unknown(&self) -> Result<()> {
        let known =
            || KEYS.iter().map(|key| key.variable).chain([keys::CONFIG_VARIABLE]).filter(|name| !name.is_empty());
        let ours = self.variables.keys().filter(|name| name.starts_with("ALLUVIUM_"));
        for name in ours.filter(|name| !name.starts_with("ALLUVIUM_TEST_") && !is_of_service(name)) {
            if !known().any(|known| known == name) {
                return Err(keys::unknown("environment variable", name, known()));
            }
            if self.variables.get(name).is_some_and(|value| value.to_str().is_none()) {
                return Err(Error::invalid(format!("environment variable {name} is not UTF-8")));
            }
        }
        Ok(())
    }
}

/// Tells whether Kubernetes sets a variable of this name in every container beside a service that is called alluvium.
fn is_of_service(name: &str) -> bool {
    let rest = name.strip_prefix("ALLUVIUM_").unwrap_or_default();
    rest == "PORT"
        || rest.starts_with("PORT_")
        || ["SERVICE_HOST", "SERVICE_PORT"].contains(&rest)
        || rest.starts_with("SERVICE_PORT_")
}

impl fmt::Debug for Environment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values may be credentials.
        formatter.debug_set().entries(self.variables.keys()).finish()
    }
}

/// Returns the file to read: the one that is named, or the one that lies in the current directory.
fn find_file(flags: &Flags, environment: &Environment) -> Result<Option<PathBuf>> {
    let named = flags.config.clone().or_else(|| environment.text(keys::CONFIG_VARIABLE).map(PathBuf::from));
    let Some(file) = named else {
        let usual = PathBuf::from(FILE);
        return Ok(usual.exists().then_some(usual));
    };
    // A pipe is as good as a file; of what cannot be read, reading says why.
    let said = match file.metadata() {
        Ok(found) if found.is_dir() => "is a folder",
        Err(cause) if cause.kind() == ErrorKind::NotFound => "does not exist",
        _ => return Ok(Some(file)),
    };
    let inside = file.join(FILE);
    let hint = if inside.is_file() {
        format!("did you mean {}?", inside.display())
    } else {
        "without --config and ALLUVIUM_CONFIG, alluvium.toml is read where it exists".to_owned()
    };
    Err(Error::invalid(format!("settings file {} {said}", file.display())).with_hint(hint))
}

/// A catalog is one file on the local disk: beside the tables where those are local, too, else here.
fn catalog_of(warehouse: &Location) -> PathBuf {
    match warehouse.local_path() {
        Some(folder) => folder.join("_alluvium").join("catalog.db"),
        None => PathBuf::from("alluvium.db"),
    }
}

fn storage(values: &Values) -> Result<StorageSettings> {
    let mut storage = StorageSettings::default();
    let millis = |wait: Duration| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    storage.endpoint = values.http_url("storage.endpoint")?.map(String::from);
    storage.region = values.text("storage.region")?;
    storage.access_key_id = values.text("storage.access_key_id")?;
    storage.secret_access_key = values.text("storage.secret_access_key")?;
    storage.session_token = values.text("storage.session_token")?;
    storage.allow_http = values.switch("storage.allow_http")?;
    if let Some(styled) = values.switch("storage.virtual_hosted_style")? {
        storage.virtual_hosted_style = styled;
    }
    if let Some(wait) = values.duration("storage.request_timeout", keys::NETWORK_WAIT)? {
        storage.request_timeout_ms = millis(wait);
    }
    if let Some(wait) = values.duration("storage.connect_timeout", keys::NETWORK_WAIT)? {
        storage.connect_timeout_ms = millis(wait);
    }
    if let Some(wait) = values.duration("storage.retry_timeout", keys::NETWORK_WAIT)? {
        storage.retry_timeout_ms = millis(wait);
    }
    if let Some(retries) = values.count("storage.retries", 0..=100)? {
        storage.retries_max = usize::try_from(retries).unwrap_or(usize::MAX);
    }
    if let Some(flushed) = values.switch("storage.fsync")? {
        storage.local_fsync = flushed;
    }
    Ok(storage)
}

fn batch(values: &Values) -> Result<BatchLimits> {
    let default = BatchLimits::default();
    let rows = values.count("batch.rows", BatchLimits::ROWS)?;
    let bytes = values.bytes("batch.bytes", BatchLimits::BYTES)?;
    Ok(BatchLimits {
        rows_max: rows.and_then(|rows| usize::try_from(rows).ok()).unwrap_or(default.rows_max),
        bytes_max: bytes.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(default.bytes_max),
        interval: values.duration("batch.interval", BatchLimits::INTERVAL)?.unwrap_or(default.interval),
    })
}

fn limits(values: &Values, catalog: &Path) -> Result<Limits> {
    let default = Limits::default();
    let attempts = values.count("limits.commit_attempts", 1..=1_000)?.and_then(|n| u32::try_from(n).ok());
    let memory = values.bytes("limits.sql_memory", keys::SQL_MEMORY)?.and_then(|n| usize::try_from(n).ok());
    let interval = values.count("limits.checkpoint_interval", 1..=10_000)?;
    let limits = Limits {
        commit_attempts: attempts.and_then(NonZeroU32::new).unwrap_or(default.commit_attempts),
        retry_wait_min: values.duration("limits.retry_wait_min", keys::RETRY_WAIT)?.unwrap_or(default.retry_wait_min),
        retry_wait_max: values.duration("limits.retry_wait_max", keys::RETRY_WAIT)?.unwrap_or(default.retry_wait_max),
        once_timeout: values.duration("limits.once_timeout", keys::ONCE_WAIT)?.unwrap_or(default.once_timeout),
        drain_timeout: values.duration("limits.drain_timeout", keys::DRAIN_WAIT)?.unwrap_or(default.drain_timeout),
        sql_memory_bytes: memory.and_then(NonZeroUsize::new).unwrap_or(default.sql_memory_bytes),
        checkpoint_interval: interval.and_then(NonZeroU64::new).unwrap_or(default.checkpoint_interval),
        upkeep: upkeep::upkeep(values)?,
        index: index::index(values, catalog)?,
    };
    let (least, most) = (limits.retry_wait_min, limits.retry_wait_max);
    if least > most {
        let (path, message) = if values.is_set("limits.retry_wait_min") {
            ("limits.retry_wait_min", format!("{least:?} is longer than limits.retry_wait_max, which is {most:?}"))
        } else {
            ("limits.retry_wait_max", format!("{most:?} is shorter than limits.retry_wait_min, which is {least:?}"))
        };
        return Err(values.at(path, Error::invalid(message).with_hint("set both, the shorter one as the first wait")));
    }
    Ok(limits)
}

fn log(values: &Values) -> Result<LogSettings> {
    let format = match values.choice("log.format", &["auto", "text", "json"])? {
        Some("text") => LogFormat::Text,
        Some("json") => LogFormat::Json,
        _ => LogFormat::Auto,
    };
    LogSettings::try_new(format, values.text("log.level")?).map_err(|error| values.at("log.level", error))
}

#[cfg(test)]
mod tests;
