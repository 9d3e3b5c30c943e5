//! Transports that each break one promise. Every one of them is caught by the suite.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::Simulated;
use crate::conformance::{CASES, run_all};
use crate::{
    Buf, Busy, Caps, Cause, Event, Fault, Key, Memory, Peer, RemoteSlice, Scope, Sim, SimConfig, SimPort,
    Slot, Token, Transport,
};

/// The promise that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutant {
    LosesAPacket,
    LosesEmptyPackets,
    RepeatsAPacket,
    ChangesAByte,
    CutsLongPackets,
    ForgetsThePayloadOfFullPackets,
    BorrowsThePayload,
    SendsWhatItRefuses,
    StaysBusy,
    NamesTheWrongSender,
    CutsWhatIsTooLong,
    ChangesPacketsOnLoan,
    LendsTooMany,
    NeverTakesSlotsBack,
    SleepsTooLong,
    SleepsOverPackets,
    SaysDoneTooEarly,
    SaysDoneTwice,
    ForgetsDone,
    ReadsFromTheNextByte,
    WritesOneByteTooMany,
    TakesMoreThanPromised,
    PromisesMoreThanItTakes,
    KeepsRegistrations,
    SaysDeathTwice,
    KeepsDeathToItself,
    StaysBusyToTheDead,
    ForgetsWhatFails,
    SaysLeavingTooEarly,
    KeepsLeavingToItself,
    CallsItselfZero,
    LosesPacketsToItself,
    LosesTheThousandthPacket,
    PromisesMoreSlots,
    CutsLongReads,
    SeesAnotherRoad,
    Nothing,
}
use Mutant::*;

/// Who is caught by which case. Each mutant is here and so is each case: none is without use.
const CAUGHT_BY: [(Mutant, &str); 44] = [
    (CallsItselfZero, "limits_are_those_of_the_contract"),
    (SeesAnotherRoad, "limits_are_those_of_the_contract"),
    (LosesEmptyPackets, "packets_of_every_size_arrive_once_whole_and_unchanged"),
    (CutsLongPackets, "packets_of_every_size_arrive_once_whole_and_unchanged"),
    (ForgetsThePayloadOfFullPackets, "packets_of_every_size_arrive_once_whole_and_unchanged"),
    (LosesAPacket, "packets_of_every_size_arrive_once_whole_and_unchanged"),
    (RepeatsAPacket, "packets_of_every_size_arrive_once_whole_and_unchanged"),
    (ChangesAByte, "packets_of_every_size_arrive_once_whole_and_unchanged"),
    (ChangesAByte, "header_and_payload_arrive_as_one"),
    (LosesPacketsToItself, "a_packet_to_oneself_arrives"),
    (NamesTheWrongSender, "packets_of_many_senders_arrive_with_the_right_name"),
    (LosesPacketsToItself, "everybody_may_talk_to_everybody_at_once"),
    (LosesTheThousandthPacket, "a_long_conversation_loses_nothing"),
    (SendsWhatItRefuses, "a_refused_packet_was_not_sent_and_busy_ends"),
    (StaysBusy, "a_refused_packet_was_not_sent_and_busy_ends"),
    (BorrowsThePayload, "a_send_borrows_nothing"),
    (CutsWhatIsTooLong, "a_packet_that_is_too_long_is_a_panic"),
    (ChangesPacketsOnLoan, "slots_on_loan_keep_their_bytes_while_others_come_and_go"),
    (NeverTakesSlotsBack, "slots_may_be_given_back_in_any_order"),
    (PromisesMoreSlots, "with_all_but_one_slot_on_loan_every_sender_makes_progress"),
    (LendsTooMany, "with_every_slot_on_loan_no_more_are_lent_and_nothing_is_lost"),
    (SleepsTooLong, "a_quiet_transport_says_nothing_and_wait_ends_in_time"),
    (SleepsOverPackets, "a_packet_that_is_there_ends_the_wait"),
    (SleepsOverPackets, "a_waiting_peer_is_woken_by_a_packet"),
    (SleepsOverPackets, "a_waiting_sender_is_woken_by_room"),
    (ReadsFromTheNextByte, "a_read_brings_bytes_of_every_size_and_alignment_and_no_others"),
    (SaysDoneTwice, "a_read_brings_bytes_of_every_size_and_alignment_and_no_others"),
    (WritesOneByteTooMany, "a_write_puts_bytes_of_every_size_and_alignment_and_no_others"),
    (SaysDoneTooEarly, "the_longest_read_and_write_arrive_whole"),
    (TakesMoreThanPromised, "as_many_as_promised_are_in_flight_and_the_next_is_busy"),
    (PromisesMoreThanItTakes, "as_many_as_promised_are_in_flight_and_the_next_is_busy"),
    (ReadsFromTheNextByte, "one_may_read_and_write_oneself"),
    (ForgetsDone, "reads_writes_and_packets_go_both_ways_at_once"),
    (KeepsRegistrations, "memory_may_be_registered_again"),
    (CutsLongReads, "a_read_or_write_that_is_too_long_is_a_panic"),
    (SaysDeathTwice, "a_death_is_said_once_to_each_survivor"),
    (KeepsDeathToItself, "survivors_go_on"),
    (StaysBusyToTheDead, "packets_to_a_dead_peer_are_accepted_and_dropped"),
    (ForgetsWhatFails, "one_sided_operations_with_a_dead_peer_end"),
    (SaysLeavingTooEarly, "a_peer_that_left_is_told_after_its_last_packet"),
    (KeepsLeavingToItself, "a_peer_that_left_is_told_after_its_last_packet"),
    (SaysDeathTwice, "a_peer_that_left_is_told_after_its_last_packet"),
    (StaysBusyToTheDead, "packets_to_a_peer_that_left_are_accepted_and_dropped"),
    (ForgetsWhatFails, "one_sided_operations_with_a_peer_that_left_fail"),
];

