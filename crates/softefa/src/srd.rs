//! Scalable reliable datagrams: the protocol as a value.
//!
//! [`Srd`] is one queue pair. It does no input or output and reads no clock: packets and the time go in, packets and
//! completions come out. `handle_*` takes what came in, `poll_*` gives what must go out or be told; after any call, poll
//! both until they are empty. The same calls with the same seed give the same packets.
//!
//! # The protocol
//!
//! A **flow** leads from one queue pair to another. It is named by the sender's device, number and **epoch**: a random
//! number per queue pair, so that a number (which is a UDP port) used again is another flow. On a flow every packet that asks
//! for something (SEND, WRITE, WRITE_IMM, READ) carries a sequence number. The number gives no order; packets are acted upon
//! as they arrive. It only makes sure that each is acted upon once: the receiver keeps the lowest number that it
//! has not seen and a bitmap of [`WINDOW`] numbers above it. The sender says in each packet how far below it everything is
//! settled, which lets the receiver slide over numbers that the sender has given up.
//!
//! **A number is offered once.** When it first arrives it is accepted or refused, for ever: a refused number is refused with the
//! same words however late another copy of it comes. After a refusal for want of a posted receive (RNR) the sender tries again
//! under a *new* number. A send can so never be both refused and, by a late copy, delivered.
//!
//! - SEND: one datagram with all bytes; takes a posted receive.
//! - WRITE: one piece of a write. The bytes are put in place on arrival, once (a late copy could undo a later write).
//! - WRITE_IMM: takes a posted receive unless that is not wanted. It carries the bytes of a write that fits into one packet;
//!   otherwise it is sent after all WRITE packets have been acknowledged, empty.
//! - READ: asks for one piece. READ_RSP with the bytes is its answer. It may be asked again, since looking changes nothing, and
//!   the answer is taken once.
//! - ACK: all numbers below a base and those of a bitmap have been accepted. Every packet to a peer carries what there is to
//!   acknowledge to it; an ACK of its own goes out when there was none for [`Config::ack_delay`].
//! - NACK: one number was refused, and why.
//!
//! Each asking packet carries the sender's time and each answer sends one back: that is the round trip without guesses, and it
//! tells that a packet is lost when one that was sent later has been answered and [`Config::reorder_time`] has passed. What
//! has no later packet to betray it is found by a timer that follows the round trip. The window in bytes halves with a loss
//! and grows back.
//!
//! Silence for [`Config::peer_timeout`] ends all work on a flow; the socket's "nobody listens there" does at once.

mod config;
mod host;
mod inbound;
mod initiator;
mod outbound;
mod status;
mod target;
mod timing;
mod work;

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::FxHashMap;

pub use config::{Config, Service};
pub use host::{Access, Host, Receive};
use inbound::Inbound;
use initiator::Open;
use outbound::{Outbound, WorkId};
pub use status::Status;
use target::{Control, Wanted};
pub use work::{
    Address, Body, Completion, Done, Full, Gid, INLINE_MAX, Inline, Nanos, Node, Payload, SPANS_MAX, Span,
    Spans, Transmit, Work,
};

use crate::counters::Counters;
use crate::faults::{Fate, Faults, Held};
use crate::wire::{HEADER_BYTES, Header, Kind};

/// Numbers of one flow that can be open at a time.
pub const WINDOW: u64 = 512;

/// Largest [`Config::chunk_bytes`]: a UDP datagram over IPv4 holds 65,507 bytes.
pub const CHUNK_BYTES_MAX: u32 = 65_507 - HEADER_BYTES as u32;

/// Another queue pair that has been met: the flow to it, and the flow from its current incarnation.
#[derive(Debug)]
struct Peer {
    node: Node,
    out: Outbound,
    inbound: Option<Inbound>,
}

type PeerId = u32;

