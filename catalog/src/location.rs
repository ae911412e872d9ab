//! Where data is: a folder of a bucket, of the local disk or of memory, and the stores that reach it.
//!
//! A [`Location`] is parsed once and is canonical from then on: equal folders are equal values. It never holds a
//! credential. This module is the only one that builds object stores ([`Stores`]); everything else is handed one.

mod durable;
mod settings;
mod stores;

use std::fmt;
use std::path::{Component, Path as FilePath, PathBuf};
use std::str::FromStr;

use object_store::path::Path;
use serde::{Deserialize, Serialize};
use url::Url;

pub use settings::StorageSettings;
pub use stores::{Stores, storage_error};

use crate::{Error, Result};

/// The longest location that is accepted, in bytes: the length at which S3 refuses a key.
const LOCATION_BYTES_MAX: usize = 1024;

/// A folder that can hold tables or files.
///
/// | text | location |
/// |---|---|
/// | `s3://lake/silver/`, `s3a://lake/silver` | `s3://lake/silver` |
/// | `file:///data/lake`, `/data/./lake/` | `/data/lake` |
/// | `lake/../tables` | `tables` in the current directory |
/// | `memory:///demo`, `memory://demo` | `memory:///demo` |
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Location {
    scheme: Scheme,
    /// Empty unless the scheme is S3.
    bucket: String,
    /// From the bucket, from the root of the disk, or from the root of the memory.
    path: Path,
}

impl Location {
    /// Returns what kind of store holds the folder.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Returns the bucket, if the folder is in one.
    pub fn bucket(&self) -> Option<&str> {
        (self.scheme == Scheme::S3).then_some(self.bucket.as_str())
    }

    /// Returns the path of the folder in the store that [`Stores::root`] returns.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of the folder on the local disk, if it is there. The folder need not exist.
    pub fn local_path(&self) -> Option<PathBuf> {
        (self.scheme == Scheme::File).then(|| PathBuf::from(format!("/{}", self.path)))
    }

    /// Returns the folder `child`, such as `a/b`, of this one.
    ///
    /// # Errors
    /// `Invalid` when `child` is empty, absolute, has a `.` or `..` in it, or a character that no location may have.
    pub fn join(&self, child: &str) -> Result<Self> {
        let refuse = |why: &str| Err(Error::invalid(format!("cannot join '{child}' to {self}: {why}")));
        if child.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return refuse("it is not a relative path of plain segments");
        }
        let joined = if self.path.is_root() { child.to_owned() } else { format!("{}/{child}", self.path) };
        match checked_path(&joined) {
            Ok(path) => Ok(Self { path, ..self.clone() }),
            Err(why) => refuse(&why),
        }
    }

    /// Tells whether `other` is this folder or one inside it.
    pub fn contains(&self, other: &Self) -> bool {
        self.scheme == other.scheme && self.bucket == other.bucket && other.path.prefix_matches(&self.path)
    }

    /// Returns the URL of the folder, with a slash at its end, so that joining a relative URL stays inside.
    ///
    /// # Errors
    /// `Internal` when the location cannot be a URL, which no parsed one should be.
    pub fn url(&self) -> Result<Url> {
        let base = format!("{}://{}/", self.scheme, self.bucket);
        let refused = || Error::internal(format!("location {self} has no URL"));
        let mut url = Url::parse(&base).map_err(|source| refused().with_source(source))?;
        url.path_segments_mut().map_err(|()| refused())?.pop_if_empty().extend(self.path.parts()).push("");
        Ok(url)
    }
}

impl FromStr for Location {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = match text.split_once("://") {
            Some((scheme, rest)) => match scheme.to_ascii_lowercase().as_str() {
                "s3" | "s3a" => in_bucket(rest),
                "file" => on_disk_by_url(rest),
                "memory" => in_memory(rest),
                _ => Err("its scheme is none of s3, s3a, file and memory".to_owned()),
            },
            None => match text.split('/').next().and_then(|start| start.split_once(':')) {
                Some(("file", "")) => on_disk(&text["file:".len()..]),
                Some(_) => Err("a scheme is followed by ://".to_owned()),
                None => on_disk(text),
            },
        };
        parsed.map_err(|why| {
            // A text with an '@' may hold a password, so it is not repeated.
            let subject = if text.contains('@') { "the text".to_owned() } else { format!("{text:?}") };
            Error::invalid(format!("{subject} is not a location: {why}"))
                .with_hint("write s3://bucket/folder, file:///folder, /folder, folder or memory:///folder")
        })
    }
}

