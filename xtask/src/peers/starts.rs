//! `cargo xtask starts`: how long it takes to start ranks and be rid of them again, beside the launchers of the other
//! libraries, on one host and on several.
//!
//! Two programs: `true`, which costs a launcher what launching costs, and one that starts MPI, adds one number over all ranks
//! and leaves: `osu` and `peer`, with the same loop. All take turns, several rounds of it. A launcher that hangs is ended after
//! a time limit, and one that takes seconds is asked once.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use selvedge_testbed::Hosts;
use serde_json::{Value, json};

use super::contender::{Contender, Ground, contenders_on};
use super::road::Road;
use crate::demo;
use crate::manifests::Workspace;
use crate::osu::answer_in;
use crate::shell::{Outcome, Run};
use crate::tools;

/// Hosts of the testbed; each case uses the first of them.
const HOSTS: usize = 8;

/// A job that takes longer than this is not repeated.
const SLOW: Duration = Duration::from_secs(4);

/// The processor time of children in `/proc/self/stat` is counted in these (USER_HZ, the same on all of Linux).
const TICKS_PER_SECOND: f64 = 100.0;

/// What is started, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Case {
    program: Program,
    hosts: usize,
    each: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    True,
    Allreduce,
}

const fn case(program: Program, hosts: usize, each: usize) -> Case {
    Case { program, hosts, each }
}

const CASES: [Case; 11] = [
    case(Program::True, 1, 2),
    case(Program::True, 1, 16),
    case(Program::True, 1, 64),
    case(Program::Allreduce, 1, 2),
    case(Program::Allreduce, 1, 16),
    case(Program::Allreduce, 1, 64),
    case(Program::Allreduce, 1, 256),
    case(Program::True, 2, 2),
    case(Program::True, 8, 2),
    case(Program::Allreduce, 2, 2),
    case(Program::Allreduce, 8, 2),
];

/// What is asked for.
#[derive(Debug)]
pub struct Options {
    /// How often each is measured.
    pub rounds: u32,
    /// Longest that one job may take.
    pub limit: Duration,
    /// Gets every single figure.
    pub json: Option<PathBuf>,
}

/// What one launcher made of one case.
#[derive(Clone, Debug, Default)]
struct Results {
    /// Seconds from the call to the end, and of processor time, in each round.
    rounds: Vec<(f64, f64)>,
    gave_up: Option<String>,
}

/// Installs, measures, and prints the tables. Whether Selvedge and at least one other were measured.
pub fn run(options: &Options) -> bool {
    match steps(&Workspace::load(), options) {
        Ok(()) => true,
        Err(reason) => {
            eprintln!("\nstarts: {reason}");
            false
        }
    }
}

fn steps(workspace: &Workspace, options: &Options) -> Result<(), String> {
    super::build(workspace)?;
    tools::hosts()?;
    let others = demo::others_running();
    let mut scene = Scene::new(workspace)?;
    let names = scene.names();
    if names.len() < 2 {
        return Err(format!("nobody to compare with: {}", scene.left_out.join("; ")));
    }
    let mut results = vec![vec![Results::default(); names.len()]; CASES.len()];
    for round in 1..=options.rounds {
        println!(
            "\n== Round {round} of {}{}",
            options.rounds,
            if round > 1 { ": the same again" } else { "" }
        );
        for (case, results) in CASES.into_iter().zip(&mut results) {
            for (place, results) in results.iter_mut().enumerate() {
                scene.measure(case, place, options.limit, results)?;
            }
        }
    }
    println!("\nSeconds from the call to the end, medians of {} rounds", options.rounds);
    println!("{}", table(&names, &results, |(wall, _)| wall));
    println!("Seconds of processor time, all processes together, where the launcher waits for them");
    println!("{}", table(&names, &results, |(_, processor)| processor));
    println!("~: asked once, because it took longer than {} s.", SLOW.as_secs());
    for reason in reasons(&names, &results).into_iter().chain(scene.left_out.iter().cloned()) {
        println!("{reason}");
    }
    if others > 0 {
        println!("{others} other threads were running when this began: the figures are worse for it.");
    }
    if let Some(path) = &options.json {
        let text = format!("{}\n", document(&names, &results, others));
        fs::write(path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    }
    let measured = |place: usize| results.iter().all(|results| results[place].gave_up.is_none());
    if measured(0) { Ok(()) } else { Err("Selvedge itself was not measured everywhere".to_string()) }
}

/// Hosts, and the launchers on them.
struct Scene<'a> {
    workspace: &'a Workspace,
    /// Where all ranks are on one host, and where they are not.
    alone: Vec<Contender>,
    spread: Vec<Contender>,
    left_out: Vec<String>,
    cores: usize,
}

