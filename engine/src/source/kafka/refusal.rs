//! Which of librdkafka's complaints mean that the brokers will not have us as we come, and what mends it. Pure.
//!
//! librdkafka goes on trying after each of them and would for ever; whoever waits for it asks here whether that helps. Of
//! TLS it says some things in words only, under the code of a lost connection.

use alluvium_catalog::Connection;
use rdkafka::error::RDKafkaErrorCode as Code;

/// What a human has to mend before the brokers let us in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// librdkafka's words.
    pub(super) reason: String,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Login,
    /// The brokers' certificate, which we do not trust.
    Theirs,
    /// Our certificate, which the brokers miss or do not trust.
    Ours,
}

/// The alerts of TLS by which a server complains of its client's certificate (RFC 8446, section 6): bad, unsupported,
/// revoked, expired, unknown, of an unknown authority; and missing, which TLS 1.2 calls bad.
const OF_OUR_CERTIFICATE: [u32; 7] = [42, 43, 44, 45, 46, 48, 116];

impl Refusal {
    /// Judges an error of the client, for which librdkafka gave `reason`.
    pub(super) fn of(code: Option<Code>, reason: &str) -> Option<Self> {
        let what = match code {
            Some(Code::Authentication | Code::SaslAuthenticationFailed | Code::UnsupportedSASLMechanism) => What::Login,
            Some(Code::SSL) if reason.contains("certificate verify failed") => What::Theirs,
            _ if alert(reason).is_some_and(|number| OF_OUR_CERTIFICATE.contains(&number)) => What::Ours,
            _ => return None,
        };
        Some(Self { reason: reason.to_owned(), what })
    }

    /// Says what to do about it.
    pub(super) fn hint(&self, connection: &Connection) -> &'static str {
        match self.what {
            What::Login => LOGIN,
            What::Theirs => {
                "'ssl.ca.location' must name the authority of the brokers' certificate, and 'bootstrap.servers' a host that \
                 it is for"
            }
            What::Ours if connection.options.contains_key("ssl.certificate.location") => {
                "the certificate of 'ssl.certificate.location' must be current and by an authority that the brokers trust"
            }
            What::Ours => {
                "the brokers ask for a certificate of ours: set 'ssl.certificate.location' and 'ssl.key.location' of the \
                 connection"
            }
        }
    }
}

/// What to do where it is not clear which part of the login is wrong.
pub(super) const LOGIN: &str =
    "check 'security.protocol', the 'sasl.*' and 'ssl.*' options of the connection, and the ACLs";

/// Returns the number of the TLS alert that OpenSSL speaks of.
fn alert(reason: &str) -> Option<u32> {
    let (_, after) = reason.split_once("SSL alert number ")?;
    after.split(|other: char| !other.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use alluvium_catalog::{OptionValue, Result};

    use super::*;

    fn check(code: Code, reason: &str, options: &[&str], expected: Option<&str>) -> Result<()> {
        let options: BTreeMap<_, _> =
            options.iter().map(|key| ((*key).to_owned(), OptionValue::Text("x".to_owned()))).collect();
        let connection = Connection { name: "shop".parse()?, kind: "kafka".to_owned(), options };
        let refusal = Refusal::of(Some(code), reason);
        assert_eq!(refusal.is_some(), expected.is_some(), "{code:?} {reason}");
        if let (Some(refusal), Some(expected)) = (refusal, expected) {
            assert!(refusal.hint(&connection).contains(expected), "{}", refusal.hint(&connection));
            assert_eq!(refusal.reason, reason);
        }
        Ok(())
    }

    #[test]
    fn only_what_another_try_cannot_mend_is_a_refusal() -> Result<()> {
        let missing = "ssl://b:1/1: Receive failed: error:0A00045C:SSL routines::tlsv13 alert certificate required: \
                       SSL alert number 116 (after 2ms in state APIVERSION_QUERY)";
        let unknown = "ssl://b:1/1: SSL handshake failed: error:0A000418:SSL routines::tlsv1 alert unknown ca: \
                       SSL alert number 48";
        let theirs = "ssl://b:1/1: SSL handshake failed: error:0A000086:SSL routines::certificate verify failed";
        check(Code::BrokerTransportFailure, missing, &[], Some("set 'ssl.certificate.location'"))?;
        check(Code::BrokerTransportFailure, missing, &["ssl.certificate.location"], Some("must be current"))?;
        check(Code::SSL, unknown, &["ssl.certificate.location"], Some("authority that the brokers trust"))?;
        check(Code::SSL, theirs, &[], Some("'ssl.ca.location'"))?;
        check(Code::SaslAuthenticationFailed, "no such user", &[], Some("'sasl.*'"))?;
        // A server that is going away, one that speaks no TLS, and one that speaks another version of it.
        check(Code::BrokerTransportFailure, "b:1/1: Disconnected: SSL connection closed by peer", &[], None)?;
        check(Code::SSL, "error:0A00010B:SSL routines::wrong version number", &[], None)?;
        check(Code::SSL, "error:0A00042E: tlsv1 alert protocol version: SSL alert number 70", &[], None)?;
        check(Code::BrokerTransportFailure, "SSL alert number of another kind", &[], None)
    }
}
