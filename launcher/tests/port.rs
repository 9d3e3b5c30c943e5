//! `-pmi-port`: ranks that inherit no connection reach their launcher at a port of their host, and nobody else does.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::asking::until_said;
use common::party::say;
use common::{Done, Folder, Job, Running, eventually, listening, mpirun, probe_path, read_lines, shell};
use rustix::process::Signal;

/// What mpirun's agents have said in this file takes no longer.
const PATIENCE: Duration = Duration::from_secs(8);

/// A conversation by bash over its own connection, a line at a time.
const SPEECH: &str = "call() { exec 4<>/dev/tcp/${PMI_PORT/://}; }
ask() { printf '%s\\n' \"$@\" >&4; IFS= read -r answer <&4; }
begin() {
  call; ask cmd=initack\\ pmiid=$PMI_ID; read -r _ size <&4; read -r _ rank <&4; read -r _ debug <&4
  ask 'cmd=init pmi_version=1 pmi_subversion=1'
}
finish() { ask cmd=finalize; exec 4>&-; }
";

/// Becomes a program without any descriptor but the three that everybody has.
const CLOSING: &str = "import os, sys; os.closerange(3, 4096); os.execvp(sys.argv[1], sys.argv[1:])";

fn by_port(ranks: u32, words: &[&str]) -> Job {
    mpirun(["-pmi-port", "-n", &ranks.to_string()].iter().chain(words))
}

fn probe() -> String {
    probe_path().to_str().unwrap().to_owned()
}

fn bash(ranks: u32, script: &str) -> Job {
    by_port(ranks, &["bash", "-c", &format!("{SPEECH}{script}")])
}

/// What mpirun has said of strangers.
fn remarks(done: &Done) -> Vec<&str> {
    done.err.lines().filter_map(|line| line.strip_prefix("mpirun: ")).collect()
}

#[test]
fn ranks_find_an_address_and_a_number_and_no_descriptor() {
    let done =
        by_port(2, &["sh", "-c", "env | grep -E '^PMI_(PORT|ID|FD|RANK|SIZE)=' | sort | tr '\\n' ' '; echo"])
            .run();
    assert_eq!((done.code(), done.err.as_str()), (0, ""));
    let lines = done.lines();
    let port = lines[0].split_once("PMI_PORT=127.0.0.1:").unwrap().1.trim();
    assert!(port.parse::<u16>().is_ok(), "{port}");
    let expected = [0, 1].map(|rank| format!("PMI_ID={rank} PMI_PORT=127.0.0.1:{port} "));
    assert_eq!(lines, expected);
}

#[test]
fn wrappers_that_close_descriptors_or_start_further_processes_change_nothing() {
    let probe = probe();
    let forks = "\"$@\"; code=$?; exit $code";
    for wrapper in [
        &[][..],
        &["python3", "-c", CLOSING],
        &["sh", "-c", forks, "sh", "sh", "-c", forks, "sh"],
        &["setsid", "-w"],
        &["sh", "-c", "(sleep 0.05; exec \"$@\") & wait $!", "sh"],
        // A process whose parent has ended before it connects.
        &[
            "sh",
            "-c",
            "fifo=$TMPDIR/f$PMI_ID; mkfifo $fifo; ((sleep 0.05; \"$@\"; echo >$fifo) &); read x <$fifo; rm $fifo",
            "sh",
        ],
    ] {
        let words: Vec<&str> = wrapper.iter().copied().chain([probe.as_str(), "card"]).collect();
        let done = by_port(2, &words).run();
        assert_eq!((done.code(), done.err.as_str(), done.lines().len()), (0, "", 2), "{wrapper:?}");
    }
    let closed = mpirun(["-n", "2", "python3", "-c", CLOSING, &probe, "card"]).run();
    assert_ne!(closed.code(), 0, "without the port there is no way");
}

#[test]
fn jobs_end_as_they_do_over_an_inherited_connection() {
    let probe = probe();
    for (options, modes) in [
        (&[][..], &["abort=7", "hang"][..]),
        (&[], &["leave=3", "hang"]),
        (&[], &["leave=0", "fence"]),
        (&[], &["finish=5", "hang"]),
        (&[], &["silent=4", "hang"]),
        (&["--timeout", "1"], &["fence", "hang"]),
    ] {
        let words: Vec<&str> = options.iter().chain(&[probe.as_str()]).chain(modes).copied().collect();
        let [inherited, by_port] = [&["-n", "2"][..], &["-pmi-port", "-n", "2"]]
            .map(|first| mpirun(first.iter().chain(&words)).run());
        // Numbers of processes are never the same.
        let told = |done: &Done| done.verdict().replace(|letter: char| letter.is_ascii_digit(), "");
        assert_eq!((by_port.code(), told(&by_port)), (inherited.code(), told(&inherited)), "{modes:?}");
    }
}

#[test]
fn a_script_of_several_programs_connects_again_for_each() {
    let done = by_port(2, &["sh", "-c", "\"$0\" card && \"$0\" card && \"$0\" fence", &probe()]).run();
    assert_eq!((done.code(), done.err.as_str(), done.lines().len()), (0, "", 4));
}

#[test]
fn spawned_ranks_connect_at_the_same_port_and_are_taken_for_themselves() {
    // All that speak are rank 0 of their worlds.
    let child = format!("{SPEECH}begin; echo world $PMI_SPAWNED $rank $size; finish").replace('\n', ";");
    let child = child.replace("{;", "{").replace(";;", ";");
    let script = "begin
        ask mcmd=spawn nprocs=1 execname=bash totspawns=1 spawnssofar=1 argcnt=2 arg1=-c \"arg2=$CHILD\" preput_num=0 \
            info_num=0 endcmd
        echo $answer; finish";
    let done = bash(1, script).env("CHILD", &child).run();
    assert_eq!(done.code(), 0, "{}", done.err);
    assert_eq!(done.lines(), ["cmd=spawn_result rc=0 errcodes=0", "world 1 rank=0 size=1"]);
}

#[test]
fn names_are_published_and_looked_up_over_the_port() {
    let script = "begin
        [ $PMI_ID = 1 ] || { ask 'cmd=publish_name service=s port=p#1'; echo $answer; }; ask cmd=barrier_in
        [ $PMI_ID = 0 ] || { ask 'cmd=lookup_name service=s'; echo $answer
          ask 'cmd=unpublish_name service=s'; ask 'cmd=lookup_name service=s'; echo ${answer%% msg*}; }
        ask cmd=barrier_in; finish";
    let done = bash(2, script).run();
    let expected = ["cmd=lookup_result rc=0 port=p#1", "cmd=lookup_result rc=1", "cmd=publish_result rc=0"];
    assert_eq!((done.code(), done.lines()), (0, expected.map(str::to_owned).to_vec()), "{}", done.err);
}

#[test]
fn who_waits_for_whom_is_said_of_ranks_at_the_port_and_behind_wrappers() {
    let job = by_port(2, &[&probe(), "fence", "hang"]).start();
    let told = until_said(&job, &["held up by: rank 1 on ", "1 rank waits for it"]);
    assert!(told.text.contains("fence of all ranks"), "{}", told.text);
    job.signal(Signal::TERM);
    assert!(job.finish().verdict().contains("stopped by SIGTERM (termination)"));

    // Ours say more than their fences, by a descriptor that this wrapper closes. It is not mistaken for another.
    let ranks = probe_path().with_file_name("ranks");
    let mut job =
        by_port(2, &["python3", "-c", CLOSING, ranks.to_str().unwrap(), "hang", "1", "sleep"]).start();
    read_lines(&mut job, 2);
    let told = until_said(&job, &["a wrapper has closed"]);
    assert_eq!(told.text.matches("says nothing of itself").count(), 2, "{}", told.text);
    job.signal(Signal::TERM);
    assert_eq!(job.finish().code(), 143);
}

#[test]
fn what_contradicts_it_is_refused() {
    for words in [["-pmi-port", "--pmi", "x", "true"], ["--pmi", "2", "--pmi-port", "true"]] {
        let done = mpirun(words).run();
        assert_eq!(done.code(), 2);
        assert!(done.verdict().contains("-pmi-port is a way of PMI-1"), "{}", done.err);
    }
}

/// A job of two whose ranks exchange cards once they may, and the port where they will connect.
fn waiting(test: &str) -> (Folder, Running, SocketAddr) {
    let folder = Folder::new(&format!("port-{test}"));
    let script = "echo $PMI_PORT >port.$PMI_ID; mv port.$PMI_ID port; until [ -e go ]; do sleep 0.01; done; exec \"$0\" card";
    let job = by_port(2, &["sh", "-c", script, &probe()]).dir(&folder.0).start();
    let port = eventually("the port is known", || {
        std::fs::read_to_string(folder.0.join("port")).ok()?.trim().parse().ok()
    });
    (folder, job, port)
}

/// The ranks go on, and the job ends as it should.
fn ends_well(folder: &Folder, job: Running) -> Done {
    folder.file("go", "", 0o644);
    let done = job.finish();
    assert_eq!((done.code(), done.lines().len()), (0, 2), "{}", done.err);
    done
}

#[test]
fn a_stranger_of_the_same_user_who_comes_first_is_not_heard() {
    let (folder, job, port) = waiting("stranger");
    assert_eq!(
        listening(&job),
        [format!("tcp 0100007F:{:04X}", port.port())],
        "on the loopback interface alone"
    );
    let noise = [0xff; 4000];
    for bytes in
        [&b"cmd=initack pmiid=0\n"[..], b"HYD\0\0\0\0\0\0\0\0\0", b"GET / HTTP/1.1\r\n\r\n", b"", &noise]
    {
        assert_eq!(say(port, bytes, PATIENCE), b"", "{}", bytes.escape_ascii());
    }
    let silent: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(port).unwrap()).collect();
    let done = ends_well(&folder, job);
    drop(silent);
    let said = remarks(&done);
    assert!(said[0].starts_with("127.0.0.1:") && said[0].contains("no process of a rank"), "{said:?}");
    // Some have gone before they were looked at.
    assert!(said.len() <= 3 && said[said.len() - 1].ends_with("more were turned away"), "{said:?}");
}

