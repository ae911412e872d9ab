//! What the tests stand on: services, topics with a ledger, lakes, the program as a process, readers and the auditor.
//!
//! Nothing here asks the engine what it did. The auditor knows the ledger of what was produced and the tables, and
//! compares the two.

pub(crate) mod audit;
pub(crate) mod collector;
pub(crate) mod fault;
pub(crate) mod lake;
pub(crate) mod ledger;
pub(crate) mod names;
pub(crate) mod pipeline;
pub(crate) mod program;
pub(crate) mod proxy;
pub(crate) mod reader;
pub(crate) mod scene;
pub(crate) mod served;
pub(crate) mod services;
pub(crate) mod shop;
pub(crate) mod topic;

use alluvium_catalog::{Clock, SystemClock};

/// What a test returns.
pub(crate) type TestResult<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Returns a name that no other test has, now or in an earlier run: servers keep what tests leave behind.
pub(crate) fn unique(what: &str) -> String {
    format!("{what}-{}", SystemClock.new_id().simple())
}

/// Returns the number that a variable sets, or `default`.
pub(crate) fn number(variable: &str, default: u64) -> TestResult<u64> {
    match std::env::var(variable) {
        Ok(text) => text.parse().map_err(|error| format!("{variable} is '{text}': {error}").into()),
        Err(_) => Ok(default),
    }
}
