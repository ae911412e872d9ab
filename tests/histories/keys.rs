//! Keys of every type that a table may have one of. All of a history but JSON, Arrow and SQL knows a key by a small
//! integer, its id. Each table has ids stand for values of its key's columns, one for one, and finds them again in the rows
//! that it reads.

mod values;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryArray, BooleanArray, RecordBatch, Scalar, StringArray, UInt64Array};
use arrow::compute::kernels::cmp::{gt, lt};
use arrow::compute::{cast, sort_to_indices, take};
use arrow::datatypes::{Field, Schema};
use arrow::util::display::array_value_to_string;
use deltalake::datafusion::common::ScalarValue;
use deltalake::datafusion::prelude::{Expr, col, lit};
use serde_json::Value;

use crate::harness::TestResult;
use values::KeyType;

/// How many keys a history has, with ids from 0 on.
pub(crate) const IDS: i64 = 17;

/// The names of a key's columns.
const NAMES: [&str; 3] = ["id", "region", "shard"];

/// What keys are made of. There are 16, and five kinds of tables: seeds in a row meet each pair.
pub(crate) const SHAPES: [&[KeyType]; 16] = [
    &[KeyType::Text],
    &[KeyType::Text, KeyType::Int],
    &[KeyType::Timestamp],
    &[KeyType::BigInt],
    &[KeyType::Uuid],
    &[KeyType::WideDecimal],
    // Which column ends where: ("", "1") is not ("1", "").
    &[KeyType::Text, KeyType::Text],
    &[KeyType::Binary],
    &[KeyType::Date],
    &[KeyType::Decimal],
    &[KeyType::Int, KeyType::Int],
    &[KeyType::Int],
    &[KeyType::Date, KeyType::Text],
    &[KeyType::TimestampNtz, KeyType::Decimal],
    &[KeyType::TinyInt, KeyType::SmallInt, KeyType::Boolean],
    &[KeyType::Binary, KeyType::WideDecimal, KeyType::Date],
];

/// How JSON writes a value: most can be written in two ways, which are one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spelling {
    Usual,
    Other,
}

impl Spelling {
    /// Returns the spelling of a record that comes after so many.
    pub(crate) fn after(n_records: usize) -> Self {
        if n_records.is_multiple_of(2) { Self::Usual } else { Self::Other }
    }
}

/// The keys of a table.
#[derive(Debug)]
pub(crate) struct Keys {
    columns: Vec<Column>,
    /// The ids by what Arrow shows of the columns.
    ids: BTreeMap<Vec<String>, i64>,
}

/// A column of a key.
#[derive(Debug)]
struct Column {
    name: &'static str,
    key_type: KeyType,
    /// The value of each id.
    texts: Vec<&'static str>,
    values: ArrayRef,
}

/// Returns what the keys of the history of `seed` are made of.
pub(crate) fn shape(seed: u64) -> &'static [KeyType] {
    SHAPES[usize::try_from(seed).unwrap_or_default() % SHAPES.len()]
}

impl Keys {
    /// Returns the keys of the history of `seed`.
    pub(crate) fn of_seed(seed: u64) -> TestResult<Self> {
        let types = shape(seed);
        // How many values each column has: all ids differ, and most columns change from one to the next.
        let counts: &[usize] = match types.len() {
            1 => &[17],
            2 => &[5, 4],
            _ => &[3, 3, 2],
        };
        let (mut columns, mut stride) = (Vec::new(), 1);
        for ((key_type, name), n_values) in types.iter().zip(NAMES).zip(counts) {
            let ids = 0..usize::try_from(IDS)?;
            let texts = ids.map(|id| key_type.texts()[id / stride % n_values]).collect();
            columns.push(Column::new(name, *key_type, texts)?);
            stride *= n_values;
        }
        let values: Vec<ArrayRef> = columns.iter().map(|column| ArrayRef::clone(&column.values)).collect();
        let mut ids = BTreeMap::new();
        for (row, id) in (0..IDS).enumerate() {
            if let Some(other) = ids.insert(shown(&values, row)?, id) {
                return Err(format!("{other} and {id} of {types:?} are one key").into());
            }
        }
        Ok(Self { columns, ids })
    }

    /// Returns the names of the columns, as SQL lists them.
    pub(crate) fn names(&self) -> String {
        self.columns.iter().map(|column| column.name).collect::<Vec<_>>().join(", ")
    }

    /// Returns the columns as SQL declares them.
    pub(crate) fn declared(&self) -> String {
        let declared = self.columns.iter().map(|column| format!("{} {} NOT NULL", column.name, column.key_type.sql()));
        declared.collect::<Vec<_>>().join(", ")
    }

