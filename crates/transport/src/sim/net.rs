//! The state of the simulated network: a clock, what is going to happen, and what each peer has not been told yet.
//!
//! Everything is one priority queue of things that are due at a virtual time. A packet is one such thing; a one-sided
//! operation is a few pieces, each copied straight from memory to memory at its own time, and an end.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::ops::Range;
use std::time::Duration;

use super::{SimConfig, SimStats};
use crate::{Buf, Busy, Cause, Digest, Event, Fault, Key, Peer, RemoteSlice, Rng, Scope, Token};

/// What a poll that finds nothing costs in virtual time, so that a program that only polls sees time pass.
const POLL_NS: u64 = 20;
/// One latency in so many is [`STRAGGLER_FACTOR`] times as long.
const STRAGGLER_ONE_IN: u32 = 32;
const STRAGGLER_FACTOR: u64 = 8;
/// Most pieces a one-sided operation is cut into.
const PIECES_MAX: u64 = 4;
/// What lies in the target of a one-sided operation until its bytes come: whoever looks too early sees it.
const POISON: u8 = 0xDB;

#[derive(Debug)]
pub(super) struct Net {
    pub(super) config: SimConfig,
    pub(super) now_ns: u64,
    pub(super) stats: SimStats,
    pub(super) digest: Digest,
    rng: Rng,
    ports: Vec<Port>,
    /// Packets accepted and not yet lent, by sender * peers + receiver.
    in_flight: Vec<u32>,
    due: BinaryHeap<Reverse<Due>>,
    scheduled: u64,
    ops: Vec<Option<Op>>,
    ops_idle: Vec<usize>,
    /// Arrived packets and other news that nobody polled for yet, over all living ports.
    untold: usize,
    /// Buffers of packets that are through, to be used again. Bounded by the most that were ever on the way.
    idle_packets: Vec<Vec<u8>>,
}

/// One peer as the network sees it.
#[derive(Debug)]
struct Port {
    life: Life,
    taken: bool,
    arrived: Vec<(Peer, Vec<u8>)>,
    news: VecDeque<Event>,
    lent: usize,
    one_sided: usize,
    registrations: BTreeMap<u64, Registration>,
    registered: u64,
    known_dead: BTreeSet<Peer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Alive,
    Died { at_ns: u64 },
    Left,
}

#[derive(Debug)]
struct Registration {
    base: u64,
    buf: Buf,
}

/// A one-sided operation under way.
#[derive(Debug)]
struct Op {
    initiator: Peer,
    target: Peer,
    remote: RemoteSlice,
    local: Buf,
    token: Token,
    kind: Kind,
    pieces_left: u64,
    refused: Option<Cause>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
}

#[derive(Debug)]
struct Due {
    at_ns: u64,
    /// Number of the thing, in the order of scheduling: makes the order of things that are due together certain.
    number: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    Arrival { from: Peer, to: Peer, bytes: Vec<u8> },
    Piece { op: usize, range: Range<usize> },
    End { op: usize },
    Notice { witness: Peer, dead: Peer },
}

impl Ord for Due {
    fn cmp(&self, other: &Due) -> Ordering {
        (self.at_ns, self.number).cmp(&(other.at_ns, other.number))
    }
}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        self.number == other.number
    }
}
impl Eq for Due {}

/// What a poll brings: a packet still needs a slot, which is the port's business.
pub(super) enum Told {
    Packet(Peer, Vec<u8>),
    News(Event),
}

impl Net {
    pub(super) fn new(config: SimConfig) -> Net {
        config.check();
        let port = || Port {
            life: Life::Alive,
            taken: false,
            arrived: Vec::new(),
            news: VecDeque::new(),
            lent: 0,
            one_sided: 0,
            registrations: BTreeMap::new(),
            registered: 0,
            known_dead: BTreeSet::new(),
        };
        Net {
            rng: Rng::new(config.seed),
            ports: (0..config.peers).map(|_| port()).collect(),
            in_flight: vec![0; config.peers * config.peers],
            now_ns: 0,
            stats: SimStats::default(),
            digest: Digest::default(),
            due: BinaryHeap::new(),
            scheduled: 0,
            ops: Vec::new(),
            ops_idle: Vec::new(),
            untold: 0,
            idle_packets: Vec::new(),
            config,
        }
    }

    /// Gives the endpoint of `peer` away, once.
    pub(super) fn take(&mut self, peer: Peer) {
        let port = self.port(peer);
        assert!(!port.taken, "the port of {peer:?} was given away before");
        port.taken = true;
    }

    pub(super) fn idle(&self) -> bool {
        self.due.is_empty() && self.untold == 0
    }

    // What a peer asks for.

