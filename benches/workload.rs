//! Workloads: what the benchmarks feed, described by the files in `workloads/` and made from a seed.

use std::path::Path;
use std::sync::Arc;

use alluvium_catalog::{Error, Result};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Deserialize;

/// The shape of a stream of order changes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Records.
    pub records: u64,
    /// What chance begins with.
    pub seed: u64,
    /// Distinct order ids.
    pub keys: u64,
    /// Bytes of padding in each record.
    pub note_bytes: usize,
    /// One record in so many is malformed; 0 for none.
    pub malformed_every: u64,
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

    /// Returns the records' values, the same for the same file.
    pub fn values(&self) -> Vec<Vec<u8>> {
        let mut chance = StdRng::seed_from_u64(self.seed);
        let note = "x".repeat(self.note_bytes);
        let statuses = ["PLACED", "PAID", "SHIPPED", "DELIVERED"];
        (0..self.records)
            .map(|index| {
                let id = chance.random_range(0..self.keys);
                let (euros, cents) = (chance.random_range(1..1000), chance.random_range(0..100));
                let status = statuses[chance.random_range(0..statuses.len())];
                let second = index % 60;
                let value = format!(
                    r#"{{"order_id":{id},"customer":"customer-{:06}","amount":"{euros}.{cents:02}","status":"{status}","quantity":{},"updated_at":"2026-03-01T10:15:{second:02}.{:06}Z","note":"{note}"}}"#,
                    id % 10_000,
                    1 + id % 9,
                    index % 1_000_000
                );
                let is_malformed = self.malformed_every > 0 && index % self.malformed_every == 0;
                let length = if is_malformed { value.len() / 2 } else { value.len() };
                value.into_bytes().into_iter().take(length).collect()
            })
            .collect()
    }
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
