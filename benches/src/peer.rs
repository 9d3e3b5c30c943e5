//! `peer`: three benchmarks of `osu`, `latency`, `bw` and `allreduce`, through another MPI library: the same loops, the
//! same clock, the same buffers, the same table. So a comparison compares libraries and nothing else.
//!
//! Main path: [`main`] opens the library named by `--library` (see `library`), makes the `Plan` that `osu` would make, and
//! measures each size. `cargo xtask peers` runs it beside `osu`.
//!
//! What is not here: other benchmarks, several hosts.

mod library;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use crate::osu::buffer::Aligned;
use crate::osu::cli::{Bench, Cli, Plan, Sizes};
use crate::osu::memory;
use crate::osu::place::{self, Place};
use crate::osu::table::{Heading, Output, Row, Table};
use crate::osu::{collective, pt2pt, stats, validate};

use library::{Library, LibraryError, Mpi};

/// Exit codes besides 0, as those of `osu`.
const FAILED: u8 = 1;
const USAGE: u8 = 2;

/// Three of osu's benchmarks through another MPI library. Start it with that library's mpiexec.
#[derive(Debug, Parser)]
#[command(name = "peer", version)]
struct Arguments {
    /// The library: libmpi.so.12 of MPICH or Intel MPI, libmpi.so.40 of Open MPI
    #[arg(long, value_name = "FILE")]
    library: PathBuf,

    /// What to measure
    #[arg(value_enum)]
    bench: PeerBench,

    /// As of osu
    #[arg(short = 'm', long = "message-size", value_name = "MIN:MAX")]
    sizes: Option<Sizes>,

    /// As of osu
    #[arg(short = 'i', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    iterations: Option<u32>,

    /// As of osu
    #[arg(short = 'x', long, value_name = "N")]
    warmup: Option<u32>,

    /// As of osu
    #[arg(short = 'c', long)]
    validation: bool,

    /// As of osu
    #[arg(long)]
    memory: bool,

