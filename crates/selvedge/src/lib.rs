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
//! Start it with `mpirun -n 4 program`. Without a launcher it is a job of one rank. Ranks can also be threads of one
//! process: [`local::run`], and [`test`] for tests under plain `cargo test`.
//!
//! Read first: [`World`] and [`Communicator`], then [`Scope`] for nonblocking calls. Names are MPI's, and those of the
//! `mpi` crate where it has a good one (docs/guide-rsmpi.md).
//!
//! What it is not: there is no progress thread, no global state (a process can hold several worlds), no hidden abort.
//! `mpirun` starts ranks on one host or on many, as do other launchers, and [`init`] says how they meet.
//!
//! Inside: this crate is where the rooms meet. A call becomes a shape, the shape a schedule (`selvedge-coll`), the
//! schedule steps ([`runtime`]), the steps messages and packets (`selvedge-engine`), the packets cache lines
//! (`selvedge-shm`) or datagrams (`selvedge-ofi`).

// What `#[derive(Datatype)]` writes says `selvedge`, also in here.
extern crate self as selvedge;

mod blocking;
mod buffered;
mod cards;
mod collective;
mod communicator;
mod contexts;
mod create;
mod datatype;
mod error;
mod executor;
mod extensions;
mod group;
mod groups;
mod job;
mod layout;
pub mod local;
mod locality;
mod matched;
mod memory;
mod message;
mod modes;
mod network;
mod op;
mod owned;
mod persistent;
mod plan;
mod pmix;
mod report;
mod request;
mod roads;
mod routes;
pub mod runtime;
mod scope;
mod station;
mod steps;
mod team;
mod topology;
mod values;
mod watch;
mod wire_up;
mod wishes;
mod world;

pub use buffered::SendBuffer;
pub use communicator::Communicator;
pub use datatype::{Datatype, Plain};
pub use error::{Error, Misuse, Result};
pub use extensions::Extensions;
pub use groups::{Comparison, Group};
pub use layout::Layout;
pub use locality::Level;
pub use matched::Message;
pub use message::{ANY_SOURCE, ANY_TAG, PROC_NULL, Source, Status, Tag};
pub use op::{Integer, Located, Logical, Number, Op, Ordered};
pub use owned::{OwnedBuffer, OwnedRequest};
pub use persistent::{Persistent, PersistentCollective, start_all};
pub use request::{Request, test_all, test_any, test_some, wait_all, wait_any, wait_some};
pub use scope::Scope;
pub use selvedge_macros::{Datatype, test};
pub use team::Team;
pub use topology::{Cartesian, Neighborhood, balanced_dims};
pub use world::{World, init, wtime};

/// Pages for readers of the documentation.
#[cfg(doc)]
pub mod guide {
    pub mod functions {
        #![doc = include_str!("guide/functions.md")]
        use crate::*;
    }
}

/// The pages that show code: what they show is compiled and run with the documentation tests.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../../../README.md")]
    mod readme {}
    #[doc = include_str!("../../../docs/guide-rsmpi.md")]
    mod guide_rsmpi {}
}

/// What went wrong in the world, and with whom; the inside of [`Error::Fault`].
pub use selvedge_transport::{Cause, Fault};
