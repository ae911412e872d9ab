//! What the columns take is what the judge makes of it: random documents, good and bad, through both.

use std::sync::Arc;

use alluvium_sql::RecordLimits;
use arrow::datatypes::{Fields, Schema};
use proptest::prelude::*;

use super::*;
use crate::decode::judge::Judge;
use crate::decode::{Fault, JsonReader};

/// Scalars of every kind between bars, sound or not, written plainly or not; each is tried in a column of every type.
const SCALARS: &str = "\
    true|false|null|nul|nulll|True|tru|0|-0|1|-1|7|127|128|-128|-129|32767|32768|2147483647|2147483648|-2147483649|\
    9223372036854775807|9223372036854775808|-9223372036854775808|-9223372036854775809|99999999999999999999|01|-01|\
    00|1.|.5|-|+1|1e|1e+|--1|1.0|1.5|-0.05|0.0|-0.0|7.000|7.0e0|-128.0|9007199254740992.0|9007199254740993.0|-9007199254740994.00|01.0|1.23|1.230|1.239|123.45|1e3|1E+2|1.5e1|1e-2|1e400|-1e400|1e-400|\
    4.9e-324|3.5e38|1e39|340282350000000000000000000000000000000|16777217|9007199254740993|0.30000001192092896|\
    123456789012345.678|99999999999999999999999999999999999999|100000000000000000000000000000000000000|\
    0.12345678901234567890123456789012345678|1.0000000000000000000000000000000000000000|1e99999999999|\
    9999999999999999.99|10000000000000000|-719162|-719163|2932896|2932897|-719163.0|2932897.0|1767225600|-2147483648|\
    1767225.6e3|29328.96e2|29328.97e2|-62135596800000000|-62135596800000001|253402300799999999|253402300800000000|\
    1767225600000000000|2534023008e8|-621355968e8|-621355969e8";

/// What stands in quotes, between bars, sound or not.
const TEXTS: &str = "\
    |a|abcdefg|abcdefgh|abcdefghi|00fF|0f0|AQID|0g|true|null|7|007|-007|+7| 7 |-0|1.50|1e2|1.|.5|-.|NaN|nan|-NaN|NaN |-Infinity|+Infinity|\
    Infinity|-inf|9223372036854775808|\\u0031|\\\"\\\\\\/\\b\\f\\n\\r\\t|\\u00e9\\u00DF|\\ud83d\\ude00|\\ud83d|\
    \\ude00|\\ud83d\\u0041|\\u12|\\q|\\|\u{e9}|abcdefg\u{e9}|\u{1f600}|\u{7f}|\n|\0|2026-03-01|2026-3-1|20260301|\
    2026-02-29|2024-02-29|2100-02-29|2026-13-01|2026-00-10|0000-01-01|9999-12-31|+12026-03-01|-0001-03-01|\
    2026-03-01T12:00:00Z|2026-03-01t12:00:00z|2026-03-01 12:00:00|2026-03-01T12:00:00.1|\
    2026-03-01T12:00:00.123456789Z|2026-03-01T12:00:00.1234567891Z|2026-03-01T12:00:00.Z|2026-03-01T12:00:00+02:00|\
    2026-03-01T12:00:00.5 -08|2026-03-01T23:59:60Z|2026-03-01T24:00:00Z|2026-03-01 120000|\
    1969-12-31T23:59:59.999999999Z|0000-01-01T00:00:00Z|2026-03-01T12:00:00ZZ|2026-03-01T12:00:00\u{e9}|\
    0001-01-01|0000-12-31|00010101|00001231|99991231|+999999-01-01|+9999-12-31|+10000-01-01|+0001-01-01|-0000-12-31|\
    0001-01-01T00:00:00Z|0001-01-01T00:00:00+00:01|0001-01-01T05:29:59.999999|0000-12-31T23:59:59.999999-00:01|\
    0000-12-31T23:59:59.999999Z|9999-12-31T23:59:59.9999999Z|9999-12-31T23:59:59-00:01|9999-12-31T23:59:60Z|\
    9999-12-31 23:59:59.999999|+57971-01-01T00:00:00Z|+10000-01-01T00:00:00Z|\\u0030000-12-31|\\u0030001-01-01|\
    1677-01-01T00:00:00Z|2026-03-01T12:00:00 Europe/Berlin";

