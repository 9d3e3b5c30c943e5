//! Everything that crosses the wire, and nothing else. The prose is in docs/PROTOCOL.md; the two move together.
//!
//! All integers are little endian. Every packet starts with the same four bytes: kind, version and flags, and a
//! piggybacked return of credit. Parsing never panics and never allocates; what it accepts, the encoders of this file
//! produce byte for byte.

use selvedge_transport::Key;

/// Version of the protocol, 0..=15. Two ranks that speak different versions refuse each other.
pub const VERSION: u8 = 3;

/// Bytes before the payload of an eager message. With 48 bytes of payload it is one cache line.
pub const EAGER_HEADER_BYTES: usize = 16;
/// Bytes of a request to send.
pub const RTS_BYTES: usize = EAGER_HEADER_BYTES + 32;
/// Bytes before the payload of a piece of a windowed message.
pub const DATA_HEADER_BYTES: usize = PREFIX_BYTES + 16;
/// Bytes before the payload of a synchronous message that fits a packet.
pub const SYNC_HEADER_BYTES: usize = EAGER_HEADER_BYTES + 8;
/// Bytes before the payload of a part of a train.
pub const PART_HEADER_BYTES: usize = EAGER_HEADER_BYTES + 16;
/// The longest control packet, [`Control::CtsWrite`].
pub const CONTROL_BYTES_MAX: usize = PREFIX_BYTES + 48;

/// Kind, version and flags, credit, and four bytes that control packets leave zero.
const PREFIX_BYTES: usize = 8;

const KIND_EAGER: u8 = 1;
const KIND_RTS: u8 = 2;
const KIND_CTS: u8 = 3;
const KIND_CTS_WRITE: u8 = 4;
const KIND_GRANT: u8 = 5;
const KIND_DATA: u8 = 6;
const KIND_FIN: u8 = 7;
const KIND_WRITTEN: u8 = 8;
const KIND_REFUSED: u8 = 9;
const KIND_CREDIT: u8 = 10;
const KIND_PART: u8 = 11;
const KIND_SYNC: u8 = 12;

const VERSION_MASK: u8 = 0x0f;
/// Eager, RTS, PART and SYNC: the message has no sequence number; its tag is 64 bits wide.
const FLAG_UNORDERED: u8 = 0x10;
/// RTS: two bits of [`Mode`].
const MODE_SHIFT: u32 = 5;
const MODE_MASK: u8 = 0x60;

/// How the payload of a rendezvous travels. Chosen by the sender, from capabilities and sizes alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In datagrams, within windows that the receiver grants. Works on every transport.
    Window,
    /// The receiver reads it out of the sender's memory.
    Read,
    /// The sender writes it into the receiver's memory.
    Write,
    /// Both at the same time: the receiver reads the front, the sender writes the back.
    Both,
}

impl Mode {
    const ALL: [Mode; 4] = [Mode::Window, Mode::Read, Mode::Write, Mode::Both];

    fn bits(self) -> u8 {
        match self {
            Mode::Window => 0,
            Mode::Read => 1,
            Mode::Write => 2,
            Mode::Both => 3,
        }
    }
}

/// What every packet says that can be the first of a message: credit, order, and what is matched on (with the packet's source).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Units of credit given back to whoever receives this packet.
    pub credit: u16,
    /// Place in the order of messages from this sender to this receiver; `None` for unordered messages.
    pub seq: Option<u32>,
    /// Context id of the communicator.
    pub context: u32,
    /// Tag; below 2^32 when `seq` is there.
    pub tag: u64,
}

impl Head {
    /// The 16 bytes, as two words: they are built in registers and stored once.
    #[inline]
    fn encode(&self, kind: u8, mode_bits: u8) -> [u8; EAGER_HEADER_BYTES] {
        let (flags, high, low) = match self.seq {
            Some(seq) => (mode_bits, seq, self.tag as u32),
            None => (mode_bits | FLAG_UNORDERED, (self.tag >> 32) as u32, self.tag as u32),
        };
        let first = u64::from(prefix(kind, flags, self.credit)) | u64::from(high) << 32;
        let second = u64::from(self.context) | u64::from(low) << 32;
        (u128::from(first) | u128::from(second) << 64).to_le_bytes()
    }

