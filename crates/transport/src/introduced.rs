//! Peers that one meets when there is something to do with them, and not before.
//!
//! In a job of thousands of ranks each has to do with some dozens. So a transport may know nothing of a peer until a packet
//! is to be sent to it for the first time, or has come from it; then it says whose card it needs. Where cards are to be had
//! is not its business, and whoever knows is not called by it: [`Introduced`] asks the one and tells the other.

use std::fmt;
use std::time::Duration;

use crate::{Buf, Busy, Caps, Event, Fault, Key, Peer, RemoteSlice, Slot, Token, Transport};

/// A transport that needs a card of a peer before it can do anything for it.
pub trait Acquaint: Transport {
    /// Whether [`stranger`](Acquaint::stranger) has somebody to name. For the path of every packet.
    fn has_strangers(&self) -> bool;

    /// The next peer whose card is needed, because there is something to do with it; each is named once. Until its card is
    /// there packets, reads and writes are answered [`Busy`] or wait, and what comes from it is lent as always.
    fn stranger(&mut self) -> Option<Peer>;

    /// Whether the card of a peer, which is not gone, is not there.
    fn is_stranger(&self, peer: Peer) -> bool;

    /// Here is a peer's card, or why there is none: then the peer is lost, which is said by an [`Event::Fault`]. Does
    /// nothing for peers that are no strangers.
    fn introduce(&mut self, peer: Peer, card: Result<&[u8], Box<Fault>>);

    /// Takes leave of the others, a step: true when it is done, and at most two seconds later. Dropping leaves too, but
    /// without strangers.
    fn leave(&mut self) -> bool;
}

/// Where cards are to be had.
pub trait Directory {
    /// The card of a peer. May block for as long as a question to the launcher takes.
    ///
    /// # Errors
    /// A [`Fault`] of that peer: it cannot be reached.
    fn card(&mut self, of: Peer) -> Result<Vec<u8>, Box<Fault>>;
}

/// A transport, and a directory that is asked when the transport needs a card.
///
/// Cost: one comparison for each poll and for each packet that found no room; once for each peer, the question.
pub struct Introduced<T: Acquaint, D: Directory> {
    inner: T,
    directory: D,
}

impl<T: Acquaint, D: Directory> Introduced<T, D> {
    /// Puts the two together.
    pub fn new(inner: T, directory: D) -> Introduced<T, D> {
        Introduced { inner, directory }
    }

    /// The transport inside.
    pub fn inner(&self) -> &T {
        &self.inner
    }

    /// The same, for what only it can do.
    pub fn inner_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    fn introduce(&mut self, peer: Peer) {
        let card = self.directory.card(peer);
        self.inner.introduce(peer, card.as_deref().map_err(Clone::clone));
    }

    #[cold]
    #[inline(never)]
    fn introduce_next(&mut self) {
        if let Some(peer) = self.inner.stranger() {
            self.introduce(peer);
        }
    }

    #[cold]
    #[inline(never)]
    fn introduce_all(&mut self) {
        while let Some(peer) = self.inner.stranger() {
            self.introduce(peer);
        }
    }
}

impl<T: Acquaint, D: Directory> Transport for Introduced<T, D> {
    fn roads(&self) -> &[Caps] {
        self.inner.roads()
    }

    fn road(&self, to: Peer) -> usize {
        self.inner.road(to)
    }

    fn peers(&self) -> usize {
        self.inner.peers()
    }

    #[inline]
    fn me(&self) -> Peer {
        self.inner.me()
    }

    fn register(&mut self, buf: Buf, with: Peer) -> Result<Key, Box<Fault>> {
        // A device may have to know an address before it gives anything away.
        if self.inner.is_stranger(with) {
            self.introduce(with);
        }
        self.inner.register(buf, with)
    }

    fn deregister(&mut self, key: Key, with: Peer) {
        self.inner.deregister(key, with);
    }

    #[inline]
    fn send(&mut self, to: Peer, header: &[u8], payload: Buf) -> Result<(), Busy> {
        let sent = self.inner.send(to, header, payload);
        if sent.is_err() && self.inner.has_strangers() {
            self.introduce_all();
            return self.inner.send(to, header, payload);
        }
        sent
    }

    fn read(&mut self, from: Peer, remote: RemoteSlice, local: Buf, token: Token) -> Result<(), Busy> {
        let begun = self.inner.read(from, remote, local, token);
        if begun.is_err() && self.inner.has_strangers() {
            self.introduce_all();
            return self.inner.read(from, remote, local, token);
        }
        begun
    }

    fn write(&mut self, to: Peer, local: Buf, remote: RemoteSlice, token: Token) -> Result<(), Busy> {
        let begun = self.inner.write(to, local, remote, token);
        if begun.is_err() && self.inner.has_strangers() {
            self.introduce_all();
            return self.inner.write(to, local, remote, token);
        }
        begun
    }

    #[inline]
    fn poll(&mut self) -> Option<Event> {
        let event = self.inner.poll();
        // What has come goes first; there is no hurry to know who sent it.
        if event.is_none() && self.inner.has_strangers() {
            self.introduce_next();
            return self.inner.poll();
        }
        event
    }

    #[inline]
    fn packet(&self, slot: &Slot) -> &[u8] {
        self.inner.packet(slot)
    }

    #[inline]
    fn release(&mut self, slot: Slot) {
        self.inner.release(slot);
    }

    fn wait(&mut self, at_most: Duration) {
        if self.inner.has_strangers() {
            return self.introduce_all();
        }
        self.inner.wait(at_most);
    }
}

impl<T: Acquaint, D: Directory> Drop for Introduced<T, D> {
    fn drop(&mut self) {
        // A rank that panics does not take leave.
        while !std::thread::panicking() && !self.inner.leave() {
            self.introduce_all();
        }
    }
}

impl<T: Acquaint + fmt::Debug, D: Directory> fmt::Debug for Introduced<T, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[cfg(test)]
mod tests;
