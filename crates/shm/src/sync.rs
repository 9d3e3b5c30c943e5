//! Every atomic and fence of this crate comes from here, so that one switch (`--cfg loom`) puts them all under a model.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Who pays for the store-load order between "I have published something" and "is the other one asleep?".
///
/// Both sides of a doorbell write one word and then read the other's word; without a full fence between the two, both
/// may miss each other (Dekker). A fence waits for the store before it, about a cache-line transfer, so it would double
/// the price of a message. `membarrier(2)` lets the sleeper run the fence on all cores at once, when it has time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fences {
    /// Every publisher fences. Where some process of the job could not register for `membarrier`.
    Both,
    /// Only who is about to sleep does, for everybody.
    Sleeper,
}

impl Fences {
    /// Between publishing and looking at the other side's sleep word.
    #[inline]
    pub(crate) fn publisher(self) {
        // SYNC: pairs with `Fences::sleeper`. The model checks the algorithm as if both had fences, which is what
        // membarrier guarantees: on every running thread of a registered process a full fence somewhere in between.
        if cfg!(loom) || self == Fences::Both {
            fence(Ordering::SeqCst);
        } else {
            std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
        }
    }

    /// Between saying "I am asleep" and the last look before it is true.
    pub(crate) fn sleeper(self) {
        // SYNC: pairs with `Fences::publisher`.
        fence(Ordering::SeqCst);
        #[cfg(not(loom))]
        if self == Fences::Sleeper {
            crate::sys::fence_everywhere();
        }
    }
}
