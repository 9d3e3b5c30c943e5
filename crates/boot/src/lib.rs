//! Who is where: how the processes of a job find their ranks and each other, and how whoever started them answers.
//!
//! A rank reads [`Boot`] first: its place in the job, a store of keys and values, a fence. A launcher reads [`Server`]:
//! the other end of the same conversation, as a state machine that is fed bytes and gives back bytes and events.
//! [`Host`] says on what machine one is, [`NodeMap`] which ranks share one.
//!
//! A job on several nodes has a server on each, and they are one: [`tree`] has what they say to each other.
//!
//! Ranks speak PMI-1, the line-based protocol of hydra, Intel MPI and Slurm's pmi2 plugin; servers understand PMI-2 as
//! well, on the same connection. [`pmi1`] and [`pmi2`] have requests and replies as values. A launcher that offers
//! something else altogether is reached through a [`KeyValueSpace`] that somebody else brings along.
//!
//! What is *not* here: starting processes (the launcher's), connecting ranks (a transport's), any thread or clock.
//! Invariants of absence: no unsafe code; no input or output outside `client.rs` and `host.rs`; the environment enters
//! as an argument; nothing that arrives on a connection, however mangled, panics.

#![forbid(unsafe_code)]

pub mod asking;
mod base64url;
mod client;
mod detect;
mod error;
mod host;
mod lex;
mod map;
pub mod names;
pub mod pmi1;
pub mod pmi2;
mod server;
mod space;
pub mod spawn;
pub mod status;
pub mod tree;

pub use client::Boot;
pub use error::BootError;
pub use host::Host;
pub use lex::{LineFault, Malformed};
pub use map::{MapFault, Node, NodeMap};
pub use server::{Event, Job, Output, PAIR_BYTES_MAX, REQUEST_BYTES_MAX, STORE_BYTES_MAX, Server, State};
pub use space::{KeyValueSpace, SpaceFault};
pub use tree::{Down, Up};

/// Longest key of [`Boot::put`], in bytes: with the number of a segment still below the 64 that hydra 4 loses.
pub const KEY_BYTES_MAX: usize = 48;
/// Largest value of [`Boot::put`], in bytes. An address card has a few hundred.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
