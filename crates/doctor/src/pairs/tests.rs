//! Meetings of ranks that are threads, over a launcher's store in memory and roads that are there or not.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use selvedge_boot::{Job, NodeMap, Server};
use selvedge_shm::{Config, Joined, Segment, Shm};

use super::*;
use crate::check::Verdict;

/// Runs `rank` in as many threads as there are hosts in the list, each with its line to a PMI server.
fn job<R: Send>(hosts: &[&str], rank: impl Fn(&mut Boot, HostId) -> R + Sync) -> Vec<R> {
    let size = hosts.len() as u32;
    let map = NodeMap::one_node(size);
    let job = Job::new("doctor-test".into(), vec![0; hosts.len()], map);
    let server = Mutex::new(Server::new(job));
    let lines: Vec<_> = hosts.iter().map(|_| UnixStream::pair().expect("a pair of sockets")).collect();
    let theirs: Vec<_> = lines.iter().map(|(there, _)| there.try_clone().expect("a descriptor")).collect();
    thread::scope(|scope| {
        let (server, theirs, rank) = (&server, &theirs, &rank);
        for (number, (mut there, _)) in
            lines.iter().map(|(a, b)| (a.try_clone().expect("a descriptor"), b)).enumerate()
        {
            scope.spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(count @ 1..) = there.read(&mut bytes) {
                    let mut server = server.lock().expect("no panic");
                    server.handle_bytes(number as u32, &bytes[..count]);
                    while let Some(output) = server.poll_output() {
                        (&theirs[output.rank as usize]).write_all(&output.bytes).expect("a rank listens");
                    }
                }
            });
        }
        let ranks: Vec<_> = lines
            .into_iter()
            .zip(hosts)
            .enumerate()
            .map(|(number, ((_, here), host))| {
                scope.spawn(move || {
                    let mut boot = Boot::over(here, number as u32, size).expect("a server answers");
                    let host = HostId { key: host.to_string(), name: host.to_string() };
                    rank(&mut boot, host)
                })
            })
            .collect();
        let results = ranks.into_iter().map(|rank| rank.join().expect("no panic")).collect();
        for there in theirs {
            let _ = there.shutdown(std::net::Shutdown::Both);
        }
        results
    })
}

/// Roads over shared memory that pretend to lead somewhere.
struct Pretended<'a> {
    seats: &'a Mutex<Vec<Option<Joined>>>,
    me: usize,
    counted: bool,
    mute: bool,
}

impl Links for Pretended<'_> {
    type Road = Shm;

    fn open(&mut self, me: Peer) -> (Vec<Offered>, Vec<Refused>) {
        self.me = me.index();
        let offered = Offered {
            road: "shm".into(),
            counted: self.counted,
            nics: vec!["card0".into()],
            card: Vec::new(),
        };
        let refused = Refused {
            provider: "efa".into(),
            nic: None,
            reason: "there is none".into(),
            remedy: "buy one".into(),
        };
        (vec![offered], vec![refused])
    }

    fn connect(&mut self, _road: &str, _cards: Vec<Vec<u8>>) -> Result<Shm, String> {
        if self.mute {
            return Err("the card caught fire".to_owned());
        }
        let joined = self.seats.lock().expect("no panic")[self.me].take().expect("opened once");
        joined.open().map_err(|fault| fault.words())
    }

    fn counters(&self) -> Tree {
        Tree::new("/nowhere")
    }
}

/// What rank 0 says of a job on these hosts; `mute` names one whose road does not open.
fn report(hosts: &[&str], counted: bool, mute: Option<&str>) -> Meeting {
    let distinct: std::collections::BTreeSet<_> = hosts.iter().collect();
    let segment = Arc::new(Segment::create(distinct.len() as u32, &Config::default()).expect("memory"));
    let seat = |peer: usize| Some(segment.join(Peer(peer as u32)).expect("a free seat"));
    let seats = Mutex::new((0..distinct.len()).map(seat).collect());
    let said = job(hosts, |boot, host| {
        let mute = mute == Some(host.name.as_str());
        let mut links = Pretended { seats: &seats, me: 0, counted, mute };
        meet(boot, &host, &mut links, Duration::from_secs(2)).expect("the store works")
    });
    said.into_iter().flatten().next().expect("rank 0 tells")
}

