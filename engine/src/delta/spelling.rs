//! How the paths of files are spelled in the log, where another writer has escaped them in another way than this program.
//!
//! A path in the log is a URI, and there are several spellings of one: Spark leaves letters outside of ASCII as they are, which
//! others escape. Readers tell by the spelling, not by what it stands for, whether a Remove takes a file away: the kernel,
//! which writes our checkpoints, compares them letter by letter. So whoever names a file again has to spell it as the log
//! does. Within this program paths are always what they stand for. Source: Delta transaction log protocol, "Add File and
//! Remove File"; delta-kernel-rs issue 2423.

use std::collections::HashMap;

use serde_json::Value;

use super::action::{Action, Add, Remove};

/// The spelling of one file's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spelling {
    /// What it stands for.
    pub path: String,
    /// As the log has it, where this program would spell it otherwise.
    pub spelled: Option<String>,
}

/// The paths of live files that this program would spell otherwise than the log does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spellings(HashMap<String, String>);

impl Spelling {
    /// Returns how the log spells the path of `add`, which was read out of it; `None` where there is but one way.
    ///
    /// # Errors
    /// When the path cannot be written as JSON.
    pub fn of(spelled: &str, add: &Add) -> Result<Option<Self>, serde_json::Error> {
        // These are spelled in one way, and all paths of most tables are of them.
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'/' | b'=');
        if spelled.bytes().all(is_plain) {
            return Ok(None);
        }
        let ours = serde_json::to_value(Remove { path: add.path.clone(), ..Remove::default() })?;
        let is_ours = ours.get("path").and_then(Value::as_str) == Some(spelled);
        Ok(Some(Self { path: add.path.clone(), spelled: (!is_ours).then(|| spelled.to_owned()) }))
    }
}

impl Spellings {
    /// Takes in how a file is spelled from now on: writers may add one again, each in its own spelling.
    pub fn note(&mut self, Spelling { path, spelled }: &Spelling) {
        match spelled {
            Some(spelled) => drop(self.0.insert(path.clone(), spelled.clone())),
            None => self.forget(path),
        }
    }

    /// Forgets a file that has left the table.
    pub fn forget(&mut self, path: &str) {
        self.0.remove(path);
    }

    /// Returns an action as a line of the log has it.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn line(&self, action: &Action) -> Result<Vec<u8>, serde_json::Error> {
        let (kind, path) = match action {
            Action::Add(Add { path, .. }) => ("add", path),
            Action::Remove(Remove { path, .. }) => ("remove", path),
            _ => return serde_json::to_vec(action),
        };
        let Some(spelled) = self.0.get(path) else { return serde_json::to_vec(action) };
        let mut line = serde_json::to_value(action)?;
        if let Some(place) = line.get_mut(kind).and_then(|body| body.get_mut("path")) {
            *place = Value::String(spelled.clone());
        }
        serde_json::to_vec(&line)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::delta::state::TableState;

    /// Checks how the file of an Add is removed, and added again, once the log has spelled its path like this.
    fn check(spelled: &str, path: &str) -> Result<(), serde_json::Error> {
        let body =
            json!({"path": spelled, "partitionValues": {}, "size": 1, "modificationTime": 0, "dataChange": true});
        let mut state = TableState::default();
        state.apply(1, &Action::parse("add", body)?);
        let add = state.files.get(path).cloned().unwrap_or_default();
        assert_eq!(add.path, path, "{spelled}");
        let remove = Remove { path: path.to_owned(), ..Remove::default() };
        let actions = [Action::Remove(remove.clone()), Action::Add(add)];
        // A changed vector is both, and the file is spelled as it was the next time, too.
        for version in [2, 3] {
            for (action, kind) in actions.iter().zip(["remove", "add"]) {
                let line: Value = serde_json::from_slice(&state.spellings.line(action)?)?;
                assert_eq!(line[kind]["path"], spelled, "{kind} of {path} in version {version}");
            }
            state.apply(version, &actions);
        }
        state.apply(4, &[Action::Remove(remove)]);
        assert_eq!(state.spellings, Spellings::default(), "{spelled} is gone");
        Ok(())
    }

    #[test]
    fn a_file_is_named_again_as_the_log_has_named_it() -> Result<(), serde_json::Error> {
        check("part-1.parquet", "part-1.parquet")?;
        check("city=M\u{fc}nchen/a.parquet", "city=M\u{fc}nchen/a.parquet")?;
        check("city=M%C3%BCnchen/a.parquet", "city=M\u{fc}nchen/a.parquet")?;
        check("city=M%c3%bcnchen/a.parquet", "city=M\u{fc}nchen/a.parquet")?;
        check("city=New York/a.parquet", "city=New York/a.parquet")?;
        check("city=New%20York/a.parquet", "city=New York/a.parquet")?;
        check("at=12%253A00/a.parquet", "at=12%3A00/a.parquet")
    }
}
