//! The contract between Selvedge and a network, and a network to test it with.
//!
//! A [`Transport`] is what EFA natively is and nothing more: reliable datagrams of at most one MTU, delivered exactly
//! once *in any order*, and one-sided read and write. Whoever adds a network implements that trait, runs
//! [`conformance`] over it, and is done; order, matching, fragmentation, rendezvous and credit are the engine's, once,
//! for all of them.
//!
//! Read [`Transport`] first, then [`Buf`], then [`conformance`].
//!
//! What is *not* here: tags, messages larger than a datagram, requests, threads, clocks. Invariants of absence: this
//! crate starts no thread, reads no clock and no environment, and all its unsafe code is in `buf.rs`.

#![deny(unsafe_code)]

#[allow(unsafe_code, reason = "the one file with unsafe code")]
mod buf;
pub mod conformance;
mod fault;
mod faulty;
mod machine;
mod memory;
mod rng;
pub mod sim;
pub mod trace;
mod transport;

pub use buf::{Buf, Key, RemoteSlice};
pub use fault::{Cause, Fault, Scope};
pub use faulty::{Faulty, FaultyConfig};
pub use machine::{Link, Machine};
pub use memory::Memory;
pub use rng::{Digest, Rng};
pub use sim::{Sim, SimConfig, SimPort};
pub use trace::Trace;
pub use transport::{Busy, Caps, Event, Peer, Slot, Token, Transport};
