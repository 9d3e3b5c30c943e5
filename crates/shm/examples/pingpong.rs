//! What this transport costs beside what the machine costs, measured in turns in the same run.
//!
//! ```text
//! cargo run --release -p selvedge-shm --example pingpong
//! ```
//!
//! Two processes, pinned to two cores where there are two. Each line is the least of many rounds: the machine may be
//! doing other things. The floor of a small packet is one cache line that two cores write by turns; the floor of a read
//! is one memcpy of the same size.

use std::cell::RefCell;
use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::thread::CpuSet;
use selvedge_shm::{Config, CopyMode, Segment, Shm};
use selvedge_transport::{Buf, Event, Key, Peer, RemoteSlice, Token, Transport};

const ROUNDS: usize = 40;
const TRIPS: u32 = 2_000;
const READ_BYTES_MAX: usize = 4 << 20;

fn main() {
    match std::env::args().nth(1) {
        Some(card) => second(&card),
        None => first(),
    }
}

fn first() {
    println!("cache line, two threads   {:8.0} ns one way", cache_line_ns());
    for copy in [CopyMode::Auto, CopyMode::Never] {
        // In a thread, so that pinning it does not outlive it.
        std::thread::scope(|scope| scope.spawn(|| measure(copy)).join().expect("it does not panic"));
    }
}

fn measure(copy: CopyMode) {
    let segment = Arc::new(Segment::create(2, &Config { copy }).expect("a segment of two"));
    let card = String::from_utf8(segment.card()).expect("printable");
    let mut other = Command::new(std::env::current_exe().expect("our own path"))
        .arg(card)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a second process");
    let joined = segment.join(Peer(0)).expect("a free seat");
    other.stdout.as_mut().expect("piped").read_exact(&mut [0]).expect("the other joins");
    other.stdin.as_mut().expect("piped").write_all(b"!").expect("the other waits");
    pin(0);
    let mut shm = joined.open().expect("both have joined");
    println!("-- {shm:?}, single copy: {}", shm.has_single_copy());
    for bytes in [0, 8, 40, 64, 1024, 8192] {
        println!("packet of {bytes:5} bytes      {:8.0} ns one way", least(|| trip_ns(&mut shm, bytes)));
    }
    let (ours, slot) = (leaked(READ_BYTES_MAX), receive(&mut shm));
    let theirs = key_of(shm.packet(&slot));
    shm.release(slot);
    if shm.has_single_copy() {
        let spare = leaked(READ_BYTES_MAX);
        for bytes in [4 << 10, 64 << 10, 256 << 10, 1 << 20, READ_BYTES_MAX] {
            let (mut copy, mut read) = (f64::INFINITY, f64::INFINITY);
            for _ in 0..ROUNDS {
                copy = copy.min(once_us(|| ours.slice(0..bytes).copy_to_buf(black_box(spare))));
                read = read.min(once_us(|| read_all(&mut shm, theirs, ours.slice(0..bytes))));
            }
            println!(
                "read of {:5} KiB         {read:8.1} us, memcpy {copy:8.1} us: {:.2}",
                bytes >> 10,
                read / copy
            );
        }
    }
    println!("stream of 8 KiB packets   {:8.2} GB/s", stream(&mut shm));
    send(&mut shm, Tag::End, 0);
    assert!(other.wait().expect("our child").success(), "the second process failed");
}

/// What a packet asks the second process for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tag {
    Echo,
    Drop,
    End,
}

fn second(card: &str) {
    let segment = Arc::new(Segment::open(card.as_bytes()).expect("the card of our parent"));
    let joined = segment.join(Peer(1)).expect("a free seat");
    std::io::stdout().write_all(b"!").expect("our parent reads");
    std::io::stdout().flush().expect("our parent reads");
    std::io::stdin().read_exact(&mut [0]).expect("our parent joins");
    pin(1);
    let mut shm = joined.open().expect("both have joined");
    let mut has_sent_key = false;
    loop {
        let slot = receive(&mut shm);
        let bytes = shm.packet(&slot).len();
        let tag = shm.packet(&slot)[0];
        take(&mut shm, slot);
        match tag {
            tag if tag == Tag::Echo as u8 => send(&mut shm, Tag::Echo, bytes - 16),
            tag if tag == Tag::Drop as u8 => {}
            _ => return,
        }
        if bytes - 16 == 8192 && !has_sent_key && tag == Tag::Echo as u8 {
            has_sent_key = true;
            last_echoes(&mut shm);
        }
    }
}

