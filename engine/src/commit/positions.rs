//! Where a flow stands in its topic, as its table says: the `txn` actions of the Delta log.
//!
//! The application id is `alluvium/<flow>/<topic>/<partition>`, and the version is the next offset: the name is found
//! again without the catalog. Kafka's group offsets and the catalog are never asked.

use std::collections::BTreeMap;

use alluvium_catalog::{Error, Name, Offset, Partition, Positions, Result, Span, Topic};
use async_trait::async_trait;
use tokio::sync::Mutex;

use crate::delta::action::{Action, Transaction};
use crate::delta::log::DeltaLog;
use crate::delta::state::TableState;
use crate::source::TablePositions;

/// The application ids of one flow over one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppIds {
    prefix: String,
}

impl AppIds {
    /// Returns the ids of the flow's own table.
    pub fn of_table(flow: &Name, topic: &Topic) -> Self {
        Self { prefix: format!("alluvium/{flow}/{topic}/") }
    }

    /// Returns the ids of the flow's dead letters.
    pub fn of_dead_letters(flow: &Name, topic: &Topic) -> Self {
        Self { prefix: format!("alluvium/{flow}/{topic}/dead-letter/") }
    }

    /// Returns the ids of nobody: of a process that lands no records.
    pub fn of_nobody() -> Self {
        // No flow has an empty name.
        Self { prefix: "alluvium//".to_owned() }
    }

    /// Returns the positions among a table's application transactions.
    pub fn positions(&self, txns: &BTreeMap<String, i64>) -> Positions {
        txns.range(self.prefix.clone()..)
            .take_while(|(app_id, _)| app_id.starts_with(&self.prefix))
            .filter_map(|(app_id, version)| {
                let partition = app_id.strip_prefix(&self.prefix)?.parse().ok()?;
                Some((Partition(partition), Offset(*version)))
            })
            .collect()
    }

    /// Returns the actions that move the positions to the end of `span`, for every partition of it.
    pub fn advance(&self, span: &Span, now_ms: i64) -> Vec<Action> {
        span.iter()
            .map(|(partition, range)| {
                let app_id = format!("{}{partition}", self.prefix);
                Action::Txn(Transaction::new_with_last_update(app_id, range.next.0, Some(now_ms)))
            })
            .collect()
    }
}

/// Answers a source that asks where to go on, each time out of the newest version of the table.
#[derive(Debug)]
pub struct NewestPositions {
    log: DeltaLog,
    ids: AppIds,
    state: Mutex<TableState>,
}

impl NewestPositions {
    /// Returns a reader that begins its replay at `state`.
    pub fn new(log: DeltaLog, ids: AppIds, mut state: TableState) -> Self {
        state.files.clear();
        Self { log, ids, state: Mutex::new(state) }
    }
}

#[async_trait]
impl TablePositions for NewestPositions {
    async fn positions(&self) -> Result<Positions> {
        let mut state = self.state.lock().await;
        let before = self.ids.positions(&state.txns);
        // Assignments may lie weeks apart, and the log be cleaned up between them.
        state.refresh(&self.log).await?;
        state.files.clear();
        let after = self.ids.positions(&state.txns);
        drop(state);
        check_monotone(&before, &after, &self.log)?;
        Ok(after)
    }
}

/// Checks that no position went back: somebody restored or replaced the table under a running flow.
///
/// # Errors
/// `Data`, naming the partition and both offsets.
pub fn check_monotone(before: &Positions, after: &Positions, log: &DeltaLog) -> Result<()> {
    for (partition, have) in before {
        let now = after.get(partition);
        if now.is_none_or(|now| now < have) {
            let now = now.map_or_else(|| "none".to_owned(), ToString::to_string);
            return Err(Error::data(format!(
                "the table at {} went back in partition {partition}: it stood at offset {have} and now stands at {now}",
                log.location()
            ))
            .with_hint(
                "the table was restored or replaced; stop the flow, decide where it has to go on, then start it again",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use alluvium_catalog::OffsetRange;

    use super::*;

    #[test]
    fn positions_are_found_again_and_dead_letters_are_kept_apart() -> Result<()> {
        let (flow, topic) = ("orders".parse()?, "shop.orders".parse()?);
        let table = AppIds::of_table(&flow, &topic);
        let letters = AppIds::of_dead_letters(&flow, &topic);
        let mut span = Span::new();
        let range = OffsetRange { first: Offset(3), next: Offset(9), records: 6 };
        span.extend(Partition(12), range).map_err(|misfit| Error::internal(misfit.to_string()))?;
        let mut state = TableState::default();
        state.apply(1, &table.advance(&span, 0));
        assert_eq!(table.positions(&state.txns), [(Partition(12), Offset(9))].into());
        assert_eq!(letters.positions(&state.txns), Positions::new());
        Ok(())
    }
}
