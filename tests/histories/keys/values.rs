//! The types that a key's columns can have, and values of each that an engine might take for one another: what differs by
//! case, a space, a NUL or the last of many characters, by one microsecond, or in the upper half of its bits only.

use arrow::datatypes::{DataType, TimeUnit};
use serde_json::Value;

use super::Spelling;

/// The type of a column of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyType {
    TinyInt,
    SmallInt,
    Int,
    BigInt,
    Boolean,
    Text,
    /// Strings that are a UUID or nearly one.
    Uuid,
    Binary,
    Date,
    Timestamp,
    TimestampNtz,
    /// A decimal of 64 bits.
    Decimal,
    /// A decimal of 128 bits.
    WideDecimal,
}

impl KeyType {
    /// Returns the type in SQL.
    pub(super) fn sql(self) -> &'static str {
        match self {
            Self::TinyInt => "TINYINT",
            Self::SmallInt => "SMALLINT",
            Self::Int => "INT",
            Self::BigInt => "BIGINT",
            Self::Boolean => "BOOLEAN",
            Self::Text | Self::Uuid => "STRING",
            Self::Binary => "BINARY",
            Self::Date => "DATE",
            Self::Timestamp => "TIMESTAMP",
            Self::TimestampNtz => "TIMESTAMP_NTZ",
            Self::Decimal => "DECIMAL(12,2)",
            Self::WideDecimal => "DECIMAL(38,9)",
        }
    }

    /// Returns the type in Arrow.
    pub(super) fn data_type(self) -> DataType {
        match self {
            Self::TinyInt => DataType::Int8,
            Self::SmallInt => DataType::Int16,
            Self::Int => DataType::Int32,
            Self::BigInt => DataType::Int64,
            Self::Boolean => DataType::Boolean,
            Self::Text | Self::Uuid => DataType::Utf8,
            Self::Binary => DataType::Binary,
            Self::Date => DataType::Date32,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::TimestampNtz => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::Decimal => DataType::Decimal128(12, 2),
            Self::WideDecimal => DataType::Decimal128(38, 9),
        }
    }

    /// Returns values as texts that Arrow casts to the type; those of binary are hexadecimal. The nearest come first.
    pub(super) fn texts(self) -> &'static [&'static str] {
        match self {
            Self::TinyInt => &["0", "1", "-1"],
            Self::SmallInt => &["0", "-1", "256"],
            Self::Int => &INTS,
            Self::BigInt => &BIGINTS,
            Self::Boolean => &["false", "true"],
            Self::Text => &TEXTS,
            Self::Uuid => &UUIDS,
            Self::Binary => &BINARIES,
            Self::Date => &DATES,
            Self::Timestamp => &TIMESTAMPS,
            Self::TimestampNtz => &TIMES_WITHOUT_ZONE,
            Self::Decimal => &DECIMALS,
            Self::WideDecimal => &WIDE_DECIMALS,
        }
    }

    /// Returns the JSON of a value.
    pub(super) fn json(self, text: &str, spelling: Spelling) -> String {
        let quoted = |text: &str| Value::from(text).to_string();
        match (self, spelling) {
            (Self::Boolean, _) => text.to_owned(),
            (_, Spelling::Usual) if self.is_number() => text.to_owned(),
            (Self::Decimal | Self::WideDecimal, Spelling::Other) => {
                quoted(text.trim_end_matches('0').trim_end_matches('.'))
            }
            (Self::Text | Self::Uuid, Spelling::Other) => {
                let escaped: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
                format!("\"{escaped}\"")
            }
            (Self::Binary, Spelling::Other) => quoted(&text.to_uppercase()),
            (Self::Timestamp, Spelling::Other) => quoted(&text.replace('Z', "+00:00")),
            _ => quoted(text),
        }
    }

    /// Returns the ways in which SQL writes a value beside a column of the type.
    pub(super) fn literals(self, text: &str) -> Vec<String> {
        let quoted = format!("'{}'", text.replace('\'', "''"));
        let cast = format!("CAST({quoted} AS {})", self.sql());
        match self {
            Self::TinyInt | Self::SmallInt | Self::Int | Self::BigInt => vec![text.to_owned(), quoted, cast],
            Self::Boolean => vec![text.to_owned(), cast],
            Self::Text | Self::Uuid => vec![quoted, cast],
            Self::Binary => vec![format!("X{quoted}"), format!("x{}", quoted.to_uppercase())],
            Self::Date => vec![quoted.clone(), format!("DATE {quoted}"), cast],
            Self::Timestamp | Self::TimestampNtz => {
                let mut literals = vec![format!("TIMESTAMP {quoted}"), cast];
                if has_nanoseconds(text) {
                    literals.push(quoted);
                }
                literals
            }
            Self::Decimal | Self::WideDecimal => {
                let mut literals = vec![quoted, cast];
                if is_exact(text) {
                    literals.push(text.to_owned());
                }
                literals
            }
        }
    }

    pub(super) fn is_number(self) -> bool {
        self.data_type().is_numeric()
    }

    pub(super) fn is_decimal(self) -> bool {
        matches!(self, Self::Decimal | Self::WideDecimal)
    }

    pub(super) fn is_timestamp(self) -> bool {
        matches!(self, Self::Timestamp | Self::TimestampNtz)
    }

    /// Tells whether the log has bounds for columns of the type.
    pub(super) fn has_bounds(self) -> bool {
        !matches!(self, Self::Boolean | Self::Binary)
    }
}

/// Tells whether a time may be compared with plain text: DataFusion compares the two in nanoseconds since 1970, in 64 bits.
fn has_nanoseconds(text: &str) -> bool {
    text.split('-').next().and_then(|year| year.parse::<u16>().ok()).is_some_and(|year| (1678..2262).contains(&year))
}