#[test]
fn every_pair_of_hosts_is_measured_once_and_one_rank_speaks_for_each() {
    let meeting = report(&["ant", "ant", "bee", "cat", "bee"], false, None);
    assert_eq!(meeting.hosts, ["ant", "bee", "cat"]);
    assert_eq!((meeting.roads.as_slice(), meeting.verdict), (&["shm".to_owned()][..], Verdict::Pass));
    let pairs: Vec<_> = meeting.pairs.iter().map(|p| (p.one.as_str(), p.other.as_str())).collect();
    assert_eq!(pairs, [("ant", "bee"), ("ant", "cat"), ("bee", "cat")]);
    assert!(
        meeting
            .pairs
            .iter()
            .all(|p| p.small_us > Some(0.0) && p.there_mb_s > Some(0.0) && p.back_mb_s > Some(0.0))
    );
    let table = meeting.table(false);
    assert!(
        table.contains("pass  shm         ant <-> bee") && table.contains("cat has no efa: there is none"),
        "{table}"
    );
}

#[test]
fn one_host_has_nobody_to_talk_with_and_that_is_no_pass() {
    let meeting = report(&["ant", "ant"], false, None);
    assert_eq!((meeting.verdict, meeting.pairs.len()), (Verdict::Fail, 0));
    assert!(meeting.table(false).contains("SELVEDGE_HOST"));
}

#[test]
fn counters_that_cannot_be_read_are_a_warning_on_a_road_that_should_have_them() {
    let meeting = report(&["ant", "bee"], true, None);
    assert_eq!(meeting.verdict, Verdict::Warn);
    assert!(meeting.pairs[0].evidence.contains("cannot be read"), "{:?}", meeting.pairs[0]);
}

#[test]
fn a_host_that_cannot_speak_is_told_by_both_and_the_others_go_on() {
    let meeting = report(&["ant", "bee"], true, Some("bee"));
    let pair = &meeting.pairs[0];
    assert_eq!(pair.verdict, Verdict::Fail);
    assert!(pair.evidence.contains("bee: the card caught fire"), "{pair:?}");
    assert!(pair.remedy.is_some());
}

mod judged {
    use super::super::verdict::judge;
    use super::*;

    const MEASURED: Measured =
        Measured { small_us: 10.0, incoming_mb_s: 900.0, bytes_sent: 9 << 20, bytes_received: 9 << 20 };

    fn half(other: usize, outcome: Outcome, counted: Option<(u64, u64)>) -> Half {
        let counted = counted.map(|(sent, received)| Counted { sent, received, read: 0 });
        Half { road: 0, other, outcome, counted }
    }

    fn judged(near: Half, far: Half) -> PairReport {
        let hosts = vec!["ant".to_owned(), "bee".to_owned()];
        let meeting = judge(
            hosts,
            vec!["efa".into()],
            vec![true],
            &[vec![near], vec![far]],
            vec![Vec::new(), Vec::new()],
        );
        meeting.pairs.into_iter().next().expect("one pair")
    }

    #[test]
    fn bytes_that_passed_the_cards_are_proof() {
        let all = Some((10 << 20, 10 << 20));
        let pair =
            judged(half(1, Outcome::Measured(MEASURED), all), half(0, Outcome::Measured(MEASURED), all));
        assert_eq!((pair.verdict, pair.remedy), (Verdict::Pass, None));
        assert_eq!(pair.evidence, "ant's cards: 10 MiB out, 10 MiB in; bee's cards: 10 MiB out, 10 MiB in");
    }

    #[test]
    fn bytes_that_took_another_way_are_a_failure_however_fast_they_were() {
        let (all, few) = (Some((10 << 20, 10 << 20)), Some((4096, 10 << 20)));
        let pair =
            judged(half(1, Outcome::Measured(MEASURED), all), half(0, Outcome::Measured(MEASURED), few));
        assert_eq!(pair.verdict, Verdict::Fail);
        assert!(
            pair.evidence.contains("bee's cards: 4 KiB out") && pair.evidence.contains("9 MiB went out"),
            "{pair:?}"
        );
    }

    #[test]
    fn silence_names_the_direction_and_the_rule_of_security_groups() {
        let pair = judged(
            half(1, Outcome::Silence(10_000, false), Some((100, 0))),
            half(0, Outcome::Silence(10_000, true), Some((100, 100))),
        );
        assert_eq!(pair.verdict, Verdict::Fail);
        assert_eq!(
            pair.evidence,
            "ant heard nothing ever from bee within 10.0 s (its cards meanwhile: 100 B out, 0 B in); bee heard nothing more \
             from ant within 10.0 s (its cards meanwhile: 100 B out, 100 B in)"
        );
        assert!(pair.remedy.is_some_and(|remedy| remedy.contains("authorize-security-group-egress")));
    }

    #[test]
    fn packets_that_reach_the_card_and_not_the_program_are_not_the_networks_fault() {
        let lost = || Outcome::Silence(10_000, false);
        let pair = judged(half(1, lost(), Some((100, 200))), half(0, lost(), Some((200, 100))));
        assert!(pair.remedy.is_some_and(|remedy| remedy.contains("SELVEDGE_LIBFABRIC")));
    }
}
