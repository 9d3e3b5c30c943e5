//! What callers ask of an engine, and the sending half of the main path: a short message from `send` to the transport. What
//! it becomes on the other side stands in `arrivals.rs`.

use std::collections::VecDeque;
use std::time::Duration;

use selvedge_transport::{Buf, Event, Peer, Transport};

use crate::body::{Bench, Body};
use crate::config::{Allowance, Config, Limits, Mutant};
use crate::credit::{self, UNIT_BYTES};
use crate::faults::Faults;
use crate::matching::{Matching, Name, PEERS_MAX, Pattern};
use crate::message::{Completion, Context, Envelope, Failure, Order, Submitted, Tag};
use crate::peers::{LaneKind, Peers, Queued, flag};
use crate::request::{PostedReceive, Request, RequestId, Requests, Send, SendStage};
use crate::stats::Stats;
use crate::train::Trains;
use crate::unexpected::{Item, Store, Stored};
use crate::window::Early;
use crate::wire::{self, Head, Mode};

/// Events taken from the transport in one call of [`Engine::poll`] before it returns without a completion, so that a
/// caller with other things to do gets its turn.
const EVENTS_PER_POLL: usize = 64;

/// Sends and receives messages over a transport.
///
/// A value that never blocks (but in [`wait`](Engine::wait)): [`send`](Engine::send) and [`recv`](Engine::recv) begin
/// operations, [`poll`](Engine::poll) moves everything that can move and says what has ended. Memory handed in as a
/// [`Buf`] belongs to the engine until then. It belongs to one thread at a time, as its transport does.
///
/// Cost of a message that fits a packet and is expected: one packet, one copy at each side, no allocation.
///
/// ```
/// use std::time::Duration;
/// use selvedge_engine::{Config, Context, Engine, Order, Tag};
/// use selvedge_transport::{Memory, Peer, Sim, SimConfig};
///
/// let sim = Sim::new(SimConfig::shm_like());
/// let mut ranks: Vec<_> = sim.ports().into_iter().map(|port| Engine::new(port, Config::default())).collect();
/// let (from, to) = (Memory::of(&[7; 100_000]), Memory::zeroed(100_000));
/// let _ = ranks[0].send(Peer(1), Context(0), Tag(3), Order::Ordered, from.buf(), 11);
/// let _ = ranks[1].recv(None, Context(0), Some(Tag(3)), to.buf(), 22);
/// let mut ended = Vec::new();
/// while ended.len() < 2 {
///     for rank in &mut ranks {
///         match rank.poll() {
///             Some(completion) => ended.push(completion.user),
///             None => rank.wait(Duration::from_secs(1)),
///         }
///     }
/// }
/// assert_eq!(to.bytes(), [7; 100_000]);
/// ```
#[derive(Debug)]
pub struct Engine<T: Transport> {
    pub(crate) transport: T,
    pub(crate) me: Peer,
    pub(crate) allowance: Allowance,
    /// Of each road.
    pub(crate) limits: Vec<Limits>,
    pub(crate) mutant: Option<Mutant>,
    pub(crate) peers: Peers,
    pub(crate) matching: Matching<RequestId, Item>,
    pub(crate) early: Early,
    pub(crate) store: Store,
    pub(crate) trains: Trains,
    pub(crate) requests: Requests,
    pub(crate) completions: VecDeque<Completion>,
    pub(crate) bench: Bench,
    /// Rendezvous that wait until the transport has room for a one-sided operation. Each at most once.
    pub(crate) one_sided: VecDeque<RequestId>,
    pub(crate) faults: Faults,
    pub(crate) stats: Stats,
}

