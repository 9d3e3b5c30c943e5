//! "Look at me": a set of peers that want something, cheap to find empty.
//!
//! One word says which words of the set are not empty; as long as it is 0, a look costs one load of a line that nobody
//! writes. Used twice: for rings that carry their first packet, and for copies that want a second pair of hands.

use crate::sync::{AtomicU64, Ordering};

/// Members a set can have: one summary bit per word of members.
pub(crate) const MEMBERS_MAX: usize = 64 * 64;

/// Words that a set of `members` takes beside its summary.
pub(crate) const fn words_of(members: usize) -> usize {
    members.div_ceil(64)
}

/// Whether somebody wants something, from the summary of a set. One load.
#[inline]
pub(crate) fn is_raised(summary: &AtomicU64) -> bool {
    summary.load(Ordering::Relaxed) != 0
}

/// A set in shared memory, many adding, one taking.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attention<'a> {
    /// Bit w: `words[w]` may not be empty.
    pub(crate) summary: &'a AtomicU64,
    /// Bit b of word w: member 64 w + b.
    pub(crate) words: &'a [AtomicU64],
}

impl Attention<'_> {
    /// Adds a member. What was stored before is seen by who takes it.
    pub(crate) fn raise(self, member: usize) {
        // SYNC: both pair with `take`. The word first: who sees the summary bit finds the member.
        self.words[member / 64].fetch_or(1 << (member % 64), Ordering::Release);
        self.summary.fetch_or(1 << (member / 64), Ordering::Release);
    }

    /// Empties the set into `each`.
    #[cold]
    pub(crate) fn take(self, mut each: impl FnMut(usize)) {
        // SYNC: pairs with `raise`. The summary is emptied first, so that a member added meanwhile leaves a bit in it.
        let mut summary = self.summary.swap(0, Ordering::Acquire);
        while summary != 0 {
            let word = summary.trailing_zeros() as usize;
            summary &= summary - 1;
            // Bits beyond the set are nothing that this code writes: pass over them.
            let Some(members) = self.words.get(word) else { continue };
            let mut members = members.swap(0, Ordering::Acquire);
            while members != 0 {
                each(word * 64 + members.trailing_zeros() as usize);
                members &= members - 1;
            }
        }
    }
}
