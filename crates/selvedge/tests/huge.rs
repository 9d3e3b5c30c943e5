//! A message that no 32 bits can count.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use selvedge::{Status, World};

/// Four GiB, and a little beyond every limit that 32 bits have.
const BYTES: usize = (4 << 30) + 70_001;

/// What the test needs, in KiB: one copy of the message, and air to breathe. What is sent is never written, so that all of
/// it is one page of zeroes.
const NEEDED_KIB: u64 = 5 << 20;

/// Bytes that are looked at: both ends, where 31 and 32 bits end, and some everywhere.
fn looked_at() -> impl Iterator<Item = usize> {
    let limits =
        [0, 1 << 31, 1 << 32, BYTES].into_iter().flat_map(|limit: usize| limit.saturating_sub(9)..limit + 9);
    limits.chain((0..BYTES).step_by(1_000_003)).filter(|&at| at < BYTES)
}

#[selvedge::test(ranks = [2])]
fn a_message_beyond_four_gibibytes_arrives_whole(world: World) {
    if world.rank() == 0 {
        let zeroes = vec![0u8; BYTES];
        return world.send(&zeroes, 1, 0).unwrap();
    }
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
    let available = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap();
    let available: u64 = available.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(available > NEEDED_KIB, "this test needs {NEEDED_KIB} KiB of memory; {available} are available");
    assert_eq!(world.probe(0, 0).unwrap().bytes, BYTES);
    let mut into = vec![0u8; BYTES];
    looked_at().for_each(|at| into[at] = 0xFF);
    assert_eq!(world.recv(&mut into, 0, 0).unwrap(), Status { source: 0, tag: 0, bytes: BYTES });
    assert_eq!(looked_at().find(|&at| into[at] != 0), None);
}
