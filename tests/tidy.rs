//! The architecture as a test: who may depend on what, who may name what, and how files look.
//!
//! A rule is one function that returns what breaks it. All rules report at once, and none has exceptions that are not
//! written here. The whole is about text, on purpose: a reviewer can check it by eye.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::TestResult;

/// The longest a file may be before its tests.
const LINES_MAX: usize = 400;

/// What a crate of the workspace may depend on among its siblings, dev-dependencies included.
const SIBLINGS: [(&str, &[&str]); 5] = [
    ("catalog", &[]),
    ("sql", &["alluvium-catalog"]),
    ("engine", &["alluvium-catalog", "alluvium-sql"]),
    ("tests", &["alluvium", "alluvium-catalog", "alluvium-sql"]),
    ("benches", &["alluvium", "alluvium-catalog", "alluvium-sql"]),
];

/// Words, and the only places (as beginnings of paths) outside of tests that may name them.
const NAMED_ONLY_IN: [(&[&str], &[&str]); 6] = [
    (&["rdkafka"], &["engine/src/source/kafka"]),
    (
        &["deltalake"],
        &["sql/src/tables", "engine/src/write", "engine/src/commit", "engine/src/delta", "engine/src/upkeep"],
    ),
    (&["AmazonS3Builder", "LocalFileSystem::new", "InMemory::new"], &["catalog/src/location"]),
    (&["SystemTime::now", "Utc::now", "Uuid::new_v4", "Uuid::now_v7"], &["catalog/src/clock.rs"]),
    (&["sqlx"], &["catalog/src/store"]),
    (&["clap"], &["engine/src/cli", "engine/src/demo"]),
];

/// What stands nowhere at all.
const NOWHERE: [&str; 9] = [
    concat!("print", "ln!("),
    concat!("eprint", "ln!("),
    concat!("print", "!("),
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("#[ig", "nore"),
    concat!("unimpl", "emented!"),
    concat!("to", "do!("),
    concat!("db", "g!("),
];

/// The stages of the engine; none names another, only `pipeline` knows their order.
const STAGES: [&str; 6] = ["source", "decode", "transform", "write", "commit", "record"];

/// What a stage hands on may be named by the next: the values, not the doers.
const HANDED_ON: [(&str, &[&str]); 2] = [
    // Writers draw up actions against the table's state, and follow its log: the words of the Delta log are common.
    (
        "write",
        &[
            "crate::delta::action",
            "crate::delta::log::LogEntry",
            "crate::delta::state",
            "crate::commit::create::ENGINE_INFO",
        ],
    ),
    // The committer asks the writer for a draft through the seam of write.rs.
    // It swaps compacted files in as they are drawn up there, too.
    (
        "commit",
        &[
            "crate::write::{Draft, Staged, Writer}",
            "crate::write::Excess",
            "crate::write::compaction",
            "crate::write::parquet::DataFolder",
            "crate::write::vectors::VectorFolder",
            "crate::source::TablePositions",
        ],
    ),
];

/// A file of Rust.
struct Source {
    /// From the workspace's root, with slashes.
    path: String,
    text: String,
}

impl Source {
    /// Returns the lines before the tests of the file, with their numbers from 1; none where all of it is tests.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let all_tests = self.is_tests();
        self.text
            .lines()
            .take_while(move |line| !all_tests && !line.starts_with("#[cfg(test)]"))
            .enumerate()
            .map(|(index, line)| (index + 1, line))
    }

    /// Returns the lines of code before the tests.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines().filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    fn is_tests(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        matches!(name, "tests.rs" | "fixture.rs" | "suite.rs" | "samples.rs")
            || self.path.contains("/suite/")
            || self.path.starts_with("tests/")
            || self.path.starts_with("benches/")
    }
}

fn root() -> TestResult<PathBuf> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(tests.parent().ok_or("the crate lies nowhere")?.to_owned())
}

fn sources(root: &Path) -> TestResult<Vec<Source>> {
    let mut sources = Vec::new();
    let mut folders: Vec<PathBuf> = SIBLINGS.iter().map(|(folder, _)| root.join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let relative = path.strip_prefix(root)?.to_str().ok_or("a path is not UTF-8")?.replace('\\', "/");
                sources.push(Source { path: relative, text: fs::read_to_string(&path)? });
            }
        }
    }
    sources.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(sources)
}

fn report(rule: &str, broken: &[String]) -> TestResult {
    if broken.is_empty() {
        return Ok(());
    }
    Err(format!("{rule}: {} places\n  {}", broken.len(), broken.join("\n  ")).into())
}

