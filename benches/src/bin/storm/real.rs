//! Runs programs on a real job: one rank is this process, and the roads are those its launcher led it to.
//!
//! Every rank draws the same program from the seed, plays its own part and judges what came to it: what the others have sent,
//! and in which order, it knows from the program. The ranks meet in a barrier behind each program, and then make communicators
//! and go through calls of the public API on them.

use std::time::{Duration, Instant};

use selvedge::World;
use selvedge::runtime::{Guest, Runtime};
use selvedge_engine::credit;
use selvedge_transport::{Rng, Transport};

use crate::communicators::Communicators;
use crate::drive::Tally;
use crate::mutate::ScheduleMutant;
use crate::oracle::History;
use crate::player::{Notes, Player, Scene};
use crate::program::Program;

/// Longest that a program may take: a hundred times what one takes on a lossy road.
const PROGRAM_MAX: Duration = Duration::from_secs(60);
/// Between two looks at the clock while nothing happens.
const NAP: Duration = Duration::from_millis(5);
/// Contexts of the first program, out of the way of the world's own, and how many a program has.
const FIRST_CONTEXT: u32 = 1 << 31;
const CONTEXTS_EACH: u32 = 1 << 10;
/// Steps on communicators behind each program, and their stream of random numbers.
const STEPS: u64 = 12;
const CALLS: u64 = 11;

/// What a real storm comes to on this rank.
pub(crate) struct Report {
    /// Sum over the programs, of this rank's doing.
    pub(crate) tally: Tally,
    /// Names of the roads that were there.
    pub(crate) roads: String,
}

/// Runs the programs of `seeds` seeds from `first` on. The error names the seed and says what went wrong.
pub(crate) fn run(
    world: &World,
    first: u64,
    seeds: u64,
    defect: Option<ScheduleMutant>,
) -> Result<Report, String> {
    let (mine, roads) = roads(world);
    // Ranks may have different roads; all must draw the same program.
    let mut packet_bytes = [mine as u64];
    world.broadcast(&mut packet_bytes, 0).map_err(|error| format!("the first broadcast: {error}"))?;
    let mut total = Tally::default();
    for (turn, seed) in (first..first + seeds).enumerate() {
        let program = Program::for_job(seed, world.size(), packet_bytes[0] as usize);
        let first_context = FIRST_CONTEXT + turn as u32 * CONTEXTS_EACH;
        let scene = Scene { first_context, defect, ..Scene::new(&program) };
        let tally =
            world.host_guest(Play { rank: world.rank(), scene }).map_err(|why| of_seed(seed, &why))?;
        world.barrier().map_err(|error| of_seed(seed, &format!("the barrier behind it: {error}")))?;
        let called = Communicators::play(world, Rng::new(seed).child(CALLS << 32), 0, STEPS);
        total.messages += called.map_err(|why| of_seed(seed, &why))? as u64;
        total.messages += tally.messages;
        total.collectives += tally.collectives;
    }
    Ok(Report { tally: total, roads })
}

/// The largest packet of any road of this rank, and the names of its roads.
pub(crate) fn roads(world: &World) -> (usize, String) {
    world.host_guest(Roads)
}

fn of_seed(seed: u64, why: &str) -> String {
    format!("seed {seed}: {why}")
}

/// Asks for the largest packet of any road, and the names of the roads.
struct Roads;

impl Guest for Roads {
    type Output = (usize, String);

    fn visit<T: Transport>(self, runtime: &mut Runtime<T>) -> (usize, String) {
        let roads = runtime.engine().transport().roads();
        let names: Vec<_> = roads.iter().map(|caps| caps.name).collect();
        let largest = roads.iter().map(|caps| caps.packet_bytes_max).max();
        (largest.unwrap_or_default(), names.join(" and "))
    }
}

/// Plays one rank's part of a program.
struct Play<'a> {
    rank: usize,
    scene: Scene<'a>,
}

impl Guest for Play<'_> {
    type Output = Result<Tally, String>;

    fn visit<T: Transport>(self, runtime: &mut Runtime<T>) -> Result<Tally, String> {
        let Play { rank, scene } = self;
        let history = History::with_all_sent(scene.program);
        let (mut player, mut notes) =
            (Player::new(rank, scene.program), Notes { history, tally: Tally::default() });
        if let Err(why) = play(&mut player, runtime, &scene, &mut notes) {
            // The engine may still write to what is open.
            std::mem::forget(player);
            return Err(why);
        }
        notes.history.check(scene.program, |message| message.dest == rank)?;
        check_bounds(runtime, scene.program.network.peers)?;
        Ok(notes.tally)
    }
}

/// Until this rank is through and nobody waits for a word of it.
fn play<T: Transport>(
    player: &mut Player,
    runtime: &mut Runtime<T>,
    scene: &Scene<'_>,
    notes: &mut Notes,
) -> Result<(), String> {
    let deadline = Instant::now() + PROGRAM_MAX;
    while !player.is_through(scene.program) || !runtime.engine().has_answered() {
        if player.step(runtime, scene, notes)? {
            continue;
        }
        if Instant::now() > deadline {
            return Err(format!("no end after {} s: {}", PROGRAM_MAX.as_secs(), player.waits_for()));
        }
        runtime.wait(NAP);
    }
    Ok(())
}

/// What the engine of a real job may hold of messages that nobody asked for yet.
fn check_bounds<T: Transport>(runtime: &Runtime<T>, ranks: usize) -> Result<(), String> {
    let limit =
        selvedge_engine::Config::default().unexpected_bytes_limit.max(ranks as u64 * credit::BYTES_MIN);
    let held = runtime.engine().stats().unexpected_bytes_max;
    if held <= limit {
        Ok(())
    } else {
        Err(format!("{held} bytes of unexpected messages, more than {limit}"))
    }
}
