//! A communicator: a group of ranks with a context of its own (MPI 5.0 chapter 7). Below: how new ones are made, of which ranks, with which
//! numbers and neighbours, for which threads, and with ranks that another group has started.

pub(crate) mod contexts;
pub(crate) mod create;
pub(crate) mod duplicate;
pub(crate) mod extensions;
pub(crate) mod group;
pub(crate) mod inter;
pub(crate) mod members;
pub(crate) mod spawn;
pub(crate) mod team;
pub(crate) mod topology;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use selvedge_coll::Rank;
use selvedge_engine::{Context, Envelope, Failure};
use selvedge_transport::{Peer, Scope};

use crate::collective::algorithms::Wanted;
use crate::collective::plan::Plans;
use crate::communicator::extensions::Extensions;
use crate::communicator::members::Members;
use crate::datatype::signature::STAMP_BYTES;
use crate::error::{Error, ErrorHandler, Misuse, Result};
use crate::request::owned::Abandoned;
use crate::request::scope::Table;
use crate::runtime::Trouble;
use crate::runtime::station::{Entrance, Inner};
use crate::world::job::{Job, MEETING_CONTEXT};

/// What leads to the peers.
pub(crate) type Road = crate::world::roads::Roads<Far>;

/// The road to other hosts, whose ranks are met when there is something to do with them.
pub(crate) type Far = selvedge_transport::Introduced<selvedge_ofi::Ofi, crate::world::cards::Cards>;

/// A group of ranks that exchange messages no other communicator sees (MPI 5.0 section 7.2).
///
/// Every call takes `&self`. A communicator belongs to the thread that made it; other threads get one of their own from a
/// [`Team`](crate::Team) (MPI_THREAD_MULTIPLE). All collective calls, and the making of new
/// communicators, must be made by all ranks of the group in the same order.
///
/// Communication moves only while some call of this library is running.
///
/// ```
/// selvedge::local::run(4, |world| {
///     let mut sum = [0];
///     world.allreduce(&[world.rank()], &mut sum, &selvedge::Op::sum()).unwrap();
///     assert_eq!(sum, [6]);
///     let half = world.split(Some(world.rank() as u32 % 2), 0).unwrap().expect("I gave a colour");
///     half.allreduce(&[world.rank()], &mut sum, &selvedge::Op::sum()).unwrap();
///     assert_eq!(sum, [if world.rank() % 2 == 0 { 2 } else { 4 }]);
/// });
/// ```
pub struct Communicator {
    pub(crate) runtime: Entrance,
    pub(crate) group: Arc<Members>,
    pub(crate) plans: Plans,
    /// Memory of the last scope, for the next one.
    pub(crate) spare_table: Cell<Table>,
    pub(crate) core: Arc<Core>,
    /// Bytes of the stamp in front of each message; 0 while types are not checked.
    pub(crate) stamp_bytes: usize,
    me: Rank,
    context: Context,
    /// What goes on though nobody waits for it.
    pub(crate) abandoned: RefCell<Vec<Abandoned>>,
}

/// What all threads of a rank have in common of a communicator.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) job: Arc<Job>,
    group: Arc<Members>,
    me: Rank,
    context: Context,
    /// Number of the next collective. Written inside the gate only, so that a load and a store will do.
    sequence: AtomicU32,
    /// Number of the next persistent collective.
    persistent: AtomicU16,
    /// Number of the next partitioned send.
    channels: AtomicU32,
    /// A thread is in a blocking collective, while there are several.
    is_collecting: AtomicBool,
    pub(crate) name: Mutex<String>,
    pub(crate) extensions: Extensions,
    pub(crate) handler: Mutex<ErrorHandler>,
    /// The context is this communicator's, and free again when it is gone.
    owns_context: bool,
}

impl Drop for Core {
    fn drop(&mut self) {
        if self.owns_context {
            self.job.contexts.release(self.context.0);
        }
    }
}

impl Core {
    pub(crate) fn new(job: Arc<Job>, group: Arc<Members>, me: Rank, context: u32) -> Arc<Core> {
        Core::with(job, group, me, context, ErrorHandler::default(), true)
    }

    /// What the ranks of a group, which may not be all of this communicator's, have to make one of their own: its members, and
    /// a context where nothing else is sent.
    pub(crate) fn for_meetings(&self, group: &Arc<Members>, me: usize) -> Arc<Core> {
        let context = self.context.0 + MEETING_CONTEXT;
        Core::with(Arc::clone(&self.job), Arc::clone(group), Rank(me as u32), context, self.handler(), false)
    }

    pub(crate) fn rank(&self) -> usize {
        self.me.index()
    }

