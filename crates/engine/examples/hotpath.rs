//! What the engine itself costs per message, in nanoseconds: post a receive, send, poll, match, deliver, over a transport
//! that does as little as a transport can. The sum of both sides; a real transport adds its own.
//!
//! `cargo run -p selvedge-engine --release --example hotpath [messages per run, 1000000]`

use std::hint::black_box;
use std::time::{Duration, Instant};

use selvedge_engine::{Config, Context, Engine, Order, Submitted, Tag};
use selvedge_transport::{
    Buf, Busy, Caps, Event, Fault, Key, Memory, Peer, RemoteSlice, Slot, Token, Transport,
};

const SLOT_BYTES: usize = 8192;
const SLOTS: usize = 64;

/// One peer that talks to itself: a ring of fixed slots in this process.
struct Loopback {
    caps: Caps,
    ring: Vec<[u8; SLOT_BYTES]>,
    lens: [usize; SLOTS],
    /// Packets ever sent, polled and released; the place is the count modulo the size.
    sent: usize,
    polled: usize,
    released: usize,
}

impl Loopback {
    fn new() -> Loopback {
        let caps = Caps {
            name: "loopback",
            packet_bytes_max: SLOT_BYTES,
            inline_bytes_max: 64,
            slots_max: SLOTS,
            read_bytes_max: 0,
            write_bytes_max: 0,
            one_sided_max: 0,
        };
        Loopback {
            caps,
            ring: vec![[0; SLOT_BYTES]; SLOTS],
            lens: [0; SLOTS],
            sent: 0,
            polled: 0,
            released: 0,
        }
    }
}

impl Transport for Loopback {
    fn roads(&self) -> &[Caps] {
        std::slice::from_ref(&self.caps)
    }

    fn peers(&self) -> usize {
        1
    }

    fn me(&self) -> Peer {
        Peer(0)
    }

    fn register(&mut self, _buf: Buf, _with: Peer) -> Result<Key, Box<Fault>> {
        unreachable!("there are no one-sided operations")
    }

    fn deregister(&mut self, _key: Key, _with: Peer) {}

    #[inline]
    fn send(&mut self, _to: Peer, header: &[u8], payload: Buf) -> Result<(), Busy> {
        if self.sent - self.released == SLOTS {
            return Err(Busy);
        }
        let place = self.sent % SLOTS;
        let slot = &mut self.ring[place];
        slot[..header.len()].copy_from_slice(header);
        payload.copy_to(&mut slot[header.len()..]);
        self.lens[place] = header.len() + payload.len();
        self.sent += 1;
        Ok(())
    }

    fn read(&mut self, _: Peer, _: RemoteSlice, _: Buf, _: Token) -> Result<(), Busy> {
        unreachable!("there are no one-sided operations")
    }

    fn write(&mut self, _: Peer, _: Buf, _: RemoteSlice, _: Token) -> Result<(), Busy> {
        unreachable!("there are no one-sided operations")
    }

    #[inline]
    fn poll(&mut self) -> Option<Event> {
        if self.polled == self.sent {
            return None;
        }
        let slot = Slot::new((self.polled % SLOTS) as u64);
        self.polled += 1;
        Some(Event::Packet { from: Peer(0), slot })
    }

    #[inline]
    fn packet(&self, slot: &Slot) -> &[u8] {
        let place = slot.number() as usize;
        &self.ring[place][..self.lens[place]]
    }

    #[inline]
    fn release(&mut self, _slot: Slot) {
        self.released += 1;
    }

    fn wait(&mut self, _at_most: Duration) {}
}

fn main() {
    let count =
        std::env::args().nth(1).map_or(1_000_000, |count| count.parse().expect("a number of messages"));
    println!("{:>8}  {:<42} {:>8}", "bytes", "what", "ns");
    for bytes in [8, 48, 1_024] {
        report(bytes, "transport alone", count, transport_alone);
        report(bytes, "receive posted, then sent", count, expected);
        report(bytes, "the same, 10,000 receives on other tags", count, beside_others);
        report(bytes, "sent, then received", count, unexpected);
    }
}

/// Best of several runs: the machine is shared.
fn report(bytes: usize, what: &str, count: usize, body: fn(usize, usize)) {
    body(bytes, count / 10);
    let best = (0..5)
        .map(|_| {
            let start = Instant::now();
            body(bytes, count);
            start.elapsed().as_secs_f64() * 1e9 / count as f64
        })
        .fold(f64::INFINITY, f64::min);
    println!("{bytes:>8}  {what:<42} {best:>8.1}");
}

fn transport_alone(bytes: usize, count: usize) {
    let (from, to) = (Memory::zeroed(bytes), Memory::zeroed(bytes));
    let mut transport = Loopback::new();
    for _ in 0..count {
        transport.send(Peer(0), black_box(&[1; 16]), from.buf()).expect("there is room");
        if let Some(Event::Packet { slot, .. }) = transport.poll() {
            to.buf().fill_from(&transport.packet(&slot)[16..]);
            transport.release(slot);
        }
    }
}

const CONTEXT: Context = Context(1);

fn send(engine: &mut Engine<Loopback>, buf: Buf) {
    let submitted = engine.send(Peer(0), CONTEXT, black_box(Tag(5)), Order::Ordered, buf, 0);
    assert!(matches!(submitted, Submitted::Done(Ok(_))));
}

fn expected(bytes: usize, count: usize) {
    exchange(&mut Engine::new(Loopback::new(), Config::default()), bytes, count);
}

fn beside_others(bytes: usize, count: usize) {
    let mut engine = Engine::new(Loopback::new(), Config::default());
    for tag in 0..10_000 {
        let _ = engine.recv(Some(Peer(0)), CONTEXT, Some(Tag(100 + tag)), Buf::EMPTY, 0);
    }
    exchange(&mut engine, bytes, count);
}

fn exchange(engine: &mut Engine<Loopback>, bytes: usize, count: usize) {
    let (from, to) = (Memory::zeroed(bytes), Memory::zeroed(bytes));
    for user in 0..count as u64 {
        let submitted = engine.recv(Some(Peer(0)), CONTEXT, Some(Tag(5)), to.buf(), user);
        assert!(matches!(submitted, Submitted::Pending(_)));
        send(engine, from.buf());
        let completion = engine.poll().expect("it has arrived");
        assert!(completion.user == user && completion.outcome.is_ok());
    }
}

fn unexpected(bytes: usize, count: usize) {
    let (from, to) = (Memory::zeroed(bytes), Memory::zeroed(bytes));
    let mut engine = Engine::new(Loopback::new(), Config::default());
    for _ in 0..count {
        send(&mut engine, from.buf());
        assert!(engine.poll().is_none());
        let submitted = engine.recv(Some(Peer(0)), CONTEXT, Some(Tag(5)), to.buf(), 0);
        assert!(matches!(submitted, Submitted::Done(Ok(_))));
    }
}
