//! Ranks as threads of this process: for tests, examples and laptops.
//!
//! The same transport, engine and schedules run as between processes; only the launcher is missing.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Barrier, Mutex};

use selvedge_boot::Host;
use selvedge_shm::{Config, Segment};
use selvedge_transport::Peer;

use crate::communicator::Road;
use crate::world::World;
use crate::world::job::Start;
use crate::world::membership;
use crate::world::wire_up;

/// Runs `program` on `ranks` threads, each with a [`World`] of its own, and returns their results in order of ranks.
///
/// A rank that panics fails the others' operations with it ([`crate::Error::Fault`]); when all have ended, the first
/// panic continues in the caller.
///
/// ```
/// let ranks = selvedge::local::run(3, |world| {
///     world.barrier().unwrap();
///     world.rank()
/// });
/// assert_eq!(ranks, [0, 1, 2]);
/// ```
///
/// # Panics
/// When `ranks` is 0, when the machine has no room for the shared memory, or when `program` panics.
pub fn run<R: Send>(ranks: usize, program: impl Fn(World) -> R + Sync) -> Vec<R> {
    start(
        ranks,
        std::env::var("SELVEDGE_CHECK").is_ok_and(|value| !value.is_empty() && value != "0"),
        program,
    )
}

/// As [`run`], and every message says what it is made of: a receive of other types, or with too little room, ends in
/// [`Misuse::TypeMismatch`](crate::Misuse::TypeMismatch). The same as [`run`] with `SELVEDGE_CHECK=1` in the environment.
///
/// ```
/// use selvedge::{Error, Misuse};
///
/// selvedge::local::run_checked(2, |world| {
///     if world.rank() == 0 {
///         world.send(&[1.5f64], 1, 7).unwrap();
///     } else {
///         let error = world.recv(&mut [0i32; 2], 0, 7).unwrap_err();
///         assert!(matches!(error, Error::Misuse(Misuse::TypeMismatch { source_rank: 0, rank: 1, tag: 7, .. })));
///         assert!(error.to_string().starts_with("rank 0 sent 1 x f64 with tag 7, and rank 1 receives 2 x i32"));
///     }
/// });
/// ```
///
/// # Panics
/// As [`run`].
pub fn run_checked<R: Send>(ranks: usize, program: impl Fn(World) -> R + Sync) -> Vec<R> {
    start(ranks, true, program)
}

fn start<R: Send>(ranks: usize, checks_types: bool, program: impl Fn(World) -> R + Sync) -> Vec<R> {
    assert!(ranks > 0, "a job has at least one rank");
    let segment = Segment::create(ranks as u32, &Config::default()).unwrap_or_else(|fault| panic!("{fault}"));
    let segment = Arc::new(segment);
    let all_joined = Barrier::new(ranks);
    let first_panic = Mutex::new(None);
    let host = Host::here().name;
    let run_rank = |rank: u32| {
        // Everybody passes the barrier, also with a fault, so that nobody waits for ever.
        let joined = segment.join(Peer(rank));
        all_joined.wait();
        let world = catch_unwind(AssertUnwindSafe(|| {
            let near = joined.and_then(|joined| joined.open()).unwrap_or_else(|fault| panic!("{fault}"));
            let job = wire_up::job(Start::Thread, &segment, rank, host.clone(), checks_types);
            let world = World::new(Road::Near(near), job).unwrap_or_else(|error| panic!("{error}"));
            membership::remember(&world.runtime);
            world
        }));
        let result = world.and_then(|world| catch_unwind(AssertUnwindSafe(|| program(world))));
        result.map_err(|panic| {
            first_panic.lock().expect("nothing panics with the lock").get_or_insert(panic);
        })
    };
    let results: Vec<Result<R, ()>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..ranks as u32)
            .map(|rank| {
                let run_rank = &run_rank;
                let thread = std::thread::Builder::new().name(format!("rank {rank}"));
                thread.spawn_scoped(scope, move || run_rank(rank)).expect("the machine has room for a thread")
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("panics are caught inside")).collect()
    });
    if let Some(panic) = first_panic.into_inner().expect("nothing panics with the lock") {
        resume_unwind(panic);
    }
    results.into_iter().map(|result| result.expect("no rank panicked")).collect()
}
