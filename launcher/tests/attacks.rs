//! What strangers can do to a job: the attacks that other launchers fall for, and more, against ours. Each job runs to its
//! right end, and what the stranger got is held against what he may get. `docs/SECURITY.md` has the list.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::party::{Eavesdropper, Party, TREASURE, hear, holds, listens, say};
use common::{Done, Folder, Job, Running, eventually, listening, mpirun, read_lines, shell};
use proptest::prelude::*;
use rustix::process::Signal;

/// What mpirun has said in this file takes no longer.
const SOON: Duration = Duration::from_secs(2);
/// More than a comer may take.
const PATIENCE: Duration = Duration::from_secs(8);
/// hydra's greeting of a proxy: who sends it to MPICH's mpiexec is sent the job's environment.
const TWELVE_BYTES: &[u8] = b"HYD\0\0\0\0\0\0\0\0\0";
const GREETING: &[u8] = b"selvedge-join 1\n";
const WELCOME: &[u8] = b"selvedge-join 1 welcome\n";

const SCRIPT: &[&str] = &["-ppn", "1", "sh", "-c", "echo $PMI_RANK $TREASURE"];

/// A first host that waits for one more.
fn first(test: &str) -> (Party, Running) {
    let party = Party::new(test, 2);
    let first = party.first(SCRIPT);
    (party, first)
}

/// The other host comes, and the job ends as it should. What mpirun has said.
fn ends_well(party: &Party, first: Running) -> String {
    let other = party.host(1, &["true"]).start();
    let done = first.finish();
    let lines = [0, 1].map(|rank| format!("{rank} {TREASURE}"));
    assert_eq!((done.code(), done.lines()), (0, lines.to_vec()), "{}", done.err);
    assert_eq!(other.finish().code(), 0);
    done.err
}

