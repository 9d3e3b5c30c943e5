//! Several hosts behave as one: places, output, input, signals, exit codes; and hosts that cannot be had, or are lost.
//!
//! The hosts are make-believe: the command that starts an agent "there" starts it here, under another name and with an
//! environment as bare as ssh's.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Folder, Job, Running, eventually, mpirun, probe_path, read_lines};
use rustix::process::{Pid, Signal};

/// In place of ssh: `HOST COMMAND`, with nothing of our environment but what tests find processes by.
const AGENT: &str = "#!/bin/sh
host=$1; shift
exec env -i PATH=\"$PATH\" SELVEDGE_TEST_MARKER=\"$SELVEDGE_TEST_MARKER\" SELVEDGE_HOST=\"$host\" sh -c \"exec $*\"
";

/// Hosts `a`, `b` and so on, and the command that starts agents on them.
struct Hosts {
    folder: Folder,
    agent: String,
}

impl Hosts {
    fn new(test: &str) -> Hosts {
        Hosts::with(test, AGENT)
    }

    fn with(test: &str, agent: &str) -> Hosts {
        let folder = Folder::new(&format!("hosts-{test}"));
        let agent = folder.file("agent", agent, 0o755).to_str().unwrap().to_owned();
        Hosts { folder, agent }
    }

    /// `mpirun -H HOSTS --tree-width 2 WORDS`.
    fn job(&self, hosts: &str, words: &[&str]) -> Job {
        let mut all = vec!["-H", hosts, "--tree-width", "2", "--agent", &self.agent];
        all.extend(words);
        mpirun(all)
    }

    fn shell(&self, hosts: &str, script: &str) -> Job {
        self.job(hosts, &["sh", "-c", script])
    }

    fn probe(&self, hosts: &str, modes: &[&str]) -> Job {
        let mut words = vec![probe_path().to_str().unwrap().to_owned()];
        words.extend(modes.iter().map(|mode| (*mode).to_owned()));
        self.job(hosts, &words.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

/// `h0:SLOTS,h1:SLOTS` and so on.
fn list(hosts: u32, slots: u32) -> String {
    (0..hosts).map(|host| format!("h{host}:{slots}")).collect::<Vec<_>>().join(",")
}

/// The agents of a running job by host.
fn agent_on(job: &Running, host: &str) -> Pid {
    let wanted = format!("SELVEDGE_HOST={host}");
    eventually("the agent is there", || {
        job.others().into_iter().find_map(|pid| {
            let read = |name| std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
            let is_agent = read("comm") == b"selvedge-agent\n";
            let is_there = read("environ").split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes());
            (is_agent && is_there).then(|| Pid::from_raw(pid).unwrap())
        })
    })
}

#[test]
fn ranks_know_their_places_and_have_one_environment_on_all_hosts() {
    let hosts = Hosts::new("places");
    let script = "echo $PMI_RANK/$PMI_SIZE $MPI_LOCALRANKID/$MPI_LOCALNRANKS $SELVEDGE_LOCAL_RANK $SELVEDGE_HOST $SECRET";
    let done = hosts.shell("a:2,b:1,c:2", script).env("SECRET", "s3").run();
    assert_eq!((done.code(), done.err.as_str()), (0, ""));
    let expected = ["0/5 0/2 0 a s3", "1/5 1/2 1 a s3", "2/5 0/1 0 b s3", "3/5 0/2 0 c s3", "4/5 1/2 1 c s3"];
    assert_eq!(done.lines(), expected);
    let environment =
        "env | grep -v -e RANK -e PMI_ -e SELVEDGE_HOST -e SELVEDGE_STATUS | sort | tr '\\n' ' '; echo";
    let lines = hosts.shell("a,b", environment).run().lines();
    assert_eq!(lines[0].replace("a", ""), lines[1].replace("a", ""));
}

#[test]
fn what_ranks_are_told_is_on_no_command_line() {
    let hosts = Hosts::new("secrets");
    let mut job = hosts.shell("a,b", "echo ready; exec sleep 1000").env("SECRET", "s3cr3t-value").start();
    read_lines(&mut job, 2);
    for pid in job.others() {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&line).contains("s3cr3t-value"), "{pid}");
    }
    job.signal(Signal::TERM);
    assert_eq!(job.finish().code(), 143);
}

