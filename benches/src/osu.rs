//! `osu`: micro-benchmarks in the manner of the OSU suite, and the floor of the machine beside them.
//!
//! Main path: [`main`] parses the command line into a `Plan`, which is the same on all ranks; for every size the
//! family of the benchmark (`pt2pt`, `collective`, `nonblocking`) measures one `Row`; rank 0 puts the rows into a
//! `Table`. `floor` goes its own way and needs nobody else.
//!
//! What is not here: placement (mpirun's business; reported by `place`), other libraries (that is `peer`), plots.

pub(crate) mod buffer;
pub(crate) mod cli;
pub(crate) mod collective;
mod floor;
pub(crate) mod memory;
mod nonblocking;
pub(crate) mod place;
pub(crate) mod pt2pt;
mod start;
pub(crate) mod stats;
pub(crate) mod table;
mod threads;
pub(crate) mod validate;

use std::io;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use selvedge::{Communicator, Op, World};

use cli::{Bench, Cli, Family, Plan};
use table::{Heading, Output, Table};

/// Exit codes besides 0: something went wrong, or the data did; the command line made no sense.
const FAILED: u8 = 1;
const USAGE: u8 = 2;

/// What can go wrong while measuring.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Selvedge(#[from] selvedge::Error),
    #[error("cannot write the results: {0}")]
    Output(#[from] io::Error),
}

/// The whole program. Every rank returns the same exit code, and only rank 0 speaks: unless a rank is in trouble of
/// its own, which ends the job.
pub fn main() -> ExitCode {
    let held_kib = memory::held_kib();
    let parsed = Cli::try_parse();
    let begin = Instant::now();
    let world = match selvedge::init() {
        Ok(world) => world,
        Err(error) => {
            eprintln!("osu: {error}");
            return ExitCode::from(FAILED);
        }
    };
    let init_us = stats::us_since(begin);
    match parsed {
        Ok(cli) => run(&world, &cli, held_kib, init_us).unwrap_or_else(|trouble| {
            eprintln!("osu: rank {}: {trouble}", world.rank());
            world.abort(FAILED.into())
        }),
        Err(error) => {
            let code = if error.use_stderr() { USAGE } else { 0 };
            leave(&world, code, || {
                // Nobody is left to tell when standard output is closed.
                let _ = error.print();
            })
        }
    }
}

/// Rank 0 says it, then all leave with `code`: no rank is gone, and the job ended, before it was said.
fn leave(world: &World, code: u8, say: impl FnOnce()) -> ExitCode {
    if world.rank() == 0 {
        say();
    }
    match world.barrier() {
        Ok(()) => ExitCode::from(code),
        Err(_) => ExitCode::from(code.max(FAILED)),
    }
}

/// `held_kib`: what this process held before it joined, which took `init_us` microseconds.
fn run(world: &World, cli: &Cli, held_kib: u64, init_us: f64) -> Result<ExitCode, Trouble> {
    let refuse = |code: u8, why: &str| Ok(leave(world, code, || eprintln!("osu: {why}")));
    let plan = match Plan::new(cli, world.size()) {
        Ok(plan) => plan,
        Err(usage) => return refuse(USAGE, &format!("{usage}\nFor more information, try 'osu --help'.")),
    };
    let bench = cli.bench;
    if matches!(bench.family(), Family::Latency | Family::Bandwidth | Family::Threads)
        && let Some(wanted) = pt2pt::wrong_ranks(bench, world.size())
    {
        let (name, ranks) = (bench.name(), world.size());
        return refuse(
            FAILED,
            &format!("{name} needs {wanted}, this job has {ranks}: mpirun -n 2 osu {name}"),
        );
    }

    let opened = match world.rank() {
        0 => Output::open(cli.json.as_deref()),
        _ => Ok(Output::silent()),
    };
    if !stats::everywhere(world, opened.is_ok())? {
        let path = cli.json.as_deref().unwrap_or("-".as_ref()).display();
        let why = opened.as_ref().err().map(ToString::to_string).unwrap_or_default();
        return refuse(FAILED, &format!("cannot write {path}: {why}"));
    }
    let output = opened?;

    if bench == Bench::Floor {
        return run_floor(world, cli, &plan, output);
    }
    let mut table = Table::open(output, heading(world, &plan)?)?;
    let right = measure(world, &plan, &mut table, init_us)?;
    if plan.memory {
        table.memory(most_kib(world, memory::held_kib().saturating_sub(held_kib))?)?;
    }
    table.close()?;
    if right {
        return Ok(ExitCode::SUCCESS);
    }
    refuse(FAILED, "the data that arrived is not the data that was sent, see the last row")
}