    /// As of osu
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What can be measured through another library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PeerBench {
    /// One-way time of a message, by ping-pong between 2 ranks
    Latency,
    /// Windows of messages from rank 0 to rank 1
    Bw,
    /// Sum of all at all
    Allreduce,
}

/// What can go wrong while measuring.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{}: {source}", path.display())]
    Library { path: PathBuf, source: LibraryError },
    #[error(transparent)]
    Call(#[from] LibraryError),
    #[error("cannot write the results: {0}")]
    Output(#[from] io::Error),
    #[error("{0}")]
    Usage(String),
    #[error("the data that arrived is not the data that was sent, see the last row")]
    Wrong,
}

/// The whole program. A rank in trouble says so and leaves without `MPI_Finalize`, upon which every launcher ends the
/// job.
pub fn main() -> ExitCode {
    let held_kib = memory::held_kib();
    let arguments = Arguments::parse();
    let done = match Library::start(&arguments.library) {
        Ok(Library::Mpich(mpi)) => run(mpi, &arguments, held_kib),
        Ok(Library::OpenMpi(mpi)) => run(mpi, &arguments, held_kib),
        Err(source) => Err(Trouble::Library { path: arguments.library.clone(), source }),
    };
    let Err(trouble) = done else { return ExitCode::SUCCESS };
    eprintln!("peer: {trouble}");
    ExitCode::from(if matches!(trouble, Trouble::Usage(_)) { USAGE } else { FAILED })
}

impl Arguments {
    /// What `osu` would do when asked the same.
    fn plan(&self, ranks: usize) -> Result<Plan, Trouble> {
        let mut words = Cli::parse_from(["osu", self.bench.of_osu().name().as_str()]);
        words.sizes = self.sizes;
        words.iterations = self.iterations;
        words.warmup = self.warmup;
        words.validation = self.validation;
        words.memory = self.memory;
        let plan = Plan::new(&words, ranks).map_err(|usage| Trouble::Usage(usage.to_string()))?;
        if self.bench == PeerBench::Bw && plan.sizes[0] == 0 {
            return Err(Trouble::Usage("bw needs at least 1 byte".to_owned()));
        }
        match pt2pt::wrong_ranks(plan.bench, ranks) {
            Some(wanted) if plan.bench != Bench::Allreduce => {
                let bench = plan.bench.name();
                Err(Trouble::Usage(format!("{bench} needs {wanted}, this job has {ranks}")))
            }
            _ => Ok(plan),
        }
    }
}

impl PeerBench {
    fn of_osu(self) -> Bench {
        match self {
            PeerBench::Latency => Bench::Latency,
            PeerBench::Bw => Bench::Bw,
            PeerBench::Allreduce => Bench::Allreduce,
        }
    }
}

/// `held_kib`: what this process held before it opened the library.
fn run<H: Copy>(mpi: Mpi<H>, arguments: &Arguments, held_kib: u64) -> Result<(), Trouble> {
    let plan = arguments.plan(mpi.size)?;
    let output = match mpi.rank {
        0 => Output::open(arguments.json.as_deref())?,
        _ => Output::silent(),
    };
    let mut table = Table::open(output, heading(&mpi, &plan)?)?;
    for &bytes in &plan.sizes {
        let row = match arguments.bench {
            PeerBench::Latency => latency(&mpi, &plan, bytes)?,
            PeerBench::Bw => bandwidth(&mpi, &plan, bytes)?,
            PeerBench::Allreduce => allreduce(&mpi, &plan, bytes)?,
        };
        let wrong = row.valid == Some(false);
        table.row(row)?;
        if wrong {
            return Err(Trouble::Wrong);
        }
    }
    if plan.memory {
        let taken = memory::held_kib().saturating_sub(held_kib);
        let all = all_of(&mpi, &[i32::try_from(taken).unwrap_or(i32::MAX)])?;
        table.memory(all.into_iter().max().unwrap_or(0) as u64)?;
    }
    table.close()?;
    Ok(mpi.finalize()?)
}

/// As `pt2pt::latency`.
fn latency<H: Copy>(mpi: &Mpi<H>, plan: &Plan, bytes: usize) -> Result<Row, LibraryError> {
    let (mut sent, mut received) = (Aligned::new(b'a', bytes), Aligned::new(b'b', bytes));
    let once = |sent: &[u8], received: &mut [u8]| {
        if mpi.rank == 0 {
            mpi.send(sent, 1, pt2pt::DATA)?;
            mpi.receive(received, 1, pt2pt::DATA)
        } else {
            mpi.receive(received, 0, pt2pt::DATA)?;
            mpi.send(sent, 0, pt2pt::DATA)
        }
    };
    let repeat = plan.repeat(bytes);
    mpi.barrier()?;
    let samples = stats::time_each(repeat, false, || once(sent.as_slice(), received.as_mut_slice()))?;
    let check = |round| {
        validate::fill(sent.as_mut_slice(), mpi.rank, round);
        once(sent.as_slice(), received.as_mut_slice())?;
        Ok(validate::holds(received.as_slice(), 1 - mpi.rank, round))
    };
    let valid = checked(mpi, plan, check)?;
    Ok(Row { bytes, values: vec![stats::mean(&samples) / 2.0], iterations: repeat.iterations, valid })
}

/// As `pt2pt::bandwidth`, for `bw`.
fn bandwidth<H: Copy>(mpi: &Mpi<H>, plan: &Plan, bytes: usize) -> Result<Row, LibraryError> {
    let (mut sent, mut pool) =
        (Aligned::new(b'a', bytes), Aligned::new(b'b', pt2pt::posted(plan.window, bytes) * bytes));
    let once = |sent: &[u8], pool: &mut [u8]| {
        let mut answer = [0; 4];
        if mpi.rank == 0 {
            mpi.send_window(sent, 1, pt2pt::DATA, plan.window)?;
            return mpi.receive(&mut answer, 1, pt2pt::ANSWER);
        }
        let mut left = plan.window;
        while left > 0 {
            let now = left.min(pool.len() / bytes);
            mpi.receive_window(&mut pool[..now * bytes], bytes, 0, pt2pt::DATA)?;
            left -= now;
        }
        mpi.send(&answer, 0, pt2pt::ANSWER)
    };
    let repeat = plan.repeat(bytes);
    mpi.barrier()?;
    let samples = stats::time_each(repeat, false, || once(sent.as_slice(), pool.as_mut_slice()))?;
    let check = |round| {
        validate::fill(sent.as_mut_slice(), 0, round);
        once(sent.as_slice(), pool.as_mut_slice())?;
        let mut slots = pool.as_slice().chunks(bytes);
        Ok(mpi.rank == 0 || slots.all(|slot| validate::holds(slot, 0, round)))
    };
    let valid = checked(mpi, plan, check)?;
    let mb_s = (plan.window * bytes) as f64 / stats::mean(&samples);
    Ok(Row { bytes, values: vec![mb_s], iterations: repeat.iterations, valid })
}

/// As `collective::measure`.
fn allreduce<H: Copy>(mpi: &Mpi<H>, plan: &Plan, bytes: usize) -> Result<Row, LibraryError> {
    let (mut mine, mut sums) =
        (Aligned::new(1, bytes / size_of::<i32>()), Aligned::new(0, bytes / size_of::<i32>()));
    let repeat = plan.repeat(bytes);
    mpi.barrier()?;
    let once = || mpi.sum_ints(mine.as_slice(), sums.as_mut_slice());
    let samples = stats::time_apart(repeat, once, || mpi.barrier())?;
    let mean = mpi.sum_double(stats::mean(&samples))? / mpi.size as f64;
    let check = |round| {
        validate::fill_summands(mine.as_mut_slice(), mpi.rank, round);
        mpi.sum_ints(mine.as_slice(), sums.as_mut_slice())?;
        Ok(validate::holds_sum(sums.as_slice(), mpi.size, round))
    };
    let valid = checked(mpi, plan, check)?;
    Ok(Row { bytes, values: vec![mean], iterations: repeat.iterations, valid })
}

/// Collective: whether `check` holds in every round on every rank, where `-c` asks for it.
fn checked<H: Copy>(
    mpi: &Mpi<H>,
    plan: &Plan,
    mut check: impl FnMut(usize) -> Result<bool, LibraryError>,
) -> Result<Option<bool>, LibraryError> {
    if !plan.validation {
        return Ok(None);
    }
    let mut wrong = 0;
    for round in 0..validate::ROUNDS {
        wrong += i32::from(!check(round)?);
    }
    let mut anywhere = [0];
    mpi.sum_ints(&[wrong], &mut anywhere)?;
    Ok(Some(anywhere == [0]))
}

fn heading<H: Copy>(mpi: &Mpi<H>, plan: &Plan) -> Result<Heading, LibraryError> {
    let columns = match plan.bench {
        Bench::Latency | Bench::Bw => pt2pt::columns(plan),
        _ => collective::columns(plan),
    };
    Ok(Heading {
        bench: plan.bench.name(),
        notes: vec![format!("{}: OSU-style {} Test of Selvedge", mpi.version, plan.bench.title())],
        columns,
        sized: true,
        iterations: false,
        validation: plan.validation,
        places: places(mpi)?,
    })
}

/// Collective: the place of every rank, on all ranks. All are taken to be on this host.
fn places<H: Copy>(mpi: &Mpi<H>) -> Result<Vec<Place>, LibraryError> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mine = [
        std::process::id() as i32,
        rustix::thread::sched_getcpu() as i32,
        place::cpus_allowed().len() as i32,
    ];
    let all = all_of(mpi, &mine)?;
    let place = |(rank, found): (usize, &[i32])| Place {
        rank,
        host: host.clone(),
        pid: found[0] as u32,
        cpu: found[1] as usize,
        cpus_allowed: found[2] as usize,
    };
    Ok(all.chunks_exact(mine.len()).enumerate().map(place).collect())
}

/// Collective: these numbers of every rank, by rank, on all ranks.
fn all_of<H: Copy>(mpi: &Mpi<H>, mine: &[i32]) -> Result<Vec<i32>, LibraryError> {
    let mut places = vec![0; mine.len() * mpi.size];
    places[mine.len() * mpi.rank..][..mine.len()].copy_from_slice(mine);
    let mut all = places.clone();
    mpi.sum_ints(&places, &mut all)?;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(line: &str, ranks: usize) -> Result<Plan, String> {
        let words = ["peer", "--library", "libmpi.so"].into_iter().chain(line.split_whitespace());
        let arguments = Arguments::try_parse_from(words).map_err(|error| error.to_string())?;
        arguments.plan(ranks).map_err(|trouble| trouble.to_string())
    }

    #[test]
    fn the_plan_is_the_one_osu_makes_of_the_same_words() {
        for (line, ranks) in
            [("latency -m 8:4194304 -c", 2), ("bw -m 8:64", 2), ("allreduce -m 8:8 -i 50 -x 5", 4)]
        {
            let words = std::iter::once("osu").chain(line.split_whitespace());
            let osu = Plan::new(&Cli::parse_from(words), ranks).unwrap();
            assert_eq!(plan(line, ranks).unwrap(), osu, "{line}");
        }
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        assert!(plan("latency", 3).unwrap_err().contains("exactly 2 ranks"));
        assert!(plan("bw -m 0:8", 2).unwrap_err().contains("1 byte"));
        assert!(plan("bcast", 2).unwrap_err().contains("latency, bw, allreduce"));
        assert!(plan("allreduce -m 1:3", 2).unwrap_err().contains("4 bytes"));
    }
}
