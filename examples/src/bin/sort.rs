//! Sorts the lines of a file that need not fit into one rank: a sample says which lines go where, one exchange brings
//! them there, and each rank writes its part of the result.
//!
//! `mpirun -n 4 sort words.txt --out sorted.txt`

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::ExitCode;

use selvedge::{Communicator, World, wait_all};
use selvedge_examples::{Failure, agree, text};

/// Sorts the lines of a file by their bytes, as `LC_ALL=C sort` does.
#[derive(clap::Parser)]
#[command(name = "sort")]
struct Args {
    /// File whose lines are sorted
    file: PathBuf,
    /// Where to write them; may be the same file
    #[arg(long, visible_alias = "output")]
    out: PathBuf,
}

/// Samples of each rank for each rank. The more, the more alike are the parts: each gets at most 1 + 1 / SAMPLES of what
/// it should, as far as lines differ (Shi and Schaeffer, Parallel Sorting by Regular Sampling, 1992).
const SAMPLES: usize = 16;

fn main() -> ExitCode {
    selvedge_examples::main(sort)
}

fn sort(world: &World, args: Args) -> Result<(), Failure> {
    let (path, out) = (args.file.display(), args.out.display());
    let share = text::share(&args.file, world.rank(), world.size(), |byte| byte == b'\n');
    let share = agree(world, share.map_err(|error| format!("cannot read {path}: {error}")))?;
    // All have read, so the file may be written again: rank 0 empties it, then the others find it.
    let cannot_write = |error| format!("cannot write {out}: {error}");
    let lead = world.rank() == 0;
    agree(world, if lead { File::create(&args.out).map(drop).map_err(cannot_write) } else { Ok(()) })?;
    let file = File::options().write(true).open(&args.out).map_err(cannot_write);
    let file = agree(world, file)?;

    let mut mine = lines(&share);
    mine.sort_unstable();
    let received = exchange(world, &split(world, &mine)?)?;
    // Sorted parts of every rank, one after the other: the standard sort finds such runs, and merges them.
    let mut mine: Vec<&[u8]> = received.iter().flat_map(|part| lines(part)).collect();
    mine.sort();

    let sorted = joined(&mine);
    let mut lengths = vec![0; world.size()];
    world.allgather(&[sorted.len() as u64], &mut lengths)?;
    let before = lengths[..world.rank()].iter().sum();
    agree(world, file.write_all_at(&sorted, before).map_err(cannot_write))
}

fn lines(text: &[u8]) -> Vec<&[u8]> {
    text.split_inclusive(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\n").unwrap_or(line)).collect()
}

fn joined(lines: &[&[u8]]) -> Vec<u8> {
    lines.iter().flat_map(|line| line.iter().chain(b"\n")).copied().collect()
}

/// Collective: what goes to each rank of `sorted`, such that all that rank i gets comes before all that i + 1 gets.
fn split(world: &Communicator, sorted: &[&[u8]]) -> selvedge::Result<Vec<Vec<u8>>> {
    let ranks = world.size();
    let sample = sorted.iter().step_by((sorted.len() / (ranks * SAMPLES)).max(1));
    let mut samples = world.all_gather_values(sample.map(|line| line.to_vec()).collect::<Vec<_>>())?.concat();
    samples.sort_unstable();
    let mut rest = sorted;
    let parts = (1..=ranks).map(|part| {
        // Equal lines stay together; the last rank gets all that is left.
        let last = samples.get(samples.len() * part / ranks).filter(|_| part < ranks);
        let here = last.map_or(rest.len(), |last| rest.partition_point(|line| *line <= &last[..]));
        joined(rest.split_off(..here).expect("a partition point is inside"))
    });
    Ok(parts.collect())
}

/// Collective: part i of every rank, in order of ranks, on rank i. First the lengths, then all messages at once.
fn exchange(world: &Communicator, parts: &[Vec<u8>]) -> selvedge::Result<Vec<Vec<u8>>> {
    let lengths: Vec<usize> = parts.iter().map(Vec::len).collect();
    let mut announced = vec![0; world.size()];
    world.alltoall(&lengths, &mut announced)?;
    let mut received: Vec<Vec<u8>> = announced.iter().map(|&length| vec![0; length]).collect();
    world.scope(|scope| {
        let receives = received.iter_mut().enumerate().map(|(rank, part)| scope.irecv(part, rank, 0));
        let receives = receives.collect::<selvedge::Result<Vec<_>>>()?;
        let sends = parts.iter().enumerate().map(|(rank, part)| scope.isend(part, rank, 0));
        let sends = sends.collect::<selvedge::Result<Vec<_>>>()?;
        wait_all(receives.into_iter().chain(sends))
    })?;
    Ok(received)
}