/// One queue pair. See the module for how it is driven.
///
/// Memory: about 500 bytes for each peer ever met, 150 for each work request that is open, bits of a window for each
/// incarnation of a peer.
#[derive(Debug)]
pub struct Srd {
    config: Config,
    me: Address,
    epoch: u32,
    counters: Arc<Counters>,
    faults: Faults,
    is_closed: bool,

    peers: Vec<Peer>,
    peer_of: FxHashMap<Node, PeerId>,
    /// Flows from earlier incarnations of peers, for copies that come late.
    older: FxHashMap<(Node, u32), Inbound>,

    /// Work requests by id; holes are in `free`. At most [`Config::work_max`].
    work: Vec<Option<Open>>,
    free: Vec<WorkId>,
    completions: VecDeque<Completion>,

    /// Flows that may have something to send.
    row: VecDeque<PeerId>,
    /// Datagrams of the unreliable service, not sent yet.
    unreliable: VecDeque<WorkId>,
    /// Refusals to be sent.
    controls: VecDeque<Control>,
    /// Pieces of memory that peers wait for.
    wanted: VecDeque<Wanted>,
    /// Peers with an acknowledgement due, by time. May name one that has been answered since.
    owed: VecDeque<(Nanos, PeerId)>,
    held: Held,

    /// Time in the last request.
    stamped: Nanos,
    /// No flow needs to be looked at before this time.
    flows_due: Nanos,
    /// Memory used again by each answer.
    accepted: Vec<u64>,
}

impl Srd {
    /// A queue pair called `me`. `epoch` must differ from those of earlier queue pairs of the same node; 0 is reserved.
    pub fn new(config: Config, me: Address, epoch: u32, faults: Faults, counters: Arc<Counters>) -> Srd {
        assert!(
            (INLINE_MAX as u32..=CHUNK_BYTES_MAX).contains(&config.chunk_bytes),
            "chunks that fit a datagram"
        );
        assert!(config.message_bytes_max <= CHUNK_BYTES_MAX, "messages that fit a datagram");
        assert!(epoch != 0, "0 means no epoch on the wire");
        Srd {
            config,
            me,
            epoch,
            counters,
            faults,
            is_closed: false,
            peers: Vec::new(),
            peer_of: FxHashMap::default(),
            older: FxHashMap::default(),
            work: Vec::new(),
            free: Vec::new(),
            completions: VecDeque::new(),
            row: VecDeque::new(),
            unreliable: VecDeque::new(),
            controls: VecDeque::new(),
            wanted: VecDeque::new(),
            owed: VecDeque::new(),
            held: Held::default(),
            stamped: 0,
            flows_due: Nanos::MAX,
            accepted: Vec::new(),
        }
    }

    /// Its address.
    pub fn me(&self) -> Address {
        self.me
    }

    /// What it counts into.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How often a send is tried again when no receive is posted there (`ibv_modify_qp`, RNR_RETRY); `None` for ever.
    pub fn set_rnr_retries(&mut self, retries: Option<u8>) {
        self.config.rnr_retries = retries;
    }

    /// The queue key that packets to us must carry (`ibv_modify_qp`, QKEY).
    pub fn set_qkey(&mut self, qkey: u32) {
        self.me.qkey = qkey;
    }

    /// Work that has been posted and has no completion yet.
    pub fn work_open(&self) -> usize {
        self.work.len() - self.free.len()
    }

    /// Takes a datagram from the network. Anything that is not a packet of this protocol is counted and dropped.
    pub fn handle_packet(&mut self, datagram: &[u8], now: Nanos, host: &mut impl Host) {
        self.counters.rx_pkts.one();
        self.counters.rx_bytes.add(datagram.len() as u64);
        let Ok((header, body)) = Header::parse(datagram) else {
            self.counters.rx_drops.one();
            return;
        };
        if header.to_qpn != self.me.node.qpn || self.faults.is_cut(self.me.node.gid, header.from.gid, now) {
            self.counters.rx_drops.one();
            return;
        }
        if header.answer.epoch == self.epoch {
            self.handle_answer(&header, body, now, host);
        }
        if header.unreliable {
            self.handle_unreliable(&header, body, host);
        } else if header.kind.is_request() {
            self.handle_request(&header, body, now, host);
        }
    }

