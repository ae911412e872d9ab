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
