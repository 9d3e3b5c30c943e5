//! How a rank waits that has nothing to do: it watches one ring, looks everywhere, gives way, and sleeps until rung.

use std::time::Duration;

use crate::alarm::Alarm;
use crate::patience::Pastime;
use crate::shm::Shm;
use crate::shm::departures::ROLL_CALL;

/// Looks at the ring that the last packets came from, between two looks at all the rest.
const PEEKS: u32 = 8;

impl Shm {
    /// Watches where the last packets came from for a moment. True when there is one.
    #[inline]
    fn watch(&self) -> bool {
        let Some(&from) = self.active.get(self.turn) else {
            self.patience.relax();
            return false;
        };
        (0..PEEKS).any(|_| {
            self.patience.relax();
            self.has_packet(from)
        })
    }

    /// Whether a poll would find something to do, this one or one of the next, or a send that found no room would find
    /// some, or another thread wants this one to come out. Looks everywhere, also at what `poll` passes over in its turn:
    /// a rank that did not would sleep beside a packet.
    fn glance(&self) -> bool {
        (self.slots.has_free() && self.active.iter().any(|&from| self.has_packet(from)))
            || self.bell.is_called()
            || self.bell.is_asked_for_help()
            || !self.events.is_empty()
            || (!self.copies.is_idle() && self.copies.can_step(&self.segment, self.me))
            || self.starved.iter().any(|&to| self.roads[to.index()].ring.room_was_given())
            || self.alarm.as_ref().is_some_and(Alarm::is_rung)
    }

    /// Sleeps until rung, or it is time to call the roll, or `at_most` has passed.
    #[cold]
    fn sleep(&mut self, at_most: Duration) {
        for &to in &self.starved {
            self.roads[to.index()].ring.ask_for_room();
        }
        let doorbell = self.bell.doorbell(self.fences);
        doorbell.sleep(at_most.min(ROLL_CALL), || self.glance());
    }

    /// Until `poll` may have something to tell, a send finds room, another thread calls, or `at_most` has passed.
    #[inline]
    pub(super) fn wait_patiently(&mut self, at_most: Duration) {
        let mut until = None;
        loop {
            let (pastime, now) = self.patience.next();
            if (pastime == Pastime::Spin && self.watch()) || self.glance() {
                break;
            }
            if let Some(now) = now {
                let until = *until.get_or_insert(now + at_most);
                if now >= until || !self.parting.is_empty() {
                    break;
                }
                if pastime != Pastime::Spin {
                    self.call_roll(now);
                }
                match pastime {
                    Pastime::Spin => {}
                    Pastime::Yield => std::thread::yield_now(),
                    Pastime::Sleep => self.sleep(until - now),
                }
            }
        }
        for to in self.starved.drain(..) {
            self.roads[to.index()].starved = false;
        }
        if let Some(alarm) = &self.alarm {
            alarm.stop();
        }
    }
}
