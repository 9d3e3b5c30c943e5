//! Client and server talk to each other over real sockets.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what should happen")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;

use proptest::strategy::Strategy as _;
use selvedge_boot::{Boot, BootError, Event, Job, KEY_BYTES_MAX, NodeMap, Server, VALUE_BYTES_MAX};

/// Runs `rank_main` on `size` ranks, each a thread, against one server; gives back the server's events.
fn job(size: u32, rank_main: impl Fn(Boot) + Sync) -> Vec<Event> {
    job_on(NodeMap::one_node(size), rank_main)
}

fn job_on(map: NodeMap, rank_main: impl Fn(Boot) + Sync) -> Vec<Event> {
    let size = map.size() as u32;
    let mut server = Server::new(Job::new("job".into(), vec![0; size as usize], map));
    let (ours, theirs): (Vec<_>, Vec<_>) = (0..size).map(|_| UnixStream::pair().unwrap()).unzip();
    let mut events = Vec::new();
    let (tell, told) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        for (rank, stream) in (0..).zip(theirs) {
            let rank_main = &rank_main;
            scope.spawn(move || rank_main(Boot::over(stream, rank, size).unwrap()));
        }
        for (rank, stream) in (0..).zip(&ours) {
            let tell = tell.clone();
            scope.spawn(move || {
                let mut chunk = [0; 700];
                loop {
                    let got = (&*stream).read(&mut chunk).unwrap_or(0);
                    tell.send((rank, chunk[..got].to_vec())).unwrap();
                    if got == 0 {
                        return;
                    }
                }
            });
        }
        drop(tell);
        for (rank, bytes) in told {
            if bytes.is_empty() {
                server.handle_eof(rank);
            } else {
                server.handle_bytes(rank, &bytes);
            }
            while let Some(output) = server.poll_output() {
                // A rank that has aborted does not read its answers any more.
                let _ = (&ours[output.rank as usize]).write_all(&output.bytes);
            }
            events.extend(std::iter::from_fn(|| server.poll_event()));
        }
    });
    events
}

fn card(rank: u32, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at as u32 * 31 + rank) as u8).collect()
}

#[test]
fn what_is_put_before_a_fence_is_got_after_it_by_everybody() {
    for size in [1, 2, 3, 5, 8] {
        let events = job(size, |mut boot| {
            assert_eq!(boot.size(), size);
            assert_eq!(boot.job(), "job");
            assert_eq!(boot.map().unwrap().nodes(), 1);
            let bytes = [0, 1, 700, 5000];
            for bytes in bytes {
                boot.put(&format!("card-{}-{bytes}", boot.rank()), &card(boot.rank(), bytes)).unwrap();
            }
            boot.fence().unwrap();
            for rank in 0..size {
                for bytes in bytes {
                    let got = boot.get(&format!("card-{rank}-{bytes}")).unwrap();
                    assert_eq!(got.as_deref(), Some(&card(rank, bytes)[..]));
                }
            }
            assert_eq!(boot.get("nobody").unwrap(), None);
            boot.fence().unwrap();
            boot.finalize().unwrap();
        });
        let finalized = events.iter().filter(|event| matches!(event, Event::Finalized { .. })).count();
        assert_eq!((finalized, events.len()), (size as usize, size as usize + 2), "{events:?}");
    }
}

#[test]
fn the_largest_value_with_the_longest_key_fits_and_one_byte_more_is_refused() {
    job(1, |mut boot| {
        let key = "k".repeat(KEY_BYTES_MAX);
        let value = card(0, VALUE_BYTES_MAX);
        boot.put(&key, &value).unwrap();
        assert_eq!(boot.get(&key).unwrap(), Some(value));
        assert!(matches!(boot.put("k", &card(0, VALUE_BYTES_MAX + 1)), Err(BootError::Value { .. })));
        for key in ["", "a b", "a=b", "PMI_x", "ä", &"k".repeat(KEY_BYTES_MAX + 1)] {
            assert!(matches!(boot.put(key, b""), Err(BootError::Key { .. })), "{key:?}");
        }
        boot.finalize().unwrap();
    });
}

#[test]
fn a_mapping_too_long_for_other_clients_is_found_by_ours() {
    // Ranks strewn over nodes without any order.
    let size = 300;
    let text: Vec<String> = (0..size).map(|rank| ((rank * rank * 5 + rank / 3) % 13).to_string()).collect();
    let map = NodeMap::parse(&format!("(vector,{})", text.join(",")), size).unwrap();
    assert!(map.to_string().len() > 1023);
    let mut server = Server::new(Job::new("job".into(), vec![0; size as usize], map.clone()));
    server.handle_bytes(0, b"cmd=get kvsname=job key=PMI_process_mapping\n");
    assert_eq!(server.poll_output().unwrap().bytes, b"cmd=get_result rc=1 msg=key_not_found\n");
    job_on(map.clone(), |boot| {
        assert_eq!(boot.map(), Some(&map));
        boot.finalize().unwrap();
    });
}

#[test]
fn an_abort_arrives_with_code_and_message_however_long_it_is() {
    let events = job(2, |mut boot| {
        if boot.rank() == 1 {
            boot.abort(7, &"no bread\n".repeat(1000));
        } else {
            boot.finalize().unwrap();
        }
    });
    let abort = events.iter().find_map(|event| match event {
        Event::Abort { rank, code, message } => Some((*rank, *code, message.clone())),
        _ => None,
    });
    let (rank, code, message) = abort.unwrap();
    assert_eq!((rank, code), (1, 7));
    assert!(message.starts_with("no bread no bread"));
}

