//! The options of a connection: librdkafka's own, as far as they are the user's to set.

use std::collections::BTreeMap;
use std::sync::Arc;

use alluvium_catalog::OptionValue;

use super::reading::{Reading, one_of, plain, secret};
use super::{Known, Owned};
use crate::diagnostic::{Diagnostic, SourceText, TextSpan, code};
use crate::statement::{Literal, WrittenOption};

const KNOWN: [Known; 13] = [
    Known { key: "bootstrap.servers", default: None, doc: "the brokers to begin with: host:port, .." },
    Known { key: "security.protocol", default: Some("PLAINTEXT"), doc: "PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL" },
    Known { key: "sasl.mechanism", default: None, doc: "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512" },
    Known { key: "sasl.mechanisms", default: None, doc: "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512" },
    Known { key: "sasl.username", default: None, doc: "the user's name" },
    Known { key: "sasl.password", default: None, doc: "secret('env', 'NAME') or secret('file', '/path')" },
    Known { key: "ssl.ca.location", default: None, doc: "the file of the certificate authority, PEM" },
    Known { key: "ssl.certificate.location", default: None, doc: "the file of our certificate, PEM" },
    Known { key: "ssl.key.location", default: None, doc: "the file of our private key, PEM" },
    Known { key: "ssl.key.password", default: None, doc: "secret('env', 'NAME') or secret('file', '/path')" },
    Known { key: "ssl.endpoint.identification.algorithm", default: Some("https"), doc: "https or none" },
    Known { key: "enable.ssl.certificate.verification", default: Some("true"), doc: "true or false" },
    Known { key: "client.id", default: Some("alluvium"), doc: "the name that brokers log" },
];

/// What tunes librdkafka and changes no promise.
const TUNING: [&str; 39] = [
    "api.version.request",
    "api.version.request.timeout.ms",
    "broker.address.family",
    "broker.address.ttl",
    "client.dns.lookup",
    "client.rack",
    "connections.max.idle.ms",
    "debug",
    "fetch.error.backoff.ms",
    "fetch.max.bytes",
    "fetch.message.max.bytes",
    "fetch.min.bytes",
    "fetch.queue.backoff.ms",
    "fetch.wait.max.ms",
    "group.instance.id",
    "heartbeat.interval.ms",
    "isolation.level",
    "max.in.flight.requests.per.connection",
    "max.partition.fetch.bytes",
    "max.poll.interval.ms",
    "message.max.bytes",
    "metadata.max.age.ms",
    "queued.max.messages.kbytes",
    "queued.min.messages",
    "receive.message.max.bytes",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "retry.backoff.max.ms",
    "retry.backoff.ms",
    "session.timeout.ms",
    "socket.connection.setup.timeout.ms",
    "socket.keepalive.enable",
    "socket.max.fails",
    "socket.nagle.disable",
    "socket.receive.buffer.bytes",
    "socket.send.buffer.bytes",
    "socket.timeout.ms",
    "topic.metadata.propagation.max.ms",
    "topic.metadata.refresh.interval.ms",
];

/// What the engine sets itself, because a promise hangs on it.
const OWNED: [Owned; 12] = [
    ("auto.commit.interval.ms", POSITIONS),
    ("auto.offset.reset", "where reading begins is 'scan.startup.mode' of the source"),
    ("check.crcs", "checksums are always checked"),
    ("enable.auto.commit", POSITIONS),
    ("enable.auto.offset.store", POSITIONS),
    ("enable.partition.eof", "the engine asks for it where it needs it"),
    ("group.id", "it is an option of the source"),
    ("group.protocol", "groups rebalance cooperatively"),
    ("metadata.broker.list", "use 'bootstrap.servers'"),
    ("partition.assignment.strategy", "groups rebalance cooperatively"),
    ("schema.registry.url", "schema registries are not supported yet"),
    ("statistics.interval.ms", "the engine asks for it where it needs it"),
];

const POSITIONS: &str = "positions are kept in the table and committed with its rows";

const PROTOCOLS: [&str; 4] = ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"];
const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

/// Returns the options of the connection that is named at `owner`, by their keys, and reports what is wrong with them.
pub(crate) fn connection_options(
    source: &Arc<SourceText>,
    owner: TextSpan,
    written: &[WrittenOption],
    diagnostics: &mut Vec<Diagnostic>,
) -> BTreeMap<String, OptionValue> {
    let mut reading = Reading { source, owner, written, known: KNOWN.to_vec(), diagnostics };
    reading.check(&OWNED, &TUNING);
    check_values(&mut reading);
    let mut options = BTreeMap::new();
    for option in written {
        let value = match &option.value.value {
            Literal::Secret { provider, name } => match secret(provider, name) {
                Ok(reference) => OptionValue::Secret(reference),
                Err(error) => {
                    let span = option.value.span.clone();
                    let diagnostic = Diagnostic::new(code::BAD_OPTION, source, span, error.message());
                    reading.report(diagnostic.with_hint(error.hint().unwrap_or_default()));
                    continue;
                }
            },
            literal => OptionValue::Text(plain(literal).unwrap_or_default()),
        };
        options.insert(option.key.value.clone(), value);
    }
    options
}

fn check_values(reading: &mut Reading<'_>) {
    reading.required("bootstrap.servers", servers);
    let protocol = reading.value("security.protocol", |text| one_of(text, &PROTOCOLS));
    let mechanism = if reading.find("sasl.mechanisms").is_some() { "sasl.mechanisms" } else { "sasl.mechanism" };
    reading.value(mechanism, |text| one_of(text, &MECHANISMS));
    reading.value("ssl.endpoint.identification.algorithm", |text| one_of(text, &["https", "none"]));
    reading.value("enable.ssl.certificate.verification", |text| one_of(text, &["true", "false"]));
    if protocol.is_some_and(|protocol| protocol.starts_with("SASL")) {
        for key in [mechanism, "sasl.username", "sasl.password"] {
            if reading.find(key).is_none() {
                reading.missing(key, &format!("option '{key}' is missing, which SASL needs"));
            }
        }
    }
}

fn servers(text: &str) -> Result<(), String> {
    let entry_is_wrong = |entry: &str| {
        let (host, port) = entry.rsplit_once(':').unwrap_or((entry, "9092"));
        host.is_empty() || host.contains(char::is_whitespace) || port.parse::<u16>().is_err()
    };
    match text.split(',').map(str::trim).find(|entry| entry_is_wrong(entry)) {
        Some(entry) => Err(format!("'{entry}' is not host:port")),
        None => Ok(()),
    }
}
