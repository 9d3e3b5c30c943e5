//! How dealings with a peer end: it says goodbye, its process ends, or the provider gives up on it.
//!
//! A peer that leaves in order tells everybody it has had to do with how many packets it has sent them, and stays until each
//! has answered that they have arrived. So the news that it has left comes behind its last packet, whatever overtakes
//! what, and nothing that lies in a buffer of the kernel is lost when its sockets are closed.
//!
//! ```text
//! leaver                                   peer
//!   | packets ------------------------------> |
//!   | GOODBYE, number of packets -----------> | waits until it has them all
//!   | <----------------------------- SEEN_OFF | tells the caller: it has left
//!   | closes                                  |
//! ```
//!
//! Two that leave at the same time answer each other's goodbye and are done.

use std::time::{Duration, Instant};

use selvedge_transport::{Buf, Event, Fault, Peer, Transport};

use crate::error::Code;
use crate::faults;
use crate::peers::Peers;
use crate::peers::acquaintance::FAMILIAR_PEERS;
use crate::peers::lifeline::Ending;
use crate::peers::words::CONTROL;
use crate::rail::fabric::Address;
use crate::transport::Ofi;
use crate::transport::rails::Way;

/// First byte of a packet of ours.
const GOODBYE: u8 = 1;
const SEEN_OFF: u8 = 2;
pub(crate) const PROBE: u8 = 3;

/// The longest that leaving may take: for peers that do not poll meanwhile. They lose nothing on EFA, where what is complete
/// has arrived; on TCP what the kernels have not yet exchanged.
pub(crate) const LEAVING_MAX: Duration = Duration::from_secs(2);

/// After a line has ended, what its peer sent before is still looked for so long, its goodbye above all.
const GRACE: Duration = Duration::from_millis(20);

/// After the provider has given up on a peer, its line is still looked at so long: it knows better why.
const GRACE_REFUSED: Duration = Duration::from_millis(50);

/// Packets that a goodbye spoke of and that have not come so long after the line has ended will not come.
const LOST: Duration = Duration::from_secs(1);

/// One-sided operations that the provider has not ended so long after their peer is gone are given up.
const MOURNING: Duration = Duration::from_millis(500);

/// The same while nothing is known to be wrong: more than any network keeps a packet that it still delivers.
const OVERDUE: Duration = Duration::from_secs(30);

/// A sign that a peer is going.
#[derive(Debug)]
pub(crate) enum Parting {
    /// Its line has ended.
    LineEnded(Ending),
    /// The provider says that an operation with it failed.
    Refused(Box<Fault>),
    /// It has said goodbye, and that it has sent so many packets.
    Goodbye(u32),
}

/// A peer that is going, and the signs of it.
#[derive(Debug)]
struct Going {
    peer: Peer,
    since: Instant,
    ending: Option<Ending>,
    refused: Option<Box<Fault>>,
    sent: Option<u32>,
}

/// What is left to do before this rank has left.
#[derive(Debug)]
pub(crate) struct Leaving {
    until: Instant,
    /// Peers that do not know it yet.
    untold: Vec<Peer>,
}

/// Peers that are going, and whom we have told that we are.
#[derive(Debug)]
pub(crate) struct Farewells {
    /// Bounded by the peers.
    going: Vec<Going>,
    /// Peers that have not yet answered our goodbye.
    unanswered: Vec<Peer>,
    /// Peers that are gone, and since when, whose one-sided operations may be in flight.
    mourned: Vec<(Peer, Instant)>,
}

impl Farewells {
    pub(crate) fn new() -> Farewells {
        Farewells { going: Vec::new(), unanswered: Vec::new(), mourned: Vec::new() }
    }

    /// Whether there is nothing to conclude.
    pub(crate) fn is_quiet(&self) -> bool {
        self.going.is_empty() && self.mourned.is_empty()
    }

    /// One-sided operations with a peer that is gone get some time to end by themselves.
    pub(crate) fn wait_for_works(&mut self, peer: Peer) {
        self.mourned.push((peer, Instant::now()));
    }
}

impl Ofi {
    /// Notes a sign that a peer is going.
    #[cold]
    pub(crate) fn part(&mut self, peer: Peer, sign: Parting) {
        if self.peers.is_gone(peer) {
            return;
        }
        let known = self.farewells.going.iter().position(|going| going.peer == peer);
        let index = known.unwrap_or_else(|| {
            let since = Instant::now();
            self.farewells.going.push(Going { peer, since, ending: None, refused: None, sent: None });
            self.farewells.going.len() - 1
        });
        let going = &mut self.farewells.going[index];
        match sign {
            Parting::LineEnded(ending) => going.ending = Some(ending),
            Parting::Refused(fault) => going.refused = going.refused.take().or(Some(fault)),
            Parting::Goodbye(sent) => going.sent = Some(sent),
        }
        self.has_news = true;
    }

    /// Concludes what can be concluded about peers that are going.
    #[cold]
    pub(crate) fn tend_farewells(&mut self) {
        // In the order in which they went.
        while let Some(&(peer, since)) = self.farewells.mourned.first() {
            if since.elapsed() < MOURNING && !self.works.with(peer).is_empty() {
                break;
            }
            self.give_up_works(peer);
            self.farewells.mourned.remove(0);
        }
        let mut index = 0;
        while index < self.farewells.going.len() {
            let going = &self.farewells.going[index];
            let (peer, verdict) = (going.peer, self.conclude(going));
            match verdict {
                // Gone in order, but only once it knows that we know.
                Some(fault) if fault.cause == selvedge_transport::Cause::PeerLeft => {
                    if self.peers.is_stranger(peer) {
                        // Its goodbye is the first that we hear of it, and where to answer is still on its way.
                        self.peers.want(peer);
                        index += 1;
                    } else if self.send_control(peer, &[SEEN_OFF]) {
                        self.farewells.going.swap_remove(index);
                        self.lose(peer, fault);
                    } else {
                        index += 1;
                    }
                }
                Some(fault) => {
                    self.farewells.going.swap_remove(index);
                    self.lose(peer, fault);
                }
                None => index += 1,
            }
        }
    }

