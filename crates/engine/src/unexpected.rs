//! Storage for messages that nobody has asked for yet.
//!
//! Short payloads lie in the entry itself. Longer ones get a box of the next size class: multiples of 64 bytes up to
//! 512, then four classes per doubling, so at most a fifth is lost. Boxes are recycled; together with what is in use
//! they never exceed the bound.

use crate::wire::Offer;

/// A payload up to this long lies in the entry.
const INLINE_BYTES: usize = 40;
const UNIT: usize = crate::credit::UNIT_BYTES as usize;

/// What an unexpected or early message is.
#[derive(Debug)]
pub(crate) enum Item {
    /// The message itself.
    Eager(Stored),
    /// Its announcement.
    Offer(Offer),
    /// A message of several packets, of which at least one is here. What is here lies with the trains, under this
    /// number of its sender.
    Train {
        /// The sender's request.
        sender: u64,
        /// Bytes of the message.
        bytes: u32,
    },
}

impl Item {
    /// Bytes of the message.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Item::Eager(stored) => stored.message().len() as u64,
            Item::Offer(offer) => offer.bytes,
            Item::Train { bytes, .. } => u64::from(*bytes),
        }
    }
}

/// A stored payload.
#[derive(Debug)]
pub(crate) struct Stored {
    len: u32,
    /// Whether the sender waits until the message is matched: then its request comes first.
    is_sync: bool,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Inline([u8; INLINE_BYTES]),
    Boxed(Box<[u8]>),
}

impl Stored {
    /// The payload.
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.place {
            Place::Inline(bytes) => &bytes[..self.len as usize],
            Place::Boxed(bytes) => &bytes[..self.len as usize],
        }
    }

    /// Takes note that it begins with the request of a sender that waits.
    pub(crate) fn with_sender(mut self) -> Stored {
        self.is_sync = true;
        self
    }

    /// The request of a sender that waits until the message is matched.
    pub(crate) fn sender(&self) -> Option<u64> {
        let sender = self.bytes().first_chunk().filter(|_| self.is_sync)?;
        Some(u64::from_le_bytes(*sender))
    }

    /// The message itself.
    #[inline]
    pub(crate) fn message(&self) -> &[u8] {
        &self.bytes()[if self.is_sync { size_of::<u64>() } else { 0 }..]
    }
}

/// Units of the box for a payload of `bytes` bytes, at least one.
pub(crate) fn boxed_units(bytes: usize) -> u32 {
    Class::of(bytes).units
}

/// Units of storage, besides its entry, that a payload of `bytes` bytes takes.
#[inline]
pub(crate) fn stored_units(bytes: usize) -> u32 {
    if bytes <= INLINE_BYTES { 0 } else { Class::of(bytes).units }
}

/// The size class of a box.
struct Class {
    index: usize,
    units: u32,
}

impl Class {
    fn of(bytes: usize) -> Class {
        let units = bytes.div_ceil(UNIT) as u32;
        if units <= 8 {
            return Class { index: units as usize - 1, units };
        }
        // Quarters of the doubling from 2^log to 2^(log + 1): 5, 6, 7 or 8 steps.
        let log = (units - 1).ilog2();
        let step = 1 << (log - 2);
        let steps = units.div_ceil(step);
        Class { index: 8 + (log as usize - 3) * 4 + (steps as usize - 5), units: steps * step }
    }
}

/// The boxes.
#[derive(Debug)]
pub(crate) struct Store {
    free: Vec<Vec<Box<[u8]>>>,
    free_bytes: u64,
    used_bytes: u64,
    /// Bound on `free_bytes + used_bytes`: the credit of all peers together.
    bytes_limit: u64,
}

impl Store {
    pub(crate) fn new(bytes_limit: u64) -> Store {
        Store { free: Vec::new(), free_bytes: 0, used_bytes: 0, bytes_limit }
    }

