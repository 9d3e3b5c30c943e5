//! Hosts that join by themselves behave as those that were started by ssh: places, output, input, signals, exit codes; and
//! hosts that do not fit, or are lost. Over the loopback interface; `namespaces.rs` has networks of their own.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use common::party::{
    Eavesdropper, Party, TREASURE, holds, listens, new_secret, one_of_two_is_refused, wait_until_admitted,
};
use common::{Running, mpirun, probe_path, read_lines};
use rustix::process::{Pid, Signal};

#[test]
fn ranks_know_their_places_and_all_hosts_end_with_the_jobs_code() {
    let party = Party::new("places", 3);
    let script = "echo $PMI_RANK/$PMI_SIZE $MPI_LOCALRANKID/$MPI_LOCALNRANKS $SELVEDGE_HOST $TREASURE $SELVEDGE_INTERFACE";
    let done = party.all(&["-ppn", "2", "-n", "6", "sh", "-c", script]);
    assert_eq!((done[0].code(), done[0].err.as_str()), (0, ""));
    let expected: Vec<String> =
        (0..6).map(|rank| format!("{rank}/6 {}/2 h{} {TREASURE} 127.0.0.1", rank % 2, rank / 2)).collect();
    assert_eq!(done[0].lines(), expected);
    for other in &done[1..] {
        assert_eq!((other.code(), other.text().as_str(), other.err.as_str()), (0, "", ""));
    }
    assert!(!listens(party.address));
}

#[test]
fn the_first_host_may_come_last() {
    let party = Party::new("last", 2);
    let other = party.host(1, &["true"]).start();
    std::thread::sleep(Duration::from_millis(300));
    let first = party.host(0, &["sh", "-c", "echo $PMI_SIZE"]).start();
    assert_eq!((first.finish().code(), other.finish().code()), (0, 0));
}

#[test]
fn cards_are_exchanged_and_ranks_communicate() {
    let party = Party::new("cards", 4);
    let probe = probe_path();
    let done = party.all(&["-ppn", "2", "-n", "8", probe.to_str().unwrap(), "card"]);
    assert_eq!((done[0].code(), done[0].err.as_str()), (0, ""));
    assert!(done[0].text().contains("on 4 node: cards exchanged"), "{}", done[0].text());
    let ranks = probe.with_file_name("ranks");
    let done = party.all(&["-q", "-ppn", "1", "-n", "4", ranks.to_str().unwrap(), "sum"]);
    assert_eq!((done[0].code(), done[0].text().as_str()), (0, "4 ranks, sum 6\n"), "{}", done[0].err);
}

#[test]
fn everything_on_the_wire_is_sealed() {
    let party = Party::new("sealed", 2);
    let ear = Eavesdropper::before(party.address);
    let first = party.first(&["-ppn", "1", "sh", "-c", "echo $TREASURE"]);
    let other = party.host_at(ear.address, 1, &["true"]).start();
    let done = first.finish();
    assert_eq!((done.code(), done.lines()), (0, vec![TREASURE; 2].into_iter().map(str::to_owned).collect()));
    assert_eq!(other.finish().code(), 0);
    let [joiner, first] = ear.said();
    assert!(joiner.len() > 500 && first.len() > 500, "{} {}", joiner.len(), first.len());
    for said in [&joiner, &first] {
        for word in [TREASURE, "PATH=", "TREASURE", "echo"] {
            assert!(!holds(said, word), "{word} was on the wire");
        }
    }
    let secret = std::fs::read(&party.secret).unwrap();
    assert!(![joiner, first].iter().any(|said| said.windows(8).any(|window| window == &secret[..8])));
}

#[test]
fn the_secret_is_on_no_command_line_and_in_no_environment() {
    let party = Party::new("hidden", 2);
    let mut first = party.first(&["-ppn", "1", "sh", "-c", "echo ready; exec sleep 1000"]);
    let other = party.host(1, &["true"]).start();
    read_lines(&mut first, 2);
    let secret = std::fs::read(&party.secret).unwrap();
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut pids = first.others();
    pids.extend(other.others());
    pids.extend([&first, &other].map(|job| job.pid().as_raw_nonzero().get()));
    assert!(pids.len() >= 6, "{pids:?}");
    for pid in pids {
        for file in ["cmdline", "environ"] {
            let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            assert!(
                !bytes.windows(32).any(|window| window == secret) && !holds(&bytes, &hex),
                "{pid}: {file}"
            );
        }
        // Nor does any process keep the file open.
        for fd in std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            assert_ne!(std::fs::read_link(fd.path()).ok().as_ref(), Some(&party.secret));
        }
    }
    first.signal(Signal::TERM);
    assert_eq!((first.finish().code(), other.finish().code()), (143, 143));
}

