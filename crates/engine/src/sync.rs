//! Short messages whose sender waits until they are matched (MPI 5.0, 3.4 synchronous mode), at their receiver.
//!
//! Such a message travels whole, as an eager one does, and is answered when a receive has met it: one way there and one back,
//! where an announcement would take three. Long ones are announced in any case.

use selvedge_transport::{Peer, Slot, Transport};

use crate::Engine;
use crate::config::Mutant;
use crate::credit;
use crate::engine::{envelope, name};
use crate::message::Completion;
use crate::peers::flag;
use crate::unexpected::Item;
use crate::wire::{Control, EAGER_HEADER_BYTES, Head, SYNC_HEADER_BYTES};

impl<T: Transport> Engine<T> {
    /// A synchronous message arrived, with `len` bytes of payload.
    pub(crate) fn on_sync(&mut self, from: Peer, head: Head, sender: u64, len: usize, slot: Slot) {
        let cost = credit::sync_units(len);
        if !self.accept_credit(from, head.credit)
            || !self.charge(from, cost)
            || !self.turn_is_possible(from, &head)
        {
            return self.transport.release(slot);
        }
        let name = name(from, &head);
        let in_turn = head.seq.is_none_or(|seq| seq == self.peers.get_mut(from).seq_expected);
        let receive = if in_turn { self.matching.arrive(&name) } else { None };
        let Some(id) = receive else {
            // With the sender's request in front.
            let stored = self.store(slot, EAGER_HEADER_BYTES, cost);
            if self.mutant == Some(Mutant::AnsweredUnmatched) {
                self.control(from, Control::Fin { sender });
            }
            return self.arrive_in_turn(name, head.seq, Item::Eager(stored.with_sender()));
        };
        let (body, user) = self.requests.take_posted(id).expect("a posted receive is a request");
        let payload = &self.transport.packet(&slot)[SYNC_HEADER_BYTES..];
        body.put(0, payload);
        self.transport.release(slot);
        self.acknowledge(from, sender, cost);
        let outcome = envelope(&name, len as u64).into_outcome(body.len() as u64);
        self.completions.push_back(Completion { user, outcome });
        if head.seq.is_some() {
            let peer = self.peers.get_mut(from);
            peer.seq_expected = peer.seq_expected.wrapping_add(1);
            self.catch_up(from);
        }
    }

    /// A synchronous message is matched: its sender is told, and gets its credit back by the same packet.
    pub(crate) fn acknowledge(&mut self, to: Peer, sender: u64, cost: u32) {
        self.peers.get_mut(to).owed += cost;
        if !self.peers.has(to, flag::GONE) {
            self.control(to, Control::Fin { sender });
        }
        // Where the answer has to wait the credit may be due before it.
        self.owe(to, 0);
    }
}
