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
use alluvium_catalog::store::{CatalogStore, Run};
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
    /// The runs that listen, and when the catalog said so.
    runs: Option<(Instant, Arc<[Run]>)>,
    /// Until when a run is not asked, for one table.
    shunned: HashMap<(Uuid, TableName), Instant>,
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

    /// Returns the runs to be asked, newest first, of those at one address the newest.
    async fn runs(&self) -> Arc<[Run]> {
        if let Some((since, runs)) = &self.known().runs
            && since.elapsed() < RUNS_FOR
        {
            return Arc::clone(runs);
        }
        let mut runs = self.catalog.listening().await.unwrap_or_else(|error| {
            tracing::debug!(error = %error.chain(), "the catalog does not say which engines run");
            Vec::new()
        });
        let mut seen: Vec<SocketAddr> = Vec::new();
        runs.retain(|run| match run.address {
            Some(address) if address.ip().is_loopback() && !seen.contains(&address) => {
                seen.push(address);
                true
            }
            _ => false,
        });
        let runs: Arc<[Run]> = runs.into();
        self.known().runs = Some((Instant::now(), Arc::clone(&runs)));
        runs
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
        let runs = self.runs().await;
        let table = &wanted.table;
        let runs: Vec<&Run> = runs.iter().filter(|run| !self.is_shunned(run.id, table)).collect();
        if runs.is_empty() {
            return None;
        }
        let query = query_of(wanted)?;
        for run in runs {
            let Some(address) = run.address else { continue };
            let asked = tokio::time::timeout(ANSWER_LIMIT, ask(address, run.id, &query)).await;
            match asked.map_or(Outcome::Slow, |answered| answered.unwrap_or(Outcome::Useless)) {
                Outcome::Found(located) if located.version >= wanted.seen => return Some(located),
                Outcome::Found(_) | Outcome::Busy => self.shun(run.id, table, PAUSE_FOR),
                Outcome::Slow => self.shun(run.id, table, SLOW_FOR),
                Outcome::Useless => self.shun(run.id, table, SHUN_FOR),
            }
        }
        None
    }
}

/// Returns what is asked, as the query of a URL; `None` where no engine would take it.
fn query_of(wanted: &Wanted) -> Option<String> {
    let keys = keys::to_texts(&wanted.keys).ok()?;
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("table", &wanted.table.to_string());
    query.append_pair("version", &wanted.seen.to_string());
    query.extend_pairs(keys.iter().map(|key| ("key", key)));
    let query = query.finish();
    (keys.len() <= KEYS_MAX && query.len() <= QUERY_BYTES_MAX).then_some(query)
}

/// Asks the engine at `address`, which should be `run`; `None` when it does not answer.
async fn ask(address: SocketAddr, run: Uuid, query: &str) -> Option<Outcome> {
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
    if answer.run != run.to_string() {
        return Some(Outcome::Useless);
    }
    Some(Outcome::Found(answer.into_located()))
}

#[cfg(test)]
mod tests;
