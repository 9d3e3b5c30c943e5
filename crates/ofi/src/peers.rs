//! What is known of each peer: half a cache line of what every packet needs, and beside it what is rarely looked at.
//!
//! A peer is a stranger until its card is here, which is wanted when there is something to send to it for the first time,
//! or when a packet of it has come. So memory grows with the peers dealt with and not with the job: a peer that one never has
//! to do with costs an eighth of a byte, 32 bytes where one has to do with a neighbour of it (`pages.rs`), and one that is known
//! a few hundred, its card among them.

pub(crate) mod acquaintance;
pub(crate) mod farewell;
pub(crate) mod lifeline;
pub(crate) mod pages;
pub(crate) mod words;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use selvedge_transport::{Fault, Peer};

use crate::faults;
use crate::opening::card::Card;
use crate::peers::pages::Pages;
use crate::peers::words::{CONTROL, NAME_MASK, Words};
use crate::rail::fabric::Address;
use crate::transport::numbers::Numbering;

/// Most peers there can be. One bit of a name says that the number of a packet stands there as well, see `numbers.rs`.
pub(crate) const PEERS_MAX: usize = 1 << 23;

/// What the immediate data beside a packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Label {
    /// A packet of the engine, with the low bits of its number where packets have one.
    Packet(Peer, Option<u32>),
    /// A packet of ours.
    Control(Peer),
    /// It is not for us: whoever has sent it does not know this job's secret.
    Foreign,
}

/// What every packet needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contact {
    /// `None` before its card is here, and again when it is gone.
    pub(crate) address: Option<Address>,
    /// What comes beside a packet of the engine from it. Of somebody that we have had nothing to do with: what cannot come,
    /// because it names another.
    expected: u64,
    /// Packets of the engine that were accepted.
    pub(crate) sent: u32,
    /// Packets of the engine that have come.
    pub(crate) received: u32,
}

impl Contact {
    fn unmet(peer: Peer) -> Contact {
        Contact { address: None, expected: !u64::from(peer.0), sent: 0, received: 0 }
    }

    fn is_met(&self, peer: Peer) -> bool {
        self.expected != Contact::unmet(peer).expected
    }
}

/// How far we are with a peer.
#[derive(Debug)]
enum Stage {
    /// We have had nothing to do with it, or have no card of it.
    Stranger,
    /// It was told that we are there, or we that it is.
    Known,
    /// All is over, and has been said.
    Gone(Box<Fault>),
}

#[derive(Debug)]
struct Record {
    stage: Stage,
    card: Option<Box<Card>>,
    /// There is something to do with it as soon as its card is here.
    is_wanted: bool,
    /// Packets that wait for the provider to take them.
    waiting: u16,
}

/// All peers.
#[derive(Debug)]
pub(crate) struct Peers {
    contacts: Pages<Contact>,
    /// Of those that we have had to do with, have a card of, or that are gone.
    records: BTreeMap<Peer, Record>,
    /// Strangers whose cards were not asked for yet.
    wanted: VecDeque<Peer>,
    /// Those that this road does not lead to, ascending.
    unreached: Vec<Peer>,
    count: usize,
    /// Whether any peer has several rails.
    has_several: bool,
    words: Words,
    me: Peer,
}

impl Peers {
    /// `count` strangers, but for ourselves and those that are never reached by this road. `has_several`: some of them have
    /// several rails.
    pub(crate) fn new(
        me: Peer,
        count: usize,
        mut unreached: Vec<Peer>,
        has_several: bool,
        words: Words,
    ) -> Peers {
        unreached.sort_unstable();
        Peers {
            contacts: Pages::new(count),
            records: BTreeMap::new(),
            wanted: VecDeque::new(),
            unreached,
            count,
            has_several,
            words,
            me,
        }
    }

