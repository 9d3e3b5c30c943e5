//! Every interleaving of the protocols between processes, small enough to be tried in seconds.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p selvedge-shm --release --lib loom_
//! ```
//!
//! The code under test is the code that runs, over memory of loom's: atomics that may be seen in any order that the
//! memory model allows, and cells that notice when they are touched by two at a time.

use std::time::Duration;

use loom::cell::UnsafeCell;
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use selvedge_transport::Buf;

use crate::attention::{Attention, words_of};
use crate::baton::{Baton, BatonMemory, Small};
use crate::doorbell::{Doorbell, Futex};
use crate::job::{JobSlot, Plan, Standing, Way};
use crate::ring::{Inbound, Outbound, Record, RingMemory, lines_of};
use crate::sync::{AtomicU32, AtomicU64, Fences, Ordering};

/// Tries every interleaving with at most three preemptions: those that find the mistakes that were put in to test the
/// models, in seconds.
fn model(body: impl Fn() + Sync + Send + 'static) {
    model_with(3, body);
}

fn model_with(preemptions: usize, body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(body);
}

/// A payload that looks like the word in front of a packet of one byte.
const LOOKS_LIKE_A_WORD: u64 = 1 << 32 | 1;

/// A ring of `LINES` lines. Of a packet only the number is kept, in a cell per line that it covers.
struct Ring<const LINES: usize> {
    words: [AtomicU64; LINES],
    cells: [UnsafeCell<u8>; LINES],
    head: AtomicU64,
    starved: AtomicU32,
}

impl<const LINES: usize> Ring<LINES> {
    fn new() -> Arc<Self> {
        Arc::new(Ring {
            words: std::array::from_fn(|_| AtomicU64::new(0)),
            cells: std::array::from_fn(|_| UnsafeCell::new(0)),
            head: AtomicU64::new(0),
            starved: AtomicU32::new(0),
        })
    }

    /// The number of a packet, read from all the lines it covers.
    fn number(&self, record: &Record) -> u8 {
        let first = record.line() as usize;
        let lines = first..first + lines_of(record.bytes()) as usize;
        // SAFETY: loom checks that nobody writes it at the same time.
        let numbers: Vec<u8> = lines.map(|line| self.cells[line].with(|cell| unsafe { *cell })).collect();
        assert!(numbers.iter().all(|number| *number == numbers[0]), "a packet of several: {numbers:?}");
        numbers[0]
    }
}

impl<const LINES: usize> RingMemory for Arc<Ring<LINES>> {
    fn lines(&self) -> u32 {
        LINES as u32
    }
    fn word(&self, line: u32) -> &AtomicU64 {
        &self.words[line as usize]
    }
    fn head(&self) -> &AtomicU64 {
        &self.head
    }
    fn starved(&self) -> &AtomicU32 {
        &self.starved
    }
    fn fill(&self, line: u32, header: &[u8], _payload: Buf) {
        for covered in 0..lines_of(header.len()) {
            if covered > 0 {
                self.word(line + covered).store(LOOKS_LIKE_A_WORD, Ordering::Relaxed);
            }
            // SAFETY: loom checks that nobody else touches it at the same time.
            self.cells[(line + covered) as usize].with_mut(|cell| unsafe { *cell = header[0] });
        }
    }
}

/// A packet that covers so many lines.
fn packet(number: u8, lines: usize) -> Vec<u8> {
    vec![number; if lines == 1 { 1 } else { 64 * (lines - 1) }]
}

fn push<const LINES: usize>(out: &mut Outbound<Arc<Ring<LINES>>>, number: u8, lines: usize) {
    while !out.push(&packet(number, lines), Buf::EMPTY) {
        thread::yield_now();
    }
}

fn pop<const LINES: usize>(inbound: &mut Inbound<Arc<Ring<LINES>>>) -> Record {
    loop {
        if let Some(record) = inbound.pop().expect("nothing but words where words are read") {
            return record;
        }
        thread::yield_now();
    }
}

#[test]
fn loom_packets_come_out_of_a_ring_whole_and_in_order_over_its_end() {
    model(|| {
        let ring = Ring::<4>::new();
        let mut inbound = Inbound::new(Arc::clone(&ring), Fences::Both);
        let writer = {
            let mut out = Outbound::new(Arc::clone(&ring));
            // The third does not fit before the end: it needs a skip, and the lines of the first two given back.
            thread::spawn(move || {
                [(1, 1), (2, 2), (3, 2)].map(|(number, lines)| push(&mut out, number, lines))
            })
        };
        for number in 1..=3 {
            let record = pop(&mut inbound);
            assert_eq!(ring.number(&record), number);
            let _ = inbound.release(record);
        }
        writer.join().unwrap();
        assert_eq!(inbound.pop(), Ok(None), "nothing that was not sent");
    });
}