#[test]
fn hosts_without_a_rank_are_no_harm() {
    let hosts = Hosts::new("empty");
    let done = hosts.job("a,b,c,d,e", &["-n", "1", "sh", "-c", "echo $SELVEDGE_HOST"]).run();
    assert_eq!((done.code(), done.text().as_str(), done.err.as_str()), (0, "a\n", ""));
}

#[test]
fn one_host_that_is_not_this_one_is_a_job_too() {
    let hosts = Hosts::new("alone");
    let done = hosts.probe("b:3", &["card"]).run();
    assert_eq!((done.code(), done.err.as_str(), done.lines().len()), (0, "", 3));
}

#[test]
fn this_host_and_others_are_one_job() {
    let hosts = Hosts::new("mixed");
    let done = hosts.probe("localhost:2,b:2,c:2", &["card"]).run();
    assert_eq!((done.code(), done.err.as_str()), (0, ""));
    assert!(done.lines().len() == 6 && done.text().contains("on 3 node"), "{}", done.text());
}

#[test]
fn cards_are_exchanged_over_trees_of_any_depth() {
    let hosts = Hosts::new("cards");
    for (count, slots) in [(2, 1), (4, 3), (32, 1)] {
        let done = hosts.probe(&list(count, slots), &["card"]).run();
        assert_eq!((done.code(), done.err.as_str()), (0, ""));
        assert_eq!(done.lines().len() as u32, count * slots);
        assert!(done.text().contains(&format!("on {count} node: cards exchanged")), "{}", done.text());
    }
}

#[test]
fn ranks_of_two_hosts_communicate() {
    let hosts = Hosts::new("ranks");
    let program = probe_path().with_file_name("ranks");
    let done = hosts.job("a:2,b:2", &["-q", program.to_str().unwrap(), "sum"]).run();
    assert_eq!((done.code(), done.text().as_str()), (0, "4 ranks, sum 6\n"), "{}", done.err);
}

#[test]
fn exit_codes_are_those_of_one_host() {
    let hosts = Hosts::new("codes");
    let last = |how: &str| format!("[ $PMI_RANK = 3 ] && {{ {how}; }}; exec sleep 1000");
    for (how, code, said) in [
        ("exit 3", 3, "exited with code 3"),
        ("kill -SEGV $$", 139, "was killed by SIGSEGV"),
        ("kill -KILL $$", 137, "was killed by SIGKILL"),
    ] {
        let done = hosts.shell("a:2,b:2", &last(how)).run();
        assert_eq!(done.code(), code);
        let verdict = done.verdict();
        assert!(verdict.starts_with("mpirun: rank 3 on b (pid ") && verdict.contains(said), "{verdict}");
        assert!(verdict.ends_with("the other 3 ranks were ended"), "{verdict}");
    }
    let done = hosts.probe("a,b,c", &["hang", "hang", "abort=7"]).run();
    assert_eq!(done.code(), 7);
    assert!(done.verdict().contains("rank 2 on c") && done.verdict().contains("abort"), "{}", done.err);
    let done = hosts.probe("a,b,c", &["hang", "hang", "leave=0"]).run();
    assert_eq!(done.code(), 1);
    assert!(done.verdict().contains("left without MPI_Finalize"), "{}", done.err);
    let done = hosts.probe("a,b,c", &["fence", "fence", "finish=0"]).run();
    assert_eq!(done.code(), 1);
    assert!(
        done.verdict().contains("rank 2 on c") && done.verdict().contains("has left while"),
        "{}",
        done.err
    );
    let done = hosts.probe("a,b", &["hang", "garbage"]).run();
    assert_eq!(done.code(), 1);
    assert!(done.verdict().contains("malformed PMI line"), "{}", done.err);
    let done = hosts.job("a,b", &["--timeout", "0.5", "sleep", "1000"]).run();
    assert_eq!(done.code(), 124);
}

