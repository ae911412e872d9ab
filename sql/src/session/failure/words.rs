//! The plain words of what DataFusion, Arrow and Parquet say, and what to do about it. Pure.
//!
//! An error of a row comes up through readers and operators, and each of them writes its name before it; the reader of a
//! query wants the last of them: which value, and why.

use datafusion::error::DataFusionError;

use crate::parser::TYPES;

/// What libraries write before the message of a cause.
const WRAPPERS: [&str; 24] = [
    "External: ",
    "External error: ",
    "Arrow: ",
    "Arrow error: ",
    "Parquet error: ",
    "Parquet argument error: ",
    "Compute error: ",
    "Cast error: ",
    "Parser error: ",
    "Invalid argument error: ",
    "Execution error: ",
    "ExecutionJoin error: ",
    "Error during planning: ",
    "Internal error: ",
    "Object Store error: ",
    "IO error: ",
    "Io error: ",
    "Schema error: ",
    "Csv error: ",
    "Json error: ",
    "Resources exhausted: ",
    "This feature is not implemented: ",
    "Not yet implemented: ",
    "Invalid or Unsupported Configuration: ",
];

/// Behind this the reader of Parquet files writes a cause as Rust writes values.
const IN_FILTER: &str = "Error evaluating filter predicate: ";

/// Behind this a planner asks for a report of what is nearly always a slip in the query.
const ASKS_FOR_REPORT: &str = "This issue was likely caused by a bug in DataFusion";

/// Behind these a cast names the type that a value does not have.
const OF_TYPE: [&str; 2] = [" to value of ", " to type "];

/// What a planner says where a function takes no such arguments.
pub(crate) const NO_SIGNATURE: &str = " failed to match any signature";

/// What the reader of footers writes before the name of a file, behind which the words of the cause stand.
pub(crate) const FOOTER: &str = "Failed to fetch metadata for file ";

/// What to do about a file that ends too early.
pub(crate) const CUT_SHORT: &str = "the file is cut short or is of another format: is it all there?";

/// What to do about a file that a store does not have.
pub(crate) const GONE: &str = "what has been read is gone or was never there; a vacuum takes the files of versions older \
                               than its retention; \\d lists what there is";

/// Returns what the innermost cause of `error` says: without the names of the libraries that it came through, lowercase,
/// without full stop.
pub(crate) fn plain_words(error: &DataFusionError) -> String {
    match error.find_root() {
        DataFusionError::Plan(said)
        | DataFusionError::NotImplemented(said)
        | DataFusionError::Execution(said)
        | DataFusionError::Internal(said)
        | DataFusionError::ResourcesExhausted(said) => unwrapped(said),
        root => unwrapped(&root.message()),
    }
}

/// Returns `said` without what libraries put around it.
pub(crate) fn unwrapped(said: &str) -> String {
    let said = said.split("\n\nbacktrace:").next().unwrap_or(said);
    let filtered = said.split_once(IN_FILTER).map(|(_, written)| innermost(written));
    let said = without_wrappers(filtered.as_deref().unwrap_or(said));
    if let Some((file, cause)) = said.strip_prefix(FOOTER).and_then(|named| named.split_once(": ")) {
        return format!("cannot read the footer of {file}: {}", lowercase_first(without_wrappers(cause)));
    }
    if let Some((function, rest)) = said.split_once(NO_SIGNATURE) {
        return lowercase_first(&without_signature(function, rest));
    }
    let said = said.split(ASKS_FOR_REPORT).next().unwrap_or(said).trim_end().trim_end_matches('.');
    match OF_TYPE.iter().find_map(|before| said.rfind(before).map(|at| said.split_at(at))) {
        Some((cast, of_type)) => lowercase_first(&format!("{cast}{}", in_dialect(of_type))),
        None => lowercase_first(said),
    }
}

/// Tells whether a store was asked for bytes behind the end of a file: its log says it is longer.
pub(crate) fn is_cut_short(said: &str) -> bool {
    ["Requested range was invalid", "InvalidRange", "Range started at", "Requested Range Not Satisfiable"]
        .iter()
        .any(|words| said.contains(words))
}

