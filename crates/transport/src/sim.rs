//! A network in memory: virtual time, everything from a seed, packets always shuffled.
//!
//! ```
//! use std::time::Duration;
//! use selvedge_transport::sim::{Sim, SimConfig};
//! use selvedge_transport::{Buf, Event, Peer, Transport};
//!
//! let sim = Sim::new(SimConfig { peers: 2, seed: 1, ..SimConfig::default() });
//! let (mut a, mut b) = (sim.port(Peer(0)), sim.port(Peer(1)));
//! a.send(Peer(1), b"hello", Buf::EMPTY).unwrap();
//! let slot = loop {
//!     match b.poll() {
//!         Some(Event::Packet { slot, .. }) => break slot,
//!         _ => b.wait(Duration::from_secs(1)),
//!     }
//! };
//! assert_eq!(b.packet(&slot), b"hello");
//! b.release(slot);
//! ```
//!
//! It is as unkind as the contract allows. Packets overtake each other by the latency they draw, and those that have
//! arrived are handed out in random order. A one-sided operation copies memory to memory in random pieces at random
//! later times and poisons its target at once, so that a buffer that is used too early gives wrong bytes. Queues are
//! bounded, [`Busy`](crate::Busy) comes when they are full and, where the configuration says so, for no reason.
//!
//! All ports live in one thread and share one clock. It moves in [`Transport::wait`](crate::Transport::wait), a little
//! in each poll that finds nothing, and in [`Sim::advance`]. Nothing else moves it, so that computing takes no time.

mod calendar;
mod config;
mod net;
mod one_sided;
mod port;

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

pub use config::{Near, SimConfig};
pub use port::SimPort;

use crate::Peer;
use net::Net;

/// The simulated network as its owner sees it: gives out the ports, moves the clock, ends peers. Clones are the same network.
#[derive(Clone)]
pub struct Sim {
    net: Rc<RefCell<Net>>,
}

/// What has crossed a simulated network so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SimStats {
    /// Packets accepted for delivery.
    pub packets: u64,
    /// Bytes in them, headers included.
    pub packet_bytes: u64,
    /// One-sided reads accepted.
    pub reads: u64,
    /// One-sided writes accepted.
    pub writes: u64,
    /// Calls answered Busy.
    pub busy: u64,
}

impl Sim {
    /// A network on which nothing has happened yet. Panics when the configuration is none the contract allows.
    pub fn new(config: SimConfig) -> Sim {
        Sim { net: Rc::new(RefCell::new(Net::new(config))) }
    }

    /// The endpoint of `peer`. Panics when it was given out before.
    ///
    /// Dropping it is leaving in order, see [`Sim::leave`].
    pub fn port(&self, peer: Peer) -> SimPort {
        self.net.borrow_mut().take(peer);
        SimPort::new(self.net.clone(), peer)
    }

    /// The endpoints of all peers, in order.
    pub fn ports(&self) -> Vec<SimPort> {
        let peers = u32::try_from(self.net.borrow().config.peers).expect("checked by SimConfig");
        (0..peers).map(|peer| self.port(Peer(peer))).collect()
    }

    /// Ends the process of `peer` as if by kill -9. Its port does nothing from now on; each packet it had on the way
    /// arrives or not, before or after the news; the others get one Fault each, a latency later.
    pub fn kill(&self, peer: Peer) {
        self.net.borrow_mut().kill(peer);
    }

    /// Ends the process of `peer` in order, as dropping its port does. What it sent still arrives, packets to it are
    /// dropped, one-sided operations with it fail; the others get one Fault each with
    /// [`Cause::PeerLeft`](crate::Cause::PeerLeft), a latency later and behind its last packet.
    pub fn leave(&self, peer: Peer) {
        self.net.borrow_mut().leave(peer);
    }

    /// Moves the clock to the next thing that happens and lets it happen; false when nothing is on its way. For
    /// drivers that step all ranks in one thread: call it when no rank got any further.
    pub fn advance(&self) -> bool {
        self.net.borrow_mut().advance()
    }

    /// Lets `time` pass.
    pub fn advance_by(&self, time: Duration) {
        self.net.borrow_mut().advance_by(nanoseconds(time));
    }

    /// Virtual time since the network was made.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.net.borrow().calendar.now_ns())
    }

    /// True when nothing is on its way and nobody has anything left to poll for. If all ranks are waiting as well,
    /// they wait for ever: a deadlock.
    pub fn idle(&self) -> bool {
        self.net.borrow().idle()
    }

    /// Hash of everything that was polled so far: who, when, what, the bytes of packets included.
    pub fn trace_hash(&self) -> u64 {
        self.net.borrow().digest.value()
    }

    /// What has crossed it so far.
    pub fn stats(&self) -> SimStats {
        self.net.borrow().stats
    }
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let net = self.net.borrow();
        let now = Duration::from_nanos(net.calendar.now_ns());
        write!(f, "Sim({} peers, seed {}, {now:?}, {:?})", net.config.peers, net.config.seed, net.stats)
    }
}

/// Nanoseconds of a duration, or the end of time.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
