//! A view of a JSON value as its text, for documents that [`scan`](super::scan) has passed.
//!
//! It finds members and elements without building a tree, so that a message can show a value just as it was written.
//! On text that is no JSON it may find nothing or nonsense, but never fails.

use std::borrow::Cow;

/// A JSON value: its text without surrounding space.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node<'a>(&'a [u8]);

/// What kind of value a [`Node`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Object,
    Array,
    String,
    Number,
    Boolean,
    Null,
}

impl<'a> Node<'a> {
    /// Returns the value that `text` is.
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self(text.trim_ascii())
    }

    /// Returns what kind of value it is.
    pub(super) fn kind(self) -> Kind {
        match self.0.first() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'"') => Kind::String,
            Some(b't' | b'f') => Kind::Boolean,
            Some(b'n') | None => Kind::Null,
            Some(_) => Kind::Number,
        }
    }

    /// Returns the text as written.
    pub(super) fn text(self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.0)
    }

    /// Returns what a string says, escapes resolved; the text as written for every other kind.
    pub(super) fn content(self) -> Cow<'a, str> {
        if self.kind() != Kind::String {
            return self.text();
        }
        // Nearly every key is written without escapes: then nothing is copied.
        if !self.inside().contains(&b'\\')
            && let Ok(content) = std::str::from_utf8(self.inside())
        {
            return Cow::Borrowed(content);
        }
        serde_json::from_slice::<String>(self.0).map_or_else(|_| self.text(), Cow::Owned)
    }

    /// Returns the members of an object in the order written; a key may repeat.
    pub(super) fn members(self) -> impl Iterator<Item = (Cow<'a, str>, Node<'a>)> {
        #[cfg(test)]
        WALKS.set(WALKS.get() + 1);
        let mut rest = self.inside();
        std::iter::from_fn(move || {
            let key = take_value(&mut rest)?;
            let value = take_value(&mut rest)?;
            Some((key.content(), value))
        })
    }

    /// Returns the elements of an array.
    pub(super) fn elements(self) -> impl Iterator<Item = Node<'a>> {
        let mut rest = self.inside();
        std::iter::from_fn(move || take_value(&mut rest))
    }

    fn inside(self) -> &'a [u8] {
        self.0.get(1..self.0.len().saturating_sub(1)).unwrap_or_default()
    }
}

/// Takes the first value off `rest`, with the space, comma or colon before it.
fn take_value<'a>(rest: &mut &'a [u8]) -> Option<Node<'a>> {
    let separates = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b',' | b':');
    let start = rest.iter().position(|byte| !separates(byte))?;
    let from = rest.get(start..)?;
    let (value, after) = from.split_at_checked(length(from))?;
    *rest = after;
    Some(Node::new(value))
}

/// Returns the length of the value that `bytes` begins with.
fn length(bytes: &[u8]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at = string_end(bytes, at);
                if depth == 0 {
                    return at;
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            b',' | b':' if depth == 0 => return at,
            _ => {}
        }
        at += 1;
    }
    at
}

/// Returns the position after the string that begins at `start`.
fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(byte) = bytes.get(at) {
        at += match byte {
            b'"' => return at + 1,
            b'\\' => 2,
            _ => 1,
        };
    }
    bytes.len()
}

#[cfg(test)]
thread_local! {
    /// How many objects this thread has walked the members of.
    pub(super) static WALKS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_escapes_is_copied() {
        for (text, expected, copied) in [
            ("\"ab\"", "ab", false),
            ("\"\u{e9}\"", "\u{e9}", false),
            ("\"\"", "", false),
            ("\"a\\u0062\\n\"", "ab\n", true),
            ("-1.50", "-1.50", false),
        ] {
            let content = Node::new(text.as_bytes()).content();
            assert_eq!((&*content, matches!(content, Cow::Owned(_))), (expected, copied), "{text}");
        }
    }

    #[test]
    fn members_and_elements_are_found_as_written() {
        let node = Node::new(br#" {"a" : [1, "x,]}\"", {"b":{}}] ,"k\u0065y":-1.50, "a":null} "#);
        let members: Vec<_> = node.members().map(|(key, value)| format!("{key}={}", value.text())).collect();
        assert_eq!(members, [r#"a=[1, "x,]}\"", {"b":{}}]"#, "key=-1.50", "a=null"]);
        let list = node.members().next().map(|(_, value)| value);
        let elements: Vec<_> = list.into_iter().flat_map(Node::elements).map(|value| value.text()).collect();
        assert_eq!(elements, ["1", r#""x,]}\"""#, r#"{"b":{}}"#]);
        assert_eq!(Node::new(b"[]").elements().count() + Node::new(b"{ }").members().count(), 0);
    }
}
