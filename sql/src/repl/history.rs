//! The history file: everything typed but secrets.
//!
//! A statement that may hold a credential is never saved, neither in the file nor for this sitting: a history that is
//! searched on a shared screen leaks as well as a file does.

use std::path::Path;

use alluvium_catalog::{Error, Result};
use reedline::{FileBackedHistory, History, HistoryItem, HistoryItemId, HistorySessionId, SearchQuery};

use super::lex::{Kind, Lexer};
use crate::diagnostic::is_credential;

/// The entries kept: years of use, and still read at once.
const ENTRIES_MAX: usize = 10_000;

/// Words of which one in a statement with a quoted text keeps it out of the history.
const SECRET_WORDS: [&str; 9] =
    ["password", "passwd", "secret", "token", "credential", "jaas", "access_key", "private_key", "api_key"];

/// A history that leaves out statements with secrets.
pub(super) struct DiscreetHistory {
    file: FileBackedHistory,
}

impl DiscreetHistory {
    /// Opens or begins the history at `path`, readable by its owner alone.
    ///
    /// # Errors
    /// `Unavailable` when the file cannot be opened.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| {
            Error::unavailable(format!("cannot open the history {}", path.display())).with_source(source)
        };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|source| failed(source.into()))?;
        }
        restrict(path).map_err(|source| failed(source.into()))?;
        let file = FileBackedHistory::with_file(ENTRIES_MAX, path.to_owned());
        Ok(Self { file: file.map_err(|source| failed(source.to_string().into()))? })
    }

    /// Begins a history that ends with the sitting.
    ///
    /// # Errors
    /// `Internal` when it would be too long.
    pub(super) fn in_memory() -> Result<Self> {
        let file = FileBackedHistory::new(ENTRIES_MAX);
        Ok(Self { file: file.map_err(|source| Error::internal(format!("cannot begin a history: {source}")))? })
    }
}

/// Creates the file if it is missing, and takes it from everyone but its owner.
fn restrict(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
        let file = options.mode(0o600).open(path)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o600))
    }
    #[cfg(not(unix))]
    options.open(path).map(drop)
}

/// Tells whether `text` may hold a credential: a word like `password`, bare or within quotes, and a quoted text; or an
/// address with a user's password. A reference, `secret('env', 'NAME')`, is left out as well: better one statement too
/// few.
pub(super) fn may_hold_secret(text: &str) -> bool {
    let lower = text.to_lowercase().replace(['.', '-'], "_");
    let is_named = is_credential(text) || SECRET_WORDS.iter().any(|word| lower.contains(word));
    let mut quoted = Lexer::new(text).filter(|lexeme| matches!(lexeme.kind, Kind::Text | Kind::Quoted));
    quoted.any(|lexeme| is_named || holds_user(lexeme.text))
}

/// Tells whether a text is like `SSL://ann:hunter2@host`.
fn holds_user(text: &str) -> bool {
    text.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
}

impl History for DiscreetHistory {
    fn save(&mut self, item: HistoryItem) -> reedline::Result<HistoryItem> {
        if may_hold_secret(&item.command_line) {
            return Ok(item);
        }
        self.file.save(item)
    }

    fn load(&self, id: HistoryItemId) -> reedline::Result<HistoryItem> {
        self.file.load(id)
    }

    fn count(&self, query: SearchQuery) -> reedline::Result<i64> {
        self.file.count(query)
    }

    fn search(&self, query: SearchQuery) -> reedline::Result<Vec<HistoryItem>> {
        self.file.search(query)
    }

    fn update(&mut self, id: HistoryItemId, updater: &dyn Fn(HistoryItem) -> HistoryItem) -> reedline::Result<()> {
        self.file.update(id, updater)
    }

    fn clear(&mut self) -> reedline::Result<()> {
        self.file.clear()
    }

    fn delete(&mut self, id: HistoryItemId) -> reedline::Result<()> {
        self.file.delete(id)
    }

    fn sync(&mut self) -> std::io::Result<()> {
        self.file.sync()
    }

    fn session(&self) -> Option<HistorySessionId> {
        self.file.session()
    }
}

#[cfg(test)]
mod tests {
    use reedline::SearchDirection;

    use super::*;

    type TestResult = Result<(), Box<dyn std::error::Error>>;

    #[test]
    fn statements_with_secrets_never_reach_the_file() -> TestResult {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("state/history");
        let mut history = DiscreetHistory::open(&path)?;
        for line in [
            "SELECT 1;",
            "CREATE CONNECTION c TYPE kafka WITH ('sasl.password' = 'hunter2');",
            "CREATE CONNECTION c TYPE kafka WITH ('AWS.Secret-Access.Key' = 'hunter2');",
            "CREATE CONNECTION c TYPE kafka WITH ('sasl.jaas.config' = 'hunter2 open",
            "CREATE CONNECTION c TYPE kafka WITH ('ssl.key.pem' = 'hunter2 in PEM');",
            "CREATE CONNECTION c TYPE kafka WITH ('sasl.pasword' = 'hunter2');",
            "CREATE CONNECTION c TYPE kafka WITH ('bootstrap.servers' = 'ann:hunter2@b:1');",
            "SELECT 1 WHERE mail = 'ann@b';",
            "SELECT password FROM users;",
        ] {
            history.save(HistoryItem::from_command_line(line))?;
        }
        history.sync()?;
        let text = std::fs::read_to_string(&path)?;
        assert_eq!(text, "SELECT 1;\nSELECT 1 WHERE mail = 'ann@b';\nSELECT password FROM users;\n");
        Ok(())
    }

    #[test]
    fn statements_with_secrets_are_not_kept_for_the_sitting_either() -> TestResult {
        let mut history = DiscreetHistory::in_memory()?;
        for line in ["CREATE CONNECTION c TYPE kafka WITH ('sasl.password' = 'hunter2');", "SELECT 1;"] {
            history.save(HistoryItem::from_command_line(line))?;
        }
        let kept = history.search(SearchQuery::everything(SearchDirection::Forward, None))?;
        assert_eq!(kept.iter().map(|item| item.command_line.as_str()).collect::<Vec<_>>(), ["SELECT 1;"]);
        Ok(())
    }

    #[cfg(unix)]
    #[test]
    fn the_file_is_its_owners_alone() -> TestResult {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("history");
        std::fs::write(&path, "SELECT 1;\n")?;
        DiscreetHistory::open(&path)?;
        assert_eq!(std::fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
        Ok(())
    }
}
