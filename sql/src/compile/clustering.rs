//! What `CLUSTER BY` may name: columns with an order, whose bounds the log of the table keeps for every file.
//!
//! The rules are Delta's for clustered tables, and what this program's own files have bounds for. Source: Delta
//! transaction log protocol, section "Writer Requirements for Clustered Table".

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, Schema, TimeUnit};

use super::source::{HIDDEN_HINT, is_hidden};
use super::table::Checked;
use crate::diagnostic::{Diagnostic, code};
use crate::types::sql_type;

/// As many columns as Delta Lake clusters by: each more makes the bounds of all others wider.
const COLUMNS_MAX: usize = 4;

/// The columns that data files have bounds for, by position, whatever the table's properties allow.
const BOUNDED_MAX: usize = 32;

/// How many columns have bounds.
const BOUNDED_PROPERTY: &str = "delta.dataSkippingNumIndexedCols";

/// Which columns have bounds, by name.
const NAMED_PROPERTY: &str = "delta.dataSkippingStatsColumns";

/// Why a table cannot be clustered by a column that it has.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unfit {
    pub(super) message: String,
    pub(super) hint: String,
}

/// Returns why a table of `schema` with `properties` cannot be clustered by its column at `position`.
pub(super) fn unfit(schema: &Schema, position: usize, properties: &BTreeMap<String, String>) -> Option<Unfit> {
    let field = schema.field(position);
    let name = field.name();
    if !has_bounds(field.data_type()) {
        return Some(Unfit {
            message: format!("a table cannot be clustered by '{name}', which is {}", sql_type(field.data_type())),
            hint: "cluster by numbers, STRING, DATE or TIMESTAMP".to_owned(),
        });
    }
    if let Some(named) = properties.get(NAMED_PROPERTY) {
        let is_named = named.split(',').any(|column| column.trim().trim_matches('`') == name);
        return (!is_named).then(|| Unfit {
            message: format!("a table cannot be clustered by '{name}', which has no bounds in its log"),
            hint: format!("name it in {NAMED_PROPERTY}"),
        });
    }
    let told = properties.get(BOUNDED_PROPERTY).and_then(|text| text.trim().parse::<i64>().ok());
    // Minus one stands for all columns.
    let bounded = told.and_then(|told| usize::try_from(told).ok()).map_or(BOUNDED_MAX, |told| told.min(BOUNDED_MAX));
    (position >= bounded).then(|| Unfit {
        message: format!("a table cannot be clustered by '{name}', which has no bounds in its log"),
        hint: format!("declare it among the first {bounded} columns ({BOUNDED_PROPERTY})"),
    })
}

impl Checked<'_> {
    /// Reports what is wrong with `CLUSTER BY`.
    pub(super) fn check_clustering(&self, properties: &BTreeMap<String, String>, diagnostics: &mut Vec<Diagnostic>) {
        let columns = self.created.clustered_by.as_deref().unwrap_or_default();
        for (at, ident) in columns.iter().enumerate() {
            if is_hidden(&ident.value) {
                let message = format!("a table cannot be clustered by '{}'", ident.value);
                diagnostics.push(self.error(code::BAD_CLUSTERING, ident, message).with_hint(HIDDEN_HINT));
                continue;
            }
            if self.listed(ident, columns.get(..at).unwrap_or_default(), diagnostics).is_none() {
                continue;
            }
            let position = self.schema.index_of(&ident.value).ok();
            if let Some(Unfit { message, hint }) = position.and_then(|place| unfit(self.schema, place, properties)) {
                diagnostics.push(self.error(code::BAD_CLUSTERING, ident, message).with_hint(hint));
            }
        }
    }

    /// Reports what is wrong with `CLUSTER BY` whatever the columns are.
    pub(super) fn check_clause(&self, diagnostics: &mut Vec<Diagnostic>) {
        let Some(first) = self.created.clustered_by.as_ref().and_then(|columns| columns.first()) else { return };
        let n_columns = self.created.clustered_by.as_ref().map_or(0, Vec::len);
        if !self.created.partitioned_by.is_empty() {
            let message = "a table cannot be partitioned and clustered".to_owned();
            let hint = "leave PARTITIONED BY out: files are skipped by the bounds of clustered columns, too";
            diagnostics.push(self.error(code::BAD_CLUSTERING, first, message).with_hint(hint));
        }
        if n_columns > COLUMNS_MAX {
            let last = self.created.clustered_by.iter().flatten().nth(COLUMNS_MAX).unwrap_or(first);
            let message = format!("a table can be clustered by {COLUMNS_MAX} columns, not by {n_columns}");
            diagnostics.push(
                self.error(code::BAD_CLUSTERING, last, message).with_hint("keep those that queries filter by most"),
            );
        }
    }
}

/// Tells whether files have bounds for columns of a type: what `write/stats.rs` of the engine writes.
fn has_bounds(data_type: &DataType) -> bool {
    data_type.is_numeric()
        || matches!(data_type, DataType::Date32 | DataType::Timestamp(TimeUnit::Microsecond, _) | DataType::Utf8)
}
