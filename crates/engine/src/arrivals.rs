//! The receiving half of the main path: what a packet that arrives becomes.

use selvedge_transport::{Peer, Slot, Transport};

use crate::config::Mutant;
use crate::credit::{self, ENTRY_UNITS, UNIT_BYTES};
use crate::engine::{Engine, envelope, name};
use crate::matching::Name;
use crate::message::Completion;
use crate::peers::flag;
use crate::request::RequestId;
use crate::unexpected::{Item, Stored};
use crate::wire::{self, Head, Packet};

impl<T: Transport> Engine<T> {
    /// A packet arrived. Its slot is released before anything is sent.
    #[inline]
    pub(crate) fn on_packet(&mut self, from: Peer, slot: Slot) -> Option<Completion> {
        let Ok(Packet::Eager { head, payload }) = wire::parse(self.transport.packet(&slot)) else {
            self.on_other_packet(from, slot);
            return None;
        };
        let cost = credit::units(payload.len());
        let peer = self.peers.get_mut(from);
        // What a peer may spend and may be given is known: more is a mistake of the peer, not of ours.
        let overdrawn =
            peer.allowance < cost || peer.credit + u32::from(head.credit) > self.allowance.credit_units;
        let in_turn = head.seq.is_none_or(|seq| seq == peer.seq_expected);
        if overdrawn || !in_turn || (head.credit != 0 && peer.flags & flag::BLOCKED != 0) {
            self.on_eager_slowly(from, slot);
            return None;
        }
        peer.allowance -= cost;
        peer.credit += u32::from(head.credit);
        peer.seq_expected = peer.seq_expected.wrapping_add(u32::from(head.seq.is_some()));
        let catch_up = head.seq.is_some() && peer.early != 0;

        let name = name(from, &head);
        let Some(id) = self.matching.arrive(&name) else {
            self.keep_unexpected(name, slot, cost);
            if catch_up {
                self.catch_up(from);
            }
            return None;
        };
        let Some(receive) = self.requests.remove_posted(id) else {
            return self.scatter_eager(id, name, slot, cost, catch_up);
        };
        receive.buf.fill_from(&payload[..payload.len().min(receive.buf.len())]);
        let outcome = envelope(&name, payload.len() as u64).into_outcome(receive.buf.len() as u64);
        peer.owed += cost;
        let return_due = peer.owed >= self.allowance.credit_reserve;
        self.transport.release(slot);
        if return_due || catch_up {
            self.after_delivery(from, return_due, catch_up);
        }
        Some(Completion { user: receive.user, outcome })
    }

    /// An eager message whose receive lies in several places.
    #[cold]
    fn scatter_eager(
        &mut self,
        id: RequestId,
        name: Name,
        slot: Slot,
        cost: u32,
        catch_up: bool,
    ) -> Option<Completion> {
        let (body, user) = self.requests.take_posted(id).expect("a posted receive is a request");
        let payload = &self.transport.packet(&slot)[wire::EAGER_HEADER_BYTES..];
        body.put(0, payload);
        let outcome = envelope(&name, payload.len() as u64).into_outcome(body.len() as u64);
        self.transport.release(slot);
        self.owe(name.source, cost);
        if catch_up {
            self.catch_up(name.source);
        }
        Some(Completion { user, outcome })
    }

    #[cold]
    fn after_delivery(&mut self, from: Peer, return_due: bool, catch_up: bool) {
        if return_due {
            self.return_credit(from);
        }
        if catch_up {
            self.catch_up(from);
        }
    }

    /// An eager message that nobody has asked for.
    #[cold]
    fn keep_unexpected(&mut self, mut name: Name, slot: Slot, cost: u32) {
        let item = Item::Eager(self.store(slot, wire::EAGER_HEADER_BYTES, cost));
        self.stats.unexpected += 1;
        match self.mutant {
            Some(Mutant::UnexpectedLifo) => return self.matching.keep_in_front(name, item),
            Some(Mutant::UnorderedTagCut) => name.tag.0 &= u64::from(u32::MAX),
            _ => {}
        }
        self.matching.keep(name, item);
    }

    /// Keeps what follows the header of a packet.
    pub(crate) fn store(&mut self, slot: Slot, header_bytes: usize, cost: u32) -> Stored {
        let payload = &self.transport.packet(&slot)[header_bytes..];
        let stored = self.store.keep(payload);
        self.transport.release(slot);
        self.stats.unexpected_bytes += u64::from(cost) * UNIT_BYTES;
        self.stats.unexpected_bytes_max = self.stats.unexpected_bytes_max.max(self.stats.unexpected_bytes);
        stored
    }

