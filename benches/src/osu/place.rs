//! Where each rank runs. A figure without its placement cannot be compared with anything.

use selvedge::{Communicator, Result};
use serde::Serialize;

/// Where a rank ran when it was asked, after start-up.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Place {
    /// Which rank.
    pub(crate) rank: usize,
    /// Its host.
    pub(crate) host: String,
    /// Its process.
    pub(crate) pid: u32,
    /// The processor it was on.
    pub(crate) cpu: usize,
    /// How many processors it may be moved to, that one included; 1 when it is pinned.
    pub(crate) cpus_allowed: usize,
}

/// Collective: the place of every rank, on all ranks.
pub(crate) fn gather(world: &Communicator) -> Result<Vec<Place>> {
    let mine = [rustix::thread::sched_getcpu() as u64, cpus_allowed().len() as u64];
    let mut all = vec![0; 2 * world.size()];
    world.allgather(&mine, &mut all)?;
    let place = |(rank, found): (usize, &[u64])| Place {
        rank,
        host: world.host_of(rank).to_owned(),
        pid: world.pid_of(rank),
        cpu: found[0] as usize,
        cpus_allowed: found[1] as usize,
    };
    Ok(all.chunks_exact(2).enumerate().map(place).collect())
}

impl Place {
    /// As a comment line of the table.
    pub(crate) fn line(&self) -> String {
        let Place { rank, host, pid, cpu, cpus_allowed } = self;
        let bound = match cpus_allowed {
            1 => "pinned".to_owned(),
            n => format!("may move among {n}"),
        };
        format!("# rank {rank}: {host} pid {pid} cpu {cpu} ({bound})")
    }
}

/// The processors this thread may run on, ascending. Empty where the kernel does not say.
pub(crate) fn cpus_allowed() -> Vec<usize> {
    let Ok(set) = rustix::thread::sched_getaffinity(None) else { return Vec::new() };
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}