    /// Keeps a copy of `payload`. Cost: one copy; an allocation until there is a box of this class to recycle.
    pub(crate) fn keep(&mut self, payload: &[u8]) -> Stored {
        let len = payload.len() as u32;
        if payload.len() <= INLINE_BYTES {
            let mut bytes = [0; INLINE_BYTES];
            bytes[..payload.len()].copy_from_slice(payload);
            return Stored { len, is_sync: false, place: Place::Inline(bytes) };
        }
        let mut bytes = self.take(Class::of(payload.len()));
        bytes[..payload.len()].copy_from_slice(payload);
        Stored { len, is_sync: false, place: Place::Boxed(bytes) }
    }

    /// A box for a payload of `bytes` bytes, at least one, that comes in parts. It is longer by what its class is, and
    /// holds anything.
    pub(crate) fn reserve(&mut self, bytes: usize) -> Box<[u8]> {
        self.take(Class::of(bytes))
    }

    /// Takes back what [`reserve`](Store::reserve) gave.
    pub(crate) fn give_back(&mut self, bytes: Box<[u8]>) {
        let index = Class::of(bytes.len()).index;
        self.used_bytes -= bytes.len() as u64;
        self.free_bytes += bytes.len() as u64;
        self.free[index].push(bytes);
    }

    /// Takes back what [`keep`](Store::keep) gave.
    pub(crate) fn recycle(&mut self, stored: Stored) {
        if let Place::Boxed(bytes) = stored.place {
            self.give_back(bytes);
        }
    }

    #[cfg(test)]
    pub(crate) fn capacity_bytes(&self) -> u64 {
        self.free_bytes + self.used_bytes
    }

    fn take(&mut self, class: Class) -> Box<[u8]> {
        if self.free.len() <= class.index {
            self.free.resize_with(class.index + 1, Vec::new);
        }
        let bytes = u64::from(class.units) * UNIT as u64;
        self.used_bytes += bytes;
        if let Some(recycled) = self.free[class.index].pop() {
            self.free_bytes -= bytes;
            return recycled;
        }
        if self.used_bytes + self.free_bytes > self.bytes_limit {
            // The load has moved to another size: give the old boxes back rather than exceed the bound.
            self.free.iter_mut().for_each(Vec::clear);
            self.free_bytes = 0;
        }
        vec![0; bytes as usize].into_boxed_slice()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_classes_are_dense_ordered_and_lose_at_most_a_fifth() {
        let mut before = Class { index: 0, units: 1 };
        for units in 1..5_000_usize {
            let class = Class::of(units * UNIT);
            assert!(class.units as usize >= units && class.units as usize * 4 <= units * 5, "{units}");
            assert!(
                class.index == before.index && class.units == before.units || class.index == before.index + 1
            );
            before = class;
        }
    }

    #[test]
    fn a_payload_comes_back_unchanged_whatever_its_length() {
        let mut store = Store::new(1 << 20);
        for len in [0, 1, 40, 41, 64, 65, 512, 513, 8_000] {
            let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let stored = store.keep(&payload);
            assert_eq!(stored.bytes(), payload);
            store.recycle(stored);
        }
    }

    #[test]
    fn recycled_boxes_and_boxes_in_use_stay_within_the_bound() {
        let mut store = Store::new(64 << 10);
        for len in [100, 1_000, 5_000, 300, 8_000] {
            let fitting = store.bytes_limit / (u64::from(stored_units(len)) * 64);
            let stored: Vec<_> = (0..fitting).map(|_| store.keep(&vec![0; len])).collect();
            assert!(store.used_bytes + store.free_bytes <= store.bytes_limit);
            stored.into_iter().for_each(|stored| store.recycle(stored));
        }
    }

    #[test]
    fn a_box_of_the_same_class_is_used_again() {
        let mut store = Store::new(1 << 20);
        let stored = store.keep(&[1; 100]);
        let at = stored.bytes().as_ptr();
        store.recycle(stored);
        assert_eq!(store.keep(&[2; 128]).bytes().as_ptr(), at);
    }
}
