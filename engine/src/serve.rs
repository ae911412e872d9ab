//! The HTTP listener of a running engine: `/metrics`, `/healthz`, `/readyz`, `/v1/lookup`. Loopback only, reads only.
//!
//! `/healthz` says that the process answers, and asks nobody: a broker that is down is no reason to restart.
//! `/readyz` says whether every flow has its table, its partitions and brokers that answer, and which has not.

mod connections;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use alluvium_catalog::{Clock, Error, Result};
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::connections::{Connections, Limits};
use crate::config::Listen;
use crate::lookup::{self, Lookups};
use crate::metrics::{FlowProgress, FlowState, Metrics};

/// How long open requests may take to end when the listener closes.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The content type of Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The listener; whoever opened it closes it.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    task: JoinHandle<std::io::Result<()>>,
    stop: CancellationToken,
}

/// What is served.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The numbers.
    pub metrics: Arc<Metrics>,
    /// The time that they are shown as of.
    pub clock: Arc<dyn Clock>,
    /// What looks up rows by key.
    pub lookups: Arc<Lookups>,
    /// The run that answers.
    pub run: Uuid,
}

impl Server {
    /// Begins to serve; answers `None` when nothing shall be served, or the default address is taken.
    ///
    /// # Errors
    /// `Unavailable` when an address that was asked for cannot be listened on.
    pub async fn open(listen: Listen, shown: Shown) -> Result<Option<Self>> {
        let (address, must) = match listen {
            Listen::Off => return Ok(None),
            Listen::Preferred(address) => (address, false),
            Listen::At(address) => (address, true),
        };
        let listener = match TcpListener::bind(address).await {
            Ok(listener) => listener,
            Err(error) if !must => {
                tracing::warn!(%address, %error, "metrics are not served: set ALLUVIUM_LISTEN to another address");
                return Ok(None);
            }
            Err(source) => {
                return Err(Error::unavailable(format!("cannot serve metrics on {address}"))
                    .with_hint("set ALLUVIUM_LISTEN to another address, or to off")
                    .with_source(source));
            }
        };
        Self::serve(Connections::new(listener, Limits::default()), shown).map(Some)
    }

    fn serve(connections: Connections, shown: Shown) -> Result<Self> {
        let address = connections
            .local_addr()
            .map_err(|source| Error::internal("a listener without an address").with_source(source))?;
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let server = axum::serve(connections, router(shown)).with_graceful_shutdown(stopped);
        let task = tokio::spawn(server.into_future());
        tracing::info!(%address, "serving metrics");
        Ok(Self { address, task, stop })
    }

    /// Returns the address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections, lets open requests end within 2 s, and joins the task.
    pub async fn close(mut self) {
        self.stop.cancel();
        match tokio::time::timeout(CLOSE_TIMEOUT, &mut self.task).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::warn!(%error, "metrics listener failed"),
            Ok(Err(error)) => tracing::error!(%error, "metrics listener failed"),
            Err(_) => self.task.abort(),
        }
    }
}

fn router(shown: Shown) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .route("/v1/lookup", get(look_up))
        .with_state(shown)
}

