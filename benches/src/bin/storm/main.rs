//! `storm`: the whole runtime on the simulated network.
//!
//! Each seed is a random program of messages and collectives on a random network that reorders everything, held against
//! a naive oracle. A failure prints the one command that repeats it. With `--mutants` the storm itself is tried: it
//! must find every defect that is put into the engine or the schedules on purpose. With `--real` the programs run on the
//! ranks of a job, over whatever roads it has.

mod collectives;
mod communicators;
mod drive;
mod family;
mod mutate;
mod oracle;
mod player;
mod program;
mod real;
mod stream;
mod threads;
mod ways;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use selvedge::World;
use selvedge_engine::Mutant;

use drive::{Defect, Tally};
use mutate::ScheduleMutant;

/// Runs random programs of the whole runtime on a simulated network and holds them against a naive oracle.
#[derive(Parser, Debug)]
#[command(name = "storm")]
struct Arguments {
    /// Number of seeds to run.
    #[arg(long, default_value_t = 1000, conflicts_with_all = ["seed", "mutants"])]
    seeds: u64,
    /// First seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Runs just this seed, twice, and says what it was about.
    #[arg(long)]
    seed: Option<u64>,
    /// Puts a defect in: the name of one of those that `--mutants` lists.
    #[arg(long)]
    mutant: Option<String>,
    /// For each known defect, runs seeds until one notices it; fails if up to `--patience` seeds do not.
    #[arg(long)]
    mutants: bool,
    /// Seeds to try for each defect.
    #[arg(long, default_value_t = 3000)]
    patience: u64,
    /// Runs the programs on the ranks and roads of this job; start it with mpirun.
    #[arg(long, conflicts_with_all = ["mutants", "seed", "jobs"])]
    real: bool,
    /// With `--real`: so many threads of each rank communicate at the same time, by the public API.
    #[arg(long, requires = "real", value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: Option<u16>,
    /// Threads; each runs its own seeds.
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    jobs: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let defect = match arguments.mutant.as_deref().map(defect_named).transpose() {
        Ok(defect) => defect,
        Err(name) => {
            eprintln!("storm: there is no mutant '{name}'; --mutants lists them");
            return ExitCode::from(2);
        }
    };
    let good = match (arguments.seed, arguments.mutants) {
        _ if arguments.threads.is_some() => on_threads(&arguments),
        _ if arguments.real => match defect {
            Some(Defect::Engine(_)) => {
                eprintln!("storm: a real job has its own engine; defects of schedules can be put into it");
                return ExitCode::from(2);
            }
            None => on_this_job(&arguments, None),
            Some(Defect::Schedule(mutant)) => on_this_job(&arguments, Some(mutant)),
        },
        (Some(seed), _) => replay(seed, defect),
        (None, true) => try_mutants(&arguments),
        (None, false) => storm(&arguments, defect),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs one seed; a panic of the runtime is a finding like any other.
fn run(seed: u64, defect: Option<Defect>) -> Result<Tally, String> {
    catch_unwind(AssertUnwindSafe(|| drive::run(seed, defect))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("panic: {}", text.unwrap_or("without words")))
    })
}

fn storm(arguments: &Arguments, defect: Option<Defect>) -> bool {
    let begin = Instant::now();
    quiet_panics();
    let next = AtomicU64::new(arguments.first);
    let end = arguments.first + arguments.seeds;
    let failed = AtomicBool::new(false);
    let total = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || failed.load(Ordering::Relaxed) {
                        return;
                    }
                    match run(seed, defect) {
                        Ok(tally) => {
                            let mut total = total.lock().expect("no thread panics with the tally");
                            total.messages += tally.messages;
                            total.collectives += tally.collectives;
                            total.communicators += tally.communicators;
                            total.deaths += tally.deaths;
                            total.leavings += tally.leavings;
                        }
                        Err(violation) => {
                            failed.store(true, Ordering::Relaxed);
                            let mutant = arguments.mutant.as_ref().map(|name| format!(" --mutant {name}"));
                            eprintln!("storm: seed {seed}: {violation}");
                            eprintln!(
                                "repeat it with: cargo run --release -p selvedge-benches --bin storm -- --seed {seed}{}",
                                mutant.unwrap_or_default()
                            );
                        }
                    }
                }
            });
        }
    });
    if failed.into_inner() {
        return false;
    }
    let Tally { messages, collectives, communicators, deaths, leavings, .. } =
        total.into_inner().expect("no thread panics with the tally");
    println!(
        "storm: {} seeds, 0 violations: {messages} messages, {collectives} collectives, {communicators} communicators, \
         {deaths} deaths, {leavings} ranks that left in order, in {:.1} s",
        arguments.seeds,
        begin.elapsed().as_secs_f64()
    );
    true
}

