//! How records become a committed table version: Kafka, decode, transform, write, commit; and the binary around them.
//!
//! ```text
//! source -Fetched-> decode -Decoded-> transform -Changes-> write -Staged-> commit -Landed-> record
//!    ^                 +--Reject--> dead letters (land before the batch)         |
//!    +---------------------------- acknowledge(span) ----------------------------+
//! ```
//! One file is one stage, one struct is one hop (`hop.rs`), and `pipeline.rs` alone knows the order.

pub mod hop;
pub mod delta;
pub mod key;
pub mod order;
pub mod pipeline;
pub mod source;
pub mod decode;
pub mod transform;
pub mod write;
pub mod lookup;
pub mod commit;
mod calendar;
mod object_file;
pub mod dead_letter;
pub mod record;
pub mod rebuild;
pub mod upkeep;
pub mod supervise;
pub mod shutdown;
pub mod heap;
pub mod invariant;
pub mod config;
pub mod metrics;
pub mod telemetry;
pub mod serve;
pub mod demo;
pub mod cli;
#[cfg(test)]
mod hooked_store;