    pub(super) fn send(&mut self, from: Peer, to: Peer, header: &[u8], payload: Buf) -> Result<(), Busy> {
        let len = header.len() + payload.len();
        assert!(len <= self.config.packet_bytes_max, "a packet of {len} bytes");
        let pair = self.pair(from, to);
        if self.drops(from, to) {
            return Ok(());
        }
        if self.in_flight[pair] >= self.config.in_flight_max || self.rng.one_in(self.config.busy_one_in) {
            self.stats.busy += 1;
            return Err(Busy);
        }
        let mut bytes = self.idle_packets.pop().unwrap_or_default();
        bytes.clear();
        bytes.extend_from_slice(header);
        bytes.resize(len, 0);
        payload.copy_to(&mut bytes[header.len()..]);
        self.in_flight[pair] += 1;
        self.stats.packets += 1;
        self.stats.packet_bytes += len as u64;
        self.schedule(What::Arrival { from, to, bytes });
        Ok(())
    }

    pub(super) fn one_sided(
        &mut self,
        initiator: Peer,
        kind: Kind,
        (target, remote): (Peer, RemoteSlice),
        local: Buf,
        token: Token,
    ) -> Result<(), Busy> {
        let bytes_max = match kind {
            Kind::Read => self.config.read_bytes_max,
            Kind::Write => self.config.write_bytes_max,
        };
        assert!(remote.len == local.len() as u64, "{} bytes there and {} here", remote.len, local.len());
        assert!(
            bytes_max > 0 && remote.len <= bytes_max,
            "{kind:?} of {} bytes, limit {bytes_max}",
            remote.len
        );
        assert!(target.index() < self.ports.len(), "{target:?} of {}", self.ports.len());
        if self.ports[initiator.index()].life != Life::Alive {
            return Ok(());
        }
        let full = self.ports[initiator.index()].one_sided >= self.config.one_sided_max;
        if full || self.rng.one_in(self.config.busy_one_in) {
            self.stats.busy += 1;
            return Err(Busy);
        }
        self.ports[initiator.index()].one_sided += 1;
        match kind {
            Kind::Read => self.stats.reads += 1,
            Kind::Write => self.stats.writes += 1,
        }
        let mut op = Op { initiator, target, remote, local, token, kind, pieces_left: 0, refused: None };
        match self.reach(&op) {
            Ok(memory) => if kind == Kind::Read { local } else { memory }.fill_with(POISON),
            Err(cause) => op.refused = Some(cause),
        }
        let cuts = self.cuts(local.len());
        op.pieces_left = cuts.len() as u64 - 1;
        let index = self.keep(op);
        for edge in cuts.windows(2) {
            self.schedule(What::Piece { op: index, range: edge[0]..edge[1] });
        }
        Ok(())
    }

    pub(super) fn register(&mut self, me: Peer, buf: Buf) -> Result<Key, Box<Fault>> {
        let base = self.rng.bits() >> 16;
        let registrations_max = self.config.registrations_max;
        let port = self.port(me);
        if port.registrations.len() >= registrations_max {
            return Err(Box::new(Fault {
                scope: Scope::Local,
                cause: Cause::Exhausted,
                age: None,
                detail: format!("all {registrations_max} registrations of the simulated device are in use"),
                next_step: "deregister memory that no peer needs any more",
            }));
        }
        port.registered += 1;
        let key = Key { base, name: port.registered };
        port.registrations.insert(key.name, Registration { base, buf });
        Ok(key)
    }

    pub(super) fn deregister(&mut self, me: Peer, key: Key) {
        let known = self.port(me).registrations.remove(&key.name).is_some_and(|was| was.base == key.base);
        assert!(known || self.port(me).life != Life::Alive, "{key:?} is not registered by {me:?}");
    }

    pub(super) fn poll(&mut self, me: Peer) -> Option<Told> {
        self.do_due();
        let slots_max = self.config.slots_max;
        let port = &mut self.ports[me.index()];
        let lendable = !port.arrived.is_empty() && port.lent < slots_max;
        let nothing = !lendable && port.news.is_empty();
        if port.life != Life::Alive || nothing {
            self.now_ns += POLL_NS;
            return None;
        }
        self.untold -= 1;
        if lendable && (port.news.is_empty() || self.rng.one_in(2)) {
            let (from, bytes) = port.arrived.swap_remove(self.rng.index(port.arrived.len()));
            port.lent += 1;
            let pair = self.pair(from, me);
            self.in_flight[pair] -= 1;
            self.note(1, me, from.0.into());
            self.digest.add_bytes(&bytes);
            return Some(Told::Packet(from, bytes));
        }
        let event = port.news.pop_front().expect("checked above");
        match &event {
            Event::Done(token) => self.note(2, me, token.0),
            Event::Failed(token, _) => self.note(3, me, token.0),
            Event::Fault(fault) => {
                if let Scope::Peer(dead) = fault.scope {
                    self.note(4, me, dead.0.into());
                    self.port(me).known_dead.insert(dead);
                }
            }
            Event::Packet { .. } => unreachable!("packets wait elsewhere"),
        }
        if matches!(event, Event::Done(_) | Event::Failed(..)) {
            self.port(me).one_sided -= 1;
        }
        Some(Told::News(event))
    }

