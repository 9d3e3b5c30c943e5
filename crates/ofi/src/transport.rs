//! The transport: rails, peers and patience put together.

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use selvedge_transport::{Buf, Busy, Caps, Event, Fault, Key, Peer, RemoteSlice, Slot, Token, Transport};

use crate::endpoint::{Completion, Polled};
use crate::error::Code;
use crate::fabric::Address;
use crate::farewell::{Farewells, Parting};
use crate::faults;
use crate::lifeline::{Doorway, Ending, Lifelines};
use crate::monitor::Monitor;
use crate::one_sided::{Registrations, Way, Work, Works};
use crate::patience::{Pastime, Patience};
use crate::peers::{Peers, Word};
use crate::pool::Inbound;
use crate::queue::Failure;
use crate::rail::{Operation, Rail, words};

/// How often a rank that waits looks whether its peers still live.
const ROLL_CALL: Duration = Duration::from_millis(100);

/// Peers it turns to each time that it had nothing to do with before. On larger jobs it goes on with the next ones.
const ROLL_CALL_PEERS: usize = 8;

/// In jobs of at most so many peers everybody looks after everybody. In larger ones a rank looks after those it has had to do
/// with: after all of them would be a line, or a place in the device's tables, for each pair of ranks.
pub(crate) const FAMILIAR_PEERS: usize = 32;

/// Polls without an event between two looks at the clock, for callers that never wait: some milliseconds.
const QUIET_POLLS: u32 = 1 << 12;

/// Packets to one peer that wait for the provider to take them, as it does while it connects. Bounds what one peer that does
/// not answer may keep of the slots that all need.
const WAITING_MAX: u16 = 8;

/// Polls that look for packets first before one looks at everything else first.
const STREAK: u32 = 4;

/// Waiting packets that one poll tries to hand to the provider.
const TRIES: usize = 4;

/// Set in the numbers of slots that hold packets to ourselves.
const OWN: u64 = 1 << 32;

/// Packets to ourselves that may be under way.
const OWN_SLOTS: usize = 16;

/// A packet that waits for the provider to take it.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    to: Peer,
    slot: u32,
    len: u32,
    data: u64,
}

/// Peers over libfabric: a [`Transport`].
///
/// Dropping it is leaving in order, which takes until all that was sent has arrived, and at most
/// two seconds; dropping it while its thread panics is a death that the peers notice.
pub struct Ofi {
    pub(crate) rail: Rail,
    pub(crate) caps: Caps,
    pub(crate) peers: Peers,
    /// What comes beside packets to us.
    expected: Word,
    me: Peer,
    /// Slots on loan.
    lent: usize,
    /// Something below is not empty, or is to be done.
    pub(crate) has_news: bool,
    streak: u32,
    quiet_polls: u32,
    /// Packets that came while all slots were on loan, by sender and slot. Bounded by the receives.
    stash: VecDeque<(Peer, u64)>,
    /// Everything else that is to be told. Bounded by the slots, the one-sided operations and the peers.
    pub(crate) events: VecDeque<Event>,
    /// Bounded by the sends of the rail.
    backlog: VecDeque<Waiting>,
    /// Packets to ourselves.
    own: Inbound,
    own_free: Vec<u32>,
    works: Works,
    /// One-sided operations whose end was not told yet.
    in_flight: usize,
    registrations: Registrations,
    pub(crate) farewells: Farewells,
    pub(crate) lines: Option<Lifelines>,
    _doorway: Option<Doorway>,
    patience: Patience,
    /// The last send found no room.
    is_refused: bool,
    last_roll_call: Instant,
    /// The peer looked after last.
    asked: usize,
    is_efa: bool,
    /// Why registrations are not kept, where they should be.
    not_kept: Option<String>,
}

