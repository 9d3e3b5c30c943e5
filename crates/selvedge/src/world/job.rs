//! What all communicators of a process share: who is where, and how to leave.

use std::sync::atomic::AtomicU32;

use selvedge_transport::{Link, Machine, Peer};

use crate::communicator::contexts::Contexts;
use crate::error::Error;
use crate::error::told::Told;
use crate::world::cards::Line;
use crate::world::membership::Membership;
use crate::world::wishes::RoadName;

/// How this process came to be a rank.
#[derive(Debug)]
pub(crate) enum Start {
    /// A process started by a launcher, or by nobody; the boot connection lives as long as the job.
    Process(Line),
    /// A thread of [`crate::local::run`].
    Thread,
}

/// The job as one rank sees it.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) start: Start,
    /// Hosts in order of first appearance.
    pub(crate) hosts: Vec<String>,
    /// For each peer, the index of its host; empty while there is one host for all.
    pub(crate) host_of: Vec<u32>,
    pub(crate) pids: Vec<u32>,
    pub(crate) me: Peer,
    /// By host: processors that its ranks may use.
    pub(crate) cores: Vec<u32>,
    /// The road to other hosts, where there is one.
    pub(crate) far: Option<FarRoad>,
    /// Gone with the job, behind the goodbye to the launcher.
    pub(crate) membership: Option<Membership>,
    /// Whether messages say what they are made of.
    pub(crate) checks_types: bool,
    /// Those of this rank's communicators.
    pub(crate) contexts: Contexts,
    /// How many times this rank has spawned others.
    pub(crate) spawns: AtomicU32,
    /// What this rank was told.
    pub(crate) told: Told,
}

/// The road to other hosts, and who is not reached by it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FarRoad {
    pub(crate) road: RoadName,
    /// Whether ranks of one host share memory.
    pub(crate) near: bool,
    /// How many consecutive ranks do.
    pub(crate) ranks_per_host: u32,
}

/// Contexts a communicator uses: one for messages, one for collectives, one for persistent collectives, one for
/// partitioned messages, one for those of its ranks that make another communicator.
pub(crate) const CONTEXTS_EACH: u32 = 5;
/// The last of these.
pub(crate) const MEETING_CONTEXT: u32 = 4;

impl Job {
    /// Number of ranks.
    pub(crate) fn size(&self) -> u32 {
        self.pids.len() as u32
    }

    pub(crate) fn host_index(&self, peer: Peer) -> u32 {
        self.host_of.get(peer.index()).copied().unwrap_or(0)
    }

    pub(crate) fn host_name(&self, peer: Peer) -> &str {
        &self.hosts[self.host_index(peer) as usize]
    }

    pub(crate) fn same_host(&self, peer: Peer) -> bool {
        self.host_index(peer) == self.host_index(self.me)
    }

    /// Where a peer is and what leads there, for who has bad news of it; `None` where all are in one place.
    pub(crate) fn whereabouts(&self, peer: Peer) -> Option<String> {
        let far = self.far?;
        let road = if far.near && self.same_host(peer) { RoadName::Shm } else { far.road };
        Some(format!("on {}, reached by {}", self.host_name(peer), road.name()))
    }

    pub(crate) fn processors(&self) -> usize {
        self.cores[self.host_index(self.me) as usize] as usize
    }

    pub(crate) fn pid(&self, peer: Peer) -> u32 {
        self.pids[peer.index()]
    }

    /// What communication costs within a communicator of `size` ranks. The same on all ranks.
    pub(crate) fn machine(&self, size: usize) -> Machine {
        let cores = self.cores.iter().copied().min().unwrap_or(1);
        let here = Machine::one_host(size as u32, cores);
        match self.far {
            None => here,
            Some(far) => {
                let ranks_per_host = far.ranks_per_host.min(size as u32);
                Machine { ranks_per_host, remote: remote_link(far.road), ..here }
            }
        }
    }

    pub(crate) fn abort(&self, rank: usize, code: i32) -> ! {
        let code = if code == 0 { 1 } else { code };
        self.end(code, &format!("rank {rank} called abort({code})"))
    }

    /// Ends the job because of an error, as its handler wants it.
    pub(crate) fn end_with(&self, rank: usize, error: &Error) -> ! {
        let why = format!("rank {rank}: {error}");
        if let Start::Process(_) = &self.start {
            eprintln!("selvedge: {why}");
        }
        self.end(1, &why)
    }

    fn end(&self, code: i32, why: &str) -> ! {
        match &self.start {
            Start::Thread => panic!("{why}"),
            Start::Process(boot) => {
                if let Ok(mut boot) = boot.try_lock()
                    && let Some(boot) = boot.as_mut()
                {
                    boot.abort(code, why);
                }
                std::process::exit(code)
            }
        }
    }
}

/// What a road between hosts costs.
fn remote_link(road: RoadName) -> Link {
    match road {
        RoadName::EfaDirect | RoadName::Efa | RoadName::Shm => Link::EFA,
        RoadName::Tcp => Link::TCP,
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // A rank that panics does not say goodbye, so that the launcher sees it fail.
        if let Start::Process(line) = &self.start
            && let Ok(mut boot) = line.lock()
            && !std::thread::panicking()
        {
            // A launcher that is gone has nobody left to tell.
            let _ = boot.take().map(selvedge_boot::Boot::finalize);
        }
    }
}