#[test]
fn a_stranger_who_comes_first_gets_nothing() {
    let (party, first) = first("first");
    assert_eq!(say(party.address, TWELVE_BYTES, PATIENCE), b"");
    let said = ends_well(&party, first);
    assert!(
        said.starts_with("mpirun: 127.0.0.1:") && said.contains("was turned away: it is no mpirun"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn twelve_bytes_from_many_end_nothing() {
    let (party, first) = first("twelve");
    for length in 0..=TWELVE_BYTES.len() {
        let mut stranger = TcpStream::connect(party.address).unwrap();
        stranger.write_all(&TWELVE_BYTES[..length]).unwrap();
    }
    for _ in 0..30 {
        assert_eq!(say(party.address, TWELVE_BYTES, PATIENCE), b"");
    }
    let said = ends_well(&party, first);
    assert!(said.lines().count() <= 3, "one line for each sort of trouble, and one for the rest: {said}");
    assert!(said.contains("more were turned away"), "{said}");
}

#[test]
fn garbage_of_all_kinds_gets_nothing_or_one_word() {
    let (party, first) = first("garbage");
    let noise: Vec<u8> = (0..5000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for (bytes, answer) in [
        (noise.clone(), &b""[..]),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), b""),
        (vec![0; 100], b""),
        (vec![0xff; 100], b""),
        (b"selvedge-join \n".to_vec(), b""),
        (b"selvedge-join 2\n".to_vec(), b"selvedge-join 1 version\n"),
        ([GREETING, &noise[..48]].concat(), b"selvedge-join 1 secret\n"),
        ([GREETING, &[0; 48]].concat(), b"selvedge-join 1 secret\n"),
        ([GREETING, &noise].concat(), b"selvedge-join 1 secret\n"),
        // Not finished: the time is over, without a word.
        ([GREETING, &noise[..47]].concat(), b""),
    ] {
        let got = say(party.address, &bytes, PATIENCE);
        // With bytes of his unread the stranger's connection may be reset before he has read the word.
        assert!(got == answer || (bytes.len() > 64 && got.is_empty()), "{}", got.escape_ascii());
    }
    ends_well(&party, first);
}

#[test]
fn silence_in_any_number_keeps_nobody_out() {
    let (party, first) = first("silence");
    let start = Instant::now();
    let crowd: Vec<TcpStream> = (0..200)
        .map(|number| {
            let mut stranger = TcpStream::connect(party.address).unwrap();
            stranger.write_all(&GREETING[..number % 3]).unwrap();
            stranger
        })
        .collect();
    let said = ends_well(&party, first);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert!(said.contains("too many have come at once"), "{said}");
    for mut stranger in crowd {
        stranger.set_read_timeout(Some(SOON)).unwrap();
        assert_eq!(hear(&mut stranger), b"");
    }
}

#[test]
fn one_who_is_silent_leaves_after_five_seconds() {
    let (party, first) = first("mute");
    let start = Instant::now();
    assert_eq!(say(party.address, b"selvedge", PATIENCE), b"");
    assert!((4..8).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    let said = ends_well(&party, first);
    assert!(said.contains("it did not finish its greeting within 5 s"), "{said}");
}

#[test]
fn a_recording_of_a_joiner_gets_noise_and_no_place() {
    // A joiner is recorded on its way into a job...
    let party = Party::new("recorded", 2);
    let first = party.first(SCRIPT);
    let ear = Eavesdropper::before(party.address);
    let other = party.host_at(ear.address, 1, &["true"]).start();
    assert_eq!((first.finish().code(), other.finish().code()), (0, 0));
    let [recorded, _] = ear.said();
    // ... and played back to the next with the same secret: at once, in two steps, and without an end.
    let first = party.first(SCRIPT);
    let got = say(party.address, &recorded, PATIENCE);
    assert!(got.starts_with(WELCOME) || got.is_empty(), "{}", got.escape_ascii());
    assert!(got.len() <= WELCOME.len() + 48, "{} bytes", got.len());
    let mut stranger = TcpStream::connect(party.address).unwrap();
    stranger.set_read_timeout(Some(PATIENCE)).unwrap();
    stranger.write_all(&recorded[..64]).unwrap();
    let mut answer = [0; 24 + 48];
    stranger.read_exact(&mut answer).unwrap();
    assert!(answer.starts_with(WELCOME));
    stranger.write_all(&recorded[64..]).unwrap();
    assert_eq!(hear(&mut stranger), b"", "the welcome is all there is");
    assert_eq!(say(party.address, &recorded[..64], PATIENCE).len(), WELCOME.len() + 48);
    let said = ends_well(&party, first);
    assert!(said.contains("it could not prove that it has the secret"), "{said}");
    assert!(said.contains("it did not prove within 5 s that it has the secret"), "{said}");
}

#[test]
fn a_stranger_on_the_wire_can_end_a_join_and_change_nothing() {
    // Everything a joiner and the first host say is bent at one place; then the connection is of no use to either.
    for place in [3, 20, 70, 100] {
        let party = Party::new(&format!("bent-{place}"), 2);
        let first = party.first(SCRIPT);
        let bender = Bender::before(party.address, place);
        let words = ["--start-timeout", "1", "true"];
        let bent = party.host_at(bender, 1, &words).run();
        assert_eq!(bent.code(), 1, "{}", bent.err);
        assert!(bent.err.contains("not admitted within 1 s"), "{}", bent.err);
        ends_well(&party, first);
    }
}

/// Somebody on the wire who bends one byte of what each connection's joiner says.
struct Bender;

impl Bender {
    fn before(first: std::net::SocketAddr, place: usize) -> std::net::SocketAddr {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            while let Ok((mut joiner, _)) = listener.accept() {
                let Ok(mut to) = TcpStream::connect(first) else { return };
                let (mut back, mut from) = (joiner.try_clone().unwrap(), to.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut from, &mut back));
                std::thread::spawn(move || {
                    let mut seen = 0;
                    let mut chunk = [0; 4096];
                    while let Ok(got @ 1..) = joiner.read(&mut chunk) {
                        if (seen..seen + got).contains(&place) {
                            chunk[place - seen] ^= 0x10;
                        }
                        seen += got;
                        if to.write_all(&chunk[..got]).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        address
    }
}

#[test]
fn one_who_pretends_to_be_the_first_host_learns_nothing() {
    let party = Party::new("false", 2);
    let listener = std::net::TcpListener::bind(party.address).unwrap();
    let trap = std::thread::spawn(move || {
        let mut got = Vec::new();
        // A word, the right word with noise after it, silence, an end.
        for answer in [&b"selvedge-join 1 secret\n"[..], &[WELCOME, &[7; 48]].concat(), &[9; 4000], b""] {
            let (mut joiner, _) = listener.accept().unwrap();
            joiner.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            let mut asked = [0; 64];
            joiner.read_exact(&mut asked).unwrap();
            joiner.write_all(answer).unwrap();
            got.extend(asked);
            got.extend(hear(&mut joiner));
        }
        got
    });
    let done = party.host(1, &["--start-timeout", "4", "true"]).env("TREASURE", TREASURE).run();
    assert_eq!(done.code(), 1);
    assert!(done.err.contains("bids us welcome and does not have our secret; who is that?"), "{}", done.err);
    assert!(
        done.err.contains("there is no mpirun --join; is the port right?") || done.err.contains("says that")
    );
    let got = trap.join().unwrap();
    assert_eq!(got.len(), 4 * 64, "a greeting and a key each time, and not a byte more");
    assert!(!holds(&got, TREASURE));
}

#[test]
fn the_door_is_shut_when_all_are_there() {
    let party = Party::new("shut", 2);
    let mut first = party.first(&["-ppn", "1", "sh", "-c", "echo ready; exec sleep 1000"]);
    let other = party.host(1, &["true"]).start();
    read_lines(&mut first, 2);
    assert!(!listens(party.address));
    assert!(TcpStream::connect(party.address).is_err());
    for job in [&first, &other] {
        assert_eq!(listening(job), Vec::<String>::new(), "not even a door to somewhere else");
    }
    first.signal(Signal::INT);
    assert_eq!([first, other].map(|job| job.finish().code()), [130, 130]);
}

#[test]
fn the_door_is_open_on_one_address_only() {
    let (party, first) = first("address");
    let port = party.address.port();
    assert!(TcpStream::connect(("127.0.0.2", port)).is_err());
    assert!(TcpStream::connect(("::1", port)).is_err());
    let doors = listening(&first);
    assert_eq!(doors, [format!("tcp 0100007F:{port:04X}")]);
    ends_well(&party, first);
}

#[test]
fn on_one_host_nothing_listens_at_all() {
    let mut job = shell(2, "env | grep -c -e PMI_PORT -e PMI_ID -e PMIX_; echo ready; exec sleep 1000")
        .undisturbed()
        .start();
    read_lines(&mut job, 4);
    assert_eq!(listening(&job), Vec::<String>::new());
    job.signal(Signal::INT);
    let done = job.finish();
    assert_eq!(done.code(), 130);
}

#[test]
fn ranks_are_offered_no_port_unless_somebody_asks_for_one() {
    let done = shell(2, "env | grep -e ^PMI_PORT= -e ^PMI_ID= ; echo $PMI_FD | grep -c .").run();
    assert_eq!((done.code(), done.lines()), (0, vec!["1".to_owned(); 2]), "{}", done.err);
}

/// The asking socket of a job: its abstract name is in everybody's table.
fn desk(job: &Running) -> SocketAddr {
    let pid = job.pid().as_raw_nonzero().get();
    let name = eventually("the asking socket is there", || {
        let table = std::fs::read_to_string("/proc/net/unix").unwrap();
        let names = table.lines().filter_map(|line| line.split_once('@').map(|(_, name)| name.to_owned()));
        names.into_iter().find(|name| name.starts_with("selvedge/") && name.contains(&format!("-{pid}-")))
    });
    SocketAddr::from_abstract_name(name).unwrap()
}

fn sleeping_job() -> Running {
    let mut job = shell(2, "echo ready; exec sleep 1000").undisturbed().start();
    read_lines(&mut job, 2);
    job
}

fn interrupted(job: Running) -> Done {
    job.signal(Signal::INT);
    let done = job.finish();
    assert_eq!(done.code(), 130, "{}", done.err);
    done
}

#[test]
fn questions_that_are_garbage_silence_or_a_flood_stop_nobody_and_answer_nothing() {
    let job = sleeping_job();
    let desk = desk(&job);
    let ask = |bytes: &[u8]| {
        let mut stream = UnixStream::connect_addr(&desk).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        answer
    };
    for garbage in [&b"\n"[..], b"who\n", TWELVE_BYTES, &[0; 4000], &[0xff; 4000], b"where where\n"] {
        assert_eq!(ask(garbage), b"", "{}", garbage.escape_ascii());
    }
    let silent: Vec<UnixStream> = (0..100).map(|_| UnixStream::connect_addr(&desk).unwrap()).collect();
    // At most eight are heard at a time: the others were shown out.
    let is_out = |stream: &UnixStream| {
        stream.set_nonblocking(true).unwrap();
        matches!(rustix::io::read(stream, &mut [0; 1]), Ok(0) | Err(rustix::io::Errno::CONNRESET))
    };
    eventually("most are shown out", || {
        (silent.iter().filter(|stream| is_out(stream)).count() >= 92).then_some(())
    });
    std::thread::sleep(Duration::from_secs(6));
    assert!(silent.iter().all(is_out), "after five seconds all are");
    let answer = ask(b"job\n");
    assert!(holds(&answer, "\"ranks\":2"), "who asks properly is answered: {}", answer.escape_ascii());
    interrupted(job);
}

#[test]
fn another_user_may_not_ask() {
    let job = sleeping_job();
    let desk = desk(&job);
    let name = desk.as_abstract_name().unwrap().to_owned();
    assert!(
        rustix::process::geteuid().is_root(),
        "to be another user for a moment this test needs root; run it as root"
    );
    let script = "import socket, sys\n\
        s = socket.socket(socket.AF_UNIX)\n\
        s.settimeout(8)\n\
        s.connect(b'\\0' + sys.argv[1].encode())\n\
        try: s.sendall(b'job\\n'); print(len(s.recv(4096)))\n\
        except (BrokenPipeError, ConnectionResetError): print(0)\n";
    let mut command = Command::new("python3");
    command.args(["-c", script, std::str::from_utf8(&name).unwrap()]).uid(65534).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let done = Job::of(command).run();
    assert_eq!((done.code(), done.text().as_str()), (0, "0\n"), "{}", done.err);
    interrupted(job);
}

/// What agents say first; its number is that of their protocol.
fn greeting() -> String {
    let mut agent = Command::new(env!("CARGO_BIN_EXE_mpirun"));
    let output = agent.arg("--selvedge-node-agent").stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.starts_with("\nselvedge-node-agent ") && said.len() < 30, "{said}");
    said
}

#[test]
fn an_agent_that_hears_garbage_ends_with_a_sentence() {
    for garbage in
        [&b"\n"[..], TWELVE_BYTES, &[0xff; 64], &[0; 64], b"\x01\0\0\0\0\0\0\0\xfe", b"\x05\0\0\0\0\0\0\0"]
    {
        let mut agent = Command::new(env!("CARGO_BIN_EXE_mpirun"))
            .arg("--selvedge-node-agent")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        agent.stdin.take().unwrap().write_all(garbage).unwrap();
        let output = agent.wait_with_output().unwrap();
        assert_eq!(output.stdout, greeting().as_bytes(), "a greeting, and nothing about anything");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code().is_some_and(|code| code <= 1), "{}: {said}", garbage.escape_ascii());
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[test]
fn an_agent_that_says_garbage_is_a_host_that_is_lost() {
    let folder = Folder::new("attacks-agent");
    for (number, garbage) in
        ["\\377\\377\\377\\377\\377\\377\\377\\377", "\\1\\0\\0\\0\\0\\0\\0\\0\\376", "GET / HTTP/1.1"]
            .into_iter()
            .enumerate()
    {
        let greeting = greeting().replace('\n', "\\n");
        let text = format!("#!/bin/sh\nprintf '{greeting}{garbage}'\nexec sleep 1000\n");
        let agent = folder.file(&format!("agent{number}"), &text, 0o755);
        let words = ["-H", "a,b", "--agent", agent.to_str().unwrap(), "--start-timeout", "3", "true"];
        let done = mpirun(words).env("TREASURE", TREASURE).run();
        assert_eq!(done.code(), 1);
        let said = done.verdict();
        assert!(said.contains("no frame") || said.contains("no answer within 3 s"), "{said}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]
    /// Many strangers at once, each with something of his own, cut anywhere.
    #[test]
    fn no_crowd_of_strangers_keeps_a_job_from_its_end(
        crowd in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..200), 0usize..80, any::<bool>()), 1..30)
    ) {
        let (party, first) = first("crowd");
        let strangers: Vec<TcpStream> = crowd
            .into_iter()
            .map(|(noise, cut, greets)| {
                let mut stranger = TcpStream::connect(party.address).unwrap();
                let mut bytes = if greets { [GREETING, &noise].concat() } else { noise };
                bytes.truncate(cut);
                let _ = stranger.write_all(&bytes);
                stranger
            })
            .collect();
        ends_well(&party, first);
        for mut stranger in strangers {
            stranger.set_read_timeout(Some(SOON)).unwrap();
            let got = hear(&mut stranger);
            prop_assert!(got.is_empty() || got == b"selvedge-join 1 secret\n" || got == b"selvedge-join 1 version\n");
        }
    }
}
