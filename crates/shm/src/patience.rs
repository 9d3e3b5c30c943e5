//! How long to spin, how long to give the processor to others, when to sleep.

use std::time::{Duration, Instant};

use selvedge_transport::Peer;

use crate::segment::Segment;

/// What to do while nothing happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pastime {
    /// Look again at once.
    Spin,
    /// Let another thread run, then look again.
    Yield,
    /// Sleep until rung.
    Sleep,
}

/// Looks in a row without asking the clock: some microseconds.
const LOOKS: u32 = 32;

/// Between two looks at the same line: somewhat more than it takes to move one and to make an answer. Who looks more
/// often takes the line of a baton away from who is about to write it. One way, 8 bytes, where a line moves in 60 ns:
/// 148 ns when looking every 10, 155 at 40, 125 at 60, 115 at 80, 125 at 100.
const LOOK_NS: u32 = 80;

/// With a core for every rank, the longest spin. Waking a thread on a core that has gone idle takes 5 (bare metal) to 35
/// microseconds (virtual machine; measured); spinning as long as a wake-up takes costs at most twice what the best choice
/// would have (Karlin, Li, Manasse, Owicki, "Empirical studies of competitive spinning", 1991). A spin that was in vain
/// halves the next one, one that was not doubles it: where other programs run, or the scheduler puts two ranks on one core,
/// the peer does not run while we spin, and each message would cost the whole of it.
const SPIN: Duration = Duration::from_micros(40);

/// A shorter spin is none at all, but for the looks before the clock is asked.
const SPIN_MIN: Duration = Duration::from_micros(2);

/// Up to here a thread that nobody competes with loses nothing by yielding instead of sleeping, and one that somebody
/// competes with gives way. Also what a rank that waits for long burns, once.
const YIELD: Duration = Duration::from_micros(400);

/// More ranks than cores: whoever holds up the others is probably not running. Yield at once, and longer, since every
/// yield hands the core to a rank that has work (a switch takes about 0.6 microseconds, sleeping and waking 1.5).
const YIELD_CROWDED: Duration = Duration::from_millis(1);

/// Remembers for how long nothing has happened, over any number of calls of `wait`.
#[derive(Debug)]
pub(crate) struct Patience {
    crowded: bool,
    now: Pastime,
    looks: u32,
    idle_since: Option<Instant>,
    /// How long to spin, as the last waits have taught.
    spin: Duration,
    /// Pause instructions between two looks at a line.
    pauses: u32,
}

impl Patience {
    pub(crate) fn new(crowded: bool) -> Patience {
        Patience { crowded, now: first(crowded), looks: 0, idle_since: None, spin: SPIN, pauses: pauses() }
    }

    /// Something has happened.
    #[inline]
    pub(crate) fn renew(&mut self) {
        if self.looks != 0 && (self.now != Pastime::Spin || self.spin != SPIN) {
            self.learn();
        }
        self.now = first(self.crowded);
        self.looks = 0;
        self.idle_since = None;
    }

    /// Nothing will happen for a while, as somebody else has found out.
    pub(crate) fn lose(&mut self) {
        self.now = Pastime::Sleep;
        self.idle_since = Instant::now().checked_sub(YIELD_CROWDED);
    }

    #[cold]
    fn learn(&mut self) {
        self.spin = match self.now {
            Pastime::Spin => (2 * self.spin).clamp(SPIN_MIN, SPIN),
            _ if self.spin > SPIN_MIN => self.spin / 2,
            _ => Duration::ZERO,
        };
    }

    /// The time between two looks at a line: who looks without a pause takes the line away from who is writing it.
    #[inline]
    pub(crate) fn relax(&self) {
        for _ in 0..self.pauses {
            std::hint::spin_loop();
        }
    }

    /// What to do next, and the time where the clock was asked.
    #[inline]
    pub(crate) fn next(&mut self) -> (Pastime, Option<Instant>) {
        self.looks = self.looks.wrapping_add(1);
        if self.now == Pastime::Spin && !self.looks.is_multiple_of(LOOKS) {
            return (Pastime::Spin, None);
        }
        let time = Instant::now();
        let idle = time.duration_since(*self.idle_since.get_or_insert(time));
        self.now = match self.crowded {
            false if idle < self.spin => Pastime::Spin,
            false if idle < YIELD => Pastime::Yield,
            true if idle < YIELD_CROWDED => Pastime::Yield,
            _ => Pastime::Sleep,
        };
        (self.now, Some(time))
    }
}

/// What to begin with.
fn first(crowded: bool) -> Pastime {
    if crowded { Pastime::Yield } else { Pastime::Spin }
}

/// Pause instructions that take about [`LOOK_NS`]: they take 10 to 140 cycles, depending on the processor.
fn pauses() -> u32 {
    const PAUSES: u32 = 64;
    let time = || {
        let start = Instant::now();
        (0..PAUSES).for_each(|_| std::hint::spin_loop());
        start.elapsed().as_nanos() as u32
    };
    // The least of a few: others may be running too.
    let all_ns = (0..8).map(|_| time()).min().unwrap_or(0).max(1);
    (LOOK_NS * PAUSES / all_ns).clamp(1, 16)
}

/// Whether the ranks of the segment have fewer processors than they are.
pub(crate) fn is_crowded(segment: &Segment) -> bool {
    segment.peers() as u64 > u64::from(processors(segment))
}

/// Processors that at least one of the ranks may run on, or what the cgroup grants, if that is less.
pub(crate) fn processors(segment: &Segment) -> u32 {
    let mut union = [0_u64; crate::sys::PROCESSORS_MAX / 64];
    for peer in 0..segment.peers() as u32 {
        for (word, mask) in union.iter_mut().zip(segment.seat(Peer(peer)).processors()) {
            *word |= mask;
        }
    }
    let allowed: u32 = union.iter().map(|word| word.count_ones()).sum();
    let own: u32 = crate::sys::processors().iter().map(|word| word.count_ones()).sum();
    // What std reports is our own mask cut down to the cgroup's quota: it differs from the mask only by a quota.
    let granted = std::thread::available_parallelism().map_or(u32::MAX, |count| count.get() as u32);
    if granted < own { allowed.min(granted) } else { allowed }
}