/// Arrays and objects between bars, sound or not.
const CONTAINERS: &str = "\
    []|{}|[ ]|{ }|[1]|[null]|[1,2,]|[,1]|[1 2]|[1,\"2\"]|[[1]]|[\"x\",null]|{\"a\":1}|{\"a\":1,\"b\":\"x\"}|\
    {\"b\":\"x\" , \"a\" : 2}|{\"a\":1,\"a\":2}|{\"a\":null}|{\"b\":\"x\"}|{\"a\":1,\"c\":{\"d\":[1,null]}}|\
    {\"a\":1,\"c\":null}|{\"a\":1,\"c\":{}}|{\"a\":1,\"zz\":[{\"a\":[1.5,{}]}]}|\
    [{\"a\":1},null,{\"a\":2,\"b\":\"y\"}]|[{\"a\":1},{}]|{\"7\":[\"x\"],\"8\":null}|{\"7\":1,\"7\":2}|\
    {\"\\u0061\":1}|{\"a\" 1}|{\"a\":}|{\"a\":1,}|{a:1}|[[[[[[1]]]]]]|{\"a\":{\"a\":{\"a\":{\"a\":{}}}}}|[1}|\
    {\"a\":1]|[{\"a\":1,\"c\":{\"d\":[1],\"e\":true}}]";

fn list(element: DataType, nullable: bool) -> DataType {
    DataType::List(Arc::new(Field::new("element", element, nullable)))
}

fn map(key: DataType, value: DataType) -> DataType {
    let entry = Fields::from(vec![Field::new("key", key, false), Field::new("value", value, true)]);
    DataType::Map(Arc::new(Field::new("key_value", DataType::Struct(entry), false)), false)
}

fn types() -> Vec<(&'static str, DataType)> {
    let deepest = Fields::from(vec![
        Field::new("d", list(DataType::Int32, true), false),
        Field::new("e", DataType::Boolean, true),
    ]);
    let item = DataType::Struct(Fields::from(vec![
        Field::new("a", DataType::Int32, false),
        Field::new("b", DataType::Utf8, true),
        Field::new("c", DataType::Struct(deepest), true),
    ]));
    vec![
        ("truth", DataType::Boolean),
        ("tiny", DataType::Int8),
        ("small", DataType::Int16),
        ("int", DataType::Int32),
        ("big", DataType::Int64),
        ("single", DataType::Float32),
        ("double", DataType::Float64),
        ("price", DataType::Decimal128(5, 2)),
        ("amount", DataType::Decimal128(18, 2)),
        ("wide", DataType::Decimal128(38, 0)),
        ("fine", DataType::Decimal128(38, 38)),
        ("text", DataType::Utf8),
        ("bytes", DataType::Binary),
        ("day", DataType::Date32),
        ("at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
        ("local", DataType::Timestamp(TimeUnit::Microsecond, None)),
        ("abroad", DataType::Timestamp(TimeUnit::Microsecond, Some("+05:30".into()))),
        ("item", item.clone()),
        ("items", list(item, true)),
        ("strict", list(DataType::Int64, false)),
        ("tags", list(DataType::Utf8, true)),
        ("names", map(DataType::Utf8, DataType::Int32)),
        ("numbers", map(DataType::Int64, list(DataType::Utf8, true))),
        ("prices", map(DataType::Decimal128(5, 2), DataType::Float64)),
        ("a\"\\b", DataType::Int32),
        ("K\u{f6}ln", DataType::Utf8),
    ]
}

fn schema_of(fields: &[(&str, DataType)], nullable: bool) -> SchemaRef {
    let fields = fields.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), nullable));
    SchemaRef::new(Schema::new(fields.collect::<Fields>()))
}

/// Every type once, and one column that must be there.
fn wide_schema() -> SchemaRef {
    let wide = schema_of(&types(), true);
    let id = Arc::new(Field::new("id", DataType::Int64, false));
    SchemaRef::new(Schema::new(std::iter::once(id).chain(wide.fields().iter().cloned()).collect::<Fields>()))
}

fn limits() -> RecordLimits {
    RecordLimits { json_depth_max: 6, ..RecordLimits::default() }
}

