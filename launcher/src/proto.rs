//! What mpirun and its node agent say to each other, and how it travels.
//!
//! ```text
//! frame = head length (u32, little endian) | tail length (u32) | head (postcard) | tail (raw bytes)
//! ```
//! The tail is what ranks read and write: it is never looked at, and copied once on each side. Output has a window: an
//! agent sends at most [`OUTPUT_WINDOW_BYTES`] that mpirun has not acknowledged, so a reader that stops costs memory on
//! neither side and never delays what else there is to say. Input has one of its own.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};

use serde::{Deserialize, Serialize};

use crate::cores::Binding;

/// Output that may be under way without an acknowledgement.
pub const OUTPUT_WINDOW_BYTES: usize = 1 << 20;
/// Standard input that may be under way without an acknowledgement.
pub const INPUT_WINDOW_BYTES: usize = 256 << 10;
/// One read from a rank or from standard input: the capacity of a pipe.
pub const CHUNK_BYTES_MAX: usize = 64 << 10;

/// Which of a rank's two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// Some ranks that run the same program. Names and paths are bytes: they need not be UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// How many.
    pub ranks: u32,
    /// The program as the user wrote it.
    pub program: Vec<u8>,
    /// Its arguments.
    pub args: Vec<Vec<u8>>,
    /// Working directory, relative to the launch directory; the launch directory itself where there is none.
    pub wdir: Option<Vec<u8>>,
}

/// A job as an agent needs to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// Unique name.
    pub job: String,
    /// The blocks of the command line, in rank order.
    pub blocks: Vec<Block>,
    /// Environment of all ranks, before each one's own variables.
    pub env: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where mpirun was called.
    pub dir: Vec<u8>,
    /// How ranks are placed on cores.
    pub binding: Binding,
}

impl Launch {
    /// Number of ranks.
    pub fn size(&self) -> u32 {
        self.blocks.iter().map(|block| block.ranks).sum()
    }
}

/// From mpirun to its agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToAgent {
    /// Start the job. Said first, and once.
    Launch(Launch),
    /// Bytes (the tail) for standard input.
    Input,
    /// Standard input is at its end.
    InputEnd,
    /// So much output has been dealt with.
    OutputTaken {
        /// Bytes.
        bytes: u32,
    },
    /// Nobody reads this output any more: close it, so that ranks that write to it learn so in the usual way.
    OutputClosed(Stream),
    /// Send all ranks this signal.
    Signal(i32),
    /// End all ranks: SIGTERM, and after the grace SIGKILL. Said again, the shorter grace counts.
    End {
        /// Milliseconds; 0 means SIGKILL at once.
        grace_ms: u32,
    },
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// From an agent to mpirun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToFront {
    /// All ranks run; their process ids in rank order.
    Launched {
        /// Process ids.
        pids: Vec<u32>,
    },
    /// The job cannot be started; nothing of it is left. Last message.
    Refused {
        /// What mpirun should exit with.
        code: u8,
        /// Why, and what to do.
        why: String,
    },
    /// A rank has written something (the tail).
    Output {
        /// Who.
        rank: u32,
        /// Where.
        stream: Stream,
    },
    /// A rank will write no more.
    OutputEnd {
        /// Who.
        rank: u32,
        /// Where.
        stream: Stream,
    },
    /// So much standard input has reached its rank, or was thrown away with it.
    InputTaken {
        /// Bytes.
        bytes: u32,
    },
    /// A rank wants the job to end.
    Abort {
        /// Who.
        rank: u32,
        /// Exit code it asks for.
        code: i32,
        /// Why; may be empty.
        message: String,
    },
    /// A rank sent its launcher something that is not PMI-1.
    Violation {
        /// Who.
        rank: u32,
        /// What, and what is wrong with it.
        why: String,
    },
    /// `waiting` is in a fence that `absent` can no longer enter.
    Stuck {
        /// A rank that waits.
        waiting: u32,
        /// A rank that has left.
        absent: u32,
    },
    /// A rank that runs on has closed its PMI connection without saying goodbye.
    Silenced {
        /// Who.
        rank: u32,
    },
    /// A rank's process has ended.
    Exited {
        /// Who.
        rank: u32,
        /// How.
        outcome: Outcome,
        /// It was in a PMI conversation and had not said goodbye.
        unfinished: bool,
    },
    /// Nothing of the job is left on this node. Last message.
    Ended {
        /// Ranks that had to be killed because they did not leave within the grace.
        killed: u32,
        /// Processes that even SIGKILL has not ended yet: they hang in the kernel.
        unkillable: u32,
    },
}

