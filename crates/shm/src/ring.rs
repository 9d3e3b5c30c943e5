//! One direction between two peers: packets in 64-byte lines, one writer, one reader, no lock.
//!
//! The simple algorithm: the writer appends records, the reader takes them in order and hands their space back.
//!
//! ```text
//! push(packet):  wait until lines(packet) lines and one more are free; copy the packet behind the word of its first
//!                line; zero the word of the line behind it; store the packet's word last.
//! pop():         load the word of the next line; 0 = nothing there; otherwise it says how long the packet is.
//! release():     move `head` over the record.
//! ```
//!
//! Tricks applied to it:
//! 1. There is no shared tail. The word in front of a packet is length and "valid" in one, and shares its cache line
//!    with the first 56 bytes: a small message is one line moving from core to core, once.
//! 2. The writer keeps a copy of `head` and reads the shared one only when the copy says "full".
//! 3. A packet's bytes may look like a word. So the writer zeroes the word where the reader will look next before it
//!    stores the one that sends it there. The reader writes nothing into the lines of a packet: they stay shared, and
//!    when the writer comes round again it need not fetch them back.
//! 4. That word is zeroed some lines ahead, after the last packet was sent, so that a small one does not wait for its
//!    line to arrive. In the first round the ring is zero anyway.
//! 5. `head` is published when a batch of lines is free.
//! 6. Packets are contiguous, so that they can be read in place. When one does not fit before the end of the ring, a
//!    skip record fills the rest.
//! 7. Records may be given back out of order. One that is not the oldest is marked in its own word, and passed over
//!    when the older ones have gone; no list is kept.

use selvedge_transport::Buf;

use crate::sync::{AtomicU32, AtomicU64, Fences, Ordering};

/// What moves between cores as a whole.
pub(crate) const LINE_BYTES: usize = 64;

/// In front of every packet.
pub(crate) const WORD_BYTES: usize = 8;

/// Lines that are published together. More amortise the publication better and delay the writer of a full ring longer;
/// at 64 it is one shared store in 4 KiB.
#[cfg(not(loom))]
const BATCH_LINES: u64 = 64;
#[cfg(loom)]
const BATCH_LINES: u64 = 2;

/// Words that the writer keeps zeroed from its next record on: enough for one of three lines.
#[cfg(not(loom))]
const ZEROED_LINES: u64 = 4;
#[cfg(loom)]
const ZEROED_LINES: u64 = 2;

/// Lines that a packet of `bytes` takes.
pub(crate) const fn lines_of(bytes: usize) -> u32 {
    // A packet is at most a few kilobytes: `Outbound::push` is behind the check of `packet_bytes_max`.
    (WORD_BYTES + bytes).div_ceil(LINE_BYTES) as u32
}

/// Where a ring lies: in the mapped segment, or in a model.
///
/// The lines are shared by one writer and one reader. The bytes behind a word belong to the writer from when `head`
/// says that the line is free until the word in front of them is stored, and to the reader from then on.
pub(crate) trait RingMemory {
    /// Length of the ring.
    fn lines(&self) -> u32;
    /// First word of a line.
    fn word(&self, line: u32) -> &AtomicU64;
    /// Lines given back since the beginning. Written by the reader.
    fn head(&self) -> &AtomicU64;
    /// 1 while the writer waits for room. Set by the writer, cleared by the reader.
    fn starved(&self) -> &AtomicU32;
    /// Copies a packet behind the word of `line`, which the caller knows to be the writer's.
    fn fill(&self, line: u32, header: &[u8], payload: Buf);
}

/// What a word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    /// Nothing here yet.
    Empty,
    /// A packet of that many bytes follows.
    Packet(u32),
    /// That many lines up to the end of the ring are not used.
    Skip(u32),
    /// A record of that many lines, given back by the reader, but not the oldest.
    Passed(u32),
    /// Nothing that this code writes.
    Foreign,
}

impl Word {
    fn encode(self) -> u64 {
        match self {
            Word::Empty => 0,
            Word::Packet(bytes) => 1 << 32 | u64::from(bytes),
            Word::Skip(lines) => 2 << 32 | u64::from(lines),
            Word::Passed(lines) => 3 << 32 | u64::from(lines),
            Word::Foreign => unreachable!("never written"),
        }
    }

    #[inline]
    fn decode(word: u64) -> Word {
        let low = word as u32;
        match word >> 32 {
            0 if low == 0 => Word::Empty,
            1 => Word::Packet(low),
            2 => Word::Skip(low),
            3 => Word::Passed(low),
            _ => Word::Foreign,
        }
    }
}

