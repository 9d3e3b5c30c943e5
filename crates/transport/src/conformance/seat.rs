//! One peer's view in a case: the transport, and the few things that nearly every case does with it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use crate::{Buf, Busy, Caps, Event, Fault, Peer, Rng, Slot, Token, Transport};

/// A peer in a case. Packets it polls are copied out and given back at once, unless asked for with [`Seat::slot`].
pub struct Seat<'a> {
    /// The transport under test.
    pub transport: &'a mut dyn Transport,
    clock: &'a dyn Fn() -> Duration,
    packets: VecDeque<(Peer, Vec<u8>)>,
    ended: BTreeMap<u64, Result<(), Box<Fault>>>,
    faults: Vec<Fault>,
    meetings_held: u8,
    /// Meeting packets that came, by number of the meeting.
    met: BTreeMap<u8, usize>,
}

/// First bytes of the packets of [`Seat::meet`]. No content of a case begins like this: those come from [`content`].
const MEETING: &[u8] = b"conformance meeting ";

/// The bytes of packet `number` of peer `from`: the same for whoever asks, different for every packet of 8 bytes or more.
pub(super) fn content(from: Peer, number: u64, len: usize) -> Vec<u8> {
    Rng::new(number).child(from.0.into()).bytes(len)
}

/// Packet sizes worth trying, ascending: all the small ones, and both sides of every power of two and every limit.
pub(super) fn sizes(caps: &Caps) -> Vec<usize> {
    let max = caps.packet_bytes_max;
    let mut sizes: Vec<usize> = (0..=72).chain([caps.inline_bytes_max + 1, max - 1, max]).collect();
    sizes.extend((7..usize::BITS - 1).map(|k| 1 << k).flat_map(|power: usize| [power - 1, power, power + 1]));
    sizes.retain(|&size| size <= max);
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

impl<'a> Seat<'a> {
    /// How long a peer with nothing to do waits before it looks again.
    pub(super) const TURN: Duration = Duration::from_micros(20);

    /// A seat at `transport`; `clock` is any clock that moves in [`Transport::wait`].
    pub fn new(transport: &'a mut dyn Transport, clock: &'a dyn Fn() -> Duration) -> Seat<'a> {
        Seat {
            transport,
            clock,
            packets: VecDeque::new(),
            ended: BTreeMap::new(),
            faults: Vec::new(),
            meetings_held: 0,
            met: BTreeMap::new(),
        }
    }

    /// Its own index.
    pub fn me(&self) -> Peer {
        self.transport.me()
    }

    /// All peers of the group.
    pub fn everybody(&self) -> Vec<Peer> {
        (0..self.transport.peers()).map(|peer| Peer(u32::try_from(peer).expect("peers are few"))).collect()
    }

    /// The other one in a case of two; who is alone is its own.
    pub fn other(&self) -> Peer {
        if self.transport.peers() == 1 { self.me() } else { Peer(1 - self.me().0) }
    }

    /// The limits of the road to a peer.
    pub fn caps(&self, with: Peer) -> Caps {
        self.transport.caps(with).clone()
    }

    /// Time by the clock of the harness.
    pub fn now(&self) -> Duration {
        (self.clock)()
    }

    /// Lets the other peers go on, without touching the transport.
    pub async fn step_aside() {
        let mut waited = false;
        poll_fn(|_| if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// Waits a little and lets the other peers go on.
    pub async fn turn(&mut self) {
        self.transport.wait(Seat::TURN);
        Seat::step_aside().await;
    }

    /// Does not poll for `turns` turns.
    pub async fn rest(&mut self, turns: u32) {
        for _ in 0..turns {
            self.turn().await;
        }
    }

    /// Polls once and keeps what comes, packets as copies. False when nothing came.
    pub fn look(&mut self) -> bool {
        let Some(event) = self.transport.poll() else { return false };
        if let Some((from, slot)) = self.keep(event) {
            let bytes = self.transport.packet(&slot).to_vec();
            self.transport.release(slot);
            self.packets.push_back((from, bytes));
        }
        true
    }

    /// Keeps everything but a packet of the case, which it hands back.
    fn keep(&mut self, event: Event) -> Option<(Peer, Slot)> {
        match event {
            Event::Packet { from, slot } => match self.transport.packet(&slot).strip_prefix(MEETING) {
                Some(number) => {
                    *self.met.entry(number[0]).or_default() += 1;
                    self.transport.release(slot);
                }
                None => return Some((from, slot)),
            },
            Event::Done(token) => self.keep_end(token, Ok(())),
            Event::Failed(token, fault) => self.keep_end(token, Err(fault)),
            Event::Fault(fault) => self.faults.push(*fault),
        }
        None
    }

    fn keep_end(&mut self, token: Token, end: Result<(), Box<Fault>>) {
        let before = self.ended.insert(token.0, end);
        assert!(before.is_none(), "{token:?} has ended twice");
    }

    /// Sends, polling while the answer is Busy.
    pub async fn send(&mut self, to: Peer, header: &[u8], payload: Buf) {
        while self.transport.send(to, header, payload) == Err(Busy) {
            if !self.look() {
                self.turn().await;
            }
        }
    }

    /// Starts a one-sided operation, polling while the answer is Busy.
    pub async fn start(&mut self, mut operation: impl FnMut(&mut dyn Transport) -> Result<(), Busy>) {
        while operation(self.transport) == Err(Busy) {
            if !self.look() {
                self.turn().await;
            }
        }
    }

    /// The next packet.
    pub async fn packet(&mut self) -> (Peer, Vec<u8>) {
        loop {
            if let Some(packet) = self.packets.pop_front() {
                return packet;
            }
            if !self.look() {
                self.turn().await;
            }
        }
    }

    /// The next packet if it has come already.
    pub fn packet_now(&mut self) -> Option<(Peer, Vec<u8>)> {
        while self.packets.is_empty() && self.look() {}
        self.packets.pop_front()
    }

    /// How many packets have come and were not asked for yet.
    pub fn kept(&self) -> usize {
        self.packets.len()
    }

    /// The next packet, on loan. Not to be mixed with calls that copy packets out while any may be on its way.
    pub async fn slot(&mut self) -> (Peer, Slot) {
        loop {
            if let Some(lent) = self.slot_now() {
                return lent;
            }
            self.turn().await;
        }
    }

    /// The next packet, on loan, if it has come already.
    pub fn slot_now(&mut self) -> Option<(Peer, Slot)> {
        assert!(self.packets.is_empty(), "a case that takes slots copies no packets");
        while let Some(event) = self.transport.poll() {
            let lent = self.keep(event);
            if lent.is_some() {
                return lent;
            }
        }
        None
    }

    /// How the one-sided operation ended.
    pub async fn end_of(&mut self, token: Token) -> Result<(), Box<Fault>> {
        loop {
            if let Some(end) = self.ended.remove(&token.0) {
                return end;
            }
            if !self.look() {
                self.turn().await;
            }
        }
    }

    /// The next fault.
    pub async fn fault(&mut self) -> Fault {
        while self.faults.is_empty() {
            if !self.look() {
                self.turn().await;
            }
        }
        self.faults.remove(0)
    }

    /// Returns when all of `members`, oneself among them, have called it.
    pub async fn meet(&mut self, members: &[Peer]) {
        let number = self.meetings_held;
        self.meetings_held += 1;
        let others = members.len() - 1;
        let word = [MEETING, &[number]].concat();
        if self.me() == members[0] {
            self.wait_met(number, others).await;
            for &member in &members[1..] {
                self.send(member, &word, Buf::EMPTY).await;
            }
        } else {
            self.send(members[0], &word, Buf::EMPTY).await;
            self.wait_met(number, 1).await;
        }
    }

    async fn wait_met(&mut self, number: u8, words: usize) {
        while self.met.get(&number).is_none_or(|&met| met < words) && words > 0 {
            if !self.look() {
                self.turn().await;
            }
        }
        let met = self.met.remove(&number).unwrap_or(0);
        assert_eq!(met, words, "words to meeting {number}");
    }

    /// Meets everybody, gives whatever should not exist the time to show up, and checks that nothing did.
    pub async fn finish(&mut self) {
        let everybody = self.everybody();
        self.finish_among(&everybody).await;
    }

    /// As [`Seat::finish`], with the peers that are left.
    pub async fn finish_among(&mut self, members: &[Peer]) {
        self.meet(members).await;
        for _ in 0..60 {
            while self.look() {}
            self.turn().await;
        }
        let strays: Vec<_> = self.packets.iter().map(|(from, bytes)| (from, bytes.len())).collect();
        assert!(strays.is_empty(), "packets that nobody sent, or that came twice (from, bytes): {strays:?}");
        assert!(self.ended.is_empty(), "ends of operations that nobody started: {:?}", self.ended);
        assert!(self.faults.is_empty(), "faults out of the blue: {:?}", self.faults);
        assert!(self.met.is_empty(), "a word to a meeting came twice: {:?}", self.met);
    }
}

impl fmt::Debug for Seat<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seat({:?} of {})", self.me(), self.transport.peers())
    }
}
