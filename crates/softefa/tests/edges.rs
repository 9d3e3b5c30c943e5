//! Single moments of the protocol, made by hand.

mod network;

use network::{BASE, MS, Network, RKEY, US, address, datagram, node};
use softefa::faults::Plan;
use softefa::srd::{Address, Completion, Config, Done, Inline, Nanos, Payload, Spans, Status, WINDOW, Work};
use softefa::wire::{Header, Kind};

const MEMORY: usize = 1 << 20;

fn quiet(machines: usize, config: &Config) -> Network {
    Network::new(machines, MEMORY, config, &Plan::default(), 0)
}

fn send(text: &[u8]) -> Work {
    Work::Send { payload: Payload::Inline(Inline::new(text).expect("short")), imm: None }
}

fn write(remote: u64, len: u32, imm: Option<u32>) -> Work {
    Work::Write { payload: Payload::Spans(Spans::one(BASE, len)), rkey: RKEY, remote, imm }
}

fn read(remote: u64, len: u32) -> Work {
    Work::Read { local: Spans::one(BASE, len), rkey: RKEY, remote }
}

/// The only completion of the only work of machine 0.
fn only(network: &Network) -> (Nanos, Completion) {
    let [only] = network.machines[0].done[..] else { panic!("{:?}", network.machines[0].done) };
    only
}

fn status_of(network: &mut Network, to: Address, work: Work) -> Status {
    let before = network.machines[0].done.len();
    let now = network.now;
    network.machines[0].srd.post(1, to, work, now).expect("room");
    network.settle(0);
    assert!(network.run(60_000 * MS), "never done");
    network.machines[0].done[before].1.status
}

#[test]
fn a_datagram_crosses_a_quiet_network_in_two_packets() {
    let mut network = quiet(2, &Config::default());
    network.post_receive(1, 9, Spans::one(BASE, 100));
    network.post(0, 1, 1, send(b"hello"));
    assert!(network.run(MS));
    let done = Done::Receive { from: node(0), bytes: 5, imm: None };
    assert_eq!(network.machines[1].done[0].1, Completion { wr_id: 9, status: Status::Ok, done });
    assert_eq!(network.machines[1].memory.at(BASE, 5), b"hello");
    assert_eq!(only(&network).1, Completion { wr_id: 1, status: Status::Ok, done: Done::Send });
}

#[test]
fn a_question_and_its_answer_need_no_acknowledgement_of_their_own() {
    let mut network = quiet(2, &Config { ack_delay: 100 * US, ..Config::default() });
    for wr_id in 0..10 {
        network.post_receive(0, 100 + wr_id, Spans::one(BASE, 100));
        network.post_receive(1, 100 + wr_id, Spans::one(BASE, 100));
        network.post(0, wr_id, 1, send(b"ping"));
        network.pass(10 * US);
        network.post(1, wr_id, 0, send(b"pong"));
        network.pass(10 * US);
    }
    assert_eq!(network.done(0).count(), 20, "each ping is acknowledged by its pong");
    assert!(network.run(MS));
}

#[test]
fn a_send_waits_for_its_receive_for_ever_where_that_was_asked() {
    let mut network = quiet(2, &Config { rnr_retries: None, ..Config::default() });
    network.post(0, 1, 1, send(b"early"));
    network.pass(30_000 * MS);
    assert_eq!(network.open(), 1);
    network.post_receive(1, 9, Spans::one(BASE, 100));
    assert!(network.run(10 * MS));
    assert_eq!(only(&network).1.status, Status::Ok);
}

#[test]
fn a_send_without_a_receive_is_tried_as_often_as_asked_and_then_refused() {
    for retries in [0, 3, 6] {
        let mut network = quiet(2, &Config { rnr_retries: Some(retries), ..Config::default() });
        network.post(0, 1, 1, send(b"early"));
        assert!(network.run(1000 * MS));
        let (when, completion) = only(&network);
        assert_eq!(completion.status, Status::NotReady);
        let tries = (when - MS) / MS;
        assert_eq!(tries, u64::from(retries), "one each millisecond");
    }
}

/// Every copy of a refused send may come at any later time, and the program may have sent it again by then.
#[test]
fn a_refused_send_is_never_delivered_by_a_late_copy() {
    let mut network = quiet(2, &Config { rnr_retries: Some(0), ..Config::default() });
    network.post(0, 1, 1, send(b"once"));
    let copies = network.flying();
    assert!(network.run(MS));
    assert_eq!(only(&network).1.status, Status::NotReady);
    network.post_receive(1, 9, Spans::one(BASE, 100));
    network.post_receive(1, 10, Spans::one(BASE, 100));
    for (_, copy) in &copies {
        network.inject(1, copy);
    }
    assert_eq!(network.done(1).count(), 0, "refused once, refused for ever");
    network.post(0, 2, 1, send(b"once"));
    assert!(network.run(MS));
    for (_, copy) in &copies {
        network.inject(1, copy);
    }
    assert_eq!(network.done(1).count(), 1);
}

