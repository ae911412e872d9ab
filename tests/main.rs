//! The whole path, and the architecture: one test binary beside the unit tests of the crates.
//!
//! Tests that need a service ask `harness::services` for it and leave themselves out where it is missing; the rest runs
//! on a bare machine, on the embedded broker and on the local disk. `tests/run` brings everything up and runs all.

mod harness;

mod catalog;
mod cli;
mod compose;
mod docs;
mod doubles;
mod exactly_once;
mod faults;
mod group;
mod halts;
mod histories;
mod identity;
mod kill;
mod otlp;
mod lookup;
mod memory_limit;
mod pipelines;
mod readers;
mod repl;
mod restarts;
mod sasl;
mod serving;
mod signals;
mod startup;
mod terminal;
mod tidy;
mod tls;
mod upkeep;
mod worked_example;
