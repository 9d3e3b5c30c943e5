//! One link: an agent right below this process, or the command that is to bring it about.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::process::{Pid, Signal, WaitStatus, kill_process};

use crate::channel::{Channel, ChannelError};
use crate::proto::{Start, ToChild, ToFront, ToParent};
use crate::pulse::Pulse;
use crate::start::Started;

/// How long the command of an agent may take to end after its connection has.
const COMMAND_PATIENCE: Duration = Duration::from_secs(1);
/// What is passed on of what the command of an agent writes to standard error.
const ERRORS_BYTES_MAX: usize = 256 << 10;
/// The longest line of that which is kept together.
const LINE_BYTES_MAX: usize = 4 << 10;

/// What commands say and nobody needs to know: srun, which is asked not to bind, where it could not anyway.
const NOISE: &[&str] = &["cluster configuration lacks support for cpu binding"];

/// Which descriptor of a link an epoll event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Input,
    Output,
    Errors,
}

impl Side {
    pub(super) fn token(self, link: usize) -> EventData {
        EventData::new_u64((link as u64) << 2 | self as u64)
    }

    pub(super) fn of(data: EventData) -> (usize, Side) {
        let data = data.u64();
        let side = match data & 3 {
            0 => Side::Input,
            1 => Side::Output,
            _ => Side::Errors,
        };
        (usize::try_from(data >> 2).expect("made from a usize by `token`"), side)
    }
}

/// What carries the connection.
#[derive(Debug)]
pub(super) enum Bearer {
    /// A socket: the agent is on our own host.
    OurHost,
    /// A command, for people.
    Command(String),
    /// The host's own connection to us.
    Joined,
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) host: u32,
    bearer: Bearer,
    /// Hosts at and below this link that have not said their last.
    open: HashSet<u32>,
    process: Option<Pid>,
    status: Option<WaitStatus>,
    pub(super) channel: Option<Channel>,
    /// What to tell the agent as soon as it is there.
    start: Option<Start>,
    is_greeted: bool,
    errors: Option<Errors>,
    pub(super) pulse: Pulse,
    listens_output: bool,
    end: Option<End>,
}

/// Why there is no channel any more.
#[derive(Debug)]
enum End {
    /// It was closed at this time; the status of the command may follow, and says more.
    Closed { at: Instant, banner: String },
    /// For this reason.
    Cause(String),
    /// Said and done.
    Over,
}

/// What the command of an agent writes to standard error.
#[derive(Debug)]
struct Errors {
    fd: OwnedFd,
    line: Vec<u8>,
    room_bytes: usize,
}

impl Link {
    /// A link over which `start` is to be said to an agent; `open`: it and the hosts below it.
    pub(super) fn new(start: Start, open: HashSet<u32>, bearer: Bearer, pulse: Pulse) -> Link {
        Link {
            host: start.host,
            // Who has joined has been greeted at the door.
            is_greeted: matches!(bearer, Bearer::Joined),
            bearer,
            open,
            process: None,
            status: None,
            channel: None,
            start: Some(start),
            errors: None,
            pulse,
            listens_output: false,
            end: None,
        }
    }

    /// The command runs, or does not.
    pub(super) fn handle_started(
        &mut self,
        started: std::io::Result<Started>,
        epoll: &OwnedFd,
        at: usize,
        now: Instant,
    ) {
        let watched = started.and_then(|started| {
            self.process = started.pid;
            epoll::add(epoll, started.channel.input(), Side::Input.token(at), EventFlags::IN)?;
            self.channel = Some(started.channel);
            if let Some(fd) = started.errors {
                epoll::add(epoll, &fd, Side::Errors.token(at), EventFlags::IN)?;
                self.errors = Some(Errors { fd, line: Vec::new(), room_bytes: ERRORS_BYTES_MAX });
            }
            Ok(())
        });
        match watched {
            // A command may print something first, and may never come to the agent. With the others nothing can come before
            // its greeting, so we need not wait for it.
            Ok(()) => {
                if !matches!(self.bearer, Bearer::Command(_)) {
                    self.say_start();
                    self.listen(epoll, at);
                }
            }
            Err(error) => {
                let why = match &self.bearer {
                    Bearer::Command(command) => format!("cannot run `{command}`: {error}"),
                    Bearer::OurHost | Bearer::Joined => error.to_string(),
                };
                self.close(Some(format!("cannot be started: {why}")), now);
            }
        }
    }