/// Collective: what the rank that holds most holds.
fn most_kib(world: &Communicator, mine: u64) -> selvedge::Result<u64> {
    let mut most = [0];
    world.allreduce(&[mine], &mut most, &Op::max())?;
    Ok(most[0])
}

/// The other ranks, if somebody started any, wait asleep until rank 0 has measured.
fn run_floor(world: &World, cli: &Cli, plan: &Plan, output: Output) -> Result<ExitCode, Trouble> {
    let measured = if world.rank() == 0 { floor::run(cli, plan, output) } else { Ok(()) };
    let fine = stats::everywhere(world, measured.is_ok())?;
    let code = if fine { 0 } else { FAILED };
    Ok(leave(world, code, || {
        if let Err(error) = measured {
            eprintln!("osu: {error}");
        }
    }))
}

/// Measures every size; stops and returns false where data was wrong.
fn measure(world: &Communicator, plan: &Plan, table: &mut Table, init_us: f64) -> Result<bool, Trouble> {
    for &bytes in &plan.sizes {
        let row = match plan.bench.family() {
            Family::Latency => pt2pt::latency(world, plan, bytes)?,
            Family::Bandwidth => pt2pt::bandwidth(world, plan, bytes)?,
            Family::Collective(what) | Family::Persistent(what) => {
                collective::measure(world, plan, what, bytes)?
            }
            Family::Nonblocking(what) => nonblocking::measure(world, plan, what, bytes)?,
            Family::Threads => threads::measure(world, plan, bytes)?,
            Family::Start if plan.bench == Bench::Hello => return Ok(true),
            Family::Start => start::init(world, init_us)?,
            Family::Floor => return Ok(true),
        };
        let wrong = row.valid == Some(false);
        table.row(row)?;
        if wrong {
            return Ok(false);
        }
    }
    Ok(true)
}

fn heading(world: &Communicator, plan: &Plan) -> selvedge::Result<Heading> {
    let family = plan.bench.family();
    let mut notes =
        vec![format!("Selvedge OSU-style {} Test v{}", plan.bench.title(), env!("CARGO_PKG_VERSION"))];
    match family {
        Family::Start if plan.bench == Bench::Hello => notes.push(start::hello(world.size())),
        Family::Nonblocking(_) => notes.push("Overall = Coll. Init + Compute + Test + Wait".to_owned()),
        Family::Bandwidth if plan.bench == Bench::MbwMr => {
            notes.push(format!("[ pairs: {} ] [ window size: {} ]", world.size() / 2, plan.window));
        }
        Family::Threads if plan.bench == Bench::LatencyMt => {
            notes.push(format!("[ threads: {} ]", plan.threads));
        }
        Family::Threads => {
            notes.push(format!("[ threads: {} ] [ window size: {} ]", plan.threads, plan.window));
        }
        _ => {}
    }
    let datatype = match family {
        Family::Collective(what) | Family::Nonblocking(what) | Family::Persistent(what) => what.datatype(),
        Family::Start => None,
        _ => Some("Datatype: u8."),
    };
    notes.extend(datatype.map(str::to_owned));
    if plan.left_out > 0 {
        notes.push(format!("{} sizes left out: their buffers need more than -M allows", plan.left_out));
    }
    if plan.tail {
        let clock = stats::clock_ns();
        notes.push(format!(
            "--tail reads the clock at every iteration: {clock:.0} ns each, included in all figures"
        ));
    }
    let columns = match family {
        Family::Collective(_) | Family::Persistent(_) => collective::columns(plan),
        Family::Start => start::columns(plan),
        Family::Nonblocking(_) => nonblocking::columns(plan),
        Family::Threads => threads::columns(plan),
        _ => pt2pt::columns(plan),
    };
    Ok(Heading {
        bench: plan.bench.name(),
        notes,
        columns,
        sized: plan.bench.is_sized(),
        iterations: plan.full,
        validation: plan.validation,
        places: place::gather(world)?,
    })
}
