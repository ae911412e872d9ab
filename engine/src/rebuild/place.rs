//! Where tables are by now, for what is stored of them may say where they were: a folder that was moved or copied takes
//! along a log and a registry that name its former place. Pure.
//!
//! Before it: [`read`](super::read). After it: the catalog is written.

use std::collections::BTreeSet;

use alluvium_catalog::{Dataset, Location};
use uuid::Uuid;

use super::{Skipped, TableStory, is_delta};

/// Takes out of `stories` the tables outside the warehouse that one of its own was copied or moved from, and returns them:
/// a name has one place, and whoever has a warehouse means what lies in it.
pub(super) fn take_originals(stories: &mut Vec<TableStory>, warehouse: &Location) -> Vec<Skipped> {
    let is_original = |story: &TableStory| {
        let mut inside = stories.iter().filter(|inside| warehouse.contains(&inside.location));
        !warehouse.contains(&story.location) && inside.any(|inside| comes_from(inside, story))
    };
    let originals: BTreeSet<Location> =
        stories.iter().filter(|story| is_original(story)).map(|story| story.location.clone()).collect();
    let (taken, kept): (Vec<TableStory>, Vec<TableStory>) =
        std::mem::take(stories).into_iter().partition(|story| originals.contains(&story.location));
    *stories = kept;
    let skipped = |story: TableStory| {
        let reason = format!("{} is the table in the warehouse, which was copied or moved from there", story.name);
        Skipped { location: story.location, reason }
    };
    taken.into_iter().map(skipped).collect()
}

/// Makes definitions and registrations name the place where a table is, if there is none at the place that they name.
/// `present` are the places that have a log.
pub(super) fn follow_moves(stories: &mut [TableStory], datasets: &mut [Dataset], present: &BTreeSet<Location>) {
    for TableStory { name, location, definitions, .. } in &mut *stories {
        for (_, definition) in definitions {
            let table = &mut definition.table;
            if table.name == *name && !present.contains(&table.location) {
                table.location = location.clone();
            }
        }
    }
    for dataset in datasets {
        if !is_delta(dataset.kind) || present.contains(&dataset.location) {
            continue;
        }
        let Some(story) = stories.iter().find(|story| story.name == dataset.name) else { continue };
        dataset.location = story.location.clone();
        if let Some(table) = &mut dataset.table {
            table.location = story.location.clone();
        }
    }
}

/// Tells whether `story` was copied or moved from where `original` is: its log says that it is there and not here, or has
/// commits of the other one.
fn comes_from(story: &TableStory, original: &TableStory) -> bool {
    story.name == original.name
        && !is_declared_at(story, &story.location)
        && (is_declared_at(story, &original.location) || share_commits(story, original))
}

fn is_declared_at(story: &TableStory, location: &Location) -> bool {
    let mut tables = story.definitions.iter().map(|(_, definition)| &definition.table);
    tables.any(|table| table.name == story.name && table.location == *location)
}

fn share_commits(one: &TableStory, other: &TableStory) -> bool {
    let writes: BTreeSet<Uuid> = one.commits.iter().map(|commit| commit.lineage.write_id).collect();
    other.commits.iter().any(|commit| writes.contains(&commit.lineage.write_id))
}