    /// What is done about errors.
    pub(crate) fn handler(&self) -> ErrorHandler {
        self.handler.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn with(
        job: Arc<Job>,
        group: Arc<Members>,
        me: Rank,
        context: u32,
        handler: ErrorHandler,
        owns_context: bool,
    ) -> Arc<Core> {
        Arc::new(Core {
            job,
            group,
            me,
            context: Context(context),
            sequence: AtomicU32::new(0),
            persistent: AtomicU16::new(0),
            channels: AtomicU32::new(0),
            is_collecting: AtomicBool::new(false),
            name: Mutex::default(),
            extensions: Extensions::default(),
            handler: Mutex::new(handler),
            owns_context,
        })
    }
}

/// A blocking collective among threads, for as long as it lasts.
#[derive(Debug)]
pub(crate) struct Collecting<'a>(&'a AtomicBool);

impl Drop for Collecting<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl fmt::Debug for Communicator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rank, size, context, name) = (self.rank(), self.size(), self.context.0, self.name());
        let name = if name.is_empty() { name } else { format!("{name:?}, ") };
        write!(f, "Communicator({name}rank {rank} of {size}, context {context})")
    }
}

impl Drop for Communicator {
    /// Waits for what goes on though nobody else does.
    fn drop(&mut self) {
        self.wait_for_abandoned();
    }
}

impl Communicator {
    pub(crate) fn new(runtime: Entrance, core: Arc<Core>, wanted: Wanted) -> Communicator {
        let Core { me, context, ref job, ref group, .. } = *core;
        let plans = Plans::new(me, job.machine(group.size()), wanted);
        Communicator {
            runtime,
            group: Arc::clone(group),
            plans,
            spare_table: Cell::default(),
            abandoned: RefCell::default(),
            stamp_bytes: if core.job.checks_types { STAMP_BYTES } else { 0 },
            me,
            context,
            core,
        }
    }

    /// This process's place in the group, `0..size`.
    #[inline]
    pub fn rank(&self) -> usize {
        self.me.index()
    }

    /// Number of ranks in the group.
    #[inline]
    pub fn size(&self) -> usize {
        self.group.size()
    }

    /// Number of ranks of this group on this rank's host.
    ///
    /// ```
    /// selvedge::local::run(3, |world| {
    ///     assert_eq!(world.local_ranks(), 3);
    /// });
    /// ```
    pub fn local_ranks(&self) -> usize {
        (0..self.size()).filter(|&rank| self.core.job.same_host(self.peer_of(rank))).count()
    }

    /// Number of processors that the ranks of the job may use together on this rank's host. A program that has threads
    /// in its ranks makes `local_processors() / local_ranks()` of them, at least one.
    ///
    /// ```
    /// selvedge::local::run(2, |world| {
    ///     let threads = (world.local_processors() / world.local_ranks()).max(1);
    ///     assert!(threads >= 1); // what this rank's share of the host can do at once
    /// });
    /// ```
    pub fn local_processors(&self) -> usize {
        self.core.job.processors()
    }

    /// Name of the host a rank runs on. Panics when there is no such rank.
    ///
    /// ```
    /// selvedge::local::run(2, |world| {
    ///     assert_eq!(world.host_of(0), world.host_of(1));
    /// });
    /// ```
    pub fn host_of(&self, rank: usize) -> &str {
        self.core.job.host_name(self.peer_of(rank))
    }

    /// Process id of a rank on its host. Panics when there is no such rank.
    ///
    /// ```
    /// selvedge::local::run(2, |world| {
    ///     assert_eq!(world.pid_of(world.rank()), std::process::id());
    /// });
    /// ```
    pub fn pid_of(&self, rank: usize) -> u32 {
        self.core.job.pid(self.peer_of(rank))
    }

