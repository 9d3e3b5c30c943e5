//! Messages that do not travel in one packet: announced, matched, then fetched or pushed.
//!
//! docs/PROTOCOL.md draws the states. At the sender they are [`SendStage`]; at the receiver a [`Pull`] is a set of up to
//! three things under way (reads of ours, memory lent to the sender's writes, datagrams asked for), and
//! [`Engine::settle_pull`] is the one place that decides what their end means.

use selvedge_transport::{Buf, Busy, Cause, Fault, Peer, RemoteSlice, Token, Transport};

use crate::Engine;
use crate::body::Body;
use crate::config::Mutant;
use crate::message::{Envelope, Failure, Submitted};
use crate::peers::flag;
use crate::request::{Pieces, Pull, PullWindow, Request, RequestId, SendStage, SendWindow, SendWrite};
use crate::wire::{Control, Mode, Offer};

impl<T: Transport> Engine<T> {
    /// A receive has met its announcement: asks for the payload.
    pub(crate) fn begin_pull(
        &mut self,
        envelope: Envelope,
        offer: Offer,
        body: Body,
        user: u64,
    ) -> Submitted {
        let from = envelope.source;
        let capacity = body.len() as u64;
        let wanted = offer.bytes.min(capacity);
        if self.peers.has(from, flag::GONE) {
            return Submitted::Done(Err(Failure::Fault(self.faults.of(from))));
        }
        if wanted == 0 {
            self.control(from, Control::Fin { sender: offer.sender });
            return Submitted::Done(envelope.into_outcome(capacity));
        }
        // What lies in several places is neither read into nor lent.
        let whole = body.whole().map(|buf| buf.slice(0..wanted as usize));
        let mode = if whole.is_some() { offer.mode } else { Mode::Window };
        let buf = whole.unwrap_or(Buf::EMPTY);
        let reads_end = match mode {
            Mode::Read => wanted,
            Mode::Both => wanted / 2,
            Mode::Write | Mode::Window => 0,
        };
        let pull = Pull {
            envelope,
            body,
            wanted,
            capacity,
            user,
            sender: offer.sender,
            mode,
            key: offer.key,
            reads: Pieces::new(0, reads_end),
            lent: None,
            window: None,
            write_refused: false,
        };
        let id = self.requests.insert_with(|_| Request::Pull(pull));
        match mode {
            Mode::Window => self.open_window(id),
            Mode::Read => self.read_pieces(id),
            Mode::Write => {
                if !self.lend(id, from, offer.sender, buf, 0) {
                    self.open_window(id);
                }
            }
            Mode::Both => {
                // The sender first: it copies while we do.
                if !self.lend(id, from, offer.sender, buf, reads_end)
                    && let Some(pull) = self.requests.pull_mut(id)
                {
                    pull.reads.end = wanted;
                }
                self.read_pieces(id);
            }
        }
        Submitted::Pending(id)
    }

    /// Opens our memory from byte `begin` of the message on and asks the sender to write there. False when the
    /// transport has no room for a registration.
    fn lend(&mut self, id: RequestId, from: Peer, sender: u64, buf: Buf, begin: u64) -> bool {
        let part = buf.slice(begin as usize..buf.len());
        let Ok(key) = self.transport.register(part, from) else {
            self.stats.refused += 1;
            return false;
        };
        if let Some(pull) = self.requests.pull_mut(id) {
            pull.lent = Some(key);
        }
        let bytes = part.len() as u64;
        self.control(from, Control::CtsWrite { sender, receiver: id.to_bits(), offset: begin, bytes, key });
        true
    }

    /// Asks for datagrams: the one way that always works.
    fn open_window(&mut self, id: RequestId) {
        let Some(pull) = self.requests.pull_mut(id) else { return };
        let wanted = pull.wanted;
        let (to, sender) = (pull.envelope.source, pull.sender);
        let granted = wanted.min(self.limits[self.peers.road(to)].window_bytes);
        pull.window = Some(PullWindow { received: 0, granted });
        self.control(to, Control::Cts { sender, receiver: id.to_bits(), wanted, granted });
    }