    #[inline]
    fn decode(bytes: &[u8; EAGER_HEADER_BYTES]) -> Head {
        let word = u128::from_le_bytes(*bytes);
        let (first, second) = (word as u64, (word >> 64) as u64);
        let (high, low) = ((first >> 32) as u32, (second >> 32) as u32);
        let unordered = bytes[1] & FLAG_UNORDERED != 0;
        Head {
            credit: (first >> 16) as u16,
            seq: if unordered { None } else { Some(high) },
            context: second as u32,
            tag: if unordered { u64::from(high) << 32 | u64::from(low) } else { u64::from(low) },
        }
    }
}

/// The rest of a request to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// How the sender wants the payload to travel.
    pub mode: Mode,
    /// Bytes of the message.
    pub bytes: u64,
    /// The sender's request, to be named in every answer.
    pub sender: u64,
    /// The sender's memory; meaningful in [`Mode::Read`] and [`Mode::Both`], zero otherwise.
    pub key: Key,
}

/// The rest of the header of a part of a train.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The sender's request: the same in all parts of a message, and in no other message of this sender, ever.
    pub sender: u64,
    /// Bytes of the message.
    pub bytes: u32,
    /// Where this part belongs in it.
    pub offset: u32,
}

/// Packets without payload that drive a rendezvous or return credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Receiver to sender: send the first `wanted` bytes as [`Packet::Data`], up to offset `granted` for now.
    Cts {
        /// The sender's request.
        sender: u64,
        /// The receiver's request, named in every piece.
        receiver: u64,
        /// Bytes that fit the receive; less than the message where it is truncated.
        wanted: u64,
        /// Offset up to which pieces may be sent.
        granted: u64,
    },
    /// Receiver to sender: write bytes `offset..offset + bytes` of the message to the start of `key`, then say
    /// [`Control::Written`].
    CtsWrite {
        /// The sender's request.
        sender: u64,
        /// The receiver's request.
        receiver: u64,
        /// First byte of the message to be written.
        offset: u64,
        /// Number of bytes to be written.
        bytes: u64,
        /// The receiver's memory.
        key: Key,
    },
    /// Receiver to sender: pieces may now be sent up to offset `granted`.
    Grant {
        /// The sender's request.
        sender: u64,
        /// Offset up to which pieces may be sent.
        granted: u64,
    },
    /// Receiver to sender: I have all I want, the memory is yours again. Of a synchronous message: it is matched.
    Fin {
        /// The sender's request.
        sender: u64,
    },
    /// Sender to receiver: all that [`Control::CtsWrite`] asked for is in your memory.
    Written {
        /// The receiver's request.
        receiver: u64,
    },
    /// Sender to receiver: I may not write to your memory and no longer try; ask for windows.
    Refused {
        /// The receiver's request.
        receiver: u64,
    },
    /// Nothing but the credit that every packet carries.
    Credit,
}

/// A packet, taken apart. Payloads borrow from the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// A whole message.
    Eager {
        /// Order and matching.
        head: Head,
        /// The message.
        payload: &'a [u8],
    },
    /// Request to send: the envelope of a message whose payload follows when it is matched.
    Rts {
        /// Order and matching.
        head: Head,
        /// How to get the payload.
        offer: Offer,
    },
    /// A whole message whose sender waits until it is matched, and is told so by [`Control::Fin`].
    Sync {
        /// Order and matching.
        head: Head,
        /// The sender's request.
        sender: u64,
        /// The message.
        payload: &'a [u8],
    },
    /// A part of a message that nobody had to ask for. Each says all there is to know about the message, so that any of
    /// them may come first.
    Part {
        /// Order and matching.
        head: Head,
        /// Which message, and where in it.
        part: Part,
        /// The part; never empty.
        payload: &'a [u8],
    },
    /// A piece of a windowed message.
    Data {
        /// Units of credit given back.
        credit: u16,
        /// The receiver's request.
        receiver: u64,
        /// Where the piece belongs in the message.
        offset: u64,
        /// The piece; never empty.
        payload: &'a [u8],
    },
    /// Everything without a payload.
    Control {
        /// Units of credit given back.
        credit: u16,
        /// What it says.
        control: Control,
    },
}