/// What [`Ofi::new`] is made of.
pub(crate) struct Parts {
    pub(crate) rail: Rail,
    pub(crate) caps: Caps,
    pub(crate) peers: Peers,
    pub(crate) expected: Word,
    pub(crate) me: Peer,
    pub(crate) doorway: Option<Doorway>,
    pub(crate) lines: Option<Lifelines>,
    pub(crate) own: Inbound,
    pub(crate) abilities: crate::Abilities,
    pub(crate) is_crowded: bool,
    pub(crate) is_efa: bool,
}

impl Ofi {
    pub(crate) fn new(parts: Parts) -> Ofi {
        let Parts { mut rail, caps, peers, expected, me, doorway, lines, own, abilities, .. } = parts;
        let can_be_woken = rail.endpoint().wait_fd().is_some();
        // Registering costs nothing over sockets, so that nothing is kept and nothing has to be watched.
        let (monitor, not_kept) = match parts.is_efa.then(Monitor::start) {
            None => (None, None),
            Some(Ok(monitor)) => (Some(monitor), None),
            Some(Err(error)) => (None, Some(format!("userfaultfd: {error}"))),
        };
        Ofi {
            lent: 0,
            has_news: false,
            streak: 0,
            quiet_polls: 0,
            stash: VecDeque::new(),
            events: VecDeque::with_capacity(64),
            backlog: VecDeque::new(),
            own,
            own_free: (0..OWN_SLOTS as u32).collect(),
            works: Works::new(caps.one_sided_max),
            in_flight: 0,
            registrations: Registrations::new(rail.domain(), &abilities, monitor),
            farewells: Farewells::new(),
            lines,
            _doorway: doorway,
            patience: Patience::new(parts.is_crowded, can_be_woken),
            is_refused: false,
            last_roll_call: Instant::now(),
            asked: me.index(),
            is_efa: parts.is_efa,
            not_kept,
            rail,
            caps,
            peers,
            expected,
            me,
        }
    }

    /// Why memory is registered anew for every operation on a road where that costs, if it is: the kernel does not tell when
    /// memory is unmapped.
    pub fn why_not_kept(&self) -> Option<&str> {
        self.not_kept.as_deref()
    }

    /// How often memory that was to be registered was found registered, and how often not. Zeroes where that costs nothing.
    pub fn registrations(&self) -> (u64, u64) {
        self.registrations.tally().map_or((0, 0), |tally| (tally.hits, tally.misses))
    }

    /// Slots for packets to ourselves.
    pub(crate) fn own_slots(packet_bytes: usize) -> Result<Inbound, rustix::io::Errno> {
        Inbound::new(OWN_SLOTS, packet_bytes)
    }

    /// Looks at the next completions until there is an event among them.
    #[inline]
    fn take_completions(&mut self) -> Option<Event> {
        loop {
            match self.rail.poll() {
                Polled::Done(completion) => {
                    if let Some(event) = self.complete(completion) {
                        return Some(event);
                    }
                }
                Polled::Nothing => return None,
                Polled::Failed(failure) => self.fail(*failure),
                Polled::Broken(code) => {
                    self.break_down(code);
                    return None;
                }
            }
        }
    }

    #[inline]
    fn complete(&mut self, completion: Completion) -> Option<Event> {
        let Some(number) = completion.operation else {
            self.unknown(&completion);
            return None;
        };
        match self.rail.operation(number) {
            Operation::Receive(slot) => {
                self.rail.inbound.take(slot, completion.bytes);
                let from = self.expected.sender(completion.data);
                let Some((from, contact)) =
                    from.and_then(|from| Some((from, self.peers.contacts.get_mut(from.index())?)))
                else {
                    self.take_control(completion.data, slot);
                    return None;
                };
                contact.received = contact.received.wrapping_add(1);
                if contact.address.is_none() {
                    self.meet(from);
                }
                self.lend(from, slot as u64)
            }
            Operation::Send(slot) => {
                self.rail.outbound.give_back(slot);
                None
            }
            Operation::OneSided(number) => self.end_work(number).map(|work| Event::Done(work.token)),
        }
    }