#[test]
fn a_program_that_one_host_cannot_run_runs_on_none() {
    let hosts = Hosts::new("program");
    let done = hosts.job("a,b", &["no-such-program"]).run();
    assert_eq!(done.code(), 127);
    assert!(done.verdict().contains("no-such-program") && done.verdict().contains("(on "), "{}", done.err);
    let file = hosts.folder.file("data", "text", 0o644);
    assert_eq!(hosts.job("a,b", &[file.to_str().unwrap()]).run().code(), 126);
    let words = ["-n", "1", "sleep", "1000", ":", "-n", "1", "no-such-program"];
    assert_eq!(hosts.job("a,b", &words).run().code(), 127);
}

#[test]
fn ten_megabytes_of_input_reach_rank_0_and_nobody_else() {
    let hosts = Hosts::new("input");
    let mut job = hosts.shell("a,b", "wc -c").input(Stdio::piped()).start();
    let mut input = job.child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        let chunk = [b'x'; 1 << 16];
        (0..160).for_each(|_| input.write_all(&chunk).unwrap());
    });
    let done = job.finish();
    writer.join().unwrap();
    assert_eq!(done.lines(), ["0", "10485760"]);
}

#[test]
fn lines_of_all_hosts_stay_whole_and_have_their_labels() {
    let hosts = Hosts::new("lines");
    let mut words = vec!["-l".to_owned(), probe_path().to_str().unwrap().to_owned()];
    words.push("copies=2000".into());
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = hosts.job(&list(8, 1), &words).run();
    assert_eq!((done.code(), done.err.as_str()), (0, ""));
    let lines = done.lines();
    assert_eq!(lines.len(), 8 * 2000);
    for line in lines {
        let (label, text) = line.split_once(' ').unwrap();
        let rank = label.trim_matches(['[', ']']);
        assert!(text.starts_with(&format!("<{rank}:")) && text.ends_with('>'), "{line}");
    }
}

#[test]
fn a_storm_of_exits_is_one_verdict() {
    let hosts = Hosts::new("storm");
    let done = hosts.shell(&list(4, 64), "exit 5").run();
    assert_eq!(done.code(), 5);
    assert!(done.verdict().contains("exited with code 5"), "{}", done.err);
    let done = hosts.job(&list(4, 64), &["true"]).run();
    assert_eq!((done.code(), done.err.as_str()), (0, ""));
}

#[test]
fn a_rank_that_ignores_sigterm_is_killed_wherever_it_is() {
    let hosts = Hosts::new("term");
    let script = "[ $PMI_RANK = 0 ] && { sleep 0.5; exit 3; }; trap '' TERM; while :; do sleep 0.05; done";
    let done = hosts.shell("a,b,c,d", script).run();
    assert_eq!(done.code(), 3);
    assert!(done.verdict().ends_with("(3 by SIGKILL)"), "{}", done.err);
    assert!(done.took < Duration::from_secs(10), "{:?}", done.took);
}

#[test]
fn signals_reach_ranks_on_all_hosts() {
    let hosts = Hosts::new("signals");
    let script = "trap 'echo saved; exit 0' TERM; echo ready; while :; do sleep 0.05; done";
    let mut job = hosts.shell("a,b,c,d", script).start();
    read_lines(&mut job, 4);
    job.signal(Signal::TERM);
    let done = job.finish();
    assert_eq!((done.code(), done.lines()), (0, vec!["saved".to_owned(); 4]), "{}", done.err);
}

