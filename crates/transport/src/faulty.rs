//! A transport that makes the one inside worse, within the contract.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::{
    Buf, Busy, Caps, Cause, Event, Fault, Key, Peer, RemoteSlice, Rng, Scope, Slot, Token, Transport,
};

/// Longest sleep passed on: what is kept back is no news to the transport inside, so it might sleep over it.
const WAIT_MAX: Duration = Duration::from_micros(100);

/// How a [`Faulty`] transport misbehaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultyConfig {
    /// Same seed and same calls, same misbehaviour.
    pub seed: u64,
    /// One call in so many is answered Busy for no reason; 0 for never, 1 is refused.
    pub busy_one_in: u32,
    /// One poll in so many tells nothing although there is something; 0 for never, 1 is refused.
    pub withhold_one_in: u32,
    /// Whether events are told in random order.
    pub reorder: bool,
    /// One wait in so many returns at once; 0 for never.
    pub wait_early_one_in: u32,
    /// After so many accepted calls this peer counts as dead, once.
    pub fault_after: Option<(u64, Peer)>,
}

impl FaultyConfig {
    /// Often Busy, half of all events late, all in random order, nobody dies.
    pub fn rough(seed: u64) -> FaultyConfig {
        FaultyConfig {
            seed,
            busy_one_in: 4,
            withhold_one_in: 2,
            reorder: true,
            wait_early_one_in: 4,
            fault_after: None,
        }
    }
}

/// Does what the transport inside does, only later, in another order, and refused more often. Still keeps the
/// contract: whatever is right over a transport is right over a faulty one.
pub struct Faulty<T> {
    inner: T,
    config: FaultyConfig,
    rng: Rng,
    /// Events the inside has told and we have not. At most one per slot, one-sided operation and peer.
    withheld: Vec<Event>,
    /// One-sided operations not yet reported, by token.
    in_flight: BTreeMap<u64, Peer>,
    accepted: u64,
    cut: Option<Peer>,
}

impl<T: Transport> Faulty<T> {
    /// Makes `inner` worse by `config`.
    pub fn new(inner: T, config: FaultyConfig) -> Faulty<T> {
        assert!(config.busy_one_in != 1 && config.withhold_one_in != 1, "Busy and silence have to end");
        let rng = Rng::new(config.seed).child(inner.me().0.into());
        Faulty {
            inner,
            config,
            rng,
            withheld: Vec::new(),
            in_flight: BTreeMap::new(),
            accepted: 0,
            cut: None,
        }
    }

    /// The transport inside.
    pub fn inner(&self) -> &T {
        &self.inner
    }

    /// One more call was accepted; perhaps the last one before a peer counts as dead.
    fn count(&mut self) {
        self.accepted += 1;
        if let Some((after, peer)) = self.config.fault_after
            && self.accepted >= after
        {
            self.config.fault_after = None;
            self.cut = Some(peer);
            self.withheld.push(Event::Fault(injected(peer)));
        }
    }

    fn one_sided(
        &mut self,
        peer: Peer,
        token: Token,
        start: impl FnOnce(&mut T) -> Result<(), Busy>,
    ) -> Result<(), Busy> {
        let road = self.inner.road(peer);
        let on_road = self.in_flight.values().filter(|&&with| self.inner.road(with) == road).count();
        let full = on_road >= self.inner.roads()[road].one_sided_max;
        if full || self.rng.one_in(self.config.busy_one_in) {
            return Err(Busy);
        }
        if self.cut == Some(peer) {
            self.withheld.push(Event::Failed(token, injected(peer)));
        } else {
            start(&mut self.inner)?;
        }
        let before = self.in_flight.insert(token.0, peer);
        assert!(before.is_none(), "{token:?} names two operations at a time");
        self.count();
        Ok(())
    }

