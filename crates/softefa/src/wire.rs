//! The bytes of a packet: a header of [`HEADER_BYTES`], little-endian, then the body. What the fields are for is told by
//! the protocol's page, [`crate::srd`].
//!
//! | at | bytes | field | in |
//! |---|---|---|---|
//! | 0 | 2 | magic `5E FA` | all |
//! | 2 | 1 | version, [`VERSION`] | all |
//! | 3 | 1 | kind | all |
//! | 4 | 1 | flags: 1 immediate data, 2 acknowledge at once, 4 unreliable | all |
//! | 5 | 1 | status | NACK, else 0 |
//! | 6 | 2 | sender's queue pair | all |
//! | 8 | 2 | receiver's queue pair | all |
//! | 10 | 2 | how far below `number` the sender's lowest open number is | requests |
//! | 12 | 4 | queue key | requests |
//! | 16 | 16 | sender's GID | all |
//! | 32 | 4 | sender's epoch, not 0 | all |
//! | 36 | 4 | epoch of the flow that is answered, 0 if none is | all |
//! | 40 | 8 | number: its own of a request, the answered one of READ_RSP and NACK | |
//! | 48 | 8 | sender's time | requests |
//! | 56 | 8 | all numbers below this one have been accepted or are settled | answers |
//! | 64 | 8 | bit i: the number i + 1 above that has been accepted | answers |
//! | 72 | 8 | time of the newest request that came in since the last answer, 0 if none did | answers |
//! | 80 | 8 | remote address | WRITE, WRITE_IMM, READ |
//! | 88 | 4 | remote key | WRITE, WRITE_IMM, READ |
//! | 92 | 4 | length: of the body; of the whole write (WRITE_IMM); asked for (READ) | |
//! | 96 | 4 | immediate data | with flag 1 |
//! | 100 | 4 | 0 | all |
//!
//! The body of an ACK continues the bitmap in words of 8 bytes.

use crate::srd::{Gid, Nanos, Node, Status};

/// Bytes of a packet's header.
pub const HEADER_BYTES: usize = 104;

/// The version that is spoken and understood. A packet of another one is dropped.
pub const VERSION: u8 = 1;

/// Most words with which the body of an ACK continues the bitmap of its header.
pub const ACK_WORDS_MAX: usize = 7;

const MAGIC: [u8; 2] = [0x5e, 0xfa];
const IMMEDIATE: u8 = 1;
const AT_ONCE: u8 = 2;
const UNRELIABLE: u8 = 4;

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A datagram.
    Send = 1,
    /// A piece of a write.
    Write = 2,
    /// The end, or the whole, of a write with immediate data.
    WriteImm = 3,
    /// Asks for a piece of memory.
    Read = 4,
    /// The piece that was asked for.
    ReadAnswer = 5,
    /// What has been accepted.
    Ack = 6,
    /// What has been refused.
    Nack = 7,
}

impl Kind {
    /// Whether such a packet asks for something and carries a number of its own.
    pub fn is_request(self) -> bool {
        matches!(self, Kind::Send | Kind::Write | Kind::WriteImm | Kind::Read)
    }

    fn from_code(code: u8) -> Option<Kind> {
        [Kind::Send, Kind::Write, Kind::WriteImm, Kind::Read, Kind::ReadAnswer, Kind::Ack, Kind::Nack]
            .into_iter()
            .find(|kind| *kind as u8 == code)
    }
}

/// What a packet says about the flow in the other direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The flow's epoch; 0 says nothing.
    pub epoch: u32,
    /// All numbers below are accepted or settled.
    pub base: u64,
    /// Bit i: number `base + 1 + i` is accepted.
    pub bits: u64,
    /// Time in the newest request since the last answer; 0 if there was none.
    pub echo: Nanos,
}

/// A packet's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it is.
    pub kind: Kind,
    /// Immediate data.
    pub imm: Option<u32>,
    /// The sender waits for an acknowledgement.
    pub at_once: bool,
    /// Neither numbered nor acknowledged.
    pub unreliable: bool,
    /// Why a number was refused.
    pub status: Status,
    /// The sender.
    pub from: Node,
    /// The receiver's queue pair.
    pub to_qpn: u16,
    /// How far below `number` the sender's lowest open number is.
    pub below: u16,
    /// The queue key the sender knows.
    pub qkey: u32,
    /// The sender's epoch.
    pub epoch: u32,
    /// About the flow in the other direction.
    pub answer: Answer,
    /// Number on its flow.
    pub number: u64,
    /// The sender's time.
    pub stamp: Nanos,
    /// Remote address.
    pub remote: u64,
    /// Remote key.
    pub rkey: u32,
    /// Length, see the table.
    pub length: u32,
}

