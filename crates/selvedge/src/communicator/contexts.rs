//! Numbers of communicators: no two that a rank has at the same time have the same, and none is used again before all others
//! have been.
//!
//! A communicator is made by its ranks together. Each offers the first number that it has never used; the largest of them is the
//! number, which all ranks know to be free for all: that is one reduction of two words. When all numbers have been used once,
//! or when some rank may be making several communicators at the same time, one more says whether every rank has it free; if
//! not, it is done again from a number further on, which differs from maker to maker, so that two of them do not meet again.
//!
//! [`Agreement`] is that as a value: it says what to reduce next, is told what came of it, and waits for nothing. The runtime
//! drives those of communicators ([`Runtime::agree`](crate::runtime::Runtime::agree)); where there is no communicator yet,
//! messages do.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashSet;

use crate::world::job::CONTEXTS_EACH;

/// Numbers there are: their contexts stay below 2^31. What is above belongs to guests of the runtime.
const NUMBERS: u32 = (1 << 31) / CONTEXTS_EACH;

/// The numbers of one rank's communicators, for all its threads.
#[derive(Debug, Clone)]
pub struct Contexts(Arc<Mutex<Numbers>>);

#[derive(Debug)]
struct Numbers {
    count: u32,
    /// The first serial number that was never offered or used here. A number is a serial number modulo `count`.
    next: u64,
    /// Bound: the communicators that this rank has.
    live: FxHashSet<u32>,
    /// Agreements of this rank that are not over.
    under_way: u32,
}

impl Default for Contexts {
    fn default() -> Contexts {
        Contexts::of(NUMBERS)
    }
}

impl Contexts {
    /// Only so many numbers, which then come back soon.
    pub fn of(count: u32) -> Contexts {
        let live = FxHashSet::default();
        Contexts(Arc::new(Mutex::new(Numbers { count, next: 0, live, under_way: 0 })))
    }

    /// The context of the world: that of the first number.
    pub(crate) fn first(&self) -> u32 {
        let is_free = self.numbers().claim(0);
        assert!(is_free, "a job begins with its world");
        0
    }

    /// What this rank brings to an agreement that begins now.
    pub fn offer(&self, company: Company) -> Offer {
        let mut numbers = self.numbers();
        let serial = numbers.candidate(0);
        let has_company = company == Company::Possible || numbers.under_way > 0;
        numbers.under_way += 1;
        Offer { contexts: self.clone(), serial, has_company, claimed: None }
    }

    /// A communicator is gone: nobody here uses its contexts any more.
    pub fn release(&self, context: u32) {
        self.numbers().release(context / CONTEXTS_EACH);
    }

    /// Communicators that have one of them, or are about to.
    pub fn live(&self) -> usize {
        self.numbers().live.len()
    }

    /// Nothing panics between two states of it.
    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Numbers {
    /// The first serial number from `at_least` on that this rank could use. Not offered again.
    fn candidate(&mut self, at_least: u64) -> u64 {
        assert!(self.live.len() < self.count as usize, "a rank has less than {} communicators", self.count);
        let mut serial = self.next.max(at_least);
        while self.live.contains(&self.number(serial)) {
            serial += 1;
        }
        self.next = serial + 1;
        serial
    }

    /// Takes it, unless it is taken.
    fn claim(&mut self, serial: u64) -> bool {
        self.next = self.next.max(serial + 1);
        self.live.insert(self.number(serial))
    }

    fn release(&mut self, number: u32) {
        self.live.remove(&number);
    }

    fn number(&self, serial: u64) -> u32 {
        (serial % u64::from(self.count)) as u32
    }

    /// Whether all numbers up to this one are used for the first time.
    fn is_first_round(&self, serial: u64) -> bool {
        serial < u64::from(self.count)
    }
}

/// Whether something else of this rank can begin to make a communicator before an agreement is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Company {
    /// Nothing: the only thread waits for it.
    None,
    /// It is not waited for, or there are other threads.
    Possible,
}

/// What a rank brings to an agreement, for as long as that lasts.
#[derive(Debug)]
pub struct Offer {
    contexts: Contexts,
    serial: u64,
    has_company: bool,
    /// The number that it holds, until somebody has it or it is dropped.
    claimed: Option<u32>,
}

