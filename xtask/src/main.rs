//! `cargo xtask`: show the house, prove it, count it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use xtask::rules::House;
use xtask::{cluster, demo, facts, interop, peers, stages};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Show the house, prove it, count it")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Build in release mode, run the heat equation on 4 ranks, and print a short latency table
    Demo,
    /// Install what the tests need and run everything that continuous integration runs
    Test {
        /// Run this stage alone, after the stages it needs
        #[arg(long, value_name = "STAGE")]
        only: Option<String>,
        /// Print the stages and leave
        #[arg(long)]
        list: bool,
    },
    /// Print three facts about the code: unsafe sites explained, methods of the contract, largest files
    Facts,
    /// Start the programs of every MPI library with every launcher, and print the table; needs root
    Interop {
        /// On how many hosts, each made of namespaces of this machine
        #[arg(long, value_name = "N", default_values_t = [1, 2], value_parser = hosts_of_a_table)]
        hosts: Vec<usize>,
    },
    /// Measure MPICH, Intel MPI and Open MPI beside Selvedge on this machine, and print the ratios
    Peers {
        /// How the ranks reach each other
        #[arg(long, value_enum, default_value_t = peers::Road::Shm)]
        road: peers::Road,
        /// How often each is measured
        #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
        /// Longest that one job may take
        #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
        /// Also write every figure as JSON
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Count the instructions of a message under valgrind's callgrind, instead of its time
        #[arg(long, conflicts_with = "rounds", conflicts_with = "json")]
        instructions: bool,
    },
    /// Run osu with its data check on many hosts over every road, and print the table; needs root
    Cluster {
        /// On how many hosts, each made of namespaces of this machine
        #[arg(long, value_name = "N", default_values_t = cluster::HOST_COUNTS, value_parser = hosts_of_a_cluster)]
        hosts: Vec<usize>,
    },
    /// Measure how long ranks take to start, beside the launchers of the other libraries; needs root
    Starts {
        /// How often each is measured
        #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
        /// Longest that one job may take
        #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
        /// Also write every figure as JSON
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Task::Demo => demo::run(),
        Task::Test { list: true, .. } => {
            stages::list();
            true
        }
        Task::Test { only, .. } => match stages::select(only.as_deref()) {
            Ok(chosen) => stages::run(&chosen),
            Err(message) => {
                eprintln!("{message}");
                return ExitCode::from(2);
            }
        },
        Task::Peers { road, rounds, limit, json, instructions } => {
            let limit = Duration::from_secs(limit);
            peers::run(&peers::Options { road, rounds, limit, json, instructions })
        }
        Task::Cluster { hosts } => cluster::run_table(&hosts),
        Task::Starts { rounds, limit, json } => {
            let limit = Duration::from_secs(limit);
            peers::starts::run(&peers::starts::Options { rounds, limit, json })
        }
        Task::Interop { hosts } => interop::run_matrix(&hosts),
        Task::Facts => {
            print!("{}", facts::report(&House::load()));
            true
        }
    };
    if done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One or two.
fn hosts_of_a_table(text: &str) -> Result<usize, String> {
    match text {
        "1" => Ok(1),
        "2" => Ok(2),
        _ => Err("there are tables for 1 and for 2 hosts".to_string()),
    }
}

/// One of [`cluster::HOST_COUNTS`].
fn hosts_of_a_cluster(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| cluster::HOST_COUNTS.contains(count));
    count.ok_or_else(|| "there are tables for 2, 4 and 32 hosts".to_string())
}