    /// Returns the column that a clustered table is clustered by: one that has bounds.
    pub(crate) fn clustering(&self) -> &'static str {
        let bounded = self.columns.iter().find(|column| column.key_type.has_bounds());
        bounded.map_or("seq", |column| column.name)
    }

    /// Returns the members of a JSON object that say which key it is.
    pub(crate) fn members(&self, id: i64, spelling: Spelling) -> String {
        let member = |column: &Column| format!("\"{}\":{}", column.name, column.json(id, spelling));
        self.columns.iter().map(member).collect::<Vec<_>>().join(",")
    }

    /// Returns the conditions in SQL that a row is of a key, one for each column. Of the ways to write a value, `spelling`
    /// counts off one.
    pub(crate) fn conditions(&self, id: i64, spelling: usize) -> Vec<String> {
        let condition = |column: &Column| format!("{} = {}", column.name, column.literal(id, spelling));
        self.columns.iter().map(condition).collect()
    }

    /// Returns the key of a record: an object, or only the value of a single column.
    pub(crate) fn record_key(&self, id: i64, spelling: Spelling) -> String {
        match (&self.columns[..], spelling) {
            ([column], Spelling::Usual) => column.json(id, spelling),
            _ => format!("{{{}}}", self.members(id, spelling)),
        }
    }

    /// Returns the columns as Arrow has them.
    pub(crate) fn fields(&self) -> Vec<Field> {
        let field = |column: &Column| Field::new(column.name, column.key_type.data_type(), false);
        self.columns.iter().map(field).collect()
    }

    /// Returns the column of that name for keys, if the key has one.
    pub(crate) fn column(&self, name: &str, ids: &[i64]) -> TestResult<Option<ArrayRef>> {
        self.columns.iter().find(|column| column.name == name).map(|column| column.of(ids)).transpose()
    }

    /// Returns all columns for keys.
    pub(crate) fn arrays(&self, ids: &[i64]) -> TestResult<Vec<ArrayRef>> {
        self.columns.iter().map(|column| column.of(ids)).collect()
    }

    /// Returns the keys of rows.
    pub(crate) fn ids(&self, rows: &RecordBatch) -> TestResult<Vec<i64>> {
        let mut columns = Vec::new();
        for Column { name, key_type, .. } in &self.columns {
            let column = rows.column_by_name(name).ok_or_else(|| format!("{name} is missing"))?;
            columns.push(cast(column, &key_type.data_type())?);
        }
        let id = |row: usize| -> TestResult<i64> {
            let key = shown(&columns, row)?;
            self.ids.get(&key).copied().ok_or_else(|| format!("{key:?} is no key of the history").into())
        };
        (0..rows.num_rows()).map(id).collect()
    }

    /// Returns the condition that a row is of one of the keys up to `last`; none where there are no such keys.
    pub(crate) fn up_to(&self, last: i64) -> TestResult<Option<Expr>> {
        let keys = (0..=last).map(|id| self.equals(id)).collect::<TestResult<Vec<Expr>>>()?;
        Ok(keys.into_iter().reduce(Expr::or))
    }

    /// Returns the condition that a row is of a key.
    fn equals(&self, id: i64) -> TestResult<Expr> {
        let row = usize::try_from(id)?;
        let mut equal = Vec::new();
        for column in &self.columns {
            let value = ScalarValue::try_from_array(&column.values, row)?;
            equal.push(col(column.name).eq(lit(value)));
        }
        equal.into_iter().reduce(Expr::and).ok_or_else(|| "a key has no columns".into())
    }

    /// Returns the condition that a row of `source` and one of `target` are of one key.
    pub(crate) fn same(&self) -> TestResult<Expr> {
        let of = |table: &str, column: &Column| col(format!("{table}.{}", column.name));
        let equal = self.columns.iter().map(|column| of("target", column).eq(of("source", column)));
        equal.reduce(Expr::and).ok_or_else(|| "a key has no columns".into())
    }

    /// Returns what the log says of a file with rows of these keys.
    pub(crate) fn stats(&self, ids: &[i64]) -> TestResult<String> {
        let (mut least, mut highest, mut nulls) = (Vec::new(), Vec::new(), Vec::new());
        for column in &self.columns {
            let name = column.name;
            nulls.push(format!("\"{name}\":0"));
            if column.key_type.has_bounds() {
                let values = column.of(ids)?;
                let order = sort_to_indices(&values, None, None)?;
                let json = |place: u32| -> TestResult<String> {
                    let text = array_value_to_string(&values, usize::try_from(place)?)?;
                    Ok(format!("\"{name}\":{}", column.key_type.json(&text, Spelling::Usual)))
                };
                least.push(json(order.value(0))?);
                highest.push(json(order.value(ids.len() - 1))?);
            }
        }
        let [least, highest, nulls] = [least, highest, nulls].map(|members| members.join(","));
        Ok(format!(
            r#"{{"numRecords":{},"minValues":{{{least}}},"maxValues":{{{highest}}},"nullCount":{{{nulls}}},"tightBounds":true}}"#,
            ids.len()
        ))
    }

    /// Checks that the bounds in `stats`, if it has any, hold keys that stand in the file.
    pub(crate) fn check_bounds(&self, stats: &Value, ids: &[i64]) -> TestResult {
        for column in &self.columns {
            let (least, highest) = (&stats["minValues"][column.name], &stats["maxValues"][column.name]);
            if least.is_null() || highest.is_null() {
                continue;
            }
            if let Some(id) = column.beyond(ids, least, highest)? {
                let text = column.text(id);
                return Err(format!("has key {text:?}, the log says {least} to {highest}").into());
            }
        }
        Ok(())
    }
}

