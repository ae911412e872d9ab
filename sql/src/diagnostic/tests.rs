//! Tests of places and pictures.

use std::path::{Path, PathBuf};

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

/// Returns the codes of `code.rs` with what stands above each, in the order of the codes.
fn codes() -> Vec<(String, String)> {
    let mut codes = Vec::new();
    let mut meaning = "";
    for line in include_str!("code.rs").lines() {
        if let Some(above) = line.strip_prefix("/// ") {
            meaning = above.trim_end_matches('.');
        }
        let value = line.strip_prefix("pub const ").and_then(|constant| constant.split('"').nth(1));
        codes.extend(value.map(|code| (code.to_owned(), meaning.to_owned())));
    }
    codes.sort();
    codes
}

#[test]
fn codes_mean_what_the_guide_says() {
    let guide = include_str!("../../../docs/guide/errors.md");
    let rows = guide.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |")?.split_once("` | "));
    let told: Vec<(String, String)> = rows.map(|(code, meaning)| (code.to_owned(), meaning.to_owned())).collect();
    assert_eq!(told, codes());
    assert!(told.iter().any(|(code, _)| code == code::UNKNOWN_COLUMN), "no code was read: {told:?}");
    let n_codes = told.iter().map(|(code, _)| code).collect::<std::collections::BTreeSet<_>>().len();
    assert_eq!(n_codes, told.len(), "a code means two things");
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
fn the_first_of_many_names_are_listed_where_none_is_near() {
    let names = ["a1", "b2", "c3", "d4", "e5", "f6", "g7", "h8", "i9", "j10"];
    let listed = |diagnostic: Diagnostic| diagnostic.with_nearest("unlike", names).hint;
    let bare = || Diagnostic::new(code::UNKNOWN_COLUMN, &Arc::new(SourceText::new("a.sql", "x")), 0..1, "no such name");
    assert_eq!(listed(bare()).as_deref(), Some("there are: a1, b2, c3, d4, e5, f6, g7, h8, and 2 more"));
    assert_eq!(listed(bare().with_hint("define it")).as_deref(), Some("define it"));
    assert_eq!(bare().with_hint("define it").with_nearest("unlike", []).hint.as_deref(), Some("define it"));
}

/// Returns the files below `folder` that end with `.snap`.
fn snapshots(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(snapshots(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "snap") {
            found.push(path);
        }
    }
    Ok(found)
}

/// Returns the pictures in `text` behind which no hint stands, each by its code and message, and how many pictures there are.
fn without_hint(text: &str) -> (Vec<String>, usize) {
    let is_code = |line: &str| {
        line.strip_prefix("AL").is_some_and(|code| code.len() == 4 && code.chars().all(|digit| digit.is_ascii_digit()))
    };
    let lines: Vec<&str> = text.lines().collect();
    let starts: Vec<usize> = (0..lines.len()).filter(|at| is_code(lines[*at])).collect();
    let lacks = |start: &&usize| {
        let frame_end = lines[**start..].iter().position(|line| line.trim_start().starts_with("\u{2570}\u{2500}"));
        let behind = frame_end.and_then(|end| lines.get(**start + end + 1));
        !behind.is_some_and(|line| line.starts_with("  help: "))
    };
    let shown = |start: &usize| lines[*start..].iter().take(3).copied().collect::<Vec<_>>().join(" ");
    (starts.iter().filter(lacks).map(shown).collect(), starts.len())
}

#[test]
fn every_error_that_a_snapshot_shows_says_what_to_do() -> std::io::Result<()> {
    let mut lacking = Vec::new();
    let mut n_pictures = 0;
    // Those of the program as well, where its crates are beside this one.
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["src", "../engine/src", "../tests/snapshots"].map(|folder| crate_folder.join(folder));
    for folder in folders.iter().filter(|folder| folder.is_dir()) {
        for path in snapshots(folder)? {
            let (missing, n_shown) = without_hint(&std::fs::read_to_string(&path)?);
            lacking.extend(missing.into_iter().map(|error| format!("{}: {error}", path.display())));
            n_pictures += n_shown;
        }
    }
    assert!(n_pictures > 300, "{n_pictures} pictures of errors were found");
    assert!(lacking.is_empty(), "{} errors have no hint:\n{}", lacking.len(), lacking.join("\n"));
    Ok(())
}

#[test]
fn a_picture_without_hint_is_told_from_one_with() {
    let drawn = |diagnostic: Diagnostic| Diagnostics::from(diagnostic).render(false);
    let hinted = at("SELECT custmer_id", 7..17);
    let bare = Diagnostic { hint: None, ..hinted.clone() };
    let text = [drawn(hinted.clone()), drawn(bare), drawn(hinted)].concat();
    let (lacking, n_pictures) = without_hint(&text);
    assert_eq!((lacking.len(), n_pictures), (1, 3), "{lacking:?}");
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
