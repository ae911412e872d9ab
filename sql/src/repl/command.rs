//! The commands that begin with a backslash: what the REPL does besides SQL.
//!
//! The words are psql's where psql has one, and SQLite's and DuckDB's dot commands are understood, so that fingers
//! need not learn. This file only reads commands; it does nothing.

use std::path::PathBuf;
use std::str::FromStr;

use alluvium_catalog::{Error, Result, TableName, nearest};

use super::render::{Expanded, Format};

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `\d`: lists datasets, sources and connections.
    Datasets,
    /// `\dt`: lists the Delta tables.
    Tables,
    /// `\d NAME`: shows a dataset's or source's columns, or a connection's options, and more.
    Describe(TableName),
    /// `\df [PATTERN]`: lists functions whose names contain the pattern.
    Functions(Option<String>),
    /// `\dn`: lists schemas.
    Schemas,
    /// `\sources`: lists sources.
    Sources,
    /// `\flows`: lists flows with their newest version.
    Flows,
    /// `\commits [TABLE]`: lists the newest commits.
    Commits(Option<TableName>),
    /// `\lineage NAME`: shows what a table, topic, flow or source is made from and what is made from it.
    Lineage(String),
    /// `\timing [on|off]`: shows or hides the time a statement took; turns over without argument.
    Timing(Option<bool>),
    /// `\x [on|off|auto]`: one line a column; turns over without argument.
    Expanded(Option<Expanded>),
    /// `\format [FORMAT]`: sets or shows the output format.
    Format(Option<Format>),
    /// `\rows [N|all]`: sets or shows how many rows a table on the screen has at most.
    Rows(Option<RowsMax>),
    /// `\o [FILE]`: sends results to a file, or back.
    Output(Option<PathBuf>),
    /// `\i FILE`: runs a file.
    Include(PathBuf),
    /// `\q`: ends the REPL.
    Quit,
    /// `\?`: lists the commands.
    Help,
}

/// How many rows a table on the screen has at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowsMax {
    /// All of them.
    All,
    /// This many.
    Rows(usize),
}

/// A command's words, what follows them, and what it does; the first word is the one that is taught.
struct Entry {
    words: &'static [&'static str],
    takes: &'static str,
    does: &'static str,
    parse: fn(Argument<'_>) -> Result<Command>,
}

const ENTRIES: &[Entry] = &[
    Entry {
        words: &["d", "describe", "schema"],
        takes: "[NAME]",
        does: "list all there is, or describe one by name",
        parse: |argument| Ok(argument.table()?.map_or(Command::Datasets, Command::Describe)),
    },
    Entry {
        words: &["dt", "tables"],
        takes: "",
        does: "list Delta tables",
        parse: |argument| argument.none(Command::Tables),
    },
    Entry {
        words: &["dn", "schemas"],
        takes: "",
        does: "list schemas",
        parse: |argument| argument.none(Command::Schemas),
    },
    Entry {
        words: &["df", "functions"],
        takes: "[PATTERN]",
        does: "list functions",
        parse: |argument| Ok(Command::Functions(argument.text().map(str::to_owned))),
    },
    Entry { words: &["sources"], takes: "", does: "list sources", parse: |argument| argument.none(Command::Sources) },
    Entry { words: &["flows"], takes: "", does: "list flows", parse: |argument| argument.none(Command::Flows) },
    Entry {
        words: &["commits"],
        takes: "[TABLE]",
        does: "list the newest commits",
        parse: |argument| Ok(Command::Commits(argument.table()?)),
    },
    Entry {
        words: &["lineage"],
        takes: "NAME",
        does: "show what a table, topic, flow or source is made from and what is made from it",
        parse: |argument| {
            let name = argument.text().map(|name| name.replace(['"', '`'], ""));
            name.map(Command::Lineage).ok_or_else(|| argument.missing("the name of a table, topic, flow or source"))
        },
    },
    Entry {
        words: &["format", "mode"],
        takes: "[FORMAT]",
        does: "set the output: table, csv, tsv, json, ndjson, markdown",
        parse: |argument| Ok(Command::Format(argument.text().map(str::parse).transpose()?)),
    },
    Entry {
        words: &["x"],
        takes: "[on|off|auto]",
        does: "show one line a column",
        parse: |argument| Ok(Command::Expanded(argument.text().map(str::parse).transpose()?)),
    },
    Entry {
        words: &["rows", "maxrows"],
        takes: "[N|all]",
        does: "set how many rows a table on the screen has at most",
        parse: |argument| Ok(Command::Rows(argument.text().map(str::parse).transpose()?)),
    },
    Entry {
        words: &["timing", "timer"],
        takes: "[on|off]",
        does: "show the time each statement took",
        parse: |argument| Ok(Command::Timing(argument.text().map(on_or_off).transpose()?)),
    },
    Entry {
        words: &["o", "output"],
        takes: "[FILE]",
        does: "send results to a file, or back to the screen",
        parse: |argument| Ok(Command::Output(argument.text().map(PathBuf::from))),
    },
    Entry {
        words: &["i", "include", "read"],
        takes: "FILE",
        does: "run the statements of a file",
        parse: |argument| {
            let path = argument.text().ok_or_else(|| argument.missing("a file"))?;
            Ok(Command::Include(PathBuf::from(path)))
        },
    },
    Entry { words: &["q", "quit", "exit"], takes: "", does: "quit", parse: |argument| argument.none(Command::Quit) },
    Entry { words: &["?", "h", "help"], takes: "", does: "show this", parse: |_| Ok(Command::Help) },
];

