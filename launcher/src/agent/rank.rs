//! One rank as its agent sees it, and the bytes that go to and from it.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use rustix::event::epoll::{self, EventFlags};
use rustix::io::Errno;
use rustix::process::Pid;

use super::{Agent, Event, Stream, Token};
use crate::proto::{ChannelError, ToFront};

/// A rank's process and our ends of its connections.
#[derive(Debug)]
pub(super) struct Rank {
    pub(super) pid: Pid,
    /// Not waited for yet.
    pub(super) running: bool,
    /// When it closed its PMI connection, while it runs on and nobody has been told.
    pub(super) closed_at: Option<Instant>,
    pmi: Option<UnixStream>,
    replies: VecDeque<u8>,
    out: Option<OwnedFd>,
    err: Option<OwnedFd>,
}

/// Answers that a rank may leave unread before we stop listening to it. PMI-1 has one request outstanding, and the
/// longest answer has 4 KiB.
const REPLIES_BYTES_MAX: usize = 64 << 10;

impl Rank {
    pub(super) fn new(pid: Pid, pmi: UnixStream, out: OwnedFd, err: OwnedFd) -> Rank {
        let replies = VecDeque::new();
        Rank { pid, running: true, closed_at: None, pmi: Some(pmi), replies, out: Some(out), err: Some(err) }
    }

    /// Whether it can write no more.
    pub(super) fn is_mute(&self) -> bool {
        self.out.is_none() && self.err.is_none()
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

/// Standard input on its way to rank 0. Bounded by mpirun, which waits for acknowledgements.
#[derive(Debug)]
pub(super) struct Input {
    pipe: OwnedFd,
    queue: VecDeque<u8>,
    ended: bool,
}

impl Input {
    pub(super) fn new(pipe: OwnedFd) -> Input {
        Input { pipe, queue: VecDeque::new(), ended: false }
    }

    pub(super) fn push(&mut self, bytes: Vec<u8>) {
        self.queue.extend(bytes);
    }

    pub(super) fn end(&mut self) {
        self.ended = true;
    }
}

impl Agent {
    /// Something has arrived on a rank's PMI connection, or there is room for answers.
    pub(super) fn handle_pmi(&mut self, rank: u32) -> Result<(), ChannelError> {
        self.write_replies(rank)?;
        if self.ranks[rank as usize].replies.len() < REPLIES_BYTES_MAX {
            self.read_pmi(rank)?;
        }
        self.pump_server()
    }

    /// Reads once from a rank's PMI connection. Whether there may be more.
    pub(super) fn read_pmi(&mut self, rank: u32) -> Result<bool, ChannelError> {
        let Some(pmi) = &self.ranks[rank as usize].pmi else { return Ok(false) };
        match rustix::io::retry_on_intr(|| rustix::io::read(pmi, &mut self.chunk[..])) {
            Ok(0) | Err(Errno::CONNRESET) => {
                let this = &mut self.ranks[rank as usize];
                this.close_pmi();
                // Most likely it is about to end, and its end says more than this.
                this.closed_at = this.running.then(Instant::now);
                Ok(false)
            }
            Ok(got) => {
                self.server.handle_bytes(rank, &self.chunk[..got]);
                Ok(true)
            }
            Err(Errno::AGAIN) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Carries out what the PMI server says.
    pub(super) fn pump_server(&mut self) -> Result<(), ChannelError> {
        while let Some(output) = self.server.poll_output() {
            let rank = &mut self.ranks[output.rank as usize];
            if rank.pmi.is_some() {
                rank.replies.extend(output.bytes);
                self.write_replies(output.rank)?;
            }
        }
        while let Some(event) = self.server.poll_event() {
            let message = match event {
                Event::Barrier | Event::Finalized { .. } => continue,
                Event::Abort { rank, code, message } => ToFront::Abort { rank, code, message },
                Event::Violation { rank, malformed } => {
                    ToFront::Violation { rank, why: malformed.to_string() }
                }
                Event::Stuck { waiting, absent } => ToFront::Stuck { waiting, absent },
                Event::Spawn { rank, .. } => {
                    self.server.answer_spawn(rank, Err("spawn_is_not_supported".into()));
                    return self.pump_server();
                }
            };
            self.channel.send(&message, &[])?;
        }
        Ok(())
    }

    fn write_replies(&mut self, rank: u32) -> Result<(), ChannelError> {
        let this = &mut self.ranks[rank as usize];
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
            epoll::modify(&self.main, pmi, Token::Pmi(rank).data(), flags)?;
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
            if let Token::Output(rank, stream) = Token::of(event.data)
                && self.has_room()
            {
                self.read_output(rank, stream)?;
            }
        }
        Ok(())
    }

    /// Forwards one chunk of a rank's output. Whether there may be more.
    pub(super) fn read_output(&mut self, rank: u32, stream: Stream) -> Result<bool, ChannelError> {
        let Some(fd) = self.ranks[rank as usize].output(stream) else { return Ok(false) };
        match rustix::io::retry_on_intr(|| rustix::io::read(&*fd, &mut self.chunk[..])) {
            Ok(0) => {
                self.close_output(rank, stream)?;
                Ok(false)
            }
            Ok(got) => {
                self.unacknowledged += got;
                self.channel.send(&ToFront::Output { rank, stream }, &self.chunk[..got])?;
                Ok(true)
            }
            Err(Errno::AGAIN) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    pub(super) fn close_output(&mut self, rank: u32, stream: Stream) -> Result<(), ChannelError> {
        match self.ranks[rank as usize].output(stream).take() {
            Some(_) => self.channel.send(&ToFront::OutputEnd { rank, stream }, &[]),
            None => Ok(()),
        }
    }

    /// Writes standard input to rank 0 as far as it takes it.
    pub(super) fn feed_input(&mut self) -> Result<(), ChannelError> {
        let Some(input) = &mut self.input else { return Ok(()) };
        let mut taken = 0;
        let mut gone = false;
        while !input.queue.is_empty() {
            match rustix::io::retry_on_intr(|| rustix::io::write(&input.pipe, input.queue.as_slices().0)) {
                Ok(written) => {
                    input.queue.drain(..written);
                    taken += written;
                }
                Err(Errno::AGAIN) => break,
                // Rank 0 has closed its standard input: the rest is thrown away.
                Err(_) => {
                    taken += input.queue.len();
                    gone = true;
                    break;
                }
            }
        }
        if gone || (input.ended && input.queue.is_empty()) {
            self.input = None;
        } else {
            let flags = if input.queue.is_empty() { EventFlags::empty() } else { EventFlags::OUT };
            epoll::modify(&self.main, input.pipe.as_fd(), Token::Input.data(), flags)?;
        }
        self.acknowledge_input(taken)
    }

    pub(super) fn acknowledge_input(&mut self, bytes: usize) -> Result<(), ChannelError> {
        match u32::try_from(bytes) {
            Ok(bytes @ 1..) => self.channel.send(&ToFront::InputTaken { bytes }, &[]),
            _ => Ok(()),
        }
    }
}
