//! Programs of real ranks for the tests of the whole: `ranks WHAT [ARGUMENTS]`.

use std::time::{Duration, Instant};

use rustix::process::{Signal, getpid, kill_process};
use selvedge::{ANY_SOURCE, ANY_TAG, Intercommunicator, Op, Spawn, World};

fn main() -> selvedge::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let before = memory_kib();
    let world = selvedge::init()?;
    match words[..] {
        ["sum"] => sum(&world),
        ["memory"] => memory(&world, before),
        ["idle", seconds] => idle(&world, seconds.parse().expect("a number of seconds")),
        ["forsaken"] => forsaken(&world),
        ["circle"] => circle(&world),
        ["hang", rank, how] => hang(&world, rank.parse().expect("a rank"), how),
        ["astray", rank, how] => astray(&world, rank.parse().expect("a rank"), how),
        ["spawn", count] => spawn(&world, count.parse().expect("a number of ranks")),
        ["spawned", word] => spawned(&world, word),
        ["spawn-nothing"] => spawn_nothing(&world),
        ["talk"] => talk(&world, |_| ()),
        ["die", rank, how] => {
            let rank: usize = rank.parse().expect("a rank");
            talk(&world, |round| {
                if round == 100 && world.rank() == rank {
                    die(&world, how);
                }
            })
        }
        _ => panic!(
            "ranks sum | memory | forsaken | idle SECONDS | circle | hang RANK HOW | astray RANK HOW | spawn COUNT | spawned WORD | spawn-nothing | talk | die RANK HOW"
        ),
    }
}

/// Everybody adds up all ranks; rank 0 says how many they are and what came out.
fn sum(world: &World) -> selvedge::Result<()> {
    let mut sum = [0];
    world.allreduce(&[world.rank()], &mut sum, &Op::sum())?;
    if world.rank() == 0 {
        println!("{} ranks, sum {}", world.size(), sum[0]);
    }
    Ok(())
}

/// One allreduce; then rank 0 says what a rank has taken since its `main` began, its share of what is shared included.
fn memory(world: &World, before: u64) -> selvedge::Result<()> {
    sum(world)?;
    let taken = memory_kib().saturating_sub(before);
    let (mut most, mut total) = ([0], [0]);
    world.allreduce(&[taken], &mut most, &Op::max())?;
    world.allreduce(&[taken], &mut total, &Op::sum())?;
    if world.rank() == 0 {
        println!("most {} KiB, mean {} KiB", most[0], total[0] / world.size() as u64);
    }
    Ok(())
}

/// Everybody waits for rank 0, which sleeps; then it says how much processor time the waiting took the worst.
fn idle(world: &World, seconds: u64) -> selvedge::Result<()> {
    world.barrier()?;
    let before = processor_time();
    if world.rank() == 0 {
        std::thread::sleep(Duration::from_secs(seconds));
    }
    world.barrier()?;
    let spent = (processor_time() - before).as_micros() as u64;
    let mut most = [0];
    world.allreduce(&[spent], &mut most, &Op::max())?;
    if world.rank() == 0 {
        println!("{} us of processor time", most[0]);
    }
    Ok(())
}

/// All but rank 0 leave; it waits for a word of the last one, and says what it is told.
fn forsaken(world: &World) -> selvedge::Result<()> {
    world.barrier()?;
    if world.rank() == 0 {
        let told = world.recv(&mut [0u8], world.size() - 1, 0).expect_err("nobody sends it");
        println!("{told}");
    }
    Ok(())
}

/// Everybody waits for a message that only comes after its own has: rank 5 has taken the wrong tag.
fn circle(world: &World) -> selvedge::Result<()> {
    let (me, size) = (world.rank(), world.size());
    world.barrier()?;
    println!("ready");
    match me {
        5 => world.recv(&mut [0u8], 2, 6)?,
        2 => world.recv(&mut [0u8], 5, 7)?,
        _ => world.recv(&mut [0u8], (me + 1) % size, 1)?,
    };
    Ok(())
}

/// Some rounds together; then one does something else for ever, and all others wait for it in an allreduce.
fn hang(world: &World, rank: usize, how: &str) -> selvedge::Result<()> {
    (0..3).try_for_each(|_| world.barrier())?;
    println!("ready");
    if world.rank() == rank {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(60) {
            match how {
                "spin" => std::hint::spin_loop(),
                "sleep" => std::thread::sleep(Duration::from_secs(60)),
                "read" => {
                    let (mut reader, _writer) = std::io::pipe().expect("a pipe");
                    drop(std::io::Read::read(&mut reader, &mut [0]));
                }
                "thread" => drop(
                    std::thread::spawn(move || while start.elapsed() < Duration::from_secs(60) {}).join(),
                ),
                "die" => {
                    std::thread::sleep(Duration::from_secs(1));
                    std::process::exit(3);
                }
                _ => panic!("hang RANK spin | sleep | read | thread | die"),
            }
        }
    }
    // Those that are told of a death are still there when they are asked.
    let linger = |_: &selvedge::Error| std::thread::sleep(Duration::from_secs(1));
    world.allreduce(&[1u64], &mut [0u64], &Op::sum()).inspect_err(linger)
}

