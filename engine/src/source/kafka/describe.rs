//! The id of a topic. librdkafka tells it by its admin API; rust-rdkafka 0.39 has no safe call for that.
//!
//! **Why `unsafe`:** a topic that was deleted and made again under its name, and has grown past the
//! table's position, cannot be told from the old one by anything but its id. Without it the flow goes on among records
//! that it never read (`tests/identity.rs` shows the halt). Beside the [`headers`](super::headers) of records, no other part
//! of librdkafka is called past rust-rdkafka.
//!
//! **Why it is sound:** every object that is made is owned by an [`Owned`], which frees it once, by its own destructor, in
//! the reverse order of making; what is borrowed from an event is read before the event is freed and not kept; the
//! client outlives the call, which borrows it; the answer comes over a queue of the call's own, so nothing calls back.

#![expect(unsafe_code, reason = "rust-rdkafka has no safe call that tells a topic's id; the argument stands above")]

use std::ffi::CString;
use std::ptr::{self, NonNull};
use std::time::Duration;

use alluvium_catalog::Topic;
use rdkafka::bindings as c;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};

/// Returns the id of `topic` as Kafka's tools write it, asking `broker` for at most `limit`; `None` where it knows no ids.
///
/// # Errors
/// What the broker says of the topic, or that it did not answer in time.
pub(super) fn topic_id<C: ClientContext>(
    client: &Client<C>,
    topic: &Topic,
    broker: i32,
    limit: Duration,
) -> KafkaResult<Option<String>> {
    let event = match describe(client, topic, broker, limit) {
        Ok(event) => event,
        Err(RDKafkaErrorCode::UnsupportedFeature) => return Ok(None),
        Err(code) => return Err(KafkaError::Global(code)),
    };
    let bits = id_in(&event).map_err(KafkaError::Global)?;
    Ok((bits != 0).then(|| text_of(bits)))
}

/// A C object that is freed when it is dropped.
struct Owned<T> {
    object: NonNull<T>,
    free: unsafe extern "C" fn(*mut T),
}

impl<T> Owned<T> {
    /// Takes over `object`, or says that there is no memory for it.
    ///
    /// # Safety
    /// `object` is null, or valid and freed by nobody else, and `free` is its destructor.
    unsafe fn take(object: *mut T, free: unsafe extern "C" fn(*mut T)) -> Result<Self, RDKafkaErrorCode> {
        NonNull::new(object).map(|object| Self { object, free }).ok_or(RDKafkaErrorCode::Fail)
    }

    fn pointer(&self) -> *mut T {
        self.object.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: `take` was promised a valid object of which this is the only owner, and its own destructor.
        unsafe { (self.free)(self.object.as_ptr()) }
    }
}

/// Asks the broker and returns its answer.
fn describe<C: ClientContext>(
    client: &Client<C>,
    topic: &Topic,
    broker: i32,
    limit: Duration,
) -> Result<Owned<c::rd_kafka_event_t>, RDKafkaErrorCode> {
    let name = CString::new(topic.as_str()).map_err(|_| RDKafkaErrorCode::InvalidTopic)?;
    let mut names = [name.as_ptr()];
    let millis = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
    let handle = client.native_ptr();
    // SAFETY: `handle` is valid while `client` is borrowed. The collection copies the names. The options and the
    // collection are read by the call alone; the queue stays until after the poll, and an answer that comes later finds
    // it closed and is dropped by librdkafka.
    unsafe {
        let operation = c::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        let options = Owned::take(c::rd_kafka_AdminOptions_new(handle, operation), c::rd_kafka_AdminOptions_destroy)?;
        // What is refused here leaves librdkafka's own choice, and the poll below is bounded in any case.
        c::rd_kafka_AdminOptions_set_broker(options.pointer(), broker, ptr::null_mut(), 0);
        c::rd_kafka_AdminOptions_set_request_timeout(options.pointer(), millis, ptr::null_mut(), 0);
        let topics = c::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        let topics = Owned::take(topics, c::rd_kafka_TopicCollection_destroy)?;
        let queue = Owned::take(c::rd_kafka_queue_new(handle), c::rd_kafka_queue_destroy)?;
        c::rd_kafka_DescribeTopics(handle, topics.pointer(), options.pointer(), queue.pointer());
        let event = c::rd_kafka_queue_poll(queue.pointer(), millis);
        Owned::take(event, c::rd_kafka_event_destroy).map_err(|_| RDKafkaErrorCode::OperationTimedOut)
    }
}

/// Returns the id in the answer about one topic; 0 stands for none.
fn id_in(event: &Owned<c::rd_kafka_event_t>) -> Result<u128, RDKafkaErrorCode> {
    // SAFETY: `event` is valid. All that is read belongs to it and is not kept past this function; each pointer is checked
    // before it is followed, and `first` is read only where the array has an element.
    unsafe {
        check(c::rd_kafka_event_error(event.pointer()))?;
        let result = c::rd_kafka_event_DescribeTopics_result(event.pointer());
        if result.is_null() {
            return Err(RDKafkaErrorCode::BadMessage);
        }
        let mut n_topics = 0;
        let first = c::rd_kafka_DescribeTopics_result_topics(result, &mut n_topics);
        if first.is_null() || n_topics == 0 || (*first).is_null() {
            return Err(RDKafkaErrorCode::UnknownTopic);
        }
        let described = *first;
        check(c::rd_kafka_error_code(c::rd_kafka_TopicDescription_error(described)))?;
        let id = c::rd_kafka_TopicDescription_topic_id(described);
        if id.is_null() {
            return Ok(0);
        }
        let half = |bits: i64| u128::from(bits.cast_unsigned());
        Ok(half(c::rd_kafka_Uuid_most_significant_bits(id)) << 64 | half(c::rd_kafka_Uuid_least_significant_bits(id)))
    }
}

fn check(code: c::rd_kafka_resp_err_t) -> Result<(), RDKafkaErrorCode> {
    match code {
        c::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        other => Err(other.into()),
    }
}

/// Returns an id as Kafka's tools write it: base64 for URLs, without padding.
fn text_of(bits: u128) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    // 21 digits of six bits each, and the last two bits at the high end of one more.
    let last = ((bits & 0b11) << 4) as usize;
    let digits = (0..21).map(|place| ((bits >> (122 - 6 * place)) & 0b11_1111) as usize);
    digits.chain([last]).map(|digit| char::from(DIGITS[digit])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_written_as_kafkas_tools_write_them() {
        assert_eq!(text_of(1), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(text_of(u128::MAX), "_____________________w");
        assert_eq!(text_of(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10), "AQIDBAUGBwgJCgsMDQ4PEA");
    }
}
