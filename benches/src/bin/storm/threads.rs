//! Real threads: several of each rank of a job communicate at the same time by the public API, each by a program that all ranks
//! draw from the seed.
//!
//! Thread `t` of every rank does the same steps: an exchange around the ring of ranks with the threads `t` of two others, each
//! time another way, and on communicators that it makes, every collective. After its steps each thread throws messages at
//! ranks, where whichever thread is there first receives them. Every byte is a function of the seed, so every receiver
//! knows what it must get.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use selvedge::{ANY_SOURCE, Communicator, Error, Team, World};
use selvedge_transport::Rng;

use crate::communicators::Communicators;
use crate::real;
use crate::ways::{LENGTHS, Line, Rounds, WAYS, Wrong};

/// Steps of a thread for each seed.
const STEPS: u64 = 8;
/// Steps of it on communicators of its own.
const OWN_STEPS: u64 = 4;
/// Messages that a thread throws, at most, for each seed.
const THROWN_MAX: u64 = 6;
/// Those of the first seed have this tag, those of the next the next one. Below are the tags of threads.
const THROWN_TAG: i32 = 1 << 20;
/// Streams of random numbers.
const PROGRAM: u64 = 8;
const CONTENT: u64 = 9;
const THROWS: u64 = 10;
const OWN: u64 = 12;

/// What came of it on this rank.
pub(crate) struct Report {
    /// Messages sent.
    pub(crate) messages: usize,
    /// Names of the roads that were there.
    pub(crate) roads: String,
}

/// What the threads of a rank have in common.
struct Scene {
    first: u64,
    seeds: u64,
    threads: usize,
    ranks: usize,
    team: Team,
    /// One communicator for each thread, for its collectives.
    own: Vec<Team>,
    /// For each seed, how many thrown messages were taken by some thread.
    taken: Vec<AtomicUsize>,
    sent: AtomicUsize,
}

/// Runs the programs of `seeds` seeds on so many threads of every rank. A thread that sees something wrong ends the job.
pub(crate) fn run(world: &World, first: u64, seeds: u64, threads: usize) -> Result<Report, String> {
    let roads = real::roads(world).1;
    let duplicates: Result<Vec<Communicator>, Error> = (0..threads).map(|_| world.dup()).collect();
    let duplicates = duplicates.map_err(|error| format!("communicators for the threads: {error}"))?;
    let scene = Scene {
        first,
        seeds,
        threads,
        ranks: world.size(),
        team: world.team(),
        own: duplicates.iter().map(Communicator::team).collect(),
        taken: (0..seeds).map(|_| AtomicUsize::new(0)).collect(),
        sent: AtomicUsize::new(0),
    };
    thread::scope(|scope| {
        for index in 0..threads {
            let scene = &scene;
            scope.spawn(move || play(scene, index));
        }
    });
    world.barrier().map_err(|error| format!("the barrier behind it: {error}"))?;
    Ok(Report { messages: scene.sent.into_inner(), roads })
}

/// All programs of one thread.
fn play(scene: &Scene, index: usize) {
    let mut thread = Thread {
        scene,
        index,
        mine: scene.team.communicator(),
        own: scene.own[index].communicator(),
        sent: 0,
    };
    for turn in 0..scene.seeds {
        let seed = scene.first + turn;
        let played = (0..STEPS).try_for_each(|step| thread.step(seed, step));
        let played = played.and_then(|()| thread.play_alone(seed));
        if let Err(why) = played.and_then(|()| thread.throw_and_catch(seed, turn)) {
            eprintln!("storm: seed {seed}, rank {}, thread {index}: {why}", thread.mine.rank());
            thread.mine.abort(1);
        }
    }
    scene.sent.fetch_add(thread.sent, Ordering::Relaxed);
}

/// One thread of one rank.
struct Thread<'a> {
    scene: &'a Scene,
    index: usize,
    mine: Communicator,
    own: Communicator,
    sent: usize,
}

