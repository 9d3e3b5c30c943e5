//! Several threads of two ranks at the same time: latency_mt and mr_mt.
//!
//! Each thread of rank 0 has its partner on rank 1 and a tag of its own. `latency_mt` is the ping-pong of `latency` by all pairs
//! at once (OSU: osu_latency_mt with as many senders as receivers); `mr_mt` the windows of `mbw_mr`, counted for all pairs
//! together. With `-T 1` the lock is there and nobody else: what the possibility costs, beside `latency` and `mbw_mr`.

use std::sync::Barrier;
use std::thread;

use selvedge::{Communicator, Op, Result, Team, wait_all};

use super::buffer::Aligned;
use super::cli::{Bench, Plan};
use super::stats::{everywhere, mean, time_each};
use super::table::{Column, Row};
use super::validate;

pub(crate) fn columns(plan: &Plan) -> Vec<Column> {
    match plan.bench {
        Bench::LatencyMt => vec![Column { title: "Avg Latency(us)", key: "avg_us" }],
        _ => vec![Column { title: "MB/s", key: "mb_s" }, Column { title: "Messages/s", key: "messages_s" }],
    }
}

/// The row of both benchmarks.
pub(crate) fn measure(world: &Communicator, plan: &Plan, bytes: usize) -> Result<Row> {
    let repeat = plan.repeat(bytes);
    let team = world.team();
    world.barrier()?;
    let mine = on_threads(&team, plan.threads, |pair| {
        time_each(repeat, false, || pair.once(plan, bytes)).map(|samples| mean(&samples))
    });
    let mine = mean(&mine.into_iter().collect::<Result<Vec<f64>>>()?);
    let mut all = [0.0];
    world.allreduce(&[mine], &mut all, &Op::sum())?;
    let once_us = all[0] / world.size() as f64;
    let values = match plan.bench {
        Bench::LatencyMt => vec![once_us / 2.0],
        _ => {
            let messages_us = (plan.threads * plan.window) as f64 / once_us;
            vec![messages_us * bytes as f64, messages_us * 1e6]
        }
    };
    let valid = if plan.validation { Some(check(world, &team, plan, bytes)?) } else { None };
    Ok(Row { bytes, values, iterations: repeat.iterations, valid })
}

/// Collective: whether every thread gets what its partner sends.
fn check(world: &Communicator, team: &Team, plan: &Plan, bytes: usize) -> Result<bool> {
    let right = on_threads(team, plan.threads, |pair| {
        let (mut right, me, tag) = (true, pair.mine.rank(), pair.tag as usize);
        let who = |rank: usize| 2 * tag + rank;
        for round in 0..validate::ROUNDS {
            pair.sent = Aligned::new(0, bytes);
            validate::fill(pair.sent.as_mut_slice(), who(me), round);
            pair.once(plan, bytes)?;
            let arrived = plan.bench == Bench::LatencyMt || me == 1;
            right &= !arrived || validate::holds(&pair.received.as_slice()[..bytes], who(1 - me), round);
        }
        Ok(right)
    });
    everywhere(world, right.into_iter().collect::<Result<Vec<bool>>>()?.into_iter().all(|right| right))
}

/// Runs `f` on so many threads, which begin together.
fn on_threads<R: Send>(
    team: &Team,
    threads: usize,
    f: impl Fn(&mut Pair) -> Result<R> + Sync,
) -> Vec<Result<R>> {
    let together = Barrier::new(threads);
    thread::scope(|scope| {
        let run = |tag| {
            let mine = team.communicator();
            let (sent, received) = (Aligned::new(b'a', 0), Aligned::new(b'b', 0));
            together.wait();
            f(&mut Pair { mine, tag, sent, received })
        };
        let threads: Vec<_> = (0..threads).map(|tag| scope.spawn(move || run(tag as i32))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread of the benchmark panicked")).collect()
    })
}

/// One thread of a rank; its partner has the same tag.
struct Pair {
    mine: Communicator,
    tag: i32,
    sent: Aligned<u8>,
    received: Aligned<u8>,
}

impl Pair {
    fn once(&mut self, plan: &Plan, bytes: usize) -> Result<()> {
        let room = if plan.bench == Bench::LatencyMt { bytes } else { plan.window * bytes.max(1) };
        if self.sent.as_slice().len() != bytes {
            self.sent = Aligned::new(b'a', bytes);
        }
        if self.received.as_slice().len() != room {
            self.received = Aligned::new(b'b', room);
        }
        let Pair { mine, tag, sent, received } = self;
        let (me, peer, tag) = (mine.rank(), 1 - mine.rank(), *tag);
        match plan.bench {
            Bench::LatencyMt if me == 0 => {
                mine.send(sent.as_slice(), peer, tag)?;
                mine.recv(received.as_mut_slice(), peer, tag)?;
            }
            Bench::LatencyMt => {
                mine.recv(received.as_mut_slice(), peer, tag)?;
                mine.send(sent.as_slice(), peer, tag)?;
            }
            _ if me == 0 => {
                mine.scope(|scope| {
                    let sends = (0..plan.window).map(|_| scope.isend(sent.as_slice(), peer, tag));
                    wait_all(sends.collect::<Result<Vec<_>>>()?)
                })?;
                mine.recv(&mut [0_u8; 4], peer, tag)?;
            }
            _ => {
                mine.scope(|scope| {
                    let buffers = received.as_mut_slice().chunks_mut(bytes.max(1));
                    let receives = buffers.map(|buffer| scope.irecv(buffer, peer, tag));
                    wait_all(receives.collect::<Result<Vec<_>>>()?)
                })?;
                mine.send(&[0_u8; 4], peer, tag)?;
            }
        }
        Ok(())
    }
}
