//! Ranks that are processes: the suite of the contract on every road of every libfabric, EFA on software devices with faults
//! and without; and ranks that are killed.
//!
//! A rank is this test's own executable, told by its environment whom to be. It speaks with the test by lines, those that
//! begin with [`MARK`]; whatever else it prints goes the same pipe.

mod common;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use common::Devices;
use common::Origin::{self, Distribution, Intel, Wheel};
use rustix::process::{Pid, Signal, kill_process};
use selvedge_ofi::Provider::{self, Efa, EfaDirect, Tcp};
use selvedge_ofi::{Ofi, Opening};
use selvedge_transport::conformance::{CASES, Gathering, Group, Harness, Program, drive_alone};
use selvedge_transport::{Buf, Cause, Event, Memory, Peer, RemoteSlice, Scope, Slot, Token, Transport};

/// The longest that a case may take; the machine may be doing other things.
const PATIENCE: Duration = Duration::from_secs(90);

const MARK: char = '@';

/// Most ranks in a case of the suite; those with fewer leave the others out.
const RANKS: usize = 5;

/// Where ranks meet.
#[derive(Clone, Copy, Debug)]
struct Road {
    origin: Origin,
    provider: Provider,
    devices: Devices,
}

impl Road {
    fn new(origin: Origin, provider: Provider) -> Road {
        Road { origin, provider, devices: Devices { each: 1, has_faults: false, cut: None } }
    }

    fn with_faults(self) -> Road {
        Road { devices: Devices { has_faults: true, ..self.devices }, ..self }
    }

    fn with_devices(self, each: usize) -> Road {
        Road { devices: Devices { each, ..self.devices }, ..self }
    }

    /// For the environment of a rank.
    fn words(self) -> String {
        format!("{:?} {}", self.origin, self.provider)
    }

    fn of_words(words: &str) -> Road {
        let (origin, provider) = words.split_once(' ').expect("two words");
        let mut all = [Origin::Distribution, Origin::Wheel, Origin::Intel].into_iter();
        let origin = all.find(|known| format!("{known:?}") == origin).expect("an origin");
        Road::new(origin, provider.parse().expect("a provider"))
    }

    fn command(self, rank: usize) -> Command {
        let own = std::env::current_exe().expect("our own path");
        match self.provider {
            Tcp => Command::new(own),
            _ => common::on_software_devices(rank, self.devices, own),
        }
    }
}

/// One test for each road.
macro_rules! every_promise_holds {
    ($($name:ident: $road:expr;)*) => {
        $(#[test]
        fn $name() {
            suite($road);
        })*
    };
}

every_promise_holds! {
    every_promise_holds_on_tcp_of_the_distribution: Road::new(Distribution, Tcp);
    every_promise_holds_on_tcp_of_a_wheel: Road::new(Wheel, Tcp);
    every_promise_holds_on_efa_of_the_distribution: Road::new(Distribution, Efa);
    every_promise_holds_on_efa_of_a_wheel: Road::new(Wheel, Efa);
    every_promise_holds_on_efa_direct_of_a_wheel: Road::new(Wheel, EfaDirect);
    every_promise_holds_on_faulty_efa_of_the_distribution: Road::new(Distribution, Efa).with_faults();
    every_promise_holds_on_faulty_efa_of_a_wheel: Road::new(Wheel, Efa).with_faults();
    every_promise_holds_on_faulty_efa_direct_of_a_wheel: Road::new(Wheel, EfaDirect).with_faults();
    every_promise_holds_on_two_devices_of_efa: Road::new(Wheel, Efa).with_devices(2);
    every_promise_holds_on_four_faulty_devices_of_efa_direct:
        Road::new(Wheel, EfaDirect).with_devices(4).with_faults();
}

