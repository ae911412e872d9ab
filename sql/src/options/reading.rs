//! Reads the options of one statement and collects what is wrong with them.

use std::sync::Arc;

use alluvium_catalog::SecretRef;

use super::{Known, Owned, tuning};
use crate::diagnostic::{Diagnostic, SourceText, TextSpan, code, is_credential};
use crate::statement::{Literal, WrittenOption};

/// The options of one statement.
pub(super) struct Reading<'a> {
    /// The text that they stand in.
    pub(super) source: &'a Arc<SourceText>,
    /// The name of the statement, where a missing option is reported.
    pub(super) owner: TextSpan,
    /// What is written.
    pub(super) written: &'a [WrittenOption],
    /// What may be written.
    pub(super) known: Vec<Known>,
    /// What is wrong so far.
    pub(super) diagnostics: &'a mut Vec<Diagnostic>,
}

impl Reading<'_> {
    /// Reports options that are unknown or owned, and credentials in plain text. `others` are further keys that exist.
    pub(super) fn check(&mut self, owned: &[Owned], others: &[&str]) {
        for option in self.written {
            let key = option.key.value.as_str();
            if is_credential(key) && !matches!(option.value.value, Literal::Secret { .. }) {
                self.report(literal_credential(self.source, option));
            }
            if self.known.iter().any(|known| known.key == key) || others.contains(&key) {
                continue;
            }
            let span = option.key.span.clone();
            let diagnostic = match owned.iter().find(|(name, _)| *name == key) {
                Some((_, reason)) => {
                    let message = format!("option '{key}' cannot be set");
                    Diagnostic::new(code::OWNED_OPTION, self.source, span, message).with_hint(*reason)
                }
                None => {
                    let names = self.known.iter().map(|known| known.key).chain(others.iter().copied());
                    Diagnostic::new(code::UNKNOWN_OPTION, self.source, span, format!("unknown option '{key}'"))
                        .with_nearest(key, names)
                }
            };
            self.report(diagnostic);
        }
    }

    /// Returns an option's text, or its default; reports a secret, which this option cannot be.
    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        let Some(option) = self.find(key) else {
            return self.known(key).and_then(|known| known.default).map(str::to_owned);
        };
        match plain(&option.value.value) {
            Some(text) => Some(text),
            None => {
                let span = option.value.span.clone();
                let message = format!("option '{key}' cannot be a secret");
                let hint = "write the value itself: secret(..) is for passwords, keys and users";
                self.report(Diagnostic::new(code::BAD_OPTION, self.source, span, message).with_hint(hint));
                None
            }
        }
    }

    /// Returns an option's value as `parse` reads it, or the value of its default.
    pub(super) fn value<T, E: std::fmt::Display>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text(key)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(error) => {
                self.refuse(key, error.to_string());
                None
            }
        }
    }

    /// As [`Self::value`], but nothing where the option is not written, whatever its default.
    pub(super) fn written_value<T, E: std::fmt::Display>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        self.find(key)?;
        self.value(key, parse)
    }

    /// As [`Self::value`], and reports that the option is missing.
    pub(super) fn required<T, E: std::fmt::Display>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        if self.find(key).is_none() {
            self.missing(key, &format!("option '{key}' is missing"));
            return None;
        }
        self.value(key, parse)
    }

    /// Reports that an option is missing, and what it is.
    pub(super) fn missing(&mut self, key: &str, message: &str) {
        let diagnostic = Diagnostic::new(code::MISSING_OPTION, self.source, self.owner.clone(), message);
        let hint = self.known(key).map_or(format!("add '{key}' = .."), |known| format!("'{key}' is {}", known.doc));
        self.report(diagnostic.with_hint(hint));
    }

    /// Reports the value of an option.
    pub(super) fn refuse(&mut self, key: &str, message: impl Into<String>) {
        let span = self.find(key).map_or(self.owner.clone(), |option| option.value.span.clone());
        let message = format!("option '{key}': {}", message.into());
        let diagnostic = Diagnostic::new(code::BAD_OPTION, self.source, span, message);
        let hint = match self.known(key) {
            Some(Known { default: Some(default), doc, .. }) => format!("'{key}' is {doc} (default {default})"),
            Some(Known { doc, .. }) => format!("'{key}' is {doc}"),
            None => {
                let written = self.find(key).and_then(|option| plain(&option.value.value));
                tuning::advice(key, &written.unwrap_or_default())
            }
        };
        self.report(diagnostic.with_hint(hint));
    }

    /// Returns an option as written.
    pub(super) fn find(&self, key: &str) -> Option<&WrittenOption> {
        self.written.iter().find(|option| option.key.value == key)
    }

    pub(super) fn report(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    fn known(&self, key: &str) -> Option<Known> {
        self.known.iter().find(|known| known.key == key).copied()
    }
}

/// Returns the text of a value that is no secret.
pub(super) fn plain(literal: &Literal) -> Option<String> {
    match literal {
        Literal::Text(text) | Literal::Number(text) => Some(text.clone()),
        Literal::Boolean(value) => Some(value.to_string()),
        Literal::Secret { .. } => None,
    }
}

/// Returns the reference of a `secret(..)`.
pub(super) fn secret(provider: &str, name: &str) -> alluvium_catalog::Result<SecretRef> {
    Ok(SecretRef { provider: provider.parse()?, name: name.to_owned() })
}

fn literal_credential(source: &Arc<SourceText>, option: &WrittenOption) -> Diagnostic {
    let key = &option.key.value;
    let variable: String =
        key.chars().map(|next| if next.is_ascii_alphanumeric() { next.to_ascii_uppercase() } else { '_' }).collect();
    let message = format!("literal credential for '{key}'");
    Diagnostic::new(code::LITERAL_SECRET, source, option.value.span.clone(), message)
        .with_label("would be kept in files, logs and the catalog")
        .with_hint(format!("use secret('env', '{variable}'), or secret('file', '/path')"))
}

/// Returns the one of `valid` that `text` is.
///
/// # Errors
/// The valid values.
pub(super) fn one_of(text: &str, valid: &[&'static str]) -> Result<&'static str, String> {
    let found = valid.iter().copied().find(|value| value.eq_ignore_ascii_case(text));
    found.ok_or_else(|| format!("'{text}' is none of {}", valid.join(", ")))
}

/// Returns the truth that `text` is.
///
/// # Errors
/// The valid values.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    Ok(one_of(text, &["true", "false"])? == "true")
}
