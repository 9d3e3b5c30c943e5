//! Sleeping until somebody rings, without a system call for those who find nobody asleep.

use std::time::Duration;

use crate::sync::{AtomicU32, Fences, Ordering};

/// How to sleep on a word, and wake who does. The kernel's futex, or a model of it.
pub(crate) trait Futex {
    /// Sleeps while `word` is `expected`, at most `at_most`. May return early.
    fn wait(&self, word: &AtomicU32, expected: u32, at_most: Duration);
    /// Wakes one sleeper.
    fn wake(&self, word: &AtomicU32);
}

const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;

/// One peer's bell. The word is on a line that everybody reads and hardly anybody writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Doorbell<'a, F> {
    /// [`AWAKE`] or [`ASLEEP`].
    pub(crate) word: &'a AtomicU32,
    /// The same for all peers of a segment.
    pub(crate) fences: Fences,
    /// How to sleep.
    pub(crate) futex: F,
}

impl<F: Futex> Doorbell<'_, F> {
    /// Wakes the owner if it sleeps. Call after publishing what it should see.
    #[inline]
    pub(crate) fn ring(&self) {
        self.fences.publisher();
        if self.word.load(Ordering::Relaxed) != AWAKE {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        // Of several who ring at the same time, one makes the system call.
        // SYNC: release, for the sleeper whom the word itself keeps from sleeping: it sees what it was rung about.
        if self.word.swap(AWAKE, Ordering::AcqRel) != AWAKE {
            self.futex.wake(self.word);
        }
    }

    /// Sleeps until rung or `at_most` has passed, unless `ready` says that there is something already. For the owner.
    pub(crate) fn sleep(&self, at_most: Duration, ready: impl FnOnce() -> bool) {
        // SYNC: pairs with `wake`. A swap and not a store: what a ringer who comes late did to the word is behind us.
        self.word.swap(ASLEEP, Ordering::AcqRel);
        self.fences.sleeper();
        if !ready() {
            self.futex.wait(self.word, ASLEEP, at_most);
        }
        self.word.store(AWAKE, Ordering::Relaxed);
    }
}
