//! A collector of traces: takes OTLP over HTTP as OpenTelemetry's own would, and keeps what came, as bytes and decoded.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::TestResult;

/// A collector that listens on loopback until it is dropped.
#[derive(Debug)]
pub(crate) struct Collector {
    endpoint: String,
    exports: Exports,
    task: JoinHandle<()>,
}

type Exports = Arc<Mutex<Vec<Export>>>;

/// One request that came.
#[derive(Debug, Clone)]
pub(crate) struct Export {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) request: ExportTraceServiceRequest,
}

impl Collector {
    /// Starts a collector.
    pub(crate) async fn start() -> TestResult<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let exports = Exports::default();
        let router = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&exports));
        let task = tokio::spawn(async move {
            // It ends with the task; a collector that fails is seen by what it misses.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { endpoint, exports, task })
    }

    /// Returns what `OTEL_EXPORTER_OTLP_ENDPOINT` is set to.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Returns the requests that came.
    pub(crate) fn exports(&self) -> Vec<Export> {
        self.exports.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the spans that came.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let resources = self.exports().into_iter().flat_map(|export| export.request.resource_spans);
        resources.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans).collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Returns the text of an attribute.
pub(crate) fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let attribute = attributes.iter().find(|attribute| attribute.key == key)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) => Some(text.clone()),
        _ => None,
    }
}

async fn take(State(exports): State<Exports>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let Ok(request) = ExportTraceServiceRequest::decode(body.clone()) else { return StatusCode::BAD_REQUEST };
    exports.lock().unwrap_or_else(PoisonError::into_inner).push(Export { headers, body, request });
    StatusCode::OK
}