async fn metrics(State(shown): State<Shown>) -> Response {
    match shown.metrics.render(shown.clock.now()) {
        Ok(text) => ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(error = error.chain(), "metrics cannot be shown");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn ready(State(shown): State<Shown>) -> Response {
    match unready(&shown.metrics.progress()) {
        None => "ready\n".into_response(),
        Some(reasons) => (StatusCode::SERVICE_UNAVAILABLE, reasons).into_response(),
    }
}

async fn look_up(State(shown): State<Shown>, RawQuery(query): RawQuery) -> Response {
    lookup::lookup(&shown.lookups, shown.run, query.as_deref().unwrap_or_default()).await
}

/// Returns a line for each flow that is not ready, or that no flow is known yet.
fn unready(flows: &[FlowProgress]) -> Option<String> {
    if flows.is_empty() {
        return Some(String::from("no flow has been started yet\n"));
    }
    let mut reasons = String::new();
    for flow in flows {
        let reason = match flow.state {
            FlowState::Running | FlowState::Stopped => continue,
            FlowState::Starting => "waits for its table, its partitions or its brokers",
            FlowState::Halted => "is halted; the log says why",
        };
        reasons.push_str(&format!("{} {reason}\n", flow.flow));
    }
    (!reasons.is_empty()).then_some(reasons)
}

#[cfg(test)]
mod tests {
    use alluvium_catalog::{ManualClock, Name, Timestamp};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn ask(address: SocketAddr, path: &str) -> Result<String> {
        let failed = |source| Error::unavailable("no answer").with_source(source);
        let mut stream = TcpStream::connect(address).await.map_err(failed)?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.map_err(failed)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.map_err(failed)?;
        Ok(answer)
    }

    fn shown() -> Result<Shown> {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(1, Timestamp(0)));
        Ok(Shown { metrics: Arc::new(Metrics::try_new()?), run: clock.new_id(), clock, lookups: Arc::default() })
    }

    #[tokio::test]
    async fn readiness_follows_the_flows_and_health_does_not() -> Result<()> {
        let shown = shown()?;
        let metrics = Arc::clone(&shown.metrics);
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let Some(server) = Server::open(Listen::At(any), shown).await? else {
            return Err(Error::internal("nothing is served"));
        };
        let address = server.address();
        assert!(ask(address, "/readyz").await?.starts_with("HTTP/1.1 503"));

        let flow: Name = "orders".parse()?;
        metrics.expect(&flow);
        let answer = ask(address, "/readyz").await?;
        assert!(answer.contains("orders waits for its table, its partitions or its brokers"), "{answer}");

        metrics.set_state(&flow, FlowState::Running);
        assert!(ask(address, "/readyz").await?.starts_with("HTTP/1.1 200"));
        metrics.set_state(&flow, FlowState::Halted);
        assert!(ask(address, "/readyz").await?.starts_with("HTTP/1.1 503"));
        assert!(ask(address, "/healthz").await?.starts_with("HTTP/1.1 200"));

        let answer = ask(address, "/metrics").await?;
        assert!(answer.contains("text/plain; version=0.0.4"), "{answer}");
        assert!(answer.contains(r#"alluvium_flow_state{flow="orders",state="halted"} 1"#), "{answer}");
        assert!(ask(address, "/secrets").await?.starts_with("HTTP/1.1 404"));
        server.close().await;
        assert!(TcpStream::connect(address).await.is_err());
        Ok(())
    }

    #[tokio::test]
    async fn clients_that_stop_half_way_are_let_go_and_do_not_keep_others_out() -> Result<()> {
        let failed = |source| Error::unavailable("no answer").with_source(source);
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
        let limits = Limits { connections_max: 2, idle_max: Duration::from_millis(100) };
        let server = Server::serve(Connections::new(listener, limits), shown()?)?;
        let mut stuck = Vec::new();
        for begun in ["", "GET /healthz HTTP/1.1\r\nHost:"] {
            let mut stream = TcpStream::connect(server.address()).await.map_err(failed)?;
            stream.write_all(begun.as_bytes()).await.map_err(failed)?;
            stuck.push(stream);
        }
        let limit = Duration::from_secs(20);
        let answer = tokio::time::timeout(limit, ask(server.address(), "/healthz")).await;
        let answer = answer.map_err(|_| Error::internal("there was no place for who asks well"))??;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        for mut stream in stuck {
            let mut said = Vec::new();
            let ended = tokio::time::timeout(limit, stream.read_to_end(&mut said)).await;
            assert!(ended.is_ok(), "a client holds its connection for ever");
        }
        server.close().await;
        Ok(())
    }

    #[tokio::test]
    async fn a_taken_address_fails_only_where_it_was_asked_for() -> Result<()> {
        let shown = shown()?;
        let held =
            TcpListener::bind("127.0.0.1:0").await.map_err(|source| Error::internal("bind").with_source(source))?;
        let taken = held.local_addr().map_err(|source| Error::internal("address").with_source(source))?;
        let asked = Server::open(Listen::At(taken), shown.clone()).await;
        assert!(asked.is_err_and(|error| error.kind() == alluvium_catalog::ErrorKind::Unavailable));
        assert!(Server::open(Listen::Preferred(taken), shown).await?.is_none());
        Ok(())
    }
}
