//! The suite of the contract, over threads of this process, on each provider of each libfabric.

mod common;

use std::time::{Duration, Instant};

use common::Origin;
use selvedge_ofi::{Choice, Ofi, Opening, Provider, Settings};
use selvedge_transport::conformance::{Gathering, Group, Harness, Program, drive_alone};
use selvedge_transport::{Peer, Transport};

/// A thread for each peer.
struct Threads {
    road: fn() -> (Choice, Settings),
}

impl Harness for Threads {
    fn run(&self, group: Group, program: &Program<'_>) {
        let (choice, settings) = (self.road)();
        let peers = u32::try_from(group.peers).expect("a handful");
        let open = |me| Opening::open(&choice, Peer(me), &settings).expect("an endpoint");
        let openings: Vec<Opening> = (0..peers).map(open).collect();
        let cards: Vec<Vec<u8>> = openings.iter().map(Opening::card).collect();
        let gathering = Gathering::new(group.peers);
        std::thread::scope(|scope| {
            for opening in openings {
                let (gathering, cards) = (&gathering, cards.clone());
                scope.spawn(move || {
                    play(opening.connect(cards).expect("good cards"), group, gathering, program)
                });
            }
        });
    }

    fn can_kill(&self) -> bool {
        true
    }
}

fn play(mut ofi: Ofi, group: Group, gathering: &Gathering, program: &Program<'_>) {
    let start = Instant::now();
    let me = Some(ofi.me());
    let (dies, goes) = (group.dies == me, group.dies == me || group.leaves == me);
    drive_alone(&mut ofi, &|| start.elapsed(), program, gathering, goes, Duration::from_secs(60));
    if dies {
        // The death of a thread is a panic that drops its transport on the way.
        let panic = std::panic::AssertUnwindSafe(|| {
            let _ofi = ofi;
            std::panic::resume_unwind(Box::new("this rank dies"));
        });
        std::panic::catch_unwind(panic).expect_err("it panics");
    }
}

mod tcp_of_the_distribution {
    use super::*;

    selvedge_transport::conformance_tests!(Threads {
        road: || common::road(Origin::Distribution, Provider::Tcp)
    });
}

mod tcp_of_a_wheel {
    use super::*;

    selvedge_transport::conformance_tests!(Threads { road: || common::road(Origin::Wheel, Provider::Tcp) });
}

#[cfg(target_arch = "x86_64")]
mod tcp_of_intel {
    use super::*;

    selvedge_transport::conformance_tests!(Threads { road: || common::road(Origin::Intel, Provider::Tcp) });
}
