//! The stores behind locations: built here and nowhere else, once per bucket.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ObjectStore, RetryConfig};

use super::durable::{DurableFiles, Flush, Fsync};
use super::{Location, Scheme, StorageSettings};
use crate::{Error, Result};

/// How long the request that commits may take. Its outcome is read back when it takes longer, so waiting gains nothing.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);

/// What to look at where a server refuses a key.
const KEY_HINT: &str = "look at access_key_id and secret_access_key below [storage] in alluvium.toml, at AWS_ACCESS_KEY_ID \
                        and AWS_SECRET_ACCESS_KEY, which go over them, and at what the key may do with the bucket";

/// What to look at where nobody said who asks: the client then asks AWS's metadata service for a role.
const IDENTITY_HINT: &str = "no access key is set, and no role was found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, \
                             and AWS_ENDPOINT_URL for a server that is not AWS's, or access_key_id, secret_access_key \
                             and endpoint below [storage] in alluvium.toml";

/// What to look at where a server does not have the bucket.
const BUCKET_HINT: &str = "the server has no such bucket: create it, or look at the bucket's name in the location and at \
                           AWS_ENDPOINT_URL, or endpoint below [storage] in alluvium.toml";

/// The address of the metadata service of AWS's machines.
const METADATA_SERVICE: &str = "169.254.169.254";

/// Opens the stores behind locations. Clones share the stores, and the memory behind `memory://`.
#[derive(Clone)]
pub struct Stores {
    shared: Arc<Shared>,
}

struct Shared {
    settings: StorageSettings,
    memory: Arc<dyn ObjectStore>,
    disk: Arc<dyn ObjectStore>,
    buckets: Mutex<BTreeMap<(Purpose, String), Arc<dyn ObjectStore>>>,
}

impl Stores {
    /// Returns stores that are reached by `settings`; nothing is reached yet.
    pub fn new(settings: StorageSettings) -> Self {
        Self::with_memory(settings, Arc::new(InMemory::new()))
    }

    /// Returns stores whose `memory:///` is `memory`: one that counts, fails or waits as a test wants it to.
    pub fn with_memory(settings: StorageSettings, memory: Arc<dyn ObjectStore>) -> Self {
        let disk = local_disk(&settings, Arc::new(Fsync));
        let shared = Shared { settings, memory, disk, buckets: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }

    /// Returns the store that holds `location`: its bucket, the local disk from `/`, or the memory.
    ///
    /// # Errors
    /// `Invalid` when the settings do not suffice for S3.
    pub fn root(&self, location: &Location) -> Result<Arc<dyn ObjectStore>> {
        self.store(location, Purpose::Data)
    }

    /// Returns a store whose root is `location`. The folder need not exist; writing makes it.
    ///
    /// # Errors
    /// As [`Stores::root`].
    pub fn open(&self, location: &Location) -> Result<Arc<dyn ObjectStore>> {
        Ok(rooted(self.store(location, Purpose::Data)?, location))
    }

    /// Returns a store whose root is `location` and that sends each request once, for 10 s at most.
    ///
    /// A conditional PUT that is sent twice can refuse itself: the first one wins, its answer is lost, the second one
    /// finds the object there. Who commits must know that, so the store must not try again by itself.
    ///
    /// # Errors
    /// As [`Stores::root`].
    pub fn open_for_commit(&self, location: &Location) -> Result<Arc<dyn ObjectStore>> {
        Ok(rooted(self.store(location, Purpose::Commit)?, location))
    }

    fn store(&self, location: &Location, purpose: Purpose) -> Result<Arc<dyn ObjectStore>> {
        match location.scheme() {
            Scheme::File => Ok(Arc::clone(&self.shared.disk)),
            Scheme::Memory => Ok(Arc::clone(&self.shared.memory)),
            Scheme::S3 => self.bucket(location.bucket().unwrap_or_default(), purpose),
        }
    }

    fn bucket(&self, bucket: &str, purpose: Purpose) -> Result<Arc<dyn ObjectStore>> {
        let mut buckets = self.shared.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (purpose, bucket.to_owned());
        if let Some(store) = buckets.get(&key) {
            return Ok(Arc::clone(store));
        }
        let store = self.shared.settings.connect(bucket, purpose)?;
        buckets.insert(key, Arc::clone(&store));
        Ok(store)
    }
}

impl fmt::Debug for Stores {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The stores' own Debug shows their credentials' ids and all options.
        formatter.debug_struct("Stores").field("settings", &self.shared.settings).finish_non_exhaustive()
    }
}

