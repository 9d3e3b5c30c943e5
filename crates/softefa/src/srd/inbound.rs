//! The receiving end of a flow: which numbers have been decided, and what is owed to the sender.

use super::{Nanos, Status, WINDOW};
use crate::wire::{ACK_WORDS_MAX, Answer};

const WORDS: usize = (WINDOW / 64) as usize;
const _: () = assert!(
    WINDOW.is_multiple_of(64) && ACK_WORDS_MAX + 1 >= WORDS,
    "an ACK can name every number of the window"
);

/// The receiving end of a flow.
#[derive(Debug)]
pub(super) struct Inbound {
    /// The sender's incarnation.
    pub(super) epoch: u32,
    /// All numbers below are decided.
    base: u64,
    /// Bit `n % WINDOW`: number n, from `base` on, is decided. The bit of `base` itself is never set.
    decided: [u64; WORDS],
    /// Those among the decided ones that were refused, from the sender's lowest open number on. At most [`WINDOW`].
    refused: Vec<(u64, Status)>,
    /// Time in the newest request that has not been answered; 0 if all have.
    echo: Nanos,
    /// When an acknowledgement has to go out.
    pub(super) due: Option<Nanos>,
    /// Bytes that were accepted and not acknowledged.
    pub(super) unacknowledged: u32,
}

/// What to do about a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// Decide.
    New,
    /// It was accepted before.
    Accepted,
    /// It was refused before.
    Refused(Status),
    /// No honest sender is so far ahead.
    Beyond,
}

impl Inbound {
    /// A flow whose numbers below `base` are none of our business.
    pub(super) fn new(epoch: u32, base: u64) -> Inbound {
        Inbound {
            epoch,
            base,
            decided: [0; WORDS],
            refused: Vec::new(),
            echo: 0,
            due: None,
            unacknowledged: 0,
        }
    }

    fn place(number: u64) -> (usize, u64) {
        let bit = number % WINDOW;
        ((bit / 64) as usize, 1 << (bit % 64))
    }

    fn is_decided(&self, number: u64) -> bool {
        let (word, mask) = Self::place(number);
        self.decided[word] & mask != 0
    }

    /// A request has arrived, sent at `stamp`, whose sender has nothing open below `lowest`. A new number counts as
    /// decided from here on.
    pub(super) fn offer(&mut self, number: u64, lowest: u64, stamp: Nanos) -> Offer {
        self.slide(lowest);
        if number >= self.base + WINDOW {
            return Offer::Beyond;
        }
        self.echo = self.echo.max(stamp);
        if number < self.base || self.is_decided(number) {
            let refused = self.refused.iter().find(|(refused, _)| *refused == number);
            return refused.map_or(Offer::Accepted, |(_, status)| Offer::Refused(*status));
        }
        let (word, mask) = Self::place(number);
        self.decided[word] |= mask;
        self.advance();
        Offer::New
    }

    /// Remembers that `number`, just offered, was refused.
    pub(super) fn refuse(&mut self, number: u64, status: Status) {
        debug_assert!((self.refused.len() as u64) < WINDOW, "slid with the sender's lowest open number");
        self.refused.push((number, status));
    }

    /// Everything below `lowest` is settled for the sender.
    fn slide(&mut self, lowest: u64) {
        if !self.refused.is_empty() {
            self.refused.retain(|(number, _)| *number >= lowest);
        }
        if lowest <= self.base {
            return;
        }
        if lowest - self.base >= WINDOW {
            self.decided = [0; WORDS];
        } else {
            for number in self.base..lowest {
                let (word, mask) = Self::place(number);
                self.decided[word] &= !mask;
            }
        }
        self.base = lowest;
        self.advance();
    }

    /// Moves the base over what is decided.
    fn advance(&mut self) {
        loop {
            let (word, mask) = Self::place(self.base);
            if self.decided[word] & mask == 0 {
                return;
            }
            self.decided[word] &= !mask;
            self.base += 1;
        }
    }

    /// What there is to say, for the header of any packet to the sender. The sender has then been answered. A refused
    /// number does not show as accepted: while one is open, the base and the bits leave it out.
    pub(super) fn answer(&mut self) -> Answer {
        let answer = self.peek();
        self.echo = 0;
        self.due = None;
        self.unacknowledged = 0;
        answer
    }

    /// The same, when the sender does not count as answered.
    pub(super) fn peek(&self) -> Answer {
        let base = self.acknowledged_base();
        Answer { epoch: self.epoch, base, bits: self.word(base, 0), echo: self.echo }
    }

