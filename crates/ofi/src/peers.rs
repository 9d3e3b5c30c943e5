//! What is known of each peer: a cache half-line of what every packet needs, and beside it what is rarely looked at.
//!
//! Memory: 40 bytes for each peer beside its card (about 60). Its address is given to the provider when there is something to
//! send for the first time, so that the provider's memory grows with the peers dealt with and not with the job.

use std::net::SocketAddr;

use selvedge_transport::{Fault, Peer};

use crate::card::Card;
use crate::fabric::Address;
use crate::faults;

/// Bits of the immediate data that name the sender.
const PEER_BITS: u32 = 24;

/// Most peers there can be. One bit says that the number of a packet stands there as well, see `numbers.rs`.
pub(crate) const PEERS_MAX: usize = 1 << (PEER_BITS - 1);

const PEER_MASK: u64 = (1 << PEER_BITS) - 1;

/// Set in the immediate data of packets that are ours and not the engine's.
const CONTROL: u64 = 1 << PEER_BITS;

/// Bits of the immediate data that hold the receiver's nonce, on networks that carry only 32 bits: bit 25 is zero, 26 to 31.
const NONCE_NARROW_SHIFT: u32 = 26;

/// What the immediate data beside a packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Label {
    /// A packet of the engine.
    Packet(Peer),
    /// A packet of ours.
    Control(Peer),
    /// It is not for us: it belongs to another job that had our address before.
    Foreign,
}

/// The immediate data of packets to one receiver: who sent it, and a number that only those who have its card know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word(u64);

impl Word {
    /// From `from` to whoever has `nonce` in its card; `bytes` are carried by the network.
    pub(crate) fn new(from: Peer, nonce: u32, bytes: usize) -> Word {
        let wide = if bytes >= 8 { u64::from(nonce) << 32 } else { 0 };
        let narrow = u64::from(nonce << NONCE_NARROW_SHIFT);
        Word(wide | narrow | u64::from(from.0))
    }

    /// For a packet of the engine.
    #[inline]
    pub(crate) fn packet(self) -> u64 {
        self.0
    }

    /// For a packet of ours.
    pub(crate) fn control(self) -> u64 {
        self.0 | CONTROL
    }

    /// The sender, where `data` is that of a packet of the engine to whom `self` is expected. One comparison.
    #[inline]
    pub(crate) fn sender(self, data: u64) -> Option<Peer> {
        ((data ^ self.0) & !PEER_MASK == 0).then_some(Peer((data & PEER_MASK) as u32))
    }

    /// The bits of `data` that name the sender.
    #[inline]
    pub(crate) fn name(data: u64) -> u32 {
        (data & PEER_MASK) as u32
    }

    /// What `data` says, to whom `self` is expected.
    pub(crate) fn label(self, data: u64) -> Label {
        let from = Peer((data & PEER_MASK) as u32);
        match (data ^ self.0) & !PEER_MASK {
            0 => Label::Packet(from),
            CONTROL => Label::Control(from),
            _ => Label::Foreign,
        }
    }
}

/// What every packet needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contact {
    /// `None` before the first packet to it, and again when it is gone.
    pub(crate) address: Option<Address>,
    /// What goes beside a packet to it.
    pub(crate) word: Word,
    /// Packets of the engine that were accepted.
    pub(crate) sent: u32,
    /// Packets of the engine that have come.
    pub(crate) received: u32,
}

/// How far we are with a peer.
#[derive(Debug)]
enum Stage {
    /// Nothing was sent, nothing has come.
    Stranger,
    /// Something was.
    Known,
    /// All is over, and has been said.
    Gone(Box<Fault>),
}

#[derive(Debug)]
struct Record {
    stage: Stage,
    card: Option<Card>,
    /// Packets that wait for the provider to take them.
    waiting: u16,
}

/// All peers.
#[derive(Debug)]
pub(crate) struct Peers {
    pub(crate) contacts: Vec<Contact>,
    records: Vec<Record>,
    me: Peer,
}

impl Peers {
    /// Of all cards; those of peers that are never reached by this road are `None`. `data_bytes` is what the network carries
    /// beside a packet.
    pub(crate) fn new(me: Peer, cards: Vec<Option<Card>>, data_bytes: usize) -> Peers {
        let contact = |card: &Option<Card>| Contact {
            address: None,
            word: Word::new(me, card.as_ref().map_or(0, |card| card.nonce), data_bytes),
            sent: 0,
            received: 0,
        };
        let record = |card| Record { stage: Stage::Stranger, card, waiting: 0 };
        Peers {
            contacts: cards.iter().map(contact).collect(),
            records: cards.into_iter().map(record).collect(),
            me,
        }
    }

    /// How many.
    pub(crate) fn count(&self) -> usize {
        self.records.len()
    }

