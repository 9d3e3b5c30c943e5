use super::*;
use crate::names::Names;
use crate::pmi1::{Reply, Request};
use proptest::prelude::*;

fn server(size: u32) -> Server {
    Server::new(Job::new("job".into(), vec![0; size as usize], NodeMap::one_node(size)))
}

/// Feeds a request and gives back all that comes out for that rank.
fn ask(server: &mut Server, rank: u32, line: &str) -> String {
    server.handle_bytes(rank, line.as_bytes());
    server.handle_bytes(rank, b"\n");
    let mut answer = String::new();
    while let Some(output) = server.poll_output() {
        if output.rank == rank {
            answer.push_str(std::str::from_utf8(&output.bytes).unwrap());
        }
    }
    answer
}

fn events(server: &mut Server) -> Vec<Event> {
    std::iter::from_fn(|| server.poll_event()).collect()
}

/// What hydra 5 and an Intel client say to each other, rank 0 of 2; our words for the same.
const TRANSCRIPT: &[(&str, &str)] = &[
    ("cmd=init pmi_version=1 pmi_subversion=1", "cmd=response_to_init rc=0 pmi_version=1 pmi_subversion=1\n"),
    ("cmd=get_maxes", "cmd=maxes rc=0 kvsname_max=256 keylen_max=64 vallen_max=1024\n"),
    ("cmd=get_appnum", "cmd=appnum rc=0 appnum=0\n"),
    ("cmd=get_my_kvsname", "cmd=my_kvsname rc=0 kvsname=job\n"),
    ("cmd=get kvsname=job key=PMI_process_mapping", "cmd=get_result rc=0 value=(vector,(0,1,2))\n"),
    ("cmd=get kvsname=job key=PMI_mpi_memory_alloc_kinds", "cmd=get_result rc=1 msg=key_not_found\n"),
    ("cmd=put kvsname=job key=bc-0 value=mpi#0200B4EF$", "cmd=put_result rc=0\n"),
    ("cmd=barrier_in", "cmd=barrier_out rc=0\n"),
    ("cmd=get kvsname=job key=bc-1", "cmd=get_result rc=0 value=mpi#02008F09$\n"),
    ("cmd=finalize", "cmd=finalize_ack rc=0\n"),
];

#[test]
fn the_golden_transcript_is_answered_line_by_line() {
    let mut server = server(2);
    assert_eq!(server.state(0), State::Silent);
    ask(&mut server, 1, "cmd=put kvsname=job key=bc-1 value=mpi#02008F09$");
    ask(&mut server, 1, "cmd=barrier_in");
    for (request, reply) in TRANSCRIPT {
        assert_eq!(ask(&mut server, 0, request), *reply, "{request}");
    }
    assert_eq!(server.state(0), State::Finalized);
    assert_eq!(events(&mut server), [Event::Barrier, Event::Finalized { rank: 0 }]);
}

#[test]
fn requests_in_pieces_or_several_at_once_get_the_same_answers() {
    let requests: String = TRANSCRIPT.iter().map(|(request, _)| format!("{request}\n")).collect();
    let replies: String = TRANSCRIPT.iter().map(|(_, reply)| *reply).collect();
    for piece in [1, 3, 7, 50, requests.len()] {
        let mut server = server(2);
        ask(&mut server, 1, "cmd=put kvsname=job key=bc-1 value=mpi#02008F09$");
        ask(&mut server, 1, "cmd=barrier_in");
        let mut answer = Vec::new();
        for chunk in requests.as_bytes().chunks(piece) {
            server.handle_bytes(0, chunk);
            let outputs = std::iter::from_fn(|| server.poll_output());
            answer.extend(outputs.filter(|output| output.rank == 0).flat_map(|output| output.bytes));
        }
        assert_eq!(String::from_utf8(answer).unwrap(), replies, "in pieces of {piece}");
    }
}

