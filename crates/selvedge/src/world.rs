//! Joining a job, and the communicator of everybody in it.

use std::cell::RefCell;
use std::fmt::Write;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::LazyLock;
use std::time::Instant;

use selvedge_coll::Rank;
use selvedge_engine::{Config, Engine, RoadConfig};
use selvedge_transport::Transport;

use crate::communicator::{Communicator, Road};
use crate::error::Result;
use crate::group::Group;
use crate::job::Job;
use crate::runtime::Runtime;
use crate::wire_up;

/// The communicator of all ranks of the job (MPI_COMM_WORLD), and this process's membership in it.
///
/// Leaving is dropping: when the world and all communicators made from it are gone, this rank says goodbye to the
/// launcher. There is nothing to finalize by hand, and a rank that panics does not say goodbye, so that the launcher
/// sees it fail and ends the others.
#[derive(Debug)]
pub struct World {
    communicator: Communicator,
}

/// Joins the job this process was started in (MPI_Init).
///
/// Under a PMI-1 launcher (our `mpirun`, MPICH's and Intel MPI's `mpiexec`, `srun --mpi=pmi2`) it is one of many
/// ranks; started by nobody it is rank 0 of 1. Cost: two fences of the launcher, one mapping of shared memory.
///
/// # Errors
/// [`crate::Error::Start`] when a launcher is there that we do not speak with - never N jobs of one rank each by accident -
/// and when the ranks are not all on one host, which this version does not reach. [`crate::Error::Fault`] when a limit of the
/// machine is in the way.
pub fn init() -> Result<World> {
    let (road, job) = wire_up::join_job()?;
    Ok(World::new(road, job))
}

impl World {
    pub(crate) fn new(road: Road, job: Job) -> World {
        let (me, size) = (Rank(road.me().0), road.peers() as u32);
        let config = config(&road);
        let runtime = Rc::new(RefCell::new(Runtime::new(Engine::new(road, config))));
        let group = Rc::new(Group::World { size });
        let context = job.next_context();
        job.use_context(context);
        World { communicator: Communicator::new(runtime, Rc::new(job), group, me, context) }
    }

    /// Who is where and which road leads there, in a few lines; the same facts for every rank, told from this one.
    pub fn report(&self) -> String {
        let mut text = String::new();
        let runtime = self.runtime.borrow();
        let caps = &runtime.engine().transport().roads()[0];
        let copy = if caps.read_bytes_max > 0 {
            "single copy"
        } else {
            "double copy: the kernel refuses the single one"
        };
        let _ = writeln!(text, "selvedge: {} ranks, road {} ({copy})", self.size(), caps.name);
        for rank in 0..self.size() {
            let _ =
                writeln!(text, "selvedge: rank {rank} on {} pid {}", self.host_of(rank), self.pid_of(rank));
        }
        text
    }
}

/// Largest message that is copied twice, through a packet, where it can be copied once. One way, median, 2 ranks on 2
/// cores: 2 KiB take 0.98 us with two copies and 1.05 with one, 4 KiB 1.18 and 1.05, 8 KiB 1.87 and 1.17. In a stream two
/// copies overlap, so that 4 KiB are still better off with them.
const EAGER_BYTES_MAX: usize = 4096;

/// What is asked of the engine on this road.
fn config(road: &Road) -> Config {
    // A rendezvous takes a turn of either side. Where ranks outnumber cores a turn is dear, and two copies are not.
    let once = road.has_single_copy() && !road.is_crowded();
    let eager_bytes_max = if once { EAGER_BYTES_MAX } else { usize::MAX };
    Config { road: RoadConfig { eager_bytes_max, ..RoadConfig::default() }, ..Config::default() }
}

impl Deref for World {
    type Target = Communicator;

    fn deref(&self) -> &Communicator {
        &self.communicator
    }
}

/// Seconds since some moment in the past, the same for all calls of one process (MPI_Wtime).
pub fn wtime() -> f64 {
    static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    BEGIN.elapsed().as_secs_f64()
}