    /// Those that this road leads to, but for ourselves.
    pub(crate) fn others(&self) -> impl Iterator<Item = Peer> + '_ {
        let count = self.records.len() as u32;
        (0..count).map(Peer).filter(|&peer| peer != self.me && self.records[peer.index()].card.is_some())
    }

    /// Whether there is such a peer, and this road leads to it.
    pub(crate) fn is_reached(&self, peer: Peer) -> bool {
        self.records.get(peer.index()).is_some_and(|record| record.card.is_some())
    }

    /// Address of the peer's endpoint on `rail`, or on another where it has fewer.
    pub(crate) fn address(&self, peer: Peer, rail: usize) -> Option<&[u8]> {
        let rails = &self.records[peer.index()].card.as_ref()?.rails;
        rails.get(rail % rails.len()).map(|address| &address[..])
    }

    /// How many rails it has.
    #[inline]
    pub(crate) fn rails(&self, peer: Peer) -> usize {
        self.records[peer.index()].card.as_ref().map_or(1, |card| card.rails.len())
    }

    /// Where its doorway is.
    pub(crate) fn doorway(&self, peer: Peer) -> Option<SocketAddr> {
        self.records[peer.index()].card.as_ref()?.doorway
    }

    /// Whether anything was sent to it or has come from it, and it is not gone.
    pub(crate) fn is_known(&self, peer: Peer) -> bool {
        matches!(self.records[peer.index()].stage, Stage::Known)
    }

    /// Something is sent to it or has come from it. True for the first time.
    pub(crate) fn know(&mut self, peer: Peer) -> bool {
        let record = &mut self.records[peer.index()];
        let is_new = matches!(record.stage, Stage::Stranger);
        if is_new {
            record.stage = Stage::Known;
        }
        is_new
    }

    /// Whether it is gone.
    pub(crate) fn is_gone(&self, peer: Peer) -> bool {
        matches!(self.records[peer.index()].stage, Stage::Gone(_))
    }

    /// Why it is gone.
    pub(crate) fn fault(&self, peer: Peer) -> Option<Box<Fault>> {
        match &self.records[peer.index()].stage {
            Stage::Gone(fault) => Some(fault.clone()),
            _ => None,
        }
    }

    /// It is gone. False when it was already.
    pub(crate) fn lose(&mut self, peer: Peer, fault: Box<Fault>) -> bool {
        if self.is_gone(peer) {
            return false;
        }
        self.contacts[peer.index()].address = None;
        self.records[peer.index()].stage = Stage::Gone(fault);
        true
    }

    /// Packets to it that wait for the provider.
    pub(crate) fn waiting(&mut self, peer: Peer) -> &mut u16 {
        &mut self.records[peer.index()].waiting
    }
}

/// Reads the cards of all peers and finds what all can do.
///
/// # Errors
/// A [`Fault`] of the first peer whose card is not like ours.
pub(crate) fn read_cards(own: &Card, cards: &[Vec<u8>]) -> Result<Vec<Option<Card>>, Box<Fault>> {
    let read = |(peer, bytes): (usize, &Vec<u8>)| {
        if bytes.is_empty() {
            return Ok(None);
        }
        let peer = Peer(peer as u32);
        let card = Card::read(bytes).map_err(|why| faults::unreadable(peer, why))?;
        if card.provider != own.provider {
            return Err(faults::other_road(peer, &own.provider, &card.provider));
        }
        Ok(Some(card))
    };
    cards.iter().enumerate().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_names_its_sender_to_whom_it_is_for_and_to_nobody_else() {
        for bytes in [4, 8] {
            let sent = Word::new(Peer(70_000), 0xABCD_EF12, bytes);
            let expected = Word::new(Peer(0), 0xABCD_EF12, bytes);
            let other = Word::new(Peer(0), 0xABCD_EF13, bytes);
            assert_eq!(expected.sender(sent.packet()), Some(Peer(70_000)));
            assert_eq!(expected.sender(sent.control()), None);
            assert_eq!(expected.label(sent.control()), Label::Control(Peer(70_000)));
            assert_eq!(other.sender(sent.packet()), None);
            assert_eq!(other.label(sent.control()), Label::Foreign);
            assert!(bytes == 8 || sent.control() <= u64::from(u32::MAX), "it fits what is carried");
        }
    }

    #[test]
    fn what_every_packet_needs_of_a_peer_is_half_a_cache_line() {
        assert!(size_of::<Contact>() <= 32);
    }

    #[test]
    fn a_peer_is_lost_once() {
        let mut peers = Peers::new(Peer(0), vec![None, None], 8);
        assert!(peers.know(Peer(1)) && !peers.know(Peer(1)));
        assert!(peers.lose(Peer(1), faults::left(Peer(1))));
        assert!(!peers.lose(Peer(1), faults::left(Peer(1))));
        assert!(peers.is_gone(Peer(1)) && !peers.is_known(Peer(1)) && !peers.know(Peer(1)));
    }
}
