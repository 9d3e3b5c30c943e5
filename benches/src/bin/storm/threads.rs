//! Real threads: several of each rank of a job communicate at the same time by the public API, each by a program that all ranks
//! draw from the seed.
//!
//! Thread `t` of every rank does the same steps: an exchange around the ring of ranks with the threads `t` of two others, each
//! time another way, or a collective with all of them. After its steps each thread throws messages at ranks, where whichever
//! thread is there first receives them. Every byte is a function of the seed, so every receiver knows what it must get.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use selvedge::{ANY_SOURCE, Communicator, Error, Op, Team, World};
use selvedge_transport::Rng;

use crate::real;

/// Steps of a thread for each seed.
const STEPS: u64 = 8;
/// Messages that a thread throws, at most, for each seed.
const THROWN_MAX: u64 = 6;
/// Those of the first seed have this tag, those of the next the next one. Below are the tags of threads.
const THROWN_TAG: i32 = 1 << 20;
/// Streams of random numbers.
const PROGRAM: u64 = 8;
const CONTENT: u64 = 9;
const THROWS: u64 = 10;

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
        let bytes = *rng.pick(&[0, 24, 24, 120, 1_200, 9_000, 60_000]);
        let content = |rank: usize, round: u64| {
            let label = CONTENT << 56 | (rank as u64) << 32 | (self.index as u64) << 16 | step << 8 | round;
            Rng::new(seed).child(label).bytes(bytes)
        };
        let way = rng.below(WAYS.len() as u64) as usize;
        let (name, rounds, exchange) = WAYS[way];
        let (mut out, mut into) = (content(me, 0), vec![0; bytes]);
        let line = Line { communicator: &self.mine, own: &self.own, to, from, tag: self.index as i32 };
        let judge = |round: u64, got: &[u8]| match got == content(from, round) {
            true => Ok(()),
            false => Err(format!("wrong bytes in round {round} of {bytes} bytes from rank {from} by {name}")),
        };
        exchange(&line, &mut out, &mut into, &Rounds { next: &|round| content(me, round), judge: &judge })
            .map_err(|error| match error {
                Wrong::Bytes(why) => why,
                Wrong::Call(error) => format!("{name} of {bytes} bytes to {to} and from {from}: {error}"),
            })?;
        self.sent += rounds;
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
        .map_err(|wrong| match wrong {
            Wrong::Bytes(why) => why,
            Wrong::Call(error) => format!("messages thrown: {error}"),
        })?;
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

/// What went wrong in an exchange.
enum Wrong {
    Bytes(String),
    Call(Error),
}

impl From<Error> for Wrong {
    fn from(error: Error) -> Wrong {
        Wrong::Call(error)
    }
}

impl From<String> for Wrong {
    fn from(why: String) -> Wrong {
        Wrong::Bytes(why)
    }
}

/// The partners of an exchange.
struct Line<'a> {
    communicator: &'a Communicator,
    own: &'a Communicator,
    to: usize,
    from: usize,
    tag: i32,
}

/// What is sent in each round, and who judges what came.
struct Rounds<'a> {
    next: &'a dyn Fn(u64) -> Vec<u8>,
    judge: &'a Judge<'a>,
}

/// Whether what came in a round is right.
type Judge<'a> = dyn Fn(u64, &[u8]) -> Result<(), String> + 'a;

type Exchange = fn(&Line<'_>, &mut [u8], &mut [u8], &Rounds<'_>) -> Result<(), Wrong>;

