//! Joining a job, and the communicator of everybody in it. Below: who is where, which roads lead there, what the user asked of them, and
//! what the launcher may know of this rank.

pub(crate) mod cards;
pub(crate) mod job;
pub(crate) mod locality;
pub(crate) mod membership;
pub(crate) mod network;
pub(crate) mod pmix;
pub(crate) mod report;
pub(crate) mod roads;
pub(crate) mod routes;
pub(crate) mod watch;
pub(crate) mod wire_up;
pub(crate) mod wishes;

use std::fmt::Write;
use std::ops::Deref;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use selvedge_coll::Rank;
use selvedge_engine::{Config, Engine, RoadConfig};
use selvedge_transport::{Peer, Transport};

use crate::collective::algorithms::Wanted;
use crate::communicator::inter::Intercommunicator;
use crate::communicator::members::Members;
use crate::communicator::spawn;
use crate::communicator::{Communicator, Core, Road};
use crate::error::Result;
use crate::runtime::Runtime;
use crate::runtime::station::Entrance;
use crate::world::job::{Job, Start};
use crate::world::report::Remarks;
use crate::world::watch::Watch;
use crate::world::wishes::Wishes;

/// The communicator of all ranks of the job (MPI_COMM_WORLD), and this process's membership in it.
///
/// Leaving is dropping: when the world and all communicators made from it are gone, this rank says goodbye to the
/// launcher. There is nothing to finalize by hand, and a rank that panics does not say goodbye, so that the launcher
/// sees it fail and ends the others.
///
/// ```
/// # fn main() -> selvedge::Result<()> {
/// let world = selvedge::init()?;
/// assert!(world.rank() < world.size()); // all that a communicator can, a world can
/// # Ok(())
/// # }
/// ```
#[doc(alias = "MPI_COMM_WORLD")]
#[derive(Debug)]
pub struct World {
    /// Left before the world is.
    parent: Option<Intercommunicator>,
    communicator: Communicator,
}

/// Joins the job this process was started in (MPI_Init).
///
/// Under a PMI-1 launcher (our `mpirun`, MPICH's and Intel MPI's `mpiexec`, `srun --mpi=pmi2`) it is one of many
/// ranks; started by nobody it is rank 0 of 1. Ranks of one host talk through shared memory, others over the best network
/// that all of them have: `efa-direct`, `efa` or `tcp`, by the libfabric that is found when it is needed. Cost: on one host
/// two fences of the launcher and one mapping of shared memory; on several hosts up to four more fences, an address of each
/// other rank to get, and what libfabric takes to start.
///
/// Whatever the launcher, these variables are heeded, the same on all ranks; `mpirun` has an option for each of the first:
///
/// | variable | option | meaning |
/// |---|---|---|
/// | `SELVEDGE_TRANSPORT` | `--transport` | no other roads than these: `shm`, `efa-direct`, `efa`, `tcp`, with commas |
/// | `SELVEDGE_REQUIRE` | `--require` | one of these leads to other hosts, or the job does not start |
/// | `SELVEDGE_REPORT` | `--report` | `text`, `json`, or `json:FILE`: rank 0 says which roads are taken, and why no better ones |
/// | `SELVEDGE_QUIET` | `--quiet` | nothing is said at the start |
/// | `SELVEDGE_ERRORS` | `--initial-errhandler` | what the world does about errors: `return` them, or `abort` the job |
/// | `SELVEDGE_ALGORITHM` | `--algorithm` | algorithms for collectives, as [`Choices`](crate::Choices) are written: `allreduce/ring@64KiB..` |
/// | `SELVEDGE_CHECK` | `--check` | ranks compare what they call before each blocking collective: [`Communicator::checked`]; and every message says what it is made of, so that a receive of other types, or with too little room, ends in [`crate::Misuse::TypeMismatch`]. Messages are then copied, and longer by 640 bytes |
/// | `SELVEDGE_LIBFABRIC` | | the libfabric to use: its file, or the folder it is in |
/// | `SELVEDGE_INTERFACE` | | the network interface for `tcp`, by name or address |
/// | `SELVEDGE_DEVICES` | | no other EFA devices than these, with commas |
/// | `SELVEDGE_HOST` | | this rank counts as on a host of this name: several hosts on one machine, to try something |
///
/// Jobs that use a network say so at the start without being asked; jobs on one host say something only when the kernel
/// refuses to copy large messages once.
///
/// When there is no road that is allowed, rank 0 of a job of several says which rank is in the way of which road and what to
/// do, and all ranks exit with code 69 here.
///
/// # More than one world
/// Libraries of one program need not know of each other: each calls `init`. While this thread is in its job, a further call gives
/// another `World` of the same ranks, whose messages meet none of the first one's (as [`Communicator::dup`], without
/// its extensions); so in ranks that are threads ([`crate::local::run`]) too. It is collective: all ranks make it, in the same order as
/// other such calls, and it disturbs no collective that is under way. Costs two messages a rank. Any of them may be dropped first; the
/// last one leaves the job. What MPI 5.0 has sessions for (section 11.3) is this without names of process sets.
///
/// ```
/// selvedge::local::run(2, |world| {
///     let mine = selvedge::init().unwrap(); // as a library does that knows nothing of `world`
///     assert_eq!((mine.rank(), mine.size()), (world.rank(), 2));
///     world.send(&[1], world.rank(), 0).unwrap();
///     assert!(mine.iprobe(selvedge::ANY_SOURCE, 0).unwrap().is_none());
///     world.recv(&mut [0], world.rank(), 0).unwrap();
/// });
/// ```
///
/// Under a launcher a process joins once, in one thread: other threads use a [`Team`](crate::Team), and nobody comes back who has left.
/// Without one, each thread that calls `init` has a job of its own, and so has who calls it after having left.
///
/// # Errors
/// [`crate::Error::Start`] when a launcher is there that we do not speak with - never N jobs of one rank each by accident; and
/// when another thread of this process has joined the launcher's job, or this process has left it.
/// [`crate::Error::Fault`] when a limit of the machine is in the way.
#[doc(alias = "MPI_Init")]
pub fn init() -> Result<World> {
    let env = |name: &str| std::env::var(name).ok();
    if let Some(runtime) = membership::here() {
        let world = World { parent: None, communicator: Communicator::of_everybody(runtime)? };
        return Ok(match (&world.core.job.start, Wishes::from_env(env)) {
            (Start::Process(_), Ok(wishes)) => world.heeding(wishes),
            _ => world,
        });
    }
    let (road, job) = wire_up::join_job()?;
    let mut world = World::new(road, job)?;
    if let Some(watch) = Watch::from_env(env, wire_up::duplicate) {
        world.runtime.enter().set_watch(watch);
    }
    // Who asks for nonsense has been refused by now.
    if let Ok(wishes) = Wishes::from_env(env) {
        let remarks = Remarks::new(world.rank(), wishes.report.clone());
        world.runtime.enter().set_remarks(remarks);
        world = world.heeding(wishes);
    }
    world.parent = spawn::meet_parents(&world)?;
    membership::remember(&world.runtime);
    Ok(world)
}

