//! Somebody who can reach an endpoint, has libfabric and even the card of a rank, and not the job's secret.

mod common;

use std::sync::Once;
use std::time::{Duration, Instant};

use common::Origin;
use selvedge_ofi::{Ofi, Opening, Provider, Terms};
use selvedge_transport::{Acquaint, Buf, Cause, Event, Peer, Scope, Transport};

/// Packets of each kind.
const PACKETS: usize = 100;

/// Two ranks of a job, and a stranger who says that it is the second of them.
fn scene(origin: Origin) -> (Ofi, Ofi, Ofi) {
    // Intel's libfabric has its providers as plug-ins. Another libfabric that starts later in the same process finds them by
    // their names, takes them for its own, and crashes in them.
    static BEFORE_INTELS: Once = Once::new();
    BEFORE_INTELS.call_once(|| drop(common::road(Origin::Wheel, Provider::Tcp)));
    let (choice, settings) = common::road(origin, Provider::Tcp);
    let open = |me| Opening::open(&choice, Peer(me), &settings).expect("an endpoint");
    let (first, second, stranger) = (open(0), open(1), open(1));
    let cards = vec![first.card(), second.card()];
    // All is as in the job but for the secret: the stranger has never seen the card of the rank that it plays.
    let guessed = Terms::of(&[first.card(), stranger.card()]).expect("good cards");
    let target = first.card();
    let first = first.connect(cards.clone()).expect("good cards");
    let second = second.connect(cards).expect("good cards");
    let mut stranger = stranger.join(&guessed, 2, Vec::new()).expect("a transport");
    stranger.introduce(Peer(0), Ok(&target));
    (first, second, stranger)
}

fn packets_of_a_stranger_are_dropped(origin: Origin) {
    let (mut first, mut second, mut stranger) = scene(origin);
    let (mut honest, mut forged, mut heard, mut said) = (0, 0, 0, Vec::new());
    let start = Instant::now();
    while heard < PACKETS || first.foreign_packets() < PACKETS as u64 {
        assert!(start.elapsed() < Duration::from_secs(60), "{heard} packets, {}", first.foreign_packets());
        if honest < PACKETS && second.send(Peer(0), b"honest", Buf::EMPTY).is_ok() {
            honest += 1;
        }
        if forged < PACKETS && stranger.send(Peer(0), b"forged", Buf::EMPTY).is_ok() {
            forged += 1;
        }
        while let Some(event) = first.poll() {
            match event {
                Event::Packet { from, slot } => {
                    assert_eq!((from, first.packet(&slot)), (Peer(1), &b"honest"[..]));
                    first.release(slot);
                    heard += 1;
                }
                Event::Fault(fault) => said.push(fault),
                other => panic!("{other:?}"),
            }
        }
        while second.poll().is_some() || stranger.poll().is_some() {}
        std::thread::yield_now();
    }
    assert_eq!(said.len(), 1, "they are spoken of once: {said:?}");
    assert_eq!((said[0].scope, said[0].cause), (Scope::Local, Cause::Malformed));
    // Its goodbye is not believed either.
    let gone = std::thread::spawn(move || drop(stranger));
    let start = Instant::now();
    while !gone.is_finished() || start.elapsed() < Duration::from_millis(200) {
        assert!(first.poll().is_none(), "nobody of the job has gone");
        assert!(second.poll().is_none());
    }
    gone.join().expect("it leaves");
    drop((first, second));
}

#[test]
fn packets_of_a_stranger_are_dropped_and_those_of_the_job_arrive_with_the_systems_libfabric() {
    packets_of_a_stranger_are_dropped(Origin::Distribution);
}

#[test]
fn packets_of_a_stranger_are_dropped_and_those_of_the_job_arrive_with_a_libfabric_of_a_wheel() {
    packets_of_a_stranger_are_dropped(Origin::Wheel);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn packets_of_a_stranger_are_dropped_and_those_of_the_job_arrive_with_intels_libfabric() {
    packets_of_a_stranger_are_dropped(Origin::Intel);
}