    /// Whether the agent is on our own host.
    pub(super) fn is_ours(&self) -> bool {
        matches!(self.bearer, Bearer::OurHost)
    }

    pub(super) fn has_joined(&self) -> bool {
        matches!(self.bearer, Bearer::Joined)
    }

    /// Whether the agent has not been told to start: it is not there yet.
    pub(super) fn is_mute(&self) -> bool {
        self.start.is_some()
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.end, Some(End::Over))
    }

    /// The process, until it has been waited for.
    pub(super) fn process(&self) -> Option<Pid> {
        self.process.filter(|_| self.status.is_none())
    }

    pub(super) fn handle_status(&mut self, status: WaitStatus) {
        self.status = Some(status);
    }

    fn say_start(&mut self) {
        if let (Some(channel), Some(start)) = (&mut self.channel, self.start.take()) {
            channel.send(&ToChild::Start(start), &[]);
        }
    }

    /// Sends to an agent that is there.
    pub(super) fn send(&mut self, message: &ToChild, tail: &[u8], epoll: &OwnedFd, at: usize) {
        if let Some(channel) = &mut self.channel
            && self.start.is_none()
        {
            channel.send(message, tail);
            self.listen(epoll, at);
        }
    }

    pub(super) fn flush(&mut self, epoll: &OwnedFd, at: usize) {
        self.channel.iter_mut().for_each(Channel::flush);
        self.listen(epoll, at);
    }

    /// Hears about room for writing as long as something waits for it.
    fn listen(&mut self, epoll: &OwnedFd, at: usize) {
        let Some(channel) = &self.channel else { return };
        if channel.wants_write() == self.listens_output {
            return;
        }
        self.listens_output = !self.listens_output;
        // Without memory for one more descriptor nothing works any more; the silence will be noticed.
        let _ = match self.listens_output {
            true => epoll::add(epoll, channel.output(), Side::Output.token(at), EventFlags::OUT),
            false => epoll::delete(epoll, channel.output()),
        };
    }

    /// Reads once. What has come is there for [`receive`](Link::receive), also where this fails: then it is the last.
    pub(super) fn read(&mut self, epoll: &OwnedFd, at: usize, now: Instant) -> Result<(), ChannelError> {
        let Some(channel) = &mut self.channel else { return Ok(()) };
        let filled = channel.fill();
        if matches!(filled, Ok(1..)) {
            self.pulse.handle_sign(now);
        }
        if !self.is_greeted && channel.skip_greeting()? {
            self.is_greeted = true;
            self.say_start();
            self.listen(epoll, at);
        }
        filled.map(|_| ())
    }

    /// The next message.
    pub(super) fn receive(&mut self) -> Result<Option<(ToParent, Vec<u8>)>, ChannelError> {
        let Some(channel) = self.channel.as_mut().filter(|_| self.is_greeted) else { return Ok(None) };
        let received = channel.receive()?;
        if let Some((ToParent::From { host, message }, _)) = &received {
            match message {
                ToFront::Left { .. } => drop(self.open.remove(host)),
                ToFront::Lost { with, .. } => {
                    self.open.retain(|open| open != host && !with.contains(open));
                }
                _ => {}
            }
        }
        Ok(received)
    }

    /// Nothing is heard here any more. `cause`: why not, unless the other side has closed the connection.
    pub(super) fn close(&mut self, cause: Option<String>, now: Instant) {
        if self.end.is_some() {
            return;
        }
        let banner = self.channel.take().filter(|_| !self.is_greeted).map(|channel| channel.banner());
        let banner = banner.unwrap_or_default();
        self.end = Some(match cause {
            None => End::Closed { at: now, banner },
            Some(cause) => {
                self.kill();
                End::Cause(cause + &printed(&banner))
            }
        });
    }

    fn kill(&self) {
        if let Some(pid) = self.process() {
            // A child that has not been waited for keeps its number.
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// When time alone changes something.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.end {
            None => self.pulse.deadline().filter(|_| !self.is_mute()),
            Some(End::Closed { at, .. }) => Some(*at + COMMAND_PATIENCE),
            Some(End::Cause(_) | End::Over) => None,
        }
    }

    /// Whether all that can be known about its end is known, and nobody has been told.
    pub(super) fn is_settled(&self, now: Instant) -> bool {
        match &self.end {
            Some(End::Closed { at, .. }) => self.process().is_none() || now >= *at + COMMAND_PATIENCE,
            Some(End::Cause(_)) => true,
            Some(End::Over) | None => false,
        }
    }

    /// The end: its cause, and the hosts that had not said their last.
    pub(super) fn settle(&mut self) -> (String, Vec<u32>) {
        let cause = match self.end.replace(End::Over) {
            Some(End::Cause(cause)) => cause,
            Some(End::Closed { banner, .. }) => {
                self.kill();
                self.describe_close() + &printed(&banner)
            }
            Some(End::Over) | None => String::new(),
        };
        let mut open: Vec<u32> = self.open.drain().collect();
        // The host of the link first: it is the reason for the others.
        open.sort_unstable_by_key(|host| (*host != self.host, *host));
        (cause, open)
    }

    fn describe_close(&self) -> String {
        let how = match self.status.map(|status| (status.terminating_signal(), status.exit_status())) {
            Some((Some(signal), _)) => format!("was killed by signal {signal}"),
            Some((_, code)) => describe_code(code.unwrap_or(0)),
            None => "has closed its output".to_owned(),
        };
        match &self.bearer {
            Bearer::OurHost => how,
            Bearer::Command(command) if self.is_greeted => format!("has gone: `{command}` {how}"),
            Bearer::Command(command) => format!("cannot be started: `{command}` {how}"),
            Bearer::Joined => "has gone: its connection has ended".to_owned(),
        }
    }

    /// Reads what the command has written to standard error: whole lines, and at its end the rest.
    pub(super) fn read_errors(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(errors) = &mut self.errors
            && !errors.read(&mut lines)
        {
            lines.extend(self.end_errors());
        }
        lines.retain(|line| !NOISE.iter().any(|noise| line.ends_with(noise)));
        lines
    }

    /// Reads no more of it; gives back the unfinished line.
    pub(super) fn end_errors(&mut self) -> Option<String> {
        self.errors.take().filter(|errors| !errors.line.is_empty()).map(|errors| text(&errors.line))
    }
}

