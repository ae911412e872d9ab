//! The settings file: TOML text becomes values with their places; a key that is in no table is refused here.

use std::io::Read;
use std::path::Path;

use alluvium_catalog::{Error, Result};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{KEYS, unknown};
use super::value::{Entry, Place, Scalar, Values};

/// The longest file that is read: a mistyped --config shall not fill the memory.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads the settings file.
///
/// # Errors
/// `Invalid`, with line and column, when it cannot be read, is no TOML, or holds what no setting is.
pub(super) fn read(file: &Path) -> Result<Values> {
    const HINT: &str = "--config names a file of TOML, in UTF-8";
    let failed = |source| {
        Error::invalid(format!("cannot read settings file {}", file.display())).with_source(source).with_hint(HINT)
    };
    let mut text = String::new();
    let opened = std::fs::File::open(file).map_err(failed)?;
    opened.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        let error = Error::invalid(format!("settings file {} is longer than 1 MiB", file.display()));
        return Err(error.with_hint(HINT));
    }
    parse(file, &text)
}

/// Reads settings out of `text`, which stands in `file`.
pub(super) fn parse(file: &Path, text: &str) -> Result<Values> {
    let source = SourceText { file, text };
    let table = DeTable::parse(text).map_err(|error| {
        let place = source.place(error.span().map_or(0, |span| span.start));
        // The error's own Display prints the line, which may hold a credential.
        Error::invalid(format!("{place}: {}", error.message()))
    })?;
    let mut values = Values::default();
    source.collect("", table.get_ref(), &mut values)?;
    Ok(values)
}

struct SourceText<'a> {
    file: &'a Path,
    text: &'a str,
}

impl SourceText<'_> {
    /// Puts the keys of one table into `values`; `section` is empty at the top, else `name.`.
    fn collect(&self, section: &str, table: &DeTable<'_>, values: &mut Values) -> Result<()> {
        for (key, value) in table {
            let path = format!("{section}{}", key.get_ref());
            let place = self.place(key.span().start);
            if let Some(known) = KEYS.iter().find(|known| known.path == path) {
                let scalar = scalar(value).map_err(|found| {
                    Error::invalid(format!("{place}: {path}: not a value that this setting takes"))
                        .with_hint(format!("it is {found}; write text, a number, true or false"))
                })?;
                values.set(known.path, Entry { scalar, place });
                continue;
            }
            let prefix = format!("{path}.");
            let is_section = KEYS.iter().any(|known| known.path.starts_with(&prefix));
            match value.get_ref() {
                DeValue::Table(inner) if is_section => self.collect(&prefix, inner, values)?,
                _ if is_section => {
                    return Err(Error::invalid(format!("{place}: {path} is a section, not a value"))
                        .with_hint(format!("write [{path}] on its own line and the keys below it")));
                }
                _ => return Err(refuse(&place, &path)),
            }
        }
        Ok(())
    }

    fn place(&self, byte: usize) -> Place {
        let before = self.text.get(..byte).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
        Place::File { file: self.file.to_owned(), line: before.matches('\n').count() + 1, column }
    }
}

fn refuse(place: &Place, path: &str) -> Error {
    let located = Error::invalid(format!("{place}: unknown key {path}"));
    let keys = KEYS.iter().map(|key| key.path);
    // A key under no section, or under another one, is the commonest slip.
    let last = path.rsplit('.').next().unwrap_or(path);
    if let Some(key) = keys.clone().find(|key| key.rsplit_once('.').is_some_and(|(_, name)| name == last)) {
        return located.with_hint(format!("did you mean {key}?"));
    }
    let sections = KEYS.iter().filter_map(|key| key.path.split_once('.')).map(|(section, _)| section);
    let unlocated = unknown("key", path, keys.chain(sections));
    located.with_hint(unlocated.hint().unwrap_or_default())
}

fn scalar(value: &Spanned<DeValue<'_>>) -> std::result::Result<Scalar, &'static str> {
    match value.get_ref() {
        DeValue::String(text) => Ok(Scalar::Text(text.clone().into_owned())),
        DeValue::Boolean(switch) => Ok(Scalar::Switch(*switch)),
        DeValue::Integer(number) => {
            let parsed = i64::from_str_radix(number.as_str(), number.radix());
            parsed.map(Scalar::Integer).map_err(|_| "a number too large")
        }
        DeValue::Float(_) => Err("a fraction"),
        DeValue::Datetime(_) => Err("a date or time"),
        DeValue::Array(_) => Err("a list"),
        DeValue::Table(_) => Err("a section"),
    }
}
