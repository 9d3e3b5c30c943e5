//! Trains: messages of several packets that leave at once, because credit pays for all of them beforehand.
//!
//! Every part says all there is to know about its message, so there is no announcement that could be late: the part that
//! comes first announces. It takes the message's turn, and finds its receive or a box of the message's length; the
//! others find what it found, by the number that the sender gave the message.
//!
//! ```text
//! first part:  its turn, and a receive is posted?   yes: parts go to their places in the receive
//!                                                   no:  parts go to their places in a box; the message waits its turn,
//!                                                        then for its receive, as any other
//! a receive takes it from the box:                  all here? over. Otherwise what is here is copied, and from now on
//!                                                   parts go to their places in the receive
//! last part, and a receive has it:                  credit goes back, the receive is over
//! ```
//!
//! Bounds: a train in a box holds credit for the box, for its place in the queues and for its entry here. One that a
//! receive has taken holds its credit until its last part has come, so what is under way is bounded by credit as well.

use rustc_hash::FxHashMap;
use selvedge_transport::{Peer, Slot, Transport};

use crate::Engine;
use crate::body::Body;
use crate::config::{Limits, Mutant};
use crate::credit::{self, UNIT_BYTES};
use crate::engine::{envelope, name};
use crate::matching::Name;
use crate::message::{Envelope, Failure, Submitted};
use crate::peers::flag;
use crate::request::{Arriving, Request, RequestId};
use crate::unexpected::Item;
use crate::wire::{Head, PART_HEADER_BYTES, Part};

/// Packets of a train at most. So many fit the word that says which are missing; and so many at most come to a receiver
/// by one message that it has not asked for.
pub(crate) const PARTS_MAX: usize = u64::BITS as usize;

/// Trains of which something is here and something is missing, and whole ones that nobody has received.
#[derive(Debug, Default)]
pub(crate) struct Trains {
    by_number: FxHashMap<Number, Train>,
}

/// The sender of a train and its number there.
type Number = (Peer, u64);

#[derive(Debug)]
struct Train {
    /// A bit for each part that has not come.
    missing: u64,
    bytes: u32,
    home: Home,
}

/// Where the parts of a train go.
#[derive(Debug)]
enum Home {
    /// No receive has taken it.
    Box(Box<[u8]>),
    /// A receive has. If that is over, because the sender is faulty, nobody wants the rest.
    Receive(RequestId),
}

impl Trains {
    /// Bytes of memory that one train takes here, besides its payload.
    pub(crate) const ENTRY_BYTES: usize = size_of::<(Number, Train)>() + 1;

    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.by_number.capacity()
    }
}

impl Train {
    fn new(bytes: u32, part_bytes: usize, home: Home) -> Train {
        let parts = (bytes as usize).div_ceil(part_bytes);
        Train { missing: u64::MAX >> (PARTS_MAX - parts), bytes, home }
    }
}

impl Limits {
    /// Which part of its train a packet with `len` bytes of payload is; `None` when no train of this road has such a
    /// part.
    fn part_index(&self, part: &Part, len: usize) -> Option<usize> {
        let (bytes, offset) = (part.bytes as usize, part.offset as usize);
        let index = offset / self.part_bytes;
        let fits = offset < bytes
            && offset.is_multiple_of(self.part_bytes)
            && len == self.part_bytes.min(bytes - offset)
            && bytes.div_ceil(self.part_bytes) <= PARTS_MAX;
        fits.then_some(index)
    }
}

impl<T: Transport> Engine<T> {
    /// A part of a train arrived, with `len` bytes of payload.
    pub(crate) fn on_part(&mut self, from: Peer, head: Head, part: Part, len: usize, slot: Slot) {
        if !self.accept_credit(from, head.credit) {
            return self.transport.release(slot);
        }
        let Some(index) = self.limits(from).part_index(&part, len) else {
            self.transport.release(slot);
            return self.on_impossible(from, "a part that no message has");
        };
        let number = (from, part.sender);
        let is_first = !self.trains.by_number.contains_key(&number);
        if is_first && !self.admit_train(from, &head, &part) {
            return self.transport.release(slot);
        }
        let placed = self.place_part(number, &part, index, &slot);
        self.transport.release(slot);
        let Some(is_whole) = placed else {
            return self.on_impossible(from, "a part twice, or one of two messages");
        };
        if is_first {
            self.announce_train(name(from, &head), head.seq, &part);
        }
        if is_whole {
            self.settle_train(number);
        }
    }

