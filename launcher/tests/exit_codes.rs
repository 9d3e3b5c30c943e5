//! The exit code, and the one line that explains it.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;
use common::{Folder, mpirun, probe, shell};
use std::time::Duration;

/// What goes wrong with two ranks, as other launchers have been tried with it: the words of the line, or the modes of the
/// probe after `probe`; the exit code; words of the line that says so.
const EVENTS: &[(&str, &str, i32, &str)] = &[
    ("rank 1 leaves with 3 without finalize", "probe hang leave=3", 3, "rank 1 on "),
    ("rank 1 leaves with 3 after finalize", "probe finish=0 finish=3", 3, "exited with code 3"),
    (
        "ranks leave with 5 and 3, and the first seen counts",
        "sh exit=$((5-2*PMI_RANK))",
        5 | 3,
        "exited with code",
    ),
    ("rank 1 dies of SIGSEGV", "sh kill=SEGV", 139, "killed by SIGSEGV"),
    ("rank 1 dies of SIGKILL", "sh kill=KILL", 137, "killed by SIGKILL"),
    ("rank 1 aborts with 7", "probe hang abort=7", 7, "called abort with code 7"),
    ("the program is missing", "words -n 2 ./no-such-program", 127, "no such file"),
    ("the program cannot be executed", "words -n 2 /etc/passwd", 126, "/etc/passwd"),
    ("an option that there is not", "words --host-file h true", 2, "is -hostfile meant?"),
    (
        "hosts and a launcher that reaches none",
        "words -launcher fork -H 192.0.2.1 true",
        2,
        "and 192.0.2.1 is one",
    ),
    ("a contradiction", "words -n 2 -np 3 true", 2, "given twice"),
    ("the time limit is over", "words --timeout 0.1 -n 2 sleep 1000", 124, "time limit of 0.1 s"),
    ("a variable is the time limit", "env -n 2 sleep 1000", 124, "time limit of 0.1 s"),
];

#[test]
fn everything_that_goes_wrong_has_its_exit_code_and_one_line_that_names_no_rank_that_we_ended() {
    for (event, how, code, says) in EVENTS {
        let (kind, rest) = how.split_once(' ').unwrap();
        let words: Vec<&str> = rest.split(' ').collect();
        let done = match (kind, rest.split_once('=')) {
            ("probe", _) => probe(2, &words).run(),
            ("sh", Some(("exit", code))) => shell(2, &format!("exit {code}")).run(),
            ("sh", Some((_, signal))) => {
                shell(2, &format!("[ $PMI_RANK = 1 ] && kill -{signal} $$; exec sleep 1000")).run()
            }
            ("env", _) => mpirun(words).env("MPIEXEC_TIMEOUT", "0.1").run(),
            _ => mpirun(words).run(),
        };
        let is_either = *code == 5 | 3 && [5, 3].contains(&done.code());
        assert!(done.code() == *code || is_either, "{event}: {} {}", done.code(), done.err);
        assert!(done.verdict().contains(says), "{event}: {}", done.err);
        assert!(!done.verdict().contains("rank 0 on ") || is_either, "{event}: {}", done.err);
    }
}

#[test]
fn a_line_that_nobody_can_read_changes_no_exit_code() {
    let full = || std::fs::File::create("/dev/full").unwrap();
    for (words, code) in [(&["-n", "x", "true"][..], 2), (&["-x", "NOT_SET", "true"], 0)] {
        let mut job = mpirun(words);
        assert_eq!(job.command.stderr(full()).status().unwrap().code(), Some(code), "{words:?}");
    }
    // What was asked for, and is not there, is another matter.
    assert_eq!(mpirun(["--help"]).command.stdout(full()).status().unwrap().code(), Some(1));
}

#[test]
fn a_script_that_cannot_run_is_told_from_its_first_line() {
    let folder = Folder::new("scripts");
    for (text, mode, code, says) in [
        ("#!/no/such/shell -e\n", 0o755, 126, "its first line names /no/such/shell, which does not exist"),
        ("#!/bin/sh\r\necho\r\n", 0o755, 126, "its lines end as on Windows"),
        (
            "#!/bin/sh\n",
            0o644,
            127,
            "the one in this folder is not executable; chmod +x a-script, and write ./a-script",
        ),
    ] {
        let path = folder.file("a-script", text, mode);
        let program = if code == 127 { "a-script" } else { path.to_str().unwrap() };
        let done = mpirun(["-n", "2", program]).dir(&folder.0).run();
        assert_eq!(done.code(), code, "{}", done.err);
        assert!(done.verdict().contains(says), "{}", done.err);
    }
}

