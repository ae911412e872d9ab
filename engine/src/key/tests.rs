//! What the module `key` promises, tested: forms are whole keys, and equal exactly when the values are.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{
    BinaryArray, BooleanArray, Date32Array, Decimal128Array, Int8Array, Int16Array, Int32Array, Int64Array,
    StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::TimeUnit;
use proptest::prelude::*;

use super::*;

/// Packs columns of distinct keys, and checks that forms and most hashes differ and that taking keeps both.
fn check(columns: &[ArrayRef], is_of_form: impl Fn(KeyRef<'_>) -> bool) -> Result<()> {
    let form = KeyForm::try_new(columns.iter().map(|column| column.data_type().clone()).collect())?;
    let keys = form.pack(columns)?;
    let n_rows = columns[0].len();
    assert_eq!(keys.len(), n_rows);
    let forms: HashSet<_> = (0..n_rows).map(|index| format!("{:?}", keys.get(index))).collect();
    assert_eq!(forms.len(), n_rows, "two keys have one form: {keys:?}");
    assert!((0..n_rows).all(|index| is_of_form(keys.get(index))), "{keys:?}");
    let hashes: HashSet<_> = keys.hashes().iter().collect();
    assert_eq!(hashes.len(), n_rows, "hashes of so few keys never meet");
    let last = keys.take(&[u32::try_from(n_rows - 1).unwrap_or_default()]);
    assert_eq!((last.get(0), last.hashes()[0]), (keys.get(n_rows - 1), keys.hashes()[n_rows - 1]));
    assert_eq!(keys.get(0).hash(&KeyHashing::of_process()), keys.hashes()[0]);
    Ok(())
}

fn is_narrow(key: KeyRef<'_>) -> bool {
    matches!(key, KeyRef::Narrow(_))
}

fn is_wide(key: KeyRef<'_>) -> bool {
    matches!(key, KeyRef::Wide(_))
}

fn is_bytes(key: KeyRef<'_>) -> bool {
    matches!(key, KeyRef::Bytes(_))
}

fn decimals(values: &[i128], precision: u8) -> Result<ArrayRef> {
    let decimals = Decimal128Array::from(values.to_vec()).with_precision_and_scale(precision, 2);
    Ok(Arc::new(decimals.map_err(unreadable)?))
}

#[test]
fn every_type_of_key_has_its_form() -> Result<()> {
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![0, -1, 1, i64::MAX, i64::MIN]));
    let small: ArrayRef = Arc::new(Int32Array::from(vec![0, -1, 1, i32::MAX, i32::MIN]));
    let short: ArrayRef = Arc::new(Int16Array::from(vec![0, -1, 1, i16::MAX, i16::MIN]));
    let tiny: ArrayRef = Arc::new(Int8Array::from(vec![0, -1, 1, i8::MAX, i8::MIN]));
    let days: ArrayRef = Arc::new(Date32Array::from(vec![5, 4, 3, 2, 1]));
    let moments: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![5, 4, 3, 2, -1]).with_timezone("UTC"));
    let wall_clock: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![5, 4, 3, 2, -1]));
    let bits: ArrayRef = Arc::new(BooleanArray::from(vec![true, false]));
    let words: ArrayRef = Arc::new(StringArray::from(vec!["", "\0", "a", "a\0", "1234567"]));
    let long: ArrayRef = Arc::new(StringArray::from(vec![
        "12345678",
        "12345678 ",
        "\0\0\0\0\0\0\0\0",
        "long, long",
        "x".repeat(36).as_str(),
    ]));
    let blobs: ArrayRef = Arc::new(BinaryArray::from(vec![&b""[..], b"\xff", b"\xff\xff"]));
    for column in [&numbers, &small, &short, &tiny, &bits, &days, &moments, &wall_clock, &words, &blobs] {
        check(std::slice::from_ref(column), is_narrow)?;
    }
    check(&[decimals(&[0, -1, 1], 18)?], is_narrow)?;
    check(&[Arc::clone(&small), Arc::clone(&days)], is_narrow)?;
    check(&[decimals(&[0, -1, 1, i128::MAX / 4], 38)?], is_wide)?;
    check(&[Arc::clone(&numbers), Arc::clone(&moments)], is_wide)?;
    check(&[Arc::clone(&numbers), Arc::clone(&small)], is_wide)?;
    check(&[Arc::clone(&numbers), Arc::clone(&moments), Arc::clone(&small)], is_bytes)?;
    check(std::slice::from_ref(&long), is_bytes)?;
    check(&[words, numbers], is_bytes)
}

