//! The headers of a record. librdkafka hands them out by calls that rust-rdkafka wraps, but not for names of any bytes.
//!
//! **Why `unsafe`:** Kafka says that the name of a header is UTF-8, and nobody on the way checks it. rust-rdkafka 0.39 takes
//! a producer's word for it and panics where it is not so: one such record would end reading for good, at every start.
//!
//! **Why it is sound:** the list of headers belongs to the message, which is borrowed for as long as the list is read; a name
//! ends with a zero and a value has the length told with it; both are copied before the next call.

#![expect(unsafe_code, reason = "rust-rdkafka panics where a name is no UTF-8; the argument stands above")]

use std::ffi::CStr;
use std::{ptr, slice};

use bytes::Bytes;
use rdkafka::bindings as c;
use rdkafka::message::BorrowedMessage;

use crate::hop::Headers;

/// Returns the headers of `message`, in order. What of a name is no UTF-8 becomes the replacement character; values are kept
/// as they came.
pub(super) fn headers(message: &BorrowedMessage<'_>) -> Headers {
    let mut list = ptr::null_mut();
    let mut headers = Headers::new();
    // SAFETY: the message is valid while it is borrowed, and the list and all that it points to are its own. The pointers
    // are read only where the call says that there is such a header; a value may be null, a name is not.
    unsafe {
        if !is_given(c::rd_kafka_message_headers(message.ptr(), &mut list)) {
            return headers;
        }
        let (mut name, mut value, mut length) = (ptr::null(), ptr::null(), 0);
        while is_given(c::rd_kafka_header_get_all(list, headers.len(), &mut name, &mut value, &mut length)) {
            let own = CStr::from_ptr(name).to_string_lossy().into_owned();
            let bytes = (!value.is_null()).then(|| slice::from_raw_parts(value.cast::<u8>(), length));
            headers.push((own, bytes.map(Bytes::copy_from_slice)));
        }
    }
    headers
}

fn is_given(code: c::rd_kafka_resp_err_t) -> bool {
    matches!(code, c::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use alluvium_catalog::{Error, Partition, Result};
    use rdkafka::config::ClientConfig;
    use rdkafka::consumer::Consumer;
    use rdkafka::error::KafkaError;
    use rdkafka::message::OwnedHeaders;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
    use rdkafka::topic_partition_list::Offset;

    use super::super::embedded::EmbeddedBroker;
    use super::super::{client, poll};
    use super::*;

    /// Adds a header with a name that is no UTF-8 to `headers`.
    fn add_unreadable(headers: &OwnedHeaders) {
        let list = ptr::from_ref(headers.as_borrowed()).cast_mut().cast::<c::rd_kafka_headers_t>();
        // SAFETY: a borrowed list stands where librdkafka's own does, nobody else uses it now, and all bytes are copied.
        let code = unsafe { c::rd_kafka_header_add(list, c"a\xff".as_ptr(), 2, c"\xfe".as_ptr().cast(), 1) };
        assert!(is_given(code));
    }

    #[test]
    fn a_name_that_is_no_utf_8_ends_nothing() -> Result<()> {
        let broker = EmbeddedBroker::start(&[("orders", 1)])?;
        let failed = |error: KafkaError| Error::internal("the broker of the test").with_source(error);
        let producer: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", broker.bootstrap()).create().map_err(failed)?;
        let headers = OwnedHeaders::new();
        add_unreadable(&headers);
        let record = BaseRecord::<[u8], [u8]>::to("orders").payload(b"{}").headers(headers);
        producer.send(record).map_err(|(error, _)| failed(error))?;
        producer.flush(Duration::from_secs(30)).map_err(failed)?;
        let connection = broker.connection("shop".parse()?);
        let consumer = client::consumer(&connection, &client::client_config(&connection, "names")?)?;
        consumer.assign(&poll::list("orders", [(Partition(0), Offset::Beginning)])?).map_err(failed)?;
        let mut polls = std::iter::repeat_with(|| consumer.poll(Duration::from_millis(50))).take(600);
        let message = polls.find_map(|polled| polled?.ok()).ok_or_else(|| Error::internal("nothing came"))?;
        assert_eq!(super::headers(&message), [("a\u{fffd}".to_owned(), Some(Bytes::from_static(b"\xfe")))]);
        Ok(())
    }
}
