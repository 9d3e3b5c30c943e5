//! Numbers of communicators: no two that a rank has at the same time have the same, and none is used again before all others
//! have been.
//!
//! A communicator is made by its ranks together. Each offers the first number that it has never used; the largest of them is the
//! number, which all ranks know to be free for all: that is one reduction of two words. When all numbers have been used once,
//! or when several threads of a rank make communicators at the same time, one more says whether every rank has it free; if
//! not, it is done again from a number further on, which differs from maker to maker, so that two of them do not meet again.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashSet;

use crate::error::Result;
use crate::world::job::CONTEXTS_EACH;

/// Numbers there are: their contexts stay below 2^31. What is above belongs to guests of the runtime.
const NUMBERS: u32 = (1 << 31) / CONTEXTS_EACH;

/// The numbers of one rank.
#[derive(Debug)]
pub(crate) struct Contexts {
    numbers: u32,
    /// The first serial number that was never used here. A number is a serial number modulo [`NUMBERS`].
    next: u64,
    /// Bound: the communicators that this rank has.
    live: FxHashSet<u32>,
}

impl Default for Contexts {
    fn default() -> Contexts {
        Contexts::of(NUMBERS)
    }
}

impl Contexts {
    fn of(numbers: u32) -> Contexts {
        Contexts { numbers, next: 0, live: FxHashSet::default() }
    }

    /// The first serial number from `at_least` on that this rank could use.
    pub(crate) fn candidate(&self, at_least: u64) -> u64 {
        assert!(
            self.live.len() < self.numbers as usize,
            "a rank has less than {} communicators",
            self.numbers
        );
        let mut serial = self.next.max(at_least);
        while self.live.contains(&self.number(serial)) {
            serial += 1;
        }
        serial
    }

    /// Takes it, unless it is taken.
    fn claim(&mut self, serial: u64) -> bool {
        self.next = self.next.max(serial + 1);
        self.live.insert(self.number(serial))
    }

    /// Nobody here uses it any more.
    pub(crate) fn release(&mut self, context: u32) {
        self.live.remove(&(context / CONTEXTS_EACH));
    }

    fn number(&self, serial: u64) -> u32 {
        (serial % u64::from(self.numbers)) as u32
    }

    /// Whether all numbers up to this one are used for the first time.
    fn is_first_round(&self, serial: u64) -> bool {
        serial < u64::from(self.numbers)
    }
}

/// What a rank brings to an agreement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offer {
    /// [`Contexts::candidate`].
    pub(crate) serial: u64,
    /// Other threads of this rank may be making communicators.
    pub(crate) has_threads: bool,
}

impl Offer {
    pub(crate) fn words(self) -> [u64; 2] {
        [self.serial, self.has_threads.into()]
    }
}

/// Agrees on the first of the contexts for a new communicator, which this rank has claimed then. `offered`: the largest of all
/// offers, word by word, where that is known already. `maker` tells those apart that one rank may be making at the same time.
/// `max` takes the largest over all ranks, word by word, which all of them call equally often.
pub(crate) fn agree(
    contexts: &Mutex<Contexts>,
    has_threads: bool,
    maker: u64,
    mut offered: Option<[u64; 2]>,
    mut max: impl FnMut([u64; 2]) -> Result<[u64; 2]>,
) -> Result<u32> {
    let mut at_least = 0;
    loop {
        let [serial, has_threads] = match offered.take() {
            Some(offered) => offered,
            None => {
                let serial = lock(contexts).candidate(at_least);
                max(Offer { serial, has_threads }.words())?
            }
        };
        let (is_free, is_first_round, context) = {
            let mut contexts = lock(contexts);
            let is_free = contexts.claim(serial);
            (is_free, contexts.is_first_round(serial), contexts.number(serial) * CONTEXTS_EACH)
        };
        if is_first_round && has_threads == 0 {
            assert!(is_free, "a number that nobody has used is free");
            return Ok(context);
        }
        let taken = max([u64::from(!is_free), 0]);
        match taken {
            Ok([0, _]) => return Ok(context),
            _ if is_free => lock(contexts).release(context),
            _ => {}
        }
        taken?;
        at_least = serial + 1 + maker % MAKERS;
    }
}

/// The context of the world: that of the first number.
pub(crate) fn first(contexts: &Mutex<Contexts>) -> u32 {
    let is_free = lock(contexts).claim(0);
    assert!(is_free, "a job begins with its world");
    0
}

/// Nothing panics between two states of it.
fn lock(contexts: &Mutex<Contexts>) -> MutexGuard<'_, Contexts> {
    contexts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How far makers that met go apart.
const MAKERS: u64 = 61;

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    /// Ranks in step with each other: the largest words of all.
    struct Table {
        barrier: Barrier,
        words: Mutex<[u64; 2]>,
    }

    impl Table {
        fn of(ranks: usize) -> Table {
            Table { barrier: Barrier::new(ranks), words: Mutex::new([0; 2]) }
        }

        fn max(&self, mine: [u64; 2]) -> [u64; 2] {
            if self.barrier.wait().is_leader() {
                *self.words.lock().unwrap() = [0; 2];
            }
            self.barrier.wait();
            {
                let mut words = self.words.lock().unwrap();
                *words = [words[0].max(mine[0]), words[1].max(mine[1])];
            }
            self.barrier.wait();
            *self.words.lock().unwrap()
        }
    }

    fn make(ranks: &[&Mutex<Contexts>], has_threads: bool, maker: u64) -> Vec<u32> {
        let table = Table::of(ranks.len());
        std::thread::scope(|scope| {
            let agree_of = |contexts: &Mutex<Contexts>| {
                agree(contexts, has_threads, maker, None, |mine| Ok(table.max(mine))).unwrap()
            };
            let threads: Vec<_> =
                ranks.iter().map(|contexts| scope.spawn(move || agree_of(contexts))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    #[test]
    fn numbers_come_back_and_those_in_use_are_passed_over() {
        let ranks: Vec<_> = (0..3).map(|_| Mutex::new(Contexts::of(8))).collect();
        let (all, some) = ([&ranks[0], &ranks[1], &ranks[2]], [&ranks[0], &ranks[2]]);
        let kept = make(&all, false, 0);
        assert_eq!(kept, [0; 3]);
        let mut seen = FxHashSet::default();
        for round in 0..40 {
            let members: &[_] = if round % 2 == 0 { &all } else { &some };
            let made = make(members, false, 0);
            assert!(made.iter().all(|&context| context == made[0] && context != 0), "{made:?}");
            seen.insert(made[0]);
            members.iter().for_each(|rank| rank.lock().unwrap().release(made[0]));
        }
        assert_eq!(seen.len(), 7, "all numbers but the one in use");
    }

    #[test]
    fn makers_at_the_same_time_get_different_numbers() {
        let ranks: Vec<_> = (0..2).map(|_| Mutex::new(Contexts::of(64))).collect();
        for _ in 0..20 {
            let made: Vec<u32> = std::thread::scope(|scope| {
                let make = |maker| make(&[&ranks[0], &ranks[1]], true, maker);
                let makers: Vec<_> = (1..4).map(|maker| scope.spawn(move || make(maker))).collect();
                let made = makers.into_iter().map(|maker| maker.join().unwrap());
                made.inspect(|made| assert_eq!(made[0], made[1])).map(|made| made[0]).collect()
            });
            let different: FxHashSet<u32> = made.iter().copied().collect();
            assert_eq!(different.len(), 3, "{made:?}");
            for rank in &ranks {
                made.iter().for_each(|&context| rank.lock().unwrap().release(context));
            }
        }
    }
}
