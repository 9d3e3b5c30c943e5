//! What a host is made of, as far as ranks are concerned: hardware threads, the cores, NUMA nodes and sockets that they
//! belong to, and the network cards near each. Read from the files that Linux keeps about itself, and only those hardware
//! threads that we may use: what a cgroup or a batch system has taken away does not exist.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::cores::Cores;

/// What a host is made of. Travels from its agent to mpirun.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    threads: Vec<Thread>,
    nics: Vec<Nic>,
    /// How many threads a quota lets run at once, where it is fewer than there are.
    quota: Option<u32>,
}

/// A hardware thread: the smallest thing that runs a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thread {
    /// The system's number for it.
    pub cpu: u32,
    /// Its core, counted from 0 in the order of [`Topology::threads`].
    pub core: u32,
    /// Its NUMA node, counted in the same way.
    pub numa: u32,
    /// Its socket, counted in the same way.
    pub socket: u32,
}

/// A network card.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Nic {
    /// The system's name for it, such as `rdmap16s27` or `eth0`.
    pub name: String,
    /// The NUMA node that it is nearest to, counted as in [`Thread::numa`]; unknown on most virtual machines.
    pub numa: Option<u32>,
    /// A device for libfabric (EFA, InfiniBand), not only a network interface.
    pub rdma: bool,
}

/// A part of a host that ranks can be dealt to or bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Level {
    /// All of it.
    Node,
    /// A socket, also called package.
    Socket,
    /// A NUMA node: cores and the memory near them.
    Numa,
    /// A core.
    Core,
    /// A hardware thread.
    Thread,
}

impl Topology {
    /// What this host is made of, as far as this process may use it.
    pub fn here() -> Topology {
        let allowed = Cores::ours().map(|cores| cores.numbers()).unwrap_or_default();
        let quota =
            std::thread::available_parallelism().ok().and_then(|quota| u32::try_from(quota.get()).ok());
        Topology { quota, ..Topology::read(Path::new("/sys"), &allowed) }
    }

    /// Reads what `sysfs` (usually `/sys`) says about the hardware threads `allowed`. Where it says nothing, as in some
    /// containers, every hardware thread is a core and all of them are on one socket.
    pub fn read(sysfs: &Path, allowed: &[u32]) -> Topology {
        let numas = numa_nodes(sysfs);
        let mut found: Vec<Found> = allowed.iter().map(|&cpu| Found::read(sysfs, cpu, &numas)).collect();
        found.sort();
        found.dedup();
        let mut threads: Vec<Thread> = Vec::with_capacity(found.len());
        for (at, this) in found.iter().enumerate() {
            let next = match at.checked_sub(1).map(|before| (&found[before], threads[before])) {
                None => Thread { cpu: this.cpu, core: 0, numa: 0, socket: 0 },
                Some((before, last)) => Thread {
                    cpu: this.cpu,
                    core: last.core + u32::from(this.place() != before.place()),
                    numa: last.numa + u32::from(this.place()[..2] != before.place()[..2]),
                    socket: last.socket + u32::from(this.socket != before.socket),
                },
            };
            threads.push(next);
        }
        let numa_here: BTreeMap<u32, u32> =
            found.iter().zip(&threads).map(|(found, thread)| (found.numa, thread.numa)).collect();
        let mut nics: Vec<Nic> = [("class/infiniband", true), ("class/net", false)]
            .iter()
            .flat_map(|&(class, rdma)| nics(&sysfs.join(class), rdma, &numa_here))
            .collect();
        nics.sort_by(|a, b| b.rdma.cmp(&a.rdma).then_with(|| a.cmp(b)));
        Topology { threads, nics, quota: None }
    }

    /// A host of so many cores on one socket, each with one hardware thread.
    pub fn flat(cores: u32) -> Topology {
        let thread = |cpu| Thread { cpu, core: cpu, numa: 0, socket: 0 };
        Topology { threads: (0..cores).map(thread).collect(), ..Topology::default() }
    }

    /// Of these hardware threads, which are in order, and no cards.
    #[cfg(test)]
    pub(crate) fn of(threads: Vec<Thread>) -> Topology {
        Topology { threads, ..Topology::default() }
    }

    /// The same with these cards.
    #[cfg(test)]
    pub(crate) fn with_nics(self, nics: Vec<Nic>) -> Topology {
        Topology { nics, ..self }
    }

    /// The hardware threads that ranks may use, by socket, NUMA node, core and number.
    pub fn threads(&self) -> &[Thread] {
        &self.threads
    }

    /// The network cards; those for libfabric first.
    pub fn nics(&self) -> &[Nic] {
        &self.nics
    }