/// Why a datagram is not a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Shorter than a header.
    Short,
    /// Does not start with the magic bytes.
    Foreign,
    /// A version that is not understood.
    Version(u8),
    /// A kind that is not known.
    Kind(u8),
    /// A field has a value that nothing means, or body and header contradict each other.
    Field,
}

fn put<const N: usize>(bytes: &mut [u8; HEADER_BYTES], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

fn get<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(&bytes[at..at + N]);
    value
}

impl Header {
    /// Its bytes.
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut flags = 0;
        flags |= if self.imm.is_some() { IMMEDIATE } else { 0 };
        flags |= if self.at_once { AT_ONCE } else { 0 };
        flags |= if self.unreliable { UNRELIABLE } else { 0 };
        put(&mut bytes, 0, MAGIC);
        put(&mut bytes, 2, [VERSION, self.kind as u8, flags, self.status.code()]);
        put(&mut bytes, 6, self.from.qpn.to_le_bytes());
        put(&mut bytes, 8, self.to_qpn.to_le_bytes());
        put(&mut bytes, 10, self.below.to_le_bytes());
        put(&mut bytes, 12, self.qkey.to_le_bytes());
        put(&mut bytes, 16, self.from.gid.0);
        put(&mut bytes, 32, self.epoch.to_le_bytes());
        put(&mut bytes, 36, self.answer.epoch.to_le_bytes());
        put(&mut bytes, 40, self.number.to_le_bytes());
        put(&mut bytes, 48, self.stamp.to_le_bytes());
        put(&mut bytes, 56, self.answer.base.to_le_bytes());
        put(&mut bytes, 64, self.answer.bits.to_le_bytes());
        put(&mut bytes, 72, self.answer.echo.to_le_bytes());
        put(&mut bytes, 80, self.remote.to_le_bytes());
        put(&mut bytes, 88, self.rkey.to_le_bytes());
        put(&mut bytes, 92, self.length.to_le_bytes());
        put(&mut bytes, 96, self.imm.unwrap_or(0).to_le_bytes());
        bytes
    }

    /// The header and the body of a datagram. What is returned has been checked for everything that can be checked
    /// without knowing the flow.
    pub fn parse(datagram: &[u8]) -> Result<(Header, &[u8]), Malformed> {
        let (bytes, body) = datagram.split_first_chunk::<HEADER_BYTES>().ok_or(Malformed::Short)?;
        if get(bytes, 0) != MAGIC {
            return Err(Malformed::Foreign);
        }
        let [version, kind, flags, status] = get(bytes, 2);
        if version != VERSION {
            return Err(Malformed::Version(version));
        }
        let kind = Kind::from_code(kind).ok_or(Malformed::Kind(kind))?;
        let imm = u32::from_le_bytes(get(bytes, 96));
        let header = Header {
            kind,
            imm: (flags & IMMEDIATE != 0).then_some(imm),
            at_once: flags & AT_ONCE != 0,
            unreliable: flags & UNRELIABLE != 0,
            status: Status::from_code(status),
            from: Node { gid: Gid(get(bytes, 16)), qpn: u16::from_le_bytes(get(bytes, 6)) },
            to_qpn: u16::from_le_bytes(get(bytes, 8)),
            below: u16::from_le_bytes(get(bytes, 10)),
            qkey: u32::from_le_bytes(get(bytes, 12)),
            epoch: u32::from_le_bytes(get(bytes, 32)),
            answer: Answer {
                epoch: u32::from_le_bytes(get(bytes, 36)),
                base: u64::from_le_bytes(get(bytes, 56)),
                bits: u64::from_le_bytes(get(bytes, 64)),
                echo: u64::from_le_bytes(get(bytes, 72)),
            },
            number: u64::from_le_bytes(get(bytes, 40)),
            stamp: u64::from_le_bytes(get(bytes, 48)),
            remote: u64::from_le_bytes(get(bytes, 80)),
            rkey: u32::from_le_bytes(get(bytes, 88)),
            length: u32::from_le_bytes(get(bytes, 92)),
        };
        let known = flags & !(IMMEDIATE | AT_ONCE | UNRELIABLE) == 0
            && usize::from(status) < Status::ALL.len()
            && (header.imm.is_some() || imm == 0)
            && get(bytes, 100) == [0; 4];
        if known && header.is_consistent(body) { Ok((header, body)) } else { Err(Malformed::Field) }
    }

    fn is_consistent(&self, body: &[u8]) -> bool {
        let whole = usize::try_from(self.length) == Ok(body.len());
        let fits = match self.kind {
            Kind::Send => whole,
            Kind::Write | Kind::ReadAnswer => whole && self.imm.is_none(),
            Kind::WriteImm => (whole || body.is_empty()) && self.imm.is_some(),
            Kind::Read => body.is_empty() && self.imm.is_none(),
            Kind::Ack => {
                body.len().is_multiple_of(8) && body.len() / 8 <= ACK_WORDS_MAX && self.imm.is_none()
            }
            Kind::Nack => body.is_empty() && self.imm.is_none(),
        };
        // A NACK says why, everything else does not; an answer says to which flow.
        let refusal = (self.kind == Kind::Nack) == (self.status != Status::Ok);
        let addressed = self.kind.is_request() || self.answer.epoch != 0;
        let numbered = u64::from(self.below) <= self.number && self.number < u64::MAX / 2;
        let reliable = !self.unreliable || self.kind == Kind::Send;
        fits && refusal && addressed && numbered && reliable && self.epoch != 0
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn example() -> Header {
        Header {
            kind: Kind::WriteImm,
            imm: Some(0xd4d3_d2d1),
            at_once: true,
            unreliable: false,
            status: Status::Ok,
            from: Node { gid: Gid::new(Ipv4Addr::new(127, 0, 0, 2), 3), qpn: 0x0605 },
            to_qpn: 0x0807,
            below: 0x000a,
            qkey: 0x0f0e_0d0c,
            epoch: 0x2322_2120,
            answer: Answer {
                epoch: 0x2726_2524,
                base: 0x3f3e_3d3c_3b3a_3938,
                bits: 0x4746_4544_4342_4140,
                echo: 0x4f4e_4d4c_4b4a_4948,
            },
            number: 0x2f2e_2d2c_2b2a_2928,
            stamp: 0x3736_3534_3332_3130,
            remote: 0x5756_5554_5352_5150,
            rkey: 0x5b5a_5958,
            length: 3,
        }
    }

    #[test]
    fn the_bytes_of_a_packet_are_these() {
        let golden = concat!(
            "5efa01030300",
            "0506",
            "0708",
            "0a00",
            "0c0d0e0f",
            "00000000000000000003ffff7f000002",
            "20212223",
            "24252627",
            "28292a2b2c2d2e2f",
            "3031323334353637",
            "38393a3b3c3d3e3f",
            "4041424344454647",
            "48494a4b4c4d4e4f",
            "5051525354555657",
            "58595a5b",
            "03000000",
            "d1d2d3d4",
            "00000000",
        );
        let bytes: String = example().to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(bytes, golden);
    }

    #[test]
    fn what_was_written_is_read() {
        let mut datagram = example().to_bytes().to_vec();
        datagram.extend([1, 2, 3]);
        assert_eq!(Header::parse(&datagram), Ok((example(), &[1, 2, 3][..])));
    }

    #[test]
    fn another_version_is_refused_before_anything_else_is_believed() {
        for version in (0..=255).filter(|version| *version != VERSION) {
            let mut datagram = vec![0xff; HEADER_BYTES];
            datagram[..3].copy_from_slice(&[0x5e, 0xfa, version]);
            assert_eq!(Header::parse(&datagram), Err(Malformed::Version(version)));
        }
    }

    #[test]
    fn a_body_that_contradicts_its_header_is_refused() {
        let bytes = example().to_bytes();
        for extra in [1, 2, 4, 100] {
            let mut datagram = bytes.to_vec();
            datagram.resize(HEADER_BYTES + extra, 0);
            assert_eq!(Header::parse(&datagram), Err(Malformed::Field));
        }
        assert_eq!(Header::parse(&bytes[1..]), Err(Malformed::Short));
        assert_eq!(Header::parse(b""), Err(Malformed::Short));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn no_datagram_makes_the_parser_panic(datagram in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Header::parse(&datagram);
        }

        #[test]
        fn what_is_understood_is_written_back_the_same(
            noise in prop::collection::vec((0..HEADER_BYTES + 16, any::<u8>()), 0..8),
            body in 0..17usize,
        ) {
            let mut datagram = example().to_bytes().to_vec();
            datagram.resize(HEADER_BYTES + body, 7);
            for (at, byte) in noise {
                if let Some(place) = datagram.get_mut(at) {
                    *place = byte;
                }
            }
            if let Ok((header, body)) = Header::parse(&datagram) {
                let mut again = header.to_bytes().to_vec();
                again.extend(body);
                prop_assert_eq!(again, datagram);
            }
        }
    }
}