/// Reads `documents` with the columns and with the judge alone, checks that they agree, and returns how many are rows.
fn check_agreement(schema: &SchemaRef, documents: &[Vec<u8>]) -> Result<usize> {
    let documents: Vec<&[u8]> = documents.iter().map(Vec::as_slice).collect();
    let mut reader = JsonReader::new(SchemaRef::clone(schema), limits())?;
    let mut judge = Judge::new(SchemaRef::clone(schema), limits())?;
    let judged = judge.read((0..).zip(documents.iter().copied()))?;
    // Twice: the second time everything is predicted from the first.
    for _ in 0..2 {
        let read = reader.read(&documents)?;
        let in_words = |mut faults: Vec<(u32, Fault)>| {
            faults.sort_by_key(|(index, _)| *index);
            faults
        };
        let shown = || documents.iter().map(|text| String::from_utf8_lossy(text)).collect::<Vec<_>>().join("\n");
        assert_eq!(read.kept, judged.kept, "{}", shown());
        assert_eq!(in_words(read.faults), in_words(judged.faults.clone()), "{}", shown());
        assert_eq!(read.rows, judged.rows, "{}", shown());
    }
    Ok(judged.kept.len())
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

#[test]
fn every_value_in_every_column_is_what_the_judge_says() -> Result<()> {
    let quoted = TEXTS.split('|').map(quoted);
    let values: Vec<String> =
        SCALARS.split('|').chain(CONTAINERS.split('|')).map(str::to_owned).chain(quoted).collect();
    for (_, data_type) in types() {
        for nullable in [true, false] {
            let schema = schema_of(&[("v", data_type.clone()), ("last", DataType::Int32)], nullable);
            let mut n_rows = 0;
            for value in &values {
                let documents = [
                    "{\"v\":1,\"last\":1}".to_owned(),
                    format!("{{\"v\":{value},\"last\":2}}"),
                    format!("{{\"last\":3, \"v\" : {value} }}"),
                    format!("{{\"other\":{value},\"v\":{value}}}"),
                    format!("{{\"v\":{value},\"v\":{value},\"last\":4}}"),
                ];
                n_rows += check_agreement(&schema, &documents.map(String::into_bytes))?;
            }
            assert!(n_rows > 0, "{data_type}");
        }
    }
    Ok(())
}

#[test]
fn strings_of_every_length_with_anything_in_any_place_are_what_the_judge_says() -> Result<()> {
    let schema = schema_of(&[("text", DataType::Utf8), ("names", map(DataType::Utf8, DataType::Utf8))], true);
    let pieces: [&[u8]; 10] =
        [b"\xff", b"\xc3", b"\xa9", b"\xc3\xa9", b"\xed\xa0\x80", b"\"", b"\\", b"\\u00e9", b"\x1f", b"\x7f"];
    let mut documents = Vec::new();
    for length in 0..20 {
        for (at, piece) in (0..=length).flat_map(|at| pieces.map(|piece| (at, piece))) {
            let mut text = vec![b'a'; length];
            text.splice(at..at, piece.iter().copied());
            let shapes: [[&[u8]; 2]; 4] = [
                [b"{\"text\":\"", b"\"}"],
                [b"{\"other\":[\"", b"\"],\"names\":{}}"],
                [b"{\"", b"\":1}"],
                [b"{\"names\":{\"", b"\":\"\"}, \"after\":\"it\"}"],
            ];
            documents.extend(shapes.map(|[before, after]| [before, &text, after].concat()));
        }
    }
    let n_rows = check_agreement(&schema, &documents)?;
    assert!((documents.len() / 4..documents.len()).contains(&n_rows), "{n_rows} of {}", documents.len());
    Ok(())
}

#[test]
fn documents_as_they_are_usually_written_are_plain() -> Result<()> {
    let plain = || {
        let rows = PlainRows::new(wide_schema(), limits().json_depth_max);
        rows.ok_or_else(|| Error::internal("there is no column for some type"))
    };
    let full = r#"{"id":1,"truth":true,"tiny":-1,"small":2,"int":"3","big":4,"single":1.5,"double":-2e10,"price":"9.99",
        "amount":12345.6,"wide":7,"fine":0.5,"text":"a\"\u00e9\ud83d\ude00","bytes":"00fF","day":"2026-03-01",
        "at":"2026-03-01T12:00:00.5Z","local":"2026-03-01 12:00:00+02:00","abroad":1767225600000000,
        "item":{"a":1,"b":null,"c":{"d":[1,null]},"more":{}},"items":[{"a":2},null],"strict":[],"tags":["x","y"],
        "names":{"a":1,"b":null,"a":2},"numbers":{"1":["x"],"2":null},"prices":{"1.5":2.5},"a\"\\b":1,"K\u00f6ln":"x"}"#;
    let spaced = full.replace(':', " : ").replace(" : 00", ":00").replace("12:00 : ", "12:00:");
    for document in [
        full,
        r#"{"id":1}"#,
        " {\n\"id\" :\t1 , \"tags\" : [ \"a\" , null ] } ",
        r#"{"before":{"deep":[1,{"a":"x\n"},[],{}]},"id":1,"between":[],"text":"","after":-1.5e-3}"#,
        r#"{"text":"x","id":1,"day":20000}"#,
        r#"{"id":1.0,"day":20000.0,"at":0.0,"single":"NaN","double":"-Infinity"}"#,
    ] {
        let mut rows = plain()?;
        for _ in 0..3 {
            assert_eq!(rows.push(document.as_bytes()), Ok(()), "{document}");
        }
        let batch = rows.finish()?;
        assert_eq!((batch.num_rows(), batch.column(0).null_count()), (3, 0));
        check_agreement(&wide_schema(), &[document.as_bytes().to_vec()])?;
    }
    check_agreement(&wide_schema(), &[spaced.into_bytes()])?;
    Ok(())
}

