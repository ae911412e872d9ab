//! Which cluster and which topic records came from, so that positions are never taken for those of another log.
//!
//! Offsets mean nothing without the log that they count. A table's positions are bound to the cluster and the topic that
//! its newest commit names; what either side does not know is not compared. Pure.

use alluvium_catalog::{Error, Input, Name, Result, Topic};

/// Which cluster and topic a source reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceIdentity {
    /// The cluster's id.
    pub cluster: Option<String>,
    /// The topic's id; a topic that is created anew under its name has another.
    pub topic_id: Option<String>,
}

impl SourceIdentity {
    /// Returns what `inputs` say of the cluster and the topic that they were read from, if they name `topic`.
    pub fn of_inputs(inputs: &[Input], topic: &Topic) -> Option<Self> {
        inputs.iter().find_map(|input| match input {
            Input::Kafka { cluster, topic: read, topic_id, .. } if read == topic => {
                Some(Self { cluster: cluster.clone(), topic_id: topic_id.clone() })
            }
            _ => None,
        })
    }

    /// Checks that the positions that `flow` reached in `before` are positions in this.
    ///
    /// # Errors
    /// `Data`, naming what changed, both ids and the ways out.
    pub fn check_follows(&self, before: &Self, flow: &Name, topic: &Topic) -> Result<()> {
        let changed = |now: &Option<String>, before: &Option<String>| match (now, before) {
            (Some(now), Some(before)) if now != before => Some((now.clone(), before.clone())),
            _ => None,
        };
        // In another cluster every topic has another id: the cluster is what changed.
        let message = if let Some((now, before)) = changed(&self.cluster, &before.cluster) {
            format!("the brokers of topic {topic} are cluster {now}, but the table's positions are of cluster {before}")
        } else if let Some((now, before)) = changed(&self.topic_id, &before.topic_id) {
            format!(
                "topic {topic} was created anew: its id is {now}, but the table's positions are of topic id {before}"
            )
        } else {
            return Ok(());
        };
        Err(Error::data(message).with_hint(format!(
            "nothing was read. Point the connection at the right cluster; or give the flow a new name or table, and say \
             with scan.startup.mode where it begins; or, where the offsets mean the same records, start it once with \
             --accept-source {flow}"
        )))
    }
}

#[cfg(test)]
mod tests {
    use alluvium_catalog::ErrorKind;

    use super::*;

    fn check(
        now: (Option<&str>, Option<&str>),
        before: (Option<&str>, Option<&str>),
        said: Option<&str>,
    ) -> Result<()> {
        let identity = |(cluster, topic_id): (Option<&str>, Option<&str>)| SourceIdentity {
            cluster: cluster.map(str::to_owned),
            topic_id: topic_id.map(str::to_owned),
        };
        let found = identity(now).check_follows(&identity(before), &"orders_upsert".parse()?, &"orders".parse()?).err();
        assert_eq!(found.as_ref().map(Error::kind), said.map(|_| ErrorKind::Data), "{now:?} after {before:?}");
        let text = found.map(|error| format!("{} {}", error.message(), error.hint().unwrap_or_default()));
        assert!(text.unwrap_or_default().contains(said.unwrap_or_default()), "{now:?} after {before:?}");
        Ok(())
    }

    #[test]
    fn only_what_both_know_is_compared() -> Result<()> {
        check((Some("c"), Some("t")), (Some("c"), Some("t")), None)?;
        check((None, None), (Some("c"), Some("t")), None)?;
        check((Some("c"), Some("t")), (None, None), None)?;
        check((Some("d"), Some("u")), (Some("c"), Some("t")), Some("are cluster d, but"))?;
        check((Some("c"), Some("u")), (Some("c"), Some("t")), Some("topic orders was created anew: its id is u"))?;
        check((None, Some("u")), (Some("c"), Some("t")), Some("--accept-source orders_upsert"))
    }
}
