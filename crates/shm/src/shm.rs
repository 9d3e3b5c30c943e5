//! The transport: rings, copies and doorbells put together.

mod departures;
mod waiting;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use selvedge_transport::{Buf, Busy, Caps, Event, Fault, Key, Peer, RemoteSlice, Slot, Token, Transport};

use crate::CopyMode;
use crate::alarm::Alarm;
use crate::baton::Baton;
use crate::copy::{Copies, Operation};
use crate::faults;
use crate::job::{JOBS_MAX, Way};
use crate::map::{Mapped, MappedBaton, MappedRing};
use crate::patience::{Patience, is_crowded};
use crate::ring::{Inbound, LINE_BYTES, Malformed, Outbound, WORD_BYTES};
use crate::segment::{Bell, Presence, Segment};
use crate::slots::{PACKET_BYTES_MAX, SLOTS_MAX, Slots};
use crate::sync::Fences;

/// Rings that one `poll` visits. The next goes on behind them, so that a peer with many talking to it pays for those that
/// talk.
const VISITS: usize = 16;

/// Polls that look at packets first, before one looks at everything else first and goes on to the next ring.
const STREAK: u32 = 32;

/// The same while a large copy is under way or there is other news: by turns, so that neither waits for the other's end.
const STREAK_BUSY: u32 = 2;

/// Polls without an event between two looks at the clock, for callers that never wait: some milliseconds.
const QUIET_POLLS: u32 = 1 << 16;

/// Largest one-sided operation: more than any address space holds.
const ONE_SIDED_BYTES_MAX: u64 = 1 << 47;

/// What we know of a peer as somebody to send to.
#[derive(Debug)]
struct Road {
    ring: Outbound<MappedRing>,
    /// Both ways.
    baton: Baton<MappedBaton>,
    /// The peer's.
    bell: Mapped<Bell>,
    /// It looks at our ring.
    introduced: bool,
    /// The last send found no room.
    starved: bool,
}

/// A seat in a segment that others may not have taken yet. After a fence among all ranks of the host, [`open`](Joined::open)
/// it.
#[derive(Debug)]
pub struct Joined {
    /// `None` once opened.
    seat: Option<(Arc<Segment>, Peer)>,
}

impl Joined {
    pub(crate) fn new(segment: Arc<Segment>, me: Peer) -> Joined {
        Joined { seat: Some((segment, me)) }
    }

    /// The transport. All peers of the segment must have joined: between the two calls the caller lets the ranks of the
    /// host pass a fence, which is also where everybody's permissions become known to everybody.
    ///
    /// # Errors
    /// A [`Fault`] when a peer has not joined, or when [`CopyMode::Single`] is demanded and a peer may not.
    pub fn open(mut self) -> Result<Shm, Box<Fault>> {
        let (segment, me) = self.seat.as_ref().expect("opened once");
        let shm = Shm::new(Arc::clone(segment), *me)?;
        self.seat = None;
        Ok(shm)
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        if let Some((segment, me)) = self.seat.take() {
            segment.leave(me, std::thread::panicking());
        }
    }
}

/// The ranks of one host as peers: a [`Transport`] over a [`Segment`].
///
/// Dropping it is leaving in order; dropping it while its thread panics is a death that the peers are told of.
pub struct Shm {
    segment: Arc<Segment>,
    me: Peer,
    /// Ours.
    bell: Mapped<Bell>,
    caps: Caps,
    fences: Fences,
    crowded: bool,
    /// By receiver.
    roads: Vec<Road>,
    /// By sender.
    rings: Vec<Inbound<MappedRing>>,
    /// Senders whose rings have carried something, and whose turn it is.
    active: Vec<Peer>,
    turn: usize,
    streak: u32,
    slots: Slots,
    copies: Copies,
    /// Results of small one-sided operations, and news of deaths. Bounded by `one_sided_max` and the peers.
    events: VecDeque<Event>,
    /// One-sided operations whose end was not told yet.
    in_flight: usize,
    /// Peers that the last send found no room at.
    starved: Vec<Peer>,
    /// Peers that are gone, and those of them whose last packets are still to be taken.
    gone: Vec<bool>,
    parting: Vec<Peer>,
    patience: Patience,
    alarm: Option<Alarm>,
    quiet_polls: u32,
    last_roll_call: Instant,
    /// The peer asked last.
    asked: usize,
    /// `Segment::departures` when it was last looked at.
    departures: u64,
}

