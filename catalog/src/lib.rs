//! What exists, where it is, where it came from: Alluvium's nouns and the store that keeps them.
//!
//! This crate holds no DataFusion, no Kafka and no Delta, so that its tests run in seconds and every other crate can
//! use its words. One word stands for one idea:
//!
//! - *source*: a declared stream, a topic and its columns
//! - *flow*: one source through one SELECT into one table
//! - *pipeline*: the set of statements in one SQL file
//! - *batch*: what one flow commits at once
//! - *span*: the half-open offset ranges `[first, next)` per partition that a batch covers
//! - *reject*: a record that cannot become a row, with the reason
//! - *landed*: committed in the table
//! - *table*: a Delta table
//! - *commit*: one Delta version
//! - *lineage*: what a commit consumed and produced
//! - *dataset*: anything that the catalog can name and read: a table, or parquet, CSV or JSON files

mod clock;
mod definition;
mod error;
mod graph;
mod lineage;
mod location;
mod measure;
mod name;
mod offset;
mod registry;
mod secret;
pub mod store;

pub use clock::{Clock, ManualClock, SystemClock, Timestamp};
pub use definition::{
    Column, Connection, Dataset, DatasetKind, FlowKind, FlowVersion, MetadataKey, OptionValue, Origin, Source,
    SourceColumn, Table,
};
pub use error::{Error, ErrorKind, Result};
pub use graph::{Branch, Direction, Edge, Graph, Node, Seen, newest_versions};
pub use lineage::{Commit, Definition, Effort, Fate, Input, Lineage, PartitionRange, Positions, StageMillis, follows};
pub use location::{Location, Scheme, StorageSettings, Stores, storage_error};
pub use measure::{counted, grouped, parse_bytes, parse_duration, sized};
pub use name::{Name, TableName, Topic, nearest};
pub use offset::{Misfit, Offset, OffsetRange, Partition, Span};
pub use registry::Registry;
pub use secret::{Secret, SecretProvider, SecretRef};
