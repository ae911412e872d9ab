//! Completes what is being typed: keywords, relations, columns of the relations in the statement, commands.
//!
//! It works on a snapshot of the names, taken before each line is edited, so that a key never waits for the catalog.

use std::collections::{BTreeMap, BTreeSet};

use reedline::{Completer, CompletionResult, Span, Suggestion};

use super::command::Command;
use super::highlight::{KEYWORDS, is_keyword};
use super::lex::{Kind, Lexeme, Lexer};
use super::script::{Piece, Script};

/// The most suggestions shown: more is not a menu.
const SUGGESTIONS_MAX: usize = 200;

/// Everything that can be named.
#[derive(Debug, Clone, Default)]
pub(super) struct Vocabulary {
    /// Tables, other datasets and sources by the name they are queried by, with their columns as far as known.
    pub(super) relations: BTreeMap<String, Vec<String>>,
    /// Functions.
    pub(super) functions: BTreeSet<String>,
}

/// What a suggestion is, shown beside it.
type Described = (String, &'static str);

impl Vocabulary {
    /// Returns what may stand at the byte `at` of `text`, and the byte that it would begin at.
    fn suggest(&self, text: &str, at: usize) -> (usize, Vec<Described>) {
        let before = text.get(..at).unwrap_or(text);
        match piece_at(before) {
            Some(Piece::Command { text: command, start }) => self.suggest_for_command(command, start, before.len()),
            Some(Piece::Rest { start, .. }) => self.suggest_in_statement(text, start, before),
            _ => (at, self.words("", Context::Start, &Relations::default())),
        }
    }

    fn suggest_for_command(&self, command: &str, start: usize, end: usize) -> (usize, Vec<Described>) {
        match command.rsplit_once(char::is_whitespace) {
            None => {
                let words = Command::words().map(|(word, does)| (format!("\\{word}"), does));
                (start, words.filter(|(word, _)| word.starts_with(command)).collect())
            }
            Some((_, typed)) => {
                let from = end - typed.len();
                (from, self.relations_like(typed))
            }
        }
    }

    fn suggest_in_statement(&self, text: &str, start: usize, before: &str) -> (usize, Vec<Described>) {
        let lexemes: Vec<_> = Lexer::from(before, start).collect();
        let is_inside = |lexeme: &Lexeme<'_>| lexeme.kind == Kind::Comment || lexeme.kind == Kind::Text;
        if lexemes.last().is_some_and(|last| is_inside(last) && (!last.is_closed || last.text.starts_with("--"))) {
            return (before.len(), vec![]);
        }
        let from = name_start(&lexemes, before.len());
        let typed = &before[from..];
        let earlier: Vec<_> = lexemes.iter().filter(|lexeme| lexeme.end() <= from && !lexeme.is_blank()).collect();
        let end =
            Lexer::from(text, start).find(|lexeme| lexeme.kind == Kind::Semicolon).map_or(text.len(), |l| l.start);
        let relations = Relations::of(&text[start..end], self);
        (from, self.words(typed, Context::after(&earlier), &relations))
    }

    fn words(&self, typed: &str, context: Context, relations: &Relations<'_>) -> Vec<Described> {
        if context == Context::Relation {
            return self.relations_like(typed);
        }
        if let Some((qualifier, prefix)) = typed.rsplit_once('.') {
            let columns = relations.columns_of(qualifier).iter().filter(|column| is_like(column, prefix));
            let mut words: Vec<_> = columns.map(|column| (format!("{qualifier}.{column}"), "column")).collect();
            words.extend(self.relations_like(typed));
            return words;
        }
        let mut words: Vec<Described> = Vec::new();
        if context != Context::Start {
            let columns: BTreeSet<_> = relations.columns().filter(|column| is_like(column, typed)).collect();
            words.extend(columns.into_iter().map(|column| (column.clone(), "column")));
        }
        let is_lower = typed.chars().any(char::is_lowercase);
        let keywords = KEYWORDS.iter().filter(|keyword| is_like(keyword, typed));
        words.extend(
            keywords.map(|keyword| {
                (if is_lower { keyword.to_ascii_lowercase() } else { (*keyword).to_owned() }, "keyword")
            }),
        );
        // Without a letter typed, hundreds of functions would bury the rest.
        if !typed.is_empty() && context != Context::Start {
            let functions = self.functions.iter().filter(|function| is_like(function, typed));
            words.extend(functions.map(|function| (function.clone(), "function")));
            words.extend(self.relations_like(typed));
        }
        words
    }

    fn relations_like(&self, typed: &str) -> Vec<Described> {
        let names = self.relations.keys().filter(|name| {
            let unqualified = name.rsplit_once('.').map_or(name.as_str(), |(_, table)| table);
            is_like(name, typed) || (!typed.is_empty() && is_like(unqualified, typed))
        });
        names.map(|name| (name.clone(), "table")).collect()
    }
}

/// Where in a statement a word is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Context {
    /// A statement begins.
    Start,
    /// A relation's name must follow.
    Relation,
    /// Anything else.
    Other,
}

