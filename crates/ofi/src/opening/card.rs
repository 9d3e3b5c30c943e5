//! What another rank needs to reach this one, as bytes for the start-up protocol.
//!
//! Integers are little endian:
//!
//! | bytes | field |
//! |---|---|
//! | 1 | version of this format, [`VERSION`] |
//! | 1 | length of the provider's name, then the name |
//! | 16 | random bytes: what this rank brings to the job's secret |
//! | 4 | largest packet |
//! | 8, 8 | largest read, largest write; 0 for none |
//! | 1 | address of the doorway: 0 for none, else 4 or 16 bytes of IP address, then 2 bytes of port |
//! | 1 | number of rails, then for each one byte of length and the address of its endpoint |

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Version of the format.
const VERSION: u8 = 2;

/// A card, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Card {
    /// Name of the road: both ends must take the same.
    pub(crate) provider: String,
    /// What this rank brings to the job's secret.
    pub(crate) key: [u8; 16],
    pub(crate) packet_bytes_max: u32,
    pub(crate) read_bytes_max: u64,
    pub(crate) write_bytes_max: u64,
    pub(crate) doorway: Option<SocketAddr>,
    /// Addresses of the endpoints, by rail, as the provider writes them.
    pub(crate) rails: Vec<Box<[u8]>>,
}

/// Why bytes are not a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// Another version of this program made it.
    Version(u8),
    /// Nobody made it on purpose.
    Malformed,
}

impl Card {
    /// The bytes.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let length = |bytes: &[u8]| u8::try_from(bytes.len()).expect("names and addresses are short");
        let mut out = vec![VERSION, length(self.provider.as_bytes())];
        out.extend_from_slice(self.provider.as_bytes());
        out.extend_from_slice(&self.key);
        out.extend_from_slice(&self.packet_bytes_max.to_le_bytes());
        out.extend_from_slice(&self.read_bytes_max.to_le_bytes());
        out.extend_from_slice(&self.write_bytes_max.to_le_bytes());
        match self.doorway {
            None => out.push(0),
            Some(address) => {
                match address.ip() {
                    IpAddr::V4(ip) => {
                        out.push(4);
                        out.extend_from_slice(&ip.octets());
                    }
                    IpAddr::V6(ip) => {
                        out.push(16);
                        out.extend_from_slice(&ip.octets());
                    }
                }
                out.extend_from_slice(&address.port().to_le_bytes());
            }
        }
        out.push(u8::try_from(self.rails.len()).expect("rails are few"));
        for address in &self.rails {
            out.push(length(address));
            out.extend_from_slice(address);
        }
        out
    }

    /// Reads a card.
    ///
    /// # Errors
    /// [`Unreadable`] when it is none of this version.
    pub(crate) fn read(bytes: &[u8]) -> Result<Card, Unreadable> {
        let mut rest = Rest(bytes);
        match rest.byte()? {
            VERSION => {}
            other => return Err(Unreadable::Version(other)),
        }
        let name = rest.counted()?;
        let card = Card {
            provider: String::from_utf8(name.to_vec()).map_err(|_| Unreadable::Malformed)?,
            key: rest.array()?,
            packet_bytes_max: u32::from_le_bytes(rest.array()?),
            read_bytes_max: u64::from_le_bytes(rest.array()?),
            write_bytes_max: u64::from_le_bytes(rest.array()?),
            doorway: rest.doorway()?,
            rails: (0..rest.byte()?).map(|_| rest.counted().map(Box::from)).collect::<Result<_, _>>()?,
        };
        if !rest.0.is_empty() || card.rails.is_empty() || card.packet_bytes_max == 0 {
            return Err(Unreadable::Malformed);
        }
        Ok(card)
    }
}

/// Bytes still to be read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Unreadable> {
        let (front, back) = self.0.split_at_checked(count).ok_or(Unreadable::Malformed)?;
        self.0 = back;
        Ok(front)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        self.take(N)?.try_into().map_err(|_| Unreadable::Malformed)
    }

    fn byte(&mut self) -> Result<u8, Unreadable> {
        self.array().map(|[byte]| byte)
    }

    fn counted(&mut self) -> Result<&'a [u8], Unreadable> {
        let count = self.byte()?;
        self.take(count.into())
    }

    fn doorway(&mut self) -> Result<Option<SocketAddr>, Unreadable> {
        let ip = match self.byte()? {
            0 => return Ok(None),
            4 => IpAddr::V4(Ipv4Addr::from(self.array::<4>()?)),
            16 => IpAddr::V6(Ipv6Addr::from(self.array::<16>()?)),
            _ => return Err(Unreadable::Malformed),
        };
        Ok(Some(SocketAddr::new(ip, u16::from_le_bytes(self.array()?))))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn card() -> Card {
        Card {
            provider: "efa-direct".to_string(),
            key: [0xDE; 16],
            packet_bytes_max: 8864,
            read_bytes_max: 1 << 30,
            write_bytes_max: 0,
            doorway: Some("192.0.2.7:4711".parse().expect("an address")),
            rails: vec![vec![7; 32].into(), vec![9; 32].into()],
        }
    }

    #[test]
    fn a_card_that_is_written_and_read_is_the_same() {
        let other = Card {
            doorway: Some("[2001:db8::1]:9".parse().expect("an address")),
            rails: vec![vec![1; 16].into()],
            ..card()
        };
        for card in [card(), Card { doorway: None, ..card() }, other] {
            assert_eq!(Card::read(&card.to_bytes()), Ok(card));
        }
    }

    #[test]
    fn a_card_that_was_cut_or_continued_is_malformed() {
        let bytes = card().to_bytes();
        for len in 0..bytes.len() {
            assert_eq!(Card::read(&bytes[..len]), Err(Unreadable::Malformed), "{len} bytes");
        }
        assert_eq!(Card::read(&[&bytes[..], &[0]].concat()), Err(Unreadable::Malformed));
    }

    #[test]
    fn a_card_of_another_version_says_so() {
        let mut bytes = card().to_bytes();
        bytes[0] = 9;
        assert_eq!(Card::read(&bytes), Err(Unreadable::Version(9)));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..100), honest: bool) {
            if honest && !bytes.is_empty() {
                bytes[0] = VERSION;
            }
            if let Ok(card) = Card::read(&bytes) {
                prop_assert_eq!(card.to_bytes(), bytes);
            }
        }
    }
}