    /// How many.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Those that this road leads to, but for ourselves.
    pub(crate) fn others(&self) -> impl Iterator<Item = Peer> + '_ {
        (0..self.count as u32).map(Peer).filter(|&peer| self.is_reached(peer))
    }

    /// Whether there is such a peer other than ourselves, and this road leads to it.
    pub(crate) fn is_reached(&self, peer: Peer) -> bool {
        peer.index() < self.count && peer != self.me && self.unreached.binary_search(&peer).is_err()
    }

    /// The contact with a peer that we have had to do with, or with one of its page.
    #[inline]
    pub(crate) fn contact(&mut self, peer: Peer) -> Option<&mut Contact> {
        self.contacts.get_mut(peer)
    }

    /// The same, to look at.
    pub(crate) fn look(&self, peer: Peer) -> Option<&Contact> {
        self.contacts.get(peer)
    }

    /// The provider's name for a peer that was met and is not gone.
    #[inline]
    pub(crate) fn address(&self, peer: Peer) -> Option<Address> {
        self.look(peer)?.address
    }

    /// Who has sent a packet of the engine without a number, if it is somebody that we have had to do with before. One
    /// comparison.
    #[inline]
    pub(crate) fn sender(&mut self, data: u64) -> Option<(Peer, &mut Contact)> {
        let peer = Peer((data & NAME_MASK) as u32);
        let contact = self.contact(peer)?;
        (contact.expected == data).then_some((peer, contact))
    }

    /// What `data` says, whoever sent it.
    pub(crate) fn label(&self, data: u64, numbering: Option<Numbering>) -> Label {
        let name = (data & NAME_MASK) as u32;
        let (peer, number) = match numbering.and_then(|numbering| numbering.read(name)) {
            Some((peer, number)) => (peer, Some(number)),
            None => (Peer(name), None),
        };
        let expected = match self.look(peer).filter(|contact| contact.is_met(peer)) {
            Some(contact) => contact.expected,
            None if self.is_reached(peer) => self.words.pair(self.me, peer),
            None => return Label::Foreign,
        };
        match (data ^ expected) & !NAME_MASK {
            0 => Label::Packet(peer, number),
            CONTROL if number.is_none() => Label::Control(peer),
            _ => Label::Foreign,
        }
    }

    /// What goes beside a packet of the engine to a peer that was met.
    #[inline]
    pub(crate) fn word(contact: &Contact, to: Peer, me: Peer) -> u64 {
        contact.expected ^ u64::from(to.0 ^ me.0)
    }

    /// We have to do with a peer: there is room for what every packet needs. Costs a hash for the first time.
    #[cold]
    pub(crate) fn meet(&mut self, peer: Peer) -> &mut Contact {
        debug_assert!(self.is_reached(peer), "{peer:?} is not reached by this road");
        let expected = self.words.pair(self.me, peer) | u64::from(peer.0);
        let contact = self.contacts.make(peer, Contact::unmet);
        contact.expected = expected;
        contact
    }

    /// Address of the peer's endpoint on `rail`, or on another where it has fewer.
    pub(crate) fn card_address(&self, peer: Peer, rail: usize) -> Option<&[u8]> {
        let rails = &self.card(peer)?.rails;
        rails.get(rail % rails.len()).map(|address| &address[..])
    }

    fn card(&self, peer: Peer) -> Option<&Card> {
        self.records.get(&peer)?.card.as_deref()
    }

    /// How many rails it has, where its card is here.
    #[inline]
    pub(crate) fn rails(&self, peer: Peer) -> usize {
        if !self.has_several {
            return 1;
        }
        self.card(peer).map_or(1, |card| card.rails.len())
    }

    /// Where its doorway is.
    pub(crate) fn doorway(&self, peer: Peer) -> Option<SocketAddr> {
        self.card(peer)?.doorway
    }

    fn record(&mut self, peer: Peer) -> &mut Record {
        self.records.entry(peer).or_insert_with(|| Record {
            stage: Stage::Stranger,
            card: None,
            is_wanted: false,
            waiting: 0,
        })
    }

    /// Whether it is somebody that this road leads to, who is not gone, and whose card is not here.
    pub(crate) fn is_stranger(&self, peer: Peer) -> bool {
        let has_no_card = |record: &Record| record.card.is_none() && !matches!(record.stage, Stage::Gone(_));
        self.is_reached(peer) && self.records.get(&peer).is_none_or(has_no_card)
    }

    /// There is something to do with a stranger.
    #[cold]
    pub(crate) fn want(&mut self, peer: Peer) {
        debug_assert!(self.is_stranger(peer));
        if !std::mem::replace(&mut self.record(peer).is_wanted, true) {
            self.wanted.push_back(peer);
        }
    }

    /// Whether there are strangers whose cards were not asked for yet.
    #[inline]
    pub(crate) fn has_wanted(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// The next stranger whose card is to be asked for. Told once.
    pub(crate) fn next_wanted(&mut self) -> Option<Peer> {
        self.wanted.pop_front()
    }

    /// Its card is here. True when there is something to do with it.
    pub(crate) fn learn(&mut self, peer: Peer, card: Card) -> bool {
        let record = self.record(peer);
        record.card = Some(Box::new(card));
        std::mem::take(&mut record.is_wanted)
    }

    /// Whether anything was sent to it or has come from it, and it is not gone.
    pub(crate) fn is_known(&self, peer: Peer) -> bool {
        self.records.get(&peer).is_some_and(|record| matches!(record.stage, Stage::Known))
    }

    /// Something is sent to it or has come from it. True for the first time.
    pub(crate) fn know(&mut self, peer: Peer) -> bool {
        let record = self.record(peer);
        let is_new = matches!(record.stage, Stage::Stranger);
        if is_new {
            record.stage = Stage::Known;
        }
        is_new
    }

    /// Whether it is gone.
    pub(crate) fn is_gone(&self, peer: Peer) -> bool {
        self.records.get(&peer).is_some_and(|record| matches!(record.stage, Stage::Gone(_)))
    }

    /// Why it is gone.
    pub(crate) fn fault(&self, peer: Peer) -> Option<Box<Fault>> {
        match &self.records.get(&peer)?.stage {
            Stage::Gone(fault) => Some(fault.clone()),
            _ => None,
        }
    }

    /// It is gone. False when it was already.
    pub(crate) fn lose(&mut self, peer: Peer, fault: Box<Fault>) -> bool {
        if self.is_gone(peer) {
            return false;
        }
        if let Some(contact) = self.contact(peer) {
            contact.address = None;
        }
        self.record(peer).stage = Stage::Gone(fault);
        true
    }

    /// Packets to it that wait for the provider.
    pub(crate) fn waiting(&mut self, peer: Peer) -> &mut u16 {
        &mut self.record(peer).waiting
    }
}

