//! Both roads at once keep the contract of each, whoever is near and whoever is far.
//!
//! The far road of these tests is shared memory too, with other limits and another name: what leads there does not matter
//! to who chooses.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use selvedge_shm::{Config, CopyMode, Segment, Shm};
use selvedge_transport::conformance::{Gathering, Group, Harness, Program, drive_alone};
use selvedge_transport::{
    Buf, Busy, Caps, Cause, Event, Fault, Key, Peer, RemoteSlice, Scope, Slot, Token, Transport,
};

use super::{NEAR_TURNS, Roads};

/// A road to all peers that says nothing of those of this host: no card of theirs was given to it.
struct Elsewhere {
    shm: Shm,
    caps: Caps,
    here: Vec<Peer>,
}

impl Elsewhere {
    fn new(shm: Shm, here: Vec<Peer>) -> Elsewhere {
        let caps =
            Caps { name: "far", packet_bytes_max: 1000, inline_bytes_max: 32, ..shm.roads()[0].clone() };
        Elsewhere { shm, caps, here }
    }
}

impl Transport for Elsewhere {
    fn roads(&self) -> &[Caps] {
        std::slice::from_ref(&self.caps)
    }

    fn peers(&self) -> usize {
        self.shm.peers()
    }

    fn me(&self) -> Peer {
        self.shm.me()
    }

    fn register(&mut self, buf: Buf, with: Peer) -> Result<Key, Box<Fault>> {
        assert!(!self.here.contains(&with), "{with:?} is near");
        self.shm.register(buf, with)
    }

    fn deregister(&mut self, key: Key, with: Peer) {
        self.shm.deregister(key, with);
    }

    fn send(&mut self, to: Peer, header: &[u8], payload: Buf) -> Result<(), Busy> {
        assert!(!self.here.contains(&to), "{to:?} is near");
        self.shm.send(to, header, payload)
    }

    fn read(&mut self, from: Peer, remote: RemoteSlice, local: Buf, token: Token) -> Result<(), Busy> {
        self.shm.read(from, remote, local, token)
    }

    fn write(&mut self, to: Peer, local: Buf, remote: RemoteSlice, token: Token) -> Result<(), Busy> {
        self.shm.write(to, local, remote, token)
    }

    fn poll(&mut self) -> Option<Event> {
        loop {
            match self.shm.poll()? {
                Event::Fault(fault) if self.here.iter().any(|&peer| fault.scope == Scope::Peer(peer)) => {}
                other => return Some(other),
            }
        }
    }

    fn packet(&self, slot: &Slot) -> &[u8] {
        self.shm.packet(slot)
    }

    fn release(&mut self, slot: Slot) {
        self.shm.release(slot);
    }

    fn wait(&mut self, at_most: Duration) {
        self.shm.wait(at_most);
    }
}

/// The roads of every peer of a job on several hosts; `host_of` says which.
fn on_hosts(peers: usize, copy: CopyMode, host_of: impl Fn(usize) -> usize) -> Vec<Roads<Elsewhere>> {
    let count = u32::try_from(peers).expect("a handful");
    let far = Arc::new(Segment::create(count, &Config { copy }).expect("a segment"));
    let hosts: Vec<Vec<Peer>> = (0..peers)
        .map(|host| (0..count).map(Peer).filter(|peer| host_of(peer.index()) == host).collect())
        .collect();
    let near: Vec<Option<Arc<Segment>>> = hosts
        .iter()
        .map(|here| {
            let make = || Segment::create(here.len() as u32, &Config::default()).expect("a segment");
            (!here.is_empty()).then(|| Arc::new(make()))
        })
        .collect();
    let joined: Vec<_> = (0..count)
        .map(|me| {
            let host = host_of(me as usize);
            let local = hosts[host].iter().position(|&peer| peer == Peer(me)).expect("it is on its host");
            let segment = near[host].as_ref().expect("it has a rank");
            let near = segment.join(Peer(local as u32)).expect("a free seat");
            (near, far.join(Peer(me)).expect("a free seat"), hosts[host].clone())
        })
        .collect();
    let open = |(near, far, here): (selvedge_shm::Joined, selvedge_shm::Joined, Vec<Peer>)| {
        let far = Elsewhere::new(far.open().expect("all have joined"), here.clone());
        Roads::both(near.open().expect("all have joined"), here, far)
    };
    joined.into_iter().map(open).collect()
}