impl Command {
    /// Returns the commands with what they take and do, a line each.
    pub fn help() -> String {
        let mut text = String::new();
        for entry in ENTRIES {
            let usage = format!("\\{} {}", entry.words[0], entry.takes);
            text.push_str(&format!("  {usage:<20} {}\n", entry.does));
        }
        text
    }

    /// Returns the commands' words without backslash, and what each does.
    pub(super) fn words() -> impl Iterator<Item = (&'static str, &'static str)> {
        ENTRIES.iter().map(|entry| (entry.words[0], entry.does))
    }
}

impl FromStr for Command {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim().trim_end_matches(';').trim_end();
        let bare = text.trim_start_matches(['\\', '.']);
        let (word, rest) = bare.split_once(char::is_whitespace).unwrap_or((bare, ""));
        // psql's `\d+` adds detail to `\d`; here nothing is held back.
        let word = word.strip_suffix('+').unwrap_or(word).to_ascii_lowercase();
        let rest = unquoted(rest.trim());
        match ENTRIES.iter().find(|entry| entry.words.contains(&word.as_str())) {
            Some(entry) => (entry.parse)(Argument { word: entry.words[0], takes: entry.takes, rest }),
            None => Err(unknown(&word)),
        }
    }
}

impl FromStr for RowsMax {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.eq_ignore_ascii_case("all") {
            return Ok(Self::All);
        }
        match text.replace([',', '_'], "").parse() {
            Ok(rows) if rows > 0 => Ok(Self::Rows(rows)),
            _ => Err(Error::invalid(format!("'{text}' is not a number of rows")).with_hint("write a number or 'all'")),
        }
    }
}

/// What stands behind a command's word.
struct Argument<'a> {
    word: &'static str,
    takes: &'static str,
    rest: &'a str,
}

impl Argument<'_> {
    fn text(&self) -> Option<&str> {
        (!self.rest.is_empty()).then_some(self.rest)
    }

    fn table(&self) -> Result<Option<TableName>> {
        self.text().map(|text| text.replace(['"', '`'], "").parse()).transpose()
    }

    fn none(&self, command: Command) -> Result<Command> {
        match self.text() {
            None => Ok(command),
            Some(text) => {
                let error = Error::invalid(format!("\\{} takes no argument, not '{text}'", self.word));
                Err(error.with_hint("leave it out; '\\?' lists what the commands take"))
            }
        }
    }

    fn missing(&self, what: &str) -> Error {
        let error = Error::invalid(format!("\\{} needs {what}", self.word));
        error.with_hint(format!("write \\{} {}", self.word, self.takes))
    }
}

fn unquoted(text: &str) -> &str {
    text.strip_prefix('\'').and_then(|inner| inner.strip_suffix('\'')).unwrap_or(text)
}

