//! The transport of a job: shared memory to the ranks of this host, another road to all others.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use selvedge_shm::Shm;
use selvedge_transport::{
    Buf, Busy, Caps, Event, Fault, Key, Peer, RemoteSlice, Scope, Slot, Token, Transport,
};

/// The roads of one rank. Generic over the one that leaves the host, so that both can be tried in one process.
///
/// A job on one host has the near road only and pays a comparison for the possibility of another: what is beyond that
/// comparison is never inlined, and marked cold so that it lies out of the way: what comes next there is a call into another
/// library.
#[allow(
    clippy::large_enum_variant,
    reason = "one to a process; in a box, every message on one host would pay for it"
)]
pub(crate) enum Roads<F> {
    /// All ranks share this host's memory.
    Near(Shm),
    /// No rank does, or none is meant to.
    Far(F),
    /// Some do.
    Both(Box<Both<F>>),
}

impl<F: Transport> Roads<F> {
    /// Both roads: `near` to the ranks of this host, whose numbers in the job are `here` in the order of their numbers in
    /// the segment, and `far` to all others.
    pub(crate) fn both(near: Shm, here: Vec<Peer>, far: F) -> Roads<F> {
        assert_eq!(near.peers(), here.len(), "every rank of the host has its number");
        assert_eq!(here[near.me().index()], far.me(), "both roads begin at the same rank");
        let mut local_of = vec![ELSEWHERE; far.peers()];
        for (local, &peer) in here.iter().enumerate() {
            local_of[peer.index()] = local as u32;
        }
        let roads = near.roads().iter().chain(far.roads()).cloned().collect();
        Roads::Both(Box::new(Both {
            near,
            far,
            roads,
            local_of,
            here,
            near_left: NEAR_TURNS,
            far_left: FAR_TURNS,
            told: VecDeque::with_capacity(2),
            hopeful: Way::Near,
            refused: None,
            idle_since: None,
        }))
    }

    #[cold]
    #[inline(never)]
    fn send_beyond(&mut self, to: Peer, header: &[u8], payload: Buf) -> Result<(), Busy> {
        match self {
            Roads::Near(_) => unreachable!("the near road was tried"),
            Roads::Far(far) => far.send(to, header, payload),
            Roads::Both(both) => both.send(to, header, payload),
        }
    }

    #[cold]
    #[inline(never)]
    fn poll_beyond(&mut self) -> Option<Event> {
        match self {
            Roads::Near(_) => unreachable!("the near road was tried"),
            Roads::Far(far) => far.poll(),
            Roads::Both(both) => both.poll(),
        }
    }

    #[cold]
    #[inline(never)]
    fn packet_beyond(&self, slot: &Slot) -> &[u8] {
        match self {
            Roads::Near(_) => unreachable!("the near road was tried"),
            Roads::Far(far) => far.packet(slot),
            Roads::Both(both) if slot.number() & FAR != 0 => both.far.packet(&Slot::new(slot.number() ^ FAR)),
            Roads::Both(both) => both.near.packet(slot),
        }
    }

    #[cold]
    #[inline(never)]
    fn release_beyond(&mut self, slot: Slot) {
        match self {
            Roads::Near(_) => unreachable!("the near road was tried"),
            Roads::Far(far) => far.release(slot),
            Roads::Both(both) if slot.number() & FAR != 0 => both.far.release(Slot::new(slot.number() ^ FAR)),
            Roads::Both(both) => both.near.release(slot),
        }
    }

    /// The road within this host, where there is one.
    pub(crate) fn near(&self) -> Option<&Shm> {
        match self {
            Roads::Near(near) => Some(near),
            Roads::Far(_) => None,
            Roads::Both(both) => Some(&both.near),
        }
    }

    /// The road to other hosts, where there is one.
    #[cfg(test)]
    pub(crate) fn far(&self) -> Option<&F> {
        match self {
            Roads::Near(_) => None,
            Roads::Far(far) => Some(far),
            Roads::Both(both) => Some(&both.far),
        }
    }
}

/// Polls of the near road between two of the far one: a look into a cache line costs some nanoseconds, a look into a
/// completion queue a hundred and more, and what comes from another host has taken so long that eight near looks are
/// nothing to it.
const NEAR_TURNS: u32 = 8;

/// Events of the far road in a row before the near one has its turn again.
const FAR_TURNS: u32 = 8;

/// In [`Both::local_of`]: a rank of another host.
const ELSEWHERE: u32 = u32::MAX;

/// In the number of a slot: its packet came from another host.
const FAR: u64 = 1 << 63;

/// While nothing happens: look at both roads without a pause for so long, where there is a core for every rank. What a
/// wake-up takes, as in `selvedge-shm`.
const SPIN: Duration = Duration::from_micros(40);

/// Then give the processor away between two looks, up to here.
const YIELD: Duration = Duration::from_micros(400);

