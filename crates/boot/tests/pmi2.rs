//! PMI-2 on the connections that PMI-1 uses: the transcript of Slurm's server and its client, and what is PMI-2's alone.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what should happen")]

use proptest::prelude::*;
use selvedge_boot::names::Names;
use selvedge_boot::spawn::Spawned;
use selvedge_boot::{Event, Job, Node, NodeMap, Server, State, pmi2};

fn server(map: &str, size: u32) -> Server {
    let map = NodeMap::parse(map, size).unwrap();
    Server::new(Job::new("11.0".into(), vec![0; size as usize], map))
}

/// Feeds bytes and gives back all that comes out for that rank.
fn ask(server: &mut Server, rank: u32, text: &str) -> String {
    server.handle_bytes(rank, text.as_bytes());
    told(server, rank)
}

fn told(server: &mut Server, rank: u32) -> String {
    let outputs = std::iter::from_fn(|| server.poll_output());
    let bytes = outputs.filter(|output| output.rank == rank).flat_map(|output| output.bytes).collect();
    String::from_utf8(bytes).unwrap()
}

/// With its length before it, on the left as MPICH's client has it.
fn frame(text: &str) -> String {
    format!("{:>6}{text}", text.len())
}

fn events(server: &mut Server) -> Vec<Event> {
    std::iter::from_fn(|| server.poll_event()).collect()
}

const INIT: &str = "cmd=init pmi_version=2 pmi_subversion=0\n";

/// Rank 0 of 2, as Slurm 22.05 and its libpmi2 write it; the server's appnum is ours.
const TRANSCRIPT: &[(&str, &str)] = &[
    (INIT, "cmd=response_to_init rc=0 pmi_version=2 pmi_subversion=0\n"),
    (
        "52    cmd=fullinit;pmijobid=11.0;pmirank=0;threaded=FALSE;",
        "113   cmd=fullinit-response;rc=0;pmi-version=2;pmi-subversion=0;rank=0;size=2;appnum=0;debugged=FALSE;pmiverbose=FALSE;",
    ),
    ("14    cmd=job-getid;", "39    cmd=job-getid-response;rc=0;jobid=11.0;"),
    (
        "44    cmd=info-getjobattr;key=PMI_process_mapping;",
        "68    cmd=info-getjobattr-response;rc=0;found=TRUE;value=(vector,(0,1,2));",
    ),
    ("28    cmd=kvs-put;key=k0;value=v0;", "26    cmd=kvs-put-response;rc=0;"),
    ("14    cmd=kvs-fence;", "28    cmd=kvs-fence-response;rc=0;"),
    (
        "41    cmd=kvs-get;jobid=11.0;srcid=1;key=key-1;",
        "54    cmd=kvs-get-response;rc=0;found=TRUE;value=value of 1;",
    ),
    ("13    cmd=finalize;", "27    cmd=finalize-response;rc=0;"),
];

fn other_rank(server: &mut Server) {
    ask(server, 1, INIT);
    ask(server, 1, &frame("cmd=kvs-put;key=key-1;value=value of 1;"));
    ask(server, 1, &frame("cmd=kvs-fence;"));
}

#[test]
fn the_golden_transcript_is_answered_message_by_message() {
    let mut server = server("(vector,(0,1,2))", 2);
    other_rank(&mut server);
    for (request, reply) in TRANSCRIPT {
        assert_eq!(ask(&mut server, 0, request), *reply, "{request}");
    }
    assert_eq!(server.state(0), State::Finalized);
    assert_eq!(events(&mut server), [Event::Barrier, Event::Finalized { rank: 0 }]);
}

#[test]
fn requests_in_pieces_or_several_at_once_get_the_same_answers() {
    let requests: String = TRANSCRIPT.iter().map(|(request, _)| *request).collect();
    let replies: String = TRANSCRIPT.iter().map(|(_, reply)| *reply).collect();
    for piece in [1, 3, 7, 50, requests.len()] {
        let mut server = server("(vector,(0,1,2))", 2);
        other_rank(&mut server);
        let mut answer = String::new();
        for chunk in requests.as_bytes().chunks(piece) {
            answer += &ask(&mut server, 0, std::str::from_utf8(chunk).unwrap());
        }
        assert_eq!(answer, replies, "in pieces of {piece}");
    }
}