#[test]
fn exit_codes_reach_all_hosts() {
    for (how, code) in [("exit 3", 3), ("kill -SEGV $$", 139)] {
        let party = Party::new("codes", 2);
        let script = format!("[ $PMI_RANK = 1 ] && {{ {how}; }}; exec sleep 1000");
        let done = party.all(&["-ppn", "1", "-n", "2", "sh", "-c", &script]);
        assert_eq!((done[0].code(), done[1].code()), (code, code));
        assert!(done[0].verdict().starts_with("mpirun: rank 1 on h1 (pid "), "{}", done[0].err);
        let said = done[1].verdict();
        assert!(
            said.contains(&format!("exit code {code}; mpirun on ")) && said.ends_with("has said why"),
            "{said}"
        );
    }
    let party = Party::new("time", 2);
    let done = party.all(&["-ppn", "1", "--timeout", "1", "sleep", "1000"]);
    assert_eq!((done[0].code(), done[1].code()), (124, 124));
    let party = Party::new("program", 2);
    let done = party.all(&["no-such-program"]);
    assert_eq!((done[0].code(), done[1].code()), (127, 127));
}

#[test]
fn input_of_the_first_host_reaches_rank_0_wherever_it_is() {
    let party = Party::new("input", 2);
    let words = ["-rankmap", "1,0", "-n", "2", "wc", "-c"];
    let mut first = party.host(0, &words).input(Stdio::piped()).start();
    let other = party.host(1, &words).start();
    let mut input = first.child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        let chunk = [b'x'; 1 << 16];
        (0..160).for_each(|_| input.write_all(&chunk).unwrap());
    });
    let done = first.finish();
    writer.join().unwrap();
    assert_eq!(done.lines(), ["0", "10485760"], "{}", done.err);
    assert_eq!(other.finish().code(), 0);
}

#[test]
fn lines_of_all_hosts_stay_whole() {
    let party = Party::new("lines", 3);
    let probe = probe_path();
    let done = party.all(&["-l", "-ppn", "1", probe.to_str().unwrap(), "copies=2000"]);
    assert_eq!((done[0].code(), done[0].err.as_str()), (0, ""));
    let lines = done[0].lines();
    assert_eq!(lines.len(), 3 * 2000);
    for line in lines {
        let (label, text) = line.split_once(' ').unwrap();
        assert!(
            text.starts_with(&format!("<{}:", label.trim_matches(['[', ']']))) && text.ends_with('>'),
            "{line}"
        );
    }
}

/// Every rank says when it was asked to leave, and leaves.
const POLITE: &str = "trap 'echo saved; exit 0' TERM USR1; echo ready; while :; do sleep 0.05; done";

#[test]
fn a_signal_to_any_host_is_for_the_job() {
    for target in [0, 1] {
        for signal in [Signal::TERM, Signal::USR1] {
            let party = Party::new(&format!("signals-{target}"), 2);
            let mut first = party.first(&["-ppn", "1", "sh", "-c", POLITE]);
            let other = party.host(1, &["true"]).start();
            read_lines(&mut first, 2);
            if target == 0 { &first } else { &other }.signal(signal);
            let done = first.finish();
            assert_eq!((done.code(), done.lines()), (0, vec!["saved".to_owned(); 2]), "{}", done.err);
            assert_eq!(other.finish().code(), 0);
        }
    }
}

#[test]
fn a_signal_to_all_hosts_is_one_request() {
    let party = Party::new("request", 3);
    let slow = "trap 'sleep 1; echo saved; exit 0' TERM; echo ready; while :; do sleep 0.05; done";
    let mut first = party.first(&["-ppn", "1", "sh", "-c", slow]);
    let others = [1, 2].map(|index| party.host(index, &["true"]).start());
    read_lines(&mut first, 3);
    for job in [&others[0], &first, &others[1]] {
        job.signal(Signal::TERM);
        std::thread::sleep(Duration::from_millis(250));
    }
    let done = first.finish();
    assert_eq!((done.code(), done.lines()), (0, vec!["saved".to_owned(); 3]), "{}", done.err);
    assert_eq!(others.map(|job| job.finish().code()), [0, 0]);
}