/// Then sleep at one road after the other. Each knows how to be woken by its own events only, so that no sleep is longer
/// than this, nor longer than an eighth of the time that has been waited already.
const SLICE_MAX: Duration = Duration::from_millis(1);

/// Which road.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Near,
    Far,
}

/// Both roads, and which rank is at the end of which.
pub(crate) struct Both<F> {
    near: Shm,
    far: F,
    roads: Vec<Caps>,
    /// By peer: its number in the segment.
    local_of: Vec<u32>,
    /// By number in the segment: its peer.
    here: Vec<Peer>,
    /// Polls that look at the near road first; then as many that look at the far one as it has events, up to a limit.
    near_left: u32,
    far_left: u32,
    /// Events that were found while waiting, at most one of each road.
    told: VecDeque<Event>,
    /// Where something has happened last.
    hopeful: Way,
    /// Where a packet found no room since the last wait.
    refused: Option<Way>,
    idle_since: Option<Instant>,
}

impl Roads<crate::communicator::Far> {
    /// The next wait sleeps at once: who calls it has looked long enough.
    pub(crate) fn lose_patience(&mut self) {
        match self {
            Roads::Near(near) => near.lose_patience(),
            Roads::Far(far) => far.inner_mut().lose_patience(),
            Roads::Both(both) => {
                both.near.lose_patience();
                both.far.inner_mut().lose_patience();
                both.idle_since = Instant::now().checked_sub(8 * SLICE_MAX);
            }
        }
    }
}

impl<F: Transport> Both<F> {
    /// Both roads, the near one first.
    pub(crate) fn ways(&mut self) -> (&mut Shm, &mut F) {
        (&mut self.near, &mut self.far)
    }

    fn way(&self, peer: Peer) -> (Way, Peer) {
        match self.local_of[peer.index()] {
            ELSEWHERE => (Way::Far, peer),
            local => (Way::Near, Peer(local)),
        }
    }

    fn send(&mut self, to: Peer, header: &[u8], payload: Buf) -> Result<(), Busy> {
        let (way, peer) = self.way(to);
        let sent = match way {
            Way::Near => self.near.send(peer, header, payload),
            Way::Far => self.far.send(peer, header, payload),
        };
        if sent.is_err() {
            self.refused = Some(way);
        }
        sent
    }

    fn poll(&mut self) -> Option<Event> {
        if let Some(event) = self.told.pop_front() {
            return Some(event);
        }
        if self.near_left == 0 {
            if self.far_left > 0 {
                self.far_left -= 1;
                if let Some(event) = self.poll_far() {
                    return Some(event);
                }
            }
            (self.near_left, self.far_left) = (NEAR_TURNS, FAR_TURNS);
        }
        self.near_left -= 1;
        self.poll_near()
    }

    fn poll_near(&mut self) -> Option<Event> {
        let event = match self.near.poll()? {
            Event::Packet { from, slot } => Event::Packet { from: self.here[from.index()], slot },
            Event::Done(token) => Event::Done(token),
            Event::Failed(token, fault) => Event::Failed(token, self.with_job_number(fault)),
            Event::Fault(fault) => Event::Fault(self.with_job_number(fault)),
        };
        self.hopeful = Way::Near;
        self.idle_since = None;
        Some(event)
    }

    fn poll_far(&mut self) -> Option<Event> {
        let event = match self.far.poll()? {
            Event::Packet { from, slot } => {
                assert!(slot.number() & FAR == 0, "a slot number of {:#x}", slot.number());
                Event::Packet { from, slot: Slot::new(slot.number() | FAR) }
            }
            other => other,
        };
        self.hopeful = Way::Far;
        self.idle_since = None;
        Some(event)
    }

    /// A fault of the near road in terms of the job.
    #[cold]
    fn with_job_number(&self, mut fault: Box<Fault>) -> Box<Fault> {
        if let Scope::Peer(local) = fault.scope {
            fault.scope = Scope::Peer(self.here[local.index()]);
        }
        fault
    }

    /// Looks at both roads. True when there is something to tell.
    fn look(&mut self) -> bool {
        if self.told.is_empty() {
            let near = self.poll_near();
            let far = self.poll_far();
            self.told.extend(near.into_iter().chain(far));
        }
        !self.told.is_empty()
    }

    /// Sleeps at one road. True when it was not for the whole time, so that something may have happened there.
    fn doze(&mut self, way: Way, slice: Duration, now: Instant) -> bool {
        match way {
            Way::Near => self.near.wait(slice),
            Way::Far => self.far.wait(slice),
        }
        now.elapsed() < slice
    }

