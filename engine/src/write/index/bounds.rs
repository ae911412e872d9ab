//! What is known of the order of a file's rows without looking at them.
//!
//! A change that is above all rows of a file supersedes any of them, and one below all of them is late; only between the
//! bounds must the order of the one row be known. Deleted rows count: bounds may be wide, never narrow.

use serde::{Deserialize, Serialize};

use crate::order::{OrderRef, Orders, Sequence};

/// A record's offset and partition, as they compare.
type Position = (i64, i32);

/// The bounds of the orders of a file's rows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Bounds {
    /// The least and the highest sequence; `None` where no row has one.
    pub(super) sequence: Option<(Sequence, Sequence)>,
    /// The least and the highest position; `None` where there are no rows.
    pub(super) position: Option<(Position, Position)>,
    /// Whether any row has no sequence.
    pub(super) has_unknown: bool,
}

/// How a change stands to the rows of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It supersedes every row.
    Newer,
    /// It supersedes none.
    Late,
    /// It depends on the row.
    Unsure,
}

impl Bounds {
    /// Returns the bounds of `orders`.
    pub fn of(orders: &Orders) -> Self {
        let mut bounds = Self::default();
        let mut sequence: Option<(OrderRef<'_>, OrderRef<'_>)> = None;
        for index in 0..orders.len() {
            let order = orders.get(index);
            let position = order.position();
            let (low, high) = bounds.position.get_or_insert((position, position));
            *low = position.min(*low);
            *high = position.max(*high);
            if order.sequence.is_none() {
                bounds.has_unknown = true;
                continue;
            }
            let (low, high) = sequence.get_or_insert((order, order));
            if order.sequence < low.sequence {
                *low = order;
            }
            if order.sequence > high.sequence {
                *high = order;
            }
        }
        let known = sequence.and_then(|(low, high)| low.sequence.zip(high.sequence));
        bounds.sequence = known.map(|(low, high)| (low.to_owned(), high.to_owned()));
        bounds
    }

    /// Widens these bounds to those of `other`, as compaction does when it joins files.
    pub fn widen(&mut self, other: &Self) {
        self.has_unknown |= other.has_unknown;
        self.position = match (self.position, other.position) {
            (Some((low, high)), Some((other_low, other_high))) => Some((low.min(other_low), high.max(other_high))),
            (one, other) => one.or(other),
        };
        self.sequence = match (self.sequence.take(), other.sequence.clone()) {
            (Some((low, high)), Some((other_low, other_high))) => Some((
                if other_low.borrow() < low.borrow() { other_low } else { low },
                if other_high.borrow() > high.borrow() { other_high } else { high },
            )),
            (one, other) => one.or(other),
        };
    }

    /// Returns how `challenger` stands to the rows within these bounds: what
    /// [`supersedes`](OrderRef::supersedes) would say of each of them, where it says the same of all.
    pub fn judge(&self, challenger: &OrderRef<'_>) -> Standing {
        let Some((lowest, highest)) = self.position else { return Standing::Unsure };
        let position = challenger.position();
        let by_position = match () {
            () if position > highest => Standing::Newer,
            () if position <= lowest => Standing::Late,
            () => Standing::Unsure,
        };
        let (Some(mine), Some((low, high))) = (challenger.sequence.filter(|_| !challenger.inherited), &self.sequence)
        else {
            return by_position;
        };
        let (low, high) = (low.borrow(), high.borrow());
        let by_sequence = match () {
            () if mine > high || (mine == high && by_position == Standing::Newer) => Standing::Newer,
            () if mine < low || (mine == low && by_position == Standing::Late) => Standing::Late,
            () => Standing::Unsure,
        };
        // Rows without a sequence are decided by position alone.
        if self.has_unknown && by_sequence != by_position { Standing::Unsure } else { by_sequence }
    }

    /// Tells whether any row has a sequence.
    pub fn has_sequences(&self) -> bool {
        self.sequence.is_some()
    }

    /// Tells whether some row may come from before `offset`.
    pub fn may_precede(&self, offset: i64) -> bool {
        self.position.is_none_or(|((lowest, _), _)| lowest < offset)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use alluvium_catalog::Result;
    use arrow::array::{ArrayRef, Int64Array};
    use arrow::datatypes::DataType;
    use proptest::prelude::*;

    use super::*;
    use crate::order::OrderForm;

    /// Returns orders of (sequence, offset, partition).
    fn orders(rows: &[(Option<i64>, i64, i32)]) -> Result<Orders> {
        let sequence: ArrayRef = Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>());
        let (offsets, partitions) =
            (rows.iter().map(|row| Some(row.1)).collect(), rows.iter().map(|row| Some(row.2)).collect());
        OrderForm::try_new(vec![DataType::Int64])?.of(&[sequence], None, &offsets, &partitions)
    }

    fn row() -> impl Strategy<Value = (Option<i64>, i64, i32)> {
        (prop::option::weighted(0.8, 0..6_i64), 0..6_i64, 0..2_i32)
    }

    proptest! {
        /// What bounds say of all rows holds for each; joined bounds hold for the rows of both files.
        #[test]
        fn bounds_agree_with_every_row(
            one in prop::collection::vec(row(), 1..6), other in prop::collection::vec(row(), 0..6), challenger in row(),
        ) {
            let failed = |error: alluvium_catalog::Error| TestCaseError::fail(error.to_string());
            let (standing, others) = (orders(&one).map_err(failed)?, orders(&other).map_err(failed)?);
            let challenger = orders(&[challenger]).map_err(failed)?;
            let challenger = challenger.get(0);
            let mut bounds = Bounds::of(&standing);
            let all_of = |orders: &Orders, wanted: bool| {
                (0..orders.len()).all(|index| challenger.supersedes(&orders.get(index)) == wanted)
            };
            match bounds.judge(&challenger) {
                Standing::Newer => prop_assert!(all_of(&standing, true)),
                Standing::Late => prop_assert!(all_of(&standing, false)),
                Standing::Unsure => {}
            }
            bounds.widen(&Bounds::of(&others));
            match bounds.judge(&challenger) {
                Standing::Newer => prop_assert!(all_of(&standing, true) && all_of(&others, true)),
                Standing::Late => prop_assert!(all_of(&standing, false) && all_of(&others, false)),
                Standing::Unsure => {}
            }
            let both: Vec<_> = one.iter().chain(&other).copied().collect();
            prop_assert_eq!(bounds, Bounds::of(&orders(&both).map_err(failed)?));
        }
    }

    #[test]
    fn newer_records_need_no_look_at_the_rows() -> Result<()> {
        let bounds = Bounds::of(&orders(&[(Some(3), 10, 0), (Some(5), 12, 0)])?);
        let cases = [
            ((Some(6), 1, 0), Standing::Newer),
            ((Some(5), 13, 0), Standing::Newer),
            ((Some(5), 11, 0), Standing::Unsure),
            ((Some(4), 13, 0), Standing::Unsure),
            ((Some(3), 10, 0), Standing::Late),
            ((Some(2), 99, 0), Standing::Late),
            ((None, 13, 0), Standing::Newer),
            ((None, 11, 0), Standing::Unsure),
        ];
        for (challenger, expected) in cases {
            assert_eq!(bounds.judge(&orders(&[challenger])?.get(0)), expected, "{challenger:?}");
        }
        Ok(())
    }
}
