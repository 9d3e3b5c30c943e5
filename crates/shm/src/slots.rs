//! Received packets on loan: which record of which ring a slot is.
//!
//! A packet is read where it lies, in its ring. One that is kept for long would in the end stop its ring, because space
//! is given back in order; when half of a ring waits behind such a packet, it is moved out into memory of our own.
//! Bound: [`SLOTS_MAX`] packets of [`PACKET_BYTES_MAX`], about 1 MiB, and only for who keeps that many.

use selvedge_transport::{Peer, Slot};

use crate::baton::Small;
use crate::map::{MappedRing, RING_LINES};
use crate::ring::{Inbound, LINE_BYTES, Record, WORD_BYTES, lines_of};

/// Packets on loan at a time.
pub(crate) const SLOTS_MAX: usize = 128;

/// Largest packet: 8 KiB of payload behind 56 bytes of header fill 129 lines. Larger ones would gain little (the copy
/// is most of the cost from 4 KiB on), and fewer of them would be in flight in a ring.
pub(crate) const PACKET_BYTES_MAX: usize = 129 * LINE_BYTES - WORD_BYTES;

/// Lines of a ring that may wait behind a packet on loan.
const HELD_LINES_MAX: u64 = RING_LINES as u64 / 2;

// A writer makes progress: what is left of the ring holds a packet and the skip in front of it, even when a batch of
// free lines is not published yet.
const _: () = assert!(RING_LINES as u64 - HELD_LINES_MAX - 64 >= 2 * lines_of(PACKET_BYTES_MAX) as u64);

/// One seat for a packet on loan.
#[derive(Debug)]
enum Place {
    Free,
    /// In the ring from `from`.
    Ring {
        from: Peer,
        record: Record,
    },
    /// A small one that came by baton, and how many bytes it has.
    Small(Small, usize),
    /// In memory of our own.
    Moved(Vec<u8>),
}

impl Place {
    /// A packet in memory of our own.
    #[cold]
    fn moved(&self, slot: &Slot) -> &[u8] {
        let Place::Moved(bytes) = self else { panic!("slot {} is not on loan", slot.number()) };
        bytes
    }
}

/// All packets on loan.
#[derive(Debug)]
pub(crate) struct Slots {
    places: Vec<Place>,
    free: Vec<u32>,
    /// Memory for packets that are moved, from earlier ones.
    spare: Vec<Vec<u8>>,
}

impl Slots {
    /// Nothing on loan.
    pub(crate) fn new() -> Slots {
        Slots {
            places: (0..SLOTS_MAX).map(|_| Place::Free).collect(),
            free: (0..SLOTS_MAX as u32).rev().collect(),
            spare: Vec::new(),
        }
    }

    /// Whether another packet may be lent.
    #[inline]
    pub(crate) fn has_free(&self) -> bool {
        !self.free.is_empty()
    }

    /// Lends a packet of the ring from `from`.
    #[inline]
    pub(crate) fn lend(&mut self, from: Peer, record: Record) -> Slot {
        self.place(Place::Ring { from, record })
    }

    /// Lends a packet that came by baton.
    #[inline]
    pub(crate) fn lend_small(&mut self, small: Small, bytes: usize) -> Slot {
        self.place(Place::Small(small, bytes))
    }

    #[inline]
    fn place(&mut self, place: Place) -> Slot {
        let number = self.free.pop().expect("the caller has asked has_free");
        self.places[number as usize] = place;
        Slot::new(u64::from(number))
    }

    /// The bytes of a lent packet. `rings` are all rings towards us, by sender.
    #[inline(always)]
    pub(crate) fn packet<'a>(&'a self, slot: &Slot, rings: &'a [Inbound<MappedRing>]) -> &'a [u8] {
        match &self.places[slot.number() as usize] {
            Place::Ring { from, record } => {
                let memory = rings[from.index()].memory();
                // SAFETY: the record was popped from this ring (`lend` is told so), and giving it back takes it out of
                // `places`, for which `self` would have to be borrowed exclusively.
                unsafe { memory.packet(record.line(), record.bytes()) }
            }
            Place::Small(small, bytes) => &small[..*bytes],
            elsewhere => elsewhere.moved(slot),
        }
    }

    /// Takes a packet back: the ring it is in, if it still is in one, and its record to be released there.
    #[inline]
    pub(crate) fn give_back(&mut self, slot: Slot) -> Option<(Peer, Record)> {
        let number = slot.number() as usize;
        let place = std::mem::replace(&mut self.places[number], Place::Free);
        self.free.push(number as u32);
        match place {
            Place::Ring { from, record } => Some((from, record)),
            Place::Small(..) => None,
            Place::Moved(bytes) => {
                self.spare.push(bytes);
                None
            }
            Place::Free => panic!("slot {number} was given back twice"),
        }
    }

    /// Moves packets out of the ring from `from` as long as too much of it waits behind them. Returns whether the
    /// writer must be rung, see `Inbound::release`.
    #[inline]
    pub(crate) fn unblock(&mut self, from: Peer, rings: &mut [Inbound<MappedRing>]) -> bool {
        if rings[from.index()].held_lines() <= HELD_LINES_MAX { false } else { self.move_out(from, rings) }
    }

    #[cold]
    fn move_out(&mut self, from: Peer, rings: &mut [Inbound<MappedRing>]) -> bool {
        let mut ring_the_writer = false;
        while rings[from.index()].held_lines() > HELD_LINES_MAX {
            let ring = &rings[from.index()];
            let is_in_the_way = |place: &Place| matches!(place, Place::Ring { from: other, record } if *other == from && ring.is_oldest(record));
            let number = self.places.iter().position(is_in_the_way).expect("what is held is on loan");
            let mut bytes = self.spare.pop().unwrap_or_default();
            bytes.clear();
            bytes.extend_from_slice(self.packet(&Slot::new(number as u64), rings));
            let Place::Ring { record, .. } = std::mem::replace(&mut self.places[number], Place::Moved(bytes))
            else {
                unreachable!("just found");
            };
            ring_the_writer |= rings[from.index()].release(record);
        }
        ring_the_writer
    }
}
