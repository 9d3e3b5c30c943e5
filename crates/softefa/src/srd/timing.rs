//! How long a round trip takes, and after how long a packet is sent again.

use super::{Config, Nanos};

/// Estimate of one flow's round trip: smoothed value and deviation as in RFC 6298, section 2.
#[derive(Debug, Default)]
pub(super) struct Timing {
    /// Smoothed round trip and its deviation; none before the first answer.
    known: Option<(Nanos, Nanos)>,
    /// Times that the timer went off since the last answer; each doubles it.
    backoff: u32,
}

impl Timing {
    /// An answer has come, `trip` after the packet it answers was sent.
    pub(super) fn sample(&mut self, trip: Nanos) {
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
            Some((smooth, deviation)) => (smooth + 4 * deviation).max(config.resend_min),
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
            timing.sample(10_000);
        }
        assert_eq!(timing.resend_after(&config), config.resend_min);
        timing.expired();
        assert_eq!(timing.resend_after(&config), 2 * config.resend_min);
        (0..100).for_each(|_| timing.expired());
        assert_eq!(timing.resend_after(&config), config.resend_max);
        timing.alive();
        for _ in 0..100 {
            timing.sample(80_000_000);
        }
        assert!((80_000_000..160_000_000).contains(&timing.resend_after(&config)));
    }
}