impl TryFrom<String> for Location {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Location> for String {
    fn from(location: Location) -> Self {
        location.to_string()
    }
}

impl fmt::Display for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scheme {
            Scheme::S3 if self.path.is_root() => write!(formatter, "s3://{}", self.bucket),
            Scheme::S3 => write!(formatter, "s3://{}/{}", self.bucket, self.path),
            Scheme::File => write!(formatter, "/{}", self.path),
            Scheme::Memory => write!(formatter, "memory:///{}", self.path),
        }
    }
}

/// What kind of store holds a [`Location`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// The local disk.
    File,
    /// The memory of this process: for tests, gone when the process ends.
    Memory,
    /// S3, or what speaks like it.
    S3,
}

impl fmt::Display for Scheme {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::File => "file",
            Self::Memory => "memory",
            Self::S3 => "s3",
        })
    }
}

type Parsed<T> = std::result::Result<T, String>;

fn in_bucket(rest: &str) -> Parsed<Location> {
    let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.contains('@') {
        return Err("a location holds no credentials; they are settings or environment variables".to_owned());
    }
    if bucket.contains(':') {
        return Err("a location holds no endpoint; that is a setting".to_owned());
    }
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(legal) || bucket.contains("..") {
        return Err(format!("'{bucket}' cannot be the name of a bucket"));
    }
    let path = path.strip_suffix('/').unwrap_or(path);
    // To S3 `a//b` is another folder than `a/b`; to most of its readers it is the same.
    if rest.ends_with("//") || (!path.is_empty() && path.split('/').any(str::is_empty)) {
        return Err("it has an empty segment".to_owned());
    }
    Ok(Location { scheme: Scheme::S3, bucket: bucket.to_owned(), path: checked_path(path)? })
}

fn in_memory(rest: &str) -> Parsed<Location> {
    let path = rest.split('/').filter(|segment| !segment.is_empty()).collect::<Vec<_>>().join("/");
    Ok(Location { scheme: Scheme::Memory, bucket: String::new(), path: checked_path(&path)? })
}

fn on_disk_by_url(rest: &str) -> Parsed<Location> {
    let path = rest.strip_prefix("localhost").unwrap_or(rest);
    if !path.starts_with('/') {
        return Err("a file URL has three slashes before its path".to_owned());
    }
    on_disk(path)
}

fn on_disk(text: &str) -> Parsed<Location> {
    if text.is_empty() || text != text.trim() {
        return Err("it is empty or has blanks around it".to_owned());
    }
    if text == "~" || text.starts_with("~/") {
        return Err("'~' means something to a shell only".to_owned());
    }
    let absolute = std::path::absolute(text).map_err(|error| format!("the current directory is unknown: {error}"))?;
    let path = without_dots(&absolute)?;
    Ok(Location { scheme: Scheme::File, bucket: String::new(), path: checked_path(&path)? })
}

/// Takes `.` and `..` out of an absolute path by its text alone: the folders need not exist.
fn without_dots(absolute: &FilePath) -> Parsed<String> {
    let mut segments = Vec::new();
    for component in absolute.components() {
        match component {
            Component::Normal(segment) => segments.push(segment.to_str().ok_or("it is not UTF-8")?),
            Component::ParentDir => {
                segments.pop().ok_or("its '..' lead out of the root")?;
            }
            Component::RootDir | Component::CurDir => {}
            Component::Prefix(_) => return Err("it has a drive letter".to_owned()),
        }
    }
    Ok(segments.join("/"))
}

/// Refuses what stores, URLs and other engines' readers would each take differently.
fn checked_path(path: &str) -> Parsed<Path> {
    let is_ambiguous = |char: char| char.is_control() || matches!(char, '?' | '#' | '%' | '\\' | '*');
    if let Some(char) = path.chars().find(|&char| is_ambiguous(char)) {
        return Err(format!("{char:?} is not allowed in a location"));
    }
    if path.len() > LOCATION_BYTES_MAX {
        return Err(format!("it has more than {LOCATION_BYTES_MAX} bytes"));
    }
    if path.split('/').any(|segment| segment.trim() != segment) {
        return Err("a segment has blanks around it".to_owned());
    }
    Path::parse(path).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
