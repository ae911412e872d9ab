//! Takes rows out of a compaction that are gone by now, where no deletion vector is to say so.
//!
//! Whoever rewrites files (copy-on-write, another engine) takes inputs of a running compaction away and puts others in
//! their place. The outputs that hold rows of those are written once more without them, and what is left of the
//! compaction stands on the inputs that are still there: so compactions come to an end however often files are rewritten.

use alluvium_catalog::Result;
use roaring::RoaringTreemap;

use super::{Compaction, Input, Output};
use crate::delta::action::Add;
use crate::delta::state::TableState;
use crate::write::parquet::DataFolder;
use crate::write::rewrite::{Rewriter, Worn};

/// Returns `compaction` without the rows that are `gone` from each of its outputs, and without the inputs that left
/// `state`; `None` when a row is gone of an input that is still there, which only vectors can say.
///
/// # Errors
/// `Unavailable` or `Data` when an output cannot be written anew.
pub async fn shrink(
    compaction: &Compaction,
    gone: &[RoaringTreemap],
    state: &TableState,
    folder: DataFolder,
) -> Result<Option<Compaction>> {
    // The place of each output among those that are left.
    let mut left = Vec::new();
    let (mut outputs, mut jobs) = (Vec::new(), Vec::new());
    for (output, gone) in compaction.outputs.iter().zip(gone) {
        if gone.len() >= output.rows {
            left.push(None);
            continue;
        }
        left.push(Some(outputs.len()));
        if !gone.is_empty() {
            jobs.push((outputs.len(), Worn { add: output.add.clone(), gone: gone.clone() }));
        }
        outputs.push(output.clone());
    }
    let mut inputs = Vec::new();
    for input in compaction.inputs.iter().filter(|input| state.files.contains_key(&input.add.path)) {
        let mut rows = vec![RoaringTreemap::new(); gone.len()];
        input.way.mark_all(input.live_rows, &mut rows);
        let is_whole = rows.iter().zip(gone).all(|(rows, gone)| rows.is_disjoint(gone));
        let Some(way) = is_whole.then(|| input.way.without(gone, &left)).flatten() else { return Ok(None) };
        inputs.push(Input { add: input.add.clone(), deleted: input.deleted.clone(), live_rows: input.live_rows, way });
    }
    let (places, worn): (Vec<usize>, Vec<Vec<Worn>>) =
        jobs.into_iter().map(|(place, worn)| (place, vec![worn])).unzip();
    let rewriter = Rewriter::try_new(folder, &compaction.metadata)?;
    for (place, rewrite) in places.into_iter().zip(rewriter.rewrite(worn).await?) {
        let Output { add, rows } = rewrite.output;
        if let Some(output) = outputs.get_mut(place) {
            // Rows that leave a sorted file leave it sorted.
            let Add { tags, clustering_provider, .. } = output.add.clone();
            *output = Output { add: Add { data_change: false, tags, clustering_provider, ..add }, rows };
        }
    }
    let metadata = compaction.metadata.clone();
    Ok(Some(Compaction { version: compaction.version, metadata, inputs, outputs }))
}