/// Reads a peer's card, which must be of the road that we take.
///
/// # Errors
/// A [`Fault`] of that peer.
pub(crate) fn read_card(peer: Peer, provider: &str, bytes: &[u8]) -> Result<Card, Box<Fault>> {
    let card = Card::read(bytes).map_err(|why| faults::unreadable(peer, why))?;
    if card.provider != provider {
        return Err(faults::other_road(peer, provider, &card.provider));
    }
    Ok(card)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: Peer = Peer(3);

    fn peers(count: usize) -> Peers {
        Peers::new(ME, count, vec![Peer(1)], false, Words::new([7; 32], 8))
    }

    /// What comes beside a packet from `from` to `to`.
    fn sent(from: Peer, to: Peer) -> u64 {
        let mut theirs = Peers::new(from, 100_000, Vec::new(), false, Words::new([7; 32], 8));
        let contact = *theirs.meet(to);
        Peers::word(&contact, to, from)
    }

    #[test]
    fn what_every_packet_needs_of_a_peer_is_half_a_cache_line() {
        assert!(size_of::<Contact>() <= 32);
    }

    #[test]
    fn a_packet_names_its_sender_to_whom_it_is_for_and_to_nobody_else() {
        let (from, mut here) = (Peer(70_000), peers(100_000));
        let data = sent(from, ME);
        assert!(here.sender(data).is_none(), "we have had nothing to do with it");
        assert_eq!(here.label(data, None), Label::Packet(from, None));
        assert_eq!(here.label(data | CONTROL, None), Label::Control(from));
        here.meet(from);
        assert_eq!(here.sender(data).map(|(peer, _)| peer), Some(from));
        assert!(here.sender(data | CONTROL).is_none());
        assert_eq!(here.label(data | CONTROL, None), Label::Control(from));
        for forged in [sent(from, Peer(4)), sent(Peer(70_001), ME) ^ 1, data ^ 1 << 40, u64::MAX, 0] {
            assert!(here.sender(forged).is_none(), "{forged:#x}");
            assert_eq!(here.label(forged, None), Label::Foreign, "{forged:#x}");
        }
    }

    #[test]
    fn nobody_is_taken_for_a_neighbour_of_somebody_we_know() {
        let mut here = peers(100);
        here.meet(Peer(5));
        for low in 0..64_u64 {
            for high in [0, !NAME_MASK, !(NAME_MASK | CONTROL)] {
                assert!(here.sender(high | low).is_none(), "{low}");
            }
            let unmet = Contact::unmet(Peer(low as u32)).expected;
            assert!(here.sender(unmet).is_none() && here.label(unmet, None) == Label::Foreign);
        }
    }

    #[test]
    fn a_stranger_is_asked_for_once_and_known_when_its_card_is_here() {
        let mut here = peers(10);
        assert!(!here.is_stranger(ME) && !here.is_stranger(Peer(1)) && !here.is_stranger(Peer(10)));
        here.want(Peer(2));
        here.want(Peer(2));
        assert_eq!((here.next_wanted(), here.next_wanted()), (Some(Peer(2)), None));
        assert!(here.is_stranger(Peer(2)) && here.learn(Peer(2), crate::opening::card::tests::card()));
        assert!(!here.is_stranger(Peer(2)) && !here.is_known(Peer(2)) && here.know(Peer(2)));
        assert!(!here.learn(Peer(4), crate::opening::card::tests::card()), "nobody has asked for it");
    }

    #[test]
    fn a_peer_is_lost_once() {
        let mut peers = peers(8);
        assert!(peers.know(Peer(2)) && !peers.know(Peer(2)));
        assert!(peers.lose(Peer(2), faults::left(Peer(2))));
        assert!(!peers.lose(Peer(2), faults::left(Peer(2))));
        assert!(peers.is_gone(Peer(2)) && !peers.is_known(Peer(2)) && !peers.know(Peer(2)));
        assert!(!peers.is_stranger(Peer(2)));
    }
}
