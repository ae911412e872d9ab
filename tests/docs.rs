//! Every command and every statement that README.md and the guide show in a block of its own: run, compiled, or named
//! here with the reason why not. A reason for what no page shows any more is an error.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use alluvium_sql::statement::Statement;
use alluvium_sql::{SourceText, parse_file};

use crate::harness::TestResult;
use crate::harness::lake::Lake;
use crate::harness::program::Program;
use crate::harness::shop::Shop;

/// Beginnings of commands and statements that are not run here, and why.
const NOT_RUN: [(&str, &str); 8] = [
    ("cargo run -- demo", "the gate runs it; tests/cli.rs runs the demo too"),
    ("cargo install --path engine --locked", "would build once more what is under test, for whoever runs the tests"),
    ("alluvium optimize silver.visits --full", "needs a clustered table; unit tests of upkeep have one"),
    ("OPTIMIZE silver.visits FULL", "needs a clustered table; unit tests of upkeep have one"),
    ("tests/run", "is the gate that runs this test"),
    ("docker compose", "needs a Docker engine; tests/compose/tour.rs runs what stands behind it"),
    ("SELECT * FROM silver.orders VERSION AS OF 41", "needs a table with 41 versions; tests/repl.rs asks for another"),
    ("SELECT * FROM silver.orders TIMESTAMP AS OF", "needs a table that is as old; unit tests of the session have one"),
];

/// A fenced block of a page.
#[derive(Debug)]
pub(crate) struct Block {
    page: String,
    /// The line that its text begins in, from 1.
    line: usize,
    pub(crate) language: String,
    pub(crate) text: String,
}

fn pages() -> TestResult<Vec<PathBuf>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("the crate lies nowhere")?.to_owned();
    let mut pages = vec![root.join("README.md")];
    for entry in fs::read_dir(root.join("docs/guide"))? {
        pages.push(entry?.path());
    }
    pages.retain(|page| page.extension().is_some_and(|extension| extension == "md"));
    pages.sort();
    Ok(pages)
}

fn blocks() -> TestResult<Vec<Block>> {
    let mut blocks = Vec::new();
    for path in pages()? {
        let page = path.file_name().ok_or("a page has no name")?.to_string_lossy();
        blocks.extend(fenced(&page, &fs::read_to_string(&path)?));
    }
    Ok(blocks)
}