#[test]
fn nobody_leaves_a_barrier_before_everybody_is_in() {
    let mut server = server(3);
    assert_eq!(ask(&mut server, 2, "cmd=barrier_in"), "");
    assert_eq!(ask(&mut server, 0, "cmd=barrier_in"), "");
    assert_eq!(server.state(0), State::InBarrier);
    server.handle_bytes(1, b"cmd=barrier_in\n");
    let mut answered: Vec<u32> =
        std::iter::from_fn(|| server.poll_output()).map(|output| output.rank).collect();
    answered.sort_unstable();
    assert_eq!(answered, [0, 1, 2]);
}

#[test]
fn a_barrier_that_can_never_complete_is_said_once_whoever_came_first() {
    for gone_first in [false, true] {
        let mut server = server(3);
        if gone_first {
            server.handle_eof(1);
        }
        ask(&mut server, 2, "cmd=barrier_in");
        ask(&mut server, 0, "cmd=barrier_in");
        if !gone_first {
            server.handle_eof(1);
        }
        let waiting = if gone_first { 2 } else { 0 };
        assert_eq!(events(&mut server), [Event::Stuck { waiting, absent: 1 }]);
    }
}

#[test]
fn a_rank_that_leaves_when_nobody_waits_is_no_event() {
    let mut server = server(2);
    server.handle_eof(0);
    server.handle_eof(1);
    assert_eq!(events(&mut server), []);
}

#[test]
fn abort_carries_code_and_message() {
    let mut server = server(2);
    let message = r"no bread: 3 \ 4".to_owned();
    let line = Request::Abort { code: 7, message: message.clone() }.encode();
    server.handle_bytes(1, line.as_bytes());
    server.handle_bytes(0, b"cmd=abort exitcode=9\n");
    let expected = [
        Event::Abort { rank: 1, code: 7, message },
        Event::Abort { rank: 0, code: 9, message: String::new() },
    ];
    assert_eq!(events(&mut server), expected);
}

#[test]
fn a_malformed_line_is_one_event_that_names_rank_and_line_and_the_rest_is_not_listened_to() {
    let mut server = server(2);
    server.handle_bytes(1, b"hello\ncmd=abort exitcode=3\n");
    server.handle_bytes(1, b"again\n");
    let [Event::Violation { rank: 1, malformed }] = &events(&mut server)[..] else { panic!() };
    assert_eq!(malformed.to_string(), "malformed PMI line \"hello\": it does not start with cmd=");
    assert_eq!(server.state(1), State::Gone);
}

#[test]
fn a_line_without_end_is_refused_before_it_fills_the_memory() {
    let mut server = server(1);
    for _ in 0..=REQUEST_BYTES_MAX / 4096 {
        server.handle_bytes(0, &[b'x'; 4096]);
    }
    assert!(matches!(&events(&mut server)[..], [Event::Violation { rank: 0, .. }]));
}

#[test]
fn a_full_store_refuses_and_a_replaced_value_gives_its_room_back() {
    let mut server = server(1);
    let value = "v".repeat(1000);
    for _ in 0..10 {
        ask(&mut server, 0, &format!("cmd=put kvsname=job key=k value={value}"));
    }
    assert_eq!(server.store.bytes(), 1001);
    server.store.fill();
    assert_eq!(
        ask(&mut server, 0, "cmd=put kvsname=job key=x value=y"),
        "cmd=put_result rc=1 msg=store_is_full\n"
    );
}

#[test]
fn a_job_that_puts_more_than_it_may_is_told_in_the_fence_and_goes_on_without() {
    let job = || Job::new("job".into(), vec![0; 2], NodeMap::one_node(2));
    let (mut root, mut node) =
        (Server::on_node(job(), vec![0], 1, false), Server::on_node(job(), vec![1], 0, true));
    let fence = |root: &mut Server, node: &mut Server, key: &str| {
        ask(node, 1, &format!("cmd=put kvsname=job key={key} value=v"));
        root.handle_bytes(0, b"cmd=barrier_in\n");
        node.handle_bytes(1, b"cmd=barrier_in\n");
        std::iter::from_fn(|| node.poll_up()).for_each(|up| root.handle_up(0, up));
        std::iter::from_fn(|| root.poll_down()).for_each(|(_, down)| node.handle_down(down));
        let texts = [root.poll_output().unwrap().bytes, node.poll_output().unwrap().bytes];
        texts.map(|text| String::from_utf8(text).unwrap())
    };
    root.store.fill();
    let full = "cmd=barrier_out rc=1 msg=store_is_full\n";
    assert_eq!(fence(&mut root, &mut node, "k"), [full, full]);
    root.store = Store::default();
    assert_eq!(fence(&mut root, &mut node, "x"), ["cmd=barrier_out rc=0\n"; 2]);
    assert!(ask(&mut root, 0, "cmd=get kvsname=job key=x").contains("value=v"));
    for (server, rank) in [(&mut root, 0), (&mut node, 1)] {
        assert_eq!(server.store.seen_here("k"), None, "rank {rank}");
    }
}

