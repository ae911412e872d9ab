//! The types of columns: from SQL to Arrow, and from Arrow back to the one canonical SQL name.
//!
//! A table's types are Delta's, so the meanings are Spark's: `TIMESTAMP` is an instant, `TIMESTAMP_NTZ` a date and a time
//! of day without zone, both in microseconds. Nothing here casts a value.
//!
//! | SQL | Arrow |
//! |---|---|
//! | `BOOLEAN` `TINYINT` `SMALLINT` `INT` `BIGINT` | `Boolean` `Int8` `Int16` `Int32` `Int64` |
//! | `FLOAT` `DOUBLE` `DECIMAL(p, s)` | `Float32` `Float64` `Decimal128(p, s)` |
//! | `STRING` `BINARY` `DATE` | `Utf8` `Binary` `Date32` |
//! | `TIMESTAMP` `TIMESTAMP_NTZ` | `Timestamp(us, UTC)` `Timestamp(us)` |
//! | `ARRAY<T>` `MAP<K, V>` `STRUCT<a: T>` | `List` `Map` `Struct` |

use std::sync::Arc;

use alluvium_catalog::{Error, Result};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field, Fields, IntervalUnit, TimeUnit};
use datafusion::sql::sqlparser::ast::{
    ArrayElemTypeDef, DataType as Written, ExactNumberInfo, StructField, TimezoneInfo,
};

/// The time zone of instants.
pub(crate) const UTC: &str = "UTC";

/// The deepest nesting of a type: no schema needs more, and types are walked by recursion.
const DEPTH_MAX: usize = 32;

/// The precision and scale of a `DECIMAL` without them, as in Spark.
const DECIMAL_DEFAULT: (u8, i8) = (10, 0);

/// The fraction digits that a microsecond has.
const FRACTION_DIGITS_MAX: u64 = 6;

/// Returns the Arrow type of a column that is declared as `written`.
///
/// # Errors
/// `Invalid` where a Delta table has no such type, with the type to use instead where there is one.
pub fn arrow_type(written: &Written) -> Result<DataType> {
    convert(written, 0)
}

/// Tells whether [`arrow_type`] gives `written` a meaning, or a reason why it has none.
pub(crate) fn is_known(written: &Written) -> bool {
    let nested = matches!(written, Written::Array(_) | Written::Map(..) | Written::Struct(..));
    nested || !matches!(scalar(written), Ok(None))
}

/// Returns the canonical SQL name of an Arrow type, which [`arrow_type`] understands where a table can hold the type;
/// otherwise Arrow's own name.
pub fn sql_type(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "BOOLEAN".to_owned(),
        DataType::Int8 => "TINYINT".to_owned(),
        DataType::Int16 => "SMALLINT".to_owned(),
        DataType::Int32 => "INT".to_owned(),
        DataType::Int64 => "BIGINT".to_owned(),
        DataType::Float32 => "FLOAT".to_owned(),
        DataType::Float64 => "DOUBLE".to_owned(),
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            format!("DECIMAL({precision},{scale})")
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "STRING".to_owned(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "BINARY".to_owned(),
        DataType::Date32 => "DATE".to_owned(),
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => "TIMESTAMP".to_owned(),
        DataType::Timestamp(TimeUnit::Microsecond, None) => "TIMESTAMP_NTZ".to_owned(),
        DataType::Timestamp(unit, Some(_)) => format!("TIMESTAMP({})", fraction_digits(*unit)),
        DataType::Timestamp(unit, None) => format!("TIMESTAMP_NTZ({})", fraction_digits(*unit)),
        DataType::List(item) | DataType::LargeList(item) | DataType::ListView(item) => {
            format!("ARRAY<{}>", sql_type(item.data_type()))
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) if fields.len() == 2 => {
                format!("MAP<{}, {}>", sql_type(fields[0].data_type()), sql_type(fields[1].data_type()))
            }
            other => other.to_string(),
        },
        DataType::Struct(fields) => {
            let fields =
                fields.iter().map(|field| format!("{}: {}", quoted(field.name()), sql_type(field.data_type())));
            format!("STRUCT<{}>", fields.collect::<Vec<_>>().join(", "))
        }
        DataType::Dictionary(_, values) => sql_type(values),
        DataType::Interval(IntervalUnit::YearMonth | IntervalUnit::DayTime | IntervalUnit::MonthDayNano) => {
            "INTERVAL".to_owned()
        }
        other => other.to_string(),
    }
}

