//! What a process needs to open the segment of another: a line of text to be handed out by the launcher.

use std::fmt;

use crate::attention::MEMBERS_MAX;
use crate::layout::{LAYOUT_VERSION, Layout};

/// First field; the layout version follows it.
const NAME: &str = "selvedge-shm";

/// Where a segment is to be found, and how to know that it is the right one.
///
/// As text: `selvedge-shm:1:4711:5:123456:00112233445566778899aabbccddeeff:256`, fewer than 128 printable characters
/// without space, `=` or `;`, so that it is a value in any PMI dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Card {
    /// The creator, and its descriptor of the segment.
    pub(crate) pid: i32,
    pub(crate) fd: i32,
    /// When the creator was started: its number may have gone to another process since.
    pub(crate) start_time: u64,
    /// Random; also in the header of the segment.
    pub(crate) cookie: u128,
    pub(crate) peers: u32,
}

impl fmt::Display for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Card { pid, fd, start_time, cookie, peers } = self;
        write!(f, "{NAME}:{LAYOUT_VERSION}:{pid}:{fd}:{start_time}:{cookie:032x}:{peers}")
    }
}

/// Why a card cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// Not a card.
    Malformed,
    /// A card of another version of this crate.
    Version,
}

impl Card {
    /// Reads a card that came from outside. Never panics.
    pub(crate) fn parse(text: &[u8]) -> Result<Card, Unreadable> {
        let text = std::str::from_utf8(text).map_err(|_| Unreadable::Malformed)?;
        let mut fields = text.trim_ascii().split(':');
        if fields.next() != Some(NAME) {
            return Err(Unreadable::Malformed);
        }
        let version: u64 = number(fields.next())?;
        if version != LAYOUT_VERSION {
            return Err(Unreadable::Version);
        }
        let card = Card {
            pid: number(fields.next())?,
            fd: number(fields.next())?,
            start_time: number(fields.next())?,
            cookie: cookie(fields.next())?,
            peers: number(fields.next())?,
        };
        let possible = card.pid > 0 && card.fd >= 0 && (1..=MEMBERS_MAX).contains(&(card.peers as usize));
        if possible && fields.next().is_none() { Ok(card) } else { Err(Unreadable::Malformed) }
    }

    /// Where everything lies.
    pub(crate) fn layout(&self) -> Layout {
        Layout::new(self.peers as usize)
    }
}

fn number<T: std::str::FromStr>(field: Option<&str>) -> Result<T, Unreadable> {
    let digits = field.filter(|field| field.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).ok_or(Unreadable::Malformed)
}

fn cookie(field: Option<&str>) -> Result<u128, Unreadable> {
    let digits =
        field.filter(|field| field.len() == 32 && field.bytes().all(|byte| byte.is_ascii_hexdigit()));
    digits.and_then(|digits| u128::from_str_radix(digits, 16).ok()).ok_or(Unreadable::Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_card() -> impl Strategy<Value = Card> {
        (1..i32::MAX, 0..i32::MAX, any::<u64>(), any::<u128>(), 1..=MEMBERS_MAX as u32)
            .prop_map(|(pid, fd, start_time, cookie, peers)| Card { pid, fd, start_time, cookie, peers })
    }

    proptest! {
        #[test]
        fn a_card_survives_being_text(card in any_card()) {
            let text = card.to_string();
            prop_assert!(text.len() < 128 && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"=;".contains(&byte)));
            prop_assert_eq!(Card::parse(text.as_bytes()), Ok(card));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Card::parse(&bytes).is_err());
        }

        #[test]
        fn a_damaged_card_is_refused_or_another_valid_card(card in any_card(), at in any::<prop::sample::Index>(), byte: u8) {
            let mut text = card.to_string().into_bytes();
            let at = at.index(text.len());
            text[at] = byte;
            if let Ok(read) = Card::parse(&text) {
                prop_assert!(read.peers as usize <= MEMBERS_MAX && read.pid > 0 && read.fd >= 0);
            }
        }
    }

    #[test]
    fn a_card_of_another_version_is_told_from_no_card() {
        let card = Card { pid: 1, fd: 2, start_time: 3, cookie: 4, peers: 5 };
        let later = card.to_string().replace("selvedge-shm:1:", "selvedge-shm:2:");
        assert_eq!(Card::parse(later.as_bytes()), Err(Unreadable::Version));
        assert_eq!(Card::parse(b"tcp:10.0.0.1:7000"), Err(Unreadable::Malformed));
        assert_eq!(Card::parse(format!("{card}:6").as_bytes()), Err(Unreadable::Malformed));
    }
}
