//! `cargo xtask peers`: Selvedge beside MPICH, Intel MPI and Open MPI, on this machine, in one run.
//!
//! The others come as wheels, each in an environment of its own under the target directory. `osu` measures Selvedge, and
//! `peer` runs the same loops through the other libraries; every job is started by its library's own launcher, with its own
//! defaults. All take turns, several rounds of it, so that whatever else the machine does meets all of them; one table has
//! the medians of the rounds, one the best of them. A job has a time limit: libraries that spin can be a thousand times
//! slower when there are more ranks than processors.
//!
//! Not part of `cargo xtask test`: it takes minutes and 400 MiB, and says nothing about right and wrong.

mod callgrind;
mod contender;
mod instructions;
mod road;
pub mod starts;
mod table;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

use crate::demo;
use crate::manifests::Workspace;
use crate::osu::answer_of;
use crate::shell::Run;

pub use road::Road;
use table::{Comparison, Results, Which};

/// What the tables mean on every road.
const LEGEND: &str = "\
All took turns in every round. Latency is one way. Memory: what the rank that holds most has taken since the start of
its program, its share of what is shared included. Times: how much better the first column is, that library's time or
memory over Selvedge's, or Selvedge's bandwidth over that library's; below 1 that library is better.";

/// What is asked for.
#[derive(Debug)]
pub struct Options {
    /// How the ranks reach each other.
    pub road: Road,
    /// How often each is measured.
    pub rounds: u32,
    /// Longest that one job may take.
    pub limit: Duration,
    /// Gets every single figure.
    pub json: Option<PathBuf>,
    /// Whether instructions are counted instead of time.
    pub instructions: bool,
}

/// Whether these words can stand behind `peers` in a command that a page shows: a road there is, and what to count.
pub fn are_options(words: &[&str]) -> bool {
    match words {
        [] => true,
        ["--road", road, rest @ ..] => Road::from_str(road, false).is_ok() && are_options(rest),
        ["--instructions", rest @ ..] => are_options(rest),
        _ => false,
    }
}

/// Installs, measures, and prints the table. Whether Selvedge and at least one other were measured.
pub fn run(options: &Options) -> bool {
    match steps(&Workspace::load(), options) {
        Ok(()) => true,
        Err(reason) => {
            eprintln!("\npeers: {reason}");
            false
        }
    }
}

fn steps(workspace: &Workspace, options: &Options) -> Result<(), String> {
    let Options { road, rounds, limit, .. } = *options;
    build(workspace)?;
    let (contenders, left_out) = contender::contenders(workspace, road)?;
    if contenders.len() < 2 {
        return Err(format!("nobody to compare with: {}", left_out.join("; ")));
    }

    if options.instructions {
        return instructions::run(workspace, road, &contenders, limit);
    }
    let others = demo::others_running();
    let mut comparison = Comparison {
        names: contenders.iter().map(|contender| contender.name).collect(),
        road,
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        floor: if road == Road::Shm { Some(floor(workspace)?) } else { None },
        results: vec![vec![Results::default(); contenders.len()]; road.jobs().len()],
    };
    for round in 1..=rounds {
        println!("\n== Round {round} of {rounds}{}", if round > 1 { ": the same again" } else { "" });
        for (job, results) in road.jobs().iter().zip(&mut comparison.results) {
            for (contender, result) in contenders.iter().zip(results) {
                contender.measure(job, comparison.cores, limit, result);
            }
        }
    }

    println!("\nMedians of {rounds} rounds\n{}", comparison.table(Which::Median));
    println!("The best of {rounds} rounds\n{}\n{LEGEND}", comparison.table(Which::Best));
    println!("{}", road.legend());
    for reason in comparison.reasons().into_iter().chain(left_out) {
        println!("{reason}");
    }
    if others > 0 {
        println!(
            "{others} other threads were running when this began: the figures are worse for it, and not alike."
        );
    }
    if let Some(path) = &options.json {
        let text = format!("{}\n", comparison.document(others));
        fs::write(path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    }
    comparison.verdict()
}

/// Builds our own side of it.
fn build(workspace: &Workspace) -> Result<(), String> {
    let words = ["build", "--release", "--locked", "-p", "selvedge-launcher", "-p", "selvedge-benches"];
    let words = words.into_iter().chain(["-p", "selvedge-softefa"]);
    let built = Run::cargo(words).inside(&workspace.root).in_the_open();
    if built.is_ok() { Ok(()) } else { Err(format!("that command failed: {}", built.why)) }
}

/// What shared memory allows on this machine.
fn floor(workspace: &Workspace) -> Result<demo::Floor, String> {
    let floor = Run::new(workspace.release("osu"), ["floor", "--json", "-"]);
    println!("$ {}", floor.shown());
    demo::parse_floor(&answer_of(floor)?)
}
