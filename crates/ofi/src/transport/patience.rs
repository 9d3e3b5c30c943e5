//! How long to look again at once, how long to give the processor to others, when to sleep.

use std::time::{Duration, Instant};

/// What to do while nothing happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pastime {
    /// Look again at once.
    Spin,
    /// Let another thread run, then look again.
    Yield,
    /// Sleep on the descriptor of the completion queue, or nap where there is none; at most so long.
    Sleep(Duration),
}

/// The longest spin: about what it takes to be woken on a core that has gone idle, so that a spin in vain costs at most
/// twice what the best choice would have (Karlin, Li, Manasse, Owicki, "Empirical studies of competitive spinning", 1991). A
/// spin that was in vain halves the next one, one that was not doubles it: where other programs run, or the scheduler puts
/// two ranks on one core (as it likes to do with the two ends of a socket of the loop), the peer does not run while we
/// spin, and each message would cost the whole of it. Seen: 54 instead of 4 microseconds one way.
const SPIN: Duration = Duration::from_micros(50);

/// A shorter spin is none at all.
const SPIN_MIN: Duration = Duration::from_micros(3);

/// Waits without spinning after which it is tried again: what kept the peer from running then (a phase of computing, a compiler
/// next door) may be over. In vain it costs 50 + 25 + 12 + 6 + 3 microseconds, a tenth of one per wait.
const WAITS_UNSPUN: u32 = 1000;

/// Up to here a thread with a core of its own loses nothing by yielding, and one that shares it gives way.
const YIELD: Duration = Duration::from_micros(400);

/// The same where nobody can wake us and the core is our own: as long as a large message takes. Its sender waits for the
/// receiver's word meanwhile, and a nap at its end would cost both.
const YIELD_ALONE: Duration = Duration::from_millis(10);

/// The longest nap, where the provider has nothing to sleep on, of a rank that has not waited for long. A nap is an eighth of
/// the time already waited, so a wait is lengthened by at most that, and by this.
const NAP_MAX: Duration = Duration::from_millis(1);

/// Of a rank that has waited for long a nap is this part of the time already waited, if that is more: a wait is then lengthened
/// by less than a hundredth, and one for ten ranks that wait in a row, as in a tree of a thousand, by less than a tenth.
const NAP_PART: u32 = 128;

/// The longest nap of all, after half a second: 250 looks in a second instead of a thousand.
const NAP_LONG_MAX: Duration = Duration::from_millis(4);

/// How long to nap after so long a time without anything.
fn nap(idle: Duration) -> Duration {
    (idle / 8).min(NAP_MAX).max((idle / NAP_PART).min(NAP_LONG_MAX))
}

/// Alarms in a row with nothing behind them, after which the descriptor of the completion queue is not believed until something
/// happens. libfabric 1.17's tcp leaves a byte in the socket that it wakes sleepers with and reads it no more: there a rank
/// that waits would go round for ever, a quarter of a core on two cores that eight ranks share.
const FALSE_ALARMS_MAX: u32 = 16;

/// Remembers for how long nothing has happened, over any number of calls of `wait`.
#[derive(Debug)]
pub(crate) struct Patience {
    /// Whether this host has fewer cores than ranks: then nobody spins.
    is_crowded: bool,
    /// Whether sleep can be ended by an event.
    can_be_woken: bool,
    idle_since: Option<Instant>,
    now: Pastime,
    /// How long to spin, as the last waits have taught.
    spin: Duration,
    /// Waits since spinning was given up.
    unspun: u32,
    /// Times that the descriptor has said that there is something, since there was something.
    false_alarms: u32,
}

impl Patience {
    pub(crate) fn new(is_crowded: bool, can_be_woken: bool) -> Patience {
        Patience {
            is_crowded,
            can_be_woken,
            idle_since: None,
            now: Pastime::Spin,
            spin: SPIN,
            unspun: 0,
            false_alarms: 0,
        }
    }

    /// Something has happened.
    #[inline]
    pub(crate) fn renew(&mut self) {
        if self.idle_since.take().is_some() {
            self.learn();
        }
    }

    /// The descriptor says that there is something; if that is so, [`Patience::renew`] follows.
    pub(crate) fn hear_alarm(&mut self) {
        self.false_alarms = self.false_alarms.saturating_add(1);
    }

    /// Whether the descriptor is not to be slept on, because it wakes for nothing; and how long to sleep instead, at most.
    pub(crate) fn distrust(&self) -> Option<Duration> {
        let nap = || self.idle_since.map_or(NAP_MAX, |since| nap(since.elapsed()).max(NAP_MAX));
        (self.false_alarms > FALSE_ALARMS_MAX).then(nap)
    }

