//! The transport: rails, peers and patience put together. What the completion queue brings stands in `completions`, how it
//! waits in `waiting`.

pub(crate) mod alarm;
pub(crate) mod completions;
pub(crate) mod numbers;
pub(crate) mod one_sided;
pub(crate) mod operations;
pub(crate) mod passages;
pub(crate) mod patience;
pub(crate) mod rails;
pub(crate) mod sending;
mod waiting;

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use selvedge_transport::{Buf, Busy, Caps, Event, Fault, Key, Peer, RemoteSlice, Slot, Token, Transport};

use crate::peers::Peers;
use crate::peers::farewell::{Farewells, Leaving};
use crate::peers::lifeline::{Doorway, Lifelines};
use crate::rail::Rail;
use crate::rail::monitor::Monitor;
use crate::rail::pool::Inbound;
use crate::transport::alarm::Alarm;
use crate::transport::one_sided::{Direction, Registrations, Work, Works};
use crate::transport::passages::Passages;
use crate::transport::patience::Patience;
use crate::transport::rails::Ways;
use crate::transport::sending::Waiting;

/// Polls without an event between two looks at the clock, for callers that never wait: some milliseconds.
const QUIET_POLLS: u32 = 1 << 12;

/// Polls that look for packets first before one looks at everything else first.
const STREAK: u32 = 4;

/// Set in the numbers of slots that hold packets to ourselves.
pub(crate) const OWN: u64 = 1 << 32;

/// Where the number of a rail stands in the numbers of slots; home is 0.
const RAIL_SHIFT: u32 = 33;

/// Packets to ourselves that may be under way.
const OWN_SLOTS: usize = 16;

/// Peers over libfabric: a [`Transport`].
///
/// Dropping it is leaving in order, which takes until all that was sent has arrived, and at most
/// two seconds; dropping it while its thread panics is a death that the peers notice.
pub struct Ofi {
    /// The home rail: all packets go by it.
    pub(crate) rail: Rail,
    /// Further rails, for one-sided operations.
    pub(crate) others: Vec<Rail>,
    /// One-sided operations in flight, by rail.
    pub(crate) loads: Vec<usize>,
    pub(crate) ways: Ways,
    /// Counts one-sided operations, so that rails take turns.
    pub(crate) turn: usize,
    /// Names of the devices, by rail.
    pub(crate) nics: Vec<String>,
    /// Where a rank has several rails.
    pub(crate) passages: Option<Passages>,
    pub(crate) caps: Caps,
    pub(crate) peers: Peers,
    /// Name of the road, as it stands in cards.
    pub(crate) provider: String,
    pub(crate) me: Peer,
    /// Packets of strangers to the job.
    foreign: u64,
    pub(crate) leaving: Option<Leaving>,
    /// Slots on loan.
    lent: usize,
    /// Something below is not empty, or is to be done.
    pub(crate) has_news: bool,
    streak: u32,
    quiet_polls: u32,
    /// Packets that came while all slots were on loan, by sender and slot. Bounded by the receives.
    pub(crate) stash: VecDeque<(Peer, u64)>,
    /// Everything else that is to be told. Bounded by the slots, the one-sided operations and the peers.
    pub(crate) events: VecDeque<Event>,
    /// What `wait` has found: told before everything else.
    found: Option<Event>,
    /// Bounded by the sends of the rails.
    pub(crate) backlog: VecDeque<Waiting>,
    /// Packets to ourselves.
    pub(crate) own: Inbound,
    pub(crate) own_free: Vec<u32>,
    pub(crate) works: Works,
    /// One-sided operations whose end was not told yet.
    pub(crate) in_flight: usize,
    pub(crate) registrations: Registrations,
    pub(crate) farewells: Farewells,
    pub(crate) lines: Option<Lifelines>,
    _doorway: Option<Doorway>,
    patience: Patience,
    alarm: Option<Alarm>,
    /// The last send found no room, with so many packets under way.
    pub(crate) refused_at: Option<usize>,
    pub(crate) last_roll_call: Instant,
    /// The peer looked after last.
    pub(crate) asked: usize,
    pub(crate) is_efa: bool,
    /// Why registrations are not kept, where they should be.
    not_kept: Option<String>,
}

/// What [`Ofi::new`] is made of.
pub(crate) struct Parts {
    /// The home rail first.
    pub(crate) rails: Vec<Rail>,
    pub(crate) nics: Vec<String>,
    pub(crate) caps: Caps,
    pub(crate) peers: Peers,
    /// Whether any rank of the job has several rails.
    pub(crate) has_several: bool,
    pub(crate) provider: String,
    pub(crate) me: Peer,
    pub(crate) doorway: Option<Doorway>,
    pub(crate) lines: Option<Lifelines>,
    pub(crate) own: Inbound,
    pub(crate) abilities: crate::Abilities,
    pub(crate) is_crowded: bool,
    pub(crate) is_efa: bool,
}

