//! The options of a connection: librdkafka's own, as far as they are the user's to set.

use std::collections::BTreeMap;
use std::sync::Arc;

use alluvium_catalog::OptionValue;

use super::reading::{Reading, one_of, plain, secret};
use super::{Known, Owned, tuning};
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

/// What the engine sets itself, because a promise hangs on it.
const OWNED: [Owned; 13] = [
    ("auto.commit.interval.ms", POSITIONS),
    ("auto.offset.reset", "where reading begins is 'scan.startup.mode' of the source"),
    ("check.crcs", "checksums are always checked"),
    ("enable.auto.commit", POSITIONS),
    ("enable.auto.offset.store", POSITIONS),
    ("enable.partition.eof", "the engine asks for it where it needs it"),
    ("group.id", "it is an option of the source"),
    ("group.protocol", "groups rebalance cooperatively"),
    ("isolation.level", "records of transactions that were aborted are never read"),
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
    reading.check(&OWNED, &tuning::names());
    tuning::check(&mut reading);
    let canonical = check_values(&mut reading);
    let mut options = BTreeMap::new();
    for option in written {
        let value = match &option.value.value {
            Literal::Secret { provider, name } => match secret(provider, name) {
                Ok(reference) => OptionValue::Secret(reference),
                Err(error) => {
                    let span = option.value.span.clone();
                    let diagnostic = Diagnostic::new(code::BAD_OPTION, source, span, error.message());
                    let otherwise = "write secret('env', 'NAME') or secret('file', '/path')";
                    reading.report(diagnostic.with_hint(error.hint().unwrap_or(otherwise)));
                    continue;
                }
            },
            literal => {
                let key = option.key.value.as_str();
                let spelt = canonical.iter().find(|(known, _)| *known == key).map(|(_, value)| (*value).to_owned());
                OptionValue::Text(spelt.or_else(|| plain(literal)).unwrap_or_default())
            }
        };
        options.insert(option.key.value.clone(), value);
    }
    options
}

/// Checks the values that are words, and returns them as librdkafka spells them: it compares some of them exactly.
fn check_values(reading: &mut Reading<'_>) -> Vec<(&'static str, &'static str)> {
    let words: [(&'static str, &[&'static str]); 5] = [
        ("security.protocol", &PROTOCOLS),
        ("sasl.mechanism", &MECHANISMS),
        ("sasl.mechanisms", &MECHANISMS),
        ("ssl.endpoint.identification.algorithm", &["https", "none"]),
        ("enable.ssl.certificate.verification", &["true", "false"]),
    ];
    let mut canonical = Vec::new();
    for (key, valid) in words {
        canonical.extend(reading.written_value(key, |text| one_of(text, valid)).map(|value| (key, value)));
    }
    if !has_user_in_address(reading) {
        reading.required("bootstrap.servers", servers);
    }
    if reading.find("sasl.mechanism").is_some() && reading.find("sasl.mechanisms").is_some() {
        reading.refuse("sasl.mechanisms", "it is the same option as 'sasl.mechanism', which is given, too");
    }
    let protocol = canonical.iter().find(|(key, _)| *key == "security.protocol").map(|(_, protocol)| *protocol);
    if protocol.is_some() || reading.find("security.protocol").is_none() {
        check_security(reading, protocol);
    }
    canonical
}

/// Reports a user or password that is written into an address, and tells whether there is one. No host has an '@'.
fn has_user_in_address(reading: &mut Reading<'_>) -> bool {
    let Some(option) = reading.find("bootstrap.servers") else { return false };
    if !plain(&option.value.value).is_some_and(|text| text.contains('@')) {
        return false;
    }
    let message = "literal credential in 'bootstrap.servers'";
    let diagnostic = Diagnostic::new(code::LITERAL_SECRET, reading.source, option.value.span.clone(), message);
    let diagnostic = diagnostic.with_label("would be kept in files, logs and the catalog");
    let hint = "write host:port, and 'sasl.username' and 'sasl.password' = secret('env', 'PASSWORD')";
    reading.report(diagnostic.with_hint(hint));
    true
}

/// Checks that what secures a connection is there and takes effect: librdkafka would say nothing, and connect without.
fn check_security(reading: &mut Reading<'_>, protocol: Option<&'static str>) {
    let has_sasl = protocol.is_some_and(|protocol| protocol.starts_with("SASL"));
    let has_tls = protocol.is_some_and(|protocol| protocol.ends_with("SSL"));
    let mechanism = if reading.find("sasl.mechanisms").is_some() { "sasl.mechanisms" } else { "sasl.mechanism" };
    if has_sasl {
        for key in [mechanism, "sasl.username", "sasl.password"] {
            if reading.find(key).is_none() {
                reading.missing(key, &format!("option '{key}' is missing, which SASL needs"));
            }
        }
    }
    for (is_used, prefixes, needed) in [
        (has_sasl, &["sasl."][..], "SASL_SSL or SASL_PLAINTEXT"),
        (has_tls, &["ssl.", "enable.ssl."][..], "SSL or SASL_SSL"),
    ] {
        let idle = |option: &&WrittenOption| prefixes.iter().any(|prefix| option.key.value.starts_with(prefix));
        let known = |option: &&WrittenOption| KNOWN.iter().any(|known| known.key == option.key.value);
        // One error for one question, whatever else hangs on the protocol.
        if let Some(option) = reading.written.iter().filter(known).find(idle).filter(|_| !is_used) {
            let said = protocol.unwrap_or("PLAINTEXT, the default");
            let message = format!("option '{}' has no effect: 'security.protocol' is {said}", option.key.value);
            let diagnostic = Diagnostic::new(code::BAD_OPTION, reading.source, option.key.span.clone(), message);
            reading.report(diagnostic.with_hint(format!("set 'security.protocol' to {needed}")));
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
