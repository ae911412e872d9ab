//! What every format makes of every kind of value.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Builder, Int64Array,
    ListArray, MapBuilder, StringArray, StringBuilder, StructArray, TimestampMicrosecondArray,
    TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, Field, Int32Type, Schema};
use arrow::error::ArrowError;

use super::*;

fn mixed() -> Result<RecordBatch, ArrowError> {
    let tags = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None]);
    let address = StructArray::from(vec![
        (Arc::new(Field::new("city", DataType::Utf8, true)), string(&[Some("K\u{f6}ln \"x\""), None])),
        (Arc::new(Field::new("code", DataType::Int64, true)), Arc::new(Int64Array::from(vec![None, Some(7)])) as _),
    ]);
    let mut levels = MapBuilder::new(None, Int32Builder::new(), StringBuilder::new());
    levels.keys().append_value(1);
    levels.values().append_value("low");
    levels.append(true)?;
    levels.append(false)?;
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from(vec![Some(1), Some(-20_000)]))),
        ("name", string(&[Some("a,\"b\"|\n\tc\\"), Some("")])),
        ("amount", Arc::new(Decimal128Array::from(vec![Some(12_345), None]).with_precision_and_scale(18, 2)?)),
        ("ratio", Arc::new(Float64Array::from(vec![Some(0.1), Some(f64::NAN)]))),
        ("is_new", Arc::new(BooleanArray::from(vec![Some(true), None]))),
        ("day", Arc::new(Date32Array::from(vec![Some(20_000), None]))),
        ("at", Arc::new(TimestampMicrosecondArray::from(vec![Some(1_700_000_000_000_001), None]))),
        (
            "zoned",
            Arc::new(TimestampMicrosecondArray::from(vec![Some(1_700_000_000_000_000), None]).with_timezone("UTC")),
        ),
        ("raw", Arc::new(BinaryArray::from_opt_vec(vec![Some(b"\x00\xff"), None]))),
        ("tags", Arc::new(tags)),
        ("address", Arc::new(address)),
        ("levels", Arc::new(levels.finish())),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
}

fn string(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn render(batches: &[RecordBatch], options: RenderOptions) -> Result<(String, Rendered)> {
    let schema = batches.first().map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
    let mut out = Vec::new();
    let mut renderer = Renderer::new(&schema, options);
    for batch in batches {
        if renderer.write(batch, &mut out)? == Appetite::Enough {
            break;
        }
    }
    let rendered = renderer.finish(&mut out)?;
    Ok((String::from_utf8_lossy(&out).into_owned(), rendered))
}

type TestResult = Result<(), Box<dyn std::error::Error>>;

fn numbers(n_rows: i64) -> Result<RecordBatch, ArrowError> {
    RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from_iter_values(0..n_rows)) as ArrayRef)])
}

#[test]
fn every_format_shows_every_kind_of_value() -> TestResult {
    for (name, format) in Format::ALL {
        let (text, _) = render(&[mixed()?], RenderOptions { format, ..RenderOptions::default() })?;
        insta::assert_snapshot!(format!("mixed_{name}"), text);
    }
    let expanded = RenderOptions { expanded: Expanded::On, ..RenderOptions::default() };
    insta::assert_snapshot!("mixed_expanded", render(&[mixed()?], expanded)?.0);
    Ok(())
}

#[test]
fn a_result_without_rows_still_shows_its_columns() -> TestResult {
    let mut shown = String::new();
    for (name, format) in Format::ALL {
        let (text, rendered) =
            render(&[mixed()?.project(&[0, 1])?.slice(0, 0)], RenderOptions { format, ..RenderOptions::default() })?;
        assert_eq!(rendered, Rendered { shown: 0, total: 0, is_cut: false });
        shown.push_str(&format!("-- {name}\n{text}"));
    }
    insta::assert_snapshot!(shown);
    Ok(())
}

#[test]
fn a_result_without_columns_writes_nothing_but_json_brackets() -> TestResult {
    for (name, format) in Format::ALL {
        let (text, _) = render(&[], RenderOptions { format, ..RenderOptions::default() })?;
        assert!(!text.contains('\u{250c}'), "{name}: {text}");
    }
    Ok(())
}

#[test]
fn wide_text_is_cut_to_the_screen() -> TestResult {
    let wide = "word ".repeat(40) + "\u{1f600}\u{5b57}".repeat(30).as_str();
    let batch = RecordBatch::try_from_iter([
        ("id", Arc::new(Int64Array::from(vec![1])) as ArrayRef),
        ("text", string(&[Some(&wide)])),
        ("short", string(&[Some("x")])),
    ])?;
    let (text, _) = render(&[batch], RenderOptions { width: Some(60), ..RenderOptions::default() })?;
    assert!(text.lines().all(|line| line.chars().count() <= 60), "{text}");
    insta::assert_snapshot!(text);
    Ok(())
}