#[test]
fn another_user_is_not_heard() {
    assert!(
        rustix::process::geteuid().is_root(),
        "to be another user for a moment this test needs root; run it as root"
    );
    let (folder, job, port) = waiting("user");
    let script = "import socket, sys\n\
        s = socket.create_connection((\"127.0.0.1\", int(sys.argv[1])), 8)\n\
        try: s.sendall(b'cmd=initack pmiid=0\\n'); print(len(s.recv(4096)))\n\
        except (BrokenPipeError, ConnectionResetError): print(0)\n";
    let mut command = Command::new("python3");
    command.args(["-c", script, &port.port().to_string()]).uid(65534).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let stranger = Job::of(command).run();
    assert_eq!((stranger.code(), stranger.text().as_str()), (0, "0\n"), "{}", stranger.err);
    let done = ends_well(&folder, job);
    assert!(remarks(&done)[0].contains("it is a process of user 65534"), "{}", done.err);
}

#[test]
fn a_rank_that_says_another_ranks_number_is_turned_away_and_may_come_as_itself() {
    // Rank 0 comes when the other has tried to take its place.
    let script = "if [ $PMI_ID = 1 ]; then
          call; printf 'cmd=initack pmiid=0\\n' >&4; cat <&4; exec 4>&-; >$TMPDIR/tried
        else
          until [ -e $TMPDIR/tried ]; do sleep 0.01; done; rm $TMPDIR/tried
        fi
        begin; echo $rank; ask cmd=barrier_in; finish";
    let done = bash(2, script).run();
    assert_eq!(
        (done.code(), done.lines()),
        (0, vec!["rank=0".to_owned(), "rank=1".to_owned()]),
        "{}",
        done.err
    );
    let said = remarks(&done);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].ends_with("at the port of -pmi-port it is a process of rank 1 and says that it is 0"),
        "{said:?}"
    );
}