impl Column {
    fn new(name: &'static str, key_type: KeyType, texts: Vec<&'static str>) -> TestResult<Self> {
        let values: ArrayRef = if key_type == KeyType::Binary {
            let values = texts.iter().map(|text| of_hexadecimal(text)).collect::<TestResult<Vec<_>>>()?;
            Arc::new(BinaryArray::from_iter_values(values))
        } else {
            cast(&StringArray::from(texts.clone()), &key_type.data_type())?
        };
        Ok(Self { name, key_type, texts, values })
    }

    fn text(&self, id: i64) -> &'static str {
        usize::try_from(id).ok().and_then(|row| self.texts.get(row).copied()).unwrap_or_default()
    }

    fn json(&self, id: i64, spelling: Spelling) -> String {
        self.key_type.json(self.text(id), spelling)
    }

    fn literal(&self, id: i64, spelling: usize) -> String {
        let mut literals = self.key_type.literals(self.text(id));
        literals.swap_remove(spelling % literals.len())
    }

    fn of(&self, ids: &[i64]) -> TestResult<ArrayRef> {
        let rows = ids.iter().map(|id| u64::try_from(*id)).collect::<Result<Vec<_>, _>>()?;
        Ok(take(&self.values, &UInt64Array::from(rows), None)?)
    }

    /// Returns a key that lies beyond the bounds.
    fn beyond(&self, ids: &[i64], least: &Value, highest: &Value) -> TestResult<Option<i64>> {
        let beyond: Vec<bool> = if self.key_type.is_decimal() {
            // A number has become a double here, and delta-rs makes it one by a division.
            let slack = |bound: f64| bound.abs() * 1e-12;
            let (least, highest) = (least.as_f64().ok_or("no number")?, highest.as_f64().ok_or("no number")?);
            let is_beyond = |value: f64| value < least - slack(least) || value > highest + slack(highest);
            let values = ids.iter().map(|id| self.text(*id).parse::<f64>());
            values.map(|value| value.map(is_beyond)).collect::<Result<_, _>>()?
        } else {
            let bound = |bound: String| cast(&StringArray::from(vec![bound]), &self.key_type.data_type());
            let values = self.of(ids)?;
            let least: BooleanArray = lt(&values, &Scalar::new(bound(plain(least))?))?;
            let highest = if self.key_type.is_timestamp() { last_microsecond(highest) } else { plain(highest) };
            let highest: BooleanArray = gt(&values, &Scalar::new(bound(highest)?))?;
            least.iter().zip(&highest).map(|(less, more)| less != Some(false) || more != Some(false)).collect()
        };
        Ok(ids.iter().zip(beyond).find(|(_, is_beyond)| *is_beyond).map(|(id, _)| *id))
    }
}

/// Returns what Arrow shows of the values of a row, of which none may be NULL.
fn shown(columns: &[ArrayRef], row: usize) -> TestResult<Vec<String>> {
    if columns.iter().any(|column| column.is_null(row)) {
        return Err("a key is NULL".into());
    }
    Ok(columns.iter().map(|column| array_value_to_string(column, row)).collect::<Result<_, _>>()?)
}

/// Returns a value as text without quotes.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Returns the last time that a bound may stand for: delta-rs cuts times to milliseconds, as the protocol allows.
fn last_microsecond(bound: &Value) -> String {
    let bound = plain(bound);
    match bound.rsplit_once('.') {
        Some((seconds, fraction)) if fraction.trim_end_matches('Z').len() == 3 => {
            let (millis, zone) = fraction.split_at(3);
            format!("{seconds}.{millis}999{zone}")
        }
        _ => bound,
    }
}

fn of_hexadecimal(text: &str) -> TestResult<Vec<u8>> {
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16);
    Ok((0..text.len()).step_by(2).map(byte).collect::<Result<_, _>>()?)
}

#[test]
fn keys_of_every_shape_are_found_again() -> TestResult {
    let ids: Vec<i64> = (0..IDS).rev().collect();
    for seed in 0..SHAPES.len() as u64 {
        let keys = Keys::of_seed(seed)?;
        let rows = RecordBatch::try_new(Arc::new(Schema::new(keys.fields())), keys.arrays(&ids)?)?;
        assert_eq!(keys.ids(&rows)?, ids, "{:?}", shape(seed));
        keys.check_bounds(&serde_json::from_str(&keys.stats(&ids)?)?, &ids)?;
    }
    Ok(())
}
