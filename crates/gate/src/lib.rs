//! A gate before something that one thread at a time may touch: free for its owner, a lock for everybody else, and a lock
//! for the owner too while there is anybody else.
//!
//! [`Door`] is how a thread goes in; it stays with its thread. [`Pass`] is what may cross threads; it makes doors. While no
//! pass exists, entering is a comparison and a store, without an atomic operation. The first pass puts up a lock, and when
//! the last one is gone the owner takes it down again.
//!
//! Threads that wait for something do not all look: one leads, which polls and, when nothing happens, sleeps inside; the
//! others sleep beside the gate, and are handed what they wait for by whoever comes across it. Who wants to go in while the
//! leader sleeps inside calls it with an [`Alarm`]. When the leader has what it waited for, the next one leads.
//!
//! What it is not: a general lock. It is made for what is [`Inside`]: something that moves when it is polled, and that can
//! sleep until there is reason to poll.
//!
//! Read first: [`Inside`], then [`Door`]. Invariants:
//!
//! - Whoever touches the value is the owner's thread while no pass exists, or holds the lock.
//! - While somebody waits, somebody leads, or one that was told to is on its way in.
//! - Who waits for something that has ended is told when the thread that saw the end leaves the gate.

mod crew;
mod gate;
mod sync;

#[cfg(all(test, loom))]
mod model;

pub use crew::Seat;
#[cfg(not(loom))]
pub use gate::WeakDoor;
pub use gate::{Door, Entered, Pass};

/// Something that moves when it is polled.
pub trait Inside {
    /// The name of something that has begun and will end.
    type Name: Copy;
    /// What is left of it.
    type End;

    /// Moves what can move.
    fn poll(&mut self);

    /// What is left of something that has ended, once: its name is spent with it. `None` while it goes on.
    fn take_end(&mut self, name: Self::Name) -> Option<Self::End>;

    /// Changes whenever there may be something for those who wait for anything ([`Door::wait_until`]).
    fn stamp(&self) -> u64;

    /// Sleeps until there may be something to poll for, until the alarm rings or for some time. An alarm that rang since
    /// the last sleep ends this one. `name`: what the sleeper waits for, if it is one thing.
    fn sleep(&mut self, name: Option<Self::Name>) -> Slept;
}

/// How a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slept {
    /// There may be something to poll for.
    Lightly,
    /// So badly that everybody who waits should look for itself.
    Badly,
}

/// Ends the sleep of who sleeps inside, the one under way or else the next.
pub trait Alarm: Send + Sync {
    /// Rings.
    fn ring(&self);
}
