//! Reads and writes on their way: by which rail, again when a way has failed, and how they end.

use selvedge_transport::{Busy, Cause, Event, Fault, Peer};

use crate::error::Code;
use crate::faults;
use crate::peers::farewell::Parting;
use crate::rail::endpoint::{Completion, Polled};
use crate::rail::fabric::Address;
use crate::rail::queue::Failure;
use crate::rail::{Operation, words};
use crate::transport::Ofi;
use crate::transport::one_sided::{Direction, Work};
use crate::transport::rails::{Striped, Way};

/// Ways that one operation is tried on beside the first.
const FAILURES_MAX: u8 = 3;

impl Ofi {
    /// Begins a read or write.
    ///
    /// # Errors
    /// [`Busy`] when as many are in flight as there may be.
    pub(crate) fn begin(&mut self, work: Work) -> Result<(), Busy> {
        assert_eq!(work.remote.len, work.local.len() as u64, "a copy between different lengths");
        let (bytes_max, what) = match work.direction {
            Direction::Read => (self.caps.read_bytes_max, "a read of more than Caps::read_bytes_max"),
            Direction::Write => (self.caps.write_bytes_max, "a write of more than Caps::write_bytes_max"),
        };
        assert!(work.remote.len <= bytes_max, "{what}");
        if self.in_flight == self.caps.one_sided_max || !self.works.has_room() {
            return Err(Busy);
        }
        self.in_flight += 1;
        let number = self.works.begin(work);
        self.start(number);
        Ok(())
    }

    /// Hands an operation to the provider, or keeps it for another try.
    pub(crate) fn start(&mut self, number: usize) {
        let Some(mut work) = self.works.get(number) else { return };
        let peer = work.peer;
        if peer == self.me {
            return self.copy_own(number, work);
        }
        if self.peers.address(peer).is_none() && !self.meet(peer) {
            if self.peers.is_stranger(peer) {
                self.works.wait(number);
                self.has_news = true;
                return;
            }
            let fault = self.peers.fault(peer).expect("a peer that cannot be met is gone");
            return self.fail_work(number, fault);
        }
        if work.local.is_empty() {
            return self.finish_work(number);
        }
        let (which, way) = match work.way {
            Some(chosen) => chosen,
            None => self.choose_way(&work),
        };
        if work.hold.is_none() {
            match self.registrations.hold(work.local, way.own) {
                Ok(hold) => work.hold = hold,
                Err(fault) => return self.fail_work(number, fault),
            }
        }
        work.way = Some((which, way));
        self.works.set(number, work);
        let address = match self.address(way) {
            Ok(address) => address,
            Err(error) => return self.fail_work(number, faults::not_inserted(peer, &error)),
        };
        match self.post(work, which, address, number) {
            Ok(()) => {
                self.works.set(number, Work { is_posted: true, ..work });
                self.loads[way.own] += 1;
                // The rails beside the home rail are looked at when there is news.
                self.has_news |= way.own != 0;
            }
            Err(Code::AGAIN) => {
                self.works.wait(number);
                self.has_news = true;
            }
            Err(code) => {
                let words = words(self.rail.domain(), code);
                self.fail_work(number, faults::not_taken(peer, &words));
                self.not_taken(peer, code);
            }
        }
    }

    /// By which registration of the remote memory, and between which rails.
    fn choose_way(&mut self, work: &Work) -> (usize, Way) {
        if self.others.is_empty() && self.peers.rails(work.peer) == 1 {
            return (0, Way { own: 0, peer: work.peer, theirs: 0 });
        }
        let theirs = match self.peers.rails(work.peer) {
            1 => [0, 0],
            _ => Striped::of_key(work.remote.key).rails.map(|(rail, _)| rail),
        };
        self.turn = self.turn.wrapping_add(1);
        self.ways.choose(work.peer, theirs, &self.loads, self.turn)
    }

    fn post(&mut self, work: Work, which: usize, to: Address, number: usize) -> Result<(), Code> {
        let Some((_, way)) = work.way else { return Err(Code::NOT_ENABLED) };
        let key = work.remote.key;
        let (base, name) = match self.peers.rails(work.peer) {
            1 => (key.base, key.name),
            _ => {
                let striped = Striped::of_key(key);
                (striped.base, striped.rails[which].1)
            }
        };
        let remote = (base.wrapping_add(work.remote.offset), name);
        let local = (work.local, self.registrations.descriptor(work.hold));
        let rail = self.rail(way.own);
        match work.direction {
            Direction::Read => rail.read(to, remote, local, number),
            Direction::Write => rail.write(to, remote, local, number),
        }
    }

