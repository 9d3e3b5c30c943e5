//! The trait, and the plain values that cross it.

use std::fmt;
use std::time::Duration;

use crate::{Buf, Fault, Key, RemoteSlice};

/// Index of an endpoint at a transport, `0..peers`. One's own index is a valid peer: sending to oneself works.
///
/// Not a rank: a rank is a place in a communicator, and one peer has a different rank in each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer(pub u32);

impl Peer {
    /// The index, for use with slices.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer {}", self.0)
    }
}

/// The caller's own name for a one-sided operation; comes back in its [`Event::Done`] or [`Event::Failed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

/// A received packet on loan. Look at it with [`Transport::packet`], give it back with [`Transport::release`].
///
/// Neither `Clone` nor `Copy`, so it is given back at most once. A transport lends at most [`Caps::slots_max`] of
/// them at a time; one that is never given back starves the sender.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a slot that is not released starves the sender"]
pub struct Slot(u64);

impl Slot {
    /// A slot with the transport's own number in it. For transports only.
    pub fn new(number: u64) -> Slot {
        Slot(number)
    }

    /// The number given to [`Slot::new`].
    pub fn number(&self) -> u64 {
        self.0
    }
}

/// Not now: a queue of the transport is full. Nothing happened; poll, then try again. Not an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

/// What a road can do and its limits. Constant, and the same at both ends of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Short name of the road, as in reports: `sim`, `shm`, `tcp`, `efa`, `efa-direct`.
    pub name: &'static str,
    /// Largest packet in bytes, header and payload together. At least 256.
    pub packet_bytes_max: usize,
    /// Packets up to this many bytes are cheapest (one cache line in shared memory, inline in the work request on EFA).
    pub inline_bytes_max: usize,
    /// Largest number of slots, of packets that came by this road, that may be on loan at a time while every sender
    /// still makes progress.
    pub slots_max: usize,
    /// Largest [`Transport::read`] in bytes; 0 where the road has no one-sided read.
    pub read_bytes_max: u64,
    /// Largest [`Transport::write`] in bytes; 0 where the road has no one-sided write.
    pub write_bytes_max: u64,
    /// One-sided operations that may be in flight on this road at a time; the next one is answered [`Busy`].
    pub one_sided_max: usize,
}

/// What a transport has to tell; the answer of [`Transport::poll`].
#[derive(Debug)]
pub enum Event {
    /// A packet arrived. It is on loan: release the slot.
    Packet {
        /// Who sent it.
        from: Peer,
        /// Where it lies.
        slot: Slot,
    },
    /// The one-sided operation is complete: a read's bytes are in local memory, a write's bytes are visible to the
    /// remote process, and the local memory is the caller's again.
    Done(Token),
    /// The one-sided operation will not complete, and no longer touches the local memory.
    Failed(Token, Box<Fault>),
    /// Something else has happened to the world, most often to a peer that is gone. Said once per peer. After it, sends
    /// to that peer are accepted and dropped, and every one-sided operation with it ends in [`Event::Failed`].
    ///
    /// A peer that left in order ([`Cause::PeerLeft`](crate::Cause::PeerLeft)) has kept its word: this comes behind the
    /// last packet it sent, so that whoever still waits for one waits in vain. Of the packets that a peer had on the way
    /// when it died each arrives or not, before this or after it.
    Fault(Box<Fault>),
}

