//! Messages out of packets, once for all transports.
//!
//! A [`Transport`](selvedge_transport::Transport) carries datagrams in any order. The [`Engine`] makes of them what MPI
//! promises: messages of any length, matched by context, source and tag with wildcards, in order where order is
//! promised; and it keeps two promises of its own: memory for messages that nobody has asked for is bounded, and
//! whoever waits for a peer that is gone is told.
//!
//! Read [`Engine`] first, then [`matching`], then [`wire`] with docs/PROTOCOL.md beside it. One module owns one piece
//! of state:
//!
//! | module | owns |
//! |---|---|
//! | `engine` | what callers ask, and an eager message on its way out |
//! | `arrivals` | what comes in: an eager message from its packet to the [`Completion`], in its turn |
//! | [`matching`] | posted receives and unexpected messages |
//! | `unexpected` | the storage of unexpected payloads |
//! | `matched` | messages that a probe has taken out, and messages to oneself |
//! | [`credit`] | what a message costs its receiver |
//! | `window` | ordered messages that arrived before a predecessor |
//! | `peers` | a cache line per peer, and what is queued for it |
//! | `outbox` | sending what was queued |
//! | `request` | operations that are not over |
//! | `sync` | short messages whose sender waits until they are matched, at the receiver |
//! | `train` | messages of several packets that nobody had to ask for, at the receiver |
//! | `rendezvous` | long messages, at the sender and at the receiver |
//! | `faults` | who is told what when a peer fails |
//! | [`wire`] | the bytes of every packet |
//!
//! Invariants of absence: no unsafe code, no thread, no clock, no environment, no randomness, no blocking but in
//! [`Engine::wait`]; the bytes of messages are never looked at; no loop over peers outside construction; after warm-up
//! no allocation for an eager message.

#![forbid(unsafe_code)]

mod arrivals;
mod body;
mod config;
pub mod credit;
mod engine;
mod faults;
mod in_flight;
mod matched;
pub mod matching;
mod message;
mod outbox;
mod peers;
mod rendezvous;
mod request;
mod stats;
mod sync;
mod train;
mod unexpected;
mod window;
pub mod wire;

#[doc(hidden)]
pub use config::Mutant;
pub use config::{Config, RoadConfig};
pub use engine::Engine;
pub use in_flight::{InFlight, Stage};
pub use matched::Matched;
pub use message::{Completion, Context, Envelope, Failure, Order, Outcome, Submitted, Tag};
pub use request::RequestId;
pub use stats::Stats;
