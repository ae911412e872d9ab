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
    /// `'text'`, `E'text'`, `Q'[text]'` or `$tag$text$tag$`.
    Text,
    /// `"name"` or `` `name` ``.
    Quoted,
    /// `;`
    Semicolon,
    /// `\` and the word after it.
    Backslash,
    /// An operator, a placeholder or any other sign.
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
    if let Some(end) = end_of_marked(rest) {
        return closed(Kind::Text, rest, end);
    }
    match first {
        ';' => (Kind::Semicolon, 1, true),
        '\'' => closed(Kind::Text, rest, end_of_quoted(rest, first)),
        '"' | '`' => closed(Kind::Quoted, rest, end_of_quoted(rest, first)),
        '\\' => (Kind::Backslash, 1 + length_of_word(&rest[1..]), true),
        '$' => (Kind::Sign, 1 + run(&rest[1..], is_of_tag), true),
        '?' => (Kind::Sign, 1 + run(&rest[1..], char::is_numeric), true),
        '.' | '0'..='9' if !rest.starts_with("._") => match length_of_number(rest) {
            1 if first == '.' => (Kind::Sign, 1, true),
            length => (Kind::Number, length, true),
        },
        _ if first.is_whitespace() => (Kind::Space, run(rest, char::is_whitespace), true),
        _ if begins_word(first) => (Kind::Word, run(rest, is_of_word), true),
        _ => (Kind::Sign, length_of_sign(rest, first), true),
    }
}

fn closed(kind: Kind, rest: &str, end: Option<usize>) -> (Kind, usize, bool) {
    (kind, end.unwrap_or(rest.len()), end.is_some())
}

fn run(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|next| !belongs(next)).unwrap_or(text.len())
}

fn begins_word(next: char) -> bool {
    next.is_alphabetic() || next == '_'
}

/// The dialect lets names go on with these signs (`GenericDialect::is_identifier_part`).
fn is_of_word(next: char) -> bool {
    begins_word(next) || next.is_ascii_digit() || matches!(next, '$' | '@' | '#')
}

fn is_of_tag(next: char) -> bool {
    next.is_alphanumeric() || next == '_'
}

/// Returns the length of the word that `rest` begins with, 0 when it begins with anything else: `e'..'` is no word.
fn length_of_word(rest: &str) -> usize {
    if rest.starts_with(begins_word) && end_of_marked(rest).is_none() { run(rest, is_of_word) } else { 0 }
}

/// Returns the length of `1`, `1.5`, `.5e-7`, `0x1f` or `7L`. Letters that follow begin a word or even a text: `1e'..'`.
fn length_of_number(rest: &str) -> usize {
    let digits = |from: usize| from + run(&rest[from..], |next| next.is_ascii_digit());
    let mut end = digits(0);
    if &rest[..end] == "0" && rest[end..].starts_with('x') {
        return end + 1 + run(&rest[end + 1..], |next| next.is_ascii_hexdigit());
    }
    if rest[end..].starts_with('.') {
        end = digits(end + 1);
    }
    if &rest[..end] == "." {
        return end;
    }
    if rest[end..].starts_with(['e', 'E']) {
        let power = end + 1 + usize::from(rest[end + 1..].starts_with(['+', '-']));
        if digits(power) > power {
            end = digits(power);
        }
    }
    end + usize::from(rest[end..].starts_with('L'))
}

/// Signs that the tokenizer takes together, where their last one would otherwise begin something else: `//*` is an
/// integer division and a star, no comment. The longest of those that begin alike comes first.
const SIGNS: [&str; 11] = ["//", "||/", "||", "|/", "#-", "#>", "<<", "<@", "^@", "@>", "@?"];

/// Returns the length of an operator or another sign.
fn length_of_sign(rest: &str, first: char) -> usize {
    if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
        return sign.len();
    }
    let after = |length: usize| rest[length..].chars().next();
    // The tokenizer lets a name begin with # and @, and takes the next character into it, whatever it is.
    let (length, stands_alone) = match first {
        '#' => (1, matches!(after(1), None | Some(' '))),
        '@' if after(1) == Some('@') => (2, matches!(after(2), None | Some(' '))),
        '@' => (1, matches!(after(1), None | Some(' ' | '\'' | '"' | '`'))),
        _ => (first.len_utf8(), true),
    };
    if stands_alone {
        return length;
    }
    let taken = length + after(length).map_or(0, char::len_utf8);
    taken + run(&rest[taken..], is_of_word)
}

