//! A host that has joined: between the first host and this one's agent, which is a process of its own as everywhere.
//!
//! Why two processes: whichever of them is killed, the other sees it and ends what the job has started here.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use super::knock::Admission;
use crate::channel::{Channel, ChannelError};
use crate::proto::{Start, ToChild, ToFront, ToParent};
use crate::pulse::Pulse;
use crate::supervise::code;
use crate::tree::{Event, Links};
use crate::{reap, sys};

/// How long our agent may take to end its ranks when the first host is gone: as long as it takes to kill.
const LEAVE_PATIENCE: Duration = Duration::from_secs(3);

/// Signals that are passed on to the first host, as if they had been sent to it.
const PASSED_ON: &[Signal] =
    &[Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2];

/// Serves until the job is over; its exit code.
///
/// # Errors
/// A sentence for people: the first host is gone, or is not to be understood.
pub(super) fn serve(admission: Admission) -> Result<u8, String> {
    let Admission { stream, seal, first } = admission;
    let trouble = |error: &dyn std::fmt::Display| format!("cannot serve {first}: {error}");
    let mut signals: Vec<Signal> =
        PASSED_ON.iter().copied().filter(|signal| !sys::is_ignored(*signal)).collect();
    signals.push(Signal::CHILD);
    let signals = sys::signal_fd(&signals).map_err(|error| trouble(&error))?;
    reap::become_subreaper().map_err(|errno| trouble(&errno))?;
    let up = Channel::sealed(stream, seal).map_err(|error| trouble(&error))?;
    let links = Links::new().map_err(|errno| trouble(&errno))?;
    let pulse = Pulse::new(None, Instant::now());
    let mut relay = Relay { up, pulse, links, signals, host: None, interrupted_by: None };
    let outcome = relay.run();
    relay.clear();
    match (outcome, relay.interrupted_by) {
        (Ok(code), _) => Ok(code),
        (Err(ChannelError::Closed), Some(signal)) => {
            Ok(code::SIGNAL.saturating_add(u8::try_from(signal.as_raw()).unwrap_or(0)))
        }
        (Err(ChannelError::Closed), None) => {
            Err(format!("the first host, {first}, has gone; what ran here was ended"))
        }
        (Err(error), _) => Err(format!("the first host, {first}: {error}; what ran here was ended")),
    }
}

struct Relay {
    up: Channel,
    pulse: Pulse,
    /// To our agent, once there is one.
    links: Links,
    signals: OwnedFd,
    /// Our number, once we know it.
    host: Option<u32>,
    /// A signal that came before the job had begun: the first host was left for it.
    interrupted_by: Option<Signal>,
}

impl Relay {
    fn run(&mut self) -> Result<u8, ChannelError> {
        loop {
            let (up, links, signals) = self.wait();
            if signals {
                self.take_signals()?;
            }
            if up.contains(PollFlags::OUT) {
                self.up.flush();
            }
            let now = Instant::now();
            if links {
                self.links.handle_ready(now);
            }
            self.links.handle_time(now);
            self.pump_links();
            if !(up - PollFlags::OUT).is_empty()
                && let Some(code) = self.hear(now)?
            {
                return Ok(code);
            }
            self.watch(now)?;
        }
    }

    /// What the first host says: for our agent, or for us. The job's exit code, where it is over.
    fn hear(&mut self, now: Instant) -> Result<Option<u8>, ChannelError> {
        let filled = self.up.fill();
        if matches!(filled, Ok(1..)) {
            self.pulse.handle_sign(now);
        }
        while let Some((message, tail)) = self.up.receive()? {
            match message {
                ToChild::Farewell { code } => return Ok(Some(code)),
                ToChild::Start(start) => self.begin(start, now)?,
                ToChild::Pause if self.host.is_some() => {
                    self.pulse.handle_pause();
                    self.links.send(0, &ToChild::Pause, &[]);
                }
                // Signs of life too: should we be stopped, our agent notices, and ends its ranks in time.
                other if self.host.is_some() => self.links.send(0, &other, &tail),
                _ => return Err(ChannelError::Malformed),
            }
        }
        self.pump_links();
        filled.map(|_| None)
    }

