//! The values between stages: each owns its payload and the span that it covers.
//!
//! A stage takes one hop and returns the next. The span never changes on the way: what a batch covers is decided when
//! it is fetched, and every record of it has a fate by the time it lands.

use std::ops::Range;
use std::time::Duration;

use alluvium_catalog::{Fate, Input, Offset, Partition, Span};
use arrow::array::{ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch};
use bytes::Bytes;

use crate::key::Keys;
use crate::order::Orders;

/// Raw records in arrival order, their keys and values in one arena.
#[derive(Debug, Default)]
pub struct Records {
    arena: Vec<u8>,
    entries: Vec<Entry>,
    headers: Vec<(u32, Headers)>,
    header_bytes: usize,
}

/// The headers of one record, in order; a name may repeat, a value may be null.
pub type Headers = Vec<(String, Option<Bytes>)>;

/// Returns the bytes that `headers` take in memory: to have many costs more than what they say.
pub(crate) fn header_bytes(headers: &[(String, Option<Bytes>)]) -> usize {
    let told = |(name, value): &(String, Option<Bytes>)| name.len() + value.as_ref().map_or(0, Bytes::len);
    headers.iter().map(told).sum::<usize>() + size_of_val(headers)
}

/// Where a record stands in the arena: its key, and right behind it its value. There are as many as records, so that what
/// is optional is packed into `has`.
#[derive(Debug, Clone, Copy)]
struct Entry {
    offset: Offset,
    timestamp_ms: i64,
    key_start: usize,
    value_start: usize,
    value_end: usize,
    partition: Partition,
    has: Has,
}

/// What a record has.
#[derive(Debug, Clone, Copy)]
struct Has {
    timestamp: bool,
    key: bool,
    value: bool,
}

/// One record, borrowed from [`Records`].
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The partition.
    pub partition: Partition,
    /// The offset.
    pub offset: Offset,
    /// The record's timestamp, epoch milliseconds, where it has one.
    pub timestamp_ms: Option<i64>,
    /// The key, if not null.
    pub key: Option<&'a [u8]>,
    /// The value, if not null; a record without value is a tombstone.
    pub value: Option<&'a [u8]>,
}

impl Records {
    /// Adds a record.
    pub fn push(&mut self, record: Record<'_>, headers: Headers) {
        let Record { partition, offset, timestamp_ms, key, value } = record;
        if !headers.is_empty() {
            self.header_bytes += header_bytes(&headers);
            self.headers.push((u32::try_from(self.entries.len()).unwrap_or(u32::MAX), headers));
        }
        let key_start = self.arena.len();
        self.arena.extend_from_slice(key.unwrap_or_default());
        let value_start = self.arena.len();
        self.arena.extend_from_slice(value.unwrap_or_default());
        self.entries.push(Entry {
            offset,
            timestamp_ms: timestamp_ms.unwrap_or_default(),
            key_start,
            value_start,
            value_end: self.arena.len(),
            partition,
            has: Has { timestamp: timestamp_ms.is_some(), key: key.is_some(), value: value.is_some() },
        });
    }

    /// Makes room for `n_records` more with keys and values of `bytes` in all: an arena that grows by doubling is copied
    /// several times, and holds up to twice its bytes.
    pub fn reserve(&mut self, n_records: usize, bytes: usize) {
        self.entries.reserve(n_records);
        self.arena.reserve(bytes);
    }

    /// Returns the number of records.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Tells whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the bytes of keys and values.
    pub fn bytes(&self) -> usize {
        self.arena.len()
    }

    /// Returns the bytes that the records take in memory: of keys and values, and of headers, which may be most of them.
    pub fn bytes_held(&self) -> usize {
        self.arena.len() + self.header_bytes
    }

    /// Returns the record at `index`.
    pub fn get(&self, index: usize) -> Option<Record<'_>> {
        self.entries.get(index).map(|entry| self.borrow(entry))
    }

    /// Returns the records in arrival order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Record<'_>> {
        self.entries.iter().map(|entry| self.borrow(entry))
    }

    /// Returns the headers of the record at `index`.
    pub fn headers(&self, index: usize) -> &[(String, Option<Bytes>)] {
        let found = u32::try_from(index).ok().and_then(|index| {
            self.headers.binary_search_by_key(&index, |(at, _)| *at).ok().and_then(|place| self.headers.get(place))
        });
        found.map_or(&[], |(_, headers)| headers.as_slice())
    }

    /// Tells whether any record has headers.
    pub fn has_headers(&self) -> bool {
        !self.headers.is_empty()
    }

    /// Drops the records of partitions that `keep` refuses.
    pub fn retain_partitions(&mut self, keep: impl Fn(Partition) -> bool) {
        let mut kept_headers = Vec::new();
        let mut kept = Vec::with_capacity(self.entries.len());
        let mut headers = std::mem::take(&mut self.headers).into_iter().peekable();
        for (index, entry) in std::mem::take(&mut self.entries).into_iter().enumerate() {
            let own = headers.next_if(|(at, _)| usize::try_from(*at).is_ok_and(|at| at == index));
            if keep(entry.partition) {
                if let Some((_, own)) = own {
                    kept_headers.push((u32::try_from(kept.len()).unwrap_or(u32::MAX), own));
                }
                kept.push(entry);
            }
        }
        self.entries = kept;
        self.header_bytes = kept_headers.iter().map(|(_, own)| header_bytes(own)).sum();
        self.headers = kept_headers;
    }

    fn borrow(&self, entry: &Entry) -> Record<'_> {
        let slice = |range: Range<usize>| self.arena.get(range).unwrap_or_default();
        let Entry { offset, timestamp_ms, key_start, value_start, value_end, partition, has } = *entry;
        Record {
            partition,
            offset,
            timestamp_ms: has.timestamp.then_some(timestamp_ms),
            key: has.key.then(|| slice(key_start..value_start)),
            value: has.value.then(|| slice(value_start..value_end)),
        }
    }
}

