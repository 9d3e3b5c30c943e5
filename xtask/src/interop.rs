//! Programs that nobody here wrote: mpi4py on a real MPICH under our `mpirun`, our programs under MPICH's `mpiexec`, and
//! every launcher with every program; and ranks that start ranks under both.
//!
//! What is proved is the start-up, from both of its ends. Each check is one job with its own sentence; it must end with the
//! expected code, print what is expected, and leave no process behind. The pairs are in [`matrix`], the spawns in `worlds`.

mod matrix;
mod parts;
mod worlds;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::count::Score;
use crate::manifests::Workspace;
use crate::shell::{Outcome, Run};
use crate::tools;
use crate::wheels::{self, HAS_INTEL, Installed, Wheel};
use parts::Parts;

/// Longest any of these small jobs may take on a busy machine.
const JOB_MAX: Duration = Duration::from_secs(60);

const SUM: &str = "from mpi4py import MPI; print(MPI.COMM_WORLD.allreduce(1))";

/// Every rank shows its place; the ring, the split and the large message go through MPICH's own transport.
const TOUR: &str = "
from mpi4py import MPI
world = MPI.COMM_WORLD
rank, size = world.rank, world.size
left = world.sendrecv(rank, dest=(rank + 1) % size, source=(rank - 1) % size)
assert left == (rank - 1) % size
half = world.Split(rank % 2, rank)
assert half.allgather(rank) == list(range(rank % 2, size, 2))
block = bytearray(1 << 20) if rank else bytearray(b'x' * (1 << 20))
world.Bcast(block, root=0)
assert block[-1:] == b'x'
assert world.alltoall(list(range(size))) == [rank] * size
world.Barrier()
if rank == 0: print('tour of', size)
";

/// An MPICH that aborts leaves its segment in /dev/shm, under its own mpiexec too: rank 0 removes the name before, once
/// all have mapped it.
const ABORT: &str = "
import os
from mpi4py import MPI
world = MPI.COMM_WORLD
files = {line.split()[-1] for line in open('/proc/self/maps')}
world.Barrier()
if world.rank == 0: [os.unlink(file) for file in files if file.startswith('/dev/shm/mpich_shm_')]
world.Barrier()
if world.rank == 1: world.Abort(7)
world.Barrier()
";

/// Where the programs of both sides are.
struct Sides<'a> {
    ours: &'a Workspace,
    mpiexec: PathBuf,
    python: PathBuf,
}

/// One job, and what is wrong with how it went.
type Check = fn(&Sides<'_>) -> Result<(), String>;

/// Runs every check, each within a minute and all within `limit`.
pub fn run(ours: &Workspace, mpich: &Installed, limit: Duration) -> Score {
    let sides = Sides { ours, mpiexec: mpich.program("mpiexec"), python: mpich.program("python") };
    let checks: &[(&str, Check)] = &[
        ("mpi4py under our mpirun sums over three ranks", mpi4py_sums),
        ("mpi4py under our mpirun talks on four ranks", mpi4py_tours),
        ("the code of an abort in MPICH is the code of our mpirun", mpich_aborts),
        ("our osu under MPICH's mpiexec is one job, not singletons", osu_under_mpiexec),
        ("our osu under MPICH's mpiexec with a PMI port is one job", osu_under_mpiexec_with_a_port),
        ("our osu under MPICH's mpiexec runs a collective on four ranks", collective_under_mpiexec),
        ("our heat2d under MPICH's mpiexec agrees with the serial run", heat2d_under_mpiexec),
    ];
    let began = Instant::now();
    let mut score = Score::default();
    for (name, check) in checks {
        println!("\n{name}");
        let result =
            if began.elapsed() < limit { check(&sides) } else { Err("no time was left".to_string()) };
        score.check(&format!("interop: {name}"), result);
    }
    score
}

/// `cargo xtask interop`: builds, installs, and runs every launcher with every program on each of these numbers of hosts.
/// Whether every pair did what is expected of it.
pub fn run_matrix(hosts: &[usize]) -> bool {
    let ours = Workspace::load();
    let packages = ["build", "--release", "--locked", "-p", "selvedge-launcher", "-p", "selvedge-benches"];
    let programs = ["--bin", "mpirun", "--bin", "osu", "--bin", "peer"];
    let built = Run::cargo(packages.into_iter().chain(programs)).inside(&ours.root).in_the_open();
    let installed = if built.is_ok() { tools::hosts() } else { Err(built.why) };
    let score = match installed {
        Ok(()) => matrix(&ours, hosts, Duration::from_secs(600)),
        Err(reason) => Score::failure(format!("interop: {reason}")),
    };
    for reason in &score.reasons {
        println!("FAILED {reason}");
    }
    println!("{} passed, {} failed", score.passed, score.failed);
    score.failed == 0
}

/// Every launcher with every program, on each of these numbers of hosts, all within `limit`.
pub fn matrix(ours: &Workspace, hosts: &[usize], limit: Duration) -> Score {
    let parts = match parts(ours) {
        Ok(parts) => parts,
        Err(reason) => return Score::failure(format!("interop: {reason}")),
    };
    let began = Instant::now();
    let mut score = Score::default();
    for count in hosts {
        score.add(matrix::run(&parts, *count, limit.saturating_sub(began.elapsed())));
    }
    score.add(worlds::run(&parts, limit.saturating_sub(began.elapsed())));
    score
}

fn parts(ours: &Workspace) -> Result<Parts, String> {
    let python = tools::python()?;
    let installed = |wheel: &Wheel| wheel.installed(&ours.target, &python);
    Ok(Parts {
        mpich: installed(&wheels::MPICH)?,
        intel: HAS_INTEL.then(|| installed(&wheels::INTEL)).transpose()?,
        open_mpi: installed(&wheels::OPEN_MPI)?,
        ours: ours.clone(),
    })
}

impl Sides<'_> {
    fn under_our_mpirun(&self, ranks: &str, script: &str) -> Outcome {
        let words = ["-n".as_ref(), ranks.as_ref(), self.python.as_os_str(), "-c".as_ref(), script.as_ref()];
        Run::new(self.ours.release("mpirun"), words).at_most(JOB_MAX).collect()
    }

    fn under_their_mpiexec(&self, options: &[&str], program: &str, arguments: &[&str]) -> Outcome {
        let program = self.ours.release(program).into_os_string();
        let words = options.iter().map(Into::into).chain([program]).chain(arguments.iter().map(Into::into));
        Run::new(&self.mpiexec, words).at_most(JOB_MAX).collect()
    }
}