impl Offer {
    /// In the form whose largest, word by word, over all ranks is what they agree on.
    pub fn words(&self) -> [u64; 2] {
        [self.serial, self.has_company.into()]
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        let mut numbers = self.contexts.numbers();
        numbers.under_way -= 1;
        if let Some(number) = self.claimed {
            numbers.release(number);
        }
    }
}

/// Ranks agree on the first of the contexts for a new communicator, which each of them has claimed then. Dropped before, it
/// claims nothing.
#[derive(Debug)]
pub(crate) struct Agreement {
    offer: Offer,
    /// Tells those apart that one rank may be making at the same time.
    maker: u64,
    /// Reductions so far. In turns they ask for a number, and whether anybody uses it.
    rounds: u32,
}

/// What an agreement needs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The largest of these over all ranks, word by word.
    Ask([u64; 2]),
    /// Nothing more: this is the context.
    Agreed(u32),
}

impl Agreement {
    /// Begins by asking for [`Offer::words`].
    pub(crate) fn new(offer: Offer, maker: u64) -> Agreement {
        Agreement { offer, maker, rounds: 0 }
    }

    /// Reductions that it has heard of. The same on all ranks.
    pub(crate) fn rounds(&self) -> u32 {
        self.rounds
    }

    /// Whether the reduction under way is for a number, and not whether anybody uses it.
    pub(crate) fn asks_for_number(&self) -> bool {
        self.rounds.is_multiple_of(2)
    }

    /// Nobody here wants what was agreed on.
    pub(crate) fn give_back(&self, context: u32) {
        self.offer.contexts.release(context);
    }

    /// The largest words over all ranks.
    pub(crate) fn heard(&mut self, most: [u64; 2]) -> Next {
        let asked_for_number = self.asks_for_number();
        self.rounds += 1;
        if asked_for_number { self.heard_number(most) } else { self.heard_whether_taken(most) }
    }

    fn heard_number(&mut self, [serial, company]: [u64; 2]) -> Next {
        let mut numbers = self.offer.contexts.numbers();
        let (number, is_free) = (numbers.number(serial), numbers.claim(serial));
        self.offer.serial = serial;
        self.offer.claimed = is_free.then_some(number);
        if company == 0 && numbers.is_first_round(serial) {
            assert!(is_free, "a number that nobody has used is free");
            self.offer.claimed = None;
            return Next::Agreed(number * CONTEXTS_EACH);
        }
        Next::Ask([u64::from(!is_free), 0])
    }

    fn heard_whether_taken(&mut self, [is_taken, _]: [u64; 2]) -> Next {
        let mut numbers = self.offer.contexts.numbers();
        let claimed = self.offer.claimed.take();
        if is_taken == 0 {
            return Next::Agreed(numbers.number(self.offer.serial) * CONTEXTS_EACH);
        }
        if let Some(number) = claimed {
            numbers.release(number);
        }
        self.offer.serial = numbers.candidate(self.offer.serial + stride(self.maker, self.rounds));
        Next::Ask(self.offer.words())
    }
}