    /// Lends a packet, or keeps it while all slots are on loan.
    #[inline]
    fn lend(&mut self, from: Peer, slot: u64) -> Option<Event> {
        if self.lent == self.caps.slots_max {
            self.stash.push_back((from, slot));
            self.has_news = true;
            return None;
        }
        self.lent += 1;
        Some(Event::Packet { from, slot: Slot::new(slot) })
    }

    /// Whether this poll should look for packets last, so that a flood of them holds up nothing else.
    #[inline]
    fn packets_come_last(&mut self) -> bool {
        self.streak += 1;
        if self.streak < STREAK {
            return false;
        }
        self.streak = 0;
        true
    }

    /// What there is to tell beside what comes out of the completion queue, after doing what is to be done.
    #[cold]
    fn poll_news(&mut self) -> Option<Event> {
        self.tend();
        if self.lent < self.caps.slots_max
            && let Some((from, slot)) = self.stash.pop_front()
        {
            return self.lend(from, slot);
        }
        self.events.pop_front()
    }

    /// Does what is to be done: hands waiting packets and operations to the provider, answers, concludes.
    #[cold]
    pub(crate) fn tend(&mut self) {
        if self.rail.has_unposted() {
            self.rail.post_refused();
        }
        for _ in 0..self.backlog.len().min(TRIES) {
            self.try_waiting();
        }
        if self.works.has_waiting() {
            for number in self.works.take_waiting() {
                self.start(number as usize);
            }
        }
        self.tend_farewells();
        self.has_news = !(self.stash.is_empty()
            && self.events.is_empty()
            && self.backlog.is_empty()
            && !self.works.has_waiting()
            && !self.rail.has_unposted()
            && self.farewells.is_quiet());
    }

    /// Tries the packet that has waited longest.
    fn try_waiting(&mut self) {
        let Some(waiting) = self.backlog.pop_front() else { return };
        let Waiting { to, slot, len, data } = waiting;
        let code = match self.peers.contacts[to.index()].address {
            Some(address) => self.rail.send_slot(slot as usize, len as usize, address, data),
            // It has gone meanwhile.
            None => Err(Code::NOT_ENABLED),
        };
        match code {
            Err(Code::AGAIN) => return self.backlog.push_back(waiting),
            Ok(()) => {}
            Err(code) => {
                self.rail.outbound.give_back(slot as usize);
                self.not_taken(to, code);
            }
        }
        *self.peers.waiting(to) -= 1;
    }

    /// Whether packets of a peer are kept until there are slots to lend.
    pub(crate) fn has_stashed(&self, peer: Peer) -> bool {
        self.stash.iter().any(|&(from, _)| from == peer)
    }

    /// What immediate data says.
    pub(crate) fn expected_label(&self, data: u64) -> crate::peers::Label {
        self.expected.label(data)
    }

    /// From now on any number of slots may be on loan.
    pub(crate) fn lend_all(&mut self) {
        self.caps.slots_max = usize::MAX;
    }

    /// Packets that have not been handed to the provider, or are not complete.
    pub(crate) fn sends_pending(&self) -> usize {
        self.rail.outbound.in_use()
    }

    /// A send that is not the common case: to ourselves, to somebody for the first time, or to nobody.
    #[cold]
    fn send_rare(&mut self, to: Peer, header: &[u8], payload: Buf) -> Result<(), Busy> {
        if to == self.me {
            let Some(slot) = self.own_free.pop() else { return Err(Busy) };
            self.own.put(slot as usize, header, payload);
            self.stash.push_back((to, OWN | u64::from(slot)));
            self.has_news = true;
            return Ok(());
        }
        if !self.peers.is_gone(to) && self.meet(to) {
            return self.send(to, header, payload);
        }
        Ok(())
    }

