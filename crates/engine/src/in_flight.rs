//! What is in flight and what it waits for, for somebody who asks why nothing moves.

use selvedge_transport::{Peer, Transport};

use crate::engine::Engine;
use crate::matching::Pattern;
use crate::message::{Context, Tag};
use crate::request::{PostedReceive, Request, SendStage};

/// An operation that is not over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFlight {
    /// What the caller gave to `send` or `recv`.
    pub user: u64,
    /// Whom it waits for; `None`: a receive from anybody.
    pub peer: Option<Peer>,
    /// The communicator.
    pub context: Context,
    /// `None`: a receive with any tag.
    pub tag: Option<Tag>,
    /// Bytes of the message, or of the memory for one that has not come.
    pub bytes: u64,
    /// How far it has come.
    pub stage: Stage,
}

/// How far an operation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A receive that no message has matched.
    Unmatched,
    /// A receive whose message is on its way.
    Receiving,
    /// A send that has not left: the peer has given no credit, or the transport has no room.
    Queued,
    /// A send that its receiver has been told of and has not asked for: no receive has matched it.
    Announced,
    /// A send on its way.
    Sending,
}

impl<T: Transport> Engine<T> {
    /// Everything that was begun and is not over, in no order. Cost: one step per operation ever in flight at the same time;
    /// nothing is changed.
    pub fn in_flight(&self) -> impl Iterator<Item = InFlight> {
        self.requests.iter().map(|(_, request)| match request {
            Request::Posted(receive) => self.unmatched(receive, receive.buf.len()),
            Request::PostedScattered(both) => self.unmatched(&both.0, both.1.len()),
            Request::Pull(pull) => InFlight {
                user: pull.user,
                peer: Some(pull.envelope.source),
                context: pull.envelope.context,
                tag: Some(pull.envelope.tag),
                bytes: pull.envelope.bytes,
                stage: Stage::Receiving,
            },
            Request::Arriving(arriving) => InFlight {
                user: arriving.user,
                peer: Some(arriving.envelope.source),
                context: arriving.envelope.context,
                tag: Some(arriving.envelope.tag),
                bytes: arriving.envelope.bytes,
                stage: Stage::Receiving,
            },
            Request::Send(send) => InFlight {
                user: send.user,
                peer: Some(send.to),
                context: send.context,
                tag: Some(send.tag),
                bytes: send.body.len() as u64,
                stage: match send.stage {
                    SendStage::Queued => Stage::Queued,
                    SendStage::Offered | SendStage::Unmatched => Stage::Announced,
                    SendStage::Train(_) | SendStage::Window(_) | SendStage::Writing(_) => Stage::Sending,
                },
            },
        })
    }

    fn unmatched(&self, receive: &PostedReceive, bytes: usize) -> InFlight {
        let Pattern { source, context, tag } = self.matching.pattern(receive.posted);
        InFlight {
            user: receive.user,
            peer: source,
            context,
            tag,
            bytes: bytes as u64,
            stage: Stage::Unmatched,
        }
    }

    /// Messages that have arrived and that no receive has asked for.
    pub fn unexpected(&self) -> usize {
        self.matching.unexpected_len()
    }
}

#[cfg(test)]
mod tests {
    use selvedge_transport::{Memory, Sim, SimConfig};

    use super::*;
    use crate::config::Config;
    use crate::message::{Order, Submitted};

    #[test]
    fn what_waits_is_told_with_its_peer_its_name_and_its_stage() {
        let net = Sim::new(SimConfig::shm_like());
        let mut engines = net.ports().into_iter().map(|port| Engine::new(port, Config::default()));
        let (mut zero, mut one) = (engines.next().unwrap(), engines.next().unwrap());
        let (small, large) = (Memory::zeroed(8), Memory::zeroed(4 << 20));
        let (context, tag) = (Context(3), Tag(7));
        assert!(matches!(
            zero.recv(Some(Peer(1)), context, Some(tag), small.buf(), 11),
            Submitted::Pending(_)
        ));
        assert!(matches!(zero.recv(None, context, None, small.buf(), 12), Submitted::Pending(_)));
        let told: Vec<InFlight> = zero.in_flight().collect();
        let expected = InFlight {
            user: 11,
            peer: Some(Peer(1)),
            context,
            tag: Some(tag),
            bytes: 8,
            stage: Stage::Unmatched,
        };
        assert_eq!(told, [expected, InFlight { user: 12, peer: None, tag: None, ..expected }]);

        let sent = one.send(Peer(0), Context(4), Tag(9), Order::Ordered, large.buf(), 13);
        assert!(matches!(sent, Submitted::Pending(_)));
        while net.advance() {
            assert!(one.poll().is_none() && zero.poll().is_none(), "nothing matches");
        }
        let told: Vec<InFlight> = one.in_flight().collect();
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].peer, told[0].stage, told[0].bytes), (Some(Peer(0)), Stage::Announced, 4 << 20));
    }
}
