//! Collectives that are waited for: barrier, bcast, reduce, allreduce, allgather, alltoall, and their persistent forms, which
//! are made once before the clock runs.
//!
//! As OSU does it: each call is timed by itself on every rank, between calls all wait for all (not timed), the mean of
//! each rank is averaged over the ranks. So the clock is always read twice per call.

use selvedge::{Communicator, Op, PersistentCollective, Request, Result, Scope};

use super::buffer::Aligned;
use super::cli::{Bench, Family, Plan};
use super::stats::{self, Spread, Tail, everywhere};
use super::table::{Column, Row, TAIL_COLUMNS};
use super::validate;

/// The rank that bcast starts from and reduce ends at.
const ROOT: usize = 0;

/// Which collective.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Collective {
    Barrier,
    Broadcast,
    Reduce,
    Allreduce,
    Allgather,
    Alltoall,
}

impl Collective {
    /// A message is a whole number of these: 4 where numbers are added, else 1.
    pub(crate) fn element_bytes(self) -> usize {
        match self {
            Collective::Reduce | Collective::Allreduce => size_of::<i32>(),
            _ => 1,
        }
    }

    /// Buffers of one process, in messages.
    pub(crate) fn blocks(self, ranks: usize) -> usize {
        self.input_blocks(ranks) + self.output_blocks(ranks)
    }

    fn input_blocks(self, ranks: usize) -> usize {
        match self {
            Collective::Barrier | Collective::Broadcast => 0,
            Collective::Reduce | Collective::Allreduce | Collective::Allgather => 1,
            Collective::Alltoall => ranks,
        }
    }

    fn output_blocks(self, ranks: usize) -> usize {
        match self {
            Collective::Barrier => 0,
            Collective::Broadcast | Collective::Reduce | Collective::Allreduce => 1,
            Collective::Allgather | Collective::Alltoall => ranks,
        }
    }

    /// What the elements are, as OSU says it.
    pub(crate) fn datatype(self) -> Option<&'static str> {
        match self {
            Collective::Barrier => None,
            Collective::Reduce | Collective::Allreduce => Some("Datatype: i32, sum."),
            _ => Some("Datatype: u8."),
        }
    }
}

/// The columns of [`measure`].
pub(crate) fn columns(plan: &Plan) -> Vec<Column> {
    let mut columns = vec![Column { title: "Avg Latency(us)", key: "avg_us" }];
    if plan.full {
        columns.push(Column { title: "Min Latency(us)", key: "min_rank_us" });
        columns.push(Column { title: "Max Latency(us)", key: "max_rank_us" });
    }
    if plan.tail {
        columns.extend(TAIL_COLUMNS);
    }
    columns
}

/// Time of a collective with messages of `bytes`. The row is the same on all ranks.
pub(crate) fn measure(world: &Communicator, plan: &Plan, what: Collective, bytes: usize) -> Result<Row> {
    let mut call = Call::new(world, what, bytes);
    let repeat = plan.repeat(bytes);
    world.barrier()?;
    // After a barrier nobody has to wait for anybody.
    let between = || if what == Collective::Barrier { Ok(()) } else { world.barrier() };
    let is_persistent = is_persistent(plan.bench);
    let samples = match is_persistent {
        false => stats::time_apart(repeat, || call.once(), between)?,
        true => world.scope(|scope| {
            let mut rounds = call.prepare(scope)?;
            stats::time_apart(repeat, || rounds.once(), between)
        })?,
    };
    let spread = Spread::over_ranks(world, stats::mean(&samples))?;
    let mut values = vec![spread.mean];
    if plan.full {
        values.extend([spread.min, spread.max]);
    }
    if plan.tail {
        values.extend(Tail::of(&mut stats::slowest_rank(world, &samples)?).values());
    }
    let once = if is_persistent { Call::prepared_once } else { Call::once };
    let valid = if plan.validation { Some(call.check(once)?) } else { None };
    Ok(Row { bytes, values, iterations: repeat.iterations, valid })
}

fn is_persistent(bench: Bench) -> bool {
    matches!(bench.family(), Family::Persistent(_))
}