impl<T: Transport> Engine<T> {
    /// An engine that owns `transport`. All ranks of a job give the same `config`, and both ends of a road have equal
    /// capabilities.
    ///
    /// Cost: 64 bytes per peer. Panics when there are more than 2^30 peers or 256 roads.
    pub fn new(transport: T, config: Config) -> Engine<T> {
        let count = transport.peers();
        assert!(count <= PEERS_MAX, "{count} peers");
        let allowance = Allowance::derive(&config, count);
        let limits: Vec<Limits> =
            transport.roads().iter().map(|caps| Limits::derive(&config, caps)).collect();
        let by_peer = (0..count).map(|peer| {
            let road = transport.road(Peer(peer as u32));
            (u8::try_from(road).expect("at most 256 roads"), limits[road].eager_bytes_max)
        });
        let store_bytes = u64::from(allowance.credit_units) * UNIT_BYTES * count as u64;
        Engine {
            me: transport.me(),
            peers: Peers::new(by_peer, allowance.credit_units),
            allowance,
            limits,
            mutant: config.mutant,
            matching: Matching::default(),
            early: Early::default(),
            store: Store::new(store_bytes),
            trains: Trains::default(),
            requests: Requests::new(),
            completions: VecDeque::new(),
            bench: Bench::default(),
            one_sided: VecDeque::new(),
            faults: Faults::default(),
            stats: Stats::default(),
            transport,
        }
    }

    /// What holds on the road to a peer.
    pub(crate) fn limits(&self, peer: Peer) -> &Limits {
        &self.limits[self.peers.road(peer)]
    }

    /// Number of roads.
    pub(crate) fn roads(&self) -> usize {
        self.limits.len()
    }

    /// The transport.
    pub fn transport(&self) -> &T {
        &self.transport
    }

    /// The transport, for what the engine does not do. Whoever polls it takes events away from the engine.
    pub fn transport_mut(&mut self) -> &mut T {
        &mut self.transport
    }

