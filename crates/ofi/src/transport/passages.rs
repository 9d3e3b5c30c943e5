//! Packets between ranks with several NICs: by which they go, and how nothing is lost or taken twice when that one dies.
//!
//! Packets go from home to home. A device that gets no answer reports so after its own time, and does not know whether the packet
//! arrived: the answer may be what was lost. Then the way is left, and the packet goes again by another, from the
//! slot where it waited for its completion. Its number (`numbers.rs`) makes that safe: whoever has had it throws the second
//! away. The two directions of a pair change by themselves; both ranks have receives on all their NICs and look at them.
//!
//! ```text
//! sender                                            receiver
//!   | 7, 8, 9 by home ---------------- 7 ----------> |  7
//!   |            (cut; 8 arrives, its answer not)    |  8
//!   | <- home: 8 and 9 unanswered                    |
//!   | 8, 9 by the next NIC --------------------------> |  8 was here: thrown away; 9
//! ```
//!
//! Why a number of the receiver's past never looks like one of its future: at most half of all numbers are on their way
//! to one peer, counted from the oldest without a completion, and a NIC beside home is looked at when home has been
//! emptied. Only a network that keeps a packet back while half a window of others passes could break that, after its own device
//! has given it up.
//!
//! What it costs while all is well: a packet is sent from a slot and completes, also one that would be injected, because of what
//! is injected nobody says that it failed. Ranks with one NIC each pay nothing.

use selvedge_transport::{Buf, Busy, Cause, Event, Fault, Peer};

use crate::error::Code;
use crate::faults;
use crate::peers::Peers;
use crate::peers::farewell::{PROBE, Parting};
use crate::peers::pages::Pages;
use crate::peers::words::NAME_MASK;
use crate::rail::fabric::Address;
use crate::rail::pool::Sent;
use crate::rail::queue::Failure;
use crate::transport::Ofi;
use crate::transport::numbers::{Numbering, Window};
use crate::transport::rails::{Way, straight};

/// Between us and one peer.
#[derive(Debug)]
struct Passage {
    /// Which way packets to it take, and the peer's address there.
    way: Way,
    address: Option<Address>,
    /// Numbers of packets to it that have arrived.
    arrived: Window,
    /// Numbers of packets from it that were taken.
    taken: Window,
}

/// One for each peer that we have had to do with, in jobs of which any rank has several rails.
///
/// Memory: 180 bytes for each peer that was dealt with, 8 for each of its page.
#[derive(Debug)]
pub(crate) struct Passages {
    numbering: Numbering,
    of: Pages<Option<Box<Passage>>>,
}

impl Passages {
    /// None yet. `None` in jobs so large that there is no room for numbers.
    pub(crate) fn new(peers: usize) -> Option<Passages> {
        let numbering = Numbering::of(peers)?;
        Some(Passages { numbering, of: Pages::new(peers) })
    }

    /// The way of the packets to a peer, if it has one of its own.
    pub(crate) fn way(&self, peer: Peer) -> Option<(Way, Address)> {
        let passage = self.of.get(peer)?.as_ref()?;
        Some((passage.way, passage.address?))
    }

    #[inline]
    fn get_mut(&mut self, peer: Peer) -> &mut Passage {
        self.of.make(peer, |_| None).get_or_insert_with(|| {
            let way = Way { own: 0, peer, theirs: 0 };
            let (arrived, taken) = (Window::default(), Window::default());
            Box::new(Passage { way, address: None, arrived, taken })
        })
    }
}

impl Ofi {
    /// How packets are numbered, where they are: in jobs of which any rank has several rails. All ranks see the same.
    #[inline]
    pub(crate) fn numbering(&self) -> Option<Numbering> {
        self.passages.as_ref().map(|passages| passages.numbering)
    }

    /// The peer was met: its packets go home.
    pub(crate) fn open_passage(&mut self, peer: Peer, home: Address) {
        if let Some(passages) = &mut self.passages {
            let passage = passages.get_mut(peer);
            passage.address = passage.address.or(Some(home));
        }
    }

    /// Which way packets to a peer go that was met.
    pub(crate) fn packet_way(&self, peer: Peer) -> Option<(Way, Address)> {
        let home = self.peers.address(peer)?;
        let own = self.passages.as_ref().and_then(|passages| passages.way(peer));
        Some(own.unwrap_or((Way { own: 0, peer, theirs: 0 }, home)))
    }

