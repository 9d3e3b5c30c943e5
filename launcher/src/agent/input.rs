//! Standard input on its way to those ranks of this host that read it. Each gets all of it; the slowest sets the pace, and one
//! that closes its end is waited for no longer. Bounded by mpirun, which waits for acknowledgements.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::{self, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::world::Place;
use super::{Agent, Token};
use crate::channel::ChannelError;
use crate::proto::ToFront;

/// What has come and has not reached everybody.
#[derive(Debug, Default)]
pub(super) struct Input {
    readers: Vec<Reader>,
    queue: VecDeque<u8>,
    ended: bool,
}

/// A rank that reads.
#[derive(Debug)]
struct Reader {
    place: Place,
    pipe: OwnedFd,
    /// How much of the queue it has.
    at: usize,
}

impl Input {
    pub(super) fn add(&mut self, place: Place, pipe: OwnedFd) {
        self.readers.push(Reader { place, pipe, at: 0 });
    }

    pub(super) fn push(&mut self, bytes: Vec<u8>) {
        self.queue.extend(bytes);
    }

    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    /// What every reader has. Gives back how much that is.
    fn forget_what_all_have(&mut self) -> usize {
        let all_have = self.readers.iter().map(|reader| reader.at).min().unwrap_or(self.queue.len());
        self.queue.drain(..all_have);
        self.readers.iter_mut().for_each(|reader| reader.at -= all_have);
        all_have
    }
}

impl Reader {
    /// Whether nobody has the other end any more.
    fn is_gone(&self) -> bool {
        let mut fds = [PollFd::new(&self.pipe, PollFlags::OUT)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut fds, Some(&at_once)).is_ok() && fds[0].revents().contains(PollFlags::ERR)
    }

    /// Writes as far as it takes it. False where it is gone.
    fn feed(&mut self, queue: &VecDeque<u8>) -> bool {
        let (first, second) = queue.as_slices();
        while self.at < queue.len() {
            let rest = match self.at.checked_sub(first.len()) {
                None => &first[self.at..],
                Some(at) => &second[at..],
            };
            match rustix::io::retry_on_intr(|| rustix::io::write(&self.pipe, rest)) {
                Ok(written) => self.at += written,
                Err(Errno::AGAIN) => return true,
                Err(_) => return false,
            }
        }
        true
    }
}

impl Agent {
    /// A reader has room, or is gone. One that is gone would be said to be so again and again.
    pub(super) fn handle_reader(&mut self, place: Place) -> Result<(), ChannelError> {
        if let Some(input) = &mut self.input {
            input.readers.retain(|reader| reader.place != place || !reader.is_gone());
        }
        self.feed_input()
    }

    /// Writes standard input to those who read it, as far as they take it.
    pub(super) fn feed_input(&mut self) -> Result<(), ChannelError> {
        let Some(input) = &mut self.input else { return Ok(()) };
        let Input { readers, queue, ended } = input;
        readers.retain_mut(|reader| reader.feed(queue) && !(*ended && reader.at == queue.len()));
        for reader in readers {
            let flags = if reader.at == queue.len() { EventFlags::empty() } else { EventFlags::OUT };
            epoll::modify(&self.main, reader.pipe.as_fd(), Token::Input(reader.place).data(), flags)?;
        }
        let taken = input.forget_what_all_have();
        if input.readers.is_empty() {
            self.input = None;
        }
        self.acknowledge_input(taken);
        Ok(())
    }

    pub(super) fn acknowledge_input(&mut self, bytes: usize) {
        if let Ok(bytes @ 1..) = u32::try_from(bytes) {
            self.report(ToFront::InputTaken { bytes }, &[]);
        }
    }
}
