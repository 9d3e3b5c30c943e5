//! Virtual time, and what is going to happen when.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// A clock and a queue of things to come. Things due at the same time come in the order they were entered, so that the
/// order of everything is certain. Cost of one: logarithmic in how many there are.
#[derive(Debug)]
pub(super) struct Calendar<T> {
    now_ns: u64,
    coming: BinaryHeap<Reverse<Due<T>>>,
    entered: u64,
}

#[derive(Debug)]
struct Due<T> {
    at_ns: u64,
    number: u64,
    what: T,
}

impl<T> Ord for Due<T> {
    fn cmp(&self, other: &Due<T>) -> Ordering {
        (self.at_ns, self.number).cmp(&(other.at_ns, other.number))
    }
}
impl<T> PartialOrd for Due<T> {
    fn partial_cmp(&self, other: &Due<T>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> PartialEq for Due<T> {
    fn eq(&self, other: &Due<T>) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl<T> Eq for Due<T> {}

impl<T> Calendar<T> {
    pub(super) fn new() -> Calendar<T> {
        Calendar { now_ns: 0, coming: BinaryHeap::new(), entered: 0 }
    }

    pub(super) fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// Enters `what` for `delay_ns` from now.
    pub(super) fn enter(&mut self, delay_ns: u64, what: T) {
        self.entered += 1;
        let at_ns = self.now_ns.saturating_add(delay_ns);
        self.coming.push(Reverse(Due { at_ns, number: self.entered, what }));
    }

    /// When the next thing is due, if there is one.
    pub(super) fn next_ns(&self) -> Option<u64> {
        self.coming.peek().map(|Reverse(due)| due.at_ns)
    }

    /// Moves the clock forward to `at_ns`; never back.
    pub(super) fn move_to(&mut self, at_ns: u64) {
        self.now_ns = self.now_ns.max(at_ns);
    }

    /// The next thing that is due by now.
    pub(super) fn pop_due(&mut self) -> Option<T> {
        if self.next_ns()? > self.now_ns {
            return None;
        }
        self.coming.pop().map(|Reverse(due)| due.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_come_when_they_are_due_and_in_the_order_entered() {
        let mut calendar = Calendar::new();
        for (delay_ns, what) in [(5, 'c'), (3, 'a'), (5, 'd'), (3, 'b')] {
            calendar.enter(delay_ns, what);
        }
        assert_eq!(calendar.pop_due(), None);
        calendar.move_to(5);
        calendar.move_to(4);
        assert_eq!(calendar.now_ns(), 5);
        let come: String = std::iter::from_fn(|| calendar.pop_due()).collect();
        assert_eq!(come, "abcd");
    }
}