    /// How many ranks it is worth to start where nobody says: one for each part of a kind, cores or threads, but no more
    /// than a quota (that of a container, say) lets run at once.
    pub fn worth(&self, level: Level) -> u32 {
        self.count(level).min(self.quota.unwrap_or(u32::MAX)).max(1)
    }

    /// How many parts of a kind there are. A host without any threads known still is one node.
    pub fn count(&self, level: Level) -> u32 {
        self.threads.last().map_or(u32::from(level == Level::Node), |last| match level {
            Level::Thread => u32::try_from(self.threads.len()).expect("cpu numbers are u32"),
            _ => last.part(level) + 1,
        })
    }

    /// The parts of a kind in order, each as the range of its threads in [`threads`](Topology::threads).
    pub fn parts(&self, level: Level) -> Vec<std::ops::Range<usize>> {
        if level == Level::Thread {
            return (0..self.threads.len()).map(|at| at..at + 1).collect();
        }
        let mut parts: Vec<std::ops::Range<usize>> = Vec::new();
        for at in 0..self.threads.len() {
            let same = at > 0 && self.threads[at - 1].part(level) == self.threads[at].part(level);
            match parts.last_mut() {
                Some(part) if same => part.end = at + 1,
                _ => parts.push(at..at + 1),
            }
        }
        parts
    }
}

impl Thread {
    /// The number of the part that it belongs to; for [`Level::Thread`] the system's.
    pub fn part(&self, level: Level) -> u32 {
        match level {
            Level::Node => 0,
            Level::Socket => self.socket,
            Level::Numa => self.numa,
            Level::Core => self.core,
            Level::Thread => self.cpu,
        }
    }
}

/// A hardware thread with the system's numbers, which have gaps and need not be unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    socket: u32,
    numa: u32,
    /// The lowest hardware thread of the core, also when that one is not for us: `core_id` is unique only within a die.
    core: u32,
    cpu: u32,
}

impl Found {
    fn read(sysfs: &Path, cpu: u32, numas: &BTreeMap<u32, u32>) -> Found {
        let folder = sysfs.join(format!("devices/system/cpu/cpu{cpu}/topology"));
        let siblings = ["core_cpus_list", "thread_siblings_list"]
            .iter()
            .find_map(|name| cpu_list(&read_line(&folder.join(name)).ok()?));
        Found {
            // Some virtual machines say -1.
            socket: number(&folder.join("physical_package_id")).unwrap_or(0),
            numa: numas.get(&cpu).copied().unwrap_or(0),
            core: siblings.and_then(|siblings| siblings.first().copied()).unwrap_or(cpu),
            cpu,
        }
    }

    /// Socket, NUMA node and core.
    fn place(&self) -> [u32; 3] {
        [self.socket, self.numa, self.core]
    }
}

/// The NUMA node of every hardware thread. Empty where the kernel knows none.
fn numa_nodes(sysfs: &Path) -> BTreeMap<u32, u32> {
    let mut nodes = BTreeMap::new();
    for (name, path) in folder(&sysfs.join("devices/system/node")) {
        let Some(node) = name.strip_prefix("node").and_then(|number| number.parse().ok()) else { continue };
        let cpus = read_line(&path.join("cpulist")).ok().and_then(|list| cpu_list(&list));
        nodes.extend(cpus.into_iter().flatten().map(|cpu| (cpu, node)));
    }
    nodes
}

/// The cards of one class that have hardware behind them: loopback, bridges and tunnels have not.
fn nics(class: &Path, rdma: bool, numa_here: &BTreeMap<u32, u32>) -> Vec<Nic> {
    let cards = folder(class).into_iter().filter(|(_, path)| path.join("device").exists());
    cards
        .map(|(name, path)| {
            let numa = number(&path.join("device/numa_node")).and_then(|node| numa_here.get(&node).copied());
            Nic { name, numa, rdma }
        })
        .collect()
}

fn folder(path: &Path) -> Vec<(String, std::path::PathBuf)> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path()))).collect()
}

fn read_line(path: &Path) -> io::Result<String> {
    fs::read_to_string(path).map(|text| text.trim().to_owned())
}

fn number(path: &Path) -> Option<u32> {
    read_line(path).ok()?.parse().ok()
}

/// Most hardware threads that a list may name; no kernel is built for more.
const CPUS_MAX: u32 = 1 << 16;

/// A list as the kernel writes it: `0-3,8,10-11`. In rising order; `None` where it is no such list.
pub(crate) fn cpu_list(text: &str) -> Option<Vec<u32>> {
    let mut cpus = BTreeSet::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= CPUS_MAX {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus.into_iter().collect())
}

#[cfg(test)]
mod tests;