#[cfg(target_arch = "x86_64")]
every_promise_holds! {
    every_promise_holds_on_tcp_of_intel: Road::new(Intel, Tcp);
    every_promise_holds_on_efa_of_intel: Road::new(Intel, Efa);
    every_promise_holds_on_efa_direct_of_intel: Road::new(Intel, EfaDirect);
}

/// All cases, one after the other. On TCP in the same processes, because libfabric takes longer to load than a case; after one in
/// which a rank ends, and on devices, in new ones.
fn suite(road: Road) {
    let _turn = side_by_side();
    // One case alone, for whoever looks for the reason of a failure.
    let only = std::env::var("SELVEDGE_OFI_CASE").ok();
    let mut under_way = None;
    for case in CASES.iter().filter(|case| only.as_ref().is_none_or(|only| only == case.name)) {
        let start = Instant::now();
        let job = under_way.get_or_insert_with(|| Job::start("cases", RANKS, road));
        if job.run_case(case.name) || road.provider.is_efa() {
            under_way.take().expect("it is").end(case.name);
        }
        println!("{:?} {}: {:.2} s", road.provider, case.name, start.elapsed().as_secs_f64());
    }
    if let Some(job) = under_way {
        job.end("the last case");
    }
}

/// Whose test it is. Some look at the clock, or at what the machine is left with: they are alone. The suites wait more than
/// they compute, for packets that were lost to be sent again: they run side by side, as many as there are test threads.
static TURN: RwLock<()> = RwLock::new(());

/// A test with processes is under way. What its devices have counted goes with it.
struct Turn<Guard>(Guard);

fn alone() -> Turn<RwLockWriteGuard<'static, ()>> {
    Turn(TURN.write().unwrap_or_else(PoisonError::into_inner))
}

fn side_by_side() -> Turn<RwLockReadGuard<'static, ()>> {
    Turn(TURN.read().unwrap_or_else(PoisonError::into_inner))
}

impl<Guard> Drop for Turn<Guard> {
    fn drop(&mut self) {
        common::forget_counters();
    }
}

#[test]
fn a_rank_that_is_killed_is_missed_within_half_a_second_by_those_that_wait() {
    let _turn = alone();
    for origin in [Distribution, Wheel] {
        for provider in [Tcp, Efa, EfaDirect] {
            if origin == Distribution && provider == EfaDirect {
                continue;
            }
            let road = Road::new(origin, provider);
            let mut job = Job::start("wait for a death", 3, road);
            let mut ready = 0;
            while ready < 3 {
                let (rank, line) = job.next().expect("all three get ready");
                ready += usize::from(line == "ready");
                job.serve(rank, &line);
            }
            job.kill(2);
            let killed = Instant::now();
            let mut told = Vec::new();
            while told.len() < 2 {
                let (rank, line) = job.next().expect("the survivors tell");
                if line.starts_with("missing 2") {
                    told.push(rank);
                    println!("{road:?}: rank {rank} says so after {:?}: {line}", killed.elapsed());
                }
            }
            let took = killed.elapsed();
            assert!(took < Duration::from_millis(500), "{road:?}: told after {took:?}");
            job.kill(0);
            job.kill(1);
            drop(job);
            let left = common::segments_left();
            // 1.17 can be kept from it by a variable only.
            assert!(origin == Distribution || left.is_empty(), "{road:?}: left behind: {left:?}");
            for segment in left {
                std::fs::remove_file(segment).expect("it is ours");
            }
        }
    }
}

#[test]
fn a_read_of_memory_that_is_not_open_any_more_is_denied_by_the_device() {
    let _turn = alone();
    // Of 2.x. That of 1.17 does small reads by itself, without looking at the key, and dies of memory that is not there; on
    // tcp a read that is refused breaks the connection.
    for provider in [Efa, EfaDirect] {
        let road = Road::new(Wheel, provider);
        let mut job = Job::start("read what is closed", 2, road);
        let mut said = None;
        while let Some((rank, line)) = job.next() {
            said = line.strip_prefix("failed ").map(str::to_string).or(said);
            job.serve(rank, &line);
        }
        let said = said.expect("rank 0 tells how it ended");
        assert!(said.contains("Denied"), "{road:?}: {said}");
        job.end("read what is closed");
    }
}

