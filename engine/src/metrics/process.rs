//! What the operating system says of this process.

/// Returns the bytes of this process that are in RAM, where `/proc` tells.
pub(super) fn resident_bytes() -> Option<u64> {
    parse_status(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// Reads `VmRSS:   1234 kB` (proc_pid_status(5)).
fn parse_status(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_gives_bytes_and_nonsense_gives_none() {
        assert_eq!(parse_status("Name:\talluvium\nVmRSS:\t   1234 kB\n"), Some(1_263_616));
        for status in ["", "VmRSS:", "VmRSS: many kB", "VmRSS: 12 MB"] {
            assert_eq!(parse_status(status), None, "{status:?}");
        }
    }
}
