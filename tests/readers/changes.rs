//! The records of upsert tables: keys that change, go, come late and come back.

use serde_json::{Value, json};

use super::kind::Produced::{self, Json};

/// Changes of `n_keys` keys over some rounds: new values, deletes, late rows, and keys that come back. Before them comes a
/// key that never changes, so that the first file lives on with a deletion vector for what came with it.
pub(super) fn changes(n_keys: i64, key: fn(i64) -> Value) -> Vec<Produced> {
    let mut records = vec![change(key(n_keys), n_keys, 0)];
    for round in 0..6 {
        let changed = (0..n_keys).filter(|index| round == 0 || (index + round) % 3 != 0);
        records.extend(changed.map(|index| change(key(index), index, round)));
    }
    records
}

fn change(mut record: Value, index: i64, round: i64) -> Produced {
    let is_late = (index + round) % 5 == 4;
    let is_delete = (index + round) % 7 == 5;
    record["seq"] = json!(if is_late { -round } else { round });
    record["op"] = json!(if is_delete { "delete" } else { "put" });
    record["note"] = [Value::Null, json!("left"), json!("right")][note(index, round)].clone();
    record["amount"] = json!(format!("{}.{round:02}", index * 10));
    Json(record)
}

fn note(index: i64, round: i64) -> usize {
    usize::try_from((index / 2 + round) % 3).unwrap_or_default()
}

pub(super) fn composite(index: i64) -> Value {
    json!({
        "shop": format!("shop {}", index % 2), "code": format!("{:02x}ff", index / 2), "day": "2026-03-01",
        "exact": "1.50", "place": {"city": format!("city {index}")}, "local_at": "2026-03-01T12:00:00",
    })
}

/// A key in one of three partitions, one of them NULL.
pub(super) fn shelved(index: i64) -> Value {
    let place = match index % 3 {
        0 => json!("New York"),
        1 => json!("a/b"),
        _ => Value::Null,
    };
    json!({"id": index, "place": place})
}

/// Every key anew in each batch, and at the end only the first file keeps a row.
pub(super) fn replaced() -> Vec<Produced> {
    (0..40)
        .map(|pos| Json(json!({"id": pos % 5, "seq": pos, "op": "put", "note": format!("round {}", pos / 5)})))
        .collect()
}

/// A key of an instant, a switch and a UUID. Every other record writes the instant in another zone: it is the same key.
pub(super) fn stamped() -> Vec<Produced> {
    let mut records = changes(8, |index| {
        json!({
            "at": format!("2026-03-01T12:00:00.{:06}Z", index / 4), "is_on": index % 2 == 0,
            "device": format!("8c0a1f3e-5d27-4b11-9c1e-{:012x}", index / 2 % 2),
        })
    });
    for record in records.iter_mut().step_by(2) {
        let Json(value) = record else { continue };
        let elsewhere = value["at"].as_str().map(|at| at.replace("T12:", "T14:").replace('Z', "+02:00"));
        value["at"] = json!(elsewhere);
    }
    records
}

/// Two files of 650 rows each. Then every sixth row is changed or deleted, in both files by turns, so that their vectors
/// outgrow the log; fewer than a fifth, as the files would be compacted otherwise.
pub(super) fn worn() -> Vec<Produced> {
    let first = (0..1300).map(|id| put(id, id, "first"));
    let second = (0..1300).map(|pos| match (pos % 6, pos / 6) {
        (0, nth) => {
            let id = nth % 2 * 650 + nth / 2 * 6;
            if nth % 10 == 3 { gone(id, 2000) } else { put(id, 2000, "second") }
        }
        _ => put(2000 + pos, 0, "late"),
    });
    first.chain(second).collect()
}

/// Rows to be compacted, and then changes, deletes and a late row of some of them: fewer than a fifth, as the file would be
/// compacted once more otherwise.
pub(super) fn tended() -> Vec<Produced> {
    let first = (0..110).map(|id| put(id, 1, "first"));
    let again = (0..10).map(|nth| put(nth * 11, 2, "again"));
    let second = (0..120).map(|pos| match (pos % 9, pos % 2) {
        (4, _) if pos == 13 => put(pos, 0, "late"),
        (4, 0) => gone(pos, 3),
        (4, _) => put(pos, 3, "again"),
        _ => put(1000 + pos, 1, "beside"),
    });
    first.chain(again).chain(second).collect()
}

/// Two batches to be compacted, and then two with changes and deletes of a tenth of their rows, each of so many that
/// positions are stored as differences: in the files of the batches as in the compacted one.
pub(super) fn large() -> Vec<Produced> {
    let first = (0..33_000).map(|id| put(id, id, "first"));
    let second = (0..33_000).map(|pos| match pos % 11 {
        0 if pos % 13 == 0 => gone(pos, 50_000),
        0 => put(pos, 50_000, "again"),
        _ => put(100_000 + pos, pos, "beside"),
    });
    first.chain(second).collect()
}

/// As [`tended`], with nested columns, which are NULL at one level or another.
pub(super) fn tended_nested() -> Vec<Produced> {
    let mut records = tended();
    for record in &mut records {
        let Json(value) = record else { continue };
        let (id, seq) = (value["id"].as_i64().unwrap_or_default(), value["seq"].clone());
        let position = if id % 5 == 0 { Value::Null } else { json!({"lat": 48.4, "lon": -0.5}) };
        let place = json!({"city": format!("city {id}"), "position": position});
        value["place"] = if id % 7 == 0 { Value::Null } else { place };
        value["samples"] = json!([id, null, seq]);
        value["limits"] = json!({"low": 0.5, "": null});
        value["events"] = json!([{"name": value["note"], "at": "2026-02-28T12:00:00.000001Z"}, null]);
    }
    records
}

/// Rows in two places, to be compacted; then changes, deletes, moves and late rows of those in the north, and new rows beside
/// the others: in the south the compacted file stays.
pub(super) fn rearranged() -> Vec<Produced> {
    let shelved = |id: i64, seq: i64, place: &str, note: &str| {
        Json(json!({"id": id, "seq": seq, "op": "put", "place": place, "note": note}))
    };
    let first = (0..40).map(|id| shelved(id, 1, if id % 2 == 0 { "north" } else { "south" }, "first"));
    let second = (0..40).map(|pos| match (pos % 4, pos / 4) {
        (0, nth) => shelved(nth * 4, 3, "north", "again"),
        (1, nth) if nth % 2 == 0 => gone(nth * 4 + 2, 3),
        (1, nth) => shelved(nth * 4 + 2, 3, "south", "moved"),
        (2, nth) => shelved(nth * 4, 0, "north", "late"),
        (_, nth) => shelved(100 + nth, 1, "south", "beside"),
    });
    first.chain(second).collect()
}

fn put(id: i64, seq: i64, note: &str) -> Produced {
    Json(json!({"id": id, "seq": seq, "op": "put", "note": note}))
}

fn gone(id: i64, seq: i64) -> Produced {
    Json(json!({"id": id, "seq": seq, "op": "delete"}))
}
