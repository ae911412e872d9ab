//! Every kind of table that can be written, each one entry of [`KINDS`] with its records.

use serde_json::{Value, json};

use super::changes::{changes, composite, replaced, shelved};
use super::kind::Produced::{Bytes, Json};
use super::kind::{Effect, Flow, Kind, Made, Produced, Shows};

/// Every kind of table.
pub(super) const KINDS: [Kind; 19] = [
    Kind {
        name: "scalars",
        made: Made::By(Flow {
            columns: "id BIGINT NOT NULL, is_on BOOLEAN, tiny TINYINT, small SMALLINT, whole INT, ratio FLOAT, \
                      precise DOUBLE, exact DECIMAL(9,2), money DECIMAL(18,4), huge DECIMAL(38,10), label STRING, \
                      bytes BINARY, day DATE, at TIMESTAMP",
            batch: 4,
            records: scalars,
            ..APPEND
        }),
        shows: &[Shows::ReaderVersion1, Shows::Versions(2)],
        filters: &["id < 0", "label > 'label 3'", "exact < 0", "day <= DATE '1582-10-04'"],
    },
    Kind {
        name: "nested",
        made: Made::By(Flow {
            columns: "id BIGINT NOT NULL, place STRUCT<city: STRING, position: STRUCT<lat: DOUBLE, lon: DOUBLE>>, \
                      samples ARRAY<INT>, grid ARRAY<ARRAY<DECIMAL(10,2)>>, limits MAP<STRING, DOUBLE>, \
                      events ARRAY<STRUCT<name: STRING, at: TIMESTAMP, bytes: BINARY>>, \
                      deep MAP<STRING, ARRAY<STRUCT<days: ARRAY<DATE>, notes: MAP<STRING, STRING>>>>",
            batch: 3,
            records: nested,
            ..APPEND
        }),
        shows: &[Shows::ReaderVersion1],
        filters: &["place IS NULL"],
    },
    Kind {
        name: "wall_clock",
        made: Made::By(Flow {
            columns: "id BIGINT NOT NULL, local_at TIMESTAMP_NTZ, at TIMESTAMP, \
                      visits ARRAY<STRUCT<local_at: TIMESTAMP_NTZ>>",
            records: wall_clock,
            ..APPEND
        }),
        shows: &[Shows::WriterFeature("timestampNtz"), Shows::WriterFeature("invariants")],
        filters: &["local_at < TIMESTAMP '1950-01-01 00:00:00'"],
    },
    Kind {
        name: "partitioned",
        made: Made::By(Flow {
            columns: "id BIGINT NOT NULL, place STRING, day DATE, note STRING",
            clauses: "PARTITIONED BY (place, day)",
            batch: 20,
            records: partitioned,
            ..APPEND
        }),
        shows: &[Shows::NullPartition, Shows::ReaderVersion1],
        filters: &[
            "place = 'a b'",
            "place IS NULL",
            "place LIKE 'it_s'",
            "day = DATE '0001-01-01'",
            "place > 'a' AND day > DATE '2026-03-01'",
        ],
    },
    Kind {
        name: "hive_null",
        made: Made::By(Flow {
            columns: "id BIGINT NOT NULL, place STRING",
            clauses: "PARTITIONED BY (place)",
            records: hive_null,
            ..APPEND
        }),
        shows: &[Shows::NullPartition],
        filters: &[],
    },
    Kind {
        name: "numbered",
        made: Made::By(Flow {
            columns: "id BIGINT NOT NULL, whole INT, big BIGINT NOT NULL, is_on BOOLEAN, exact DECIMAL(10,3), \
                      at TIMESTAMP",
            clauses: "PARTITIONED BY (whole, big, is_on, exact, at)",
            records: numbered,
            ..APPEND
        }),
        shows: &[Shows::NullPartition],
        filters: &["whole < 0", "exact > 1", "is_on IS NULL"],
    },
    Kind {
        name: "named",
        made: Made::By(Flow {
            columns: "`select` BIGINT NOT NULL, `a.b` STRING, `n\u{e4}me` STRING, `Upper` INT, `it's` INT, `50%` INT, \
                      `a\"b` INT, `a/b-c:d` STRUCT<`x.y`: INT, `\u{e9}` INT>",
            records: named,
            ..APPEND
        }),
        shows: &[Shows::ReaderVersion1],
        filters: &[],
    },
    Kind {
        name: "dripped",
        made: Made::By(Flow { has_checkpoints: true, batch: 1, ..DRIP }),
        shows: &[Shows::Checkpoint, Shows::Versions(15)],
        filters: &["id BETWEEN 30 AND 31"],
    },
    Kind {
        name: "locked",
        made: Made::By(Flow {
            columns: "id BIGINT NOT NULL, local_at TIMESTAMP_NTZ NOT NULL",
            clauses: "TBLPROPERTIES ('delta.appendOnly' = 'true')",
            records: locked,
            ..APPEND
        }),
        shows: &[Shows::WriterFeature("appendOnly"), Shows::WriterFeature("invariants")],
        filters: &[],
    },
    Kind { name: "empty", made: Made::By(Flow { records: Vec::new, ..DRIP }), shows: &[Shows::NoFiles], filters: &[] },
    Kind {
        name: "upserted",
        made: Made::By(Flow {
            columns: "id BIGINT NOT NULL, seq BIGINT, op STRING, note STRING, amount DECIMAL(18,2)",
            effect: Effect::Upsert { keys: "id" },
            batch: 10,
            records: || changes(8, |key| json!({"id": key})),
            ..APPEND
        }),
        shows: &[Shows::Vectors, Shows::WriterFeature("deletionVectors"), Shows::WriterFeature("invariants")],
        filters: &["id >= 4", "amount > 20"],
    },
    Kind {
        name: "moved",
        made: Made::By(Flow {
            columns: "shop STRING NOT NULL, code BINARY NOT NULL, day DATE NOT NULL, exact DECIMAL(10,2) NOT NULL, \
                      seq BIGINT, op STRING, note STRING, place STRUCT<city: STRING>, local_at TIMESTAMP_NTZ",
            clauses: "PARTITIONED BY (note)",
            effect: Effect::Upsert { keys: "shop, code, day, exact" },
            has_checkpoints: true,
            batch: 4,
            records: || changes(8, composite),
        }),
        shows: &[Shows::Vectors, Shows::Checkpoint, Shows::NullPartition, Shows::WriterFeature("timestampNtz")],
        filters: &["note = 'left'", "note IS NULL"],
    },
    Kind {
        name: "spaced",
        made: Made::By(Flow {
            columns: "id BIGINT NOT NULL, seq BIGINT, op STRING, place STRING",
            clauses: "PARTITIONED BY (place)",
            effect: Effect::Upsert { keys: "id" },
            batch: 10,
            records: || changes(8, |key| json!({"id": key, "place": "New York"})),
            ..APPEND
        }),
        shows: &[Shows::Vectors],
        filters: &[],
    },
    Kind {
        name: "replaced",
        made: Made::By(Flow {
            columns: "id BIGINT NOT NULL, seq BIGINT, op STRING, note STRING",
            effect: Effect::Upsert { keys: "id" },
            has_checkpoints: true,
            batch: 5,
            records: replaced,
            ..APPEND
        }),
        shows: &[Shows::FilesRemovedWhole, Shows::Checkpoint],
        filters: &[],
    },
    Kind {
        name: "clustered",
        made: Made::By(Flow {
            columns: "id BIGINT NOT NULL, place STRING, day DATE, note STRING",
            clauses: "CLUSTER BY (day, place)",
            has_checkpoints: true,
            batch: 4,
            records: partitioned,
            ..APPEND
        }),
        shows: &[
            Shows::Clustered,
            Shows::Checkpoint,
            Shows::ReaderVersion1,
            Shows::WriterFeature("clustering"),
            Shows::WriterFeature("domainMetadata"),
        ],
        filters: &["day = DATE '2026-03-01'", "place IS NULL", "place = 'a b'"],
    },
    Kind {
        name: "clustered_upserts",
        made: Made::By(Flow {
            columns: "id BIGINT NOT NULL, seq BIGINT, op STRING, note STRING, amount DECIMAL(18,2)",
            clauses: "CLUSTER BY (amount)",
            effect: Effect::Upsert { keys: "id" },
            batch: 4,
            records: || changes(8, |key| json!({"id": key})),
            ..APPEND
        }),
        shows: &[Shows::Clustered, Shows::Vectors, Shows::WriterFeature("clustering")],
        filters: &["amount > 20", "id >= 4"],
    },
    Kind {
        name: "rewritten",
        made: Made::By(Flow {
            columns: "id BIGINT NOT NULL, seq BIGINT, op STRING, note STRING, amount DECIMAL(18,2), \
                      place STRUCT<city: STRING>",
            clauses: "TBLPROPERTIES ('alluvium.upsert' = 'copy-on-write')",
            effect: Effect::Upsert { keys: "id" },
            batch: 10,
            records: || changes(8, |key| json!({"id": key, "place": {"city": format!("city {key}")}})),
            ..APPEND
        }),
        shows: &[Shows::ReaderVersion1, Shows::FilesRemovedWhole],
        filters: &["id >= 4", "amount > 20"],
    },
    Kind {
        name: "rewritten_apart",
        made: Made::By(Flow {
            columns: "id BIGINT NOT NULL, seq BIGINT, op STRING, place STRING, note STRING",
            clauses: "PARTITIONED BY (place, note) TBLPROPERTIES ('alluvium.upsert' = 'copy-on-write')",
            effect: Effect::Upsert { keys: "id" },
            has_checkpoints: true,
            batch: 4,
            records: || changes(8, shelved),
        }),
        shows: &[Shows::ReaderVersion1, Shows::FilesRemovedWhole, Shows::Checkpoint, Shows::NullPartition],
        filters: &["place = 'New York'", "place IS NULL"],
    },
    Kind {
        name: "rejects",
        made: Made::FromRejectsOf("scalars"),
        shows: &[Shows::ReaderVersion1, Shows::Versions(2)],
        filters: &[],
    },
];