#[test]
fn whoever_connects_to_a_port_must_say_who_it_is_and_nobody_is_there_twice() {
    let mut server = server(2);
    let hello = b"cmd=initack pmiid=1\ncmd=init pmi_version=1 pmi_subversion=1\n";
    for cut in 0..19 {
        assert_eq!(server.introduced(&hello[..cut]), Ok(None));
    }
    assert_eq!(server.introduced(hello), Ok(Some(1)));
    server.handle_bytes(1, hello);
    let said = String::from_utf8(server.poll_output().unwrap().bytes).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..4], ["cmd=initack rc=0", "cmd=set size=2", "cmd=set rank=1", "cmd=set debug=0"]);
    assert!(!server.awaits(1), "it is here already");
    ask(&mut server, 1, "cmd=finalize");
    assert!(server.awaits(1), "the next program of a script");
    for stranger in [&b"cmd=initack pmiid=2\n"[..], b"cmd=get_maxes\n", b"\xff\n", b"HYD\0\n", &[b'x'; 64]] {
        assert!(server.introduced(stranger).is_err(), "{stranger:?}");
    }
}

#[test]
fn no_message_between_nodes_is_larger_than_the_bound() {
    let job = Job::new("job".into(), vec![0; 3], NodeMap::one_node(3));
    let mut server = Server::on_node(job, vec![1, 2], 1, true);
    for key in 0..50 {
        let value = "v".repeat([1, 3000, PAIR_BYTES_MAX - 20][key % 3]);
        ask(&mut server, 1, &format!("cmd=put kvsname=job key=k{key} value={value}"));
    }
    (0..30_000).for_each(|key| drop(ask(&mut server, 1, &format!("cmd=put kvsname=job key={key} value="))));
    server.handle_bytes(1, b"cmd=barrier_in\n");
    server.handle_bytes(2, b"cmd=barrier_in\n");
    server.handle_up(0, Up::Fence { overflow: false });
    let ups: Vec<Up> = std::iter::from_fn(|| server.poll_up()).collect();
    assert!(ups.len() > 10);
    assert!(ups.iter().all(|up| postcard::to_stdvec(up).unwrap().len() <= crate::tree::MESSAGE_BYTES_MAX));
}

#[test]
fn names_are_the_launchers_business_and_answers_keep_their_order() {
    let mut server = server(2);
    let mut names = Names::default();
    let mut ask = |rank, line: &str| {
        server.handle_bytes(rank, format!("{line}\n").as_bytes());
        for event in events(&mut server) {
            let Event::Name { rank, wish } = event else { panic!("{event:?}") };
            assert_eq!(server.poll_output(), None, "nothing before the answer");
            server.answer_name(rank, names.carry_out(wish));
        }
        server.answer_name(rank, NameAnswer::Published);
        String::from_utf8(server.poll_output().unwrap().bytes).unwrap()
    };
    assert_eq!(ask(0, "cmd=publish_name service=my svc port=p#1"), "cmd=publish_result rc=0\n");
    assert!(ask(0, "cmd=publish_name service=my port=p").contains("key_already_present"));
    let both = "cmd=lookup_name service=my\ncmd=get_appnum";
    assert_eq!(ask(1, both), "cmd=lookup_result rc=0 port=p#1\ncmd=appnum rc=0 appnum=0\n");
    assert_eq!(ask(0, "cmd=unpublish_name service=my"), "cmd=unpublish_result rc=0\n");
    assert!(ask(1, "cmd=lookup_name service=my").contains("rc=1"));
}

