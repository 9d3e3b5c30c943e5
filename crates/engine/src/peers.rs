//! What is remembered of each peer: one cache line. What is queued for it lives in a pool shared by all.

use std::collections::VecDeque;

use selvedge_transport::Peer;

use crate::request::RequestId;
use crate::wire::Control;

/// A peer, in one cache line, so that 25,000 of them are 1.6 MB.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct PeerState {
    /// Sequence number of the next ordered message to it.
    pub(crate) seq_next: u32,
    /// Sequence number of the next ordered message from it to be delivered.
    pub(crate) seq_expected: u32,
    /// Units we may still spend at it.
    pub(crate) credit: u32,
    /// Units of ours that are free again and not yet returned to it.
    pub(crate) owed: u32,
    /// Units it may still spend here; `allowance + owed + held by its messages` is constant.
    pub(crate) allowance: u32,
    /// Ordered messages from it that wait for a predecessor.
    pub(crate) early: u32,
    lanes: [Lane; 2],
    /// Largest eager payload on the road to it.
    pub(crate) eager_bytes_max: u32,
    /// Which road leads to it.
    road: u8,
    /// See [`flag`]. Zero is the common case: nothing stands in the way of an eager message.
    pub(crate) flags: u8,
}

const _: () = assert!(size_of::<PeerState>() == 64, "a peer fits one cache line");

/// Reasons why a message to a peer cannot leave at once.
pub(crate) mod flag {
    /// It is on the list of peers to be served.
    pub(crate) const READY: u8 = 1;
    /// Messages wait in its queue.
    pub(crate) const QUEUED: u8 = 2;
    /// The first of them waits for credit.
    pub(crate) const BLOCKED: u8 = 4;
    /// Credit has to be returned by a packet of its own.
    pub(crate) const CREDIT_DUE: u8 = 8;
    /// Something is wrong with it; operations fail.
    pub(crate) const FAULTY: u8 = 16;
    /// It is gone; it no longer touches our memory.
    pub(crate) const GONE: u8 = 32;
}

/// Which queue of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LaneKind {
    /// Answers and pieces: wait for room at the transport only.
    Control = 0,
    /// Messages not begun: wait for room and for credit. Kept apart, because the credit may come with an answer that
    /// is queued in the other direction behind such a message.
    Messages = 1,
}

#[derive(Clone, Copy, Debug)]
struct Lane {
    head: u32,
    tail: u32,
}

/// Something queued for a peer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Queued {
    /// A packet without payload.
    Control(Control),
    /// The next part of a train, or piece of a windowed message.
    Data(RequestId),
    /// A message that has not begun.
    Message(RequestId),
}

#[derive(Debug)]
struct Node {
    item: Queued,
    next: u32,
}

const NIL: u32 = u32::MAX;

/// All peers, what is queued for them, and which of them have something that could be sent.
///
/// Bounds: a request is queued at most once as a message or piece; a control packet belongs to a request of ours or of
/// the peer; so the pool holds at most two entries per operation in flight, on this side or the other.
#[derive(Debug)]
pub(crate) struct Peers {
    states: Vec<PeerState>,
    nodes: Vec<Node>,
    free: u32,
    ready: VecDeque<Peer>,
    /// Peers at the end of `ready` that found the transport busy since anything else changed.
    tried: usize,
}