#[test]
fn an_interrupt_before_all_hosts_are_there_ends_at_once() {
    let hosts = Hosts::with("early", "#!/bin/sh\nexec sleep 1000\n");
    let job = hosts.shell("a,b", "true").undisturbed().start();
    job.wait_for_others(2);
    job.signal(Signal::INT);
    let done = job.finish();
    assert_eq!(done.code(), 130);
    assert!(done.verdict().contains("before all hosts were there"), "{}", done.err);
    assert!(done.took < Duration::from_secs(5), "{:?}", done.took);
}

#[test]
fn what_is_printed_before_the_agent_is_skipped() {
    let banner = "#!/bin/sh\necho \"Welcome to $1\"; echo; printf 'You have mail.'\n";
    let hosts = Hosts::with("banner", &AGENT.replace("#!/bin/sh\n", banner));
    let done = hosts.shell("a,b,c", "echo $PMI_RANK").run();
    assert_eq!((done.code(), done.err.as_str()), (0, ""));
    assert_eq!(done.lines(), ["0", "1", "2"]);
}

#[test]
fn a_host_that_never_answers_is_named_with_what_it_printed() {
    let mute = "#!/bin/sh\n[ $1 = b ] && { echo 'press any key'; echo 'hm' >&2; exec sleep 1000; }\n";
    let hosts = Hosts::with("mute", &AGENT.replace("#!/bin/sh\n", mute));
    // It would have been started by c, which has answered.
    let done = hosts.job("a,c,b", &["--start-timeout", "2", "true"]).run();
    assert_eq!(done.code(), 1);
    assert_eq!(done.verdict(), "mpirun: no answer within 2 s from b");
    assert!(done.err.contains("b: hm\n") && done.err.contains("press any key"), "{}", done.err);
}

#[test]
fn a_command_that_prints_for_ever_is_given_up() {
    let hosts =
        Hosts::with("flood", &AGENT.replace("#!/bin/sh\n", "#!/bin/sh\n[ $1 = b ] && exec yes welcome\n"));
    let done = hosts.job("a,b", &["true"]).run();
    assert_eq!(done.code(), 1);
    let verdict = done.verdict();
    assert!(verdict.contains("the node agent on b") && verdict.contains("65536 bytes"), "{verdict}");
}

#[test]
fn a_command_that_fails_is_shown_with_its_words_and_its_code() {
    let failing = "#!/bin/sh\n[ $1 = c ] && { echo 'Permission denied (publickey).' >&2; exit 255; }\n";
    let hosts = Hosts::with("denied", &AGENT.replace("#!/bin/sh\n", failing));
    let done = hosts.shell("a,b,c", "true").run();
    assert_eq!(done.code(), 1);
    assert!(done.err.starts_with("c: Permission denied (publickey).\n"), "{}", done.err);
    let verdict = done.verdict();
    assert!(
        verdict.contains("the node agent on c cannot be started") && verdict.contains("code 255"),
        "{verdict}"
    );
}

#[test]
fn a_command_that_cannot_be_executed_is_named() {
    let words = ["-H", "a,b", "--agent", "/no/such/command -v", "true"];
    let done = mpirun(words).run();
    assert_eq!(done.code(), 1);
    assert!(done.verdict().contains("cannot run `/no/such/command -v a "), "{}", done.err);
    let done = mpirun(["-H", "a,b", "--agent", "ssh 'x", "true"]).run();
    assert_eq!(done.code(), 2);
}

#[test]
fn a_program_path_that_is_not_there_is_the_shells_to_name() {
    let hosts = Hosts::new("path");
    let done = hosts.job("a,b", &["--agent-program", "/no/such/mpirun", "true"]).run();
    assert_eq!(done.code(), 1);
    assert!(done.err.contains("/no/such/mpirun") && done.verdict().contains("code 127"), "{}", done.err);
}

/// Every rank has a child and one that has left its group.
const FAMILY: &str = "sleep 1001 & (setsid sleep 1002 &) ; echo ready; wait";

