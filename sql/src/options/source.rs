//! The options of a source: which topic, from where, in which format, and what becomes of bad records.

use std::collections::BTreeMap;
use std::sync::Arc;

use alluvium_catalog::{Name, Offset, Partition, TableName, Timestamp, Topic};

use super::reading::{Reading, one_of, plain};
use super::{Known, units};
use crate::diagnostic::{Diagnostic, SourceText, TextSpan};
use crate::pipeline::{ErrorMode, RecordLimits, Startup};
use crate::statement::WrittenOption;

const KNOWN: [Known; 14] = [
    Known { key: "connection", default: None, doc: "the name of a connection" },
    Known { key: "topic", default: None, doc: "the name of a Kafka topic" },
    Known { key: "format", default: Some("json"), doc: "json" },
    Known {
        key: "scan.startup.mode",
        default: Some("earliest-offset"),
        doc: "earliest-offset, latest-offset, timestamp or specific-offsets",
    },
    Known { key: "scan.startup.timestamp-millis", default: None, doc: "milliseconds since 1970, or RFC 3339" },
    Known {
        key: "scan.startup.specific-offsets",
        default: None,
        doc: "'partition:0,offset:42;partition:1,offset:300'",
    },
    Known { key: "error-handling.mode", default: Some("fail"), doc: "fail, ignore or log" },
    Known { key: "error-handling.log.target", default: None, doc: "the table that takes rejects, schema.table" },
    Known {
        key: "error-handling.max.rejects",
        default: Some("100000"),
        doc: "the most rejects in a batch before the flow stops",
    },
    Known { key: "record.max.bytes", default: Some("16 MB"), doc: "the longest value of a record" },
    Known { key: "json.max.depth", default: Some("64"), doc: "the deepest nesting of a record" },
    Known { key: "key.format", default: Some("json"), doc: "json or raw" },
    Known { key: "key.fields", default: None, doc: "the columns that a record's key holds: 'a, b'" },
    Known { key: "group.id", default: None, doc: "the consumer group; by default named after the flow" },
];

/// The option that names the table of rejects.
const LOG_TARGET: &str = "error-handling.log.target";

const MODES: [&str; 4] = ["earliest-offset", "latest-offset", "timestamp", "specific-offsets"];

/// How the keys of records are written, before anybody knows the flow that asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WrittenKeyFormat {
    /// `json`, with the columns of `key.fields` if given.
    Json(Option<Vec<String>>),
    /// `raw`, with the column of `key.fields` if given.
    Raw(Option<String>),
}

/// What the options of a source mean.
#[derive(Debug, Clone)]
pub(crate) struct SourceSettings {
    /// The connection; `None` where it is wrong and reported.
    pub(crate) connection: Option<Name>,
    /// Where the connection is named.
    pub(crate) connection_span: TextSpan,
    /// The topic; `None` where it is wrong and reported.
    pub(crate) topic: Option<Topic>,
    /// Where reading begins.
    pub(crate) startup: Startup,
    /// What becomes of rejects.
    pub(crate) errors: ErrorMode,
    /// Where the table that takes them is named.
    pub(crate) errors_span: TextSpan,
    /// Limits on records.
    pub(crate) limits: RecordLimits,
    /// How keys are read.
    pub(crate) key_format: WrittenKeyFormat,
    /// Where `key.fields` stand.
    pub(crate) key_fields_span: TextSpan,
    /// All options as written.
    pub(crate) written: BTreeMap<String, String>,
}

/// Returns what the options of the source that is named at `owner` mean, and reports what is wrong with them.
pub(crate) fn source_settings(
    source: &Arc<SourceText>,
    owner: TextSpan,
    written: &[WrittenOption],
    diagnostics: &mut Vec<Diagnostic>,
) -> SourceSettings {
    let mut reading = Reading { source, owner: owner.clone(), written, known: KNOWN.to_vec(), diagnostics };
    reading.check(&[], &[]);
    let span_of = |key: &str| {
        written.iter().find(|option| option.key.value == key).map_or(owner.clone(), |option| option.value.span.clone())
    };
    reading.value("format", format);
    SourceSettings {
        connection: reading.required("connection", str::parse),
        connection_span: span_of("connection"),
        topic: reading.required("topic", str::parse),
        startup: startup(&mut reading),
        errors: error_mode(&mut reading),
        errors_span: span_of(LOG_TARGET),
        limits: limits(&mut reading),
        key_format: key_format(&mut reading),
        key_fields_span: span_of("key.fields"),
        written: written
            .iter()
            .filter_map(|option| Some((option.key.value.clone(), plain(&option.value.value)?)))
            .collect(),
    }
}