    /// A send that the provider did not take. While it connects, some packets wait here.
    #[cold]
    fn send_later(
        &mut self,
        to: Peer,
        data: u64,
        header: &[u8],
        payload: Buf,
        code: Code,
    ) -> Result<(), Busy> {
        if code != Code::AGAIN {
            self.not_taken(to, code);
            return Ok(());
        }
        // What has completed makes room, and connections come about.
        while let Some(event) = self.take_completions() {
            self.events.push_back(event);
            self.has_news = true;
        }
        if !self.keep_waiting(to, data, header, payload) {
            self.is_refused = true;
            return Err(Busy);
        }
        Ok(())
    }

    /// Keeps a packet for later. False when there is no room.
    pub(crate) fn keep_waiting(&mut self, to: Peer, data: u64, header: &[u8], payload: Buf) -> bool {
        if *self.peers.waiting(to) >= WAITING_MAX {
            return false;
        }
        let Some(slot) = self.rail.outbound.take(to) else { return false };
        let len = self.rail.outbound.fill(slot, header, payload) as u32;
        *self.peers.waiting(to) += 1;
        self.backlog.push_back(Waiting { to, slot: slot as u32, len, data });
        self.has_news = true;
        true
    }

    /// Has to do with a peer for the first time: tells the provider its address and calls at its doorway. False when it is gone, or
    /// lost by that.
    #[cold]
    pub(crate) fn meet(&mut self, peer: Peer) -> bool {
        if self.peers.is_gone(peer) || peer == self.me {
            return false;
        }
        assert!(self.peers.is_reached(peer), "{peer:?} has given no card");
        if self.peers.contacts[peer.index()].address.is_none() {
            let address = self.peers.address(peer, 0).map(Box::<[u8]>::from).unwrap_or_default();
            match self.rail.endpoint().addresses().insert(&address) {
                Ok(address) => self.peers.contacts[peer.index()].address = Some(address),
                Err(error) => {
                    self.lose(peer, faults::not_inserted(peer, &error));
                    return false;
                }
            }
        }
        if self.peers.know(peer) {
            self.watch_over(peer);
        }
        true
    }

    /// Calls at a peer's doorway.
    fn watch_over(&mut self, peer: Peer) {
        let Some(doorway) = self.peers.doorway(peer) else { return };
        if let Some(ending) = self.lines.as_mut().and_then(|lines| lines.call(peer, doorway)) {
            self.line_ended(peer, ending);
        }
    }

    fn line_ended(&mut self, peer: Peer, ending: Ending) {
        if !self.is_efa || ending == Ending::Closed {
            self.part(peer, Parting::LineEnded(ending));
        }
    }

    /// Sends a word to a peer that nobody watches, to learn from the device whether it is there. Not while many sends are
    /// under way: they tell as well.
    fn probe(&mut self, peer: Peer) {
        let is_watched = self.lines.as_ref().is_some_and(|lines| lines.has(peer));
        if self.is_efa && !is_watched && self.peers.is_known(peer) && self.rail.has_many_free() {
            self.send_probe(peer);
        }
    }

    /// The peer is gone: tells it once, ends what waits for it.
    #[cold]
    pub(crate) fn lose(&mut self, peer: Peer, fault: Box<Fault>) {
        if !self.peers.lose(peer, fault.clone()) {
            return;
        }
        if let Some(lines) = &mut self.lines {
            lines.hang_up(peer);
        }
        for number in self.works.take_waiting() {
            match self.works.get(number as usize) {
                Some(work) if work.peer == peer => self.fail_work(number as usize, fault.clone()),
                _ => self.works.wait(number as usize),
            }
        }
        self.events.push_back(Event::Fault(fault));
        self.has_news = true;
    }

    /// The provider does not take an operation, and will not.
    #[cold]
    fn not_taken(&mut self, peer: Peer, code: Code) {
        if !self.peers.is_gone(peer) {
            let words = words(self.rail.domain(), code);
            self.lose(peer, faults::not_taken(peer, &words));
        }
    }

