//! Setting values with the place each was written at, and how their texts are read: durations, bytes, counts, addresses.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use alluvium_catalog::{Error, Location, Result, parse_bytes, parse_duration};
use url::Url;

use super::keys::KEYS;
use super::{Environment, Flags, Listen};

/// What is set, by key.
#[derive(Debug, Default)]
pub(super) struct Values {
    entries: BTreeMap<&'static str, Entry>,
}

/// One value as it was written.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) scalar: Scalar,
    pub(super) place: Place,
}

/// What can stand behind a key. Variables and flags are text.
#[derive(Debug)]
pub(super) enum Scalar {
    Text(String),
    Integer(i64),
    Switch(bool),
}

/// Where a value was written.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// In the settings file.
    File { file: PathBuf, line: usize, column: usize },
    /// In a variable.
    Variable(&'static str),
    /// On the command line.
    Flag(&'static str),
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line, column } => write!(formatter, "{}:{line}:{column}", file.display()),
            Self::Variable(name) | Self::Flag(name) => formatter.write_str(name),
        }
    }
}

impl Values {
    /// Sets a key over what it had.
    pub(super) fn set(&mut self, path: &'static str, entry: Entry) {
        self.entries.insert(path, entry);
    }

    /// Lays the `ALLUVIUM_*` variables over the file.
    pub(super) fn lay_over_variables(&mut self, environment: &Environment) -> Result<()> {
        for key in KEYS.iter().filter(|key| !key.variable.is_empty()) {
            if let Some(text) = environment.text(key.variable) {
                self.set(key.path, Entry { scalar: Scalar::Text(text), place: Place::Variable(key.variable) });
            }
        }
        let usual = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let is_ours = self.place("otlp.endpoint").is_some_and(|place| matches!(place, Place::Variable(_)));
        if let Some(text) = environment.text(usual).filter(|_| !is_ours) {
            self.set("otlp.endpoint", Entry { scalar: Scalar::Text(text), place: Place::Variable(usual) });
        }
        Ok(())
    }

    /// Lays the command line over all else.
    pub(super) fn lay_over_flags(&mut self, flags: &Flags) {
        let flags = [("warehouse", "--warehouse", &flags.warehouse), ("catalog", "--catalog", &flags.catalog)];
        for (path, flag, value) in flags {
            if let Some(text) = value {
                self.set(path, Entry { scalar: Scalar::Text(text.clone()), place: Place::Flag(flag) });
            }
        }
    }

    /// Returns `error` with the key and its place before its message.
    pub(super) fn at(&self, path: &str, error: Error) -> Error {
        let Some(place) = self.place(path) else { return error };
        let located = Error::new(error.kind(), format!("{place}: {path}: {}", error.message()));
        match error.hint() {
            Some(hint) => located.with_hint(hint),
            None => located,
        }
    }

    /// Tells whether something was written for a key.
    pub(super) fn is_set(&self, path: &str) -> bool {
        self.entries.contains_key(path)
    }

    pub(super) fn text(&self, path: &str) -> Result<Option<String>> {
        self.read(path, "text", |scalar| match scalar {
            Scalar::Text(text) => Some(Ok(text.clone())),
            Scalar::Integer(_) | Scalar::Switch(_) => None,
        })
    }

    pub(super) fn switch(&self, path: &str) -> Result<Option<bool>> {
        self.read(path, "true or false", |scalar| match scalar {
            Scalar::Switch(value) => Some(Ok(*value)),
            Scalar::Text(_) | Scalar::Integer(_) => None,
        })
    }

    pub(super) fn count(&self, path: &str, range: RangeInclusive<u64>) -> Result<Option<u64>> {
        self.read(path, "a whole number", |scalar| Some(within(whole(scalar)?, &range, |n| n.to_string())))
    }

    pub(super) fn bytes(&self, path: &str, range: RangeInclusive<u64>) -> Result<Option<u64>> {
        self.read(path, "a number of bytes such as \"256 MiB\"", |scalar| {
            let bytes = match scalar {
                Scalar::Text(text) => parse_bytes(text).ok()?,
                Scalar::Integer(_) | Scalar::Switch(_) => whole(scalar)?,
            };
            Some(within(bytes, &range, |n| format!("{n} bytes")))
        })
    }

    pub(super) fn duration(&self, path: &str, range: RangeInclusive<Duration>) -> Result<Option<Duration>> {
        self.read(path, "a duration with its unit, such as \"10s\", \"250ms\" or \"5m\"", |scalar| match scalar {
            Scalar::Text(text) => Some(within(parse_duration(text).ok()?, &range, |wait| format!("{wait:?}"))),
            Scalar::Integer(_) | Scalar::Switch(_) => None,
        })
    }

