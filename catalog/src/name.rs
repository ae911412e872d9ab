//! Parsed names: past the edges of the program there are no bare strings for the things that the catalog knows.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The longest name that is accepted, in bytes: file systems stop at 255, and a name becomes a folder.
const NAME_BYTES_MAX: usize = 128;

/// The name of a connection, source or flow: a letter or underscore, then letters, digits, `_` or `-`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// Returns the name as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        check_word("name", text)?;
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Name {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        check_word("name", &text)?;
        Ok(Self(text))
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The name of a table or other dataset, `schema.table`. A table written without schema is in `default`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TableName {
    schema: String,
    table: String,
}

impl TableName {
    /// The schema of a table that is written without one.
    pub const DEFAULT_SCHEMA: &'static str = "default";

    /// The schemas whose tables every session makes up itself: a dataset in them could never be read.
    pub const RESERVED_SCHEMAS: [&'static str; 2] = ["system", "information_schema"];

    /// Returns `schema.table`.
    ///
    /// # Errors
    /// `Invalid` when either part is not a name.
    pub fn try_new(schema: &str, table: &str) -> Result<Self> {
        check_word("schema name", schema)?;
        check_word("table name", table)?;
        Ok(Self { schema: schema.to_owned(), table: table.to_owned() })
    }

    /// Checks that a dataset may be given this name.
    ///
    /// # Errors
    /// `Invalid` when the schema is one of [`RESERVED_SCHEMAS`](Self::RESERVED_SCHEMAS), in any case.
    pub fn check_free(&self) -> Result<()> {
        if !Self::RESERVED_SCHEMAS.iter().any(|reserved| self.schema.eq_ignore_ascii_case(reserved)) {
            return Ok(());
        }
        Err(Error::invalid(format!("'{self}' cannot be the name of a table: schema {} is reserved", self.schema))
            .with_hint(format!(
                "sessions answer {} from the catalog itself; choose another schema",
                Self::RESERVED_SCHEMAS.join(" and ")
            )))
    }

    /// Returns the part before the dot.
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// Returns the part after the dot.
    pub fn table(&self) -> &str {
        &self.table
    }
}

impl FromStr for TableName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split('.').collect::<Vec<_>>()[..] {
            [table] => Self::try_new(Self::DEFAULT_SCHEMA, table),
            [schema, table] => Self::try_new(schema, table),
            _ => Err(Error::invalid(format!("'{text}' is not a table name")).with_hint("write schema.table")),
        }
    }
}

impl TryFrom<String> for TableName {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<TableName> for String {
    fn from(name: TableName) -> Self {
        name.to_string()
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.schema, self.table)
    }
}

/// The name of a Kafka topic, by Kafka's own rule: letters, digits, `.`, `_`, `-`, at most 249 of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Topic(String);

impl Topic {
    /// The length at which Kafka itself refuses a topic name (`org.apache.kafka.common.internals.Topic`).
    const BYTES_MAX: usize = 249;

    /// Returns the name as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Topic {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::try_from(text.to_owned())
    }
}

impl TryFrom<String> for Topic {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let reserved = text.is_empty() || text == "." || text == "..";
        if reserved || text.len() > Self::BYTES_MAX || !text.bytes().all(legal) {
            return Err(Error::invalid(format!("'{text}' is not a topic name"))
                .with_hint("a topic name has 1 to 249 letters, digits, '.', '_' or '-'"));
        }
        Ok(Self(text))
    }
}

impl From<Topic> for String {
    fn from(topic: Topic) -> Self {
        topic.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

fn check_word(what: &str, text: &str) -> Result<()> {
    let mut chars = text.chars();
    let starts_well = chars.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_');
    let goes_on_well = chars.all(|next| next.is_ascii_alphanumeric() || matches!(next, '_' | '-'));
    if starts_well && goes_on_well && text.len() <= NAME_BYTES_MAX {
        return Ok(());
    }
    Err(Error::invalid(format!("'{text}' is not a {what}")).with_hint(format!(
        "a {what} starts with a letter or '_', goes on with letters, digits, '_' or '-', and has at most {NAME_BYTES_MAX}"
    )))
}

/// Returns the candidate that `word` was most likely meant to be, if one is near enough to be worth naming.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Below this likeness a proposal confuses more than it helps (found by trying typical slips).
    const LIKENESS_MIN: f64 = 0.75;
    let lower = word.to_lowercase();
    let likeness = |candidate: &'a str| (strsim::jaro_winkler(&lower, &candidate.to_lowercase()), candidate);
    let best = candidates.into_iter().map(likeness).max_by(|left, right| left.0.total_cmp(&right.0));
    best.filter(|(likeness, _)| *likeness >= LIKENESS_MIN).map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_without_schema_is_in_default() -> Result<()> {
        assert_eq!("orders".parse::<TableName>()?.to_string(), "default.orders");
        assert_eq!("silver.orders".parse::<TableName>()?.schema(), "silver");
        Ok(())
    }

    #[test]
    fn names_that_would_leave_their_folder_are_refused() {
        for text in ["", "..", "a/b", "a.b.c", "../x.y", "1st", "a b", "a\0b"] {
            assert!(text.parse::<TableName>().is_err(), "{text:?} was taken");
        }
        assert!("x".repeat(129).parse::<Name>().is_err());
    }

    #[test]
    fn schemas_of_the_session_are_reserved() -> Result<()> {
        for text in ["system.commits", "System.x", "information_schema.tables"] {
            let refused = text.parse::<TableName>()?.check_free();
            assert!(refused.is_err_and(|error| error.message().contains("is reserved")), "{text}");
        }
        for text in ["system", "systems.x", "bronze.system"] {
            text.parse::<TableName>()?.check_free()?;
        }
        Ok(())
    }

    #[test]
    fn topics_follow_kafka() {
        assert!("shop.orders-v1_x".parse::<Topic>().is_ok());
        for text in ["", ".", "..", "a/b", "t\u{e4}ler"] {
            assert!(text.parse::<Topic>().is_err(), "{text:?} was taken");
        }
    }
}
