//! The state of the simulated network: a clock, what is going to happen, and what each peer has not been told yet.
//!
//! Everything that happens by itself stands in one calendar: a packet arrives, a piece of a one-sided operation is
//! copied, a peer hears that another is gone. One-sided operations are in `one_sided.rs`.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::time::Duration;

use super::calendar::Calendar;
use super::one_sided::{Ops, Registrations};
use super::{SimConfig, SimStats};
use crate::{Buf, Busy, Caps, Cause, Digest, Event, Fault, Peer, Rng, Scope};

/// What a poll that finds nothing costs in virtual time, so that a program that only polls sees time pass.
const POLL_NS: u64 = 20;
/// One latency in so many is [`STRAGGLER_FACTOR`] times as long.
const STRAGGLER_ONE_IN: u32 = 32;
const STRAGGLER_FACTOR: u64 = 8;
/// The near road and the one between hosts.
const ROADS_MAX: usize = 2;

#[derive(Debug)]
pub(super) struct Net {
    pub(super) config: SimConfig,
    pub(super) roads: Vec<Caps>,
    pub(super) calendar: Calendar<What>,
    pub(super) stats: SimStats,
    pub(super) digest: Digest,
    pub(super) rng: Rng,
    pub(super) ports: Vec<Port>,
    /// Packets accepted and not yet lent, by sender * peers + receiver.
    in_flight: Vec<u32>,
    pub(super) ops: Ops,
    /// Arrived packets and other news that nobody polled for yet, over all living ports.
    untold: usize,
    /// Buffers of packets that are through, to be used again. Bounded by the most that were ever on the way.
    idle_packets: Vec<Vec<u8>>,
}

/// One peer as the network sees it.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) life: Life,
    taken: bool,
    /// Of each road, packets nobody polled for yet.
    arrived: [Vec<(Peer, Vec<u8>)>; ROADS_MAX],
    /// With the road that a one-sided operation took.
    news: VecDeque<(usize, Event)>,
    /// Of each road.
    lent: [usize; ROADS_MAX],
    /// Of each road, operations in flight.
    pub(super) one_sided: [usize; ROADS_MAX],
    pub(super) registrations: Registrations,
    known_gone: BTreeSet<Peer>,
    /// Peers that have left and whose last packets are still to be polled.
    parting: Vec<Peer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Alive,
    Died { at_ns: u64 },
    Left,
}