#[test]
fn ranks_of_both_dialects_share_one_store_and_one_fence() {
    let mut server = server("(vector,(0,1,2))", 2);
    ask(&mut server, 0, INIT);
    ask(&mut server, 0, &frame("cmd=kvs-put;key=two;value=a b;"));
    ask(&mut server, 1, "cmd=init pmi_version=1 pmi_subversion=1\ncmd=put kvsname=11.0 key=one value=1;2\n");
    assert_eq!(ask(&mut server, 0, &frame("cmd=kvs-fence;thrid=7;")), "");
    server.handle_bytes(1, b"cmd=barrier_in\n");
    assert_eq!(told(&mut server, 0), "36    cmd=kvs-fence-response;thrid=7;rc=0;");
    let got = ask(&mut server, 0, &frame("cmd=kvs-get;jobid=;srcid=-1;key=one;"));
    assert!(got.ends_with("found=TRUE;value=1;;2;"), "{got}");
    let none = ask(&mut server, 0, &frame("cmd=kvs-get;jobid=11.0;srcid=-1;key=none;"));
    assert!(none.ends_with("rc=0;found=FALSE;"), "{none}");
    assert_eq!(ask(&mut server, 1, "cmd=get kvsname=11.0 key=two\n"), "cmd=get_result rc=0 value=a b\n");
}

#[test]
fn a_node_attribute_is_waited_for_by_its_node_alone() {
    let mut server = server("(vector,(0,2,2))", 4);
    (0..4).for_each(|rank| drop(ask(&mut server, rank, INIT)));
    let get = |wait: &str| frame(&format!("cmd=info-getnodeattr;key=-bcast-1-0;wait={wait};"));
    assert!(ask(&mut server, 1, &get("FALSE")).ends_with("rc=0;found=FALSE;"));
    assert_eq!(ask(&mut server, 1, &get("TRUE")), "");
    assert_eq!(ask(&mut server, 3, &get("TRUE")), "");
    server.handle_bytes(0, frame("cmd=info-putnodeattr;key=-bcast-1-0;value=/dev/shm/x;").as_bytes());
    let said: Vec<(u32, String)> = std::iter::from_fn(|| server.poll_output())
        .map(|output| (output.rank, String::from_utf8(output.bytes).unwrap()))
        .collect();
    assert_eq!(said[0], (0, "35    cmd=info-putnodeattr-response;rc=0;".into()));
    assert!(said[1].0 == 1 && said[1].1.ends_with("found=TRUE;value=/dev/shm/x;"), "{said:?}");
    assert_eq!(said.len(), 2, "rank 3 is on the other node");
    assert!(ask(&mut server, 1, &get("TRUE")).ends_with("found=TRUE;value=/dev/shm/x;"));
    assert_eq!(NodeMap::parse("(vector,(0,2,2))", 4).unwrap().node(3), Some(Node(1)));
}

