//! What all ranks of a job must see alike before one of them can send.
//!
//! Somebody who has the cards of all computes it once and tells the others, who need no card for it. As bytes, integers
//! little endian:
//!
//! | bytes | field |
//! |---|---|
//! | 1 | version of this format |
//! | 4, 8, 8 | largest packet, read, write of any of them |
//! | 1 | most rails that any of them has |
//! | 32 | the job's secret |

use std::fmt;

use selvedge_transport::{Fault, Peer};

use crate::faults;
use crate::opening::card::Card;
use crate::peers::read_card;
use crate::peers::words::keyed_hash;

/// Version of the format.
const VERSION: u8 = 1;

const BYTES: usize = 1 + 4 + 8 + 8 + 1 + 32;

/// What all ranks of a job have in common on one road: what each of them can do, and a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Terms {
    pub(crate) packet_bytes_max: u32,
    pub(crate) read_bytes_max: u64,
    pub(crate) write_bytes_max: u64,
    pub(crate) rails_max: u8,
    /// Who has it belongs to the job: words beside packets and proofs at doorways are computed with it.
    pub(crate) secret: [u8; 32],
}

impl Terms {
    /// Of the cards of all peers by index; empty for one that does not take this road. Their secret is a hash of all
    /// cards, each of which brings 16 random bytes: whoever has all of them knows it, and nobody else.
    ///
    /// # Errors
    /// A [`Fault`] of the first peer whose card cannot be read or is of another road than the first's.
    pub fn of<C: AsRef<[u8]>>(cards: &[C]) -> Result<Terms, Box<Fault>> {
        let mut terms: Option<(Terms, String)> = None;
        for (peer, bytes) in (0..).map(Peer).zip(cards.iter().map(AsRef::as_ref)) {
            if bytes.is_empty() {
                continue;
            }
            terms = Some(match terms {
                None => {
                    let card = Card::read(bytes).map_err(|why| faults::unreadable(peer, why))?;
                    (Terms::of_one(&card, bytes), card.provider)
                }
                Some((terms, provider)) => {
                    let card = read_card(peer, &provider, bytes)?;
                    (terms.and(Terms::of_one(&card, bytes)), provider)
                }
            });
        }
        Ok(terms.expect("somebody takes the road").0)
    }

    fn of_one(card: &Card, bytes: &[u8]) -> Terms {
        Terms {
            packet_bytes_max: card.packet_bytes_max,
            read_bytes_max: card.read_bytes_max,
            write_bytes_max: card.write_bytes_max,
            rails_max: u8::try_from(card.rails.len()).expect("rails are few"),
            secret: keyed_hash(&[0; 32], &[b"selvedge card", bytes]),
        }
    }

    fn and(self, other: Terms) -> Terms {
        Terms {
            packet_bytes_max: self.packet_bytes_max.min(other.packet_bytes_max),
            read_bytes_max: self.read_bytes_max.min(other.read_bytes_max),
            write_bytes_max: self.write_bytes_max.min(other.write_bytes_max),
            rails_max: self.rails_max.max(other.rails_max),
            secret: keyed_hash(&self.secret, &[b"selvedge terms", &other.secret]),
        }
    }

    /// As they travel. They hold the secret: for the job's own ranks only.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.packet_bytes_max.to_le_bytes());
        out.extend_from_slice(&self.read_bytes_max.to_le_bytes());
        out.extend_from_slice(&self.write_bytes_max.to_le_bytes());
        out.push(self.rails_max);
        out.extend_from_slice(&self.secret);
        out
    }

    /// What somebody has made of terms; `None` when these bytes are none of this version.
    pub fn of_bytes(bytes: &[u8]) -> Option<Terms> {
        let bytes: &[u8; BYTES] = bytes.try_into().ok()?;
        let (&[VERSION], rest) = bytes.split_first_chunk()? else { return None };
        let (packet, rest) = rest.split_first_chunk()?;
        let (read, rest) = rest.split_first_chunk()?;
        let (write, rest) = rest.split_first_chunk()?;
        let (&[rails_max], secret) = rest.split_first_chunk()?;
        Some(Terms {
            packet_bytes_max: u32::from_le_bytes(*packet),
            read_bytes_max: u64::from_le_bytes(*read),
            write_bytes_max: u64::from_le_bytes(*write),
            rails_max,
            secret: secret.try_into().ok()?,
        })
    }
}

impl fmt::Debug for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Terms { packet_bytes_max, read_bytes_max, write_bytes_max, rails_max, secret: _ } = self;
        write!(f, "Terms({packet_bytes_max}, {read_bytes_max}, {write_bytes_max}, {rails_max} rails)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::opening::card::tests::card;

    #[test]
    fn terms_are_what_all_can_do_and_the_most_rails() {
        let big = Card { rails: vec![vec![1; 32].into()], ..card() };
        let small = Card { packet_bytes_max: 4096, read_bytes_max: 0, write_bytes_max: 9, ..card() };
        let terms = Terms::of(&[big.to_bytes(), Vec::new(), small.to_bytes()]).expect("good cards");
        assert_eq!((terms.packet_bytes_max, terms.read_bytes_max, terms.write_bytes_max), (4096, 0, 0));
        assert_eq!(terms.rails_max, 2);
    }

    #[test]
    fn the_secret_is_another_when_any_card_is_and_no_debug_output_tells_it() {
        let with = |key: u8| Terms::of(&[card().to_bytes(), Card { key: [key; 16], ..card() }.to_bytes()]);
        let (one, other) = (with(1).expect("good cards"), with(2).expect("good cards"));
        assert_ne!(one.secret, other.secret);
        assert_eq!(format!("{one:?}"), format!("{other:?}"));
    }

    #[test]
    fn terms_that_travel_are_the_same_and_damaged_ones_are_none() {
        let terms = Terms::of(&[card().to_bytes()]).expect("a good card");
        let bytes = terms.to_bytes();
        assert_eq!(Terms::of_bytes(&bytes), Some(terms));
        assert!((0..bytes.len()).all(|len| Terms::of_bytes(&bytes[..len]).is_none()));
        assert_eq!(Terms::of_bytes(&[&[9], &bytes[1..]].concat()), None);
    }

    #[test]
    fn a_card_of_another_road_names_its_peer() {
        let other = Card { provider: "tcp".to_owned(), ..card() };
        let fault = Terms::of(&[card().to_bytes(), other.to_bytes()]).expect_err("two roads");
        assert!(fault.to_string().contains("peer 1: it goes by tcp, and we by efa-direct"), "{fault}");
    }
}
