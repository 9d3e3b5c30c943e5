//! Runs a program on the simulated network: all ranks in one thread, stepped in an order drawn from the seed.

use selvedge::runtime::Runtime;
use selvedge_engine::{Config, Engine, Mutant, credit};
use selvedge_transport::{Peer, Rng, Sim, SimPort};

use crate::mutate::ScheduleMutant;
use crate::oracle::History;
use crate::player::{Notes, Player, Scene};
use crate::program::Program;

/// A defect put in on purpose, to see whether the storm notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Defect {
    /// In the engine.
    Engine(Mutant),
    /// In the schedules.
    Schedule(ScheduleMutant),
}

/// What a run that went well amounts to.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tally {
    /// Messages started.
    pub(crate) messages: u64,
    /// Collectives, counted once per group.
    pub(crate) collectives: u64,
    /// Communicators made, counted by each rank.
    pub(crate) communicators: u64,
    /// Ranks that died.
    pub(crate) deaths: u64,
    /// Ranks that left in order.
    pub(crate) leavings: u64,
    /// Digest of everything that crossed the network.
    pub(crate) trace: u64,
}

/// More steps than any program takes.
const STEPS_MAX: u64 = 3_000_000;

/// Runs the program of a seed. The error says what went wrong, in a sentence.
pub(crate) fn run(seed: u64, defect: Option<Defect>) -> Result<Tally, String> {
    let program = Program::new(seed);
    let mut storm = Storm::new(&program, defect);
    storm.play_out()?;
    storm.verdict()
}

struct Storm<'a> {
    scene: Scene<'a>,
    sim: Sim,
    players: Vec<(Player, Runtime<SimPort>)>,
    /// Those who neither died nor left.
    alive: Vec<bool>,
    notes: Notes,
    rng: Rng,
}

impl<'a> Storm<'a> {
    fn new(program: &'a Program, defect: Option<Defect>) -> Storm<'a> {
        let sim = Sim::new(program.network.clone());
        let players = sim.ports().into_iter().enumerate().map(|(rank, port)| {
            let mutant = if let Some(Defect::Engine(mutant)) = defect { Some(mutant) } else { None };
            let config = Config { mutant, ..program.config.clone() };
            (Player::new(rank, program), Runtime::new(Engine::new(port, config)))
        });
        let defect = if let Some(Defect::Schedule(mutant)) = defect { Some(mutant) } else { None };
        Storm {
            scene: Scene { defect, ..Scene::new(program) },
            players: players.collect(),
            alive: vec![true; program.network.peers],
            notes: Notes { history: History::new(program), tally: Tally::default() },
            rng: Rng::new(program.seed).child(7),
            sim,
        }
    }

    /// Steps ranks in random order until all are through, or nothing can move any more.
    fn play_out(&mut self) -> Result<(), String> {
        let ranks = self.players.len();
        // How often in a row somebody was asked in vain while the network was empty: nobody will move any more.
        let (mut quiet, quiet_max) = (0, 64 * (ranks + 1));
        for step in 0..STEPS_MAX {
            if let Some((victim, when)) = self.scene.program.victim
                && self.alive[victim]
                && (step >= when || quiet > quiet_max)
            {
                quiet = 0;
                self.sim.kill(Peer(victim as u32));
                self.alive[victim] = false;
                self.notes.tally.deaths += 1;
            }
            if (0..ranks).all(|rank| !self.alive[rank] || self.is_through(rank)) {
                return Ok(());
            }
            if quiet > quiet_max {
                return Err(self.who_waits());
            }
            let rank = self.rng.index(ranks);
            if self.may_leave(rank) {
                self.sim.leave(Peer(rank as u32));
                self.alive[rank] = false;
                self.notes.tally.leavings += 1;
            }
            if self.alive[rank] && self.step(rank)? {
                quiet = 0;
                continue;
            }
            quiet = if self.sim.idle() { quiet + 1 } else { 0 };
            if self.rng.one_in(3) {
                self.sim.advance();
            }
        }
        Err(format!("no end after {STEPS_MAX} steps; {}", self.who_waits()))
    }

    fn is_through(&self, rank: usize) -> bool {
        self.players[rank].0.is_through(self.scene.program)
    }

    /// Whether a rank can return from main now: it is through, and nobody waits for a word of it. Where somebody dies
    /// all stay, because then messages get lost, and who waits for their end would be told of the leaving as well.
    fn may_leave(&self, rank: usize) -> bool {
        self.alive[rank]
            && self.scene.program.victim.is_none()
            && self.is_through(rank)
            && self.players[rank].1.engine().has_answered()
    }

    /// One move of one rank. Says whether anything happened.
    fn step(&mut self, rank: usize) -> Result<bool, String> {
        let (player, runtime) = &mut self.players[rank];
        player.step(runtime, &self.scene, &mut self.notes)
    }

    /// Everybody is through: what came out must be what went in.
    fn verdict(mut self) -> Result<Tally, String> {
        let program = self.scene.program;
        let complete = program.victim.is_none();
        self.notes.history.check(program, |_| complete)?;
        for (rank, (player, runtime)) in self.players.iter().enumerate() {
            let stats = runtime.engine().stats();
            // The limit, or what every peer may send in any case.
            let limit =
                program.config.unexpected_bytes_limit.max(self.players.len() as u64 * credit::BYTES_MIN);
            if stats.unexpected_bytes_max > limit {
                let held = stats.unexpected_bytes_max;
                return Err(format!(
                    "rank {rank} held {held} bytes of unexpected messages, more than its {limit}"
                ));
            }
            if complete && stats.unexpected_bytes != 0 {
                return Err(format!("rank {rank} still holds {} bytes at the end", stats.unexpected_bytes));
            }
            if complete && player.communicators() != 0 {
                let left = player.communicators();
                return Err(format!(
                    "rank {rank} has {left} numbers of communicators at the end that it has not"
                ));
            }
            let holds = |peer: &usize| runtime.engine().units_held(Peer(*peer as u32)) > 0;
            if complete && let Some(peer) = (0..self.players.len()).find(holds) {
                return Err(format!("rank {rank} holds credit of rank {peer} at the end for nothing"));
            }
        }
        self.notes.tally.trace = self.sim.trace_hash();
        Ok(self.notes.tally)
    }

    /// Who waits for what, when nobody can move.
    fn who_waits(&self) -> String {
        let waiting: Vec<String> = (0..self.players.len())
            .filter(|&rank| self.alive[rank] && !self.is_through(rank))
            .map(|rank| self.players[rank].0.waits_for())
            .collect();
        format!("nobody moves any more; waiting: {}", waiting.join(", "))
    }
}
