//! Two live rows of one key, and rows that another writer takes away, changes, moves or brings back: every branch of the
//! policy (`docs/UPSERT.md`, "Writers beside ours"), one by one.
//!
//! Each case is played three times: with a process that starts after the other writer, with one that follows it, and with
//! one that has staged a batch of the key already. All must come to the same.

use crate::harness::TestResult;
use crate::histories::foreign::{Value, Visit};
use crate::histories::history::History;
use crate::histories::model::{Change, Record};
use crate::histories::place::{Kind, Life};
use crate::histories::protocol::Row;
use crate::histories::steps::Step;

/// The key in question.
const KEY: i64 = 0;

/// A key whose record makes a process commit.
const OTHER: i64 = 3;

/// What another writer does to a key, and what stands in the end.
#[derive(Debug, Clone)]
struct Case {
    /// Records of the key, each a batch of its own.
    before: Vec<Change>,
    visit: Visit,
    /// Records of the key after the visit, each list read by a process of its own.
    after: Vec<Vec<Change>>,
    /// The note that stands, if one does.
    stands: Option<&'static str>,
    /// What stands where the first record after the visit was staged before it, if that is something else.
    stands_contended: Option<Option<&'static str>>,
}

impl Case {
    fn new(before: &[Change], visit: Visit, stands: Option<&'static str>) -> Self {
        Self { before: before.to_vec(), visit, after: Vec::new(), stands, stands_contended: None }
    }

    /// Lets a process read `changes` after the visit.
    fn then(mut self, changes: &[Change]) -> Self {
        self.after.push(changes.to_vec());
        self
    }

    fn or_contended(self, stands: Option<&'static str>) -> Self {
        Self { stands_contended: Some(stands), ..self }
    }
}

/// When the other writer comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// While no process lives.
    Between,
    /// Before a process commits a batch of another key.
    Followed,
    /// Before a process commits the first batch of the key.
    Contended,
}

fn put(sequence: i64, note: &str) -> Change {
    Change::Put { sequence, note: note.to_owned(), day: Some("monday") }
}

fn delete(sequence: i64) -> Change {
    Change::Delete { sequence }
}

/// A row of the key as another writer adds it.
fn row(sequence: Option<i64>, note: &str) -> Row {
    Row { id: KEY, sequence, offset: None, partition: None, note: Some(note.to_owned()) }
}

fn append(sequence: Option<i64>) -> Visit {
    Visit::Append(vec![row(sequence, "foreign")])
}

/// Lets a process read `changes` of a key, one a batch.
async fn live(history: &mut History, id: i64, changes: &[Change], visit: Option<Visit>) -> TestResult {
    let records = changes.iter().map(|change| (0, Record { id, change: Some(change.clone()) })).collect();
    let life = Life { rows_max: 1, is_orderly: true };
    history.apply(&Step::Life { records, life, scripts: Vec::new(), visit: visit.map(|visit| (0, visit)) }).await
}

async fn play(kind: Kind, case: &Case, moment: Moment) -> TestResult {
    let mut history = History::new(kind, 3).await?;
    live(&mut history, KEY, &case.before, None).await?;
    let mut after = case.after.iter();
    match moment {
        Moment::Between => history.apply(&Step::Visit(case.visit.clone())).await?,
        Moment::Followed => {
            live(&mut history, OTHER, &[put(1, "other")], Some(case.visit.clone())).await?;
        }
        Moment::Contended => {
            let Some(first) = after.next().filter(|changes| !changes.is_empty()) else { return Ok(()) };
            live(&mut history, KEY, first, Some(case.visit.clone())).await?;
        }
    }
    for changes in after {
        live(&mut history, KEY, changes, None).await?;
    }
    // Whoever commits next settles what the other writer has left.
    live(&mut history, OTHER, &[put(2, "other again")], None).await?;
    if history.met.visits != 1 {
        return Err(format!("{} visits", history.met.visits).into());
    }
    let rows: Vec<Row> = history.rows().await?.into_iter().filter(|row| row.id == KEY).collect();
    let notes: Vec<Option<&str>> = rows.iter().map(|row| row.note.as_deref()).collect();
    let wanted = if moment == Moment::Contended { case.stands_contended.unwrap_or(case.stands) } else { case.stands };
    let wanted: Vec<Option<&str>> = wanted.into_iter().map(Some).collect();
    if notes != wanted {
        return Err(format!("{notes:?} stands, not {wanted:?}").into());
    }
    Ok(())
}

