//! A workload as batches in memory, as a source would hand them out.

use std::collections::BTreeMap;
use std::time::Duration;

use alluvium::hop::{Fetched, Record, Records};
use alluvium_benches::Workload;
use alluvium_catalog::{Error, Offset, OffsetRange, Partition, Result, Span};

/// Partitions of records in memory.
const PARTITIONS: u64 = 4;

/// Returns the records of `workload` in batches of `rows_max`, as a source would hand them out.
pub(crate) fn fetched(workload: &Workload, rows_max: usize) -> Result<Vec<Fetched>> {
    let mut next: BTreeMap<i32, i64> = BTreeMap::new();
    let mut batches = Vec::new();
    let mut open = (Records::default(), next.clone());
    for record in workload.records() {
        let partition = i32::try_from(record.key % PARTITIONS).unwrap_or_default();
        let offset = next.entry(partition).or_default();
        let value = Some(record.value.as_slice());
        let place = (Partition(partition), Offset(*offset));
        open.0.push(Record { partition: place.0, offset: place.1, timestamp_ms: None, key: None, value }, Vec::new());
        *offset += 1;
        if open.0.len() == rows_max {
            let closed = std::mem::replace(&mut open, (Records::default(), next.clone()));
            batches.push(close(closed, &next)?);
        }
    }
    if !open.0.is_empty() {
        batches.push(close(open, &next)?);
    }
    Ok(batches)
}

fn close((records, first): (Records, BTreeMap<i32, i64>), next: &BTreeMap<i32, i64>) -> Result<Fetched> {
    let mut span = Span::new();
    for (partition, next) in next {
        let first = first.get(partition).copied().unwrap_or_default();
        let n_records = u64::try_from(next - first).unwrap_or_default();
        let range = OffsetRange { first: Offset(first), next: Offset(*next), records: n_records };
        span.extend(Partition(*partition), range)
            .map_err(|misfit| Error::internal(format!("records in memory are not in order: {misfit}")))?;
    }
    Ok(Fetched { records, span, took: Duration::ZERO })
}