impl Ofi {
    pub(crate) fn new(parts: Parts) -> Ofi {
        let Parts { mut rails, nics, caps, peers, provider, me, doorway, lines, own, abilities, .. } = parts;
        let domains = rails.iter().map(|rail| rail.domain().clone()).collect();
        let loads = vec![0; rails.len()];
        let mut rail = rails.remove(0);
        let passages = parts.has_several.then(|| Passages::new(peers.count())).flatten();
        let can_be_woken = rail.endpoint().wait_fd().is_some();
        // Registering costs nothing over sockets, so that nothing is kept and nothing has to be watched.
        let (monitor, not_kept) = match parts.is_efa.then(Monitor::start) {
            None => (None, None),
            Some(Ok(monitor)) => (Some(monitor), None),
            Some(Err(error)) => (None, Some(format!("userfaultfd: {error}"))),
        };
        Ofi {
            lent: 0,
            has_news: false,
            streak: 0,
            quiet_polls: 0,
            stash: VecDeque::new(),
            events: VecDeque::with_capacity(64),
            found: None,
            backlog: VecDeque::new(),
            own,
            own_free: (0..OWN_SLOTS as u32).collect(),
            works: Works::new(caps.one_sided_max),
            in_flight: 0,
            registrations: Registrations::new(domains, &abilities, monitor),
            farewells: Farewells::new(),
            lines,
            _doorway: doorway,
            patience: Patience::new(parts.is_crowded, can_be_woken),
            alarm: None,
            refused_at: None,
            last_roll_call: Instant::now(),
            asked: me.index(),
            is_efa: parts.is_efa,
            not_kept,
            rail,
            others: rails,
            loads,
            ways: Ways::default(),
            turn: 0,
            nics,
            passages,
            caps,
            peers,
            provider,
            me,
            foreign: 0,
            leaving: None,
        }
    }

    /// Why memory is registered anew for every operation on a road where that costs, if it is: the kernel does not tell when
    /// memory is unmapped.
    pub fn why_not_kept(&self) -> Option<&str> {
        self.not_kept.as_deref()
    }

    /// How often memory that was to be registered was found registered, and how often not. Zeroes where that costs nothing.
    pub fn registrations(&self) -> (u64, u64) {
        self.registrations.tally().map_or((0, 0), |tally| (tally.hits, tally.misses))
    }

    /// Slots for packets to ourselves.
    pub(crate) fn own_slots(packet_bytes: usize) -> Result<Inbound, rustix::io::Errno> {
        Inbound::new(OWN_SLOTS, packet_bytes)
    }

    /// A rail by its number; 0 is home.
    pub(crate) fn rail(&mut self, number: usize) -> &mut Rail {
        match number {
            0 => &mut self.rail,
            number => &mut self.others[number - 1],
        }
    }

    /// Whether this poll should look for packets last, so that a flood of them holds up nothing else.
    #[inline]
    fn packets_come_last(&mut self) -> bool {
        self.streak += 1;
        if self.streak < STREAK {
            return false;
        }
        self.streak = 0;
        true
    }

    /// What there is to tell beside what comes out of the completion queue, after doing what is to be done.
    #[cold]
    fn poll_news(&mut self) -> Option<Event> {
        self.tend();
        if self.lent < self.caps.slots_max
            && let Some((from, slot)) = self.stash.pop_front()
        {
            return self.lend(from, slot);
        }
        self.events.pop_front()
    }

    /// Does what is to be done: hands waiting packets and operations to the provider, answers, concludes.
    #[cold]
    pub(crate) fn tend(&mut self) {
        for rail in std::iter::once(&mut self.rail).chain(&mut self.others) {
            if rail.has_unposted() {
                rail.post_refused();
            }
        }
        self.try_waiting();
        if self.works.has_waiting() {
            for number in self.works.take_waiting() {
                self.start(number as usize);
            }
        }
        self.tend_farewells();
        if !self.others.is_empty() {
            self.take_from_others();
        }
        self.has_news = self.loads[1..].iter().any(|&load| load > 0)
            || !(self.stash.is_empty()
                && self.events.is_empty()
                && self.backlog.is_empty()
                && !self.works.has_waiting()
                && !self.rail.has_unposted()
                && !self.others.iter().any(Rail::has_unposted)
                && self.farewells.is_quiet());
    }

