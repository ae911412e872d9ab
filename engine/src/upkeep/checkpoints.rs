//! Which versions of a log have a checkpoint that can be read, told by the names of its files alone.
//!
//! A writer that died may have left some parts of one: from those nothing can be read, and whoever counted on them would
//! remove what is needed in their place. It goes by what [`checkpoint`](crate::delta::checkpoint) reads. After it:
//! [`clean`](super::clean) and [`vacuum`](super::vacuum).

use std::collections::{BTreeMap, BTreeSet};

use crate::delta::log::Version;

/// Returns the versions that have a whole checkpoint among the files of a log with these names, sidecars left out.
pub(super) fn whole_checkpoints<'a>(names: impl Iterator<Item = &'a str>) -> BTreeSet<Version> {
    let mut by_version: BTreeMap<Version, BTreeSet<&str>> = BTreeMap::new();
    for name in names {
        let told = name.split_once(".checkpoint.").filter(|(version, _)| version.len() == 20);
        if let Some((version, rest)) = told
            && let Ok(version) = version.parse()
        {
            by_version.entry(version).or_default().insert(rest);
        }
    }
    by_version.into_iter().filter(|(_, rests)| is_whole(rests)).map(|(version, _)| version).collect()
}

/// Tells whether one of the files of a version is a checkpoint, or all parts of one are there. `rests` are their names
/// behind the version.
fn is_whole(rests: &BTreeSet<&str>) -> bool {
    let has_uuid = |rest: &&str| rest.split('.').next().is_some_and(|word| word.len() == 36);
    if rests.contains("parquet") || rests.iter().any(has_uuid) {
        return true;
    }
    let total_of = |rest: &str| rest.split('.').nth(1).and_then(|word| word.parse::<usize>().ok());
    let mut n_parts: BTreeMap<usize, usize> = BTreeMap::new();
    for total in rests.iter().filter_map(|rest| total_of(rest)) {
        *n_parts.entry(total).or_default() += 1;
    }
    n_parts.iter().any(|(total, n_parts)| total == n_parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(names: &[&str], expected: &[Version]) {
        let whole = whole_checkpoints(names.iter().copied());
        assert_eq!(whole.into_iter().collect::<Vec<_>>(), expected, "of {names:?}");
    }

    #[test]
    fn a_checkpoint_counts_once_all_its_parts_are_there() {
        check(&["00000000000000000003.checkpoint.parquet", "00000000000000000004.json"], &[3]);
        check(&["00000000000000000003.checkpoint.016ae953-37a9-438e-8683-9a9a4a79a395.json"], &[3]);
        let parts = [
            "00000000000000000003.checkpoint.0000000001.0000000002.parquet",
            "00000000000000000003.checkpoint.0000000002.0000000002.parquet",
            "00000000000000000004.checkpoint.0000000002.0000000002.parquet",
        ];
        check(&parts, &[3]);
        check(&parts[..1], &[]);
        let beside_a_dead_one = ["00000000000000000003.checkpoint.0000000001.0000000003.parquet", parts[0], parts[1]];
        check(&beside_a_dead_one, &[3]);
        check(&[parts[2], "00000000000000000004.checkpoint.parquet"], &[4]);
        check(&["3.checkpoint.parquet", "_last_checkpoint", "00000000000000000003.crc"], &[]);
    }
}
