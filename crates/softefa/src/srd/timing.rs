//! How long a round trip takes, and after how long a packet is sent again.

use super::{Config, Nanos};

/// How long the longest round trip is remembered. The smoothed value forgets a pause of the peer within as many answers as
/// arrive in a millisecond; on a machine with more threads than cores the next pause comes soon.
const MEMORY: Nanos = 1_000_000_000;

/// Longest round trip that is remembered so.
const LONGEST_MAX: Nanos = 100_000_000;

/// Estimate of one flow's round trip: smoothed value and deviation as in RFC 6298, section 2, and the longest of late.
#[derive(Debug, Default)]
pub(super) struct Timing {
    /// The longest round trip of late, and when it was.
    longest: (Nanos, Nanos),
    /// Smoothed round trip and its deviation; none before the first answer.
    known: Option<(Nanos, Nanos)>,
    /// Times that the timer went off since the last answer; each doubles it.
    backoff: u32,
}

impl Timing {
    /// An answer has come `now`, `trip` after the packet it answers was sent.
    pub(super) fn sample(&mut self, trip: Nanos, now: Nanos) {
        if trip >= self.longest.0 || now > self.longest.1 + MEMORY {
            self.longest = (trip.min(LONGEST_MAX), now);
        }
        self.known = Some(match self.known {
            None => (trip, trip / 2),
            Some((smooth, deviation)) => {
                ((smooth * 7 + trip) / 8, (deviation * 3 + smooth.abs_diff(trip)) / 4)
            }
        });
    }

    /// The smoothed round trip; 0 before the first answer.
    pub(super) fn trip(&self) -> Nanos {
        self.known.map_or(0, |(smooth, _)| smooth)
    }

    /// The peer is alive: the timer has its normal length again.
    pub(super) fn alive(&mut self) {
        self.backoff = 0;
    }

    /// The timer went off.
    pub(super) fn expired(&mut self) {
        self.backoff += 1;
    }

    /// Times that the timer went off since the last answer.
    pub(super) fn expiries(&self) -> u32 {
        self.backoff
    }

    /// How long after its sending a packet without an answer is sent again.
    pub(super) fn resend_after(&self, config: &Config) -> Nanos {
        let base = match self.known {
            None => config.resend_first,
            Some((smooth, deviation)) => {
                (smooth + 4 * deviation).max(2 * self.longest.0).max(config.resend_min)
            }
        };
        base.saturating_mul(1 << self.backoff.min(10)).min(config.resend_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timer_follows_the_round_trip_and_doubles_in_silence() {
        let config = Config::default();
        let mut timing = Timing::default();
        assert_eq!(timing.resend_after(&config), config.resend_first);
        for _ in 0..100 {
            timing.sample(10_000, 0);
        }
        assert_eq!(timing.resend_after(&config), config.resend_min);
        timing.expired();
        assert_eq!(timing.resend_after(&config), 2 * config.resend_min);
        (0..100).for_each(|_| timing.expired());
        assert_eq!(timing.resend_after(&config), config.resend_max);
        timing.alive();
        for _ in 0..100 {
            timing.sample(80_000_000, 0);
        }
        assert_eq!(timing.resend_after(&config), 160_000_000);
    }

    #[test]
    fn a_pause_of_the_peer_is_remembered_for_a_while() {
        let config = Config::default();
        let mut timing = Timing::default();
        timing.sample(20_000_000, 0);
        for time in 1..1000 {
            timing.sample(10_000, time * 1_000_000);
        }
        assert_eq!(timing.resend_after(&config), 40_000_000);
        timing.sample(10_000, MEMORY + 1);
        assert_eq!(timing.resend_after(&config), config.resend_min);
    }
}
