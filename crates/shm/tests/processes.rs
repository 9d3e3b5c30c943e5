//! Ranks that are processes: the suite of the contract, and what only processes can do - die, and leave nothing behind.
//!
//! A test starts this program again, once per rank, to run just the test `a_rank_of_another_test`. It is to its ranks
//! what a launcher is: it hands the card around and lets them pass a fence. They talk in lines over pipes.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use selvedge_shm::{Config, CopyMode, Segment, Shm};
use selvedge_transport::conformance::{CASES, Gathering, Group, Harness, Program, drive_alone};
use selvedge_transport::{Cause, Event, Peer, Scope, Transport};

const PATIENCE: Duration = Duration::from_secs(60);

/// Marks a line as ours: the test harness of a rank writes to the same pipe.
const MARK: char = '@';

#[test]
fn every_promise_holds_between_processes_with_single_copy() {
    suite(CopyMode::Single);
}

#[test]
fn every_promise_holds_between_processes_with_double_copy() {
    suite(CopyMode::Never);
}

fn suite(copy: CopyMode) {
    for case in CASES {
        let mut job = Job::start(case.name, RANKS, copy);
        while let Some((rank, line)) = job.next() {
            job.serve(rank, &line);
        }
        job.end(case.name);
    }
}

/// Most ranks in a case of the suite; those with fewer leave the others out.
const RANKS: usize = 8;

#[test]
fn ranks_that_are_killed_leave_nothing_behind_and_are_missed_within_half_a_second() {
    let names_before = names_in_dev_shm();
    let mut job = Job::start("live until killed", 3, CopyMode::Auto);
    let mut ready = 0;
    while ready < 3 {
        let (rank, line) = job.next().expect("all three get ready");
        ready += usize::from(line == "ready");
        job.serve(rank, &line);
    }
    let inode = inode_of_the_segment(job.pid(0));
    // The creator too: the segment belongs to all.
    for rank in [0, 2] {
        job.kill(rank);
    }
    let killed = Instant::now();
    let mut told = Vec::new();
    while told.len() < 2 {
        let (rank, line) = job.next().expect("the survivor tells");
        assert_eq!(rank, 1, "{line}");
        told.extend(line.strip_prefix("missing ").map(|peer| peer.parse::<u32>().expect("a number")));
    }
    assert!(killed.elapsed() < Duration::from_millis(500), "told after {:?}", killed.elapsed());
    told.sort_unstable();
    assert_eq!(told, [0, 2]);
    assert_eq!(holders(inode), [job.pid(1)], "only the survivor has it");
    job.kill(1);
    assert_eq!(holders(inode), [], "nobody has it");
    assert_eq!(names_in_dev_shm(), names_before);
}

#[test]
fn a_limit_on_file_size_is_a_fault_that_names_it_and_not_a_signal() {
    let mut job = Job::start("create under a limit", 1, CopyMode::Auto);
    let (_, line) = job.next().expect("an answer");
    assert!(line.contains("ulimit -f"), "{line}");
    job.end("create under a limit");
}

#[test]
fn a_limit_on_addresses_is_a_fault_that_names_it() {
    let mut job = Job::start("map under a limit", 1, CopyMode::Auto);
    let (_, line) = job.next().expect("an answer");
    assert!(line.contains("ulimit -v"), "{line}");
    job.end("map under a limit");
}

#[test]
fn the_card_of_a_process_that_is_gone_is_a_fault() {
    let mut job = Job::start("create and live", 1, CopyMode::Auto);
    let card = loop {
        let (rank, line) = job.next().expect("a card");
        if let Some(begin) = line.strip_prefix("begin ") {
            break begin.rsplit(' ').next().expect("the card comes last").to_string();
        }
        job.serve(rank, &line);
    };
    job.kill(0);
    let fault = Segment::open(card.as_bytes()).expect_err("nobody is there");
    assert_eq!(fault.cause, Cause::PeerDied, "{fault}");
}

#[test]
fn a_rank_that_waits_for_long_costs_next_to_nothing() {
    let mut job = Job::start("wait for two seconds", 2, CopyMode::Auto);
    let mut spent = Vec::new();
    while let Some((rank, line)) = job.next() {
        spent.extend(line.strip_prefix("spent ").map(|ms| ms.parse::<u64>().expect("a number")));
        job.serve(rank, &line);
    }
    assert!(
        spent.len() == 2 && spent.iter().all(|&ms| ms < 40),
        "milliseconds of processor time in two seconds: {spent:?}"
    );
    job.end("wait for two seconds");
}

