//! Which brokers cannot be reached, so that logs tell each change once and not each of librdkafka's tries. Pure.

use std::collections::BTreeSet;

/// The brokers that were lost and not found again, by librdkafka's names.
#[derive(Debug, Default)]
pub(super) struct Reach {
    lost: BTreeSet<String>,
}

impl Reach {
    /// Notes what `reason` says of a broker, which stands at its beginning; tells whether the broker was not lost before.
    pub(super) fn lose(&mut self, reason: &str) -> bool {
        // "3/3 brokers are down" names none, and is a state of its own.
        let broker = reason.split_once(": ").map_or(Self::ALL, |(broker, _)| broker);
        self.lost.insert(broker.to_owned())
    }

    /// Notes that `broker` answers; tells whether it was lost before.
    pub(super) fn find(&mut self, broker: &str) -> bool {
        self.lost.remove(Self::ALL);
        self.lost.remove(broker)
    }

    /// What stands for all brokers together; no broker has this name.
    const ALL: &str = "*";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_told_once() {
        let mut reach = Reach::default();
        let (refused, silent) = ("a:9092/1: Connect to ipv4#1.2.3.4:9092 failed", "a:9092/1: timed out");
        let told = [refused, silent, "b:9092/2: down", "2/2 brokers are down", "2/2 brokers are down"];
        assert_eq!(told.map(|reason| reach.lose(reason)), [true, false, true, true, false]);
        assert_eq!(["a:9092/1", "a:9092/1", "c:9092/3"].map(|broker| reach.find(broker)), [true, false, false]);
        assert_eq!(
            [refused, "b:9092/2: down", "2/2 brokers are down"].map(|reason| reach.lose(reason)),
            [true, false, true]
        );
    }
}
