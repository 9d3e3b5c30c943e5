//! The sending end of a flow: what is open, how much may be, what is lost.

use std::collections::VecDeque;

use super::timing::Timing;
use super::{Config, Nanos, WINDOW};
use crate::wire::{Answer, Kind};

/// Place of a work request in the queue pair's table.
pub(super) type WorkId = u32;

/// What a packet weighs beside its bytes: headers, and what a kernel adds to each datagram in its buffers.
const PACKET_BYTES: u32 = 512;

/// Times that the timer goes off before a peer is given up, however short that time-out is.
const EXPIRIES_MIN: u32 = 2;

/// A number that is open or, until all below are too, settled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    /// For whom; `None` when it is settled.
    pub(super) work: Option<WorkId>,
    pub(super) kind: Kind,
    /// Which bytes of the work.
    pub(super) offset: u32,
    pub(super) len: u32,
    /// When its last copy was sent.
    sent_at: Nanos,
    /// It is taken for lost and waits to be sent again.
    is_lost: bool,
    /// Copies sent so far.
    pub(super) copies: u32,
}

impl Slot {
    fn weight(&self) -> u32 {
        self.len + PACKET_BYTES
    }

    /// Whether an acknowledgement settles it. A read is settled by its bytes.
    fn is_acknowledged(&self) -> bool {
        self.kind != Kind::Read
    }

    /// Whether it takes a receive there.
    fn is_send(&self) -> bool {
        matches!(self.kind, Kind::Send | Kind::WriteImm)
    }
}

/// The sending end of a flow.
#[derive(Debug)]
pub(super) struct Outbound {
    /// Number of the first slot: everything below is settled.
    lowest: u64,
    slots: VecDeque<Slot>,
    /// Numbers to be sent again, some of them perhaps settled since.
    lost: VecDeque<u64>,
    /// Weight of what is on the way.
    on_the_way: u32,
    /// Weight that may be on the way.
    window: u32,
    /// Sends, and ends of writes with immediate data, that wait for their turn.
    pub(super) sends: VecDeque<WorkId>,
    /// Reads and writes of which pieces wait for their turn.
    pub(super) rdma: VecDeque<WorkId>,
    /// No send before this time: a receive was missing.
    pub(super) sends_after: Option<Nanos>,
    /// Sends on the way, and how many may be: one after a receive was missing, doubling from there.
    sends_open: u32,
    sends_max: u32,
    timing: Timing,
    /// Not later than the moment when the oldest open packet was sent; of those that an acknowledgement settles, and of
    /// reads.
    oldest: Nanos,
    oldest_read: Nanos,
    /// Since when we wait without an answer.
    quiet_since: Nanos,
    /// Whether the peer has ever answered.
    pub(super) has_answered: bool,
    /// Numbers below were looked up in an acknowledgement before.
    acknowledged: u64,
    /// Newest time of ours that an answer, and an answer with bytes, has sent back.
    newest: Nanos,
    newest_read: Nanos,
    /// The window was halved at this time; losses of packets sent earlier are the same event.
    halved_at: Nanos,
    /// What it was before, until it is known whether anything was lost at all.
    before_halving: u32,
    /// Time of ours in the answer that is being looked at.
    echo: Nanos,
    /// Whether it stands in the queue pair's row of flows with something to send.
    pub(super) is_in_row: bool,
}

impl Outbound {
    pub(super) fn new(config: &Config) -> Outbound {
        Outbound {
            lowest: 0,
            slots: VecDeque::new(),
            lost: VecDeque::new(),
            on_the_way: 0,
            window: config.window_bytes,
            sends: VecDeque::new(),
            rdma: VecDeque::new(),
            sends_after: None,
            sends_open: 0,
            sends_max: u32::MAX,
            timing: Timing::default(),
            oldest: Nanos::MAX,
            oldest_read: Nanos::MAX,
            quiet_since: 0,
            has_answered: false,
            acknowledged: 0,
            newest: 0,
            newest_read: 0,
            halved_at: 0,
            before_halving: 0,
            echo: 0,
            is_in_row: false,
        }
    }

    /// Lowest number that is not settled.
    pub(super) fn lowest(&self) -> u64 {
        self.lowest
    }

    /// The slot of a number, if that is open.
    pub(super) fn open(&self, number: u64) -> Option<&Slot> {
        let slot = self.slots.get(usize::try_from(number.checked_sub(self.lowest)?).ok()?)?;
        slot.work.is_some().then_some(slot)
    }