#[test]
fn columns_that_do_not_fit_are_expanded() -> TestResult {
    let options = RenderOptions { expanded: Expanded::Auto, width: Some(60), ..RenderOptions::default() };
    let (text, _) = render(&[mixed()?], options)?;
    assert!(text.starts_with("-[ row 1 ]"), "{text}");
    let (text, _) = render(&[mixed()?.project(&[0, 2])?], options)?;
    assert!(text.starts_with('\u{250c}'), "{text}");
    Ok(())
}

#[test]
fn a_plan_keeps_its_lines() -> TestResult {
    let batch = RecordBatch::try_from_iter([
        ("plan_type", string(&[Some("logical_plan")])),
        ("plan", string(&[Some("Projection: a\n  TableScan: t")])),
    ])?;
    let (text, _) = render(&[batch], RenderOptions { width: Some(20), ..RenderOptions::default() })?;
    insta::assert_snapshot!(text);
    Ok(())
}

#[test]
fn no_text_for_people_steers_the_terminal() -> TestResult {
    let hostile = "a\u{1b}[2J\u{9b}1m\u{202e}\u{7}b\nc";
    for names in [["one", "two"], ["plan_type", "plan"]] {
        let batch = RecordBatch::try_from_iter(names.map(|name| (name, string(&[Some(hostile)]))))?;
        for (format, expanded) in
            [(Format::Table, Expanded::Off), (Format::Table, Expanded::On), (Format::Markdown, Expanded::Off)]
        {
            let options = RenderOptions { format, expanded, ..RenderOptions::default() };
            let (text, _) = render(std::slice::from_ref(&batch), options)?;
            let steers = |next: char| (next.is_control() && next != '\n') || next == '\u{202e}';
            assert!(!text.contains(steers) && text.contains("u{1b}[2J"), "{format}: {text:?}");
        }
    }
    Ok(())
}

#[test]
fn backslashes_before_bars_make_no_cells_of_markdown() -> TestResult {
    let batch = RecordBatch::try_from_iter([("a", string(&[Some(r"x\|y\\|")]))])?;
    let options = RenderOptions { format: Format::Markdown, ..RenderOptions::default() };
    assert_eq!(render(&[batch], options)?.0, "| a |\n| --- |\n| x\\\\\\|y\\\\\\\\\\| |\n");
    Ok(())
}

#[test]
fn no_text_is_cut_where_there_is_no_screen() -> TestResult {
    let long = "x".repeat(70_000);
    let batch = RecordBatch::try_from_iter([("a", string(&[Some(&long)]))])?;
    let (text, _) = render(&[batch], RenderOptions::default())?;
    assert_eq!((text.matches('x').count(), text.contains('\u{2026}')), (70_000, false));
    Ok(())
}

#[test]
fn rows_beyond_the_limit_are_counted() -> TestResult {
    let limited = RenderOptions { rows_max: Some(200), ..RenderOptions::default() };
    let (text, rendered) = render(&[numbers(150)?, numbers(9_850)?], limited)?;
    assert_eq!(text.lines().count(), 204);
    assert_eq!(rendered.note().as_deref(), Some("200 of 10,000 rows; \\rows all"));

    let many = vec![numbers(1_000_000)?; 3];
    let (_, rendered) = render(&many, limited)?;
    assert_eq!(rendered.note().as_deref(), Some("200 of more than 2,000,000 rows; \\rows all"));

    let csv = RenderOptions { format: Format::Csv, ..limited };
    assert_eq!(render(&[numbers(10_000)?], csv)?.1.note(), None);
    Ok(())
}

#[test]
fn a_table_without_limit_is_written_in_parts() -> TestResult {
    let (text, rendered) = render(&[numbers(25_000)?], RenderOptions::default())?;
    assert_eq!(text.lines().filter(|line| line.contains("n ")).count(), 3);
    assert_eq!(rendered.shown, 25_000);
    Ok(())
}

#[test]
fn a_long_text_does_not_pad_other_rows_to_its_length() -> TestResult {
    let long = "x".repeat(100_000);
    let texts: Vec<Option<&str>> = std::iter::once(long.as_str()).chain(["short"; 999]).map(Some).collect();
    let (text, _) = render(&[RecordBatch::try_from_iter([("a", string(&texts))])?], RenderOptions::default())?;
    assert_eq!((text.matches('x').count(), text.matches("short").count()), (100_000, 999));
    assert!(text.len() < 2_000_000, "{} bytes for 105,000 characters", text.len());
    Ok(())
}