impl World {
    pub(crate) fn new(road: Road, job: Job) -> Result<World> {
        let (me, size) = (Rank(road.me().0), road.peers() as u32);
        let config = config(&road);
        let group = Arc::new(Members::World { size });
        let job = Arc::new(job);
        let context = job.contexts.first();
        let ranks_here = (0..size).filter(|&peer| job.same_host(Peer(peer))).count();
        let processors = job.processors() / ranks_here.max(1);
        let runtime = Runtime::new(Engine::new(road, config));
        let runtime = Entrance::new(runtime, Arc::clone(&job), processors)?;
        let core = Core::new(job, group, me, context);
        Ok(World { parent: None, communicator: Communicator::new(runtime, core, Wanted::default()) })
    }

    /// This world with what was wished for its errors and its collectives.
    fn heeding(self, wishes: Wishes) -> World {
        self.set_error_handler(wishes.errors);
        let wanted = Wanted::new(wishes.algorithms, wishes.check);
        let communicator = Communicator::new(self.runtime.clone(), Arc::clone(&self.core), wanted);
        World { communicator, ..self }
    }

    /// Those who spawned this world, with whom the ranks of this one share a start
    /// (MPI_Comm_get_parent); `None` where nobody did. See [`Communicator::spawn`].
    #[doc(alias = "MPI_Comm_get_parent")]
    pub fn parent(&self) -> Option<&Intercommunicator> {
        self.parent.as_ref()
    }

    pub(crate) fn into_communicator(self) -> Communicator {
        self.communicator
    }

    /// Who is where and which roads lead there, in a few lines; the same facts for every rank, told from this one.
    ///
    /// ```
    /// selvedge::local::run(2, |world| {
    ///     let report = world.report();
    ///     assert!(report.starts_with("selvedge: 2 ranks, road shm"));
    /// });
    /// ```
    pub fn report(&self) -> String {
        let mut text = String::new();
        let runtime = self.runtime.enter();
        let roads =
            runtime.engine().transport().roads().iter().map(|caps| match (caps.name, caps.read_bytes_max) {
                ("shm", 0) => "shm (double copy: the kernel refuses the single one)",
                ("shm", _) => "shm (single copy)",
                (name, _) => name,
            });
        let roads: Vec<&str> = roads.collect();
        let _ = writeln!(text, "selvedge: {} ranks, road {}", self.size(), roads.join(" and "));
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

/// What is asked of the engine: of shared memory what is right there, of every other road what is right between hosts.
fn config(road: &Road) -> Config {
    // A rendezvous takes a turn of either side. Where ranks outnumber cores a turn is dear, and two copies are not.
    let once = road.near().is_some_and(|near| near.has_single_copy() && !near.is_crowded());
    let eager_bytes_max = if once { EAGER_BYTES_MAX } else { usize::MAX };
    // An answer takes less time here than the copies of a train.
    let near = RoadConfig { eager_bytes_max, pregranted_bytes_max: 0, ..RoadConfig::default() };
    Config { roads: vec![("shm", near)], ..Config::default() }
}

impl Deref for World {
    type Target = Communicator;

    fn deref(&self) -> &Communicator {
        &self.communicator
    }
}

/// Seconds since some moment in the past, the same for all calls of one process (MPI_Wtime).
///
/// ```
/// let begin = selvedge::wtime();
/// let sum: u64 = (0..1000).sum();
/// assert!(sum > 0 && selvedge::wtime() >= begin);
/// ```
#[doc(alias = "MPI_Wtime")]
pub fn wtime() -> f64 {
    static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    BEGIN.elapsed().as_secs_f64()
}
