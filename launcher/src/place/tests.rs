use std::ffi::OsString;

use proptest::prelude::*;

use super::*;
use crate::args::{Wish, parse_with};
use crate::cores::Binding;

/// `sockets` sockets of `numas` NUMA nodes of `cores` cores of `threads` hardware threads, numbered as Linux does: the
/// second thread of a core comes after all first ones.
fn machine(sockets: u32, numas: u32, cores: u32, threads: u32) -> Topology {
    let all = sockets * numas * cores;
    let thread = |core: u32, nth: u32| crate::topology::Thread {
        cpu: core + nth * all,
        core,
        numa: core / cores,
        socket: core / cores / numas,
    };
    Topology::of((0..all).flat_map(|core| (0..threads).map(move |nth| thread(core, nth))).collect())
}

fn job(line: &str) -> JobWish {
    let files = |path: &std::path::Path| match path.to_str() {
        Some("ranks") => Ok(b"rank 0=b slot=1:0\nrank 1=a slot=0-1\nrank 2=b\n".to_vec()),
        _ => Ok(b"a:2\nb:4\n".to_vec()),
    };
    match parse_with(line.split_whitespace().map(OsString::from), &files) {
        Ok(Wish::Job(job)) => job,
        other => panic!("{line}: {other:?}"),
    }
}

fn facts(job: &JobWish, topology: &Topology) -> Vec<HostFacts> {
    let wished = crate::hosts::wished(job, &|_| None, &|_| Err(std::io::ErrorKind::NotFound.into())).unwrap();
    let wished = if wished.is_empty() { vec![HostWish::named("here")] } else { wished };
    wished.into_iter().map(|wish| HostFacts { wish, topology: topology.clone(), taken: 0 }).collect()
}

fn placed(line: &str, topology: &Topology) -> Result<Placement, Usage> {
    let job = job(line);
    place(&job, &facts(&job, topology))
}

/// The host of each rank, as letters.
fn hosts_of(line: &str, topology: &Topology) -> String {
    let seats = placed(line, topology).unwrap_or_else(|why| panic!("{line}: {why}")).seats;
    seats.iter().map(|seat| char::from(b'a' + u8::try_from(seat.host).unwrap())).collect()
}

/// The hardware threads of each rank.
fn cpus_of(line: &str, topology: &Topology) -> Vec<Vec<u32>> {
    placed(line, topology).unwrap().seats.into_iter().map(|seat| seat.cpus).collect()
}

/// Which ranks are on which part of which host: `0 1 ! 2 3 | 4 5 ! 6 7`, as in the manuals of Open MPI.
fn drawn(line: &str, topology: &Topology, level: Level) -> String {
    let placement = placed(&format!("--bind-to core {line}"), topology).unwrap();
    let hosts = 1 + placement.seats.iter().map(|seat| seat.host).max().unwrap();
    let of_host = |host: u32| {
        let part = |part: std::ops::Range<usize>| {
            let cpus: Vec<u32> = topology.threads()[part].iter().map(|thread| thread.cpu).collect();
            let here = |seat: &Seat| seat.host == host && cpus.contains(&seat.cpus[0]);
            let ranks = placement.seats.iter().enumerate().filter(|(_, seat)| here(seat));
            ranks.map(|(rank, _)| rank.to_string()).collect::<Vec<_>>().join(" ")
        };
        topology.parts(level).into_iter().map(part).collect::<Vec<_>>().join(" ! ")
    };
    (0..hosts).map(of_host).collect::<Vec<_>>().join(" | ")
}

fn refusal(line: &str, topology: &Topology) -> String {
    placed(line, topology).expect_err(line).to_string()
}

#[test]
fn without_a_number_there_is_a_rank_for_each_core() {
    assert_eq!(hosts_of("prog", &machine(1, 1, 4, 2)), "aaaa");
    assert_eq!(hosts_of("--use-hwthread-cpus prog", &machine(1, 1, 2, 2)), "aaaa");
    assert_eq!(hosts_of("--map-by :PE=2 prog", &machine(1, 1, 4, 1)), "aa");
    assert_eq!(hosts_of("-f hosts prog", &machine(1, 1, 16, 1)), "aabbbb");
    assert_eq!(hosts_of("-H a,b prog", &machine(1, 1, 16, 1)), "ab");
    assert_eq!(hosts_of("-H a:*,b prog", &machine(1, 1, 4, 1)), "aaaab");
    assert_eq!(hosts_of("-hosts a,b -ppn 2 prog", &machine(1, 1, 16, 1)), "aabb");
    assert_eq!(hosts_of("-H a,b --map-by ppr:1:socket prog", &machine(2, 1, 4, 1)), "aabb");
    assert_eq!(hosts_of("prog", &Topology::default()), "a");
}