/// A simulated port with one fault in it.
struct Broken {
    inner: SimPort,
    sim: Sim,
    mutant: Mutant,
    caps: Caps,
    /// Accepted sends, packets that came from the last peer, and ended one-sided operations.
    sent: u64,
    came: u64,
    done: u64,
    /// Packets whose payload is fetched at the next poll.
    borrowed: Vec<(Peer, Vec<u8>, Buf)>,
    busy: bool,
    /// Lent packets, for mutants that lend their own.
    lent: BTreeMap<u64, Vec<u8>>,
    latest: Vec<u8>,
    told: Vec<Event>,
    swallow: BTreeSet<u64>,
    postponed: Vec<(Peer, RemoteSlice, Buf, Token)>,
    dead: Option<Peer>,
    longer: Vec<Memory>,
}

impl Broken {
    fn new(inner: SimPort, sim: &Sim, mutant: Mutant) -> Broken {
        let mut caps = inner.roads()[0].clone();
        match mutant {
            SeesAnotherRoad if inner.me() == Peer(0) => caps.inline_bytes_max -= 1,
            PromisesMoreThanItTakes => caps.one_sided_max += 1,
            PromisesMoreSlots => caps.slots_max += 1,
            _ => {}
        }
        Broken {
            inner,
            sim: sim.clone(),
            mutant,
            caps,
            sent: 0,
            came: 0,
            done: 0,
            borrowed: Vec::new(),
            busy: false,
            lent: BTreeMap::new(),
            latest: Vec::new(),
            told: Vec::new(),
            swallow: BTreeSet::new(),
            postponed: Vec::new(),
            dead: None,
            longer: Vec::new(),
        }
    }

    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == mutant
    }

    fn forward(&mut self, to: Peer, mut bytes: Vec<u8>) -> Result<(), Busy> {
        let turn = self.sent == 20;
        match self.mutant {
            LosesAPacket if turn => return Ok(()),
            LosesTheThousandthPacket if self.sent == 1000 => return Ok(()),
            LosesPacketsToItself if to == self.inner.me() => return Ok(()),
            LosesEmptyPackets if bytes.is_empty() => return Ok(()),
            ChangesAByte if turn && !bytes.is_empty() => bytes[0] ^= 1,
            CutsLongPackets if bytes.len() > 200 => bytes.truncate(200),
            RepeatsAPacket if turn => self.inner.send(to, &bytes, Buf::EMPTY)?,
            _ => {}
        }
        self.inner.send(to, &bytes, Buf::EMPTY)
    }

    fn on_end(&mut self, token: Token, failed: bool) -> bool {
        self.done += 1;
        match self.mutant {
            SaysDoneTooEarly => !self.swallow.remove(&token.0),
            SaysDoneTwice if self.done == 3 => {
                self.told.push(Event::Done(token));
                true
            }
            ForgetsDone if self.done == 3 => false,
            ForgetsWhatFails => !failed,
            _ => true,
        }
    }
}

