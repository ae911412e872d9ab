//! What the operating system says of this process and of the memory that it may take.

/// Returns the bytes of this process that are in RAM, where `/proc` tells.
pub(super) fn resident_bytes() -> Option<u64> {
    parse_status(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// Returns the bytes of memory that the machine has, or that the control group may take where that is less; `None` where
/// neither is told.
pub(crate) fn memory_bytes() -> Option<u64> {
    let read = |path| std::fs::read_to_string(path).ok();
    let machine = read("/proc/meminfo").and_then(|info| parse_kibibytes(&info, "MemTotal:"));
    // Version 2 of control groups, and 1; without a limit the one says `max`, the other some number near 2^63.
    let groups = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limits = groups.into_iter().filter_map(|path| read(path)?.trim().parse().ok());
    limits.chain(machine).min()
}

/// Reads `VmRSS:   1234 kB` (proc_pid_status(5)).
fn parse_status(status: &str) -> Option<u64> {
    parse_kibibytes(status, "VmRSS:")
}

fn parse_kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_memory_for_what_this_process_takes() {
        if let (Some(all), Some(taken)) = (memory_bytes(), resident_bytes()) {
            assert!(taken < all, "{taken} of {all} bytes");
        }
    }

    #[test]
    fn status_gives_bytes_and_nonsense_gives_none() {
        assert_eq!(parse_status("Name:\talluvium\nVmRSS:\t   1234 kB\n"), Some(1_263_616));
        for status in ["", "VmRSS:", "VmRSS: many kB", "VmRSS: 12 MB"] {
            assert_eq!(parse_status(status), None, "{status:?}");
        }
    }
}
