//! The program itself: what it prints, how it ends.

mod common;

use std::process::{Command, Output};

use common::FakeHost;
use selvedge_coll::{Collective, Rank, Shape, generate};
use serde_json::Value;

fn selvedge(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_selvedge")).args(arguments).output().expect("it was built for this test")
}

fn on(host: &FakeHost, arguments: &[&str]) -> Output {
    let root = host.root.to_str().expect("a path in UTF-8");
    selvedge(&[&["doctor", "--root", root], arguments].concat())
}

fn checks(output: &Output) -> Vec<(String, String)> {
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    let list = report["checks"].as_array().expect("a list of checks");
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    list.iter().map(|check| (text(&check["id"]), text(&check["verdict"]))).collect()
}

fn verdict_of(output: &Output, id: &str) -> String {
    checks(output).into_iter().find(|(known, _)| known == id).expect("a check of this name").1
}

#[test]
fn two_processes_of_it_share_memory_and_it_says_so() {
    let output = selvedge(&["doctor", "--json", "-n", "1"]);
    assert_eq!(verdict_of(&output, "shared-memory"), "pass", "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn a_pod_with_64_kib_of_lockable_memory_ends_with_code_1_and_the_cure() {
    let host = FakeHost::new();
    host.linux("hpc6a.48xlarge")
        .pci("0000:00:06.0", "0x1d0f\n", "0xefa1\n", Some("efa"))
        .verbs("rdmap0s6", "0000:00:06.0", "uverbs0")
        .file("/dev/infiniband/uverbs0", "")
        .file("/sys/module/efa/version", "2.13.0g\n");
    let output = on(&host, &["--ranks", "2"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("ip-10-0-0-5 (hpc6a.48xlarge), ranks on this host: 2"), "{text}");
    assert!(text.contains("FAIL  memlock") && text.contains("LimitMEMLOCK=infinity"), "{text}");
    assert!(!text.contains('\x1b'), "colours are for terminals: {text}");

    let json = on(&host, &["--ranks", "2", "--json"]);
    assert_eq!((verdict_of(&json, "memlock"), json.status.code()), ("fail".to_owned(), Some(1)));
    assert_eq!(verdict_of(&json, "efa-verbs"), "pass");
}

#[test]
fn a_missing_efa_warns_and_fails_when_it_is_required() {
    let host = FakeHost::new();
    host.linux("t3.micro");
    assert_eq!(verdict_of(&on(&host, &["--json"]), "efa-device"), "warn");
    let required = on(&host, &["--json", "--require", "efa"]);
    assert_eq!((verdict_of(&required, "efa-device"), required.status.code()), ("fail".to_owned(), Some(1)));
}

#[test]
fn an_answer_that_cannot_be_written_is_no_success() {
    for words in [&["ps"][..], &["algorithms", "barrier"]] {
        let full = std::fs::File::create("/dev/full").unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_selvedge"));
        let output = command.args(words).stdout(full).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(
            (output.status.code(), said.contains("No space left")),
            (Some(1), true),
            "{words:?}: {said}"
        );
    }
}

#[test]
fn a_command_line_that_makes_no_sense_ends_with_code_2() {
    for arguments in [&["doctor", "--ranks", "0"][..], &["doctor", "--require", "wings"], &["patient"], &[]] {
        assert_eq!(selvedge(arguments).status.code(), Some(2), "{arguments:?}");
    }
    assert_eq!(selvedge(&["--help"]).status.code(), Some(0));
}

#[test]
fn completions_are_those_of_mpirun_and_then_its_own() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("completions");
    std::fs::create_dir_all(&folder).expect("a folder for tests");
    let (program, mpirun) = (folder.join("selvedge"), folder.join("mpirun"));
    let _ = std::fs::remove_file(&program);
    std::fs::hard_link(env!("CARGO_BIN_EXE_selvedge"), &program).expect("one file system");
    let ask = |shell: &str| {
        let output =
            Command::new(&program).args(["completions", shell]).output().expect("it was just linked");
        (output.status.code(), String::from_utf8(output.stdout).expect("text"))
    };
    for (says, code) in [("exit 2", Some(1)), ("echo \"#compdef mpirun mpiexec $2\"", Some(0))] {
        std::fs::write(&mpirun, format!("#!/bin/sh\n{says}\n")).expect("a file of ours");
        std::fs::set_permissions(&mpirun, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("ours");
        for shell in ["bash", "zsh", "fish"] {
            let (ended, text) = ask(shell);
            assert_eq!(ended, code, "{shell}: {text}");
            if code == Some(1) {
                assert_eq!(text, "");
                continue;
            }
            assert!(text.starts_with("#compdef mpirun mpiexec "), "{text}");
            for word in ["doctor", "where", "completions", "--patience"] {
                let word = if shell == "fish" { word.trim_start_matches('-') } else { word };
                assert!(text.contains(word), "{word} for {shell}");
            }
        }
    }
    std::fs::remove_dir_all(folder).expect("ours");
}

#[test]
fn algorithms_are_listed_with_their_estimates_the_chosen_first_and_schedules_are_those_that_run() {
    let said = |arguments: &[&str]| {
        let output = selvedge(&[&["algorithms"], arguments].concat());
        let text = String::from_utf8([output.stdout, output.stderr].concat()).expect("text");
        (output.status.code(), text)
    };
    let (code, all) = said(&[]);
    assert_eq!((code, all.matches("chosen").count()), (Some(0), 6), "{all}");
    let (_, far) =
        said(&["allreduce/knomial:16", "-n", "6", "-N", "3", "-m", "1KiB", "--ordered", "--road", "tcp"]);
    let lines: Vec<&str> = far.lines().collect();
    assert_eq!(
        lines[0],
        "allreduce of 1024 bytes among 6 ranks on 2 hosts, TCP between them; estimated, not measured"
    );
    assert!(lines[1].ends_with("  chosen") && far.contains("allreduce/knomial:16  asked about"), "{far}");
    assert!(far.contains("allreduce/ring  not here: it changes the order of operands"), "{far}");

    let (_, schedule) = said(&["broadcast/flat", "-n", "3", "--schedule", "0"]);
    let collective = Collective::Broadcast { root: Rank(0) };
    let shape = Shape { collective, ranks: 3, count: 1, element_bytes: 8, commutative: true };
    let runs = generate("broadcast/flat".parse().expect("it is listed"), &shape, Rank(0)).to_string();
    assert!(schedule.ends_with(&format!("rank 0, broadcast/flat\n{runs}")), "{schedule}");

    for (arguments, why) in [
        (&["allreduces"][..], "there are barrier, broadcast, reduce, allreduce, allgather, alltoall"),
        (&["allreduce/rng"], "is allreduce/ring meant?"),
        (&["allgather/doubling", "-n", "3"], "a power of two of ranks"),
        (&["reduce", "-n", "2", "--schedule", "2"], "there is no rank 2"),
        (&["alltoall", "-n", "4000", "-m", "9999999G"], "more than 64 bits can count"),
    ] {
        let (code, text) = said(arguments);
        assert!(code == Some(2) && text.contains(why), "{arguments:?}: {code:?} {text}");
    }
}
