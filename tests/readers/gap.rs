//! What readers lack, by name, and in which way each is wrong for it: a reader that is wrong in another way fails the test,
//! and so does one that has learnt it.

use serde_json::Value;

use super::other::{Answer, Reader};
use super::{Asked, Question};

/// What a reader refuses to read, or reads otherwise than it is.
#[derive(Debug)]
pub(super) struct Gap {
    pub(super) reader: Reader,
    pub(super) kind: &'static str,
    /// What it lacks.
    pub(super) feature: &'static str,
    pub(super) shows: Wrong,
}

/// Every gap there is.
pub(super) const GAPS: [Gap; 4] = [
    Gap {
        reader: Reader::Polars,
        kind: "hive_null",
        feature: "partition values that read like Hive's word for NULL",
        shows: Wrong::Misread { ours: r#""place":"__HIVE_DEFAULT_PARTITION__""#, its: r#""place":null"# },
    },
    Gap {
        reader: Reader::Polars,
        kind: "spaced",
        feature: "deletion vectors of files whose path holds an escape",
        shows: Wrong::Marked,
    },
    Gap {
        reader: Reader::Polars,
        kind: "checkpointed_v2",
        feature: "checkpoints of version 2",
        shows: Wrong::Refused("requires reader features ['v2Checkpoint'], which polars does not support"),
    },
    Gap {
        reader: Reader::Polars,
        kind: "upserted_v2",
        feature: "checkpoints of version 2",
        shows: Wrong::Refused("requires reader features ['v2Checkpoint'], which polars does not support"),
    },
];

/// In which way an answer is wrong.
#[derive(Debug)]
pub(super) enum Wrong {
    /// There is none; this is a part of the message.
    Refused(&'static str),
    /// It has our rows, with one value read as another wherever it stands.
    Misread { ours: &'static str, its: &'static str },
    /// It has our rows, and those that deletion vectors leave out: rows that were deleted or superseded by ours.
    Marked,
}

impl Wrong {
    /// Tells whether `answer` is wrong in this way, and in no other, where our own rows are right.
    pub(super) fn is_in(&self, question: &Question, own: &[String], answer: &Answer) -> bool {
        match (self, answer) {
            (Self::Refused(says), Err(error)) => error.contains(says),
            (Self::Misread { ours, its }, Ok(rows)) => {
                let misread = own.iter().map(|row| row.replace(ours, its)).collect();
                sorted(misread) == sorted(rows.clone())
            }
            (Self::Marked, Ok(rows)) => has_marked(question, own, rows),
            _ => false,
        }
    }
}

fn sorted(mut rows: Vec<String>) -> Vec<String> {
    rows.sort_unstable();
    rows
}

fn has_marked(question: &Question, own: &[String], rows: &[String]) -> bool {
    let others: Vec<&String> = rows.iter().filter(|row| !own.contains(row)).collect();
    let has_own_once = own.iter().all(|row| rows.contains(row)) && rows.len() == own.len() + others.len();
    // How many an older version leaves out is not known here.
    let has_all = !matches!(question.asked, Asked::Whole) || others.len() == question.n_marked;
    has_own_once && has_all && others.iter().all(|row| is_past(row, own))
}

/// Tells whether the key of a row has no row of ours, or one of a later record of its topic, which has one partition.
fn is_past(row: &str, own: &[String]) -> bool {
    let parsed = |row: &str| serde_json::from_str::<Value>(row).unwrap_or_default();
    let position = |row: &Value| row["_alluvium_offset"].as_i64();
    let past = parsed(row);
    let mut same = own.iter().map(|row| parsed(row)).filter(|row| row["id"] == past["id"]);
    position(&past).is_some() && same.all(|row| position(&row) > position(&past))
}
