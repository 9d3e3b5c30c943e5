//! Programs that nobody here wrote at the other end: our client under Open MPI's mpirun, and Open MPI's programs under a
//! launcher made of our server. Each with the distribution's libpmix and with the one in Open MPI's wheel.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what should happen")]

mod common;

use std::path::PathBuf;
use std::process::Command;

use common::{Folder, ORIGINS, Origin, Outcome, example, open_mpi, run};

/// What rank `rank` of `size` on one host called `host` says.
fn line(rank: usize, size: usize, local: &[usize], hosts: &str) -> String {
    format!("rank {rank} of {size} in block Some(0), with {local:?}, on {hosts}")
}

/// Our ring under Open MPI's mpirun.
fn under_mpirun(folder: &Folder, origin: Origin, ranks: usize, words: &[&str]) -> Outcome {
    let mut mpirun = Command::new(open_mpi().join("bin/mpirun"));
    mpirun.args(["--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", &ranks.to_string()]);
    // Ranks of tests run as nobody else than mpirun does, so there is no reason to ask twice.
    mpirun.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    mpirun.arg(example("pmix_ring")).args(words).env("SELVEDGE_LIBPMIX", origin.path());
    run(folder, &mut mpirun)
}

/// A program under a launcher made of our server, as if on so many hosts. Nothing is left of it.
fn under_ours(folder: &Folder, server: Origin, ranks: usize, hosts: usize, command: &[String]) -> Outcome {
    let mut launch = Command::new(example("pmix_launch"));
    launch.args(["-n", &ranks.to_string(), "--hosts", &hosts.to_string(), "--report", "--"]).args(command);
    let outcome = run(folder, launch.env("SELVEDGE_LIBPMIX", server.path()));
    assert_eq!(folder.leftovers(), Vec::<String>::new(), "after {command:?}");
    outcome
}

/// Our ring, with a libpmix that need not be the server's.
fn ring(client: Origin, words: &[&str]) -> Vec<String> {
    let library = format!("SELVEDGE_LIBPMIX={}", client.path().display());
    let program = example("pmix_ring").display().to_string();
    ["env".to_owned(), library, program]
        .into_iter()
        .chain(words.iter().map(|word| word.to_string()))
        .collect()
}

/// An MPI program in C, compiled against Open MPI, that sums its ranks.
fn sum(folder: &Folder) -> String {
    const PROGRAM: &str = r#"
#include <mpi.h>
#include <stdio.h>
int main(int argc, char **argv) {
    int rank, size, sum, left;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    if (argc > 1 && rank == 1) MPI_Abort(MPI_COMM_WORLD, 7);
    MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    MPI_Sendrecv(&rank, 1, MPI_INT, (rank + 1) % size, 0, &left, 1, MPI_INT, (rank + size - 1) % size, 0,
                 MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    printf("rank %d of %d: sum %d, left %d\n", rank, size, sum, left);
    return MPI_Finalize();
}
"#;
    let (source, binary) = (folder.path().join("sum.c"), folder.path().join("sum"));
    std::fs::write(&source, PROGRAM).unwrap();
    let prefix = open_mpi();
    let lib = prefix.join("lib");
    let mut cc = Command::new("cc");
    cc.arg("-o").arg(&binary).arg(&source).arg("-I").arg(prefix.join("include")).arg("-L").arg(&lib);
    cc.args(["-lmpi", "-Wl,--allow-shlib-undefined,--disable-new-dtags"]);
    cc.arg(format!("-Wl,-rpath,{}", lib.display()));
    let built =
        cc.output().unwrap_or_else(|error| panic!("the test needs a C compiler, install gcc: {error}"));
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    binary.display().to_string()
}

fn expect(outcome: &Outcome, lines: &[String]) {
    assert_eq!(
        (outcome.code, outcome.lines()),
        (Some(0), lines.iter().map(String::as_str).collect()),
        "{outcome:?}"
    );
}

#[test]
fn ranks_under_open_mpis_mpirun_read_each_others_cards() {
    let folder = Folder::new("mpirun");
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    for (origin, ranks) in [(ORIGINS[0], 2), (ORIGINS[1], 2), (ORIGINS[0], 4), (ORIGINS[1], 4)] {
        let local: Vec<usize> = (0..ranks).collect();
        let hosts = vec![host.as_str(); ranks].join(" ");
        let lines: Vec<String> = (0..ranks).map(|rank| line(rank, ranks, &local, &hosts)).collect();
        expect(&under_mpirun(&folder, origin, ranks, &["missing"]), &lines);
    }
}

#[test]
fn a_card_may_have_300_000_bytes() {
    let folder = Folder::new("large");
    for origin in ORIGINS {
        let outcome = under_mpirun(&folder, origin, 2, &["300000"]);
        assert_eq!((outcome.code, outcome.lines().len()), (Some(0), 2), "{outcome:?}");
    }
}

#[test]
fn the_code_of_our_abort_is_the_code_of_open_mpis_mpirun() {
    let folder = Folder::new("abort");
    for origin in ORIGINS {
        let outcome = under_mpirun(&folder, origin, 2, &["abort=1:7"]);
        assert_eq!(outcome.code, Some(7), "{outcome:?}");
    }
}

#[test]
fn our_ranks_under_our_server_read_each_others_cards_whatever_versions_meet() {
    let folder = Folder::new("ours");
    for (server, client) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let (server, client) = (ORIGINS[server], ORIGINS[client]);
        let one: Vec<String> =
            (0..4).map(|rank| line(rank, 4, &[0, 1, 2, 3], "host0 host0 host0 host0")).collect();
        expect(&under_ours(&folder, server, 4, 1, &ring(client, &["missing"])), &one);
        let two: Vec<String> = (0..3)
            .map(|rank| line(rank, 3, if rank == 0 { &[0] } else { &[1, 2] }, "host0 host1 host1"))
            .collect();
        expect(&under_ours(&folder, server, 3, 2, &ring(client, &["20000", "missing"])), &two);
    }
}