impl Context {
    fn after(earlier: &[&Lexeme<'_>]) -> Self {
        let Some(last) = earlier.last() else { return Self::Start };
        let introduces = |lexeme: &Lexeme<'_>| {
            ["from", "join", "into", "describe", "table", "history"].iter().any(|word| lexeme.is_word(word))
        };
        let is_stream = last.text == "(" && earlier.iter().rev().nth(1).is_some_and(|before| before.is_word("stream"));
        if introduces(last) || is_stream { Self::Relation } else { Self::Other }
    }
}

/// The relations that a statement names, by name and alias.
#[derive(Debug, Default)]
struct Relations<'a> {
    columns: BTreeMap<String, &'a [String]>,
}

impl<'a> Relations<'a> {
    fn of(statement: &str, vocabulary: &'a Vocabulary) -> Self {
        let lexemes: Vec<_> = Lexer::new(statement).filter(|lexeme| !lexeme.is_blank()).collect();
        let mut columns = BTreeMap::new();
        let mut i = 0;
        while i < lexemes.len() {
            let (name, next) = dotted_name(&lexemes, i);
            let short = name.rsplit_once('.').map_or(name.as_str(), |(_, table)| table).to_owned();
            if let Some(known) = vocabulary.relations.get(&name) {
                columns.insert(alias(&lexemes, next).unwrap_or(short), known.as_slice());
                columns.insert(name, known.as_slice());
            }
            i = next.max(i + 1);
        }
        Self { columns }
    }

    fn columns_of(&self, qualifier: &str) -> &'a [String] {
        self.columns.get(qualifier).copied().unwrap_or_default()
    }

    fn columns(&self) -> impl Iterator<Item = &'a String> {
        self.columns.values().flat_map(|columns| columns.iter())
    }
}

