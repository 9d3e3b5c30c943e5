//! One peer's end of the simulated network.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use super::nanoseconds;
use super::net::{Net, Told};
use super::one_sided::Kind;
use crate::{Buf, Busy, Caps, Event, Fault, Key, Peer, RemoteSlice, Slot, Token, Transport};

/// The endpoint of one peer on a [`Sim`](super::Sim).
pub struct SimPort {
    net: Rc<RefCell<Net>>,
    me: Peer,
    peers: usize,
    caps: Caps,
    /// Packets on loan, by slot number. They live here and not in the network, so that they can be lent by reference.
    lent: Vec<Option<Vec<u8>>>,
    slots_idle: Vec<usize>,
}

impl SimPort {
    pub(super) fn new(net: Rc<RefCell<Net>>, me: Peer) -> SimPort {
        let (peers, caps) = (net.borrow().config.peers, net.borrow().config.caps());
        SimPort { net, me, peers, caps, lent: Vec::new(), slots_idle: Vec::new() }
    }

    fn lend(&mut self, bytes: Vec<u8>) -> Slot {
        let index = self.slots_idle.pop().unwrap_or_else(|| {
            self.lent.push(None);
            self.lent.len() - 1
        });
        self.lent[index] = Some(bytes);
        Slot::new(index as u64)
    }
}

fn index(slot: &Slot) -> usize {
    usize::try_from(slot.number()).expect("slots are numbered by lend")
}

impl Transport for SimPort {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn peers(&self) -> usize {
        self.peers
    }

    fn me(&self) -> Peer {
        self.me
    }

    fn register(&mut self, buf: Buf) -> Result<Key, Box<Fault>> {
        self.net.borrow_mut().register(self.me, buf)
    }

    fn deregister(&mut self, key: Key) {
        self.net.borrow_mut().deregister(self.me, key);
    }

    fn send(&mut self, to: Peer, header: &[u8], payload: Buf) -> Result<(), Busy> {
        self.net.borrow_mut().send(self.me, to, header, payload)
    }

    fn read(&mut self, from: Peer, remote: RemoteSlice, local: Buf, token: Token) -> Result<(), Busy> {
        self.net.borrow_mut().start(self.me, Kind::Read, (from, remote), local, token)
    }

    fn write(&mut self, to: Peer, local: Buf, remote: RemoteSlice, token: Token) -> Result<(), Busy> {
        self.net.borrow_mut().start(self.me, Kind::Write, (to, remote), local, token)
    }

    fn poll(&mut self) -> Option<Event> {
        let told = self.net.borrow_mut().poll(self.me)?;
        Some(match told {
            Told::Packet(from, bytes) => Event::Packet { from, slot: self.lend(bytes) },
            Told::News(event) => event,
        })
    }

    fn packet(&self, slot: &Slot) -> &[u8] {
        self.lent[index(slot)].as_deref().expect("the slot is on loan")
    }

    fn release(&mut self, slot: Slot) {
        let index = index(&slot);
        let bytes = self.lent[index].take().expect("the slot is on loan");
        self.slots_idle.push(index);
        self.net.borrow_mut().release(self.me, bytes);
    }

    fn wait(&mut self, at_most: Duration) {
        self.net.borrow_mut().wait(self.me, nanoseconds(at_most));
    }
}

impl Drop for SimPort {
    fn drop(&mut self) {
        // While a panic passes through the network it cannot be told; then nobody needs to be told either.
        if let Ok(mut net) = self.net.try_borrow_mut() {
            net.leave(self.me);
        }
    }
}

impl fmt::Debug for SimPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimPort({:?} of {})", self.me, self.peers)
    }
}