/// What most append flows have in common.
const APPEND: Flow =
    Flow { columns: "", clauses: "", effect: Effect::Append, has_checkpoints: false, batch: 100, records: Vec::new };

const DRIP: Flow = Flow { columns: "id BIGINT NOT NULL, note STRING", records: dripped, ..APPEND };

fn all(values: &Value) -> Vec<Produced> {
    values.as_array().into_iter().flatten().cloned().map(Json).collect()
}

/// The ends of every type, NULL, and among them what is no row. One day after the first instant, as Spark's Python
/// looks a day back for summer time.
fn scalars() -> Vec<Produced> {
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
fn nested() -> Vec<Produced> {
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
fn wall_clock() -> Vec<Produced> {
    all(&json!([
        {"id": 1, "local_at": "2026-03-29T02:30:00", "at": "2026-03-29T01:30:00Z",
         "visits": [{"local_at": "2026-10-25T02:30:00.000001"}, {"local_at": null}]},
        {"id": 2, "local_at": "1900-01-01T00:00:00.999999", "at": "1900-01-01T00:00:00.999999Z", "visits": []},
        {"id": 3},
    ]))
}

/// Values that folders would have to escape, and some that only look like others.
fn partitioned() -> Vec<Produced> {
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
fn hive_null() -> Vec<Produced> {
    all(&json!([{"id": 1, "place": "__HIVE_DEFAULT_PARTITION__"}, {"id": 2, "place": null}]))
}

fn numbered() -> Vec<Produced> {
    all(&json!([
        {"id": 1, "whole": -1, "big": i64::MIN, "is_on": true, "exact": "-0.001", "at": "2026-03-01T12:00:00Z"},
        {"id": 2, "whole": 0, "big": i64::MAX, "is_on": false, "exact": "1234567.890", "at": "1969-12-31T23:59:59.999999Z"},
        {"id": 3, "whole": i32::MAX, "big": 0, "exact": 0, "at": "2026-10-25T00:30:00.000001Z"},
        {"id": 4, "big": 7},
    ]))
}

fn named() -> Vec<Produced> {
    all(&json!([
        {"select": 1, "a.b": "dot", "n\u{e4}me": "umlaut", "Upper": 2, "it's": 3, "50%": 4, "a\"b": 5,
         "a/b-c:d": {"x.y": 6, "\u{e9}": 7}},
        {"select": 2},
    ]))
}

fn dripped() -> Vec<Produced> {
    (0..60).map(|id| Json(json!({"id": id, "note": format!("drop {id}")}))).collect()
}

fn locked() -> Vec<Produced> {
    all(&json!([{"id": 1, "local_at": "2026-03-01T12:00:00"}, {"id": 2, "local_at": "2026-03-01T12:00:00.5"}]))
}