/// Tells whether `word` stands in `line` as a word of its own.
fn names(line: &str, word: &str) -> bool {
    let is_part = |char: char| char.is_alphanumeric() || char == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

#[test]
fn crates_depend_in_one_direction() -> TestResult {
    let root = root()?;
    let mut broken = Vec::new();
    for (folder, allowed) in SIBLINGS {
        let manifest = fs::read_to_string(root.join(folder).join("Cargo.toml"))?;
        let named = manifest.lines().filter_map(|line| line.split(['.', '=', ' ']).next());
        let siblings = named.filter(|name| *name == "alluvium" || name.starts_with("alluvium-"));
        broken.extend(
            siblings.filter(|name| !allowed.contains(name)).map(|name| format!("{folder}/Cargo.toml names {name}")),
        );
    }
    let catalog = fs::read_to_string(root.join("catalog/Cargo.toml"))?;
    for word in ["datafusion", "deltalake", "rdkafka", "parquet"] {
        if catalog.lines().any(|line| line.starts_with(word)) {
            broken.push(format!("catalog/Cargo.toml names {word}"));
        }
    }
    let sql = fs::read_to_string(root.join("sql/Cargo.toml"))?;
    if sql.lines().any(|line| line.starts_with("rdkafka")) {
        broken.push("sql/Cargo.toml names rdkafka".to_owned());
    }
    report("crates depend in one direction", &broken)
}

#[test]
fn outside_things_are_named_in_their_places_only() -> TestResult {
    let mut broken = Vec::new();
    for source in sources(&root()?)? {
        for (words, places) in NAMED_ONLY_IN {
            if places.iter().any(|place| source.path.starts_with(place)) {
                continue;
            }
            for (number, line) in source.code() {
                broken.extend(
                    words
                        .iter()
                        .filter(|word| names(line, word))
                        .map(|word| format!("{}:{number} names {word}", source.path)),
                );
            }
        }
    }
    report("outside things are named in their places only", &broken)
}

#[test]
fn what_stands_nowhere_stands_nowhere() -> TestResult {
    let mut broken = Vec::new();
    for source in sources(&root()?)? {
        for (number, line) in source.text.lines().enumerate() {
            let found = NOWHERE.iter().filter(|text| line.contains(**text));
            broken.extend(found.map(|text| format!("{}:{} has {text}", source.path, number + 1)));
        }
    }
    report("prints, postponed work and ignored tests stand nowhere", &broken)
}

#[test]
fn files_open_with_what_they_are_for_and_stay_short() -> TestResult {
    let mut broken = Vec::new();
    for source in sources(&root()?)? {
        if !source.text.starts_with("//!") {
            broken.push(format!("{} does not open with //!", source.path));
        }
        let n_lines = if source.path.starts_with("tests/") {
            source.text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count()
        } else {
            source.lines().count()
        };
        if n_lines > LINES_MAX {
            broken.push(format!("{} has {n_lines} lines before its tests, {LINES_MAX} are allowed", source.path));
        }
        if source.path.ends_with("/mod.rs") {
            broken.push(format!("{} is a mod.rs", source.path));
        }
    }
    report("files open with //! and stay short", &broken)
}

#[test]
fn stages_do_not_name_each_other() -> TestResult {
    let mut broken = Vec::new();
    for source in sources(&root()?)? {
        let Some(inside) = source.path.strip_prefix("engine/src/") else { continue };
        let stage = inside.split(['/', '.']).next().unwrap_or_default();
        if !STAGES.contains(&stage) {
            continue;
        }
        let allowed = HANDED_ON.iter().filter(|(name, _)| *name == stage).flat_map(|(_, handed)| *handed);
        let allowed: Vec<&str> = allowed.copied().collect();
        for (number, line) in source.code() {
            let others = STAGES.iter().filter(|other| **other != stage && names(line, &format!("crate::{other}")));
            for other in others.filter(|_| !allowed.iter().any(|handed| line.contains(handed))) {
                broken.push(format!("{}:{number} names {other}: {}", source.path, line.trim()));
            }
        }
    }
    report("stages do not name each other", &broken)
}

#[test]
fn versions_that_stand_twice_agree() -> TestResult {
    let root = root()?;
    let read = |path: &str| fs::read_to_string(root.join(path));
    let versions: BTreeMap<String, String> = read("tests/services.d/versions")?
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let version = |name: &str| versions.get(name).cloned().ok_or_else(|| format!("{name} is not in versions"));
    let (kafka, minio, duckdb) = (version("KAFKA_VERSION")?, version("MINIO_VERSION")?, version("DUCKDB_VERSION")?);
    let mut broken = Vec::new();
    let compose = read("docker-compose.yml")?;
    for line in compose.lines().filter(|line| line.contains("image: apache/kafka:")) {
        if !line.contains(&format!("apache/kafka:{kafka}@")) {
            broken.push(format!("docker-compose.yml has {}, versions {kafka}", line.trim()));
        }
    }
    if !read("tests/services.d/minio.Dockerfile")?.contains(&format!("ARG MINIO_VERSION={minio}")) {
        broken.push(format!("minio.Dockerfile has not MINIO_VERSION={minio}"));
    }
    let pinned = [
        ("duckdb.txt", "duckdb", duckdb),
        ("readers.txt", "deltalake", version("DELTALAKE_VERSION")?),
        ("readers.txt", "polars", version("POLARS_VERSION")?),
        ("spark.txt", "pyspark", version("SPARK_VERSION")?),
    ];
    for (file, package, version) in pinned {
        if !read(&format!("tests/readers/{file}"))?.lines().any(|line| line == format!("{package}=={version}")) {
            broken.push(format!("tests/readers/{file} has not {package}=={version}"));
        }
    }
    let toolchain = read("rust-toolchain.toml")?;
    let manifest = read("Cargo.toml")?;
    let rust = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).ok_or("no rust-version")?;
    if !toolchain.contains(rust.trim_matches('"')) {
        broken.push(format!("rust-toolchain.toml is not of rust-version {rust}"));
    }
    report("versions that stand twice agree", &broken)
}

