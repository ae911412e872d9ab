//! Tests of options: every slip is one error with a hint.

use std::sync::Arc;

use alluvium_catalog::{Offset, OptionValue, Partition, Timestamp};

use super::*;
use crate::diagnostic::{Diagnostic, Diagnostics, SourceText};
use crate::parser::parse_file;
use crate::pipeline::{BatchLimits, ErrorMode, Startup};
use crate::statement::{Statement, WrittenOption};

/// Reads `options` as those of a connection and hands them on.
fn written(options: &str) -> Result<(Arc<SourceText>, Vec<WrittenOption>), Diagnostics> {
    let source = Arc::new(SourceText::new("orders.sql", format!("CREATE CONNECTION shop TYPE kafka WITH ({options})")));
    match parse_file(&source)?.pop().map(|statement| statement.value) {
        Some(Statement::CreateConnection(connection)) => Ok((source, connection.options)),
        other => Err(Diagnostic::new("", &source, 0..0, format!("{other:?}")).into()),
    }
}

fn rendered(diagnostics: Vec<Diagnostic>) -> String {
    Diagnostics(diagnostics).render(false)
}

#[test]
fn slips_in_connections_are_shown_with_hints() -> Result<(), Diagnostics> {
    let mut shown = String::new();
    for options in [
        "",
        "'bootstrap.servers' = ''",
        "'bootstrap.servers' = 'a:x,b:2'",
        "'bootstrap.servers' = 'a:1', 'sasl.pasword' = 'hunter2'",
        "'bootstrap.servers' = 'a:1', 'sasl.password' = 'hunter2'",
        "'bootstrap.servers' = 'a:1', 'sasl.jaas.config' = 'x', 'ssl.key.pem' = 'y'",
        "'bootstrap.servers' = 'a:1', 'secuity.protocol' = 'SSL'",
        "'bootstrap.servers' = 'a:1', 'security.protocol' = 'TLS'",
        "'bootstrap.servers' = 'a:1', 'security.protocol' = 'SASL_SSL'",
        "'bootstrap.servers' = 'a:1', 'enable.auto.commit' = true, 'auto.offset.reset' = 'earliest', 'group.id' = 'g'",
        "'bootstrap.servers' = 'a:1', 'ssl.key.password' = secret('vault', 'x')",
        "'bootstrap.servers' = secret('env', 'X'), 'sasl.mechanism' = 'OAUTHBEARER'",
        "'bootstrap.servers' = 'a:1', 'sasl.username' = 'u', 'sasl.mechanism' = 'PLAIN'",
        "'bootstrap.servers' = 'a:1', 'security.protocol' = 'SSL', 'sasl.username' = 'u'",
        "'bootstrap.servers' = 'a:1', 'ssl.ca.location' = '/ca.pem', 'security.protocol' = 'plaintext'",
        "'bootstrap.servers' = 'a:1', 'security.protocol' = 'SASL_SSL', 'sasl.mechanism' = 'PLAIN',
         'sasl.mechanisms' = 'PLAIN', 'sasl.username' = 'u', 'sasl.password' = secret('env', 'P')",
        "'bootstrap.servers' = 'a:1', 'isolation.level' = 'read_uncommitted'",
        "'bootstrap.servers' = 'a:1', 'session.timeout.ms' = 'abc', 'fetch.min.bytes' = 0, 'debug' = 'cgrp, fech',
         'socket.keepalive.enable' = 'yes', 'broker.address.family' = 'v5', 'client.rack' = ''",
    ] {
        let (source, options) = written(options)?;
        let mut diagnostics = Vec::new();
        connection_options(&source, 18..22, &options, &mut diagnostics);
        shown.push_str(&rendered(diagnostics));
    }
    insta::assert_snapshot!(shown);
    Ok(())
}

#[test]
fn credentials_in_addresses_are_refused_and_not_shown() -> Result<(), Diagnostics> {
    let mut shown = String::new();
    for servers in
        ["SASL_SSL://ann:hunter2@b:9092", "a:1, ann:hunter2@b:9092", "ann@b", "SSL://a:1,SSL://ann:hun,ter2@b:2"]
    {
        let (source, options) = written(&format!("'bootstrap.servers' = '{servers}'"))?;
        let mut diagnostics = Vec::new();
        connection_options(&source, 18..22, &options, &mut diagnostics);
        shown.push_str(&rendered(diagnostics));
    }
    for part in ["ann", "hun", "ter2"] {
        assert!(!shown.contains(part), "{part} is in\n{shown}");
    }
    insta::assert_snapshot!(shown);
    Ok(())
}