#[test]
fn an_agent_killed_in_the_middle_is_named_and_leaves_nothing() {
    let hosts = Hosts::new("killed");
    // Two subtrees: a with b and c below it, d with e and f.
    for (victim, lost) in [("a", "b, c"), ("f", "")] {
        let mut job = hosts.shell("a,b,c,d,e,f", FAMILY).start();
        read_lines(&mut job, 6);
        rustix::process::kill_process(agent_on(&job, victim), Signal::KILL).unwrap();
        let done = job.finish();
        assert_eq!(done.code(), 1);
        let verdict = done.verdict();
        assert!(verdict.starts_with(&format!("mpirun: the node agent on {victim} ")), "{verdict}");
        assert!(verdict.contains("signal 9"), "{verdict}");
        assert!(lost.is_empty() || verdict.contains(&format!("(and with it {lost},")), "{verdict}");
    }
}

#[test]
fn mpirun_killed_leaves_nothing_on_any_host() {
    let hosts = Hosts::new("front");
    let mut job = hosts.shell("a,b,c,d,e", FAMILY).start();
    read_lines(&mut job, 5);
    job.signal(Signal::KILL);
    job.child.wait().unwrap();
    job.assert_nothing_left();
}

#[test]
fn a_host_that_falls_silent_is_lost() {
    let hosts = Hosts::new("silent");
    let mut job =
        hosts.job("a,b,c", &["--host-timeout", "2", "sh", "-c", "echo ready; exec sleep 1000"]).start();
    read_lines(&mut job, 3);
    rustix::process::kill_process(agent_on(&job, "c"), Signal::STOP).unwrap();
    let done = job.finish();
    assert_eq!(done.code(), 1);
    assert!(done.verdict().contains("the node agent on c was silent for 2 s"), "{}", done.err);
    assert!(done.took < Duration::from_secs(15), "{:?}", done.took);
}

#[test]
fn agents_end_their_ranks_when_mpirun_falls_silent() {
    let hosts = Hosts::new("deaf");
    let mut job =
        hosts.job("a,b,c", &["--host-timeout", "2", "sh", "-c", "echo ready; exec sleep 1000"]).start();
    read_lines(&mut job, 3);
    job.signal(Signal::STOP);
    eventually("no rank is left", || {
        let is_rank = |pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.starts_with(b"sleep")
        };
        (!job.others().iter().any(is_rank)).then_some(())
    });
    job.signal(Signal::CONT);
    assert_eq!(job.finish().code(), 1);
}

#[test]
fn a_job_that_is_suspended_is_not_silent() {
    let hosts = Hosts::new("suspended");
    let script = "trap 'exit 0' USR1; echo ready; while :; do sleep 0.05; done";
    let mut job = hosts.job("a,b,c", &["--host-timeout", "1", "sh", "-c", script]).start();
    read_lines(&mut job, 3);
    job.signal(Signal::TSTP);
    std::thread::sleep(Duration::from_secs(3));
    job.signal(Signal::CONT);
    std::thread::sleep(Duration::from_secs(1));
    job.signal(Signal::USR1);
    let done = job.finish();
    assert_eq!(done.code(), 0);
    assert!(!done.err.contains("mpirun"), "{}", done.err);
}

#[test]
fn a_reader_that_goes_away_ends_writers_on_all_hosts() {
    let hosts = Hosts::new("reader");
    let mut job = hosts.job("a,b,c", &["yes"]).start();
    read_lines(&mut job, 100);
    drop(job.child.stdout.take());
    assert_eq!(job.finish().code(), 141);
}

#[test]
fn a_reader_that_stops_costs_no_memory() {
    let hosts = Hosts::new("slow");
    let mut job = hosts.job("a,b,c,d,e,f", &["yes"]).start();
    read_lines(&mut job, 1);
    let start = Instant::now();
    let mut most = 0;
    while start.elapsed() < Duration::from_secs(3) {
        for pid in job.others().into_iter().chain([job.pid().as_raw_nonzero().get()]) {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or("0 0");
            most = most.max(line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap_or(0));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(most < 64 << 10, "{most} KiB");
    job.signal(Signal::KILL);
    job.child.wait().unwrap();
    job.assert_nothing_left();
}