/// What a client is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Purpose {
    /// Everything that may be sent again.
    Data,
    /// The request that commits.
    Commit,
}

impl StorageSettings {
    fn connect(&self, bucket: &str, purpose: Purpose) -> Result<Arc<dyn ObjectStore>> {
        let (retries_max, timeout) = match purpose {
            Purpose::Data => (self.retries_max, Duration::from_millis(self.request_timeout_ms)),
            Purpose::Commit => (0, COMMIT_TIMEOUT),
        };
        let retry = RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: retries_max,
            retry_timeout: Duration::from_millis(self.retry_timeout_ms),
        };
        let store = self
            .s3_builder(bucket)?
            .with_retry(retry)
            .with_client_options(self.client_options(timeout))
            .build()
            .map_err(|source| Error::invalid(format!("cannot open bucket {bucket}")).with_source(source))?;
        Ok(Arc::new(store))
    }
}

/// Turns the failure of a store into this program's error: `message` says what was tried and where.
///
/// | the store says | kind |
/// |---|---|
/// | not found, not allowed, not supported, bad path or setting | `Invalid` |
/// | exists already, precondition failed | `Conflict` |
/// | anything else: network, timeout, disk | `Unavailable` |
///
/// A hint names the settings to look at where a key is refused, none was given, or the bucket is not there.
pub fn storage_error(message: impl Into<String>, source: object_store::Error) -> Error {
    use object_store::Error as Cause;

    let error = match &source {
        Cause::NotFound { .. }
        | Cause::InvalidPath { .. }
        | Cause::NotSupported { .. }
        | Cause::NotImplemented { .. }
        | Cause::PermissionDenied { .. }
        | Cause::Unauthenticated { .. }
        | Cause::UnknownConfigurationKey { .. } => Error::invalid(message),
        Cause::AlreadyExists { .. } | Cause::Precondition { .. } | Cause::NotModified { .. } => {
            Error::conflict(message)
        }
        _ => Error::unavailable(message),
    };
    match hint(&source) {
        Some(hint) => error.with_hint(hint).with_source(source),
        None => error.with_source(source),
    }
}

fn hint(cause: &object_store::Error) -> Option<&'static str> {
    // A metadata service that is not there may refuse, too: what asks it comes first.
    if says(cause, METADATA_SERVICE) {
        return Some(IDENTITY_HINT);
    }
    if is_refused_key(cause) {
        return Some(KEY_HINT);
    }
    says(cause, "NoSuchBucket").then_some(BUCKET_HINT)
}

/// Tells whether an error or one of its causes has `word` in its text: the client hands on neither codes nor addresses.
fn says(cause: &object_store::Error, word: &str) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(cause);
    while let Some(error) = next {
        if error.to_string().contains(word) {
            return true;
        }
        next = error.source();
    }
    false
}

/// Tells whether a server refuses who asks; the disk refuses too, but knows no keys.
fn is_refused_key(cause: &object_store::Error) -> bool {
    match cause {
        object_store::Error::Unauthenticated { .. } => true,
        object_store::Error::PermissionDenied { source, .. } => !source.is::<std::io::Error>(),
        _ => false,
    }
}

/// Returns the local disk from `/`. What is written there is flushed by `flush`, unless the settings say otherwise.
pub(super) fn local_disk(settings: &StorageSettings, flush: Arc<dyn Flush>) -> Arc<dyn ObjectStore> {
    let files = LocalFileSystem::new();
    if settings.local_fsync { Arc::new(DurableFiles::new(files, flush)) } else { Arc::new(files) }
}

fn rooted(store: Arc<dyn ObjectStore>, location: &Location) -> Arc<dyn ObjectStore> {
    if location.path().is_root() {
        return store;
    }
    Arc::new(PrefixStore::new(store, location.path().clone()))
}
