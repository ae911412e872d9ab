//! `docs/UPSERT.md` as a script: its statements, its records, and what its blocks show.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use chrono::DateTime;
use serde_json::{Value, json};

use crate::docs::{Block, fenced};
use crate::harness::TestResult;

/// The page.
pub(super) struct Page {
    text: String,
}

impl Page {
    pub(super) fn read() -> TestResult<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("the crate lies nowhere")?;
        Ok(Self { text: fs::read_to_string(root.join("docs/UPSERT.md"))? })
    }

    /// Returns what stands below the heading that begins with `heading`, up to the next one of its level or above.
    pub(super) fn section(&self, heading: &str) -> TestResult<&str> {
        let begun = self.text.split_once(&format!("\n{heading}")).ok_or_else(|| format!("no heading {heading}"))?.1;
        let level = heading.chars().take_while(|char| *char == '#').count();
        let ends = (2..=level).filter_map(|level| begun.find(&format!("\n{} ", "#".repeat(level))));
        Ok(&begun[..ends.min().unwrap_or(begun.len())])
    }

    pub(super) fn step(&self, number: u32) -> TestResult<&str> {
        self.section(&format!("### Step {number}:"))
    }

    /// Returns the statements of the example.
    pub(super) fn statements(&self) -> TestResult<String> {
        let section = self.section("## An example, step by step")?;
        let is_sql = |block: &Block| block.language == "sql";
        Ok(fenced("UPSERT.md", section).into_iter().find(is_sql).ok_or("the example has no statements")?.text)
    }

    /// Checks that the page says so, wherever its lines break.
    pub(super) fn says(&self, sentence: &str) -> TestResult {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        if words(&self.text).contains(sentence) { Ok(()) } else { Err(format!("the page has not: {sentence}").into()) }
    }
}

/// A record of the example: an order with its status and time of day, or a key without a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    Order { id: i64, status: String, at: String },
    Tombstone { id: i64 },
}

impl Record {
    pub(super) fn order(id: i64, status: &str, at: &str) -> Self {
        Self::Order { id, status: status.to_owned(), at: at.to_owned() }
    }

    /// Reads `order 2, PAID, 11:02` or `key 4 without a value: ..`.
    fn parse(text: &str) -> TestResult<Self> {
        let unknown = || format!("'{text}' is no record");
        if let Some(rest) = text.strip_prefix("key ") {
            let (id, _) = rest.split_once(" without a value").ok_or_else(unknown)?;
            return Ok(Self::Tombstone { id: id.parse()? });
        }
        let parts: Vec<&str> = text.strip_prefix("order ").ok_or_else(unknown)?.split(", ").collect();
        let [id, status, at] = parts[..] else { return Err(unknown().into()) };
        Ok(Self::order(id.parse()?, status, at))
    }

    pub(super) fn id(&self) -> i64 {
        match self {
            Self::Order { id, .. } | Self::Tombstone { id } => *id,
        }
    }

    pub(super) fn value(&self) -> Option<String> {
        let Self::Order { id, status, at } = self else { return None };
        let value = json!({"order_id": id, "status": status, "amount": "10.00", "updated_at": moment(at)});
        Some(value.to_string())
    }
}

/// A time of day of the example, on its one day.
fn moment(at: &str) -> String {
    format!("2026-01-01T{at}:00Z")
}

/// The records of the first step, which a sentence tells.
pub(super) fn first_records(page: &Page) -> TestResult<Vec<Record>> {
    page.says("Offsets 0 to 7 hold the orders 1 to 8, `PLACED`, with `updated_at` from 10:01 to 10:08.")?;
    Ok((1..=8).map(|id| Record::order(id, "PLACED", &format!("10:0{id}"))).collect())
}

/// The records of a step's table, each with its fate; their offsets follow each other from `first` on.
pub(super) fn records(step: &str, first: usize) -> TestResult<Vec<(Record, String)>> {
    let mut records = Vec::new();
    for line in step.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [offset, record, fate] = cells[..] else { return Err(format!("{line} has other columns").into()) };
        if offset == "offset" {
            continue;
        }
        assert_eq!(offset.parse::<usize>()?, first + records.len(), "{line}");
        let fate = fate.split('`').nth(1).ok_or_else(|| format!("{line} tells no fate"))?;
        records.push((Record::parse(record)?, fate.to_owned()));
    }
    Ok(records)
}

/// Returns the actions of a block, without what it leaves out: a line that does not begin one goes on with that before it.
pub(super) fn shown(block: &str) -> TestResult<Vec<Value>> {
    let mut lines: Vec<String> = Vec::new();
    for line in block.lines() {
        match lines.last_mut() {
            Some(last) if !line.starts_with('{') => last.push_str(line.trim_start()),
            _ => lines.push(line.to_owned()),
        }
    }
    let whole = |line: &String| line.replace(",...,", ",").replace("{...,", "{").replace(",...}", "}");
    let parse = |line: &String| -> TestResult<Value> {
        Ok(serde_json::from_str(&whole(line)).map_err(|error| format!("{line}: {error}"))?)
    };
    lines.iter().map(parse).collect()
}

/// Returns the blocks of JSON that show whole actions.
pub(super) fn actions_of(section: &str) -> Vec<String> {
    let blocks = fenced("UPSERT.md", section).into_iter();
    blocks.filter(|block| block.language == "json" && block.text.starts_with('{')).map(|block| block.text).collect()
}

/// Returns the first block that holds `text`.
pub(super) fn block_with(section: &str, text: &str) -> TestResult<String> {
    let found = fenced("UPSERT.md", section).into_iter().find(|block| block.text.contains(text));
    Ok(found.ok_or_else(|| format!("no block has '{text}'"))?.text)
}

/// What a block says of the index: `2 -> B row 1`, and `1 (12:01, offset 12)` for a remembered delete.
pub(super) struct ShownIndex {
    pub(super) version: u64,
    pub(super) places: BTreeMap<i64, (String, u32)>,
    /// Sequence in microseconds, whether it was taken over, and offset.
    pub(super) deletes: BTreeMap<i64, (i64, bool, i64)>,
}

impl ShownIndex {
    pub(super) fn parse(block: &str) -> TestResult<Self> {
        let rest = block.split_once("key index at version ").ok_or("no index")?.1;
        let version: u64 = rest.split_whitespace().next().ok_or("no version")?.parse()?;
        let mut shown = Self { version, places: BTreeMap::new(), deletes: BTreeMap::new() };
        for line in rest.lines().skip(1) {
            if let Some(deletes) = line.trim().strip_prefix("remembered deletes: ") {
                for delete in deletes.split("), ") {
                    shown.add_delete(delete)?;
                }
                continue;
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            for place in words.chunks(5) {
                let [id, "->", file, "row", row] = place else { return Err(format!("{line} shows no places").into()) };
                shown.places.insert(id.parse()?, ((*file).to_owned(), row.parse()?));
            }
        }
        Ok(shown)
    }

    /// Reads `4 (10:04 taken over, offset 13)`.
    fn add_delete(&mut self, text: &str) -> TestResult {
        let unknown = || format!("'{text}' is no delete");
        let (id, rest) = text.split_once(" (").ok_or_else(unknown)?;
        let (time, offset) = rest.trim_end_matches(')').split_once(", offset ").ok_or_else(unknown)?;
        let (at, is_taken_over) = time.strip_suffix(" taken over").map_or((time, false), |at| (at, true));
        let micros = DateTime::parse_from_rfc3339(&moment(at))?.timestamp_micros();
        self.deletes.insert(id.parse()?, (micros, is_taken_over, offset.parse()?));
        Ok(())
    }
}
