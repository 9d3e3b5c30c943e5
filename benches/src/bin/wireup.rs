//! How long ranks take to find each other, and what that costs each.
//!
//! ```text
//! cargo build --release
//! target/release/wireup run -n 512                  all on one host
//! target/release/wireup run -n 64 --per-host 8      as if on eight, over TCP by the loop
//! target/release/wireup run -n 64 -- -H node1,node2 what stands behind -- is for mpirun
//! target/release/wireup price --hosts 782           for 25,024 ranks, which nobody here has
//! ```

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use selvedge::Op;
use selvedge_benches::wireup::Plan;
use selvedge_transport::{Link, Machine};

#[derive(Parser)]
#[command(about = "What it costs ranks to find each other")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Start a job of one allreduce, and say what it took.
    Run {
        /// Ranks.
        #[arg(short = 'n')]
        ranks: u32,
        /// Consecutive ranks that make believe that they share a host of their own; all where it is not said.
        #[arg(long)]
        per_host: Option<u32>,
        /// Everybody also sends a word to everybody, so that all have met.
        #[arg(long)]
        all_meet: bool,
        /// For mpirun.
        #[arg(last = true)]
        options: Vec<String>,
    },
    /// One rank of such a job.
    #[command(hide = true)]
    Rank {
        #[arg(long)]
        all_meet: bool,
    },
    /// Say what it would take elsewhere.
    Price {
        /// Hosts.
        #[arg(long)]
        hosts: u32,
        /// Ranks on each.
        #[arg(long, default_value_t = 32)]
        per_host: u32,
        /// Children of a node in the tree of servers.
        #[arg(long, default_value_t = 16)]
        radix: u32,
        /// Bytes of a card.
        #[arg(long, default_value_t = 200)]
        card_bytes: u32,
        /// Ranks of other hosts that each has to do with.
        #[arg(long, default_value_t = 10)]
        peers_met: u32,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().what {
        What::Run { ranks, per_host, all_meet, options } => run(ranks, per_host, all_meet, &options),
        What::Rank { all_meet } => match rank(all_meet) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        },
        What::Price { hosts, per_host, radix, card_bytes, peers_met } => {
            let plan = Plan { hosts, ranks_per_host: per_host, radix, card_bytes, peers_met };
            let machine = Machine { remote: Link::TCP, ..Machine::one_host(per_host, per_host) };
            println!(
                "{} ranks on {hosts} hosts, TCP between the servers\n{}",
                plan.ranks(),
                plan.price(&machine)
            );
            ExitCode::SUCCESS
        }
    }
}

fn run(ranks: u32, per_host: Option<u32>, all_meet: bool, options: &[String]) -> ExitCode {
    let own = std::env::current_exe().expect("our own path");
    let mpirun: PathBuf = own.with_file_name("mpirun");
    let before = children_time();
    let start = Instant::now();
    let mut command = Command::new(mpirun);
    command.args(["-n", &ranks.to_string(), "--quiet"]).args(options);
    if let Some(each) = per_host {
        let script = format!("SELVEDGE_HOST=h$((PMI_RANK / {each})) exec \"$@\"");
        command.args(["sh", "-c", &script, "sh"]).env("SELVEDGE_INTERFACE", "127.0.0.1");
    }
    command.arg(own).arg("rank");
    if all_meet {
        command.arg("--all-meet");
    }
    let status = command.status().expect("mpirun is beside us");
    let (wall, spent) = (start.elapsed(), children_time() - before);
    println!(
        "{ranks} ranks: {:.2} s from start to end, {:.1} ms of processor time for each rank",
        wall.as_secs_f64(),
        spent.as_secs_f64() * 1e3 / f64::from(ranks)
    );
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn rank(all_meet: bool) -> selvedge::Result<()> {
    let before = memory_kib();
    let start = Instant::now();
    let world = selvedge::init()?;
    let joined = start.elapsed();
    let (me, size) = (world.rank(), world.size());
    let mut sum = [0];
    world.allreduce(&[me as u64], &mut sum, &Op::sum())?;
    assert_eq!(sum[0], (size as u64) * (size as u64 - 1) / 2);
    let first = start.elapsed();
    if all_meet {
        for step in 1..size {
            let (to, from) = ((me + step) % size, (me + size - step) % size);
            let mut got = [0_u64];
            world.sendrecv(&[me as u64], to, 0, &mut got, from, 0)?;
            assert_eq!(got[0], from as u64);
        }
    }
    let taken = memory_kib().saturating_sub(before);
    let figures = [joined.as_micros() as u64, first.as_micros() as u64, taken];
    let (mut most, mut total) = ([0; 3], [0; 3]);
    world.allreduce(&figures, &mut most, &Op::max())?;
    world.allreduce(&figures, &mut total, &Op::sum())?;
    if me == 0 {
        let [joined, first, taken] = most;
        println!(
            "the last had joined after {:.2} s and its first allreduce after {:.2} s; memory of a rank: mean {} KiB, most {taken} KiB",
            Duration::from_micros(joined).as_secs_f64(),
            Duration::from_micros(first).as_secs_f64(),
            total[2] / size as u64,
        );
    }
    Ok(())
}

/// What a process takes, with its share of what it shares (proportional set size).
fn memory_kib() -> u64 {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = rollup.lines().find(|line| line.starts_with("Pss:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}

/// Processor time of all children that have ended, and theirs: proc(5), fields 16 and 17 of stat.
fn children_time() -> Duration {
    const TICKS_PER_SECOND: u64 = 100;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let ticks: u64 = after_name.split(' ').skip(13).take(2).filter_map(|word| word.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
}
