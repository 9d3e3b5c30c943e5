//! Ranks of one host, over memory that they share: a [`Transport`](selvedge_transport::Transport).
//!
//! Packets travel in rings of cache lines, one per ordered pair of peers, with one writer and one reader each; a small
//! one that answers another takes the one cache line that the two write by turns. Large messages are copied once, straight
//! from the sender's memory into the receiver's (process_vm_readv(2), or memcpy between threads), by both sides at the same
//! time. Who waits spins, then yields, then sleeps on a futex. All of it is one anonymous file that has no name anywhere
//! and is gone with the last process, whatever ended it.
//!
//! Read [`Segment`] first, then `ring.rs`, `baton.rs`, `job.rs`, `doorbell.rs` and `attention.rs` (the protocols
//! between processes, each with its model), then `shm.rs`, where they become [`Shm`].
//!
//! What is *not* here: who is on which host and how cards get around (`boot`), order, matching, messages larger than a
//! packet (`engine`). Invariants of absence: no names in `/dev/shm`, no files, no threads, no signals, no environment
//! variables. Unsafe code is in `map.rs`, `sys.rs`, and where these are
//! called in `segment.rs`, `copy.rs` and `slots.rs`.
//!
//! Trust: all processes of a segment belong to one user and one job. What they write is checked where a mistake would
//! lead out of bounds; it is not defended against malice.

#![cfg_attr(loom, allow(dead_code, reason = "what calls the protocols is left out of a model"))]

mod attention;
mod baton;
mod doorbell;
mod job;
#[cfg(all(test, loom))]
mod model;
mod ring;
mod sync;

// The rest needs a kernel and real memory, which a model has not.
#[cfg(not(loom))]
mod alarm;
#[cfg(not(loom))]
mod card;
#[cfg(not(loom))]
mod copy;
#[cfg(not(loom))]
mod faults;
#[cfg(not(loom))]
mod layout;
#[cfg(not(loom))]
mod map;
#[cfg(not(loom))]
mod patience;
#[cfg(not(loom))]
mod segment;
#[cfg(not(loom))]
mod shm;
#[cfg(not(loom))]
mod slots;
#[cfg(not(loom))]
mod sys;

#[cfg(not(loom))]
pub use alarm::Alarm;
#[cfg(not(loom))]
pub use segment::Segment;
#[cfg(not(loom))]
pub use shm::{Joined, Shm};

/// What can be chosen when a [`Segment`] is created; the same for all that open it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// How large messages are copied.
    pub copy: CopyMode,
}

/// How large messages are copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CopyMode {
    /// Once where all ranks are permitted to, else through the rings.
    #[default]
    Auto,
    /// Once; a [`Fault`](selvedge_transport::Fault) where a rank is not permitted to.
    Single,
    /// Through the rings, always.
    Never,
}