#[test]
fn a_buffer_that_is_read_into_again_and_again_is_registered_once() {
    let _turn = alone();
    let road = Road::new(Wheel, EfaDirect);
    let mut job = Job::start("read again", 2, road);
    let mut said = None;
    while let Some((rank, line)) = job.next() {
        said = line.strip_prefix("registrations ").map(str::to_string).or(said);
        job.serve(rank, &line);
    }
    assert_eq!(said.as_deref(), Some("99 1"), "hits and misses of a hundred reads");
    job.end("read again");
}

#[test]
fn large_memory_is_read_over_several_devices() {
    let _turn = alone();
    common::take_counters("rdma_read_bytes");
    let said = read_much(Road::new(Wheel, EfaDirect).with_devices(4));
    assert!(said.iter().all(|line| !line.starts_with("told")), "{said:?}");
    let read = common::take_counters("rdma_read_bytes");
    let all: u64 = read.iter().map(|(_, bytes)| bytes).sum();
    assert!(read.len() == 4 && read.iter().all(|(_, bytes)| *bytes > all / 10), "{read:?}");
}

#[test]
fn a_device_whose_link_dies_is_left_and_the_reads_go_on() {
    let _turn = alone();
    for provider in [Efa, EfaDirect] {
        let road = Road::new(Wheel, provider).with_devices(4);
        // Neither's home: rank 0 is at home on device 0, rank 1 on device 1.
        let devices = Devices { cut: Some("127.77.0.1/2@700"), ..road.devices };
        let said = read_much(Road { devices, ..road });
        assert!(said.iter().any(|line| line.contains("go by other rails")), "{provider}: {said:?}");
        println!("{provider}: {said:?}");
    }
}

#[test]
fn packets_take_another_device_when_home_dies_and_each_arrives_once() {
    let _turn = alone();
    let on = |origin, provider, each| Road::new(origin, provider).with_devices(each);
    let roads = [
        on(Distribution, Efa, 2),
        on(Wheel, Efa, 4),
        on(Wheel, EfaDirect, 2),
        on(Wheel, EfaDirect, 4).with_faults(),
    ];
    // Rank 0 is at home on device 0, rank 1 on device 1.
    for (road, home) in roads.into_iter().zip(["127.77.0.1/0@700", "127.77.0.2/1@700"].into_iter().cycle()) {
        let devices = Devices { cut: Some(home), ..road.devices };
        let said = said_in("talk much", Road { devices, ..road });
        println!("{road:?}, {home}: {said:?}");
        // Each sends, so each finds out, and has something to say after that as well.
        let told = said.iter().filter(|line| line.starts_with("told") && line.contains("rail 0 of"));
        assert!(told.count() >= 2, "{road:?}: {said:?}");
        assert_eq!(said.iter().filter(|line| line.starts_with("talked")).count(), 2, "{road:?}: {said:?}");
    }
}

/// Rank 0 reads several megabytes of rank 1 for some seconds and checks every byte. What it says meanwhile.
fn read_much(road: Road) -> Vec<String> {
    said_in("read much", road)
}

/// What two ranks of a role say of what they did, and of what they were told.
fn said_in(role: &'static str, road: Road) -> Vec<String> {
    let mut job = Job::start(role, 2, road);
    let mut said = Vec::new();
    while let Some((rank, line)) = job.next() {
        job.serve(rank, &line);
        if ["told", "read", "talked"].iter().any(|word| line.starts_with(word)) {
            said.push(line);
        }
    }
    job.end(role);
    said
}

