//! Steps programs: all peers in one thread, or each in its own.

use std::future::Future;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::{Play, Program, Seat};
use crate::{Event, Peer, Transport};

/// Rounds after which a case that is driven in one thread counts as hanging. The longest takes a few thousand.
const ROUNDS_MAX: u32 = 200_000;

/// Who of a group is still at it. Shared by the threads of one group.
#[derive(Debug)]
pub struct Gathering {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    running: Vec<bool>,
    failed: bool,
}

impl Gathering {
    /// `peers` peers, all of them running.
    pub fn new(peers: usize) -> Gathering {
        Gathering { state: Mutex::new(State { running: vec![true; peers], failed: false }) }
    }

    fn with<R>(&self, look: impl FnOnce(&mut State) -> R) -> R {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn ended(&self, peer: Peer) {
        self.with(|state| state.running[peer.index()] = false);
    }

    fn all_ended(&self) -> bool {
        self.with(|state| !state.running.contains(&true))
    }

    fn running(&self) -> Vec<usize> {
        self.with(|state| (0..state.running.len()).filter(|&peer| state.running[peer]).collect())
    }
}

/// Steps `program` on all `transports` in turn until all have ended. Calls `ended(peer)` as soon
/// as the program of `peer` has returned, which is where a harness kills it or lets it leave.
///
/// `clock` is any clock that moves in [`Transport::wait`]. Panics when a case hangs.
pub fn drive_together<T: Transport>(
    transports: &mut [T],
    clock: &dyn Fn() -> Duration,
    program: &Program<'_>,
    ended: &dyn Fn(Peer),
) {
    let gathering = Gathering::new(transports.len());
    let mut plays: Vec<Option<Play<'_>>> = transports
        .iter_mut()
        .map(|transport| -> Option<Play<'_>> {
            Some(Box::pin(attend(transport, clock, program, &gathering, ended)))
        })
        .collect();
    for _ in 0..ROUNDS_MAX {
        for play in &mut plays {
            if play.as_mut().is_some_and(|play| step(play.as_mut()).is_ready()) {
                *play = None;
            }
        }
        if plays.iter().all(Option::is_none) {
            return;
        }
    }
    panic!("no end after {ROUNDS_MAX} rounds; still running: peers {:?}", gathering.running());
}

/// Steps `program` on one endpoint, in a thread of its own; the other peers of the group do the same with the same
/// `gathering`. Returns when all have ended, or, when `goes`, as soon as this one has: then the caller kills or drops it.
///
/// Panics when the case has not ended after `patience` by `clock`, or another peer has panicked.
pub fn drive_alone(
    transport: &mut dyn Transport,
    clock: &dyn Fn() -> Duration,
    program: &Program<'_>,
    gathering: &Gathering,
    goes: bool,
    patience: Duration,
) {
    let alarm = Alarm { gathering };
    let until = clock() + patience;
    let ended = &|_: Peer| {};
    if goes {
        let me = transport.me();
        run(program(Seat::new(transport, clock)), clock, until, gathering);
        gathering.ended(me);
    } else {
        run(attend(transport, clock, program, gathering, ended), clock, until, gathering);
    }
    std::mem::forget(alarm);
}

/// Tells the others when its thread panics.
struct Alarm<'a> {
    gathering: &'a Gathering,
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        self.gathering.with(|state| state.failed = true);
    }
}

fn run(play: impl Future<Output = ()>, clock: &dyn Fn() -> Duration, until: Duration, gathering: &Gathering) {
    let mut play = pin!(play);
    while step(play.as_mut()).is_pending() {
        assert!(!gathering.with(|state| state.failed), "another peer has failed");
        assert!(clock() < until, "no end; still running: peers {:?}", gathering.running());
    }
}

fn step(play: std::pin::Pin<&mut (impl Future<Output = ()> + ?Sized)>) -> Poll<()> {
    play.poll(&mut Context::from_waker(Waker::noop()))
}

/// Runs the program, then keeps the endpoint polled until everybody is through: others may need that to get on.
async fn attend(
    transport: &mut dyn Transport,
    clock: &dyn Fn() -> Duration,
    program: &Program<'_>,
    gathering: &Gathering,
    ended: &dyn Fn(Peer),
) {
    let me = transport.me();
    program(Seat::new(transport, clock)).await;
    gathering.ended(me);
    ended(me);
    while !gathering.all_ended() {
        while let Some(event) = transport.poll() {
            if let Event::Packet { slot, .. } = event {
                transport.release(slot);
            }
        }
        transport.wait(Seat::TURN);
        Seat::step_aside().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Buf, Sim, SimConfig, conformance::Group};

    const PATIENCE: Duration = Duration::from_secs(1);

    fn alone(program: &Program<'_>, gathering: &Gathering, goes: bool) {
        let group = Group::of(1);
        let sim = Sim::new(SimConfig { peers: group.peers, ..SimConfig::default() });
        let mut port = sim.port(Peer(0));
        drive_alone(&mut port, &|| sim.now(), program, gathering, goes, PATIENCE);
    }

    #[test]
    fn a_peer_driven_alone_runs_to_its_end() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let program: &Program<'_> = &|mut seat| {
            let heard = Arc::clone(&heard);
            Box::pin(async move {
                seat.send(Peer(0), b"me", Buf::EMPTY).await;
                let (_, bytes) = seat.packet().await;
                heard.lock().expect("one thread").push(bytes);
                seat.finish().await;
            })
        };
        for goes in [false, true] {
            let gathering = Gathering::new(1);
            alone(program, &gathering, goes);
            assert!(gathering.all_ended());
        }
        assert_eq!(*heard.lock().unwrap(), [b"me", b"me"]);
    }

    #[test]
    #[should_panic(expected = "no end; still running: peers [0]")]
    fn a_peer_that_waits_for_nothing_is_given_up_when_patience_ends() {
        let program: &Program<'_> = &|mut seat| Box::pin(async move { drop(seat.packet().await) });
        alone(program, &Gathering::new(1), false);
    }

    #[test]
    #[should_panic(expected = "another peer has failed")]
    fn a_failing_peer_ends_the_others() {
        let gathering = Gathering::new(1);
        drop(Alarm { gathering: &gathering });
        alone(&|mut seat| Box::pin(async move { drop(seat.packet().await) }), &gathering, false);
    }
}