impl Transport for Broken {
    fn roads(&self) -> &[Caps] {
        std::slice::from_ref(&self.caps)
    }

    fn peers(&self) -> usize {
        self.inner.peers()
    }

    fn me(&self) -> Peer {
        // Only ever wrong towards the program: the network below knows better.
        if self.is(CallsItselfZero) && self.sent > 0 { Peer(0) } else { self.inner.me() }
    }

    fn register(&mut self, buf: Buf, with: Peer) -> Result<Key, Box<Fault>> {
        self.inner.register(buf, with)
    }

    fn deregister(&mut self, key: Key, with: Peer) {
        if !self.is(KeepsRegistrations) {
            self.inner.deregister(key, with);
        }
    }

    fn send(&mut self, to: Peer, header: &[u8], payload: Buf) -> Result<(), Busy> {
        let packet_bytes_max = self.caps.packet_bytes_max;
        let mut bytes = vec![0; header.len() + payload.len()];
        bytes[..header.len()].copy_from_slice(header);
        payload.copy_to(&mut bytes[header.len()..]);
        if self.is(CutsWhatIsTooLong) {
            bytes.truncate(packet_bytes_max);
        }
        if self.is(ForgetsThePayloadOfFullPackets) && bytes.len() == packet_bytes_max {
            bytes.truncate(header.len());
        }
        if self.is(BorrowsThePayload) && !payload.is_empty() {
            self.borrowed.push((to, header.to_vec(), payload));
            return Ok(());
        }
        if self.is(StaysBusyToTheDead) && self.dead == Some(to) || self.is(StaysBusy) && self.busy {
            return Err(Busy);
        }
        let answer = self.forward(to, bytes);
        self.sent += u64::from(answer.is_ok());
        self.busy |= answer.is_err();
        if self.is(SendsWhatItRefuses) && self.sent == 7 { Err(Busy) } else { answer }
    }

    fn read(&mut self, from: Peer, remote: RemoteSlice, local: Buf, token: Token) -> Result<(), Busy> {
        if self.is(ReadsFromTheNextByte) && remote.len > 0 && remote.offset > 0 {
            let shifted = RemoteSlice { offset: remote.offset - 1, ..remote };
            return self.inner.read(from, shifted, local, token);
        }
        if self.is(CutsLongReads) && remote.len > self.caps.read_bytes_max {
            let len = self.caps.read_bytes_max;
            let local = local.slice(0..usize::try_from(len).expect("a small network"));
            return self.inner.read(from, RemoteSlice { len, ..remote }, local, token);
        }
        let answer = self.inner.read(from, remote, local, token);
        if self.is(TakesMoreThanPromised) && answer.is_err() {
            self.postponed.push((from, remote, local, token));
            return Ok(());
        }
        if self.is(SaysDoneTooEarly) && answer.is_ok() {
            self.swallow.insert(token.0);
            self.told.push(Event::Done(token));
        }
        answer
    }

    fn write(&mut self, to: Peer, local: Buf, remote: RemoteSlice, token: Token) -> Result<(), Busy> {
        if self.is(WritesOneByteTooMany) && remote.len < 1000 {
            let longer = Memory::zeroed(local.len() + 1);
            local.copy_to_buf(longer.buf());
            self.inner.write(to, longer.buf(), RemoteSlice { len: remote.len + 1, ..remote }, token)?;
            self.longer.push(longer);
            return Ok(());
        }
        self.inner.write(to, local, remote, token)
    }

