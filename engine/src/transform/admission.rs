//! Sets aside the records that the table cannot hold: with a NULL where it has none, with an empty string where readers
//! would see NULL, with a date or time that readers do not know.
//!
//! A record is refused whole: it has one fate, so all of its rows go. What is left is what a reader will see, so that
//! keys and orders that are read from the table are those that were compared here. Before it: the flow's SQL. After it:
//! collapse.

use std::collections::{BTreeMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use alluvium_catalog::{Result, TableName};
use alluvium_sql::{Change, Flow, Shaped};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, GenericByteArray, PrimitiveArray, RecordBatch};
use arrow::compute::{max, min, nullif};
use arrow::datatypes::{ArrowNumericType, ByteArrayType, DataType, Date32Type, TimeUnit, TimestampMicrosecondType};

use super::{Fault, internal, positions, select};
use crate::calendar::{DAYS, MICROS};
use crate::hop::RejectClass;

/// Decides which records a table takes.
#[derive(Debug)]
pub(super) struct Admission {
    table: TableName,
    columns: Vec<ColumnRule>,
}

/// What rows bear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bearing {
    /// The record's values.
    Values,
    /// The key of a tombstone, and nothing else.
    KeysAlone,
}

/// What the table asks of a column.
#[derive(Debug)]
struct ColumnRule {
    name: String,
    /// The rows that need a value; none where the column may be NULL.
    needed_in: Option<Rows>,
    /// The rows whose value lands in the table or is compared.
    counts_in: Rows,
    /// What an empty string is, where it matters.
    empty_text: Option<EmptyText>,
}

/// Some rows of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rows {
    All,
    /// All but deletes, of which only key and order count.
    Kept,
}

/// What becomes of an empty string in a partition column. Delta's log cannot tell it from NULL, so NULL is what readers
/// see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EmptyText {
    Refused,
    BecomesNull,
}

/// The first fault of each row that has one.
struct Findings<'a> {
    n_rows: usize,
    deletes: Option<&'a BooleanArray>,
    faults: BTreeMap<usize, (RejectClass, String)>,
}

impl Admission {
    /// Returns what the table of `flow` takes.
    pub(super) fn new(flow: &Flow) -> Self {
        let table = &flow.definition.table;
        let (keys, orders): (&[String], &[String]) = match &flow.change {
            Change::Append => (&[], &[]),
            Change::Upsert { keys, stored_sequence, .. } => {
                (keys.as_slice(), stored_sequence.as_deref().unwrap_or_default())
            }
        };
        let rule = |name: &String, is_nullable: bool| {
            let is_key = keys.contains(name);
            let needed_in = match (is_key, is_nullable) {
                (true, _) => Some(Rows::All),
                (false, false) => Some(Rows::Kept),
                (false, true) => None,
            };
            let is_compared = is_key || orders.contains(name);
            let counts_in = if is_compared { Rows::All } else { Rows::Kept };
            let is_refused = is_compared || needed_in.is_some();
            let empty_text = if is_refused { EmptyText::Refused } else { EmptyText::BecomesNull };
            let empty_text = table.partitioned_by.contains(name).then_some(empty_text);
            ColumnRule { name: name.clone(), needed_in, counts_in, empty_text }
        };
        let fields = flow.table_schema.fields().iter();
        let columns = fields.map(|field| rule(field.name(), field.is_nullable())).collect();
        Self { table: table.name.clone(), columns }
    }

    /// Returns the rows of the records that the table takes, as readers will see them, and what is wrong with others.
    ///
    /// A delete needs its key and its place in the order of it; a tombstone has no place of its own.
    pub(super) fn admit(&self, shaped: Shaped, bearing: Bearing) -> Result<(Shaped, Vec<Fault>)> {
        let mut findings =
            Findings { n_rows: shaped.rows.num_rows(), deletes: shaped.deletes.as_ref(), faults: BTreeMap::new() };
        for (rule, column) in self.columns.iter().zip(shaped.rows.columns()) {
            self.check(rule, column, &mut findings);
        }
        for column in &shaped.sequence {
            check_sequence(column, bearing, &mut findings);
        }
        let fault = |(index, (class, message)): (usize, (RejectClass, String))| {
            let record = (shaped.partitions.value(index), shaped.offsets.value(index));
            Fault { record, class, message }
        };
        let faults: Vec<Fault> = findings.faults.into_iter().map(fault).collect();
        if faults.is_empty() {
            return Ok((self.without_empty_texts(shaped)?, faults));
        }
        let refused: HashSet<(i32, i64)> = faults.iter().map(|fault| fault.record).collect();
        let keep: BooleanArray = positions(&shaped).map(|record| Some(!refused.contains(&record))).collect();
        Ok((self.without_empty_texts(select(&shaped, &keep)?)?, faults))
    }

