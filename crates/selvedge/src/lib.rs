//! Selvedge: MPI-style communication for Rust HPC codes.
//!
//! ```no_run
//! # fn main() -> selvedge::Result<()> {
//! let world = selvedge::init()?;
//! let mut sum = [0.0];
//! world.allreduce(&[world.rank() as f64], &mut sum, &selvedge::Op::sum())?;
//! println!("rank {} of {}: {}", world.rank(), world.size(), sum[0]);
//! # Ok(())
//! # }
//! ```
//!
//! Start it with `mpirun -n 4 program`: four processes run the same program, and `world` is what joins them. Without a
//! launcher it is a job of one rank. All that follows runs as it stands here: [`local::run`] makes the ranks threads of one
//! process, which is good for trying things and for tests.
//!
//! # The library in ten minutes
//!
//! **Messages** go from rank to rank, with a tag that says what they are. What is sent is a slice; what is received goes into
//! another, or into a new vector when its length is not known. Messages between two ranks keep their order.
//!
//! ```
//! use selvedge::{ANY_SOURCE, ANY_TAG};
//!
//! selvedge::local::run(3, |world| {
//!     if world.rank() > 0 {
//!         world.send(&vec![0.5; world.rank()], 0, 7).unwrap();
//!     } else {
//!         let mut one = [0.0];
//!         let status = world.recv(&mut one, 1, 7).unwrap();
//!         assert_eq!((status.source, status.count::<f64>()), (1, 1));
//!         let (any, status) = world.recv_vec::<f64>(ANY_SOURCE, ANY_TAG).unwrap();
//!         assert_eq!((any.len(), status.source), (2, 2));
//!     }
//! });
//! ```
//!
//! Two ranks that first send large messages to each other and receive afterwards wait for ever, as in every MPI;
//! [`sendrecv`](Communicator::sendrecv) does both at once. A neighbour that may not exist is an `Option`: nothing is exchanged
//! with `None`.
//!
//! **Nonblocking calls** live in a [`Scope`]. What they were lent cannot be touched until the scope ends or the request was
//! waited for, and the compiler sees to that; a forgotten request is waited for at the end. [`isend_owned`] and its kin take a
//! vector and give it back, without a scope, and requests are futures as well.
//!
//! ```
//! selvedge::local::run(2, |world| {
//!     let other = 1 - world.rank();
//!     let (mine, mut theirs) = ([world.rank()], [9]);
//!     world.scope(|scope| {
//!         let receive = scope.irecv(&mut theirs, other, 0).unwrap();
//!         let send = scope.isend(&mine, other, 0).unwrap();
//!         // Here is time to compute.
//!         selvedge::wait_all([receive, send]).unwrap();
//!     });
//!     assert_eq!(theirs, [other]);
//! });
//! ```
//!
//! **Collectives** are called by all ranks of a communicator, in the same order: [`barrier`](Communicator::barrier),
//! [`broadcast`](Communicator::broadcast), [`reduce`](Communicator::reduce), [`allreduce`](Communicator::allreduce),
//! [`allgather`](Communicator::allgather), [`alltoall`](Communicator::alltoall). Each has a nonblocking form in [`Scope`]
//! (`iallreduce`) and a persistent one (`allreduce_init`). Operations are MPI's or closures ([`Op`]).
//!
//! ```
//! use selvedge::Op;
//!
//! selvedge::local::run(4, |world| {
//!     let (mine, mut largest) = ([world.rank() as i64, -3], [0, 0]);
//!     world.allreduce(&mine, &mut largest, &Op::max()).unwrap();
//!     assert_eq!(largest, [3, -3]);
//!     let gcd = Op::commutative_each(|a: u64, b: u64| (1..=a.min(b)).rev().find(|d| a % d + b % d == 0).unwrap_or(1));
//!     let mut all = [0];
//!     world.allreduce(&[6 * (world.rank() as u64 + 1)], &mut all, &gcd).unwrap();
//!     assert_eq!(all, [6]);
//! });
//! ```
//!
//! **What a message is made of**: numbers, `bool`, `char`, arrays, and structs of them with `#[derive(Datatype)]`
//! ([`Datatype`]). They travel as they lie in memory. Values of every other kind travel by serde: strings, maps, enums.
//!
//! ```
//! #[derive(Clone, Copy, Default, Debug, PartialEq, selvedge::Datatype)]
//! #[repr(C)]
//! struct Particle { position: [f64; 3], mass: f64 }
//!
//! selvedge::local::run(2, |world| {
//!     let mut particles = [Particle { mass: world.rank() as f64, ..Particle::default() }; 2];
//!     world.broadcast(&mut particles, 1).unwrap();
//!     assert_eq!(particles[0].mass, 1.0);
//!     let names = world.all_gather_values(format!("rank {}", world.rank())).unwrap();
//!     assert_eq!(names, ["rank 0", "rank 1"]);
//! });
//! ```
//!
//! **Communicators** are made of communicators: by colour ([`split`](Communicator::split)), by host
//! ([`split_by_host`](Communicator::split_by_host)), as a grid ([`cartesian`](Communicator::cartesian)), of any ranks
//! ([`create`](Communicator::create)). What is sent in one is never received in another, so that a library works on its own
//! [`dup`](Communicator::dup).
//!
//! ```
//! selvedge::local::run(4, |world| {
//!     let pair = world.split(Some(world.rank() as u32 / 2), 0).unwrap().expect("every rank gave a colour");
//!     let mut both = [0; 2];
//!     pair.allgather(&[world.rank()], &mut both).unwrap();
//!     assert_eq!(both[pair.rank()], world.rank());
//! });
//! ```
//!
//! **Threads**: a communicator stays with its thread. [`team`](Communicator::team) gives the form that may cross threads, from
//! which each makes a communicator of its own; then all of them communicate at once.
//!
//! **Errors** say whose turn it is: [`Misuse`] is the caller's, [`Fault`] is the world's (a rank that died, a limit of the
//! machine), with the likely cause and the next step. Nothing ends the job behind the program's back; a `main` that returns
//! [`Result`] ends with a sentence for people. Ranks that wait for one that is gone are told.
//!
//! **Tests** on several ranks are tests under plain `cargo test`, by the attribute [`test`]:
//!
//! ```
//! #[selvedge::test(ranks = [1, 2, 3])]
//! fn everybody_is_counted(world: selvedge::World) {
//!     let mut count = [0];
//!     world.allreduce(&[1], &mut count, &selvedge::Op::sum()).unwrap();
//!     assert_eq!(count, [world.size()]);
//! }
//! # fn main() {}
//! ```
//!
//! # And then
//!
//! - [`guide::cookbook`]: halo exchange, master and workers, checkpoints and twenty more patterns, to be copied.
//! - [`guide::c_mpi`] and [`guide::rsmpi`]: the calls side by side, for those who come from there; [`guide::functions`] has every
//!   function of MPI 5.0, chapters 3 to 9.
//! - [`World`] and [`Communicator`] have all calls; [`init`] says how ranks meet and which variables are heeded.
//!
//! # Features
//!
//! None is on by default; each adds types that messages can be made of, and changes nothing else.
//!
//! - `ndarray`: arrays and views of the `ndarray` crate as buffers, whatever their strides; `recv_array` receives a new one.
//! - `complex`: `num_complex::Complex` in messages and reductions.
//! - `half`: `f16` and `bf16` of the `half` crate in messages and reductions.
//!
//! # What it is not
//!
//! There is no progress thread (something moves while a call is running), no global state that a program could see (a process can hold several worlds),
//! no hidden abort. `mpirun` starts ranks on one host or on many, as do other launchers.
//!
//! Inside: this crate is where the rooms meet. A call becomes a shape, the shape a schedule (`selvedge-coll`), the
//! schedule steps ([`runtime`]), the steps messages and packets (`selvedge-engine`), the packets cache lines
//! (`selvedge-shm`) or datagrams (`selvedge-ofi`).
//!
//! [`isend_owned`]: Communicator::isend_owned