    /// Nothing will happen for a while, as somebody else has found out.
    pub(crate) fn lose(&mut self) {
        self.idle_since = Instant::now().checked_sub(if self.can_be_woken { YIELD } else { YIELD_ALONE });
    }

    #[cold]
    fn learn(&mut self) {
        self.false_alarms = 0;
        self.spin = match self.now {
            Pastime::Spin => (2 * self.spin).clamp(SPIN_MIN, SPIN),
            _ if self.spin > SPIN_MIN => self.spin / 2,
            _ if self.unspun == WAITS_UNSPUN => SPIN,
            _ => Duration::ZERO,
        };
        self.unspun = if self.spin.is_zero() { self.unspun + 1 } else { 0 };
    }

    /// What to do next. `is_refused`: a send was answered Busy, which the descriptor may not know of.
    pub(crate) fn next(&mut self, now: Instant, is_refused: bool) -> Pastime {
        let idle = now.duration_since(*self.idle_since.get_or_insert(now));
        let yields = if self.can_be_woken || self.is_crowded { YIELD } else { YIELD_ALONE };
        self.now = match self.can_be_woken && !is_refused {
            _ if idle < self.spin && !self.is_crowded => Pastime::Spin,
            _ if idle < yields => Pastime::Yield,
            true => Pastime::Sleep(Duration::MAX),
            false => Pastime::Sleep(nap(idle)),
        };
        self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_spins_then_yields_then_sleeps_until_something_happens() {
        let (start, us) = (Instant::now(), Duration::from_micros);
        let mut patience = Patience::new(false, true);
        assert_eq!(patience.next(start, false), Pastime::Spin);
        assert_eq!(patience.next(start + us(60), false), Pastime::Yield);
        assert_eq!(patience.next(start + us(500), false), Pastime::Sleep(Duration::MAX));
        assert_eq!(
            patience.next(start + us(500), true),
            Pastime::Sleep(us(500) / 8),
            "a refused send is not told"
        );
        patience.renew();
        assert_eq!(patience.next(start + us(900), false), Pastime::Spin);
    }

    #[test]
    fn who_cannot_be_woken_on_a_core_of_its_own_yields_as_long_as_a_large_message_takes() {
        let (start, us) = (Instant::now(), Duration::from_micros);
        let mut patience = Patience::new(false, false);
        assert_eq!(patience.next(start, false), Pastime::Spin);
        assert_eq!(patience.next(start + us(9_000), false), Pastime::Yield);
        assert_eq!(patience.next(start + us(16_000), false), Pastime::Sleep(NAP_MAX));
    }

    #[test]
    fn a_descriptor_that_wakes_for_nothing_is_not_believed_until_something_happens() {
        let start = Instant::now();
        let mut patience = Patience::new(false, true);
        patience.next(start, false);
        for _ in 0..FALSE_ALARMS_MAX {
            patience.hear_alarm();
        }
        assert_eq!(patience.distrust(), None, "some are late, and what they were for has been found already");
        patience.hear_alarm();
        assert_eq!(patience.distrust(), Some(NAP_MAX));
        patience.renew();
        assert_eq!(patience.distrust(), None);
    }

    #[test]
    fn spins_in_vain_become_shorter_and_good_ones_longer() {
        let (mut now, us) = (Instant::now(), Duration::from_micros);
        let mut patience = Patience::new(false, true);
        let mut wait = |patience: &mut Patience, time: Duration| {
            let first = patience.next(now, false);
            now += time;
            patience.next(now, false);
            patience.renew();
            first
        };
        for _ in 0..10 {
            wait(&mut patience, us(60));
        }
        assert_eq!(wait(&mut patience, us(60)), Pastime::Yield, "no more spinning");
        let unspun = (1..=2 * WAITS_UNSPUN).find(|_| wait(&mut patience, us(10)) == Pastime::Spin);
        assert!(unspun.is_some_and(|waits| waits <= WAITS_UNSPUN), "after a while it is tried again");
        assert_eq!(wait(&mut patience, us(10)), Pastime::Spin, "and kept, as it was not in vain");
    }

    #[test]
    fn on_a_crowded_host_nobody_spins_and_naps_have_a_bound() {
        let (start, us) = (Instant::now(), Duration::from_micros);
        let mut patience = Patience::new(true, false);
        assert_eq!(patience.next(start, false), Pastime::Yield);
        assert_eq!(patience.next(start + us(600), false), Pastime::Sleep(us(75)));
        assert_eq!(patience.next(start + us(60_000), false), Pastime::Sleep(NAP_MAX));
        assert_eq!(patience.next(start + us(256_000), false), Pastime::Sleep(2 * NAP_MAX));
        assert_eq!(patience.next(start + us(60_000_000), false), Pastime::Sleep(NAP_LONG_MAX));
    }
}