#[test]
fn days_and_instants_of_years_that_no_table_holds_are_not_plain() -> Result<()> {
    let names = ["day", "at", "local", "abroad"];
    let mut columns = types();
    columns.retain(|(name, _)| names.contains(name));
    columns.push(("days", list(DataType::Date32, true)));
    let schema = schema_of(&columns, true);
    let mut rows = PlainRows::new(SchemaRef::clone(&schema), 6).ok_or_else(|| Error::internal("no such column"))?;
    for (document, is_plain) in [
        (r#"{"day":-719162,"days":[2932896]}"#, true),
        (r#"{"day":"0001-01-01","days":["9999-12-31","+9999-12-31"]}"#, true),
        (r#"{"at":-62135596800000000,"local":253402300799999999}"#, true),
        (r#"{"at":"0001-01-01T00:00:00Z","local":"9999-12-31T23:59:59.9999999"}"#, true),
        (r#"{"abroad":"0001-01-01T05:30:00"}"#, true),
        (r#"{"day":1767225600}"#, false),
        (r#"{"day":2147483647}"#, false),
        (r#"{"day":-2147483648}"#, false),
        (r#"{"day":"+999999-01-01"}"#, false),
        (r#"{"day":"0000-12-31"}"#, false),
        (r#"{"days":[1,2932897]}"#, false),
        (r#"{"at":9223372036854775807}"#, false),
        (r#"{"at":1767225600000000000}"#, false),
        (r#"{"at":"+57971-01-01T00:00:00Z"}"#, false),
        (r#"{"local":"9999-12-31T23:59:59-00:01"}"#, false),
        (r#"{"abroad":"0001-01-01T05:29:59.999999"}"#, false),
    ] {
        assert_eq!(rows.push(document.as_bytes()).is_ok(), is_plain, "{document}");
        let n_rows = check_agreement(&schema, &[document.as_bytes().to_vec()])?;
        assert_eq!(n_rows, usize::from(is_plain), "{document}");
    }
    Ok(())
}

#[test]
fn a_document_that_is_not_plain_leaves_no_trace() -> Result<()> {
    let mut rows = PlainRows::new(wide_schema(), 6).ok_or_else(|| Error::internal("no column for some type"))?;
    let good = br#"{"id":1,"text":"t","tags":["a"],"items":[{"a":1,"c":{"d":[1]}}],"names":{"k":1},"truth":true}"#;
    assert_eq!(rows.push(good), Ok(()));
    for bad in [
        r#"{"id":2,"text":"u","tags":["b","c"],"items":[{"a":1,"c":{"d":[1,2]}},{"a":2}],"names":{"k":1,"l":2},"truth":1}"#,
        r#"{"id":2,"items":[{"a":1,"c":{"d":[1,2],"e":true}},{"b":"x"}]}"#,
        r#"{"id":2,"items":[null,{"a":1,"c":null},{"a":1,"c":{"d":[7,"#,
        r#"{"names":{"k":1,"l":null,"m":"x"},"id":2}"#,
        r#"{"names":{"k":1,"l"#,
        r#"{"text":"abc","truth":null,"tags":null,"item":null,"items":null,"names":null}"#,
        r#"{"id":null}"#,
        r#"{"id":2,"id":3}"#,
        r#"{"id":2,"x":[[[[[[1]]]]]]}"#,
        r#"{"id":2} {"#,
        "[]",
        "",
    ] {
        assert_eq!(rows.push(bad.as_bytes()), Err(NotPlain), "{bad}");
        assert_eq!(rows.push(good), Ok(()), "{bad}");
    }
    let batch = rows.finish()?;
    assert_eq!(batch.num_rows(), 13);
    assert!((1..13).all(|row| batch.slice(row, 1) == batch.slice(0, 1)), "{batch:?}");
    let empty = rows.finish()?;
    assert_eq!((empty.num_rows(), empty.num_columns()), (0, 27));
    Ok(())
}

#[test]
fn rows_without_columns_are_counted() -> Result<()> {
    let schema = SchemaRef::new(Schema::empty());
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(70), "]".repeat(70));
    let documents = [&b"{}"[..], deep.as_bytes(), b"{\"a\":1}", b"{"];
    let limits = RecordLimits { json_depth_max: 100, ..RecordLimits::default() };
    let read = JsonReader::new(schema, limits)?.read(&documents)?;
    assert_eq!((read.rows.num_rows(), read.kept, read.faults.len()), (3, vec![0, 1, 2], 1));
    Ok(())
}

/// A value for a column, usually one that fits.
fn value(data_type: &DataType) -> BoxedStrategy<String> {
    let fitting: BoxedStrategy<String> = match data_type {
        DataType::Boolean => any::<bool>().prop_map(|value| value.to_string()).boxed(),
        DataType::Int8 => any::<i8>().prop_map(|value| value.to_string()).boxed(),
        DataType::Int16 => any::<i16>().prop_map(|value| value.to_string()).boxed(),
        DataType::Int32 => any::<i32>().prop_map(|value| value.to_string()).boxed(),
        DataType::Int64 => any::<i64>().prop_map(|value| value.to_string()).boxed(),
        DataType::Float32 | DataType::Float64 => {
            prop_oneof![r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?", any::<f64>().prop_map(|value| {
                format!("{value:?}")
            })]
            .boxed()
        }
        DataType::Decimal128(..) => r#""?-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?"?"#.boxed(),
        DataType::Date32 => prop_oneof![
            40 => r#""(19|20)[0-9]{2}-[01][0-9]-[0-3][0-9]""#,
            2 => edge_text("(T23:30:00[+-]0[0-9]:30)?"),
            2 => edge_number(-719_162, 2_932_897),
            1 => any::<i32>().prop_map(|days| days.to_string()),
        ]
        .boxed(),
        DataType::Timestamp(..) => prop_oneof![
            40 => r#""(19|20)[0-9]{2}-[01][0-9]-[0-3][0-9][T ][0-2][0-9]:[0-5][0-9]:[0-6][0-9](\.[0-9]{1,12})?(Z|[+-]0[0-9]:?30)?""#,
            2 => edge_text(r"[T ][0-2][0-9]:[0-5][0-9]:[0-6][0-9](\.9{1,12})?(Z|[+-]0[0-9]:?30)?"),
            2 => edge_number(-62_135_596_800_000_000, 253_402_300_800_000_000),
            1 => any::<i64>().prop_map(|micros| micros.to_string()),
        ]
        .boxed(),
        DataType::Binary => r#""([0-9a-fA-F]{2}){0,9}""#.boxed(),
        DataType::List(element) => prop::collection::vec(value(element.data_type()), 0..3)
            .prop_map(|elements| format!("[{}]", elements.join(",")))
            .boxed(),
        DataType::Struct(fields) => object(fields).boxed(),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(entry) => prop::collection::vec((r"[a-c0-9]{1,2}", value(entry[1].data_type())), 0..3)
                .prop_map(|entries| entries.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect::<Vec<_>>())
                .prop_map(|entries| format!("{{{}}}", entries.join(", ")))
                .boxed(),
            _ => Just("{}".to_owned()).boxed(),
        },
        _ => r#"[ -~\u{80}-\u{900}]{0,20}"#.prop_map(|text| serde_json::Value::from(text).to_string()).boxed(),
    };
    prop_oneof![60 => fitting, 2 => Just("null".to_owned()), 1 => odd_value()].boxed()
}

/// A day about the ends of the years 1 to 9999, then what `after` says, in quotes.
fn edge_text(after: &str) -> BoxedStrategy<String> {
    let date = "(0000-12-3[01]|0001-01-0[12]|9999-12-3[01]|[+-]0000-12-31|[+](0)?9999-12-31|[+-][0-9]{5,6}-01-01)";
    match prop::string::string_regex(&format!("\"{date}{after}\"")) {
        Ok(text) => text.boxed(),
        Err(_) => Just("null".to_owned()).boxed(),
    }
}

/// A whole number about the first one that a column takes, and the first one after that which it does not.
fn edge_number(first: i64, end: i64) -> impl Strategy<Value = String> {
    let about = |edge: i64| (edge - 3..edge + 3).prop_map(|number| number.to_string());
    let (low, high) = (about(first), about(end));
    (low, high, any::<bool>(), prop::sample::select(vec!["", ".0", "e0"]))
        .prop_map(|(low, high, is_low, after)| format!("{}{after}", if is_low { low } else { high }))
}

fn odd_value() -> impl Strategy<Value = String> {
    let text = prop::sample::select(TEXTS.split('|').collect::<Vec<_>>()).prop_map(quoted);
    let other =
        |choices: &'static str| prop::sample::select(choices.split('|').collect::<Vec<_>>()).prop_map(str::to_owned);
    prop_oneof![text, other(SCALARS), other(CONTAINERS)]
}

/// An object with most of `fields`, perhaps others, in some order and some spelling.
fn object(fields: &Fields) -> impl Strategy<Value = String> + use<> {
    let members: Vec<_> = fields
        .iter()
        .map(|field| {
            let key = serde_json::Value::from(field.name().as_str()).to_string();
            let share = if field.is_nullable() { 0.8 } else { 0.99 };
            prop::option::weighted(share, value(field.data_type()).prop_map(move |value| (key.clone(), value)))
        })
        .collect();
    let other =
        prop::option::weighted(0.2, (prop::sample::select(vec!["\"x\"", "\"id\"", "\"\\u0061\""]), odd_value()));
    let style = prop::sample::select(vec![(":", ","), (": ", ", "), (" :\t", " ,\n")]);
    (members, other, any::<prop::sample::Index>(), prop::bool::weighted(0.2), style).prop_map(
        |(members, other, at, turned, (colon, comma))| {
            let mut members: Vec<(String, String)> = members.into_iter().flatten().collect();
            if turned && !members.is_empty() {
                let middle = at.index(members.len());
                members.rotate_left(middle);
            }
            if let Some((key, value)) = other {
                members.insert(at.index(members.len() + 1), (key.to_owned(), value));
            }
            let members: Vec<String> = members.iter().map(|(key, value)| format!("{key}{colon}{value}")).collect();
            format!("{{{}}}", members.join(comma))
        },
    )
}

/// A document of the wide schema, or what is left of one.
fn document() -> impl Strategy<Value = Vec<u8>> {
    let whole = object(wide_schema().fields()).prop_map(String::into_bytes).boxed();
    let at = || any::<prop::sample::Index>();
    let cut = (whole.clone(), at()).prop_map(|(mut document, at)| {
        document.truncate(at.index(document.len()));
        document
    });
    let flipped = (whole.clone(), at(), any::<u8>()).prop_map(|(mut document, at, byte)| {
        let at = at.index(document.len());
        document[at] = byte;
        document
    });
    let pieces =
        prop::sample::select(vec!["\"", "\\", ",", ":", "{", "}", "[", "]", " ", "0", "e", "-", "null", "\u{e9}"]);
    let inserted = (whole.clone(), at(), pieces).prop_map(|(mut document, at, piece)| {
        let at = at.index(document.len() + 1);
        document.splice(at..at, piece.bytes());
        document
    });
    let removed = (whole.clone(), at()).prop_map(|(mut document, at)| {
        document.remove(at.index(document.len()));
        document
    });
    let trailed = (whole.clone(), prop::sample::select(vec![" ", "\n", ",", "{}", "\0"]))
        .prop_map(|(document, after)| [document.as_slice(), after.as_bytes()].concat());
    prop_oneof![10 => whole, 1 => cut, 2 => flipped, 2 => inserted, 2 => removed, 1 => trailed]
}

proptest! {
    #[test]
    fn documents_of_all_types_become_what_the_judge_says(documents in prop::collection::vec(document(), 1..12)) {
        check_agreement(&wide_schema(), &documents).map_err(|error| TestCaseError::fail(error.chain()))?;
    }
}
