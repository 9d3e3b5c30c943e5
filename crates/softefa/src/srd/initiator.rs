//! The side that asks: work requests cut into packets, and the answers to these.

use super::outbound::{Slot, WorkId};
use super::*;
use crate::wire::Answer;

/// A work request that has no completion yet.
#[derive(Debug)]
pub(super) struct Open {
    wr_id: u64,
    peer: PeerId,
    qkey: u32,
    work: Work,
    /// Bytes of all packets so far.
    cut: u32,
    /// Packets on the way.
    packets: u32,
    /// How often a receive was missing.
    refusals: u32,
}

impl Work {
    fn len(&self) -> u32 {
        match self {
            Work::Send { payload, .. } | Work::Write { payload, .. } => payload.len(),
            Work::Read { local, .. } => local.len(),
        }
    }

    fn done(&self) -> Done {
        match self {
            Work::Send { .. } => Done::Send,
            Work::Read { .. } => Done::Read,
            Work::Write { .. } => Done::Write,
        }
    }
}

impl Srd {
    /// Starts work towards `to`. It ends with exactly one completion named `wr_id`. Lengths and the service are checked
    /// here and tell their error by that completion; local keys are the caller's to check.
    pub fn post(&mut self, wr_id: u64, to: Address, work: Work, now: Nanos) -> Result<(), Full> {
        let _ = now;
        if self.work_open() >= self.config.work_max as usize {
            return Err(Full);
        }
        self.count_posted(&work);
        if let Err(status) = self.check(&to, &work) {
            self.count_done(&work, status);
            self.completions.push_back(Completion { wr_id, status, done: work.done() });
            return Ok(());
        }
        let peer = self.peer(to.node);
        let id = self.free.pop().unwrap_or_else(|| {
            self.work.push(None);
            self.work.len() as WorkId - 1
        });
        let fits = work.len() <= self.config.chunk_bytes;
        let out = &mut self.peers[peer as usize].out;
        match (self.config.service, &work) {
            (Service::Unreliable, _) => self.unreliable.push_back(id),
            (_, Work::Send { .. }) => out.sends.push_back(id),
            (_, Work::Write { imm: Some(_), .. }) if fits => out.sends.push_back(id),
            _ => out.rdma.push_back(id),
        }
        self.work[id as usize] =
            Some(Open { wr_id, peer, qkey: to.qkey, work, cut: 0, packets: 0, refusals: 0 });
        if self.config.service == Service::Reliable {
            self.enter_row(peer);
        }
        Ok(())
    }

    fn check(&self, to: &Address, work: &Work) -> Result<(), Status> {
        let max = match work {
            Work::Send { .. } => self.config.message_bytes_max,
            _ if self.config.service == Service::Unreliable => return Err(Status::Unsupported),
            _ => self.config.rdma_bytes_max,
        };
        if work.len() > max {
            Err(Status::BadLength)
        } else if self.is_closed {
            Err(Status::Flushed)
        } else if self.faults.refuses(to.node) {
            Err(Status::BadQueuePair)
        } else {
            Ok(())
        }
    }

    /// The next request of a flow, if it has one and room for it.
    pub(super) fn next_request(&mut self, id: PeerId, now: Nanos) -> Option<Transmit> {
        // No two packets have the same time, so that it also says which of them was first.
        let now = now.max(self.stamped + 1);
        let out = &mut self.peers[id as usize].out;
        if let Some(number) = out.poll_lost(now) {
            let slot = *out.open(number)?;
            self.counters.retrans_pkts.one();
            let body = if slot.kind == Kind::Read { 0 } else { slot.len };
            self.counters.retrans_bytes.add(u64::from(body) + HEADER_BYTES as u64);
            return Some(self.request(id, number, &slot, now));
        }
        let (work, kind, offset, len) = self.next_piece(id, now)?;
        let out = &mut self.peers[id as usize].out;
        let number = out.start(work, kind, offset, len, now);
        let slot = *out.open(number)?;
        let open = self.work[work as usize].as_mut().expect("queued work is open");
        open.packets += 1;
        open.cut += len;
        Some(self.request(id, number, &slot, now))
    }