#[test]
fn a_rank_that_waits_for_long_costs_next_to_nothing() {
    let _turn = alone();
    for provider in [Tcp, EfaDirect] {
        let road = Road::new(Wheel, provider);
        let mut job = Job::start("wait for two seconds", 2, road);
        let mut spent = Vec::new();
        while let Some((rank, line)) = job.next() {
            spent.extend(line.strip_prefix("spent ").map(|ms| ms.parse::<u64>().expect("a number")));
            job.serve(rank, &line);
        }
        // A rank that could not even begin has said why, and has spent nothing.
        job.end("wait for two seconds");
        println!("{provider}: milliseconds of processor time in two seconds: {spent:?}");
        assert_eq!(spent.len(), 2, "{provider}: each says what it has spent");
        assert!(spent.iter().all(|&ms| ms < 60), "{provider}: {spent:?} ms in two seconds");
    }
}

/// The ranks of one test, and what they say.
struct Job {
    ranks: Vec<Child>,
    /// Of the ranks themselves, which may have been started by something else.
    pids: Vec<Option<Pid>>,
    lines: Receiver<(usize, String)>,
    /// Those that will say no more.
    over: usize,
    group: Group,
    cards: Vec<Option<String>>,
    ended: usize,
}

impl Job {
    fn start(role: &str, ranks: usize, road: Road) -> Job {
        let (sender, lines) = channel();
        let children = (0..ranks).map(|rank| {
            let mut child = road
                .command(rank)
                .args(["--exact", "a_rank_of_another_test", "--nocapture"])
                .env("SELVEDGE_OFI_ROLE", role)
                .env("SELVEDGE_OFI_RANK", rank.to_string())
                .env("SELVEDGE_OFI_ROAD", road.words())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("a process");
            let (sender, stdout) = (sender.clone(), BufReader::new(child.stdout.take().expect("piped")));
            std::thread::spawn(move || {
                for line in stdout.lines().map_while(Result::ok) {
                    if let Some((_, line)) = line.split_once(MARK) {
                        // Who no longer listens has seen enough.
                        let _ = sender.send((rank, line.to_string()));
                    }
                }
                let _ = sender.send((rank, String::new()));
            });
            child
        });
        Job {
            ranks: children.collect(),
            pids: vec![None; ranks],
            lines,
            over: 0,
            group: Group::of(0),
            cards: Vec::new(),
            ended: 0,
        }
    }

    /// The next line that a rank says; `None` when all are over.
    fn next(&mut self) -> Option<(usize, String)> {
        while self.over < self.ranks.len() {
            let (rank, line) = self.lines.recv_timeout(2 * PATIENCE).expect("ranks say something or end");
            if !line.is_empty() {
                return Some((rank, line));
            }
            self.over += 1;
        }
        None
    }

    /// Has all ranks run a case of the suite. Whether one of them has ended in it.
    fn run_case(&mut self, name: &str) -> bool {
        (self.group, self.ended) = (Group::of(0), 0);
        self.cards.clear();
        (0..self.ranks.len()).for_each(|rank| self.tell(rank, name));
        let (mut done, mut dead) = (0, 0);
        while done + dead < self.ranks.len() {
            let (rank, line) = self.next().unwrap_or_else(|| panic!("all ranks have ended in {name}"));
            done += usize::from(line == "done");
            self.serve(rank, &line);
            dead = usize::from(self.group.dies.is_some());
        }
        dead > 0
    }

