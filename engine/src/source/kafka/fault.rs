//! What an error of a running consumer means: librdkafka mends most of them by itself. Pure.

use alluvium_catalog::{Error, Topic};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// What to do about an error that `poll` returned.
#[derive(Debug)]
pub(super) enum Verdict {
    /// librdkafka goes on trying; it was logged where it was told.
    GoOn,
    /// A position is no longer in the log; the ends say which.
    OutOfRange,
    /// The topic may be gone.
    TopicGone,
    /// Reading cannot go on.
    Fail(Error),
}

/// Judges `error`, for which librdkafka gave `reason`.
pub(super) fn judge(topic: &Topic, error: &KafkaError, reason: &str) -> Verdict {
    let failed = |message: String| Verdict::Fail(Error::data(message));
    if let KafkaError::MessageConsumptionFatal(code) = error {
        return Verdict::Fail(match code {
            Code::FencedInstanceId => {
                Error::conflict(format!("another member of the group of {topic} has the same id"))
                    .with_hint("give each process a 'group.instance.id' of its own, or none")
            }
            _ => Error::unavailable(format!("the consumer of {topic} is beyond repair: {reason}")),
        });
    }
    match error.rdkafka_error_code() {
        Some(Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation) => Verdict::OutOfRange,
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition | Code::UnknownTopicId) => {
            Verdict::TopicGone
        }
        Some(code @ (Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed)) => Verdict::Fail(
            Error::invalid(format!("the brokers no longer let us read {topic}: {code}"))
                .with_hint("the ACLs must allow READ on the topic and on the consumer group"),
        ),
        Some(code @ (Code::BadMessage | Code::InvalidMessage | Code::BadCompression)) => {
            failed(format!("a record set of {topic} is damaged: {code}: {reason}"))
        }
        Some(Code::NotImplemented | Code::UnsupportedCompressionType) => {
            failed(format!("a record set of {topic} is in a form that this build cannot read: {reason}"))
        }
        Some(Code::MessageSizeTooLarge) => failed(format!("a record of {topic} is too large to fetch: {reason}")),
        _ => Verdict::GoOn,
    }
}

#[cfg(test)]
mod tests {
    use alluvium_catalog::{ErrorKind, Result};

    use super::*;

    fn check(error: &KafkaError, expected: &str) -> Result<()> {
        let verdict = match judge(&"orders".parse()?, error, "for a reason") {
            Verdict::Fail(error) => format!("{}", error.kind()),
            other => format!("{other:?}"),
        };
        assert_eq!(verdict, expected, "{error}");
        Ok(())
    }

    #[test]
    fn only_what_librdkafka_cannot_mend_ends_reading() -> Result<()> {
        check(&KafkaError::MessageConsumption(Code::AllBrokersDown), "GoOn")?;
        check(&KafkaError::MessageConsumption(Code::BrokerTransportFailure), "GoOn")?;
        check(&KafkaError::MessageConsumption(Code::PollExceeded), "GoOn")?;
        check(&KafkaError::MessageConsumption(Code::AutoOffsetReset), "OutOfRange")?;
        check(&KafkaError::MessageConsumption(Code::UnknownTopicOrPartition), "TopicGone")?;
        check(&KafkaError::MessageConsumption(Code::BadMessage), &ErrorKind::Data.to_string())?;
        check(&KafkaError::MessageConsumption(Code::GroupAuthorizationFailed), &ErrorKind::Invalid.to_string())?;
        check(&KafkaError::MessageConsumptionFatal(Code::FencedInstanceId), &ErrorKind::Conflict.to_string())
    }
}
