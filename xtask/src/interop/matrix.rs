//! `cargo xtask interop`: every launcher with every program, on one host and on two, each pair run for real, as a table.
//!
//! The hosts are namespaces of this machine with a Slurm of their own, so nothing of the machine's is touched. A pair that
//! cannot work has its reason in `parts`, and is held to it: that it fails, and says what is expected. A pair that somebody
//! is building is shown as it is today.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use selvedge_testbed::{Hosts, Slurm};
use serde_json::Value;

use super::parts::{Expected, LAUNCHERS, Launcher, PROGRAMS, Parts, Program, expected};
use crate::count::Score;
use crate::hosts::nothing_is_left;
use crate::shell::{Outcome, Run};

/// Longest that one of these small jobs may take on a busy machine.
const JOB_MAX: Duration = Duration::from_secs(30);

/// How a job went.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Went {
    /// Two ranks met, on as many hosts as there are.
    Ran,
    /// The launcher's code, where it had one, and the reason it gave.
    Failed(Option<i32>, String),
    /// The launcher was content, and no job of two ranks was there.
    Wrong(String),
}

/// One pair.
#[derive(Clone, Debug)]
struct Cell {
    launcher: Launcher,
    program: Program,
    expected: Expected,
    went: Went,
    seconds: f64,
    /// Why this is not as expected.
    wrong: Option<String>,
}

/// Runs all pairs on `count` hosts, prints the table and scores each pair. Nothing starts once `limit` has passed.
pub(super) fn run(parts: &Parts, count: usize, limit: Duration) -> Score {
    let began = Instant::now();
    let hosts = match Hosts::new(count) {
        Ok(hosts) => hosts,
        Err(error) => return Score::failure(format!("interop: {error}")),
    };
    let slurm = match Slurm::on(&hosts) {
        Ok(slurm) => slurm,
        Err(error) => return Score::failure(format!("interop: {error}")),
    };
    let mut score = Score::default();
    let mut cells = Vec::new();
    for launcher in LAUNCHERS {
        for program in PROGRAMS {
            let name = format!("interop: {} under {} on {count}", program.name(), launcher.name());
            if began.elapsed() > limit {
                score.check(&name, Err("no time was left".to_string()));
                continue;
            }
            // Intel MPI does not exist for every processor.
            let Some(cell) = Cell::run(parts, &hosts, launcher, program) else { continue };
            score.check(&name, cell.wrong.clone().map_or(Ok(()), Err));
            cells.push(cell);
        }
    }
    drop(slurm);
    println!("\n{}", table(&cells, count));
    score
}

impl Cell {
    fn run(parts: &Parts, hosts: &Hosts, launcher: Launcher, program: Program) -> Option<Cell> {
        let (starter, words) = launcher.words(parts, hosts.count(), &hosts.rsh())?;
        let rank = program.words(parts, launcher, hosts.count())?;
        let mut command = hosts.command("node1", starter);
        command.args(launcher.words_for(program)).args(words).args(rank).envs(launcher.env().iter().copied());
        let began = Instant::now();
        let outcome = Run::of(command).quiet().at_most(JOB_MAX).collect();
        let seconds = began.elapsed().as_secs_f64();
        let left = nothing_is_left(hosts);
        let (expected, went) = (expected(launcher, program), how_it_went(&outcome, hosts.count()));
        let mut wrong = unlike(expected, &went, &outcome);
        if let (Launcher::Ours, Err(left)) = (launcher, left) {
            wrong.get_or_insert(left);
        }
        println!("{}: {} on {}: {went:?}, {seconds:.1} s", launcher.name(), program.name(), hosts.count());
        Some(Cell { launcher, program, expected, went, seconds, wrong })
    }

    fn text(&self) -> String {
        let mark = if self.wrong.is_some() { "!" } else { "" };
        match &self.went {
            Went::Ran => format!("{mark}runs {:.1} s", self.seconds),
            Went::Failed(Some(code), _) => format!("{mark}no, code {code}"),
            Went::Failed(None, _) => format!("{mark}no, ended"),
            Went::Wrong(_) => format!("{mark}no, code 0"),
        }
    }
}

/// One document of two ranks is a job; two documents are two jobs. Every host must have had a rank.
fn how_it_went(outcome: &Outcome, hosts: usize) -> Went {
    if !outcome.is_ok() {
        return Went::Failed(outcome.code, outcome.reason());
    }
    let places = (1..=hosts).filter(|number| outcome.errors.contains(&format!("rank on node{number}")));
    let places = places.count();
    // Open MPI says things about itself on standard output, too.
    let documents: Vec<Value> = outcome
        .text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(Value::is_object)
        .collect();
    match documents.as_slice() {
        [one] if one["ranks"] == 2 && places == hosts => Went::Ran,
        [one] if one["ranks"] == 2 => Went::Wrong(format!("its ranks were on {places} of {hosts} hosts")),
        others => Went::Wrong(format!("{} documents: {:?}", others.len(), outcome.text)),
    }
}

