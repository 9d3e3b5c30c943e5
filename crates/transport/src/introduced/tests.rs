//! A simulated network whose ports know nobody, with a directory: the same contract, and each card asked for once.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

use super::*;
use crate::conformance::{Group, Harness, Program, drive_together};
use crate::{Cause, Scope, Sim, SimConfig, SimPort};

/// A port that does nothing for peers whose cards it does not have.
struct Shy {
    port: SimPort,
    known: BTreeSet<Peer>,
    asked: BTreeSet<Peer>,
    wanted: VecDeque<Peer>,
    lost: VecDeque<Box<Fault>>,
    gone: BTreeSet<Peer>,
}

impl Shy {
    fn of(port: SimPort) -> Shy {
        Shy {
            port,
            known: BTreeSet::new(),
            asked: BTreeSet::new(),
            wanted: VecDeque::new(),
            lost: VecDeque::new(),
            gone: BTreeSet::new(),
        }
    }

    fn want(&mut self, peer: Peer) {
        if self.is_stranger(peer) && self.asked.insert(peer) {
            self.wanted.push_back(peer);
        }
    }

    /// Nothing is done with strangers.
    fn know(&mut self, peer: Peer) -> Result<(), Busy> {
        self.want(peer);
        if self.is_stranger(peer) { Err(Busy) } else { Ok(()) }
    }
}

impl Acquaint for Shy {
    fn has_strangers(&self) -> bool {
        !self.wanted.is_empty()
    }

    fn stranger(&mut self) -> Option<Peer> {
        self.wanted.pop_front()
    }

    fn is_stranger(&self, peer: Peer) -> bool {
        peer != self.port.me() && !self.known.contains(&peer) && !self.gone.contains(&peer)
    }

    fn introduce(&mut self, peer: Peer, card: Result<&[u8], Box<Fault>>) {
        match card {
            Ok(card) => {
                assert_eq!(card, peer.0.to_le_bytes(), "the card of another");
                self.known.insert(peer);
            }
            Err(fault) => {
                self.gone.insert(peer);
                self.lost.push_back(fault);
            }
        }
    }

    fn leave(&mut self) -> bool {
        true
    }
}

impl Transport for Shy {
    fn roads(&self) -> &[Caps] {
        self.port.roads()
    }

    fn peers(&self) -> usize {
        self.port.peers()
    }

    fn me(&self) -> Peer {
        self.port.me()
    }

    fn register(&mut self, buf: Buf, with: Peer) -> Result<Key, Box<Fault>> {
        assert!(!self.is_stranger(with), "memory is opened for somebody who is known");
        self.port.register(buf, with)
    }

    fn deregister(&mut self, key: Key, with: Peer) {
        self.port.deregister(key, with);
    }

    fn send(&mut self, to: Peer, header: &[u8], payload: Buf) -> Result<(), Busy> {
        if self.gone.contains(&to) {
            return Ok(());
        }
        self.know(to)?;
        self.port.send(to, header, payload)
    }

    fn read(&mut self, from: Peer, remote: RemoteSlice, local: Buf, token: Token) -> Result<(), Busy> {
        self.know(from)?;
        self.port.read(from, remote, local, token)
    }

    fn write(&mut self, to: Peer, local: Buf, remote: RemoteSlice, token: Token) -> Result<(), Busy> {
        self.know(to)?;
        self.port.write(to, local, remote, token)
    }

    fn poll(&mut self) -> Option<Event> {
        if let Some(fault) = self.lost.pop_front() {
            return Some(Event::Fault(fault));
        }
        let event = self.port.poll();
        if let Some(Event::Packet { from, .. }) = event {
            self.want(from);
        }
        event
    }

    fn packet(&self, slot: &Slot) -> &[u8] {
        self.port.packet(slot)
    }

    fn release(&mut self, slot: Slot) {
        self.port.release(slot);
    }

    fn wait(&mut self, at_most: Duration) {
        self.port.wait(at_most);
    }
}

