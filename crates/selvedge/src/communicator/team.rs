//! Several threads of a rank that communicate at the same time (MPI 5.0 section 11.6).

use std::fmt;
use std::sync::Arc;

use selvedge_gate::Pass;

use crate::collective::algorithms::Wanted;
use crate::communicator::{Communicator, Core};
use crate::runtime::station::{Alarm, Entrance, Station};

/// What other threads of this rank need to communicate: a communicator in the form that may cross threads.
///
/// A [`Communicator`] stays with its thread, a team goes anywhere: it is `Send`, `Sync` and cheap to clone. Each thread
/// that is given one makes a communicator of its own from it ([`Team::communicator`]), with which it can do all that the first
/// one can (MPI_THREAD_MULTIPLE). Works with scoped threads, with threads that outlive the caller, and with thread pools.
///
/// ```
/// selvedge::local::run(2, |world| {
///     let team = world.team();
///     std::thread::scope(|threads| {
///         for tag in 0..3 {
///             let team = &team;
///             threads.spawn(move || {
///                 let mine = team.communicator();
///                 let mut message = [0_u64];
///                 if mine.rank() == 0 {
///                     mine.send(&[tag as u64 + 10], 1, tag).unwrap();
///                 } else {
///                     mine.recv(&mut message, 0, tag).unwrap();
///                     assert_eq!(message, [tag as u64 + 10]);
///                 }
///             });
///         }
///     });
/// });
/// ```
///
/// What holds among threads:
///
/// - A message goes to whichever thread receives it first: use tags, or a communicator for each thread, to say whose it is.
/// - Messages of one thread keep their order. Those of different threads have one only where the threads made sure of it.
/// - Collectives of one communicator are called by one thread at a time, in the same order on all ranks; a second blocking one
///   at the same time is [`Misuse::ConcurrentCollectives`](crate::Misuse). For collectives at the same time, give each
///   thread a [`dup`](Communicator::dup) of its own.
/// - A request stays with the thread that began it.
/// - A thread that panics with operations in flight calls them back, as always; the other threads go on.
///
/// Cost: while a team exists, and any communicator made from it, all threads of this rank take turns at a lock, also those
/// that use a communicator of another group. Before and after, a rank with one thread pays nothing for the possibility.
/// Threads that wait leave the lock alone: one of them looks for all of them.
///
/// A communicator itself does not cross threads:
///
/// ```compile_fail,E0277
/// # selvedge::local::run(1, |world| {
/// std::thread::scope(|threads| {
///     threads.spawn(|| world.barrier());
/// });
/// # });
/// ```
///
/// Nor does a world that is given away whole:
///
/// ```compile_fail,E0277
/// # selvedge::local::run(1, |world| {
/// std::thread::spawn(move || world.barrier());
/// # });
/// ```
///
/// Nor one that was made from a team: each thread makes its own.
///
/// ```compile_fail,E0277
/// # selvedge::local::run(1, |world| {
/// let mine = world.team().communicator();
/// std::thread::spawn(move || mine.barrier());
/// # });
/// ```
///
/// Nor a request, which is waited for where it began:
///
/// ```compile_fail,E0277
/// # selvedge::local::run(1, |world| {
/// let mut message = [0_u8];
/// world.scope(|scope| {
///     let request = scope.irecv(&mut message, 0, 0).unwrap();
///     std::thread::scope(|threads| {
///         threads.spawn(move || request.wait());
///     });
/// });
/// # });
/// ```
///
/// Nor a scope, in which another thread could begin what this one must wait for:
///
/// ```compile_fail,E0277
/// # selvedge::local::run(1, |world| {
/// world.scope(|scope| {
///     std::thread::scope(|threads| {
///         threads.spawn(|| scope.ibarrier().unwrap());
///     });
/// });
/// # });
/// ```
///
/// And an operation that other threads could not run is refused when it is made:
///
/// ```compile_fail,E0277
/// let calls = std::rc::Rc::new(std::cell::Cell::new(0));
/// let op = selvedge::Op::commutative(move |_: &[u8], _: &mut [u8]| calls.set(calls.get() + 1));
/// ```
#[derive(Clone)]
pub struct Team {
    pass: Pass<Station, Alarm>,
    core: Arc<Core>,
    wanted: Wanted,
}

impl fmt::Debug for Team {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Team({:?})", self.core)
    }
}

impl Communicator {
    /// This communicator in the form that may cross threads. From now on the threads of this rank take turns, until the team
    /// is gone and all that was made from it.
    ///
    /// # Panics
    /// Inside of a user's reduction.
    pub fn team(&self) -> Team {
        Team { pass: self.runtime.pass(), core: Arc::clone(&self.core), wanted: self.plans.wanted().clone() }
    }
}

impl Team {
    /// The communicator for the thread that calls. Same group, same messages, same collectives as the one that the team was
    /// made from. Cost: some counts; make it once for each thread, or for each task of a pool, not for each message.
    ///
    /// ```
    /// selvedge::local::run(1, |world| {
    ///     let team = world.team();
    ///     let size = std::thread::spawn(move || team.communicator().size()).join().unwrap();
    ///     assert_eq!(size, world.size());
    /// });
    /// ```
    pub fn communicator(&self) -> Communicator {
        Communicator::new(Entrance::by(&self.pass), Arc::clone(&self.core), self.wanted.clone())
    }
}