#[test]
fn open_mpis_programs_run_under_our_server_on_one_host_and_on_three() {
    let folder = Folder::new("theirs");
    let program = sum(&folder);
    for (server, ranks, hosts) in
        [(ORIGINS[0], 2, 1), (ORIGINS[1], 2, 1), (ORIGINS[0], 4, 2), (ORIGINS[1], 3, 3)]
    {
        let outcome = under_ours(&folder, server, ranks, hosts, std::slice::from_ref(&program));
        let total = ranks * (ranks - 1) / 2;
        let left = |rank: usize| (rank + ranks - 1) % ranks;
        let lines: Vec<String> = (0..ranks)
            .map(|rank| format!("rank {rank} of {ranks}: sum {total}, left {}", left(rank)))
            .collect();
        expect(&outcome, &lines);
    }
}

#[test]
fn what_ranks_did_not_fence_for_is_asked_for_when_it_is_wanted() {
    let folder = Folder::new("modex");
    let command = ["env", "OMPI_MCA_pmix_base_async_modex=1"].map(str::to_owned);
    let command: Vec<String> = command.into_iter().chain([sum(&folder)]).collect();
    for server in ORIGINS {
        let outcome = under_ours(&folder, server, 2, 2, &command);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        let questions = outcome.errors.split(" questions").next().and_then(|text| text.rsplit(' ').next());
        assert_ne!(questions.and_then(|count| count.parse().ok()).unwrap_or(0), 0, "{outcome:?}");
    }
}

#[test]
fn an_abort_and_a_silent_end_are_seen_at_once_and_end_the_job() {
    let folder = Folder::new("ends");
    let program = sum(&folder);
    for (server, hosts) in [(ORIGINS[0], 1), (ORIGINS[1], 2)] {
        let aborted = under_ours(&folder, server, 2, hosts, &[program.clone(), "abort".to_owned()]);
        assert_eq!(aborted.code, Some(7), "{aborted:?}");
        assert!(aborted.errors.contains("rank 1 aborts with code 7"), "{aborted:?}");
        let ours = under_ours(&folder, server, 2, hosts, &ring(server, &["abort=0:9"]));
        assert_eq!(ours.code, Some(9), "{ours:?}");
        assert!(ours.errors.contains("the ring was told to"), "{ours:?}");
    }
    for server in ORIGINS {
        // The others get an error from their fence, or are ended: which of the two comes first is open.
        let left = under_ours(&folder, server, 3, 1, &ring(server, &["leave=1:0"]));
        assert_eq!(left.code, Some(1), "{left:?}");
        let alone = under_ours(&folder, server, 1, 1, &ring(server, &["leave=0:0"]));
        assert!(alone.code == Some(1) && alone.errors.contains("without a word"), "{alone:?}");
    }
}

#[test]
fn a_rank_without_its_server_says_so_instead_of_waiting() {
    let folder = Folder::new("orphan");
    for origin in ORIGINS {
        let mut orphan = Command::new(example("pmix_ring"));
        orphan.env("SELVEDGE_LIBPMIX", origin.path());
        for name in [
            "PMIX_NAMESPACE",
            "PMIX_SERVER_URI2",
            "PMIX_SERVER_URI21",
            "PMIX_SERVER_URI4",
            "PMIX_SERVER_URI41",
        ] {
            orphan.env(name, "gone.0;tcp4://127.0.0.1:1");
        }
        let outcome = run(&folder, orphan.env("PMIX_NAMESPACE", "gone").env("PMIX_RANK", "0"));
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(outcome.errors.contains("NoServer"), "{outcome:?}");
    }
}

#[test]
fn a_libpmix_that_was_named_and_is_not_there_is_named_in_the_error() {
    let folder = Folder::new("named");
    let mut ring = Command::new(example("pmix_ring"));
    let outcome = run(&folder, ring.env("SELVEDGE_LIBPMIX", PathBuf::from("/nowhere/libpmix.so.2")));
    assert!(outcome.code == Some(1) && outcome.errors.contains("/nowhere/libpmix.so.2"), "{outcome:?}");
}