#[test]
fn a_refusal_that_is_lost_is_said_again() {
    let mut network = quiet(2, &Config { rnr_retries: Some(0), ..Config::default() });
    network.post(0, 1, 1, send(b"x"));
    let (_, copy) = network.flying()[0].clone();
    network.machines[0].is_dead = true;
    network.pass(MS);
    network.machines[0].is_dead = false;
    assert_eq!(network.open(), 1, "the answer went to nobody");
    network.inject(1, &copy);
    assert!(network.run(MS));
    assert_eq!(only(&network).1.status, Status::NotReady);
}

#[test]
fn one_sided_work_passes_sends_that_wait_for_receives() {
    let mut network = quiet(2, &Config::default());
    for wr_id in 0..2 * WINDOW {
        network.post(0, wr_id, 1, send(b"waits"));
    }
    network.post(0, 5000, 1, write(BASE + 1000, 400_000, None));
    network.post(0, 5001, 1, read(BASE + 1000, 400_000));
    network.pass(100 * MS);
    let mut done: Vec<u64> = network.done(0).map(|completion| completion.wr_id).collect();
    done.sort_unstable();
    assert_eq!(done, [5000, 5001]);
}

#[test]
fn many_waiting_sends_do_not_flood_a_receiver_without_receives() {
    let mut network = quiet(2, &Config::default());
    for wr_id in 0..1000 {
        network.post(0, wr_id, 1, send(b"waits"));
    }
    network.pass(5 * MS);
    let refused = |network: &Network| network.machines[0].srd.counters().softefa_rnr_received.get();
    let before = refused(&network);
    network.pass(100 * MS);
    assert!(refused(&network) - before <= 101, "{}", refused(&network) - before);
    for wr_id in 0..1000 {
        network.post_receive(1, wr_id, Spans::one(BASE, 100));
    }
    let start = network.now;
    assert!(network.run(1000 * MS));
    assert!(network.now - start < 3 * MS, "back at full speed at once: {}", network.now - start);
}

#[test]
fn a_peer_that_never_answered_is_unreachable() {
    let config = Config { peer_timeout: 500 * MS, ..Config::default() };
    let mut network = quiet(2, &config);
    network.machines[1].is_dead = true;
    network.post(0, 1, 1, send(b"anybody?"));
    assert!(network.run(10_000 * MS));
    let (when, completion) = only(&network);
    assert_eq!(completion.status, Status::Unreachable);
    assert!((500 * MS..1000 * MS).contains(&(when - MS)), "{when}");
}

#[test]
fn a_peer_that_dies_is_unresponsive_and_all_work_to_it_ends_and_other_work_goes_on() {
    let config = Config { peer_timeout: 500 * MS, ..Config::default() };
    let mut network = quiet(3, &config);
    for wr_id in 0..4 {
        network.post_receive(1, wr_id, Spans::one(BASE, 100));
    }
    network.post(0, 1, 1, send(b"alive"));
    assert!(network.run(MS));
    network.machines[1].is_dead = true;
    network.post(0, 2, 1, send(b"dead"));
    network.post(0, 3, 1, write(BASE, 100_000, Some(1)));
    network.post(0, 4, 1, read(BASE, 100_000));
    network.post(0, 5, 2, write(BASE, 100_000, None));
    assert!(network.run(10_000 * MS));
    let mut done: Vec<(u64, Status)> =
        network.done(0).map(|completion| (completion.wr_id, completion.status)).collect();
    done.sort_unstable();
    let dead = Status::Unresponsive;
    assert_eq!(done, [(1, Status::Ok), (2, dead), (3, dead), (4, dead), (5, Status::Ok)]);
}

#[test]
fn a_process_that_was_stopped_does_not_take_its_peers_for_dead() {
    let mut network = quiet(2, &Config::default());
    network.post_receive(1, 9, Spans::one(BASE, 100));
    network.post(0, 1, 1, send(b"hello"));
    network.machines[0].is_dead = true;
    network.pass(60_000 * MS);
    network.machines[0].is_dead = false;
    assert!(network.run(1000 * MS));
    assert_eq!(only(&network).1.status, Status::Ok, "its timer tries again before it gives up");
}

#[test]
fn a_port_without_listener_ends_work_at_once() {
    let mut network = quiet(2, &Config::default());
    network.machines[1].is_dead = true;
    network.post(0, 1, 1, send(b"anybody?"));
    network.machines[0].srd.handle_unreachable(|gid| gid == node(1).gid, node(1).qpn + 1);
    assert_eq!(network.machines[0].srd.poll_completion(), None, "somebody else's port");
    network.machines[0].srd.handle_unreachable(|gid| gid == node(1).gid, node(1).qpn);
    network.settle(0);
    assert_eq!(only(&network).1.status, Status::BadQueuePair);
}

