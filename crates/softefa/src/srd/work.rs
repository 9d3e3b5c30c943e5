//! What is asked of a queue pair and what it answers: plain data.

use std::fmt;
use std::net::Ipv4Addr;

use super::Status;
use crate::wire::{HEADER_BYTES, Header};

/// Time in nanoseconds since any fixed moment; the caller's clock.
pub type Nanos = u64;

/// Name of a device on the network. It carries the host's IPv4 address and the number of the device on that host:
/// eight zero bytes, the number (big-endian), `ff ff`, the address. Device 0 therefore reads `::ffff:a.b.c.d`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gid(pub [u8; 16]);

impl Gid {
    /// The name of device number `device` of a host.
    pub fn new(host: Ipv4Addr, device: u16) -> Gid {
        let mut bytes = [0; 16];
        bytes[8..10].copy_from_slice(&device.to_be_bytes());
        bytes[10..12].copy_from_slice(&[0xff, 0xff]);
        bytes[12..].copy_from_slice(&host.octets());
        Gid(bytes)
    }

    /// The host's address, if the name is of the form that [`Gid::new`] makes.
    pub fn host(self) -> Option<Ipv4Addr> {
        let [0, 0, 0, 0, 0, 0, 0, 0, _, _, 0xff, 0xff, a, b, c, d] = self.0 else { return None };
        Some(Ipv4Addr::new(a, b, c, d))
    }

    /// The number of the device on its host; meaningful where [`Gid::host`] answers.
    pub fn device(self) -> u16 {
        u16::from_be_bytes([self.0[8], self.0[9]])
    }
}

impl fmt::Debug for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host() {
            Some(host) if self.device() == 0 => write!(f, "{host}"),
            Some(host) => write!(f, "{host}/{}", self.device()),
            None => write!(f, "{:02x?}", self.0),
        }
    }
}

/// One queue pair on the network. The number is at the same time its UDP port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node {
    /// Its device.
    pub gid: Gid,
    /// Its number.
    pub qpn: u16,
}

/// A queue pair and the key that shows that the sender knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Address {
    /// The queue pair.
    pub node: Node,
    /// Its queue key. A packet with another one is refused with [`Status::BadQueuePair`].
    pub qkey: u32,
}

/// A piece of this process's memory, as an address in it. It is a claim, not a reference: the core computes with it and
/// only the host of the core (see [`super::Host`]) or the socket touches the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Address of the first byte.
    pub at: u64,
    /// Bytes.
    pub len: u32,
}

/// Longest list of pieces: devices of today have two for sends, three for receives.
pub const SPANS_MAX: usize = 4;

/// Up to [`SPANS_MAX`] pieces of memory that are one row of bytes to the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spans {
    list: [Span; SPANS_MAX],
    count: u8,
}

impl Spans {
    /// The pieces in order, empty ones left out. `None` if there are more than [`SPANS_MAX`] or 2^32 bytes and more.
    pub fn new(pieces: impl IntoIterator<Item = Span>) -> Option<Spans> {
        let mut spans = Spans::default();
        let mut total = 0u32;
        for piece in pieces.into_iter().filter(|piece| piece.len > 0) {
            total = total.checked_add(piece.len)?;
            *spans.list.get_mut(usize::from(spans.count))? = piece;
            spans.count += 1;
        }
        Some(spans)
    }

    /// A single piece.
    pub fn one(at: u64, len: u32) -> Spans {
        let mut spans = Spans::default();
        if len > 0 {
            spans.list[0] = Span { at, len };
            spans.count = 1;
        }
        spans
    }

    /// All bytes together.
    pub fn len(&self) -> u32 {
        self.iter().map(|span| span.len).sum()
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The pieces in order.
    pub fn iter(&self) -> impl Iterator<Item = Span> + '_ {
        self.list[..usize::from(self.count)].iter().copied()
    }

    /// The part of `len` bytes that starts at byte `offset` of the row. What lies beyond the end is left out.
    pub fn part(&self, offset: u32, len: u32) -> Spans {
        let mut part = Spans::default();
        let (mut skip, mut want) = (offset, len);
        for span in self.iter() {
            if skip >= span.len {
                skip -= span.len;
                continue;
            }
            let take = want.min(span.len - skip);
            if take == 0 {
                break;
            }
            part.list[usize::from(part.count)] = Span { at: span.at + u64::from(skip), len: take };
            part.count += 1;
            skip = 0;
            want -= take;
        }
        part
    }
}