impl Shm {
    fn new(segment: Arc<Segment>, me: Peer) -> Result<Shm, Box<Fault>> {
        let all = || (0..segment.peers() as u32).map(Peer);
        if let Some(absent) = all().find(|&peer| segment.seat(peer).presence() == Presence::Absent) {
            return Err(faults::not_joined(absent));
        }
        let no_copy = all().find(|&peer| !segment.seat(peer).can_copy());
        if let (CopyMode::Single, Some(peer)) = (segment.copy_mode(), no_copy) {
            return Err(faults::single_copy_denied(peer));
        }
        let one_sided_bytes_max = if no_copy.is_none() { ONE_SIDED_BYTES_MAX } else { 0 };
        let can_fence = all().all(|peer| segment.seat(peer).can_fence());
        let fences = if can_fence { Fences::Sleeper } else { Fences::Both };
        let road = |peer| Road {
            ring: Outbound::new(segment.ring(me, peer)),
            baton: Baton::new(segment.baton(me, peer), me < peer),
            bell: segment.mapped_bell(peer),
            introduced: false,
            starved: false,
        };
        let crowded = is_crowded(&segment);
        Ok(Shm {
            caps: Caps {
                name: "shm",
                packet_bytes_max: PACKET_BYTES_MAX,
                inline_bytes_max: LINE_BYTES - WORD_BYTES,
                slots_max: SLOTS_MAX,
                read_bytes_max: one_sided_bytes_max,
                write_bytes_max: one_sided_bytes_max,
                one_sided_max: JOBS_MAX,
            },
            me,
            bell: segment.mapped_bell(me),
            fences,
            crowded,
            roads: all().map(road).collect(),
            rings: all().map(|peer| Inbound::new(segment.ring(peer, me), fences)).collect(),
            active: Vec::new(),
            turn: 0,
            streak: 0,
            slots: Slots::new(),
            copies: Copies::new(),
            events: VecDeque::with_capacity(JOBS_MAX),
            in_flight: 0,
            starved: Vec::new(),
            gone: vec![false; segment.peers()],
            parting: Vec::new(),
            patience: Patience::new(crowded),
            alarm: None,
            quiet_polls: 0,
            last_roll_call: Instant::now(),
            asked: me.index(),
            departures: 0,
            segment,
        })
    }

    /// Whether the ranks of this host have fewer processors than they are. Then waiting yields instead of spinning.
    pub fn is_crowded(&self) -> bool {
        self.crowded
    }

    /// Whether large messages are copied once, by the kernel or a thread of the same process, rather than through the
    /// rings. The same for all peers of a segment.
    pub fn has_single_copy(&self) -> bool {
        self.caps.read_bytes_max > 0
    }

    /// What ends a wait of this rank from another of its threads.
    pub fn alarm(&mut self) -> Alarm {
        let (segment, me, fences) = (&self.segment, self.me, self.fences);
        self.alarm.get_or_insert_with(|| Alarm::new(segment.mapped_bell(me), fences)).clone()
    }

    /// The next wait sleeps at once: who calls it has looked long enough.
    pub fn lose_patience(&mut self) {
        self.patience.lose();
    }

