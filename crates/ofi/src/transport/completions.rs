//! What the completion queue brings: packets to lend, sends that are over, and what has failed.

use selvedge_transport::{Event, Peer, Slot};

use crate::error::Code;
use crate::faults;
use crate::peers::Label;
use crate::rail::endpoint::{Completion, Polled};
use crate::rail::queue::Failure;
use crate::rail::{Operation, words};
use crate::transport::{Ofi, RAIL_SHIFT};

impl Ofi {
    /// Looks at the next completions until there is an event among them.
    #[inline]
    pub(crate) fn take_completions(&mut self) -> Option<Event> {
        loop {
            match self.rail.poll() {
                Polled::Done(completion) => {
                    if let Some(event) = self.complete(completion) {
                        return Some(event);
                    }
                }
                Polled::Nothing => return None,
                Polled::Failed(failure) => self.fail(0, *failure),
                Polled::Broken(code) => {
                    self.broken(code);
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
                let Some((from, contact)) = self.peers.sender(completion.data) else {
                    return self.take_other(completion.data, 0, slot);
                };
                contact.received = contact.received.wrapping_add(1);
                self.lend(from, slot as u64)
            }
            Operation::Send(slot) => {
                match self.passages {
                    None => self.rail.outbound.give_back(slot),
                    Some(_) => self.confirm(0, slot),
                }
                None
            }
            Operation::OneSided(number) => self.end_work(number).map(|work| Event::Done(work.token)),
        }
    }

    /// A packet that is not one of the engine's without a number from somebody we know.
    #[inline(never)]
    pub(crate) fn take_other(&mut self, data: u64, rail: usize, slot: usize) -> Option<Event> {
        match self.peers.label(data, self.numbering()) {
            Label::Packet(from, number) => {
                if self.peers.address(from).is_none() {
                    self.greet(from);
                }
                if let Some(number) = number {
                    return self.take_numbered((from, number), rail, slot);
                }
                let contact = self.peers.contact(from)?;
                contact.received = contact.received.wrapping_add(1);
                self.lend(from, Ofi::slot_name(rail, slot))
            }
            Label::Control(from) => {
                self.take_control(from, rail, slot);
                None
            }
            Label::Foreign => {
                self.drop_foreign(rail, slot);
                None
            }
        }
    }

    /// A packet that nobody of this job has sent. They are counted, and spoken of once.
    #[cold]
    fn drop_foreign(&mut self, rail: usize, slot: usize) {
        self.give_slot_back(rail, slot);
        if self.foreign == 0 {
            self.events.push_back(Event::Fault(faults::foreign_packets()));
            self.has_news = true;
        }
        self.foreign += 1;
    }

    /// Packets that were dropped because nobody of this job has sent them.
    pub fn foreign_packets(&self) -> u64 {
        self.foreign
    }

    /// What a slot is called by who has it on loan.
    #[inline]
    pub(crate) fn slot_name(rail: usize, slot: usize) -> u64 {
        (rail as u64) << RAIL_SHIFT | slot as u64
    }

    /// The packet in a slot was dealt with: the next one may come there.
    #[inline]
    pub(crate) fn give_slot_back(&mut self, rail: usize, slot: usize) {
        let rail = self.rail(rail);
        rail.inbound.give_back(slot);
        rail.post_receive(slot);
        let has_unposted = rail.has_unposted();
        self.has_news |= has_unposted;
    }

    /// Lends a packet, or keeps it while all slots are on loan.
    #[inline]
    pub(crate) fn lend(&mut self, from: Peer, slot: u64) -> Option<Event> {
        if self.lent == self.caps.slots_max {
            self.stash.push_back((from, slot));
            self.has_news = true;
            return None;
        }
        self.lent += 1;
        Some(Event::Packet { from, slot: Slot::new(slot) })
    }

    /// An operation has failed.
    #[cold]
    pub(crate) fn fail(&mut self, rail: usize, failure: Failure) {
        let Some(number) = failure.operation else {
            // Injected packets fail without a name. Who does not get them is found out by other means.
            return;
        };
        match self.rail(rail).operation(number) {
            Operation::Receive(slot) => {
                self.rail(rail).inbound.take(slot, 0);
                self.give_slot_back(rail, slot);
                self.events.push_back(Event::Fault(faults::receive_failed(&failure.words)));
                self.has_news = true;
            }
            Operation::Send(slot) => self.send_failed(rail, slot, &failure),
            Operation::OneSided(number) => self.fail_one_sided(number, &failure),
        }
    }

    /// A completion of nothing we know.
    #[cold]
    pub(crate) fn unknown(&mut self, completion: &Completion) {
        let words =
            format!("the provider reports the end of an operation that was never begun: {completion:?}");
        self.events.push_back(Event::Fault(faults::unknown_completion(words)));
        self.has_news = true;
    }

    /// The completion queue says that it is broken.
    #[cold]
    fn broken(&mut self, code: Code) {
        let words = words(self.rail.domain(), code);
        self.break_down(&words);
    }

    /// Nothing goes any more.
    #[cold]
    pub(crate) fn break_down(&mut self, words: &str) {
        for peer in self.peers.others().collect::<Vec<_>>() {
            self.lose(peer, faults::not_taken(peer, words));
        }
    }
}
