//! Which elements of an array travel, as a value: runs of neighbours in the order they travel in. Says nothing about what
//! the elements are or where the array is.
//!
//! Runs of equal length at equal distances are one [`Block`], so that a column of a matrix takes 40 bytes however long it
//! is, and a part of a grid of three dimensions 40 for each of its planes.

use std::sync::Arc;

/// Runs of neighbouring elements, in the order they travel in. Copying it copies a pointer.
///
/// ```
/// use selvedge_transport::Places;
///
/// let places = Places::of([(0, 1), (4, 1), (8, 1), (9, 2)]);
/// assert_eq!((places.elements(), places.end()), (5, 11));
/// assert_eq!(places.runs().collect::<Vec<_>>(), [(0, 1), (4, 1), (8, 3)]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Places {
    blocks: Arc<[Block]>,
    elements: usize,
    first: usize,
    end: usize,
    /// Whether no element is named twice.
    distinct: bool,
}

/// `count` runs of `len` elements, whose beginnings are `stride` apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Block {
    /// Elements of the blocks before it.
    pub(crate) before: usize,
    pub(crate) start: usize,
    pub(crate) len: usize,
    pub(crate) count: usize,
    /// 0 when there is one run.
    pub(crate) stride: isize,
}

impl Block {
    fn run(&self, index: usize) -> (usize, usize) {
        (self.start.wrapping_add_signed(self.stride.wrapping_mul(index as isize)), self.len)
    }

    pub(crate) fn elements(&self) -> usize {
        self.len * self.count
    }

    /// Takes one more run if it is where the next would be.
    fn accept(&mut self, start: usize, len: usize) -> bool {
        let (last, _) = self.run(self.count - 1);
        // Both are below 2^63.
        let stride = start as isize - last as isize;
        let goes_on = len == self.len && (self.count == 1 || stride == self.stride);
        if goes_on {
            self.stride = stride;
            self.count += 1;
        }
        goes_on
    }
}

impl Places {
    /// Runs of (first element, number of neighbours), in this order. Empty ones are left out; one that continues the one before
    /// becomes part of it.
    ///
    /// Cost: a step for each run; where they do not lie in order, they are sorted to see whether an element is named twice.
    ///
    /// # Panics
    /// When an element is beyond what an `isize` counts.
    pub fn of(runs: impl IntoIterator<Item = (usize, usize)>) -> Places {
        let mut blocks: Vec<Block> = Vec::new();
        let (mut elements, mut first, mut end, mut in_order) = (0, usize::MAX, 0, true);
        let mut add = |(start, len): (usize, usize)| {
            let before = blocks.last().map_or(0, |last| last.before + last.elements());
            if !blocks.last_mut().is_some_and(|last| last.accept(start, len)) {
                blocks.push(Block { before, start, len, count: 1, stride: 0 });
            }
        };
        let mut open: Option<(usize, usize)> = None;
        for (start, len) in runs.into_iter().filter(|&(_, len)| len > 0) {
            let behind = start.checked_add(len).filter(|&end| isize::try_from(end).is_ok());
            let behind = behind.expect("an array has less than 2^63 elements");
            in_order &= start >= end;
            (first, end) = (first.min(start), end.max(behind));
            elements += len;
            open = match open {
                Some((begin, before)) if begin + before == start => Some((begin, before + len)),
                before => {
                    before.into_iter().for_each(&mut add);
                    Some((start, len))
                }
            };
        }
        open.into_iter().for_each(add);
        let mut places =
            Places { blocks: blocks.into(), elements, first: first.min(end), end, distinct: true };
        places.distinct = in_order || places.twice().is_none();
        places
    }

    /// Number of elements that travel.
    pub fn elements(&self) -> usize {
        self.elements
    }

    /// The first element it has; 0 when it has none.
    pub fn first(&self) -> usize {
        self.first
    }

    /// Behind the last element it has.
    pub fn end(&self) -> usize {
        self.end
    }

    /// Whether no element is named twice, so that it can be received into.
    pub fn is_distinct(&self) -> bool {
        self.distinct
    }

    /// The runs, in the order they travel in.
    pub fn runs(&self) -> impl Iterator<Item = (usize, usize)> + Clone + '_ {
        self.blocks.iter().flat_map(|block| (0..block.count).map(|index| block.run(index)))
    }

    /// First element and length, when all of them are neighbours in order.
    pub fn as_run(&self) -> Option<(usize, usize)> {
        match *self.blocks {
            [] => Some((0, 0)),
            [Block { start, len, count: 1, .. }] => Some((start, len)),
            _ => None,
        }
    }

    /// An element that it has twice; `None` when there is none. Cost: all runs, sorted.
    pub fn twice(&self) -> Option<usize> {
        let runs = self.sorted_runs();
        runs.windows(2).find(|pair| pair[0].0 + pair[0].1 > pair[1].0).map(|pair| pair[1].0)
    }

    /// An element that it and `other` have; `None` when there is none. Cost: the runs of both, sorted.
    pub fn meets(&self, other: &Places) -> Option<usize> {
        let (ours, theirs) = (self.sorted_runs(), other.sorted_runs());
        let (mut a, mut b) = (ours.iter().peekable(), theirs.iter().peekable());
        while let (Some(&&(start, len)), Some(&&(other_start, other_len))) = (a.peek(), b.peek()) {
            let (end, other_end) = (start + len, other_start + other_len);
            if start < other_end && other_start < end {
                return Some(start.max(other_start));
            }
            if end <= other_end {
                a.next()
            } else {
                b.next()
            };
        }
        None
    }

    fn sorted_runs(&self) -> Vec<(usize, usize)> {
        let mut runs: Vec<(usize, usize)> = self.runs().collect();
        runs.sort_unstable();
        runs
    }

    pub(crate) fn blocks(&self) -> &[Block] {
        &self.blocks
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_column_is_one_block_and_so_is_one_from_the_end_to_the_front() {
        let column = Places::of((0..1000).map(|row| (3 + 10 * row, 2)));
        let back = Places::of((0..1000).rev().map(|row| (3 + 10 * row, 2)));
        assert_eq!((column.blocks().len(), back.blocks().len()), (1, 1));
        assert_eq!(back.runs().last(), Some((3, 2)));
        assert!(column.is_distinct() && back.is_distinct());
    }

    #[test]
    fn an_element_named_twice_is_seen() {
        assert!(!Places::of([(0, 2), (1, 2)]).is_distinct());
        assert!(!Places::of([(5, 1), (0, 1), (5, 1)]).is_distinct());
        assert_eq!(Places::of([(0, 4)]).meets(&Places::of([(8, 1), (3, 1)])), Some(3));
        assert_eq!(Places::of([(0, 4)]).meets(&Places::of([(8, 1), (4, 1)])), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn runs_come_out_as_they_went_in_but_for_neighbours(runs in prop::collection::vec((0..60usize, 0..4usize), 0..12)) {
            let elements = |runs: &mut dyn Iterator<Item = (usize, usize)>| -> Vec<usize> {
                runs.flat_map(|(start, len)| start..start + len).collect()
            };
            let places = Places::of(runs.iter().copied());
            let named = elements(&mut runs.iter().copied());
            prop_assert_eq!(elements(&mut places.runs()), named.clone());
            prop_assert_eq!(places.elements(), named.len());
            prop_assert_eq!(places.end(), named.iter().max().map_or(0, |last| last + 1));
            prop_assert_eq!(places.first(), named.iter().min().copied().unwrap_or(0));
            let mut once = named.clone();
            once.sort_unstable();
            once.dedup();
            prop_assert_eq!(places.is_distinct(), once.len() == named.len());
        }
    }
}
