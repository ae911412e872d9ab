//! Which rejects of a batch that comes again their table has already.
//!
//! The positions alone do not tell. They say how far the dead letters of an attempt reached that did not become part of the
//! table; this attempt may reject others, because the flow's SQL was changed in between, or says something else each time
//! (`now()`). So what lies below the positions is looked for. That happens to one batch after a crash, and to no other.
//!
//! A record is known by its timestamp, too: a topic that was made anew under its name has other records at the same offsets,
//! and its rejects go to the same table, which has positions of the old one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use alluvium_catalog::{Error, Name, Offset, Partition, Result, Topic};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use roaring::RoaringTreemap;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::calendar::micros;
use crate::delta::action::Add;
use crate::delta::log::DeltaLog;
use crate::delta::state::TableState;
use crate::hop::Reject;
use crate::write::reading::Reading;

/// Whose dead letters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whose<'a> {
    pub(super) flow: &'a Name,
    pub(super) topic: &'a Topic,
}

/// What was found of a batch's rejects so far. Of a table that many flows share, a look must not begin anew with each of their
/// commits.
#[derive(Debug, Default)]
pub(super) struct Looked {
    found: HashSet<(Partition, Offset)>,
    paths: HashSet<String>,
}

/// Returns the places among those of `rejects` that have a dead letter in the table as of `state`, where `looked` has not seen
/// its files yet. Those that somebody has deleted by a deletion vector count: they were there.
///
/// # Errors
/// As of [`Reading::open`].
pub(super) async fn landed<'a>(
    log: &DeltaLog,
    state: &TableState,
    whose: Whose<'_>,
    (rejects, looked): (&[&Reject], &'a mut Looked),
) -> Result<&'a HashSet<(Partition, Offset)>> {
    let stamp = |reject: &Reject| reject.timestamp_ms.and_then(micros);
    let wanted: HashMap<(Partition, Offset), Option<i64>> =
        rejects.iter().map(|reject| ((reject.partition, reject.offset), stamp(reject))).collect();
    let offsets = || rejects.iter().map(|reject| reject.offset.0);
    let (Some(least), Some(greatest)) = (offsets().min(), offsets().max()) else { return Ok(&looked.found) };
    let reading = Reading {
        store: Arc::clone(log.store()),
        location: log.location().clone(),
        schema: columns(),
        // Whoever drops the future ends it.
        stop: CancellationToken::new(),
    };
    for add in state.files.values().filter(|add| may_hold(add, least, greatest)) {
        if looked.paths.contains(&add.path) {
            continue;
        }
        let mut rows = reading.open(add, &RoaringTreemap::new()).await?;
        while let Some(batch) = rows.next().await? {
            let own = places(&batch, whose)?.into_iter();
            let same = own.filter(|(place, at)| wanted.get(place) == Some(at));
            looked.found.extend(same.map(|(place, _)| place));
        }
        looked.paths.insert(add.path.clone());
    }
    Ok(&looked.found)
}

fn columns() -> SchemaRef {
    SchemaRef::new(Schema::new(vec![
        Field::new("flow", DataType::Utf8, true),
        Field::new("topic", DataType::Utf8, true),
        Field::new("partition", DataType::Int32, true),
        Field::new("offset", DataType::Int64, true),
        Field::new("timestamp", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
    ]))
}

/// Tells whether a file may hold offsets from `least` to `greatest`, by its statistics.
fn may_hold(add: &Add, least: i64, greatest: i64) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Stats {
        min_values: Bound,
        max_values: Bound,
    }
    #[derive(Deserialize)]
    struct Bound {
        offset: i64,
    }
    let stats = add.stats.as_deref().and_then(|stats| serde_json::from_str::<Stats>(stats).ok());
    stats.is_none_or(|stats| stats.min_values.offset <= greatest && stats.max_values.offset >= least)
}

/// Where a record stands, and its timestamp in microseconds.
type Stamped = ((Partition, Offset), Option<i64>);

/// Returns where the rows of `batch` come from that are dead letters of `whose`.
fn places(batch: &RecordBatch, whose: Whose<'_>) -> Result<Vec<Stamped>> {
    let [flows, topics, partitions, offsets, stamps] = batch.columns() else {
        return Err(Error::internal("the dead letters were read in other columns"));
    };
    let (flows, topics) = (flows.as_string::<i32>(), topics.as_string::<i32>());
    let (partitions, offsets) = (partitions.as_primitive::<Int32Type>(), offsets.as_primitive::<Int64Type>());
    let stamps = stamps.as_primitive::<TimestampMicrosecondType>();
    let is_own = |row: &usize| {
        let is = |column: &arrow::array::StringArray, text: &str| column.is_valid(*row) && column.value(*row) == text;
        is(flows, whose.flow.as_str()) && is(topics, whose.topic.as_str())
    };
    let stamp = |row: usize| stamps.is_valid(row).then(|| stamps.value(row));
    let place = |row: usize| ((Partition(partitions.value(row)), Offset(offsets.value(row))), stamp(row));
    Ok((0..batch.num_rows()).filter(is_own).map(place).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_left_out_only_where_its_bounds_say_so() {
        let with = |stats: &str| Add { stats: Some(stats.to_owned()), ..Add::default() };
        let bounded = with(r#"{"numRecords":2,"minValues":{"offset":5,"topic":"t"},"maxValues":{"offset":9}}"#);
        let asked = [(0, 4), (0, 5), (7, 7), (9, 20), (10, 20)];
        assert_eq!(
            asked.map(|(least, greatest)| may_hold(&bounded, least, greatest)),
            [false, true, true, true, false]
        );
        for unbounded in [with(r#"{"numRecords":2}"#), with("{"), Add::default()] {
            assert!(may_hold(&unbounded, 0, 0));
        }
    }
}
