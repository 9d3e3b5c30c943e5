//! How much of everything there is: limits of the process, memory of the host, limits of the control group.

use std::fmt;

use serde::Serialize;

use super::Tree;

/// Bit of `CAP_IPC_LOCK` in a capability mask (capabilities(7)): who has it may lock any amount of memory.
const CAP_IPC_LOCK: u32 = 14;

/// What the kernel writes where version 1 of control groups has no limit: 2^63 rounded down to pages.
const CGROUP1_NO_LIMIT: u64 = 0x7fff_ffff_ffff_f000;

/// A limit of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Limit {
    /// This many bytes, files or processes.
    At(u64),
    /// None.
    Unlimited,
}

impl Limit {
    /// Whether `need` is within it.
    pub fn allows(self, need: u64) -> bool {
        self >= Limit::At(need)
    }

    fn parse(text: &str) -> Option<Limit> {
        match text {
            "unlimited" | "max" => Some(Limit::Unlimited),
            number => number.parse().ok().map(Limit::At),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::At(count) => write!(f, "{count}"),
            Limit::Unlimited => f.write_str("unlimited"),
        }
    }
}

/// This process: who it is and what it may have. Limits are the soft ones, which hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Process {
    /// Bytes it may lock in memory, and so register with a device (`ulimit -l`).
    pub locked_bytes: Option<Limit>,
    /// Whether that limit does not hold for it (CAP_IPC_LOCK).
    pub may_lock_all: bool,
    /// Descriptors (`ulimit -n`).
    pub open_files: Option<Limit>,
    /// Processes and threads of its user (`ulimit -u`).
    pub processes: Option<Limit>,
    /// Bytes of a file (`ulimit -f`).
    pub file_bytes: Option<Limit>,
    /// Bytes of addresses (`ulimit -v`).
    pub address_bytes: Option<Limit>,
    /// Processors in its affinity mask.
    pub processors: Option<u32>,
    /// Whether its user namespace is the host's own, in which user ids mean themselves.
    pub first_user_namespace: Option<bool>,
    /// Depth of its process namespace; 1 is the outermost that can be seen.
    pub process_namespaces: Option<u32>,
    /// Whether system calls are filtered (seccomp).
    pub filtered: Option<bool>,
}

impl Process {
    pub(super) fn read(tree: &Tree) -> Process {
        let status = tree.text("/proc/self/status").unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.split(':').next() == Some(name))?;
            Some(line.split_once(':')?.1.trim())
        };
        let limits = tree.text("/proc/self/limits").unwrap_or_default();
        let capabilities = field("CapEff").and_then(|mask| u64::from_str_radix(mask, 16).ok());
        Process {
            locked_bytes: soft_limit(&limits, "Max locked memory"),
            may_lock_all: capabilities.is_some_and(|mask| mask >> CAP_IPC_LOCK & 1 == 1),
            open_files: soft_limit(&limits, "Max open files"),
            processes: soft_limit(&limits, "Max processes"),
            file_bytes: soft_limit(&limits, "Max file size"),
            address_bytes: soft_limit(&limits, "Max address space"),
            processors: field("Cpus_allowed_list").and_then(count_of_list),
            first_user_namespace: tree.text("/proc/self/uid_map").map(|map| maps_all_ids(&map)),
            process_namespaces: field("NSpid").map(|pids| pids.split_whitespace().count() as u32),
            filtered: field("Seccomp").map(|mode| mode != "0"),
        }
    }
}

/// A line of `/proc/self/limits`: name, soft limit, hard limit, unit.
fn soft_limit(limits: &str, name: &str) -> Option<Limit> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    Limit::parse(line.split_whitespace().next()?)
}

/// How many numbers a list of the kernel holds: `0-3,8` are five.
fn count_of_list(list: &str) -> Option<u32> {
    let mut count = 0;
    for part in list.split(',').filter(|part| !part.trim().is_empty()) {
        let (first, last) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        count += last.checked_sub(first)? + 1;
    }
    Some(count)
}

