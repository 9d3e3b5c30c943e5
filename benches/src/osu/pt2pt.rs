//! Messages between pairs: latency, latency_persistent, multi_lat, bw, bibw, mbw_mr.
//!
//! In short: `latency` is half the time of a ping-pong, `multi_lat` that of all pairs at once, on average; the others send
//! a window of messages, all nonblocking, and wait for all of them and (except `bibw`, where each side's receives say it)
//! for a 4-byte answer.
//!
//! One difference to OSU is forced by the language and is the honest thing anyway: OSU receives a whole window into one
//! buffer, all receives at the same time, which no correct program does. Here each receive in flight has a buffer of
//! its own. So that they stay in reach of a cache as OSU's does, at most [`POOL_BYTES`] of them are posted at a time.

use selvedge::{Communicator, Request, Result, wait_all};

use super::buffer::Aligned;
use super::cli::{Bench, Plan, Repeat};
use super::stats::{self, Tail, everywhere, time_each};
use super::table::{Column, Row, TAIL_COLUMNS};
use super::validate;

/// Tag of the messages, and of the answer to a window.
pub(crate) const DATA: i32 = 100;
pub(crate) const ANSWER: i32 = 101;
/// Receive buffers of one window: 64 messages of 256 KiB; larger ones are received a few at a time.
const POOL_BYTES: usize = 16 << 20;

/// Messages of `bytes` that are received at a time out of a window.
pub(crate) fn posted(window: usize, bytes: usize) -> usize {
    window.min(POOL_BYTES / bytes.max(1)).max(1)
}

/// How many ranks the benchmark wants, where `ranks` is not it.
pub(crate) fn wrong_ranks(bench: Bench, ranks: usize) -> Option<&'static str> {
    match bench {
        Bench::MbwMr | Bench::MultiLat => (ranks < 2).then_some("at least 2 ranks"),
        _ => (ranks != 2).then_some("exactly 2 ranks"),
    }
}

/// The columns of [`latency`] or [`bandwidth`].
pub(crate) fn columns(plan: &Plan) -> Vec<Column> {
    let mut columns = match plan.bench {
        Bench::Latency | Bench::LatencyPersistent | Bench::MultiLat => {
            vec![Column { title: "Avg Latency(us)", key: "avg_us" }]
        }
        Bench::MbwMr => {
            vec![Column { title: "MB/s", key: "mb_s" }, Column { title: "Messages/s", key: "messages_s" }]
        }
        _ => vec![Column { title: "Bandwidth (MB/s)", key: "mb_s" }],
    };
    if plan.tail {
        columns.extend(TAIL_COLUMNS);
    }
    columns
}

/// One-way time of a message of `bytes`. The row is that of rank 0.
pub(crate) fn latency(world: &Communicator, plan: &Plan, bytes: usize) -> Result<Row> {
    let mut pair = PingPong::new(world, bytes);
    let repeat = plan.repeat(bytes);
    let is_persistent = plan.bench == Bench::LatencyPersistent;
    world.barrier()?;
    let mut samples = match is_persistent {
        true => pair.persistent(repeat, plan.tail)?,
        false => time_each(repeat, plan.tail, || pair.once())?,
    };
    samples.iter_mut().for_each(|round_trip| *round_trip /= 2.0);
    let mut mean = stats::mean(&samples);
    if plan.bench == Bench::MultiLat {
        // The mean over the ranks that have a partner; the others have waited for nobody.
        let mine = if pair.turn == Turn::Idle { 0.0 } else { mean };
        let paired = world.size() / 2 * 2;
        mean = stats::Spread::over_ranks(world, mine)?.mean * world.size() as f64 / paired as f64;
        if plan.tail {
            samples = stats::slowest_rank(world, &samples)?;
        }
    }
    let mut values = vec![mean];
    if plan.tail {
        values.extend(Tail::of(&mut samples).values());
    }
    let once = if is_persistent { PingPong::persistent_once } else { PingPong::once };
    let valid = if plan.validation { Some(pair.check(once)?) } else { None };
    Ok(Row { bytes, values, iterations: repeat.iterations, valid })
}

/// Who begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    First,
    Second,
    /// The last of an odd number of ranks.
    Idle,
}

struct PingPong<'w> {
    world: &'w Communicator,
    turn: Turn,
    peer: usize,
    sent: Aligned<u8>,
    received: Aligned<u8>,
}

