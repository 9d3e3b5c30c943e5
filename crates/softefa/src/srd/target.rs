//! The side that is asked: numbers are decided, bytes are put in place or fetched, answers are owed.

use super::inbound::Offer;
use super::initiator::scatter;
use super::*;
use crate::wire::Answer;

/// Pieces of memory that may be waited for at a time; what is asked beyond that is asked again later. Eight full
/// windows of requests.
const WANTED_MAX: usize = 8 * WINDOW as usize;

/// Refusals that may wait to be sent.
const CONTROLS_MAX: usize = 8 * WINDOW as usize;

/// Earlier incarnations of peers that are remembered.
const OLDER_MAX: usize = 4096;

/// A packet without a body.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) to: Node,
    pub(super) header: Header,
}

/// A piece of memory that a peer waits for.
#[derive(Debug)]
pub(super) struct Wanted {
    flow: Flow,
    number: u64,
    stamp: Nanos,
    rkey: u32,
    remote: u64,
    len: u32,
}

/// A flow towards us: of which peer, and of which incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flow {
    peer: PeerId,
    epoch: u32,
}

impl Srd {
    /// A datagram of the unreliable service: taken or dropped.
    pub(super) fn handle_unreliable(&mut self, header: &Header, body: &[u8], host: &mut impl Host) {
        let ours =
            header.qkey == self.me.qkey && !self.is_closed && self.config.service == Service::Unreliable;
        if !ours || self.accept_send(header, body, host).is_err() {
            self.counters.rx_drops.one();
        }
    }

    /// A peer asks for something.
    pub(super) fn handle_request(&mut self, header: &Header, body: &[u8], now: Nanos, host: &mut impl Host) {
        if header.qkey != self.me.qkey || self.config.service == Service::Unreliable {
            let answer = Answer { epoch: header.epoch, ..Answer::default() };
            return self.refuse(header.from, answer, header.number, Status::BadQueuePair);
        }
        let lowest = header.number - u64::from(header.below);
        let flow = self.flow(header.from, header.epoch, lowest);
        match self.inbound(flow).offer(header.number, lowest, header.stamp) {
            Offer::Beyond => self.counters.rx_drops.one(),
            Offer::Refused(status) => self.refuse_on(flow, header.number, status),
            Offer::Accepted => {
                self.counters.softefa_duplicates.one();
                match (header.kind, self.is_closed) {
                    (Kind::Read, false) => self.want(flow, header, true),
                    (Kind::Read, true) => self.refuse_on(flow, header.number, Status::BadQueuePair),
                    _ => self.owe(flow, header, true, now),
                }
            }
            Offer::New => match self.accept(flow, header, body, host) {
                Ok(()) if header.kind == Kind::Read => {}
                Ok(()) => self.owe(flow, header, header.at_once, now),
                Err(status) => {
                    self.inbound(flow).refuse(header.number, status);
                    self.refuse_on(flow, header.number, status);
                }
            },
        }
    }

    /// Does what is asked, or says why not.
    fn accept(
        &mut self,
        flow: Flow,
        header: &Header,
        body: &[u8],
        host: &mut impl Host,
    ) -> Result<(), Status> {
        if self.is_closed {
            return Err(Status::BadQueuePair);
        }
        if header.kind == Kind::Send {
            return self.accept_send(header, body, host);
        }
        if !host.knows(header.from.gid) {
            return Err(Status::UnknownPeer);
        }
        if header.kind == Kind::Read {
            if header.length > self.config.rdma_bytes_max.min(CHUNK_BYTES_MAX) {
                return Err(Status::BadRemoteLength);
            }
            if header.length > 0 {
                host.resolve(header.rkey, header.remote, header.length, Access::Read)?;
            }
            self.want(flow, header, false);
            return Ok(());
        }
        let at = match body.len() as u32 {
            0 => 0,
            bytes => host.resolve(header.rkey, header.remote, bytes, Access::Write)?,
        };
        if let (Kind::WriteImm, Some(imm)) = (header.kind, header.imm) {
            let wr_id = match self.config.unsolicited {
                true => 0,
                false => self.take_receive(0, host)?.wr_id,
            };
            let unsolicited = self.config.unsolicited;
            let done = Done::Written { from: header.from, bytes: header.length, imm, unsolicited };
            self.completions.push_back(Completion { wr_id, status: Status::Ok, done });
        }
        if !body.is_empty() {
            host.write(at, body);
            self.counters.rdma_write_recv_bytes.add(body.len() as u64);
        }
        Ok(())
    }

    fn accept_send(&mut self, header: &Header, body: &[u8], host: &mut impl Host) -> Result<(), Status> {
        let receive = self.take_receive(header.length, host)?;
        scatter(&receive.spans, body, host);
        self.counters.recv_wrs.one();
        self.counters.recv_bytes.add(body.len() as u64);
        let done = Done::Receive { from: header.from, bytes: header.length, imm: header.imm };
        self.completions.push_back(Completion { wr_id: receive.wr_id, status: Status::Ok, done });
        Ok(())
    }

    fn take_receive(&mut self, bytes: u32, host: &mut impl Host) -> Result<Receive, Status> {
        if self.faults.is_not_ready() {
            self.counters.softefa_faults_rnr.one();
            return Err(Status::NotReady);
        }
        host.take_receive(bytes)
    }

