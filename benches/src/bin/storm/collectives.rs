//! Each collective of the public API, in every form that it has, as a call of all ranks of one communicator that know what must
//! come of it.

use std::fmt::Debug;

use selvedge::schedule::{Collective, Shape};
use selvedge::{Algorithm, Communicator, Layout, Op};
use selvedge_transport::Rng;

use crate::oracle;
use crate::ways::Wrong;

/// What a collective is called with.
pub(crate) struct Part<'a> {
    /// Its ranks.
    pub(crate) communicator: &'a Communicator,
    /// Words that a rank gives.
    pub(crate) count: usize,
    /// Who gives, or gets.
    pub(crate) root: usize,
    /// Random numbers that are the same on all ranks.
    pub(crate) rng: &'a Rng,
    /// What tells this communicator's words from those of others.
    pub(crate) salt: u64,
}

impl Part<'_> {
    /// What a rank gives in a round: for each rank of the communicator, where it gives something to each.
    fn words(&self, rank: usize, round: u64) -> Vec<u64> {
        self.many(rank, round, self.count)
    }

    fn many(&self, rank: usize, round: u64, len: usize) -> Vec<u64> {
        let mut rng = self.rng.child(self.salt << 40 | (rank as u64) << 8 | round);
        (0..len).map(|_| rng.bits()).collect()
    }

    fn mine(&self, round: u64) -> Vec<u64> {
        self.words(self.communicator.rank(), round)
    }

    fn size(&self) -> usize {
        self.communicator.size()
    }

    fn is_root(&self) -> bool {
        self.communicator.rank() == self.root
    }

    /// Of all ranks' words of a round, the value at each place.
    fn reduced(&self, round: u64, combine: fn(u64, u64) -> u64) -> Vec<u64> {
        let mut all = (0..self.size()).map(|rank| self.words(rank, round));
        let first = all.next().expect("a communicator has a rank");
        all.fold(first, |left, right| left.iter().zip(&right).map(|(a, b)| combine(*a, *b)).collect())
    }

    fn gathered(&self, round: u64) -> Vec<u64> {
        (0..self.size()).flat_map(|rank| self.words(rank, round)).collect()
    }

    /// What a rank gives to all, one after the other, and what it gets.
    fn given_to_all(&self, round: u64) -> Vec<u64> {
        self.many(self.communicator.rank(), round, self.count * self.size())
    }

    fn got_from_all(&self, round: u64) -> Vec<u64> {
        let (me, count) = (self.communicator.rank(), self.count);
        let given = |rank| self.many(rank, round, count * self.size());
        (0..self.size()).flat_map(|rank| given(rank)[me * count..(me + 1) * count].to_vec()).collect()
    }

    fn zeros(&self) -> Vec<u64> {
        vec![0; self.count]
    }

    fn zeros_of_all(&self) -> Vec<u64> {
        vec![0; self.count * self.size()]
    }

    /// The output where there is one: on the root.
    fn at_root<'a>(&self, output: &'a mut [u64]) -> Option<&'a mut [u64]> {
        self.is_root().then_some(output)
    }

    /// Of a result that only the root has.
    fn check_at_root(&self, got: &[u64], want: &[u64]) -> Result<(), Wrong> {
        if self.is_root() { check(got, want) } else { Ok(()) }
    }
}

fn check<T: PartialEq + Debug + ?Sized>(got: &T, want: &T) -> Result<(), Wrong> {
    match got == want {
        true => Ok(()),
        false => {
            let shown: String = format!("{got:?}, not {want:?}").chars().take(120).collect();
            Err(Wrong::Bytes(format!("a wrong result: {shown}")))
        }
    }
}

/// Associative, not commutative.
fn composed() -> Op<u64> {
    Op::ordered_each(oracle::compose)
}