/// Returns the fenced blocks of `text`, which is that of `page`.
pub(crate) fn fenced(page: &str, text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (index, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(language), None) => {
                let (page, language) = (page.to_owned(), language.to_owned());
                open = Some(Block { page, line: index + 2, language, text: String::new() });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{page} has a block without an end");
    blocks
}

/// Returns the commands of a block of shell: lines without comments, continued ones joined, prompts taken off.
pub(crate) fn commands(block: &Block) -> Vec<String> {
    let mut commands = Vec::new();
    let mut pending = String::new();
    for line in block.text.lines() {
        let line = line.split_once(" #").map_or(line, |(command, _)| command).trim();
        let line = line.strip_prefix("$ ").unwrap_or(line);
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        match line.strip_suffix('\\') {
            Some(begun) => pending.push_str(begun),
            None => commands.push(std::mem::take(&mut pending) + line),
        }
    }
    commands
}

/// Splits a command as a shell would: at blanks outside of quotes.
pub(crate) fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for char in command.chars() {
        match (quote, char) {
            (Some(open), close) if open == close => quote = None,
            (None, '"' | '\'') => {
                quote = Some(char);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            _ => word.get_or_insert_default().push(char),
        }
    }
    words.extend(word);
    words
}

/// A page's statements, each with its text.
fn statements(block: &Block) -> TestResult<Vec<(Statement, String)>> {
    // Places in errors are those of the page.
    let text = "\n".repeat(block.line - 1) + &block.text;
    let source = Arc::new(SourceText::new(&block.page, text));
    let parsed = parse_file(&source).map_err(|errors| errors.render(false))?;
    let text = |span: std::ops::Range<usize>| source.text().get(span).unwrap_or_default().to_owned();
    Ok(parsed.into_iter().map(|statement| (statement.value, text(statement.span))).collect())
}

fn is_definition(statement: &Statement) -> bool {
    matches!(
        statement,
        Statement::CreateConnection(_)
            | Statement::CreateSource(_)
            | Statement::CreateStreamingTable(_)
            | Statement::CreateFlow(_)
    )
}

fn not_run(text: &str) -> Option<&'static str> {
    NOT_RUN.iter().map(|(beginning, _)| *beginning).find(|beginning| text.starts_with(beginning))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_pages_ask_and_command_works() -> TestResult {
    let shop = Shop::open(Lake::on_disk()?, 1).await?;
    let mut run = Vec::new();
    let mut left_out = Vec::new();
    for block in blocks()? {
        let asked: Vec<(String, Vec<String>)> = match block.language.as_str() {
            "sh" | "console" => {
                commands(&block).into_iter().map(|command| (command.clone(), words(&command))).collect()
            }
            "sql" => {
                let queries = statements(&block)?.into_iter().filter(|(statement, _)| !is_definition(statement));
                let asking = |text: &str| ["alluvium", "sql", "-c", text].map(str::to_owned).to_vec();
                queries.map(|(_, text)| (text.clone(), asking(&text))).collect()
            }
            _ => continue,
        };
        for (text, words) in asked {
            if let Some(beginning) = not_run(&text) {
                left_out.push(beginning);
                continue;
            }
            let arguments: Vec<&str> = words.iter().map(String::as_str).collect();
            let place = format!("{}:{}", block.page, block.line);
            let ["alluvium", arguments @ ..] = arguments.as_slice() else {
                return Err(
                    format!("{place}: '{text}' is no command of the program: run it here, or say why not").into()
                );
            };
            shop.program.done(arguments).map_err(|error| format!("{place}: {text}\n{error}"))?;
            run.push(text);
        }
    }
    assert!(run.len() > 5, "only these commands were found: {run:?}");
    let stale: Vec<_> = NOT_RUN.iter().filter(|(beginning, _)| !left_out.contains(beginning)).collect();
    assert!(stale.is_empty(), "no page shows these any more: {stale:?}");
    Ok(())
}

#[test]
fn the_definitions_of_each_page_compile_together() -> TestResult {
    let mut by_page: BTreeMap<String, String> = BTreeMap::new();
    for block in blocks()?.iter().filter(|block| block.language == "sql") {
        for (_, text) in statements(block)?.iter().filter(|(statement, _)| is_definition(statement)) {
            let page = by_page.entry(block.page.clone()).or_default();
            page.push_str(text);
            page.push_str(";\n\n");
        }
    }
    assert_eq!(by_page.keys().map(String::as_str).collect::<Vec<_>>(), ["README.md", "sql.md"]);
    let lake = Lake::on_disk()?;
    let program = Program::on(&lake);
    for (page, text) in by_page {
        let file = program.write(&format!("{page}.sql"), &text)?;
        let shown = program.done(&["check", &file]).map_err(|error| format!("{page}: {error}"))?;
        assert!(shown.contains("no errors"), "{shown}");
    }
    Ok(())
}

#[test]
fn commands_are_cut_as_a_shell_cuts_them() {
    let text = "# a comment\n$ alluvium sql -c \"SELECT 'a  b'\"  # said\n\nalluvium \\\n  check x.sql\n".to_owned();
    let block = Block { page: String::new(), line: 1, language: "sh".to_owned(), text };
    let found: Vec<_> = commands(&block).iter().map(|command| words(command)).collect();
    assert_eq!(found, [vec!["alluvium", "sql", "-c", "SELECT 'a  b'"], vec!["alluvium", "check", "x.sql"]]);
}