/// The other side, or the way to it, is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// Nobody is there any more.
    #[error("the connection has ended")]
    Closed,
    /// The system's.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Not one of our frames.
    #[error("the other side sent something that is no frame")]
    Malformed,
}

impl From<rustix::io::Errno> for ChannelError {
    fn from(errno: rustix::io::Errno) -> ChannelError {
        match errno {
            rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET => ChannelError::Closed,
            other => ChannelError::Io(other.into()),
        }
    }
}

/// A nonblocking socket that carries frames both ways.
#[derive(Debug)]
pub struct Channel<Fd> {
    fd: Fd,
    inbox: Vec<u8>,
    start: usize,
    outbox: VecDeque<u8>,
}

const PREFIX_BYTES: usize = 8;
/// A head holds a command line and an environment at most; the kernel allows 6 MiB of those to a process.
const HEAD_BYTES_MAX: usize = 16 << 20;

impl<Fd: AsFd> Channel<Fd> {
    /// A channel over `fd`, which it makes nonblocking.
    ///
    /// # Errors
    /// The system's.
    pub fn new(fd: Fd) -> io::Result<Channel<Fd>> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Channel { fd, inbox: Vec::new(), start: 0, outbox: VecDeque::new() })
    }

    /// For polling.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Whether something waits to be written.
    pub fn wants_write(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Sends a message with its tail, or queues what does not fit. The queue is bounded by the two windows and the few
    /// messages beside them.
    ///
    /// # Errors
    /// The other side is gone.
    pub fn send(&mut self, head: &impl Serialize, tail: &[u8]) -> Result<(), ChannelError> {
        let head =
            postcard::to_allocvec(head).expect("messages have lengths and no maps, so they can be encoded");
        let mut prefix = [0; PREFIX_BYTES];
        prefix[..4].copy_from_slice(&length(&head).to_le_bytes());
        prefix[4..].copy_from_slice(&length(tail).to_le_bytes());
        let parts = [&prefix[..], &head, tail];
        let mut written = 0;
        if self.outbox.is_empty() {
            let slices = parts.map(IoSlice::new);
            written = match rustix::io::retry_on_intr(|| rustix::io::writev(&self.fd, &slices)) {
                Ok(written) => written,
                Err(rustix::io::Errno::AGAIN) => 0,
                Err(errno) => return Err(errno.into()),
            };
        }
        for part in parts {
            let skip = written.min(part.len());
            written -= skip;
            self.outbox.extend(&part[skip..]);
        }
        Ok(())
    }

    /// Writes what is queued, as far as it goes without waiting.
    ///
    /// # Errors
    /// The other side is gone.
    pub fn flush(&mut self) -> Result<(), ChannelError> {
        while !self.outbox.is_empty() {
            let (front, _) = self.outbox.as_slices();
            match rustix::io::retry_on_intr(|| rustix::io::write(&self.fd, front)) {
                Ok(written) => drop(self.outbox.drain(..written)),
                Err(rustix::io::Errno::AGAIN) => break,
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Reads once, without waiting. Then take what has come with [`receive`](Channel::receive), until there is nothing.
    ///
    /// # Errors
    /// The other side is gone.
    pub fn fill(&mut self) -> Result<(), ChannelError> {
        const READ_BYTES: usize = 256 << 10;
        self.inbox.drain(..self.start);
        self.start = 0;
        let kept = self.inbox.len();
        self.inbox.resize(kept + READ_BYTES, 0);
        let got = rustix::io::retry_on_intr(|| rustix::io::read(&self.fd, &mut self.inbox[kept..]));
        self.inbox.truncate(kept + got.unwrap_or(0));
        match got {
            Ok(0) => Err(ChannelError::Closed),
            Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The next whole message and its tail; `None` when more must be read first.
    ///
    /// # Errors
    /// The bytes are none of our frames.
    pub fn receive<M: for<'a> Deserialize<'a>>(&mut self) -> Result<Option<(M, Vec<u8>)>, ChannelError> {
        let bytes = &self.inbox[self.start..];
        let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
        let [a, b, c, d, e, f, g, h] = *prefix;
        let head = u32::from_le_bytes([a, b, c, d]) as usize;
        let tail = u32::from_le_bytes([e, f, g, h]) as usize;
        if head > HEAD_BYTES_MAX || tail > CHUNK_BYTES_MAX {
            return Err(ChannelError::Malformed);
        }
        if rest.len() < head + tail {
            return Ok(None);
        }
        let message = postcard::from_bytes(&rest[..head]).map_err(|_| ChannelError::Malformed)?;
        let tail = rest[head..head + tail].to_vec();
        self.start += PREFIX_BYTES + head + tail.len();
        Ok(Some((message, tail)))
    }
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("heads and tails are far below 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    fn pair() -> (Channel<UnixStream>, Channel<UnixStream>) {
        let (a, b) = UnixStream::pair().unwrap();
        (Channel::new(a).unwrap(), Channel::new(b).unwrap())
    }

    #[test]
    fn frames_larger_than_the_socket_arrive_whole_and_in_order() {
        let (mut ours, mut theirs) = pair();
        let tail = |i: u8| vec![i; CHUNK_BYTES_MAX];
        for i in 0..40 {
            ours.send(&ToFront::Output { rank: i.into(), stream: Stream::Err }, &tail(i)).unwrap();
        }
        let mut got = 0;
        while got < 40 {
            ours.flush().unwrap();
            theirs.fill().unwrap();
            while let Some((message, bytes)) = theirs.receive::<ToFront>().unwrap() {
                assert_eq!(message, ToFront::Output { rank: got.into(), stream: Stream::Err });
                assert_eq!(bytes, tail(got));
                got += 1;
            }
        }
        assert!(!ours.wants_write());
    }

    #[test]
    fn the_end_and_a_stranger_are_told_apart() {
        let (a, mut b) = UnixStream::pair().unwrap();
        let mut ours = Channel::new(a).unwrap();
        b.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        ours.fill().unwrap();
        assert!(matches!(ours.receive::<ToAgent>(), Err(ChannelError::Malformed)));
        drop(b);
        assert!(matches!(ours.fill(), Err(ChannelError::Closed)));
    }

    #[test]
    fn a_message_without_its_last_byte_is_not_there_yet() {
        let (a, mut b) = UnixStream::pair().unwrap();
        let mut ours = Channel::new(a).unwrap();
        let head = postcard::to_allocvec(&ToAgent::Signal(10)).unwrap();
        let mut frame = vec![u8::try_from(head.len()).unwrap(), 0, 0, 0, 0, 0, 0, 0];
        frame.extend(head);
        let (last, first) = frame.split_last().unwrap();
        b.write_all(first).unwrap();
        ours.fill().unwrap();
        assert!(ours.receive::<ToAgent>().unwrap().is_none());
        b.write_all(&[*last]).unwrap();
        ours.fill().unwrap();
        assert_eq!(ours.receive::<ToAgent>().unwrap().unwrap().0, ToAgent::Signal(10));
    }
}