#[test]
fn spawn_is_an_event_and_its_answer_is_the_launchers() {
    let mut server = server(1);
    let spawn = "mcmd=spawn\nnprocs=2\nexecname=./w\ntotspawns=1\nspawnssofar=1\nargcnt=0\nendcmd";
    assert_eq!(ask(&mut server, 0, spawn), "");
    assert_eq!(ask(&mut server, 0, spawn), "cmd=spawn_result rc=1 msg=one_spawn_at_a_time\n");
    let [Event::Spawn { rank: 0, request }] = &events(&mut server)[..] else { panic!() };
    assert_eq!((request.commands[0].processes, request.commands[0].program.as_str()), (2, "./w"));
    server.answer_spawn(0, Ok(Spawned { job: "job-1".into(), codes: vec![0, 0] }));
    server.answer_spawn(0, Err("nobody asked".into()));
    let output = server.poll_output().unwrap();
    assert_eq!(output.bytes, b"cmd=spawn_result rc=0 errcodes=0,0\n");
    assert_eq!(server.poll_output(), None);
    ask(&mut server, 0, spawn);
    server.answer_spawn(0, Err("no room".into()));
    assert_eq!(server.poll_output().unwrap().bytes, b"cmd=spawn_result rc=1 msg=no_room\n");
    assert_eq!(ask(&mut server, 0, "cmd=get_appnum"), "cmd=appnum rc=0 appnum=0\n");
}

#[test]
fn groups_have_barriers_of_their_own() {
    let mut server = server(4);
    assert_eq!(ask(&mut server, 1, "cmd=barrier_in group=1,3:9"), "");
    assert_eq!(ask(&mut server, 3, "cmd=barrier_in group=1,3:9"), "cmd=barrier_out rc=0 tag=9\n");
    assert_eq!(events(&mut server), []);
    ask(&mut server, 0, "cmd=barrier_in group=1,3:9");
    assert!(matches!(&events(&mut server)[..], [Event::Violation { rank: 0, .. }]));
}

#[test]
fn a_second_program_of_the_same_rank_may_start_over() {
    let mut server = server(1);
    for _ in 0..2 {
        ask(&mut server, 0, "cmd=init pmi_version=1 pmi_subversion=1");
        assert_eq!(server.state(0), State::Active);
        ask(&mut server, 0, "cmd=finalize");
        assert_eq!(server.state(0), State::Finalized);
    }
}

fn line() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        "(m?cmd=(init|put|get|barrier_in|abort|finalize|spawn|initack|lookup_name)( [a-z_]{1,8}=[0-9a-z,:]{0,6}){0,4}\n|endcmd\n|totspawns=[0-9]\n)"
            .prop_map(String::into_bytes),
        prop::sample::select(TRANSCRIPT).prop_map(|(line, _)| format!("{line}\n").into_bytes()),
    ]
}

proptest! {
    #[test]
    fn whatever_the_ranks_send_the_server_stays_sane(
        script in prop::collection::vec((0..3u32, line(), any::<prop::sample::Index>()), 0..60)
    ) {
        let mut server = server(3);
        for (rank, bytes, cut) in script {
            let cut = cut.index(bytes.len() + 1);
            server.handle_bytes(rank, &bytes[..cut]);
            server.handle_bytes(rank, &bytes[cut..]);
            if bytes.len() == 13 {
                server.handle_eof(rank);
            }
            let waiting = (0..3).filter(|rank| server.state(*rank) == State::InBarrier).count();
            prop_assert_eq!(server.fence.local_in, waiting);
            while let Some(output) = server.poll_output() {
                prop_assert!(output.bytes.ends_with(b"\n"));
                for line in std::str::from_utf8(&output.bytes).unwrap().lines() {
                    prop_assert!(Reply::decode(line).is_ok(), "{}", line);
                }
            }
        }
    }
}