    /// Whether packets of a peer are kept until there are slots to lend.
    pub(crate) fn has_stashed(&self, peer: Peer) -> bool {
        self.stash.iter().any(|&(from, _)| from == peer)
    }

    /// From now on any number of slots may be on loan.
    pub(crate) fn lend_all(&mut self) {
        self.caps.slots_max = usize::MAX;
    }
}

impl Transport for Ofi {
    fn roads(&self) -> &[Caps] {
        std::slice::from_ref(&self.caps)
    }

    fn peers(&self) -> usize {
        self.peers.count()
    }

    fn me(&self) -> Peer {
        self.me
    }

    fn register(&mut self, buf: Buf, with: Peer) -> Result<Key, Box<Fault>> {
        // Devices give nothing to peers whose address they do not have. That of a stranger comes with its card.
        if with != self.me && self.meet(with) {
            self.announce(with, self.registrations.pair(buf));
        }
        self.registrations.open(buf)
    }

    fn deregister(&mut self, key: Key, _with: Peer) {
        self.registrations.close(key);
    }

    #[inline]
    fn send(&mut self, to: Peer, header: &[u8], payload: Buf) -> Result<(), Busy> {
        assert!(
            header.len() + payload.len() <= self.caps.packet_bytes_max,
            "a packet of more than Caps::packet_bytes_max"
        );
        let me = self.me;
        let contact = match self.peers.contact(to) {
            Some(contact) if contact.address.is_some() => contact,
            _ => return self.send_rare(to, header, payload),
        };
        if self.passages.is_some() {
            return self.send_numbered(to, header, payload);
        }
        let Some(address) = contact.address else { unreachable!("just seen") };
        let data = Peers::word(contact, to, me);
        contact.sent = contact.sent.wrapping_add(1);
        match self.rail.send((to, address), data, header, payload) {
            Ok(()) => Ok(()),
            Err(code) => {
                let sent = self.send_later(to, data, header, payload, code);
                if sent.is_err()
                    && let Some(contact) = self.peers.contact(to)
                {
                    contact.sent = contact.sent.wrapping_sub(1);
                }
                sent
            }
        }
    }

    fn read(&mut self, from: Peer, remote: RemoteSlice, local: Buf, token: Token) -> Result<(), Busy> {
        self.begin(Work::new(from, Direction::Read, remote, local, token))
    }

    fn write(&mut self, to: Peer, local: Buf, remote: RemoteSlice, token: Token) -> Result<(), Busy> {
        self.begin(Work::new(to, Direction::Write, remote, local, token))
    }

    #[inline]
    fn poll(&mut self) -> Option<Event> {
        if self.found.is_some() {
            return self.found.take();
        }
        if self.has_news
            && self.packets_come_last()
            && let Some(event) = self.poll_news()
        {
            return Some(event);
        }
        if let Some(event) = self.take_completions() {
            self.patience.renew();
            return Some(event);
        }
        if self.has_news || !self.others.is_empty() {
            let event = self.poll_news();
            if event.is_some() {
                self.patience.renew();
            }
            return event;
        }
        self.quiet_polls += 1;
        if self.quiet_polls >= QUIET_POLLS {
            self.quiet_polls = 0;
            self.call_roll(Instant::now());
        }
        None
    }

    #[inline]
    fn packet(&self, slot: &Slot) -> &[u8] {
        match slot.number() {
            number if number < OWN => self.rail.inbound.packet(number as usize),
            number if number & OWN != 0 => self.own.packet((number & !OWN) as usize),
            number => {
                let (rail, slot) = (number >> RAIL_SHIFT, number & (OWN - 1));
                self.others[rail as usize - 1].inbound.packet(slot as usize)
            }
        }
    }

    #[inline]
    fn release(&mut self, slot: Slot) {
        let number = slot.number();
        self.lent -= 1;
        if number < OWN {
            self.rail.inbound.give_back(number as usize);
            self.rail.post_receive(number as usize);
            self.has_news |= self.rail.has_unposted();
        } else if number & OWN == 0 {
            self.give_slot_back((number >> RAIL_SHIFT) as usize, (number & (OWN - 1)) as usize);
        } else {
            self.own.give_back((number & !OWN) as usize);
            self.own_free.push((number & !OWN) as u32);
        }
    }

    fn wait(&mut self, at_most: Duration) {
        self.wait_patiently(at_most);
    }
}

impl Drop for Ofi {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.leave_alone();
        }
    }
}

impl fmt::Debug for Ofi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ofi({:?} of {} over {})", self.me, self.peers.count(), self.caps.name)
    }
}