#[test]
fn slots_are_taken_host_by_host_and_then_again() {
    let big = machine(1, 1, 64, 1);
    assert_eq!(hosts_of("-H a:2,b:3 -n 4 prog", &big), "aabb");
    assert_eq!(hosts_of("-H a:2,b:3 -n 12 prog", &big), "aabbbaabbbaa");
    assert_eq!(hosts_of("-hosts a,b -n 5 prog", &big), "ababa");
    assert_eq!(hosts_of("-H a,b -ppn 2 -n 8 prog", &big), "aabbaabb");
}

#[test]
fn by_node_hosts_take_turns_until_they_are_full() {
    let big = machine(1, 1, 64, 1);
    assert_eq!(hosts_of("-H a:1,b:3,c:2 --map-by node -n 6 prog", &big), "abcbcb");
    assert_eq!(hosts_of("-H a:1,b:3 --map-by node -n 6 prog", &big), "abbbab");
}

#[test]
fn by_node_and_by_slot_can_be_numbered_the_other_way() {
    let big = machine(1, 1, 64, 1);
    assert_eq!(hosts_of("-H a:2,b:2 --map-by node --rank-by slot -n 4 prog", &big), "aabb");
    assert_eq!(hosts_of("-H a:2,b:2 --map-by slot --rank-by node -n 4 prog", &big), "abab");
}

#[test]
fn by_socket_ranks_are_numbered_as_the_manual_of_open_mpi_draws_it() {
    let two = machine(2, 1, 2, 1);
    let drawn = |rank_by: &str| {
        drawn(&format!("-H a:4,b:4 --map-by socket {rank_by} -n 8 prog"), &two, Level::Socket)
    };
    assert_eq!(drawn("--rank-by core"), "0 1 ! 2 3 | 4 5 ! 6 7");
    assert_eq!(drawn("--rank-by socket"), "0 2 ! 1 3 | 4 6 ! 5 7");
    assert_eq!(drawn("--rank-by socket:span"), "0 4 ! 1 5 | 2 6 ! 3 7");
    assert_eq!(drawn(""), "0 2 ! 1 3 | 4 6 ! 5 7");
}

#[test]
fn by_socket_ranks_are_numbered_as_open_mpi_5_does_it() {
    let two = machine(2, 1, 2, 1);
    // What `--display map --do-not-launch` of Open MPI 5.0.11 shows for two simulated hosts like this.
    for (options, picture) in [
        ("--map-by package --rank-by fill -n 8", "0 1 ! 2 3 | 4 5 ! 6 7"),
        ("--map-by package --rank-by slot -n 8", "0 2 ! 1 3 | 4 6 ! 5 7"),
        ("--map-by package --rank-by node -n 8", "0 4 ! 2 6 | 1 5 ! 3 7"),
        ("--map-by package --rank-by span -n 8", "0 4 ! 1 5 | 2 6 ! 3 7"),
        ("--map-by package:span -n 4", "0 ! 1 | 2 ! 3"),
        ("--map-by core -n 8", "0 1 ! 2 3 | 4 5 ! 6 7"),
        ("--map-by node -n 8", "0 2 ! 4 6 | 1 3 ! 5 7"),
        ("--map-by slot -n 8", "0 1 ! 2 3 | 4 5 ! 6 7"),
        ("--map-by ppr:2:package -n 8", "0 1 ! 2 3 | 4 5 ! 6 7"),
        ("-n 8", "0 1 ! 2 3 | 4 5 ! 6 7"),
    ] {
        assert_eq!(drawn(&format!("-H a:4,b:4 {options} prog"), &two, Level::Socket), picture, "{options}");
    }
}

#[test]
fn with_span_all_hosts_are_one() {
    let two = machine(2, 1, 2, 1);
    let line = |span: &str| format!("-H a:4,b:4 --map-by socket{span} -n 4 prog");
    assert_eq!(drawn(&line(":SPAN"), &two, Level::Socket), "0 ! 1 | 2 ! 3");
    assert_eq!(drawn(&line(""), &two, Level::Socket), "0 2 ! 1 3");
}