/// Most bytes that travel inside a work request.
pub const INLINE_MAX: usize = 64;

/// A few bytes held by value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Inline {
    bytes: [u8; INLINE_MAX],
    len: u8,
}

impl Inline {
    /// A copy of `bytes`; `None` if they are more than [`INLINE_MAX`].
    pub fn new(bytes: &[u8]) -> Option<Inline> {
        let mut inline = Inline { bytes: [0; INLINE_MAX], len: u8::try_from(bytes.len()).ok()? };
        inline.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(inline)
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Debug for Inline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Inline({:02x?})", self.as_slice())
    }
}

/// The bytes of a send or a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Copied when posted; the caller's memory is free at once.
    Inline(Inline),
    /// Stay where they are until the work has completed.
    Spans(Spans),
}

impl Payload {
    /// Bytes.
    pub fn len(&self) -> u32 {
        match self {
            Payload::Inline(inline) => u32::from(inline.len),
            Payload::Spans(spans) => spans.len(),
        }
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The part of `len` bytes from byte `offset` on, as a packet carries it.
    pub(super) fn part(&self, offset: u32, len: u32) -> Body {
        match self {
            // One packet always holds all of it.
            Payload::Inline(inline) if len > 0 => Body::Inline(*inline),
            Payload::Inline(_) => Body::Spans(Spans::default()),
            Payload::Spans(spans) => Body::Spans(spans.part(offset, len)),
        }
    }
}

/// What can be asked of a queue pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// One datagram into a receive that was posted there.
    Send {
        /// Its bytes, at most the device's message size.
        payload: Payload,
        /// Number that the receiver's completion carries.
        imm: Option<u32>,
    },
    /// Remote memory into local memory.
    Read {
        /// Where the bytes go; also says how many.
        local: Spans,
        /// Key of the remote memory.
        rkey: u32,
        /// Address there.
        remote: u64,
    },
    /// Local memory into remote memory.
    Write {
        /// The bytes.
        payload: Payload,
        /// Key of the remote memory.
        rkey: u32,
        /// Address there.
        remote: u64,
        /// Number of a completion there, told when all bytes are in place.
        imm: Option<u32>,
    },
}

/// What a [`Completion`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// A send of ours.
    Send,
    /// A read of ours.
    Read,
    /// A write of ours, with or without immediate data.
    Write,
    /// A datagram came in.
    Receive {
        /// From whom.
        from: Node,
        /// Its bytes.
        bytes: u32,
        /// The sender's number.
        imm: Option<u32>,
    },
    /// A write with immediate data has come in, all of it.
    Written {
        /// From whom.
        from: Node,
        /// Bytes of the whole write.
        bytes: u32,
        /// The writer's number.
        imm: u32,
        /// No posted receive was used up for it, and `wr_id` means nothing ([`super::Config::unsolicited`]).
        unsolicited: bool,
    },
}

/// A piece of work is over. Completions of one queue pair come in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// What the poster called it.
    pub wr_id: u64,
    /// How it ended.
    pub status: Status,
    /// What it was.
    pub done: Done,
}

/// The bytes that follow a header on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Held by value.
    Inline(Inline),
    /// In this process's memory; valid until anything else is asked of the core or of the memory's owner.
    Spans(Spans),
    /// A copy, made because the packet was held back.
    Owned(Box<[u8]>),
}

/// A packet that must go out now: the header's bytes, then the body's, as one datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub to: Node,
    /// The first bytes of the datagram.
    pub header: [u8; HEADER_BYTES],
    /// The others.
    pub body: Body,
}

impl Body {
    /// Bytes.
    pub fn len(&self) -> usize {
        match self {
            Body::Inline(inline) => inline.as_slice().len(),
            Body::Spans(spans) => spans.len() as usize,
            Body::Owned(bytes) => bytes.len(),
        }
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Transmit {
    /// A packet without a body.
    pub(super) fn bare(to: Node, header: &Header) -> Transmit {
        Transmit { to, header: header.to_bytes(), body: Body::Spans(Spans::default()) }
    }
}

/// The send queue holds as much work as it was made for; poll for completions first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;
