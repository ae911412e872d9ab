//! What the benchmarks share: workloads, the meter, children with a process of their own, and how results are shown.
//!
//! A benchmark is one command that measures both sides of a ratio in the same run, since shared machines make absolute
//! figures move. `docs/BENCHMARKS.md` has the commands and what was measured.

pub mod arguments;
pub mod child;
pub mod keys;
pub mod meter;
pub mod report;
pub mod workload;

pub use workload::{Workload, orders_schema};
