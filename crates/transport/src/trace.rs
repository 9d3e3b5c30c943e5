//! A transport that remembers what crossed the seam.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use crate::{
    Buf, Busy, Caps, Cause, Digest, Event, Fault, Key, Peer, RemoteSlice, Scope, Slot, Token, Transport,
};

/// Does what the transport inside does, and keeps the last calls and events for a look at them later.
///
/// Print it to see them, one line each. Answers of Busy and polls without an answer are counted, not kept. Cost per
/// call: a copy of the packet.
///
/// ```
/// use selvedge_transport::{Buf, Peer, Sim, SimConfig, Trace, Transport};
/// let sim = Sim::new(SimConfig { peers: 1, ..SimConfig::default() });
/// let mut port = Trace::new(sim.port(Peer(0)), 100);
/// port.send(Peer(0), b"hello", Buf::EMPTY).unwrap();
/// assert_eq!(port.to_string(), "       1  send      peer 0        5 bytes  68 65 6c 6c 6f\n");
/// ```
pub struct Trace<T> {
    inner: T,
    entries: VecDeque<Entry>,
    entries_max: usize,
    digest: Digest,
    crossed: u64,
    busy: u64,
    copy: Vec<u8>,
}

/// First bytes of a packet that a [`Trace`] keeps: a header of any protocol fits.
const HEAD_BYTES: usize = 24;

/// One call or event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number, counted from 1.
    pub number: u64,
    /// What it was.
    pub what: Crossing,
}

/// What crosses the seam between an engine and a transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crossing {
    /// A packet was accepted for this peer.
    Send(Peer, Head),
    /// A packet came from this peer.
    Arrive(Peer, Head),
    /// A packet was given back.
    Release(u64),
    /// A read of so many bytes from this peer was accepted.
    Read(Peer, u64, Token),
    /// A write of so many bytes to this peer was accepted.
    Write(Peer, u64, Token),
    /// A one-sided operation is complete.
    Done(Token),
    /// A one-sided operation will not complete.
    Failed(Token, Cause),
    /// Something is wrong.
    Fault(Scope, Cause),
    /// So many bytes were opened for one-sided access by this peer, or the road had no room for it.
    Register(Peer, usize, bool),
    /// One-sided access by this peer ended.
    Deregister(Peer),
}

/// How long a packet was and how it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the packet.
    pub len: usize,
    bytes: [u8; HEAD_BYTES],
}

impl Head {
    fn of(packet: &[u8]) -> Head {
        let mut bytes = [0; HEAD_BYTES];
        let kept = packet.len().min(HEAD_BYTES);
        bytes[..kept].copy_from_slice(&packet[..kept]);
        Head { len: packet.len(), bytes }
    }

    /// The first bytes, at most 24.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len.min(HEAD_BYTES)]
    }
}

impl<T: Transport> Trace<T> {
    /// Traces `inner`, keeping the last `entries_max` entries.
    pub fn new(inner: T, entries_max: usize) -> Trace<T> {
        let entries = VecDeque::with_capacity(entries_max);
        Trace {
            inner,
            entries,
            entries_max,
            digest: Digest::default(),
            crossed: 0,
            busy: 0,
            copy: Vec::new(),
        }
    }

    /// What was kept, oldest first.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// Hash of everything that crossed, forgotten entries and all bytes of packets included. Two runs over networks
    /// that give the same keys and make the same choices have the same digest.
    pub fn digest(&self) -> u64 {
        self.digest.value()
    }

    /// How many calls were answered Busy.
    pub fn busy(&self) -> u64 {
        self.busy
    }

    /// The transport inside.
    pub fn inner(&self) -> &T {
        &self.inner
    }

    fn keep(&mut self, what: Crossing) {
        self.crossed += 1;
        let (kind, a, b) = match what {
            Crossing::Send(to, head) => (1, u64::from(to.0), head.len as u64),
            Crossing::Arrive(from, head) => (2, u64::from(from.0), head.len as u64),
            Crossing::Release(number) => (3, number, 0),
            Crossing::Read(from, len, token) => (4 | u64::from(from.0) << 8, len, token.0),
            Crossing::Write(to, len, token) => (5 | u64::from(to.0) << 8, len, token.0),
            Crossing::Done(token) => (6, token.0, 0),
            Crossing::Failed(token, cause) => (7, token.0, cause as u64),
            Crossing::Fault(Scope::Peer(peer), cause) => (8, u64::from(peer.0), cause as u64),
            Crossing::Fault(Scope::Local, cause) => (9, 0, cause as u64),
            Crossing::Register(with, len, accepted) => {
                (10 | u64::from(with.0) << 8, len as u64, u64::from(accepted))
            }
            Crossing::Deregister(with) => (11, u64::from(with.0), 0),
        };
        [kind, a, b].into_iter().for_each(|word| self.digest.add(word));
        if self.entries.len() == self.entries_max {
            self.entries.pop_front();
        }
        if self.entries_max > 0 {
            self.entries.push_back(Entry { number: self.crossed, what });
        }
    }

    fn count_busy(&mut self, answer: Result<(), Busy>, what: Crossing) -> Result<(), Busy> {
        match answer {
            Ok(()) => self.keep(what),
            Err(Busy) => self.busy += 1,
        }
        answer
    }
}

impl<T: Transport> Transport for Trace<T> {
    fn roads(&self) -> &[Caps] {
        self.inner.roads()
    }

    fn road(&self, to: Peer) -> usize {
        self.inner.road(to)
    }

    fn peers(&self) -> usize {
        self.inner.peers()
    }

    fn me(&self) -> Peer {
        self.inner.me()
    }

