//! A node's side: what a launcher does for ranks that speak PMIx, most of all programs of Open MPI 5.

use std::ffi::OsString;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;

use crate::error::Error;
use crate::job::Job;
use crate::library::Library;
use crate::queue::{Bell, Event, Queue, Ticket};
use crate::scratch::Scratch;
use crate::sys::{Infos, Item, Proc, Shared};

/// The PMIx server of one node for one job.
///
/// Start it, start each rank of the node with [`environment`](Server::environment), then wait for the descriptor
/// ([`AsFd`]) and take events until there are none ([`poll_event`](Server::poll_event)). What ranks of one node have to do
/// with each other libpmix does by itself; what goes between nodes is asked for by [`Event::Fence`] and [`Event::Wanted`]
/// and answered with [`answer`](Server::answer).
///
/// A rank that was connected and has not finalized when it ends is dead, whatever its exit code: take all events before
/// judging.
///
/// Ranks reach it over the loopback interface, where libpmix listens while the server is there; who connects must name a
/// rank of the job and run as the user that started it.
///
/// Dropping it refuses what is still asked, forgets the job, stops libpmix's thread and removes the folder.
pub struct Server {
    library: Library,
    job: Job,
    /// Any rank of the job: what counts is its namespace.
    name: Proc,
    shared: Arc<Shared>,
    bell: Bell,
    // Last: libpmix's files are in use until it has stopped.
    scratch: Scratch,
}

impl Server {
    /// Starts the server of host `job.here` with its files in a private folder below `folder` (a local file system: ranks
    /// map them). Cost: tens of milliseconds, most of them for libpmix's look at the hardware.
    ///
    /// # Errors
    /// A job that does not hold together, no folder, a libpmix that cannot serve or does not start, or a process that was a
    /// client or server before.
    pub fn start(library: &Library, job: Job, folder: &Path) -> Result<Server, Error> {
        job.check()?;
        let exports = library.server_exports()?;
        let no_folder = |error: std::io::Error| {
            let folder = folder.display().to_string();
            Error::Folder { folder, reason: error.to_string() }
        };
        let scratch = Scratch::new(folder).map_err(no_folder)?;
        let bell = Bell::new().map_err(no_folder)?;
        let queue = Queue::new(bell.try_clone().map_err(no_folder)?);
        Library::take()?;
        let name = Proc::new(&job.name, 0);
        let shared = Arc::new(Shared::new(name, job.size(), job.ranks_here().len(), queue));
        library.check("PMIx_server_init", exports.start(shared.clone(), own_infos(&job, scratch.path())))?;
        // From here on dropping it cleans up.
        let server = Server { library: library.clone(), job, name, shared, bell, scratch };
        server.register()?;
        Ok(server)
    }

    /// Tells libpmix about the job and the ranks of this host.
    fn register(&self) -> Result<(), Error> {
        let (exports, job) = (self.library.server_exports()?, &self.job);
        let packed = |call, result: Result<_, i32>| result.map_err(|status| self.library.error(call, status));
        let hosts = packed("PMIx_generate_regex", exports.pack_hosts(&job.host_list()))?;
        let ranks = packed("PMIx_generate_ppn", exports.pack_ranks(&job.rank_lists()))?;
        let infos = job.infos(hosts, ranks, self.scratch.path());
        let here = job.ranks_here();
        self.library
            .check("PMIx_server_register_nspace", exports.register_job(&self.name, here.len(), infos))?;
        let (user, group) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        for rank in here {
            let status = exports.register_rank(&self.name.sibling(*rank), user, group);
            self.library.check("PMIx_server_register_client", status)?;
        }
        Ok(())
    }

    /// The job.
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// The variables that a rank of this host must have in its environment, in place of all other `PMIX_*`, and without any
    /// `PMI_*`: MPICH refuses to start when it finds both.
    ///
    /// # Errors
    /// A rank of another host, or libpmix's.
    pub fn environment(&self, rank: u32) -> Result<Vec<(OsString, OsString)>, Error> {
        let variables = self.library.server_exports()?.environment(&self.own(rank)?);
        variables.map_err(|status| self.library.error("PMIx_server_setup_fork", status))
    }

    /// What has happened, oldest first; `None` when that was all. The descriptor is readable exactly as long as there is
    /// something.
    pub fn poll_event(&self) -> Option<Event> {
        self.shared.pop()
    }

    /// Answers a question: [`Event::Fence`] with what all nodes of its participants have said, [`Event::Wanted`] with what was
    /// found. `None` when there is no answer, because a node is lost: the ranks that wait get an error.
    ///
    /// # Errors
    /// It was answered before, or never asked.
    pub fn answer(&self, ticket: Ticket, blob: Option<Vec<u8>>) -> Result<(), Error> {
        let reply = self.shared.close(ticket).ok_or(Error::Answered { ticket: ticket.0 })?;
        match blob {
            Some(blob) => reply.give(blob),
            None => reply.refuse(),
        }
        Ok(())
    }

    /// Asks what `rank` of this host has left, for a rank of another that wants it ([`Event::Wanted`] there). The answer is
    /// [`Event::Found`] with `token`, as soon as the rank has left something; never, if it does not.
    ///
    /// # Errors
    /// A rank of another host, or libpmix's.
    pub fn fetch(&self, rank: u32, token: u64) -> Result<(), Error> {
        let process = self.own(rank)?;
        let status = self.library.server_exports()?.fetch(&process, token, self.shared.clone());
        self.library.check("PMIx_server_dmodex_request", status)
    }

    fn own(&self, rank: u32) -> Result<Proc, Error> {
        match self.job.ranks_here().contains(&rank) {
            true => Ok(self.name.sibling(rank)),
            false => Err(Error::NotHere { rank }),
        }
    }
}

impl AsFd for Server {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.close_all().into_iter().for_each(|reply| reply.refuse());
        if let Ok(exports) = self.library.server_exports() {
            exports.deregister_job(&self.name);
            exports.stop();
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server(host {} of job {}, {:?})", self.job.here, self.job.name, self.library)
    }
}

/// What libpmix must know about the server itself.
fn own_infos(job: &Job, folder: &Path) -> Infos {
    let folder = folder.to_string_lossy().into_owned();
    Infos::new()
        .with("pmix.srv.nspace", Item::Text(server_name(&job.name)))
        .with("pmix.srv.rank", Item::Rank(job.here as u32))
        .with("pmix.hname", Item::Text(job.hosts[job.here].name.clone()))
        .with("pmix.srvr.tmpdir", Item::Text(folder.clone()))
        .with("pmix.sys.tmpdir", Item::Text(folder))
}

/// The namespace of the servers of a job: not the job's own, and not longer than it may be.
fn server_name(job: &str) -> String {
    let mut name = format!("node.{job}");
    while name.len() > crate::sys::PMIX_MAX_NSLEN {
        name.pop();
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_a_job_with_the_longest_name_have_a_name() {
        assert_eq!(server_name("job"), "node.job");
        assert_eq!(server_name(&"j".repeat(255)).len(), 255);
    }
}