#[test]
fn names_spawn_and_abort_mean_the_same_as_in_the_other_dialect() {
    let mut server = server("(vector,(0,1,1))", 1);
    ask(&mut server, 0, INIT);
    let mut names = Names::default();
    let mut ask_for = |text: &str| {
        ask(&mut server, 0, &frame(text));
        let [Event::Name { rank: 0, wish }] = &events(&mut server)[..] else { panic!("{text}") };
        server.answer_name(0, names.carry_out(wish.clone()));
        told(&mut server, 0)
    };
    assert!(ask_for("cmd=name-publish;name=s;port=p;infokeycount=0;").ends_with("rc=0;"));
    assert!(
        ask_for("cmd=name-publish;name=s;port=p;infokeycount=0;")
            .contains("rc=-1;errmsg=key_already_present;")
    );
    assert!(ask_for("cmd=name-lookup;name=s;infokeycount=0;").ends_with("rc=0;value=p;port=p;"));
    assert!(ask_for("cmd=name-unpublish;name=s;infokeycount=0;").ends_with("rc=0;"));
    let mut say = |text: &str| ask(&mut server, 0, &frame(text));
    assert!(say("cmd=ring;count=1;left=a;right=b;").contains("cmd=ring-response;rc=-1;"));
    assert_eq!(
        say("cmd=spawn;ncmds=1;preputcount=0;subcmd=./w;maxprocs=2;argc=0;infokeycount=0;thrid=3;"),
        ""
    );
    assert_eq!(say("cmd=abort;isworld=TRUE;msg=enough;"), "");
    let [Event::Spawn { rank: 0, request }, Event::Abort { code: 1, message, .. }] = &events(&mut server)[..]
    else {
        panic!()
    };
    assert_eq!((request.commands[0].program.as_str(), message.as_str()), ("./w", "enough"));
    server.answer_spawn(0, Ok(Spawned { job: "11.1".into(), codes: vec![0, 0] }));
    assert!(told(&mut server, 0).ends_with("cmd=spawn-response;thrid=3;rc=0;jobid=11.1;errcodes=0,0;"));
}

#[test]
fn a_spawned_job_hears_who_has_spawned_it() {
    let mut job = Job::new("11.1".into(), vec![0], NodeMap::one_node(1));
    job.spawner = Some("11.0".into());
    let mut server = Server::new(job);
    ask(&mut server, 0, INIT);
    assert!(ask(&mut server, 0, &frame("cmd=fullinit;pmirank=0;")).ends_with("spawner-jobid=11.0;"));
}

#[test]
fn what_is_no_message_is_one_event_that_names_rank_and_bytes() {
    for text in [
        "hello, server",
        "  -3  cmd=x;",
        "000005hello",
        "14    xmd=kvs-fence;",
        "22    cmd=fullinit;pmirank=1;",
    ] {
        let mut server = server("(vector,(0,1,1))", 1);
        ask(&mut server, 0, INIT);
        ask(&mut server, 0, text);
        assert!(matches!(&events(&mut server)[..], [Event::Violation { rank: 0, .. }]), "{text}");
        assert_eq!(server.state(0), State::Gone);
    }
}

fn message() -> impl Strategy<Value = Vec<u8>> {
    let command = "(fullinit|kvs-(put|get|fence)|info-(put|get)nodeattr|info-getjobattr|name-(publish|lookup)|spawn|abort|finalize)";
    let text = format!(
        "cmd={command};((key|value|jobid|name|port|wait|thrid|subcmd|maxprocs)=[a-c0-1A-Z]{{0,4}};){{0,4}}"
    );
    prop_oneof![
        6 => prop::string::string_regex(&text).unwrap().prop_map(|text| frame(&text).into_bytes()),
        1 => Just(INIT.as_bytes().to_vec()),
        1 => Just(b"cmd=barrier_in\n".to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ]
}

proptest! {
    #[test]
    fn whatever_the_ranks_send_all_answers_are_whole(
        script in prop::collection::vec((0..3u32, message(), any::<prop::sample::Index>()), 0..40)
    ) {
        let mut server = server("(vector,(0,2,2))", 3);
        (0..3).for_each(|rank| drop(ask(&mut server, rank, INIT)));
        for (rank, bytes, cut) in script {
            let cut = cut.index(bytes.len() + 1);
            server.handle_bytes(rank, &bytes[..cut]);
            server.handle_bytes(rank, &bytes[cut..]);
            while let Some(output) = server.poll_output() {
                let mut rest = output.bytes.as_slice();
                while !rest.is_empty() {
                    let taken = match rest.iter().position(|byte| *byte == b'\n').filter(|_| rest[0] == b'c') {
                        Some(end) => end + 1,
                        None => pmi2::split(rest).unwrap().unwrap().0,
                    };
                    rest = &rest[taken..];
                }
            }
        }
    }
}