/// Echoes the rest of the packets of 8 KiB, then names the memory that can be read.
fn last_echoes(shm: &mut Shm) {
    for _ in 1..ROUNDS as u32 * TRIPS {
        let slot = receive(shm);
        take(shm, slot);
        send(shm, Tag::Echo, 8192);
    }
    let key = shm.register(leaked(READ_BYTES_MAX), Peer(0)).expect("costs nothing");
    let mut header = [0; 16];
    header[..8].copy_from_slice(&key.base.to_le_bytes());
    header[8..].copy_from_slice(&key.name.to_le_bytes());
    shm.send(Peer(0), &header, Buf::EMPTY).expect("the ring is empty");
}

fn key_of(header: &[u8]) -> Key {
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    Key { base: number(&header[..8]), name: number(&header[8..16]) }
}

fn trip_ns(shm: &mut Shm, bytes: usize) -> f64 {
    let start = Instant::now();
    for _ in 0..TRIPS {
        send(shm, Tag::Echo, bytes);
        let slot = receive(shm);
        take(shm, slot);
    }
    start.elapsed().as_nanos() as f64 / f64::from(TRIPS) / 2.0
}

fn stream(shm: &mut Shm) -> f64 {
    const PACKETS: u32 = 20_000;
    let start = Instant::now();
    for _ in 0..PACKETS {
        send(shm, Tag::Drop, 8192);
    }
    send(shm, Tag::Echo, 0);
    let slot = receive(shm);
    shm.release(slot);
    f64::from(PACKETS) * 8192.0 / start.elapsed().as_nanos() as f64
}

fn read_all(shm: &mut Shm, key: Key, local: Buf) {
    let remote = RemoteSlice { key, offset: 0, len: local.len() as u64 };
    shm.read(Peer(1), remote, local, Token(1)).expect("nothing else is in flight");
    loop {
        match shm.poll() {
            Some(Event::Done(Token(1))) => return,
            Some(event) => panic!("{event:?}"),
            None => shm.wait(Duration::from_secs(1)),
        }
    }
}

fn send(shm: &mut Shm, tag: Tag, bytes: usize) {
    static PAYLOAD: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    let payload = *PAYLOAD.get_or_init(|| leaked(8192).as_ptr() as usize);
    // SAFETY: the payload was leaked with 8192 bytes, of which `bytes` is at most all, and nobody writes it.
    let payload = unsafe { Buf::claim(payload as *mut u8, bytes) };
    let other = Peer(1 - shm.me().0);
    while shm.send(other, &[tag as u8; 16], payload).is_err() {
        shm.wait(Duration::from_secs(1));
    }
}

fn receive(shm: &mut Shm) -> selvedge_transport::Slot {
    loop {
        match shm.poll() {
            Some(Event::Packet { slot, .. }) => return slot,
            Some(event) => panic!("{event:?}"),
            None => shm.wait(Duration::from_secs(1)),
        }
    }
}

/// Copies a packet out, as somebody who wants its bytes would, and gives it back.
fn take(shm: &mut Shm, slot: selvedge_transport::Slot) {
    thread_local!(static BYTES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });
    BYTES.with_borrow_mut(|bytes| {
        bytes.clear();
        bytes.extend_from_slice(shm.packet(&slot));
        black_box(bytes);
    });
    shm.release(slot);
}

fn leaked(bytes: usize) -> Buf {
    Buf::leaked(vec![1; bytes].leak())
}

fn once_us(run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_nanos() as f64 / 1e3
}

fn least(mut round: impl FnMut() -> f64) -> f64 {
    (0..ROUNDS).map(|_| round()).fold(f64::INFINITY, f64::min)
}

fn cache_line_ns() -> f64 {
    static LINE: AtomicU64 = AtomicU64::new(0);
    let play = |me: u64| {
        pin(me as usize);
        let mut best = f64::INFINITY;
        for round in 0..ROUNDS as u64 {
            let start = Instant::now();
            for trip in 0..u64::from(TRIPS) {
                let expected = (round * u64::from(TRIPS) + trip) * 2 + me;
                while LINE.load(Ordering::Acquire) != expected {
                    std::hint::spin_loop();
                }
                LINE.store(expected + 1, Ordering::Release);
            }
            best = best.min(start.elapsed().as_nanos() as f64 / f64::from(TRIPS) / 2.0);
        }
        best
    };
    std::thread::scope(|scope| {
        scope.spawn(|| play(1));
        scope.spawn(|| play(0)).join().expect("it does not panic")
    })
}

/// Puts this thread on the `index`-th core that it may use, where there are two.
fn pin(index: usize) {
    let allowed = rustix::thread::sched_getaffinity(None).expect("our own mask");
    if let Some(core) = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core)).nth(index) {
        let mut one = CpuSet::new();
        one.set(core);
        rustix::thread::sched_setaffinity(None, &one).expect("a core of our own mask");
    }
}