impl<'a> Scene<'a> {
    fn new(workspace: &'a Workspace) -> Result<Scene<'a>, String> {
        let hosts = Rc::new(Hosts::new(HOSTS).map_err(|error| error.to_string())?);
        let (alone, left_out) = contenders_on(workspace, Road::Shm, Ground::Hosts(Rc::clone(&hosts)))?;
        let (spread, _) = contenders_on(workspace, Road::Hosts, Ground::Hosts(hosts))?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Scene { workspace, alone, spread, left_out, cores })
    }

    fn names(&self) -> Vec<&'static str> {
        self.alone.iter().map(|contender| contender.name).collect()
    }

    /// Another round, unless one has failed before or took long.
    fn measure(
        &mut self,
        case: Case,
        place: usize,
        limit: Duration,
        results: &mut Results,
    ) -> Result<(), String> {
        let is_slow = results.rounds.iter().any(|(wall, _)| *wall > SLOW.as_secs_f64());
        if results.gave_up.is_some() || is_slow {
            return Ok(());
        }
        let run = self.run(case, place, limit);
        if results.rounds.is_empty() {
            println!("$ {}", run.shown());
        }
        let (began, before) = (Instant::now(), processor_seconds());
        let outcome = run.quiet().collect();
        let (wall, processor) = (began.elapsed(), processor_seconds() - before);
        match case.went_well(&outcome) {
            Ok(()) => results.rounds.push((wall.as_secs_f64(), processor)),
            Err(reason) => {
                let late = format!("not done after {} s, the limit", limit.as_secs());
                results.gave_up = Some(if wall >= limit { late } else { reason });
                // Whatever it has left is ended with its hosts: nobody else is to share the processors with it.
                let (workspace, left_out) = (self.workspace, std::mem::take(&mut self.left_out));
                self.alone.clear();
                self.spread.clear();
                *self = Scene { left_out, ..Scene::new(workspace)? };
            }
        }
        Ok(())
    }

    fn run(&self, case: Case, place: usize, limit: Duration) -> Run {
        let contender = if case.hosts == 1 { &self.alone[place] } else { &self.spread[place] };
        let (hosts, ranks) = (case.hosts, case.hosts * case.each);
        match case.program {
            Program::True => contender.start(hosts, ranks, self.cores, "true", limit),
            Program::Allreduce => contender.start_and_add(hosts, ranks, self.cores, limit),
        }
    }
}

impl Case {
    fn name(&self) -> String {
        let program = match self.program {
            Program::True => "true",
            Program::Allreduce => "one allreduce",
        };
        match self.hosts {
            1 => format!("{program}, {} ranks", self.each),
            hosts => format!("{program}, {hosts} hosts x {}", self.each),
        }
    }

    /// Whether it did what it was started for, on as many ranks as it should.
    fn went_well(&self, outcome: &Outcome) -> Result<(), String> {
        if !outcome.is_ok() {
            return Err(outcome.reason());
        }
        let wanted = self.hosts * self.each;
        match self.program {
            Program::True => Ok(()),
            Program::Allreduce => match answer_in(outcome)?["ranks"].as_u64() {
                Some(ranks) if ranks == wanted as u64 => Ok(()),
                ranks => Err(format!("a job of {ranks:?} ranks, not of {wanted}")),
            },
        }
    }
}

impl Results {
    fn median(&self, of: impl Fn((f64, f64)) -> f64) -> Option<f64> {
        let mut all: Vec<f64> = self.rounds.iter().copied().map(of).collect();
        all.sort_by(f64::total_cmp);
        match self.gave_up {
            Some(_) => None,
            None => Some((all.get(all.len().checked_sub(1)? / 2)? + all.get(all.len() / 2)?) / 2.0),
        }
    }

    fn is_slow(&self) -> bool {
        self.rounds.iter().any(|(wall, _)| *wall > SLOW.as_secs_f64())
    }
}