/// Bytes that no Selvedge of this version sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Fewer (or, for packets of fixed length, more) bytes than the kind has.
    #[error("a packet of kind {kind} with {bytes} bytes instead of {expected}")]
    Length {
        /// First byte of the packet, 0 if there is none.
        kind: u8,
        /// Bytes it has.
        bytes: usize,
        /// Bytes it should have, at least.
        expected: usize,
    },
    /// Another version of the protocol.
    #[error("a packet of protocol version {0} instead of {VERSION}")]
    Version(u8),
    /// A kind that does not exist.
    #[error("a packet of unknown kind {0}")]
    Kind(u8),
    /// A flag, or a byte that has to be zero, that this kind does not have.
    #[error("a packet of kind {kind} with reserved bits set")]
    Reserved {
        /// First byte of the packet.
        kind: u8,
    },
}

/// The header of an eager message; its payload follows in the same packet.
#[inline]
pub fn eager(head: &Head) -> [u8; EAGER_HEADER_BYTES] {
    head.encode(KIND_EAGER, 0)
}

/// A request to send.
pub fn rts(head: &Head, offer: &Offer) -> [u8; RTS_BYTES] {
    let mut out = [0; RTS_BYTES];
    out[..EAGER_HEADER_BYTES].copy_from_slice(&head.encode(KIND_RTS, offer.mode.bits() << MODE_SHIFT));
    put_words(&mut out[EAGER_HEADER_BYTES..], &[offer.bytes, offer.sender, offer.key.base, offer.key.name]);
    out
}

/// The header of a synchronous message; its payload follows in the same packet.
pub fn sync(head: &Head, sender: u64) -> [u8; SYNC_HEADER_BYTES] {
    let mut out = [0; SYNC_HEADER_BYTES];
    out[..EAGER_HEADER_BYTES].copy_from_slice(&head.encode(KIND_SYNC, 0));
    put_words(&mut out[EAGER_HEADER_BYTES..], &[sender]);
    out
}

/// The header of a part of a train; the part follows in the same packet.
pub fn part(head: &Head, part: &Part) -> [u8; PART_HEADER_BYTES] {
    let mut out = [0; PART_HEADER_BYTES];
    out[..EAGER_HEADER_BYTES].copy_from_slice(&head.encode(KIND_PART, 0));
    let place = u64::from(part.bytes) | u64::from(part.offset) << 32;
    put_words(&mut out[EAGER_HEADER_BYTES..], &[part.sender, place]);
    out
}

/// The header of a piece of a windowed message; the piece follows in the same packet.
pub fn data(credit: u16, receiver: u64, offset: u64) -> [u8; DATA_HEADER_BYTES] {
    let mut out = [0; DATA_HEADER_BYTES];
    out[..4].copy_from_slice(&prefix(KIND_DATA, 0, credit).to_le_bytes());
    put_words(&mut out[PREFIX_BYTES..], &[receiver, offset]);
    out
}

impl Control {
    /// Writes the packet into `out` and returns the part of it that was used.
    pub fn encode<'a>(&self, credit: u16, out: &'a mut [u8; CONTROL_BYTES_MAX]) -> &'a [u8] {
        let (kind, words, count) = self.words();
        out[..4].copy_from_slice(&prefix(kind, 0, credit).to_le_bytes());
        out[4..PREFIX_BYTES].fill(0);
        put_words(&mut out[PREFIX_BYTES..], &words[..count]);
        &out[..PREFIX_BYTES + 8 * count]
    }

    fn words(&self) -> (u8, [u64; 6], usize) {
        match *self {
            Control::Cts { sender, receiver, wanted, granted } => {
                (KIND_CTS, [sender, receiver, wanted, granted, 0, 0], 4)
            }
            Control::CtsWrite { sender, receiver, offset, bytes, key } => {
                (KIND_CTS_WRITE, [sender, receiver, offset, bytes, key.base, key.name], 6)
            }
            Control::Grant { sender, granted } => (KIND_GRANT, [sender, granted, 0, 0, 0, 0], 2),
            Control::Fin { sender } => (KIND_FIN, [sender, 0, 0, 0, 0, 0], 1),
            Control::Written { receiver } => (KIND_WRITTEN, [receiver, 0, 0, 0, 0, 0], 1),
            Control::Refused { receiver } => (KIND_REFUSED, [receiver, 0, 0, 0, 0, 0], 1),
            Control::Credit => (KIND_CREDIT, [0; 6], 0),
        }
    }
}

