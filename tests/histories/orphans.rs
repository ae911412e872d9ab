//! Data files that a store holds and no version names: what a process leaves that dies between an upload and its
//! commit. Whether one is of a compaction or of a batch is told by its rows alone.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::keys::Keys;
use super::model::Positions;
use super::protocol::{Row, lines, rows_of, unescape};
use super::witness::{TABLE, Witness};
use crate::harness::TestResult;

/// Returns the data files of the table that no version has ever named.
pub(crate) async fn unnamed(witness: &Arc<Witness>) -> TestResult<BTreeSet<Path>> {
    let listed: Vec<_> = witness.list(Some(&Path::from(TABLE))).try_collect().await?;
    let mut unnamed: BTreeSet<Path> = listed.into_iter().map(|file| file.location).filter(is_data).collect();
    for bytes in witness.versions().values() {
        for action in lines(bytes)? {
            if let Some(logged) = action["add"]["path"].as_str() {
                unnamed.remove(&Path::parse(format!("{TABLE}/{}", unescape(logged)?))?);
            }
        }
    }
    Ok(unnamed)
}

/// Tells whether a path is a data file's: the log, the index and sidecars lie in folders with an underscore.
fn is_data(path: &Path) -> bool {
    let within = path.as_ref().strip_prefix(TABLE).unwrap_or_default();
    within.ends_with(".parquet") && !within.starts_with("/_")
}

/// Tells whether one of the files holds nothing but rows of records before `reached`, the table's positions. An output
/// of a compaction does; the file of a batch that did not land holds rows of records from there on.
pub(crate) async fn has_landed_rows(
    witness: &Arc<Witness>,
    files: &BTreeSet<Path>,
    reached: &Positions,
    keys: &Keys,
) -> TestResult<bool> {
    for file in files {
        let bytes = witness.get(file).await?.bytes().await?;
        let mut rows = Vec::new();
        for batch in ParquetRecordBatchReaderBuilder::try_new(bytes)?.build()? {
            rows.extend(rows_of(&batch?, keys)?);
        }
        if !rows.is_empty() && rows.iter().all(|row| has_landed(row, reached)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn has_landed(row: &Row, reached: &Positions) -> bool {
    let place = row.partition.zip(row.offset);
    place.is_some_and(|(partition, offset)| reached.get(&partition).is_some_and(|next| offset < *next))
}