#[test]
fn a_secured_connection_is_taken() -> Result<(), Diagnostics> {
    let (source, options) = written(
        "'bootstrap.servers' = 'a:1, b', 'security.protocol' = 'sasl_ssl', 'sasl.mechanisms' = 'scram-sha-512',
         'sasl.username' = 'u', 'sasl.password' = secret('env', 'P'), 'fetch.min.bytes' = 1, 'debug' = 'cgrp,fetch',
         'topic.metadata.refresh.interval.ms' = -1, 'socket.keepalive.enable' = true",
    )?;
    let mut diagnostics = Vec::new();
    let options = connection_options(&source, 0..0, &options, &mut diagnostics);
    assert_eq!(diagnostics, []);
    assert_eq!(options.get("fetch.min.bytes"), Some(&OptionValue::Text("1".to_owned())));
    // librdkafka compares the mechanism exactly.
    let text = |text: &str| Some(OptionValue::Text(text.to_owned()));
    assert_eq!(options.get("security.protocol").cloned(), text("SASL_SSL"));
    assert_eq!(options.get("sasl.mechanisms").cloned(), text("SCRAM-SHA-512"));
    assert!(matches!(options.get("sasl.password"), Some(OptionValue::Secret(secret)) if secret.name == "P"));
    Ok(())
}

#[test]
fn slips_in_sources_are_shown_with_hints() -> Result<(), Diagnostics> {
    let mut shown = String::new();
    for options in [
        "'topic' = 'a/b', 'format' = 'avro'",
        "'connection' = 'c', 'topic' = 't', 'formt' = 'json', 'value.token' = 'x'",
        "'connection' = 'c', 'topic' = 't', 'scan.startup.mode' = 'earliest'",
        "'connection' = 'c', 'topic' = 't', 'scan.startup.mode' = 'timestamp'",
        "'connection' = 'c', 'topic' = 't', 'scan.startup.mode' = 'timestamp', 'scan.startup.timestamp-millis' = 'noon'",
        "'connection' = 'c', 'topic' = 't', 'scan.startup.timestamp-millis' = 5",
        "'connection' = 'c', 'topic' = 't', 'scan.startup.mode' = 'specific-offsets', 'scan.startup.specific-offsets' = '0:42'",
        "'connection' = 'c', 'topic' = 't', 'error-handling.mode' = 'log'",
        "'connection' = 'c', 'topic' = 't', 'error-handling.log.target' = 'a.b'",
        "'connection' = 'c', 'topic' = 't', 'record.max.bytes' = '1 parsec', 'json.max.depth' = 0",
        "'connection' = 'c', 'topic' = 't', 'key.format' = 'raw', 'key.fields' = 'a, b'",
        "'connection' = secret('env', 'X'), 'topic' = 't', 'key.fields' = ','",
    ] {
        let (source, options) = written(options)?;
        let mut diagnostics = Vec::new();
        source_settings(&source, 18..22, &options, &mut diagnostics);
        shown.push_str(&rendered(diagnostics));
    }
    insta::assert_snapshot!(shown);
    Ok(())
}

#[test]
fn startup_modes_are_understood() -> Result<(), Diagnostics> {
    let offsets = [(Partition(0), Offset(42)), (Partition(1), Offset(300))].into_iter().collect();
    for (options, expected) in [
        ("", Startup::Earliest),
        (", 'scan.startup.mode' = 'latest-offset'", Startup::Latest),
        (
            ", 'scan.startup.mode' = 'timestamp', 'scan.startup.timestamp-millis' = 1700000000000",
            Startup::Timestamp(Timestamp(1_700_000_000_000)),
        ),
        (
            ", 'scan.startup.mode' = 'timestamp', 'scan.startup.timestamp-millis' = '2023-11-14T22:13:20Z'",
            Startup::Timestamp(Timestamp(1_700_000_000_000)),
        ),
        (
            ", 'scan.startup.mode' = 'specific-offsets', 'scan.startup.specific-offsets' = 'partition:0,offset:42;partition:1,offset:300'",
            Startup::Offsets(offsets),
        ),
    ] {
        let (source, options) = written(&format!("'connection' = 'c', 'topic' = 't'{options}"))?;
        let mut diagnostics = Vec::new();
        let settings = source_settings(&source, 0..0, &options, &mut diagnostics);
        assert_eq!(diagnostics, []);
        assert_eq!(settings.startup, expected);
    }
    Ok(())
}

#[test]
fn a_source_has_defaults_and_keeps_all_it_was_given() -> Result<(), Diagnostics> {
    let (source, options) = written(
        "'connection' = 'c', 'topic' = 't', 'group.id' = 'g', 'error-handling.mode' = 'LOG',
         'error-handling.log.target' = 'ops.dlq', 'record.max.bytes' = '64 MB', 'key.fields' = 'a, b'",
    )?;
    let mut diagnostics = Vec::new();
    let settings = source_settings(&source, 0..0, &options, &mut diagnostics);
    assert_eq!(diagnostics, []);
    assert_eq!(settings.limits.record_bytes_max, 64 << 20);
    assert_eq!(settings.limits.json_depth_max, 64);
    assert_eq!(settings.written.get("group.id").map(String::as_str), Some("g"));
    assert!(matches!(settings.errors, ErrorMode::Log(table) if table.to_string() == "ops.dlq"));
    assert_eq!(settings.key_format, WrittenKeyFormat::Json(Some(vec!["a".to_owned(), "b".to_owned()])));
    Ok(())
}