/// Takes a packet apart.
///
/// # Errors
/// [`Malformed`] when no encoder of this file could have made it.
#[inline]
pub fn parse(bytes: &[u8]) -> Result<Packet<'_>, Malformed> {
    // The common case first: an eager message of our version, ordered or not.
    if let Some((header, payload)) = bytes.split_first_chunk::<EAGER_HEADER_BYTES>()
        && header[0] == KIND_EAGER
        && header[1] & !FLAG_UNORDERED == VERSION
    {
        return Ok(Packet::Eager { head: Head::decode(header), payload });
    }
    parse_rest(bytes)
}

#[cold]
fn parse_rest(bytes: &[u8]) -> Result<Packet<'_>, Malformed> {
    let &[kind, flags, low, high, ..] = bytes else {
        return Err(Malformed::Length {
            kind: bytes.first().copied().unwrap_or(0),
            bytes: bytes.len(),
            expected: 4,
        });
    };
    if flags & VERSION_MASK != VERSION {
        return Err(Malformed::Version(flags & VERSION_MASK));
    }
    let flags = flags & !VERSION_MASK;
    let credit = u16::from_le_bytes([low, high]);
    match kind {
        KIND_EAGER => {
            // The common case was taken before: too short, or a flag that eager messages do not have.
            let expected = EAGER_HEADER_BYTES;
            if bytes.len() < expected {
                return Err(Malformed::Length { kind, bytes: bytes.len(), expected });
            }
            Err(Malformed::Reserved { kind })
        }
        KIND_RTS => parse_rts(bytes, flags),
        KIND_PART => parse_part(bytes, flags),
        KIND_SYNC => parse_sync(bytes, flags),
        KIND_DATA => {
            let [receiver, offset] = words(kind, flags, bytes, DATA_HEADER_BYTES + 1)?;
            Ok(Packet::Data { credit, receiver, offset, payload: &bytes[DATA_HEADER_BYTES..] })
        }
        _ => parse_control(kind, flags, bytes).map(|control| Packet::Control { credit, control }),
    }
}

fn parse_rts(bytes: &[u8], flags: u8) -> Result<Packet<'_>, Malformed> {
    let length = Malformed::Length { kind: KIND_RTS, bytes: bytes.len(), expected: RTS_BYTES };
    let (header, rest) = bytes.split_first_chunk::<EAGER_HEADER_BYTES>().ok_or(length)?;
    if rest.len() != RTS_BYTES - EAGER_HEADER_BYTES {
        return Err(length);
    }
    if flags & !(FLAG_UNORDERED | MODE_MASK) != 0 {
        return Err(Malformed::Reserved { kind: KIND_RTS });
    }
    let mode = Mode::ALL[usize::from((flags & MODE_MASK) >> MODE_SHIFT)];
    let [bytes, sender, base, name] = take_words(rest);
    Ok(Packet::Rts {
        head: Head::decode(header),
        offer: Offer { mode, bytes, sender, key: Key { base, name } },
    })
}