#[test]
fn so_many_for_each_part_fill_one_part_after_the_other() {
    let two = machine(2, 1, 4, 1);
    let line = "-H a,b --map-by ppr:2:socket -n 7 prog";
    assert_eq!(drawn(line, &two, Level::Socket), "0 1 ! 2 3 | 4 5 ! 6");
    assert_eq!(hosts_of("-H a,b --npersocket 1 -n 6 prog", &two), "aabbaa");
}

#[test]
fn parts_of_the_line_go_on_where_the_one_before_has_stopped() {
    let big = machine(1, 1, 64, 1);
    assert_eq!(hosts_of("-hosts a:2,b:2 -n 1 one : -n 2 two : -n 2 three", &big), "aabba");
    assert_eq!(hosts_of("-hosts a,b,c --map-by node -n 2 one : -n 2 two", &big), "abca");
    assert_eq!(hosts_of("-n 2 -H a,b one : -n 2 -H b two", &big), "abbb");
    let seats = placed("-n 2 -H a,b one : -n 2 -H b two", &big).unwrap().seats;
    let seen: Vec<_> = seats.iter().map(|seat| (seat.block, seat.local)).collect();
    assert_eq!(seen, [(0, 0), (0, 0), (1, 1), (1, 2)]);
}

#[test]
fn a_part_without_hosts_uses_those_of_the_others() {
    let big = machine(1, 1, 64, 1);
    assert_eq!(hosts_of("-n 1 -H a one : -n 2 -H b:2 two : -n 3 three", &big), "abbabb");
    assert_eq!(hosts_of("-hosts c -n 1 -H a one : -n 2 two", &big), "baa");
}

#[test]
fn the_first_host_of_a_rank_map_is_number_nought() {
    let big = machine(1, 1, 64, 1);
    assert_eq!(hosts_of("-hosts a,b -rankmap 0,1,1,0 prog", &big), "abba");
    assert_eq!(hosts_of("-hosts a,b -rankmap 0,1,1 -n 1 one : -n 2 two", &big), "abb");
    assert!(refusal("-hosts a,b -rankmap 0,2 prog", &big).contains("only 2"));
    assert!(refusal("-hosts a,b -rankmap 0,1 -n 4 prog", &big).contains("places for 2"));
}

#[test]
fn a_rank_file_says_host_and_cores() {
    let two = machine(2, 1, 2, 2);
    let placement = placed("-H a,b --rankfile ranks prog", &two).unwrap();
    let seats: Vec<_> =
        placement.seats.iter().map(|seat| (seat.host, seat.local, seat.cpus.clone())).collect();
    assert_eq!(seats, [(1, 0, vec![2, 6]), (0, 0, vec![0, 1, 4, 5]), (1, 1, vec![])]);
    assert_eq!(hosts_of("--rankfile ranks prog", &two), "aba");
    assert!(refusal("-H a --rankfile ranks prog", &two).contains("the host b is not among"));
    assert!(refusal("-H a,b --rankfile ranks prog", &machine(1, 1, 2, 1)).contains("no socket 1"));
}

#[test]
fn every_rank_gets_an_even_share_and_no_core_is_left_over() {
    assert_eq!(cpus_of("-n 2 prog", &Topology::flat(4)), [[0, 1], [2, 3]]);
    assert_eq!(cpus_of("-n 2 prog", &Topology::flat(3)), [vec![0], vec![1, 2]]);
    assert_eq!(cpus_of("-n 2 prog", &machine(1, 1, 2, 2)), [[0, 2], [1, 3]]);
    for ranks in 2..=12 {
        let cpus = cpus_of(&format!("-n {ranks} prog"), &machine(2, 1, 3, 2));
        let mut all: Vec<u32> = cpus.into_iter().flatten().collect();
        all.sort_unstable();
        assert_eq!(all, (0..12).collect::<Vec<_>>(), "{ranks}");
    }
}

#[test]
fn nobody_is_confined_alone_or_in_a_crowd_or_unasked() {
    assert_eq!(cpus_of("-n 1 prog", &Topology::flat(2)), vec![Vec::<u32>::new(); 1]);
    assert_eq!(cpus_of("-n 3 prog", &Topology::flat(2)), vec![Vec::<u32>::new(); 3]);
    assert_eq!(cpus_of("-n 2 --bind-to none prog", &Topology::flat(2)), vec![Vec::<u32>::new(); 2]);
    assert_eq!(cpus_of("-n 2 prog", &Topology::default()), vec![Vec::<u32>::new(); 2]);
}