    /// Asks for as many reads as may be in flight.
    fn read_pieces(&mut self, id: RequestId) {
        loop {
            let Some(pull) = self.requests.pull_mut(id) else { return };
            let limits = &self.limits[self.peers.road(pull.envelope.source)];
            let bytes = pull.reads.next_bytes(limits.read_bytes_max, limits.pieces_in_flight);
            if bytes == 0 {
                break;
            }
            let at = pull.reads.next;
            let misplaced = self.mutant == Some(Mutant::PieceOffset);
            let offset = if misplaced { at.saturating_sub(bytes) } else { at };
            let remote = RemoteSlice { key: pull.key, offset, len: bytes };
            let Some(buf) = pull.body.whole() else { return };
            let local = buf.slice(at as usize..(at + bytes) as usize);
            let asked = self.transport.read(pull.envelope.source, remote, local, Token(id.to_bits()));
            if Self::count_piece(&mut pull.reads, bytes, asked) {
                self.stats.busy += 1;
                self.one_sided.push_back(id);
            }
            if asked.is_err() {
                return;
            }
        }
        if self.mutant == Some(Mutant::FinBeforeRead)
            && let Some(pull) = self.requests.pull_mut(id)
            && pull.reads.next == pull.reads.end
            && pull.mode == Mode::Read
        {
            let (to, sender) = (pull.envelope.source, pull.sender);
            pull.mode = Mode::Write;
            self.control(to, Control::Fin { sender });
        }
    }

    /// Asks for as many writes as may be in flight.
    fn write_pieces(&mut self, id: RequestId) {
        loop {
            let Some(send) = self.requests.send_mut(id) else { return };
            let SendStage::Writing(SendWrite { key, pieces, .. }) = &mut send.stage else { return };
            let limits = &self.limits[self.peers.road(send.to)];
            let bytes = pieces.next_bytes(limits.write_bytes_max, limits.pieces_in_flight);
            if bytes == 0 {
                return;
            }
            let at = pieces.next;
            let remote = RemoteSlice { key: *key, offset: at - pieces.begin, len: bytes };
            let Some(buf) = send.body.whole() else { return };
            let local = buf.slice(at as usize..(at + bytes) as usize);
            let asked = self.transport.write(send.to, local, remote, Token(id.to_bits()));
            if Self::count_piece(pieces, bytes, asked) {
                self.stats.busy += 1;
                self.one_sided.push_back(id);
            }
            if asked.is_err() {
                return;
            }
        }
    }

    /// Books a one-sided operation that was asked for. True when the request has to wait for room.
    fn count_piece(pieces: &mut Pieces, bytes: u64, asked: Result<(), Busy>) -> bool {
        match asked {
            Ok(()) => {
                pieces.next += bytes;
                pieces.in_flight += 1;
                false
            }
            Err(Busy) => !std::mem::replace(&mut pieces.waiting, true),
        }
    }

    /// Tries a request that waited for room. False when it waits again.
    pub(crate) fn resume_pieces(&mut self, id: RequestId) -> bool {
        match self.requests.get_mut(id) {
            Some(Request::Pull(pull)) => {
                pull.reads.waiting = false;
                self.read_pieces(id);
                self.requests.pull_mut(id).is_none_or(|pull| !pull.reads.waiting)
            }
            Some(Request::Send(send)) => {
                let SendStage::Writing(write) = &mut send.stage else { return true };
                write.pieces.waiting = false;
                self.write_pieces(id);
                match self.requests.send_mut(id).map(|send| &send.stage) {
                    Some(SendStage::Writing(write)) => !write.pieces.waiting,
                    _ => true,
                }
            }
            _ => true,
        }
    }

    /// A one-sided operation has ended.
    pub(crate) fn on_one_sided(&mut self, id: RequestId, failed: Option<Box<Fault>>) {
        let is_death = |fault: &Fault| matches!(fault.cause, Cause::PeerDied | Cause::Unreachable);
        let gone = failed.as_ref().is_some_and(|fault| is_death(fault) || fault.cause == Cause::PeerLeft);
        let is_pull = match self.requests.get_mut(id) {
            Some(Request::Pull(pull)) => {
                pull.reads.on_end(failed.as_deref(), gone);
                true
            }
            Some(Request::Send(send)) => {
                let SendStage::Writing(write) = &mut send.stage else { return };
                write.pieces.on_end(failed.as_deref(), gone);
                false
            }
            _ => return,
        };
        if is_pull {
            self.read_pieces(id);
            self.settle_pull(id);
        } else {
            self.write_pieces(id);
            self.settle_write(id);
        }
        // Of a death the sooner the better. Who left has packets on the way, and the transport tells behind them.
        if let Some(fault) = failed.filter(|fault| is_death(fault)) {
            self.on_fault(fault);
        }
    }