    pub(super) fn release(&mut self, me: Peer, bytes: Vec<u8>) {
        self.port(me).lent -= 1;
        self.idle_packets.push(bytes);
    }

    /// Lets time pass until something happens, but no longer than `at_most_ns`.
    pub(super) fn wait(&mut self, me: Peer, at_most_ns: u64) {
        self.do_due();
        let port = &self.ports[me.index()];
        if !port.news.is_empty() || (!port.arrived.is_empty() && port.lent < self.config.slots_max) {
            return;
        }
        let until_ns = self.now_ns.saturating_add(at_most_ns);
        self.now_ns = match self.due.peek() {
            Some(Reverse(next)) => next.at_ns.min(until_ns),
            None if self.untold == 0 => until_ns,
            // Somebody else has something to do now; he gets the processor before much time is gone.
            None => self.now_ns.saturating_add(POLL_NS).min(until_ns),
        };
        self.do_due();
    }

    /// Ends the process of `peer` without a goodbye.
    pub(super) fn kill(&mut self, peer: Peer) {
        if self.port(peer).life != Life::Alive {
            return;
        }
        let at_ns = self.now_ns;
        self.close(peer, Life::Died { at_ns });
        for witness in 0..self.config.peers {
            let witness = Peer(u32::try_from(witness).expect("peers are numbered by u32"));
            if self.port(witness).life == Life::Alive {
                self.schedule(What::Notice { witness, dead: peer });
            }
        }
    }

    /// `peer` gives its endpoint up in order. What it sent still arrives; its memory is touched no more.
    pub(super) fn leave(&mut self, peer: Peer) {
        if self.port(peer).life == Life::Alive {
            self.close(peer, Life::Left);
        }
    }

    // What happens by itself.

    /// Moves the clock to the next thing that is due and does it. False when there is none.
    pub(super) fn advance(&mut self) -> bool {
        let Some(Reverse(next)) = self.due.peek() else { return false };
        self.now_ns = self.now_ns.max(next.at_ns);
        self.do_due();
        true
    }

    /// Does everything that is due by now.
    pub(super) fn do_due(&mut self) {
        while self.due.peek().is_some_and(|Reverse(next)| next.at_ns <= self.now_ns) {
            let Some(Reverse(due)) = self.due.pop() else { return };
            match due.what {
                What::Arrival { from, to, bytes } => self.arrive(from, to, bytes),
                What::Piece { op, range } => self.copy_piece(op, range),
                What::End { op } => self.end(op),
                What::Notice { witness, dead } => self.notice(witness, dead),
            }
        }
    }

    fn arrive(&mut self, from: Peer, to: Peer, bytes: Vec<u8>) {
        let lost = matches!(self.port(from).life, Life::Died { .. }) && self.rng.one_in(2);
        let pair = self.pair(from, to);
        match self.port(to).life {
            Life::Alive if !lost => {
                self.port(to).arrived.push((from, bytes));
                self.untold += 1;
                return;
            }
            // The queue towards a dead peer stays full until the sender hears of the death.
            Life::Died { .. } => {}
            _ => self.in_flight[pair] -= 1,
        }
        self.idle_packets.push(bytes);
    }

    fn copy_piece(&mut self, index: usize, range: Range<usize>) {
        let mut op = self.ops[index].take().expect("an operation outlives its pieces");
        op.pieces_left -= 1;
        // Memory of a process that is gone, or of an operation that will fail, is nobody's to touch.
        if op.refused.is_none() && self.port(op.initiator).life == Life::Alive {
            match self.reach(&op) {
                Ok(memory) if op.kind == Kind::Read => {
                    memory.slice(range.clone()).copy_to_buf(op.local.slice(range))
                }
                Ok(memory) => op.local.slice(range.clone()).copy_to_buf(memory.slice(range)),
                Err(cause) => op.refused = Some(cause),
            }
        }
        let last = op.pieces_left == 0;
        self.ops[index] = Some(op);
        if last {
            self.schedule(What::End { op: index });
        }
    }

    fn end(&mut self, index: usize) {
        let op = self.ops[index].take().expect("an operation ends once");
        self.ops_idle.push(index);
        if self.port(op.initiator).life != Life::Alive {
            return;
        }
        let event = match op.refused {
            None => Event::Done(op.token),
            Some(cause) => Event::Failed(op.token, Box::new(self.refusal(&op, cause))),
        };
        self.tell(op.initiator, event);
    }