    /// An operation has failed.
    #[cold]
    fn fail(&mut self, failure: Failure) {
        let Some(number) = failure.operation else {
            // Injected packets fail without a name. Who does not get them is found out by other means.
            return;
        };
        match self.rail.operation(number) {
            Operation::Receive(slot) => {
                self.rail.inbound.take(slot, 0);
                self.rail.inbound.give_back(slot);
                self.rail.post_receive(slot);
                self.events.push_back(Event::Fault(faults::receive_failed(&failure.words)));
                self.has_news = true;
            }
            Operation::Send(slot) => {
                let to = self.rail.outbound.to(slot);
                self.rail.outbound.give_back(slot);
                let (fault, _) = faults::refused_by_provider(to, &failure, self.is_efa);
                self.part(to, Parting::Refused(fault));
            }
            Operation::OneSided(number) => {
                let Some(work) = self.works.get(number) else { return };
                let (fault, is_of_operation) = faults::refused_by_provider(work.peer, &failure, self.is_efa);
                let known = self.peers.fault(work.peer);
                self.fail_work(number, known.unwrap_or_else(|| fault.clone()));
                if !is_of_operation {
                    self.part(work.peer, Parting::Refused(fault));
                }
            }
        }
    }

    /// A one-sided operation is over.
    fn end_work(&mut self, number: usize) -> Option<Work> {
        let work = self.works.end(number)?;
        self.in_flight -= 1;
        self.registrations.release(work.hold);
        Some(work)
    }

    fn fail_work(&mut self, number: usize, fault: Box<Fault>) {
        if let Some(work) = self.end_work(number) {
            self.events.push_back(Event::Failed(work.token, fault));
            self.has_news = true;
        }
    }

    /// A completion of nothing we know.
    #[cold]
    fn unknown(&mut self, completion: &Completion) {
        let words =
            format!("the provider reports the end of an operation that was never begun: {completion:?}");
        self.events.push_back(Event::Fault(faults::unknown_completion(words)));
        self.has_news = true;
    }

    /// The completion queue says that it is broken.
    #[cold]
    fn break_down(&mut self, code: Code) {
        let words = words(self.rail.domain(), code);
        for peer in self.peers.others().collect::<Vec<_>>() {
            self.lose(peer, faults::not_taken(peer, &words));
        }
    }

    fn begin(&mut self, work: Work) -> Result<(), Busy> {
        assert_eq!(work.remote.len, work.local.len() as u64, "a copy between different lengths");
        let (bytes_max, what) = match work.way {
            Way::Read => (self.caps.read_bytes_max, "a read of more than Caps::read_bytes_max"),
            Way::Write => (self.caps.write_bytes_max, "a write of more than Caps::write_bytes_max"),
        };
        assert!(work.remote.len <= bytes_max, "{what}");
        if self.in_flight == self.caps.one_sided_max {
            return Err(Busy);
        }
        self.in_flight += 1;
        let number = self.works.begin(work);
        self.start(number);
        Ok(())
    }

    /// Hands an operation to the provider, or keeps it for another try.
    fn start(&mut self, number: usize) {
        let Some(mut work) = self.works.get(number) else { return };
        if work.peer == self.me {
            return self.copy_own(number, work);
        }
        if self.peers.contacts[work.peer.index()].address.is_none() && !self.meet(work.peer) {
            let fault = self.peers.fault(work.peer).expect("a peer that cannot be met is gone");
            return self.fail_work(number, fault);
        }
        if work.local.is_empty() {
            return self.finish_work(number);
        }
        let address = self.peers.contacts[work.peer.index()].address.expect("it was met");
        if work.hold.is_none() {
            match self.registrations.hold(work.local) {
                Ok(hold) => work.hold = hold,
                Err(fault) => return self.fail_work(number, fault),
            }
            self.works.set_hold(number, work.hold);
        }
        match self.post(work, address, number) {
            Ok(()) => {}
            Err(Code::AGAIN) => {
                self.works.wait(number);
                self.has_news = true;
            }
            Err(code) => {
                let words = words(self.rail.domain(), code);
                self.fail_work(number, faults::not_taken(work.peer, &words));
                self.not_taken(work.peer, code);
            }
        }
    }

