//! Several NICs for one rank: how a registration on two of them is named, and which ways between two ranks have failed.
//! Which it takes is decided in `spread.rs`.
//!
//! Packets go by one NIC, the rank's *home*, and by another when nothing gets through there (`passages.rs`); ranks of a host
//! are spread so that all NICs are somebody's home. One-sided operations, which carry what is large, go by several: memory is
//! registered on two of the rank's NICs, and operations take turns between them. Two are enough to use a host's NICs where
//! ranks are at least half as many; all of them for every registration would cost a registration each, and their keys would
//! not fit the sixteen bytes that name memory to a peer. Where a rank has more, different memory is registered on
//! different pairs.

use std::collections::HashMap;

use selvedge_transport::{Key, Peer};

use crate::rail::fabric::Address;

/// NICs that one rank uses at most: each has an endpoint, and a device has queue pairs for 256.
pub(crate) const RAILS_MAX: usize = 4;

/// Bits of an address; the rest of a key's base says on which rails its memory is registered.
const ADDRESS_BITS: u32 = 56;
/// Bits of the number of a rail.
const RAIL_BITS: u32 = 4;
const RAIL_MASK: u64 = (1 << RAIL_BITS) - 1;

/// Memory of a peer that is registered on two of its rails: for each the number of the rail and the provider's key.
///
/// Keys of EFA have 32 bits, so that two fit the name; an address has less than 56, so that two numbers of rails fit its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Striped {
    pub(crate) base: u64,
    pub(crate) rails: [(usize, u64); 2],
}

impl Striped {
    /// As it travels. `None` when an address or a key is too long for that.
    pub(crate) fn to_key(self) -> Option<Key> {
        let [(first, low), (second, high)] = self.rails;
        let fits = self.base >> ADDRESS_BITS == 0 && low | high <= u64::from(u32::MAX);
        let rails = (second as u64) << RAIL_BITS | first as u64;
        fits.then_some(Key { base: rails << ADDRESS_BITS | self.base, name: high << 32 | low })
    }

    /// What a peer with several rails has sent.
    pub(crate) fn of_key(key: Key) -> Striped {
        let rails = key.base >> ADDRESS_BITS;
        Striped {
            base: key.base & ((1 << ADDRESS_BITS) - 1),
            rails: [
                ((rails & RAIL_MASK) as usize, key.name & u64::from(u32::MAX)),
                ((rails >> RAIL_BITS & RAIL_MASK) as usize, key.name >> 32),
            ],
        }
    }
}

/// The two rails that memory from `start` on is registered on: the same each time, others for other memory.
pub(crate) fn pair(start: usize, rails: usize) -> [usize; 2] {
    // Neighbouring buffers of a megabyte differ.
    let first = (start >> 20) % rails;
    [first, (first + 1) % rails]
}

/// From one of our rails to one of a peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Way {
    pub(crate) own: usize,
    pub(crate) peer: Peer,
    pub(crate) theirs: usize,
}

/// The ways between rails of the same number. Where one side has fewer, its rails have several.
pub(crate) fn straight(peer: Peer, own_rails: usize, their_rails: usize) -> impl Iterator<Item = Way> {
    (0..own_rails.max(their_rails)).map(move |rail| Way {
        own: rail % own_rails,
        peer,
        theirs: rail % their_rails,
    })
}

/// The ways between our rails and those of peers, and which of them have failed.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    addresses: HashMap<Way, Address>,
    /// Those that have failed. Bounded by the ways of the peers dealt with.
    failed: Vec<Way>,
    /// Our rails that have been given up.
    left: Vec<usize>,
}

impl Ways {
    /// The peer's address on a way, once [`Ways::learn`]ed.
    pub(crate) fn address(&self, way: Way) -> Option<Address> {
        self.addresses.get(&way).copied()
    }

    /// Keeps an address.
    pub(crate) fn learn(&mut self, way: Way, address: Address) {
        self.addresses.insert(way, address);
    }

