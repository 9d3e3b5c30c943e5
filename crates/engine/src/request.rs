//! Operations that are not over yet.

use selvedge_transport::{Buf, Fault, Key, Peer, Scattered};

use crate::body::Body;
use crate::matching::Posted;
use crate::message::{Context, Envelope, Order, Tag};
use crate::wire::Mode;

/// Names an operation that is pending, for [`crate::Engine::cancel`]. Never names another one later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId {
    index: u32,
    generation: u32,
}

impl RequestId {
    /// Of no operation that is pending: there are fewer than 2^32.
    pub(crate) const OVER: RequestId = RequestId { index: u32::MAX, generation: 0 };

    /// As it travels in packets and tokens.
    pub(crate) fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(crate) fn from_bits(bits: u64) -> RequestId {
        RequestId { index: bits as u32, generation: (bits >> 32) as u32 }
    }
}

/// An operation that is not over yet. With a tag of its own: the path of a short message asks which kind it is, and need
/// not take that out of the fields of another kind.
#[derive(Debug)]
#[repr(u8)]
pub(crate) enum Request {
    /// A receive that waits for its message.
    Posted(PostedReceive),
    /// The same, and the places where it goes.
    PostedScattered(Box<(PostedReceive, Scattered)>),
    /// A send that the transport has not taken, or a rendezvous at its sender.
    Send(Send),
    /// A rendezvous at its receiver.
    Pull(Pull),
    /// A receive that has met a train of which parts are missing.
    Arriving(Arriving),
}

impl Request {
    /// The receive, when it is one that waits for its message.
    pub(crate) fn posted(&self) -> Option<&PostedReceive> {
        match self {
            Request::Posted(receive) => Some(receive),
            Request::PostedScattered(both) => Some(&both.0),
            Request::Send(_) | Request::Pull(_) | Request::Arriving(_) => None,
        }
    }
}

/// A receive that waits for its message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PostedReceive {
    pub(crate) buf: Buf,
    pub(crate) user: u64,
    /// `None`: any.
    pub(crate) source: Option<Peer>,
    pub(crate) posted: Posted,
}

/// A send that is not over.
#[derive(Debug)]
pub(crate) struct Send {
    pub(crate) to: Peer,
    pub(crate) context: Context,
    pub(crate) tag: Tag,
    pub(crate) order: Order,
    pub(crate) body: Body,
    pub(crate) user: u64,
    /// Whether it is over only when it is matched.
    pub(crate) sync: bool,
    pub(crate) mode: Mode,
    /// Our memory, while it is open to the peer.
    pub(crate) exposed: Option<Key>,
    pub(crate) stage: SendStage,
}

/// How far a send has come. docs/PROTOCOL.md draws the transitions.
#[derive(Debug)]
pub(crate) enum SendStage {
    /// In the peer's queue; nothing has left.
    Queued,
    /// Announced. The receiver has the next word.
    Offered,
    /// All of it has left; the receiver says when it is matched.
    Unmatched,
    /// Pushing datagrams that nobody had to ask for.
    Train(SendTrain),
    /// Pushing datagrams within what was granted.
    Window(SendWindow),
    /// Writing into the receiver's memory.
    Writing(SendWrite),
}

/// A train on its way. It lies in the peer's queue until its last part has left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SendTrain {
    pub(crate) seq: Option<u32>,
    pub(crate) sent: usize,
}

/// Datagrams on their way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SendWindow {
    /// The receiver's request.
    pub(crate) receiver: u64,
    pub(crate) wanted: u64,
    pub(crate) granted: u64,
    pub(crate) sent: u64,
    /// Whether it lies in the peer's queue.
    pub(crate) queued: bool,
}

/// Writes on their way.
#[derive(Debug)]
pub(crate) struct SendWrite {
    /// The receiver's request.
    pub(crate) receiver: u64,
    pub(crate) key: Key,
    pub(crate) pieces: Pieces,
}

/// A rendezvous at its receiver.
#[derive(Debug)]
pub(crate) struct Pull {
    pub(crate) envelope: Envelope,
    /// The receive.
    pub(crate) body: Body,
    /// Bytes of it that the message fills.
    pub(crate) wanted: u64,
    /// Bytes of the receive.
    pub(crate) capacity: u64,
    pub(crate) user: u64,
    /// The sender's request.
    pub(crate) sender: u64,
    pub(crate) mode: Mode,
    /// The sender's memory, if it is open to us.
    pub(crate) key: Key,
    /// What we read.
    pub(crate) reads: Pieces,
    /// Our memory, while the sender may write to it.
    pub(crate) lent: Option<Key>,
    /// Where datagrams are asked for.
    pub(crate) window: Option<PullWindow>,
    /// The sender was not allowed to write.
    pub(crate) write_refused: bool,
}

/// A receive that has met a train of which parts are missing. Which, the trains know.
#[derive(Debug)]
pub(crate) struct Arriving {
    pub(crate) envelope: Envelope,
    pub(crate) body: Body,
    pub(crate) user: u64,
}

/// Datagrams asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PullWindow {
    pub(crate) received: u64,
    pub(crate) granted: u64,
}