    fn poll(&mut self) -> Option<Event> {
        for (to, header, payload) in std::mem::take(&mut self.borrowed) {
            if self.inner.send(to, &header, payload).is_err() {
                self.borrowed.push((to, header, payload));
            }
        }
        for (from, remote, local, token) in std::mem::take(&mut self.postponed) {
            if self.inner.read(from, remote, local, token).is_err() {
                self.postponed.push((from, remote, local, token));
            }
        }
        if let Some(event) = self.told.pop() {
            return Some(event);
        }
        match self.inner.poll()? {
            Event::Packet { from, slot } => {
                let from = if self.is(NamesTheWrongSender) { Peer(0) } else { from };
                self.latest = self.inner.packet(&slot).to_vec();
                if self.is(LendsTooMany) {
                    self.inner.release(slot);
                    let number = self.lent.last_key_value().map_or(0, |(last, _)| last + 1);
                    self.lent.insert(number, self.latest.clone());
                    return Some(Event::Packet { from, slot: Slot::new(number) });
                }
                self.came += u64::from(from.index() + 1 == self.inner.peers());
                if self.is(SaysLeavingTooEarly) && self.came == 20 {
                    // Told when it is guessed, one packet too early; the true word is swallowed below.
                    self.told.push(Event::Packet { from, slot });
                    return Some(Event::Fault(departure(from)));
                }
                Some(Event::Packet { from, slot })
            }
            Event::Done(token) => self.on_end(token, false).then_some(Event::Done(token)),
            Event::Failed(token, fault) => self.on_end(token, true).then_some(Event::Failed(token, fault)),
            Event::Fault(fault) => {
                if let Scope::Peer(dead) = fault.scope {
                    self.dead = Some(dead);
                }
                if self.is(SaysDeathTwice) {
                    self.told.push(Event::Fault(fault.clone()));
                }
                let swallows = match self.mutant {
                    KeepsDeathToItself => true,
                    KeepsLeavingToItself | SaysLeavingTooEarly => fault.cause == Cause::PeerLeft,
                    _ => false,
                };
                (!swallows).then_some(Event::Fault(fault))
            }
        }
    }

    fn packet(&self, slot: &Slot) -> &[u8] {
        match self.mutant {
            ChangesPacketsOnLoan => &self.latest,
            LendsTooMany => &self.lent[&slot.number()],
            _ => self.inner.packet(slot),
        }
    }

    fn release(&mut self, slot: Slot) {
        match self.mutant {
            NeverTakesSlotsBack => {}
            LendsTooMany => drop(self.lent.remove(&slot.number())),
            _ => self.inner.release(slot),
        }
    }

    fn wait(&mut self, at_most: Duration) {
        match self.mutant {
            SleepsTooLong => self.sim.advance_by(at_most * 1000),
            SleepsOverPackets => self.sim.advance_by(at_most),
            _ => self.inner.wait(at_most),
        }
    }
}

fn departure(peer: Peer) -> Box<Fault> {
    let (detail, next_step) = ("it will leave some day".to_owned(), "wait and see");
    Box::new(Fault { scope: Scope::Peer(peer), cause: Cause::PeerLeft, age: None, detail, next_step })
}

fn harness(mutant: Mutant) -> impl super::Harness {
    let small =
        SimConfig { in_flight_max: 16, slots_max: 16, registrations_max: 1000, ..SimConfig::default() };
    let config = SimConfig { seed: 1, read_bytes_max: 1500, write_bytes_max: 1500, ..small };
    Simulated { config, wrap: move |port, sim: &Sim| Broken::new(port, sim, mutant) }
}

#[test]
fn every_broken_promise_is_caught_by_the_case_about_it() {
    for (mutant, name) in CAUGHT_BY {
        println!("{mutant:?}, {name}");
        let case = CASES.iter().find(|case| case.name == name).expect("a case of that name");
        let ran = catch_unwind(AssertUnwindSafe(|| (case.run)(&harness(mutant))));
        assert!(ran.is_err(), "{mutant:?} is not caught by {name}");
    }
}

#[test]
fn every_case_catches_somebody() {
    let useless: Vec<_> =
        CASES.iter().filter(|case| CAUGHT_BY.iter().all(|(_, name)| *name != case.name)).collect();
    assert!(useless.is_empty(), "{useless:?}");
}

#[test]
fn a_port_with_nothing_broken_passes() {
    run_all(&harness(Nothing));
}