    /// What a launcher does: hands the cards around, and ends.
    fn serve(&mut self, rank: usize, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["pid", pid] => self.pids[rank] = Pid::from_raw(pid.parse().expect("a number")),
            ["begin", peers, dies, leaves, card] => {
                let peer = |word: &str| word.parse().ok().map(Peer);
                let peers: usize = peers.parse().expect("a number");
                self.group = Group { dies: peer(dies), leaves: peer(leaves), ..Group::of(peers) };
                self.cards.resize(peers, None);
                self.cards[rank] = Some(card.to_string());
                if let Some(cards) = self.cards.iter().cloned().collect::<Option<Vec<String>>>() {
                    (0..peers).for_each(|rank| self.tell(rank, &cards.join(" ")));
                }
            }
            ["ended"] => {
                self.ended += 1;
                if self.group.dies.is_some_and(|peer| peer.index() == rank) {
                    self.kill(rank);
                }
                if self.ended == self.group.peers {
                    (0..self.group.peers).for_each(|rank| self.tell(rank, "all"));
                }
            }
            _ => {}
        }
    }

    fn tell(&mut self, rank: usize, line: &str) {
        // A rank that was killed does not listen, and has no pipe any more when it was waited for.
        if let Some(pipe) = &mut self.ranks[rank].stdin {
            let _ = writeln!(pipe, "{line}");
        }
    }

    fn kill(&mut self, rank: usize) {
        kill_process(self.pids[rank].expect("it has said its pid"), Signal::KILL).expect("it lives");
        self.ranks[rank].wait().expect("our child");
    }

    /// Checks that all ended well, but for the one that was to be killed.
    fn end(mut self, what: &str) {
        (0..self.ranks.len()).for_each(|rank| self.tell(rank, "over"));
        let dies = self.group.dies;
        for (rank, child) in self.ranks.iter_mut().enumerate() {
            let status = child.wait().expect("our child");
            assert!(
                status.success() || dies.is_some_and(|peer| peer.index() == rank),
                "{what}: rank {rank}: {status}"
            );
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        for (child, pid) in self.ranks.iter_mut().zip(&self.pids) {
            if matches!(child.try_wait(), Ok(None)) {
                pid.map(|pid| kill_process(pid, Signal::KILL));
                let _ = child.kill();
            }
            let _ = child.wait();
        }
    }
}

/// Not a test of its own: what the ranks of the others do.
#[test]
fn a_rank_of_another_test() {
    let Ok(role) = std::env::var("SELVEDGE_OFI_ROLE") else { return };
    let word = |name: &str| std::env::var(name).expect("set by Job");
    let me = word("SELVEDGE_OFI_RANK").parse().expect("a number");
    let rank = Rank::new(me, Road::of_words(&word("SELVEDGE_OFI_ROAD")));
    say(&format!("pid {}", std::process::id()));
    match role.as_str() {
        "wait for a death" => rank.wait_for_a_death(),
        "wait for two seconds" => rank.wait_long(),
        "read what is closed" => rank.read_what_is_closed(),
        "read again" => rank.read_again(),
        "read much" => rank.read_much(),
        "talk much" => rank.talk_much(),
        "cases" => rank.run_cases(),
        other => panic!("there is no role {other}"),
    }
}

/// One rank, in its own process.
struct Rank {
    me: Peer,
    road: Road,
    lines: Receiver<String>,
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{MARK}{line}").and_then(|()| out.flush()).expect("the test listens");
}

