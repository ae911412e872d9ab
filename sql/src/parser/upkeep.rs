//! `OPTIMIZE` and `VACUUM`, in Spark's grammar as far as this program does what they say.

use super::cursor::{Cursor, Result};
use crate::diagnostic::code;
use crate::statement::{Optimize, Spanned, Statement, Vacuum};

/// Reads `OPTIMIZE table [FULL]`.
pub(super) fn optimize(cursor: &mut Cursor<'_>) -> Result<Statement> {
    cursor.expect(&["OPTIMIZE"])?;
    let start = cursor.start();
    let table = cursor.object_name("the table's name")?;
    let table = Spanned::new(table, cursor.since(start));
    let is_full = cursor.accept(&["FULL"]);
    if cursor.at(&["WHERE"]) {
        let instead = "OPTIMIZE table takes all partitions, and leaves alone what is in shape";
        return Err(cursor.unsupported("OPTIMIZE .. WHERE", instead));
    }
    if cursor.at(&["ZORDER", "BY"]) {
        let error = cursor.error(code::SYNTAX, "the columns to order by belong to the table");
        return Err(error.with_hint("declare them: CREATE STREAMING TABLE .. CLUSTER BY (..)"));
    }
    Ok(Statement::Optimize(Optimize { table, is_full }))
}

/// Reads `VACUUM table [RETAIN n HOURS] [DRY RUN]`.
pub(super) fn vacuum(cursor: &mut Cursor<'_>) -> Result<Statement> {
    cursor.expect(&["VACUUM"])?;
    let start = cursor.start();
    let table = cursor.object_name("the table's name")?;
    let table = Spanned::new(table, cursor.since(start));
    for words in [&["LITE"][..], &["USING", "INVENTORY"]] {
        if cursor.at(words) {
            let instead = "leave it out: VACUUM table compares the table's folder with its log";
            return Err(cursor.unsupported(&format!("VACUUM .. {}", words.join(" ")), instead));
        }
    }
    let mut retain_hours = None;
    if cursor.accept(&["RETAIN"]) {
        retain_hours = Some(cursor.count("a whole number of hours")?);
        if !cursor.accept(&["HOURS"]) {
            cursor.expect(&["HOUR"]).map_err(|_| cursor.expected("HOURS"))?;
        }
    }
    let is_dry_run = cursor.accept(&["DRY", "RUN"]);
    Ok(Statement::Vacuum(Vacuum { table, retain_hours, is_dry_run }))
}
