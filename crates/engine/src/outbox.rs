//! Sending what could not be sent at once: per peer first in, first out, for those peers only that have something.

use selvedge_transport::{Buf, Busy, Key, Peer, Transport};

use crate::Engine;
use crate::config::Mutant;
use crate::credit::{self, ENTRY_UNITS};
use crate::message::{Completion, Order};
use crate::peers::{LaneKind, PeerState, Queued, Served, flag};
use crate::request::{RequestId, Send, SendStage, SendTrain};
use crate::stats::Stats;
use crate::wire::{self, CONTROL_BYTES_MAX, Control, Head, Mode, Offer, Part};

/// Peers served in one poll; the others have their turn in the next ones.
const PEERS_PER_POLL: usize = 16;
/// Packets to one peer before the next has its turn.
const PACKETS_PER_PEER: usize = 32;

/// Why the first in a queue stays there.
enum Stop {
    /// The transport has no room.
    Busy,
    /// The peer has to return credit first.
    NoCredit,
}

impl From<Busy> for Stop {
    fn from(_: Busy) -> Stop {
        Stop::Busy
    }
}

impl PeerState {
    /// A packet with all that was owed has left.
    #[inline]
    pub(crate) fn return_owed(&mut self) {
        self.allowance += self.owed;
        self.owed = 0;
    }
}

/// As [`Transport::send`], counted when it is in vain. Not for the short way of an eager message, which has a copy of its
/// own of what the transport does.
#[inline(never)]
fn transmit<T: Transport>(
    transport: &mut T,
    stats: &mut Stats,
    to: Peer,
    header: &[u8],
    payload: Buf,
) -> Result<(), Busy> {
    let sent = transport.send(to, header, payload);
    stats.busy += u64::from(sent.is_err());
    sent
}

impl<T: Transport> Engine<T> {
    /// Tries what is queued, for some of the peers that have something, and one-sided operations.
    #[cold]
    pub(crate) fn serve_queues(&mut self) {
        // One road may be full while another has room: as many may wait again as there are roads.
        let mut refused = 0;
        for _ in 0..self.one_sided.len() {
            let Some(id) = self.one_sided.pop_front() else { break };
            refused += usize::from(!self.resume_pieces(id));
            if refused == self.roads() {
                break;
            }
        }
        for _ in 0..self.peers.ready_len().min(PEERS_PER_POLL) {
            let Some(peer) = self.peers.next_ready() else { break };
            let served = self.serve_packets(peer);
            self.peers.served(peer, served);
        }
    }

    /// Serves one peer now, and puts it on the list if something is left.
    pub(crate) fn serve(&mut self, peer: Peer) {
        if self.peers.has(peer, flag::READY) || self.serve_packets(peer) != Served::All {
            self.peers.make_ready(peer);
        }
    }

    fn serve_packets(&mut self, peer: Peer) -> Served {
        for count in 0..PACKETS_PER_PEER {
            let result = match self.peers.front(peer, LaneKind::Control) {
                Some(item) => self.serve_control(peer, item),
                None if self.peers.has(peer, flag::CREDIT_DUE) => {
                    self.stats.credit_packets += 1;
                    self.send_control(peer, Control::Credit)
                }
                None => match self.serve_message(peer) {
                    Some(result) => result,
                    None => return Served::All,
                },
            };
            if result.is_err() {
                return if count == 0 { Served::Busy } else { Served::Some };
            }
        }
        Served::Some
    }

    fn serve_control(&mut self, peer: Peer, item: Queued) -> Result<(), Busy> {
        match item {
            Queued::Control(control) => self.send_control(peer, control)?,
            Queued::Data(id) => {
                let more = self.send_data(id)?;
                if more {
                    // Behind the others: several long messages to one peer share the road.
                    self.peers.push(peer, LaneKind::Control, item);
                }
            }
            Queued::Message(_) => unreachable!("messages have a lane of their own"),
        }
        self.peers.pop(peer, LaneKind::Control);
        Ok(())
    }

    /// Begins the first message that waits; `None` when there is none, or none that could begin.
    fn serve_message(&mut self, peer: Peer) -> Option<Result<(), Busy>> {
        if self.peers.has(peer, flag::BLOCKED) {
            return None;
        }
        let Queued::Message(id) = self.peers.front(peer, LaneKind::Messages)? else {
            unreachable!("only messages are in this lane")
        };
        match self.begin_message(id) {
            Ok(()) => {
                self.peers.pop(peer, LaneKind::Messages);
                Some(Ok(()))
            }
            Err(Stop::Busy) => Some(Err(Busy)),
            Err(Stop::NoCredit) => {
                self.peers.get_mut(peer).flags |= flag::BLOCKED;
                self.stats.credit_stalls += 1;
                None
            }
        }
    }