#[test]
fn what_is_wrong_is_told_in_the_devices_numbers() {
    let config = Config { rdma_bytes_max: 1 << 16, ..Config::default() };
    let mut network = quiet(2, &config);
    let to = address(1);
    let mut status = |to, work| status_of(&mut network, to, work).code();
    let long = Work::Send { payload: Payload::Spans(Spans::one(BASE, 8865)), imm: None };
    assert_eq!(status(to, long), 6);
    assert_eq!(status(to, write(BASE, (1 << 16) + 1, None)), 6);
    assert_eq!(status(Address { qkey: 1, ..to }, send(b"x")), 9);
    assert_eq!(status(to, write(BASE + MEMORY as u64 - 10, 11, None)), 7);
    assert_eq!(status(to, read(BASE - 1, 11)), 7);
    assert_eq!(status(to, read(u64::MAX - 1, 11)), 7);
    assert_eq!(
        status(
            to,
            Work::Write { payload: Payload::Spans(Spans::one(BASE, 10)), rkey: 8, remote: BASE, imm: None }
        ),
        7
    );
    assert_eq!(status(to, write(BASE + MEMORY as u64 - 10, 50_000, Some(1))), 7);
    network.post_receive(1, 1, Spans::one(BASE, 3));
    assert_eq!(status_of(&mut network, to, send(b"four")).code(), 11);
    network.machines[1].memory.strangers = true;
    assert_eq!(status_of(&mut network, to, read(BASE, 8)).code(), 14);
    assert_eq!(network.done(1).count(), 0);
    let now = network.now;
    network.machines[0].srd.post(99, to, send(b"late"), now).expect("room");
    network.machines[0].srd.flush();
    network.settle(0);
    assert_eq!(
        network.machines[0].done.last().map(|(_, last)| (last.wr_id, last.status.code())),
        Some((99, 1))
    );
}

#[test]
fn work_of_no_bytes_is_work() {
    let mut network = quiet(2, &Config::default());
    network.post_receive(1, 9, Spans::default());
    network.post_receive(1, 10, Spans::default());
    network.post(0, 1, 1, send(b""));
    network.post(0, 2, 1, Work::Read { local: Spans::default(), rkey: 0, remote: 0 });
    let nothing = |imm| Work::Write { payload: Payload::Spans(Spans::default()), rkey: 0, remote: 0, imm };
    network.post(0, 3, 1, nothing(None));
    network.post(0, 4, 1, nothing(Some(5)));
    assert!(network.run(10 * MS));
    assert!(network.done(0).all(|completion| completion.status == Status::Ok));
    assert_eq!(network.done(1).count(), 2);
}

#[test]
fn a_number_used_again_by_another_incarnation_is_another_flow() {
    let config = Config::default();
    let mut network = quiet(2, &config);
    for wr_id in 0..4 {
        network.post_receive(1, wr_id, Spans::one(BASE, 100));
    }
    network.post(0, 1, 1, send(b"first"));
    let late = network.flying();
    assert!(network.run(MS));
    network.restart(0, 77, &config, &Plan::default());
    network.post(0, 2, 1, send(b"second"));
    assert!(network.run(MS));
    assert_eq!(network.done(1).count(), 2, "its first number is not a copy of its predecessor's");
    for (_, copy) in &late {
        network.inject(1, copy);
    }
    network.pass(MS);
    assert_eq!(network.done(1).count(), 2, "and a late copy of its predecessor's is one");
    assert_eq!(network.done(0).count(), 2, "answers to the predecessor are not taken for its own");
}

#[test]
fn a_receiver_that_started_again_takes_up_the_flow_where_it_is() {
    let config = Config::default();
    let mut network = quiet(2, &config);
    for round in 0..3u64 {
        network.post_receive(1, round, Spans::one(BASE, 100));
        network.post(0, round, 1, send(b"x"));
        assert!(network.run(1000 * MS), "round {round}");
        network.restart(1, 50 + round as u32, &config, &Plan::default());
    }
    assert_eq!(network.done(1).count(), 3);
}

#[test]
fn a_queue_pair_that_was_closed_still_acknowledges_what_it_took_and_takes_nothing_new() {
    let mut network = quiet(2, &Config { ack_delay: 1000 * MS, ..Config::default() });
    network.post_receive(1, 9, Spans::one(BASE, 100));
    network.post_receive(1, 10, Spans::one(BASE, 100));
    network.post(0, 1, 1, send(b"last words"));
    network.pass(10 * US);
    network.machines[1].srd.close();
    network.settle(1);
    assert!(network.run(MS));
    assert_eq!(only(&network).1.status, Status::Ok);
    network.post(0, 2, 1, send(b"too late"));
    assert!(network.run(MS));
    assert_eq!(network.machines[0].done[1].1.status, Status::BadQueuePair);
    assert_eq!(network.done(1).count(), 1);
}