fn format(text: &str) -> Result<(), String> {
    const LATER: [&str; 8] =
        ["avro", "protobuf", "csv", "raw", "debezium-json", "debezium-avro", "avro-confluent", "json-registry"];
    if text.eq_ignore_ascii_case("json") {
        return Ok(());
    }
    match one_of(text, &LATER) {
        Ok(later) => Err(format!("'{later}' is not supported yet")),
        Err(_) => Err(format!("'{text}' is not a format")),
    }
}

fn startup(reading: &mut Reading<'_>) -> Startup {
    let mode = reading.value("scan.startup.mode", |text| one_of(text, &MODES)).unwrap_or(MODES[0]);
    for (needs, key) in
        [("timestamp", "scan.startup.timestamp-millis"), ("specific-offsets", "scan.startup.specific-offsets")]
    {
        if mode != needs && reading.find(key).is_some() {
            reading.refuse(key, format!("it has no meaning with 'scan.startup.mode' = '{mode}'"));
        }
    }
    match mode {
        "latest-offset" => Startup::Latest,
        "timestamp" => {
            let since = reading.required("scan.startup.timestamp-millis", timestamp);
            since.map_or(Startup::Earliest, Startup::Timestamp)
        }
        "specific-offsets" => {
            let offsets = reading.required("scan.startup.specific-offsets", specific_offsets);
            offsets.map_or(Startup::Earliest, Startup::Offsets)
        }
        _ => Startup::Earliest,
    }
}

fn timestamp(text: &str) -> Result<Timestamp, String> {
    match text.parse::<i64>() {
        Ok(millis) if millis >= 0 => Ok(Timestamp(millis)),
        Ok(_) => Err(format!("'{text}' is before 1970")),
        Err(_) => text.parse().map_err(|error: alluvium_catalog::Error| error.message().to_owned()),
    }
}

/// Reads `partition:0,offset:42;partition:1,offset:300`.
fn specific_offsets(text: &str) -> Result<BTreeMap<Partition, Offset>, String> {
    let mut offsets = BTreeMap::new();
    for entry in text.split(';').map(str::trim).filter(|entry| !entry.is_empty()) {
        let parsed = entry.split_once(',').and_then(|(partition, offset)| {
            let partition: i32 = partition.trim().strip_prefix("partition:")?.trim().parse().ok()?;
            let offset: i64 = offset.trim().strip_prefix("offset:")?.trim().parse().ok()?;
            (partition >= 0 && offset >= 0).then_some((Partition(partition), Offset(offset)))
        });
        let (partition, offset) = parsed.ok_or_else(|| format!("'{entry}' is not partition:0,offset:42"))?;
        if offsets.insert(partition, offset).is_some() {
            return Err(format!("partition {partition} is given twice"));
        }
    }
    if offsets.is_empty() { Err("no partition is given".to_owned()) } else { Ok(offsets) }
}

fn error_mode(reading: &mut Reading<'_>) -> ErrorMode {
    let mode = reading.value("error-handling.mode", |text| one_of(text, &["fail", "ignore", "log"])).unwrap_or("fail");
    if mode == "log" {
        let target = reading.required(LOG_TARGET, log_target);
        return target.map_or(ErrorMode::Fail, ErrorMode::Log);
    }
    if reading.find(LOG_TARGET).is_some() {
        reading.refuse(LOG_TARGET, format!("it has no meaning with 'error-handling.mode' = '{mode}'"));
    }
    if mode == "ignore" { ErrorMode::Ignore } else { ErrorMode::Fail }
}

fn log_target(text: &str) -> alluvium_catalog::Result<TableName> {
    let name: TableName = text.parse()?;
    name.check_free()?;
    Ok(name)
}

fn limits(reading: &mut Reading<'_>) -> RecordLimits {
    let default = RecordLimits::default();
    RecordLimits {
        record_bytes_max: reading.value("record.max.bytes", units::bytes).unwrap_or(default.record_bytes_max),
        json_depth_max: reading.value("json.max.depth", units::count).unwrap_or(default.json_depth_max),
        rejects_max: reading.value("error-handling.max.rejects", units::count).unwrap_or(default.rejects_max),
    }
}

fn key_format(reading: &mut Reading<'_>) -> WrittenKeyFormat {
    let format = reading.value("key.format", |text| one_of(text, &["json", "raw"])).unwrap_or("json");
    let fields: Option<Vec<String>> = reading.value("key.fields", |text| {
        let fields: Vec<String> = text.split([',', ';']).map(|field| field.trim().to_owned()).collect();
        if fields.iter().any(String::is_empty) { Err(format!("'{text}' is not a list of columns")) } else { Ok(fields) }
    });
    match (format, fields) {
        ("raw", None) => WrittenKeyFormat::Raw(None),
        ("raw", Some(mut fields)) => {
            if fields.len() > 1 {
                reading.refuse("key.fields", "a raw key holds one column");
            }
            WrittenKeyFormat::Raw(Some(fields.swap_remove(0)))
        }
        (_, fields) => WrittenKeyFormat::Json(fields),
    }
}