/// Reads every text file of the repository: its path from the root, with slashes, and its text.
fn texts(root: &Path) -> TestResult<Vec<(String, String)>> {
    /// What is nobody's work: the history, and what builds leave behind.
    const PASSED_OVER: [&str; 3] = [".git", "target", "__pycache__"];
    let mut texts = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if PASSED_OVER.contains(&name.as_str()) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = String::from_utf8(fs::read(&path)?) {
                let relative = path.strip_prefix(root)?.to_str().ok_or("a path is not UTF-8")?.replace('\\', "/");
                texts.push((relative, text));
            }
        }
    }
    texts.sort();
    Ok(texts)
}

/// Returns the folder of somebody's machine that a line names.
fn local_path(line: &str) -> Option<&'static str> {
    [concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/wo", "rk/"), concat!("/Us", "ers/")]
        .into_iter()
        .find(|path| line.contains(path))
}

/// Returns what in a line looks like a secret: a private key, or the beginning of a token with enough behind it.
fn secret(line: &str) -> Option<&'static str> {
    const KEY: &str = concat!("PRIVATE ", "KEY-----");
    const TOKENS: [(&str, usize); 7] = [
        (concat!("AK", "IA"), 16),
        (concat!("AS", "IA"), 16),
        (concat!("gh", "p_"), 30),
        (concat!("github_", "pat_"), 30),
        (concat!("gl", "pat-"), 16),
        (concat!("xo", "xb-"), 16),
        (concat!("sk_", "live_"), 16),
    ];
    if line.contains(KEY) {
        return Some(KEY);
    }
    let follows =
        |at: usize| line[at..].chars().take_while(|char| char.is_ascii_alphanumeric() || *char == '_').count();
    let is_token = |(prefix, n_chars): &(&'static str, usize)| {
        line.match_indices(prefix).any(|(at, _)| follows(at + prefix.len()) >= *n_chars)
    };
    TOKENS.iter().find(|token| is_token(token)).map(|(prefix, _)| *prefix)
}

#[test]
fn secrets_and_local_paths_stand_in_no_file() -> TestResult {
    let token = format!("{}{}", concat!("AK", "IA"), "0123456789ABCDEF");
    let samples = [format!("key = \"{token}\""), format!("-----BEGIN RSA {}", concat!("PRIVATE ", "KEY-----"))];
    assert!(samples.iter().all(|line| secret(line).is_some()), "the rule itself sees nothing");
    let texts = texts(&root()?)?;
    for kind in [".md", ".sql", ".toml", ".rs", ".yml", ".sh", ".py", "tests/run"] {
        assert!(texts.iter().any(|(path, _)| path.ends_with(kind)), "no file {kind} was read");
    }
    let mut broken = Vec::new();
    for (path, text) in &texts {
        for (number, line) in text.lines().enumerate() {
            let found = local_path(line).into_iter().chain(secret(line));
            broken.extend(found.map(|what| format!("{path}:{} has {what}", number + 1)));
        }
    }
    report("no file names a path of somebody's machine or holds a secret", &broken)
}