    /// Which event is told next: any, but that a peer has left only behind its packets.
    fn pick(&mut self) -> usize {
        let at = self.rng.index(self.withheld.len());
        let Event::Fault(fault) = &self.withheld[at] else { return at };
        let is_its = |event: &Event| match event {
            Event::Packet { from, .. } => fault.scope == Scope::Peer(*from),
            _ => false,
        };
        let packet =
            if fault.cause == Cause::PeerLeft { self.withheld.iter().position(is_its) } else { None };
        packet.unwrap_or(at)
    }

    /// What an event of the inside becomes. Nothing comes from a peer that counts as dead.
    fn admit(&mut self, event: Event) -> Option<Event> {
        match event {
            Event::Packet { from, slot } if self.cut == Some(from) => {
                self.inner.release(slot);
                None
            }
            Event::Fault(fault) if fault.cause == Cause::Injected => Some(Event::Fault(fault)),
            Event::Fault(fault) if self.cut.is_some_and(|cut| fault.scope == Scope::Peer(cut)) => None,
            Event::Fault(fault) => {
                // A peer that died by itself is not killed a second time.
                self.config.fault_after =
                    self.config.fault_after.filter(|(_, peer)| fault.scope != Scope::Peer(*peer));
                Some(Event::Fault(fault))
            }
            Event::Done(token) if self.cut.is_some() && self.in_flight.get(&token.0) == self.cut.as_ref() => {
                Some(Event::Failed(token, injected(self.in_flight[&token.0])))
            }
            other => Some(other),
        }
    }
}

#[cold]
fn injected(peer: Peer) -> Box<Fault> {
    Box::new(Fault {
        scope: Scope::Peer(peer),
        cause: Cause::Injected,
        age: None,
        detail: "the test counts it as dead".to_owned(),
        next_step: "look at the test that asked for this",
    })
}

impl<T: Transport> Transport for Faulty<T> {
    fn roads(&self) -> &[Caps] {
        self.inner.roads()
    }

    fn road(&self, to: Peer) -> usize {
        self.inner.road(to)
    }

    fn peers(&self) -> usize {
        self.inner.peers()
    }

    fn me(&self) -> Peer {
        self.inner.me()
    }

    fn register(&mut self, buf: Buf, with: Peer) -> Result<Key, Box<Fault>> {
        self.inner.register(buf, with)
    }

    fn deregister(&mut self, key: Key, with: Peer) {
        self.inner.deregister(key, with);
    }

    fn send(&mut self, to: Peer, header: &[u8], payload: Buf) -> Result<(), Busy> {
        let len = header.len() + payload.len();
        assert!(len <= self.caps(to).packet_bytes_max, "a packet of {len} bytes");
        if self.cut == Some(to) {
            return Ok(());
        }
        if self.rng.one_in(self.config.busy_one_in) {
            return Err(Busy);
        }
        self.inner.send(to, header, payload)?;
        self.count();
        Ok(())
    }

    fn read(&mut self, from: Peer, remote: RemoteSlice, local: Buf, token: Token) -> Result<(), Busy> {
        let bytes_max = self.caps(from).read_bytes_max;
        assert!(bytes_max > 0 && remote.len <= bytes_max, "a read of {} bytes", remote.len);
        self.one_sided(from, token, |inner| inner.read(from, remote, local, token))
    }

    fn write(&mut self, to: Peer, local: Buf, remote: RemoteSlice, token: Token) -> Result<(), Busy> {
        let bytes_max = self.caps(to).write_bytes_max;
        assert!(bytes_max > 0 && remote.len <= bytes_max, "a write of {} bytes", remote.len);
        self.one_sided(to, token, |inner| inner.write(to, local, remote, token))
    }

    fn poll(&mut self) -> Option<Event> {
        // Two are taken for each one given, so that something piles up to be shuffled.
        for _ in 0..2 {
            if let Some(event) = self.inner.poll()
                && let Some(event) = self.admit(event)
            {
                self.withheld.push(event);
            }
        }
        if self.withheld.is_empty() || self.rng.one_in(self.config.withhold_one_in) {
            return None;
        }
        let event = if self.config.reorder {
            let picked = self.pick();
            self.withheld.swap_remove(picked)
        } else {
            self.withheld.remove(0)
        };
        // What was kept back when its sender died by our hand does not come any more either.
        let event = self.admit(event)?;
        if let Event::Done(token) | Event::Failed(token, _) = event {
            self.in_flight.remove(&token.0);
        }
        Some(event)
    }