impl Thread<'_> {
    fn step(&mut self, seed: u64, step: u64) -> Result<(), String> {
        let mut rng = Rng::new(seed).child(PROGRAM << 32 | (self.index as u64) << 8 | step);
        let (me, ranks) = (self.mine.rank(), self.scene.ranks);
        let shift = rng.index(ranks);
        let (to, from) = ((me + shift) % ranks, (me + ranks - shift) % ranks);
        let bytes = *rng.pick(&LENGTHS);
        let content = |rank: usize, round: u64| {
            let label = CONTENT << 56 | (rank as u64) << 32 | (self.index as u64) << 16 | step << 8 | round;
            Rng::new(seed).child(label).bytes(bytes)
        };
        let way = rng.below(WAYS.len() as u64) as usize;
        let (name, rounds, exchange) = WAYS[way];
        let (mut out, mut into) = (content(me, 0), vec![0; bytes]);
        let line = Line { communicator: &self.mine, to, from, tag: self.index as i32 };
        let judge = |round: u64, got: &[u8]| match got == content(from, round) {
            true => Ok(()),
            false => Err(format!("wrong bytes in round {round} of {bytes} bytes from rank {from} by {name}")),
        };
        exchange(&line, &mut out, &mut into, &Rounds { next: &|round| content(me, round), judge: &judge })
            .map_err(|wrong| wrong.of(|| format!("{name} of {bytes} bytes to {to} and from {from}")))?;
        self.sent += rounds;
        Ok(())
    }

    /// Makes communicators out of its own, and calls everything on them, while the other threads do.
    fn play_alone(&mut self, seed: u64) -> Result<(), String> {
        let rng = Rng::new(seed).child(OWN << 32 | self.index as u64);
        self.sent += Communicators::play(&self.own, rng, self.index as i32, OWN_STEPS)?;
        Ok(())
    }

    /// Sends messages to any rank, and receives whichever were sent to this one.
    fn throw_and_catch(&mut self, seed: u64, turn: u64) -> Result<(), String> {
        let (me, tag) = (self.mine.rank(), THROWN_TAG + turn as i32);
        let thrown = throws(self.scene, seed, me, self.index);
        let expected: usize = (0..self.scene.ranks)
            .flat_map(|rank| (0..self.scene.threads).map(move |thread| (rank, thread)))
            .map(|(rank, thread)| {
                throws(self.scene, seed, rank, thread).iter().filter(|(to, _)| *to == me).count()
            })
            .sum();
        let taken = &self.scene.taken[turn as usize];
        let mine = &self.mine;
        mine.scope(|scope| {
            let mut sends = Vec::new();
            for (to, message) in &thrown {
                sends.push(scope.isend(message, *to, tag)?);
            }
            while taken.fetch_add(1, Ordering::Relaxed) < expected {
                let (got, status) = mine.recv_vec::<u64>(ANY_SOURCE, tag)?;
                let sender = got.first().map_or(usize::MAX, |&thread| thread as usize);
                let known = sender < self.scene.threads
                    && throws(self.scene, seed, status.source, sender)
                        .iter()
                        .any(|(to, message)| *to == me && *message == got);
                if !known {
                    return Err(Wrong::Bytes(format!("rank {} has not thrown {got:?}", status.source)));
                }
            }
            selvedge::wait_all(sends)?;
            Ok(())
        })
        .map_err(|wrong| wrong.of(|| "messages thrown".to_owned()))?;
        self.sent += thrown.len();
        Ok(())
    }
}

/// What a thread throws: to whom, and its own number, the number of the message, and as many words more as that is.
fn throws(scene: &Scene, seed: u64, rank: usize, thread: usize) -> Vec<(usize, Vec<u64>)> {
    let mut rng = Rng::new(seed).child(THROWS << 56 | (rank as u64) << 32 | thread as u64);
    (0..rng.below(THROWN_MAX))
        .map(|number| {
            let (to, words) = (rng.index(scene.ranks), *rng.pick(&[0, 3, 40, 2_000]));
            let words = (0..words).map(|_| rng.bits());
            (to, [thread as u64, number].into_iter().chain(words).collect())
        })
        .collect()
}
