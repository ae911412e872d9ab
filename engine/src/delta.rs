//! A Delta table's log as values: its actions, its versions, and what a table is at one of them.
//!
//! No stage: write, commit, record and rebuild all speak of the log, and this is where its words are. Nothing here
//! decides; the one thing that it changes is a version that does not exist yet ([`log::DeltaLog::put`]).

pub mod action;
pub mod checkpoint;
pub mod clustering;
pub mod log;
pub mod retention;
pub mod spelling;
pub mod state;
