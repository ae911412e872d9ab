//! Asks the engines of this machine where rows are: those that the catalog says are running and listening.
//!
//! It must never be in the way. A look-up that does not succeed within a bound is none, and an engine that did not answer
//! as it should is left alone for a while: one that is gone costs a refused connection, every few seconds at most. The
//! answer names its run, so that another process at the same port is found out.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alluvium_catalog::TableName;
use alluvium_catalog::store::CatalogStore;
use alluvium_sql::locate::{Locate, Located, Wanted};
use async_trait::async_trait;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use futures::future::Either;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;
use url::form_urlencoded;
use uuid::Uuid;

use super::answer::Answer;
use super::keys;
use super::route::{KEYS_MAX, QUERY_BYTES_MAX};

/// How long a connection on loopback may take; the kernel accepts it, however busy the engine is.
const CONNECT_LIMIT: Duration = Duration::from_millis(10);

/// How long an answer may take: an engine waits up to 50 ms for a commit that is landing.
const ANSWER_LIMIT: Duration = Duration::from_millis(100);

/// The longest answer: a file's path and partition values for each key.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// How long the catalog's list of runs is taken as it is. A new engine is asked after that time at the latest.
const RUNS_FOR: Duration = Duration::from_secs(1);

/// How long an engine is left alone that did not answer, or does not have the table.
const SHUN_FOR: Duration = Duration::from_secs(5);

/// How long an engine is left alone whose answer took too long: its machine is busy, or it was stopped.
const SLOW_FOR: Duration = Duration::from_secs(1);

/// How long an engine is left alone whose index is behind, or cannot tell: until its next batch, perhaps.
const PAUSE_FOR: Duration = Duration::from_millis(100);

/// Engines and tables that are left alone; above this many all are tried again.
const SHUNNED_MAX: usize = 256;

/// The engines that the catalog knows.
#[derive(Debug)]
pub struct Engines {
    catalog: Arc<dyn CatalogStore>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Who listens, and when the catalog said so.
    listening: Option<(Instant, Arc<[Listening]>)>,
    /// Until when a run is not asked, for one table.
    shunned: HashMap<(Uuid, TableName), Instant>,
}

/// An address of this machine at which an engine may listen.
#[derive(Debug)]
struct Listening {
    address: SocketAddr,
    /// The newest run that has it, and the others: where machines share a catalog, any of them may be the one of this
    /// machine, and only its answer tells.
    newest: Uuid,
    others: Vec<Uuid>,
}

impl Listening {
    fn is_by(&self, run: &str) -> bool {
        std::iter::once(&self.newest).chain(&self.others).any(|known| known.to_string() == run)
    }
}

/// What came of asking one engine.
enum Outcome {
    Found(Located),
    /// It does not have the table, or is not what it was taken for.
    Useless,
    /// It cannot tell at the moment.
    Busy,
    /// It did not answer in time.
    Slow,
}

impl Engines {
    /// Returns the engines that `catalog` knows of, none of which has been asked yet.
    pub fn new(catalog: Arc<dyn CatalogStore>) -> Self {
        Self { catalog, known: Mutex::default() }
    }

    /// Returns the addresses to be asked at, each once, that of the newest run first.
    async fn listening(&self) -> Arc<[Listening]> {
        if let Some((since, listening)) = &self.known().listening
            && since.elapsed() < RUNS_FOR
        {
            return Arc::clone(listening);
        }
        let runs = self.catalog.listening().await.unwrap_or_else(|error| {
            tracing::debug!(error = %error.chain(), "the catalog does not say which engines run");
            Vec::new()
        });
        let mut listening: Vec<Listening> = Vec::new();
        for run in runs {
            let Some(address) = run.address.filter(|address| address.ip().is_loopback()) else { continue };
            match listening.iter_mut().find(|known| known.address == address) {
                Some(known) => known.others.push(run.id),
                None => listening.push(Listening { address, newest: run.id, others: Vec::new() }),
            }
        }
        let listening: Arc<[Listening]> = listening.into();
        self.known().listening = Some((Instant::now(), Arc::clone(&listening)));
        listening
    }