impl<'w> PingPong<'w> {
    /// Ranks of the first half begin, each with its partner in the second.
    fn new(world: &'w Communicator, bytes: usize) -> PingPong<'w> {
        let (me, pairs) = (world.rank(), world.size() / 2);
        let (turn, peer) = match me {
            _ if me < pairs => (Turn::First, me + pairs),
            _ if me < 2 * pairs => (Turn::Second, me - pairs),
            _ => (Turn::Idle, me),
        };
        let (sent, received) = (Aligned::new(b'a', bytes), Aligned::new(b'b', bytes));
        PingPong { world, turn, peer, sent, received }
    }

    /// There and back.
    fn once(&mut self) -> Result<()> {
        match self.turn {
            Turn::First => {
                self.world.send(self.sent.as_slice(), self.peer, DATA)?;
                self.world.recv(self.received.as_mut_slice(), self.peer, DATA)?;
            }
            Turn::Second => {
                self.world.recv(self.received.as_mut_slice(), self.peer, DATA)?;
                self.world.send(self.sent.as_slice(), self.peer, DATA)?;
            }
            Turn::Idle => {}
        }
        Ok(())
    }

    /// The same by requests that are made once; the time of each round trip, as [`time_each`] has it.
    fn persistent(&mut self, repeat: Repeat, tail: bool) -> Result<Vec<f64>> {
        let (world, peer, turn) = (self.world, self.peer, self.turn);
        world.scope(|scope| {
            let mut send = scope.send_init(self.sent.as_mut_slice(), peer, DATA)?;
            let mut receive = scope.recv_init(self.received.as_mut_slice(), peer, DATA)?;
            time_each(repeat, tail, || {
                if turn == Turn::First {
                    send.start().wait()?;
                }
                receive.start().wait()?;
                if turn == Turn::Second {
                    send.start().wait()?;
                }
                Ok(())
            })
        })
    }

    fn persistent_once(&mut self) -> Result<()> {
        self.persistent(Repeat { iterations: 1, warmup: 1 }, false).map(drop)
    }

    /// Collective: whether `once` brings both ranks what the other sent, every time.
    fn check(&mut self, mut once: impl FnMut(&mut Self) -> Result<()>) -> Result<bool> {
        let me = self.world.rank();
        let mut right = true;
        for round in 0..validate::ROUNDS {
            validate::fill(self.sent.as_mut_slice(), me, round);
            once(self)?;
            let is_idle = self.turn == Turn::Idle;
            right &= is_idle || validate::holds(self.received.as_slice(), self.peer, round);
        }
        everywhere(self.world, right)
    }
}

/// Megabytes (10^6) per second, and messages per second for mbw_mr. The row is that of rank 0.
pub(crate) fn bandwidth(world: &Communicator, plan: &Plan, bytes: usize) -> Result<Row> {
    let mut stream = Stream::new(world, plan, bytes);
    let repeat = plan.repeat(bytes);
    world.barrier()?;
    let samples = time_each(repeat, plan.tail, || stream.once())?;

    // The time of a window is what its sender sees, on average over the pairs.
    let mine = if stream.sends() { stats::mean(&samples) } else { 0.0 };
    let pairs = world.size() / 2;
    let directions = if plan.bench == Bench::Bibw { 2 } else { 1 };
    let senders = pairs * directions;
    let window_us = stats::Spread::over_ranks(world, mine)?.mean * world.size() as f64 / senders as f64;
    let messages_us = (senders * plan.window) as f64 / window_us;
    let mut values = vec![messages_us * bytes as f64];
    if plan.bench == Bench::MbwMr {
        values.push(messages_us * 1e6);
    }
    if plan.tail {
        let seen = if stream.sends() { samples } else { vec![0.0; samples.len()] };
        values.extend(Tail::of(&mut stats::slowest_rank(world, &seen)?).values());
    }
    let valid = if plan.validation { Some(stream.check()?) } else { None };
    Ok(Row { bytes, values, iterations: repeat.iterations, valid })
}

/// What a rank does with its windows of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Send {
        to: usize,
    },
    Receive {
        from: usize,
    },
    Both {
        peer: usize,
    },
    /// The last of an odd number of ranks.
    Idle,
}

struct Stream<'w> {
    world: &'w Communicator,
    role: Role,
    window: usize,
    bytes: usize,
    sent: Aligned<u8>,
    pool: Aligned<u8>,
}