/// Returns `said` without the names of libraries before it.
pub(crate) fn without_wrappers(said: &str) -> &str {
    let mut said = said.trim();
    while let Some(inner) = WRAPPERS.iter().find_map(|wrapper| said.strip_prefix(wrapper)) {
        said = inner.trim_start();
    }
    said
}

/// Returns the message within an error that is written as Rust writes values: the last text in quotes that is not empty.
fn innermost(written: &str) -> String {
    let mut texts = Vec::new();
    let mut chars = written.chars();
    while chars.by_ref().any(|char| char == '"') {
        let mut text = String::new();
        while let Some(char) = chars.next() {
            match char {
                '"' => break,
                '\\' => match chars.next() {
                    Some('n') => text.push('\n'),
                    Some('t') => text.push('\t'),
                    Some(escaped) => text.push(escaped),
                    None => break,
                },
                plain => text.push(plain),
            }
        }
        texts.push(text);
    }
    match texts.into_iter().rfind(|text| !text.is_empty()) {
        Some(text) => text,
        None if written.contains("DivideByZero") => "divide by zero error".to_owned(),
        None => written.to_owned(),
    }
}

/// Says which call no function answers to, in the words of the dialect.
fn without_signature(function: &str, rest: &str) -> String {
    let call = rest.split_once("argument types '").and_then(|(_, call)| call.split_once('\''));
    match call {
        Some((call, _)) => format!("{function} takes no such arguments: {}", in_dialect(call)),
        None => format!("{function} takes no such arguments"),
    }
}

/// Returns `text` with the names of scalar types as they are declared.
pub(crate) fn in_dialect(text: &str) -> String {
    const NAMES: [(&str, &str); 12] = [
        ("Utf8View", "STRING"),
        ("LargeUtf8", "STRING"),
        ("Utf8", "STRING"),
        ("Boolean", "BOOLEAN"),
        ("Float64", "DOUBLE"),
        ("Float32", "FLOAT"),
        ("Date32", "DATE"),
        ("Decimal128", "DECIMAL"),
        ("Int64", "BIGINT"),
        ("Int32", "INT"),
        ("Int16", "SMALLINT"),
        ("Int8", "TINYINT"),
    ];
    let mut written = String::with_capacity(text.len());
    for word in text.split_inclusive(|char: char| !char.is_ascii_alphanumeric()) {
        let name = word.trim_end_matches(|char: char| !char.is_ascii_alphanumeric());
        let known = NAMES.iter().find(|(known, _)| *known == name).map_or(name, |(_, spelt)| *spelt);
        written.push_str(known);
        written.push_str(&word[name.len()..]);
    }
    written
}

/// Returns `said` without what stands in quotes: names and values, whose words say nothing about what failed.
pub(crate) fn unquoted(said: &str) -> String {
    let mut words = String::with_capacity(said.len());
    let mut open = None;
    let mut before = ' ';
    let mut chars = said.chars().peekable();
    while let Some(char) = chars.next() {
        let is_quote = matches!(char, '\'' | '"');
        // An apostrophe stands within a word, or behind one.
        let begins = is_quote && !before.is_alphanumeric();
        let ends = open == Some(char) && !chars.peek().is_some_and(|next| next.is_alphanumeric());
        match open {
            None if begins => open = Some(char),
            None => words.push(char),
            Some(_) if ends => open = None,
            Some(_) => {}
        }
        before = char;
    }
    words
}

/// Tells whether `said` is about a value in a file of text, which its reader found to be of another type than its column.
pub(crate) fn is_of_file(said: &str) -> bool {
    let bare = unquoted(said).to_lowercase();
    bare.starts_with("error while parsing value ") || bare.contains("whilst decoding field ")
}

