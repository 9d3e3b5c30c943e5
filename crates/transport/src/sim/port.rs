//! One peer's end of the simulated network.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use super::net::{Net, Told};
use super::one_sided::Kind;
use super::{SimConfig, nanoseconds};
use crate::{Buf, Busy, Caps, Event, Fault, Key, Peer, RemoteSlice, Slot, Token, Transport};

/// The endpoint of one peer on a [`Sim`](super::Sim).
pub struct SimPort {
    net: Rc<RefCell<Net>>,
    me: Peer,
    config: SimConfig,
    roads: Vec<Caps>,
    /// Packets on loan with the road they came by, by slot number. They live here and not in the network, so that they can
    /// be lent by reference.
    lent: Vec<Option<(usize, Vec<u8>)>>,
    slots_idle: Vec<usize>,
}

impl SimPort {
    pub(super) fn new(net: Rc<RefCell<Net>>, me: Peer) -> SimPort {
        let config = net.borrow().config.clone();
        SimPort { net, me, roads: config.roads(), config, lent: Vec::new(), slots_idle: Vec::new() }
    }

    fn lend(&mut self, from: Peer, bytes: Vec<u8>) -> Slot {
        let index = self.slots_idle.pop().unwrap_or_else(|| {
            self.lent.push(None);
            self.lent.len() - 1
        });
        self.lent[index] = Some((self.road(from), bytes));
        Slot::new(index as u64)
    }
}

fn index(slot: &Slot) -> usize {
    usize::try_from(slot.number()).expect("slots are numbered by lend")
}

impl Transport for SimPort {
    fn roads(&self) -> &[Caps] {
        &self.roads
    }

    fn road(&self, to: Peer) -> usize {
        self.config.road(self.me, to)
    }

    fn peers(&self) -> usize {
        self.config.peers
    }

    fn me(&self) -> Peer {
        self.me
    }

    fn register(&mut self, buf: Buf, with: Peer) -> Result<Key, Box<Fault>> {
        self.net.borrow_mut().register(self.me, buf, with)
    }

    fn deregister(&mut self, key: Key, with: Peer) {
        self.net.borrow_mut().deregister(self.me, key, with);
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
            Told::Packet(from, bytes) => Event::Packet { from, slot: self.lend(from, bytes) },
            Told::News(event) => event,
        })
    }

    fn packet(&self, slot: &Slot) -> &[u8] {
        let (_, bytes) = self.lent[index(slot)].as_ref().expect("the slot is on loan");
        bytes
    }

    fn release(&mut self, slot: Slot) {
        let index = index(&slot);
        let (road, bytes) = self.lent[index].take().expect("the slot is on loan");
        self.slots_idle.push(index);
        self.net.borrow_mut().release(self.me, road, bytes);
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
        write!(f, "SimPort({:?} of {})", self.me, self.config.peers)
    }
}
