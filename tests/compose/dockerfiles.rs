//! How images come about: what they are built on is pinned, what they are built from is there, and what the program is
//! linked with is installed.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use super::{Compose, read, root};
use crate::harness::TestResult;

const DOCKERFILE: &str = "engine/Dockerfile";

/// Libraries of other packages than the base image has, and the package of each.
const PACKAGES: [(&str, &str); 3] =
    [("libcrypto.so.3", "libssl3"), ("libssl.so.3", "libssl3"), ("libz.so.1", "zlib1g")];

/// Beginnings of the libraries that every Debian has.
const BASE: [&str; 8] =
    ["ld-linux", "libc.so", "libdl.so", "libgcc_s.so", "libm.so", "libpthread.so", "librt.so", "linux-vdso"];

/// Tells whether an image has an exact version or a date for a tag, and a digest beside it.
fn is_pinned(image: &str) -> bool {
    let Some((name, digest)) = image.split_once("@sha256:") else { return false };
    let is_digest = digest.len() == 64 && digest.chars().all(|char| char.is_ascii_hexdigit());
    let tag = name.rsplit_once(':').map(|(_, tag)| tag).unwrap_or_default();
    let is_exact = |part: &str| {
        let is_number = |text: &str| !text.is_empty() && text.chars().all(|char| char.is_ascii_digit());
        let n_numbers = part.split('.').count();
        part.split('.').all(is_number) && (n_numbers == 3 || part.len() == "20260101".len())
    };
    is_digest && tag.split('-').any(is_exact)
}

/// Returns the images that a Dockerfile begins from, but for its own stages.
fn bases(dockerfile: &str) -> Vec<&str> {
    let mut stages = Vec::new();
    let mut bases = Vec::new();
    for line in dockerfile.lines().filter_map(|line| line.strip_prefix("FROM ")) {
        let (image, stage) = line.split_once(" AS ").unwrap_or((line, ""));
        if !stages.contains(&image) {
            bases.push(image);
        }
        stages.push(stage);
    }
    bases
}

/// Returns the Dockerfiles that compose builds, each once, from the root.
fn dockerfiles(compose: &Compose) -> TestResult<Vec<String>> {
    let mut files = Vec::new();
    for (name, service) in compose.services()? {
        if service["build"].is_null() {
            continue;
        }
        let (context, file) = (compose.text(name, "/build/context")?, compose.text(name, "/build/dockerfile")?);
        files.push(format!("{context}/{file}"));
    }
    files.sort();
    files.dedup();
    Ok(files)
}

#[test]
fn images_are_pinned_by_an_exact_tag_and_a_digest() -> TestResult {
    let digest = format!("@sha256:{}", "0".repeat(64));
    for floating in ["debian", "debian:latest", "debian:bookworm-slim", "golang:1.26-bookworm", "kafka:4.3"] {
        assert!(!is_pinned(&format!("{floating}{digest}")), "{floating}");
    }
    for exact in ["apache/kafka:4.3.1", "debian:bookworm-20260918-slim", "golang:1.26.8-bookworm"] {
        assert!(is_pinned(&format!("{exact}{digest}")) && !is_pinned(exact), "{exact}");
    }

    let compose = Compose::open()?;
    let mut images = Vec::new();
    for (name, service) in compose.services()? {
        match service["image"].as_str() {
            Some(image) => images.push(image.to_owned()),
            None => assert!(service["build"].is_object(), "{name} has neither an image nor a Dockerfile"),
        }
    }
    for file in dockerfiles(&compose)? {
        images.extend(bases(&read(&file)?).into_iter().map(str::to_owned));
    }
    let floating: Vec<_> = images.iter().filter(|image| !is_pinned(image)).collect();
    assert!(floating.is_empty(), "not pinned: {floating:?}");
    // What is named twice is the same both times.
    let mut by_name: BTreeMap<&str, &str> = BTreeMap::new();
    for image in &images {
        let name = image.split(':').next().unwrap_or_default();
        assert_eq!(*by_name.entry(name).or_insert(image), image, "{name} has two pins");
    }
    let names: Vec<&str> = by_name.keys().copied().collect();
    assert_eq!(names, ["apache/kafka", "debian", "golang", "rust"]);
    Ok(())
}

