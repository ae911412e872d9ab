//! librdkafka's settings that tune a connection and change no promise, with the values that they take.
//!
//! The names and bounds are those of librdkafka's CONFIGURATION.md. It checks them itself, but only when a flow starts;
//! here they are checked where they are written.

use std::ops::RangeInclusive;

use alluvium_catalog::nearest;

use super::reading::{Reading, one_of, switch};

/// What a setting takes.
enum Takes {
    Whole(RangeInclusive<i64>),
    Switch,
    One(&'static [&'static str]),
    /// Words between commas.
    Several(&'static [&'static str]),
    Text,
}

use Takes::{One, Several, Switch, Text, Whole};

/// The largest number of an option of type int.
const INT_MAX: i64 = i32::MAX as i64;

const DEBUG: &[&str] = &[
    "generic",
    "broker",
    "topic",
    "metadata",
    "feature",
    "queue",
    "msg",
    "protocol",
    "cgrp",
    "security",
    "fetch",
    "interceptor",
    "plugin",
    "consumer",
    "admin",
    "eos",
    "mock",
    "assignor",
    "conf",
    "telemetry",
    "all",
];

const TUNING: [(&str, Takes); 38] = [
    ("api.version.request", Switch),
    ("api.version.request.timeout.ms", Whole(1..=300_000)),
    ("broker.address.family", One(&["any", "v4", "v6"])),
    ("broker.address.ttl", Whole(0..=86_400_000)),
    ("client.dns.lookup", One(&["use_all_dns_ips", "resolve_canonical_bootstrap_servers_only"])),
    ("client.rack", Text),
    ("connections.max.idle.ms", Whole(0..=INT_MAX)),
    ("debug", Several(DEBUG)),
    ("fetch.error.backoff.ms", Whole(0..=300_000)),
    ("fetch.max.bytes", Whole(0..=INT_MAX - 512)),
    ("fetch.message.max.bytes", Whole(1..=1_000_000_000)),
    ("fetch.min.bytes", Whole(1..=100_000_000)),
    ("fetch.queue.backoff.ms", Whole(0..=300_000)),
    ("fetch.wait.max.ms", Whole(0..=300_000)),
    ("group.instance.id", Text),
    ("heartbeat.interval.ms", Whole(1..=3_600_000)),
    ("max.in.flight.requests.per.connection", Whole(1..=1_000_000)),
    ("max.partition.fetch.bytes", Whole(1..=1_000_000_000)),
    ("max.poll.interval.ms", Whole(1..=86_400_000)),
    ("message.max.bytes", Whole(1_000..=1_000_000_000)),
    ("metadata.max.age.ms", Whole(1..=86_400_000)),
    ("queued.max.messages.kbytes", Whole(1..=2_097_151)),
    ("queued.min.messages", Whole(1..=10_000_000)),
    ("receive.message.max.bytes", Whole(1_000..=INT_MAX)),
    ("reconnect.backoff.max.ms", Whole(0..=3_600_000)),
    ("reconnect.backoff.ms", Whole(0..=3_600_000)),
    ("retry.backoff.max.ms", Whole(1..=300_000)),
    ("retry.backoff.ms", Whole(1..=300_000)),
    ("session.timeout.ms", Whole(1..=3_600_000)),
    ("socket.connection.setup.timeout.ms", Whole(1_000..=INT_MAX)),
    ("socket.keepalive.enable", Switch),
    ("socket.max.fails", Whole(0..=1_000_000)),
    ("socket.nagle.disable", Switch),
    ("socket.receive.buffer.bytes", Whole(0..=100_000_000)),
    ("socket.send.buffer.bytes", Whole(0..=100_000_000)),
    ("socket.timeout.ms", Whole(10..=300_000)),
    ("topic.metadata.propagation.max.ms", Whole(0..=3_600_000)),
    ("topic.metadata.refresh.interval.ms", Whole(-1..=3_600_000)),
];

/// Returns the names of the settings.
pub(super) fn names() -> Vec<&'static str> {
    TUNING.iter().map(|(key, _)| *key).collect()
}

/// Reports values that the settings do not take.
pub(super) fn check(reading: &mut Reading<'_>) {
    for (key, takes) in &TUNING {
        reading.value(key, |text| takes.check(text));
    }
}

/// Returns what to write for the setting `key` in the place of `text`, which it does not take.
pub(super) fn advice(key: &str, text: &str) -> String {
    TUNING
        .iter()
        .find(|(known, _)| *known == key)
        .map_or(format!("take '{key}' out"), |(_, takes)| takes.advice(key, text))
}

impl Takes {
    fn advice(&self, key: &str, text: &str) -> String {
        match self {
            Whole(range) => {
                let meant = text.parse::<i64>().unwrap_or(*range.start()).clamp(*range.start(), *range.end());
                format!("write a number within the two, as in '{key}' = {meant}, or take the option out")
            }
            Switch => format!("write '{key}' = true, or '{key}' = false"),
            One(words) | Several(words) => {
                let unknown = |word: &&str| !words.iter().any(|known| known.eq_ignore_ascii_case(word));
                let word = text.split(',').map(str::trim).find(unknown).unwrap_or_default();
                match nearest(word, words.iter().copied()) {
                    Some(meant) => format!("did you mean '{meant}'?"),
                    None => format!("write '{key}' = '{}', or take the option out", words.join("' or '")),
                }
            }
            Text => "write a text that is not empty, or take the option out".to_owned(),
        }
    }

    fn check(&self, text: &str) -> Result<(), String> {
        match self {
            Whole(range) => match text.parse::<i64>() {
                Ok(number) if range.contains(&number) => Ok(()),
                _ => Err(format!("'{text}' is not a whole number from {} to {}", range.start(), range.end())),
            },
            Switch => switch(text).map(drop),
            One(words) => one_of(text, words).map(drop),
            Several(words) => text.split(',').try_for_each(|word| one_of(word.trim(), words).map(drop)),
            Text if text.is_empty() => Err("it is empty".to_owned()),
            Text => Ok(()),
        }
    }
}