    fn post(&mut self, work: Work, to: Address, number: usize) -> Result<(), Code> {
        let remote = (work.remote.key.base.wrapping_add(work.remote.offset), work.remote.key.name);
        let local = (work.local, self.registrations.descriptor(work.hold));
        match work.way {
            Way::Read => self.rail.read(to, remote, local, number),
            Way::Write => self.rail.write(to, remote, local, number),
        }
    }

    fn copy_own(&mut self, number: usize, work: Work) {
        if work.local.is_empty() {
            return self.finish_work(number);
        }
        match (self.registrations.find(work.remote), work.way) {
            (None, _) => return self.fail_work(number, faults::not_open(self.me)),
            (Some(remote), Way::Read) => remote.copy_to_buf(work.local),
            (Some(remote), Way::Write) => work.local.copy_to_buf(remote),
        }
        self.finish_work(number);
    }

    fn finish_work(&mut self, number: usize) {
        if let Some(work) = self.end_work(number) {
            self.events.push_back(Event::Done(work.token));
            self.has_news = true;
        }
    }

    /// Looks, now and then, who has gone.
    #[cold]
    fn call_roll(&mut self, now: Instant) {
        if now.duration_since(self.last_roll_call) < ROLL_CALL {
            return;
        }
        self.last_roll_call = now;
        let is_small = self.peers.count() <= FAMILIAR_PEERS;
        for _ in 0..ROLL_CALL_PEERS.min(self.peers.count()) {
            self.asked = (self.asked + 1) % self.peers.count();
            let peer = Peer(self.asked as u32);
            if peer != self.me && self.peers.is_reached(peer) {
                if is_small {
                    self.meet(peer);
                }
                self.probe(peer);
            }
        }
        self.look_at_lines();
    }

    /// Looks which lines have ended.
    #[cold]
    fn look_at_lines(&mut self) {
        let Some(mut lines) = self.lines.take() else { return };
        lines.look(|peer, ending| self.line_ended(peer, ending));
        self.lines = Some(lines);
    }

    /// Looks for completions and does what is to be done; true when `poll` may have something to tell, or there is more room
    /// than before.
    fn glance(&mut self) -> bool {
        let room = self.rail.outbound.in_use();
        while let Some(event) = self.take_completions() {
            self.events.push_back(event);
            self.has_news = true;
            self.patience.renew();
        }
        if self.has_news {
            self.tend();
        }
        !self.events.is_empty()
            || (!self.stash.is_empty() && self.lent < self.caps.slots_max)
            || (self.is_refused && self.rail.outbound.in_use() < room)
    }

    /// Sleeps until something completes, a line ends or `at_most` has passed.
    #[cold]
    fn sleep(&mut self, at_most: Duration) {
        let lines = self.lines.as_ref().map(Lifelines::as_fd);
        let endpoint = self.rail.endpoint();
        let Some(fd) = endpoint.wait_fd().filter(|_| endpoint.may_sleep()) else {
            if endpoint.wait_fd().is_none() {
                std::thread::sleep(at_most);
            }
            return;
        };
        // SAFETY: the descriptor belongs to the completion queue, which lives as long as the endpoint.
        let queue = unsafe { BorrowedFd::borrow_raw(fd) };
        let mut fds =
            [PollFd::from_borrowed_fd(queue, PollFlags::IN), PollFd::from_borrowed_fd(queue, PollFlags::IN)];
        let count = match lines {
            Some(lines) => {
                fds[1] = PollFd::from_borrowed_fd(lines, PollFlags::IN);
                2
            }
            None => 1,
        };
        let timeout = Timespec { tv_sec: at_most.as_secs() as i64, tv_nsec: at_most.subsec_nanos().into() };
        // An interrupted sleep is a short one.
        let _ = rustix::event::poll(&mut fds[..count], Some(&timeout));
        if fds[1].revents().contains(PollFlags::IN) && count == 2 {
            self.look_at_lines();
        }
    }
}