#[test]
fn a_text_of_megabytes_is_cut_to_the_screen_at_once() -> TestResult {
    let shown = |n_chars: usize| -> Result<String, Box<dyn std::error::Error>> {
        let batch = RecordBatch::try_from_iter([("a", string(&[Some(&"x".repeat(n_chars))]))])?;
        Ok(render(&[batch], RenderOptions { width: Some(60), ..RenderOptions::default() })?.0)
    };
    let started = Instant::now();
    assert_eq!(shown(2_000_000)?, shown(100)?);
    assert!(started.elapsed() < Duration::from_secs(30), "it took {:?}", started.elapsed());
    Ok(())
}

#[test]
fn rows_of_long_texts_are_not_held_to_the_end() -> TestResult {
    let long = "x".repeat(1 << 20);
    let batch = RecordBatch::try_from_iter([("a", string(&[Some(long.as_str()); 20]))])?;
    let options = RenderOptions { expanded: Expanded::On, ..RenderOptions::default() };
    let mut renderer = Renderer::new(&batch.schema(), options);
    let mut out = Vec::new();
    let _: Appetite = renderer.write(&batch, &mut out)?;
    assert!(out.len() >= 16 << 20, "{} bytes are written", out.len());
    let rendered = renderer.finish(&mut out)?;
    let text = String::from_utf8(out)?;
    assert_eq!((rendered.shown, text.matches('x').count()), (20, 20 << 20));
    assert!(text.contains("-[ row 20 ]"));
    Ok(())
}

#[test]
fn columns_of_one_name_have_names_of_their_own_in_json() -> TestResult {
    let column = |number: i64| Arc::new(Int64Array::from(vec![number])) as ArrayRef;
    let columns = [("id", column(1)), ("id", column(2)), ("id_1", column(3)), ("id", column(4))];
    let batch = RecordBatch::try_from_iter(columns)?;
    let shown = |format| render(std::slice::from_ref(&batch), RenderOptions { format, ..RenderOptions::default() });
    assert_eq!(shown(Format::Ndjson)?.0, "{\"id\":1,\"id_2\":2,\"id_1\":3,\"id_3\":4}\n");
    assert_eq!(shown(Format::Json)?.0, "[\n{\"id\":1,\"id_2\":2,\"id_1\":3,\"id_3\":4}\n]\n");
    assert_eq!(shown(Format::Csv)?.0, "id,id,id_1,id\n1,2,3,4\n");
    Ok(())
}

#[test]
fn times_beyond_every_calendar_are_shown_as_numbers() -> TestResult {
    let at: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![i64::MAX, 0]));
    let zoned: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![i64::MIN, 0]).with_timezone("UTC"));
    let day: ArrayRef = Arc::new(Date32Array::from(vec![i32::MAX, 0]));
    let field = Arc::new(Field::new("at", zoned.data_type().clone(), true));
    let nested: ArrayRef = Arc::new(StructArray::from(vec![(field, Arc::clone(&zoned))]));
    let mut levels = MapBuilder::new(None, Int32Builder::new(), TimestampMicrosecondBuilder::new());
    for at in [i64::MAX, 0] {
        levels.keys().append_value(1);
        levels.values().append_value(at);
        levels.append(true)?;
    }
    let levels: ArrayRef = Arc::new(levels.finish());
    let columns = [("at", at), ("zoned", zoned), ("day", day), ("nested", nested), ("levels", levels)];
    let batch = RecordBatch::try_from_iter(columns)?;
    let shown = |format| render(std::slice::from_ref(&batch), RenderOptions { format, ..RenderOptions::default() });
    let (late, early) = ("9223372036854775807 us since 1970-01-01", "-9223372036854775808 us since 1970-01-01");
    for (name, format) in Format::ALL {
        let (text, _) = shown(format)?;
        let n_shown = |number: &str| text.matches(number).count();
        let numbers = (n_shown(late), n_shown(early), n_shown("2147483647 days since 1970-01-01"));
        assert_eq!(numbers, (2, 2, 1), "{name}: {text}");
        assert!(text.contains("1970-01-01T00:00:00") || text.contains("1970-01-01 00:00:00"), "{name}: {text}");
    }
    let rows: serde_json::Value = serde_json::from_str(&shown(Format::Json)?.0)?;
    assert_eq!((&rows[0]["at"], &rows[0]["nested"]["at"]), (&late.into(), &early.into()));
    Ok(())
}
