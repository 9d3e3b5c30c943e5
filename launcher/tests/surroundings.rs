//! What ranks find around them: environment, working directory, program, place.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;
use std::process::Command;

use common::{Folder, mpirun, shell};

#[test]
fn every_rank_knows_its_place() {
    let done = shell(
        3,
        "echo $PMI_RANK $PMI_SIZE $MPI_LOCALRANKID $MPI_LOCALNRANKS $SELVEDGE_RANK $SELVEDGE_SIZE \
                         $SELVEDGE_LOCAL_RANK",
    )
    .run();
    assert_eq!(done.lines(), ["0 3 0 3 0 3 0", "1 3 1 3 1 3 1", "2 3 2 3 2 3 2"]);
    let jobs = shell(2, "echo $SELVEDGE_JOB").run().lines();
    assert!(jobs[0] == jobs[1] && jobs[0].starts_with("selvedge-"), "{jobs:?}");
    assert_ne!(shell(1, "echo $SELVEDGE_JOB").run().lines(), jobs[..1]);
}

#[test]
fn what_other_launchers_left_is_gone() {
    let done = shell(1, "env")
        .env("PMIX_NAMESPACE", "x")
        .env("PMI_PORT", "h:1")
        .env("OMPI_COMM_WORLD_RANK", "5")
        .env("SLURM_JOB_ID", "77")
        .env("SELVEDGE_RANK", "9")
        .run();
    let has = |start: &str| done.lines().iter().any(|line| line.starts_with(start));
    for gone in ["PMIX_", "PMI_PORT", "OMPI_COMM_WORLD_"] {
        assert!(!has(gone), "{gone} in {}", done.text());
    }
    assert!(has("SLURM_JOB_ID=77") && has("SELVEDGE_RANK=0"));
}

#[test]
fn variables_are_set_and_passed_on() {
    let script = "echo $A $B $C1 $C2 $D";
    let words = ["-x", "A", "-x", "B=b=b", "-x", "C*", "-genv", "D", "d", "-n", "1", "sh", "-c", script];
    let done = mpirun(words).env("A", "a").env("C1", "c1").env("C2", "c2").run();
    assert_eq!((done.text().as_str(), done.err.as_str()), ("a b=b c1 c2 d\n", ""));
}

#[test]
fn a_variable_that_is_not_there_is_a_warning_and_no_more() {
    let done = mpirun(["-x", "NO_SUCH_VARIABLE", "-n", "1", "echo", "ok"]).run();
    assert_eq!((done.code(), done.text().as_str()), (0, "ok\n"));
    assert!(done.verdict().contains("-x NO_SUCH_VARIABLE"), "{}", done.err);
}

#[test]
fn the_working_directory_comes_after_the_program_is_found() {
    let folder = Folder::new("wdir");
    folder.file("bin/prog", "#!/bin/sh\necho in $(basename $(pwd)) as $0\n", 0o755);
    folder.file("work/other", "#!/bin/sh\necho other\n", 0o755);
    for option in ["--wdir", "-wd"] {
        let done = mpirun(["-n", "1", option, "work", "bin/prog"]).dir(&folder.0).run();
        assert!(done.text().starts_with("in work as "), "{} {}", done.text(), done.err);
    }
    let done = mpirun(["-n", "1", "--wdir", "work", "./other"]).dir(&folder.0).run();
    assert_eq!(done.text(), "other\n", "{}", done.err);
}

#[test]
fn a_program_without_a_slash_is_found_along_the_ranks_path() {
    let folder = Folder::new("path");
    folder.file("bin/selvedge-test-program", "#!/bin/sh\necho found\n", 0o755);
    let path = format!("PATH={}:/usr/bin:/bin", folder.0.join("bin").display());
    let done = mpirun(["-n", "1", "-x", &path, "selvedge-test-program"]).run();
    assert_eq!(done.text(), "found\n", "{}", done.err);
}