#[test]
fn a_cut_link_carries_nothing_and_other_links_do() {
    let plan = Plan { cuts: vec!["127.0.0.2#3".parse().expect("a cut")], ..Plan::default() };
    let config = Config { peer_timeout: 300 * MS, ..Config::default() };
    let mut network = Network::new(3, MEMORY, &config, &plan, 0);
    for wr_id in 0..6 {
        network.post(0, wr_id, 1 + wr_id as usize % 2, write(BASE, 8, None));
        network.run(10_000 * MS);
    }
    let statuses: Vec<Status> = network.done(0).map(|completion| completion.status).collect();
    let ok = Status::Ok;
    assert_eq!(statuses, [ok, ok, ok, ok, Status::Unresponsive, ok], "after three packets");
}

#[test]
fn a_lost_packet_in_the_middle_is_found_long_before_the_timer() {
    let config = Config { chunk_bytes: 1000, window_bytes: 64 << 10, ..Config::default() };
    let plan = Plan { drop: 0.02, ..Plan::default() };
    let mut network = Network::new(2, MEMORY, &config, &plan, 3);
    let start = network.now;
    network.post(0, 1, 1, write(BASE, 1_000_000, None));
    assert!(network.run(10_000 * MS));
    let counters = network.machines[0].srd.counters();
    assert!(counters.retrans_pkts.get() >= 5);
    assert!(network.now - start < 200 * MS, "{} ms", (network.now - start) / MS);
}

#[test]
fn unreliable_datagrams_are_done_when_they_are_sent_and_dropped_without_a_receive() {
    let config = Config { service: softefa::srd::Service::Unreliable, ..Config::default() };
    let mut network = quiet(2, &config);
    network.post(0, 1, 1, send(b"dropped"));
    assert_eq!(only(&network).1.status, Status::Ok);
    network.pass(MS);
    network.post_receive(1, 9, Spans::one(BASE, 100));
    network.post(0, 2, 1, send(b"taken"));
    network.pass(MS);
    assert_eq!(network.done(1).count(), 1);
    assert_eq!(network.machines[1].srd.counters().rx_drops.get(), 1);
    assert_eq!(status_of(&mut network, address(1), read(BASE, 8)).code(), 3);
}

#[test]
fn noise_and_lies_do_no_harm() {
    let mut network = quiet(2, &Config::default());
    network.post(0, 1, 1, write(BASE, 8, None));
    let (_, good) = network.flying()[0].clone();
    let mut dice = network::Dice(1);
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        for _ in 0..1 + dice.below(4) {
            // Not the remote address and key: those a peer with the right keys may choose.
            let at = dice.below(80) as usize;
            bytes[at] = dice.below(256) as u8;
        }
        network.inject(dice.below(2) as usize, &bytes);
    }
    let (header, _) = Header::parse(&good).expect("good");
    for kind in [Kind::Ack, Kind::Nack, Kind::ReadAnswer] {
        let mut lie = Header { kind, length: 0, ..header };
        lie.answer.epoch = 1;
        lie.answer.base = u64::MAX;
        lie.answer.bits = u64::MAX;
        lie.answer.echo = u64::MAX;
        lie.status = if kind == Kind::Nack { Status::NotReady } else { Status::Ok };
        lie.from = node(1);
        lie.to_qpn = node(0).qpn;
        network.inject(0, &lie.to_bytes());
    }
    network.pass(MS);
}

#[test]
fn the_first_packet_of_a_send_has_these_bytes() {
    let mut network = quiet(2, &Config::default());
    let machine = &mut network.machines[0];
    let payload = Payload::Inline(Inline::new(b"hi").expect("short"));
    machine.srd.post(1, address(1), Work::Send { payload, imm: Some(0x01020304) }, 5 * MS).expect("room");
    let packet = machine.srd.poll_transmit(5 * MS, &machine.memory).expect("a packet");
    let bytes: String = datagram(&packet, &machine.memory).iter().map(|byte| format!("{byte:02x}")).collect();
    let golden = concat!(
        "5efa010101006400650000003412000000000000000000000000ffff7f000001",
        "01000000",
        "00000000",
        "0000000000000000",
        "404b4c0000000000",
        "0000000000000000",
        "0000000000000000",
        "0000000000000000",
        "0000000000000000",
        "00000000",
        "02000000",
        "04030201",
        "00000000",
        "6869",
    );
    assert_eq!(bytes, golden);
}
