//! `doctor --pairs` as ranks of a job: real processes, real roads, with a PMI server in this test as their launcher.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use selvedge_boot::{Job, NodeMap, Server};
use serde_json::Value;

/// Longer than any of these jobs takes.
const JOB_TIME_MAX: Duration = Duration::from_secs(60);

/// Starts one rank for each word of `hosts`, which is the name of the host it believes to be on. What rank 0 printed, and
/// its exit code.
fn meet(hosts: &[&str], variables: &[(&str, &str)], arguments: &[&str]) -> (Value, Option<i32>) {
    let size = hosts.len() as u32;
    let job = Job::new("pairs".into(), vec![0; hosts.len()], NodeMap::one_node(size));
    let server = Mutex::new(Server::new(job));
    let mut lines = Vec::new();
    let mut ranks = Vec::new();
    for (rank, host) in hosts.iter().enumerate() {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        lines.push(ours);
        // The one descriptor that safe code can hand to a child under a number of its choice.
        let child = Command::new(env!("CARGO_BIN_EXE_selvedge"))
            .args(["doctor", "--pairs", "--json"])
            .args(arguments)
            .env_remove("FI_PROVIDER")
            .envs([("PMI_FD", "0"), ("SELVEDGE_HOST", *host)])
            .envs([("PMI_RANK", rank.to_string()), ("PMI_SIZE", size.to_string())])
            .envs(variables.iter().copied())
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .spawn()
            .expect("it was built for this test");
        ranks.push(child);
    }
    thread::scope(|scope| {
        for rank in 0..lines.len() {
            let (server, lines) = (&server, &lines);
            scope.spawn(move || serve(server, lines, rank));
        }
        let ends: Vec<_> = ranks.iter_mut().map(|rank| end_of(rank, &lines)).collect();
        let (text, code) = ends.into_iter().next().expect("rank 0");
        (serde_json::from_slice(&text).expect("one JSON object"), code)
    })
}

fn serve(server: &Mutex<Server>, lines: &[UnixStream], rank: usize) {
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = (&lines[rank]).read(&mut bytes) {
        let mut server = server.lock().expect("no panic");
        server.handle_bytes(rank as u32, &bytes[..count]);
        while let Some(output) = server.poll_output() {
            // A rank that is gone hears nothing.
            let _ = (&lines[output.rank as usize]).write_all(&output.bytes);
        }
    }
}

fn end_of(rank: &mut Child, lines: &[UnixStream]) -> (Vec<u8>, Option<i32>) {
    let begin = Instant::now();
    let status = loop {
        match rank.try_wait().expect("our child") {
            Some(status) => break status,
            None if begin.elapsed() > JOB_TIME_MAX => {
                let _ = rank.kill();
                lines.iter().for_each(|line| drop(line.shutdown(std::net::Shutdown::Both)));
            }
            None => thread::sleep(Duration::from_millis(20)),
        }
    };
    let mut text = Vec::new();
    let output = rank.stdout.as_mut().expect("piped");
    output.read_to_end(&mut text).expect("a pipe can be read");
    (text, status.code())
}

#[test]
fn three_make_believe_hosts_measure_each_other_over_tcp() {
    let hosts = ["ant", "ant", "bee", "cat"];
    let variables = [("SELVEDGE_TRANSPORT", "tcp"), ("SELVEDGE_INTERFACE", "127.0.0.1")];
    let (meeting, code) = meet(&hosts, &variables, &[]);
    assert_eq!(
        (code, &meeting["verdict"]),
        (Some(0), &Value::from("pass")),
        "{meeting:#} (is libfabric1 installed?)"
    );
    assert_eq!(meeting["hosts"], Value::from(vec!["ant", "bee", "cat"]));
    let pairs = meeting["pairs"].as_array().expect("a list");
    assert_eq!(pairs.len(), 3);
    for pair in pairs {
        let number = |name: &str| pair[name].as_f64().unwrap_or(0.0);
        assert!(
            number("small_us") > 0.0 && number("there_mb_s") > 0.0 && number("back_mb_s") > 0.0,
            "{pair:#}"
        );
    }
}

#[test]
fn one_host_alone_fails_since_nothing_was_examined() {
    let variables = [("SELVEDGE_TRANSPORT", "tcp"), ("SELVEDGE_INTERFACE", "127.0.0.1")];
    let (meeting, code) = meet(&["ant", "ant"], &variables, &[]);
    assert_eq!((code, &meeting["verdict"]), (Some(1), &Value::from("fail")));
}

#[test]
fn hosts_without_a_road_between_them_are_told_why() {
    let variables = [("SELVEDGE_TRANSPORT", "tcp"), ("SELVEDGE_LIBFABRIC", "/nowhere")];
    let (meeting, code) = meet(&["ant", "bee"], &variables, &[]);
    assert_eq!((code, &meeting["roads"]), (Some(1), &Value::from(Vec::<String>::new())));
    assert!(meeting["refused"].to_string().contains("/nowhere"), "{meeting:#}");
}