/// The ranks of one test, and what they say.
struct Job {
    ranks: Vec<Child>,
    lines: Receiver<(usize, String)>,
    /// Those that will say no more.
    over: usize,
    group: Group,
    joined: usize,
    ended: usize,
}

impl Job {
    fn start(role: &str, ranks: usize, copy: CopyMode) -> Job {
        let (sender, lines) = channel();
        let ranks = (0..ranks).map(|rank| {
            let mut child = Command::new(std::env::current_exe().expect("our own path"))
                .args(["--exact", "a_rank_of_another_test", "--nocapture"])
                .env("SELVEDGE_SHM_ROLE", role)
                .env("SELVEDGE_SHM_RANK", rank.to_string())
                .env("SELVEDGE_SHM_COPY", format!("{copy:?}"))
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
        Job { ranks: ranks.collect(), lines, over: 0, group: Group::of(0), joined: 0, ended: 0 }
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

    /// What a launcher does: hands the card around, fences, and ends.
    fn serve(&mut self, rank: usize, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["begin", peers, dies, leaves, card] => {
                let peer = |word: &str| word.parse().ok().map(Peer);
                let peers = peers.parse().expect("a number");
                self.group = Group { dies: peer(dies), leaves: peer(leaves), ..Group::of(peers) };
                (self.joined, self.ended) = (0, 0);
                (1..peers).for_each(|rank| self.tell(rank, card));
            }
            ["joined"] => {
                self.joined += 1;
                if self.joined == self.group.peers {
                    (0..self.group.peers).for_each(|rank| self.tell(rank, "go"));
                }
            }
            ["ended"] => {
                self.ended += 1;
                if self.group.dies.is_some_and(|peer| peer.index() == rank) {
                    self.ranks[rank].kill().expect("it lives");
                }
                if self.ended == self.group.peers {
                    (0..self.group.peers).for_each(|rank| self.tell(rank, "all"));
                }
            }
            _ => {}
        }
    }

    fn tell(&mut self, rank: usize, line: &str) {
        // A rank that was killed does not listen.
        let _ = writeln!(self.ranks[rank].stdin.as_mut().expect("piped"), "{line}");
    }

    fn pid(&self, rank: usize) -> u32 {
        self.ranks[rank].id()
    }

    fn kill(&mut self, rank: usize) {
        self.ranks[rank].kill().expect("it lives");
        self.ranks[rank].wait().expect("our child");
    }

    /// Checks that all ended well, but for the one that was to be killed.
    fn end(mut self, what: &str) {
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
        for child in &mut self.ranks {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Not a test of its own: what the ranks of the others do.
#[test]
fn a_rank_of_another_test() {
    let Ok(role) = std::env::var("SELVEDGE_SHM_ROLE") else { return };
    let me = std::env::var("SELVEDGE_SHM_RANK").expect("set by Job").parse().expect("a number");
    let copy = match std::env::var("SELVEDGE_SHM_COPY").as_deref() {
        Ok("Single") => CopyMode::Single,
        Ok("Never") => CopyMode::Never,
        _ => CopyMode::Auto,
    };
    let rank = Rank::new(me, copy);
    match role.as_str() {
        "live until killed" => rank.live(3),
        "create and live" => rank.live(1),
        "create under a limit" => create_under(rustix::process::Resource::Fsize),
        "map under a limit" => create_under(rustix::process::Resource::As),
        "wait for two seconds" => rank.wait_long(),
        case => (CASES.iter().find(|known| known.name == case).expect("a case of the suite").run)(&rank),
    }
}

/// One rank, in its own process.
struct Rank {
    me: Peer,
    copy: CopyMode,
    lines: Receiver<String>,
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{MARK}{line}").and_then(|()| out.flush()).expect("the test listens");
}

impl Rank {
    fn new(me: u32, copy: CopyMode) -> Rank {
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let lines = std::io::stdin().lines().map_while(Result::ok);
            lines.take_while(|line| sender.send(line.clone()).is_ok()).count()
        });
        Rank { me: Peer(me), copy, lines }
    }

    fn hear(&self) -> String {
        self.lines.recv_timeout(2 * PATIENCE).expect("the test says something")
    }

    /// Takes this rank's seat in the segment of a group.
    fn open(&self, group: Group) -> Shm {
        let segment = if self.me == Peer(0) {
            let segment =
                Segment::create(group.peers as u32, &Config { copy: self.copy }).expect("a segment");
            let card = String::from_utf8(segment.card()).expect("printable");
            let word = |peer: Option<Peer>| peer.map_or("-".to_string(), |peer| peer.0.to_string());
            say(&format!("begin {} {} {} {card}", group.peers, word(group.dies), word(group.leaves)));
            segment
        } else {
            Segment::open(self.hear().as_bytes()).expect("the card of rank 0")
        };
        let joined = Arc::new(segment).join(self.me).expect("a free seat");
        say("joined");
        assert_eq!(self.hear(), "go");
        joined.open().expect("all have joined")
    }

    /// Says who is missing, until killed.
    fn live(&self, peers: usize) {
        let mut shm = self.open(Group::of(peers));
        say("ready");
        loop {
            match shm.poll() {
                Some(Event::Fault(fault)) => {
                    assert_eq!(fault.cause, Cause::PeerDied, "{fault}");
                    let Scope::Peer(peer) = fault.scope else { panic!("{fault}") };
                    say(&format!("missing {}", peer.0));
                }
                Some(event) => panic!("{event:?}"),
                None => shm.wait(Duration::from_secs(1)),
            }
        }
    }

    /// Says what two seconds of waiting cost.
    fn wait_long(&self) {
        let mut shm = self.open(Group::of(2));
        let start = (Instant::now(), processor_time_ms());
        while start.0.elapsed() < Duration::from_secs(2) {
            assert!(shm.poll().is_none(), "nobody says anything");
            // As an engine does that has something else to look after now and then.
            shm.wait(Duration::from_millis(20));
        }
        say(&format!("spent {}", processor_time_ms() - start.1));
        say("ended");
        assert_eq!(self.hear(), "all");
    }
}

impl Harness for Rank {
    fn run(&self, group: Group, program: &Program<'_>) {
        if self.me.index() >= group.peers {
            return;
        }
        let mut shm = self.open(group);
        let start = Instant::now();
        // Each rank is alone as far as the driver sees; that all have ended is heard from the test.
        drive_alone(&mut shm, &|| start.elapsed(), program, &Gathering::new(group.peers), true, PATIENCE);
        if group.leaves == Some(self.me) {
            drop(shm);
            say("ended");
            assert_eq!(self.hear(), "all");
            return;
        }
        say("ended");
        if group.dies == Some(self.me) {
            loop {
                std::thread::park();
            }
        }
        while self.lines.try_recv().is_err() {
            while let Some(event) = shm.poll() {
                if let Event::Packet { slot, .. } = event {
                    shm.release(slot);
                }
            }
            shm.wait(Duration::from_micros(200));
        }
    }

    fn can_kill(&self) -> bool {
        true
    }
}

/// Says what `Segment::create` says when a limit is in the way.
fn create_under(limit: rustix::process::Resource) {
    let before = rustix::process::getrlimit(limit);
    let few = rustix::process::Rlimit { current: Some(2 << 30), maximum: before.maximum };
    rustix::process::setrlimit(limit, few).expect("lower is always allowed");
    let fault = Segment::create(256, &Config::default()).expect_err("256 ranks need 4 GiB of addresses");
    assert_eq!(fault.cause, Cause::Exhausted);
    say(&fault.to_string());
}

fn processor_time_ms() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

fn names_in_dev_shm() -> Vec<std::ffi::OsString> {
    let names = std::fs::read_dir("/dev/shm").into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.filter(|name| name.to_string_lossy().contains("selvedge")).collect()
}

/// Mappings of a process that are a segment: by inode.
fn segments_of(pid: u32) -> BTreeMap<u64, usize> {
    let mut inodes = BTreeMap::new();
    for line in std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default().lines() {
        if line.contains("/memfd:selvedge-shm") {
            let inode = line.split_ascii_whitespace().nth(4).and_then(|inode| inode.parse().ok());
            *inodes.entry(inode.expect("fifth column of maps")).or_default() += 1;
        }
    }
    inodes
}

fn inode_of_the_segment(pid: u32) -> u64 {
    *segments_of(pid).first_key_value().expect("it has a segment mapped").0
}

/// Processes that have a segment mapped.
fn holders(inode: u64) -> Vec<u32> {
    let pids = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok());
    pids.filter(|&pid| segments_of(pid).contains_key(&inode)).collect()
}
