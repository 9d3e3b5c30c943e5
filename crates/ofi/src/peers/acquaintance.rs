//! Dealings with peers as such: the first, the last, and whether they are still there in between.

use std::time::{Duration, Instant};

use selvedge_transport::{Acquaint, Event, Fault, Peer};

use crate::error::{Code, Error};
use crate::faults;
use crate::peers::farewell::Parting;
use crate::peers::lifeline::Ending;
use crate::peers::read_card;
use crate::rail::fabric::Address;
use crate::rail::words;
use crate::transport::Ofi;
use crate::transport::rails::Way;

/// How often a rank that waits looks whether its peers still live.
pub(crate) const ROLL_CALL: Duration = Duration::from_millis(100);

/// Peers it turns to each time that it had nothing to do with before. On larger jobs it goes on with the next ones.
const ROLL_CALL_PEERS: usize = 8;

/// In jobs of at most so many peers everybody looks after everybody. In larger ones a rank looks after those it has had to do
/// with: after all of them would be a line, or a place in the device's tables, for each pair of ranks.
pub(crate) const FAMILIAR_PEERS: usize = 32;

impl Acquaint for Ofi {
    #[inline]
    fn has_strangers(&self) -> bool {
        self.peers.has_wanted()
    }

    fn stranger(&mut self) -> Option<Peer> {
        self.peers.next_wanted()
    }

    fn is_stranger(&self, peer: Peer) -> bool {
        self.peers.is_stranger(peer)
    }

    #[cold]
    fn introduce(&mut self, peer: Peer, card: Result<&[u8], Box<Fault>>) {
        if !self.peers.is_stranger(peer) {
            return;
        }
        match card.and_then(|bytes| read_card(peer, &self.provider, bytes)) {
            Ok(card) => {
                if self.peers.learn(peer, card) {
                    self.meet(peer);
                }
            }
            Err(fault) => self.lose(peer, fault),
        }
        // What has waited for it is tried again.
        self.refused_at = self.refused_at.map(|_| usize::MAX);
        self.has_news = true;
    }

    fn leave(&mut self) -> bool {
        self.leave_a_step()
    }
}

impl Ofi {
    /// A packet of a peer has come that we have had nothing to do with, or whose card is still on its way.
    #[cold]
    pub(crate) fn greet(&mut self, peer: Peer) {
        self.peers.meet(peer);
        self.meet(peer);
    }

    /// Has to do with a peer for the first time: tells the provider its address and calls at its doorway. False when it is
    /// gone, or lost by that, or when its card is not here, which is then wanted.
    #[cold]
    pub(crate) fn meet(&mut self, peer: Peer) -> bool {
        if self.peers.is_gone(peer) || peer == self.me {
            return false;
        }
        if self.peers.is_stranger(peer) {
            self.peers.want(peer);
            return false;
        }
        if self.peers.address(peer).is_none() {
            match self.insert(Way { own: 0, peer, theirs: 0 }) {
                Ok(address) => {
                    self.peers.meet(peer).address = Some(address);
                    self.open_passage(peer, address);
                }
                Err(error) => {
                    self.lose(peer, faults::not_inserted(peer, &error));
                    return false;
                }
            }
        }
        if self.peers.know(peer) {
            self.watch_over(peer);
        }
        true
    }

    /// Tells the provider the address of a peer's rail.
    fn insert(&mut self, way: Way) -> Result<Address, Error> {
        let address =
            self.peers.card_address(way.peer, way.theirs).map(Box::<[u8]>::from).unwrap_or_default();
        self.rail(way.own).endpoint().addresses().insert(&address)
    }

    /// The peer's address on a way, told to the provider when it is first asked for. The peer was met.
    pub(crate) fn address(&mut self, way: Way) -> Result<Address, Error> {
        if way.own == 0
            && way.theirs == 0
            && let Some(address) = self.peers.address(way.peer)
        {
            return Ok(address);
        }
        if let Some(address) = self.ways.address(way) {
            return Ok(address);
        }
        let address = self.insert(way)?;
        self.ways.learn(way, address);
        Ok(address)
    }