    /// The network says that nobody listens at this port of the hosts for which `is_there` is true.
    pub fn handle_unreachable(&mut self, is_there: impl Fn(Gid) -> bool, qpn: u16) {
        for id in 0..self.peers.len() {
            let node = self.peers[id].node;
            if node.qpn == qpn && is_there(node.gid) && !self.peers[id].out.is_idle() {
                self.counters.impaired_remote_conn_events.one();
                self.fail_flow(id as PeerId, Status::BadQueuePair);
            }
        }
    }

    /// Does what time asks for. Call it when [`Srd::next_deadline`] has passed, and only after the packets that have
    /// come in were handled: they may hold what it waits for. Calling it early costs a comparison.
    pub fn handle_timeout(&mut self, now: Nanos) {
        if now < self.flows_due {
            return;
        }
        self.flows_due = Nanos::MAX;
        for id in 0..self.peers.len() {
            if self.peers[id].out.deadline(&self.config) <= now {
                self.handle_flow_timeout(id as PeerId, now);
            }
            self.flows_due = self.flows_due.min(self.peers[id].out.deadline(&self.config));
        }
    }

    #[cold]
    fn handle_flow_timeout(&mut self, id: PeerId, now: Nanos) {
        let out = &mut self.peers[id as usize].out;
        out.sends_after = out.sends_after.filter(|after| *after > now);
        out.find_overtaken(now, &self.config);
        if out.find_expired(now, &self.config) {
            self.counters.retrans_timeout_events.one();
        }
        if out.is_dead(now, &self.config) {
            let status = if out.has_answered { Status::Unresponsive } else { Status::Unreachable };
            self.counters.unresponsive_remote_events.one();
            self.fail_flow(id, status);
        } else {
            self.enter_row(id);
        }
    }

    /// The next packet that must go out now. Its body may point into memory, so send (or copy) it before anything but
    /// `poll_transmit` is asked of this queue pair or of the memory's owner.
    pub fn poll_transmit(&mut self, now: Nanos, host: &impl Host) -> Option<Transmit> {
        if let Some(packet) = self.held.pop(now) {
            return Some(self.sent(packet));
        }
        loop {
            let packet = self.next_transmit(now, host)?;
            match self.faults.judge(self.me.node.gid, packet.to.gid, now) {
                Fate::Sent => return Some(self.sent(packet)),
                Fate::Lost => self.counters.softefa_faults_dropped.one(),
                Fate::Twice => {
                    self.counters.softefa_faults_duplicated.one();
                    let packet = owned(packet, host);
                    self.held.push(now + self.faults.delay(), packet.clone());
                    self.held.push(now + self.faults.delay(), packet);
                }
                Fate::Held(until) => {
                    self.counters.softefa_faults_held.one();
                    self.held.push(until, owned(packet, host));
                }
            }
            if let Some(packet) = self.held.pop(now) {
                return Some(self.sent(packet));
            }
        }
    }

    fn sent(&self, packet: Transmit) -> Transmit {
        self.counters.tx_pkts.one();
        self.counters.tx_bytes.add((packet.header.len() + packet.body.len()) as u64);
        packet
    }

    /// Refusals and acknowledgements first: they are small and others wait for them. Then bytes for others, then ours.
    fn next_transmit(&mut self, now: Nanos, host: &impl Host) -> Option<Transmit> {
        if let Some(control) = self.controls.pop_front() {
            return Some(Transmit::bare(control.to, &control.header));
        }
        if let Some(packet) = self.next_acknowledgement(now) {
            return Some(packet);
        }
        if let Some(packet) = self.next_wanted(host) {
            return Some(packet);
        }
        while let Some(&id) = self.row.front() {
            self.row.pop_front();
            if let Some(packet) = self.next_request(id, now) {
                self.row.push_back(id);
                return Some(packet);
            }
            self.peers[id as usize].out.is_in_row = false;
        }
        self.next_unreliable(now)
    }