    fn check(&self, rule: &ColumnRule, column: &ArrayRef, findings: &mut Findings<'_>) {
        let place = format!("column '{}' of {}", rule.name, self.table);
        if let Some(rows) = rule.needed_in
            && column.null_count() > 0
        {
            findings.add(rows, RejectClass::NullViolation, &format!("{place} is NULL"), |index| column.is_null(index));
        }
        if rule.empty_text == Some(EmptyText::Refused)
            && let Some(empty) = empty_texts(column)
        {
            let message = format!("{place} is '', and a partition value cannot be empty: it would be read as NULL");
            findings.add(rule.counts_in, RejectClass::NullViolation, &message, |index| empty.value(index));
        }
        if let Some(outside) = outside_calendar(column) {
            let message = format!("{place} is outside of the years 1 to 9999");
            findings.add(rule.counts_in, RejectClass::TypeMismatch, &message, |index| outside.value(index));
        }
    }

    /// Turns empty strings into the NULL that readers will see.
    fn without_empty_texts(&self, shaped: Shaped) -> Result<Shaped> {
        let becomes_null = |rule: &ColumnRule| rule.empty_text == Some(EmptyText::BecomesNull);
        if !self.columns.iter().any(becomes_null) {
            return Ok(shaped);
        }
        let mut columns = Vec::with_capacity(self.columns.len());
        for (rule, column) in self.columns.iter().zip(shaped.rows.columns()) {
            let empty = if becomes_null(rule) { empty_texts(column) } else { None };
            columns.push(match empty {
                Some(empty) => nullif(column, &empty).map_err(internal)?,
                None => Arc::clone(column),
            });
        }
        let rows = RecordBatch::try_new(shaped.rows.schema(), columns).map_err(internal)?;
        Ok(Shaped { rows, ..shaped })
    }
}

impl Findings<'_> {
    /// Notes a fault of those among `rows` that have it.
    fn add(&mut self, rows: Rows, class: RejectClass, message: &str, has_fault: impl Fn(usize) -> bool) {
        for index in (0..self.n_rows).filter(|index| has_fault(*index)) {
            let is_delete = self.deletes.is_some_and(|deletes| deletes.value(index));
            if rows == Rows::All || !is_delete {
                self.faults.entry(index).or_insert_with(|| (class, message.to_owned()));
            }
        }
    }
}

/// Checks a field of SEQUENCE BY, which the table may hold in a column that is not declared.
fn check_sequence(column: &ArrayRef, bearing: Bearing, findings: &mut Findings<'_>) {
    if bearing == Bearing::Values && column.null_count() > 0 {
        let message = "SEQUENCE BY is NULL, so the row has no place in the order of its key";
        findings.add(Rows::All, RejectClass::NullViolation, message, |index| column.is_null(index));
    }
    if let Some(outside) = outside_calendar(column) {
        let message = "SEQUENCE BY is outside of the years 1 to 9999";
        findings.add(Rows::All, RejectClass::TypeMismatch, message, |index| outside.value(index));
    }
}

/// Marks the empty strings of a column; `None` where there are none.
fn empty_texts(column: &ArrayRef) -> Option<BooleanArray> {
    let is_empty = |value: Option<&str>| Some(value == Some(""));
    let may_be = match column.data_type() {
        DataType::Utf8 => has_empty(column.as_string::<i32>()),
        DataType::LargeUtf8 => has_empty(column.as_string::<i64>()),
        _ => true,
    };
    if !may_be {
        return None;
    }
    let empty: BooleanArray = match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().iter().map(is_empty).collect(),
        DataType::LargeUtf8 => column.as_string::<i64>().iter().map(is_empty).collect(),
        DataType::Utf8View => column.as_string_view().iter().map(is_empty).collect(),
        _ => return None,
    };
    (empty.true_count() > 0).then_some(empty)
}

/// Tells whether a text takes no byte, as NULL may, too.
fn has_empty<T: ByteArrayType>(texts: &GenericByteArray<T>) -> bool {
    texts.value_offsets().windows(2).any(|ends| ends[0] == ends[1])
}

