//! Cuts typed text into lexemes, however unfinished it is: the splitter, the highlighter, the completer and the history
//! all look at the text through it.
//!
//! The real tokenizer refuses a text that ends inside a string, which is what a half-typed statement does. This one
//! never fails; a property test holds the two to the same opinion of where statements end. It knows quotes, comments and
//! words, no grammar.

/// What a lexeme is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// White space.
    Space,
    /// `-- to the end of the line` or `/* nested */`.
    Comment,
    /// A keyword or a name.
    Word,
    /// A number.
    Number,
    /// `'text'`, `E'text'` or `$tag$text$tag$`.
    Text,
    /// `"name"` or `` `name` ``.
    Quoted,
    /// `;`
    Semicolon,
    /// `\` and the letters after it.
    Backslash,
    /// Any other character.
    Sign,
}

/// A piece of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lexeme<'a> {
    /// What it is.
    pub(super) kind: Kind,
    /// Its text, quotes included.
    pub(super) text: &'a str,
    /// The byte it begins at.
    pub(super) start: usize,
    /// Whether its closing quote or comment mark was there.
    pub(super) is_closed: bool,
}

impl Lexeme<'_> {
    /// Returns the byte after its last.
    pub(super) fn end(&self) -> usize {
        self.start + self.text.len()
    }

    /// Tells whether it says nothing to a parser.
    pub(super) fn is_blank(&self) -> bool {
        matches!(self.kind, Kind::Space | Kind::Comment)
    }

    /// Tells whether it is this keyword.
    pub(super) fn is_word(&self, keyword: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(keyword)
    }
}

/// Walks over a text lexeme by lexeme. The lexemes cover the text without gaps.
#[derive(Debug, Clone)]
pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    /// Returns a walk over all of `text`.
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Returns a walk over `text` from the byte `at`, which must not be inside a lexeme.
    pub(super) fn from(text: &'a str, at: usize) -> Self {
        Self { text, at }
    }
}

impl<'a> Iterator for Lexer<'a> {
    type Item = Lexeme<'a>;

    fn next(&mut self) -> Option<Lexeme<'a>> {
        let rest = self.text.get(self.at..)?;
        let first = rest.chars().next()?;
        let (kind, length, is_closed) = measure(rest, first);
        let lexeme = Lexeme { kind, text: &rest[..length], start: self.at, is_closed };
        self.at += length;
        Some(lexeme)
    }
}

/// Returns the kind of the lexeme that `rest` begins with, its length in bytes, and whether it is closed.
fn measure(rest: &str, first: char) -> (Kind, usize, bool) {
    if rest.starts_with("--") {
        return (Kind::Comment, rest.find('\n').unwrap_or(rest.len()), true);
    }
    if rest.starts_with("/*") {
        return closed(Kind::Comment, rest, end_of_comment(rest));
    }
    if rest.starts_with("E'") || rest.starts_with("e'") {
        return closed(Kind::Text, rest, end_of_escaped(rest));
    }
    if let Some(tag) = dollar_tag(rest) {
        return closed(Kind::Text, rest, rest[tag.len()..].find(tag).map(|found| found + 2 * tag.len()));
    }
    match first {
        ';' => (Kind::Semicolon, 1, true),
        '\'' => closed(Kind::Text, rest, end_of_quoted(rest, first)),
        '"' | '`' => closed(Kind::Quoted, rest, end_of_quoted(rest, first)),
        '\\' => (Kind::Backslash, 1 + run(&rest[1..], char::is_alphabetic), true),
        _ if first.is_whitespace() => (Kind::Space, run(rest, char::is_whitespace), true),
        _ if first.is_ascii_digit() => (Kind::Number, run(rest, is_of_number), true),
        _ if first.is_alphabetic() || first == '_' => (Kind::Word, run(rest, is_of_word), true),
        _ => (Kind::Sign, first.len_utf8(), true),
    }
}

fn closed(kind: Kind, rest: &str, end: Option<usize>) -> (Kind, usize, bool) {
    (kind, end.unwrap_or(rest.len()), end.is_some())
}