    /// Finds a place for a train of which the first part has come: in its receive if that is posted and it is its turn.
    /// False, and a fault, when it cannot be.
    fn admit_train(&mut self, from: Peer, head: &Head, part: &Part) -> bool {
        let cost = credit::train_units(part.bytes as usize);
        if !self.charge(from, cost) || !self.turn_is_possible(from, head) {
            return false;
        }
        let in_turn = head.seq.is_none_or(|seq| seq == self.peers.get_mut(from).seq_expected);
        // Of a faulty peer nobody waits for the rest.
        let may_wait = !self.peers.has(from, flag::FAULTY);
        let name = name(from, head);
        let receive = if in_turn && may_wait { self.matching.arrive(&name) } else { None };
        let home = match receive {
            Some(id) => {
                let (body, user) = self.requests.take_posted(id).expect("a posted receive is a request");
                let envelope = envelope(&name, part.bytes.into());
                let arriving = Arriving { envelope, body, user };
                Home::Receive(self.requests.insert_with(|_| Request::Arriving(arriving)))
            }
            None => {
                self.stats.unexpected_bytes += u64::from(cost) * UNIT_BYTES;
                self.stats.unexpected_bytes_max =
                    self.stats.unexpected_bytes_max.max(self.stats.unexpected_bytes);
                Home::Box(self.store.reserve(part.bytes as usize))
            }
        };
        let part_bytes = self.limits(from).part_bytes;
        self.trains.by_number.insert((from, part.sender), Train::new(part.bytes, part_bytes, home));
        true
    }

    /// Copies a part to where its train is, and says whether that is whole now. `None` when it is no part of it, or was
    /// there before.
    fn place_part(&mut self, number: Number, part: &Part, index: usize, slot: &Slot) -> Option<bool> {
        let train = self.trains.by_number.get_mut(&number)?;
        let bit = 1 << index;
        if train.bytes != part.bytes || train.missing & bit == 0 {
            return None;
        }
        train.missing &= !bit;
        let payload = &self.transport.packet(slot)[PART_HEADER_BYTES..];
        let mut begin = part.offset as usize;
        if self.mutant == Some(Mutant::TrainEndsEarly) && begin + payload.len() == part.bytes as usize {
            train.missing = 0;
        }
        match &mut train.home {
            Home::Box(stored) => {
                if self.mutant == Some(Mutant::PartMisplaced) {
                    begin = begin.saturating_sub(payload.len());
                }
                stored[begin..begin + payload.len()].copy_from_slice(payload);
            }
            Home::Receive(id) => {
                if let Some(Arriving { body, .. }) = self.requests.arriving(*id) {
                    body.put(begin, payload);
                }
            }
        }
        Some(train.missing == 0)
    }

    /// The first part is in its place: the message takes its turn.
    fn announce_train(&mut self, name: Name, seq: Option<u32>, part: &Part) {
        let train = &self.trains.by_number[&(name.source, part.sender)];
        if matches!(train.home, Home::Box(_)) {
            let item = Item::Train { sender: part.sender, bytes: part.bytes };
            return self.arrive_in_turn(name, seq, item);
        }
        if seq.is_some() {
            let peer = self.peers.get_mut(name.source);
            peer.seq_expected = peer.seq_expected.wrapping_add(1);
            self.catch_up(name.source);
        }
    }

    /// A receive has met a train in its box: takes over what is here and waits for the rest.
    pub(crate) fn take_train(&mut self, envelope: Envelope, sender: u64, body: Body, user: u64) -> Submitted {
        let from = envelope.source;
        let number = (from, sender);
        let part_bytes = self.limits(from).part_bytes;
        let train = self.trains.by_number.get_mut(&number).expect("a train waits where its parts are");
        let Home::Box(stored) = std::mem::replace(&mut train.home, Home::Receive(RequestId::OVER)) else {
            unreachable!("a train is taken once")
        };
        let (missing, bytes) = (train.missing, train.bytes);
        if missing == 0 || self.mutant != Some(Mutant::PartsForgotten) {
            copy_present(&stored[..bytes as usize], missing, part_bytes, &body);
        }
        self.store.give_back(stored);
        self.stats.unexpected_bytes -= u64::from(credit::train_units(bytes as usize)) * UNIT_BYTES;
        if missing == 0 {
            self.trains.by_number.remove(&number);
            self.owe_train(from, bytes);
            return Submitted::Done(envelope.into_outcome(body.len() as u64));
        }
        if self.peers.has(from, flag::FAULTY) {
            return Submitted::Done(Err(Failure::Fault(self.faults.of(from))));
        }
        let id = self.requests.insert_with(|_| Request::Arriving(Arriving { envelope, body, user }));
        train.home = Home::Receive(id);
        if self.mutant == Some(Mutant::TrainCreditTwice) {
            self.owe_train(from, bytes);
        }
        Submitted::Pending(id)
    }

    /// Ends a train that is whole, if a receive has taken it.
    fn settle_train(&mut self, number: Number) {
        let Some(&Train { bytes, home: Home::Receive(id), .. }) = self.trains.by_number.get(&number) else {
            return;
        };
        self.trains.by_number.remove(&number);
        self.owe_train(number.0, bytes);
        if let Some(&mut Arriving { envelope, ref body, user }) = self.requests.arriving(id) {
            let outcome = envelope.into_outcome(body.len() as u64);
            self.finish(id, user, outcome);
        }
    }

    fn owe_train(&mut self, from: Peer, bytes: u32) {
        if self.mutant != Some(Mutant::TrainCreditLost) {
            self.owe(from, credit::train_units(bytes as usize));
        }
    }
}

/// Copies the parts that are not missing to where they belong, as far as they fit.
fn copy_present(stored: &[u8], missing: u64, part_bytes: usize, body: &Body) {
    let parts = stored.chunks(part_bytes).enumerate();
    for (index, part) in parts.filter(|(index, _)| missing & 1 << index == 0) {
        body.put(index * part_bytes, part);
    }
}