/// Each way to send and receive, and how many messages of a thread it is.
const WAYS: [(&str, usize, Exchange); 9] = [
    ("sendrecv", 1, |line, out, into, rounds| {
        line.communicator.sendrecv(out, line.to, line.tag, into, line.from, line.tag)?;
        Ok((rounds.judge)(0, into)?)
    }),
    ("isend and irecv", 1, |line, out, into, rounds| {
        line.communicator.scope(|scope| {
            let send = scope.isend(out, line.to, line.tag)?;
            selvedge::wait_all([scope.irecv(into, line.from, line.tag)?, send])
        })?;
        Ok((rounds.judge)(0, into)?)
    }),
    ("issend and recv_vec", 1, |line, out, _, rounds| {
        let got = line.communicator.scope(|scope| {
            let send = scope.issend(out, line.to, line.tag)?;
            let (got, _) = line.communicator.recv_vec::<u8>(line.from, line.tag)?;
            send.wait().map(|_| got)
        })?;
        Ok((rounds.judge)(0, &got)?)
    }),
    ("isend_value", 1, |line, out, _, rounds| {
        let got = line.communicator.scope(|scope| {
            let send = scope.isend_value(&out.to_vec(), line.to, line.tag)?;
            let (got, _) = line.communicator.recv_value::<Vec<u8>>(line.from, line.tag)?;
            send.wait().map(|_| got)
        })?;
        Ok((rounds.judge)(0, &got)?)
    }),
    ("isend_owned", 1, |line, out, into, rounds| {
        let receive = line.communicator.irecv_owned(into.to_vec(), line.from, line.tag);
        // Dropped: it goes on with its buffer.
        drop(line.communicator.isend_owned(out.to_vec(), line.to, line.tag));
        let (received, got) = receive.wait();
        received?;
        Ok((rounds.judge)(0, &got)?)
    }),
    ("bsend", 1, |line, out, into, rounds| {
        let mut buffer = line.communicator.send_buffer(out.len().max(64));
        buffer.bsend(out, line.to, line.tag)?;
        line.communicator.recv(into, line.from, line.tag)?;
        buffer.flush()?;
        Ok((rounds.judge)(0, into)?)
    }),
    ("send_init", 3, |line, out, into, rounds| {
        line.communicator.scope(|scope| {
            let mut send = scope.send_init(out, line.to, line.tag)?;
            let mut receive = scope.recv_init(into, line.from, line.tag)?;
            for round in 0..3 {
                send.buffer_mut().copy_from_slice(&(rounds.next)(round));
                selvedge::wait_all([receive.start(), send.start()])?;
                (rounds.judge)(round, receive.buffer())?;
            }
            Ok(())
        })
    }),
    ("psend_init", 3 * 4, |line, out, into, rounds| {
        line.communicator.scope(|scope| {
            let mut send = scope.psend_init(out, 4, line.to, line.tag)?;
            let mut receive = scope.precv_init(into, 3, line.from, line.tag)?;
            for round in 0..3 {
                let content = (rounds.next)(round);
                let each = content.len() / 4;
                let (view, received) = receive.start();
                let (partitions, sent) = send.start();
                let fill = |partition: &mut selvedge::Partition<'_, u8>| {
                    let begin = partition.index() * each;
                    partition.copy_from_slice(&content[begin..begin + each]);
                };
                thread::scope(|threads| {
                    let mut partitions: Vec<_> = partitions.collect();
                    // The second half is marked by another thread.
                    let others = partitions.split_off(2);
                    threads.spawn(move || {
                        for mut partition in others {
                            fill(&mut partition);
                            partition.ready();
                        }
                    });
                    partitions.iter_mut().for_each(fill);
                    selvedge::ready_all(partitions);
                });
                view.wait(2)?;
                selvedge::wait_all([sent, received])?;
                (rounds.judge)(round, receive.buffer())?;
            }
            Ok(())
        })
    }),
    ("allreduce", 0, |line, out, _, _| {
        let mut sum = [0];
        line.own.allreduce(&[out.len() + line.own.rank()], &mut sum, &Op::sum())?;
        let ranks = line.own.size();
        match sum[0] == out.len() * ranks + ranks * (ranks - 1) / 2 {
            true => Ok(()),
            false => Err(Wrong::Bytes(format!("a sum of {}", sum[0]))),
        }
    }),
];