/// Marks the dates and times of a column that readers do not know; `None` where there are none.
fn outside_calendar(column: &ArrayRef) -> Option<BooleanArray> {
    match column.data_type() {
        DataType::Date32 => outside(column.as_primitive::<Date32Type>(), &DAYS),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            outside(column.as_primitive::<TimestampMicrosecondType>(), &MICROS)
        }
        _ => None,
    }
}

fn outside<T: ArrowNumericType>(
    values: &PrimitiveArray<T>,
    calendar: &RangeInclusive<T::Native>,
) -> Option<BooleanArray> {
    let is_outside = |value: T::Native| !calendar.contains(&value);
    // Both ends are found at the speed of memory, and as a rule that is all.
    if ![min(values), max(values)].into_iter().flatten().any(is_outside) {
        return None;
    }
    Some(values.iter().map(|value| Some(value.is_some_and(is_outside))).collect())
}

#[cfg(test)]
mod tests {
    use alluvium_catalog::Error;
    use alluvium_sql::KeyFormat;
    use arrow::array::{Date32Array, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray};
    use arrow::datatypes::{Field, Schema};

    use super::*;
    use crate::decode::sample::{append_flow, timestamp, upsert_flow, value};

    /// In the year 57971: nanoseconds of today where microseconds are meant.
    const NANOS: i64 = 1_767_225_600_123_000_000;