    /// An eager message that is early, or brings credit that somebody waits for, or is wrong.
    #[cold]
    fn on_eager_slowly(&mut self, from: Peer, slot: Slot) {
        let Ok(Packet::Eager { head, payload }) = wire::parse(self.transport.packet(&slot)) else {
            return self.transport.release(slot);
        };
        let cost = credit::units(payload.len());
        if !self.accept_credit(from, head.credit)
            || !self.charge(from, cost)
            || !self.turn_is_possible(from, &head)
        {
            return self.transport.release(slot);
        }
        let item = Item::Eager(self.store(slot, wire::EAGER_HEADER_BYTES, cost));
        self.arrive_in_turn(name(from, &head), head.seq, item);
    }

    /// Everything that is not an eager message, but for trains. Copies what it says, so that the slot can be released first.
    #[cold]
    fn on_other_packet(&mut self, from: Peer, slot: Slot) {
        match wire::parse(self.transport.packet(&slot)) {
            Ok(Packet::Rts { head, offer }) => {
                self.transport.release(slot);
                if self.accept_credit(from, head.credit)
                    && self.charge(from, ENTRY_UNITS)
                    && self.turn_is_possible(from, &head)
                {
                    self.arrive_in_turn(name(from, &head), head.seq, Item::Offer(offer));
                }
            }
            Ok(Packet::Control { credit, control }) => {
                self.transport.release(slot);
                if self.accept_credit(from, credit) {
                    self.on_control(from, control);
                }
            }
            Ok(Packet::Data { credit, receiver, offset, payload }) => {
                let delivered = self
                    .requests
                    .pull_mut(RequestId::from_bits(receiver))
                    .is_some_and(|pull| pull.envelope.source == from && pull.accept_data(offset, payload));
                self.transport.release(slot);
                if self.accept_credit(from, credit) {
                    self.on_data(from, RequestId::from_bits(receiver), delivered);
                }
            }
            Ok(Packet::Sync { head, sender, payload }) => {
                let len = payload.len();
                self.on_sync(from, head, sender, len, slot);
            }
            Ok(Packet::Part { head, part, payload }) => {
                let len = payload.len();
                self.on_part(from, head, part, len, slot);
            }
            Ok(Packet::Eager { .. }) => self.transport.release(slot),
            Err(malformed) => {
                self.transport.release(slot);
                self.on_malformed(from, &malformed);
            }
        }
    }

    /// Delivers a message whose turn it is, with all that waited for it, or lets it wait.
    pub(crate) fn arrive_in_turn(&mut self, name: Name, seq: Option<u32>, item: Item) {
        let from = name.source;
        let Some(seq) = seq else { return self.deliver(name, item) };
        let peer = self.peers.get_mut(from);
        if seq == peer.seq_expected || self.mutant == Some(Mutant::SkipOrderWindow) {
            peer.seq_expected = peer.seq_expected.wrapping_add(1);
            self.deliver(name, item);
            return self.catch_up(from);
        }
        if self.early.keep(seq, name, item) {
            self.peers.get_mut(from).early += 1;
            self.stats.early += 1;
        } else {
            self.on_impossible(from, "two messages of the same sequence number");
        }
    }

    /// Delivers early messages whose turn has come.
    pub(crate) fn catch_up(&mut self, from: Peer) {
        loop {
            let peer = self.peers.get_mut(from);
            if peer.early == 0 {
                return;
            }
            let Some((name, item)) = self.early.take(from, peer.seq_expected) else { return };
            peer.early -= 1;
            peer.seq_expected = peer.seq_expected.wrapping_add(1);
            self.deliver(name, item);
        }
    }

    /// Whether a message of this number can be under way: not delivered yet, and covered by credit.
    pub(crate) fn turn_is_possible(&mut self, from: Peer, head: &Head) -> bool {
        let Some(seq) = head.seq else { return true };
        let ahead = seq.wrapping_sub(self.peers.get_mut(from).seq_expected);
        let possible = ahead <= self.allowance.credit_units / ENTRY_UNITS || self.mutant.is_some();
        if !possible {
            self.on_impossible(from, "a sequence number that was used or is too far ahead");
        }
        possible
    }

    /// Matches a stored message.
    fn deliver(&mut self, name: Name, item: Item) {
        if matches!(item, Item::Offer(_)) && self.mutant != Some(Mutant::CreditLost) {
            // An announcement held credit for its place in the order window only.
            self.owe(name.source, ENTRY_UNITS);
        }
        let Some(id) = self.matching.arrive(&name) else {
            self.stats.unexpected += 1;
            return self.matching.keep(name, item);
        };
        self.meet(id, name, item);
    }
}
