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
//! Read `discover.rs` and `rail/endpoint.rs` first, then `rail.rs` and `transport.rs`; what belongs to one of them is in
//! the folder of its name. What there is to know about EFA is in `efa.rs`, what there is to know about libfabric's memory
//! in `sys.rs`.
//!
//! What is *not* here: order, matching, tags, messages larger than a packet (`engine`), ranks of one host (`shm`), how cards get
//! around (`boot`). Invariants of absence: no header, no C compiler and no libfabric is needed to build; no libfabric
//! call outside `sys`, `info.rs` and, of `rail`, `fabric.rs`, `queue.rs` and `endpoint.rs`; nothing a provider can do is
//! assumed, it is asked for and read back.

mod discover;
mod efa;
pub mod environment;
mod error;
mod faults;
mod info;
mod load;
mod opening;
mod peers;
mod rail;
mod settings;
mod sys;
mod transport;

pub use discover::devices::Trouble;
pub use discover::spread::{Overfull, Seat, own_node, spread};
pub use discover::{Choice, Discovery, Provider, Refusal, discover};
pub use error::Error;
pub use info::{Abilities, AddressFormat, Nic};
pub use load::{Library, candidates};
pub use opening::Opening;
pub use opening::terms::Terms;
pub use selvedge_dlopen::LoadError;
pub use settings::Settings;
pub use transport::Ofi;
pub use transport::alarm::Alarm;