/// Returns the name of words and dots at `from` and the place after it.
fn dotted_name(lexemes: &[Lexeme<'_>], from: usize) -> (String, usize) {
    let mut name = String::new();
    let mut next = from;
    while let Some(lexeme) = lexemes.get(next).filter(|lexeme| matches!(lexeme.kind, Kind::Word | Kind::Quoted)) {
        name.push_str(lexeme.text.trim_matches(['"', '`']));
        next += 1;
        if lexemes.get(next).is_none_or(|dot| dot.text != ".") {
            break;
        }
        name.push('.');
        next += 1;
    }
    (name, next)
}

/// Returns the alias that stands at `from`, behind `)` of `STREAM(..)` and `AS` if those are there.
fn alias(lexemes: &[Lexeme<'_>], from: usize) -> Option<String> {
    let mut rest = lexemes.get(from..)?.iter().skip_while(|lexeme| lexeme.text == ")" || lexeme.is_word("as"));
    let word = rest.next().filter(|lexeme| lexeme.kind == Kind::Word && !is_keyword(lexeme.text))?;
    Some(word.text.to_owned())
}

/// Returns where the dotted name begins that ends at `end`.
fn name_start(lexemes: &[Lexeme<'_>], end: usize) -> usize {
    let is_of_name = |lexeme: &&Lexeme<'_>| matches!(lexeme.kind, Kind::Word | Kind::Quoted) || lexeme.text == ".";
    lexemes.iter().rev().take_while(is_of_name).last().map_or(end, |lexeme| lexeme.start)
}

/// Returns the piece that the end of `before` is in.
fn piece_at(before: &str) -> Option<Piece<'_>> {
    let last = Script::new(before).last()?;
    match last {
        // A finished line is behind a command: what follows it is new.
        Piece::Command { text, start } if before[start + text.len()..].contains('\n') => None,
        Piece::Command { start, .. } => Some(Piece::Command { text: &before[start..], start }),
        _ => Some(last),
    }
}

fn is_like(name: &str, typed: &str) -> bool {
    name.get(..typed.len()).is_some_and(|prefix| prefix.eq_ignore_ascii_case(typed))
}

/// Completes from a [`Vocabulary`].
#[derive(Debug)]
pub(super) struct NameCompleter {
    vocabulary: Vocabulary,
}

impl NameCompleter {
    /// Returns a completer of the names of `vocabulary`.
    pub(super) fn new(vocabulary: Vocabulary) -> Self {
        Self { vocabulary }
    }
}

impl Completer for NameCompleter {
    fn complete(&mut self, line: &str, position: usize) -> CompletionResult {
        let (start, words) = self.vocabulary.suggest(line, position);
        let suggestions = words.into_iter().take(SUGGESTIONS_MAX).map(|(value, description)| Suggestion {
            value,
            description: Some(description.to_owned()),
            span: Span { start, end: position },
            append_whitespace: description != "function" && description != "column",
            ..Suggestion::default()
        });
        CompletionResult::fresh(suggestions.collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocabulary() -> Vocabulary {
        let columns = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Vocabulary {
            relations: BTreeMap::from([
                ("silver.orders".to_owned(), columns(&["order_id", "amount"])),
                ("silver.customers".to_owned(), columns(&["customer_id"])),
                ("orders_raw".to_owned(), columns(&["kafka_offset"])),
            ]),
            functions: BTreeSet::from(["abs".to_owned(), "array_length".to_owned()]),
        }
    }

    /// Completes at the `|` of `text`.
    fn check(text: &str, expected: &[&str]) {
        let at = text.find('|').unwrap_or(text.len());
        let (start, words) = vocabulary().suggest(&text.replacen('|', "", 1), at);
        let words: Vec<_> = words.into_iter().map(|(word, _)| word).take(6).collect();
        assert_eq!(words, expected, "{text} from {start}");
    }

    #[test]
    fn relations_follow_from() {
        check("SELECT * FROM |", &["orders_raw", "silver.customers", "silver.orders"]);
        check("SELECT * FROM silver.o|", &["silver.orders"]);
        check("SELECT * FROM ord|", &["orders_raw", "silver.orders"]);
        check("SELECT * FROM STREAM(o|", &["orders_raw", "silver.orders"]);
    }

    #[test]
    fn columns_come_from_the_relations_of_the_statement() {
        check("SELECT a| FROM silver.orders", &["amount", "all", "analyze", "and", "anti", "apply"]);
        check("SELECT o.| FROM silver.orders o", &["o.order_id", "o.amount"]);
        check("SELECT s.k| FROM STREAM(orders_raw) AS s", &["s.kafka_offset"]);
        check("SELECT orders.or| FROM silver.orders JOIN silver.customers c", &["orders.order_id"]);
        check(
            "SELECT 1; SELECT * FROM silver.customers WHERE c|",
            &["customer_id", "case", "cast", "cdc", "cluster", "columns"],
        );
    }

    #[test]
    fn keywords_keep_the_case_that_is_typed() {
        check("sel|", &["select"]);
        check("SEL|", &["SELECT"]);
        check("SELECT 1; Sel|", &["select"]);
    }

    #[test]
    fn commands_and_their_tables_are_completed() {
        check("\\comm|", &["\\commits"]);
        check("\\d silver.|", &["silver.customers", "silver.orders"]);
    }

    #[test]
    fn nothing_is_proposed_inside_texts_and_comments() {
        check("SELECT 'sel|", &[]);
        check("SELECT 1 -- sel|", &[]);
        check("SELECT /* sel|", &[]);
    }
}