/// A place in the endless sequence of lines, and the line of the ring it falls on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cursor {
    position: u64,
    line: u32,
}

impl Cursor {
    /// Moves on; the ring has `ring_lines`, and a step never passes its end (records do not wrap).
    #[inline]
    fn advance(&mut self, lines: u32, ring_lines: u32) {
        self.position += u64::from(lines);
        self.line += lines;
        debug_assert!(self.line <= ring_lines, "a record crossed the end of its ring");
        if self.line == ring_lines {
            self.line = 0;
        }
    }
}

/// The writer's end.
#[derive(Debug)]
pub(crate) struct Outbound<M> {
    memory: M,
    tail: Cursor,
    /// The words from `tail` up to here are zero. At least that of `tail` is: the reader looks at it.
    zeroed: Cursor,
    /// The reader's `head` when it was last looked at.
    head: u64,
}

impl<M: RingMemory> Outbound<M> {
    /// The writer's end of a ring that nobody has used yet: all zero.
    pub(crate) fn new(memory: M) -> Self {
        let zeroed = Cursor { position: u64::from(memory.lines()), line: 0 };
        Outbound { memory, tail: Cursor::default(), zeroed, head: 0 }
    }

    /// Appends a packet; `false` when there is no room. The caller has checked that a packet of this size fits at all:
    /// twice its lines are at most the ring's.
    #[inline(always)]
    pub(crate) fn push(&mut self, header: &[u8], payload: Buf) -> bool {
        let bytes = header.len() + payload.len();
        let (lines, ring_lines) = (lines_of(bytes), self.memory.lines());
        let to_end = ring_lines - self.tail.line;
        let skip = if lines > to_end { to_end } else { 0 };
        // And one more, for the word behind it.
        if !self.has_room(skip + lines + 1) {
            return false;
        }
        if skip > 0 {
            self.append(Word::Skip(skip), skip);
        }
        self.memory.fill(self.tail.line, header, payload);
        self.append(Word::Packet(bytes as u32), lines);
        self.zero_ahead();
        true
    }

    /// Stores the word of the record at `tail`, which is complete but for it, and moves on.
    #[inline]
    fn append(&mut self, word: Word, lines: u32) {
        let at = self.tail;
        self.tail.advance(lines, self.memory.lines());
        if self.tail.position >= self.zeroed.position {
            self.zeroed = self.tail;
            self.zero_next();
        }
        // SYNC: pairs with `Inbound::pop`: who sees the word sees the packet, and the zero behind it.
        self.memory.word(at.line).store(word.encode(), Ordering::Release);
    }

    /// Zeroes what the next records need, as far as it is free.
    #[inline]
    fn zero_ahead(&mut self) {
        let free_until = self.head + u64::from(self.memory.lines());
        while self.zeroed.position < free_until.min(self.tail.position + ZEROED_LINES) {
            self.zero_next();
        }
    }

    #[inline]
    fn zero_next(&mut self) {
        // Nobody looks at it before the word of the record in front of it is stored.
        self.memory.word(self.zeroed.line).store(Word::Empty.encode(), Ordering::Relaxed);
        self.zeroed.advance(1, self.memory.lines());
    }

    #[inline]
    fn has_room(&mut self, lines: u32) -> bool {
        let end = self.tail.position + u64::from(lines);
        if end - self.head <= u64::from(self.memory.lines()) {
            return true;
        }
        self.has_room_now(end)
    }

    #[cold]
    fn has_room_now(&mut self, end: u64) -> bool {
        // SYNC: pairs with `Inbound::publish`: lines that are free are no longer read.
        self.head = self.memory.head().load(Ordering::Acquire);
        end - self.head <= u64::from(self.memory.lines())
    }

    /// Asks the reader to ring when it gives lines back. Takes effect with the fence before sleeping.
    pub(crate) fn ask_for_room(&self) {
        self.memory.starved().store(1, Ordering::Relaxed);
    }

    /// Whether lines were given back since `push` last found none.
    pub(crate) fn room_was_given(&self) -> bool {
        self.memory.head().load(Ordering::Relaxed) != self.head
    }
}

/// A packet in a ring, until it is given back: neither `Clone` nor `Copy`, so once.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Record {
    at: Cursor,
    bytes: u32,
}

impl Record {
    /// The line whose word is in front of it.
    pub(crate) fn line(&self) -> u32 {
        self.at.line
    }

