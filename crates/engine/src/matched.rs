//! Messages that were found by a probe and taken out of matching, so that nobody else receives them (MPI 5.0, 3.8.2
//! "Matching Probe"); and the one case in which an engine knows that a wait is in vain: its caller waits for itself.

use selvedge_transport::{Buf, Peer, Scattered, Transport};

use crate::Engine;
use crate::body::Body;
use crate::engine::envelope;
use crate::matching::{Arrival, Name, Pattern};
use crate::message::{Context, Envelope, Failure, Order, Submitted, Tag};
use crate::peers::flag;
use crate::request::{PostedReceive, Request, RequestId, SendStage};
use crate::unexpected::Item;

/// A message that is here, or announced, and that no receive will meet but the one it is given to.
///
/// It holds its sender's credit, and the sender of a long one waits: [receive](Engine::recv_matched) it or
/// [put it back](Engine::put_back).
#[derive(Debug)]
#[must_use = "a message that was taken out has to be received or put back"]
pub struct Matched {
    arrival: Arrival,
    name: Name,
    item: Item,
}

impl Matched {
    /// Who sent what.
    pub fn envelope(&self) -> Envelope {
        envelope(&self.name, self.item.bytes())
    }
}

impl<T: Transport> Engine<T> {
    /// As [`probe`](Engine::probe), and takes the message out.
    ///
    /// # Errors
    /// As [`probe`](Engine::probe).
    pub fn probe_matched(
        &mut self,
        source: Option<Peer>,
        context: Context,
        tag: Option<Tag>,
    ) -> Result<Option<Matched>, Failure> {
        if self.probe(source, context, tag)?.is_none() {
            return Ok(None);
        }
        let found = self.matching.borrow(&Pattern { context, source, tag });
        Ok(found.map(|(arrival, name, item)| Matched { arrival, name, item }))
    }

    /// Receives a message that a probe has taken out, as [`recv`](Engine::recv) would have.
    pub fn recv_matched(&mut self, message: Matched, buf: Buf, user: u64) -> Submitted {
        self.recv_unexpected(message.name, message.item, Body::One(buf), user)
    }

    /// As [`recv_matched`](Engine::recv_matched), into several places.
    pub fn recv_matched_scattered(&mut self, message: Matched, room: Scattered, user: u64) -> Submitted {
        self.recv_unexpected(message.name, message.item, Body::Many(Box::new(room)), user)
    }

    /// Undoes the probe: the message is again what it was among those that arrived before and after it. A receive that
    /// was posted meanwhile and matches it has it now.
    pub fn put_back(&mut self, message: Matched) {
        let Matched { arrival, name, item } = message;
        let Some(id) = self.matching.arrive(&name) else {
            return self.matching.put_back(arrival, name, item);
        };
        self.meet(id, name, item);
    }

    /// Whether a caller who does nothing but wait for this operation waits for a message that only it could send, or
    /// only it could receive. If so the operation ends; its completion says [`Failure::Cancelled`].
    ///
    /// `alone`: whether a receive from anyone can only be met by oneself. Cost: a look at the request, for all operations
    /// with others.
    pub fn give_up_on_oneself(&mut self, request: RequestId, alone: bool) -> bool {
        let (me, heard_all) = (self.me, self.has_heard_itself());
        match self.requests.get_mut(request) {
            Some(Request::Send(send))
                if heard_all
                    && send.to == me
                    && send.order == Order::Ordered
                    && matches!(send.stage, SendStage::Offered | SendStage::Unmatched) =>
            {
                let name = Name { context: send.context, source: me, tag: send.tag };
                self.recall(request, &name)
            }
            Some(other) => match other.posted() {
                Some(&PostedReceive { source, .. })
                    if heard_all && (source == Some(me) || (alone && source.is_none())) =>
                {
                    self.cancel(request)
                }
                _ => false,
            },
            None => false,
        }
    }

    /// Whether a caller who does nothing but probe for a message from itself does so in vain.
    pub fn probes_for_itself(&self, source: Option<Peer>, alone: bool) -> bool {
        self.has_heard_itself() && (source == Some(self.me) || (alone && source.is_none()))
    }

    /// Whether all ordered messages to oneself have been delivered; one that has not may still change everything.
    fn has_heard_itself(&self) -> bool {
        let own = self.peers.get(self.me);
        own.seq_next == own.seq_expected && own.flags & flag::QUEUED == 0
    }

    /// Ends a send to oneself that has been announced and that no receive has met.
    fn recall(&mut self, request: RequestId, name: &Name) -> bool {
        let bits = request.to_bits();
        let is_it = |item: &Item| match item {
            Item::Offer(offer) => offer.sender == bits,
            Item::Eager(stored) => stored.sender() == Some(bits),
            Item::Train { .. } => false,
        };
        match self.matching.take_if(name, is_it) {
            None => return false,
            Some(Item::Eager(stored)) => {
                let cost = self.forget_stored(stored);
                self.owe(name.source, cost);
            }
            Some(_) => {}
        }
        let Some(send) = self.requests.send_mut(request) else { return false };
        let (user, to, exposed) = (send.user, send.to, send.exposed.take());
        exposed.into_iter().for_each(|key| self.transport.deregister(key, to));
        self.finish(request, user, Err(Failure::Cancelled));
        true
    }
}
