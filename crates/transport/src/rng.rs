//! The one source of randomness of tests and simulations: small, fast, and the same on every machine.

use std::ops::RangeInclusive;

/// A seeded generator (SplitMix64; Steele, Lea and Flood, OOPSLA 2014, figure 16). Same seed, same numbers, on every
/// machine and in every version of this crate: seeds printed by a failing test stay good. Not for secrets.
///
/// ```
/// use selvedge_transport::Rng;
/// let (mut a, mut b) = (Rng::new(7), Rng::new(7));
/// assert_eq!(a.below(1000), b.below(1000));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rng {
    state: u64,
}

/// The golden ratio in 64 bits, odd: the step of SplitMix64.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// The output function of SplitMix64: every bit of the answer depends on every bit of `z`.
fn scramble(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Rng {
    /// The generator of `seed`. Neighbouring seeds give unrelated numbers.
    pub fn new(seed: u64) -> Rng {
        Rng { state: scramble(seed ^ STEP) }
    }

    /// A second generator, unrelated to this one and to the children of other labels. Drawing from the child does not
    /// move the parent, so that adding a draw in one place leaves the numbers of all other places alone.
    pub fn child(&self, label: u64) -> Rng {
        Rng { state: scramble(self.state.wrapping_add(scramble(label.wrapping_add(STEP)))) }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(STEP);
        scramble(self.state)
    }

    /// A number less than `bound`. The bias is below 2^-32 for bounds below 2^32. Panics when `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "no number is below 0");
        let wide = u128::from(self.bits()) * u128::from(bound);
        u64::try_from(wide >> 64).expect("the upper half of a product of two u64 is a u64")
    }

    /// An index into something of length `len`. Panics when `len` is 0.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("less than a usize")
    }

    /// A number in `range`, both ends included. Panics when it is empty.
    pub fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        let (first, last) = range.into_inner();
        assert!(first <= last, "{first}..={last} is empty");
        match (last - first).checked_add(1) {
            Some(count) => first + self.below(count),
            None => self.bits(),
        }
    }

    /// True once in `n` times on average; never when `n` is 0.
    pub fn one_in(&mut self, n: u32) -> bool {
        n > 0 && self.below(u64::from(n)) == 0
    }

    /// One of `items`. Panics when there is none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.index(items.len())]
    }

    /// Puts `items` into an order of which each is equally likely (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }

    /// Overwrites `bytes` with random ones.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.bits().to_le_bytes()[..chunk.len()]);
        }
    }

    /// `len` random bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.fill(&mut bytes);
        bytes
    }
}

/// A running hash of what happened: two runs with the same digest did the same things in the same order. Not for
/// secrets, and only as good as 64 bits are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest(u64);

impl Digest {
    /// Adds a number.
    pub fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(STEP);
    }

    /// Adds a string of bytes and its length.
    pub fn add_bytes(&mut self, bytes: &[u8]) {
        self.add(bytes.len() as u64);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.add(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.add(u64::from_le_bytes(last));
    }

    /// The hash of everything added so far.
    pub fn value(self) -> u64 {
        scramble(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers_on_every_machine() {
        assert_eq!(Rng { state: 0 }.bits(), 0xE220_A839_7B1D_CDAF, "the published generator");
        let mut rng = Rng::new(1);
        let drawn = [rng.bits(), rng.bits(), rng.below(1000), rng.within(10..=20)];
        assert_eq!(drawn, [6_755_974_106_381_971_767, 13_665_441_387_248_026_780, 510, 20]);
    }

    #[test]
    fn a_child_does_not_move_its_parent() {
        let mut parent = Rng::new(3);
        let mut child = parent.child(1);
        let mut other = parent.child(2);
        assert_ne!(child.bits(), other.bits());
        assert_eq!(parent.bits(), Rng::new(3).bits());
    }

    #[test]
    fn every_number_below_a_bound_comes_up_and_none_above() {
        let mut rng = Rng::new(5);
        let mut seen = [0; 7];
        for _ in 0..7000 {
            seen[rng.index(7)] += 1;
        }
        assert!(seen.iter().all(|&count| (800..1200).contains(&count)), "{seen:?}");
        assert_eq!(rng.within(4..=4), 4);
        rng.within(0..=u64::MAX);
    }

    #[test]
    fn a_shuffle_keeps_every_item() {
        let mut items: Vec<u32> = (0..50).collect();
        Rng::new(9).shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn a_digest_tells_order_and_length_apart() {
        let of = |parts: &[&[u8]]| {
            let mut digest = Digest::default();
            parts.iter().for_each(|part| digest.add_bytes(part));
            digest.value()
        };
        assert_eq!(of(&[b"ab", b"c"]), of(&[b"ab", b"c"]));
        assert_ne!(of(&[b"ab", b"c"]), of(&[b"c", b"ab"]));
        assert_ne!(of(&[b"ab", b"c"]), of(&[b"a", b"bc"]));
        assert_ne!(of(&[b"\0"]), of(&[b"\0\0"]));
    }
}
