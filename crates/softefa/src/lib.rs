//! A software EFA device, so that libfabric's real efa provider runs on a machine without the card.
//!
//! The library is preloaded into a process and stands in for libibverbs and libefa: the provider finds a device, creates
//! queue pairs on it and sends datagrams, reads and writes; what hardware would put on the wire travels as UDP. Any
//! address of 127/8 is a host, so many hosts fit on one machine and no privilege is needed.
//!
//! Read `srd` first: the protocol as a value that does no input or output. Then `device` (what the provider
//! sees), `qp` and `cq` (what it holds), `exports` (the functions it calls).
//!
//! What is *not* here: the speed of a device, its bugs, memory of accelerators. Invariants of absence: nothing of ours is
//! used, nothing of ours uses it; no packet leaves the addresses that were given; no file stays behind.

pub mod abi;
pub mod counters;
pub mod cq;
pub mod device;
mod exports;
pub mod fail;
pub mod faults;
pub mod launch;
pub mod mem;
pub mod net;
pub mod opened;
pub mod progress;
pub mod qp;
pub mod settings;
pub mod signals;
pub mod srd;
pub mod tally;
pub mod tree;
pub mod wire;