#[test]
fn loom_a_packet_that_is_kept_is_not_written_over_when_later_ones_are_given_back() {
    model(|| {
        let ring = Ring::<4>::new();
        let mut inbound = Inbound::new(Arc::clone(&ring), Fences::Both);
        let writer = {
            let mut out = Outbound::new(Arc::clone(&ring));
            thread::spawn(move || (1..=4).for_each(|number| push(&mut out, number, 1)))
        };
        let [first, second, third] = [1, 2, 3].map(|_| pop(&mut inbound));
        for (number, record) in [(3, third), (2, second), (1, first)] {
            assert_eq!(ring.number(&record), number);
            let _ = inbound.release(record);
        }
        let fourth = pop(&mut inbound);
        assert_eq!(ring.number(&fourth), 4);
        writer.join().unwrap();
    });
}

/// A futex made of a lock: the kernel also looks at the word and goes to sleep in one step.
struct Lock {
    lock: Mutex<()>,
    rung: Condvar,
}

impl Futex for &Lock {
    fn wait(&self, word: &AtomicU32, expected: u32, _at_most: Duration) {
        let guard = self.lock.lock().unwrap();
        // A read-modify-write sees the latest value, as the kernel does.
        if word.fetch_or(0, Ordering::AcqRel) == expected {
            drop(self.rung.wait(guard).unwrap());
        }
    }
    fn wake(&self, _word: &AtomicU32) {
        let _guard = self.lock.lock().unwrap();
        self.rung.notify_one();
    }
}

/// A bell, the lock under it, and what it rings about.
struct Bell {
    word: AtomicU32,
    lock: Lock,
}

impl Bell {
    fn new() -> Bell {
        Bell { word: AtomicU32::new(0), lock: Lock { lock: Mutex::new(()), rung: Condvar::new() } }
    }
    fn doorbell(&self) -> Doorbell<'_, &Lock> {
        Doorbell { word: &self.word, fences: Fences::Both, futex: &self.lock }
    }
}

/// With no time-out in the model a lost wake-up is a deadlock, which loom reports.
#[test]
fn loom_no_wake_up_is_lost() {
    model(|| {
        let shared = Arc::new((Bell::new(), AtomicU32::new(0)));
        let ringers: Vec<_> = (0..2)
            .map(|_| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    shared.1.fetch_add(1, Ordering::Release);
                    shared.0.doorbell().ring();
                })
            })
            .collect();
        while shared.1.load(Ordering::Acquire) < 2 {
            let seen = shared.1.load(Ordering::Acquire);
            shared
                .0
                .doorbell()
                .sleep(Duration::MAX, || seen == 2 || shared.1.load(Ordering::Acquire) != seen);
        }
        ringers.into_iter().for_each(|ringer| ringer.join().unwrap());
    });
}

#[test]
fn loom_a_writer_that_sleeps_for_room_is_woken_by_it() {
    model(|| {
        let shared = Arc::new((Ring::<3>::new(), Bell::new()));
        let writer = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let mut out = Outbound::new(Arc::clone(&shared.0));
                for number in 1..=3 {
                    while !out.push(&packet(number, 1), Buf::EMPTY) {
                        out.ask_for_room();
                        shared.1.doorbell().sleep(Duration::MAX, || out.room_was_given());
                    }
                }
            })
        };
        let mut inbound = Inbound::new(Arc::clone(&shared.0), Fences::Both);
        for number in 1..=3 {
            let record = pop(&mut inbound);
            assert_eq!(shared.0.number(&record), number);
            if inbound.release(record) {
                shared.1.doorbell().ring();
            }
        }
        writer.join().unwrap();
    });
}

#[test]
fn loom_whoever_asks_for_attention_gets_it() {
    const MEMBERS: usize = 65;
    struct Set {
        summary: AtomicU64,
        words: Vec<AtomicU64>,
        said: [UnsafeCell<u8>; 2],
    }
    let asks = [0, MEMBERS - 1];
    model(move || {
        let set = Arc::new(Set {
            summary: AtomicU64::new(0),
            words: (0..words_of(MEMBERS)).map(|_| AtomicU64::new(0)).collect(),
            said: [UnsafeCell::new(0), UnsafeCell::new(0)],
        });
        let attention = |set: &Arc<Set>, then: &mut dyn FnMut(Attention<'_>)| {
            then(Attention { summary: &set.summary, words: &set.words });
        };
        let askers: Vec<_> = (0..2)
            .map(|asker| {
                let set = Arc::clone(&set);
                thread::spawn(move || {
                    // SAFETY: loom checks that nobody else touches it at the same time.
                    set.said[asker].with_mut(|cell| unsafe { *cell = 1 });
                    attention(&set, &mut |attention| attention.raise(asks[asker]));
                })
            })
            .collect();
        let mut heard = Vec::new();
        while heard.len() < 2 {
            attention(&set, &mut |attention| attention.take(|member| heard.push(member)));
            thread::yield_now();
        }
        for asker in 0..2 {
            // SAFETY: as above: heard, so said before.
            assert_eq!(set.said[asker].with(|cell| unsafe { *cell }), 1);
        }
        heard.sort_unstable();
        assert_eq!(heard, asks);
        askers.into_iter().for_each(|asker| asker.join().unwrap());
    });
}

