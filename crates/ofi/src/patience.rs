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
/// twice what the best choice would have (Karlin, Li, Manasse, Owicki, "Empirical studies of competitive spinning", 1991).
const SPIN: Duration = Duration::from_micros(50);

/// Up to here a thread with a core of its own loses nothing by yielding, and one that shares it gives way.
const YIELD: Duration = Duration::from_micros(400);

/// The longest nap, where the provider has nothing to sleep on. The first is as long as the time already waited, the next
/// ones grow with it: a wait is lengthened by at most its own length, and by this.
const NAP_MAX: Duration = Duration::from_millis(1);

/// Remembers for how long nothing has happened, over any number of calls of `wait`.
#[derive(Debug)]
pub(crate) struct Patience {
    /// Whether this host has fewer cores than ranks: then nobody spins.
    is_crowded: bool,
    /// Whether sleep can be ended by an event.
    can_be_woken: bool,
    idle_since: Option<Instant>,
}

impl Patience {
    pub(crate) fn new(is_crowded: bool, can_be_woken: bool) -> Patience {
        Patience { is_crowded, can_be_woken, idle_since: None }
    }

    /// Something has happened.
    #[inline]
    pub(crate) fn renew(&mut self) {
        self.idle_since = None;
    }

    /// What to do next. `is_refused`: a send was answered Busy, which the descriptor may not know of.
    pub(crate) fn next(&mut self, now: Instant, is_refused: bool) -> Pastime {
        let idle = now.duration_since(*self.idle_since.get_or_insert(now));
        match (self.can_be_woken && !is_refused, idle) {
            (_, idle) if idle < SPIN && !self.is_crowded => Pastime::Spin,
            (_, idle) if idle < YIELD => Pastime::Yield,
            (true, _) => Pastime::Sleep(Duration::MAX),
            (false, idle) => Pastime::Sleep(idle.min(NAP_MAX)),
        }
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
            Pastime::Sleep(us(500)),
            "a refused send is not told"
        );
        patience.renew();
        assert_eq!(patience.next(start + us(900), false), Pastime::Spin);
    }

    #[test]
    fn on_a_crowded_host_nobody_spins_and_naps_have_a_bound() {
        let (start, us) = (Instant::now(), Duration::from_micros);
        let mut patience = Patience::new(true, false);
        assert_eq!(patience.next(start, false), Pastime::Yield);
        assert_eq!(patience.next(start + us(600), false), Pastime::Sleep(us(600)));
        assert_eq!(patience.next(start + us(60_000), false), Pastime::Sleep(NAP_MAX));
    }
}