    /// Header and payload together.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes as usize
    }

    fn lines(&self) -> u32 {
        lines_of(self.bytes())
    }
}

/// The other side wrote what this code never writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// The word found.
    pub(crate) word: u64,
}

/// The reader's end.
#[derive(Debug)]
pub(crate) struct Inbound<M> {
    memory: M,
    /// The next record to take.
    next: Cursor,
    /// The oldest record not given back.
    oldest: Cursor,
    /// What `head` says.
    published: u64,
    fences: Fences,
}

impl<M: RingMemory> Inbound<M> {
    /// The reader's end of a ring that nobody has read yet.
    pub(crate) fn new(memory: M, fences: Fences) -> Self {
        Inbound { memory, next: Cursor::default(), oldest: Cursor::default(), published: 0, fences }
    }

    /// Whether there may be something to take. One load.
    #[inline]
    pub(crate) fn has_more(&self) -> bool {
        self.memory.word(self.next.line).load(Ordering::Relaxed) != 0
    }

    /// Takes the next packet, which stays in place until it is released.
    #[inline]
    pub(crate) fn pop(&mut self) -> Result<Option<Record>, Malformed> {
        // SYNC: pairs with `Outbound::push`: the word is stored after the packet.
        let word = self.memory.word(self.next.line).load(Ordering::Acquire);
        let to_end = self.memory.lines() - self.next.line;
        match Word::decode(word) {
            Word::Empty => Ok(None),
            Word::Packet(bytes) if fits(bytes, to_end) => {
                let record = Record { at: self.next, bytes };
                self.next.advance(record.lines(), self.memory.lines());
                Ok(Some(record))
            }
            // Never the whole ring: behind a skip is a packet, or nothing yet.
            Word::Skip(lines) if lines == to_end && self.next.line != 0 => self.pop_behind(lines),
            _ => Err(Malformed { word }),
        }
    }

    /// Passes over lines that are not used, and takes the packet behind them.
    #[cold]
    fn pop_behind(&mut self, lines: u32) -> Result<Option<Record>, Malformed> {
        let at = self.next;
        self.next.advance(lines, self.memory.lines());
        self.give_back(at, lines);
        self.pop()
    }

    /// Gives a record back, in any order. Returns whether the writer was waiting for room and now has some: ring it.
    #[inline]
    #[must_use]
    pub(crate) fn release(&mut self, record: Record) -> bool {
        self.give_back(record.at, record.lines());
        self.oldest.position - self.published >= BATCH_LINES && self.publish()
    }

    #[inline]
    fn give_back(&mut self, at: Cursor, lines: u32) {
        let ring_lines = self.memory.lines();
        // Two records of a ring begin at different positions.
        if at.position != self.oldest.position {
            // Read again only by ourselves, below.
            self.memory.word(at.line).store(Word::Passed(lines).encode(), Ordering::Relaxed);
            return;
        }
        self.oldest.advance(lines, ring_lines);
        while self.oldest.position != self.next.position {
            let word = self.memory.word(self.oldest.line).load(Ordering::Relaxed);
            let Word::Passed(lines) = Word::decode(word) else { break };
            self.oldest.advance(lines, ring_lines);
        }
    }

    /// Hands all free lines to the writer. Returns as `release` does.
    #[must_use]
    fn publish(&mut self) -> bool {
        self.published = self.oldest.position;
        // SYNC: pairs with `Outbound::has_room_now`: the reader is done with these lines.
        self.memory.head().store(self.published, Ordering::Release);
        // SYNC: pairs with `Outbound::ask_for_room`, followed by the last look at `head` in `Doorbell::sleep`.
        self.fences.publisher();
        self.memory.starved().load(Ordering::Relaxed) != 0
            && self.memory.starved().swap(0, Ordering::Relaxed) != 0
    }

    /// Lines taken and not given back, or behind one that is not.
    #[inline]
    pub(crate) fn held_lines(&self) -> u64 {
        self.next.position - self.oldest.position
    }

    /// Whether `record` is the one that all others wait behind.
    pub(crate) fn is_oldest(&self, record: &Record) -> bool {
        record.at == self.oldest
    }

    /// The memory given to `new`.
    pub(crate) fn memory(&self) -> &M {
        &self.memory
    }
}

/// Whether a packet of `bytes` ends before the end of the ring.
#[inline]
fn fits(bytes: u32, to_end: u32) -> bool {
    u64::from(bytes) + WORD_BYTES as u64 <= u64::from(to_end) * LINE_BYTES as u64
}