#[test]
fn hosts_that_are_missing_are_named_and_those_that_came_end_too() {
    let party = Party::new("missing", 4);
    let words = ["--start-timeout", "2", "true"];
    let first = party.host(0, &words).start();
    let other = party.host(2, &words).start();
    let (done, other) = (first.finish(), other.finish());
    assert_eq!((done.code(), other.code()), (1, 1));
    assert_eq!(
        done.verdict(),
        "mpirun: not joined within 2 s: 2 of 4 hosts: the hosts with the indexes 1, 3"
    );
    assert!(other.verdict().contains("exit code 1"), "{}", other.err);
    let alone = party.host(1, &["--start-timeout", "1", "true"]).run();
    assert_eq!(alone.code(), 1);
    assert!(alone.verdict().contains("not admitted within 1 s"), "{}", alone.err);
}

#[test]
fn an_interrupt_before_all_hosts_are_there_ends_those_that_are() {
    let party = Party::new("early", 3);
    let first = party.first(&["true"]);
    let other = party.host(1, &["true"]).start();
    wait_until_admitted(&other);
    first.signal(Signal::INT);
    let (done, other) = (first.finish(), other.finish());
    assert_eq!((done.code(), other.code()), (130, 130), "{} {}", done.err, other.err);
    assert!(done.verdict().contains("before all hosts were there"), "{}", done.err);
}

#[test]
fn a_host_that_leaves_before_the_start_may_come_back() {
    let party = Party::new("back", 3);
    let first = party.first(&["-ppn", "1", "sh", "-c", "echo $PMI_RANK"]);
    let early = party.host(1, &["true"]).start();
    wait_until_admitted(&early);
    early.signal(Signal::TERM);
    assert_eq!(early.finish().code(), 143);
    let others = [1, 2].map(|index| party.host(index, &["true"]).start());
    let done = first.finish();
    assert_eq!((done.code(), done.lines().len()), (0, 3), "{}", done.err);
    assert_eq!(done.verdict(), "mpirun: h1 (127.0.0.1) has left again; its place is free");
    assert_eq!(others.map(|job| job.finish().code()), [0, 0]);
}

#[test]
fn a_host_that_was_told_something_else_hears_what_and_the_job_goes_on() {
    let party = Party::new("wrong", 2);
    let other_secret = party.folder.0.join("other");
    new_secret(&other_secret);
    let first = party.first(&["-ppn", "1", "sh", "-c", "echo $PMI_RANK"]);
    let wrong = |hosts, index, secret: &std::path::Path| {
        party.stranger(party.address, hosts, index, secret, &["--start-timeout", "1", "true"]).run()
    };
    let done = wrong(3, 1, &party.secret);
    assert_eq!(done.code(), 1);
    let said = done.verdict();
    assert!(
        said.contains("it was told that there are 3 hosts") && said.contains("that there are 2"),
        "{said}"
    );
    let done = wrong(2, 1, &other_secret);
    assert_eq!(done.code(), 1);
    assert!(
        done.err.contains("another secret; give every host a copy of the same file; trying again"),
        "{}",
        done.err
    );
    assert!(done.err.contains("not admitted within 1 s"), "{}", done.err);
    let other = party.host(1, &["true"]).start();
    let done = first.finish();
    assert_eq!((done.code(), done.lines(), other.finish().code()), (0, vec!["0".into(), "1".into()], 0));
    let lines: Vec<&str> = done.err.lines().collect();
    assert!(lines[0].starts_with("mpirun: 127.0.0.1:") && lines[0].contains("h1: it was told"), "{lines:?}");
    assert!(lines[1].contains("was turned away: it has another secret"), "{lines:?}");
    assert!(lines.len() <= 3, "the same trouble is said once: {lines:?}");
}

#[test]
fn an_index_is_one_hosts_and_all_or_none_have_one() {
    let party = Party::new("index", 3);
    let mut first = party.first(&["-ppn", "1", "sh", "-c", "echo $SELVEDGE_HOST; exec sleep 1000"]);
    let (one, refused) = one_of_two_is_refused([1; 2].map(|index| party.host(index, &["true"]).start()));
    assert!(refused.verdict().contains("index 1 is taken by h1 (127.0.0.1)"), "{}", refused.err);
    let address = party.address.to_string();
    let words =
        ["--join", &address, "--join-hosts", "3", "--secret-file", party.secret.to_str().unwrap(), "true"];
    // On this host an address of ours makes us the first, whose door is open already.
    let done = mpirun(words).run();
    assert_eq!(done.code(), 1);
    assert!(done.verdict().contains("cannot listen on"), "{}", done.err);
    let two = party.host(2, &["true"]).start();
    read_lines(&mut first, 3);
    first.signal(Signal::TERM);
    assert_eq!([first, one, two].map(|job| job.finish().code()), [143; 3]);
}

/// Every rank has a child and one that has left its group.
const FAMILY: &str = "sleep 1001 & (setsid sleep 1002 &) ; echo ready; wait";