// What `#[derive(Datatype)]` writes says `selvedge`, also in here.
extern crate self as selvedge;

mod collective;
mod communicator;
mod datatype;
mod error;
pub mod local;
mod message;
mod request;
pub mod runtime;
mod world;

pub use collective::algorithms::OwnAlgorithm;
pub use collective::op::{Integer, Located, Logical, Number, Op, Ordered};
pub use communicator::Communicator;
pub use communicator::duplicate::CommunicatorRequest;
pub use communicator::extensions::Extensions;
pub use communicator::group::{Comparison, Group};
pub use communicator::inter::Intercommunicator;
pub use communicator::spawn::Spawn;
pub use communicator::team::Team;
pub use communicator::topology::{Cartesian, Neighborhood, balanced_dims};
pub use datatype::layout::Layout;
pub use datatype::signature::Signature;
pub use datatype::view::{Buffer, BufferMut, Parts, View, ViewMut};
pub use datatype::{Datatype, Plain};
pub use error::{Error, ErrorClass, ErrorHandler, Misuse, Result};
pub use message::buffered::SendBuffer;
pub use message::matched::Message;
pub use message::partitioned::{
    Partition, PartitionView, PartitionedRecv, PartitionedSend, Partitions, ready_all,
};
pub use message::{ANY_SOURCE, ANY_TAG, PROC_NULL, Source, Status, Tag};
pub use request::owned::{OwnedBuffer, OwnedRequest};
pub use request::persistent::{Persistent, PersistentCollective, start_all};
pub use request::scope::Scope;
pub use request::{Request, test_all, test_any, test_some, wait_all, wait_any, wait_some};
pub use selvedge_macros::{Datatype, test};
pub use world::locality::Level;
pub use world::{World, init, wtime};

/// Pages for readers of the documentation. What they show is compiled and run with the documentation tests.
#[cfg(doc)]
pub mod guide {
    pub mod cookbook {
        #![doc = include_str!("guide/cookbook.md")]
        use crate::*;
    }
    pub mod c_mpi {
        #![doc = include_str!("guide/c_mpi.md")]
        use crate::*;
    }
    pub mod functions {
        #![doc = include_str!("guide/functions.md")]
        use crate::*;
    }
    pub mod rsmpi {
        #![doc = include_str!("../../../docs/guide-rsmpi.md")]
    }
    pub mod rsmpi_examples {
        #![doc = include_str!("guide/rsmpi_examples.md")]
        use crate::*;
    }
}

/// The first page of the repository, whose code is tested as well.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../../../README.md")]
    mod readme {}
    #[doc = include_str!("../../../docs/guide-algorithms.md")]
    mod guide_algorithms {}
}

/// Algorithms for collectives, by name.
pub use selvedge_coll::{Algorithm, ChoiceError, Choices};

/// Collectives as values: what is asked, and what a rank does about it. For [`OwnAlgorithm`].
pub mod schedule {
    pub use selvedge_coll::{
        Action, Collective, Flaw, Rank, Schedule, Shape, Side, Slice, Space, StepIndex, explain, generate,
        price, verify,
    };
}

/// What went wrong in the world, and with whom; the inside of [`Error::Fault`].
pub use selvedge_transport::{Cause, Fault};