    /// The next thing to tell whoever polls the completion queue.
    pub fn poll_completion(&mut self) -> Option<Completion> {
        self.completions.pop_front()
    }

    /// When [`Srd::handle_timeout`] wants to be called and [`Srd::poll_transmit`] polled, if nothing else happens before.
    /// A time that is not in the future means that packets wait to be polled.
    pub fn next_deadline(&self) -> Option<Nanos> {
        if !(self.row.is_empty()
            && self.controls.is_empty()
            && self.wanted.is_empty()
            && self.unreliable.is_empty())
        {
            return Some(0);
        }
        let owed = self.owed.front().map_or(Nanos::MAX, |(due, _)| *due);
        let held = self.held.deadline().unwrap_or(Nanos::MAX);
        let next = self.flows_due.min(owed).min(held);
        (next < Nanos::MAX).then_some(next)
    }

    /// Ends all open work with [`Status::Flushed`], as the error state does.
    pub fn flush(&mut self) {
        for id in 0..self.peers.len() {
            self.fail_flow(id as PeerId, Status::Flushed);
        }
        while let Some(id) = self.unreliable.pop_front() {
            self.finish(id, Status::Flushed);
        }
        debug_assert_eq!(self.work_open(), 0, "each piece of work belongs to a flow or is unreliable");
    }

    /// The queue pair is being destroyed: open work is forgotten without completions, nothing new is accepted
    /// ([`Status::BadQueuePair`] to who asks), and acknowledgements that are owed can still be polled. A peer whose last
    /// packet was accepted so still hears of it; keep a closed queue pair for a moment where that matters.
    pub fn close(&mut self) {
        self.flush();
        self.completions.clear();
        self.wanted.clear();
        self.is_closed = true;
        for (id, peer) in self.peers.iter_mut().enumerate() {
            if let Some(inbound) = peer.inbound.as_mut().filter(|inbound| inbound.due.is_some()) {
                inbound.due = Some(0);
                self.owed.push_front((0, id as PeerId));
            }
        }
    }

    /// The peer of this name, met now if it was not before.
    fn peer(&mut self, node: Node) -> PeerId {
        if let Some(&id) = self.peer_of.get(&node) {
            return id;
        }
        let id = self.peers.len() as PeerId;
        self.peers.push(Peer { node, out: Outbound::new(&self.config), inbound: None });
        self.peer_of.insert(node, id);
        id
    }

    fn enter_row(&mut self, id: PeerId) {
        let out = &mut self.peers[id as usize].out;
        if !out.is_in_row {
            out.is_in_row = true;
            self.row.push_back(id);
        }
    }

    /// A header with what every packet to a peer says.
    fn header(&self, kind: Kind) -> Header {
        Header {
            kind,
            imm: None,
            at_once: false,
            unreliable: false,
            status: Status::Ok,
            from: self.me.node,
            to_qpn: 0,
            below: 0,
            qkey: 0,
            epoch: self.epoch,
            answer: Default::default(),
            number: 0,
            stamp: 0,
            remote: 0,
            rkey: 0,
            length: 0,
        }
    }
}

/// The same packet, independent of the memory its body was in.
#[cold]
fn owned(packet: Transmit, host: &impl Host) -> Transmit {
    let Body::Spans(spans) = &packet.body else { return packet };
    let mut bytes = Vec::with_capacity(spans.len() as usize);
    host.read(spans, &mut bytes);
    Transmit { body: Body::Owned(bytes.into_boxed_slice()), ..packet }
}