    /// Further words of the bitmap, for an acknowledgement of its own that answers with `base`; as many as there is
    /// something in.
    pub(super) fn further_words(&self, base: u64) -> impl Iterator<Item = u64> + '_ {
        let last = (1..=ACK_WORDS_MAX as u64).rev().find(|index| self.word(base, *index) != 0);
        (1..=last.unwrap_or(0)).map(move |index| self.word(base, index))
    }

    fn acknowledged_base(&self) -> u64 {
        self.refused.iter().map(|(number, _)| *number).fold(self.base, u64::min)
    }

    /// Bit i: number `base + 1 + 64 * index + i` was accepted.
    fn word(&self, base: u64, index: u64) -> u64 {
        let first = base + 1 + 64 * index;
        if self.refused.is_empty() && self.decided == [0; WORDS] {
            return 0;
        }
        (0..64).fold(0, |bits, i| bits | u64::from(self.is_accepted(first + i)) << i)
    }

    fn is_accepted(&self, number: u64) -> bool {
        let decided = number < self.base || (number < self.base + WINDOW && self.is_decided(number));
        decided && !self.refused.iter().any(|(refused, _)| *refused == number)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_is_new_once() {
        let mut flow = Inbound::new(1, 0);
        assert_eq!(flow.offer(3, 0, 1), Offer::New);
        assert_eq!(flow.offer(3, 0, 2), Offer::Accepted);
        assert_eq!(flow.offer(0, 0, 3), Offer::New);
        assert_eq!(flow.answer(), Answer { epoch: 1, base: 1, bits: 0b10, echo: 3 });
        assert_eq!(flow.answer().echo, 0, "told already");
        assert_eq!(flow.offer(0, 0, 4), Offer::Accepted);
    }

    #[test]
    fn a_number_refused_once_is_refused_for_ever_and_never_acknowledged() {
        let mut flow = Inbound::new(1, 0);
        assert_eq!(flow.offer(0, 0, 1), Offer::New);
        flow.refuse(0, Status::NotReady);
        assert_eq!(flow.offer(1, 0, 1), Offer::New);
        assert_eq!(flow.offer(0, 0, 1), Offer::Refused(Status::NotReady));
        let answer = flow.answer();
        assert_eq!((answer.base, answer.bits), (0, 1));
        assert_eq!(flow.offer(2, 1, 1), Offer::New);
        assert_eq!(
            flow.offer(0, 0, 1),
            Offer::Accepted,
            "the sender has settled it: nobody listens to this answer"
        );
        assert_eq!(flow.answer().base, 3);
    }

    #[test]
    fn a_number_beyond_the_window_is_not_believed() {
        let mut flow = Inbound::new(1, 10);
        assert_eq!(flow.offer(10 + WINDOW, 10, 1), Offer::Beyond);
        assert_eq!(flow.offer(10 + WINDOW, 11, 1), Offer::New);
        assert_eq!(flow.offer(9, 9, 1), Offer::Accepted, "below where the flow was first seen");
    }

    #[test]
    fn an_acknowledgement_can_name_every_number_of_the_window() {
        let mut flow = Inbound::new(1, 0);
        assert_eq!(flow.offer(WINDOW - 1, 0, 1), Offer::New);
        let base = flow.answer().base;
        let words: Vec<u64> = flow.further_words(base).collect();
        assert_eq!(words.len(), ACK_WORDS_MAX);
        assert_eq!(words[ACK_WORDS_MAX - 1], 1 << 62);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// The bitmap against a map of all numbers ever.
        #[test]
        fn decisions_are_those_of_a_memory_without_bounds(
            steps in prop::collection::vec((0..WINDOW, 0..40u64, any::<bool>()), 1..400),
        ) {
            let mut flow = Inbound::new(1, 0);
            let mut oracle = BTreeMap::<u64, Option<Status>>::new();
            let mut lowest = 0;
            for (ahead, settle, refuse) in steps {
                lowest += settle / 20;
                let number = lowest + ahead;
                let offer = flow.offer(number, lowest, 1);
                let known = oracle.get(&number).copied();
                match offer {
                    Offer::New => {
                        prop_assert_eq!(known, None);
                        let status = refuse.then_some(Status::BadRemote);
                        status.iter().for_each(|status| flow.refuse(number, *status));
                        oracle.insert(number, status);
                    }
                    Offer::Accepted => prop_assert_eq!(known, Some(None)),
                    Offer::Refused(status) => prop_assert_eq!(known, Some(Some(status))),
                    Offer::Beyond => prop_assert!(false, "an honest sender"),
                }
                let answer = flow.answer();
                let words: Vec<u64> = [answer.bits].into_iter().chain(flow.further_words(answer.base)).collect();
                for number in lowest..lowest + 2 * WINDOW {
                    let named = number < answer.base
                        || (number > answer.base && words.get(((number - answer.base - 1) / 64) as usize)
                            .is_some_and(|word| word >> ((number - answer.base - 1) % 64) & 1 == 1));
                    prop_assert_eq!(named, oracle.get(&number) == Some(&None), "{}", number);
                }
            }
        }
    }
}
