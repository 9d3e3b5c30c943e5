//! Frames over two descriptors, one to read and one to write: a socket and its duplicate on our own host, the pipes of
//! ssh or of any other command that starts an agent elsewhere.
//!
//! ```text
//! stream = [banner] "\nselvedge-node-agent 3\n" frame...     from an agent up
//! stream = frame...                                          down to an agent
//! frame  = head length (u32, little endian) | tail length (u32) | head (postcard) | tail (raw bytes)
//! ```
//! The greeting is there because shells, ssh and batch systems like to print something before the program that they
//! start. Whatever comes before it is skipped, within bounds.
//!
//! From a host that has joined the stream comes over TCP, in the records of a [`Seal`], and
//! without a greeting: what there is to be said before the first frame has been said at the door.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

use crate::join::noise::{Forged, Seal};
use crate::proto::CHUNK_BYTES_MAX;

/// What an agent says before its first frame, without the number of the protocol and the end of the line.
const GREETING: &[u8] = b"\nselvedge-node-agent ";
/// The number of the protocol: both sides have the same, or they do not talk.
pub(crate) const PROTOCOL: &str = "3";
/// What may come before the greeting: some screens of text.
const BANNER_BYTES_MAX: usize = 64 << 10;
/// What is shown of a banner after which no greeting came.
const BANNER_SHOWN_BYTES: usize = 300;

/// The other side, or the way to it, is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// Nobody is there any more.
    #[error("the connection has ended")]
    Closed,
    /// The system's.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Not from the one whom this connection was made with, or not as it was sent.
    #[error("what came over the connection was not sealed by the other side")]
    Forged,
    /// Not one of our frames.
    #[error("the other side sent something that is no frame")]
    Malformed,
    /// Nobody has been heard for so many seconds.
    #[error("nothing was heard from mpirun for {0} s")]
    Silent(u64),
    /// The guardian of this agent has gone.
    #[error("the process that guards it was killed")]
    Unguarded,
    /// No greeting within what a banner may be.
    #[error("it has printed {BANNER_BYTES_MAX} bytes, and a node agent's greeting was not among them")]
    Banner,
    /// An agent of another version.
    #[error("it is a node agent of another version (it speaks protocol {0}, we speak {PROTOCOL})")]
    Version(String),
}

impl From<Forged> for ChannelError {
    fn from(_: Forged) -> ChannelError {
        ChannelError::Forged
    }
}

impl From<rustix::io::Errno> for ChannelError {
    fn from(errno: rustix::io::Errno) -> ChannelError {
        match errno {
            rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET => ChannelError::Closed,
            other => ChannelError::Io(other.into()),
        }
    }
}

/// A nonblocking connection that carries frames both ways.
///
/// Nothing that goes wrong with writing is an error: whoever does not read any more has gone, or will be found silent,
/// and what it has said before is still to be read.
#[derive(Debug)]
pub struct Channel {
    input: OwnedFd,
    output: OwnedFd,
    inbox: Vec<u8>,
    start: usize,
    outbox: VecDeque<u8>,
    is_read: bool,
    sealed: Option<Box<Sealed>>,
}

/// What a connection that strangers could touch has beside.
#[derive(Debug)]
struct Sealed {
    seal: Seal,
    /// What has come and is not opened: less than a record, between two calls.
    records: Vec<u8>,
}

const PREFIX_BYTES: usize = 8;
/// A head holds a command line and an environment, of which the kernel allows 6 MiB to a process, the place of every
/// rank, or the keys and values of a fence.
const HEAD_BYTES_MAX: usize = 64 << 20;

impl Channel {
    /// A channel that reads `input` and writes `output`, which it makes nonblocking.
    ///
    /// # Errors
    /// The system's.
    pub fn new(input: OwnedFd, output: OwnedFd) -> io::Result<Channel> {
        rustix::io::ioctl_fionbio(&input, true)?;
        rustix::io::ioctl_fionbio(&output, true)?;
        Ok(Channel {
            input,
            output,
            inbox: Vec::new(),
            start: 0,
            outbox: VecDeque::new(),
            is_read: true,
            sealed: None,
        })
    }