    /// What goes out next for the first time: sends before pieces of reads and writes, which can be long.
    fn next_piece(&mut self, id: PeerId, now: Nanos) -> Option<(WorkId, Kind, u32, u32)> {
        let out = &mut self.peers[id as usize].out;
        if let Some(&work) = out.sends.front().filter(|_| out.may_send(now)) {
            let open = self.work[work as usize].as_ref().expect("queued work is open");
            let kind = if matches!(open.work, Work::Send { .. }) { Kind::Send } else { Kind::WriteImm };
            let len = open.work.len() - open.cut;
            if out.has_room(len) {
                out.sends.pop_front();
                return Some((work, kind, open.cut, len));
            }
        }
        let &work = out.rdma.front()?;
        let open = self.work[work as usize].as_ref().expect("queued work is open");
        let kind = if matches!(open.work, Work::Read { .. }) { Kind::Read } else { Kind::Write };
        let rest = open.work.len() - open.cut;
        let len = rest.min(self.config.chunk_bytes);
        if !out.has_room(len) {
            return None;
        }
        if len == rest {
            out.rdma.pop_front();
        }
        Some((work, kind, open.cut, len))
    }

    /// The packet of a number, as it goes out now.
    fn request(&mut self, id: PeerId, number: u64, slot: &Slot, now: Nanos) -> Transmit {
        let mut header = self.header(slot.kind);
        let peer = &mut self.peers[id as usize];
        let open = slot.work.and_then(|work| self.work[work as usize].as_ref()).expect("the slot is open");
        header.to_qpn = peer.node.qpn;
        header.qkey = open.qkey;
        header.number = number;
        header.below = (number - peer.out.lowest()) as u16;
        header.stamp = now;
        self.stamped = now;
        header.length = slot.len;
        let is_last = slot.offset + slot.len == open.work.len();
        header.at_once = slot.copies > 1 || peer.out.is_filling() || (is_last && slot.kind != Kind::Send);
        if let Some(inbound) = &mut peer.inbound {
            header.answer = inbound.answer();
        }
        let body = match &open.work {
            Work::Send { payload, imm } => {
                header.imm = *imm;
                payload.part(0, slot.len)
            }
            Work::Read { rkey, remote, .. } => {
                header.rkey = *rkey;
                header.remote = remote.wrapping_add(u64::from(slot.offset));
                Body::Spans(Spans::default())
            }
            Work::Write { payload, rkey, remote, imm } => {
                header.rkey = *rkey;
                header.remote = remote.wrapping_add(u64::from(slot.offset));
                if slot.kind == Kind::WriteImm {
                    header.imm = *imm;
                    header.remote = *remote;
                    header.length = payload.len();
                }
                payload.part(slot.offset, slot.len)
            }
        };
        self.flows_due = self.flows_due.min(peer.out.deadline(&self.config));
        Transmit { to: peer.node, header: header.to_bytes(), body }
    }

    /// The next datagram of the unreliable service. It is done when it is sent.
    pub(super) fn next_unreliable(&mut self, now: Nanos) -> Option<Transmit> {
        let id = self.unreliable.pop_front()?;
        let open = self.work[id as usize].as_ref().expect("queued work is open");
        let mut header = self.header(Kind::Send);
        let to = self.peers[open.peer as usize].node;
        let Work::Send { payload, imm } = open.work else { unreachable!("checked when posted") };
        header.unreliable = true;
        header.imm = imm;
        header.to_qpn = to.qpn;
        header.qkey = open.qkey;
        header.stamp = now;
        header.length = payload.len();
        self.finish(id, Status::Ok);
        Some(Transmit { to, header: header.to_bytes(), body: payload.part(0, payload.len()) })
    }

