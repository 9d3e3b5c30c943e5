//! The command line: one enum of verbs, each with its arguments.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::algorithms::Algorithms;
use crate::check::{Ask, Verdict, examine};
use crate::completions;
use crate::jobs::{self, Where};
use crate::live;
use crate::pairs::{self, Libfabric};
use crate::report::{Report, json, json_of, table};
use crate::scene::{Scene, Tree};

/// Exit code of a check that failed, and of a program that could not do what it was asked.
pub(crate) const FAILED: u8 = 1;

/// For people who run jobs with Selvedge.
#[derive(Debug, Parser)]
#[command(name = "selvedge", version, about, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Check this host before a job: each check with what was read and what to do about it
    ///
    /// Exit code 0 when nothing fails (warnings included), 1 when something does, 2 when the command line makes no sense.
    Doctor(Doctor),
    /// List your jobs on this host: those whose mpirun runs here
    Ps,
    /// Show for every rank of a job what it waits for and since when, and who holds the others up
    ///
    /// Exit code 0 with an answer, 1 without one within 5 seconds, 2 when the command line makes no sense.
    Where(Where),
    /// Show the algorithms of a collective with their estimated time, the one that a job takes first, or what a rank does in one
    ///
    /// Exit code 0 with an answer, 2 when the command line makes no sense.
    Algorithms(Algorithms),
    /// Print what makes a shell complete the words of `selvedge`, `mpirun` and `mpiexec`
    ///
    /// For bash and zsh: source <(selvedge completions bash) in their start-up file. What is about mpirun comes from the mpirun that lies beside
    /// this program, else the first on PATH; without one exit code 1.
    Completions {
        /// Which shell
        shell: completions::Shell,
    },
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
    /// Between hosts: started as ranks, send both ways on each road between every pair of hosts, and read the cards' counters
    #[arg(long, conflicts_with_all = ["ranks", "require"])]
    pairs: bool,
    /// With --pairs: seconds after which a silent host counts as unreachable
    #[arg(long, default_value_t = pairs::PATIENCE.as_secs(), requires = "pairs", value_name = "SECONDS")]
    patience: u64,
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
        Verb::Doctor(doctor) if doctor.pairs => doctor.meet(),
        Verb::Doctor(doctor) => doctor.examine(),
        Verb::Ps => jobs::list(),
        Verb::Where(ask) => ask.tell(),
        Verb::Algorithms(ask) => ask.tell(),
        Verb::Completions { shell } => completions::print(shell, &mut Cli::command()),
        Verb::JoinSegment { card } => live::join_segment(card.as_bytes()),
    }
}

impl Doctor {
    fn examine(&self) -> ExitCode {
        let variables = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
        let mut scene = Scene::read(&Tree::new(&self.root), variables.collect(), &live::addresses());
        scene.tried = live::try_all(&scene);
        let ask = Ask {
            ranks: self.ranks.unwrap_or_else(|| scene.processors()),
            needs_efa: self.require.contains(&Need::Efa),
        };
        let report = Report::new(&scene, &ask, examine(&scene, &ask));
        let text = if self.json { json(&report, &scene) } else { table(&report, is_colourful()) };
        say(&text, report.verdict)
    }

    /// Every rank ends with 0 but rank 0, which tells and ends as the verdict is.
    fn meet(&self) -> ExitCode {
        let variable = |name: &str| std::env::var(name).ok();
        let mut boot = match pairs::join() {
            Ok(boot) => boot,
            Err(error) => {
                eprintln!("selvedge: {error}");
                return ExitCode::from(FAILED);
            }
        };
        let here = live::host_id(variable("SELVEDGE_HOST"));
        let mut links = Libfabric::new(variable, Tree::new(&self.root));
        let met = pairs::meet(&mut boot, &here, &mut links, Duration::from_secs(self.patience));
        match met.and_then(|meeting| boot.finalize().map(|()| meeting)) {
            Ok(None) => ExitCode::SUCCESS,
            Ok(Some(meeting)) if self.json => say(&json_of(&meeting), meeting.verdict),
            Ok(Some(meeting)) => say(&meeting.table(is_colourful()), meeting.verdict),
            Err(error) => {
                eprintln!("selvedge: {error}");
                ExitCode::from(FAILED)
            }
        }
    }
}

fn is_colourful() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

fn say(text: &str, verdict: Verdict) -> ExitCode {
    answer(text.as_bytes(), if verdict == Verdict::Fail { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}

/// Writes an answer on standard output and gives `code`, or 1 where it cannot be written: half of it in a file must not look like
/// all of it. A reader that has gone (head, less) has what it wanted.
pub(crate) fn answer(text: &[u8], code: ExitCode) -> ExitCode {
    let mut output = std::io::stdout();
    match output.write_all(text).and_then(|()| output.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            let _ = writeln!(std::io::stderr(), "selvedge: cannot write standard output: {error}");
            ExitCode::from(FAILED)
        }
        _ => code,
    }
}