    /// The flow that a packet belongs to. An incarnation that was never seen takes the place of the one before.
    fn flow(&mut self, from: Node, epoch: u32, lowest: u64) -> Flow {
        let peer = self.peer(from);
        let current = &mut self.peers[peer as usize].inbound;
        let is_known = match current {
            Some(inbound) => inbound.epoch == epoch || self.older.contains_key(&(from, epoch)),
            None => false,
        };
        if !is_known {
            let before = current.replace(Inbound::new(epoch, lowest));
            if let Some(before) = before.filter(|_| self.older.len() < OLDER_MAX) {
                self.older.insert((from, before.epoch), before);
            }
        }
        Flow { peer, epoch }
    }

    fn inbound(&mut self, flow: Flow) -> &mut Inbound {
        let peer = &mut self.peers[flow.peer as usize];
        if peer.inbound.as_ref().is_none_or(|inbound| inbound.epoch != flow.epoch)
            && let Some(older) = self.older.get_mut(&(peer.node, flow.epoch))
        {
            return older;
        }
        // An earlier incarnation for which there was no place: nobody waits for what is said to it.
        peer.inbound.get_or_insert_with(|| Inbound::new(flow.epoch, 0))
    }

    /// An acknowledgement is owed, `at_once` or when the wait for a packet that could carry it has been too long.
    fn owe(&mut self, flow: Flow, header: &Header, at_once: bool, now: Nanos) {
        let limit = self.config.window_bytes / 4;
        let peer = flow.peer;
        if self.peers[peer as usize].inbound.as_ref().is_none_or(|inbound| inbound.epoch != flow.epoch) {
            let answer = self.inbound(flow).answer();
            return self.control(header.from, Kind::Ack, answer, 0, Status::Ok);
        }
        let delay = self.config.ack_delay;
        let inbound = self.inbound(flow);
        inbound.unacknowledged += header.length.min(limit) + 1;
        let due = if at_once || inbound.unacknowledged > limit { now } else { now + delay };
        if inbound.due.is_none_or(|before| due < before) {
            inbound.due = Some(due);
            match due == now {
                true => self.owed.push_front((due, peer)),
                false => self.owed.push_back((due, peer)),
            }
        }
    }

    /// The next acknowledgement that found no packet to carry it.
    pub(super) fn next_acknowledgement(&mut self, now: Nanos) -> Option<Transmit> {
        while let Some(&(_, id)) = self.owed.front().filter(|(due, _)| *due <= now) {
            self.owed.pop_front();
            let mut header = self.header(Kind::Ack);
            let peer = &mut self.peers[id as usize];
            let Some(inbound) =
                peer.inbound.as_mut().filter(|inbound| inbound.due.is_some_and(|due| due <= now))
            else {
                continue;
            };
            header.to_qpn = peer.node.qpn;
            header.answer = inbound.answer();
            let mut further = [0; INLINE_MAX];
            let mut len = 0;
            for word in inbound.further_words(header.answer.base) {
                further[len..len + 8].copy_from_slice(&word.to_le_bytes());
                len += 8;
            }
            self.counters.softefa_acks.one();
            let body = Inline::new(&further[..len]).map_or(Body::Spans(Spans::default()), Body::Inline);
            return Some(Transmit { to: peer.node, header: header.to_bytes(), body });
        }
        None
    }

    /// A peer wants a piece of memory. `is_again` if it has asked before.
    fn want(&mut self, flow: Flow, header: &Header, is_again: bool) {
        let is_waiting = |wanted: &Wanted| wanted.flow == flow && wanted.number == header.number;
        if self.wanted.len() >= WANTED_MAX || (is_again && self.wanted.iter().any(is_waiting)) {
            self.counters.rx_drops.one();
            return;
        }
        let Header { number, stamp, rkey, remote, length: len, .. } = *header;
        self.wanted.push_back(Wanted { flow, number, stamp, rkey, remote, len });
    }

    /// The next piece of memory that a peer waits for. It is looked up again: it may have been closed since.
    pub(super) fn next_wanted(&mut self, host: &impl Host) -> Option<Transmit> {
        let Wanted { flow, number, stamp, rkey, remote, len } = self.wanted.pop_front()?;
        let to = self.peers[flow.peer as usize].node;
        let at = match len {
            0 => Ok(0),
            _ => host.resolve(rkey, remote, len, Access::Read),
        };
        let mut header = self.header(Kind::ReadAnswer);
        header.answer = self.inbound(flow).peek();
        header.to_qpn = to.qpn;
        header.number = number;
        let at = match at {
            Ok(at) => at,
            Err(status) => {
                header.kind = Kind::Nack;
                header.status = status;
                return Some(Transmit::bare(to, &header));
            }
        };
        // The time of this very request: it tells that requests sent before it were overtaken.
        header.answer.echo = stamp;
        header.length = len;
        self.counters.rdma_read_resp_bytes.add(u64::from(len));
        Some(Transmit { to, header: header.to_bytes(), body: Body::Spans(Spans::one(at, len)) })
    }

    fn refuse_on(&mut self, flow: Flow, number: u64, status: Status) {
        if status == Status::NotReady {
            self.counters.softefa_rnr_sent.one();
        }
        let to = self.peers[flow.peer as usize].node;
        let answer = self.inbound(flow).answer();
        self.refuse(to, answer, number, status);
    }

    fn refuse(&mut self, to: Node, answer: Answer, number: u64, status: Status) {
        self.control(to, Kind::Nack, answer, number, status);
    }

    fn control(&mut self, to: Node, kind: Kind, answer: Answer, number: u64, status: Status) {
        if self.controls.len() >= CONTROLS_MAX {
            self.counters.rx_drops.one();
            return;
        }
        let mut header = self.header(kind);
        header.to_qpn = to.qpn;
        header.answer = answer;
        header.number = number;
        header.status = status;
        self.controls.push_back(Control { to, header });
    }
}