    /// A packet has come in that says what became of requests of ours.
    pub(super) fn handle_answer(&mut self, header: &Header, body: &[u8], now: Nanos, host: &mut impl Host) {
        let Some(&id) = self.peer_of.get(&header.from) else { return };
        let words = if header.kind == Kind::Ack { body } else { &[] };
        let further = words.chunks_exact(8).map(|word| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(word);
            u64::from_le_bytes(bytes)
        });
        let mut accepted = std::mem::take(&mut self.accepted);
        // A time that we have not come to yet is a lie.
        let echo = if header.answer.echo <= self.stamped { header.answer.echo } else { 0 };
        let answer = Answer { echo, ..header.answer };
        let out = &mut self.peers[id as usize].out;
        out.handle_answer(&answer, further, header.kind == Kind::ReadAnswer, now, &mut accepted);
        for number in accepted.drain(..) {
            self.settle(id, number);
        }
        self.accepted = accepted;
        match header.kind {
            Kind::ReadAnswer => self.handle_bytes(id, header.number, body, host),
            Kind::Nack => self.handle_refusal(id, header.number, header.status, now),
            _ => {}
        }
        let out = &mut self.peers[id as usize].out;
        out.find_overtaken(now, &self.config);
        self.flows_due = self.flows_due.min(out.deadline(&self.config));
        if !out.is_idle() {
            self.enter_row(id);
        }
    }

    /// The bytes of a piece of a read.
    fn handle_bytes(&mut self, id: PeerId, number: u64, body: &[u8], host: &mut impl Host) {
        let Some(slot) = self.peers[id as usize].out.open(number) else { return };
        let (Kind::Read, Some(work)) = (slot.kind, slot.work) else { return };
        if slot.len as usize != body.len() {
            return self.fail(work, Status::BadStatus);
        }
        if let Some(Open { work: Work::Read { local, .. }, .. }) = &self.work[work as usize] {
            scatter(&local.part(slot.offset, slot.len), body, host);
        }
        self.settle(id, number);
    }

    /// A number was refused; the words are final for this number.
    fn handle_refusal(&mut self, id: PeerId, number: u64, status: Status, now: Nanos) {
        let Some(work) = self.peers[id as usize].out.open(number).and_then(|slot| slot.work) else { return };
        if status != Status::NotReady {
            if status == Status::BadQueuePair {
                self.counters.impaired_remote_conn_events.one();
            }
            return self.fail(work, status);
        }
        self.counters.softefa_rnr_received.one();
        let open = self.work[work as usize].as_mut().expect("an open slot belongs to open work");
        open.refusals += 1;
        if self.config.rnr_retries.is_some_and(|retries| open.refusals > u32::from(retries)) {
            return self.fail(work, status);
        }
        let out = &mut self.peers[id as usize].out;
        if let Some(slot) = out.settle(number) {
            // It goes again under a new number, before others that were posted later.
            open.packets -= 1;
            open.cut -= slot.len;
            out.sends.push_front(work);
            out.pause_sends(now + self.config.rnr_delay);
            self.flows_due = self.flows_due.min(out.deadline(&self.config));
        }
    }

    /// A number was accepted, or answered with its bytes.
    fn settle(&mut self, id: PeerId, number: u64) {
        let out = &mut self.peers[id as usize].out;
        let Some(slot) = out.settle(number) else { return };
        out.grow(&slot, &self.config);
        let Some(work) = slot.work else { return };
        let open = self.work[work as usize].as_mut().expect("an open slot belongs to open work");
        open.packets -= 1;
        if open.packets > 0 || open.cut < open.work.len() {
            return;
        }
        let is_waiting = slot.kind == Kind::Write && matches!(open.work, Work::Write { imm: Some(_), .. });
        if is_waiting {
            out.sends.push_back(work);
        } else {
            self.finish(work, Status::Ok);
        }
    }

    /// Work has failed, whatever of it is still on the way.
    #[cold]
    fn fail(&mut self, work: WorkId, status: Status) {
        let Some(open) = &self.work[work as usize] else { return };
        let id = open.peer;
        self.peers[id as usize].out.abandon(work);
        self.finish(work, status);
        self.enter_row(id);
    }

    /// All work on a flow has failed.
    #[cold]
    pub(super) fn fail_flow(&mut self, id: PeerId, status: Status) {
        self.peers[id as usize].out.clear();
        for work in 0..self.work.len() as WorkId {
            let is_reliable = self.config.service == Service::Reliable;
            if is_reliable && self.work[work as usize].as_ref().is_some_and(|open| open.peer == id) {
                self.finish(work, status);
            }
        }
    }

    /// Work has ended.
    pub(super) fn finish(&mut self, id: WorkId, status: Status) {
        let Some(open) = self.work[id as usize].take() else { return };
        self.free.push(id);
        self.count_done(&open.work, status);
        self.completions.push_back(Completion { wr_id: open.wr_id, status, done: open.work.done() });
    }

    fn count_posted(&self, work: &Work) {
        match work {
            Work::Send { .. } => {
                self.counters.send_wrs.one();
                self.counters.send_bytes.add(u64::from(work.len()));
            }
            Work::Read { .. } => self.counters.rdma_read_wrs.one(),
            Work::Write { .. } => self.counters.rdma_write_wrs.one(),
        }
    }

    fn count_done(&self, work: &Work, status: Status) {
        let bytes = u64::from(work.len());
        match (work, status) {
            (Work::Send { .. }, _) => {}
            (Work::Read { .. }, Status::Ok) => self.counters.rdma_read_bytes.add(bytes),
            (Work::Read { .. }, _) => self.counters.rdma_read_wr_err.one(),
            (Work::Write { .. }, Status::Ok) => self.counters.rdma_write_bytes.add(bytes),
            (Work::Write { .. }, _) => self.counters.rdma_write_wr_err.one(),
        }
    }
}

/// Lays `bytes` out over `spans`, as far as these reach.
pub(super) fn scatter(spans: &Spans, bytes: &[u8], host: &mut impl Host) {
    let mut rest = bytes;
    for span in spans.iter() {
        let (now, later) = rest.split_at(rest.len().min(span.len as usize));
        if now.is_empty() {
            return;
        }
        host.write(span.at, now);
        rest = later;
    }
}