/// One-sided operations that together move the bytes `begin..end` of a message.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    pub(crate) begin: u64,
    /// First byte that no operation was asked for yet.
    pub(crate) next: u64,
    pub(crate) end: u64,
    pub(crate) in_flight: u32,
    /// Whether the request waits for room at the transport.
    pub(crate) waiting: bool,
    /// The road was refused; no more are asked for.
    pub(crate) refused: bool,
    /// The peer is gone; no more are asked for, and this is what to tell.
    pub(crate) fault: Option<Box<Fault>>,
}

impl Pieces {
    pub(crate) fn new(begin: u64, end: u64) -> Pieces {
        Pieces { begin, next: begin, end, ..Pieces::default() }
    }

    /// Length of the next operation, 0 when none is to be asked for.
    pub(crate) fn next_bytes(&self, piece_bytes_max: u64, in_flight_max: u32) -> u64 {
        if self.in_flight >= in_flight_max || self.refused || self.fault.is_some() {
            return 0;
        }
        piece_bytes_max.min(self.end - self.next)
    }

    /// Nothing is in flight, and nothing will be.
    pub(crate) fn is_over(&self) -> bool {
        self.in_flight == 0 && (self.next == self.end || self.refused || self.fault.is_some())
    }
}

/// Requests by id. Entries are recycled; the generation tells an old id from a new one.
#[derive(Debug)]
pub(crate) struct Requests {
    entries: Vec<Entry>,
    free: u32,
    len: usize,
}

#[derive(Debug)]
struct Entry {
    generation: u32,
    next_free: u32,
    request: Option<Request>,
}

impl Entry {
    /// Puts the entry, which holds nothing any more, in front of the free ones.
    #[inline]
    fn vacate(&mut self, id: RequestId, free: &mut u32) {
        self.generation = self.generation.wrapping_add(1);
        self.next_free = std::mem::replace(free, id.index);
    }
}

const NIL: u32 = u32::MAX;

impl Requests {
    pub(crate) fn new() -> Requests {
        Requests { entries: Vec::new(), free: NIL, len: 0 }
    }

    #[inline]
    pub(crate) fn insert_with(&mut self, request: impl FnOnce(RequestId) -> Request) -> RequestId {
        if self.free == NIL {
            self.grow();
        }
        let index = self.free;
        let entry = &mut self.entries[index as usize];
        self.free = entry.next_free;
        self.len += 1;
        let id = RequestId { index, generation: entry.generation };
        // It was free: there is nothing to drop, which the compiler need not find out.
        std::mem::forget(entry.request.replace(request(id)));
        id
    }

    #[cold]
    fn grow(&mut self) {
        let index = u32::try_from(self.entries.len()).expect("fewer than 2^32 operations in flight");
        self.entries.push(Entry { generation: 0, next_free: NIL, request: None });
        self.free = index;
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: RequestId) -> Option<&mut Request> {
        let entry = self.entries.get_mut(id.index as usize)?;
        if entry.generation == id.generation { entry.request.as_mut() } else { None }
    }

    pub(crate) fn send_mut(&mut self, id: RequestId) -> Option<&mut Send> {
        if let Some(Request::Send(send)) = self.get_mut(id) { Some(send) } else { None }
    }

    pub(crate) fn pull_mut(&mut self, id: RequestId) -> Option<&mut Pull> {
        if let Some(Request::Pull(pull)) = self.get_mut(id) { Some(pull) } else { None }
    }

    pub(crate) fn arriving(&mut self, id: RequestId) -> Option<&mut Arriving> {
        if let Some(Request::Arriving(arriving)) = self.get_mut(id) { Some(arriving) } else { None }
    }

    /// Takes out a posted receive, without moving the bytes of the larger kinds of request.
    #[inline]
    pub(crate) fn remove_posted(&mut self, id: RequestId) -> Option<PostedReceive> {
        let entry = self.entries.get_mut(id.index as usize)?;
        let Some(Request::Posted(posted)) = entry.request else { return None };
        if entry.generation != id.generation {
            return None;
        }
        // It has nothing to drop, which the compiler need not find out.
        std::mem::forget(entry.request.take());
        entry.vacate(id, &mut self.free);
        self.len -= 1;
        Some(posted)
    }

    /// As [`Requests::remove_posted`], of both kinds: where the message goes, and whom to tell.
    pub(crate) fn take_posted(&mut self, id: RequestId) -> Option<(Body, u64)> {
        if let Some(receive) = self.remove_posted(id) {
            return Some((Body::One(receive.buf), receive.user));
        }
        let Some(Request::PostedScattered(both)) = self.get_mut(id) else { return None };
        let taken = (Body::Many(Box::new(both.1.clone())), both.0.user);
        self.remove(id);
        Some(taken)
    }

    /// Ends a request; does nothing if it is over already.
    #[inline]
    pub(crate) fn remove(&mut self, id: RequestId) {
        let Some(entry) = self.entries.get_mut(id.index as usize) else { return };
        if entry.generation == id.generation && entry.request.take().is_some() {
            entry.vacate(id, &mut self.free);
            self.len -= 1;
        }
    }

    /// All of them with their ids. Cost: one step per entry ever in use at the same time.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (RequestId, &Request)> {
        self.entries.iter().enumerate().filter_map(|(index, entry)| {
            let id = RequestId { index: index as u32, generation: entry.generation };
            entry.request.as_ref().map(|request| (id, request))
        })
    }

    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.entries.capacity()
    }

    /// Number of operations that are not over.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}
