//! Other hosts, over libfabric: EFA where there is one, TCP where not. A [`Transport`](selvedge_transport::Transport).
//!
//! The way from a machine to a transport, each step a value:
//!
//! ```text
//! environment::explain   which variables hurt, before libfabric sees them
//! Library::open          which libfabric, and from where; nothing is linked, a laptop needs none
//! discover               which roads there are, what each can do, and why the others are not there
//! spread                 which NICs each rank of a host uses
//! Opening::open, card    an endpoint that receives, and what others need to reach it
//! Terms::of              what all ranks must see alike, said by one of them
//! Opening::join          an Ofi, which moves packets
//! Acquaint::stranger     whose card it wants next: the first time that there is something to do with a peer
//! ```
//!
//! Read `discover.rs` and `endpoint.rs` first, then `rail.rs` and `transport.rs`. What there is to know about EFA is in
//! `efa.rs`, what there is to know about libfabric's memory in `sys.rs`.
//!
//! What is *not* here: order, matching, tags, messages larger than a packet (`engine`), ranks of one host (`shm`), how cards get
//! around (`boot`). Invariants of absence: no header, no C compiler and no libfabric is needed to build; no libfabric
//! call outside `sys`, `info.rs`, `fabric.rs`, `queue.rs` and `endpoint.rs`; nothing a provider can do is assumed, it is asked for and read
//! back.

mod acquaintance;
mod alarm;
mod cache;
mod card;
mod contexts;
mod devices;
mod discover;
mod efa;
mod endpoint;
pub mod environment;
mod error;
mod fabric;
mod farewell;
mod faults;
mod info;
mod interface;
mod lifeline;
mod load;
mod monitor;
mod numbers;
mod one_sided;
mod opening;
mod operations;
mod pages;
mod passages;
mod patience;
mod peers;
mod pool;
mod queue;
mod rail;
mod rails;
mod sending;
mod settings;
mod spread;
mod steps;
mod sys;
mod terms;
mod transport;
mod words;

pub use alarm::Alarm;
pub use devices::Trouble;
pub use discover::{Choice, Discovery, Provider, Refusal, discover};
pub use error::Error;
pub use info::{Abilities, AddressFormat, Nic};
pub use load::{Library, LoadError, candidates};
pub use opening::Opening;
pub use settings::Settings;
pub use spread::{Overfull, Seat, own_node, spread};
pub use terms::Terms;
pub use transport::Ofi;