    /// The job has begun. Our agent hears through us; it waits longer than we do, so that one of us says it and not both.
    fn begin(&mut self, mut start: Start, now: Instant) -> Result<(), ChannelError> {
        if self.host.replace(start.host).is_some() {
            return Err(ChannelError::Malformed);
        }
        self.pulse = Pulse::new(Some(start.ways.silence_limit), now);
        start.ways.silence_limit = start.ways.silence_limit.saturating_mul(2);
        self.links.start_here(start, now);
        Ok(())
    }

    fn pump_links(&mut self) {
        while let Some(event) = self.links.poll_event() {
            match event {
                Event::Message { message: ToParent::Alive, .. } | Event::Over { .. } => {}
                Event::Message { message, tail, .. } => self.up.send(&message, &tail),
                Event::About { host, message } => {
                    // What a dead agent has left is ours now.
                    reap::kill_children(&self.links.processes());
                    self.up.send(&ToParent::From { host, message }, &[]);
                }
            }
        }
    }

    fn take_signals(&mut self) -> Result<(), ChannelError> {
        while let Some(signal) = sys::next_signal(&self.signals) {
            match (signal, self.host) {
                (Signal::CHILD, _) => {
                    while let Some((pid, status)) = reap::reap() {
                        self.links.handle_child(pid, status, Instant::now());
                    }
                }
                (signal, Some(host)) => {
                    let message = ToFront::Signalled(signal.as_raw());
                    self.up.send(&ToParent::From { host, message }, &[]);
                }
                // Nothing has begun: we just leave, and our place is free.
                (signal, None) => {
                    self.interrupted_by = Some(signal);
                    return Err(ChannelError::Closed);
                }
            }
        }
        Ok(())
    }

    /// Says now and then that we live, and gives up when the first host has not for too long.
    fn watch(&mut self, now: Instant) -> Result<(), ChannelError> {
        if let Some(silence) = self.pulse.silence(now) {
            return Err(ChannelError::Silent(silence.as_secs()));
        }
        // What waits to be written is a sign of life too.
        if self.pulse.poll_beat(now) && !self.up.wants_write() {
            self.up.send(&ToParent::Alive, &[]);
        }
        Ok(())
    }

    /// What of the connection is ready; whether something has happened at the agent's; whether signals have come.
    fn wait(&self) -> (PollFlags, bool, bool) {
        let (input, output, links) = (self.up.input(), self.up.output(), self.links.as_fd());
        let room = if self.up.wants_write() { PollFlags::OUT } else { PollFlags::empty() };
        let mut fds = [
            PollFd::new(&input, PollFlags::IN),
            PollFd::new(&output, room),
            PollFd::new(&links, PollFlags::IN),
            PollFd::new(&self.signals, PollFlags::IN),
        ];
        let deadline = self.links.deadline().into_iter().chain(self.pulse.deadline()).min();
        let wait = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let wait = wait.map(|wait| Timespec {
            tv_sec: wait.as_secs().cast_signed(),
            tv_nsec: wait.subsec_nanos().into(),
        });
        // Interrupted or out of memory: the worst that happens is another turn of the loop.
        let _ = poll(&mut fds, wait.as_ref());
        let room = fds[1].revents() & PollFlags::OUT;
        (fds[0].revents() | room, !fds[2].revents().is_empty(), !fds[3].revents().is_empty())
    }

    /// Nothing of the job stays here. An agent that loses us ends its ranks by itself; then it is ended.
    fn clear(&mut self) {
        self.links.let_go();
        let until = Instant::now() + LEAVE_PATIENCE;
        while reap::has_children() && Instant::now() < until {
            while reap::reap().is_some() {}
            std::thread::sleep(Duration::from_millis(2));
        }
        reap::kill_children(&[]);
    }
}