/// A thread for each peer, on hosts that `host_of` names.
struct Hosts {
    copy: CopyMode,
    host_of: fn(usize) -> usize,
}

impl Harness for Hosts {
    fn run(&self, group: Group, program: &Program<'_>) {
        let gathering = Gathering::new(group.peers);
        std::thread::scope(|scope| {
            for roads in on_hosts(group.peers, self.copy, self.host_of) {
                let gathering = &gathering;
                scope.spawn(move || play(roads, group, gathering, program));
            }
        });
    }

    fn can_kill(&self) -> bool {
        true
    }
}

fn play(mut roads: Roads<Elsewhere>, group: Group, gathering: &Gathering, program: &Program<'_>) {
    let start = Instant::now();
    let me = Some(roads.me());
    let (dies, goes) = (group.dies == me, group.dies == me || group.leaves == me);
    drive_alone(&mut roads, &|| start.elapsed(), program, gathering, goes, Duration::from_secs(60));
    if dies {
        let panic = AssertUnwindSafe(|| {
            let _roads = roads;
            std::panic::resume_unwind(Box::new("this rank dies"));
        });
        std::panic::catch_unwind(panic).expect_err("it panics");
    }
}

/// The first two share a host, and so do the next two.
mod in_pairs {
    use super::*;

    selvedge_transport::conformance_tests!(Hosts { copy: CopyMode::Auto, host_of: |peer| peer / 2 });
}

/// The first two are on different hosts, and the first and the third share one.
mod in_turn {
    use super::*;

    selvedge_transport::conformance_tests!(Hosts { copy: CopyMode::Auto, host_of: |peer| peer % 2 });
}

/// As before, with a far road that has no one-sided operations.
mod in_turn_without_one_sided {
    use super::*;

    selvedge_transport::conformance_tests!(Hosts { copy: CopyMode::Never, host_of: |peer| peer % 2 });
}

#[test]
fn each_peer_is_reached_by_the_road_of_its_place_with_that_roads_limits() {
    let roads = on_hosts(5, CopyMode::Auto, |peer| peer % 2);
    let names = |from: usize| -> Vec<&str> { (0..5).map(|to| roads[from].caps(Peer(to)).name).collect() };
    assert_eq!(names(0), ["shm", "far", "shm", "far", "shm"]);
    assert_eq!(names(3), ["far", "shm", "far", "shm", "far"]);
    assert_eq!(roads[0].caps(Peer(1)).packet_bytes_max, 1000);
    assert!(roads.iter().all(|roads| roads.near().is_some() && roads.far().is_some()));
}

#[test]
fn a_flood_from_the_near_road_does_not_keep_the_far_one_from_being_heard() {
    let mut roads = on_hosts(3, CopyMode::Auto, |peer| peer / 2);
    let [first, second, third] = &mut roads[..] else { unreachable!("three") };
    for _ in 0..4 * NEAR_TURNS {
        second.send(Peer(0), b"near", Buf::EMPTY).expect("there is room");
    }
    third.send(Peer(0), b"far", Buf::EMPTY).expect("there is room");
    for polls in 0.. {
        if let Some(Event::Packet { from, slot }) = first.poll() {
            first.release(slot);
            if from == Peer(2) {
                assert!(polls <= NEAR_TURNS + 1, "{polls} polls");
                return;
            }
        }
    }
}

#[test]
fn a_fault_of_the_near_road_names_the_peer_by_its_number_in_the_job() {
    let mut roads = on_hosts(4, CopyMode::Auto, |peer| peer % 2);
    drop(roads.remove(3));
    let start = Instant::now();
    let fault = loop {
        if let Some(Event::Fault(fault)) = roads[1].poll() {
            break fault;
        }
        roads[1].wait(Duration::from_millis(10));
        assert!(start.elapsed() < Duration::from_secs(10), "nothing is told");
    };
    assert_eq!((fault.scope, fault.cause), (Scope::Peer(Peer(3)), Cause::PeerLeft));
}