    #[cold]
    #[inline(never)]
    fn wait(&mut self, at_most: Duration) {
        let begin = Instant::now();
        let refused = self.refused.take();
        let mut way = refused.unwrap_or(self.hopeful);
        let mut now = begin;
        while !self.look() && now - begin < at_most {
            let left = at_most - (now - begin);
            let idle = now - *self.idle_since.get_or_insert(now);
            let slice = (idle / 8).clamp(SPIN, SLICE_MAX).min(left);
            if refused.is_some() {
                // Only that road knows when there is room again, and it does not say so by an event.
                self.doze(way, slice, now);
                return;
            }
            if idle < SPIN && !self.near.is_crowded() {
                std::hint::spin_loop();
            } else if idle < YIELD {
                std::thread::yield_now();
            } else {
                if self.doze(way, slice, now) {
                    return;
                }
                way = if way == Way::Near { Way::Far } else { Way::Near };
            }
            now = Instant::now();
        }
    }
}

impl<F: Transport> Transport for Roads<F> {
    fn roads(&self) -> &[Caps] {
        match self {
            Roads::Near(near) => near.roads(),
            Roads::Far(far) => far.roads(),
            Roads::Both(both) => &both.roads,
        }
    }

    fn road(&self, to: Peer) -> usize {
        match self {
            Roads::Near(near) => near.road(to),
            Roads::Far(far) => far.road(to),
            Roads::Both(both) => match both.way(to) {
                (Way::Near, local) => both.near.road(local),
                (Way::Far, peer) => both.near.roads().len() + both.far.road(peer),
            },
        }
    }

    fn peers(&self) -> usize {
        match self {
            Roads::Near(near) => near.peers(),
            Roads::Far(far) => far.peers(),
            Roads::Both(both) => both.local_of.len(),
        }
    }

    #[inline]
    fn me(&self) -> Peer {
        match self {
            Roads::Near(near) => near.me(),
            Roads::Far(far) => far.me(),
            Roads::Both(both) => both.far.me(),
        }
    }

    fn register(&mut self, buf: Buf, with: Peer) -> Result<Key, Box<Fault>> {
        match self {
            Roads::Near(near) => near.register(buf, with),
            Roads::Far(far) => far.register(buf, with),
            Roads::Both(both) => match both.way(with) {
                (Way::Near, local) => both.near.register(buf, local),
                (Way::Far, peer) => both.far.register(buf, peer),
            },
        }
    }

    fn deregister(&mut self, key: Key, with: Peer) {
        match self {
            Roads::Near(near) => near.deregister(key, with),
            Roads::Far(far) => far.deregister(key, with),
            Roads::Both(both) => match both.way(with) {
                (Way::Near, local) => both.near.deregister(key, local),
                (Way::Far, peer) => both.far.deregister(key, peer),
            },
        }
    }

    #[inline(always)]
    fn send(&mut self, to: Peer, header: &[u8], payload: Buf) -> Result<(), Busy> {
        match self {
            Roads::Near(near) => near.send(to, header, payload),
            beyond => beyond.send_beyond(to, header, payload),
        }
    }

    fn read(&mut self, from: Peer, remote: RemoteSlice, local: Buf, token: Token) -> Result<(), Busy> {
        match self {
            Roads::Near(near) => near.read(from, remote, local, token),
            Roads::Far(far) => far.read(from, remote, local, token),
            Roads::Both(both) => match both.way(from) {
                (Way::Near, peer) => both.near.read(peer, remote, local, token),
                (Way::Far, peer) => both.far.read(peer, remote, local, token),
            },
        }
    }

    fn write(&mut self, to: Peer, local: Buf, remote: RemoteSlice, token: Token) -> Result<(), Busy> {
        match self {
            Roads::Near(near) => near.write(to, local, remote, token),
            Roads::Far(far) => far.write(to, local, remote, token),
            Roads::Both(both) => match both.way(to) {
                (Way::Near, peer) => both.near.write(peer, local, remote, token),
                (Way::Far, peer) => both.far.write(peer, local, remote, token),
            },
        }
    }

    #[inline]
    fn poll(&mut self) -> Option<Event> {
        match self {
            Roads::Near(near) => near.poll(),
            beyond => beyond.poll_beyond(),
        }
    }

    #[inline(always)]
    fn packet(&self, slot: &Slot) -> &[u8] {
        match self {
            Roads::Near(near) => near.packet(slot),
            beyond => beyond.packet_beyond(slot),
        }
    }

    #[inline]
    fn release(&mut self, slot: Slot) {
        match self {
            Roads::Near(near) => near.release(slot),
            beyond => beyond.release_beyond(slot),
        }
    }

    fn wait(&mut self, at_most: Duration) {
        match self {
            Roads::Near(near) => near.wait(at_most),
            Roads::Far(far) => far.wait(at_most),
            Roads::Both(both) => both.wait(at_most),
        }
    }
}

impl<F: Transport> fmt::Debug for Roads<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.roads().iter().map(|caps| caps.name).collect();
        write!(f, "Roads({:?} of {}, {names:?})", self.me(), self.peers())
    }
}

#[cfg(test)]
mod tests;
