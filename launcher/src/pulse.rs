//! Whether the other side of a connection still lives. A pipe through ssh, or a cable that was cut, ends without a word;
//! so both sides say something now and then, and who is silent for too long is gone. No clock here: the time comes in.

use std::time::{Duration, Instant};

/// Beats within the limit of silence: so many may be lost or late.
const BEATS: u32 = 10;

/// The signs of life on one connection, both ways.
#[derive(Clone, Copy, Debug)]
pub struct Pulse {
    limit: Option<Duration>,
    heard_at: Instant,
    beaten_at: Instant,
    is_excused: bool,
}

impl Pulse {
    /// A connection on which nothing may be silent for longer than `limit`. `None`: its end is always noticed, as that
    /// of a socket on our own host.
    pub fn new(limit: Option<Duration>, now: Instant) -> Pulse {
        Pulse { limit, heard_at: now, beaten_at: now, is_excused: false }
    }

    /// The other side has said something.
    pub fn handle_sign(&mut self, now: Instant) {
        self.heard_at = now;
        self.is_excused = false;
    }

    /// The other side has said that it will be silent until it says something again.
    pub fn handle_pause(&mut self) {
        self.is_excused = true;
    }

    /// Whether it is time to say something; asked again, not before the next time.
    pub fn poll_beat(&mut self, now: Instant) -> bool {
        let is_due = self.interval().is_some_and(|interval| now >= self.beaten_at + interval);
        if is_due {
            self.beaten_at = now;
        }
        is_due
    }

    /// How long the other side has been silent, where that is too long.
    pub fn silence(&self, now: Instant) -> Option<Duration> {
        let silence = now.saturating_duration_since(self.heard_at);
        self.limit.filter(|limit| !self.is_excused && silence >= *limit).map(|_| silence)
    }

    /// When to look again; `None` where nothing depends on the time.
    pub fn deadline(&self) -> Option<Instant> {
        let beat = self.beaten_at + self.interval()?;
        let silence = self.limit.filter(|_| !self.is_excused).map(|limit| self.heard_at + limit);
        silence.into_iter().chain([beat]).min()
    }

    fn interval(&self) -> Option<Duration> {
        self.limit.map(|limit| limit / BEATS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_beat_is_due_ten_times_within_the_limit() {
        let start = Instant::now();
        let mut pulse = Pulse::new(Some(LIMIT), start);
        let beats = (0..200).filter(|tenth| pulse.poll_beat(start + *tenth * SECOND / 10)).count();
        assert_eq!(beats, 9, "and the tenth when the limit is over");
        assert_eq!(pulse.deadline(), Some(start + 20 * SECOND));
    }

    #[test]
    fn whoever_says_something_is_not_silent() {
        let start = Instant::now();
        let mut pulse = Pulse::new(Some(LIMIT), start);
        assert_eq!(pulse.silence(start + 19 * SECOND), None);
        assert_eq!(pulse.silence(start + 21 * SECOND), Some(21 * SECOND));
        pulse.handle_sign(start + 19 * SECOND);
        assert_eq!(pulse.silence(start + 38 * SECOND), None);
        assert_eq!(pulse.silence(start + 39 * SECOND), Some(20 * SECOND));
    }

    #[test]
    fn who_has_said_that_it_will_be_silent_may_be_until_it_speaks() {
        let start = Instant::now();
        let mut pulse = Pulse::new(Some(LIMIT), start);
        pulse.handle_pause();
        assert_eq!(pulse.silence(start + 1000 * SECOND), None);
        pulse.handle_sign(start + 1000 * SECOND);
        assert_eq!(pulse.silence(start + 1020 * SECOND), Some(20 * SECOND));
    }

    #[test]
    fn a_socket_of_our_own_host_needs_no_pulse() {
        let start = Instant::now();
        let mut pulse = Pulse::new(None, start);
        let later = start + 1000 * SECOND;
        assert_eq!((pulse.silence(later), pulse.deadline()), (None, None));
        assert!(!pulse.poll_beat(later));
    }
}
