//! The command line of the benchmarks that measure whole runs: `--name value` pairs and flags, nothing else.

use std::collections::BTreeMap;
use std::str::FromStr;

use alluvium_catalog::{Error, Result};

/// Arguments by name.
#[derive(Debug, Default)]
pub struct Arguments {
    values: BTreeMap<String, String>,
}

impl Arguments {
    /// Reads the arguments of this process; `known` lists what there is, flags with a `!` at the end.
    ///
    /// # Errors
    /// `Invalid` when an argument is not known or lacks its value.
    pub fn read(known: &[&str]) -> Result<Self> {
        Self::parse(std::env::args().skip(1), known)
    }

    fn parse(mut arguments: impl Iterator<Item = String>, known: &[&str]) -> Result<Self> {
        let mut values = BTreeMap::new();
        while let Some(argument) = arguments.next() {
            let name = argument.trim_start_matches("--").to_owned();
            // Cargo tells every benchmark that it is one.
            if argument == "--bench" {
                continue;
            }
            if known.iter().any(|known| known.strip_suffix('!') == Some(&name)) {
                values.insert(name, "true".to_owned());
                continue;
            }
            if !argument.starts_with("--") || !known.contains(&name.as_str()) {
                let known: Vec<String> = known.iter().map(|name| format!("--{}", name.trim_end_matches('!'))).collect();
                return Err(Error::invalid(format!("unknown argument {argument}"))
                    .with_hint(format!("known are {}", known.join(", "))));
            }
            let value = arguments.next().ok_or_else(|| Error::invalid(format!("--{name} lacks its value")))?;
            values.insert(name, value);
        }
        Ok(Self { values })
    }

    /// Tells whether a flag is set.
    pub fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// Returns a value as written.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Returns a value, if it is given.
    ///
    /// # Errors
    /// `Invalid` when it is not of its type.
    pub fn get<T: FromStr>(&self, name: &str) -> Result<Option<T>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        parse(text).map(Some).ok_or_else(|| Error::invalid(format!("--{name} cannot be {text}")))
    }

    /// Returns the values of a list with commas, if it is given.
    ///
    /// # Errors
    /// `Invalid` when one of them is not of its type.
    pub fn list<T: FromStr>(&self, name: &str) -> Result<Option<Vec<T>>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let each = text
            .split(',')
            .map(|part| parse(part).ok_or_else(|| Error::invalid(format!("--{name} cannot hold {part}"))));
        each.collect::<Result<_>>().map(Some)
    }
}

/// Reads a value; `1_000_000` is how the house writes numbers.
fn parse<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok().or_else(|| text.replace('_', "").parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Arguments> {
        let known = ["records", "sizes", "names", "freshness!"];
        Arguments::parse(line.split_ascii_whitespace().map(str::to_owned), &known)
    }

    #[test]
    fn arguments_are_read_and_others_refused() -> Result<()> {
        let arguments = read("--bench --records 1_000 --freshness --sizes 1,2_0 --names a_b,c")?;
        assert_eq!(arguments.get::<u64>("records")?, Some(1_000));
        assert_eq!(arguments.list::<u64>("sizes")?, Some(vec![1, 20]));
        assert_eq!(arguments.list::<String>("names")?, Some(vec!["a_b".to_owned(), "c".to_owned()]));
        assert!(arguments.has("freshness"));
        for wrong in ["--record 1", "records", "--records"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(read("--records many")?.get::<u64>("records").is_err());
        Ok(())
    }
}