#[test]
fn all_ranks_leaving_with_0_is_0_and_nothing_is_said() {
    let done = shell(3, "echo hi").run();
    assert_eq!((done.code(), done.err.as_str()), (0, ""));
    assert_eq!(done.lines(), ["hi", "hi", "hi"]);
}

#[test]
fn the_code_of_the_first_rank_that_fails_decides_and_the_others_are_ended_within_a_second() {
    let done = shell(4, "[ $PMI_RANK = 2 ] && exit 3; exec sleep 1000").run();
    assert_eq!(done.code(), 3);
    assert!(done.verdict().starts_with("mpirun: rank 2 on "), "{}", done.err);
    assert!(done.verdict().ends_with("exited with code 3; the other 3 ranks were ended"), "{}", done.err);
    assert!(done.verdict().contains("(pid "), "{}", done.err);
    assert!(done.took < Duration::from_secs(2), "{:?}", done.took);
}

#[test]
fn a_rank_that_dies_of_a_signal_is_128_and_its_number() {
    for (signal, code) in [("SEGV", 139), ("KILL", 137), ("ABRT", 134)] {
        let done = shell(2, &format!("[ $PMI_RANK = 1 ] && kill -{signal} $$; exec sleep 1000")).run();
        assert_eq!(done.code(), code);
        assert!(done.verdict().contains(&format!("was killed by SIG{signal}")), "{}", done.err);
    }
}

#[test]
fn a_rank_that_ignores_sigterm_is_killed_after_the_grace_and_not_reported() {
    let script = "[ $PMI_RANK = 1 ] && { sleep 0.3; exit 3; }; trap '' TERM; while :; do sleep 0.05; done";
    let done = shell(3, script).run();
    assert_eq!(done.code(), 3);
    assert!(done.verdict().ends_with("(2 by SIGKILL)"), "{}", done.err);
    assert!(done.took < Duration::from_secs(3), "{:?}", done.took);
}

#[test]
fn an_abort_gives_its_code_and_says_why() {
    for (asked, code) in [(7, 7), (0, 1), (256, 1), (-1, 255)] {
        let done = probe(3, &["hang", &format!("abort={asked}"), "hang"]).run();
        assert_eq!(done.code(), code);
        let expected =
            format!("called abort with code {asked}: the probe was told to; the other 2 ranks were ended");
        assert!(done.verdict().ends_with(&expected), "{}", done.err);
    }
}

#[test]
fn an_exit_code_after_finalize_is_kept() {
    let done = probe(2, &["finish=0", "finish=5"]).run();
    assert_eq!(done.code(), 5);
}

#[test]
fn leaving_without_finalize_is_a_failure_even_with_code_0() {
    let done = probe(2, &["hang", "leave=0"]).run();
    assert_eq!(done.code(), 1);
    assert!(done.verdict().contains("rank 1 on "), "{}", done.err);
    assert!(done.verdict().contains("left without MPI_Finalize"), "{}", done.err);
    assert_eq!(probe(2, &["hang", "leave=9"]).run().code(), 9);
}

#[test]
fn a_rank_that_leaves_while_others_wait_for_it_in_a_fence_ends_the_job() {
    for modes in [["fence", "silent=0"], ["fence", "finish=0"]] {
        let done = probe(2, &modes).run();
        assert_eq!(done.code(), 1);
        assert!(done.verdict().contains("rank 1 on "), "{}", done.err);
        assert!(done.verdict().contains("has left while rank 0 waits for it"), "{}", done.err);
    }
}

#[test]
fn a_rank_that_speaks_no_pmi_gets_one_clear_line() {
    let done = probe(2, &["hang", "garbage"]).run();
    assert_eq!(done.code(), 1);
    assert!(done.verdict().contains("malformed PMI line \"this is no PMI\""), "{}", done.err);
}

#[test]
fn a_rank_that_closes_its_connection_and_stays_is_ended() {
    let done = probe(2, &["hang", "close"]).run();
    assert_eq!(done.code(), 1);
    assert!(done.verdict().contains("closed its connection to mpirun without MPI_Finalize"), "{}", done.err);
}

#[test]
fn programs_that_speak_no_pmi_are_judged_by_their_exit_codes_alone() {
    for ranks in [1, 64] {
        let done = mpirun(["-n", &ranks.to_string(), "true"]).run();
        assert_eq!((done.code(), done.err.as_str()), (0, ""));
    }
}