/// Some rounds together; then one rank calls another collective than all others, or the same on another communicator.
fn astray(world: &World, rank: usize, how: &str) -> selvedge::Result<()> {
    let other = world.dup()?;
    (0..3).try_for_each(|_| world.barrier())?;
    println!("ready");
    match (how, world.rank() == rank) {
        ("communicator", true) => world.barrier(),
        ("communicator", false) => other.barrier(),
        ("broadcast", true) => world.broadcast(&mut [0u64], 0),
        ("broadcast", false) => world.allreduce(&[1u64], &mut [0u64], &Op::sum()),
        _ => panic!("astray RANK communicator | broadcast"),
    }
}

/// Spawns ranks of this program, two commands of them; talks to them, and they to it.
fn spawn(world: &World, count: u32) -> selvedge::Result<()> {
    assert!(world.parent().is_none(), "the command line has started this one");
    let program = std::env::current_exe().expect("a program has a path").display().to_string();
    let what =
        Spawn::new(&program, count).args(["spawned", "warp"]).and(program, 1).args(["spawned", "a weft = 2"]);
    let children = world.spawn(&what)?;
    let me = world.rank();
    if me == 0 {
        for child in 0..children.remote_size() {
            let (word, status) = children.recv_value::<String>(child, ANY_TAG)?;
            println!("child {} of {}: {word}", status.source, children.remote_size());
        }
    }
    exchange(&children, me)?;
    meet(&children, false)
}

/// Spawns a program that there is not, and says what it is told.
fn spawn_nothing(world: &World) -> selvedge::Result<()> {
    let refused = world.spawn(&Spawn::new("./no-such-program", 1)).expect_err("there is none");
    world.barrier()?;
    if world.rank() == 0 {
        println!("{refused}");
    }
    Ok(())
}

/// Says its word to the first of its parents.
fn spawned(world: &World, word: &str) -> selvedge::Result<()> {
    let parents = world.parent().expect("somebody has spawned this");
    parents.send_value(word, 0, 1)?;
    exchange(parents, world.rank())?;
    meet(parents, true)
}

/// Everybody sends everybody over there something small and something large.
fn exchange(there: &Intercommunicator, me: usize) -> selvedge::Result<()> {
    let large = vec![me as u64; 100_000];
    assert!(there.rank() == me && there.iprobe(ANY_SOURCE, 99)?.is_none());
    for rank in 0..there.remote_size() {
        there.send(&[me], rank, 2)?;
    }
    for _ in 0..there.remote_size() {
        let (from, status) = there.recv_vec::<usize>(ANY_SOURCE, 2)?;
        assert_eq!(from, [status.source], "ranks are those of the other side");
    }
    there.barrier()?;
    if me == 0 {
        let mut got = vec![1u64; 100_000];
        match there.size() < there.remote_size() {
            true => there.send(&large, 0, 3)?,
            false => assert_eq!(there.recv(&mut got, 0, 3)?.source, 0),
        }
    }
    Ok(())
}

/// One communicator of both worlds: the parents first.
fn meet(there: &Intercommunicator, high: bool) -> selvedge::Result<()> {
    let all = there.merge(high)?;
    let expected = if high { there.remote_size() + there.rank() } else { there.rank() };
    assert_eq!((all.rank(), all.size()), (expected, there.size() + there.remote_size()));
    let mut sum = [0];
    all.allreduce(&[all.rank()], &mut sum, &Op::sum())?;
    if all.rank() == 0 {
        println!("together {} ranks, sum {}", all.size(), sum[0]);
    }
    Ok(())
}

/// Talks for ever, in every way there is: small and large messages, wildcards, collectives.
fn talk(world: &World, each_round: impl Fn(u64)) -> selvedge::Result<()> {
    let (me, size) = (world.rank(), world.size());
    let (small, large) = ([me as u8; 8], vec![me as u64; 100_000]);
    let mut got = vec![0u64; 100_000];
    let start = Instant::now();
    for round in 0.. {
        each_round(round);
        world.sendrecv(&small, (me + 1) % size, 0, &mut [0u8; 8], ANY_SOURCE, ANY_TAG)?;
        world.sendrecv(&large, (me + 1) % size, 1, &mut got, (me + size - 1) % size, 1)?;
        world.allreduce(&large, &mut got, &Op::sum())?;
        if round == 10 && me == 0 {
            println!("talking");
        }
        assert!(start.elapsed() < Duration::from_secs(60), "nobody has ended this");
    }
    Ok(())
}

fn die(world: &World, how: &str) {
    match how {
        "panic" => panic!("out of yarn"),
        "exit" => std::process::exit(3),
        "abort" => world.abort(7),
        "kill" => kill_process(getpid(), Signal::KILL).expect("one may kill oneself"),
        // The first one only disarms the handler by which Rust tells a stack overflow.
        "segv" => (0..2).for_each(|_| kill_process(getpid(), Signal::SEGV).expect("one may kill oneself")),
        _ => panic!("die panic | exit | abort | kill | segv"),
    }
    std::thread::sleep(Duration::from_secs(60));
}

/// What this process takes, with its share of what it shares (proportional set size).
fn memory_kib() -> u64 {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").expect("the kernel tells");
    let line = rollup.lines().find(|line| line.starts_with("Pss:")).expect("a line for the share");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number of KiB")
}

/// Time this process has spent on a processor.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