/// How far a maker goes that has met another: 1 to 64, and another way each time.
fn stride(maker: u64, rounds: u32) -> u64 {
    // 2^64 divided by the golden ratio, by which consecutive numbers come apart (Knuth, volume 3, section 6.4).
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    let mixed = (maker ^ u64::from(rounds) << 32).wrapping_mul(GOLDEN);
    1 + ((mixed ^ mixed >> 29).wrapping_mul(GOLDEN) >> 58)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A communicator in the making: what each of its ranks has to do with it.
    struct Making {
        agreements: Vec<Agreement>,
        asked: Vec<[u64; 2]>,
        context: Option<u32>,
    }

    impl Making {
        fn begin(ranks: &[&Contexts], company: Company, maker: u64) -> Making {
            let offers: Vec<Offer> = ranks.iter().map(|contexts| contexts.offer(company)).collect();
            let asked = offers.iter().map(Offer::words).collect();
            let agreements = offers.into_iter().map(|offer| Agreement::new(offer, maker)).collect();
            Making { agreements, asked, context: None }
        }

        /// One reduction.
        fn step(&mut self) {
            let most = self
                .asked
                .iter()
                .fold([0; 2], |most: [u64; 2], asked| [most[0].max(asked[0]), most[1].max(asked[1])]);
            for (agreement, asked) in self.agreements.iter_mut().zip(&mut self.asked) {
                match agreement.heard(most) {
                    Next::Ask(words) => *asked = words,
                    Next::Agreed(context) => {
                        assert_eq!(*self.context.get_or_insert(context), context, "all ranks agree");
                    }
                }
            }
        }

        fn end(mut self) -> (u32, u32) {
            while self.context.is_none() {
                self.step();
            }
            (self.context.unwrap(), self.agreements[0].rounds())
        }
    }

    #[test]
    fn whoever_is_alone_asks_once_and_whoever_is_not_asks_twice() {
        let ranks = [Contexts::default(), Contexts::default()];
        let all = [&ranks[0], &ranks[1]];
        assert_eq!(Making::begin(&all, Company::None, 0).end(), (0, 1));
        assert_eq!(Making::begin(&all, Company::Possible, 0).end(), (CONTEXTS_EACH, 2));
        let [one, other] = [1, 2].map(|maker| Making::begin(&all, Company::None, maker));
        // The first could not know of the other, which is over when it is alone again.
        assert_eq!(other.end().1, 2);
        drop(one);
        assert_eq!(Making::begin(&all, Company::None, 0).end().1, 1);
    }

    #[test]
    fn numbers_come_back_and_those_in_use_are_passed_over() {
        let ranks: Vec<_> = (0..3).map(|_| Contexts::of(8)).collect();
        let (all, some) = ([&ranks[0], &ranks[1], &ranks[2]], [&ranks[0], &ranks[2]]);
        assert_eq!(Making::begin(&all, Company::None, 0).end().0, 0);
        let mut seen = FxHashSet::default();
        for round in 0..40 {
            let members: &[_] = if round % 2 == 0 { &all } else { &some };
            let (made, _) = Making::begin(members, Company::None, 0).end();
            assert_ne!(made, 0);
            seen.insert(made);
            members.iter().for_each(|rank| rank.release(made));
        }
        assert_eq!(seen.len(), 7, "all numbers but the one in use");
    }

    #[test]
    fn those_made_at_the_same_time_get_different_numbers_whatever_the_order_of_their_steps() {
        for seed in 0..200 {
            let mut rng = selvedge_transport::Rng::new(seed);
            let ranks: Vec<_> = (0..3).map(|_| Contexts::of(16)).collect();
            // Each pair of ranks, begun in any order, and the pair that was begun first goes on last.
            let mut pairs = [(0, 1), (1, 2), (2, 0), (0, 1)];
            rng.shuffle(&mut pairs);
            let begin = |(maker, (one, other)): (u64, _)| {
                Making::begin(&[&ranks[one], &ranks[other]], Company::Possible, maker)
            };
            let mut makings: Vec<Making> = (0..).zip(pairs).map(begin).collect();
            let mut steps = 0;
            while makings.iter().any(|making| making.context.is_none()) {
                let place = rng.index(makings.len());
                if makings[place].context.is_none() {
                    makings[place].step();
                }
                steps += 1;
                assert!(steps < 1_000, "seed {seed}");
            }
            for (rank, contexts) in ranks.iter().enumerate() {
                let mine = (0..4).filter(|&place| [pairs[place].0, pairs[place].1].contains(&rank));
                let mine: Vec<_> = mine.filter_map(|place| makings[place].context).collect();
                let different: FxHashSet<u32> = mine.iter().copied().collect();
                assert_eq!(different.len(), mine.len(), "seed {seed}: rank {rank} has {mine:?}");
                assert_eq!(contexts.live(), mine.len(), "seed {seed}");
            }
        }
    }

    #[test]
    fn an_agreement_that_is_given_up_claims_nothing() {
        let contexts = Contexts::of(2);
        for _ in 0..5 {
            let mut making = Making::begin(&[&contexts], Company::Possible, 0);
            making.step();
            assert_eq!(contexts.live(), 1, "claimed until it is over");
            drop(making);
            assert!(contexts.live() == 0);
        }
    }
}