fn mpi4py_sums(sides: &Sides<'_>) -> Result<(), String> {
    expect_lines(&sides.under_our_mpirun("3", SUM), &["3", "3", "3"])
}

fn mpi4py_tours(sides: &Sides<'_>) -> Result<(), String> {
    expect_lines(&sides.under_our_mpirun("4", TOUR), &["tour of 4"])
}

fn mpich_aborts(sides: &Sides<'_>) -> Result<(), String> {
    let outcome = sides.under_our_mpirun("3", ABORT);
    if outcome.code == Some(7) {
        Ok(())
    } else {
        Err(format!("code {:?}, not 7; {}", outcome.code, outcome.reason()))
    }
}

fn osu_under_mpiexec(sides: &Sides<'_>) -> Result<(), String> {
    expect_ranks(&sides.under_their_mpiexec(&["-n", "2"], "osu", &LATENCY), "latency", 2)
}

fn osu_under_mpiexec_with_a_port(sides: &Sides<'_>) -> Result<(), String> {
    expect_ranks(&sides.under_their_mpiexec(&["-pmi-port", "-n", "2"], "osu", &LATENCY), "latency", 2)
}

fn collective_under_mpiexec(sides: &Sides<'_>) -> Result<(), String> {
    let arguments = ["allreduce", "-m", "8:1024", "-i", "200", "--json", "-"];
    expect_ranks(&sides.under_their_mpiexec(&["-n", "4"], "osu", &arguments), "allreduce", 4)
}

fn heat2d_under_mpiexec(sides: &Sides<'_>) -> Result<(), String> {
    let outcome = sides.under_their_mpiexec(&["-n", "4"], "heat2d", &["--steps", "100", "--check"]);
    let said = |words: &str| outcome.text.matches(words).count() == 1;
    match outcome.is_ok() {
        false => Err(outcome.reason()),
        true if said("on 4 ranks") && said("identical to the serial run") => Ok(()),
        true => Err(format!("not one checked run on 4 ranks: {:?}", outcome.text)),
    }
}

/// A short run of a benchmark that needs exactly two ranks.
const LATENCY: [&str; 7] = ["latency", "-m", "8:64", "-i", "200", "--json", "-"];

fn expect_lines(outcome: &Outcome, wanted: &[&str]) -> Result<(), String> {
    if !outcome.is_ok() {
        return Err(outcome.reason());
    }
    let lines: Vec<_> = outcome.text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines == wanted { Ok(()) } else { Err(format!("printed {lines:?}, not {wanted:?}")) }
}

/// One JSON document of benchmark `bench` on `ranks` ranks. Several would be several jobs.
fn expect_ranks(outcome: &Outcome, bench: &str, ranks: u64) -> Result<(), String> {
    if !outcome.is_ok() {
        return Err(outcome.reason());
    }
    let answer: Value =
        serde_json::from_str(&outcome.text).map_err(|e| format!("not one JSON document: {e}"))?;
    let rows = answer["rows"].as_array().map_or(0, Vec::len);
    if answer["bench"] == bench && answer["ranks"] == ranks && rows > 0 {
        Ok(())
    } else {
        Err(format!("expected {bench} on {ranks} ranks, got {answer}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Outcome {
        Outcome { code: Some(0), text: text.to_string(), errors: String::new(), why: String::new() }
    }

    #[test]
    fn two_singletons_are_not_taken_for_a_job_of_two() {
        let one = "{\"bench\":\"latency\",\"ranks\":1,\"rows\":[{\"bytes\":8,\"avg_us\":0.3}]}\n";
        assert!(expect_ranks(&said(one), "latency", 2).is_err());
        assert!(expect_ranks(&said(&one.repeat(2)), "latency", 2).is_err());
        assert!(expect_ranks(&said(&one.replace(":1,", ":2,")), "latency", 2).is_ok());
    }

    #[test]
    fn missing_lines_are_shown() {
        assert_eq!(expect_lines(&said("3\n3\n"), &["3", "3"]), Ok(()));
        assert_eq!(
            expect_lines(&said("3\n"), &["3", "3"]),
            Err("printed [\"3\"], not [\"3\", \"3\"]".to_string())
        );
    }
}