/// Returns what to do about `said`, the plain words of a planner or of a row that has no value.
pub(crate) fn advice(said: &str) -> Option<String> {
    const TRY: &str = "compare text with text in quotes, or write TRY_CAST(.. AS type): NULL where it fails";
    const IN_FILE: &str = "mend the value in the file, or read its column as text: CREATE EXTERNAL TABLE name \
                           (column STRING, ..) STORED AS CSV LOCATION 'path'";
    if is_of_file(said) {
        return Some(IN_FILE.to_owned());
    }
    let bare = unquoted(said);
    let lower = bare.to_lowercase();
    let has = |any: &[&str]| any.iter().any(|part| lower.contains(part));
    if let Some(hint) = argument_advice(said, &bare) {
        return Some(hint);
    }
    let hint = match () {
        () if has(&["unsupported sql type"]) => TYPES,
        () if has(&["unsupported sql statement"]) => {
            "a session runs queries, DESCRIBE, EXPLAIN of a query, SHOW, OPTIMIZE and VACUUM"
        }
        () if has(&["incompatible types", "to a common type", "cannot coerce", "cannot infer common"]) => {
            "CAST one of the two, so that both have one type"
        }
        () if has(&["divide by zero"]) => "write x / nullif(y, 0), which is NULL where y is zero",
        () if has(&["group by"]) => "add the column to GROUP BY, or aggregate it, as in max(column)",
        () if has(&["regular expression", "regex"]) => {
            "escape what is meant literally, as in '\\('; there are no look-arounds and backreferences"
        }
        () if has(&["timestamp", "value of date type", "parsing date", "interval", "time zone", "timezone"]) => {
            "write '2026-01-31' or '2026-01-31T08:30:00Z'; TRY_CAST gives NULL where a text is no time"
        }
        () if has(&["cannot cast string", "error parsing", "error while parsing", "invalid digit"]) => TRY,
        () if has(&["too large to store", "too small to store", "decimal"]) => {
            "CAST to a DECIMAL of more digits, such as DECIMAL(38,2), or to DOUBLE"
        }
        () if has(&["overflow", "out of range", "can't cast value"]) => {
            "CAST to a wider type first, such as DECIMAL(38,0) or DOUBLE"
        }
        () if has(&["cannot cast", "can't cast", "failed to cast"]) => TRY,
        () if has(&["more than one row", "scalar subquery"]) => "aggregate in the subquery, or add LIMIT 1",
        () if has(&["invalid function"]) => "\\df PATTERN lists the functions in alluvium sql",
        () if has(&["magic", "corrupt", "footer", "eof:"]) => CUT_SHORT,
        () if has(&["object at location", "no such file"]) => GONE,
        () => return None,
    };
    Some(hint.to_owned())
}

/// Returns which type the argument of a function is to be cast to, where `said` is about that; `bare` is without quotes.
fn argument_advice(said: &str, bare: &str) -> Option<String> {
    let lower = bare.to_lowercase();
    let is_about = ["takes no such arguments", "but received", "coercion", "does not support type"];
    if !is_about.iter().any(|part| lower.contains(part)) || lower.contains(" arguments but received ") {
        return None;
    }
    let said = said.to_lowercase();
    let Some(name) = said.split("function '").nth(1).and_then(|rest| rest.split('\'').next()) else {
        return Some("give it arguments of the types that it takes, by CAST(.. AS type)".to_owned());
    };
    let wanted = match () {
        () if lower.contains("requires string") || lower.contains("expects string") => "STRING",
        () if lower.contains("requires integer") => "BIGINT",
        () if lower.contains("requires timestamp") || lower.contains("requires date") => "TIMESTAMP",
        () if lower.contains("requires numeric") || lower.contains("expects numeric") => "DOUBLE",
        () if bare.contains("(STRING") => "DOUBLE",
        () => return Some(format!("cast an argument to a type that {name} takes, as in {name}(CAST(.. AS type))")),
    };
    Some(format!("cast the argument, as in {name}(CAST(.. AS {wanted}))"))
}