    /// Whether this mistake is to be made.
    #[doc(hidden)]
    pub fn makes(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Counters since construction.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Operations that were begun and are not over.
    pub fn pending(&self) -> usize {
        self.requests.len()
    }

    /// Whether peers have all the answers that they may be waiting for. Who leaves before has received messages whose
    /// senders are never told so; [`poll`](Engine::poll) until it is true. Pending operations are another matter.
    pub fn has_answered(&self) -> bool {
        !self.peers.owe_answers()
    }

    /// Units of credit of `peer` that messages of it hold here: not received yet, or not whole.
    #[doc(hidden)]
    pub fn units_held(&self, peer: Peer) -> u32 {
        let state = self.peers.get(peer);
        self.allowance.credit_units - state.allowance - state.owed
    }

    /// Sends `buf` to `to`. Done at once when the message fits a packet, the peer has credit for it, and the transport
    /// took it; otherwise a completion with `user` follows when the memory is the caller's again. For a message longer
    /// than a packet and than [`RoadConfig::pregranted_bytes_max`](crate::RoadConfig::pregranted_bytes_max) that is
    /// after it was matched.
    ///
    /// Panics when `to` is no peer, or when an ordered message has a tag of 2^32 or more.
    #[inline(always)]
    pub fn send(
        &mut self,
        to: Peer,
        context: Context,
        tag: Tag,
        order: Order,
        buf: Buf,
        user: u64,
    ) -> Submitted {
        let ordered = order == Order::Ordered;
        assert!(!ordered || tag.0 >> 32 == 0, "the tag of an ordered message has 32 bits");
        let peer = self.peers.get_mut(to);
        if peer.flags == 0 && buf.len() <= peer.eager_bytes_max as usize {
            let cost = credit::units(buf.len());
            if peer.credit >= cost + self.allowance.credit_reserve {
                let seq = if ordered { Some(peer.seq_next) } else { None };
                let header =
                    wire::eager(&Head { credit: peer.owed as u16, seq, context: context.0, tag: tag.0 });
                if self.transport.send(to, &header, buf).is_ok() {
                    peer.seq_next = peer.seq_next.wrapping_add(u32::from(ordered));
                    peer.credit -= cost;
                    peer.return_owed();
                    self.stats.sent_eager += 1;
                    return Submitted::Done(Ok(self.sent(context, tag, buf.len())));
                }
                self.stats.busy += 1;
            }
        }
        self.send_later(to, context, tag, order, Body::One(buf), user, false)
    }

    /// As [`send`](Engine::send) in order, but over only when a receive has met the message (MPI 5.0, 3.4 synchronous
    /// mode). Cost: one packet more, back; an answer more where `send` would have made a train.
    pub fn send_sync(&mut self, to: Peer, context: Context, tag: Tag, buf: Buf, user: u64) -> Submitted {
        assert!(tag.0 >> 32 == 0, "the tag of an ordered message has 32 bits");
        self.send_later(to, context, tag, Order::Ordered, Body::One(buf), user, true)
    }

    #[cold]
    #[expect(clippy::too_many_arguments, reason = "a message, and whether its sender waits")]
    pub(crate) fn send_later(
        &mut self,
        to: Peer,
        context: Context,
        tag: Tag,
        order: Order,
        body: Body,
        user: u64,
        sync: bool,
    ) -> Submitted {
        if self.peers.has(to, flag::FAULTY) {
            return Submitted::Done(Err(Failure::Fault(self.faults.of(to))));
        }
        let mode = match body.whole() {
            Some(buf) => self.limits(to).mode(buf.len() as u64),
            None => Mode::Window,
        };
        let stage = SendStage::Queued;
        let send = Send { to, context, tag, order, body, user, sync, mode, exposed: None, stage };
        let id = self.requests.insert_with(|_| Request::Send(send));
        let first = !self.peers.has(to, flag::QUEUED | flag::READY);
        self.peers.push(to, LaneKind::Messages, Queued::Message(id));
        if first {
            self.serve(to);
        }
        Submitted::Pending(id)
    }

    /// What the sender of a message is told.
    #[inline]
    pub(crate) fn sent(&self, context: Context, tag: Tag, bytes: usize) -> Envelope {
        Envelope { source: self.me, context, tag, bytes: bytes as u64 }
    }

    /// Receives into `buf` the earliest message of `context` from `source` with `tag`; `None` is any. Done at once when
    /// the message is here already; otherwise a completion with `user` follows.
    ///
    /// A wildcard also matches unordered messages of its context: give collectives a context of their own.
    #[inline]
    pub fn recv(
        &mut self,
        source: Option<Peer>,
        context: Context,
        tag: Option<Tag>,
        buf: Buf,
        user: u64,
    ) -> Submitted {
        let pattern = Pattern { context, source, tag };
        if let Some((name, item)) = self.matching.take(&pattern) {
            return self.recv_unexpected(name, item, Body::One(buf), user);
        }
        if self.faults.any()
            && let Some(fault) = self.hopeless(source)
        {
            return Submitted::Done(Err(Failure::Fault(fault)));
        }
        let matching = &mut self.matching;
        Submitted::Pending(self.requests.insert_with(|id| {
            Request::Posted(PostedReceive { buf, user, source, posted: matching.post(pattern, id) })
        }))
    }

    pub(crate) fn recv_unexpected(&mut self, name: Name, item: Item, body: Body, user: u64) -> Submitted {
        let envelope = envelope(&name, item.bytes());
        match item {
            Item::Offer(offer) => self.begin_pull(envelope, offer, body, user),
            Item::Train { sender, .. } => self.take_train(envelope, sender, body, user),
            Item::Eager(stored) => {
                let (bytes, sender) = (stored.message(), stored.sender());
                body.put(0, bytes);
                let cost = self.forget_stored(stored);
                match sender {
                    Some(sender) if self.mutant != Some(Mutant::AnsweredUnmatched) => {
                        self.acknowledge(name.source, sender, cost);
                    }
                    _ => self.owe(name.source, cost),
                }
                Submitted::Done(envelope.into_outcome(body.len() as u64))
            }
        }
    }

    /// Gives the memory of a stored message back; what its sender is owed for it.
    #[inline]
    pub(crate) fn forget_stored(&mut self, stored: Stored) -> u32 {
        let cost = credit::units(stored.bytes().len());
        self.store.recycle(stored);
        self.stats.unexpected_bytes -= u64::from(cost) * UNIT_BYTES;
        cost
    }

    /// The earliest message of `context` from `source` with `tag` that is here and was not received, `None` being any.
    /// Makes progress first if there is none.
    ///
    /// # Errors
    /// [`Failure::Fault`] when there is none and a receive with these arguments would fail at once, so that whoever
    /// probes until something comes does not do so for ever.
    pub fn probe(
        &mut self,
        source: Option<Peer>,
        context: Context,
        tag: Option<Tag>,
    ) -> Result<Option<Envelope>, Failure> {
        let pattern = Pattern { context, source, tag };
        if self.matching.peek(&pattern).is_none() {
            if let Some(completion) = self.advance() {
                self.completions.push_back(completion);
            } else if self.matching.unexpected_len() == 0 && !self.faults.any() {
                return Ok(None);
            }
        }
        if let Some((name, item)) = self.matching.peek(&pattern) {
            return Ok(Some(envelope(&name, item.bytes())));
        }
        match self.faults.any().then(|| self.hopeless(source)).flatten() {
            Some(fault) => Err(Failure::Fault(fault)),
            None => Ok(None),
        }
    }

    /// Ends a receive that is not matched, or a send that has not begun; its completion says
    /// [`Failure::Cancelled`]. False, and nothing happens, when it is too late.
    pub fn cancel(&mut self, request: RequestId) -> bool {
        let user = match self.requests.get_mut(request) {
            Some(Request::Send(send)) if matches!(send.stage, SendStage::Queued) => {
                let (user, to, exposed) = (send.user, send.to, send.exposed.take());
                exposed.into_iter().for_each(|key| self.transport.deregister(key, to));
                user
            }
            Some(request) => match request.posted() {
                Some(&PostedReceive { posted, user, .. }) => {
                    self.matching.withdraw(posted);
                    user
                }
                None => return false,
            },
            None => return false,
        };
        self.finish(request, user, Err(Failure::Cancelled));
        true
    }

    /// Whether a request is a receive from anyone that nothing has matched.
    pub fn waits_for_anyone(&mut self, request: RequestId) -> bool {
        let receive = self.requests.get_mut(request).and_then(|request| request.posted());
        receive.is_some_and(|receive| receive.source.is_none())
    }

    /// Moves what can move and returns the next operation that has ended, if there is one.
    ///
    /// Cost: one poll of the transport when nothing happens. Returns after some events even without a completion, so
    /// `None` does not mean that the transport has nothing more to tell.
    #[inline]
    pub fn poll(&mut self) -> Option<Completion> {
        if !self.completions.is_empty() {
            return self.completions.pop_front();
        }
        let completion = self.advance();
        if completion.is_some() {
            return completion;
        }
        self.completions.pop_front()
    }

    /// Sleeps until [`poll`](Engine::poll) may have something to return, at most `at_most`. Returns at once when there
    /// is something to return or to try already.
    pub fn wait(&mut self, at_most: Duration) {
        // Room on the road to oneself is made by polling, and nobody would wake the sleeper for it.
        let room_is_ours = self.peers.has(self.me, flag::READY);
        if self.completions.is_empty() && self.peers.all_tried() && !room_is_ours {
            self.transport.wait(at_most);
        }
    }

    /// Serves the queues, then takes events until one of them ends an operation.
    #[inline]
    fn advance(&mut self) -> Option<Completion> {
        if self.peers.ready_len() != 0 || !self.one_sided.is_empty() {
            self.serve_queues();
        }
        for _ in 0..EVENTS_PER_POLL {
            match self.transport.poll()? {
                Event::Packet { from, slot } => {
                    let completion = self.on_packet(from, slot);
                    if completion.is_some() {
                        return completion;
                    }
                }
                other => self.on_other_event(other),
            }
            if !self.completions.is_empty() {
                break;
            }
        }
        None
    }

    #[cold]
    fn on_other_event(&mut self, event: Event) {
        match event {
            Event::Done(token) => self.on_one_sided(RequestId::from_bits(token.0), None),
            Event::Failed(token, fault) => self.on_one_sided(RequestId::from_bits(token.0), Some(fault)),
            Event::Fault(fault) => self.on_fault(fault),
            Event::Packet { .. } => unreachable!("a packet is no other event"),
        }
    }

    /// Ends a request and tells its user.
    pub(crate) fn finish(&mut self, id: RequestId, user: u64, outcome: Result<Envelope, Failure>) {
        self.requests.remove(id);
        self.completions.push_back(Completion { user, outcome });
    }

    /// Whether the memory of a message is open to the peer in this mode before the peer has answered.
    pub(crate) fn exposes(mode: Mode) -> bool {
        matches!(mode, Mode::Read | Mode::Both)
    }
}

#[inline]
pub(crate) fn name(source: Peer, head: &Head) -> Name {
    Name { context: Context(head.context), source, tag: Tag(head.tag) }
}

#[inline]
pub(crate) fn envelope(name: &Name, bytes: u64) -> Envelope {
    Envelope { source: name.source, context: name.context, tag: name.tag, bytes }
}

#[cfg(test)]
mod tests {
    use selvedge_transport::{Memory, Sim, SimConfig, SimPort};

