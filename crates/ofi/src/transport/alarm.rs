//! What one thread of a rank calls another with that sleeps in [`Ofi::wait`](crate::Ofi).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};
use selvedge_transport::Fault;

use crate::faults;

/// Ends the wait of one rank, from any thread of its process: the wait under way, or else the next.
#[derive(Clone, Debug)]
pub struct Alarm {
    rung: Arc<AtomicBool>,
    /// Readable from the ring to the end of the wait.
    event: Arc<OwnedFd>,
}

impl Alarm {
    pub(crate) fn new() -> Result<Alarm, Box<Fault>> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| faults::no_socket("an event", &error.into()))?;
        Ok(Alarm { rung: Arc::new(AtomicBool::new(false)), event: Arc::new(event) })
    }

    /// Rings. Cost: a system call.
    pub fn ring(&self) {
        // SYNC: pairs with the swap in `stop`. Nothing is behind it: what the sleeper comes out for is behind a lock.
        if !self.rung.swap(true, Ordering::AcqRel) {
            // An event that is as full as it can be is readable too.
            let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
        }
    }

    pub(crate) fn is_rung(&self) -> bool {
        self.rung.load(Ordering::Relaxed)
    }

    /// The wait is over.
    pub(crate) fn stop(&self) {
        if self.is_rung() {
            // Who rings between the two calls finds the one who waited on its way out.
            let _ = rustix::io::read(&self.event, &mut [0; 8]);
            self.rung.swap(false, Ordering::AcqRel);
        }
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn is_readable(alarm: &Alarm) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(alarm.as_fd(), PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    }

    #[test]
    fn an_alarm_rings_until_it_is_stopped() {
        let alarm = Alarm::new().unwrap();
        assert!(!alarm.is_rung() && !is_readable(&alarm));
        for _ in 0..2 {
            alarm.ring();
            alarm.ring();
            assert!(alarm.is_rung() && is_readable(&alarm));
            alarm.stop();
            assert!(!alarm.is_rung() && !is_readable(&alarm));
        }
    }
}