    /// Decides what it means that something of a rendezvous at its receiver has ended.
    pub(crate) fn settle_pull(&mut self, id: RequestId) {
        let Some(pull) = self.requests.pull_mut(id) else { return };
        let from = pull.envelope.source;
        if !pull.reads.is_over() || (pull.lent.is_some() && !self.peers.has(from, flag::GONE)) {
            return;
        }
        if let Some(fault) = pull.reads.fault.take() {
            let (user, lent) = (pull.user, pull.lent.take());
            lent.into_iter().for_each(|key| self.transport.deregister(key, from));
            return self.finish(id, user, Err(Failure::Fault(fault)));
        }
        match pull.window {
            Some(window) if window.received < pull.wanted => return,
            None if pull.reads.refused || pull.write_refused => {
                self.stats.refused += 1;
                return self.open_window(id);
            }
            _ => {}
        }
        let fin = (pull.window.is_none() && Self::exposes(pull.mode)).then_some(pull.sender);
        let (user, envelope, capacity) = (pull.user, pull.envelope, pull.capacity);
        if let Some(sender) = fin {
            self.control(from, Control::Fin { sender });
        }
        let hidden = self.mutant == Some(Mutant::TruncationHidden);
        self.finish(id, user, if hidden { Ok(envelope) } else { envelope.into_outcome(capacity) });
    }

    /// Decides what it means that writes of ours have ended.
    pub(crate) fn settle_write(&mut self, id: RequestId) {
        let hasty = self.mutant == Some(Mutant::WrittenBeforeWrite);
        let Some(send) = self.requests.send_mut(id) else { return };
        let SendStage::Writing(SendWrite { receiver, pieces, .. }) = &mut send.stage else { return };
        let over = pieces.is_over() || (hasty && pieces.next == pieces.end);
        if !over {
            return;
        }
        let (to, receiver) = (send.to, *receiver);
        if let Some(fault) = pieces.fault.take() {
            let (user, exposed) = (send.user, send.exposed.take());
            exposed.into_iter().for_each(|key| self.transport.deregister(key, to));
            return self.finish(id, user, Err(Failure::Fault(fault)));
        }
        if pieces.refused {
            send.stage = SendStage::Offered;
            return self.control(to, Control::Refused { receiver });
        }
        let last_word_is_ours = send.mode == Mode::Write;
        send.stage = SendStage::Offered;
        self.control(to, Control::Written { receiver });
        if last_word_is_ours {
            self.finish_send(id);
        }
    }

    /// A packet that drives a rendezvous. What does not fit the state of the request is a fault of the peer.
    pub(crate) fn on_control(&mut self, from: Peer, control: Control) {
        let accepted = match control {
            Control::Credit => true,
            Control::Cts { sender, receiver, wanted, granted } => {
                self.on_cts(from, RequestId::from_bits(sender), receiver, wanted, granted)
            }
            Control::CtsWrite { sender, receiver, offset, bytes, key } => {
                let id = RequestId::from_bits(sender);
                let pieces = Pieces::new(offset, offset.saturating_add(bytes));
                self.on_cts_write(from, id, SendWrite { receiver, key, pieces })
            }
            Control::Grant { sender, granted } => self.on_grant(from, RequestId::from_bits(sender), granted),
            Control::Fin { sender } => self.on_fin(from, RequestId::from_bits(sender)),
            Control::Written { receiver } => self.on_written(from, RequestId::from_bits(receiver), false),
            Control::Refused { receiver } => self.on_written(from, RequestId::from_bits(receiver), true),
        };
        if !accepted {
            self.on_impossible(from, "an answer to nothing that was asked");
        }
    }

    fn on_cts(&mut self, from: Peer, id: RequestId, receiver: u64, wanted: u64, granted: u64) -> bool {
        let Some(send) = self.offered(from, id) else { return false };
        if wanted > send.body.len() as u64 || granted > wanted {
            return false;
        }
        let exposed = send.exposed.take();
        send.stage = SendStage::Window(SendWindow { receiver, wanted, granted, sent: 0, queued: false });
        exposed.into_iter().for_each(|key| self.transport.deregister(key, from));
        self.queue_data(id);
        true
    }