impl Transport for Ofi {
    fn roads(&self) -> &[Caps] {
        std::slice::from_ref(&self.caps)
    }

    fn peers(&self) -> usize {
        self.peers.count()
    }

    fn me(&self) -> Peer {
        self.me
    }

    fn register(&mut self, buf: Buf, with: Peer) -> Result<Key, Box<Fault>> {
        // Devices give nothing to peers whose address they do not have.
        if with != self.me {
            self.meet(with);
        }
        self.registrations.open(buf)
    }

    fn deregister(&mut self, key: Key, _with: Peer) {
        self.registrations.close(key);
    }

    #[inline]
    fn send(&mut self, to: Peer, header: &[u8], payload: Buf) -> Result<(), Busy> {
        assert!(
            header.len() + payload.len() <= self.caps.packet_bytes_max,
            "a packet of more than Caps::packet_bytes_max"
        );
        let contact = &mut self.peers.contacts[to.index()];
        let Some(address) = contact.address else { return self.send_rare(to, header, payload) };
        let data = contact.word.packet();
        contact.sent = contact.sent.wrapping_add(1);
        match self.rail.send((to, address), data, header, payload) {
            Ok(()) => Ok(()),
            Err(code) => {
                let sent = self.send_later(to, data, header, payload, code);
                if sent.is_err() {
                    let contact = &mut self.peers.contacts[to.index()];
                    contact.sent = contact.sent.wrapping_sub(1);
                }
                sent
            }
        }
    }

    fn read(&mut self, from: Peer, remote: RemoteSlice, local: Buf, token: Token) -> Result<(), Busy> {
        self.begin(Work { peer: from, way: Way::Read, remote, local, token, hold: None })
    }

    fn write(&mut self, to: Peer, local: Buf, remote: RemoteSlice, token: Token) -> Result<(), Busy> {
        self.begin(Work { peer: to, way: Way::Write, remote, local, token, hold: None })
    }

    #[inline]
    fn poll(&mut self) -> Option<Event> {
        if self.has_news
            && self.packets_come_last()
            && let Some(event) = self.poll_news()
        {
            return Some(event);
        }
        if let Some(event) = self.take_completions() {
            self.patience.renew();
            return Some(event);
        }
        if self.has_news {
            return self.poll_news();
        }
        self.quiet_polls += 1;
        if self.quiet_polls >= QUIET_POLLS {
            self.quiet_polls = 0;
            self.call_roll(Instant::now());
        }
        None
    }

    #[inline]
    fn packet(&self, slot: &Slot) -> &[u8] {
        match slot.number() {
            number if number & OWN == 0 => self.rail.inbound.packet(number as usize),
            number => self.own.packet((number & !OWN) as usize),
        }
    }

    #[inline]
    fn release(&mut self, slot: Slot) {
        let number = slot.number();
        self.lent -= 1;
        if number & OWN == 0 {
            self.rail.inbound.give_back(number as usize);
            self.rail.post_receive(number as usize);
            self.has_news |= self.rail.has_unposted();
        } else {
            self.own.give_back((number & !OWN) as usize);
            self.own_free.push((number & !OWN) as u32);
        }
    }

    fn wait(&mut self, at_most: Duration) {
        let mut until = None;
        while !self.glance() {
            let now = Instant::now();
            let until = *until.get_or_insert(now + at_most);
            if now >= until {
                break;
            }
            let pastime = self.patience.next(now, self.is_refused || self.has_news);
            if pastime != Pastime::Spin {
                self.call_roll(now);
            }
            match pastime {
                Pastime::Spin => std::hint::spin_loop(),
                Pastime::Yield => std::thread::yield_now(),
                Pastime::Sleep(nap) => self.sleep(nap.min(until - now).min(ROLL_CALL)),
            }
        }
        self.is_refused = false;
    }
}

impl Drop for Ofi {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.leave();
        }
    }
}

impl fmt::Debug for Ofi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ofi({:?} of {} over {})", self.me, self.peers.count(), self.caps.name)
    }
}
