//! The line editor of a terminal: reedline with our highlighting, completion, history and idea of a finished statement.
//!
//! Reading a line blocks a thread, never the runtime: the editor goes to the blocking pool and comes back with what was
//! typed.

use std::borrow::Cow;
use std::path::Path;

use alluvium_catalog::{Error, Result};
use reedline::{
    ColumnarMenu, DefaultHinter, EditCommand, Emacs, KeyCode, KeyModifiers, MenuBuilder, Prompt, PromptEditMode,
    PromptHistorySearch, PromptHistorySearchStatus, Reedline, ReedlineEvent, ReedlineMenu, Signal, ValidationResult,
    Validator, default_emacs_keybindings,
};

use super::complete::{NameCompleter, Vocabulary};
use super::highlight::Colours;
use super::history::DiscreetHistory;
use super::script::is_complete;

const MENU: &str = "completions";

/// What came from the terminal.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Typed {
    /// One or more finished statements or commands.
    Text(String),
    /// Ctrl-C: the line was given up.
    GivenUp,
    /// Ctrl-D on an empty line, or the terminal is gone.
    End,
}

/// The line editor.
pub(super) struct Editor {
    /// Absent only while a line is read.
    reedline: Option<Reedline>,
}

impl Editor {
    /// Returns an editor with its history at `history`, or with one that ends with it.
    ///
    /// # Errors
    /// `Unavailable` when the history cannot be opened.
    pub(super) fn open(history: Option<&Path>) -> Result<Self> {
        let mut keys = default_emacs_keybindings();
        let complete = ReedlineEvent::UntilFound(vec![ReedlineEvent::Menu(MENU.to_owned()), ReedlineEvent::MenuNext]);
        keys.add_binding(KeyModifiers::NONE, KeyCode::Tab, complete);
        keys.add_binding(KeyModifiers::SHIFT, KeyCode::BackTab, ReedlineEvent::MenuPrevious);
        let newline = ReedlineEvent::Edit(vec![EditCommand::InsertNewline]);
        keys.add_binding(KeyModifiers::ALT, KeyCode::Enter, newline);
        let kept = match history {
            Some(path) => DiscreetHistory::open(path)?,
            None => DiscreetHistory::in_memory()?,
        };
        let reedline = Reedline::create()
            .with_edit_mode(Box::new(Emacs::new(keys)))
            .with_menu(ReedlineMenu::EngineCompleter(Box::new(ColumnarMenu::default().with_name(MENU))))
            .with_highlighter(Box::new(Colours))
            .with_hinter(Box::new(DefaultHinter::default()))
            .with_validator(Box::new(UntilSemicolon))
            .with_partial_completions(true)
            .use_bracketed_paste(true)
            .with_history(Box::new(kept));
        Ok(Self { reedline: Some(reedline) })
    }

    /// Reads until statements are finished.
    ///
    /// # Errors
    /// `Unavailable` when the terminal fails, `Closed` after that.
    pub(super) async fn read(&mut self, vocabulary: Vocabulary) -> Result<Typed> {
        let Some(reedline) = self.reedline.take() else { return Err(Error::closed("the terminal was lost")) };
        let mut reedline = reedline.with_completer(Box::new(NameCompleter::new(vocabulary)));
        let reading = tokio::task::spawn_blocking(move || {
            let signal = reedline.read_line(&Signs);
            // A history that cannot be written must not end the sitting; the lines stay for this one.
            if let Err(error) = reedline.sync_history() {
                tracing::warn!(%error, "cannot write the history");
            }
            (reedline, signal)
        });
        let (reedline, signal) =
            reading.await.map_err(|source| Error::internal("the line editor failed").with_source(source))?;
        self.reedline = Some(reedline);
        match signal {
            Ok(Signal::Success(text)) => Ok(Typed::Text(text)),
            Ok(Signal::CtrlD) => Ok(Typed::End),
            Ok(_) => Ok(Typed::GivenUp),
            Err(source) => Err(Error::unavailable(format!("cannot read from the terminal: {source}"))),
        }
    }
}

/// Enter ends the input when nothing in it waits for more.
struct UntilSemicolon;

impl Validator for UntilSemicolon {
    fn validate(&self, line: &str) -> ValidationResult {
        if is_complete(line) { ValidationResult::Complete } else { ValidationResult::Incomplete }
    }
}

/// The prompt.
struct Signs;

impl Prompt for Signs {
    fn render_prompt_left(&self) -> Cow<'_, str> {
        Cow::Borrowed("alluvium")
    }

    fn render_prompt_right(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn render_prompt_indicator(&self, _mode: PromptEditMode) -> Cow<'_, str> {
        Cow::Borrowed("> ")
    }

    fn render_prompt_multiline_indicator(&self) -> Cow<'_, str> {
        Cow::Borrowed("       -> ")
    }

    fn render_prompt_history_search_indicator(&self, search: PromptHistorySearch) -> Cow<'_, str> {
        let failing = match search.status {
            PromptHistorySearchStatus::Passing => "",
            PromptHistorySearchStatus::Failing => "failing ",
        };
        Cow::Owned(format!("({failing}search: {}) ", search.term))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enter_ends_what_is_finished_and_continues_the_rest() {
        let is_done = |text: &str| matches!(UntilSemicolon.validate(text), ValidationResult::Complete);
        assert!(is_done("SELECT 1;"));
        assert!(is_done("\\d"));
        assert!(is_done(""));
        assert!(!is_done("SELECT 1"));
        assert!(!is_done("SELECT ';"));
    }
}