    /// Tells the devices of our rails `own` all addresses of a peer that will read or write there.
    pub(crate) fn announce(&mut self, peer: Peer, own: [usize; 2]) {
        if self.others.is_empty() && self.peers.rails(peer) == 1 {
            return;
        }
        for own in own {
            for theirs in 0..self.peers.rails(peer) {
                // A device that does not take it refuses the peer's operations, which then says so.
                let _ = self.address(Way { own, peer, theirs });
            }
        }
    }

    /// Calls at a peer's doorway.
    fn watch_over(&mut self, peer: Peer) {
        let Some(doorway) = self.peers.doorway(peer) else { return };
        if let Some(ending) = self.lines.as_mut().and_then(|lines| lines.call(peer, doorway)) {
            self.line_ended(peer, ending);
        }
    }

    fn line_ended(&mut self, peer: Peer, ending: Ending) {
        if !self.is_efa || ending == Ending::Closed {
            self.part(peer, Parting::LineEnded(ending));
        }
    }

    /// Sends a word to a peer that nobody watches, to learn from the device whether it is there. Not while many sends are
    /// under way: they tell as well.
    fn probe(&mut self, peer: Peer) {
        let is_watched = self.lines.as_ref().is_some_and(|lines| lines.has(peer));
        let own = self.packet_way(peer).map_or(0, |(way, _)| way.own);
        if self.is_efa && !is_watched && self.peers.is_known(peer) && self.rail(own).has_many_free() {
            self.send_probe(peer);
        }
    }

    /// The peer is gone: tells it once, ends what waits for it.
    #[cold]
    pub(crate) fn lose(&mut self, peer: Peer, fault: Box<Fault>) {
        if !self.peers.lose(peer, fault.clone()) {
            return;
        }
        if let Some(lines) = &mut self.lines {
            lines.hang_up(peer);
        }
        for number in self.works.take_waiting() {
            match self.works.get(number as usize) {
                Some(work) if work.peer == peer => self.fail_work(number as usize, fault.clone()),
                _ => self.works.wait(number as usize),
            }
        }
        // Those that the provider has it ends itself, or we do when it does not.
        self.farewells.wait_for_works(peer);
        self.events.push_back(Event::Fault(fault));
        self.has_news = true;
    }

    /// The provider does not take an operation, and will not.
    #[cold]
    pub(crate) fn not_taken(&mut self, peer: Peer, code: Code) {
        if !self.peers.is_gone(peer) {
            let words = words(self.rail.domain(), code);
            self.lose(peer, faults::not_taken(peer, &words));
        }
    }

    /// Looks, now and then, who has gone.
    #[cold]
    pub(crate) fn call_roll(&mut self, now: Instant) {
        if now.duration_since(self.last_roll_call) < ROLL_CALL {
            return;
        }
        self.last_roll_call = now;
        self.rail.endpoint().forget_events();
        self.others.iter_mut().for_each(|rail| rail.endpoint().forget_events());
        let is_small = self.peers.count() <= FAMILIAR_PEERS;
        for _ in 0..ROLL_CALL_PEERS.min(self.peers.count()) {
            self.asked = (self.asked + 1) % self.peers.count();
            let peer = Peer(self.asked as u32);
            if peer != self.me && self.peers.is_reached(peer) {
                if is_small {
                    self.meet(peer);
                }
                self.probe(peer);
            }
        }
        self.look_at_lines();
    }

    /// Looks which lines have ended.
    #[cold]
    pub(crate) fn look_at_lines(&mut self) {
        let Some(mut lines) = self.lines.take() else { return };
        lines.look(|peer, ending| self.line_ended(peer, ending));
        self.lines = Some(lines);
    }
}