    fn notice(&mut self, witness: Peer, dead: Peer) {
        if self.port(witness).life == Life::Alive {
            let fault = self.death(dead);
            self.tell(witness, Event::Fault(Box::new(fault)));
        }
    }

    // Leaves.

    fn port(&mut self, peer: Peer) -> &mut Port {
        &mut self.ports[peer.index()]
    }

    fn pair(&self, from: Peer, to: Peer) -> usize {
        assert!(to.index() < self.ports.len(), "{to:?} of {}", self.ports.len());
        from.index() * self.ports.len() + to.index()
    }

    /// Whether a packet is accepted only to be dropped.
    fn drops(&self, from: Peer, to: Peer) -> bool {
        let sender = &self.ports[from.index()];
        sender.life != Life::Alive
            || self.ports[to.index()].life == Life::Left
            || sender.known_dead.contains(&to)
    }

    fn tell(&mut self, whom: Peer, event: Event) {
        self.port(whom).news.push_back(event);
        self.untold += 1;
    }

    fn close(&mut self, peer: Peer, life: Life) {
        self.port(peer).life = life;
        let arrived = std::mem::take(&mut self.port(peer).arrived);
        let news = std::mem::take(&mut self.port(peer).news);
        self.port(peer).registrations.clear();
        self.untold -= arrived.len() + news.len();
        for (from, bytes) in arrived {
            let pair = self.pair(from, peer);
            self.in_flight[pair] -= 1;
            self.idle_packets.push(bytes);
        }
        self.note(5, peer, 0);
    }

    fn note(&mut self, kind: u64, who: Peer, what: u64) {
        self.digest.add(kind << 32 | u64::from(who.0));
        self.digest.add(self.now_ns);
        self.digest.add(what);
    }

    fn schedule(&mut self, what: What) {
        let mut latency_ns = self.rng.within(self.config.latency_ns.clone());
        if self.rng.one_in(STRAGGLER_ONE_IN) {
            latency_ns = latency_ns.saturating_mul(STRAGGLER_FACTOR);
        }
        self.scheduled += 1;
        let at_ns = self.now_ns.saturating_add(latency_ns);
        self.due.push(Reverse(Due { at_ns, number: self.scheduled, what }));
    }

    fn keep(&mut self, op: Op) -> usize {
        match self.ops_idle.pop() {
            Some(index) => {
                self.ops[index] = Some(op);
                index
            }
            None => {
                self.ops.push(Some(op));
                self.ops.len() - 1
            }
        }
    }

    /// Where to cut `len` bytes into pieces: ascending, 0 first and `len` last.
    fn cuts(&mut self, len: usize) -> Vec<usize> {
        let mut cuts = vec![0, len];
        for _ in 0..self.rng.below(PIECES_MAX) {
            cuts.push(self.rng.index(len + 1));
        }
        cuts.sort_unstable();
        cuts
    }

    /// The memory that `op` is about, or why it may not be touched.
    fn reach(&self, op: &Op) -> Result<Buf, Cause> {
        let target = &self.ports[op.target.index()];
        match target.life {
            Life::Alive => {}
            Life::Died { .. } => return Err(Cause::PeerDied),
            Life::Left => return Err(Cause::PeerLeft),
        }
        let registration = target.registrations.get(&op.remote.key.name).ok_or(Cause::Denied)?;
        let end = op.remote.offset.checked_add(op.remote.len).ok_or(Cause::Denied)?;
        if registration.base != op.remote.key.base || end > registration.buf.len() as u64 {
            return Err(Cause::Denied);
        }
        let start = usize::try_from(op.remote.offset).map_err(|_| Cause::Denied)?;
        Ok(registration.buf.slice(start..start + op.local.len()))
    }

    #[cold]
    fn death(&self, dead: Peer) -> Fault {
        let age = match self.ports[dead.index()].life {
            Life::Died { at_ns } => Some(Duration::from_nanos(self.now_ns - at_ns)),
            Life::Alive | Life::Left => None,
        };
        Fault {
            scope: Scope::Peer(dead),
            cause: Cause::PeerDied,
            age,
            detail: "its simulated process was killed".to_owned(),
            next_step: "look at why the test killed it",
        }
    }

    #[cold]
    fn refusal(&self, op: &Op, cause: Cause) -> Fault {
        let (detail, next_step) = match cause {
            Cause::PeerDied => return self.death(op.target),
            Cause::PeerLeft => ("it left before the bytes were moved", "synchronise before the peer leaves"),
            _ => ("no registration covers the bytes asked for", "ask only for what the peer has registered"),
        };
        Fault { scope: Scope::Peer(op.target), cause, age: None, detail: detail.to_owned(), next_step }
    }
}