impl<'w> Stream<'w> {
    fn new(world: &'w Communicator, plan: &Plan, bytes: usize) -> Stream<'w> {
        let (me, pairs) = (world.rank(), world.size() / 2);
        let role = match plan.bench {
            Bench::Bibw => Role::Both { peer: 1 - me },
            _ if me < pairs => Role::Send { to: me + pairs },
            _ if me < 2 * pairs => Role::Receive { from: me - pairs },
            _ => Role::Idle,
        };
        let receives = matches!(role, Role::Receive { .. } | Role::Both { .. });
        let pool = if receives { posted(plan.window, bytes) * bytes.max(1) } else { 0 };
        let (sent, pool) = (Aligned::new(b'a', bytes), Aligned::new(b'b', pool));
        Stream { world, role, window: plan.window, bytes, sent, pool }
    }

    fn sends(&self) -> bool {
        matches!(self.role, Role::Send { .. } | Role::Both { .. })
    }

    /// One window.
    fn once(&mut self) -> Result<()> {
        let mut answer = [0_u8; 4];
        match self.role {
            Role::Send { to } => {
                self.send_window(to)?;
                self.world.recv(&mut answer, to, ANSWER)?;
            }
            Role::Receive { from } => {
                self.receive_window(from)?;
                self.world.send(&answer, from, ANSWER)?;
            }
            Role::Both { peer } => self.exchange_window(peer)?,
            Role::Idle => {}
        }
        Ok(())
    }

    fn send_window(&self, to: usize) -> Result<()> {
        self.world.scope(|scope| {
            let sends = (0..self.window).map(|_| scope.isend(self.sent.as_slice(), to, DATA));
            wait_all(sends.collect::<Result<Vec<Request<'_>>>>()?)?;
            Ok(())
        })
    }

    fn receive_window(&mut self, from: usize) -> Result<()> {
        let mut left = self.window;
        while left > 0 {
            left -= self.world.scope(|scope| -> Result<usize> {
                let slots = self.pool.as_mut_slice().chunks_mut(self.bytes.max(1)).take(left);
                let receives = slots.map(|slot| scope.irecv(&mut slot[..self.bytes], from, DATA));
                Ok(wait_all(receives.collect::<Result<Vec<Request<'_>>>>()?)?.len())
            })?;
        }
        Ok(())
    }

    fn exchange_window(&mut self, peer: usize) -> Result<()> {
        let mut left = self.window;
        while left > 0 {
            left -= self.world.scope(|scope| -> Result<usize> {
                let slots = self.pool.as_mut_slice().chunks_mut(self.bytes.max(1)).take(left);
                let receives = slots.map(|slot| scope.irecv(&mut slot[..self.bytes], peer, DATA));
                let mut requests = receives.collect::<Result<Vec<Request<'_>>>>()?;
                let posted = requests.len();
                for _ in 0..posted {
                    requests.push(scope.isend(self.sent.as_slice(), peer, DATA)?);
                }
                wait_all(requests)?;
                Ok(posted)
            })?;
        }
        Ok(())
    }

    /// Collective: whether every receiver got what its sender sent, every time.
    fn check(&mut self) -> Result<bool> {
        let me = self.world.rank();
        let mut right = true;
        for round in 0..validate::ROUNDS {
            validate::fill(self.sent.as_mut_slice(), me, round);
            self.once()?;
            if let Role::Receive { from: sender } | Role::Both { peer: sender } = self.role {
                let mut slots = self.pool.as_slice().chunks(self.bytes.max(1));
                right &= slots.all(|slot| validate::holds(&slot[..self.bytes], sender, round));
            }
        }
        everywhere(self.world, right)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::cli::Cli;
    use super::*;

    fn plan(world: &Communicator, line: &str) -> Plan {
        Plan::new(&Cli::parse_from(line.split_whitespace()), world.size()).unwrap()
    }

    #[selvedge::test(ranks = [2])]
    fn a_byte_that_changes_on_the_way_fails_the_check_on_both_ranks(world: selvedge::World) {
        let mut pair = PingPong::new(&world, 64);
        assert!(pair.check(PingPong::once).unwrap());
        assert!(pair.check(PingPong::persistent_once).unwrap());
        let spoil = |pair: &mut PingPong<'_>| {
            pair.once()?;
            pair.received.as_mut_slice()[40] ^= u8::from(pair.world.rank() == 1);
            Ok(())
        };
        assert!(!pair.check(spoil).unwrap());
    }

    #[selvedge::test(ranks = [2, 3, 4])]
    fn pairs_of_many_ranks_get_what_their_partners_sent(world: selvedge::World) {
        assert!(PingPong::new(&world, 40).check(PingPong::once).unwrap());
        let row = latency(&world, &plan(&world, "osu multi_lat -i 3 -x 1 -c --tail"), 8).unwrap();
        assert!(row.valid == Some(true) && row.values[0] > 0.0, "{row:?}");
    }

    #[selvedge::test(ranks = [2, 3, 4])]
    fn every_message_of_a_window_has_arrived_when_its_answer_has(world: selvedge::World) {
        let benches = if world.size() == 2 { ["bw", "bibw", "mbw_mr"].as_slice() } else { &["mbw_mr"] };
        for bench in benches {
            for bytes in [0, 1, 5000] {
                let plan = plan(&world, &format!("osu {bench} -W 7"));
                assert!(Stream::new(&world, &plan, bytes).check().unwrap(), "{bench} of {bytes}");
            }
        }
    }

    #[selvedge::test(ranks = [3])]
    fn the_last_of_an_odd_number_of_ranks_has_no_partner(world: selvedge::World) {
        let stream = Stream::new(&world, &plan(&world, "osu mbw_mr"), 8);
        let expected = [Role::Send { to: 1 }, Role::Receive { from: 0 }, Role::Idle];
        assert_eq!(stream.role, expected[world.rank()]);
    }

    #[selvedge::test(ranks = [2])]
    fn large_messages_of_a_window_are_received_a_few_at_a_time(world: selvedge::World) {
        let stream = Stream::new(&world, &plan(&world, "osu bibw"), 4 << 20);
        assert_eq!(stream.pool.as_slice().len(), POOL_BYTES);
        let stream = Stream::new(&world, &plan(&world, "osu bibw"), 8);
        assert_eq!(stream.pool.as_slice().len(), 64 * 8);
    }
}
