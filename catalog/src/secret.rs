//! Secrets: where one is read from, and its value while it is in use.
//!
//! Definitions, the catalog, tables and logs hold a [`SecretRef`] and nothing else. A [`Secret`] can be neither shown
//! nor stored; no error in this file repeats a value, and none keeps a source that would.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The longest secret that is read. Keys and certificates have a few KiB; more is some other file.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Where a secret is read from: `secret('env', 'KAFKA_PASSWORD')`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SecretRef {
    /// Who holds the secret.
    pub provider: SecretProvider,
    /// Its name there: the variable, or the file's path.
    pub name: String,
}

impl SecretRef {
    /// Reads the secret. It is read anew each time, so that a rotated secret needs no restart.
    ///
    /// # Errors
    /// `Invalid`, naming the variable or file, when it is missing, empty, unreadable or not UTF-8.
    pub fn resolve(&self) -> Result<Secret> {
        match self.provider {
            SecretProvider::Env => self.read_variable(),
            SecretProvider::File => self.read_file(),
        }
    }

    fn read_variable(&self) -> Result<Secret> {
        let name = &self.name;
        // var_os panics for these.
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(Error::invalid(format!("{name:?} cannot be the name of an environment variable")));
        }
        let value = std::env::var_os(name).ok_or_else(|| {
            Error::invalid(format!("environment variable {name} is not set"))
                .with_hint(format!("it is named by {self}; set it where the program is started"))
        })?;
        let value =
            value.into_string().map_err(|_| Error::invalid(format!("environment variable {name} is not UTF-8")))?;
        self.checked(value)
    }

    fn read_file(&self) -> Result<Secret> {
        let failed = |source| Error::invalid(format!("cannot read secret file {}", self.name)).with_source(source);
        let mut bytes = Vec::new();
        let file = File::open(&self.name).map_err(failed)?;
        file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > SECRET_BYTES_MAX {
            return Err(Error::invalid(format!("secret file {} has more than {SECRET_BYTES_MAX} bytes", self.name)));
        }
        // The source of a failed conversion would carry the bytes.
        let mut text =
            String::from_utf8(bytes).map_err(|_| Error::invalid(format!("secret file {} is not UTF-8", self.name)))?;
        if text.ends_with('\n') {
            text.pop();
            if text.ends_with('\r') {
                text.pop();
            }
        }
        self.checked(text)
    }

    fn checked(&self, value: String) -> Result<Secret> {
        if value.is_empty() {
            return Err(Error::invalid(format!("{self} is empty")));
        }
        Ok(Secret(value))
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "secret('{}', '{}')", self.provider, self.name.replace('\'', "''"))
    }
}

/// Who holds a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretProvider {
    /// An environment variable.
    Env,
    /// A file; a line break at its end is not part of the secret.
    File,
}

impl FromStr for SecretProvider {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "env" => Ok(Self::Env),
            "file" => Ok(Self::File),
            _ => Err(Error::invalid(format!("'{text}' is not a secret provider"))
                .with_hint("the providers are 'env' and 'file'")),
        }
    }
}

impl fmt::Display for SecretProvider {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Env => "env",
            Self::File => "file",
        })
    }
}

/// A secret's value. It has no `Display` and no serde form, and its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value that came by another way than a [`SecretRef`].
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// Returns the value. Whoever calls this answers for where it goes.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_file(bytes: &[u8]) -> Result<Secret> {
        let failed = |source: std::io::Error| Error::internal("cannot write the test's file").with_source(source);
        let folder = tempfile::tempdir().map_err(failed)?;
        let path = folder.path().join("password");
        std::fs::write(&path, bytes).map_err(failed)?;
        SecretRef { provider: SecretProvider::File, name: path.display().to_string() }.resolve()
    }

    fn in_env(name: &str) -> Result<Secret> {
        SecretRef { provider: SecretProvider::Env, name: name.to_owned() }.resolve()
    }

    #[test]
    fn reference_is_shown_as_it_is_written() -> Result<()> {
        let reference = SecretRef { provider: "file".parse()?, name: "/run/it's".to_owned() };
        assert_eq!(reference.to_string(), "secret('file', '/run/it''s')");
        assert!("vault".parse::<SecretProvider>().is_err());
        Ok(())
    }

    #[test]
    fn one_line_break_at_the_end_of_a_file_is_cut() -> Result<()> {
        for (bytes, expected) in [("hunter2", "hunter2"), ("a\n", "a"), ("a\r\n", "a"), ("a\nb\n\n", "a\nb\n")] {
            assert_eq!(in_file(bytes.as_bytes())?.expose(), expected);
        }
        Ok(())
    }

    #[test]
    fn no_error_shows_the_value() {
        let long = "hunter2".repeat(20_000);
        for bytes in [&b"hunter2\xff"[..], b"\n", long.as_bytes()] {
            let shown = in_file(bytes).map_err(|error| format!("{error:?} {}", error.chain()));
            assert!(shown.is_err_and(|text| text.contains("password") && !text.contains("hunter2")));
        }
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "Secret(***)");
    }

    #[test]
    fn variables_are_read_and_missing_ones_named() -> Result<()> {
        assert!(in_env("CARGO_MANIFEST_DIR")?.expose().contains("catalog"));
        for name in ["ALLUVIUM_TEST_UNSET", "", "A=B", "A\0"] {
            assert!(in_env(name).is_err_and(|error| error.message().contains(name.split('\0').next().unwrap_or(""))));
        }
        Ok(())
    }
}