/// A persistent collective of either kind of element.
enum Rounds<'scope, 'env> {
    Bytes(PersistentCollective<'scope, 'env, u8>),
    Numbers(PersistentCollective<'scope, 'env, i32>),
}

impl Rounds<'_, '_> {
    /// Starts a round and waits for it.
    fn once(&mut self) -> Result<()> {
        match self {
            Rounds::Bytes(collective) => collective.start().wait()?,
            Rounds::Numbers(collective) => collective.start().wait()?,
        };
        Ok(())
    }
}

/// A collective with its buffers, ready to be called again and again. Only those it needs have a length.
pub(crate) struct Call<'w> {
    world: &'w Communicator,
    what: Collective,
    bytes: usize,
    input: Aligned<u8>,
    output: Aligned<u8>,
    summands: Aligned<i32>,
    sums: Aligned<i32>,
    sum: Op<i32>,
}

impl<'w> Call<'w> {
    pub(crate) fn new(world: &'w Communicator, what: Collective, bytes: usize) -> Call<'w> {
        let (inputs, outputs) =
            (what.input_blocks(world.size()) * bytes, what.output_blocks(world.size()) * bytes);
        let adds = what.element_bytes() == size_of::<i32>();
        let lengths = |wanted: bool| if wanted { (inputs, outputs) } else { (0, 0) };
        let ((byte_in, byte_out), (int_in, int_out)) = (lengths(!adds), lengths(adds));
        Call {
            world,
            what,
            bytes,
            input: Aligned::new(b'a', byte_in),
            output: Aligned::new(b'b', byte_out),
            summands: Aligned::new(1, int_in / size_of::<i32>()),
            sums: Aligned::new(0, int_out / size_of::<i32>()),
            sum: Op::sum(),
        }
    }

    /// Calls it and waits.
    pub(crate) fn once(&mut self) -> Result<()> {
        let world = self.world;
        match self.what {
            Collective::Barrier => world.barrier(),
            Collective::Broadcast => world.broadcast(self.output.as_mut_slice(), ROOT),
            Collective::Reduce => {
                let sums = (world.rank() == ROOT).then(|| self.sums.as_mut_slice());
                world.reduce(self.summands.as_slice(), sums, &self.sum, ROOT)
            }
            Collective::Allreduce => {
                world.allreduce(self.summands.as_slice(), self.sums.as_mut_slice(), &self.sum)
            }
            Collective::Allgather => world.allgather(self.input.as_slice(), self.output.as_mut_slice()),
            Collective::Alltoall => world.alltoall(self.input.as_slice(), self.output.as_mut_slice()),
        }
    }

    /// Starts it.
    pub(crate) fn start<'scope>(
        &'scope mut self,
        scope: &'scope Scope<'scope, '_>,
    ) -> Result<Request<'scope>> {
        match self.what {
            Collective::Barrier => scope.ibarrier(),
            Collective::Broadcast => scope.ibroadcast(self.output.as_mut_slice(), ROOT),
            Collective::Reduce => {
                let sums = (self.world.rank() == ROOT).then(|| self.sums.as_mut_slice());
                scope.ireduce(self.summands.as_slice(), sums, &self.sum, ROOT)
            }
            Collective::Allreduce => {
                scope.iallreduce(self.summands.as_slice(), self.sums.as_mut_slice(), &self.sum)
            }
            Collective::Allgather => scope.iallgather(self.input.as_slice(), self.output.as_mut_slice()),
            Collective::Alltoall => scope.ialltoall(self.input.as_slice(), self.output.as_mut_slice()),
        }
    }

    /// Makes it, to be started again and again.
    fn prepare<'scope, 'env>(
        &'scope mut self,
        scope: &'scope Scope<'scope, 'env>,
    ) -> Result<Rounds<'scope, 'env>> {
        let is_root = self.world.rank() == ROOT;
        let (input, output) = (self.input.as_mut_slice(), self.output.as_mut_slice());
        let (summands, sums) = (self.summands.as_mut_slice(), self.sums.as_mut_slice());
        Ok(match self.what {
            Collective::Barrier => Rounds::Bytes(scope.barrier_init()?),
            Collective::Broadcast => Rounds::Bytes(scope.broadcast_init(output, ROOT)?),
            Collective::Reduce => {
                Rounds::Numbers(scope.reduce_init(summands, is_root.then_some(sums), &self.sum, ROOT)?)
            }
            Collective::Allreduce => Rounds::Numbers(scope.allreduce_init(summands, sums, &self.sum)?),
            Collective::Allgather => Rounds::Bytes(scope.allgather_init(input, output)?),
            Collective::Alltoall => Rounds::Bytes(scope.alltoall_init(input, output)?),
        })
    }

    /// Makes it and starts it twice: what the second round brings is to be right as well.
    fn prepared_once(&mut self) -> Result<()> {
        let world = self.world;
        world.scope(|scope| {
            let mut rounds = self.prepare(scope)?;
            rounds.once()?;
            rounds.once()
        })
    }

    /// Collective: whether `once` brings every rank what it should, every time.
    pub(crate) fn check(&mut self, mut once: impl FnMut(&mut Self) -> Result<()>) -> Result<bool> {
        let mut right = true;
        for round in 0..validate::ROUNDS {
            self.fill(round);
            once(self)?;
            right &= self.holds(round);
        }
        everywhere(self.world, right)
    }

    /// What this rank gives in `round`. A block for one particular rank is marked as (sender, receiver).
    fn fill(&mut self, round: usize) {
        let (me, ranks) = (self.world.rank(), self.world.size());
        validate::fill_summands(self.summands.as_mut_slice(), me, round);
        match self.what {
            Collective::Broadcast if me == ROOT => validate::fill(self.output.as_mut_slice(), ROOT, round),
            Collective::Allgather => validate::fill(self.input.as_mut_slice(), me, round),
            Collective::Alltoall => {
                let blocks = self.input.as_mut_slice().chunks_exact_mut(self.bytes.max(1));
                blocks.enumerate().for_each(|(to, block)| validate::fill(block, me * ranks + to, round));
            }
            _ => {}
        }
    }

    /// Whether this rank has what it should after `round`.
    fn holds(&self, round: usize) -> bool {
        let (me, ranks) = (self.world.rank(), self.world.size());
        let mut blocks = self.output.as_slice().chunks_exact(self.bytes.max(1)).enumerate();
        match self.what {
            Collective::Barrier => true,
            Collective::Broadcast => blocks.all(|(_, block)| validate::holds(block, ROOT, round)),
            Collective::Reduce if me != ROOT => true,
            Collective::Reduce | Collective::Allreduce => {
                validate::holds_sum(self.sums.as_slice(), ranks, round)
            }
            Collective::Allgather => blocks.all(|(from, block)| validate::holds(block, from, round)),
            Collective::Alltoall => {
                blocks.all(|(from, block)| validate::holds(block, from * ranks + me, round))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Collective; 5] = [
        Collective::Broadcast,
        Collective::Reduce,
        Collective::Allreduce,
        Collective::Allgather,
        Collective::Alltoall,
    ];

    #[selvedge::test(ranks = [1, 2, 3, 5])]
    fn what_the_collectives_bring_is_right(world: selvedge::World) {
        for what in ALL {
            for bytes in [0, 4, 4096] {
                for once in [Call::once, Call::prepared_once] {
                    assert!(Call::new(&world, what, bytes).check(once).unwrap(), "{what:?} of {bytes}");
                }
            }
        }
    }

    #[selvedge::test(ranks = [2, 3])]
    fn one_wrong_element_on_one_rank_fails_the_check_on_all(world: selvedge::World) {
        for what in ALL {
            let spoil = |call: &mut Call<'_>| {
                call.once()?;
                if world.rank() == ROOT {
                    call.output.as_mut_slice().iter_mut().skip(9).take(1).for_each(|byte| *byte ^= 4);
                    call.sums.as_mut_slice().iter_mut().skip(2).take(1).for_each(|sum| *sum += 1);
                }
                Ok(())
            };
            assert!(!Call::new(&world, what, 16).check(spoil).unwrap(), "{what:?}");
        }
    }

    #[selvedge::test(ranks = [2, 3])]
    fn a_collective_that_brings_nothing_fails_the_check(world: selvedge::World) {
        for what in ALL {
            assert!(!Call::new(&world, what, 16).check(|_| Ok(())).unwrap(), "{what:?}");
        }
    }
}