    /// Sends a message that was queued, or begins to: whole if it is short enough and there is credit, announced
    /// otherwise. One that was cancelled meanwhile is skipped.
    fn begin_message(&mut self, id: RequestId) -> Result<(), Stop> {
        let Some(send) = self.requests.send_mut(id) else { return Ok(()) };
        let limits = &self.limits[self.peers.road(send.to)];
        // Only an announced message, and one that asks for it, is answered when it is matched.
        let train_bytes_max = if send.sync { 0 } else { limits.pregranted_bytes_max };
        let sync_bytes_max = limits.sync_bytes_max;
        let peer = self.peers.get_mut(send.to);
        let ordered = send.order == Order::Ordered;
        let head = Head {
            credit: peer.owed as u16,
            seq: ordered.then_some(peer.seq_next),
            context: send.context.0,
            tag: send.tag.0,
        };
        let bytes = send.body.len();
        let fits = bytes <= if send.sync { sync_bytes_max } else { peer.eager_bytes_max } as usize;
        let short = fits || bytes <= train_bytes_max;
        let whole_cost = match short {
            true if send.sync => credit::sync_units(bytes),
            true if fits => credit::units(bytes),
            true => credit::train_units(bytes),
            false => 0,
        };
        let whole = short && peer.credit >= whole_cost + self.allowance.credit_reserve;
        let cost = if whole { whole_cost } else { ENTRY_UNITS };
        if peer.credit < cost {
            return Err(Stop::NoCredit);
        }
        if whole && !fits {
            // Its parts leave from the queue of those that share the road.
            peer.seq_next = peer.seq_next.wrapping_add(u32::from(ordered));
            peer.credit -= cost;
            send.stage = SendStage::Train(SendTrain { seq: head.seq, sent: 0 });
            self.stats.sent_trains += 1;
            self.peers.push(send.to, LaneKind::Control, Queued::Data(id));
            return Ok(());
        }
        let sent = if whole && send.sync {
            let header = wire::sync(&head, id.to_bits());
            let payload = self.bench.lay_out(&send.body, 0, bytes);
            transmit(&mut self.transport, &mut self.stats, send.to, &header, payload)
        } else if whole {
            let payload = self.bench.lay_out(&send.body, 0, bytes);
            transmit(&mut self.transport, &mut self.stats, send.to, &wire::eager(&head), payload)
        } else {
            let key = Self::expose(&mut self.transport, &mut self.stats, send);
            let offer = Offer { mode: send.mode, bytes: send.body.len() as u64, sender: id.to_bits(), key };
            transmit(&mut self.transport, &mut self.stats, send.to, &wire::rts(&head, &offer), Buf::EMPTY)
        };
        sent?;
        peer.seq_next = peer.seq_next.wrapping_add(u32::from(ordered));
        peer.credit -= cost;
        peer.return_owed();
        peer.flags &= !flag::CREDIT_DUE;
        if whole && send.sync {
            send.stage = SendStage::Unmatched;
            self.stats.sent_sync += 1;
        } else if whole {
            self.stats.sent_eager += 1;
            self.finish_send(id);
        } else {
            send.stage = SendStage::Offered;
            self.stats.sent_rendezvous += 1;
            self.stats.sent_demoted += u64::from(short);
            if self.mutant == Some(Mutant::DoneBeforeFin) && Self::exposes(send.mode) {
                let (context, tag, bytes, user) = (send.context, send.tag, send.body.len(), send.user);
                let outcome = Ok(self.sent(context, tag, bytes));
                self.completions.push_back(Completion { user, outcome });
            }
        }
        Ok(())
    }

    /// Opens the memory of a message that its receiver will read. Once, however often the announcement is tried.
    fn expose(transport: &mut T, stats: &mut Stats, send: &mut Send) -> Key {
        if let Some(buf) = send.body.whole()
            && send.exposed.is_none()
            && Self::exposes(send.mode)
        {
            match transport.register(buf, send.to) {
                Ok(key) => send.exposed = Some(key),
                Err(_) => {
                    // No room for another registration: datagrams need none.
                    stats.refused += 1;
                    send.mode = Mode::Window;
                }
            }
        }
        send.exposed.unwrap_or_default()
    }

    /// A send has ended well: closes its memory and tells its user.
    pub(crate) fn finish_send(&mut self, id: RequestId) {
        let Some(send) = self.requests.send_mut(id) else { return };
        let (context, tag, bytes, user) = (send.context, send.tag, send.body.len(), send.user);
        if let Some(key) = send.exposed.take() {
            self.transport.deregister(key, send.to);
        }
        let outcome = Ok(self.sent(context, tag, bytes));
        self.finish(id, user, outcome);
    }

    /// Sends a packet without payload, now or as soon as there is room.
    pub(crate) fn control(&mut self, to: Peer, control: Control) {
        if self.peers.front(to, LaneKind::Control).is_some() || self.send_control(to, control).is_err() {
            self.peers.push(to, LaneKind::Control, Queued::Control(control));
            self.peers.make_ready(to);
        }
    }