/// Out of the source: raw records and the span they cover.
#[derive(Debug)]
pub struct Fetched {
    /// The records, per partition in offset order.
    pub records: Records,
    /// What they cover; may cover positions without records (gaps at the end of a partition).
    pub span: Span,
    /// How long the batch was open.
    pub took: Duration,
}

/// Why a record cannot become a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RejectClass {
    /// The value is not the JSON that the source declares.
    Malformed,
    /// A value does not fit its column's type, or is a date or time outside the years 1 to 9999.
    TypeMismatch,
    /// A NOT NULL column, key or SEQUENCE BY is null, or would be read as NULL: an empty partition value.
    NullViolation,
    /// Longer than `record.max.bytes`.
    TooLarge,
    /// Deeper than `json.max.depth`.
    TooDeep,
    /// A tombstone where the flow has no use for one, or whose key cannot be read or computed.
    Tombstone,
    /// The flow's SQL fails on the record.
    Transform,
}

impl RejectClass {
    /// Returns the word that dead letters and metrics use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TypeMismatch => "type_mismatch",
            Self::NullViolation => "null_violation",
            Self::TooLarge => "too_large",
            Self::TooDeep => "too_deep",
            Self::Tombstone => "tombstone",
            Self::Transform => "transform",
        }
    }
}

/// A record that cannot become a row, whole, with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// The partition.
    pub partition: Partition,
    /// The offset.
    pub offset: Offset,
    /// The record's timestamp, epoch milliseconds.
    pub timestamp_ms: Option<i64>,
    /// The raw key.
    pub key: Option<Bytes>,
    /// The raw value.
    pub value: Option<Bytes>,
    /// The headers.
    pub headers: Headers,
    /// What kind of fault it is.
    pub class: RejectClass,
    /// What is wrong, where, in words.
    pub message: String,
}

impl Reject {
    /// Returns the record at `index` as a reject.
    pub fn new(records: &Records, index: usize, class: RejectClass, message: impl Into<String>) -> Option<Self> {
        let record = records.get(index)?;
        Some(Self {
            partition: record.partition,
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            key: record.key.map(Bytes::copy_from_slice),
            value: record.value.map(Bytes::copy_from_slice),
            headers: records.headers(index).to_vec(),
            class,
            message: message.into(),
        })
    }
}

/// Out of decode: rows of the source, tombstones and rejects. Every record fetched is in exactly one of them.
#[derive(Debug)]
pub struct Decoded {
    /// The records, for rejects that later stages find.
    pub records: Records,
    /// Rows of the flow's source schema, then `_alluvium_partition` and `_alluvium_offset`.
    pub rows: RecordBatch,
    /// The index into `records` of each row.
    pub row_records: Vec<u32>,
    /// Tombstones of AUTO CDC flows: the same columns as `rows`, all nullable, filled from key and metadata.
    pub tombstones: Option<RecordBatch>,
    /// The index into `records` of each tombstone.
    pub tombstone_records: Vec<u32>,
    /// What cannot become a row.
    pub rejects: Vec<Reject>,
    /// What the batch covers.
    pub span: Span,
    /// Time spent so far.
    pub spent: Spent,
}

/// Time that a batch spent in the stages so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spent {
    /// In the source, until the batch closed.
    pub fetch: Duration,
    /// In decode.
    pub decode: Duration,
    /// In the flow's SQL.
    pub transform: Duration,
    /// In write.
    pub write: Duration,
}

/// Where changes come from and stand; all columns have a value a row.
#[derive(Debug)]
pub struct ChangeOrder {
    /// The partition of each row's record.
    pub partitions: Int32Array,
    /// The offset of each row's record.
    pub offsets: Int64Array,
    /// Upserts: the values of SEQUENCE BY, one array a field; NULL in tombstones that have none and took none over.
    pub sequence: Vec<ArrayRef>,
    /// Upserts: whether the row is a tombstone without a sequence of its own.
    pub inherited: Option<BooleanArray>,
    /// Upserts: the offset of the last such tombstone of the key that came before the row, if one did: what the table
    /// holds from before it is deleted even where the row itself is late.
    pub after_delete: Option<Int64Array>,
}

/// The keys and orders of a batch of upserts, in the form that they are compared in.
#[derive(Debug, Clone)]
pub struct Keyed {
    /// The key of each row.
    pub keys: Keys,
    /// The order of each row.
    pub orders: Orders,
}

/// Out of transform: at most one change a key for upserts, or rows to add, with the position each came from.
#[derive(Debug)]
pub struct Changes {
    /// The table's declared columns.
    pub rows: RecordBatch,
    /// Where each row stands in the order of its key.
    pub order: ChangeOrder,
    /// Upserts: the same keys and orders, compared already; the writer makes them where they are missing.
    pub keyed: Option<Keyed>,
    /// Upserts: whether the row deletes its key.
    pub deletes: Option<BooleanArray>,
    /// What cannot become a row.
    pub rejects: Vec<Reject>,
    /// Tables that were looked up.
    pub lookups: Vec<Input>,
    /// Fates decided so far; `applied` counts the records that `rows` stand for.
    pub fate: Fate,
    /// What the batch covers.
    pub span: Span,
    /// Time spent so far.
    pub spent: Spent,
}
