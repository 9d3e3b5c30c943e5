//! One rank as its agent sees it, and the bytes that go to and from it.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::event::epoll::{self, EventFlags};
use rustix::io::Errno;
use rustix::process::Pid;
use selvedge_boot::State;

use super::{Agent, Place, Stream, Token};
use crate::channel::ChannelError;
use crate::proto::{Member, ToFront};

/// A rank's process and our ends of its connections.
#[derive(Debug)]
pub(super) struct Rank {
    /// Its number in its world.
    pub(super) number: u32,
    pub(super) pid: Pid,
    /// Not waited for yet.
    pub(super) running: bool,
    /// When it closed its PMI connection, while it runs on and nobody has been told.
    pub(super) closed_at: Option<Instant>,
    pmi: Option<OwnedFd>,
    replies: VecDeque<u8>,
    out: Option<OwnedFd>,
    err: Option<OwnedFd>,
}

/// Answers that a rank may leave unread before we stop listening to it. PMI-1 has one request outstanding, and the
/// longest answer has 4 KiB.
const REPLIES_BYTES_MAX: usize = 64 << 10;

impl Rank {
    pub(super) fn new(number: u32, pid: Pid, pmi: Option<OwnedFd>, out: OwnedFd, err: OwnedFd) -> Rank {
        Rank {
            number,
            pid,
            running: true,
            closed_at: None,
            pmi,
            replies: VecDeque::new(),
            out: Some(out),
            err: Some(err),
        }
    }

    /// Whether it can write no more.
    pub(super) fn is_mute(&self) -> bool {
        self.out.is_none() && self.err.is_none()
    }

    /// Whether it has a PMI connection.
    pub(super) fn is_connected(&self) -> bool {
        self.pmi.is_some()
    }

    /// Closing takes a descriptor out of its epoll as well: it has no duplicates here.
    pub(super) fn close_pmi(&mut self) {
        self.pmi = None;
        self.replies = VecDeque::new();
    }

    fn output(&mut self, stream: Stream) -> &mut Option<OwnedFd> {
        match stream {
            Stream::Out => &mut self.out,
            Stream::Err => &mut self.err,
        }
    }
}

impl Agent {
    /// Something has arrived on a rank's PMI connection, or there is room for answers.
    pub(super) fn handle_pmi(&mut self, place: Place) -> Result<(), ChannelError> {
        self.write_replies(place)?;
        if self.worlds.rank(place).is_some_and(|rank| rank.replies.len() < REPLIES_BYTES_MAX) {
            self.read_pmi(place)?;
        }
        self.pump_server(place.world);
        Ok(())
    }

    /// Reads once from a rank's PMI connection. Whether there may be more.
    pub(super) fn read_pmi(&mut self, place: Place) -> Result<bool, ChannelError> {
        let Some(this) = self.worlds.rank_mut(place) else { return Ok(false) };
        let Some(pmi) = &this.pmi else { return Ok(false) };
        match rustix::io::retry_on_intr(|| rustix::io::read(pmi, &mut self.chunk[..])) {
            // The last is what only a connection by TCP can come to.
            Ok(0) | Err(Errno::CONNRESET | Errno::TIMEDOUT) => {
                self.handle_closed(place);
                Ok(false)
            }
            Ok(got) => {
                let number = this.number;
                if let Some(world) = self.worlds.get_mut(place.world) {
                    world.server.handle_bytes(number, &self.chunk[..got]);
                }
                Ok(true)
            }
            Err(Errno::AGAIN) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The other end of a rank's PMI connection is closed.
    fn handle_closed(&mut self, place: Place) {
        let has_port = self.port.is_some();
        let Some(world) = self.worlds.get_mut(place.world) else { return };
        let Some(this) = world.ranks.get_mut(place.local as usize) else { return };
        this.close_pmi();
        // The rank may be a script, and its next program has to connect again where it cannot inherit the connection.
        let may_return = has_port && world.server.state(this.number) == State::Finalized;
        // Else it is most likely about to end, and its end says more than this.
        this.closed_at = (this.running && !may_return).then(Instant::now);
    }

    /// A rank has connected at the port, and has said so much.
    pub(super) fn connect(&mut self, place: Place, pmi: OwnedFd, said: &[u8]) {
        let Some(world) = self.worlds.get_mut(place.world) else { return };
        let Some(this) = world.ranks.get_mut(place.local as usize) else { return };
        this.pmi = Some(pmi);
        let number = this.number;
        world.server.handle_bytes(number, said);
        self.pump_server(place.world);
    }

    /// Bytes for a rank from the PMI server.
    pub(super) fn reply(&mut self, place: Place, bytes: Vec<u8>) {
        if let Some(this) = self.worlds.rank_mut(place).filter(|this| this.pmi.is_some()) {
            this.replies.extend(bytes);
            // A connection that cannot be watched any more is found closed when its rank has ended.
            let _ = self.write_replies(place);
        }
    }

    fn write_replies(&mut self, place: Place) -> Result<(), ChannelError> {
        let Some(this) = self.worlds.rank_mut(place) else { return Ok(()) };
        let Some(pmi) = &this.pmi else { return Ok(()) };
        let waited = !this.replies.is_empty();
        while !this.replies.is_empty() {
            match rustix::io::retry_on_intr(|| rustix::io::write(pmi, this.replies.as_slices().0)) {
                Ok(written) => drop(this.replies.drain(..written)),
                Err(Errno::AGAIN) => break,
                // It is gone, and what it has said before is still to be read.
                Err(_) => this.replies.clear(),
            }
        }
        if waited {
            let flags = match this.replies.len() {
                0 => EventFlags::IN,
                bytes if bytes < REPLIES_BYTES_MAX => EventFlags::IN | EventFlags::OUT,
                _ => EventFlags::OUT,
            };
            epoll::modify(&self.main, pmi, Token::Pmi(place).data(), flags)?;
        }
        Ok(())
    }

    /// Some ranks have written something: a chunk of each, as far as the window allows.
    pub(super) fn handle_outputs(&mut self) -> Result<(), ChannelError> {
        let mut events = Vec::with_capacity(64);
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        match epoll::wait(&self.outputs, rustix::buffer::spare_capacity(&mut events), Some(&now)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        for event in events {
            if let Token::Output(place, stream) = Token::of(event.data)
                && self.has_room()
            {
                self.read_output(place, stream)?;
            }
        }
        Ok(())
    }

    /// Forwards one chunk of a rank's output. Whether there may be more.
    pub(super) fn read_output(&mut self, place: Place, stream: Stream) -> Result<bool, ChannelError> {
        let Some(this) = self.worlds.rank_mut(place) else { return Ok(false) };
        let who = Member { world: place.world, rank: this.number };
        let Some(fd) = this.output(stream) else { return Ok(false) };
        match rustix::io::retry_on_intr(|| rustix::io::read(&*fd, &mut self.chunk[..])) {
            Ok(0) => {
                self.close_output(place, stream);
                Ok(false)
            }
            Ok(got) => {
                self.unacknowledged += got;
                self.report_chunk(ToFront::Output { who, stream }, got);
                Ok(true)
            }
            Err(Errno::AGAIN) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    pub(super) fn close_output(&mut self, place: Place, stream: Stream) {
        let who = self.member(place);
        if self.worlds.rank_mut(place).is_some_and(|rank| rank.output(stream).take().is_some()) {
            self.report(ToFront::OutputEnd { who, stream }, &[]);
        }
    }
}