impl Rank {
    fn new(me: u32, road: Road) -> Rank {
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let lines = std::io::stdin().lines().map_while(Result::ok);
            lines.take_while(|line| sender.send(line.clone()).is_ok()).count()
        });
        Rank { me: Peer(me), road, lines }
    }

    fn hear(&self) -> String {
        self.lines.recv_timeout(2 * PATIENCE).expect("the test says something")
    }

    /// Opens this rank's endpoint and exchanges cards.
    fn open(&self, group: Group) -> Ofi {
        let (choice, settings) = common::road(self.road.origin, self.road.provider);
        let opening = Opening::open(&choice, self.me, &settings).expect("an endpoint");
        let word = |peer: Option<Peer>| peer.map_or("-".to_string(), |peer| peer.0.to_string());
        let card = hex(&opening.card());
        say(&format!("begin {} {} {} {card}", group.peers, word(group.dies), word(group.leaves)));
        opening.connect(self.hear().split(' ').map(unhex).collect()).expect("good cards")
    }

    /// The cases that the test names, until it is over.
    fn run_cases(&self) {
        loop {
            let name = self.hear();
            let Some(case) = CASES.iter().find(|case| case.name == name) else {
                return assert_eq!(name, "over");
            };
            (case.run)(self);
            say("done");
        }
    }

    /// Waits, and says who is missing.
    fn wait_for_a_death(&self) {
        let mut ofi = self.open(Group::of(3));
        // All three have had to do with each other.
        for to in (0..3).map(Peer).filter(|&to| to != self.me) {
            send(&mut ofi, to, b"here");
        }
        (0..2).for_each(|_| drop(receive(&mut ofi)));
        say("ready");
        loop {
            match ofi.poll() {
                Some(Event::Fault(fault)) => {
                    assert!(matches!(fault.cause, Cause::PeerDied | Cause::Unreachable), "{fault}");
                    let Scope::Peer(peer) = fault.scope else { panic!("{fault}") };
                    say(&format!("missing {} {fault}", peer.0));
                }
                Some(event) => panic!("{event:?}"),
                None => ofi.wait(Duration::from_secs(1)),
            }
        }
    }

    /// Says what two seconds of waiting cost.
    fn wait_long(&self) {
        let mut ofi = self.open(Group::of(2));
        let start = (Instant::now(), processor_time_ms());
        while start.0.elapsed() < Duration::from_secs(2) {
            assert!(ofi.poll().is_none(), "nobody says anything");
            // As an engine does that has something else to look after now and then.
            ofi.wait(Duration::from_millis(20));
        }
        say(&format!("spent {}", processor_time_ms() - start.1));
        self.end(&mut ofi);
    }

    /// Rank 0 reads memory of rank 1 that was closed, and unmapped, before.
    fn read_what_is_closed(&self) {
        let mut ofi = self.open(Group::of(2));
        if self.me == Peer(1) {
            let bytes = 1 << 16;
            let (access, flags) =
                (rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE, rustix::mm::MapFlags::PRIVATE);
            // SAFETY: new memory where the kernel likes.
            let start = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), bytes, access, flags) };
            let start = start.expect("memory");
            // SAFETY: mapped just now, and ours until it is unmapped below.
            let buf = unsafe { Buf::claim(start.cast(), bytes) };
            let key = ofi.register(buf, Peer(0)).expect("room for a registration");
            ofi.deregister(key, Peer(0));
            // SAFETY: nobody uses it any more.
            unsafe { rustix::mm::munmap(start, bytes) }.expect("it was mapped");
            // The next registration finds out what is gone.
            let other = ofi.register(Memory::zeroed(100).buf(), Peer(0)).expect("room for a registration");
            send(&mut ofi, Peer(0), &[key.base, key.name].map(u64::to_le_bytes).concat());
            drop(receive(&mut ofi));
            ofi.deregister(other, Peer(0));
        } else {
            let key = key_of(&receive(&mut ofi));
            let local = Memory::zeroed(5000);
            let remote = RemoteSlice { key, offset: 0, len: 5000 };
            ofi.read(Peer(1), remote, local.buf(), Token(7)).expect("nothing else is in flight");
            let fault = loop {
                match ofi.poll() {
                    Some(Event::Failed(Token(7), fault)) => break fault,
                    Some(event) => panic!("{event:?}"),
                    None => ofi.wait(Duration::from_secs(1)),
                }
            };
            say(&format!("failed {:?} {fault}", fault.cause));
            // Only the operation has failed.
            send(&mut ofi, Peer(1), b"done");
        }
        self.end(&mut ofi);
    }

    /// Rank 0 reads memory of rank 1 a hundred times.
    fn read_again(&self) {
        let mut ofi = self.open(Group::of(2));
        let memory = Memory::of(&[self.me.0 as u8; 100_000]);
        if self.me == Peer(1) {
            let key = ofi.register(memory.buf(), Peer(0)).expect("room for a registration");
            send(&mut ofi, Peer(0), &[key.base, key.name].map(u64::to_le_bytes).concat());
            drop(receive(&mut ofi));
        } else {
            let key = key_of(&receive(&mut ofi));
            for number in 0..100 {
                let remote = RemoteSlice { key, offset: 0, len: memory.len() as u64 };
                ofi.read(Peer(1), remote, memory.buf(), Token(number)).expect("nothing else is in flight");
                loop {
                    match ofi.poll() {
                        Some(Event::Done(_)) => break,
                        Some(event) => panic!("{event:?}"),
                        None => ofi.wait(Duration::from_secs(1)),
                    }
                }
            }
            assert!(memory.bytes().iter().all(|&byte| byte == 1));
            assert_eq!(ofi.why_not_kept(), None);
            let (hits, misses) = ofi.registrations();
            say(&format!("registrations {hits} {misses}"));
            send(&mut ofi, Peer(1), b"done");
        }
        self.end(&mut ofi);
    }

    /// Rank 0 reads eight buffers of rank 1, all at once, over and over for two seconds.
    fn read_much(&self) {
        const BYTES: usize = 1 << 20;
        let mut ofi = self.open(Group::of(2));
        let theirs: Vec<Memory> = (0..8).map(|number| Memory::of(&vec![number + 1; BYTES])).collect();
        if self.me == Peer(1) {
            let keys: Vec<_> =
                theirs.iter().map(|memory| ofi.register(memory.buf(), Peer(0)).expect("room")).collect();
            let words = keys.iter().flat_map(|key| [key.base, key.name]).flat_map(u64::to_le_bytes);
            send(&mut ofi, Peer(0), &words.collect::<Vec<u8>>());
            drop(receive(&mut ofi));
            keys.into_iter().for_each(|key| ofi.deregister(key, Peer(0)));
            return self.end(&mut ofi);
        }
        let keys: Vec<_> = receive(&mut ofi).chunks(16).map(key_of).collect();
        let (start, mut reads) = (Instant::now(), 0_u64);
        while start.elapsed() < Duration::from_secs(2) {
            let mine: Vec<Memory> = keys.iter().map(|_| Memory::zeroed(BYTES)).collect();
            for (number, (&key, memory)) in keys.iter().zip(&mine).enumerate() {
                let remote = RemoteSlice { key, offset: 0, len: BYTES as u64 };
                ofi.read(Peer(1), remote, memory.buf(), Token(number as u64)).expect("few are in flight");
            }
            let mut ended = 0;
            while ended < keys.len() {
                match ofi.poll() {
                    Some(Event::Done(_)) => ended += 1,
                    Some(Event::Fault(fault)) if fault.scope == Scope::Local => say(&format!("told {fault}")),
                    Some(event) => panic!("{event:?}"),
                    None => ofi.wait(Duration::from_secs(1)),
                }
            }
            for (memory, theirs) in mine.iter().zip(&theirs) {
                assert!(memory.bytes() == theirs.bytes(), "bytes of the peer");
            }
            reads += keys.len() as u64;
        }
        say(&format!("read {reads} MiB in {:?}", start.elapsed()));
        send(&mut ofi, Peer(1), b"done");
        self.end(&mut ofi);
    }

    /// Two ranks send each other numbered packets of all sizes for two seconds, and a thousand more. Each must come once.
    fn talk_much(&self) {
        const AHEAD: u64 = 64;
        const AFTER: u64 = 1000;
        let mut ofi = self.open(Group::of(2));
        let (peer, payload) = (Peer(1 - self.me.0), Memory::of(&[self.me.0 as u8; 8192]));
        let largest = ofi.roads()[0].packet_bytes_max.min(8192 + 16) - 16;
        let (start, mut last) = (Instant::now(), u64::MAX);
        let (mut sent, mut missing, mut highest) = (0_u64, std::collections::BTreeSet::new(), 0_u64);
        let mut end_there = u64::MAX;
        while sent < last || highest < end_there || !missing.is_empty() {
            if last == u64::MAX && start.elapsed() > Duration::from_secs(2) {
                last = sent + AFTER;
            }
            // As far ahead as there is room for: what the peer has had is known by what it sent.
            let heard = highest.saturating_sub(missing.len() as u64);
            let bytes = (sent * 37) as usize % largest;
            let header =
                [sent, if sent + 1 == last { last } else { u64::MAX }].map(u64::to_le_bytes).concat();
            if sent < last && (sent < heard + AHEAD || heard >= end_there) {
                sent += u64::from(ofi.send(peer, &header, payload.buf().slice(0..bytes)).is_ok());
            }
            match ofi.poll() {
                Some(Event::Packet { slot, .. }) => {
                    let packet = ofi.packet(&slot);
                    let word = |at: usize| u64::from_le_bytes(packet[at..at + 8].try_into().expect("eight"));
                    let (number, last) = (word(0), word(8));
                    assert_eq!(packet.len() - 16, (number * 37) as usize % largest, "packet {number}");
                    assert!(
                        packet[16..].iter().all(|&byte| byte == peer.0 as u8),
                        "bytes of packet {number}"
                    );
                    missing.extend(highest..number.max(highest));
                    assert!(number >= highest || missing.remove(&number), "packet {number} came twice");
                    highest = highest.max(number + 1);
                    end_there = end_there.min(last);
                    ofi.release(slot);
                }
                Some(Event::Fault(fault)) if fault.scope == Scope::Local => say(&format!("told {fault}")),
                Some(event) => panic!("{event:?}"),
                None => ofi.wait(Duration::from_millis(1)),
            }
        }
        say(&format!("talked: {sent} packets sent, {highest} received"));
        self.end(&mut ofi);
    }

    /// Stays, polling, until all have ended.
    fn end(&self, ofi: &mut Ofi) {
        say("ended");
        while self.lines.try_recv().is_err() {
            while let Some(event) = ofi.poll() {
                if let Event::Packet { slot, .. } = event {
                    ofi.release(slot);
                }
            }
            ofi.wait(Duration::from_micros(200));
        }
    }
}