    fn register(&mut self, buf: Buf, with: Peer) -> Result<Key, Box<Fault>> {
        let answer = self.inner.register(buf, with);
        self.keep(Crossing::Register(with, buf.len(), answer.is_ok()));
        answer
    }

    fn deregister(&mut self, key: Key, with: Peer) {
        self.keep(Crossing::Deregister(with));
        self.inner.deregister(key, with);
    }

    fn send(&mut self, to: Peer, header: &[u8], payload: Buf) -> Result<(), Busy> {
        let answer = self.inner.send(to, header, payload);
        if answer.is_ok() {
            let mut copy = std::mem::take(&mut self.copy);
            copy.clear();
            copy.extend_from_slice(header);
            copy.resize(header.len() + payload.len(), 0);
            payload.copy_to(&mut copy[header.len()..]);
            self.digest.add_bytes(&copy);
            self.keep(Crossing::Send(to, Head::of(&copy)));
            self.copy = copy;
        } else {
            self.busy += 1;
        }
        answer
    }

    fn read(&mut self, from: Peer, remote: RemoteSlice, local: Buf, token: Token) -> Result<(), Busy> {
        let answer = self.inner.read(from, remote, local, token);
        self.count_busy(answer, Crossing::Read(from, remote.len, token))
    }

    fn write(&mut self, to: Peer, local: Buf, remote: RemoteSlice, token: Token) -> Result<(), Busy> {
        let answer = self.inner.write(to, local, remote, token);
        self.count_busy(answer, Crossing::Write(to, remote.len, token))
    }

    fn poll(&mut self) -> Option<Event> {
        let event = self.inner.poll()?;
        let what = match &event {
            Event::Packet { from, slot } => {
                let packet = self.inner.packet(slot);
                self.digest.add_bytes(packet);
                Crossing::Arrive(*from, Head::of(packet))
            }
            Event::Done(token) => Crossing::Done(*token),
            Event::Failed(token, fault) => Crossing::Failed(*token, fault.cause),
            Event::Fault(fault) => Crossing::Fault(fault.scope, fault.cause),
        };
        self.keep(what);
        Some(event)
    }

    fn packet(&self, slot: &Slot) -> &[u8] {
        self.inner.packet(slot)
    }

    fn release(&mut self, slot: Slot) {
        self.keep(Crossing::Release(slot.number()));
        self.inner.release(slot);
    }

    fn wait(&mut self, at_most: Duration) {
        self.inner.wait(at_most);
    }
}

impl<T> fmt::Display for Trace<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.entries.iter().try_for_each(|entry| writeln!(f, "{entry}"))
    }
}

impl<T> fmt::Debug for Trace<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trace({} crossings, {} times Busy)", self.crossed, self.busy)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>8}  ", self.number)?;
        match &self.what {
            Crossing::Send(to, head) => write!(f, "send      {to:?} {head}"),
            Crossing::Arrive(from, head) => write!(f, "arrive    {from:?} {head}"),
            Crossing::Release(number) => write!(f, "release   slot {number}"),
            Crossing::Read(from, len, token) => {
                write!(f, "read      {from:?} {len:>8} bytes  token {}", token.0)
            }
            Crossing::Write(to, len, token) => {
                write!(f, "write     {to:?} {len:>8} bytes  token {}", token.0)
            }
            Crossing::Done(token) => write!(f, "done      token {}", token.0),
            Crossing::Failed(token, cause) => write!(f, "failed    token {}: {cause:?}", token.0),
            Crossing::Fault(scope, cause) => write!(f, "fault     {scope:?}: {cause:?}"),
            Crossing::Register(with, len, true) => write!(f, "register  {with:?} {len:>8} bytes"),
            Crossing::Register(with, len, false) => write!(f, "register  {with:?} {len:>8} bytes: no room"),
            Crossing::Deregister(with) => write!(f, "deregister {with:?}"),
        }
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>8} bytes ", self.len)?;
        self.bytes().iter().try_for_each(|byte| write!(f, " {byte:02x}"))?;
        if self.len > HEAD_BYTES { write!(f, " ..") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Sim, SimConfig};

    fn talk(entries_max: usize, word: &[u8]) -> Trace<crate::SimPort> {
        let sim = Sim::new(SimConfig { peers: 1, ..SimConfig::default() });
        let mut port = Trace::new(sim.port(Peer(0)), entries_max);
        for _ in 0..10 {
            port.send(Peer(0), word, Buf::EMPTY).unwrap();
        }
        while !sim.idle() {
            match port.poll() {
                Some(Event::Packet { slot, .. }) => port.release(slot),
                Some(other) => panic!("{other:?}"),
                None => port.wait(Duration::from_secs(1)),
            }
        }
        port
    }

    #[test]
    fn only_the_last_entries_are_kept_and_all_are_in_the_digest() {
        let long = talk(1000, b"word");
        let short = talk(3, b"word");
        assert_eq!(long.entries().count(), 30);
        let last: Vec<u64> = short.entries().map(|entry| entry.number).collect();
        assert_eq!(last, [28, 29, 30]);
        assert_eq!(long.digest(), short.digest());
        assert_ne!(long.digest(), talk(1000, b"ward").digest());
        assert_eq!(talk(0, b"word").entries().count(), 0);
    }

    #[test]
    fn a_packet_prints_with_its_length_and_first_bytes() {
        let port = talk(30, &[0xAB; 30]);
        let first = port.to_string().lines().next().map(str::to_owned).unwrap();
        assert_eq!(first, format!("       1  send      peer 0       30 bytes {} ..", " ab".repeat(24)));
    }
}