/// What is not as expected.
fn unlike(expected: Expected, went: &Went, outcome: &Outcome) -> Option<String> {
    match (expected, went) {
        (Expected::Runs, Went::Ran) => None,
        (Expected::Runs, Went::Failed(_, reason) | Went::Wrong(reason)) => Some(reason.clone()),
        (Expected::Refuses(why, _), Went::Ran) => Some(format!("it runs, and was not expected to: {why}")),
        (Expected::Refuses(_, said), Went::Failed(Some(_), _)) => {
            let is_said = outcome.errors.contains(said) || outcome.text.contains(said);
            (!is_said).then(|| format!("it does not say {said:?}: {}", outcome.reason()))
        }
        (Expected::Refuses(..), Went::Failed(None, reason) | Went::Wrong(reason)) => {
            Some(format!("it must end with a code: {reason}"))
        }
    }
}

/// Launchers down, programs across, and under it why not.
fn table(cells: &[Cell], hosts: usize) -> String {
    let place = if hosts == 1 { "one host" } else { "two hosts, one rank each" };
    let mut text = format!("{:<20}", format!("2 ranks, {hosts} host{}", if hosts == 1 { "" } else { "s" }));
    for program in PROGRAMS {
        let _ = write!(text, "{:<18}", program.name());
    }
    let mut reasons: Vec<&str> = Vec::new();
    for launcher in LAUNCHERS {
        let _ = write!(text, "\n{:<20}", launcher.name());
        for program in PROGRAMS {
            let cell = cells.iter().find(|it| it.launcher == launcher && it.program == program);
            let note = match cell.map(|cell| (cell.expected, &cell.went)) {
                Some((Expected::Refuses(why, _), went)) if *went != Went::Ran => {
                    let known = reasons.iter().position(|reason| *reason == why);
                    let number = known.unwrap_or_else(|| {
                        reasons.push(why);
                        reasons.len() - 1
                    });
                    format!(" [{}]", number + 1)
                }
                _ => String::new(),
            };
            let what = cell.map_or("-".to_string(), Cell::text);
            let _ = write!(text, "{:<18}", what + &note);
        }
    }
    let _ = writeln!(text, "\n\nEvery pair was run, on {place}; ! marks what is not as expected.");
    for (number, reason) in reasons.iter().enumerate() {
        let _ = writeln!(text, "[{}] {reason}", number + 1);
    }
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(code: i32, text: &str, errors: &str) -> Outcome {
        let why = if code == 0 { String::new() } else { format!("exit status: {code}") };
        Outcome { code: Some(code), text: text.to_string(), errors: errors.to_string(), why }
    }

    const BOTH: &str = "rank on node1\nrank on node2\n";

    #[test]
    fn singletons_and_ranks_on_the_wrong_host_are_not_a_job() {
        let two = "{\"ranks\":2}\n";
        assert_eq!(how_it_went(&outcome(0, two, BOTH), 2), Went::Ran);
        assert_eq!(how_it_went(&outcome(0, two, "rank on node1\n"), 1), Went::Ran);
        assert!(matches!(how_it_went(&outcome(0, two, "rank on node1\n"), 2), Went::Wrong(_)));
        assert!(matches!(how_it_went(&outcome(0, &"{\"ranks\":1}\n".repeat(2), BOTH), 2), Went::Wrong(_)));
        assert!(matches!(how_it_went(&outcome(3, two, BOTH), 2), Went::Failed(Some(3), _)));
    }

    #[test]
    fn a_pair_that_must_fail_must_fail_as_expected() {
        let refuses = Expected::Refuses("no PMIx", "unsupported");
        let said = outcome(16, "", "Abort: unsupported PMI version");
        assert_eq!(unlike(refuses, &how_it_went(&said, 1), &said), None);
        let other = outcome(139, "", "Segmentation fault");
        assert!(unlike(refuses, &how_it_went(&other, 1), &other).is_some());
        assert!(unlike(refuses, &Went::Ran, &said).is_some_and(|it| it.contains("was not expected to")));
    }

    #[test]
    fn reasons_stand_under_the_table_once() {
        let cell = |launcher, program| {
            let expected = expected(launcher, program);
            let went =
                if expected == Expected::Runs { Went::Ran } else { Went::Failed(Some(2), String::new()) };
            Cell { launcher, program, expected, went, seconds: 0.25, wrong: None }
        };
        let cells: Vec<_> =
            LAUNCHERS.iter().flat_map(|it| PROGRAMS.map(|program| cell(*it, program))).collect();
        let text = table(&cells, 1);
        let row = text.lines().nth(1).expect("the first launcher");
        assert_eq!(
            row,
            "hydra 5 (MPICH)     runs 0.2 s        runs 0.2 s        no, code 2 [1]    runs 0.2 s"
        );
        assert_eq!(text.matches("\n[1] ").count(), 1, "{text}");
    }
}