    /// The name that this rank has given the communicator, empty at first (MPI_Comm_get_name).
    #[doc(alias = "MPI_Comm_get_name")]
    pub fn name(&self) -> String {
        self.core.name.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gives the communicator a name on this rank, for its `Debug` form (MPI_Comm_set_name). Local.
    ///
    /// ```
    /// selvedge::local::run(1, |world| {
    ///     world.set_name("halo");
    ///     assert!(format!("{:?}", *world).contains("halo"));
    /// });
    /// ```
    #[doc(alias = "MPI_Comm_set_name")]
    pub fn set_name(&self, name: impl Into<String>) {
        *self.core.name.lock().unwrap_or_else(PoisonError::into_inner) = name.into();
    }

    /// Values that the program keeps with this communicator.
    pub fn extensions(&self) -> &Extensions {
        &self.core.extensions
    }

    /// Ends the whole job at once with `code` as its exit code (MPI_Abort; 0 becomes 1). Messages in flight are lost.
    /// In ranks that are threads ([`crate::local`]) it panics instead, which ends the group.
    #[doc(alias = "MPI_Abort")]
    pub fn abort(&self, code: i32) -> ! {
        self.core.job.abort(self.rank(), code)
    }

    /// The peer of an existing rank.
    pub(crate) fn peer_of(&self, rank: usize) -> Peer {
        assert!(rank < self.size(), "rank {rank} of {}", self.size());
        self.group.peer(Rank(rank as u32))
    }

    /// The peer of a rank that the user named.
    #[inline]
    pub(crate) fn checked_peer(&self, what: &'static str, rank: usize) -> Result<Peer> {
        if rank >= self.size() {
            return Err(self.refuse(Misuse::RankOutOfRange { what, given: rank, size: self.size() }));
        }
        Ok(self.group.peer(Rank(rank as u32)))
    }

    /// The rank of a peer that belongs to the group.
    pub(crate) fn rank_of(&self, peer: Peer) -> usize {
        self.group.rank(peer).expect("messages of a context come from its group").index()
    }

    /// The context of point-to-point messages.
    #[inline]
    pub(crate) fn message_context(&self) -> Context {
        self.context
    }

    /// The context of collectives.
    #[inline]
    pub(crate) fn collective_context(&self) -> Context {
        Context(self.context.0 + 1)
    }

    /// The context of persistent collectives.
    #[inline]
    pub(crate) fn persistent_context(&self) -> Context {
        Context(self.context.0 + 2)
    }

    /// The context of partitioned messages.
    pub(crate) fn partitioned_context(&self) -> Context {
        Context(self.context.0 + 3)
    }

    /// The number of the next partitioned send.
    pub(crate) fn next_channel(&self) -> u32 {
        self.core.channels.fetch_add(1, Ordering::Relaxed)
    }

    /// The number of the next persistent collective.
    pub(crate) fn next_persistent(&self) -> u16 {
        self.core.persistent.fetch_add(1, Ordering::Relaxed)
    }

    /// The number of the next collective. To be called inside, where no other thread is.
    #[inline]
    pub(crate) fn next_sequence(&self, _: &Inner<'_>) -> u32 {
        let sequence = self.core.sequence.load(Ordering::Relaxed);
        self.core.sequence.store(sequence.wrapping_add(1), Ordering::Relaxed);
        sequence
    }

    /// Takes note of a blocking collective where there are other threads.
    #[cold]
    pub(crate) fn begin_collecting(&self) -> Result<Collecting<'_>> {
        match self.core.is_collecting.swap(true, Ordering::Relaxed) {
            true => Err(self.refuse(Misuse::ConcurrentCollectives)),
            false => Ok(Collecting(&self.core.is_collecting)),
        }
    }

    /// Bytes of a message without those of its stamp.
    #[inline]
    pub(crate) fn without_stamp(&self, bytes: u64) -> u64 {
        bytes.saturating_sub(self.stamp_bytes as u64)
    }

    /// What went wrong, in terms of ranks, after the handler has seen it.
    #[cold]
    pub(crate) fn explain(&self, trouble: Trouble) -> Error {
        self.raise(self.in_terms_of_ranks(trouble))
    }

    fn in_terms_of_ranks(&self, trouble: Trouble) -> Error {
        match trouble {
            Trouble::Engine(Failure::Truncated {
                sent,
                capacity,
                envelope: Envelope { source, tag, .. },
            }) => {
                let (sent, capacity) = (self.without_stamp(sent), self.without_stamp(capacity));
                Error::Truncated { source_rank: self.rank_of(source), tag: tag.0 as i32, sent, capacity }
            }
            Trouble::Engine(Failure::Cancelled) => Error::Cancelled,
            Trouble::Engine(Failure::Fault(fault)) => {
                let (rank, place) = match fault.scope {
                    Scope::Peer(peer) => {
                        (self.group.rank(peer).map(Rank::index), self.core.job.whereabouts(peer))
                    }
                    Scope::Local => (None, None),
                };
                Error::Fault { rank, place, fault }
            }
            Trouble::WaitsForItself => Misuse::WaitsForItself { rank: self.rank() }.into(),
            Trouble::Disagreement { source, given, expected } => {
                Misuse::Disagreement { source_rank: self.rank_of(source), given, expected }.into()
            }
            Trouble::Invalid { index, type_name, source } => {
                let source_rank = source.map(|source| self.rank_of(source));
                Misuse::InvalidElement { index, type_name, source_rank }.into()
            }
            Trouble::Withheld { partition } => {
                Misuse::PartitionWithheld { partition: partition as usize }.into()
            }
            Trouble::Partitioning { source, given, expected } => {
                Misuse::Partitioning { source_rank: self.rank_of(source), given, expected }.into()
            }
        }
    }
}
