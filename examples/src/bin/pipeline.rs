//! The longest Collatz chain below a limit: a source of work, workers and a sink, joined by messages. Every worker of every
//! rank's rayon pool sends and receives by itself; whoever is idle asks for more, so that slow hosts get less.
//!
//! `mpirun -n 4 pipeline --below 10000000 --threads 8`

use std::ops::Range;
use std::process::ExitCode;

use selvedge::{ANY_SOURCE, Communicator, World};
use selvedge_examples::{Failure, agree};

/// Finds the number below a limit whose Collatz chain is the longest.
#[derive(clap::Parser)]
#[command(name = "pipeline")]
struct Args {
    /// Numbers below this one begin a chain
    #[arg(long, default_value_t = 1_000_000)]
    below: u64,
    /// Numbers that a worker gets at a time
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    chunk: u64,
    /// Workers of each rank [default: this rank's share of the processors]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
}

/// A chain: how many numbers it has, and the first. Of equal ones the smaller first number is the better.
type Chain = (u64, std::cmp::Reverse<u64>);
/// Tag of what workers say: their number, and their best chain since they last said something.
const DONE: i32 = 0;

fn main() -> ExitCode {
    selvedge_examples::main(pipeline)
}

fn pipeline(world: &World, args: Args) -> Result<(), Failure> {
    let share = world.local_processors().div_ceil(world.local_ranks());
    let threads = args.threads.map_or(share, usize::from).max(1);
    let pool = agree(world, rayon::ThreadPoolBuilder::new().num_threads(threads).build())?;
    let mut workers = [0];
    world.allreduce(&[threads], &mut workers, &selvedge::Op::sum())?;

    let team = world.team();
    let best = pool.in_place_scope(|scope| {
        // Every thread of the pool is a worker, with a communicator of its own.
        scope.spawn_broadcast(|_, context| {
            let done = work(&team.communicator(), context.index());
            done.unwrap_or_else(|error| panic!("worker {}: {error}", context.index()));
        });
        // This thread is none of the pool: on rank 0 it is the source and the sink.
        (world.rank() == 0).then(|| serve(world, args.below, args.chunk, workers[0])).transpose()
    })?;
    if let Some((length, first)) = best {
        println!("of the chains below {}, that of {} is the longest: {length} numbers", args.below, first.0);
    }
    Ok(())
}

/// Asks for work and does it, until there is none.
fn work(mine: &Communicator, worker: usize) -> selvedge::Result<()> {
    let (tag, mut best) = (worker as u64 + 1, Chain::default());
    loop {
        mine.send(&[tag, best.0, best.1.0], 0, DONE)?;
        let mut chunk = [0; 2];
        mine.recv(&mut chunk, 0, tag as i32)?;
        if chunk[0] == chunk[1] {
            return Ok(());
        }
        best = longest(chunk[0]..chunk[1]);
    }
}

/// Hands out the numbers, and keeps the best of what comes back. Every worker gets one empty chunk, its last.
fn serve(world: &Communicator, below: u64, chunk: u64, workers: usize) -> selvedge::Result<Chain> {
    let (mut next, mut left, mut best) = (1, workers, Chain::default());
    while left > 0 {
        let mut said = [0; 3];
        let status = world.recv(&mut said, ANY_SOURCE, DONE)?;
        best = best.max((said[1], std::cmp::Reverse(said[2])));
        let end = (next + chunk).min(below.max(1));
        left -= usize::from(next == end);
        world.send(&[next, end], status.source, said[0] as i32)?;
        next = end;
    }
    Ok(best)
}

fn longest(firsts: Range<u64>) -> Chain {
    firsts.map(|first| (length(first), std::cmp::Reverse(first))).max().unwrap_or_default()
}

/// Numbers from `first` to 1.
fn length(first: u64) -> u64 {
    let next = |n: &u64| match n {
        1 => None,
        n if n % 2 == 0 => Some(n / 2),
        n => Some(3 * n + 1),
    };
    std::iter::successors(Some(first), next).count() as u64
}
