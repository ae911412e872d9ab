//! Why a document is no row, in words: class, path, what was expected and what was found.
//!
//! arrow-json decides what is a row; this file looks at what it refused, and at the few values that it would read
//! inexactly. The walk is as deep as the schema, never as deep as the document.

use std::ops::RangeInclusive;

use alluvium_sql::sql_type;
use arrow::array::timezone::Tz;
use arrow::compute::kernels::cast_utils::{Parser, string_to_datetime};
use arrow::datatypes::{DataType, Date32Type, Field, Fields, TimeUnit};
use hashbrown::HashMap;

use super::exact::{decimal_misfit, whole};
use super::raw::{Kind, Node};
use super::scan::Flaw;
use crate::calendar::{DAYS, MICROS};
use crate::hop::RejectClass;

/// The most characters of a bad value that a message shows.
const SHOWN_MAX: usize = 80;

/// What is wrong with a number that its type cannot hold.
const OUT_OF_RANGE: &str = "out of range";

/// What is wrong with a date or timestamp that no table holds.
pub(super) const OUTSIDE_YEARS: &str = "not in the years 1 to 9999";

/// The same of a number, which may well be meant in another unit.
const OUTSIDE_DAYS: &str = "as days since 1970-01-01 not in the years 1 to 9999";
const OUTSIDE_MICROS: &str = "as microseconds since 1970-01-01 not in the years 1 to 9999";

/// What is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The class.
    pub class: RejectClass,
    /// What is wrong and where: lowercase, no full stop.
    pub message: String,
}

impl Fault {
    /// Returns the fault of `class` that says `message`.
    pub(super) fn new(class: RejectClass, message: impl Into<String>) -> Self {
        Self { class, message: message.into() }
    }

    /// Returns the fault of a document that the scan refused.
    pub(super) fn of_flaw(flaw: Flaw, document: &[u8], depth_max: usize) -> Self {
        match flaw {
            Flaw::Syntax { at: 0, .. } if document.is_empty() => {
                Self::new(RejectClass::Malformed, "not valid JSON: empty")
            }
            Flaw::Syntax { what, at } => {
                let before = document.get(..at).unwrap_or(document);
                let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
                let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
                let message = format!("not valid JSON: {what} at line {line} column {column}");
                Self::new(RejectClass::Malformed, message)
            }
            Flaw::NotAnObject(what) => {
                Self::new(RejectClass::Malformed, format!("expected a JSON object, got {what}: {}", shown(document)))
            }
            Flaw::TooDeep => {
                Self::new(RejectClass::TooDeep, format!("nested deeper than json.max.depth ({depth_max})"))
            }
        }
    }

    /// Returns the fault of a document that arrow-json refused for `reason`.
    pub(super) fn of_refusal(fields: &Fields, document: &[u8], reason: &str) -> Self {
        Self::find(fields, document).unwrap_or_else(|| {
            Self::new(RejectClass::TypeMismatch, format!("cannot decode the record: {}", shown(reason.as_bytes())))
        })
    }

    /// Returns the first value of `document` that does not fit `fields`, in order of `fields`.
    pub(super) fn find(fields: &Fields, document: &[u8]) -> Option<Self> {
        let mut path = String::new();
        members_fault(fields, Node::new(document), &mut path)
    }
}

/// Returns `text` on one line, cut to [`SHOWN_MAX`] characters, without characters that a terminal obeys.
pub(super) fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut shown = String::new();
    for (index, next) in text.chars().enumerate() {
        if index == SHOWN_MAX {
            shown.push_str("...");
            break;
        }
        if next.is_control() { shown.extend(next.escape_default()) } else { shown.push(next) }
    }
    shown
}

fn members_fault(fields: &Fields, object: Node<'_>, path: &mut String) -> Option<Fault> {
    for (field, value) in fields.iter().zip(values_of(fields, object)) {
        let length = path.len();
        if length > 0 {
            path.push('.');
        }
        path.push_str(field.name());
        let fault = field_fault(field, value, path);
        if fault.is_some() {
            return fault;
        }
        path.truncate(length);
    }
    None
}

/// Returns what `object` has for each of `fields`. It is walked once and not once a field: large documents come here,
/// sound ones too. Of a repeated key the last counts, as arrow-json has it.
fn values_of<'a>(fields: &Fields, object: Node<'a>) -> Vec<Option<Node<'a>>> {
    let mut indices = HashMap::with_capacity(fields.len());
    for (index, field) in fields.iter().enumerate() {
        // Of two fields of one name the first is filled, as arrow-json has it.
        indices.entry(field.name().as_str()).or_insert(index);
    }
    let mut values = vec![None; fields.len()];
    for (key, value) in object.members() {
        if let Some(slot) = indices.get(&*key).and_then(|index| values.get_mut(*index)) {
            *slot = Some(value);
        }
    }
    values
}

