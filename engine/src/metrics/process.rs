//! What the operating system says of this process and of the memory that it may take.

/// Where the control groups of version 2 stand, and the file that limits the memory of one.
const VERSION_2: (&str, &str) = ("/sys/fs/cgroup", "memory.max");

/// The same for those of version 1.
const VERSION_1: (&str, &str) = ("/sys/fs/cgroup/memory", "memory.limit_in_bytes");

/// Returns the bytes of this process that are in RAM, where `/proc` tells.
pub(super) fn resident_bytes() -> Option<u64> {
    parse_status(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// Returns the bytes of memory that the machine has, or that the process's control group or one above it may take where
/// that is less; `None` where neither is told.
pub(crate) fn memory_bytes() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let machine = read("/proc/meminfo").and_then(|info| parse_kibibytes(&info, "MemTotal:"));
    let paths = limit_paths(&read("/proc/self/cgroup").unwrap_or_default());
    // Without a limit, version 2 says `max`, and version 1 some number near 2^63.
    let limits = paths.iter().filter_map(|path| read(path)?.trim().parse().ok());
    limits.chain(machine).min()
}

/// Returns the files that may limit the memory of the process of which `/proc/self/cgroup` says `groups` (cgroups(7)):
/// those of its groups, and of all above them. Some of them may not exist.
fn limit_paths(groups: &str) -> Vec<String> {
    // In a container the root often is the process's own group, whatever path is told.
    let mut paths: Vec<String> = [VERSION_2, VERSION_1].iter().map(|(root, file)| format!("{root}/{file}")).collect();
    for line in groups.lines() {
        let Some((controllers, group)) = line.split_once(':').and_then(|(_, rest)| rest.split_once(":/")) else {
            continue;
        };
        let Some((root, file)) = version_of(controllers) else { continue };
        // A group outside of what the process may see is told as `/..`: its files are not there.
        let is_seen = group.split('/').all(|name| name != "..");
        let mut folder = root.to_owned();
        for name in group.split('/').filter(|name| is_seen && !name.is_empty()) {
            folder = format!("{folder}/{name}");
            paths.push(format!("{folder}/{file}"));
        }
    }
    paths
}

/// Returns where the groups of these controllers limit memory, if they do: version 2 names no controllers.
fn version_of(controllers: &str) -> Option<(&'static str, &'static str)> {
    if controllers.is_empty() {
        return Some(VERSION_2);
    }
    controllers.split(',').any(|controller| controller == "memory").then_some(VERSION_1)
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
    fn control_groups_limit_memory_up_to_their_roots_and_nonsense_adds_none() {
        let check = |groups: &str, expected: &[&str]| {
            let roots = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
            assert_eq!(limit_paths(groups), [roots.as_slice(), expected].concat(), "{groups:?}");
        };
        check("0::/\n", &[]);
        check(
            "0::/system.slice/alluvium.service\n",
            &["/sys/fs/cgroup/system.slice/memory.max", "/sys/fs/cgroup/system.slice/alluvium.service/memory.max"],
        );
        check(
            "12:cpu,cpuacct:/pods\n4:hugetlb,memory:/pods/a:b\n1:name=systemd:/pods\n0::/\n",
            &[
                "/sys/fs/cgroup/memory/pods/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/pods/a:b/memory.limit_in_bytes",
            ],
        );
        check("0:://twice//x/", &["/sys/fs/cgroup/twice/memory.max", "/sys/fs/cgroup/twice/x/memory.max"]);
        for nonsense in [
            "",
            "\n\n",
            "no colon",
            ":",
            "::",
            "0::",
            "0::relative",
            "4:memory",
            "4:memoryless:/x",
            "1:name=memory:/x",
            "0::/..",
            "0::/../../etc",
            "4:memory:/x/../../../etc",
        ] {
            check(nonsense, &[]);
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
