//! Where the bytes of a message lie: in one place, or in several.
//!
//! In several they leave, and are put, a packet at a time: nothing but a packet's worth is ever brought together, and the
//! transport is shown no memory. So such a message is never exposed to its receiver, nor is such a receive lent to its sender:
//! what is too long for a packet or a train travels in windows of datagrams, which every receiver may ask for
//! (docs/PROTOCOL.md). The other side need not know.

use selvedge_transport::{Buf, Memory, Peer, Scattered, Transport};

use crate::Engine;
use crate::matching::{Name, Pattern};
use crate::message::{Completion, Context, Order, Submitted, Tag};
use crate::request::{Request, RequestId};
use crate::unexpected::Item;

/// The bytes of a message, or room for one.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// In one piece.
    One(Buf),
    /// In several.
    Many(Box<Scattered>),
}

impl Body {
    #[inline]
    pub(crate) fn len(&self) -> usize {
        match self {
            Body::One(buf) => buf.len(),
            Body::Many(places) => places.len(),
        }
    }

    /// All of it, where it is in one piece.
    pub(crate) fn whole(&self) -> Option<Buf> {
        match self {
            Body::One(buf) => Some(*buf),
            Body::Many(_) => None,
        }
    }

    /// Puts bytes of a message where they belong, from byte `at` on, as far as there is room.
    #[inline]
    pub(crate) fn put(&self, at: usize, bytes: &[u8]) {
        let (begin, end) = (at.min(self.len()), self.len().min(at + bytes.len()));
        let bytes = &bytes[..end - begin];
        match self {
            Body::One(buf) => buf.slice(begin..end).fill_from(bytes),
            Body::Many(places) => places.scatter(begin, bytes),
        }
    }
}

/// Memory of one packet's payload, for what is brought together to leave in it. Empty until it is needed.
#[derive(Debug, Default)]
pub(crate) struct Bench(Option<Memory>);

impl Bench {
    /// Bytes `from..to` of a message in one piece, until the next call. The transport copies what it takes.
    pub(crate) fn lay_out(&mut self, body: &Body, from: usize, to: usize) -> Buf {
        match body {
            Body::One(buf) => buf.slice(from..to),
            Body::Many(places) => {
                let bytes = to - from;
                let memory = self.0.take_if(|memory| memory.len() >= bytes);
                let memory = self.0.insert(memory.unwrap_or_else(|| Memory::zeroed(bytes)));
                let piece = memory.buf().slice(0..bytes);
                places.gather(from, piece);
                piece
            }
        }
    }
}

impl<T: Transport> Engine<T> {
    /// As [`send`](Engine::send) in order, or [`send_sync`](Engine::send_sync), of a message in several places.
    ///
    /// Cost: a copy more than of a message in one piece, packet by packet; long ones travel as datagrams on every road.
    #[cold]
    pub fn send_scattered(
        &mut self,
        to: Peer,
        (context, tag): (Context, Tag),
        is_sync: bool,
        message: Scattered,
        user: u64,
    ) -> Submitted {
        assert!(tag.0 >> 32 == 0, "the tag of an ordered message has 32 bits");
        self.send_later(to, context, tag, Order::Ordered, Body::Many(Box::new(message)), user, is_sync)
    }

    /// As [`recv`](Engine::recv), into several places.
    #[cold]
    pub fn recv_scattered(
        &mut self,
        source: Option<Peer>,
        context: Context,
        tag: Option<Tag>,
        room: Scattered,
        user: u64,
    ) -> Submitted {
        if let Some((_, name, item)) = self.matching.borrow(&Pattern { context, source, tag }) {
            return self.recv_unexpected(name, item, Body::Many(Box::new(room)), user);
        }
        // Posted as any other, with no room in one piece; then it becomes what it is.
        let submitted = self.recv(source, context, tag, Buf::EMPTY, user);
        if let Submitted::Pending(id) = submitted
            && let Some(request) = self.requests.get_mut(id)
            && let Some(&posted) = request.posted()
        {
            *request = Request::PostedScattered(Box::new((posted, room)));
        }
        submitted
    }

    /// A receive that is posted, or was, has met its message.
    pub(crate) fn meet(&mut self, id: RequestId, name: Name, item: Item) {
        let (body, user) = self.requests.take_posted(id).expect("a posted receive is a request");
        if let Submitted::Done(outcome) = self.recv_unexpected(name, item, body, user) {
            self.completions.push_back(Completion { user, outcome });
        }
    }
}