/// Runs the programs on a real job.
fn on_this_job(arguments: &Arguments, defect: Option<ScheduleMutant>) -> bool {
    let run = |world: &World| real::run(world, arguments.first, arguments.seeds, defect);
    on_a_job(arguments.seeds, run, |ranks, real::Report { tally, roads }| {
        let Tally { messages, collectives, .. } = tally;
        format!(
            "{ranks} ranks over {roads}, 0 violations: {messages} messages and {collectives} collectives begun by rank 0"
        )
    })
}

/// Runs programs of several threads in each rank of a real job.
fn on_threads(arguments: &Arguments) -> bool {
    let threads = arguments.threads.map_or(1, usize::from);
    let run = |world: &World| threads::run(world, arguments.first, arguments.seeds, threads);
    on_a_job(arguments.seeds, run, |ranks, threads::Report { messages, roads }| {
        format!(
            "{ranks} ranks with {threads} threads each over {roads}, 0 violations: {messages} messages sent by rank 0"
        )
    })
}

/// Joins the job that this process is a rank of, and runs. Rank 0 says what came of it. The rank that sees something wrong says
/// so and leaves, upon which the job ends.
fn on_a_job<R>(
    seeds: u64,
    run: impl FnOnce(&World) -> Result<R, String>,
    in_words: impl FnOnce(usize, R) -> String,
) -> bool {
    let begin = Instant::now();
    let done = selvedge::init()
        .map_err(|error| error.to_string())
        .and_then(|world| Ok((world.rank(), world.size(), run(&world)?)));
    match done {
        Ok((0, ranks, report)) => {
            let words = in_words(ranks, report);
            println!("storm: {seeds} seeds on {words}, in {:.1} s", begin.elapsed().as_secs_f64());
        }
        Ok(_) => {}
        Err(violation) => {
            eprintln!("storm: {violation}");
            return false;
        }
    }
    true
}

/// Runs one seed twice: what happened, and whether it happens again.
fn replay(seed: u64, defect: Option<Defect>) -> bool {
    let program = program::Program::new(seed);
    println!(
        "seed {seed}: {} ranks on network '{}', {} messages, {} collectives, groups {:?}, families {:?}, victim {:?}",
        program.network.peers,
        program.network_name,
        program.messages.len(),
        program.calls.len(),
        program.groups,
        program.families,
        program.victim
    );
    let (first, second) = (drive::run(seed, defect), run(seed, defect));
    match (&first, &second) {
        (Ok(a), Ok(b)) if a.trace == b.trace => println!("no violation; trace {:016x}, twice", a.trace),
        (Ok(a), Ok(b)) => {
            println!("two runs of one seed differ: traces {:016x} and {:016x}", a.trace, b.trace)
        }
        (Err(violation), _) | (_, Err(violation)) => println!("violation: {violation}"),
    }
    matches!((first, second), (Ok(a), Ok(b)) if a.trace == b.trace)
}

/// Every defect must be noticed by some seed.
fn try_mutants(arguments: &Arguments) -> bool {
    quiet_panics();
    let mut survivors = 0;
    println!("{:<40} {:>8}  noticed as", "defect", "seeds");
    for (name, defect) in defects() {
        let seeds = arguments.first..arguments.first + arguments.patience;
        let found =
            seeds.clone().find_map(|seed| run(seed, Some(defect)).err().map(|violation| (seed, violation)));
        match found {
            Some((seed, violation)) => {
                let short: String = violation.chars().take(90).collect();
                println!("{name:<40} {:>8}  {short}", seed - arguments.first + 1);
            }
            None => {
                survivors += 1;
                println!("{name:<40} {:>8}  NOT NOTICED", arguments.patience);
            }
        }
    }
    println!("storm: {} defects, {survivors} not noticed", defects().len());
    survivors == 0
}

fn defects() -> Vec<(String, Defect)> {
    let engine = Mutant::ALL.iter().map(|&mutant| (format!("{mutant:?}"), Defect::Engine(mutant)));
    let schedule =
        ScheduleMutant::ALL.iter().map(|&mutant| (format!("{mutant:?}"), Defect::Schedule(mutant)));
    engine.chain(schedule).collect()
}

fn defect_named(name: &str) -> Result<Defect, String> {
    defects()
        .into_iter()
        .find(|(known, _)| known == name)
        .map(|(_, defect)| defect)
        .ok_or_else(|| name.to_owned())
}

/// Panics are findings here and are reported with their seed.
fn quiet_panics() {
    std::panic::set_hook(Box::new(|_| ()));
}