    /// Returns rows of the table of `flow` at the offsets from 0 on.
    fn shaped(flow: &Flow, columns: Vec<ArrayRef>) -> Result<Shaped> {
        let n_rows = columns.first().map_or(0, |column| column.len());
        let fields = flow.table_schema.fields().iter().map(|field| Field::clone(field).with_nullable(true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Ok(Shaped {
            rows: RecordBatch::try_new(schema, columns)
                .map_err(|cause| Error::internal("rows of a test").with_source(cause))?,
            partitions: Int32Array::from(vec![3; n_rows]),
            offsets: Int64Array::from_iter_values((0..).take(n_rows)),
            sequence: Vec::new(),
            deletes: None,
        })
    }

    fn texts(values: &[Option<&str>]) -> ArrayRef {
        Arc::new(StringArray::from(values.to_vec()))
    }

    /// Checks that of `shaped` the rows at `kept` are taken, and that the others have these faults.
    fn check(flow: &Flow, shaped: Shaped, kept: &[i64], refused: &[(i64, RejectClass, &str)]) -> Result<Shaped> {
        let (taken, faults) = Admission::new(flow).admit(shaped, Bearing::Values)?;
        assert_eq!(taken.offsets.values().to_vec(), kept);
        assert_eq!(taken.rows.num_rows(), kept.len());
        let faults: Vec<_> = faults.iter().map(|fault| (fault.record.1, fault.class, fault.message.as_str())).collect();
        assert_eq!(faults, refused);
        Ok(taken)
    }

    #[test]
    fn an_empty_partition_value_is_refused_where_null_is() -> Result<()> {
        let columns = [
            ("city", DataType::Utf8, false, None),
            ("kind", DataType::Utf8, false, None),
            value("rank", DataType::Utf8),
            value("note", DataType::Utf8),
        ];
        let mut flow = upsert_flow(&columns, KeyFormat::Json { fields: vec!["city".to_owned()] })?;
        flow.definition.table.partitioned_by = vec!["city".to_owned(), "kind".to_owned(), "rank".to_owned()];
        if let Change::Upsert { stored_sequence, .. } = &mut flow.change {
            *stored_sequence = Some(vec!["rank".to_owned()]);
        }
        let columns = vec![
            texts(&[Some("a"), Some(""), Some("b"), Some("c"), Some("d"), Some(""), None]),
            texts(&[Some("k"), Some("k"), Some(""), Some("k"), Some(""), Some("k"), Some("k")]),
            texts(&[Some("r"), Some("r"), Some("r"), Some(""), Some("r"), Some("r"), Some("r")]),
            texts(&[Some(""), None, None, None, None, None, None]),
        ];
        // Of a delete only key and order count.
        let deletes = BooleanArray::from(vec![false, false, false, false, true, true, false]);
        let rows = Shaped { deletes: Some(deletes), ..shaped(&flow, columns)? };
        let [city, kind, rank] = ["city", "kind", "rank"].map(|column| {
            format!("column '{column}' of silver.orders is '', and a partition value cannot be empty: it would be read as NULL")
        });
        let refused = [
            (1, RejectClass::NullViolation, city.as_str()),
            (2, RejectClass::NullViolation, kind.as_str()),
            (3, RejectClass::NullViolation, rank.as_str()),
            (5, RejectClass::NullViolation, city.as_str()),
            (6, RejectClass::NullViolation, "column 'city' of silver.orders is NULL"),
        ];
        let taken = check(&flow, rows, &[0, 4], &refused)?;
        // What is no partition value is stored as it is.
        assert_eq!(taken.rows.column(3), &texts(&[Some(""), None]));
        Ok(())
    }

    #[test]
    fn an_empty_partition_value_becomes_the_null_that_is_read() -> Result<()> {
        let mut flow = append_flow(&[("id", DataType::Utf8, false, None), value("city", DataType::Utf8)])?;
        flow.definition.table.partitioned_by = vec!["city".to_owned()];
        let cities = texts(&[Some(""), Some("a"), None, Some("")]);
        let rows = shaped(&flow, vec![texts(&[Some(""), Some("y"), Some("z"), Some("w")]), Arc::clone(&cities)])?;
        let taken = check(&flow, rows, &[0, 1, 2, 3], &[])?;
        assert_eq!(taken.rows.column(0), &texts(&[Some(""), Some("y"), Some("z"), Some("w")]));
        assert_eq!(taken.rows.column(1), &texts(&[None, Some("a"), None, None]));
        // And beside a record that is refused.
        let rows = shaped(&flow, vec![texts(&[Some("x"), None, Some("z"), Some("w")]), cities])?;
        let refused = [(1, RejectClass::NullViolation, "column 'id' of silver.orders is NULL")];
        let taken = check(&flow, rows, &[0, 2, 3], &refused)?;
        assert_eq!(taken.rows.column(1), &texts(&[None, None, None]));
        Ok(())
    }

    #[test]
    fn dates_and_times_that_readers_do_not_know_are_refused() -> Result<()> {
        let flow = append_flow(&[
            value("day", DataType::Date32),
            value("at", timestamp()),
            value("local", DataType::Timestamp(TimeUnit::Microsecond, None)),
        ])?;
        let (first, last) = (*MICROS.start(), *MICROS.end());
        let days =
            vec![Some(*DAYS.start()), Some(*DAYS.end()), Some(i32::MAX), Some(*DAYS.start() - 1), None, None, None];
        let moments = vec![Some(first), Some(last), Some(0), None, Some(i64::MAX), Some(NANOS), None];
        let locals = vec![Some(first), Some(last), None, None, None, None, Some(last + 1)];
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Date32Array::from(days)),
            Arc::new(TimestampMicrosecondArray::from(moments).with_timezone("UTC")),
            Arc::new(TimestampMicrosecondArray::from(locals)),
        ];
        let [day, at, local] = ["day", "at", "local"]
            .map(|column| format!("column '{column}' of silver.orders is outside of the years 1 to 9999"));
        let refused = [
            (2, RejectClass::TypeMismatch, day.as_str()),
            (3, RejectClass::TypeMismatch, day.as_str()),
            (4, RejectClass::TypeMismatch, at.as_str()),
            (5, RejectClass::TypeMismatch, at.as_str()),
            (6, RejectClass::TypeMismatch, local.as_str()),
        ];
        check(&flow, shaped(&flow, columns)?, &[0, 1], &refused)?;
        Ok(())
    }

    #[test]
    fn of_a_delete_only_dates_that_are_compared_are_looked_at() -> Result<()> {
        let columns = [("id", DataType::Date32, false, None), value("day", DataType::Date32)];
        let flow = upsert_flow(&columns, KeyFormat::Json { fields: vec!["id".to_owned()] })?;
        let columns: Vec<ArrayRef> =
            vec![Arc::new(Date32Array::from(vec![0, i32::MIN, 0])), Arc::new(Date32Array::from(vec![i32::MAX, 0, 0]))];
        let sequence: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![0, 0, i64::MIN]));
        let deletes = Some(BooleanArray::from(vec![true; 3]));
        let rows = Shaped { deletes, sequence: vec![sequence], ..shaped(&flow, columns)? };
        let refused = [
            (1, RejectClass::TypeMismatch, "column 'id' of silver.orders is outside of the years 1 to 9999"),
            (2, RejectClass::TypeMismatch, "SEQUENCE BY is outside of the years 1 to 9999"),
        ];
        check(&flow, rows, &[0], &refused)?;
        Ok(())
    }
}