    /// An operation has failed. Where there is another way, it goes by that: a read or write that has happened may happen
    /// again.
    #[cold]
    pub(crate) fn fail_one_sided(&mut self, number: usize, failure: &Failure) {
        let Some(mut work) = self.works.get(number) else {
            // It was given up.
            self.works.end(number);
            return;
        };
        let peer = work.peer;
        let (fault, is_of_operation) = faults::refused_by_provider(peer, failure, self.is_efa);
        if let Some(known) = self.peers.fault(peer) {
            return self.fail_work(number, known);
        }
        if is_of_operation {
            return self.fail_work(number, fault);
        }
        let has_others = self.peers.rails(peer) > 1 || !self.others.is_empty();
        if let Some((_, way)) = work.way
            && has_others
            && fault.cause == Cause::Unreachable
            && work.failures < FAILURES_MAX
        {
            self.leave_way(way, &fault);
            self.unload(&work);
            work.is_posted = false;
            self.registrations.release(work.hold);
            (work.hold, work.way, work.failures) = (None, None, work.failures + 1);
            self.works.set(number, work);
            self.works.wait(number);
            self.has_news = true;
            return;
        }
        self.fail_work(number, fault.clone());
        self.part(peer, Parting::Refused(fault));
    }

    /// Its rail is not busy with it any more.
    fn unload(&mut self, work: &Work) {
        if let (true, Some((_, way))) = (work.is_posted, work.way) {
            self.loads[way.own] -= 1;
        }
    }

    /// Nothing gets through on a way: it is told once, and others are taken.
    pub(crate) fn leave_way(&mut self, way: Way, fault: &Fault) {
        if self.ways.has_failed(way) {
            return;
        }
        self.events.push_back(Event::Fault(faults::way_left(way, &self.nics[way.own], fault)));
        self.has_news = true;
        let mut peers = vec![way.peer];
        if self.ways.fail(way, self.loads.len()) {
            self.events.push_back(Event::Fault(faults::rail_left(&self.nics[way.own])));
            peers.extend(self.peers_on(way.own));
        }
        peers.into_iter().for_each(|peer| self.go_round(peer, fault));
    }

    /// Looks what the rails beside the home rail have done.
    pub(crate) fn take_from_others(&mut self) {
        for rail in 1..=self.others.len() {
            loop {
                match self.others[rail - 1].poll() {
                    Polled::Done(completion) => self.take_from_other(rail, &completion),
                    Polled::Failed(failure) => self.fail(rail, *failure),
                    Polled::Nothing => break,
                    Polled::Broken(code) => {
                        let words = words(self.rail.domain(), code);
                        self.break_down(&words);
                        break;
                    }
                }
            }
        }
    }

    fn take_from_other(&mut self, rail: usize, completion: &Completion) {
        let Some(number) = completion.operation else { return self.unknown(completion) };
        match self.rail(rail).operation(number) {
            Operation::OneSided(number) => self.finish_work(number),
            Operation::Send(slot) => self.confirm(rail, slot),
            Operation::Receive(slot) => {
                self.rail(rail).inbound.take(slot, completion.bytes);
                let event = self.take_other(completion.data, rail, slot);
                self.events.extend(event);
            }
        }
    }

    fn copy_own(&mut self, number: usize, work: Work) {
        if work.local.is_empty() {
            return self.finish_work(number);
        }
        match (self.registrations.find(work.remote), work.direction) {
            (None, _) => return self.fail_work(number, faults::not_open(self.me)),
            (Some(remote), Direction::Read) => remote.copy_to_buf(work.local),
            (Some(remote), Direction::Write) => work.local.copy_to_buf(remote),
        }
        self.finish_work(number);
    }

    fn finish_work(&mut self, number: usize) {
        if let Some(work) = self.end_work(number) {
            self.events.push_back(Event::Done(work.token));
            self.has_news = true;
        }
    }

    /// A one-sided operation is over.
    pub(crate) fn end_work(&mut self, number: usize) -> Option<Work> {
        let work = self.works.end(number)?;
        self.settle(&work);
        Some(work)
    }

    fn settle(&mut self, work: &Work) {
        self.in_flight -= 1;
        self.unload(work);
        self.registrations.release(work.hold);
    }

    /// Ends what the provider still has with a peer that is gone. It may never do so itself: `efa` of 2.x keeps a read for a
    /// peer that has not shaken hands for ever (seen). Nobody is left who could answer, so the memory is not touched any
    /// more; the provider's number of the operation stays taken until it lets go of it.
    #[cold]
    pub(crate) fn give_up_works(&mut self, peer: Peer) {
        let Some(fault) = self.peers.fault(peer) else { return };
        for number in self.works.with(peer) {
            if let Some(work) = self.works.give_up(number) {
                self.settle(&work);
                self.events.push_back(Event::Failed(work.token, fault.clone()));
                self.has_news = true;
            }
        }
    }

    pub(crate) fn fail_work(&mut self, number: usize, fault: Box<Fault>) {
        if let Some(work) = self.end_work(number) {
            self.events.push_back(Event::Failed(work.token, fault));
            self.has_news = true;
        }
    }
}