/// Snapshots of the index hold these forms, and arrow may encode rows otherwise from one release to the next: keys of an older
/// snapshot would then be found by nobody, and each update be a second row. Where this fails, raise the snapshot's `FORMAT`.
#[test]
fn forms_that_snapshots_hold_are_those_of_before() -> Result<()> {
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![5, -1]));
    let words: ArrayRef = Arc::new(StringArray::from(vec!["ab", ""]));
    let form = |columns: &[ArrayRef]| -> Result<Keys> {
        KeyForm::try_new(columns.iter().map(|column| column.data_type().clone()).collect())?.pack(columns)
    };
    let both = form(&[Arc::clone(&numbers), Arc::clone(&words)])?;
    assert_eq!(both.get(0), KeyRef::Bytes(b"\x01\x80\0\0\0\0\0\0\x05\x02ab\0\0\0\0\0\0\x02"));
    assert_eq!(both.get(1), KeyRef::Bytes(b"\x01\x7f\xff\xff\xff\xff\xff\xff\xff\x01"));
    let long: ArrayRef = Arc::new(StringArray::from(vec!["0123456789"]));
    let blocks = form(&[long, new_null_array(&DataType::Int64, 1)])?;
    assert_eq!(blocks.get(0), KeyRef::Bytes(b"\x0201234567\xff89\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\0\0"));
    assert_eq!(form(&[numbers])?.get(1), KeyRef::Narrow(u64::MAX));
    assert_eq!(form(&[words])?.get(0), KeyRef::Narrow(0x0261_6200_0000_0000));
    Ok(())
}

#[test]
fn a_uuid_is_wide_in_its_canonical_text_only_and_other_texts_are_other_keys() -> Result<()> {
    let canonical = "0199c0de-1234-7abc-8def-00112233aabb";
    let upper = canonical.to_uppercase();
    let (plain, shifted) = (canonical.replace('-', ""), "0199c0de1-234-7abc-8def-00112233aabb");
    let texts: ArrayRef = Arc::new(StringArray::from(vec![canonical, &upper, &plain, shifted]));
    let form = KeyForm::try_new(vec![DataType::Utf8])?;
    let keys = form.pack(&[texts])?;
    assert!(is_wide(keys.get(0)));
    for index in 1..4 {
        assert!(is_bytes(keys.get(index)), "{index}");
    }
    assert_ne!(keys.get(1), keys.get(2));
    Ok(())
}

#[test]
fn keys_with_a_null_are_keys_of_their_own() -> Result<()> {
    let one: ArrayRef = Arc::new(Int32Array::from(vec![Some(0), None, Some(0), None]));
    let other: ArrayRef = Arc::new(Int32Array::from(vec![Some(0), Some(0), None, None]));
    check(&[one, other], |_| true)?;
    let form = KeyForm::try_new(vec![DataType::Utf8])?;
    let null = form.pack(&[new_null_array(&DataType::Utf8, 1)])?;
    let empty = form.pack(&[Arc::new(StringArray::from(vec![""]))])?;
    assert_ne!(null.get(0), empty.get(0));
    Ok(())
}

#[test]
fn a_column_of_another_layout_has_the_same_keys() -> Result<()> {
    let form = KeyForm::try_new(vec![DataType::Utf8, DataType::Timestamp(TimeUnit::Microsecond, None)])?;
    let words: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
    let moments: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![7]));
    let viewed = cast(&words, &DataType::Utf8View).map_err(unreadable)?;
    assert_eq!(form.pack(&[words, Arc::clone(&moments)])?.get(0), form.pack(&[viewed, moments])?.get(0));
    Ok(())
}

#[test]
fn slices_of_columns_begin_where_they_say() -> Result<()> {
    let numbers = Int64Array::from(vec![1, 2, 3, 4]);
    let form = KeyForm::try_new(vec![DataType::Int64])?;
    let keys = form.pack(&[Arc::new(numbers.slice(2, 2))])?;
    assert_eq!((keys.len(), keys.get(0)), (2, KeyRef::Narrow(3)));
    Ok(())
}

#[test]
fn a_decimal_beyond_its_precision_is_refused() -> Result<()> {
    let column: ArrayRef =
        Arc::new(Decimal128Array::from(vec![i128::MAX]).with_precision_and_scale(18, 0).map_err(unreadable)?);
    let form = KeyForm::try_new(vec![column.data_type().clone()])?;
    assert!(form.pack(&[column]).is_err_and(|error| error.to_string().contains("more digits")));
    Ok(())
}

#[test]
fn a_value_that_does_not_fit_its_type_is_refused_and_not_taken_for_null() -> Result<()> {
    let form = KeyForm::try_new(vec![DataType::Int32])?;
    let numbers = |number: i64| -> [ArrayRef; 1] { [Arc::new(Int64Array::from(vec![number]))] };
    assert_eq!(form.pack(&numbers(7))?.get(0), KeyRef::Narrow(7));
    assert!(form.pack(&numbers(1 << 40)).is_err_and(|error| error.to_string().contains("cannot read keys")));
    Ok(())
}

proptest! {
    #[test]
    fn strings_have_one_form_if_and_only_if_they_are_equal(texts in prop::collection::vec("[a-f0-9-]{0,9}", 1..40)) {
        let form = KeyForm::try_new(vec![DataType::Utf8]).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let column: ArrayRef = Arc::new(StringArray::from(texts.clone()));
        let keys = form.pack(&[column]).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let mut seen: HashMap<&str, KeyRef<'_>> = HashMap::new();
        for (index, text) in texts.iter().enumerate() {
            let known = seen.entry(text).or_insert_with(|| keys.get(index));
            prop_assert_eq!(*known, keys.get(index));
        }
        let forms: HashSet<String> = seen.values().map(|form| format!("{form:?}")).collect();
        prop_assert_eq!(forms.len(), seen.len());
    }
}
