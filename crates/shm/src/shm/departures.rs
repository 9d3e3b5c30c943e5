//! Who has gone: found out by those who wait, and told when the last packets of the one who went are taken.

use std::time::{Duration, Instant};

use selvedge_transport::{Event, Peer};

use crate::faults;
use crate::segment::Presence;
use crate::shm::Shm;

/// How often a rank that waits looks whether its peers still live.
pub(super) const ROLL_CALL: Duration = Duration::from_millis(100);

/// Peers it asks the kernel about each time, a system call of about a microsecond each. On hosts with more ranks it goes
/// on with the next ones, and so do the others, each from its own place.
const ROLL_CALL_PEERS: usize = 8;

impl Shm {
    /// Looks, now and then, who has gone: all are asked in turn by all who wait, and who finds out tells everybody.
    #[cold]
    pub(super) fn call_roll(&mut self, now: Instant) {
        if now.duration_since(self.last_roll_call) < ROLL_CALL {
            return;
        }
        self.last_roll_call = now;
        let peers = self.segment.peers();
        for _ in 0..ROLL_CALL_PEERS.min(peers - 1) {
            self.asked = (self.asked + 1) % peers;
            self.segment.look_after(Peer(self.asked as u32));
        }
        let departures = self.segment.departures();
        if std::mem::replace(&mut self.departures, departures) == departures {
            return;
        }
        for peer in (0..peers).filter(|&peer| peer != self.me.index()) {
            if !self.gone[peer] && self.segment.seat(Peer(peer as u32)).presence() != Presence::Here {
                self.gone[peer] = true;
                self.parting.push(Peer(peer as u32));
            }
        }
    }

    /// Tells of peers that are gone, each when its last packets have been taken.
    #[cold]
    pub(super) fn see_off(&mut self) {
        let Shm { parting, roads, rings, segment, copies, events, me, .. } = self;
        parting.retain(|&peer| {
            if roads[peer.index()].baton.has_more() || rings[peer.index()].has_more() {
                return true;
            }
            let seat = segment.seat(peer);
            let fault = match seat.presence() {
                Presence::Left => faults::left(peer, seat.pid()),
                presence => faults::died(peer, seat.pid(), presence == Presence::Panicked),
            };
            copies.fail(segment, *me, peer, |token| events.push_back(Event::Failed(token, fault.clone())));
            events.push_back(Event::Fault(fault));
            false
        });
    }
}