/// Every peer's card is its number; who has asked for which is written down.
#[derive(Clone, Default)]
struct Book {
    asked: Rc<RefCell<Vec<Peer>>>,
    missing: Option<Peer>,
}

impl Directory for Book {
    fn card(&mut self, of: Peer) -> Result<Vec<u8>, Box<Fault>> {
        self.asked.borrow_mut().push(of);
        if self.missing == Some(of) {
            return Err(Box::new(Fault {
                scope: Scope::Peer(of),
                cause: Cause::Unreachable,
                age: None,
                detail: "its card is lost".to_owned(),
                next_step: "look for it",
            }));
        }
        Ok(of.0.to_le_bytes().to_vec())
    }
}

struct Simulated;

impl Harness for Simulated {
    fn run(&self, group: Group, program: &Program<'_>) {
        let sim = Sim::new(SimConfig { peers: group.peers, ..SimConfig::default() });
        let ended = |peer| {
            if group.leaves == Some(peer) {
                sim.leave(peer);
            }
            if group.dies == Some(peer) {
                sim.kill(peer);
            }
        };
        let mut ports: Vec<_> =
            sim.ports().into_iter().map(|port| Introduced::new(Shy::of(port), Book::default())).collect();
        drive_together(&mut ports, &|| sim.now(), program, &ended);
        for port in &ports {
            let mut asked = port.directory.asked.borrow().clone();
            let count = asked.len();
            asked.sort_unstable();
            asked.dedup();
            assert_eq!(asked.len(), count, "each card once");
        }
    }

    fn can_kill(&self) -> bool {
        true
    }
}

crate::conformance_tests!(Simulated);

fn ring(peers: usize) -> (Sim, Vec<Introduced<Shy, Book>>) {
    let sim = Sim::new(SimConfig { peers, ..SimConfig::default() });
    let ports = sim.ports().into_iter().map(|port| Introduced::new(Shy::of(port), Book::default())).collect();
    (sim, ports)
}

#[test]
fn who_talks_to_one_peer_asks_for_one_card_and_who_is_talked_to_for_one() {
    let (_sim, mut ports) = ring(100);
    ports[3].send(Peer(60), b"hello", Buf::EMPTY).expect("the first packet waits for the card and goes");
    let heard = loop {
        match ports[60].poll() {
            Some(event) => break event,
            None => ports[60].wait(Duration::from_secs(1)),
        }
    };
    let Event::Packet { from: Peer(3), slot } = heard else { panic!("{heard:?}") };
    ports[60].release(slot);
    assert_eq!(*ports[60].directory.asked.borrow(), [], "there is no hurry");
    assert!(ports[60].poll().is_none());
    let asked: Vec<Vec<Peer>> = ports.iter().map(|port| port.directory.asked.borrow().clone()).collect();
    for (at, asked) in asked.iter().enumerate() {
        let expected: &[Peer] = if at == 3 {
            &[Peer(60)]
        } else if at == 60 {
            &[Peer(3)]
        } else {
            &[]
        };
        assert_eq!(asked, expected, "peer {at}");
    }
}

#[test]
fn a_peer_whose_card_is_not_to_be_had_is_lost_and_the_others_are_not() {
    let (_sim, mut ports) = ring(3);
    ports[0].directory.missing = Some(Peer(1));
    ports[0].send(Peer(1), b"hello", Buf::EMPTY).expect("accepted and dropped");
    let Some(Event::Fault(fault)) = ports[0].poll() else { panic!("nothing is said") };
    assert_eq!(fault.to_string(), "peer 1: its card is lost; look for it");
    ports[0].send(Peer(2), b"hello", Buf::EMPTY).expect("there is room");
    ports[0].send(Peer(1), b"again", Buf::EMPTY).expect("accepted and dropped");
    assert!(ports[0].poll().is_none(), "said once");
    assert_eq!(*ports[0].directory.asked.borrow(), [Peer(1), Peer(2)]);
}