/// Plays cases at every moment on tables of these kinds.
async fn check(kinds: &[Kind], cases: &[Case]) -> TestResult {
    let mut failures = Vec::new();
    for kind in kinds {
        for case in cases {
            for moment in [Moment::Between, Moment::Followed, Moment::Contended] {
                let played = Box::pin(play(*kind, case, moment)).await;
                failures.extend(played.err().map(|error| format!("{kind:?}, {moment:?}: {error}\n  {case:?}")));
            }
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n").into()) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_rows_the_newer_stands() -> TestResult {
    let ours = [put(10, "ours")];
    let cases = [
        Case::new(&ours, append(Some(20)), Some("foreign")).then(&[]),
        Case::new(&ours, append(Some(5)), Some("ours")).then(&[]),
        Case::new(&ours, append(Some(10)), Some("ours")).then(&[]),
        Case::new(&ours, append(None), Some("ours")).then(&[]),
        Case::new(&ours, append(Some(20)), Some("again")).then(&[put(30, "again")]),
        Case::new(&ours, append(Some(20)), Some("foreign")).then(&[put(15, "late")]),
        Case::new(&ours, append(Some(20)), None).then(&[Change::Tombstone]),
        Case::new(&ours, append(Some(20)), Some("foreign")).then(&[delete(15)]),
        Case::new(&ours, append(Some(20)), None).then(&[delete(25)]),
        // A tombstone takes over the sequence of the newer row, whoever wrote it, across processes.
        Case::new(&ours, append(Some(20)), None).then(&[Change::Tombstone]).then(&[put(15, "late")]),
        Case::new(&ours, append(Some(20)), Some("back")).then(&[Change::Tombstone]).then(&[put(25, "back")]),
    ];
    check(&Kind::ALL, &cases).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_of_another_writer_counts_as_the_row_of_its_key() -> TestResult {
    let cases = [
        // It brings a deleted key back; the delete no longer counts.
        Case::new(&[put(10, "ours"), delete(15)], append(Some(5)), Some("foreign")).then(&[]),
        Case::new(&[put(10, "ours"), delete(15)], append(Some(5)), Some("late"))
            .then(&[put(7, "late")])
            .or_contended(Some("foreign")),
        // A tombstone that was staged when the key had no row takes over the sequence of the one that it meets.
        Case::new(&[], append(Some(13)), None).then(&[Change::Tombstone]).then(&[put(10, "late")]),
        Case::new(&[], append(Some(13)), Some("back")).then(&[Change::Tombstone]).then(&[put(14, "back")]),
        // Without a sequence it is older than any change.
        Case::new(&[], append(None), Some("new")).then(&[put(-9, "new")]),
    ];
    check(&[Kind::Plain, Kind::Hidden, Kind::Rewritten, Kind::Clustered], &cases).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_rows_that_tie_one_stands_and_every_process_says_the_same() -> TestResult {
    for moment in [Moment::Between, Moment::Followed] {
        let mut history = History::new(Kind::Plain, 3).await?;
        live(&mut history, OTHER, &[put(1, "other")], None).await?;
        let one = |note| Visit::Append(vec![row(Some(5), note)]);
        let visit = Visit::Each(vec![one("a"), one("b"), one("c")]);
        let visit = match moment {
            Moment::Between => {
                history.apply(&Step::Visit(visit)).await?;
                None
            }
            _ => Some(visit),
        };
        live(&mut history, OTHER, &[put(2, "other again")], visit).await?;
        let rows = history.rows().await?;
        assert_eq!(rows.iter().filter(|row| row.id == KEY).count(), 1, "{moment:?}: {rows:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_newer_row_is_taken_away_the_older_one_stands() -> TestResult {
    let both = |then| Visit::Each(vec![append(Some(20)), then]);
    let ours = [put(10, "ours")];
    let cases = [
        Case::new(&ours, both(Visit::DeleteNote("foreign")), Some("ours")).then(&[]),
        Case::new(&ours, both(Visit::DeleteNote("foreign")), Some("again")).then(&[put(11, "again")]),
        Case::new(&ours, both(Visit::DeleteNote("foreign")), Some("ours")).then(&[put(9, "late")]),
        Case::new(&ours, both(Visit::DeleteNote("ours")), Some("foreign")).then(&[]),
        Case::new(&ours, both(Visit::Restore { back: 1 }), Some("ours")).then(&[]),
        Case::new(&ours, both(Visit::Optimize), Some("foreign")).then(&[]),
    ];
    check(&[Kind::Plain, Kind::Hidden, Kind::Rewritten, Kind::Clustered], &cases).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_another_writer_takes_away_or_changes_is_followed() -> TestResult {
    let ours = [put(9, "older"), put(10, "ours")];
    let update = |column, value| Visit::Update { up_to: KEY, column, value };
    let renamed = || update("note", Value::Text("renamed".to_owned()));
    // It says of the row's order what it likes, and changes nothing of it.
    let merged = || Visit::Merge(vec![row(Some(30), "merged")]);
    let cases = [
        // A delete by another writer is not remembered. A row that was late when it was staged is not written.
        Case::new(&ours, Visit::Delete { up_to: KEY }, None).then(&[]),
        Case::new(&ours, Visit::Delete { up_to: KEY }, Some("late")).then(&[put(5, "late")]).or_contended(None),
        Case::new(&ours, Visit::Delete { up_to: KEY }, None).then(&[Change::Tombstone]).then(&[delete(30)]),
        // A changed row keeps its position.
        Case::new(&ours, renamed(), Some("renamed")).then(&[put(5, "late")]),
        Case::new(&ours, renamed(), Some("again")).then(&[put(11, "again")]),
        Case::new(&ours, renamed(), None).then(&[Change::Tombstone]),
        Case::new(&ours, merged(), Some("merged")).then(&[put(5, "late")]),
        Case::new(&ours, merged(), Some("again")).then(&[put(11, "again")]),
        Case::new(&ours, merged(), None).then(&[Change::Tombstone]),
    ];
    check(&[Kind::Plain, Kind::Hidden, Kind::Rewritten, Kind::Clustered], &cases).await?;
    let moved = || update("day", Value::Text("friday".to_owned()));
    let cases = [
        Case::new(&ours, moved(), Some("ours")).then(&[put(5, "late")]),
        Case::new(&ours, moved(), Some("again")).then(&[put(11, "again")]),
        Case::new(&ours, moved(), None).then(&[Change::Tombstone]),
    ];
    check(&[Kind::Partitioned], &cases).await?;
    let newer = || update("seq", Value::Integer(20));
    let cases = [
        Case::new(&ours, newer(), Some("ours")).then(&[put(15, "late")]).or_contended(Some("ours")),
        Case::new(&ours, newer(), Some("again")).then(&[put(25, "again")]),
        // The sequence that the tombstone takes over is that of the row as it is when it lands, for later processes too.
        Case::new(&ours, newer(), None).then(&[Change::Tombstone]).then(&[put(15, "late")]),
        Case::new(&ours, newer(), Some("back")).then(&[Change::Tombstone]).then(&[put(25, "back")]),
    ];
    check(&[Kind::Plain, Kind::Rewritten, Kind::Clustered], &cases).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_another_writer_rewrites_or_brings_back_are_followed() -> TestResult {
    let ours = [put(9, "older"), put(10, "ours")];
    let optimized = |stands| Case::new(&ours, Visit::Optimize, stands);
    let restored = |before: &[Change], stands| Case::new(before, Visit::Restore { back: 1 }, stands);
    let deleted = [put(10, "ours"), delete(20)];
    let cases = [
        optimized(Some("ours")).then(&[put(5, "late")]),
        optimized(Some("again")).then(&[put(11, "again")]),
        optimized(None).then(&[Change::Tombstone]),
        // The row before the last batch is back, and its vector is gone.
        restored(&ours, Some("older")).then(&[]),
        restored(&ours, Some("late")).then(&[put(9, "late")]).or_contended(Some("older")),
        restored(&ours, Some("again")).then(&[put(12, "again")]),
        restored(&ours, None).then(&[Change::Tombstone]),
        // A row that is back stands, though a delete had taken it.
        restored(&deleted, Some("ours")).then(&[]),
        restored(&deleted, Some("again")).then(&[put(25, "again")]),
    ];
    check(&[Kind::Plain, Kind::Partitioned, Kind::Rewritten, Kind::Clustered], &cases).await
}