#[derive(Debug)]
pub(super) enum What {
    Arrival { from: Peer, to: Peer, bytes: Vec<u8> },
    Piece { op: usize, range: Range<usize> },
    End { op: usize },
    Notice { witness: Peer, gone: Peer },
}

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
            arrived: [const { Vec::new() }; ROADS_MAX],
            news: VecDeque::new(),
            lent: [0; ROADS_MAX],
            one_sided: [0; ROADS_MAX],
            registrations: Registrations::default(),
            known_gone: BTreeSet::new(),
            parting: Vec::new(),
        };
        Net {
            roads: config.roads(),
            rng: Rng::new(config.seed),
            ports: (0..config.peers).map(|_| port()).collect(),
            in_flight: vec![0; config.peers * config.peers],
            calendar: Calendar::new(),
            stats: SimStats::default(),
            digest: Digest::default(),
            ops: Ops::default(),
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
        self.calendar.next_ns().is_none() && self.untold == 0
    }

    // What a peer asks for.

    pub(super) fn send(&mut self, from: Peer, to: Peer, header: &[u8], payload: Buf) -> Result<(), Busy> {
        let len = header.len() + payload.len();
        let pair = self.pair(from, to);
        let road = self.config.road(from, to);
        assert!(len <= self.roads[road].packet_bytes_max, "a packet of {len} bytes");
        let in_flight_max =
            self.config.near(from, to).map_or(self.config.in_flight_max, |near| near.in_flight_max);
        if self.drops(from, to) {
            return Ok(());
        }
        if self.in_flight[pair] >= in_flight_max || self.rng.one_in(self.config.busy_one_in) {
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
        self.schedule((from, to), What::Arrival { from, to, bytes });
        Ok(())
    }

    pub(super) fn poll(&mut self, me: Peer) -> Option<Told> {
        self.do_due();
        let (near, far) = (self.is_lendable(me, 0), self.is_lendable(me, 1));
        let port = &mut self.ports[me.index()];
        let lendable = near || far;
        let nothing = !lendable && port.news.is_empty();
        if port.life != Life::Alive || nothing {
            self.calendar.move_to(self.calendar.now_ns() + POLL_NS);
            return None;
        }
        self.untold -= 1;
        if lendable && (port.news.is_empty() || self.rng.one_in(2)) {
            let road = usize::from(far && (!near || self.rng.one_in(2)));
            let arrived = &mut port.arrived[road];
            let (from, bytes) = arrived.swap_remove(self.rng.index(arrived.len()));
            port.lent[road] += 1;
            let pair = self.pair(from, me);
            self.in_flight[pair] -= 1;
            self.note(1, me, from.0.into());
            self.digest.add_bytes(&bytes);
            self.see_off(me, from);
            return Some(Told::Packet(from, bytes));
        }
        let (road, event) = port.news.pop_front().expect("checked above");
        match &event {
            Event::Done(token) => self.note(2, me, token.0),
            Event::Failed(token, _) => self.note(3, me, token.0),
            Event::Fault(fault) => {
                if let Scope::Peer(gone) = fault.scope {
                    self.note(4, me, gone.0.into());
                    self.port(me).known_gone.insert(gone);
                }
            }
            Event::Packet { .. } => unreachable!("packets wait elsewhere"),
        }
        if matches!(event, Event::Done(_) | Event::Failed(..)) {
            self.port(me).one_sided[road] -= 1;
        }
        Some(Told::News(event))
    }

    /// Whether a packet has come by a road that may be lent.
    fn is_lendable(&self, me: Peer, road: usize) -> bool {
        let port = &self.ports[me.index()];
        !port.arrived[road].is_empty() && port.lent[road] < self.roads[road].slots_max
    }

    pub(super) fn release(&mut self, me: Peer, road: usize, bytes: Vec<u8>) {
        self.port(me).lent[road] -= 1;
        self.idle_packets.push(bytes);
    }

    /// Lets time pass until something happens, but no longer than `at_most_ns`.
    pub(super) fn wait(&mut self, me: Peer, at_most_ns: u64) {
        self.do_due();
        if !self.ports[me.index()].news.is_empty() || self.is_lendable(me, 0) || self.is_lendable(me, 1) {
            return;
        }
        let now_ns = self.calendar.now_ns();
        let until_ns = now_ns.saturating_add(at_most_ns);
        self.calendar.move_to(match self.calendar.next_ns() {
            Some(next_ns) => next_ns.min(until_ns),
            None if self.untold == 0 => until_ns,
            // Somebody else has something to do now, and gets the processor before much time is gone.
            None => now_ns.saturating_add(POLL_NS).min(until_ns),
        });
        self.do_due();
    }

    /// Ends the process of `peer` without a goodbye.
    pub(super) fn kill(&mut self, peer: Peer) {
        if self.port(peer).life != Life::Alive {
            return;
        }
        let at_ns = self.calendar.now_ns();
        self.close(peer, Life::Died { at_ns });
    }

    /// `peer` gives its endpoint up in order. What it sent still arrives, and then the news; its memory is touched no more.
    pub(super) fn leave(&mut self, peer: Peer) {
        if self.port(peer).life == Life::Alive {
            self.close(peer, Life::Left);
        }
    }

    // What happens by itself.

    /// Moves the clock to the next thing that is due and does it. False when there is none.
    pub(super) fn advance(&mut self) -> bool {
        let Some(next_ns) = self.calendar.next_ns() else { return false };
        self.calendar.move_to(next_ns);
        self.do_due();
        true
    }

    pub(super) fn advance_by(&mut self, time_ns: u64) {
        self.calendar.move_to(self.calendar.now_ns().saturating_add(time_ns));
        self.do_due();
    }

    /// Does everything that is due by now.
    fn do_due(&mut self) {
        while let Some(what) = self.calendar.pop_due() {
            match what {
                What::Arrival { from, to, bytes } => self.arrive(from, to, bytes),
                What::Piece { op, range } => self.copy_piece(op, range),
                What::End { op } => self.end(op),
                What::Notice { witness, gone } => self.notice(witness, gone),
            }
        }
    }

    fn arrive(&mut self, from: Peer, to: Peer, bytes: Vec<u8>) {
        let lost = matches!(self.port(from).life, Life::Died { .. }) && self.rng.one_in(2);
        let pair = self.pair(from, to);
        match self.port(to).life {
            Life::Alive if !lost => {
                let road = self.config.road(from, to);
                self.port(to).arrived[road].push((from, bytes));
                self.untold += 1;
                return;
            }
            // The queue towards a dead peer stays full until the sender hears of the death.
            Life::Died { .. } => {}
            _ => self.in_flight[pair] -= 1,
        }
        self.idle_packets.push(bytes);
    }

    fn notice(&mut self, witness: Peer, gone: Peer) {
        if self.port(witness).life != Life::Alive {
            return;
        }
        if self.port(gone).life == Life::Left {
            self.port(witness).parting.push(gone);
            self.see_off(witness, gone);
        } else {
            let fault = self.departure(gone);
            self.tell(witness, 0, Event::Fault(Box::new(fault)));
        }
    }

    /// Tells `witness` that `gone` has left, if it has and its last packet was polled.
    fn see_off(&mut self, witness: Peer, gone: Peer) {
        let parting = &self.ports[witness.index()].parting;
        if let Some(at) = parting.iter().position(|&peer| peer == gone)
            && self.in_flight[self.pair(gone, witness)] == 0
        {
            self.port(witness).parting.swap_remove(at);
            let fault = self.departure(gone);
            self.tell(witness, 0, Event::Fault(Box::new(fault)));
        }
    }

    // Leaves.

    pub(super) fn port(&mut self, peer: Peer) -> &mut Port {
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
            || sender.known_gone.contains(&to)
    }

    /// News for `whom`, of an operation by that road.
    pub(super) fn tell(&mut self, whom: Peer, road: usize, event: Event) {
        self.port(whom).news.push_back((road, event));
        self.untold += 1;
    }

    fn close(&mut self, peer: Peer, life: Life) {
        self.port(peer).life = life;
        let arrived = std::mem::take(&mut self.port(peer).arrived).concat();
        let news = std::mem::take(&mut self.port(peer).news);
        self.port(peer).registrations.clear();
        self.untold -= arrived.len() + news.len();
        for (from, bytes) in arrived {
            let pair = self.pair(from, peer);
            self.in_flight[pair] -= 1;
            self.idle_packets.push(bytes);
        }
        self.note(5, peer, 0);
        for witness in 0..self.config.peers {
            let witness = Peer(u32::try_from(witness).expect("peers are numbered by u32"));
            if self.port(witness).life == Life::Alive {
                self.schedule((peer, witness), What::Notice { witness, gone: peer });
            }
        }
    }

    fn note(&mut self, kind: u64, who: Peer, what: u64) {
        self.digest.add(kind << 32 | u64::from(who.0));
        self.digest.add(self.calendar.now_ns());
        self.digest.add(what);
    }

    /// Enters what will happen between two peers, a latency of their road from now.
    pub(super) fn schedule(&mut self, (a, b): (Peer, Peer), what: What) {
        let range = self.config.near(a, b).map_or(&self.config.latency_ns, |near| &near.latency_ns);
        let mut latency_ns = self.rng.within(range.clone());
        if self.rng.one_in(STRAGGLER_ONE_IN) {
            latency_ns = latency_ns.saturating_mul(STRAGGLER_FACTOR);
        }
        self.calendar.enter(latency_ns, what);
    }

    /// That `gone` has died or left, and how long ago it died.
    #[cold]
    pub(super) fn departure(&self, gone: Peer) -> Fault {
        let (cause, age, detail, next_step) = match self.ports[gone.index()].life {
            Life::Died { at_ns } => {
                let age = Duration::from_nanos(self.calendar.now_ns() - at_ns);
                let (detail, next_step) =
                    ("its simulated process was killed", "look at why the test killed it");
                (Cause::PeerDied, Some(age), detail, next_step)
            }
            Life::Alive | Life::Left => {
                let next_step = "complete all communication on both sides before a peer leaves";
                (Cause::PeerLeft, None, "its simulated process has left in order", next_step)
            }
        };
        Fault { scope: Scope::Peer(gone), cause, age, detail: detail.to_owned(), next_step }
    }
}