    use super::*;

    impl<T: Transport> Engine<T> {
        /// Capacity of everything that can grow.
        fn footprint(&self) -> Vec<usize> {
            vec![
                self.completions.capacity(),
                self.one_sided.capacity(),
                self.matching.capacity(),
                self.requests.capacity(),
                self.peers.capacity(),
                self.store.capacity_bytes() as usize,
                self.early.capacity(),
                self.trains.capacity(),
            ]
        }
    }

    /// A hundred messages of some lengths each way, received before and after they come.
    fn exchange(sim: &Sim, ranks: &mut [Engine<SimPort>], from: &Memory, to: &Memory) {
        for (tag, bytes) in (0..100).zip([0, 8, 40, 41, 200, 1_000, 10_000].into_iter().cycle()) {
            for (at, other) in [(0, 1), (1, 0)] {
                let (tag, part) = (Tag(tag), from.buf().slice(0..bytes));
                let (sender, receiver) = (Peer(at as u32), Peer(other));
                let _ = ranks[at].send(receiver, Context(0), tag, Order::Ordered, part, 0);
                let _ = ranks[other as usize].recv(Some(sender), Context(1), Some(tag), to.buf(), 0);
                let _ = ranks[at].send(receiver, Context(1), tag, Order::Ordered, part, 0);
            }
        }
        let settle = |ranks: &mut [Engine<SimPort>]| {
            while !sim.idle() {
                for rank in ranks.iter_mut() {
                    while rank.poll().is_some() {}
                }
                sim.advance();
            }
        };
        settle(ranks);
        for tag in 0..100 {
            for (at, other) in [(0, 1), (1, 0)] {
                let _ = ranks[at].recv(Some(Peer(other)), Context(0), Some(Tag(tag)), to.buf(), 0);
            }
        }
        settle(ranks);
        assert!(ranks.iter().all(|rank| rank.pending() == 0));
    }

    #[test]
    fn after_warm_up_nothing_grows_any_more() {
        let sim = Sim::new(SimConfig::default());
        let mut ranks: Vec<_> =
            sim.ports().into_iter().map(|port| Engine::new(port, Config::default())).collect();
        let (from, to) = (Memory::zeroed(10_000), Memory::zeroed(10_000));
        // The order of arrival is random, so the high-water marks need a few rounds.
        for _ in 0..30 {
            exchange(&sim, &mut ranks, &from, &to);
        }
        let warm: Vec<_> = ranks.iter().map(Engine::footprint).collect();
        for _ in 0..30 {
            exchange(&sim, &mut ranks, &from, &to);
        }
        assert_eq!(ranks.iter().map(Engine::footprint).collect::<Vec<_>>(), warm);
    }
}