/// A baton's line: of a packet only the number is kept.
struct Line {
    word: AtomicU64,
    cell: UnsafeCell<u8>,
}

impl BatonMemory for Arc<Line> {
    fn word(&self) -> &AtomicU64 {
        &self.word
    }
    fn fill(&self, header: &[u8], _payload: Buf) {
        // SAFETY: loom checks that nobody else touches it at the same time.
        self.cell.with_mut(|cell| unsafe { *cell = header[0] });
    }
    fn small(&self) -> Small {
        // SAFETY: as above.
        [self.cell.with(|cell| unsafe { *cell }); _]
    }
}

#[test]
fn loom_a_baton_goes_to_and_fro_with_a_packet_each_time() {
    model(|| {
        let line = Arc::new(Line { word: AtomicU64::new(0), cell: UnsafeCell::new(0) });
        let receive = |end: &mut Baton<Arc<Line>>, number: u8| {
            loop {
                if let Some((small, bytes)) = end.pop().expect("nothing but words of ours") {
                    return assert_eq!((small[0], bytes), (number, 1));
                }
                assert!(!end.push(&[99], Buf::EMPTY), "the other has it");
                thread::yield_now();
            }
        };
        let other = {
            let mut end = Baton::new(Arc::clone(&line), false);
            thread::spawn(move || {
                for number in [1, 3] {
                    receive(&mut end, number);
                    assert!(end.push(&[number + 1], Buf::EMPTY));
                }
            })
        };
        let mut end = Baton::new(Arc::clone(&line), true);
        for number in [1, 3] {
            assert!(end.push(&[number], Buf::EMPTY));
            receive(&mut end, number + 1);
        }
        other.join().unwrap();
    });
}

const OWNER: u32 = 7;

/// The plans of two copies that follow each other in one slot: no field of one is that of the other.
const PLANS: [Plan; 2] = [
    Plan { owner: OWNER, way: Way::Read, remote: 100, local: 200, len: 20, chunk_bytes: 10 },
    Plan { owner: OWNER, way: Way::Write, remote: 300, local: 400, len: 11, chunk_bytes: 11 },
];

/// A slot, and a cell for every chunk of the two copies: 0, or 1 when it was copied.
struct Work {
    slot: JobSlot,
    chunks: [[UnsafeCell<u8>; 2]; 2],
}

impl Work {
    fn new() -> Arc<Work> {
        Arc::new(Work {
            slot: JobSlot::new(),
            chunks: std::array::from_fn(|_| std::array::from_fn(|_| UnsafeCell::new(0))),
        })
    }

    fn copy(&self, plan: &Plan, chunk: u32) {
        let which = PLANS.iter().position(|known| known == plan).expect("one of the plans, not a mixture");
        // SAFETY: loom checks that nobody else touches it at the same time.
        self.chunks[which][chunk as usize].with_mut(|cell| unsafe { *cell += 1 });
    }

    fn count(&self, which: usize, chunk: usize) -> u8 {
        // SAFETY: as above.
        self.chunks[which][chunk].with(|cell| unsafe { *cell })
    }

    fn help(&self, times: usize) {
        for _ in 0..times {
            if let Some((plan, chunk)) = self.slot.help(OWNER) {
                self.copy(&plan, chunk);
                self.slot.helped(true);
            }
        }
    }
}

#[test]
fn loom_a_copy_is_done_when_every_chunk_was_copied_once_by_one_of_two() {
    model_with(2, || {
        let work = Work::new();
        let helper = {
            let work = Arc::clone(&work);
            thread::spawn(move || work.help(1))
        };
        for (which, plan) in PLANS.into_iter().enumerate() {
            let mut job = work.slot.post(plan);
            loop {
                match work.slot.proceed(&mut job) {
                    Standing::Take(chunk) => work.copy(&plan, chunk),
                    Standing::Helped => thread::yield_now(),
                    Standing::Done => break,
                    Standing::Refused => unreachable!("the helper can copy"),
                }
            }
            for chunk in 0..plan.chunks() as usize {
                assert_eq!(work.count(which, chunk), 1, "chunk {chunk} of copy {which}");
            }
        }
        helper.join().unwrap();
    });
}

#[test]
fn loom_a_copy_that_is_withdrawn_is_not_touched_any_more() {
    model(|| {
        let work = Work::new();
        let helper = {
            let work = Arc::clone(&work);
            thread::spawn(move || work.help(2))
        };
        let job = work.slot.post(PLANS[0]);
        let withdrawn = work.slot.withdraw(&job);
        while !work.slot.is_withdrawn(&withdrawn) {
            thread::yield_now();
        }
        let counts = [0, 1].map(|chunk| work.count(0, chunk));
        helper.join().unwrap();
        assert_eq!(counts, [0, 1].map(|chunk| work.count(0, chunk)), "copied after it was withdrawn");
    });
}