    fn open_mut(&mut self, number: u64) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(usize::try_from(number.checked_sub(self.lowest)?).ok()?)?;
        slot.work.is_some().then_some(slot)
    }

    /// Whether nothing is open or waits.
    pub(super) fn is_idle(&self) -> bool {
        self.slots.is_empty() && self.sends.is_empty() && self.rdma.is_empty()
    }

    /// Whether a packet with so many bytes may go out now. One always may.
    pub(super) fn has_room(&self, len: u32) -> bool {
        let fits = self.on_the_way + len + PACKET_BYTES <= self.window || self.on_the_way == 0;
        fits && (self.slots.len() as u64) < WINDOW
    }

    /// Whether the receiver should answer soon lest we stand still.
    pub(super) fn is_filling(&self) -> bool {
        self.on_the_way >= self.window / 2 || self.slots.len() as u64 >= WINDOW / 2
    }

    /// Whether a send may go out now, apart from room.
    pub(super) fn may_send(&self, now: Nanos) -> bool {
        self.sends_after.is_none_or(|after| after <= now) && self.sends_open < self.sends_max
    }

    /// Gives the next number to a packet which is sent now.
    pub(super) fn start(&mut self, work: WorkId, kind: Kind, offset: u32, len: u32, now: Nanos) -> u64 {
        if self.slots.is_empty() {
            self.quiet_since = now;
            (self.oldest, self.oldest_read) = (Nanos::MAX, Nanos::MAX);
        }
        self.note_sent(kind, now);
        let slot = Slot { work: Some(work), kind, offset, len, sent_at: now, is_lost: false, copies: 1 };
        self.on_the_way += slot.weight();
        self.sends_open += u32::from(slot.is_send());
        self.slots.push_back(slot);
        self.lowest + self.slots.len() as u64 - 1
    }

    /// The next number to be sent again, if there is room; it counts as sent now.
    pub(super) fn poll_lost(&mut self, now: Nanos) -> Option<u64> {
        while let Some(&number) = self.lost.front() {
            if let Some(slot) = self.open(number).filter(|slot| slot.is_lost) {
                let weight = slot.weight();
                if self.on_the_way + weight > self.window && self.on_the_way > 0 {
                    return None;
                }
                self.on_the_way += weight;
                let slot = self.open_mut(number)?;
                let kind = slot.kind;
                slot.is_lost = false;
                slot.sent_at = now;
                slot.copies += 1;
                self.note_sent(kind, now);
                self.lost.pop_front();
                return Some(number);
            }
            self.lost.pop_front();
        }
        None
    }

    fn note_sent(&mut self, kind: Kind, at: Nanos) {
        let oldest = if kind == Kind::Read { &mut self.oldest_read } else { &mut self.oldest };
        *oldest = (*oldest).min(at);
    }

    /// Ends the life of a number; gives the slot as it was. Nothing if it was settled before.
    pub(super) fn settle(&mut self, number: u64) -> Option<Slot> {
        let slot = self.open_mut(number)?;
        let was = *slot;
        slot.work = None;
        if was.is_lost || was.copies > 1 {
            self.learn(&was);
        }
        if !was.is_lost {
            self.on_the_way -= was.weight();
        }
        self.sends_open -= u32::from(was.is_send());
        while self.slots.front().is_some_and(|slot| slot.work.is_none()) {
            self.slots.pop_front();
            self.lowest += 1;
        }
        Some(was)
    }

    /// A packet that was taken for lost has been answered. If it was a copy before the last that the peer had seen when it
    /// answered, nothing was lost: it was late, as when the peer had no processor, and the window is as before. (The Eifel
    /// algorithm, RFC 3522 and 4015.)
    fn learn(&mut self, was: &Slot) {
        if was.is_lost || self.echo < was.sent_at {
            self.window = self.window.max(self.before_halving);
        }
        self.before_halving = 0;
    }

    /// A packet of this weight has arrived: the window grows, by an eighth in a round trip.
    pub(super) fn grow(&mut self, slot: &Slot, config: &Config) {
        self.window = self.window.saturating_add(slot.weight() / 8).min(config.window_bytes);
        if slot.is_send() {
            self.sends_max = self.sends_max.saturating_mul(2);
        }
    }

    /// A receive was missing: a pause, then one send at a time until one is accepted.
    pub(super) fn pause_sends(&mut self, until: Nanos) {
        self.sends_after = Some(until);
        self.sends_max = 1;
    }

    /// The peer has answered. `accepted` gets the open numbers which the answer names.
    pub(super) fn handle_answer(
        &mut self,
        answer: &Answer,
        further: impl Iterator<Item = u64>,
        is_read: bool,
        now: Nanos,
        accepted: &mut Vec<u64>,
    ) {
        self.has_answered = true;
        self.quiet_since = now;
        self.echo = answer.echo;
        self.timing.alive();
        if answer.echo > self.newest {
            self.newest = answer.echo;
            self.timing.sample(now.saturating_sub(answer.echo), now);
        }
        if is_read {
            self.newest_read = self.newest_read.max(answer.echo);
        }
        let end = self.lowest + self.slots.len() as u64;
        let base = answer.base.min(end);
        for number in self.acknowledged.max(self.lowest)..base {
            self.note_accepted(number, accepted);
        }
        self.acknowledged = self.acknowledged.max(base);
        for (index, mut word) in [answer.bits].into_iter().chain(further).enumerate() {
            while word != 0 {
                let number =
                    answer.base.saturating_add(1 + 64 * index as u64 + u64::from(word.trailing_zeros()));
                self.note_accepted(number, accepted);
                word &= word - 1;
            }
        }
    }

    fn note_accepted(&self, number: u64, accepted: &mut Vec<u64>) {
        if self.open(number).is_some_and(Slot::is_acknowledged) {
            accepted.push(number);
        }
    }

    /// Takes packets for lost that were sent before one that has been answered, and whose own answer has had a round
    /// trip and [`Config::reorder_time`] to come. (RACK, RFC 8985, section 6.2, step 5.)
    pub(super) fn find_overtaken(&mut self, now: Nanos, config: &Config) {
        if self.overtaken_deadline(config) > now {
            return;
        }
        let (seen, seen_read) = (self.newest, self.newest_read);
        let wait = self.timing.trip() + config.reorder_time;
        self.lose(config, |slot| {
            let seen = if slot.kind == Kind::Read { seen_read } else { seen };
            slot.sent_at < seen && slot.sent_at + wait <= now
        });
    }

    /// When a packet may have to be taken for lost because another has overtaken it.
    fn overtaken_deadline(&self, config: &Config) -> Nanos {
        if self.slots.is_empty() {
            return Nanos::MAX;
        }
        let overtaken = |oldest, newest| if oldest < newest { oldest } else { Nanos::MAX };
        let first = overtaken(self.oldest, self.newest).min(overtaken(self.oldest_read, self.newest_read));
        first.saturating_add(self.timing.trip() + config.reorder_time)
    }

    /// Takes packets for lost whose answer has been missing for too long. Whether there were any.
    pub(super) fn find_expired(&mut self, now: Nanos, config: &Config) -> bool {
        let after = self.timing.resend_after(config);
        let found = self.lose(config, |slot| now.saturating_sub(slot.sent_at) >= after);
        if found {
            self.timing.expired();
        }
        found
    }

    fn lose(&mut self, config: &Config, is_lost: impl Fn(&Slot) -> bool) -> bool {
        let (mut found, mut newest_lost) = (false, 0);
        (self.oldest, self.oldest_read) = (Nanos::MAX, Nanos::MAX);
        for (number, slot) in (self.lowest..).zip(&mut self.slots) {
            if slot.work.is_none() || slot.is_lost {
                continue;
            }
            if is_lost(slot) {
                slot.is_lost = true;
                self.on_the_way -= slot.weight();
                self.lost.push_back(number);
                newest_lost = newest_lost.max(slot.sent_at);
                found = true;
            } else {
                let oldest = if slot.is_acknowledged() { &mut self.oldest } else { &mut self.oldest_read };
                *oldest = (*oldest).min(slot.sent_at);
            }
        }
        if found && newest_lost >= self.halved_at {
            self.halved_at = newest_lost + 1;
            // At least two packets, so that the second can betray the loss of the first.
            let least = 2 * (config.chunk_bytes.max(config.message_bytes_max) + PACKET_BYTES);
            self.before_halving = self.before_halving.max(self.window);
            self.window = (self.window / 2).max(least.min(config.window_bytes));
        }
        found
    }

    /// Whether the peer is to be given up: silent for long, and the timer has had its say twice since. (A process that
    /// was stopped itself finds a late clock and a full socket.)
    pub(super) fn is_dead(&self, now: Nanos, config: &Config) -> bool {
        !self.slots.is_empty()
            && now.saturating_sub(self.quiet_since) >= config.peer_timeout
            && self.timing.expiries() >= EXPIRIES_MIN
    }

    /// When to look at this flow again at the latest; may be too early, never too late.
    pub(super) fn deadline(&self, config: &Config) -> Nanos {
        let resend = match self.slots.is_empty() {
            true => Nanos::MAX,
            false => self.oldest.min(self.oldest_read).saturating_add(self.timing.resend_after(config)),
        };
        let dead = match self.slots.is_empty() || self.timing.expiries() < EXPIRIES_MIN {
            true => Nanos::MAX,
            false => self.quiet_since.saturating_add(config.peer_timeout),
        };
        let pause = self.sends_after.filter(|_| !self.sends.is_empty()).unwrap_or(Nanos::MAX);
        resend.min(dead).min(pause).min(self.overtaken_deadline(config))
    }

    /// Forgets what belongs to one work request. Its numbers count as settled.
    pub(super) fn abandon(&mut self, work: WorkId) {
        self.sends.retain(|queued| *queued != work);
        self.rdma.retain(|queued| *queued != work);
        for number in self.lowest..self.lowest + self.slots.len() as u64 {
            if self.open(number).is_some_and(|slot| slot.work == Some(work)) {
                self.settle(number);
            }
        }
    }

    /// Forgets everything open. Its numbers count as settled.
    pub(super) fn clear(&mut self) {
        self.lowest += self.slots.len() as u64;
        self.slots.clear();
        self.lost.clear();
        self.sends.clear();
        self.rdma.clear();
        self.on_the_way = 0;
        self.sends_open = 0;
        self.sends_max = u32::MAX;
        self.sends_after = None;
        self.timing.alive();
    }
}
