//! What ranks read and write.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;
use common::{mpirun, probe, shell};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::process::Stdio;
use std::time::Duration;

#[test]
fn standard_input_goes_to_rank_0_and_the_others_have_none() {
    let mut job = shell(3, "echo \"$PMI_RANK got $(wc -c)\"").input(Stdio::piped()).start();
    job.child.stdin.take().unwrap().write_all(&vec![b'x'; 3_000_000]).unwrap();
    let done = job.finish();
    assert_eq!(done.lines(), ["0 got 3000000", "1 got 0", "2 got 0"]);
}

#[test]
fn a_rank_that_does_not_read_its_input_stops_nobody() {
    let mut job = shell(2, "exec true").input(Stdio::piped()).start();
    // Whether it still takes them or not.
    let _ = job.child.stdin.take().unwrap().write_all(&vec![b'x'; 3_000_000]);
    assert_eq!(job.finish().code(), 0);
    let mut job = shell(1, "exec <&-; sleep 0.3; echo ok").input(Stdio::piped()).start();
    let _ = job.child.stdin.take().unwrap().write_all(&vec![b'x'; 1_000_000]);
    assert_eq!(job.finish().text(), "ok\n");
}

#[test]
fn standard_input_goes_to_those_who_are_to_have_it_and_each_gets_all_of_it() {
    let got = |who: &str, script: &str| {
        let words = ["-n", "3", "--stdin", who, "sh", "-c", script];
        let mut job = mpirun(words).input(Stdio::piped()).start();
        let _ = job.child.stdin.take().unwrap().write_all(&vec![b'x'; 1_000_000]);
        job.finish()
    };
    let count = "echo \"$PMI_RANK got $(wc -c)\"";
    for (who, expected) in [("all", [1, 1, 1]), ("none", [0, 0, 0]), ("1", [0, 1, 0]), ("0,2", [1, 0, 1])] {
        let lines: Vec<String> =
            (0..3).zip(expected).map(|(rank, all)| format!("{rank} got {}", all * 1_000_000)).collect();
        assert_eq!(got(who, count).lines(), lines, "{who}");
    }
    // One that closes its end is not waited for.
    let done = got("all", "[ $PMI_RANK = 1 ] && exec <&- sleep 0.1; wc -c");
    assert_eq!(done.lines(), ["1000000", "1000000"]);
    let refused = got("0,7", count);
    assert_eq!(refused.code(), 2);
    assert!(refused.verdict().ends_with("there is no rank 7; the last is 2"), "{}", refused.err);
}

#[test]
fn input_that_never_ends_does_not_keep_the_job_alive() {
    let job = shell(1, "echo ok").input(Stdio::piped()).start();
    let mut job = job;
    let _held = job.child.stdin.take();
    assert_eq!(job.finish().text(), "ok\n");
}

#[test]
fn lines_of_many_ranks_are_never_mixed_and_each_ranks_lines_keep_their_order() {
    const RANKS: u32 = 16;
    const LINES: usize = 2000;
    let done = probe(RANKS, &[&format!("copies={LINES}")]).run();
    assert_eq!(done.code(), 0);
    let mut next = [0; RANKS as usize];
    for line in done.text().lines() {
        let fields: Vec<&str> = line.trim_start_matches('<').trim_end_matches('>').split(':').collect();
        let [rank, number, filler] = fields[..] else { panic!("a mixed line: {line:?}") };
        let (rank, number): (usize, usize) = (rank.parse().unwrap(), number.parse().unwrap());
        assert_eq!(number, next[rank], "rank {rank}");
        assert!(filler.len() == number % 200 && filler.bytes().all(|byte| byte == b'x'), "{line:?}");
        next[rank] += 1;
    }
    assert_eq!(next, [LINES; RANKS as usize]);
}

#[test]
fn both_streams_to_one_pipe_keep_their_lines_whole() {
    let script = "i=0; while [ $i -lt 300 ]; do echo out-$PMI_RANK-$i-out; echo err-$PMI_RANK-$i-err >&2; \
                  i=$((i+1)); done";
    let mut job = shell(4, script);
    let (mut reader, writer) = std::io::pipe().unwrap();
    job.command.stdout(writer.try_clone().unwrap()).stderr(writer);
    let job = job.start();
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    });
    assert_eq!(job.finish().code(), 0);
    let text = reading.join().unwrap();
    assert_eq!(text.lines().count(), 4 * 300 * 2);
    let whole = |line: &str| line.get(..3) == line.get(line.len() - 3..) && line.matches('-').count() == 3;
    assert!(text.lines().all(whole));
}

#[test]
fn labels_name_the_rank_on_every_line_and_the_last_one_gets_its_newline() {
    for option in ["-l", "--tag-output"] {
        let done = mpirun([option, "-n", "2", "sh", "-c", "printf 'a\\n\\nb'; echo oops >&2"]).run();
        assert_eq!(done.lines(), ["[0] ", "[0] a", "[0] b", "[1] ", "[1] a", "[1] b"]);
        assert!(done.text().ends_with('\n'));
        let mut errors: Vec<&str> = done.err.lines().collect();
        errors.sort_unstable();
        assert_eq!(errors, ["[0] oops", "[1] oops"]);
    }
}

#[test]
fn the_bytes_of_a_lone_rank_are_not_touched() {
    let done = mpirun(["-n", "1", "head", "-c", "1000000", "/dev/zero"]).run();
    assert_eq!(done.code(), 0);
    assert_eq!(done.out, vec![0; 1_000_000]);
}

