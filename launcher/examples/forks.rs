//! Two ranks that start other programs while messages are under way: `forks`, or `forks huge` with buffers in huge pages. What a program that calls `system` does.
//!
//! Half of the children are started by a true `fork`, which copies the page tables of a process whose memory is registered with
//! a device, the others as Rust does it by itself, without a copy.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

/// Words of a large message, so that it has huge pages of its own where there are any.
const WORDS: usize = (8 << 20) / size_of::<u64>();

const ROUNDS: u64 = 6;

/// Children of each round.
const CHILDREN: u64 = 4;

fn main() -> selvedge::Result<()> {
    let world = selvedge::init()?;
    let (me, other) = (world.rank(), 1 - world.rank());
    let (mut out, mut into) = (vec![0; WORDS], vec![0; WORDS]);
    if std::env::args().any(|word| word == "huge") {
        ask_for_huge_pages(&mut out);
        ask_for_huge_pages(&mut into);
    }
    // The kernel gives pages to who writes, and nobody may find out that nobody reads this.
    out.fill(1);
    into.fill(1);
    std::hint::black_box((&mut out, &mut into));
    // A fork takes huge pages apart: where parent and child share one, the first write makes small ones of it.
    let mut huge = [0];
    world.allreduce(&[huge_kib()], &mut huge, &selvedge::Op::min())?;
    for round in 0..ROUNDS {
        out.iter_mut().enumerate().for_each(|(at, word)| *word = word_of(me, round, at));
        into.fill(0);
        let children = world.scope(|scope| -> selvedge::Result<Vec<Child>> {
            let receive = scope.irecv(&mut into, other, 1)?;
            let send = scope.isend(&out, other, 1)?;
            let mut children = Vec::new();
            for turn in 0..CHILDREN {
                children.push(child(turn % 2 == 0));
                // Both sides are at work on the large message while small ones pass it.
                let (small, mut answer) = ([word_of(me, round, turn as usize)], [0]);
                world.sendrecv(&small, other, 2, &mut answer, other, 2)?;
                assert_eq!(answer, [word_of(other, round, turn as usize)], "round {round}");
            }
            send.wait()?;
            receive.wait()?;
            Ok(children)
        })?;
        let wrong = into.iter().enumerate().position(|(at, &word)| word != word_of(other, round, at));
        assert_eq!(wrong, None, "a word of round {round} is wrong");
        for mut child in children {
            assert!(child.wait().expect("it is our child").success());
        }
    }
    if me == 0 {
        println!("{} children, {} KiB in huge pages", ROUNDS * CHILDREN, huge[0]);
    }
    Ok(())
}

/// What a rank sends at a place in a round.
fn word_of(rank: usize, round: u64, at: usize) -> u64 {
    (rank as u64) << 56 | round << 48 | at as u64
}

/// A process that lives for a moment.
fn child(by_fork: bool) -> Child {
    let mut command = Command::new("true");
    if by_fork {
        // To become who we are already: without that, Rust starts programs by posix_spawn, which copies nothing.
        command.uid(rustix::process::getuid().as_raw());
    }
    command.spawn().expect("every system has this program")
}

/// Asks for huge pages behind a buffer that was never written.
fn ask_for_huge_pages(buffer: &mut [u64]) {
    const HUGE_BYTES: usize = 2 << 20;
    let bytes = size_of_val(buffer);
    let start = buffer.as_mut_ptr().cast::<u8>();
    let before = start.align_offset(HUGE_BYTES).min(bytes);
    let inside = (bytes - before) / HUGE_BYTES * HUGE_BYTES;
    let start = start.wrapping_add(before).cast();
    // SAFETY: whole pages within a buffer that is ours alone; the advice changes nothing of what they hold.
    let advised = unsafe { libc::madvise(start, inside, libc::MADV_HUGEPAGE) };
    assert_eq!(advised, 0, "{}", std::io::Error::last_os_error());
}

/// Memory of this process that lies in huge pages.
fn huge_kib() -> u64 {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").expect("the kernel tells");
    let line = rollup.lines().find(|line| line.starts_with("AnonHugePages:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}