fn parse_part(bytes: &[u8], flags: u8) -> Result<Packet<'_>, Malformed> {
    let expected = PART_HEADER_BYTES + 1;
    let length = Malformed::Length { kind: KIND_PART, bytes: bytes.len(), expected };
    let (header, rest) = bytes.split_first_chunk::<EAGER_HEADER_BYTES>().ok_or(length)?;
    if bytes.len() < expected {
        return Err(length);
    }
    if flags & !FLAG_UNORDERED != 0 {
        return Err(Malformed::Reserved { kind: KIND_PART });
    }
    let [sender, place] = take_words(rest);
    Ok(Packet::Part {
        head: Head::decode(header),
        part: Part { sender, bytes: place as u32, offset: (place >> 32) as u32 },
        payload: &bytes[PART_HEADER_BYTES..],
    })
}

fn parse_sync(bytes: &[u8], flags: u8) -> Result<Packet<'_>, Malformed> {
    let length = Malformed::Length { kind: KIND_SYNC, bytes: bytes.len(), expected: SYNC_HEADER_BYTES };
    let (header, rest) = bytes.split_first_chunk::<EAGER_HEADER_BYTES>().ok_or(length)?;
    let (sender, payload) = rest.split_first_chunk::<8>().ok_or(length)?;
    if flags & !FLAG_UNORDERED != 0 {
        return Err(Malformed::Reserved { kind: KIND_SYNC });
    }
    Ok(Packet::Sync { head: Head::decode(header), sender: u64::from_le_bytes(*sender), payload })
}

fn parse_control(kind: u8, flags: u8, bytes: &[u8]) -> Result<Control, Malformed> {
    let exactly = |count: usize| {
        let expected = PREFIX_BYTES + 8 * count;
        let bytes = bytes.len();
        if bytes == expected { Ok(expected) } else { Err(Malformed::Length { kind, bytes, expected }) }
    };
    match kind {
        KIND_CTS => {
            let [sender, receiver, wanted, granted] = words(kind, flags, bytes, exactly(4)?)?;
            Ok(Control::Cts { sender, receiver, wanted, granted })
        }
        KIND_CTS_WRITE => {
            let [sender, receiver, offset, len, base, name] = words(kind, flags, bytes, exactly(6)?)?;
            Ok(Control::CtsWrite { sender, receiver, offset, bytes: len, key: Key { base, name } })
        }
        KIND_GRANT => {
            let [sender, granted] = words(kind, flags, bytes, exactly(2)?)?;
            Ok(Control::Grant { sender, granted })
        }
        KIND_FIN => {
            let [sender] = words(kind, flags, bytes, exactly(1)?)?;
            Ok(Control::Fin { sender })
        }
        KIND_WRITTEN => {
            let [receiver] = words(kind, flags, bytes, exactly(1)?)?;
            Ok(Control::Written { receiver })
        }
        KIND_REFUSED => {
            let [receiver] = words(kind, flags, bytes, exactly(1)?)?;
            Ok(Control::Refused { receiver })
        }
        KIND_CREDIT => {
            let [] = words(kind, flags, bytes, exactly(0)?)?;
            Ok(Control::Credit)
        }
        _ => Err(Malformed::Kind(kind)),
    }
}

/// The words after the prefix of a packet that has at least `expected` bytes, no flags, and zeroes where they belong.
fn words<const N: usize>(kind: u8, flags: u8, bytes: &[u8], expected: usize) -> Result<[u64; N], Malformed> {
    if bytes.len() < expected.max(PREFIX_BYTES + 8 * N) {
        return Err(Malformed::Length { kind, bytes: bytes.len(), expected });
    }
    if flags != 0 || bytes[4..PREFIX_BYTES] != [0; 4] {
        return Err(Malformed::Reserved { kind });
    }
    Ok(take_words(&bytes[PREFIX_BYTES..]))
}

#[inline]
fn prefix(kind: u8, flags: u8, credit: u16) -> u32 {
    u32::from(kind) | u32::from(flags | VERSION) << 8 | u32::from(credit) << 16
}

fn put_words(out: &mut [u8], words: &[u64]) {
    for (place, word) in out.chunks_exact_mut(8).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
}

/// The first `N` words of `bytes`, which has that many.
fn take_words<const N: usize>(bytes: &[u8]) -> [u64; N] {
    std::array::from_fn(|i| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[8 * i..8 * i + 8]);
        u64::from_le_bytes(word)
    })
}

#[cfg(test)]
mod tests;
