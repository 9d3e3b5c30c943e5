//! The contract between Selvedge and a network, and a network to test it with.
//!
//! A [`Transport`] is what EFA natively is and nothing more: reliable datagrams of at most one MTU, delivered exactly
//! once *in any order*, and one-sided read and write. Whoever adds a network implements that trait, runs
//! [`conformance`] over it, and is done; order, matching, fragmentation, rendezvous and credit are the engine's, once,
//! for all of them.
//!
//! Read [`Transport`] first, then [`Buf`], then [`conformance`]. [`sim`] is the network to test on: virtual time,
//! everything from a seed, packets always shuffled. [`Trace`] and [`Faulty`] wrap any transport, to see what crosses
//! the seam and to make it worse; [`Introduced`] wraps one that learns of each peer when it first has to do with it.
//!
//! ```
//! use std::time::Duration;
//! use selvedge_transport::{Buf, Event, Peer, Sim, SimConfig, Transport};
//!
//! /// Sends a word to every peer, oneself included, and counts the words that come. Runs on any transport.
//! fn greet(transport: &mut dyn Transport, sent: &mut usize, heard: &mut usize) {
//!     while *sent < transport.peers() && transport.send(Peer(*sent as u32), b"hello", Buf::EMPTY).is_ok() {
//!         *sent += 1;
//!     }
//!     while let Some(event) = transport.poll() {
//!         if let Event::Packet { slot, .. } = event {
//!             assert_eq!(transport.packet(&slot), b"hello");
//!             transport.release(slot);
//!             *heard += 1;
//!         }
//!     }
//!     transport.wait(Duration::from_micros(50));
//! }
//!
//! let sim = Sim::new(SimConfig { peers: 3, seed: 7, ..SimConfig::tiny() });
//! let mut ranks: Vec<_> = sim.ports().into_iter().map(|port| (port, 0, 0)).collect();
//! while ranks.iter().any(|(_, _, heard)| *heard < 3) {
//!     for (port, sent, heard) in &mut ranks {
//!         greet(port, sent, heard);
//!     }
//! }
//! assert!(sim.idle());
//! ```
//!
//! What is *not* here: tags, messages larger than a datagram, requests, threads, clocks. Invariants of absence: this
//! crate starts no thread, reads no clock and no environment, and all its unsafe code is in `buf.rs` and
//! `scattered.rs`.

#![deny(unsafe_code)]

#[allow(unsafe_code, reason = "claims on memory in one place")]
mod buf;
pub mod conformance;
mod fault;
mod faulty;
mod introduced;
mod machine;
mod memory;
mod places;
mod rng;
#[allow(unsafe_code, reason = "claims on memory in several places")]
mod scattered;
pub mod sim;
pub mod trace;
mod transport;

pub use buf::{Buf, Key, RemoteSlice};
pub use fault::{Cause, Fault, Scope};
pub use faulty::{Faulty, FaultyConfig};
pub use introduced::{Acquaint, Directory, Introduced};
pub use machine::{Link, Machine};
pub use memory::Memory;
pub use places::Places;
pub use rng::{Digest, Rng};
pub use scattered::Scattered;
pub use sim::{Sim, SimConfig, SimPort};
pub use trace::Trace;
pub use transport::{Busy, Caps, Event, Peer, Slot, Token, Transport};