/// What a shell, ssh, srun and a guardian say of a process that was killed is 128 and the signal.
fn describe_code(code: i32) -> String {
    match code {
        129..=192 => format!("exited with code {code}: it was killed by signal {}", code - 128),
        code => format!("exited with code {code}"),
    }
}

fn printed(banner: &str) -> String {
    if banner.is_empty() { String::new() } else { format!("; what it printed ends with: {banner:?}") }
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).trim_end().to_owned()
}

impl Errors {
    /// Adds the whole lines that are there. Whether more may come.
    fn read(&mut self, lines: &mut Vec<String>) -> bool {
        let mut chunk = [0; LINE_BYTES_MAX];
        loop {
            let got = match rustix::io::retry_on_intr(|| rustix::io::read(&self.fd, &mut chunk)) {
                Ok(0) => return false,
                Ok(got) => got,
                Err(rustix::io::Errno::AGAIN) => return true,
                Err(_) => return false,
            };
            if self.room_bytes == 0 {
                continue;
            }
            for piece in chunk[..got].split_inclusive(|byte| *byte == b'\n') {
                self.line.extend_from_slice(piece);
                if piece.ends_with(b"\n") || self.line.len() >= LINE_BYTES_MAX {
                    lines.push(text(&std::mem::take(&mut self.line)));
                }
            }
            self.room_bytes = self.room_bytes.saturating_sub(got);
            if self.room_bytes == 0 {
                self.line.clear();
                lines.push("... (what else this command writes to standard error is not shown)".to_owned());
            }
        }
    }
}
