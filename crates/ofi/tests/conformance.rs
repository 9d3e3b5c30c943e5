//! The suite of the contract, over threads of this process, on each provider of each libfabric.

mod common;

use std::time::{Duration, Instant};

use common::Origin;
use selvedge_ofi::{Choice, Ofi, Opening, Provider, Settings, Terms};
use selvedge_transport::conformance::{Gathering, Group, Harness, Program, drive_alone};
use selvedge_transport::{Directory, Fault, Introduced, Peer, Transport};

/// A thread for each peer.
struct Threads {
    road: fn() -> (Choice, Settings),
}

/// The cards of all, which each asks for when it needs one.
struct Cards<'a>(&'a [Vec<u8>]);

impl Directory for Cards<'_> {
    fn card(&mut self, of: Peer) -> Result<Vec<u8>, Box<Fault>> {
        Ok(self.0[of.index()].clone())
    }
}

impl Harness for Threads {
    fn run(&self, group: Group, program: &Program<'_>) {
        let (choice, settings) = (self.road)();
        let peers = u32::try_from(group.peers).expect("a handful");
        let open = |me| Opening::open(&choice, Peer(me), &settings).expect("an endpoint");
        let openings: Vec<Opening> = (0..peers).map(open).collect();
        let cards: Vec<Vec<u8>> = openings.iter().map(Opening::card).collect();
        let terms = Terms::of(&cards).expect("good cards");
        let gathering = Gathering::new(group.peers);
        std::thread::scope(|scope| {
            for opening in openings {
                let (gathering, cards, terms) = (&gathering, Cards(&cards), &terms);
                scope.spawn(move || {
                    let ofi = opening.join(terms, group.peers, Vec::new()).expect("a transport");
                    play(Introduced::new(ofi, cards), group, gathering, program)
                });
            }
        });
    }

    fn can_kill(&self) -> bool {
        true
    }
}

fn play(mut ofi: Introduced<Ofi, Cards<'_>>, group: Group, gathering: &Gathering, program: &Program<'_>) {
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