/// Whether a map of user ids is that of the first namespace: every id is itself (user_namespaces(7)).
fn maps_all_ids(map: &str) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Memory of the host.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Memory {
    /// Bytes of all of it.
    pub total: Option<u64>,
    /// Bytes that could be taken without swapping, by the kernel's estimate.
    pub available: Option<u64>,
    /// Huge pages that were set aside, by size.
    pub huge: Vec<Huge>,
    /// Whether the kernel makes huge pages of its own: `always`, `madvise`, `never`.
    pub transparent: Option<String>,
    /// `/dev/shm`.
    pub shm: Option<Tmpfs>,
}

/// Huge pages of one size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Huge {
    /// Bytes of a page.
    pub page_bytes: u64,
    /// Pages set aside.
    pub total: u64,
    /// Of these, free.
    pub free: u64,
}

/// A file system in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tmpfs {
    /// Bytes it may hold.
    pub bytes: u64,
    /// Bytes it can still take.
    pub free: u64,
}

impl Memory {
    pub(super) fn read(tree: &Tree) -> Memory {
        let info = tree.text("/proc/meminfo").unwrap_or_default();
        let bytes_of = |name: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
        };
        let folder = "/sys/kernel/mm/hugepages";
        let huge = tree.names(folder).into_iter().filter_map(|name| {
            let kib: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            let pages = |of: &str| tree.number(&format!("{folder}/{name}/{of}"));
            Some(Huge {
                page_bytes: kib << 10,
                total: pages("nr_hugepages")?,
                free: pages("free_hugepages")?,
            })
        });
        let transparent = tree.text("/sys/kernel/mm/transparent_hugepage/enabled");
        Memory {
            total: bytes_of("MemTotal"),
            available: bytes_of("MemAvailable"),
            huge: huge.collect(),
            transparent: transparent
                .and_then(|text| Some(text.split_once('[')?.1.split_once(']')?.0.to_owned())),
            shm: tmpfs(tree, "/dev/shm"),
        }
    }
}

fn tmpfs(tree: &Tree, path: &str) -> Option<Tmpfs> {
    let stat = rustix::fs::statvfs(tree.path(path)).ok()?;
    Some(Tmpfs { bytes: stat.f_blocks * stat.f_frsize, free: stat.f_bavail * stat.f_frsize })
}

/// Limits of the control group of this process: the tightest of the group and all around it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cgroup {
    /// Bytes of memory that its members may have together.
    pub memory: Option<Limit>,
    /// Bytes of memory that they have, in the group whose limit is the tightest.
    pub memory_now: Option<u64>,
    /// Processes and threads that its members may be.
    pub processes: Option<Limit>,
    /// How many they are.
    pub processes_now: Option<u64>,
    /// Processors' worth of time that they may take.
    pub cpu_quota: Option<f64>,
}

const CGROUPS: &str = "/sys/fs/cgroup";