/// The agent of a host: the only child of its mpirun.
fn agent_of(job: &Running) -> Pid {
    job.agent()
}

#[test]
fn whoever_is_killed_is_named_and_nothing_is_left() {
    let party = Party::new("killed", 3);
    for victim in ["front", "agent of the first", "relay", "agent"] {
        let mut first = party.first(&["-ppn", "2", "sh", "-c", FAMILY]);
        let mut others = [1, 2].map(|index| party.host(index, &["true"]).start());
        read_lines(&mut first, 6);
        let pid = match victim {
            "front" => first.pid(),
            "agent of the first" => agent_of(&first),
            "relay" => others[0].pid(),
            _ => agent_of(&others[0]),
        };
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
        match victim {
            "front" => {
                first.child.wait().unwrap();
                first.assert_nothing_left();
                for other in others {
                    let done = other.finish();
                    assert_eq!(done.code(), 1);
                    assert!(done.verdict().contains("has gone; what ran here was ended"), "{}", done.err);
                }
                continue;
            }
            "relay" => {
                others[0].child.wait().unwrap();
                others[0].assert_nothing_left();
            }
            _ => {}
        }
        let done = first.finish();
        assert_eq!(done.code(), 1, "{victim}: {}", done.err);
        let said = match victim {
            "agent of the first" => "was killed by signal 9; its 2 ranks were ended",
            "relay" => "the node agent on h1 has gone: its connection has ended; its 2 ranks were ended",
            _ => "the node agent on h1 was killed by signal 9; its 2 ranks were ended",
        };
        assert!(done.verdict().contains(said), "{victim}: {}", done.err);
        for other in others.into_iter().skip(usize::from(victim == "relay")) {
            assert_eq!(other.finish().code(), 1, "{victim}");
        }
    }
}

#[test]
fn a_host_that_falls_silent_is_lost() {
    let party = Party::new("silent", 3);
    let words = ["--host-timeout", "2", "-ppn", "1", "sh", "-c", "echo ready; exec sleep 1000"];
    for silent in [0, 1] {
        let mut first = party.first(&words);
        let others = [1, 2].map(|index| party.host(index, &words).start());
        read_lines(&mut first, 3);
        let job = if silent == 0 { &first } else { &others[0] };
        job.signal(Signal::STOP);
        if silent == 0 {
            for other in others {
                let done = other.finish();
                assert_eq!(done.code(), 1);
                assert!(done.verdict().contains("nothing was heard from mpirun for 2 s"), "{}", done.err);
            }
            first.signal(Signal::CONT);
            assert_eq!(first.finish().code(), 1);
            continue;
        }
        let [stopped, other] = others;
        let done = first.finish();
        assert_eq!(done.code(), 1);
        assert!(done.verdict().contains("the node agent on h1 was silent for 2 s"), "{}", done.err);
        assert_eq!(other.finish().code(), 1);
        stopped.signal(Signal::CONT);
        assert_eq!(stopped.finish().code(), 1);
    }
}

#[test]
fn a_secret_that_others_can_read_starts_nothing() {
    use std::os::unix::fs::PermissionsExt;
    let party = Party::new("mode", 2);
    std::fs::set_permissions(&party.secret, std::fs::Permissions::from_mode(0o644)).unwrap();
    let done = party.host(0, &["true"]).run();
    assert_eq!(done.code(), 2);
    assert!(done.verdict().contains("chmod 600"), "{}", done.err);
    let done = mpirun(["--new-secret", party.secret.to_str().unwrap()]).run();
    assert_eq!(done.code(), 2);
    assert!(done.verdict().contains("not written over"), "{}", done.err);
}

#[test]
fn every_host_has_its_own_variables_of_the_container_system() {
    let party = Party::new("variables", 2);
    let words = ["-ppn", "1", "sh", "-c", "echo $JOB_COMPLETION_INDEX $ECS_AGENT_URI $WORD"];
    let job = |index: u32| {
        let job = party.host(index, &words).env("JOB_COMPLETION_INDEX", &index.to_string());
        job.env("ECS_AGENT_URI", &format!("uri{index}")).env("WORD", &format!("word{index}")).start()
    };
    let (first, other) = (job(0), job(1));
    let done = first.finish();
    assert_eq!((done.code(), done.lines()), (0, vec!["0 uri0 word0".into(), "1 uri1 word0".into()]));
    assert_eq!(other.finish().code(), 0);
    let words = ["-x", "JOB_COMPLETION_INDEX=7", "-ppn", "1", "sh", "-c", "echo $JOB_COMPLETION_INDEX"];
    let done = party.all(&words);
    assert_eq!(done[0].lines(), ["7", "7"], "what the user says counts");
}