    /// A channel over a socket.
    ///
    /// # Errors
    /// The system's.
    pub fn over(socket: impl Into<OwnedFd>) -> io::Result<Channel> {
        let socket = socket.into();
        Channel::new(socket.try_clone()?, socket)
    }

    /// A channel over a socket with everything sealed, both ways.
    ///
    /// # Errors
    /// The system's.
    pub fn sealed(socket: impl Into<OwnedFd>, seal: Seal) -> io::Result<Channel> {
        let sealed = Some(Box::new(Sealed { seal, records: Vec::new() }));
        Ok(Channel { sealed, ..Channel::over(socket)? })
    }

    /// For polling: readable when there is something to [`fill`](Channel::fill).
    pub fn input(&self) -> BorrowedFd<'_> {
        self.input.as_fd()
    }

    /// For polling while [`wants_write`](Channel::wants_write): writable when there is room.
    pub fn output(&self) -> BorrowedFd<'_> {
        self.output.as_fd()
    }

    /// Whether something waits to be written.
    pub fn wants_write(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Says that we are a node agent, before the first frame.
    pub fn greet(&mut self) {
        let greeting = [GREETING, PROTOCOL.as_bytes(), b"\n"].concat();
        self.write(&[&greeting]);
    }

    /// Skips what has come before the greeting, and the greeting. Whether it has come.
    ///
    /// # Errors
    /// It has not, and too much else has; or it is another version's.
    pub fn skip_greeting(&mut self) -> Result<bool, ChannelError> {
        let bytes = &self.inbox[self.start..];
        let mut from = 0;
        while let Some(at) = find(&bytes[from..], GREETING) {
            let number = from + at + GREETING.len();
            let digits = bytes[number..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            match bytes.get(number + digits) {
                Some(b'\n') if digits > 0 => {
                    let version = String::from_utf8_lossy(&bytes[number..number + digits]);
                    if version != PROTOCOL {
                        return Err(ChannelError::Version(version.into_owned()));
                    }
                    self.start += number + digits + 1;
                    return Ok(true);
                }
                // Something that only begins like it; the greeting itself may start with the end of this line.
                Some(_) => from = number - 1,
                None => break,
            }
        }
        if bytes.len() > BANNER_BYTES_MAX { Err(ChannelError::Banner) } else { Ok(false) }
    }

    /// The end of what has come instead of a greeting, for people; may be empty.
    pub fn banner(&self) -> String {
        let bytes = &self.inbox[self.start..];
        let tail = &bytes[bytes.len().saturating_sub(BANNER_SHOWN_BYTES)..];
        String::from_utf8_lossy(tail).trim().to_owned()
    }

    /// Sends a message with its tail, or queues what does not fit. The queue is bounded by the windows of output and
    /// input and the few messages beside them.
    pub fn send(&mut self, head: &impl Serialize, tail: &[u8]) {
        let head =
            postcard::to_allocvec(head).expect("messages have lengths and no maps, so they can be encoded");
        let mut prefix = [0; PREFIX_BYTES];
        prefix[..4].copy_from_slice(&length(&head).to_le_bytes());
        prefix[4..].copy_from_slice(&length(tail).to_le_bytes());
        self.write(&[&prefix, &head, tail]);
    }

    fn write(&mut self, parts: &[&[u8]]) {
        if !self.is_read {
            return;
        }
        match &mut self.sealed {
            None => self.put(parts),
            Some(sealed) => {
                let mut records = Vec::new();
                sealed.seal.seal(&parts.concat(), &mut records);
                self.put(&[&records]);
            }
        }
    }

    fn put(&mut self, parts: &[&[u8]]) {
        let mut written = 0;
        if self.outbox.is_empty() {
            let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
            written = match rustix::io::retry_on_intr(|| rustix::io::writev(&self.output, &slices)) {
                Ok(written) => written,
                Err(rustix::io::Errno::AGAIN) => 0,
                Err(_) => return self.give_up_writing(),
            };
        }
        for part in parts {
            let skip = written.min(part.len());
            written -= skip;
            self.outbox.extend(&part[skip..]);
        }
    }

    /// Writes what is queued, as far as it goes without waiting.
    pub fn flush(&mut self) {
        while !self.outbox.is_empty() {
            let (front, _) = self.outbox.as_slices();
            match rustix::io::retry_on_intr(|| rustix::io::write(&self.output, front)) {
                Ok(written) => drop(self.outbox.drain(..written)),
                Err(rustix::io::Errno::AGAIN) => break,
                Err(_) => self.give_up_writing(),
            }
        }
    }

    fn give_up_writing(&mut self) {
        self.is_read = false;
        self.outbox = VecDeque::new();
    }

    /// Reads once, without waiting; how much has come. Then take it with [`receive`](Channel::receive), until there is
    /// nothing.
    ///
    /// # Errors
    /// The other side is gone, or is not the one it was.
    pub fn fill(&mut self) -> Result<usize, ChannelError> {
        self.inbox.drain(..self.start);
        self.start = 0;
        let Some(sealed) = &mut self.sealed else { return read(&self.input, &mut self.inbox) };
        let got = read(&self.input, &mut sealed.records)?;
        sealed.seal.open(&mut sealed.records, &mut self.inbox)?;
        Ok(got)
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

/// Reads once, without waiting, and appends what has come. How much that is.
fn read(input: &OwnedFd, bytes: &mut Vec<u8>) -> Result<usize, ChannelError> {
    const READ_BYTES: usize = 256 << 10;
    let kept = bytes.len();
    bytes.resize(kept + READ_BYTES, 0);
    let got = rustix::io::retry_on_intr(|| rustix::io::read(input, &mut bytes[kept..]));
    bytes.truncate(kept + got.unwrap_or(0));
    match got {
        Ok(0) => Err(ChannelError::Closed),
        Ok(bytes) => Ok(bytes),
        Err(rustix::io::Errno::AGAIN) => Ok(0),
        Err(errno) => Err(errno.into()),
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("heads and tails are far below 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Member, Stream, ToAgent, ToFront};
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    fn pair() -> (Channel, Channel) {
        let (a, b) = UnixStream::pair().unwrap();
        (Channel::over(a).unwrap(), Channel::over(b).unwrap())
    }

    fn rank(number: u8) -> Member {
        Member { world: 0, rank: number.into() }
    }

    #[test]
    fn frames_larger_than_the_socket_arrive_whole_and_in_order() {
        let (mut ours, mut theirs) = pair();
        let tail = |i: u8| vec![i; CHUNK_BYTES_MAX];
        for i in 0..40 {
            ours.send(&ToFront::Output { who: rank(i), stream: Stream::Err }, &tail(i));
        }
        let mut got = 0;
        while got < 40 {
            ours.flush();
            theirs.fill().unwrap();
            while let Some((message, bytes)) = theirs.receive::<ToFront>().unwrap() {
                assert_eq!(message, ToFront::Output { who: rank(got), stream: Stream::Err });
                assert_eq!(bytes, tail(got));
                got += 1;
            }
        }
        assert!(!ours.wants_write());
    }

    #[test]
    fn frames_go_over_two_pipes_as_over_a_socket() {
        let (from_us, to_them) = rustix::pipe::pipe().unwrap();
        let (from_them, to_us) = rustix::pipe::pipe().unwrap();
        let mut ours = Channel::new(from_them, to_them).unwrap();
        let mut theirs = Channel::new(from_us, to_us).unwrap();
        ours.send(&ToAgent::Signal(10), b"tail");
        theirs.fill().unwrap();
        assert_eq!(theirs.receive().unwrap(), Some((ToAgent::Signal(10), b"tail".to_vec())));
        theirs.send(&ToAgent::Signal(12), b"");
        drop(theirs);
        ours.send(&ToAgent::InputEnd, b"nobody reads this");
        assert!(!ours.wants_write(), "and it is not kept");
        ours.fill().unwrap();
        assert_eq!(ours.receive().unwrap(), Some((ToAgent::Signal(12), Vec::new())));
        assert!(matches!(ours.fill(), Err(ChannelError::Closed)));
    }

    #[test]
    fn sealed_frames_arrive_and_nothing_else_is_taken_for_one() {
        let (a, b) = UnixStream::pair().unwrap();
        let (ours, theirs) = crate::join::noise::pair(&crate::join::secret::Secret::for_test(1));
        let mut stranger = b.try_clone().unwrap();
        let (mut ours, mut theirs) = (Channel::sealed(a, ours).unwrap(), Channel::sealed(b, theirs).unwrap());
        let tail = vec![7; CHUNK_BYTES_MAX];
        for _ in 0..20 {
            theirs.send(&ToFront::Output { who: rank(1), stream: Stream::Out }, &tail);
        }
        let mut got = 0;
        while got < 20 {
            theirs.flush();
            ours.fill().unwrap();
            while let Some((message, bytes)) = ours.receive::<ToFront>().unwrap() {
                assert_eq!(
                    (message, bytes),
                    (ToFront::Output { who: rank(1), stream: Stream::Out }, tail.clone())
                );
                got += 1;
            }
        }
        stranger.write_all(&[20, 0].iter().chain(&[0; 20]).copied().collect::<Vec<u8>>()).unwrap();
        assert!(matches!(ours.fill(), Err(ChannelError::Forged)));
        assert!(ours.receive::<ToFront>().unwrap().is_none());
    }

    #[test]
    fn the_end_and_a_stranger_are_told_apart() {
        let (a, mut b) = UnixStream::pair().unwrap();
        let mut ours = Channel::over(a).unwrap();
        b.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        ours.fill().unwrap();
        assert!(matches!(ours.receive::<ToAgent>(), Err(ChannelError::Malformed)));
        drop(b);
        assert!(matches!(ours.fill(), Err(ChannelError::Closed)));
    }

    #[test]
    fn a_message_without_its_last_byte_is_not_there_yet() {
        let (a, mut b) = UnixStream::pair().unwrap();
        let mut ours = Channel::over(a).unwrap();
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

    #[test]
    fn a_banner_is_skipped_however_it_is_cut() {
        let (a, mut b) = UnixStream::pair().unwrap();
        let mut agent = Channel::over(b.try_clone().unwrap()).unwrap();
        let mut ours = Channel::over(a).unwrap();
        for piece in ["Last login: yesterday\nselvedge-", "node-agent is not what ", "we say here"] {
            b.write_all(piece.as_bytes()).unwrap();
            ours.fill().unwrap();
            assert!(!ours.skip_greeting().unwrap());
        }
        assert!(ours.banner().ends_with("what we say here"));
        agent.greet();
        agent.send(&ToAgent::Signal(1), b"");
        ours.fill().unwrap();
        assert!(ours.skip_greeting().unwrap());
        assert_eq!(ours.receive().unwrap(), Some((ToAgent::Signal(1), Vec::new())));
    }

    #[test]
    fn a_banner_has_bounds_and_another_version_is_named() {
        let (a, mut b) = UnixStream::pair().unwrap();
        let mut ours = Channel::over(a).unwrap();
        b.write_all(&vec![b'x'; BANNER_BYTES_MAX + 1]).unwrap();
        ours.fill().unwrap();
        assert!(matches!(ours.skip_greeting(), Err(ChannelError::Banner)));
        let (a, mut b) = UnixStream::pair().unwrap();
        let mut ours = Channel::over(a).unwrap();
        b.write_all(b"\nselvedge-node-agent 77\n").unwrap();
        ours.fill().unwrap();
        assert!(matches!(ours.skip_greeting(), Err(ChannelError::Version(version)) if version == "77"));
    }
}