impl Cgroup {
    pub(super) fn read(tree: &Tree) -> Cgroup {
        let own = tree.text("/proc/self/cgroup").unwrap_or_default();
        let mut found = Cgroup::default();
        for line in own.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
            if controllers.is_empty() {
                for folder in from_leaf_to_root(tree, CGROUPS, path) {
                    found.tighten_memory(tree, &folder, "memory.max", "memory.current");
                    found.tighten_processes(tree, &folder);
                    found.tighten_quota(tree.text(&format!("{folder}/cpu.max")).and_then(|t| quota_v2(&t)));
                }
            }
            for controller in controllers.split(',') {
                for folder in from_leaf_to_root(tree, &format!("{CGROUPS}/{controller}"), path) {
                    match controller {
                        "memory" => found.tighten_memory(
                            tree,
                            &folder,
                            "memory.limit_in_bytes",
                            "memory.usage_in_bytes",
                        ),
                        "pids" => found.tighten_processes(tree, &folder),
                        "cpu" => found.tighten_quota(quota_v1(tree, &folder)),
                        _ => {}
                    }
                }
            }
        }
        found
    }

    fn tighten_memory(&mut self, tree: &Tree, folder: &str, limit: &str, now: &str) {
        let limit = match tree.text(&format!("{folder}/{limit}")).and_then(|text| Limit::parse(&text)) {
            Some(Limit::At(bytes)) if bytes >= CGROUP1_NO_LIMIT => Some(Limit::Unlimited),
            limit => limit,
        };
        if limit.is_some_and(|limit| self.memory.is_none_or(|known| limit < known)) {
            self.memory = limit;
            self.memory_now = tree.number(&format!("{folder}/{now}"));
        }
    }

    fn tighten_processes(&mut self, tree: &Tree, folder: &str) {
        let limit = tree.text(&format!("{folder}/pids.max")).and_then(|text| Limit::parse(&text));
        if limit.is_some_and(|limit| self.processes.is_none_or(|known| limit < known)) {
            self.processes = limit;
            self.processes_now = tree.number(&format!("{folder}/pids.current"));
        }
    }

    fn tighten_quota(&mut self, quota: Option<f64>) {
        if let Some(quota) = quota {
            self.cpu_quota = Some(self.cpu_quota.map_or(quota, |known| known.min(quota)));
        }
    }
}

/// The folder of a group and of all groups around it. Inside a container the path may be the host's, of which only the
/// root is mounted: what does not exist is left out.
fn from_leaf_to_root(tree: &Tree, base: &str, path: &str) -> Vec<String> {
    let mut path = path.trim_end_matches('/').to_owned();
    let mut folders = Vec::new();
    loop {
        folders.push(format!("{base}{path}"));
        match path.rfind('/') {
            Some(at) => path.truncate(at),
            None => break,
        }
    }
    folders.retain(|folder| tree.exists(folder));
    folders
}

/// `cpu.max`: quota and period in microseconds, or `max`.
fn quota_v2(text: &str) -> Option<f64> {
    let (quota, period) = text.split_once(' ')?;
    Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
}

fn quota_v1(tree: &Tree, folder: &str) -> Option<f64> {
    let quota: f64 = tree.number(&format!("{folder}/cpu.cfs_quota_us"))?;
    let period: f64 = tree.number(&format!("{folder}/cpu.cfs_period_us"))?;
    (quota > 0.0 && period > 0.0).then_some(quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_the_kernel_are_counted() {
        assert_eq!(count_of_list("0-3,8"), Some(5));
        assert_eq!(count_of_list("0"), Some(1));
        assert_eq!(count_of_list("3-1"), None);
        assert_eq!(count_of_list("x"), None);
    }

    #[test]
    fn a_limit_that_is_none_allows_everything() {
        assert!(Limit::Unlimited.allows(u64::MAX));
        assert!(Limit::At(5).allows(5) && !Limit::At(5).allows(6));
        assert_eq!(
            soft_limit("Max locked memory         65536   65536   bytes", "Max locked memory"),
            Some(Limit::At(65536))
        );
    }

    #[test]
    fn groups_are_walked_from_the_leaf_to_the_root_and_what_is_not_mounted_is_left_out() {
        let tree = Tree::new("/");
        assert_eq!(from_leaf_to_root(&tree, "/proc", "/self/fd"), ["/proc/self/fd", "/proc/self", "/proc"]);
        assert_eq!(from_leaf_to_root(&tree, "/proc", "/no/where"), ["/proc"]);
        assert_eq!(from_leaf_to_root(&tree, "/proc", "/"), ["/proc"]);
    }

    #[test]
    fn a_quota_is_so_many_processors() {
        assert_eq!(quota_v2("150000 100000"), Some(1.5));
        assert_eq!(quota_v2("max 100000"), None);
    }
}