fn field_fault(field: &Field, value: Option<Node<'_>>, path: &mut String) -> Option<Fault> {
    let missing = match value {
        Some(value) if value.kind() != Kind::Null => return value_fault(field.data_type(), value, path),
        _ if field.is_nullable() => return None,
        Some(_) => "is null",
        None => "is missing",
    };
    Some(Fault::new(RejectClass::NullViolation, format!("column '{path}': declared NOT NULL, but {missing}")))
}

fn value_fault(data_type: &DataType, value: Node<'_>, path: &mut String) -> Option<Fault> {
    match (data_type, value.kind()) {
        (DataType::Struct(fields), Kind::Object) => members_fault(fields, value, path),
        (DataType::List(field) | DataType::LargeList(field), Kind::Array) => elements_fault(field, value, path),
        (DataType::Map(entries, _), Kind::Object) => entries_fault(entries, value, path),
        _ => {
            let because = scalar_misfit(data_type, value)?;
            let colon = if because.is_empty() { "" } else { ": " };
            let (expected, got) = (sql_type(data_type), shown(value.text().as_bytes()));
            let message = format!("column '{path}': expected {expected}, got {got}{colon}{because}");
            Some(Fault::new(RejectClass::TypeMismatch, message))
        }
    }
}

fn elements_fault(field: &Field, array: Node<'_>, path: &mut String) -> Option<Fault> {
    let length = path.len();
    for (index, element) in array.elements().enumerate() {
        path.push_str(&format!("[{index}]"));
        let fault = field_fault(field, Some(element), path);
        if fault.is_some() {
            return fault;
        }
        path.truncate(length);
    }
    None
}

fn entries_fault(entries: &Field, object: Node<'_>, path: &mut String) -> Option<Fault> {
    let DataType::Struct(entry) = entries.data_type() else { return None };
    let [_, value_field] = entry.as_ref() else { return None };
    let length = path.len();
    for (key, value) in object.members() {
        path.push_str(&format!("['{}']", shown(key.as_bytes())));
        let fault = field_fault(value_field, Some(value), path);
        if fault.is_some() {
            return fault;
        }
        path.truncate(length);
    }
    None
}

/// Tells why a value does not fit a type, if so; empty where the two alone say it.
fn scalar_misfit(data_type: &DataType, value: Node<'_>) -> Option<&'static str> {
    let kind = value.kind();
    let content = value.content();
    let fits = match data_type {
        DataType::Boolean => kind == Kind::Boolean,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => kind == Kind::String,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            let hex = content.len().is_multiple_of(2) && content.bytes().all(|byte| byte.is_ascii_hexdigit());
            return (kind != Kind::String || !hex).then_some("write binary as hexadecimal digits");
        }
        DataType::Decimal128(precision, scale) => match kind {
            Kind::String | Kind::Number => return decimal_misfit(&content, *precision, *scale),
            _ => false,
        },
        DataType::Float16 | DataType::Float32 | DataType::Float64 => return float_misfit(data_type, kind, &content),
        DataType::Int8 => return whole_misfit(kind, &content, &(i8::MIN..=i8::MAX), OUT_OF_RANGE),
        DataType::Int16 => return whole_misfit(kind, &content, &(i16::MIN..=i16::MAX), OUT_OF_RANGE),
        DataType::Int32 => return whole_misfit(kind, &content, &(i32::MIN..=i32::MAX), OUT_OF_RANGE),
        DataType::Int64 => return whole_misfit(kind, &content, &(i64::MIN..=i64::MAX), OUT_OF_RANGE),
        DataType::Date32 if kind == Kind::String => return date_misfit(&content),
        DataType::Date32 => return whole_misfit(kind, &content, &DAYS, OUTSIDE_DAYS),
        DataType::Timestamp(_, zone) if kind == Kind::String => return time_misfit(zone.as_deref(), &content),
        DataType::Timestamp(TimeUnit::Microsecond, _) => return whole_misfit(kind, &content, &MICROS, OUTSIDE_MICROS),
        DataType::Timestamp(..) => return whole_misfit(kind, &content, &(i64::MIN..=i64::MAX), OUT_OF_RANGE),
        DataType::Struct(_) | DataType::List(_) | DataType::LargeList(_) | DataType::Map(..) => false,
        // No SQL type of a source maps to anything else; what arrow-json says of it stands.
        _ => true,
    };
    (!fits).then_some("")
}

