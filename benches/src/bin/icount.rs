//! `icount`: instructions per operation, counted by callgrind.
//!
//! Seconds drift on shared machines, instructions do not: the same binary counts the same today and tomorrow. One rank
//! sends to itself, so that a message takes the whole way - call, engine, ring, engine, caller - and nobody waits. Each path
//! is run twice with different numbers of operations; the difference leaves start and end out of the count.
//!
//! With `--check` it fails when a path takes more than its budget. Budgets are what was counted when they were last
//! looked at, plus a tenth; lower them when a path gets shorter.

use std::hint::black_box;
use std::process::{Command, ExitCode};

use clap::Parser;
use selvedge::{Communicator, Op};

/// Counts instructions per operation under valgrind's callgrind.
#[derive(Parser, Debug)]
#[command(name = "icount")]
struct Arguments {
    /// Fail when a path takes more than its budget.
    #[arg(long)]
    check: bool,
    /// Run this path so many times, uncounted: what callgrind is pointed at.
    #[arg(long, num_args = 2, value_names = ["PATH", "TIMES"], hide = true)]
    work: Option<Vec<String>>,
}

/// A path through the runtime.
struct Path {
    name: &'static str,
    /// Instructions it may take.
    budget: u64,
    once: fn(&Communicator, &mut Buffers),
}

struct Buffers {
    small: [u64; 1],
    large: Vec<u8>,
    into: Vec<u8>,
}

const PATHS: [Path; 7] = [
    Path {
        name: "8 B: send, receive",
        budget: 1_180,
        once: |world, buffers| send_receive(world, buffers, 8),
    },
    // 90 more than before threads could share a rank and types could be refused: three ways through the gate, which is
    // open, three looks whether a receive has an aftermath, which it has not, and one whether this rank waits for itself.
    Path { name: "8 B: receive posted, send, wait", budget: 1_520, once: posted },
    Path {
        name: "1 KiB: send, receive",
        budget: 1_530,
        once: |world, buffers| send_receive(world, buffers, 1024),
    },
    // The one copy is 65,536 of them: callgrind counts each byte that `rep movsb` moves.
    Path { name: "64 KiB: both posted, wait", budget: 77_300, once: rendezvous },
    // 15 more than before there were roads to other hosts: the compiler brings what both could tell to one place.
    Path { name: "probe in vain", budget: 190, once: |world, _| drop(black_box(world.iprobe(0, 1))) },
    Path { name: "allreduce of one rank", budget: 620, once: allreduce },
    Path {
        name: "barrier of one rank",
        budget: 180,
        once: |world, _| world.barrier().expect("one rank waits for nobody"),
    },
];

fn send_receive(world: &Communicator, buffers: &mut Buffers, bytes: usize) {
    world.send(&buffers.large[..bytes], 0, 1).expect("one can send to oneself");
    world.recv(&mut buffers.into[..bytes], 0, 1).expect("it was sent");
}

fn posted(world: &Communicator, buffers: &mut Buffers) {
    let Buffers { small, into, .. } = buffers;
    world.scope(|scope| {
        let receive = scope.irecv(&mut into[..8], 0, 1).expect("rank 0 exists");
        world.send(&small[..], 0, 1).expect("one can send to oneself");
        receive.wait().expect("it was sent");
    });
}

fn rendezvous(world: &Communicator, buffers: &mut Buffers) {
    let Buffers { large, into, .. } = buffers;
    world.scope(|scope| {
        let receive = scope.irecv(into, 0, 1).expect("rank 0 exists");
        let send = scope.isend(large, 0, 1).expect("rank 0 exists");
        selvedge::wait_all([receive, send]).expect("both ends are here");
    });
}

fn allreduce(world: &Communicator, buffers: &mut Buffers) {
    let mut sum = [0];
    world.allreduce(&buffers.small, &mut sum, &Op::sum()).expect("one rank is enough");
    black_box(sum);
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(work) = arguments.work {
        return run(&work[0], work[1].parse().expect("a number of times"));
    }
    let mut within = true;
    println!("{:<34} {:>12} {:>12}", "# path", "instructions", "budget");
    for path in &PATHS {
        match count(path.name) {
            Ok(instructions) => {
                within &= instructions <= path.budget;
                println!("{:<34} {instructions:>12} {:>12}", path.name, path.budget);
            }
            Err(why) => {
                eprintln!("icount: {}: {why}", path.name);
                return ExitCode::FAILURE;
            }
        }
    }
    if arguments.check && !within {
        eprintln!(
            "icount: a path takes more instructions than its budget; shorten it, or say in the budget why not"
        );
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Takes a path so many times.
fn run(name: &str, times: usize) -> ExitCode {
    let path = PATHS.iter().find(|path| path.name == name).expect("a path of ours");
    let world = selvedge::init().expect("one rank needs nobody");
    let mut buffers = Buffers { small: [1], large: vec![7; 64 << 10], into: vec![0; 64 << 10] };
    for _ in 0..times {
        (path.once)(&world, &mut buffers);
    }
    ExitCode::SUCCESS
}

/// Instructions of one more turn, from the difference of two runs.
fn count(name: &str) -> Result<u64, String> {
    const TURNS: [u64; 2] = [1_000, 3_000];
    let counts: Result<Vec<u64>, String> = TURNS.iter().map(|&turns| instructions(name, turns)).collect();
    let counts = counts?;
    Ok(counts[1].saturating_sub(counts[0]) / (TURNS[1] - TURNS[0]))
}

/// Instructions of a whole run.
fn instructions(name: &str, turns: u64) -> Result<u64, String> {
    let me = std::env::current_exe().map_err(|error| error.to_string())?;
    let out = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(me)
        .args(["--work", name, &turns.to_string()])
        .output()
        .map_err(|error| format!("valgrind cannot be started ({error}); install Debian's valgrind"))?;
    let words = String::from_utf8_lossy(&out.stderr);
    let collected = words.lines().find_map(|line| line.split("Collected : ").nth(1));
    let collected = collected.and_then(|number| number.trim().parse().ok());
    collected.ok_or_else(|| format!("valgrind said no count: {}", words.lines().last().unwrap_or("nothing")))
}
