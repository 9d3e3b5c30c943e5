//! What all communicators of a process share: who is where, and how to leave.

use std::cell::{Cell, RefCell};

use selvedge_transport::{Machine, Peer};

/// How this process came to be a rank.
#[derive(Debug)]
pub(crate) enum Start {
    /// A process started by a launcher, or by nobody; the boot connection lives as long as the job.
    Process(RefCell<Option<selvedge_boot::Boot>>),
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
    pub(crate) cores: u32,
    /// The context that a new communicator would use if it were only for this rank to say.
    pub(crate) next_context: Cell<u32>,
}

/// Contexts a communicator uses: one for messages, one for collectives.
const CONTEXTS_EACH: u32 = 2;

impl Job {
    pub(crate) fn host_index(&self, peer: Peer) -> u32 {
        self.host_of.get(peer.index()).copied().unwrap_or(0)
    }

    pub(crate) fn host_name(&self, peer: Peer) -> &str {
        &self.hosts[self.host_index(peer) as usize]
    }

    pub(crate) fn same_host(&self, peer: Peer) -> bool {
        self.host_index(peer) == self.host_index(self.me)
    }

    pub(crate) fn processors(&self) -> usize {
        self.cores as usize
    }

    pub(crate) fn pid(&self, peer: Peer) -> u32 {
        self.pids[peer.index()]
    }

    /// What communication costs within a communicator of `size` ranks. The same on all ranks.
    pub(crate) fn machine(&self, size: usize) -> Machine {
        Machine::one_host(size as u32, self.cores)
    }

    pub(crate) fn next_context(&self) -> u32 {
        self.next_context.get()
    }

    /// Takes note that all ranks of some group have agreed to use `context`.
    pub(crate) fn use_context(&self, context: u32) {
        let next = context.checked_add(CONTEXTS_EACH).expect("a job makes less than 2^31 communicators");
        self.next_context.set(next);
    }

    pub(crate) fn abort(&self, rank: usize, code: i32) -> ! {
        match &self.start {
            Start::Thread => panic!("rank {rank} called abort({code})"),
            Start::Process(boot) => {
                let code = if code == 0 { 1 } else { code };
                if let Ok(mut boot) = boot.try_borrow_mut()
                    && let Some(boot) = boot.as_mut()
                {
                    boot.abort(code, &format!("rank {rank} called abort({code})"));
                }
                std::process::exit(code)
            }
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // A rank that panics does not say goodbye, so that the launcher sees it fail.
        if let Start::Process(boot) = &self.start
            && !std::thread::panicking()
        {
            // A launcher that is gone has nobody left to tell.
            let _ = boot.take().map(selvedge_boot::Boot::finalize);
        }
    }
}