    fn send_control(&mut self, to: Peer, control: Control) -> Result<(), Busy> {
        let peer = self.peers.get_mut(to);
        let mut bytes = [0; CONTROL_BYTES_MAX];
        let packet = control.encode(peer.owed as u16, &mut bytes);
        transmit(&mut self.transport, &mut self.stats, to, packet, Buf::EMPTY)?;
        peer.return_owed();
        peer.flags &= !flag::CREDIT_DUE;
        Ok(())
    }

    /// Sends the next datagram of a long message; true when more could follow at once.
    fn send_data(&mut self, id: RequestId) -> Result<bool, Busy> {
        match self.requests.send_mut(id).map(|send| &send.stage) {
            Some(SendStage::Window(_)) => self.send_piece(id),
            Some(SendStage::Train(_)) => self.send_part(id),
            _ => Ok(false),
        }
    }

    /// Sends the next part of a train.
    fn send_part(&mut self, id: RequestId) -> Result<bool, Busy> {
        let Some(send) = self.requests.send_mut(id) else { return Ok(false) };
        let SendStage::Train(train) = &mut send.stage else { return Ok(false) };
        let part_bytes = self.limits[self.peers.road(send.to)].part_bytes;
        let end = send.body.len().min(train.sent + part_bytes);
        let peer = self.peers.get_mut(send.to);
        let head =
            Head { credit: peer.owed as u16, seq: train.seq, context: send.context.0, tag: send.tag.0 };
        // A train has less than 2^32 bytes: `Limits`.
        let part = Part { sender: id.to_bits(), bytes: send.body.len() as u32, offset: train.sent as u32 };
        let payload = self.bench.lay_out(&send.body, train.sent, end);
        transmit(&mut self.transport, &mut self.stats, send.to, &wire::part(&head, &part), payload)?;
        peer.return_owed();
        peer.flags &= !flag::CREDIT_DUE;
        train.sent = end;
        if end < send.body.len() {
            return Ok(true);
        }
        self.finish_send(id);
        Ok(false)
    }

    /// Sends the next piece of a windowed message; true when more could follow at once.
    fn send_piece(&mut self, id: RequestId) -> Result<bool, Busy> {
        let Some(send) = self.requests.send_mut(id) else { return Ok(false) };
        let SendStage::Window(window) = &mut send.stage else { return Ok(false) };
        let bytes =
            (window.granted - window.sent).min(self.limits[self.peers.road(send.to)].data_bytes_max as u64);
        if bytes > 0 {
            let peer = self.peers.get_mut(send.to);
            let header = wire::data(peer.owed as u16, window.receiver, window.sent);
            let piece = self.bench.lay_out(&send.body, window.sent as usize, (window.sent + bytes) as usize);
            transmit(&mut self.transport, &mut self.stats, send.to, &header, piece)?;
            peer.return_owed();
            peer.flags &= !flag::CREDIT_DUE;
            window.sent += bytes;
        }
        window.queued = window.sent < window.granted;
        if window.sent < window.wanted {
            return Ok(window.queued);
        }
        self.finish_send(id);
        Ok(false)
    }

    /// Puts a windowed message into the queue of its peer, unless it is there.
    pub(crate) fn queue_data(&mut self, id: RequestId) {
        let Some(send) = self.requests.send_mut(id) else { return };
        let to = send.to;
        if let SendStage::Window(window) = &mut send.stage
            && !window.queued
        {
            window.queued = true;
            self.peers.push(to, LaneKind::Control, Queued::Data(id));
            self.serve(to);
        }
    }

    /// Memory of a message from `peer` is free again.
    #[inline]
    pub(crate) fn owe(&mut self, peer: Peer, units: u32) {
        let state = self.peers.get_mut(peer);
        state.owed += units;
        if state.owed >= self.allowance.credit_reserve {
            self.return_credit(peer);
        }
    }

    /// Returns credit by a packet of its own, unless one is about to leave that carries it.
    #[cold]
    pub(crate) fn return_credit(&mut self, peer: Peer) {
        if !self.peers.has(peer, flag::CREDIT_DUE) {
            self.peers.get_mut(peer).flags |= flag::CREDIT_DUE;
            self.serve(peer);
        }
    }

    /// Credit came back. False, and a fault, when it is more than was ever given.
    pub(crate) fn accept_credit(&mut self, from: Peer, units: u16) -> bool {
        let state = self.peers.get_mut(from);
        if state.credit + u32::from(units) > self.allowance.credit_units {
            self.on_impossible(from, "more credit than there is");
            return false;
        }
        state.credit += u32::from(units);
        if units > 0 && state.flags & flag::BLOCKED != 0 {
            state.flags &= !flag::BLOCKED;
            self.peers.make_ready(from);
        }
        true
    }

    /// A message takes its cost from what its sender may spend. False, and a fault, when that is less.
    pub(crate) fn charge(&mut self, from: Peer, units: u32) -> bool {
        let state = self.peers.get_mut(from);
        if state.allowance < units {
            self.on_impossible(from, "a message without credit");
            return false;
        }
        state.allowance -= units;
        true
    }
}
