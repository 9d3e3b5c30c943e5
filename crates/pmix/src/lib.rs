//! PMIx, through libpmix loaded at run time: ranks under Open MPI's mpirun, PRRTE and `srun --mpi=pmix`, and a launcher
//! under which Open MPI's own programs run.
//!
//! ```text
//! Library::open     which libpmix, and from where; nothing is linked, and who meets no PMIx needs none
//! Client::start     a rank: its place, a store of keys and values, a fence
//! Server::start     a node's end of the same conversation: environments for its ranks, and what they ask for as events
//! ```
//!
//! Read `client.rs` and `server.rs` first, then `examples/pmix_launch.rs`, a launcher in a page. What there is to know
//! about libpmix's memory is in `sys.rs`.
//!
//! Why not without libpmix: the wire between a rank and its server has no standard, only libpmix's own serialisation, in
//! eight generations. The interface in C is small and has been stable since 4.0.
//!
//! libpmix knows one process: **one [`Client`] or one [`Server`] in a process, once**. It starts a thread of its own, which
//! never runs code of ours but to put an [`Event`] into a queue.
//!
//! What is *not* here: starting processes, carrying anything between nodes (both the launcher's), spawn and the name service.
//! Invariants of absence: no header, no C compiler and no libpmix is needed to build; no call of libpmix and no unsafe
//! code outside `sys`; nothing is called back; a [`Server`] that is dropped leaves no file.

mod client;
mod error;
mod job;
mod library;
mod queue;
mod scratch;
mod server;
mod sys;

pub use client::Client;
pub use error::{Error, JobFault};
pub use job::{Job, JobHost};
pub use library::Library;
pub use queue::{Event, Ticket};
pub use selvedge_dlopen::LoadError;
pub use server::Server;