#[test]
fn slips_in_tables_and_flows_are_shown_with_hints() -> Result<(), Diagnostics> {
    let mut shown = String::new();
    for options in [
        "'delta.setTransactionRetentionDuration' = 'interval 7 days', 'delta.columnMapping.mode' = 'name'",
        "'alluvium.upsert' = 'copy-on-writes', 'alluvium.tombstone.retention' = '7'",
        "'alluvium.upsert' = 'copy-on-write', 'delta.enableDeletionVectors' = 'true'",
        "'alluvium.upsert.rewrite.policy' = 'halt'",
        "'alluvium.upsert.rewrite.max' = '-1', 'alluvium.upsert.rewrite.policy' = 'skip'",
        "'alluvium.upsert.rewrite.max' = secret('env', 'X')",
        "'alluvium.upserts' = 'merge-on-read', 'owner' = 'me'",
        "'delta.logRetentionDuraton' = 'interval 7 days', 'delta.enableChangeDataFeed' = true, 'delta.feature.x' = 'supported'",
        "'delta.enableRowTracking' = true, 'delta.enableInCommitTimestamps' = true, 'delta.parquet.compression.codec' = 'gzip'",
        "'delta.appendOnly' = 'TRUE', 'delta.logRetentionDuration' = '7 days', 'delta.checkpointInterval' = 0",
        "'delta.dataSkippingNumIndexedCols' = -2, 'delta.isolationLevel' = 'snapshot', 'delta.checkpointPolicy' = 'V2'",
        "'delta.appendOnly' = true, 'delta.logRetentionDuration' = 'interval 7 days', 'delta.dataSkippingNumIndexedCols' = -1",
    ] {
        let (source, options) = written(options)?;
        let mut diagnostics = Vec::new();
        table_settings(&source, 18..22, &options, &mut diagnostics);
        shown.push_str(&rendered(diagnostics));
    }
    let (source, options) = written("'commit.interval' = 'soon', 'commit.rows' = -1, 'commit.size' = 1")?;
    let mut diagnostics = Vec::new();
    batch_limits(&source, 18..22, &options, BatchLimits::default(), &mut diagnostics);
    shown.push_str(&rendered(diagnostics));
    insta::assert_snapshot!(shown);
    Ok(())
}

#[test]
fn the_defaults_that_are_shown_are_those_that_hold() -> Result<(), Diagnostics> {
    let (source, none) = written("")?;
    let mut diagnostics = Vec::new();
    let limits = batch_limits(&source, 0..0, &none, BatchLimits::default(), &mut diagnostics);
    assert_eq!(limits, BatchLimits::default());
    let table = table_settings(&source, 0..0, &none, &mut diagnostics);
    assert_eq!(table.tombstone_retention.as_secs(), 7 * 86_400);
    assert_eq!(table.upsert, crate::pipeline::UpsertOptions::default());
    assert_eq!(diagnostics, []);
    let settings = source_settings(&source, 0..0, &none, &mut diagnostics);
    assert_eq!(settings.limits, crate::pipeline::RecordLimits::default());
    Ok(())
}

#[test]
fn how_superseded_rows_leave_a_table_is_understood() -> Result<(), Diagnostics> {
    use crate::pipeline::{RewriteCap, RewritePolicy, UpsertMode};
    for (options, mode, cap) in [
        ("'alluvium.upsert' = 'COPY-on-write'", UpsertMode::CopyOnWrite, None),
        ("'alluvium.upsert.rewrite.max' = '1 KB'", UpsertMode::MergeOnRead, Some((1_024, RewritePolicy::Split))),
        (
            "'alluvium.upsert' = 'copy-on-write', 'alluvium.upsert.rewrite.max' = '7',
             'alluvium.upsert.rewrite.policy' = 'halt', 'delta.enableDeletionVectors' = 'false'",
            UpsertMode::CopyOnWrite,
            Some((7, RewritePolicy::Halt)),
        ),
    ] {
        let (source, options) = written(options)?;
        let mut diagnostics = Vec::new();
        let table = table_settings(&source, 0..0, &options, &mut diagnostics);
        assert_eq!(diagnostics, []);
        assert_eq!(table.upsert.mode, mode);
        assert_eq!(table.upsert.cap, cap.map(|(bytes_max, policy)| RewriteCap { bytes_max, policy }));
    }
    Ok(())
}
