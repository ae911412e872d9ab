//! `alluvium sql` on a terminal, as a person uses it: statements over several lines, the history, commands, errors.

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