/// Returns the end, where there is one, of a text that more than its first quote says the end of: `E'..'`, `X'..'`,
/// `R'''..'''`, `Q'[..]'` and `$tag$..$tag$`. Letters that change nothing about it, as in `B'..'`, are words here.
fn end_of_marked(rest: &str) -> Option<Option<usize>> {
    if let Some(tag) = dollar_tag(rest) {
        return Some(rest[tag.len()..].find(tag).map(|found| found + 2 * tag.len()));
    }
    let at = rest.bytes().take(3).position(|byte| matches!(byte, b'\'' | b'"'))?;
    let (mark, quoted) = rest.split_at(at);
    match (mark, quoted.as_bytes()) {
        ("e" | "E" | "x" | "X", [b'\'', ..]) => Some(end_of_escaped(rest)),
        ("r" | "R", [b'\'', b'\'', b'\'', ..]) => Some(quoted[3..].find("'''").map(|found| at + 3 + found + 3)),
        ("r" | "R", [b'"', b'"', b'"', ..]) => Some(quoted[3..].find("\"\"\"").map(|found| at + 3 + found + 3)),
        ("q" | "Q" | "nq" | "nQ" | "Nq" | "NQ", [b'\'', ..]) => Some(end_of_delimited(rest, at + 1)),
        _ => None,
    }
}

/// Finds the end of `q'[..]'`, whose opening sign is at the byte `at`.
fn end_of_delimited(rest: &str, at: usize) -> Option<usize> {
    let opening = rest[at..].chars().next()?;
    let closing = match opening {
        '[' => ']',
        '{' => '}',
        '<' => '>',
        '(' => ')',
        other => other,
    };
    let from = at + opening.len_utf8();
    let end = format!("{closing}'");
    rest[from..].find(&end).map(|found| from + found + end.len())
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

/// Finds the end of `E'..'` or `X'..'`, where a backslash takes the next character with it.
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
        check(r"x'\';' y", &[(Kind::Text, r"x'\';'"), (Kind::Word, "y")]);
        check("r'''a;'b;''';", &[(Kind::Text, "r'''a;'b;'''"), (Kind::Semicolon, ";")]);
        check("q'[it's;]' nq'!;!';", &[(Kind::Text, "q'[it's;]'"), (Kind::Text, "nq'!;!'"), (Kind::Semicolon, ";")]);
    }

    #[test]
    fn signs_that_belong_together_begin_nothing_else() {
        check("//*'';", &[(Kind::Sign, "//"), (Kind::Sign, "*"), (Kind::Text, "''"), (Kind::Semicolon, ";")]);
        check("||/* b;", &[(Kind::Sign, "||/"), (Kind::Sign, "*"), (Kind::Word, "b"), (Kind::Semicolon, ";")]);
        check("#-- b", &[(Kind::Sign, "#-"), (Kind::Sign, "-"), (Kind::Word, "b")]);
        check("a <@'b'", &[(Kind::Word, "a"), (Kind::Sign, "<@"), (Kind::Text, "'b'")]);
        check("@a $1 ?1", &[(Kind::Sign, "@a"), (Kind::Sign, "$1"), (Kind::Sign, "?1")]);
    }

    #[test]
    fn a_number_ends_where_a_text_may_begin() {
        check(r"1e'\';'", &[(Kind::Number, "1"), (Kind::Text, r"e'\';'")]);
        check("1e-7 .5 0xf 2L", &["1e-7", ".5", "0xf", "2L"].map(|number| (Kind::Number, number)));
        check("a.b", &[(Kind::Word, "a"), (Kind::Sign, "."), (Kind::Word, "b")]);
    }

    #[test]
    fn a_backslash_takes_a_word_and_no_text() {
        check(r"\G\g1", &[(Kind::Backslash, r"\G"), (Kind::Backslash, r"\g1")]);
        check(r"\e'\';'", &[(Kind::Backslash, r"\"), (Kind::Text, r"e'\';'")]);
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