/// Tells whether a decimal may be written as a bare number, which is a DOUBLE: DataFusion compares it with 15 digits after
/// the point, and below nine it has as many.
fn is_exact(text: &str) -> bool {
    text.parse::<f64>().is_ok_and(|number| number.abs() < 9.0)
}

const INTS: [&str; 17] = [
    "0",
    "1",
    "-1",
    "2147483647",
    "-2147483648",
    "256",
    "255",
    "-256",
    "65536",
    "65535",
    "-65536",
    "16777216",
    "16777217",
    "10",
    "100",
    "-2",
    "127",
];

const BIGINTS: [&str; 17] = [
    "0",
    "1",
    "-1",
    "9223372036854775807",
    "-9223372036854775808",
    "4294967296",
    "4294967295",
    "-4294967296",
    "9007199254740993",
    "9007199254740992",
    "256",
    "255",
    "-256",
    "65536",
    "10",
    "100",
    "-2",
];

const TEXTS: [&str; 17] = [
    "1",
    "01",
    " 1",
    "",
    "\u{fc}",
    // The same letter in two characters.
    "u\u{308}",
    "1 ",
    "1\u{0}",
    "A",
    "a",
    "123456",
    "1234567",
    "12345678",
    "customer-0000000000000000000000000000000000000000000000000000000000000000000000-a",
    "customer-0000000000000000000000000000000000000000000000000000000000000000000000-b",
    "0190b2e7-5c1a-7def-8000-00000000000a",
    "0190B2E7-5C1A-7DEF-8000-00000000000A",
];

const UUIDS: [&str; 17] = [
    "00000000-0000-0000-0000-000000000000",
    "00000000-0000-0000-0000-000000000001",
    "00000000-0000-0000-0000-00000000000a",
    "00000000-0000-0000-0000-00000000000A",
    "00000000-0000-0000-0000-00000000000g",
    "0000000000000000000000000000000a",
    "00000000000000000000000000000000000a",
    "{00000000-0000-0000-0000-00000000000a}",
    "00000000-0000-0000-0000-0000000000001",
    "00000000-0000-0000-0000-00000000001",
    "00000001-0000-0000-0000-000000000000",
    "00000000-0000-0000-0001-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
    "0190b2e7-5c1a-7def-8000-00000000000a",
    "0190b2e7-5c1a-7def-8000-00000000000b",
    "0190b2e7_5c1a-7def-8000-00000000000a",
];

const BINARIES: [&str; 17] = [
    "",
    "00",
    "0000",
    "01",
    "0100",
    "0001",
    "ff",
    "ff00",
    "00ff",
    "31",
    "3031",
    "00000000000000",
    "0000000000000000",
    "ffffffffffffff",
    "ffffffffffffffff",
    "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff001122334455667701",
    "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff001122334455667702",
];

const DATES: [&str; 17] = [
    "2024-02-29",
    "2024-03-01",
    "1970-01-01",
    "1969-12-31",
    "9999-12-31",
    "0001-01-01",
    "1582-10-15",
    "1582-10-14",
    "2000-01-01",
    "2023-12-31",
    "2024-01-01",
    "2024-01-02",
    "1900-03-01",
    "1600-02-29",
    "1970-01-02",
    "2038-01-19",
    "2038-01-20",
];

const TIMESTAMPS: [&str; 17] = [
    "2024-01-01T00:00:00.000000Z",
    "2024-01-01T00:00:00.000001Z",
    "1970-01-01T00:00:00.000000Z",
    "1969-12-31T23:59:59.999999Z",
    "2024-01-01T00:00:00.001000Z",
    "2024-01-01T00:00:00.000002Z",
    "2023-12-31T23:59:59.999999Z",
    "2024-01-01T00:00:00.000999Z",
    "2024-01-01T00:00:00.010000Z",
    "2024-01-01T00:00:01.000000Z",
    "2024-01-01T01:00:00.000000Z",
    "2024-01-02T00:00:00.000000Z",
    "1970-01-01T00:00:00.000001Z",
    // Beyond what fits 64 bits in nanoseconds.
    "1600-01-01T00:00:00.000000Z",
    "2300-01-01T00:00:00.000000Z",
    "9999-12-31T23:59:59.999999Z",
    "0001-01-01T00:00:00.000000Z",
];

const TIMES_WITHOUT_ZONE: [&str; 5] = [
    "2024-03-31T02:30:00.000000",
    "2024-03-31T02:30:00.000001",
    "1970-01-01T00:00:00.000000",
    "1969-12-31T23:59:59.999999",
    "2024-03-31T02:30:00.001000",
];

const DECIMALS: [&str; 17] = [
    "1.00",
    "1.01",
    "0.01",
    "-0.01",
    "0.00",
    "10.00",
    "0.10",
    "100.00",
    "-1.00",
    "9999999999.99",
    "-9999999999.99",
    "0.99",
    "1.10",
    "11.00",
    "1000.00",
    "42949672.95",
    "42949672.96",
];

/// Some agree in the lower 64 bits, and some as doubles.
const WIDE_DECIMALS: [&str; 17] = [
    "0.000000001",
    "18446744073.709551617",
    "-0.000000001",
    "0.000000000",
    "18446744073.709551616",
    "-18446744073.709551616",
    "1.000000000",
    "1.000000001",
    "-1.000000000",
    "10.000000000",
    "0.000000010",
    "18446744073709551616.000000000",
    "18446744073709551615.000000000",
    "9223372036854775807.000000000",
    "9223372036854775808.000000000",
    "12345678901234567890123456789.123456789",
    "12345678901234567890123456789.123456788",
];