fn lowercase_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use arrow::error::ArrowError;
    use datafusion::parquet::errors::ParquetError;

    use super::*;

    #[test]
    fn a_cause_comes_out_of_all_that_is_around_it() {
        let cast = || ArrowError::CastError("Cannot cast string 'paid' to value of Int64 type".to_owned());
        let filter = format!("{IN_FILTER}{:?}", DataFusionError::ArrowError(Box::new(cast()), Some(String::new())));
        let zero = format!("{IN_FILTER}{:?}", DataFusionError::ArrowError(Box::new(ArrowError::DivideByZero), None));
        let in_parquet = |cause: ArrowError| DataFusionError::ParquetError(Box::new(ParquetError::from(cause)));
        let plain = "cannot cast string 'paid' to value of BIGINT type";
        for (error, said) in [
            (DataFusionError::ArrowError(Box::new(cast()), None), plain),
            (in_parquet(cast()), plain),
            (in_parquet(ArrowError::ComputeError(filter)), plain),
            (in_parquet(ArrowError::ComputeError(zero)), "divide by zero error"),
            (DataFusionError::External(Box::new(cast())).context("scan"), plain),
            (DataFusionError::Execution("Arrow error: Cast error: it is no number.".to_owned()), "it is no number"),
            (DataFusionError::Internal("Nothing to do".to_owned()), "nothing to do"),
        ] {
            assert_eq!(plain_words(&error), said, "{error}");
        }
    }

    #[test]
    fn a_call_that_no_function_answers_to_is_named_in_the_dialect() {
        let said = "Internal error: Function 'sum' failed to match any signature, errors: Error during planning: x.\n\
                    This issue was likely caused by a bug in DataFusion's code. Please No function matches the given \
                    name and argument types 'sum(Utf8)'. You might need to add explicit type casts.";
        assert_eq!(unwrapped(said), "function 'sum' takes no such arguments: sum(STRING)");
        let hint = advice(&unwrapped(said));
        assert_eq!(hint.as_deref(), Some("cast the argument, as in sum(CAST(.. AS DOUBLE))"));
    }

    #[test]
    fn what_to_do_about_a_value_does_not_depend_on_what_it_says() {
        let cast = |value: &str| advice(&format!("cannot cast string '{value}' to value of BIGINT type"));
        let plain = cast("paid");
        assert!(plain.as_deref().is_some_and(|hint| hint.contains("TRY_CAST")), "{plain:?}");
        for value in [
            "regex",
            "interval",
            "divide by zero",
            "group by",
            "an overflow",
            "no such file",
            "it's a regular expression",
            "function x, but received a date32",
            "",
        ] {
            assert_eq!(cast(value), plain, "{value}");
        }
    }

    #[test]
    fn what_is_quoted_is_cut_out_and_apostrophes_are_no_quotes() {
        for (said, bare) in [
            ("can't cast value 301 to type TINYINT", "can't cast value 301 to type TINYINT"),
            ("cannot cast string 'it's x' to value", "cannot cast string  to value"),
            ("invalid input syntax for type interval: \"soon\"", "invalid input syntax for type interval: "),
            ("function 'f' takes '', not 'open", "function  takes , not "),
        ] {
            assert_eq!(unquoted(said), bare, "{said}");
        }
    }

    #[test]
    fn a_value_of_a_file_is_mended_in_the_file_or_declared_as_text() {
        for said in [
            "error while parsing value 'three' as type 'Int32' for column 0 at line 2. Row data: '[three]'",
            "whilst decoding field 'a': expected string got 1",
        ] {
            assert!(is_of_file(said), "{said}");
            let hint = advice(said);
            assert!(hint.as_deref().is_some_and(|hint| hint.starts_with("mend the value in the file")), "{hint:?}");
        }
        for said in ["cannot cast string 'error while parsing value 1' to value of BIGINT type", "error parsing date"] {
            assert!(!is_of_file(said), "{said}");
        }
    }

    #[test]
    fn quotes_within_a_message_are_no_end_of_it() {
        let written = format!("{:?}", DataFusionError::Execution("no \"x\" in 'a\\b'\n".to_owned()));
        assert_eq!(innermost(&written), "no \"x\" in 'a\\b'\n");
    }
}
