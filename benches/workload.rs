//! Workloads: what the benchmarks feed, described by the files in `workloads/` and made from a seed.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

use alluvium_catalog::{Error, Result};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Deserialize;

use crate::keys::{Distribution, Keys};

/// The shape of a stream of order changes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Records.
    pub records: u64,
    /// What chance begins with.
    pub seed: u64,
    /// Distinct order ids; where most are new, how many of the newest are changed again.
    pub keys: u64,
    /// Bytes of padding in each record.
    pub note_bytes: usize,
    /// One record in so many is malformed; 0 for none.
    pub malformed_every: u64,
    /// How records draw their ids.
    #[serde(default)]
    pub distribution: Distribution,
}

/// One record of a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The order id.
    pub key: u64,
    /// The JSON.
    pub value: Vec<u8>,
}

impl Workload {
    /// Reads the workload `name` from its file.
    ///
    /// # Errors
    /// `Invalid` when there is no such file or it does not describe a workload.
    pub fn open(name: &str) -> Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("workloads").join(name).with_extension("toml");
        let text = std::fs::read_to_string(&path)
            .map_err(|cause| Error::invalid(format!("cannot read {}", path.display())).with_source(cause))?;
        toml::from_str(&text)
            .map_err(|cause| Error::invalid(format!("{} is not a workload", path.display())).with_source(cause))
    }

    /// Returns the workload with `records` records and as many keys as keep records per key as they were.
    #[must_use]
    pub fn with_records(mut self, records: u64) -> Self {
        let keys = u128::from(self.keys) * u128::from(records) / u128::from(self.records.max(1));
        self.keys = u64::try_from(keys).unwrap_or(u64::MAX).max(1);
        self.records = records;
        self
    }

    /// Returns a mark that differs where the records differ.
    pub fn fingerprint(&self) -> String {
        let mut hasher = DefaultHasher::new();
        format!("{self:?}").hash(&mut hasher);
        self.records().take(16).for_each(|record| record.value.hash(&mut hasher));
        format!("{:08x}", hasher.finish() >> 32)
    }

    /// Returns the records, the same for the same file. Each is one millisecond younger than the one before.
    pub fn records(&self) -> impl Iterator<Item = Record> + use<> {
        let mut chance = StdRng::seed_from_u64(self.seed);
        let mut keys = Keys::new(self.distribution, self.keys);
        let (note, malformed_every) = ("x".repeat(self.note_bytes), self.malformed_every);
        (0..self.records).map(move |index| {
            let key = keys.draw(&mut chance);
            let mut value = order(key, index, &note, &mut chance);
            if malformed_every > 0 && index % malformed_every == 0 {
                value.truncate(value.len() / 2);
            }
            Record { key, value }
        })
    }

    /// Returns the records' values.
    pub fn values(&self) -> Vec<Vec<u8>> {
        self.records().map(|record| record.value).collect()
    }
}

/// Returns the JSON of the change number `index` of a stream, to order `key`.
pub fn order(key: u64, index: u64, note: &str, chance: &mut StdRng) -> Vec<u8> {
    const STATUSES: [&str; 4] = ["PLACED", "PAID", "SHIPPED", "DELIVERED"];
    let (euros, cents) = (chance.random_range(1..1000), chance.random_range(0..100));
    let status = STATUSES[chance.random_range(0..STATUSES.len())];
    format!(
        r#"{{"order_id":{key},"customer":"customer-{:06}","amount":"{euros}.{cents:02}","status":"{status}","quantity":{},"updated_at":"{}","note":"{note}"}}"#,
        key % 10_000,
        1 + key % 9,
        instant(index),
    )
    .into_bytes()
}

/// Returns the time `millis` after the first of a month, microseconds written out; a month has room for 2.6 billion.
fn instant(millis: u64) -> String {
    let (seconds, millis) = (millis / 1_000, millis % 1_000);
    let (minutes, second) = (seconds / 60, seconds % 60);
    let (hours, minute) = (minutes / 60, minutes % 60);
    let (day, hour) = (1 + hours / 24 % 31, hours % 24);
    format!("2026-03-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}000Z")
}

/// Returns the columns of the records.
pub fn orders_schema() -> SchemaRef {
    let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("order_id", DataType::Int64, false),
        Field::new("customer", DataType::Utf8, true),
        Field::new("amount", DataType::Decimal128(18, 2), true),
        Field::new("status", DataType::Utf8, true),
        Field::new("quantity", DataType::Int64, true),
        Field::new("updated_at", instant, true),
        Field::new("note", DataType::Utf8, true),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_describes_records_of_about_200_bytes() -> Result<()> {
        for name in ["orders", "orders_malformed", "uniform", "zipf", "append_mostly"] {
            let workload = Workload::open(name)?.with_records(1_000);
            let lengths: Vec<usize> = workload.records().map(|record| record.value.len()).collect();
            let longest = lengths.iter().max().copied().unwrap_or_default();
            assert_eq!(lengths.len(), 1_000, "{name}");
            assert!((180..=215).contains(&longest), "{name}: {longest}");
        }
        Ok(())
    }

    #[test]
    fn records_per_key_stay_when_records_change() -> Result<()> {
        let workload = Workload::open("orders")?;
        let larger = workload.clone().with_records(workload.records * 10);
        assert_eq!(larger.keys, workload.keys * 10);
        assert_ne!(larger.fingerprint(), workload.fingerprint());
        Ok(())
    }

    #[test]
    fn time_goes_on_by_a_millisecond_a_record() {
        assert_eq!(instant(0), "2026-03-01T00:00:00.000000Z");
        assert_eq!(instant(90_061_007), "2026-03-02T01:01:01.007000Z");
    }
}