impl Peers {
    /// Peers by the road that leads to them and its largest eager payload.
    pub(crate) fn new(roads: impl Iterator<Item = (u8, u32)>, credit_units: u32) -> Peers {
        let fresh = |(road, eager_bytes_max)| PeerState {
            seq_next: 0,
            seq_expected: 0,
            credit: credit_units,
            owed: 0,
            allowance: credit_units,
            early: 0,
            lanes: [Lane { head: NIL, tail: NIL }; 2],
            eager_bytes_max,
            road,
            flags: 0,
        };
        Peers {
            states: roads.map(fresh).collect(),
            nodes: Vec::new(),
            free: NIL,
            ready: VecDeque::new(),
            tried: 0,
        }
    }

    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.nodes.capacity() + self.ready.capacity()
    }

    pub(crate) fn get(&self, peer: Peer) -> &PeerState {
        &self.states[peer.index()]
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, peer: Peer) -> &mut PeerState {
        &mut self.states[peer.index()]
    }

    /// Index of the road that leads to a peer.
    pub(crate) fn road(&self, peer: Peer) -> usize {
        self.states[peer.index()].road.into()
    }

    pub(crate) fn has(&self, peer: Peer, flags: u8) -> bool {
        self.states[peer.index()].flags & flags != 0
    }

    pub(crate) fn push(&mut self, peer: Peer, lane: LaneKind, item: Queued) {
        let node = Node { item, next: NIL };
        let mut index = self.free;
        if index == NIL {
            index = self.nodes.len() as u32;
            self.nodes.push(node);
        } else {
            self.free = self.nodes[index as usize].next;
            self.nodes[index as usize] = node;
        }
        let state = &mut self.states[peer.index()];
        let place = &mut state.lanes[lane as usize];
        match place.tail {
            NIL => place.head = index,
            tail => self.nodes[tail as usize].next = index,
        }
        place.tail = index;
        if lane == LaneKind::Messages {
            state.flags |= flag::QUEUED;
        }
    }

    pub(crate) fn front(&self, peer: Peer, lane: LaneKind) -> Option<Queued> {
        let head = self.states[peer.index()].lanes[lane as usize].head;
        self.nodes.get(head as usize).map(|node| node.item)
    }

    pub(crate) fn pop(&mut self, peer: Peer, lane: LaneKind) {
        let state = &mut self.states[peer.index()];
        let place = &mut state.lanes[lane as usize];
        let index = place.head;
        let next = std::mem::replace(&mut self.nodes[index as usize].next, self.free);
        self.free = index;
        place.head = next;
        if next == NIL {
            place.tail = NIL;
            if lane == LaneKind::Messages {
                state.flags &= !(flag::QUEUED | flag::BLOCKED);
            }
        }
    }

    /// Something changed for `peer`: it is to be served soon.
    pub(crate) fn make_ready(&mut self, peer: Peer) {
        self.tried = 0;
        let state = &mut self.states[peer.index()];
        if state.flags & flag::READY == 0 {
            state.flags |= flag::READY;
            self.ready.push_back(peer);
        }
    }

    /// Whether something waits in the control lane of a peer. Cost: one step per peer to be served.
    pub(crate) fn owe_answers(&self) -> bool {
        self.ready.iter().any(|&peer| self.front(peer, LaneKind::Control).is_some())
    }

    /// Number of peers to be served.
    #[inline]
    pub(crate) fn ready_len(&self) -> usize {
        self.ready.len()
    }

    /// The next peer to be served. It comes back with [`served`](Peers::served).
    pub(crate) fn next_ready(&mut self) -> Option<Peer> {
        self.ready.pop_front()
    }

    /// `peer` was served as far as possible.
    pub(crate) fn served(&mut self, peer: Peer, how: Served) {
        match how {
            Served::All => {
                self.states[peer.index()].flags &= !flag::READY;
                self.tried = 0;
            }
            Served::Some => {
                self.ready.push_back(peer);
                self.tried = 0;
            }
            Served::Busy => {
                self.ready.push_back(peer);
                self.tried += 1;
            }
        }
    }

    /// Whether everybody who is to be served found the transport busy, so that only the network can help.
    pub(crate) fn all_tried(&self) -> bool {
        self.tried >= self.ready.len()
    }
}

/// How far serving a peer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    /// Nothing is left that could be sent.
    All,
    /// Something was sent and something is left.
    Some,
    /// The transport had no room, not even for the first packet.
    Busy,
}