    /// The next packet, if there is one in the rings that have their turn.
    #[inline(always)]
    fn take_packet(&mut self) -> Option<Event> {
        if !self.slots.has_free() {
            return None;
        }
        for _ in 0..self.active.len().min(VISITS) {
            let from = self.active[self.turn];
            match self.roads[from.index()].baton.pop() {
                Ok(Some((small, bytes))) => {
                    return Some(Event::Packet { from, slot: self.slots.lend_small(small, bytes) });
                }
                Ok(None) => {}
                Err(malformed) => return Some(self.close_ring(from, malformed)),
            }
            match self.rings[from.index()].pop() {
                Ok(Some(record)) => {
                    let slot = self.slots.lend(from, record);
                    if self.slots.unblock(from, &mut self.rings) {
                        self.ring(from);
                    }
                    return Some(Event::Packet { from, slot });
                }
                Ok(None) => self.next_turn(),
                Err(malformed) => return Some(self.close_ring(from, malformed)),
            }
        }
        None
    }

    #[inline]
    fn next_turn(&mut self) {
        self.turn = if self.turn + 1 >= self.active.len() { 0 } else { self.turn + 1 };
    }

    /// Whether this poll should look at packets last, so that a flood of them holds up nothing else.
    #[inline]
    fn packets_come_last(&mut self) -> bool {
        self.streak += 1;
        let is_busy = !self.copies.is_idle() || !self.events.is_empty();
        if self.streak < if is_busy { STREAK_BUSY } else { STREAK } {
            return false;
        }
        self.streak = 0;
        self.next_turn();
        true
    }

    /// A ring holds what nobody writes there: its sender is lost to us.
    #[cold]
    fn close_ring(&mut self, from: Peer, malformed: Malformed) -> Event {
        self.active.retain(|&peer| peer != from);
        self.turn = 0;
        self.gone[from.index()] = true;
        Event::Fault(faults::foreign_word(from, malformed.word))
    }

    /// What a poll does now and then.
    #[cold]
    fn poll_rest_first(&mut self) -> Option<Event> {
        let event = self.poll_rest();
        if event.is_some() {
            return event;
        }
        let packet = self.take_packet();
        if packet.is_some() {
            self.patience.renew();
        }
        packet
    }

    /// Looks for what is rarer than packets.
    #[inline(never)]
    fn poll_rest(&mut self) -> Option<Event> {
        let event = self.take_rest();
        if event.is_some() {
            self.patience.renew();
        }
        event
    }

    fn take_rest(&mut self) -> Option<Event> {
        if self.bell.is_called()
            && let Some(event) = self.meet_callers()
        {
            return Some(event);
        }
        if self.bell.is_asked_for_help() {
            self.segment.helpers(self.me).take(|peer| self.copies.offer_help(Peer(peer as u32)));
        }
        if !self.copies.is_idle()
            && let Some(event) = self.copies.step(&self.segment, self.me, self.fences)
        {
            self.in_flight -= 1;
            return Some(event);
        }
        if !self.parting.is_empty() {
            self.see_off();
        }
        self.quiet_polls += 1;
        if self.quiet_polls >= QUIET_POLLS {
            self.quiet_polls = 0;
            self.call_roll(Instant::now());
        }
        self.pop_event()
    }

    /// Peers whose rings carry their first packet: from now on, and at once, we look at them.
    #[cold]
    fn meet_callers(&mut self) -> Option<Event> {
        self.segment.callers(self.me).take(|peer| {
            let peer = Peer(peer as u32);
            if !self.active.contains(&peer) {
                self.active.push(peer);
            }
        });
        self.take_packet()
    }

    /// Wakes a peer if it sleeps.
    #[inline]
    fn ring(&self, peer: Peer) {
        self.roads[peer.index()].bell.doorbell(self.fences).ring();
    }

