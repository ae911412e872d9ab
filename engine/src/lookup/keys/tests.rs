//! What the module `keys` promises, tested.

use arrow::array::{Date32Array, Decimal128Array, Int8Array, Int64Array, TimestampMicrosecondArray};

use super::*;

fn decoded(text: &str, data_type: &DataType) -> Result<ArrayRef> {
    let mut columns = from_texts(&[text.to_owned()], std::iter::once(("k", data_type)))?;
    columns.pop().ok_or_else(|| Error::internal("no column"))
}

/// Checks that `column` is written as `texts`, and read back from them.
fn check(column: ArrayRef, texts: &[&str]) -> Result<()> {
    let batch = RecordBatch::try_from_iter([("k", Arc::clone(&column))])
        .map_err(|cause| Error::internal("keys").with_source(cause))?;
    let written = to_texts(&batch)?;
    let expected: Vec<String> = texts.iter().map(|text| format!(r#"{{"k":{text}}}"#)).collect();
    assert_eq!(written, expected);
    let read = from_texts(&written, std::iter::once(("k", column.data_type())))?;
    assert_eq!(read, [column]);
    Ok(())
}

#[test]
fn every_type_of_key_is_written_and_read_back() -> Result<()> {
    check(
        Arc::new(Int64Array::from(vec![7, i64::MIN, i64::MAX])),
        &["7", "-9223372036854775808", "9223372036854775807"],
    )?;
    check(Arc::new(Int8Array::from(vec![-128, 127])), &["-128", "127"])?;
    check(Arc::new(BooleanArray::from(vec![true, false])), &["true", "false"])?;
    check(Arc::new(StringArray::from(vec!["", "a ", "\u{e9}\"\n"])), &[r#""""#, r#""a ""#, "\"\u{e9}\\\"\\n\""])?;
    check(Arc::new(BinaryArray::from_iter_values([&b""[..], &[0, 255, 16]])), &[r#""""#, r#""00ff10""#])?;
    check(
        Arc::new(Date32Array::from(vec![0, -1, 20_513])),
        &[r#""1970-01-01""#, r#""1969-12-31""#, r#""2026-03-01""#],
    )?;
    let decimals = Decimal128Array::from(vec![0, -1, 1_230, 10_i128.pow(18) - 1]).with_precision_and_scale(18, 2);
    let decimals = decimals.map_err(|cause| Error::internal("decimals").with_source(cause))?;
    check(Arc::new(decimals), &[r#""0.00""#, r#""-0.01""#, r#""12.30""#, r#""9999999999999999.99""#])?;
    let times = TimestampMicrosecondArray::from(vec![0, 1, -1, 1_772_366_400_000_000]);
    let texts =
        ["1970-01-01T00:00:00", "1970-01-01T00:00:00.000001", "1969-12-31T23:59:59.999999", "2026-03-01T12:00:00"];
    let local: Vec<String> = texts.iter().map(|text| format!("\"{text}\"")).collect();
    check(Arc::new(times.clone()), &local.iter().map(String::as_str).collect::<Vec<_>>())?;
    let zoned: Vec<String> = texts.iter().map(|text| format!("\"{text}Z\"")).collect();
    check(Arc::new(times.with_timezone("UTC")), &zoned.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn a_value_in_another_spelling_is_refused_and_never_rounded() {
    let zone = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let cases = [
        (r#"{"k":7.5}"#, DataType::Int64, "as numbers within its range, as 7"),
        (r#"{"k":7.0}"#, DataType::Int64, "as numbers"),
        (r#"{"k":"7"}"#, DataType::Int64, "as numbers"),
        (r#"{"k":300}"#, DataType::Int8, "as numbers within its range"),
        (r#"{"k":99999999999999999999}"#, DataType::Int64, "as numbers within its range"),
        (r#"{"k":null}"#, DataType::Int64, "as numbers"),
        (r#"{"k":null}"#, DataType::Utf8, "as texts"),
        (r#"{"k":[1]}"#, DataType::Int64, "as numbers"),
        (r#"{"k":7}"#, DataType::Utf8, "as texts"),
        (r#"{"k":"1.005"}"#, DataType::Decimal128(18, 2), "as \""),
        (r#"{"k":"1.5"}"#, DataType::Decimal128(18, 2), "as \"1.50\""),
        (r#"{"k":1.5}"#, DataType::Decimal128(18, 2), "as texts with all digits"),
        (r#"{"k":"0A"}"#, DataType::Binary, "as \"0a\""),
        (r#"{"k":"0g"}"#, DataType::Binary, "in hexadecimal digits"),
        (r#"{"k":"2026-3-1"}"#, DataType::Date32, "as \"2026-03-01\""),
        (r#"{"k":"yesterday"}"#, DataType::Date32, "as \"2026-03-01\""),
        (r#"{"k":"2026-03-01T12:00:00"}"#, zone.clone(), "as \"2026-03-01T12:00:00Z\""),
        (r#"{"k":"2026-03-01T12:00:00+01:00"}"#, zone, "as \"2026-03-01T12:00:00Z\""),
        (r#"{"k":"true"}"#, DataType::Boolean, "true or false"),
    ];
    for (text, data_type, expected) in cases {
        let said = decoded(text, &data_type).err().map(|error| error.message().to_owned()).unwrap_or_default();
        assert!(said.starts_with("key column 'k' is ") && said.contains(expected), "{text}: {said}");
    }
}

#[test]
fn a_key_has_exactly_the_key_columns() {
    let types = [("a", DataType::Int64), ("b", DataType::Utf8)];
    let ask = |text: &str| from_texts(&[text.to_owned()], types.iter().map(|(name, data_type)| (*name, data_type)));
    assert!(ask(r#"{"b":"x","a":1}"#).is_ok());
    let long = format!(r#"{{"a":1,"b":"{}"}}"#, "x".repeat(KEY_BYTES_MAX));
    for (text, expected) in [
        (r#"{"a":1}"#, "a key lacks column 'b'; key columns are a, b"),
        (r#"{"a":1,"b":"x","c":2}"#, "'c' is no key column; they are a, b"),
        ("7", "is not a JSON object"),
        ("{", "is not JSON"),
        ("", "is not JSON"),
        (long.as_str(), "4096 are allowed"),
    ] {
        let said = ask(text).err().map(|error| error.message().to_owned()).unwrap_or_default();
        assert!(said.contains(expected), "{text}: {said}");
    }
}
