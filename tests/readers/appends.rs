//! The records of append tables: values at the ends of their types, NULL at every level, names and folders that ask for
//! escapes.

use serde_json::{Value, json};

use super::kind::Produced::{self, Bytes, Json};

fn all(values: &Value) -> Vec<Produced> {
    values.as_array().into_iter().flatten().cloned().map(Json).collect()
}

/// The ends of every type, NULL, and among them what is no row. One day after the first instant, as Spark's Python
/// looks a day back for summer time.
pub(super) fn scalars() -> Vec<Produced> {
    let mut records = all(&json!([
        {"id": i64::MIN, "is_on": false, "tiny": -128, "small": -32768, "whole": i32::MIN, "ratio": -3.4e38,
         "precise": f64::MIN, "exact": "-9999999.99", "money": "-99999999999999.9999",
         "huge": "-9999999999999999999999999999.9999999999", "label": "", "bytes": "", "day": "0001-01-01",
         "at": "0001-01-02T00:00:00Z"},
        {"id": i64::MAX, "is_on": true, "tiny": 127, "small": 32767, "whole": i32::MAX, "ratio": 0.1, "precise": 0.1,
         "exact": "0.10", "money": "0.1", "huge": "0.0000000001", "label": "k\u{e4}se \u{1f9c0} \u{0} \"\\ \n",
         "bytes": "00ff7f", "day": "9999-12-31", "at": "9999-12-31T23:59:59.999999Z"},
        {"id": 0, "ratio": -0.0, "precise": -0.0, "exact": 0, "money": 0, "huge": 0, "day": "1582-10-04",
         "at": "1582-10-15T00:00:00.000001Z"},
        {"id": 1, "ratio": 1e-45, "precise": 5e-324, "label": "x".repeat(100), "day": "1969-12-31",
         "at": "1969-12-31T23:59:59.999999+02:00"},
        {"id": 2},
    ]));
    records.insert(1, Bytes(b"\xff\xfe no JSON"));
    records.push(Bytes(b"{\"id\": \"eleven\"}"));
    records.push(Bytes(b"{\"id\": 3, \"exact\": 1.001}"));
    records.extend((0..5).map(|id| Json(json!({"id": 100 + id, "label": format!("label {id}")}))));
    records
}

/// NULL at every level, and empty beside NULL.
pub(super) fn nested() -> Vec<Produced> {
    all(&json!([
        {"id": 1, "place": {"city": "Ulm", "position": {"lat": 48.4, "lon": 9.99}}, "samples": [1, null, 3],
         "grid": [["1.10", null], [], null], "limits": {"low": 0.5, "high": 1e3, "": null},
         "events": [{"name": "up", "at": "2026-02-28T12:00:00.000001+02:00", "bytes": "c0ffee"}, null],
         "deep": {"a": [{"days": ["2026-02-28", null], "notes": {"k": "v"}}], "b": [], "c": null}},
        {"id": 2, "place": null, "samples": [], "grid": [], "limits": {}, "events": [{"name": null}], "deep": {}},
        {"id": 3, "place": {"city": null, "position": null}},
        {"id": 4, "place": {}, "samples": [null], "grid": [null], "events": [null], "deep": {"a": [null]}},
        {"id": 5},
    ]))
}

/// Hours that summer time leaves out or repeats, where a reader with a zone of its own would go wrong.
pub(super) fn wall_clock() -> Vec<Produced> {
    all(&json!([
        {"id": 1, "local_at": "2026-03-29T02:30:00", "at": "2026-03-29T01:30:00Z",
         "visits": [{"local_at": "2026-10-25T02:30:00.000001"}, {"local_at": null}]},
        {"id": 2, "local_at": "1900-01-01T00:00:00.999999", "at": "1900-01-01T00:00:00.999999Z", "visits": []},
        {"id": 3},
    ]))
}

/// Values that folders would have to escape, and some that only look like others.
pub(super) fn partitioned() -> Vec<Produced> {
    const PLACES: &[&str] = &[
        "de",
        "a b",
        " a ",
        "a/b",
        "a%20b",
        "50%",
        "a=b",
        "K\u{f6}ln \u{1f9c0}",
        "it's",
        "\"quoted\"",
        "a\\b",
        "a:b?c#d",
        "null",
        "..",
        "line\nbreak",
        "A",
        "{}[]<>|*&;",
    ];
    let mut records: Vec<Produced> = (1..)
        .zip(PLACES)
        .map(|(id, place)| Json(json!({"id": id, "place": place, "day": "2026-03-01", "note": place})))
        .collect();
    records.extend(all(&json!([
        {"id": 100, "place": null, "day": null, "note": "neither"},
        {"id": 101, "place": "de", "day": null, "note": null},
        {"id": 102, "place": null, "day": "0001-01-01"},
        {"id": 103, "place": "de", "day": "9999-12-31"},
    ])));
    records
}

/// A string that reads like Hive's word for NULL, beside NULL.
pub(super) fn hive_null() -> Vec<Produced> {
    all(&json!([{"id": 1, "place": "__HIVE_DEFAULT_PARTITION__"}, {"id": 2, "place": null}]))
}

pub(super) fn numbered() -> Vec<Produced> {
    all(&json!([
        {"id": 1, "whole": -1, "big": i64::MIN, "is_on": true, "exact": "-0.001", "at": "2026-03-01T12:00:00Z"},
        {"id": 2, "whole": 0, "big": i64::MAX, "is_on": false, "exact": "1234567.890", "at": "1969-12-31T23:59:59.999999Z"},
        {"id": 3, "whole": i32::MAX, "big": 0, "exact": 0, "at": "2026-10-25T00:30:00.000001Z"},
        {"id": 4, "big": 7},
    ]))
}

/// Rows of which all values but those of the last column occur once, or are NULL.
pub(super) fn distinct() -> Vec<Produced> {
    let row = |id: i64| {
        let note = (id % 7 > 0).then(|| format!("note {id}"));
        let (whole, cents, second) = (id / 100, id % 100, id % 60);
        let at = format!("2026-03-{:02}T{:02}:{:02}:{second:02}Z", 1 + id / 86_400, id / 3_600 % 24, id / 60 % 60);
        Json(
            json!({"id": id, "exact": format!("{whole}.{cents:02}"), "at": at, "note": note, "kind": format!("kind {}", id % 9)}),
        )
    };
    (0..33_000).map(row).collect()
}

pub(super) fn named() -> Vec<Produced> {
    all(&json!([
        {"select": 1, "a.b": "dot", "n\u{e4}me": "umlaut", "Upper": 2, "it's": 3, "50%": 4, "a\"b": 5,
         "a/b-c:d": {"x.y": 6, "\u{e9}": 7}},
        {"select": 2},
    ]))
}

pub(super) fn dripped() -> Vec<Produced> {
    (0..60).map(|id| Json(json!({"id": id, "note": format!("drop {id}")}))).collect()
}

pub(super) fn locked() -> Vec<Produced> {
    all(&json!([{"id": 1, "local_at": "2026-03-01T12:00:00"}, {"id": 2, "local_at": "2026-03-01T12:00:00.5"}]))
}

/// Rows of four partitions, one of them NULL, some of each in every batch.
pub(super) fn spread() -> Vec<Produced> {
    let places = [json!("New York"), json!("a/b"), Value::Null, json!("de")];
    let rows = (0..48_u32).zip(places.iter().cycle());
    rows.map(|(id, place)| Json(json!({"id": id, "place": place, "note": format!("note {id}")}))).collect()
}