    /// The way for an operation with memory that a peer has on the rails `theirs`, as its rail's place among the two and the
    /// way: of the good ones that whose rail of ours is least busy, and by turns where that is equal. `loads` has the
    /// operations in flight on each of our rails.
    pub(crate) fn choose(
        &self,
        peer: Peer,
        theirs: [usize; 2],
        loads: &[usize],
        turn: usize,
    ) -> (usize, Way) {
        let rails = loads.len();
        // Ours of the same number, so that two ranks with as many use all of both; the others only when these fail.
        let straight =
            |which: usize| (which, Way { own: theirs[which] % rails, peer, theirs: theirs[which] });
        let by_turns = [straight(turn % 2), straight((turn + 1) % 2)];
        let is_good = |(_, way): &&(usize, Way)| !self.failed.contains(way) && !self.left.contains(&way.own);
        if let Some(best) = by_turns.iter().filter(is_good).min_by_key(|(_, way)| loads[way.own]) {
            return *best;
        }
        let crossed =
            (0..2 * rails).map(|step| (step % 2, Way { own: step / 2, peer, theirs: theirs[step % 2] }));
        crossed.into_iter().find(|candidate| is_good(&candidate)).unwrap_or(by_turns[0])
    }

    /// The way for packets to a peer with so many rails, of ours the best: between rails of the same number, the home rails
    /// first, on a rail that is not given up if there is one. `None` when all have failed.
    pub(crate) fn for_packets(&self, peer: Peer, own_rails: usize, their_rails: usize) -> Option<Way> {
        let mut good: Vec<Way> = straight(peer, own_rails, their_rails).collect();
        good.retain(|way| !self.failed.contains(way));
        good.iter().find(|way| !self.left.contains(&way.own)).or(good.first()).copied()
    }

    /// Nothing gets through on a way of one of our `rails`. True when that rail is given up by that: it failed towards several
    /// peers, and there are others.
    pub(crate) fn fail(&mut self, way: Way, rails: usize) -> bool {
        if !self.failed.contains(&way) {
            self.failed.push(way);
        }
        let elsewhere = self.failed.iter().any(|failed| failed.own == way.own && failed.peer != way.peer);
        if rails == 1 || !elsewhere || self.left.contains(&way.own) {
            return false;
        }
        self.left.push(way.own);
        true
    }

    /// Whether it has failed before.
    pub(crate) fn has_failed(&self, way: Way) -> bool {
        self.failed.contains(&way)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_for_two_rails_travels_in_sixteen_bytes() {
        for rails in [[(0, 1), (1, 0xFFFF_FFFF)], [(3, 0xDEAD_BEEF), (2, 7)]] {
            let striped = Striped { base: 0x7FFF_1234_5678, rails };
            assert_eq!(Striped::of_key(striped.to_key().expect("it fits")), striped);
        }
        let long = Striped { base: 0, rails: [(0, 1 << 32), (1, 0)] };
        assert_eq!(long.to_key(), None);
    }

    #[test]
    fn operations_go_where_least_is_under_way_and_by_turns() {
        let (ways, peer) = (Ways::default(), Peer(7));
        let own = |loads: &[usize], turn| ways.choose(peer, [0, 1], loads, turn).1.own;
        assert_eq!((0..4).map(|turn| own(&[5, 5], turn)).collect::<Vec<_>>(), [0, 1, 0, 1]);
        assert!((0..4).all(|turn| own(&[5, 4], turn) == 1));
        assert!((0..4).all(|turn| own(&[3], turn) == 0), "one rail of ours for both of theirs");
    }

    #[test]
    fn a_way_that_has_failed_is_left_and_a_rail_that_fails_towards_several_as_well() {
        let (mut ways, peer) = (Ways::default(), Peer(7));
        assert!(!ways.fail(Way { own: 1, peer, theirs: 1 }, 2), "it may be theirs");
        let idle = [0, 0];
        assert!(
            (0..4).all(|turn| ways.choose(peer, [0, 1], &idle, turn).1 != Way { own: 1, peer, theirs: 1 })
        );
        assert!(ways.fail(Way { own: 1, peer: Peer(8), theirs: 1 }, 2), "towards two peers: it is ours");
        assert!((0..4).all(|turn| ways.choose(peer, [0, 1], &idle, turn).1.own == 0));
    }

    #[test]
    fn when_all_straight_ways_have_failed_crossed_ones_are_tried_and_at_last_the_first_again() {
        let (mut ways, peer) = (Ways::default(), Peer(1));
        let mut tried = Vec::new();
        for _ in 0..4 {
            let way = ways.choose(peer, [0, 1], &[0, 0], 0).1;
            ways.fail(way, 2);
            tried.push((way.own, way.theirs));
        }
        assert_eq!(tried, [(0, 0), (1, 1), (0, 1), (1, 0)]);
        assert_eq!(ways.choose(peer, [0, 1], &[0, 0], 0).1, Way { own: 0, peer, theirs: 0 });
    }
}