#[test]
fn blocks_run_their_own_programs_with_ranks_counted_through() {
    let words =
        ["-n", "2", "sh", "-c", "echo a$PMI_RANK/$PMI_SIZE", ":", "-n", "1", "sh", "-c", "echo b$PMI_RANK"];
    let done = mpirun(words).run();
    assert_eq!(done.lines(), ["a0/3", "a1/3", "b2"]);
}

#[test]
fn without_a_count_there_is_one_rank_for_each_core() {
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(mpirun(["echo", "x"]).run().lines().len(), cores);
}

#[test]
fn mpiexec_is_the_same_program() {
    let mut job = shell(2, "echo $PMI_RANK");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_mpiexec"));
    command.args(job.command.get_args()).stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    job.command = command;
    assert_eq!(job.run().lines(), ["0", "1"]);
}

#[test]
fn ranks_are_born_with_the_users_limits_and_no_descriptors_but_their_own() {
    let script = "ulimit -Sn; ls /proc/self/fd | wc -l";
    let done = shell(3, script).run();
    // What a program has that is started without mpirun, the PMI connection, and the board for its status.
    let alone = std::process::Command::new("sh").args(["-c", script]).output().unwrap();
    let alone = String::from_utf8(alone.stdout).unwrap();
    let (limit, count) = alone.trim().split_once('\n').unwrap();
    let count = (count.parse::<u32>().unwrap() + 2).to_string();
    let mut expected = [limit, limit, limit, &count, &count, &count];
    expected.sort_unstable();
    assert_eq!(done.lines(), expected);
}

#[test]
fn a_job_inside_a_job_has_its_own_places() {
    let inner = env!("CARGO_BIN_EXE_mpirun");
    let done = shell(2, &format!("exec {inner} -n 2 sh -c 'echo $PMI_RANK/$PMI_SIZE'")).run();
    assert_eq!((done.code(), done.err.as_str()), (0, ""));
    assert_eq!(done.lines(), ["0/2", "0/2", "1/2", "1/2"]);
}

#[test]
fn ranks_have_even_shares_of_the_cores_unless_told_otherwise() {
    let allowed = "grep Cpus_allowed_list /proc/self/status | cut -f2";
    let all = Command::new("sh").args(["-c", allowed]).output().unwrap();
    let all = String::from_utf8(all.stdout).unwrap();
    let cores = std::thread::available_parallelism().unwrap().get() as u32;
    assert!(cores >= 2, "a machine with one core cannot show how cores are shared");

    let lines = |words: &[&str], ranks: u32| {
        let ranks = ranks.to_string();
        let mut all = vec!["-n", &ranks];
        all.extend(words);
        all.extend(["sh", "-c", allowed]);
        mpirun(all).run().lines()
    };
    let shared = lines(&[], 2);
    assert!(shared[0] != shared[1] && !shared.contains(&all.trim().to_owned()), "{shared:?}");
    // A core has one hardware thread or several.
    let one_core = lines(&["--bind-to", "core"], 2);
    assert!(one_core[0] != one_core[1] && !one_core.contains(&all.trim().to_owned()), "{one_core:?}");
    let one_thread = lines(&["--bind-to", "hwthread", "--map-by", "core"], 2);
    assert!(one_thread[0] != one_thread[1], "{one_thread:?}");
    assert!(one_thread.iter().all(|list| list.parse::<u32>().is_ok()), "{one_thread:?}");
    // What is shown is what is done, whatever the sockets of this machine are.
    for part in ["none", "core", "hwthread", "numa", "socket"] {
        let shown = lines(&["--bind-to", part, "--map-by", "slot", "--report-bindings"], 2);
        let of = |rank: u32| shown.iter().any(|line| line.starts_with(&format!("rank {rank}: ")));
        assert!(shown.len() == 4 && of(0) && of(1), "{part}: {shown:?}");
        let is_all = shown[0] == all.trim() && shown[1] == all.trim();
        assert!(is_all || part != "none", "{shown:?} of {all}");
    }
    for unbound in [lines(&[], 1), lines(&["--bind-to", "none"], 2), lines(&[], cores + 1)] {
        assert!(unbound.iter().all(|list| list == all.trim()), "{unbound:?} of {all}");
    }
}