#[test]
fn one_core_each_is_the_first_of_the_share_unless_cores_are_mapped_by() {
    let flat = Topology::flat(4);
    assert_eq!(cpus_of("-n 2 --bind-to core prog", &flat), [[0], [2]]);
    assert_eq!(cpus_of("-n 2 --bind-to core --map-by core prog", &flat), [[0], [1]]);
    assert_eq!(cpus_of("-n 2 --bind-to core --map-by slot prog", &flat), [[0], [1]]);
    assert_eq!(cpus_of("-n 2 --bind-to hwthread prog", &machine(1, 1, 2, 2)), [[0], [1]]);
    assert_eq!(cpus_of("-n 1 --bind-to core prog", &machine(1, 1, 2, 2)), [[0, 2]]);
}

#[test]
fn cores_for_each_rank_are_consecutive() {
    assert_eq!(cpus_of("-n 2 --map-by slot:PE=3 prog", &Topology::flat(8)), [[0, 1, 2], [3, 4, 5]]);
    assert_eq!(cpus_of("-n 2 --map-by socket:PE=2 prog", &machine(2, 1, 4, 1)), [[0, 1], [4, 5]]);
    assert_eq!(cpus_of("-n 2 --bind-to core:2 prog", &Topology::flat(8)), [[0, 1], [2, 3]]);
}

#[test]
fn a_rank_may_have_all_of_its_socket_or_numa_node() {
    let four = machine(2, 2, 2, 1);
    assert_eq!(cpus_of("-n 2 --map-by socket --bind-to socket prog", &four), [[0, 1, 2, 3], [4, 5, 6, 7]]);
    assert_eq!(cpus_of("-n 2 --map-by socket --bind-to numa prog", &four), [[0, 1], [4, 5]]);
    assert_eq!(cpus_of("-n 2 --map-by numa prog", &four), [[0, 1], [2, 3]]);
    let crowd = cpus_of("-n 20 --map-by socket --bind-to numa prog", &four);
    assert!(crowd.iter().all(|cpus| cpus.len() == 2));
}

#[test]
fn more_ranks_than_slots_are_remarked_on_once() {
    let remarks = |line: &str| placed(line, &Topology::flat(4)).unwrap().remarks;
    assert_eq!(
        remarks("-H a:2,b:2,c:2 -n 9 prog"),
        ["a gets 3 ranks and has 2 slots, and 2 other hosts have too many; if it is meant, --oversubscribe says so"]
            .map(|line| line.replace("3 ranks", "4 ranks").replace("2 other hosts have", "one other host has"))
    );
    assert_eq!(remarks("-H a:2 --oversubscribe -n 3 prog"), [""; 0]);
    assert_eq!(remarks("-hosts a,b -n 8 prog"), [""; 0]);
    assert_eq!(remarks("-hosts a,b -n 9 prog").len(), 1);
    assert_eq!(remarks("-n 64 prog"), [""; 0]);
    assert!(remarks("-n 64 --bind-to core prog")[0].contains("not bound"));
}

#[test]
fn more_ranks_than_slots_are_refused_where_that_is_asked_for() {
    let flat = Topology::flat(4);
    assert!(refusal("--nooversubscribe -n 5 prog", &flat).contains("here gets 5 ranks and has 4 cores"));
    assert!(refusal("--map-by :nooversubscribe -H a,b -n 3 prog", &flat).contains("has 1 slot;"));
    assert_eq!(hosts_of("--nooversubscribe -H a:2,b -n 3 prog", &flat), "aab");
}

#[test]
fn max_slots_are_never_exceeded() {
    let limited = |slots, max| HostWish { slots, max_slots: Some(max), ..HostWish::named("a") };
    let place_on = |ranks: u32, hosts: Vec<HostWish>| {
        let job = job(&format!("-n {ranks} prog"));
        let facts = |wish| HostFacts { wish, topology: Topology::flat(8), taken: 0 };
        place(&job, &hosts.into_iter().map(facts).collect::<Vec<_>>())
    };
    let hosts =
        || vec![limited(Slots::Stated(2), 3), HostWish { slots: Slots::Stated(1), ..HostWish::named("b") }];
    let seats = place_on(8, hosts()).unwrap().seats;
    assert_eq!(seats.iter().filter(|seat| seat.host == 0).count(), 3);
    let why = place_on(4, vec![limited(Slots::Cores, 3)]).unwrap_err().to_string();
    assert!(why.contains("max_slots"), "{why}");
}

