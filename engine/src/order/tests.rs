//! What the module `order` promises, tested.

use arrow::array::{Date32Array, Float64Array, StringArray, TimestampMicrosecondArray};
use proptest::prelude::*;

use super::*;

fn order(sequence: Option<i64>, offset: i64, partition: i32) -> OrderRef<'static> {
    let inherited = sequence.is_none();
    OrderRef { sequence: sequence.map(SequenceRef::Number), inherited, offset, partition }
}

#[test]
fn the_table_of_the_module_doc_holds() {
    let cases = [
        (order(Some(2), 1, 0), order(Some(1), 9, 9)),
        (order(Some(1), 2, 0), order(Some(1), 1, 9)),
        (order(Some(1), 1, 1), order(Some(1), 1, 0)),
        (order(None, 2, 0), order(Some(9), 1, 0)),
        (order(Some(0), 2, 0), order(None, 1, 0)),
    ];
    for (newer, older) in cases {
        assert!(newer.supersedes(&older), "{newer:?} over {older:?}");
        assert!(!older.supersedes(&newer), "{older:?} over {newer:?}");
        assert!(!newer.supersedes(&newer));
    }
}

#[test]
fn a_tombstone_keeps_rows_out_that_are_older_than_what_it_deletes() {
    let deleted = order(None, 7, 0).over(&order(Some(5), 3, 0));
    assert!(!order(Some(4), 8, 0).supersedes(&deleted), "a late older row must stay out");
    assert!(order(Some(5), 8, 0).supersedes(&deleted), "a re-insert after the delete must come in");
}

#[test]
fn a_tombstone_does_not_lose_by_the_sequence_it_took_over() {
    let late_then_deleted = order(None, 7, 0).over(&order(Some(3), 6, 0));
    let standing = order(Some(5), 2, 0);
    assert!(late_then_deleted.supersedes(&standing));
    assert_eq!(late_then_deleted.over(&standing).sequence, Some(SequenceRef::Number(5)));
}

fn check_round_trip(sequence: &[ArrayRef]) -> Result<()> {
    let form = OrderForm::try_new(sequence.iter().map(|column| column.data_type().clone()).collect())?;
    let n_rows = sequence[0].len();
    let (offsets, partitions) = (Int64Array::from_iter_values(0..n_rows as i64), Int32Array::from(vec![0; n_rows]));
    let made = form.of(sequence, None, &offsets, &partitions)?;
    let back = form.columns((0..n_rows).map(|index| made.get(index)))?;
    assert_eq!(back, sequence);
    let kept: Vec<Order> = (0..n_rows).map(|index| made.get(index).to_owned()).collect();
    assert_eq!(form.columns(kept.iter().map(Order::borrow))?, sequence);
    Ok(())
}

#[test]
fn sequences_come_back_as_columns() -> Result<()> {
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(3), None, Some(-4)]));
    let days: ArrayRef = Arc::new(Date32Array::from(vec![Some(3), None, Some(-4)]));
    let moments: ArrayRef =
        Arc::new(TimestampMicrosecondArray::from(vec![Some(i64::MAX), None, Some(-1)]).with_timezone("UTC"));
    let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("b"), None, Some("")]));
    for column in [&numbers, &days, &moments, &texts] {
        check_round_trip(std::slice::from_ref(column))?;
    }
    check_round_trip(&[numbers, texts])
}

/// Snapshots of the index hold bounds and deletes in this encoding, and arrow may change it from one release to the next. Where
/// this fails, raise the snapshot's `FORMAT`.
#[test]
fn sequences_that_snapshots_hold_are_encoded_as_before() -> Result<()> {
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![5]));
    let words: ArrayRef = Arc::new(StringArray::from(vec!["ab"]));
    let form = OrderForm::try_new(vec![DataType::Int64, DataType::Utf8])?;
    let orders = form.of(&[numbers, words], None, &vec![0].into(), &vec![0].into())?;
    let encoded = b"\x01\x80\0\0\0\0\0\0\x05\x02ab\0\0\0\0\0\0\x02";
    assert_eq!(orders.sequence(0), Some(SequenceRef::Bytes(encoded)));
    Ok(())
}

#[test]
fn rows_that_are_taken_keep_their_orders_and_may_change_their_sequences() -> Result<()> {
    for sequence in [
        Arc::new(Int64Array::from(vec![5, 6, 7])) as ArrayRef,
        Arc::new(Float64Array::from(vec![5.5, 6.5, 7.5])) as ArrayRef,
    ] {
        let form = OrderForm::try_new(vec![sequence.data_type().clone()])?;
        let inherited = BooleanArray::from(vec![false, true, false]);
        let orders = form.of(&[sequence], Some(&inherited), &vec![1, 2, 3].into(), &vec![0, 1, 2].into())?;
        let taken = orders.take(&vec![2, 1].into(), &vec![2, 0].into())?;
        assert_eq!(taken.get(0), orders.get(2));
        assert_eq!(taken.get(1), OrderRef { sequence: orders.sequence(0), ..orders.get(1) });
        assert!(taken.bytes() > 0);
    }
    Ok(())
}

proptest! {
    /// A number compares as its encoding would.
    #[test]
    fn numbers_compare_as_their_encodings(one in any::<i64>(), other in any::<i64>()) {
        let fields = vec![SortField::new(DataType::Int64)];
        let columns: [ArrayRef; 1] = [Arc::new(Int64Array::from(vec![one, other]))];
        let rows = RowConverter::new(fields).and_then(|converter| converter.convert_columns(&columns));
        let rows = rows.map_err(|error| TestCaseError::fail(error.to_string()))?;
        let numbers = SequenceRef::Number(one).cmp(&SequenceRef::Number(other));
        prop_assert_eq!(numbers, rows.row(0).data().cmp(rows.row(1).data()));
    }
}
