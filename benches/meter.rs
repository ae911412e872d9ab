//! What a measurement spent: wall time, CPU time and memory of this process, and CPU time of everything else.
//!
//! The figures come from `/proc` (proc_pid_stat(5), proc_stat(5)), in ticks of 10 ms: a measurement worth reporting
//! takes a second or more.

use std::time::Instant;

use alluvium_catalog::{Error, Result};
use serde::{Deserialize, Serialize};

/// Ticks a second in `/proc`, whatever the kernel's own clock does: USER_HZ is 100 on every Linux that we build for.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a measurement spent.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Spent {
    /// Time on the wall.
    pub wall_seconds: f64,
    /// User and system time of all threads of the process.
    pub cpu_seconds: f64,
    /// What all other processes of the machine used meanwhile: brokers, stores, neighbours.
    pub others_cpu_seconds: f64,
    /// The most memory that the process ever held (`VmHWM`).
    pub rss_peak_bytes: u64,
}

/// Begins a measurement.
#[derive(Debug)]
pub struct Meter {
    begun: Instant,
    own_ticks: u64,
    machine_ticks: u64,
}

impl Meter {
    /// Begins.
    ///
    /// # Errors
    /// `Unavailable` where `/proc` does not tell.
    pub fn start() -> Result<Self> {
        Ok(Self { begun: Instant::now(), own_ticks: own_ticks()?, machine_ticks: machine_ticks()? })
    }

    /// Ends.
    ///
    /// # Errors
    /// `Unavailable` where `/proc` does not tell.
    pub fn stop(self) -> Result<Spent> {
        let wall_seconds = self.begun.elapsed().as_secs_f64();
        let own = own_ticks()?.saturating_sub(self.own_ticks);
        let machine = machine_ticks()?.saturating_sub(self.machine_ticks);
        Ok(Spent {
            wall_seconds,
            cpu_seconds: own as f64 / TICKS_PER_SECOND,
            others_cpu_seconds: machine.saturating_sub(own) as f64 / TICKS_PER_SECOND,
            rss_peak_bytes: rss_peak_bytes()?,
        })
    }
}

/// Returns the most memory that this process ever held.
///
/// # Errors
/// `Unavailable` where `/proc` does not tell.
pub fn rss_peak_bytes() -> Result<u64> {
    read("/proc/self/status", |status| parse_kibibytes(status, "VmHWM:"))
}

/// Lets the most memory be what the process holds now.
///
/// # Errors
/// `Unavailable` where `/proc` does not take it (proc_pid_clear_refs(5)).
pub fn forget_peak() -> Result<()> {
    std::fs::write("/proc/self/clear_refs", "5")
        .map_err(|cause| Error::unavailable("cannot reset the peak of the memory").with_source(cause))
}

/// Returns the memory that this process holds now.
///
/// # Errors
/// `Unavailable` where `/proc` does not tell.
pub fn rss_bytes() -> Result<u64> {
    read("/proc/self/status", |status| parse_kibibytes(status, "VmRSS:"))
}

/// Returns the part of [`rss_bytes`] that no file stands behind: what was allocated, and stacks. The rest is the program
/// itself, whose pages come as they are run.
///
/// # Errors
/// `Unavailable` where `/proc` does not tell.
pub fn rss_anonymous_bytes() -> Result<u64> {
    read("/proc/self/status", |status| parse_kibibytes(status, "RssAnon:"))
}

fn own_ticks() -> Result<u64> {
    read("/proc/self/stat", parse_own)
}

fn machine_ticks() -> Result<u64> {
    read("/proc/stat", parse_machine)
}

fn read(path: &str, parse: fn(&str) -> Option<u64>) -> Result<u64> {
    let text = std::fs::read_to_string(path)
        .map_err(|cause| Error::unavailable(format!("cannot read {path}")).with_source(cause))?;
    parse(&text).ok_or_else(|| Error::data(format!("{path} does not have its usual form")))
}

/// User and system time. The program's name, in parentheses, may hold anything; what follows it begins with field 3.
fn parse_own(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

/// All time but idle, waiting for disks, and what a hypervisor took.
fn parse_machine(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Vec<u64> = line.split_ascii_whitespace().map_while(|field| field.parse().ok()).collect();
    let [user, nice, system, _idle, _waiting, interrupts, soft_interrupts, ..] = fields[..] else { return None };
    Some(user + nice + system + interrupts + soft_interrupts)
}

fn parse_kibibytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_read_as_their_manual_says() {
        let stat = "7 (a) b) R 1 2 3 4 5 6 7 8 9 10 1200 34 0 0 20 0 1 0 5 6 7";
        assert_eq!(parse_own(stat), Some(1_234));
        assert_eq!(parse_machine("cpu  10 1 5 1000 7 2 3 9 0 0\ncpu0 1 1 1 1\n"), Some(21));
        assert_eq!(parse_kibibytes("VmPeak:\t9 kB\nVmHWM:\t      12 kB\n", "VmHWM:"), Some(12_288));
        for text in ["", "cpu  1 2", "7 (x) R 1"] {
            assert_eq!((parse_own(text), parse_machine(text)), (None, None), "{text:?}");
            assert_eq!(parse_kibibytes(text, "VmHWM:"), None, "{text:?}");
        }
    }

    #[test]
    fn work_is_seen_in_wall_and_cpu_time() -> Result<()> {
        let meter = Meter::start()?;
        let mut sum = 0_u64;
        while meter.begun.elapsed().as_millis() < 100 {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(7));
        }
        let spent = meter.stop()?;
        assert!(spent.wall_seconds >= 0.1 && spent.cpu_seconds > 0.0 && spent.rss_peak_bytes > 0, "{spent:?}");
        Ok(())
    }
}