/// Reads a switch.
pub(super) fn on_or_off(text: &str) -> Result<bool> {
    match text.to_ascii_lowercase().as_str() {
        "on" | "true" | "1" => Ok(true),
        "off" | "false" | "0" => Ok(false),
        _ => {
            let error = Error::invalid(format!("'{text}' is neither 'on' nor 'off'"));
            Err(error.with_hint("write one of them, or none to turn it over"))
        }
    }
}

fn unknown(word: &str) -> Error {
    let words = || ENTRIES.iter().flat_map(|entry| entry.words.iter().copied());
    let error = Error::invalid(format!("there is no command '\\{word}'"));
    error.with_hint(match nearest(word, words()) {
        Some(near) => format!("did you mean '\\{near}'? '\\?' lists the commands"),
        None => "'\\?' lists the commands".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &Command) -> Result<()> {
        assert_eq!(text.parse::<Command>()?, *expected, "{text}");
        Ok(())
    }

    #[test]
    fn every_command_is_read() -> Result<()> {
        let orders: TableName = "silver.orders".parse()?;
        check(r"\d", &Command::Datasets)?;
        check(r"\d silver.orders", &Command::Describe(orders.clone()))?;
        check(r"\d+ silver.orders;", &Command::Describe(orders.clone()))?;
        check(r#"\d "silver"."orders""#, &Command::Describe(orders.clone()))?;
        check(r"\dt", &Command::Tables)?;
        check(r"\dn", &Command::Schemas)?;
        check(r"\df", &Command::Functions(None))?;
        check(r"\df date", &Command::Functions(Some("date".to_owned())))?;
        check(r"\sources", &Command::Sources)?;
        check(r"\flows", &Command::Flows)?;
        check(r"\commits", &Command::Commits(None))?;
        check(r"\commits silver.orders", &Command::Commits(Some(orders.clone())))?;
        check(r"\lineage silver.orders", &Command::Lineage("silver.orders".to_owned()))?;
        check(r"\timing", &Command::Timing(None))?;
        check(r"\timing off", &Command::Timing(Some(false)))?;
        check(r"\x auto", &Command::Expanded(Some(Expanded::Auto)))?;
        check(r"\x", &Command::Expanded(None))?;
        check(r"\format JSON", &Command::Format(Some(Format::Json)))?;
        check(r"\rows all", &Command::Rows(Some(RowsMax::All)))?;
        check(r"\rows 10,000", &Command::Rows(Some(RowsMax::Rows(10_000))))?;
        check(r"\o", &Command::Output(None))?;
        check(r"\o 'two words.csv'", &Command::Output(Some("two words.csv".into())))?;
        check(r"\i orders.sql", &Command::Include("orders.sql".into()))?;
        check(r"\q", &Command::Quit)?;
        check(r"\?", &Command::Help)
    }

    #[test]
    fn words_of_other_shells_are_understood() -> Result<()> {
        check(".tables", &Command::Tables)?;
        check(".schema", &Command::Datasets)?;
        check(".schema orders", &Command::Describe("orders".parse()?))?;
        check(".mode csv", &Command::Format(Some(Format::Csv)))?;
        check(".quit", &Command::Quit)?;
        check(".help", &Command::Help)?;
        check("quit;", &Command::Quit)?;
        check("EXIT", &Command::Quit)?;
        check("help", &Command::Help)
    }

    #[test]
    fn errors_name_the_nearest_choice() {
        let said = |text: &str| {
            let error = text.parse::<Command>().err();
            error.map(|error| format!("{error}; {}", error.hint().unwrap_or("-"))).unwrap_or_default()
        };
        insta::assert_snapshot!(
            [r"\comits", r"\zzz", r"\lineage", r"\i", r"\dt x", r"\x maybe", r"\rows 0", r"\format tabel", r"\d a.b.c"]
                .map(|text| format!("{text:<14} {}", said(text)))
                .join("\n")
        );
    }

    #[test]
    fn help_has_a_line_for_every_command() {
        assert_eq!(Command::help().lines().count(), ENTRIES.len());
        assert!(Command::help().contains(r"\d [NAME]"));
    }
}
