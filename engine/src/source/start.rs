//! Where reading begins in a partition that was just assigned. Pure.
//!
//! | the table has | startup | begins at |
//! |---|---|---|
//! | a position in the log | any | the position |
//! | a position out of the log | any | nowhere: `Data`, with what is lost |
//! | none, but an earlier start of this process is known | any | that start |
//! | none | `earliest-offset` | the log's start |
//! | none | `latest-offset` | the log's end; its start if the partition is younger than this process |
//! | none | `timestamp` | the first record at or after; the log's end without one |
//! | none | `specific-offsets` | what is named, else the log's start; out of the log: `Invalid` |
//!
//! The answer is always a concrete offset, so that even a batch without records says where it began.

use alluvium_catalog::{Error, Offset, Partition, Result, Topic};
use alluvium_sql::pipeline::Startup;

/// The records that a partition holds: `[low, high)`. `high` is the last stable offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) low: Offset,
    pub(crate) high: Offset,
}

impl Bounds {
    fn hold(self, position: Offset) -> bool {
        self.low <= position && position <= self.high
    }
}

/// What is known about a partition when it is assigned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    /// The table's position.
    pub(crate) landed: Option<Offset>,
    /// Where this process began to read it before.
    pub(crate) begun: Option<Offset>,
    /// The first record at or after the timestamp of the startup mode.
    pub(crate) stamped: Option<Offset>,
    /// Whether the partition came into being after this process had started.
    pub(crate) is_young: bool,
    /// What the log holds.
    pub(crate) bounds: Bounds,
}

/// A concrete start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Start {
    /// The first position.
    pub(crate) at: Offset,
    /// Whether the start would be another one if it were asked for again later.
    pub(crate) is_fleeting: bool,
}

/// Decides where `partition` begins.
///
/// # Errors
/// `Data` when the table's position is not in the log, `Invalid` when a named offset is not.
pub(crate) fn start(topic: &Topic, partition: Partition, startup: &Startup, facts: Facts) -> Result<Start> {
    let Bounds { low, high } = facts.bounds;
    if let Some(at) = facts.landed {
        check_range(topic, partition, at, facts.bounds)?;
        return Ok(Start { at, is_fleeting: false });
    }
    if let Some(at) = facts.begun {
        check_range(topic, partition, at, facts.bounds)?;
        return Ok(Start { at, is_fleeting: true });
    }
    Ok(match startup {
        Startup::Earliest => Start { at: low, is_fleeting: false },
        Startup::Latest if facts.is_young => Start { at: low, is_fleeting: true },
        Startup::Latest => Start { at: high, is_fleeting: true },
        Startup::Timestamp(_) => Start { at: facts.stamped.unwrap_or(high), is_fleeting: facts.stamped.is_none() },
        Startup::Offsets(named) => {
            let at = named.get(&partition).copied().unwrap_or(low);
            if !facts.bounds.hold(at) {
                return Err(Error::invalid(format!(
                    "scan.startup.specific-offsets begins at {topic}/{partition}@{at}, but the partition holds [{low}, {high})"
                ))
                .with_hint(format!("name an offset from {low} to {high}")));
            }
            Start { at, is_fleeting: false }
        }
    })
}

/// Checks that reading can go on at `wanted`.
///
/// # Errors
/// `Data` that names the range that is lost: it never resets by itself.
pub(crate) fn check_range(topic: &Topic, partition: Partition, wanted: Offset, bounds: Bounds) -> Result<()> {
    if bounds.hold(wanted) {
        return Ok(());
    }
    let Bounds { low, high } = bounds;
    if wanted < low {
        let lost = low.0 - wanted.0;
        return Err(Error::data(format!(
            "offset {wanted} of {topic}/{partition} is out of range: the partition holds [{low}, {high}), \
             and the {lost} offsets [{wanted}, {low}) are lost"
        ))
        .with_hint(
            "the topic's retention deleted them before they were read; nothing is skipped by itself. Put the records \
             back, or give the flow a new name and say with scan.startup.mode where the new flow begins",
        ));
    }
    let gone = wanted.0 - high.0;
    Err(Error::data(format!(
        "offset {wanted} of {topic}/{partition} is out of range: the partition holds [{low}, {high}), \
         and the {gone} offsets [{high}, {wanted}) that were read before are gone"
    ))
    .with_hint(
        "the topic was created anew or cut short, or this is another cluster; nothing is read by itself that may be \
         in the table already. Point the connection at the right cluster, or give the flow a new name and say with \
         scan.startup.mode where the new flow begins",
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use alluvium_catalog::{ErrorKind, Timestamp};

    use super::*;

    const BOUNDS: Bounds = Bounds { low: Offset(10), high: Offset(20) };
    const NONE: Facts = Facts { landed: None, begun: None, stamped: None, is_young: false, bounds: BOUNDS };

    fn begin(startup: &Startup, facts: Facts) -> Result<Start> {
        start(&"orders".parse()?, Partition(3), startup, facts)
    }

    fn check(startup: &Startup, facts: Facts, at: i64, is_fleeting: bool) -> Result<()> {
        assert_eq!(begin(startup, facts)?, Start { at: Offset(at), is_fleeting }, "{startup:?} {facts:?}");
        Ok(())
    }

    #[test]
    fn startup_decides_where_the_table_is_silent() -> Result<()> {
        check(&Startup::Earliest, NONE, 10, false)?;
        check(&Startup::Latest, NONE, 20, true)?;
        check(&Startup::Latest, Facts { is_young: true, ..NONE }, 10, true)?;
        check(&Startup::Timestamp(Timestamp(5)), Facts { stamped: Some(Offset(14)), ..NONE }, 14, false)?;
        check(&Startup::Timestamp(Timestamp(5)), NONE, 20, true)?;
        let named = BTreeMap::from([(Partition(3), Offset(12))]);
        check(&Startup::Offsets(named), NONE, 12, false)?;
        check(&Startup::Offsets(BTreeMap::new()), NONE, 10, false)
    }

    #[test]
    fn table_goes_before_startup() -> Result<()> {
        for startup in [Startup::Earliest, Startup::Latest, Startup::Offsets(BTreeMap::new())] {
            for at in [10, 15, 20] {
                check(&startup, Facts { landed: Some(Offset(at)), begun: Some(Offset(11)), ..NONE }, at, false)?;
            }
        }
        Ok(())
    }

    #[test]
    fn start_that_did_not_land_yet_stays() -> Result<()> {
        check(&Startup::Latest, Facts { begun: Some(Offset(13)), ..NONE }, 13, true)
    }

    #[test]
    fn out_of_range_says_what_is_lost() {
        for (landed, said) in [(4, "the 6 offsets [4, 10) are lost"), (23, "the 3 offsets [20, 23)")] {
            let error = begin(&Startup::Earliest, Facts { landed: Some(Offset(landed)), ..NONE }).err();
            assert_eq!(error.as_ref().map(Error::kind), Some(ErrorKind::Data));
            let message = error.map(|error| error.message().to_owned()).unwrap_or_default();
            assert!(message.contains(said) && message.contains("orders/3"), "{message}");
        }
    }

    #[test]
    fn named_offset_out_of_the_log_is_refused() {
        let named = Startup::Offsets(BTreeMap::from([(Partition(3), Offset(21))]));
        assert_eq!(begin(&named, NONE).err().map(|error| error.kind()), Some(ErrorKind::Invalid));
    }
}