/// Time that the processors have spent for children of this process that were waited for, and for theirs: proc_pid_stat(5),
/// fields 16 and 17.
fn processor_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name may contain anything, so the fields are counted from its closing bracket, behind which is the third.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: f64 = fields.skip(13).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / TICKS_PER_SECOND
}

/// Cases down, launchers across, and behind each how many times longer than ours it took.
fn table(names: &[&str], results: &[Vec<Results>], of: impl Fn((f64, f64)) -> f64 + Copy) -> String {
    let mut text = format!("{:<28}{:>12}", "seconds", names[0]);
    for name in &names[1..] {
        let _ = write!(text, "{name:>12}{:>8}", "times");
    }
    for (case, results) in CASES.iter().zip(results) {
        let _ = write!(text, "\n{:<28}", case.name());
        let ours = results[0].median(of);
        for (place, result) in results.iter().enumerate() {
            let theirs = result.median(of);
            let mark = if result.is_slow() { "~" } else { "" };
            let shown = theirs.map_or("-".to_string(), |theirs| format!("{mark}{theirs:.3}"));
            let _ = write!(text, "{shown:>12}");
            if place > 0 {
                let times = ours.zip(theirs).filter(|(ours, _)| *ours > 0.0);
                let times = times.map_or("-".to_string(), |(ours, theirs)| format!("{:.1}x", theirs / ours));
                let _ = write!(text, "{times:>8}");
            }
        }
    }
    text + "\n"
}

/// A line for each case that a launcher did not do.
fn reasons(names: &[&str], results: &[Vec<Results>]) -> Vec<String> {
    let rows = CASES.iter().zip(results);
    let cells = rows.flat_map(|(case, results)| {
        names.iter().zip(results).map(move |(name, result)| (case, name, result))
    });
    cells
        .filter_map(|(case, name, result)| {
            Some(format!("{name}, {}: {}", case.name(), result.gave_up.as_ref()?))
        })
        .collect()
}

/// Every figure of every round.
fn document(names: &[&str], results: &[Vec<Results>], others_running: usize) -> Value {
    let mut rows = Vec::new();
    for (case, results) in CASES.iter().zip(results) {
        for (name, result) in names.iter().zip(results) {
            rows.push(json!({
                "library": name,
                "case": case.name(),
                "hosts": case.hosts,
                "ranks": case.hosts * case.each,
                "rounds": result.rounds,
                "gave_up": result.gave_up,
            }));
        }
    }
    json!({ "bench": "starts", "others_running": others_running, "rows": rows })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Outcome {
        Outcome { code: Some(0), text: text.to_string(), errors: String::new(), why: String::new() }
    }

    #[test]
    fn a_job_of_fewer_ranks_was_not_the_job() {
        let wanted = case(Program::Allreduce, 2, 2);
        assert_eq!(wanted.went_well(&said("{\"ranks\":4}\n")), Ok(()));
        assert!(wanted.went_well(&said("{\"ranks\":1}\n")).is_err());
        assert!(wanted.went_well(&said("")).is_err());
        assert_eq!(case(Program::True, 1, 2).went_well(&said("")), Ok(()));
    }

    #[test]
    fn a_launcher_that_hangs_has_a_reason_and_no_figure() {
        let quick = Results { rounds: vec![(0.5, 0.1), (0.25, 0.2), (0.3, 0.3)], gave_up: None };
        let hung = Results { gave_up: Some("not done after 20 s, the limit".into()), ..quick.clone() };
        let slow = Results { rounds: vec![(6.0, 1.0)], gave_up: None };
        let rows = vec![vec![quick, slow, hung]; CASES.len()];
        let names = ["Selvedge", "Intel MPI", "Open MPI"];
        let text = table(&names, &rows, |(wall, _)| wall);
        let row: Vec<&str> = text.lines().nth(1).expect("a row").split_whitespace().collect();
        assert_eq!(row, ["true,", "2", "ranks", "0.300", "~6.000", "20.0x", "-", "-"]);
        assert_eq!(reasons(&names, &rows)[0], "Open MPI, true, 2 ranks: not done after 20 s, the limit");
    }

    #[test]
    fn time_of_children_that_were_waited_for_is_counted() {
        let before = processor_seconds();
        let spin = "i=0; while [ $i -lt 200000 ]; do i=$((i + 1)); done";
        assert!(Run::new("sh", ["-c", spin]).quiet().collect().is_ok());
        assert!(processor_seconds() > before);
    }
}