    /// Sends a packet with its number.
    ///
    /// # Errors
    /// [`Busy`] when there is no room.
    pub(crate) fn send_numbered(&mut self, to: Peer, header: &[u8], payload: Buf) -> Result<(), Busy> {
        let Ofi { passages: Some(passages), peers, rail: home, others, me, .. } = self else {
            unreachable!("the caller has looked");
        };
        let (numbering, passage) = (passages.numbering, passages.get_mut(to));
        let Some(contact) = peers.contact(to) else { unreachable!("the caller has looked") };
        let Some(address) = passage.address else { return Ok(()) };
        let Way { own, theirs, .. } = passage.way;
        let rail = if own == 0 { home } else { &mut others[own - 1] };
        let has_room = contact.sent.wrapping_sub(passage.arrived.lowest()) < numbering.in_flight_max();
        let Some(slot) = has_room.then(|| rail.outbound.take(to)).flatten() else {
            return self.refuse();
        };
        let len = rail.outbound.fill(slot, header, payload);
        let data = Peers::word(contact, to, *me) | numbering.label(contact.sent);
        rail.outbound.note(slot, len, data, theirs);
        match rail.send_slot(slot, len, address, data) {
            Ok(()) => contact.sent = contact.sent.wrapping_add(1),
            Err(code) => return self.not_sent(to, (own, slot), code),
        }
        Ok(())
    }

    /// The provider did not take a packet with a number.
    #[cold]
    fn not_sent(&mut self, to: Peer, (rail, slot): (usize, usize), code: Code) -> Result<(), Busy> {
        if code == Code::AGAIN && self.may_wait(to) {
            self.put_aside(to, rail, slot);
            let contact = self.peers.meet(to);
            contact.sent = contact.sent.wrapping_add(1);
            return Ok(());
        }
        self.rail(rail).outbound.give_back(slot);
        if code == Code::AGAIN {
            return self.refuse();
        }
        self.not_taken(to, code);
        Ok(())
    }

    /// A packet has arrived.
    pub(crate) fn confirm(&mut self, rail: usize, slot: usize) {
        let outbound = &mut self.rail(rail).outbound;
        let Sent { to, data, .. } = outbound.sent(slot);
        outbound.give_back(slot);
        if let Some(passages) = &mut self.passages
            && let Some((_, number)) = passages.numbering.read((data & NAME_MASK) as u32)
        {
            let numbering = passages.numbering;
            passages.get_mut(to).arrived.insert(number, numbering);
        }
    }

    /// A packet with a number has come, from somebody we have had to do with. It is lent once, and thrown away when it
    /// comes again.
    pub(crate) fn take_numbered(
        &mut self,
        (from, number): (Peer, u32),
        rail: usize,
        slot: usize,
    ) -> Option<Event> {
        let Some(passages) = &mut self.passages else { return None };
        let numbering = passages.numbering;
        if !passages.get_mut(from).taken.insert(number, numbering) {
            self.give_slot_back(rail, slot);
            return None;
        }
        let contact = self.peers.contact(from)?;
        contact.received = contact.received.wrapping_add(1);
        self.lend(from, Ofi::slot_name(rail, slot))
    }

    /// A packet of ours may not have arrived. Where there is another way, it goes by that.
    #[cold]
    pub(crate) fn send_failed(&mut self, rail: usize, slot: usize, failure: &Failure) {
        let Sent { to, theirs, .. } = self.rail(rail).outbound.sent(slot);
        let (fault, _) = faults::refused_by_provider(to, failure, self.is_efa);
        if self.passages.is_some() && fault.cause == Cause::Unreachable && !self.peers.is_gone(to) {
            self.leave_way(Way { own: rail, peer: to, theirs: theirs.into() }, &fault);
            return self.put_aside(to, rail, slot);
        }
        self.rail(rail).outbound.give_back(slot);
        self.part(to, Parting::Refused(fault));
    }

    /// Packets to a peer go by another way than one that has failed. Where there is none left, the peer is lost.
    #[cold]
    pub(crate) fn go_round(&mut self, peer: Peer, fault: &Fault) {
        if self.passages.is_none() || self.peers.is_gone(peer) {
            return;
        }
        let Some((before, _)) = self.packet_way(peer) else { return };
        let counts = (1 + self.others.len(), self.peers.rails(peer));
        let Some(way) = self.ways.for_packets(peer, counts.0, counts.1) else {
            let fault = faults::no_way(peer, straight(peer, counts.0, counts.1).count(), fault);
            return self.part(peer, Parting::Refused(fault));
        };
        if way == before {
            return;
        }
        let address = match self.address(way) {
            Ok(address) => address,
            Err(error) => return self.part(peer, Parting::Refused(faults::not_inserted(peer, &error))),
        };
        if let Some(passages) = &mut self.passages {
            let passage = passages.get_mut(peer);
            (passage.way, passage.address) = (way, Some(address));
        }
        // A host that is gone is found out by asking on all ways at once, rather than on one after the other.
        for way in straight(peer, counts.0, counts.1).filter(|other| *other != way) {
            if !self.ways.has_failed(way)
                && let Ok(address) = self.address(way)
            {
                let _ = self.send_control_by((way, address), &[PROBE]);
            }
        }
    }

    /// Packets that go by a rail which is given up.
    #[cold]
    pub(crate) fn peers_on(&self, own: usize) -> Vec<Peer> {
        let Some(passages) = &self.passages else { return Vec::new() };
        passages.of.iter().flatten().filter(|passage| passage.way.own == own).map(|it| it.way.peer).collect()
    }
}
