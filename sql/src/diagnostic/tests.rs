//! Tests of places and pictures.

use datafusion::sql::sqlparser::tokenizer::Location;

use super::*;

fn at(text: &str, span: TextSpan) -> Diagnostic {
    let source = Arc::new(SourceText::new("orders.sql", text));
    Diagnostic::new(code::UNKNOWN_COLUMN, &source, span, "column 'custmer_id' not found")
        .with_label("no such column")
        .with_nearest("custmer_id", ["order_id", "customer_id"])
}

#[test]
fn columns_count_characters_and_lines_end_at_line_feeds() {
    let source = SourceText::new("a.sql", "SELECT 'ä',\r\n  x");
    assert_eq!(source.position(12).to_string(), "1:12");
    assert_eq!(source.position(16).to_string(), "2:3");
    assert_eq!(source.position(999).to_string(), "2:4");
    assert_eq!(source.byte(Location { line: 2, column: 3 }), Some(16));
    assert_eq!(source.byte(Location { line: 0, column: 0 }), None);
}

#[test]
fn an_error_is_drawn_below_its_text() {
    let shown = Diagnostics::from(at("SELECT ä, custmer_id\nFROM t", 11..21)).render(false);
    insta::assert_snapshot!(shown);
}

#[test]
fn an_error_at_the_end_of_the_text_is_drawn() {
    for text in ["", "SELECT", "SELECT\n", "\u{0}\n\t\u{fffd}"] {
        let rendered = Diagnostics::from(at(text, text.len()..text.len() + 10)).render(false);
        assert!(rendered.contains("AL0301"), "{text:?} gave {rendered}");
    }
}

#[test]
fn editors_get_json() {
    let shown = Diagnostics::from(at("SELECT custmer_id", 7..17)).to_json();
    insta::assert_json_snapshot!(shown);
}

#[test]
fn the_one_error_names_file_line_and_column() {
    let error = alluvium_catalog::Error::from(at("SELECT\n custmer_id", 8..18));
    assert_eq!(error.message(), "orders.sql:2:2: column 'custmer_id' not found");
    assert_eq!(error.hint(), Some("did you mean 'customer_id'?"));
    assert!(std::error::Error::source(&error).is_some_and(|source| source.is::<Diagnostics>()));
}