    fn conclude(&self, going: &Going) -> Option<Box<Fault>> {
        let Going { peer, since, ending, refused, sent } = going;
        let age = since.elapsed();
        if let Some(sent) = *sent {
            let received = self.peers.look(*peer).map_or(0, |contact| contact.received);
            let missing = sent.wrapping_sub(received);
            if missing == 0 {
                return (!self.has_stashed(*peer)).then(|| faults::left(*peer));
            }
            let is_broken = ending.is_some() || refused.is_some();
            return (age > if is_broken { LOST } else { OVERDUE })
                .then(|| faults::left_and_lost(*peer, missing.into(), age));
        }
        if let Some(ending) = *ending {
            return (age > GRACE).then(|| faults::line_ended(*peer, ending));
        }
        refused.clone().filter(|_| age > GRACE_REFUSED)
    }

    /// Sends a packet of ours. False when there is no room; then nothing was sent.
    pub(crate) fn send_control(&mut self, to: Peer, bytes: &[u8]) -> bool {
        self.packet_way(to).is_none_or(|way| self.send_control_by(way, bytes))
    }

    /// The same, by this way.
    pub(crate) fn send_control_by(&mut self, (way, address): (Way, Address), bytes: &[u8]) -> bool {
        let Some(contact) = self.peers.look(way.peer) else { return true };
        let data = Peers::word(contact, way.peer, self.me) | CONTROL;
        let rail = self.rail(way.own);
        let Some(slot) = rail.outbound.take(way.peer) else { return false };
        let len = rail.outbound.fill(slot, bytes, Buf::EMPTY);
        rail.outbound.note(slot, len, data, way.theirs);
        let sent = rail.send_slot(slot, len, address, data);
        if sent.is_err() {
            rail.outbound.give_back(slot);
        }
        sent != Err(Code::AGAIN)
    }

    /// Sends a word that asks for nothing: whether it arrives is what we want to know.
    pub(crate) fn send_probe(&mut self, to: Peer) {
        // Without room it is asked again next time.
        let _ = self.send_control(to, &[PROBE]);
    }

    /// A packet of ours has come.
    #[cold]
    pub(crate) fn take_control(&mut self, from: Peer, rail: usize, slot: usize) {
        let word = match *self.rail(rail).inbound.packet(slot) {
            [GOODBYE, a, b, c, d] => Some(Parting::Goodbye(u32::from_le_bytes([a, b, c, d]))),
            [SEEN_OFF] => {
                self.farewells.unanswered.retain(|&peer| peer != from);
                None
            }
            [PROBE] => None,
            _ => Some(Parting::Refused(faults::foreign_packet(from))),
        };
        self.meet(from);
        if let Some(sign) = word {
            self.part(from, sign);
        }
        self.give_slot_back(rail, slot);
    }

    /// Says goodbye to all we have had to do with (in small jobs, to all), and stays until they have answered or two
    /// seconds have passed: a millisecond of that, or less. True when it is done. Cards of strangers are taken
    /// between the steps.
    #[cold]
    pub(crate) fn leave_a_step(&mut self) -> bool {
        let Leaving { until, mut untold } = self.leaving.take().unwrap_or_else(|| self.begin_to_leave());
        untold.retain(|&peer| !self.say_goodbye(peer));
        while let Some(event) = self.poll() {
            if let Event::Packet { slot, .. } = event {
                self.release(slot);
            }
        }
        let Ofi { peers, farewells, .. } = self;
        farewells.unanswered.retain(|&peer| !peers.is_gone(peer));
        let is_done = untold.is_empty() && farewells.unanswered.is_empty() && self.sends_pending() == 0;
        let is_over = is_done || Instant::now() >= until;
        self.leaving = Some(Leaving { until, untold });
        if !is_over {
            self.wait(Duration::from_millis(1));
        }
        is_over
    }

    fn begin_to_leave(&mut self) -> Leaving {
        // Packets that the caller has not given back shall not keep ours out.
        self.lend_all();
        let is_small = self.peers.count() <= FAMILIAR_PEERS;
        let others: Vec<Peer> = self.peers.others().collect();
        let untold: Vec<Peer> =
            others.into_iter().filter(|&peer| is_small || self.peers.is_known(peer)).collect();
        self.farewells.unanswered.clone_from(&untold);
        Leaving { until: Instant::now() + LEAVING_MAX, untold }
    }

    /// The same to its end, without those whose cards are not here: nobody is there to bring them.
    pub(crate) fn leave_alone(&mut self) {
        let mut leaving = self.leaving.take().unwrap_or_else(|| self.begin_to_leave());
        leaving.untold.retain(|&peer| !self.peers.is_stranger(peer));
        self.farewells.unanswered.retain(|&peer| !self.peers.is_stranger(peer));
        self.leaving = Some(leaving);
        while !self.leave_a_step() {
            while self.peers.next_wanted().is_some() {}
        }
    }

    /// True when the peer has been told, or need not be.
    fn say_goodbye(&mut self, peer: Peer) -> bool {
        if !self.meet(peer) {
            return !self.peers.is_stranger(peer);
        }
        let sent = self.peers.look(peer).map_or(0, |contact| contact.sent).to_le_bytes();
        self.send_control(peer, &[GOODBYE, sent[0], sent[1], sent[2], sent[3]])
    }
}