/// Tells why a value is no whole number of `range`, if so; `outside` where it is one, but of no such size.
fn whole_misfit<T: Copy + Into<i128>>(
    kind: Kind,
    content: &str,
    range: &RangeInclusive<T>,
    outside: &'static str,
) -> Option<&'static str> {
    let (first, last): (i128, i128) = ((*range.start()).into(), (*range.end()).into());
    let value = match kind {
        Kind::Number => match whole(content) {
            None => return Some("not a whole number that fits"),
            value => value,
        },
        Kind::String => content.trim_ascii().parse().ok(),
        _ => None,
    };
    match value {
        Some(value) if (first..=last).contains(&value) => None,
        Some(_) => Some(outside),
        None => Some(""),
    }
}

fn date_misfit(text: &str) -> Option<&'static str> {
    match Date32Type::parse(text) {
        Some(day) if DAYS.contains(&day) => None,
        Some(_) => Some(OUTSIDE_YEARS),
        None => Some(""),
    }
}

fn time_misfit(zone: Option<&str>, text: &str) -> Option<&'static str> {
    let zone = zone.unwrap_or("+00:00").parse::<Tz>();
    match zone.and_then(|zone| string_to_datetime(&zone, text)).map(|time| time.timestamp_micros()) {
        Ok(micros) if MICROS.contains(&micros) => None,
        Ok(_) => Some(OUTSIDE_YEARS),
        Err(_) => Some(""),
    }
}

fn float_misfit(data_type: &DataType, kind: Kind, content: &str) -> Option<&'static str> {
    if !matches!(kind, Kind::Number | Kind::String) {
        return Some("");
    }
    let Ok(double) = content.trim_ascii().parse::<f64>() else { return Some("") };
    let overflows = match data_type {
        DataType::Float64 => double.is_infinite(),
        _ => (double as f32).is_infinite(),
    };
    // The words "inf" and "Infinity" in quotes are meant; digits that end up infinite are not.
    let meant = !content.bytes().any(|byte| byte.is_ascii_digit());
    (overflows && !meant).then_some(OUT_OF_RANGE)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::raw::WALKS;
    use super::*;

    /// Looks for the fault of `document` and returns what it says, and how many objects were walked.
    fn found(fields: &Fields, document: &str) -> (Option<String>, usize) {
        WALKS.set(0);
        let fault = Fault::find(fields, document.as_bytes());
        (fault.map(|fault| fault.message), WALKS.get())
    }

    #[test]
    fn every_object_is_walked_once_however_many_columns_there_are() {
        let names: Vec<String> = (0..200).map(|index| format!("c{index}")).collect();
        let price = DataType::Decimal128(5, 2);
        let wide: Fields = names.iter().map(|name| Field::new(name.as_str(), price.clone(), true)).collect();
        let members: Vec<String> = names.iter().map(|name| format!("\"{name}\":1e2")).collect();
        let document = format!("{{{}}}", members.join(","));
        assert_eq!(found(&wide, &document), (None, 1));
        let item = Field::new("element", DataType::Struct(wide), true);
        let list = Fields::from(vec![Field::new("l", DataType::List(Arc::new(item)), true)]);
        assert_eq!(found(&list, &format!("{{\"l\":[{document},{{}},{document}]}}")), (None, 4));
    }

    #[test]
    fn of_a_repeated_key_the_last_counts_and_the_first_column_is_named() {
        let fields: Fields = ["a", "b"].iter().map(|name| Field::new(*name, DataType::Int32, false)).collect();
        for (document, expected) in [
            (r#"{"a":"x","b":2,"a":1}"#, None),
            (r#"{"b":"y","a":1,"\u0061":"x"}"#, Some("column 'a': expected INT, got \"x\"")),
            (r#"{"b":"y","other":{"a":null},"a":1}"#, Some("column 'b': expected INT, got \"y\"")),
            (r#"{"b":1,"a":2,"a":null}"#, Some("column 'a': declared NOT NULL, but is null")),
            (r#"{"b":"y"}"#, Some("column 'a': declared NOT NULL, but is missing")),
        ] {
            assert_eq!(found(&fields, document), (expected.map(str::to_owned), 1), "{document}");
        }
    }
}
