//! The program on a terminal, as a person uses it: `alluvium sql` with statements over several lines, the history,
//! commands and errors; and how far `alluvium optimize` and `alluvium vacuum` are.

use alluvium::delta::log::DeltaLog;
use alluvium::delta::state::TableState;
use serde_json::json;

use crate::harness::lake::Lake;
use crate::harness::shop::Shop;
use crate::harness::{TestResult, services};

/// The key that fetches what was typed before.
const UP: &str = "\u{1b}[A";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sitting_at_the_terminal_goes_from_greeting_to_quit() -> TestResult {
    let Some(python) = services::python()? else { return Ok(()) };
    let shop = Shop::open(Lake::on_disk()?, 1).await?;
    let steps = json!([
        {"keys": "", "expect": "Alluvium SQL."},
        {"keys": "SELECT 20 +\r", "expect": "->", "last": true},
        {"keys": "22 AS answer;\r", "expect": "42"},
        {"keys": format!("{UP}\r"), "expect": "42"},
        {"keys": "\\dt\r", "expect": "silver.orders"},
        {"keys": "SELECT 1,\r order_idd FROM silver.orders;\r", "expect": "input:2:2"},
        {"keys": "SELECT 7 * 6 AS again;\r", "expect": "42"},
        {"keys": "\\q\r", "expect": "", "last": true},
    ]);
    let ended = shop.program.on_terminal(&python, &["sql"], &steps)?;
    ended.check(0)?;
    assert!(ended.out.contains("did you mean 'order_id'?"), "{}", ended.out);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upkeep_on_a_terminal_shows_how_far_it_is() -> TestResult {
    let Some(python) = services::python()? else { return Ok(()) };
    let shop = Shop::open(Lake::on_disk()?, 2).await?;
    let log = DeltaLog::open(&shop.lake.stores(), &shop.lake.table("bronze.orders")?)?;
    let n_files = TableState::load(&log).await?.ok_or("there is no table")?.files.len();
    assert!(n_files > 1, "nothing is to be compacted");
    // What comes first is waited for; what follows may have been drawn by then.
    let shown = |arguments: &[&str], first: &str, last: &str| -> TestResult {
        let steps = json!([{"keys": "", "expect": first, "last": true}]);
        let ended = shop.program.on_terminal(&python, arguments, &steps)?;
        ended.check(0)?;
        assert!(ended.out.contains(last), "{last}: {}", ended.out);
        Ok(())
    };
    let line = |done: &str| format!("compacting bronze.orders  {done}");
    let (first, last) = (format!("0 files into 0, {n_files} files under way"), format!("{n_files} files into 1"));
    shown(&["optimize", "bronze.orders"], &line(&first), &line(&last))?;
    let line = |n_removed: usize| format!("vacuuming bronze.orders  {n_removed} of {n_files} files");
    shown(&["vacuum", "bronze.orders", "--retention", "0s", "--force"], &line(0), &line(n_files))?;

    // Where nobody looks on, only what came of it is told.
    for command in ["optimize", "vacuum"] {
        let ended = shop.program.run(&[command, "silver.orders"])?;
        ended.check(0)?;
        assert!(!ended.err.contains("silver.orders"), "{}", ended.err);
    }
    Ok(())
}