#[test]
fn many_ranks_exchange_cards() {
    for ranks in [1, 2, 13] {
        let done = probe(ranks, &["card"]).run();
        assert_eq!((done.code(), done.err.as_str()), (0, ""));
        assert_eq!(done.lines().len(), ranks as usize);
        assert!(done.lines()[0].contains("on 1 node: cards exchanged"), "{}", done.text());
    }
}

#[test]
fn a_program_that_is_not_there_is_127() {
    let folder = Folder::new("not-there");
    folder.file("mine", "#!/bin/sh\n", 0o755);
    for (program, hint) in
        [("./no-such-program", "no such file"), ("no-such-program", "not on PATH"), ("mine", "write ./mine")]
    {
        let done = mpirun(["-n", "2", program]).dir(&folder.0).run();
        assert_eq!(done.code(), 127);
        assert!(done.verdict().contains(hint), "{}", done.err);
    }
}

#[test]
fn a_program_that_cannot_be_executed_is_126() {
    let folder = Folder::new("not-executable");
    folder.file("text", "hello\n", 0o644);
    folder.file("script", "#!/no/such/interpreter\n", 0o755);
    for (program, hint) in [
        ("./text", "chmod +x ./text"),
        ("./script", "interpreter"),
        (".", "is a directory"),
        ("/tmp", "is a directory"),
    ] {
        let done = mpirun(["-n", "2", program]).dir(&folder.0).run();
        assert_eq!(done.code(), 126, "{program}: {}", done.err);
        assert!(done.verdict().contains(hint), "{}", done.err);
    }
}

#[test]
fn a_script_without_its_first_line_is_run_by_sh_as_a_shell_does() {
    let folder = Folder::new("no-first-line");
    folder.file("script", "echo from sh\n", 0o755);
    let done = mpirun(["-n", "1", "./script"]).dir(&folder.0).run();
    assert_eq!((done.code(), done.text().as_str()), (0, "from sh\n"));
}

#[test]
fn the_time_limit_is_124_and_the_ranks_are_ended() {
    let done = mpirun(["--timeout", "0.3", "-n", "3", "sleep", "1000"]).run();
    assert_eq!(done.code(), 124);
    let expected = "the time limit of 0.3 s is over; the 3 ranks that were still running were ended";
    assert!(done.verdict().ends_with(expected), "{}", done.err);
    assert_eq!(mpirun(["--timeout", "20", "-n", "2", "true"]).run().code(), 0);
}

#[test]
fn a_command_line_that_cannot_be_followed_is_2_and_starts_nothing() {
    for words in [
        &["-n", "0", "echo", "x"][..],
        &["-n", "abc", "echo", "x"],
        &["-n", "2"],
        &[],
        &["--frobnicate", "echo", "x"],
        &["--timeout", "never", "echo", "x"],
        &["--wdir", "/no/such/directory", "echo", "x"],
        &["--wdir", "/etc/passwd", "echo", "x"],
        &["-n", "1", "echo", "x", ":", "-n", "1", "--wdir", "/no/such/directory", "echo", "x"],
    ] {
        let done = mpirun(words).run();
        assert_eq!(done.code(), 2, "{words:?}");
        assert_eq!(done.text(), "", "{words:?}");
        assert!(!done.verdict().is_empty());
    }
}

#[test]
fn more_ranks_than_descriptors_are_refused_with_advice() {
    let job = "ulimit -n 64 && exec \"$0\" -n 100 true";
    let mut done = mpirun([""; 0]);
    let program = env!("CARGO_BIN_EXE_mpirun");
    done.command = {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", job, program]).stdin(std::process::Stdio::null());
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        command
    };
    let done = done.run();
    assert_eq!(done.code(), 1);
    assert!(
        done.verdict().contains("100 ranks need 319 file descriptors and the limit is 64"),
        "{}",
        done.err
    );
}

#[test]
fn help_and_version_are_0() {
    for (word, expected) in [
        ("--help", "Usage: mpirun"),
        ("-help=all", "NAME\n    mpirun, mpiexec"),
        ("-V", "mpirun (Selvedge)"),
        ("--completions=bash", "# mpirun and mpiexec of Selvedge, for bash"),
    ] {
        let done = mpirun([word]).run();
        assert_eq!(done.code(), 0);
        assert!(done.text().starts_with(expected), "{}", done.text());
    }
}