#[test]
fn a_job_of_one_needs_nobody() {
    let none = |_: &str| None;
    let mut boot = Boot::from_env(none, |_| unreachable!("there is no descriptor to duplicate")).unwrap();
    assert_eq!((boot.rank(), boot.size()), (0, 1));
    boot.put("k", b"v").unwrap();
    boot.fence().unwrap();
    assert_eq!(boot.get("k").unwrap().as_deref(), Some(&b"v"[..]));
    boot.finalize().unwrap();
}

#[test]
fn a_descriptor_and_a_port_both_lead_to_the_launcher() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serve = |mut stream: Box<dyn ReadWrite>| {
        let mut server = Server::new(Job::new("job".into(), vec![0], NodeMap::one_node(1)));
        let mut chunk = [0; 100];
        loop {
            match stream.read(&mut chunk).unwrap() {
                0 => return,
                got => server.handle_bytes(0, &chunk[..got]),
            }
            while let Some(output) = server.poll_output() {
                stream.write_all(&output.bytes).unwrap();
            }
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| serve(Box::new(ours)));
        scope.spawn(|| serve(Box::new(listener.accept().unwrap().0)));
        let by_fd = [("PMI_FD", "7"), ("PMI_RANK", "0"), ("PMI_SIZE", "1")];
        let by_port = [("PMI_PORT", address.as_str()), ("PMI_ID", "0")];
        for vars in [&by_fd[..], &by_port] {
            let env =
                |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string());
            let boot = Boot::from_env(env, |_| Ok(theirs.try_clone()?.into())).unwrap();
            assert_eq!((boot.rank(), boot.size(), boot.job()), (0, 1, "job"));
            boot.finalize().unwrap();
        }
        drop(theirs);
    });
}

trait ReadWrite: Read + Write + Send {}
impl<T: Read + Write + Send> ReadWrite for T {}

/// What a client makes of a server that answers its first request with `reply` and then closes.
fn first_answer(reply: &[u8]) -> BootError {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    ours.write_all(reply).unwrap();
    ours.shutdown(std::net::Shutdown::Write).unwrap();
    Boot::over(theirs, 0, 1).unwrap_err()
}

#[test]
fn a_server_that_talks_nonsense_is_an_error_and_never_a_hang() {
    assert!(matches!(first_answer(b""), BootError::Lost { during: "init", .. }));
    assert!(matches!(first_answer(b"cmd=response_to"), BootError::Lost { .. }));
    assert!(matches!(first_answer(b"\xff\xfe\n"), BootError::Malformed { .. }));
    assert!(matches!(first_answer(b"HTTP/1.1 400 Bad Request\n"), BootError::Malformed { .. }));
    assert!(matches!(first_answer(b"cmd=finalize_ack\n"), BootError::Unexpected { .. }));
    assert!(matches!(first_answer(b"cmd=response_to_init rc=3\n"), BootError::Refused { rc: 3, .. }));
    assert!(matches!(first_answer(&[b'x'; 100_000]), BootError::Malformed { .. }));
}

proptest::proptest! {
    #[test]
    fn whatever_a_server_answers_the_client_neither_panics_nor_hangs(
        replies in proptest::collection::vec(
            proptest::prop_oneof![
                proptest::sample::select(&[
                    "cmd=response_to_init pmi_version=1 pmi_subversion=1 rc=0\n",
                    "cmd=maxes kvsname_max=256 keylen_max=64 vallen_max=0\n",
                    "cmd=appnum appnum=-1\n",
                    "cmd=my_kvsname kvsname=kvs_1_0\n",
                    "cmd=get_result value=(vector,(0,1,1))\n",
                    "cmd=put_result rc=0\n",
                    "cmd=barrier_out\n",
                    "cmd=get_result rc=0 value=~3\n",
                    "cmd=get_result rc=0 value=Zm9v\n",
                    "cmd=get_result rc=-1 msg=no value=unknown\n",
                ][..]).prop_map(|line| line.as_bytes().to_vec()),
                proptest::collection::vec(proptest::prelude::any::<u8>(), 0..30),
            ],
            0..14,
        )
    ) {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(&replies.concat()).unwrap();
        ours.shutdown(std::net::Shutdown::Write).unwrap();
        if let Ok(mut boot) = Boot::over(theirs, 0, 2) {
            let _ = boot.put("k", &[7; 700]);
            let _ = boot.fence();
            let _ = boot.get("k");
            let _ = boot.finalize();
        }
    }
}

#[test]
fn a_launcher_that_does_not_answer_in_time_is_given_up_and_not_believed_later() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let server = thread::spawn(move || {
        let mut server = Server::new(Job::new("job".into(), vec![0, 0], NodeMap::one_node(2)));
        let mut chunk = [0; 700];
        loop {
            let got = (&theirs).read(&mut chunk).unwrap();
            if got == 0 {
                return;
            }
            let slow = chunk.starts_with(b"cmd=get kvsname=job key=slow");
            server.handle_bytes(0, &chunk[..got]);
            if slow {
                // Its answer is never given.
                server.poll_output();
            }
            while let Some(output) = server.poll_output() {
                (&theirs).write_all(&output.bytes).unwrap();
            }
        }
    });
    let mut boot = Boot::over(ours, 0, 2).unwrap();
    let long = std::time::Duration::from_secs(60);
    assert_eq!(boot.get_within(1, "quick", long).unwrap(), None);
    let error = boot.get_within(1, "slow", std::time::Duration::from_millis(10)).unwrap_err();
    assert!(matches!(error, BootError::Lost { during: "get", .. }), "{error}");
    let error = boot.get_within(1, "quick", long).unwrap_err();
    assert!(matches!(error, BootError::Lost { .. }), "its answer might be that to the one before: {error}");
    drop(boot);
    server.join().unwrap();
}