    fn packet(&self, slot: &Slot) -> &[u8] {
        self.inner.packet(slot)
    }

    fn release(&mut self, slot: Slot) {
        self.inner.release(slot);
    }

    fn wait(&mut self, at_most: Duration) {
        if self.withheld.is_empty() && !self.rng.one_in(self.config.wait_early_one_in) {
            self.inner.wait(at_most.min(WAIT_MAX));
        }
    }
}

impl<T> fmt::Debug for Faulty<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faulty({:?}, {} events withheld)", self.config, self.withheld.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Memory, Sim, SimConfig, SimPort};

    const A: Peer = Peer(0);
    const B: Peer = Peer(1);

    fn with_death_after(calls: u64) -> (Sim, Faulty<SimPort>, SimPort) {
        let sim = Sim::new(SimConfig::default());
        let config = FaultyConfig { busy_one_in: 0, fault_after: Some((calls, B)), ..FaultyConfig::rough(1) };
        (sim.clone(), Faulty::new(sim.port(A), config), sim.port(B))
    }

    fn hear(port: &mut impl Transport) -> Vec<Event> {
        (0..20_000).filter_map(|_| port.poll()).collect()
    }

    #[test]
    fn a_peer_counts_as_dead_after_so_many_calls_and_that_is_said_once() {
        let (sim, mut a, mut b) = with_death_after(3);
        b.send(A, b"late", Buf::EMPTY).unwrap();
        (0..5).for_each(|_| a.send(B, b"x", Buf::EMPTY).unwrap());
        sim.kill(B);
        let heard = hear(&mut a);
        let [Event::Fault(fault)] = &heard[..] else { panic!("{heard:?}") };
        assert_eq!((fault.scope, fault.cause), (Scope::Peer(B), Cause::Injected));
        assert_eq!(sim.stats().packets, 4, "what is sent to the dead is dropped");
    }

    #[test]
    fn one_sided_operations_with_a_peer_that_counts_as_dead_fail_those_under_way_included() {
        let (_sim, mut a, mut b) = with_death_after(2);
        let (theirs, mine) = (Memory::of(&[1; 8]), Memory::zeroed(8));
        let key = b.register(theirs.buf(), A).unwrap();
        let remote = RemoteSlice { key, offset: 0, len: 8 };
        (0..5).for_each(|token| a.read(B, remote, mine.buf(), Token(token)).unwrap());
        let mut failed: Vec<u64> = Vec::new();
        for event in hear(&mut a) {
            match event {
                Event::Failed(token, fault) if fault.cause == Cause::Injected => failed.push(token.0),
                Event::Fault(_) => {}
                other => panic!("{other:?}"),
            }
        }
        failed.sort_unstable();
        assert_eq!(failed, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn events_of_a_network_that_keeps_order_are_told_out_of_order_and_late() {
        let sim = Sim::new(SimConfig { latency_ns: 1..=1, ..SimConfig::default() });
        let mut b = Faulty::new(sim.port(B), FaultyConfig::rough(2));
        let (mut a, mut silent, mut order) = (sim.port(A), 0, Vec::new());
        (0..20).for_each(|number| a.send(B, &[number], Buf::EMPTY).unwrap());
        sim.advance_by(Duration::from_millis(1));
        while order.len() < 20 {
            match b.poll() {
                Some(Event::Packet { slot, .. }) => {
                    order.push(b.packet(&slot)[0]);
                    b.release(slot);
                }
                Some(other) => panic!("{other:?}"),
                None => silent += 1,
            }
        }
        assert!(silent > 0 && !order.is_sorted());
    }
}