#[test]
fn garbage_a_twin_and_silence_of_a_ranks_own_processes_end_nothing() {
    let script =
        "for words in 'HYD.........' 'cmd=get_maxes' 'cmd=initack pmiid=x' 'cmd=initack pmiid=99'; do
          call; printf '%s\\n' \"$words\" >&4; cat <&4; exec 4>&-
        done
        head -c 4000 /dev/zero >/dev/tcp/${PMI_PORT/://}
        exec 5<>/dev/tcp/${PMI_PORT/://}
        begin; echo $rank
        exec 6<>/dev/tcp/${PMI_PORT/://}; printf 'cmd=initack pmiid=%s\\n' $PMI_ID >&6; cat <&6
        cat <&5
        ask cmd=barrier_in; finish";
    let done = bash(2, script).run();
    assert_eq!(
        (done.code(), done.lines()),
        (0, vec!["rank=0".to_owned(), "rank=1".to_owned()]),
        "{}",
        done.err
    );
    let said = remarks(&done);
    for sort in [
        "and does not say so",
        "which has its connection already",
        "did not say within 5 s",
        "more were turned away",
    ] {
        assert_eq!(said.iter().filter(|line| line.contains(sort)).count(), 1, "{sort}: {said:?}");
    }
}

#[test]
fn the_port_is_gone_with_the_job() {
    let (_folder, job, port) = waiting("gone");
    job.signal(Signal::TERM);
    assert_eq!(job.finish().code(), 143);
    assert!(TcpStream::connect(port).is_err());
    let done = shell(1, "env | grep -c PMI_PORT").run();
    assert_eq!(done.lines(), ["0"], "and nobody is offered one unasked");
}