    fn pop_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        if matches!(event, Event::Done(_) | Event::Failed(..)) {
            self.in_flight -= 1;
        }
        Some(event)
    }

    /// A send found no room: forget the packet if nobody will ever read it, else remember to be rung.
    #[cold]
    fn no_room(&mut self, to: Peer) -> Result<(), Busy> {
        if self.gone[to.index()] || self.segment.seat(to).presence() != Presence::Here {
            return Ok(());
        }
        let road = &mut self.roads[to.index()];
        if !road.starved && to != self.me {
            road.starved = true;
            self.starved.push(to);
        }
        Err(Busy)
    }

    #[inline]
    fn has_packet(&self, from: Peer) -> bool {
        self.roads[from.index()].baton.has_more() || self.rings[from.index()].has_more()
    }

    fn begin(&mut self, operation: Operation) -> Result<(), Busy> {
        assert_eq!(operation.remote.len, operation.local.len() as u64, "a copy between different lengths");
        assert!(operation.remote.len <= self.caps.read_bytes_max, "a copy of more than Caps::read_bytes_max");
        if self.in_flight == self.caps.one_sided_max {
            return Err(Busy);
        }
        self.in_flight += 1;
        if let Some(event) = self.copies.begin(&self.segment, self.me, self.fences, operation) {
            self.events.push_back(event);
        }
        Ok(())
    }
}

impl Transport for Shm {
    fn roads(&self) -> &[Caps] {
        std::slice::from_ref(&self.caps)
    }

    fn peers(&self) -> usize {
        self.roads.len()
    }

    fn me(&self) -> Peer {
        self.me
    }

    fn register(&mut self, buf: Buf, _with: Peer) -> Result<Key, Box<Fault>> {
        // The address is all that it takes; the length lets us refuse what is out of bounds.
        Ok(Key { base: buf.as_ptr() as u64, name: buf.len() as u64 })
    }

    fn deregister(&mut self, _key: Key, _with: Peer) {}

    #[inline(always)]
    fn send(&mut self, to: Peer, header: &[u8], payload: Buf) -> Result<(), Busy> {
        assert!(
            header.len() + payload.len() <= PACKET_BYTES_MAX,
            "a packet of more than Caps::packet_bytes_max"
        );
        let road = &mut self.roads[to.index()];
        if !road.baton.push(header, payload) && !road.ring.push(header, payload) {
            return self.no_room(to);
        }
        if !road.introduced {
            road.introduced = true;
            self.segment.callers(to).raise(self.me.index());
        }
        road.bell.doorbell(self.fences).ring();
        Ok(())
    }

    fn read(&mut self, from: Peer, remote: RemoteSlice, local: Buf, token: Token) -> Result<(), Busy> {
        self.begin(Operation { peer: from, way: Way::Read, remote, local, token })
    }

    fn write(&mut self, to: Peer, local: Buf, remote: RemoteSlice, token: Token) -> Result<(), Busy> {
        self.begin(Operation { peer: to, way: Way::Write, remote, local, token })
    }

    #[inline(always)]
    fn poll(&mut self) -> Option<Event> {
        if self.packets_come_last() {
            return self.poll_rest_first();
        }
        if let Some(packet) = self.take_packet() {
            self.patience.renew();
            return Some(packet);
        }
        self.poll_rest()
    }

    #[inline(always)]
    fn packet(&self, slot: &Slot) -> &[u8] {
        self.slots.packet(slot, &self.rings)
    }

    #[inline]
    fn release(&mut self, slot: Slot) {
        if let Some((from, record)) = self.slots.give_back(slot)
            && self.rings[from.index()].release(record)
        {
            self.ring(from);
        }
    }

    fn wait(&mut self, at_most: Duration) {
        self.wait_patiently(at_most);
    }
}

impl Drop for Shm {
    fn drop(&mut self) {
        self.copies.close(&self.segment, self.me);
        self.segment.leave(self.me, std::thread::panicking());
    }
}

impl fmt::Debug for Shm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shm { me, fences, crowded, .. } = self;
        write!(f, "Shm({me:?} of {}, {fences:?}, crowded: {crowded})", self.roads.len())
    }
}
