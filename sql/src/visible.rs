//! Writes texts of others so that a terminal shows them and does not obey them.
//!
//! What people read goes through it: cells of tables, notes, messages, and the SQL that errors point at. What programs
//! read does not, lest something be lost.

use std::borrow::Cow;

/// Returns `text` so that it stays on its line and cannot steer the terminal it is shown on.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    if !text.chars().any(steers) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for next in text.chars() {
        if steers(next) {
            shown.extend(next.escape_default());
        } else {
            shown.push(next);
        }
    }
    Cow::Owned(shown)
}

/// Returns `text` so that it keeps its lines and cannot steer the terminal it is shown on.
pub(crate) fn visible_lines(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|next| steers(next) && next != '\n') {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.split('\n').map(visible).collect::<Vec<_>>().join("\n"))
}

/// Tells whether a terminal obeys the character instead of showing it: control characters, and the signs that turn the
/// direction of what follows, frames of other cells included.
pub(crate) fn steers(next: char) -> bool {
    next.is_control() || matches!(next, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