    pub(super) fn choice(&self, path: &str, choices: &[&'static str]) -> Result<Option<&'static str>> {
        let expected = format!("one of {}", choices.join(", "));
        self.read(path, &expected, |scalar| match scalar {
            Scalar::Text(text) => choices.iter().find(|choice| *choice == text).map(|choice| Ok(*choice)),
            Scalar::Integer(_) | Scalar::Switch(_) => None,
        })
    }

    /// Reads a location; a relative path in a file begins at the file's folder.
    pub(super) fn location(&self, path: &str) -> Result<Option<Location>> {
        let Some(text) = self.text(path)? else { return Ok(None) };
        // As it stands first: beside the file, a `~` or a scheme without slashes would be the name of a folder.
        let parsed: Location = text.parse().map_err(|error| self.at(path, error))?;
        let has_scheme = text.split('/').next().is_some_and(|start| start.contains(':'));
        if has_scheme || Path::new(&text).is_absolute() {
            return Ok(Some(parsed));
        }
        let text = self.beside_file(path, &text).display().to_string();
        text.parse().map(Some).map_err(|error| self.at(path, error))
    }

    /// Reads the catalog's path; a relative one in a file begins at the file's folder.
    pub(super) fn catalog(&self, path: &str) -> Result<Option<PathBuf>> {
        let Some(text) = self.text(path)? else { return Ok(None) };
        let file = match text.split_once("://") {
            Some(("sqlite", file)) => file,
            Some(("postgres" | "postgresql", _)) => {
                let error = Error::invalid("Postgres cannot keep the catalog yet");
                return Err(self.at(path, error.with_hint("name a SQLite file")));
            }
            None if !text.starts_with("file:") => text.strip_prefix("sqlite:").unwrap_or(&text),
            _ => {
                let error = Error::invalid("the catalog is a SQLite file on the local disk");
                return Err(self.at(path, error.with_hint("write a path or sqlite://path")));
            }
        };
        if file == "~" || file.starts_with("~/") {
            let error = Error::invalid(format!("'{file}' cannot be the catalog's file"));
            return Err(self.at(path, error.with_hint("'~' means something to a shell only: write the whole path")));
        }
        if file.is_empty() || file == ":memory:" || file.contains(['?', '\0']) || file.ends_with('/') {
            let error = Error::invalid(format!("'{file}' cannot be the catalog's file"));
            return Err(self.at(path, error.with_hint("write a path or sqlite://path")));
        }
        Ok(Some(self.beside_file(path, file)))
    }

    /// Reads an `http` or `https` URL without credentials.
    pub(super) fn http_url(&self, path: &str) -> Result<Option<Url>> {
        let expected = "a URL such as http://localhost:4318, without credentials";
        self.read(path, expected, |scalar| match scalar {
            Scalar::Text(text) => parse_http_url(text).map(Ok),
            Scalar::Integer(_) | Scalar::Switch(_) => None,
        })
    }

    /// Reads the address of the listener.
    pub(super) fn listen(&self, path: &str) -> Result<Option<Listen>> {
        self.read(path, "an address such as 127.0.0.1:9464, or \"off\"", |scalar| match scalar {
            Scalar::Text(text) if text == "off" => Some(Ok(Listen::Off)),
            Scalar::Text(text) => parse_listen(text),
            Scalar::Integer(_) | Scalar::Switch(_) => None,
        })
    }

    fn place(&self, path: &str) -> Option<&Place> {
        self.entries.get(path).map(|entry| &entry.place)
    }

    fn beside_file(&self, path: &str, text: &str) -> PathBuf {
        match self.place(path) {
            Some(Place::File { file, .. }) => file.parent().unwrap_or(Path::new("")).join(text),
            _ => PathBuf::from(text),
        }
    }

    /// Reads one value: `parse` answers `None` when it is not what is `expected`.
    fn read<T>(
        &self,
        path: &str,
        expected: &str,
        parse: impl FnOnce(&Scalar) -> Option<Result<T>>,
    ) -> Result<Option<T>> {
        let Some(entry) = self.entries.get(path) else { return Ok(None) };
        // The value is not repeated: it may be a credential that was put behind the wrong key.
        let refused = || Error::invalid("not a value that this setting takes").with_hint(format!("write {expected}"));
        match parse(&entry.scalar).unwrap_or_else(|| Err(refused())) {
            Ok(value) => Ok(Some(value)),
            Err(error) => Err(self.at(path, error)),
        }
    }
}

fn within<T: PartialOrd>(value: T, range: &RangeInclusive<T>, show: impl Fn(&T) -> String) -> Result<T> {
    if range.contains(&value) {
        return Ok(value);
    }
    let (least, most) = (show(range.start()), show(range.end()));
    Err(Error::invalid(format!("{} is out of range", show(&value))).with_hint(format!("write {least} to {most}")))
}

fn whole(scalar: &Scalar) -> Option<u64> {
    match scalar {
        Scalar::Integer(number) => u64::try_from(*number).ok(),
        Scalar::Text(text) => text.replace('_', "").parse().ok(),
        Scalar::Switch(_) => None,
    }
}

fn parse_http_url(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let has_credentials = !url.username().is_empty() || url.password().is_some();
    let is_http = matches!(url.scheme(), "http" | "https") && url.has_host();
    (is_http && !has_credentials).then_some(url)
}

fn parse_listen(text: &str) -> Option<Result<Listen>> {
    let address: SocketAddr = text.replacen("localhost:", "127.0.0.1:", 1).parse().ok()?;
    if address.ip().is_loopback() {
        return Some(Ok(Listen::At(address)));
    }
    Some(Err(Error::invalid(format!("{address} is not a loopback address")).with_hint(
        "metrics are served without TLS and authentication, so they stay on this machine: write 127.0.0.1:9464 and let \
         a proxy or an agent on this machine carry them on",
    )))
}