prop_compose! {
    fn any_line()(
        ranks in 1_u32..60,
        slots in proptest::collection::vec(1_u32..6, 1..5),
        map in prop_oneof![
            Just(""), Just("--map-by slot"), Just("--map-by node"), Just("--map-by socket"), Just("--map-by core"),
            Just("--map-by numa:SPAN"), Just("--map-by hwthread"), Just("--map-by ppr:2:numa"), Just("-ppn 3"),
            Just("--map-by socket:PE=2"), Just("--map-by :HWTCPUS")],
        rank_by in prop_oneof![
            Just(""), Just("--rank-by slot"), Just("--rank-by node"), Just("--rank-by core"), Just("--rank-by numa"),
            Just("--rank-by socket:span"), Just("--rank-by hwthread"), Just("--rank-by fill"), Just("--rank-by span")],
        bind in prop_oneof![Just("share"), Just("none"), Just("core"), Just("hwthread"), Just("numa"), Just("socket")],
    ) -> (u32, Vec<u32>, String) {
        let hosts: Vec<String> = (0..).zip(&slots).map(|(at, slots)| format!("h{at}:{slots}")).collect();
        (ranks, slots, format!("-H {} {map} {rank_by} --bind-to {bind} -n {ranks} prog", hosts.join(",")))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_rank_has_one_seat_and_the_seats_of_a_host_are_counted_through(
        (ranks, _, line) in any_line(),
        (sockets, numas, cores, threads) in (1_u32..3, 1_u32..3, 1_u32..4, 1_u32..3),
    ) {
        let topology = machine(sockets, numas, cores, threads);
        let seats = placed(&line, &topology).unwrap().seats;
        prop_assert_eq!(seats.len(), ranks as usize);
        let hosts = seats.iter().map(|seat| seat.host).max().unwrap();
        for host in 0..=hosts {
            let locals = seats.iter().filter(|seat| seat.host == host).map(|seat| seat.local);
            prop_assert!(locals.enumerate().all(|(nth, local)| nth == local as usize));
        }
        let known: Vec<u32> = topology.threads().iter().map(|thread| thread.cpu).collect();
        prop_assert!(seats.iter().flat_map(|seat| &seat.cpus).all(|cpu| known.contains(cpu)));
    }

    #[test]
    fn no_host_is_past_its_slots_before_all_are_full((ranks, slots, line) in any_line()) {
        prop_assume!(!line.contains("ppr") && !line.contains("-ppn"));
        let seats = placed(&line, &machine(2, 2, 2, 2)).unwrap().seats;
        let on = |host: u32| u32::try_from(seats.iter().filter(|seat| seat.host == host).count()).unwrap();
        let rounds = ranks / slots.iter().sum::<u32>();
        for (host, slots) in (0..).zip(slots) {
            prop_assert!((rounds * slots..=(rounds + 1) * slots).contains(&on(host)), "{}: {}", host, on(host));
        }
    }

    #[test]
    fn numbering_moves_ranks_and_no_seat((_, _, line) in any_line()) {
        let topology = machine(2, 2, 2, 2);
        let (before, after) = line.split_once("--bind-to").unwrap();
        let before = before.split("--rank-by").next().unwrap();
        let mut plain = placed(&format!("{before} --bind-to {after}"), &topology).unwrap().seats;
        let mut numbered = placed(&line, &topology).unwrap().seats;
        for seats in [&mut plain, &mut numbered] {
            seats.iter_mut().for_each(|seat| seat.local = 0);
            seats.sort_by(|a, b| (a.host, &a.cpus).cmp(&(b.host, &b.cpus)));
        }
        prop_assert_eq!(plain, numbered);
    }

    #[test]
    fn ranks_with_cores_of_their_own_share_none((_, _, line) in any_line()) {
        let topology = machine(2, 2, 4, 2);
        let job = job(&line);
        prop_assume!(matches!(job.binding, Binding::Share | Binding::Core | Binding::Thread));
        let seats = place(&job, &facts(&job, &topology)).unwrap().seats;
        for host in 0..5 {
            let here = || seats.iter().filter(|seat| seat.host == host);
            if here().count() > 8 || job.map_by.span {
                continue;
            }
            let mut cpus: Vec<u32> = here().flat_map(|seat| seat.cpus.clone()).collect();
            let count = cpus.len();
            cpus.sort_unstable();
            cpus.dedup();
            prop_assert_eq!(count, cpus.len(), "{}", line);
        }
    }
}