/// What is done in a form of a collective.
pub(crate) type Form = fn(&Part<'_>) -> Result<(), Wrong>;

/// Each form of each collective.
pub(crate) const FORMS: [(&str, Form); 17] = [
    ("barrier", |part| {
        part.communicator.barrier()?;
        Ok(part.communicator.scope(|scope| scope.ibarrier()?.wait()).map(drop)?)
    }),
    ("broadcast", |part| {
        let mut message = if part.is_root() { part.mine(0) } else { part.zeros() };
        part.communicator.broadcast(&mut message, part.root)?;
        check(&message, &part.words(part.root, 0))
    }),
    ("ibroadcast of a layout", |part| {
        let every_other = Layout::vector(part.count, 1, 2);
        let mut wide = vec![7; 2 * part.count];
        if part.is_root() {
            every_other.unpack(&part.mine(0), &mut wide)?;
        }
        let mut view = every_other.of_mut(&mut wide)?;
        part.communicator.scope(|scope| scope.ibroadcast(&mut view, part.root)?.wait())?;
        check(&every_other.pack(&wide)?, &part.words(part.root, 0))?;
        check(&wide.iter().skip(1).step_by(2).all(|&word| word == 7), &true)
    }),
    ("reduce", |part| {
        let (mine, mut output) = (part.mine(0), part.zeros());
        part.communicator.reduce(&mine, part.at_root(&mut output), &composed(), part.root)?;
        part.check_at_root(&output, &part.reduced(0, oracle::compose))
    }),
    ("ireduce", |part| {
        let (mine, mut output) = (part.mine(0), part.zeros());
        let into = part.at_root(&mut output);
        part.communicator.scope(|scope| scope.ireduce(&mine, into, &Op::max(), part.root)?.wait())?;
        part.check_at_root(&output, &part.reduced(0, u64::max))
    }),
    ("allreduce", |part| {
        let mut output = part.zeros();
        part.communicator.allreduce(&part.mine(0), &mut output, &composed())?;
        check(&output, &part.reduced(0, oracle::compose))
    }),
    ("iallreduce", |part| {
        // Two at the same time, which end in any order.
        let (inputs, mut sum, mut most) = ([part.mine(0), part.mine(1)], part.zeros(), part.zeros());
        part.communicator.scope(|scope| {
            let first = scope.iallreduce(&inputs[0], &mut sum, &Op::sum())?;
            let second = scope.iallreduce(&inputs[1], &mut most, &Op::bxor())?;
            selvedge::wait_all([second, first])
        })?;
        check(&sum, &part.reduced(0, u64::wrapping_add))?;
        check(&most, &part.reduced(1, |a, b| a ^ b))
    }),
    ("allgather", |part| {
        let mut output = part.zeros_of_all();
        part.communicator.allgather(&part.mine(0), &mut output)?;
        check(&output, &part.gathered(0))
    }),
    ("iallgather", |part| {
        let (mine, mut output) = (part.mine(0), part.zeros_of_all());
        part.communicator.scope(|scope| scope.iallgather(&mine, &mut output)?.wait())?;
        check(&output, &part.gathered(0))
    }),
    ("alltoall", |part| {
        let mut output = part.zeros_of_all();
        part.communicator.alltoall(&part.given_to_all(0), &mut output)?;
        check(&output, &part.got_from_all(0))
    }),
    ("ialltoall", |part| {
        let (mine, mut output) = (part.given_to_all(0), part.zeros_of_all());
        part.communicator.scope(|scope| scope.ialltoall(&mine, &mut output)?.wait())?;
        check(&output, &part.got_from_all(0))
    }),
    ("barrier_init, broadcast_init, reduce_init", |part| {
        let (mut message, mut input, mut output) = (part.zeros(), part.zeros(), part.zeros());
        part.communicator.scope(|scope| {
            let mut barrier = scope.barrier_init()?;
            let mut broadcast = scope.broadcast_init(&mut message, part.root)?;
            let into = part.at_root(&mut output);
            let mut reduce = scope.reduce_init(&mut input, into, &Op::min(), part.root)?;
            for round in 0..3 {
                if part.is_root() {
                    broadcast.output_mut().copy_from_slice(&part.mine(round));
                }
                reduce.input_mut().copy_from_slice(&part.mine(round));
                let requests = [broadcast.start(), barrier.start(), reduce.start()];
                selvedge::wait_all(requests)?;
                check(broadcast.output(), &part.words(part.root, round)[..])?;
                part.check_at_root(reduce.output(), &part.reduced(round, u64::min))?;
            }
            Ok(())
        })
    }),
    ("allreduce_init, allgather_init, alltoall_init", |part| {
        let (mut input, mut sum) = (part.zeros(), part.zeros());
        let (mut mine, mut all) = (part.zeros(), part.zeros_of_all());
        let (mut given, mut got) = (part.zeros_of_all(), part.zeros_of_all());
        part.communicator.scope(|scope| {
            let mut allreduce = scope.allreduce_init(&mut input, &mut sum, &Op::sum())?;
            let mut allgather = scope.allgather_init(&mut mine, &mut all)?;
            let mut alltoall = scope.alltoall_init(&mut given, &mut got)?;
            for round in 0..3 {
                allreduce.input_mut().copy_from_slice(&part.mine(round));
                allgather.input_mut().copy_from_slice(&part.mine(round));
                alltoall.input_mut().copy_from_slice(&part.given_to_all(round));
                let requests = [alltoall.start(), allreduce.start(), allgather.start()];
                selvedge::wait_all(requests.into_iter().rev())?;
                check(allreduce.output(), &part.reduced(round, u64::wrapping_add)[..])?;
                check(allgather.output(), &part.gathered(round)[..])?;
                check(alltoall.output(), &part.got_from_all(round)[..])?;
            }
            Ok(())
        })
    }),
    ("with_algorithms", |part| {
        let shape = Shape {
            collective: Collective::Allreduce,
            ranks: part.size() as u32,
            count: part.count as u64,
            element_bytes: 8,
            commutative: true,
        };
        let all = Algorithm::all_for(Collective::Allreduce).iter().copied();
        let fit: Vec<Algorithm> = all.filter(|algorithm| algorithm.applies(&shape)).collect();
        let algorithm = *part.rng.child(0).pick(&fit);
        let mut output = part.zeros();
        let chosen = part.communicator.with_algorithms(algorithm).checked();
        chosen.allreduce(&part.mine(0), &mut output, &Op::sum())?;
        check(&output, &part.reduced(0, u64::wrapping_add))
    }),
    ("broadcast_value, gather_values, scatter_values", |part| {
        let (me, communicator) = (part.communicator.rank(), part.communicator);
        let value = part.is_root().then(|| part.mine(0));
        check(&communicator.broadcast_value(value, part.root)?, &part.words(part.root, 0))?;
        let all: Vec<Vec<u64>> = (0..part.size()).map(|rank| part.many(rank, 1, uneven(rank))).collect();
        let gathered = communicator.gather_values(part.many(me, 1, uneven(me)), part.root)?;
        check(&gathered, &part.is_root().then(|| all.clone()))?;
        let scattered = communicator.scatter_values(part.is_root().then(|| all.clone()), part.root)?;
        check(&scattered, &all[me])
    }),
    ("all_gather_values, all_to_all_values", |part| {
        let me = part.communicator.rank();
        let given = |from: usize| {
            let to = |to| (to, part.many(from, to as u64, uneven(from + to)));
            (0..part.size()).map(to).collect::<Vec<(usize, Vec<u64>)>>()
        };
        let all = part.communicator.all_gather_values(given(me).swap_remove(0))?;
        check(&all, &(0..part.size()).map(|rank| given(rank).swap_remove(0)).collect())?;
        let got = part.communicator.all_to_all_values(given(me))?;
        check(&got, &(0..part.size()).map(|rank| given(rank).swap_remove(me)).collect())
    }),
    ("reduce_value, all_reduce_value", |part| {
        let mine = || part.communicator.rank().to_string() + " ";
        let want: String = (0..part.size()).map(|rank| rank.to_string() + " ").collect();
        let joined = part.communicator.reduce_value(mine(), |left, right| left + &right, part.root)?;
        check(&joined, &part.is_root().then(|| want.clone()))?;
        check(&part.communicator.all_reduce_value(mine(), |left, right| left + &right)?, &want)
    }),
];

/// A length that differs from rank to rank.
fn uneven(rank: usize) -> usize {
    rank * 37 % 5 * 40
}

/// What a form of a collective came to, in words.
pub(crate) fn call(name: &str, form: Form, part: &Part<'_>) -> Result<(), String> {
    form(part).map_err(|wrong| {
        let (count, ranks) = (part.count, part.size());
        let what = || format!("{name} of {count} words on {ranks} ranks");
        match wrong {
            Wrong::Bytes(why) => format!("{}: {why}", what()),
            Wrong::Call(error) => format!("{}: {error}", what()),
        }
    })
}
