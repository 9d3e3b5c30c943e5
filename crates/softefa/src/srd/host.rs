//! What the protocol needs of the device around it.

use super::{Gid, Spans, Status};

/// What one-sided work wants to do with remote memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Look at it.
    Read,
    /// Change it.
    Write,
}

/// A receive taken from the receive queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receive {
    /// What the poster called it.
    pub wr_id: u64,
    /// Where the bytes go.
    pub spans: Spans,
}

/// What the protocol needs of the device around it: posted receives and registered memory. All calls are made from
/// within a call into the core, so they see and keep whatever lock the caller holds.
pub trait Host {
    /// The next posted receive, which is then used up. [`Status::NotReady`] if there is none;
    /// [`Status::BadRemoteLength`] if the next one is shorter than `bytes` (whether that one is used up is the device's
    /// choice).
    fn take_receive(&mut self, bytes: u32) -> Result<Receive, Status>;

    /// Where `bytes` of registered memory are in this process; [`Status::BadRemote`] where `rkey` does not cover all of
    /// them for this access. `bytes` is never 0.
    fn resolve(&self, rkey: u32, remote: u64, bytes: u32, access: Access) -> Result<u64, Status>;

    /// Whether one-sided work of this device is let in; a strict device wants an address handle for it (status 14).
    fn knows(&self, gid: Gid) -> bool;

    /// Copies `bytes` to an address which is part of a posted receive, of the local side of a read, or which
    /// [`Host::resolve`] gave a moment ago.
    fn write(&mut self, at: u64, bytes: &[u8]);

    /// Appends `spans` to `into`. Only called for packets that are held back on purpose.
    fn read(&self, spans: &Spans, into: &mut Vec<u8>);
}