#[test]
fn a_very_long_line_arrives_whole() {
    let done = mpirun([
        "-n",
        "2",
        "sh",
        "-c",
        "if [ $PMI_RANK = 1 ]; then head -c 5000000 /dev/zero | tr '\\0' z; fi",
    ])
    .run();
    assert_eq!(done.out.iter().filter(|byte| **byte == b'z').count(), 5_000_000);
}

#[test]
fn words_before_a_crash_are_not_lost() {
    let done = shell(2, "echo last words; echo more >&2; kill -KILL $$").run();
    assert_eq!(done.code(), 137);
    assert!(done.text().contains("last words\n"));
    assert!(done.err.starts_with("more\n"), "{}", done.err);
}

/// Memory of a process in KiB.
fn resident_kib(pid: i32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_reader_that_stops_costs_no_memory_and_does_not_hold_up_an_interrupt() {
    let job = mpirun(["-n", "4", "yes", "a line that is written again and again"]).start();
    let agent = job.agent().as_raw_nonzero().get();
    std::thread::sleep(Duration::from_millis(700));
    for pid in [job.pid().as_raw_nonzero().get(), agent] {
        let kib = resident_kib(pid);
        assert!(kib < 32 << 10, "process {pid} has {kib} KiB");
    }
    job.signal(Signal::TERM);
    // The ranks are gone before anybody reads on.
    common::eventually("the ranks are gone", || (job.others().len() <= 1).then_some(()));
    let done = job.finish();
    assert_eq!(done.code(), 143);
    assert!(done.out.len() < 8 << 20);
}

#[test]
fn a_reader_that_leaves_ends_writers_as_in_a_shell() {
    let mut job = shell(2, "exec yes").start();
    let mut line = [0; 2];
    job.child.stdout.take().unwrap().read_exact(&mut line).unwrap();
    let done = job.finish();
    assert_eq!(done.code(), 141);
    assert!(done.verdict().contains("SIGPIPE"), "{}", done.err);
}

#[test]
fn a_full_disk_is_said_and_is_a_failure() {
    let mut job = shell(2, "echo x");
    job.command.stdout(std::fs::File::options().write(true).open("/dev/full").unwrap());
    let done = job.run();
    assert_eq!(done.code(), 1);
    assert!(done.verdict().contains("cannot write standard output: No space left on device"), "{}", done.err);
}

#[test]
fn a_prompt_without_newline_reaches_a_terminal_and_its_answer_the_rank() {
    use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = openpt(flags).unwrap();
    unlockpt(&ours).unwrap();
    let theirs = ioctl_tiocgptpeer(&ours, flags).unwrap();
    let mut job = shell(2, "if [ $PMI_RANK = 0 ]; then printf 'name? '; read name; echo hello $name; fi");
    let end = || Stdio::from(theirs.try_clone().unwrap());
    job.command.stdin(end()).stdout(end()).stderr(end());
    let job = job.start();
    let mut terminal = std::fs::File::from(ours);
    let mut shown = String::new();
    let mut show_until = |terminal: &mut std::fs::File, wanted: &str| {
        while !shown.contains(wanted) {
            let mut byte = [0];
            terminal.read_exact(&mut byte).unwrap();
            shown.push(char::from(byte[0]));
        }
    };
    show_until(&mut terminal, "name? ");
    terminal.write_all(b"Ann\n").unwrap();
    show_until(&mut terminal, "hello Ann");
    assert_eq!(job.finish().code(), 0);
}

#[test]
fn what_cannot_be_read_is_said_and_is_the_end_of_the_input() {
    let done = mpirun(["-n", "2", "cat"]).input(std::fs::File::open("/").unwrap().into()).run();
    assert_eq!((done.code(), done.text().as_str()), (0, ""));
    assert!(done.verdict().contains("cannot read standard input: Is a directory"), "{}", done.err);
}

/// Starts a command in the background of a terminal, as a shell does with `&`, brings it to the foreground without a word to
/// it, as `fg` does, types a line and an end of file, and passes on what it shows.
const TERMINAL: &str = r#"
import os, pty, signal, sys, time
pid, terminal = pty.fork()
if pid == 0:
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    job = os.fork()
    if job == 0:
        os.setpgid(0, 0)
        signal.signal(signal.SIGTTOU, signal.SIG_DFL)
        os.execvp(sys.argv[1], sys.argv[1:])
    time.sleep(0.3)
    os.setpgid(job, job) if os.getpgid(job) != job else None
    os.tcsetpgrp(0, job)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(job, 0)[1]))
time.sleep(0.5)
os.write(terminal, b"typed\n\4")
shown = b""
while True:
    try: part = os.read(terminal, 4096)
    except OSError: break
    if not part: break
    shown += part
os.write(1, shown)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

#[test]
fn a_job_that_comes_to_the_foreground_reads_its_terminal() {
    let through = |program: &std::ffi::OsStr| {
        let mut command = std::process::Command::new("python3");
        command.args(["-c", TERMINAL]).arg(program);
        command
    };
    let done = mpirun(["-n", "2", "cat"]).through(through).run();
    // Once as it was typed, once by the rank.
    assert_eq!((done.code(), done.text().matches("typed").count()), (0, 2), "{}{}", done.text(), done.err);
}