#[test]
fn the_image_is_built_by_the_toolchain_and_holds_what_was_built() -> TestResult {
    let (dockerfile, toolchain) = (read(DOCKERFILE)?, read("rust-toolchain.toml")?);
    let channel = toolchain.lines().find_map(|line| line.strip_prefix("channel = ")).ok_or("no channel")?;
    let channel = channel.trim_matches('"');
    for line in [format!("FROM rust:{channel}-bookworm@"), format!("ENV RUSTUP_TOOLCHAIN={channel}")] {
        assert!(dockerfile.lines().any(|written| written.starts_with(&line)), "{DOCKERFILE} has not {line}");
    }
    let package = dockerfile.split("cargo build --release --locked --package ").nth(1).ok_or("nothing is built")?;
    let package = package.split_whitespace().next().unwrap_or_default();
    let manifest = read("engine/Cargo.toml")?;
    for part in ["[package]", "[[bin]]"] {
        let named = format!("{part}\nname = \"{package}\"\n");
        assert!(manifest.contains(&named), "engine/Cargo.toml has not {named}");
    }

    let copied = dockerfile.lines().find_map(|line| line.strip_prefix("COPY --from=build ")?.split_once(' '));
    let (from, to) = copied.ok_or("nothing is copied from the build")?;
    assert!(dockerfile.contains(&format!("cp target/release/{package} {from}")), "nothing is built as {from}");
    let program = to.rsplit('/').next().unwrap_or_default();
    assert!(dockerfile.contains(&format!("ENTRYPOINT [\"{program}\"]")), "{to} is not what is started");
    Ok(())
}

#[test]
fn the_build_gets_every_file_that_it_reads() -> TestResult {
    let patterns = read("engine/Dockerfile.dockerignore")?;
    let patterns: Vec<&str> = patterns.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    let is_left_out = |path: &str| {
        patterns.iter().any(|pattern| match pattern.strip_prefix("**/") {
            Some(name) => path.split('/').any(|part| match name.strip_prefix('*') {
                Some(end) => part.ends_with(end),
                None => part == name,
            }),
            None => path.strip_prefix(*pattern).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        })
    };
    assert!(is_left_out("target/debug/alluvium") && is_left_out("catalog/README.md"), "the rule itself sees nothing");

    let mut paths: Vec<_> =
        ["Cargo.toml", "Cargo.lock", ".cargo", "catalog", "sql", "engine"].map(str::to_owned).into();
    // What these crates are made of is not compiled, but their manifests and targets have to be there.
    paths.extend(["tests/Cargo.toml", "tests/main.rs", "tests/program.rs", "benches/Cargo.toml"].map(str::to_owned));
    let mut missing = Vec::new();
    while let Some(path) = paths.pop() {
        let place = root()?.join(&path);
        if place.is_dir() {
            for entry in fs::read_dir(&place)? {
                paths.push(format!("{path}/{}", entry?.file_name().to_string_lossy()));
            }
        } else if !place.is_file() || is_left_out(&path) {
            missing.push(path);
        }
    }
    assert!(missing.is_empty(), "not in the build's context: {missing:?}");
    Ok(())
}

#[test]
fn the_image_installs_what_the_program_is_linked_with() -> TestResult {
    // Elsewhere libraries have other names.
    if !cfg!(target_os = "linux") {
        return Ok(());
    }
    let dockerfile = read(DOCKERFILE)?;
    let installed: Vec<&str> = dockerfile.rsplit("FROM ").next().unwrap_or_default().split_whitespace().collect();
    let shown = Command::new("ldd").arg(env!("CARGO_BIN_EXE_alluvium-under-test")).output()?;
    let shown = String::from_utf8(shown.stdout)?;
    let mut n_packages = 0;
    for line in shown.lines().filter_map(|line| line.split_whitespace().next()) {
        let library = line.rsplit('/').next().unwrap_or_default();
        if BASE.iter().any(|base| library.starts_with(base)) {
            continue;
        }
        let package = PACKAGES.iter().find(|(name, _)| *name == library).map(|(_, package)| *package);
        let package =
            package.ok_or_else(|| format!("the program is linked with {library}: of which package is it?"))?;
        assert!(installed.contains(&package), "{DOCKERFILE} does not install {package}, which has {library}");
        n_packages += 1;
    }
    assert!(n_packages > 0, "ldd shows nothing:\n{shown}");
    Ok(())
}
