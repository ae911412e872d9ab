//! By which columns a table is clustered, and which files are: as the log says it, Delta's liquid clustering.
//!
//! The columns stand in the domain metadata `delta.clustering`. A file that clustering wrote names who did it, and ours
//! its columns and the *run* it belongs to: files that one compaction wrote, or that took their place one by one, whose
//! bounds in a single clustering column are disjoint. Source: Delta transaction log protocol, section "Clustered Table".

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::action::{Add, DomainMetadata};
use super::state::TableState;

/// The writer features of a clustered table.
pub const FEATURES: [&str; 2] = ["clustering", "domainMetadata"];

/// The domain that holds the columns.
const DOMAIN: &str = "delta.clustering";

/// How files name this program's clustering.
const PROVIDER: &str = "alluvium";

/// The tag that names the columns a file was clustered by, as JSON.
const BY_TAG: &str = "alluvium.clusteredBy";

/// The tag that names the run a file belongs to.
const RUN_TAG: &str = "alluvium.clusterRun";

/// What the domain holds: paths of names, as a column may lie within others.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Columns {
    clustering_columns: Vec<Vec<String>>,
}

/// What a file says of its clustering.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The columns it was sorted by.
    pub by: Vec<String>,
    /// The run it belongs to.
    pub run: String,
}

/// Who clustered a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Clustered {
    /// Nobody.
    No,
    /// This program.
    Ours(Mark),
    /// Another engine, whose files are its own to cluster again.
    Theirs,
}

impl TableState {
    /// Returns the columns that the table is clustered by, those within others left out; none where it is not clustered.
    pub fn clustering(&self) -> Vec<String> {
        let paths = self.clustering_paths().unwrap_or_default();
        paths.into_iter().filter_map(|path| <[String; 1]>::try_from(path).ok()).map(|[name]| name).collect()
    }

    /// Tells whether the table is clustered by these columns, and no others.
    pub fn is_clustered_by(&self, columns: &[String]) -> bool {
        let paths = self.clustering_paths().unwrap_or_default();
        paths.len() == columns.len() && paths.iter().zip(columns).all(|(path, column)| *path == [column.as_str()])
    }

    /// Returns the columns that the table is clustered by, each as the names that lead to it; `None` where it is not
    /// clustered. What cannot be read asks for nothing: clustering is a matter of speed, and its writer is not ours.
    pub fn clustering_paths(&self) -> Option<Vec<Vec<String>>> {
        let mut features = self.protocol.writer_features.iter().flatten();
        if !features.any(|feature| feature == FEATURES[0]) {
            return None;
        }
        let columns: Columns = serde_json::from_str(self.domains.get(DOMAIN)?).ok()?;
        Some(columns.clustering_columns)
    }
}

/// Returns the action that has a table clustered by `columns`, or by none.
///
/// # Errors
/// When the columns cannot be written as JSON.
pub fn clustering_action(columns: &[String]) -> Result<DomainMetadata, serde_json::Error> {
    let columns = Columns { clustering_columns: columns.iter().map(|column| vec![column.clone()]).collect() };
    let configuration = serde_json::to_string(&columns)?;
    Ok(DomainMetadata { domain: DOMAIN.to_owned(), configuration, removed: false })
}

impl Mark {
    /// Returns `add` as a file of this run.
    ///
    /// # Errors
    /// When the columns cannot be written as JSON.
    pub fn put_on(&self, add: Add) -> Result<Add, serde_json::Error> {
        let tags = HashMap::from([
            (BY_TAG.to_owned(), Some(serde_json::to_string(&self.by)?)),
            (RUN_TAG.to_owned(), Some(self.run.clone())),
        ]);
        Ok(Add { tags: Some(tags), clustering_provider: Some(PROVIDER.to_owned()), ..add })
    }
}

/// Returns who clustered the file of `add`. One of ours whose tags another engine has dropped is as good as not clustered.
pub fn clustered(add: &Add) -> Clustered {
    match add.clustering_provider.as_deref() {
        None => Clustered::No,
        Some(PROVIDER) => mark(add).map_or(Clustered::No, Clustered::Ours),
        Some(_) => Clustered::Theirs,
    }
}

fn mark(add: &Add) -> Option<Mark> {
    let tag = |name: &str| add.tags.as_ref()?.get(name)?.as_deref();
    let by = serde_json::from_str(tag(BY_TAG)?).ok()?;
    Some(Mark { by, run: tag(RUN_TAG)?.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::action::{Action, Protocol};

    fn state(configuration: &str) -> TableState {
        let mut state = TableState::default();
        let writer_features = Some(FEATURES.map(str::to_owned).to_vec());
        let domain =
            DomainMetadata { configuration: configuration.to_owned(), domain: DOMAIN.to_owned(), removed: false };
        let protocol = Protocol { writer_features, ..Protocol::default() };
        state.apply(1, &[Action::Protocol(protocol), Action::DomainMetadata(domain)]);
        state
    }

    #[test]
    fn the_columns_come_back_as_they_were_written() -> Result<(), serde_json::Error> {
        let columns = ["a".to_owned(), "it's \"b\"".to_owned()];
        let action = clustering_action(&columns)?;
        assert_eq!(action.configuration, r#"{"clusteringColumns":[["a"],["it's \"b\""]]}"#);
        let mut clustered = state(&action.configuration);
        assert_eq!(clustered.clustering(), columns);
        assert!(clustered.is_clustered_by(&columns) && !clustered.is_clustered_by(&columns[..1]));
        clustered.apply(2, &[Action::DomainMetadata(DomainMetadata { removed: true, ..action })]);
        assert!(clustered.is_clustered_by(&[]), "a domain that was removed says nothing");
        Ok(())
    }

    #[test]
    fn what_another_writer_has_left_asks_for_no_more_than_can_be_done() {
        let nested = state(r#"{"clusteringColumns":[["a","b"],["c"],[]],"domainName":"delta.clustering"}"#);
        assert_eq!(nested.clustering(), ["c"]);
        assert!(!nested.is_clustered_by(&["c".to_owned()]));
        for broken in ["", "{}", "[]", r#"{"clusteringColumns":[1]}"#, r#"{"clusteringColumns":"a"}"#] {
            assert_eq!(state(broken).clustering(), Vec::<String>::new(), "{broken}");
        }
        let mut unlisted = state(r#"{"clusteringColumns":[["a"]]}"#);
        unlisted.protocol = Protocol::default();
        assert_eq!(unlisted.clustering(), Vec::<String>::new(), "without the feature the domain has no meaning");
    }

    #[test]
    fn a_file_says_who_clustered_it() -> Result<(), serde_json::Error> {
        let mark = Mark { by: vec!["a".to_owned()], run: "r".to_owned() };
        let add = mark.put_on(Add::default())?;
        assert_eq!(clustered(&add), Clustered::Ours(mark));
        assert_eq!(clustered(&Add::default()), Clustered::No);
        assert_eq!(clustered(&Add { tags: None, ..add.clone() }), Clustered::No);
        assert_eq!(clustered(&Add { clustering_provider: Some("liquid".to_owned()), ..add }), Clustered::Theirs);
        Ok(())
    }
}
