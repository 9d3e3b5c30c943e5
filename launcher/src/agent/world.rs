//! The worlds of this host: of each the ranks that are here, the PMI server that they talk to, and how far their end has
//! come. mpirun says when a world begins and when nobody speaks of it any more.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use selvedge_boot::Server;

use super::board::Board;
use super::rank::Rank;
use super::{CLOSED_PATIENCE, KILL_PATIENCE};
use crate::proto::{Launch, Member};

/// A rank of this host: its world, and its place among the ranks of that world that are here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) world: u32,
    pub(super) local: u32,
}

/// What was started together, as far as it is here. Every host has every world, for its PMI server is part of a tree.
#[derive(Debug)]
pub(super) struct World {
    number: u32,
    pub(super) server: Server,
    /// Where ranks write down what they wait for.
    pub(super) board: Option<Board>,
    /// In the order of their numbers.
    pub(super) ranks: Vec<Rank>,
    pub(super) killed: u32,
    end: Option<End>,
    /// None of its ranks is left here, and mpirun knows.
    pub(super) is_over: bool,
}

/// An end that is under way.
#[derive(Clone, Copy, Debug)]
enum End {
    /// SIGTERM is out; SIGKILL follows.
    Term { kill_at: Instant },
    /// SIGKILL is out.
    Kill { give_up_at: Instant },
}

impl World {
    /// Without a rank so far. Where none is to be here, it is over already.
    pub(super) fn new(launch: &Launch, locals: u32, server: Server) -> World {
        World {
            number: launch.world,
            server,
            board: Board::new(locals),
            ranks: Vec::new(),
            killed: 0,
            end: None,
            is_over: locals == 0,
        }
    }

    /// A rank of it as the job knows it.
    pub(super) fn member(&self, rank: u32) -> Member {
        Member { world: self.number, rank }
    }

    /// Which of the ranks here has this number.
    pub(super) fn find(&self, rank: u32) -> Option<Place> {
        let at = self.ranks.binary_search_by_key(&rank, |rank| rank.number).ok()?;
        Some(Place { world: self.number, local: u32::try_from(at).expect("a rank is a u32") })
    }

    /// Ranks that have not been waited for.
    pub(super) fn running(&self) -> u32 {
        u32::try_from(self.ranks.iter().filter(|rank| rank.running).count()).expect("a rank is a u32")
    }

    /// Sends all ranks that still run a signal, their process groups included.
    pub(super) fn signal(&self, signal: Signal) {
        for rank in self.ranks.iter().filter(|rank| rank.running) {
            // The group is there as long as its leader has not been waited for.
            let _ = kill_process_group(rank.pid, signal);
        }
    }

    /// All of it is to end within a grace. Said again, the shorter one counts.
    pub(super) fn handle_end(&mut self, grace: Duration, now: Instant) {
        let kill_at = now + grace;
        match self.end {
            Some(End::Kill { .. }) => {}
            Some(End::Term { kill_at: before }) => {
                self.end = Some(End::Term { kill_at: before.min(kill_at) });
            }
            None => {
                if !grace.is_zero() {
                    self.signal(Signal::TERM);
                    // A stopped process does not notice SIGTERM.
                    self.signal(Signal::CONT);
                }
                self.end = Some(End::Term { kill_at });
            }
        }
    }

    /// The grace is over.
    pub(super) fn handle_time(&mut self, now: Instant) {
        if let Some(End::Term { kill_at }) = self.end
            && now >= kill_at
        {
            self.killed = self.running();
            self.signal(Signal::KILL);
            self.end = Some(End::Kill { give_up_at: now + KILL_PATIENCE });
        }
    }

    /// When time alone changes something.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let end = self.end.filter(|_| !self.is_over).map(|end| match end {
            End::Term { kill_at } => kill_at,
            End::Kill { give_up_at } => give_up_at,
        });
        let closed = self.ranks.iter().filter_map(|rank| rank.closed_at).map(|at| at + CLOSED_PATIENCE);
        closed.chain(end).min()
    }

    /// All ranks have ended and all they wrote is on its way; or they will not end.
    pub(super) fn is_empty(&self, now: Instant) -> bool {
        let given_up = matches!(self.end, Some(End::Kill { give_up_at }) if now >= give_up_at);
        given_up || self.ranks.iter().all(|rank| !rank.running && rank.is_mute())
    }
}

/// All of them, by number.
#[derive(Debug, Default)]
pub(super) struct Worlds(BTreeMap<u32, World>);

impl Worlds {
    pub(super) fn add(&mut self, world: World) {
        self.0.insert(world.number, world);
    }

    pub(super) fn remove(&mut self, world: u32) {
        self.0.remove(&world);
    }

    pub(super) fn get_mut(&mut self, world: u32) -> Option<&mut World> {
        self.0.get_mut(&world)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &World> {
        self.0.values()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut World> {
        self.0.values_mut()
    }

    pub(super) fn numbers(&self) -> Vec<u32> {
        self.0.keys().copied().collect()
    }

    /// `None` where its world has been forgotten meanwhile.
    pub(super) fn rank(&self, place: Place) -> Option<&Rank> {
        self.0.get(&place.world)?.ranks.get(place.local as usize)
    }

    pub(super) fn rank_mut(&mut self, place: Place) -> Option<&mut Rank> {
        self.0.get_mut(&place.world)?.ranks.get_mut(place.local as usize)
    }

    /// Every rank that is here, or was, until its world is forgotten.
    pub(super) fn places(&self) -> Vec<Place> {
        let places = |world: &World| {
            let (world, ranks) = (world.number, u32::try_from(world.ranks.len()).expect("a rank is a u32"));
            (0..ranks).map(move |local| Place { world, local })
        };
        self.iter().flat_map(places).collect()
    }

    /// The processes of ranks that have not been waited for.
    pub(super) fn processes(&self) -> Vec<(Pid, Place)> {
        let running =
            |place: Place| self.rank(place).filter(|rank| rank.running).map(|rank| (rank.pid, place));
        self.places().into_iter().filter_map(running).collect()
    }

    /// Whether some rank has not been waited for.
    pub(super) fn are_running(&self) -> bool {
        self.iter().flat_map(|world| &world.ranks).any(|rank| rank.running)
    }

    /// Ranks that have closed their PMI connection and run on for too long.
    pub(super) fn overdue(&self, now: Instant) -> Vec<Place> {
        let is_overdue = |rank: &Rank| rank.closed_at.is_some_and(|at| now >= at + CLOSED_PATIENCE);
        let of_world = |world: &World| {
            let overdue = world.ranks.iter().filter(|rank| is_overdue(rank));
            overdue.filter_map(|rank| world.find(rank.number)).collect::<Vec<_>>()
        };
        self.iter().flat_map(of_world).collect()
    }

    /// How many ranks are here, ended ones that are not forgotten included.
    pub(super) fn ranks(&self) -> u32 {
        self.iter().map(|world| u32::try_from(world.ranks.len()).expect("a rank is a u32")).sum()
    }

    pub(super) fn are_over(&self) -> bool {
        self.iter().all(|world| world.is_over)
    }
}
