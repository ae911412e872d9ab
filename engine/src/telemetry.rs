//! Logs and traces: one subscriber for the process, set once by the binary.
//!
//! Logs go to stderr, as text on a terminal and as one JSON object a line elsewhere; an event inside a batch's span
//! carries the span's fields. Traces go over OTLP/HTTP when an endpoint is set: one span per batch and per stage, made by
//! the stages themselves through `tracing`. Neither ever holds a record's key or value.

use std::io::{self, Write};
use std::time::Duration;

use alluvium_catalog::{Error, Result};
use indicatif::MultiProgress;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{Protocol, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};
use url::Url;

use crate::cli::console::Style;
use crate::config::{LogFormat, LogSettings};

/// How long the last traces may take to leave when the program ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// The exporter's own HTTP client would be traced and exported in turn.
const QUIET: &str =
    "hyper=off,hyper_util=off,reqwest=off,h2=off,opentelemetry=off,opentelemetry_sdk=warn,opentelemetry_otlp=warn";

/// The Delta kernel logs as errors what it is asked for and cannot find, before its caller, who says it in a message of its
/// own, has judged that. It goes by two names.
const KERNEL: &str = "buoyant_kernel=off,delta_kernel=off";

/// The spans and events that are sent where an endpoint is set.
const SENT: &str = "info";

/// What has to be flushed before the program ends.
#[derive(Debug, Default)]
#[must_use]
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
}

/// Where log lines are written: stderr, above the progress bars while there are any.
#[derive(Debug, Clone)]
pub struct LogTarget {
    bars: MultiProgress,
    style: Style,
}

impl Telemetry {
    /// Sets the process's subscriber, unless there is one already, which then stays. `level` is what is logged where the
    /// settings do not say.
    ///
    /// # Errors
    /// `Invalid` when the endpoint cannot be one.
    pub fn start(log: &LogSettings, level: &str, endpoint: Option<&Url>, target: LogTarget) -> Result<Self> {
        let provider = endpoint.map(provider).transpose()?;
        let chosen = line_filter(log.filter().unwrap_or(level))?;
        // Which lines are written is one question, which spans are sent is another.
        let sent = filter(SENT)?;
        let traces = provider.as_ref().map(|provider| tracing_opentelemetry::layer().with_tracer(tracer(provider)));
        let subscriber = tracing_subscriber::registry()
            .with(lines(log.format, target).with_filter(chosen))
            .with(traces.map(|layer| layer.with_filter(sent)));
        match subscriber.try_init() {
            Ok(()) => Ok(Self { provider }),
            Err(_) => Ok(Self::default()),
        }
    }

    /// Sends what has not been sent yet, within 5 s.
    pub fn stop(self) {
        let Some(provider) = self.provider else { return };
        if let Err(error) = provider.shutdown_with_timeout(FLUSH_TIMEOUT) {
            tracing::warn!(%error, "traces were not flushed");
        }
    }
}

impl LogTarget {
    /// Returns stderr, written above `bars`; `style` decides what [`LogFormat::Auto`] means.
    pub fn new(bars: MultiProgress, style: Style) -> Self {
        Self { bars, style }
    }
}

impl Write for LogTarget {
    /// Writes one whole line, as the formatter hands it over.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.bars.suspend(|| io::stderr().write(line))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl<'a> MakeWriter<'a> for LogTarget {
    type Writer = Self;

    fn make_writer(&'a self) -> Self::Writer {
        self.clone()
    }
}

/// Returns the layer that writes log lines.
fn lines<S>(format: LogFormat, target: LogTarget) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'span> LookupSpan<'span>,
{
    let style = target.style;
    let is_text = match format {
        LogFormat::Auto => style.is_terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let layer = fmt::layer().with_writer(target).with_ansi(style.has_colour);
    if is_text {
        return layer.with_target(false).compact().boxed();
    }
    layer.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed()
}

fn filter(directives: &str) -> Result<EnvFilter> {
    EnvFilter::try_new(format!("{directives},{QUIET}"))
        .map_err(|source| Error::invalid(format!("'{directives}' is not a log level")).with_source(source))
}

/// Returns the filter of log lines: the kernel is heard where debugging is asked for, or where `directives` name it.
fn line_filter(directives: &str) -> Result<EnvFilter> {
    let chosen = filter(directives)?;
    if chosen.max_level_hint().is_some_and(|level| level >= LevelFilter::DEBUG) {
        return Ok(chosen);
    }
    // Of two directives for one target the later one counts.
    filter(&format!("{KERNEL},{directives}"))
}

fn provider(endpoint: &Url) -> Result<SdkTracerProvider> {
    let traces = signal_url(endpoint);
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(traces.as_str())
        .build()
        .map_err(|source| Error::invalid(format!("cannot send traces to {traces}")).with_source(source))?;
    let resource = Resource::builder().with_service_name("alluvium").build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

fn tracer(provider: &SdkTracerProvider) -> SdkTracer {
    provider.tracer("alluvium")
}

/// Returns where traces go below the base URL (OTLP specification, "Endpoint URLs for OTLP/HTTP").
fn signal_url(endpoint: &Url) -> Url {
    let mut url = endpoint.clone();
    let base = endpoint.path().trim_end_matches('/');
    if !base.ends_with("/v1/traces") {
        url.set_path(&format!("{base}/v1/traces"));
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_heard_only_where_debugging_is_asked_for_or_it_is_named() -> Result<()> {
        for (directives, ours, theirs) in [
            ("warn", true, false),
            ("info", true, false),
            ("warn,buoyant_kernel=error", true, true),
            ("debug", true, true),
            ("info,alluvium=debug", true, true),
            ("off", false, false),
        ] {
            let subscriber = tracing_subscriber::registry().with(line_filter(directives)?);
            let heard = tracing::subscriber::with_default(subscriber, || {
                let ours = tracing::enabled!(target: "alluvium::commit", tracing::Level::ERROR);
                (ours, tracing::enabled!(target: "buoyant_kernel::snapshot", tracing::Level::ERROR))
            });
            assert_eq!(heard, (ours, theirs), "{directives}");
        }
        Ok(())
    }

    #[test]
    fn traces_go_below_the_base_url() -> std::result::Result<(), url::ParseError> {
        for (endpoint, expected) in [
            ("http://localhost:4318", "http://localhost:4318/v1/traces"),
            ("http://localhost:4318/", "http://localhost:4318/v1/traces"),
            ("https://otel/prefix", "https://otel/prefix/v1/traces"),
            ("http://otel/v1/traces", "http://otel/v1/traces"),
        ] {
            assert_eq!(signal_url(&Url::parse(endpoint)?).as_str(), expected);
        }
        Ok(())
    }
}