    fn on_cts_write(&mut self, from: Peer, id: RequestId, write: SendWrite) -> bool {
        let writable = self.limits(from).write_bytes_max > 0;
        let Some(send) = self.offered(from, id) else { return false };
        let asked_for = matches!(send.mode, Mode::Write | Mode::Both);
        if !asked_for
            || !writable
            || write.pieces.begin >= write.pieces.end
            || write.pieces.end > send.body.len() as u64
        {
            return false;
        }
        send.stage = SendStage::Writing(write);
        self.write_pieces(id);
        if self.mutant == Some(Mutant::WrittenBeforeWrite) {
            self.settle_write(id);
        }
        true
    }

    fn on_grant(&mut self, from: Peer, id: RequestId, granted: u64) -> bool {
        // Grants may overtake each other: the last one may have come, and ended the request, before this one.
        let Some(send) = self.requests.send_mut(id) else { return true };
        let SendStage::Window(window) = &mut send.stage else { return false };
        if send.to != from || granted > window.wanted {
            return false;
        }
        window.granted = window.granted.max(granted);
        self.queue_data(id);
        true
    }

    fn on_fin(&mut self, from: Peer, id: RequestId) -> bool {
        let premature = self.mutant == Some(Mutant::DoneBeforeFin);
        let waits = matches!(
            self.requests.send_mut(id),
            Some(send) if send.to == from && matches!(send.stage, SendStage::Offered | SendStage::Unmatched)
        );
        if !waits {
            return false;
        }
        self.finish_send(id);
        if premature {
            self.completions.pop_back();
        }
        true
    }

    /// The sender no longer touches our memory.
    fn on_written(&mut self, from: Peer, id: RequestId, refused: bool) -> bool {
        let Some(pull) = self.requests.pull_mut(id) else { return false };
        if pull.envelope.source != from {
            return false;
        }
        let Some(key) = pull.lent.take() else { return false };
        pull.write_refused = refused;
        self.transport.deregister(key, from);
        self.settle_pull(id);
        true
    }

    /// A piece of a windowed message came; its bytes are in place if `delivered`.
    pub(crate) fn on_data(&mut self, from: Peer, id: RequestId, delivered: bool) {
        if !delivered {
            return self.on_impossible(from, "a piece that was not asked for");
        }
        let window_bytes = self.limits(from).window_bytes;
        let forgetful = self.mutant == Some(Mutant::GrantForgotten);
        let Some(pull) = self.requests.pull_mut(id) else { return };
        let wanted = pull.wanted;
        let Some(window) = &mut pull.window else { return };
        if window.received == wanted {
            return self.settle_pull(id);
        }
        // Extend when half of the window is used up: the grant travels while the other half arrives.
        if window.granted < wanted && window.granted - window.received <= window_bytes / 2 && !forgetful {
            window.granted = wanted.min(window.received + window_bytes);
            let grant = Control::Grant { sender: pull.sender, granted: window.granted };
            self.control(from, grant);
        }
    }

    /// A send to `from` that waits for its word.
    fn offered(&mut self, from: Peer, id: RequestId) -> Option<&mut crate::request::Send> {
        self.requests.send_mut(id).filter(|send| send.to == from && matches!(send.stage, SendStage::Offered))
    }
}

impl Pull {
    /// Puts a piece into its place. False when it is none that was asked for.
    pub(crate) fn accept_data(&mut self, offset: u64, payload: &[u8]) -> bool {
        let Some(window) = &mut self.window else { return false };
        let (bytes, wanted) = (payload.len() as u64, self.wanted);
        let inside = offset.checked_add(bytes).is_some_and(|end| end <= window.granted);
        if !inside || window.received + bytes > wanted {
            return false;
        }
        self.body.put(offset as usize, payload);
        window.received += bytes;
        true
    }
}

impl Pieces {
    /// One of the operations has ended: well, refused, or with its peer.
    fn on_end(&mut self, failed: Option<&Fault>, gone: bool) {
        self.in_flight -= 1;
        match failed {
            Some(fault) if gone => self.fault = Some(Box::new(fault.clone())),
            Some(_) => self.refused = true,
            None => {}
        }
    }
}
