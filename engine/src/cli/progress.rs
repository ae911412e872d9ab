//! What a person at a terminal sees while flows run: one line a flow, refreshed a few times a second.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use alluvium_catalog::Name;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::table::grouped;
use crate::metrics::{FlowProgress, FlowState, Metrics};

/// Often enough to look alive, seldom enough to cost nothing.
const REFRESH: Duration = Duration::from_millis(200);

/// How far back the rate looks: over at least one usual batch.
const RATE_WINDOW: Duration = Duration::from_secs(3);

/// The task that draws; whoever began it ends it.
#[derive(Debug)]
pub(crate) struct Progress {
    task: JoinHandle<()>,
    stop: CancellationToken,
}

impl Progress {
    /// Begins to draw what `metrics` says of its flows into `bars`.
    pub(crate) fn start(bars: MultiProgress, metrics: Arc<Metrics>) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut lines = Lines { bars, shown: BTreeMap::new() };
            let mut ticks = tokio::time::interval(REFRESH);
            while !stopped.is_cancelled() {
                tokio::select! {
                    _ = ticks.tick() => {}
                    () = stopped.cancelled() => {}
                }
                lines.refresh(&metrics.progress());
            }
            lines.clear();
        });
        Self { task, stop }
    }

    /// Takes the lines away and joins the task.
    pub(crate) async fn close(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "progress display failed");
        }
    }
}

struct Lines {
    bars: MultiProgress,
    shown: BTreeMap<Name, Line>,
}

struct Line {
    bar: ProgressBar,
    since: Instant,
    records_then: u64,
    rate: u64,
}

impl Lines {
    fn refresh(&mut self, flows: &[FlowProgress]) {
        for flow in flows {
            let line = self.shown.entry(flow.flow.clone()).or_insert_with(|| Line::new(&self.bars));
            line.refresh(flow);
        }
    }

    fn clear(&mut self) {
        for line in self.shown.values() {
            line.bar.finish_and_clear();
        }
    }
}

impl Line {
    fn new(bars: &MultiProgress) -> Self {
        let bar = bars.add(ProgressBar::no_length());
        if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {wide_msg}") {
            bar.set_style(style);
        }
        Self { bar, since: Instant::now(), records_then: 0, rate: 0 }
    }

    fn refresh(&mut self, flow: &FlowProgress) {
        let elapsed = self.since.elapsed();
        if elapsed >= RATE_WINDOW {
            self.rate = rate(flow.records.saturating_sub(self.records_then), elapsed);
            self.since = Instant::now();
            self.records_then = flow.records;
        } else if self.rate == 0 {
            self.rate = rate(flow.records.saturating_sub(self.records_then), elapsed);
        }
        self.bar.set_message(message(flow, self.rate));
        self.bar.tick();
    }
}

fn rate(records: u64, elapsed: Duration) -> u64 {
    let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    records.saturating_mul(1_000) / millis
}

/// Returns the line of one flow.
fn message(flow: &FlowProgress, rate: u64) -> String {
    let version = flow.version.map_or_else(String::new, |version| format!("  version {version}"));
    let lag = flow.lag.map_or_else(String::new, |lag| format!("  lag {}", grouped(lag)));
    let rejects = if flow.rejects == 0 { String::new() } else { format!("  {} rejected", grouped(flow.rejects)) };
    let state = match flow.state {
        FlowState::Running => String::new(),
        state => format!("  {}", state.as_str()),
    };
    let records = grouped(flow.records);
    format!("{:<18} {records:>10} records {:>8}/s{lag}{version}{rejects}{state}", flow.flow.as_str(), grouped(rate))
}

#[cfg(test)]
mod tests {
    use alluvium_catalog::Result;

    use super::*;

    #[test]
    fn line_says_how_much_how_fast_and_how_far_behind() -> Result<()> {
        let flow = FlowProgress {
            flow: "orders_upsert".parse()?,
            state: FlowState::Running,
            records: 12_345,
            rejects: 2,
            lag: Some(4_000),
            version: Some(12),
        };
        let expected = "orders_upsert          12,345 records    4,115/s  lag 4,000  version 12  2 rejected";
        assert_eq!(message(&flow, rate(12_345, Duration::from_secs(3))), expected);
        Ok(())
    }

    #[test]
    fn rate_over_no_time_is_no_division_by_zero() {
        assert_eq!(rate(5, Duration::ZERO), 5_000);
        assert_eq!(rate(u64::MAX, Duration::from_secs(1)), u64::MAX / 1_000);
    }
}