impl Harness for Rank {
    fn run(&self, group: Group, program: &Program<'_>) {
        if self.me.index() >= group.peers {
            return;
        }
        let mut ofi = self.open(group);
        let start = Instant::now();
        // Each rank is alone as far as the driver sees; that all have ended is heard from the test.
        drive_alone(&mut ofi, &|| start.elapsed(), program, &Gathering::new(group.peers), true, PATIENCE);
        if group.leaves == Some(self.me) {
            drop(ofi);
            say("ended");
            assert_eq!(self.hear(), "all");
            return;
        }
        if group.dies == Some(self.me) {
            say("ended");
            loop {
                std::thread::park();
            }
        }
        self.end(&mut ofi);
    }

    fn can_kill(&self) -> bool {
        true
    }
}

fn send(ofi: &mut Ofi, to: Peer, bytes: &[u8]) {
    while ofi.send(to, bytes, Buf::EMPTY).is_err() {
        ofi.wait(Duration::from_millis(1));
    }
}

fn receive(ofi: &mut Ofi) -> Vec<u8> {
    let slot: Slot = loop {
        match ofi.poll() {
            Some(Event::Packet { slot, .. }) => break slot,
            Some(event) => panic!("{event:?}"),
            None => ofi.wait(Duration::from_secs(1)),
        }
    };
    let bytes = ofi.packet(&slot).to_vec();
    ofi.release(slot);
    bytes
}

fn key_of(bytes: &[u8]) -> selvedge_transport::Key {
    let words: Vec<u64> = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
    selvedge_transport::Key { base: words[0], name: words[1] }
}

fn processor_time_ms() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(digit).collect()
}
