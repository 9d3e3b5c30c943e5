//! The command line: one enum of verbs, each with its arguments.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::check::{Ask, Verdict, examine};
use crate::live;
use crate::report::{Report, json, table};
use crate::scene::{Scene, Tree};

/// Exit code of a check that failed, and of a program that could not do what it was asked.
const FAILED: u8 = 1;

/// For people who run jobs with Selvedge.
#[derive(Debug, Parser)]
#[command(name = "selvedge", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Check this host before a job: each check with what was read and what to do about it
    ///
    /// Exit code 0 when nothing fails (warnings included), 1 when something does, 2 when the command line makes no sense.
    Doctor(Doctor),
    /// The second process of the check `shared-memory`
    #[command(hide = true)]
    JoinSegment {
        /// The card of the segment to join.
        card: String,
    },
}

#[derive(Debug, Args)]
struct Doctor {
    /// Ranks that will run on this host; without it, one for each processor
    #[arg(long, short = 'n', value_parser = clap::value_parser!(u32).range(1..=4096))]
    ranks: Option<u32>,
    /// What the job must have: a missing EFA then fails instead of warning
    #[arg(long, value_enum, value_delimiter = ',')]
    require: Vec<Need>,
    /// Print everything as JSON
    #[arg(long)]
    json: bool,
    /// Look for /proc, /sys and /dev below this folder
    #[arg(long, default_value = "/", value_name = "FOLDER")]
    root: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Need {
    /// Messages between hosts over EFA.
    Efa,
}

/// The whole program.
pub fn main() -> ExitCode {
    match Cli::parse().verb {
        Verb::Doctor(doctor) => doctor.run(),
        Verb::JoinSegment { card } => live::join_segment(card.as_bytes()),
    }
}

impl Doctor {
    fn run(&self) -> ExitCode {
        let variables = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
        let mut scene = Scene::read(&Tree::new(&self.root), variables.collect(), &live::addresses());
        scene.tried = live::try_all(&scene);
        let ask = Ask {
            ranks: self.ranks.unwrap_or_else(|| scene.processors()),
            needs_efa: self.require.contains(&Need::Efa),
        };
        let report = Report::new(&scene, &ask, examine(&scene, &ask));
        let text = if self.json {
            json(&report, &scene)
        } else {
            table(&report, std::io::stdout().is_terminal() && scene.variable("NO_COLOR").is_none())
        };
        // A reader that has gone (head, less) does not change the verdict.
        let _ = std::io::stdout().write_all(text.as_bytes());
        if report.verdict == Verdict::Fail { ExitCode::from(FAILED) } else { ExitCode::SUCCESS }
    }
}
