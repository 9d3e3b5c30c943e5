//! Packets on their way out that are not the common case: to ourselves, to somebody for the first time, and those that wait
//! because the provider does not take them yet or a device has given up on them.

use selvedge_transport::{Buf, Busy, Peer, Transport};

use crate::error::Code;
use crate::rail::pool::Sent;
use crate::transport::{OWN, Ofi};

/// Packets to one peer that wait for the provider to take them, as it does while it connects. Bounds what one peer that does
/// not answer may keep of the slots that all need.
const WAITING_MAX: u16 = 8;

/// Waiting packets that one poll tries to hand to the provider.
const TRIES: usize = 4;

/// A packet that waits in a slot of a rail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    rail: usize,
    slot: usize,
}

impl Ofi {
    /// A send that is not the common case: to ourselves, to somebody for the first time, or to nobody.
    #[cold]
    pub(crate) fn send_rare(&mut self, to: Peer, header: &[u8], payload: Buf) -> Result<(), Busy> {
        if to == self.me {
            let Some(slot) = self.own_free.pop() else { return Err(Busy) };
            self.own.put(slot as usize, header, payload);
            self.stash.push_back((to, OWN | u64::from(slot)));
            self.has_news = true;
            return Ok(());
        }
        if !self.peers.is_gone(to) && self.meet(to) {
            return self.send(to, header, payload);
        }
        if self.peers.is_stranger(to) {
            self.refused_at = Some(self.sends_pending());
            return Err(Busy);
        }
        Ok(())
    }

    /// A send that the provider did not take. While it connects, some packets wait here.
    #[cold]
    pub(crate) fn send_later(
        &mut self,
        to: Peer,
        data: u64,
        header: &[u8],
        payload: Buf,
        code: Code,
    ) -> Result<(), Busy> {
        if code != Code::AGAIN {
            self.not_taken(to, code);
            return Ok(());
        }
        self.make_room();
        let slot = if self.may_wait(to) { self.rail.outbound.take(to) } else { None };
        let Some(slot) = slot else {
            self.refused_at = Some(self.sends_pending());
            return Err(Busy);
        };
        let len = self.rail.outbound.fill(slot, header, payload);
        self.rail.outbound.note(slot, len, data, 0);
        self.put_aside(to, 0, slot);
        Ok(())
    }

    /// There is no room for a packet. What has completed makes some, for the next try.
    #[cold]
    pub(crate) fn refuse(&mut self) -> Result<(), Busy> {
        self.make_room();
        self.refused_at = Some(self.sends_pending());
        Err(Busy)
    }

    /// What has completed makes room, and connections come about.
    fn make_room(&mut self) {
        while let Some(event) = self.take_completions() {
            self.events.push_back(event);
        }
        self.take_from_others();
        self.has_news |= !self.events.is_empty();
    }

    /// Whether one more packet to this peer may wait for the provider.
    pub(crate) fn may_wait(&mut self, to: Peer) -> bool {
        *self.peers.waiting(to) < WAITING_MAX
    }

    /// The packet in a slot waits, for the provider or for another way.
    #[cold]
    pub(crate) fn put_aside(&mut self, to: Peer, rail: usize, slot: usize) {
        *self.peers.waiting(to) += 1;
        self.backlog.push_back(Waiting { rail, slot });
        self.has_news = true;
    }

    /// Tries some of the packets that have waited longest.
    pub(crate) fn try_waiting(&mut self) {
        for _ in 0..self.backlog.len().min(TRIES) {
            let Some(waiting) = self.backlog.pop_front() else { return };
            let to = self.rail(waiting.rail).outbound.sent(waiting.slot).to;
            match self.try_again(waiting, to) {
                Err(Code::AGAIN) => self.backlog.push_back(waiting),
                Ok(()) => *self.peers.waiting(to) -= 1,
                Err(code) => {
                    self.rail(waiting.rail).outbound.give_back(waiting.slot);
                    *self.peers.waiting(to) -= 1;
                    self.not_taken(to, code);
                }
            }
        }
    }

    /// Sends a packet by the way that its peer's packets take now, from a slot of that rail.
    fn try_again(&mut self, waiting: Waiting, to: Peer) -> Result<(), Code> {
        let Waiting { rail, slot } = waiting;
        // It may have gone meanwhile.
        let (way, address) = self.packet_way(to).ok_or(Code::NOT_ENABLED)?;
        let Sent { len, data, .. } = self.rail(rail).outbound.sent(slot);
        let packet = self.rail(rail).outbound.packet(slot);
        let next = &mut self.rail(way.own).outbound;
        let to_slot = if way.own == rail { slot } else { next.take(to).ok_or(Code::AGAIN)? };
        if to_slot != slot || way.own != rail {
            next.fill(to_slot, &[], packet);
        }
        next.note(to_slot, len as usize, data, way.theirs);
        let sent = self.rail(way.own).send_slot(to_slot, len as usize, address, data);
        if way.own != rail {
            let left = if sent.is_ok() { (rail, slot) } else { (way.own, to_slot) };
            self.rail(left.0).outbound.give_back(left.1);
        }
        sent
    }

    /// Packets that have not been handed to a provider, or are not complete.
    pub(crate) fn sends_pending(&self) -> usize {
        self.others.iter().map(|rail| rail.outbound.in_use()).sum::<usize>() + self.rail.outbound.in_use()
    }
}
