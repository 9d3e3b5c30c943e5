//! Very many peers: what is paid for a peer that one does not talk to.

use std::time::Duration;

use selvedge_engine::{Config, Context, Engine, Order, Submitted, Tag};
use selvedge_transport::{Buf, Busy, Caps, Event, Fault, Key, Peer, RemoteSlice, Slot, Token, Transport};

/// A network of 25,000 peers that counts what it is asked and takes nothing until it is opened.
struct Counting {
    caps: Caps,
    open: bool,
    sends: usize,
    polls: usize,
}

const PEERS: usize = 25_000;

impl Counting {
    fn new() -> Counting {
        let caps = Caps {
            name: "counting",
            packet_bytes_max: 8_192,
            inline_bytes_max: 32,
            slots_max: 1,
            read_bytes_max: 0,
            write_bytes_max: 0,
            one_sided_max: 0,
        };
        Counting { caps, open: false, sends: 0, polls: 0 }
    }
}

impl Transport for Counting {
    fn roads(&self) -> &[Caps] {
        std::slice::from_ref(&self.caps)
    }

    fn peers(&self) -> usize {
        PEERS
    }

    fn me(&self) -> Peer {
        Peer(0)
    }

    fn register(&mut self, _: Buf, _: Peer) -> Result<Key, Box<Fault>> {
        unreachable!("there are no one-sided operations")
    }

    fn deregister(&mut self, _: Key, _: Peer) {}

    fn send(&mut self, _: Peer, _: &[u8], _: Buf) -> Result<(), Busy> {
        self.sends += 1;
        if self.open { Ok(()) } else { Err(Busy) }
    }

    fn read(&mut self, _: Peer, _: RemoteSlice, _: Buf, _: Token) -> Result<(), Busy> {
        unreachable!("there are no one-sided operations")
    }

    fn write(&mut self, _: Peer, _: Buf, _: RemoteSlice, _: Token) -> Result<(), Busy> {
        unreachable!("there are no one-sided operations")
    }

    fn poll(&mut self) -> Option<Event> {
        self.polls += 1;
        None
    }

    fn packet(&self, _: &Slot) -> &[u8] {
        unreachable!("nothing arrives")
    }

    fn release(&mut self, _: Slot) {}

    fn wait(&mut self, _: Duration) {}
}

fn send(engine: &mut Engine<Counting>, to: u32) {
    let submitted = engine.send(Peer(to), Context(0), Tag(0), Order::Ordered, Buf::EMPTY, u64::from(to));
    assert!(matches!(submitted, Submitted::Pending(_)));
}

#[test]
fn a_poll_asks_only_for_peers_that_have_something_queued() {
    let mut engine = Engine::new(Counting::new(), Config::default());
    assert!(engine.poll().is_none());
    assert_eq!(engine.transport().sends, 0);
    for to in [17, 24_999, 3] {
        send(&mut engine, to);
    }
    let before = engine.transport().sends;
    assert!(engine.poll().is_none());
    assert_eq!((engine.transport().sends - before, engine.transport().polls), (3, 2));
    engine.transport_mut().open = true;
    let mut ended: Vec<u64> =
        std::iter::from_fn(|| engine.poll()).map(|completion| completion.user).collect();
    ended.sort_unstable();
    assert_eq!(ended, [3, 17, 24_999]);
    let before = engine.transport().sends;
    assert!(engine.poll().is_none());
    assert_eq!(engine.transport().sends, before, "nobody is asked for any more");
}

#[test]
fn a_poll_is_short_though_every_peer_has_something_queued() {
    let mut engine = Engine::new(Counting::new(), Config::default());
    for to in 0..PEERS as u32 {
        send(&mut engine, to);
    }
    let before = engine.transport().sends;
    assert!(engine.poll().is_none());
    assert!(engine.transport().sends - before <= 16);
    engine.transport_mut().open = true;
    let ended = (0..2 * PEERS).filter_map(|_| engine.poll()).count();
    assert_eq!((ended, engine.pending()), (PEERS, 0), "all of them have their turn");
}
