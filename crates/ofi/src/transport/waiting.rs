//! How a rank waits that has nothing to do: it looks again, gives way, and sleeps until something completes.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use selvedge_transport::Fault;

use crate::peers::acquaintance::ROLL_CALL;
use crate::peers::lifeline::Lifelines;
use crate::transport::Ofi;
use crate::transport::alarm::Alarm;
use crate::transport::patience::Pastime;

impl Ofi {
    /// What ends a wait of this rank from another of its threads.
    ///
    /// # Errors
    /// A [`Fault`] when there is no descriptor left for it.
    pub fn alarm(&mut self) -> Result<Alarm, Box<Fault>> {
        let alarm = match self.alarm.take() {
            Some(alarm) => alarm,
            None => Alarm::new()?,
        };
        Ok(self.alarm.insert(alarm).clone())
    }

    /// The next wait sleeps at once: who calls it has looked long enough.
    pub fn lose_patience(&mut self) {
        self.patience.lose();
    }

    /// Looks for completions and does what is to be done; true when `poll` may have something to tell, or there is more room
    /// than before.
    fn glance(&mut self) -> bool {
        // To look on behind the first would cost the provider's whole round again, a system call over sockets.
        if self.found.is_none() {
            self.found = self.take_completions();
        }
        if self.found.is_some() {
            self.patience.renew();
            return true;
        }
        if self.has_news || !self.others.is_empty() {
            let told = self.events.len();
            self.tend();
            // What comes by other rails is no less a sign of life.
            if self.events.len() > told {
                self.patience.renew();
            }
        }
        !self.events.is_empty()
            || (!self.stash.is_empty() && self.lent < self.caps.slots_max)
            || self.refused_at.is_some_and(|before| self.sends_pending() < before)
            || self.peers.has_wanted()
    }

    /// Sleeps until something completes, a line ends or `at_most` has passed.
    #[cold]
    fn sleep(&mut self, at_most: Duration) {
        let lines = self.lines.as_ref().map(Lifelines::as_fd);
        let alarm = self.alarm.as_ref().map(Alarm::as_fd);
        let endpoint = self.rail.endpoint();
        let (wait_fd, distrust) = (endpoint.wait_fd(), self.patience.distrust());
        let queue = wait_fd.filter(|_| distrust.is_none());
        if queue.is_some() && !endpoint.may_sleep() {
            return;
        }
        let at_most = distrust.map_or(at_most, |nap| nap.min(at_most));
        let queue = queue.map(|fd| {
            // SAFETY: the descriptor belongs to the completion queue, which lives as long as the endpoint.
            unsafe { BorrowedFd::borrow_raw(fd) }
        });
        // Where the provider has nothing to sleep on there is no line either: a nap, unless another thread wants us.
        let lines = lines.filter(|_| wait_fd.is_some());
        let Some(some) = queue.or(lines).or(alarm) else { return std::thread::sleep(at_most) };
        let readable = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let (mut fds, mut count) = ([some; 3].map(readable), 0);
        for fd in [queue, lines, alarm].into_iter().flatten() {
            fds[count] = readable(fd);
            count += 1;
        }
        let timeout = Timespec { tv_sec: at_most.as_secs() as i64, tv_nsec: at_most.subsec_nanos().into() };
        // An interrupted sleep is a short one.
        let _ = rustix::event::poll(&mut fds[..count], Some(&timeout));
        let is_ready = |place: usize| fds[place].revents().contains(PollFlags::IN);
        let (is_queue_ready, are_lines_ready) =
            (queue.is_some() && is_ready(0), lines.is_some() && is_ready(usize::from(queue.is_some())));
        if is_queue_ready {
            self.patience.hear_alarm();
        }
        if are_lines_ready {
            self.look_at_lines();
        }
    }

    /// Until `poll` may have something to tell, there is more room than before, somebody calls, or `at_most` has passed.
    pub(crate) fn wait_patiently(&mut self, at_most: Duration) {
        let mut until = None;
        while !self.glance() && !self.alarm.as_ref().is_some_and(Alarm::is_rung) {
            let now = Instant::now();
            let until = *until.get_or_insert(now + at_most);
            if now >= until {
                break;
            }
            let pastime = self.patience.next(now, self.refused_at.is_some() || self.has_news);
            if pastime != Pastime::Spin {
                self.call_roll(now);
            }
            match pastime {
                Pastime::Spin => std::hint::spin_loop(),
                Pastime::Yield => std::thread::yield_now(),
                Pastime::Sleep(nap) => self.sleep(nap.min(until - now).min(ROLL_CALL)),
            }
        }
        self.refused_at = None;
        if let Some(alarm) = &self.alarm {
            alarm.stop();
        }
    }
}