    fn is_shunned(&self, run: Uuid, table: &TableName) -> bool {
        let known = self.known();
        known.shunned.get(&(run, table.clone())).is_some_and(|until| Instant::now() < *until)
    }

    fn shun(&self, run: Uuid, table: &TableName, time: Duration) {
        let mut known = self.known();
        if known.shunned.len() >= SHUNNED_MAX {
            known.shunned.clear();
        }
        known.shunned.insert((run, table.clone()), Instant::now() + time);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Locate for Engines {
    async fn locate(&self, wanted: &Wanted) -> Option<Located> {
        let listening = self.listening().await;
        let table = &wanted.table;
        let listening: Vec<&Listening> =
            listening.iter().filter(|known| !self.is_shunned(known.newest, table)).collect();
        if listening.is_empty() {
            return None;
        }
        let query = query_of(wanted)?;
        for known in listening {
            let asked = tokio::time::timeout(ANSWER_LIMIT, ask(known, &query)).await;
            match asked.map_or(Outcome::Slow, |answered| answered.unwrap_or(Outcome::Useless)) {
                Outcome::Found(located) if located.version >= wanted.seen => return Some(located),
                Outcome::Found(_) | Outcome::Busy => self.shun(known.newest, table, PAUSE_FOR),
                Outcome::Slow => self.shun(known.newest, table, SLOW_FOR),
                Outcome::Useless => self.shun(known.newest, table, SHUN_FOR),
            }
        }
        None
    }
}

/// Returns what is asked, as the query of a URL; `None` where no engine would take it. An engine that refuses one key would
/// be left alone for all others.
fn query_of(wanted: &Wanted) -> Option<String> {
    let keys = keys::to_texts(&wanted.keys).ok()?;
    let schema = wanted.keys.schema();
    let types = schema.fields().iter().map(|field| (field.name().as_str(), field.data_type()));
    keys::from_texts(&keys, types).ok()?;
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("table", &wanted.table.to_string());
    query.append_pair("version", &wanted.seen.to_string());
    query.extend_pairs(keys.iter().map(|key| ("key", key)));
    let query = query.finish();
    (keys.len() <= KEYS_MAX && query.len() <= QUERY_BYTES_MAX).then_some(query)
}

/// Asks the engine that should be `listening`; `None` when it does not answer.
async fn ask(listening: &Listening, query: &str) -> Option<Outcome> {
    let address = listening.address;
    let stream = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(address)).await.ok()?.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    let request = Request::get(format!("/v1/lookup?{query}"))
        .header(header::HOST, address.to_string())
        .header(header::CONNECTION, "close")
        .body(Body::empty())
        .ok()?;
    let exchange = async move {
        let response = sender.send_request(request).await.ok()?;
        let status = response.status();
        let body = axum::body::to_bytes(Body::new(response.into_body()), ANSWER_BYTES_MAX).await.ok()?;
        Some((status, body))
    };
    // The connection does the work of the exchange. Which of the two is over first, does not matter.
    let exchanged = match futures::future::select(pin!(exchange), pin!(connection)).await {
        Either::Left((exchanged, _)) => exchanged,
        Either::Right((_, exchange)) => exchange.await,
    };
    let (status, body) = exchanged?;
    if status == StatusCode::SERVICE_UNAVAILABLE {
        return Some(Outcome::Busy);
    }
    let answer: Answer = serde_json::from_slice(&body).ok().filter(|_| status == StatusCode::OK)?;
    if !listening.is_by(&answer.run) {
        return Some(Outcome::Useless);
    }
    Some(Outcome::Found(answer.into_located()))
}

#[cfg(test)]
mod tests;