/// A network: reliable datagrams in any order, and one-sided read and write.
///
/// The promises every implementation keeps, and [`crate::conformance`] checks:
///
/// 1. **Exactly once.** A packet accepted by [`send`](Transport::send) comes out of the peer's
///    [`poll`](Transport::poll) once, whole and unchanged, unless one of the two dies.
/// 2. **Any order.** Two packets between the same two peers may overtake each other. An implementation that happens to
///    keep order promises nothing.
/// 3. **Never blocks.** Nothing but [`wait`](Transport::wait) sleeps or spins on another process. A full queue is
///    [`Busy`], and `Busy` ends as long as both sides keep polling and releasing.
/// 4. **Borrows nothing from a send.** Header and payload may be overwritten as soon as `send` returned.
/// 5. **Progress in `poll`.** Nothing moves unless somebody polls (or waits); no hidden thread touches user memory.
/// 6. **One-sided operations are unordered** among themselves and against packets. `Done` is the only order there is.
/// 7. **Said, not guessed.** Peers that die, peers that leave and operations that are refused are events with a
///    [`Fault`], never a silent hang.
///
/// A transport belongs to one thread at a time. After warm-up `send`, `poll`, `packet` and `release` neither allocate
/// nor lock nor, on the same host, enter the kernel.
pub trait Transport {
    /// What the roads by which this transport leads to its peers can do: one, or several where some peers are nearer
    /// than others, such as those of the same host. Constant; at least one and at most 256.
    fn roads(&self) -> &[Caps];

    /// Which of [`roads`](Transport::roads) leads to a peer. Constant; not for the path of every packet.
    fn road(&self, _to: Peer) -> usize {
        0
    }

    /// What the road to a peer can do. Both ends of a pair see the same.
    fn caps(&self, to: Peer) -> &Caps {
        &self.roads()[self.road(to)]
    }

    /// Number of peers, oneself included.
    fn peers(&self) -> usize;

    /// One's own index.
    fn me(&self) -> Peer;

    /// Opens `buf` for one-sided access by the peer `with` and returns the name it uses for it. Cost: none in shared
    /// memory, a memory registration on EFA.
    ///
    /// # Errors
    /// A [`Fault`] with scope `Local` when the road has no room for another registration.
    fn register(&mut self, buf: Buf, with: Peer) -> Result<Key, Box<Fault>>;

    /// Ends what [`register`](Transport::register) began for the same peer. No operation of that peer may be in flight
    /// on it.
    fn deregister(&mut self, key: Key, with: Peer);

    /// Sends one packet: `header` then `payload`, together at most [`Caps::packet_bytes_max`] (more is a panic: the
    /// engine's mistake). Both are copied before the call returns.
    ///
    /// # Errors
    /// [`Busy`] when there is no room; the packet was not sent.
    fn send(&mut self, to: Peer, header: &[u8], payload: Buf) -> Result<(), Busy>;

    /// Copies `remote` of peer `from` into `local` (same length). Ends in `Done(token)` or `Failed(token)`. Until then
    /// `local` is the transport's.
    ///
    /// # Errors
    /// [`Busy`] when [`Caps::one_sided_max`] are in flight. Panics where [`Caps::read_bytes_max`] is less than asked.
    fn read(&mut self, from: Peer, remote: RemoteSlice, local: Buf, token: Token) -> Result<(), Busy>;

    /// Copies `local` into `remote` of peer `to` (same length). Ends in `Done(token)` or `Failed(token)`. Until then
    /// `local` may be read by the transport.
    ///
    /// # Errors
    /// [`Busy`] when [`Caps::one_sided_max`] are in flight. Panics where [`Caps::write_bytes_max`] is less than asked.
    fn write(&mut self, to: Peer, local: Buf, remote: RemoteSlice, token: Token) -> Result<(), Busy>;

    /// Moves everything that can move and returns the next event, or `None` when there is nothing to tell now.
    fn poll(&mut self) -> Option<Event>;

    /// The bytes of a lent packet: header and payload as one slice.
    fn packet(&self, slot: &Slot) -> &[u8];

    /// Gives a lent packet back.
    fn release(&mut self, slot: Slot);

    /// Sleeps until `poll` may have something to tell, a peer may have room again, or `at_most` has passed. May return
    /// early for no reason. The only call that gives the processor away; it first spins as long as that is likely to
    /// be cheaper than sleeping.
    fn wait(&mut self, at_most: Duration);
}
