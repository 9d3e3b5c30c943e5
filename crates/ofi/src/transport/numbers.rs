//! Numbers of packets, for peers with several ways between them: a packet may then be sent again by another way without the
//! peer taking it twice.
//!
//! A device that gives up on a packet cannot say whether it arrived. So each packet carries the low bits of its number in its
//! immediate data, where the names of peers leave room, and who receives remembers which numbers it has had. Nothing is
//! added to the packet itself.

use selvedge_transport::Peer;

/// Of the bits of the immediate data that name the sender, the one that says: a number stands here as well. No peer has a
/// name that long.
const NUMBERED: u32 = 1 << 23;

/// Bits below [`NUMBERED`], for the sender and the number.
const BITS: u32 = 23;

/// Most bits of a number: more packets are never on their way to one peer, see `SENDS` in `rail.rs`.
const NUMBER_BITS_MAX: u32 = 10;

/// Fewest bits that are worth it: 32 packets on their way.
const NUMBER_BITS_MIN: u32 = 6;

/// Numbers that a [`Window`] can hold at a time: half of those that can be told apart.
const WINDOW_MAX: u32 = 1 << (NUMBER_BITS_MAX - 1);

/// How the bits are shared between senders and numbers. All ranks of a job share them alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Numbering {
    peer_bits: u32,
    number_bits: u32,
}

impl Numbering {
    /// For so many peers; `None` when there are too many to leave room for numbers (131,072).
    pub(crate) fn of(peers: usize) -> Option<Numbering> {
        let peer_bits = peers.next_power_of_two().trailing_zeros();
        let number_bits = BITS.checked_sub(peer_bits)?.min(NUMBER_BITS_MAX);
        (number_bits >= NUMBER_BITS_MIN).then_some(Numbering { peer_bits, number_bits })
    }

    /// What goes into the immediate data beside the sender.
    #[inline]
    pub(crate) fn label(self, number: u32) -> u64 {
        u64::from(NUMBERED | (number & self.mask()) << self.peer_bits)
    }

    /// Sender and low bits of the number, out of the bits that name a sender. `None` when there is no number.
    #[inline]
    pub(crate) fn read(self, name: u32) -> Option<(Peer, u32)> {
        let low = (name >> self.peer_bits) & self.mask();
        (name & NUMBERED != 0).then_some((Peer(name & ((1 << self.peer_bits) - 1)), low))
    }

    /// Packets that may be on their way to one peer: with half of all numbers, what is new and what was had before differ
    /// whatever overtakes what.
    #[inline]
    pub(crate) fn in_flight_max(self) -> u32 {
        1 << (self.number_bits - 1)
    }

    fn mask(self) -> u32 {
        (1 << self.number_bits) - 1
    }
}

/// A set of numbers that grows at its lower end: all below `lowest` are in it, and some above.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Window {
    lowest: u32,
    above: [u64; (WINDOW_MAX / 64) as usize],
}

impl Window {
    /// The lowest number that is not in it.
    #[inline]
    pub(crate) fn lowest(&self) -> u32 {
        self.lowest
    }

    /// Adds the number with these low bits. False when it was there.
    #[inline]
    pub(crate) fn insert(&mut self, low: u32, numbering: Numbering) -> bool {
        let ahead = low.wrapping_sub(self.lowest) & numbering.mask();
        if ahead >= numbering.in_flight_max() || self.has(self.lowest.wrapping_add(ahead)) {
            return false;
        }
        self.flip(self.lowest.wrapping_add(ahead));
        while self.has(self.lowest) {
            self.flip(self.lowest);
            self.lowest = self.lowest.wrapping_add(1);
        }
        true
    }

    fn has(&self, number: u32) -> bool {
        let place = number % WINDOW_MAX;
        self.above[(place / 64) as usize] & 1 << (place % 64) != 0
    }

    fn flip(&mut self, number: u32) {
        let place = number % WINDOW_MAX;
        self.above[(place / 64) as usize] ^= 1 << (place % 64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sender_and_number_share_what_is_left_and_no_sender_is_taken_for_both() {
        for peers in [1, 2, 1000, 8192, 8193, 131_072] {
            let numbering = Numbering::of(peers).expect("room");
            let (last, window) = (peers as u32 - 1, numbering.in_flight_max());
            for number in [0, 1, window - 1, window, 2 * window - 1] {
                let name = last | numbering.label(number) as u32;
                assert!(name < 1 << 24, "it fits what names a sender");
                assert_eq!(numbering.read(name), Some((Peer(last), number)));
            }
            assert_eq!(numbering.read(last), None);
        }
        assert_eq!(Numbering::of(131_073), None);
        assert_eq!(Numbering::of(8192).map(Numbering::in_flight_max), Some(512));
    }

    #[test]
    fn every_number_is_new_once_whatever_the_order_and_however_often_it_comes() {
        for peers in [2, 100_000] {
            let numbering = Numbering::of(peers).expect("room");
            let in_flight = numbering.in_flight_max();
            let (mut window, mut seed, mut taken) = (Window::default(), 1_u64, 0_u32);
            // As they are on their way: those of a block in any order, with every third once more, now or a block later.
            for block in 0..40_u32 {
                let half = in_flight / 2;
                let first = block * half;
                let mut numbers: Vec<u32> = (first..first + half).collect();
                numbers.extend((first..first + half).step_by(3));
                numbers.extend((first.saturating_sub(half)..first).step_by(3));
                for last in (1..numbers.len()).rev() {
                    seed =
                        seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    numbers.swap(last, (seed >> 33) as usize % (last + 1));
                }
                taken += numbers
                    .iter()
                    .map(|&number| u32::from(window.insert(number & numbering.mask(), numbering)))
                    .sum::<u32>();
                assert_eq!((taken, window.lowest()), (first + half, first + half));
            }
        }
    }

    #[test]
    fn what_is_missing_holds_the_window_back_and_numbers_wrap() {
        let numbering = Numbering::of(2).expect("room");
        let mut window = Window { lowest: u32::MAX - 2, ..Window::default() };
        for ahead in 1..512_u32 {
            assert!(window.insert((u32::MAX - 2).wrapping_add(ahead), numbering));
            assert_eq!(window.lowest(), u32::MAX - 2);
        }
        assert!(window.insert(u32::MAX - 2, numbering));
        assert_eq!(window, Window { lowest: 509, ..Window::default() });
    }
}
