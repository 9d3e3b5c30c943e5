//! `icount`: instructions per operation, counted by callgrind.
//!
//! Seconds drift on shared machines, instructions do not: the same binary counts the same today and tomorrow. One rank
//! sends to itself, so that a message takes the whole way - call, engine, ring, engine, caller - and nobody waits. Each path
//! is run twice with different numbers of operations; the difference leaves start and end out of the count.
//!
//! What takes several ranks is counted with all of them in one thread, by the program `crowd`: were it in this one, the
//! compiler would share out the code of both and change what it costs.
//!
//! With `--check` it fails when a path takes more than its budget. Budgets are what was counted when they were last
//! looked at, plus some twentieth; lower them when a path gets shorter.

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
    what: What,
}

/// How a path is taken.
enum What {
    /// By a rank that is alone.
    Once(fn(&Communicator, &mut Buffers)),
    /// So, as many times as said between a beginning and an end that do not count.
    Times(fn(&Communicator, &mut Buffers, usize)),
    /// By so many ranks: an allreduce of 8 bytes.
    Allreduce(u32),
    /// By a rank that comes and goes: `init`, and the world dropped.
    Start,
}

impl What {
    /// Turns of the two runs. A start is long, and the second of it like the first.
    fn turns(&self) -> [u64; 2] {
        match self {
            What::Start => [2, 6],
            _ => [1_000, 3_000],
        }
    }
}

struct Buffers {
    small: [u64; 1],
    large: Vec<u8>,
    into: Vec<u8>,
}

impl Buffers {
    fn new() -> Buffers {
        Buffers { small: [1], large: vec![7; 64 << 10], into: vec![0; 64 << 10] }
    }
}

const PATHS: [Path; 12] = [
    // Of these some 90 are what threads, checked types and messages in several places cost a program that has none of them:
    // ways through a gate that is open, looks whether a receive has an aftermath, and whether elements are neighbours.
    Path {
        name: "8 B: send, receive",
        budget: 1_210,
        what: What::Once(|world, buffers| send_receive(world, buffers, 8)),
    },
    // A request in a scope costs some 300 more than a blocking call: it is entered in the scope and taken out again.
    Path { name: "8 B: receive posted, send, wait", budget: 1_545, what: What::Once(posted) },
    // Two requests in a scope; the checks of rank and tag, and how the elements lie, were settled when they were made.
    Path { name: "8 B: persistent send, receive", budget: 1_510, what: What::Times(persistent) },
    Path {
        name: "1 KiB: send, receive",
        budget: 1_540,
        what: What::Once(|world, buffers| send_receive(world, buffers, 1024)),
    },
    // The largest that is copied twice.
    Path {
        name: "4 KiB: send, receive",
        budget: 2_150,
        what: What::Once(|world, buffers| send_receive(world, buffers, 4096)),
    },
    // The one copy is 65,536 of them: callgrind counts each byte that `rep movsb` moves.
    Path { name: "64 KiB: both posted, wait", budget: 73_300, what: What::Once(rendezvous) },
    // 15 more than before there were roads to other hosts: the compiler brings what both could tell to one place.
    Path {
        name: "probe in vain",
        budget: 200,
        what: What::Once(|world, _| drop(black_box(world.iprobe(0, 1)))),
    },
    Path { name: "allreduce of one rank", budget: 570, what: What::Once(allreduce) },
    // 10 more than before a collective was compared where that is asked for and claimed apart from its slices.
    Path {
        name: "barrier of one rank",
        budget: 205,
        what: What::Once(|world, _| world.barrier().expect("one rank waits for nobody")),
    },
    // Of all ranks together, with what each asks in vain.
    Path { name: "8 B: allreduce of 2 ranks, both", budget: 3_510, what: What::Allreduce(2) },
    Path { name: "8 B: allreduce of 4 ranks, all", budget: 18_540, what: What::Allreduce(4) },
    // A fifth more than was counted: it reads the environment and what the kernel says of this machine.
    Path { name: "init and the end, alone", budget: 113_000, what: What::Start },
];

fn send_receive(world: &Communicator, buffers: &mut Buffers, bytes: usize) {
    world.send(&buffers.large[..bytes], 0, 1).expect("one can send to oneself");
    world.recv(&mut buffers.into[..bytes], 0, 1).expect("it was sent");
}

fn persistent(world: &Communicator, buffers: &mut Buffers, times: usize) {
    let Buffers { large, into, .. } = buffers;
    world.scope(|scope| {
        let mut send = scope.send_init(&mut large[..8], 0, 1).expect("rank 0 exists");
        let mut receive = scope.recv_init(&mut into[..8], 0, 1).expect("rank 0 exists");
        for _ in 0..times {
            send.start().wait().expect("one can send to oneself");
            receive.start().wait().expect("it was sent");
        }
    });
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
        match count(path) {
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
    let init = || selvedge::init().expect("one rank needs nobody");
    match path.what {
        What::Once(once) => {
            let (world, mut buffers) = (init(), Buffers::new());
            (0..times).for_each(|_| once(&world, &mut buffers));
        }
        What::Times(all) => all(&init(), &mut Buffers::new(), times),
        What::Allreduce(_) => return ExitCode::FAILURE,
        What::Start => (0..times).for_each(|_| drop(black_box(init()))),
    }
    ExitCode::SUCCESS
}

/// Instructions of one more turn, from the difference of two runs.
fn count(path: &Path) -> Result<u64, String> {
    let turns = path.what.turns();
    let counts: Result<Vec<u64>, String> = turns.iter().map(|&turns| instructions(path, turns)).collect();
    let counts = counts?;
    Ok(counts[1].saturating_sub(counts[0]) / (turns[1] - turns[0]))
}

/// Instructions of a whole run.
fn instructions(path: &Path, turns: u64) -> Result<u64, String> {
    let me = std::env::current_exe().map_err(|error| error.to_string())?;
    let turns = turns.to_string();
    let (program, words) = match path.what {
        What::Allreduce(ranks) => (me.with_file_name("crowd"), vec![ranks.to_string(), turns]),
        _ => (me, vec!["--work".to_owned(), path.name.to_owned(), turns]),
    };
    let out = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(words)
        .output()
        .map_err(|error| format!("valgrind cannot be started ({error}); install Debian's valgrind"))?;
    let words = String::from_utf8_lossy(&out.stderr);
    let collected = words.lines().find_map(|line| line.split("Collected : ").nth(1));
    let collected = collected.and_then(|number| number.trim().parse().ok());
    collected.ok_or_else(|| format!("valgrind said no count: {}", words.lines().last().unwrap_or("nothing")))
}