/// Returns `name` as it must be written in SQL: in backticks where it is not a plain word.
pub(crate) fn quoted(name: &str) -> String {
    let mut chars = name.chars();
    let plain = chars.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && chars.all(|next| next.is_ascii_alphanumeric() || next == '_');
    if plain { name.to_owned() } else { format!("`{}`", name.replace('`', "``")) }
}

/// Returns the field of a list's items under the name that Delta's own conversion uses.
fn item_field(data_type: DataType) -> Arc<Field> {
    Arc::new(Field::new("element", data_type, true))
}

fn map_type(key: DataType, value: DataType) -> DataType {
    let entries = Fields::from(vec![Field::new("key", key, false), Field::new("value", value, true)]);
    DataType::Map(Arc::new(Field::new("key_value", DataType::Struct(entries), false)), false)
}

fn convert(written: &Written, depth: usize) -> Result<DataType> {
    if depth > DEPTH_MAX {
        return Err(Error::invalid(format!("the type is nested more than {DEPTH_MAX} deep")));
    }
    if let Some(scalar) = scalar(written)? {
        return Ok(scalar);
    }
    match written {
        Written::Array(ArrayElemTypeDef::AngleBracket(item) | ArrayElemTypeDef::SquareBracket(item, None)) => {
            Ok(DataType::List(item_field(convert(item, depth + 1)?)))
        }
        Written::Map(key, value) => Ok(map_type(convert(key, depth + 1)?, convert(value, depth + 1)?)),
        Written::Struct(fields, _) if !fields.is_empty() => {
            let fields: Vec<Field> =
                fields.iter().map(|field| struct_field(field, depth + 1)).collect::<Result<_>>()?;
            let repeated = fields.iter().enumerate().find_map(|(at, field)| {
                let earlier = fields[..at].iter().find(|earlier| earlier.name().eq_ignore_ascii_case(field.name()));
                earlier.map(|earlier| (earlier.name(), field.name()))
            });
            match repeated {
                Some((earlier, later)) => Err(Error::invalid(if earlier == later {
                    format!("two fields of the struct are named '{later}'")
                } else {
                    format!("fields '{earlier}' and '{later}' of the struct differ only in case")
                })
                .with_hint("name one of them otherwise: other engines read names without their case")),
                None => Ok(DataType::Struct(fields.into())),
            }
        }
        _ => Err(unknown(written)),
    }
}

fn scalar(written: &Written) -> Result<Option<DataType>> {
    Ok(Some(match written {
        Written::Boolean | Written::Bool => DataType::Boolean,
        Written::TinyInt(None) => DataType::Int8,
        Written::SmallInt(None) | Written::Int2(None) => DataType::Int16,
        Written::Int(None) | Written::Integer(None) | Written::Int4(None) | Written::Int32 => DataType::Int32,
        Written::BigInt(None) | Written::Int8(None) | Written::Int64 => DataType::Int64,
        Written::Float(ExactNumberInfo::None) | Written::Real | Written::Float4 | Written::Float32 => DataType::Float32,
        Written::Double(ExactNumberInfo::None) | Written::DoublePrecision | Written::Float8 | Written::Float64 => {
            DataType::Float64
        }
        Written::Decimal(info) | Written::Numeric(info) | Written::Dec(info) => decimal(info)?,
        Written::String(None)
        | Written::Text
        | Written::Varchar(_)
        | Written::CharVarying(_)
        | Written::CharacterVarying(_) => DataType::Utf8,
        Written::Binary(None) | Written::Bytea | Written::Bytes(None) | Written::Varbinary(_) | Written::Blob(None) => {
            DataType::Binary
        }
        Written::Date => DataType::Date32,
        Written::Timestamp(digits, TimezoneInfo::WithoutTimeZone) | Written::TimestampNtz(digits) => {
            timestamp(*digits, None)?
        }
        Written::Timestamp(digits, _) => timestamp(*digits, Some(UTC))?,
        Written::Custom(name, modifiers) => return custom(&name.to_string(), modifiers),
        _ => return Ok(None),
    }))
}