fn run(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|next| !belongs(next)).unwrap_or(text.len())
}

/// The dialect lets names go on with these signs (`GenericDialect::is_identifier_part`).
fn is_of_word(next: char) -> bool {
    is_of_tag(next) || matches!(next, '$' | '@' | '#')
}

fn is_of_tag(next: char) -> bool {
    next.is_alphanumeric() || next == '_'
}

fn is_of_number(next: char) -> bool {
    next.is_ascii_alphanumeric() || next == '.'
}

/// Finds the end of a quoted lexeme; a doubled quote is part of it.
fn end_of_quoted(rest: &str, quote: char) -> Option<usize> {
    let mut from = 1;
    loop {
        let found = from + rest[from..].find(quote)?;
        if !rest[found + 1..].starts_with(quote) {
            return Some(found + 1);
        }
        from = found + 2;
    }
}

/// Finds the end of `E'..'`, where a backslash takes the next character with it.
fn end_of_escaped(rest: &str) -> Option<usize> {
    let mut chars = rest.char_indices().skip(2).peekable();
    while let Some((at, next)) = chars.next() {
        match next {
            '\\' => {
                chars.next();
            }
            '\'' if chars.next_if(|(_, after)| *after == '\'').is_none() => return Some(at + 1),
            _ => {}
        }
    }
    None
}

fn end_of_comment(rest: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        let here = &rest.as_bytes()[at..];
        if here.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return Some(at);
            }
        } else {
            at += 1;
        }
    }
    None
}

/// Returns `$tag$` if `rest` begins with one.
fn dollar_tag(rest: &str) -> Option<&str> {
    let name = rest.strip_prefix('$')?;
    let length = run(name, is_of_tag);
    name[length..].starts_with('$').then(|| &rest[..length + 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(Kind, &str)]) {
        let lexemes: Vec<_> = Lexer::new(text).filter(|lexeme| lexeme.kind != Kind::Space).collect();
        let seen: Vec<_> = lexemes.iter().map(|lexeme| (lexeme.kind, lexeme.text)).collect();
        assert_eq!(seen, expected, "{text}");
    }

    #[test]
    fn quotes_hold_what_would_end_a_statement() {
        check("'a;''b' ;", &[(Kind::Text, "'a;''b'"), (Kind::Semicolon, ";")]);
        check("\"a;\"`b;`", &[(Kind::Quoted, "\"a;\""), (Kind::Quoted, "`b;`")]);
        check(r"E'it\'s;' x", &[(Kind::Text, r"E'it\'s;'"), (Kind::Word, "x")]);
        check("$q$ ; $$ $q$;", &[(Kind::Text, "$q$ ; $$ $q$"), (Kind::Semicolon, ";")]);
    }

    #[test]
    fn comments_nest_and_end_with_their_line() {
        check("/* a /* b; */ ; */ c", &[(Kind::Comment, "/* a /* b; */ ; */"), (Kind::Word, "c")]);
        check("a -- b; 'c\nd", &[(Kind::Word, "a"), (Kind::Comment, "-- b; 'c"), (Kind::Word, "d")]);
    }

    #[test]
    fn an_open_lexeme_reaches_to_the_end() {
        for text in ["'a;", "E'a\\'", "\"a", "/* /* */", "$x$ $y$"] {
            let open = Lexer::new(text).next();
            assert_eq!(open.map(|lexeme| (lexeme.is_closed, lexeme.end())), Some((false, text.len())), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn lexemes_cover_any_text_without_gaps(text in "[a-e0-9'\"`$;\\\\/*\\-\n .\u{e9}\u{1f600}]{0,60}") {
            let mut at = 0;
            for lexeme in Lexer::new(&text) {
                proptest::prop_assert_eq!(lexeme.start, at);
                proptest::prop_assert!(!lexeme.text.is_empty());
                at = lexeme.end();
            }
            proptest::prop_assert_eq!(at, text.len());
        }
    }
}