/// The types that sqlparser does not know by name.
fn custom(name: &str, modifiers: &[String]) -> Result<Option<DataType>> {
    let zone = match name.to_ascii_uppercase().as_str() {
        "TIMESTAMP_LTZ" => Some(UTC),
        _ => return Ok(None),
    };
    match modifiers {
        [] => timestamp(None, zone).map(Some),
        [digits] => timestamp(digits.parse().ok().or(Some(u64::MAX)), zone).map(Some),
        _ => Ok(None),
    }
}

fn timestamp(digits: Option<u64>, zone: Option<&str>) -> Result<DataType> {
    if digits.is_some_and(|digits| digits > FRACTION_DIGITS_MAX) {
        return Err(Error::invalid("a Delta table keeps microseconds").with_hint("write at most (6), or nothing"));
    }
    Ok(DataType::Timestamp(TimeUnit::Microsecond, zone.map(Arc::from)))
}

fn decimal(info: &ExactNumberInfo) -> Result<DataType> {
    let (precision, scale) = match info {
        ExactNumberInfo::None => return Ok(DataType::Decimal128(DECIMAL_DEFAULT.0, DECIMAL_DEFAULT.1)),
        ExactNumberInfo::Precision(precision) => (*precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (*precision, *scale),
    };
    let checked = (u8::try_from(precision), i8::try_from(scale));
    match checked {
        (Ok(precision @ 1..=DECIMAL128_MAX_PRECISION), Ok(scale))
            if scale >= 0 && scale.unsigned_abs() <= precision =>
        {
            Ok(DataType::Decimal128(precision, scale))
        }
        _ => Err(Error::invalid(format!("DECIMAL({precision},{scale}) does not exist"))
            .with_hint(format!("precision is 1 to {DECIMAL128_MAX_PRECISION}, scale 0 to precision"))),
    }
}

fn struct_field(field: &StructField, depth: usize) -> Result<Field> {
    let name = field.field_name.as_ref().ok_or_else(|| {
        Error::invalid(format!("field {field} of a struct has no name")).with_hint("write STRUCT<name: TYPE, ..>")
    })?;
    Ok(Field::new(&name.value, convert(&field.field_type, depth)?, true))
}

fn unknown(written: &Written) -> Error {
    let hint = match written {
        Written::Char(_)
        | Written::Character(_)
        | Written::Nvarchar(_)
        | Written::Uuid
        | Written::JSON
        | Written::JSONB => "use STRING".to_owned(),
        Written::Time(..) => "use STRING, or TIMESTAMP_NTZ with a date".to_owned(),
        Written::Datetime(_) => "use TIMESTAMP, or TIMESTAMP_NTZ for a time without zone".to_owned(),
        Written::BigIntUnsigned(_) | Written::UInt64 | Written::UBigInt => "use DECIMAL(20,0)".to_owned(),
        Written::IntUnsigned(_) | Written::UInt32 | Written::IntegerUnsigned(_) => "use BIGINT".to_owned(),
        Written::Custom(name, _) => {
            let names = [
                "BOOLEAN",
                "TINYINT",
                "SMALLINT",
                "INT",
                "BIGINT",
                "FLOAT",
                "DOUBLE",
                "DECIMAL",
                "STRING",
                "BINARY",
                "DATE",
                "TIMESTAMP",
                "TIMESTAMP_LTZ",
                "TIMESTAMP_NTZ",
                "ARRAY",
                "MAP",
                "STRUCT",
            ];
            crate::diagnostic::nearest(&name.to_string().to_uppercase(), names).unwrap_or_else(scalars)
        }
        _ => scalars(),
    };
    Error::invalid(format!("a column cannot have type {written}")).with_hint(hint)
}

fn scalars() -> String {
    "types are BOOLEAN, TINYINT, SMALLINT, INT, BIGINT, FLOAT, DOUBLE, DECIMAL(p,s), STRING, BINARY, DATE, TIMESTAMP, \
     TIMESTAMP_NTZ, ARRAY<..>, MAP<.., ..>, STRUCT<.. : ..>"
        .to_owned()
}

fn fraction_digits(unit: TimeUnit) -> u8 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parser::parse_type;

    fn check(written: &str, canonical: &str) -> Result<()> {
        let parsed = arrow_type(&parse_type(written)?)?;
        assert_eq!(sql_type(&parsed), canonical, "{written}");
        assert_eq!(arrow_type(&parse_type(canonical)?)?, parsed, "{canonical} does not mean what {written} means");
        Ok(())
    }

    #[test]
    fn every_spelling_has_one_canonical_name() -> Result<()> {
        for (written, canonical) in [
            ("boolean", "BOOLEAN"),
            ("INTEGER", "INT"),
            ("REAL", "FLOAT"),
            ("DOUBLE PRECISION", "DOUBLE"),
            ("NUMERIC(18, 2)", "DECIMAL(18,2)"),
            ("DECIMAL(5)", "DECIMAL(5,0)"),
            ("DECIMAL", "DECIMAL(10,0)"),
            ("VARCHAR(20)", "STRING"),
            ("TEXT", "STRING"),
            ("BYTES", "BINARY"),
            ("BYTEA", "BINARY"),
            ("VARBINARY", "BINARY"),
            ("TIMESTAMP", "TIMESTAMP"),
            ("TIMESTAMP_LTZ(3)", "TIMESTAMP"),
            ("TIMESTAMP WITH TIME ZONE", "TIMESTAMP"),
            ("TIMESTAMP WITHOUT TIME ZONE", "TIMESTAMP_NTZ"),
            ("TIMESTAMP_NTZ", "TIMESTAMP_NTZ"),
            ("INT[]", "ARRAY<INT>"),
            (
                "ARRAY<STRUCT<a: INT, `b c` MAP<STRING, ARRAY<BIGINT>>>>",
                "ARRAY<STRUCT<a: INT, `b c`: MAP<STRING, ARRAY<BIGINT>>>>",
            ),
            ("ROW<a INT, b STRING>", "STRUCT<a: INT, b: STRING>"),
        ] {
            check(written, canonical)?;
        }
        Ok(())
    }

    #[test]
    fn instants_and_wall_clock_times_differ() -> Result<()> {
        let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        assert_eq!(arrow_type(&parse_type("TIMESTAMP")?)?, instant);
        assert_eq!(arrow_type(&parse_type("TIMESTAMP_NTZ")?)?, DataType::Timestamp(TimeUnit::Microsecond, None));
        Ok(())
    }

    #[test]
    fn types_that_delta_lacks_are_refused_with_a_hint() -> Result<()> {
        for (written, hint) in [
            ("UUID", "use STRING"),
            ("BIGINT UNSIGNED", "use DECIMAL(20,0)"),
            ("DECIMAL(39, 2)", "precision is 1 to 38, scale 0 to precision"),
            ("DECIMAL(3, 5)", "precision is 1 to 38, scale 0 to precision"),
            ("TIMESTAMP(9)", "write at most (6), or nothing"),
            ("STRNG", "did you mean 'STRING'?"),
        ] {
            let refused = arrow_type(&parse_type(written)?);
            assert!(refused.is_err_and(|error| error.hint() == Some(hint)), "{written}");
        }
        assert!(arrow_type(&parse_type(&format!("INT{}", "[]".repeat(100)))?).is_err());
        Ok(())
    }
}
