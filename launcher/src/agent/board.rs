//! The board of a host: a file without a name, with a slot for each rank to write down what it waits for. Read only when
//! somebody asks.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::time::{ClockId, clock_gettime};
use selvedge_boot::State;
use selvedge_boot::status::{SLOT_BYTES, Status};

use super::Agent;
use super::process::Seen;
use super::rank::Rank;
use super::world::World;
use crate::proto::ToFront;
use crate::whereabouts::{Found, Pmi};

/// How often a slot is read again that was read in the middle of a write. A write takes less than a microsecond.
const READS_MAX: u32 = 8;

/// One slot for each rank of the host.
#[derive(Debug)]
pub(super) struct Board {
    file: OwnedFd,
    made: Instant,
}

impl Board {
    /// For so many ranks. `None` where the system has no such files: then nobody writes anything down.
    pub(super) fn new(ranks: u32) -> Option<Board> {
        let file =
            rustix::fs::memfd_create("selvedge-status", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
                .ok()?;
        rustix::fs::ftruncate(&file, u64::from(ranks) * SLOT_BYTES as u64).ok()?;
        // A rank that goes astray can write nonsense, and can neither take memory nor take it away.
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL).ok()?;
        Some(Board { file, made: Instant::now() })
    }

    /// What ranks inherit.
    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    fn read(&self, slot: usize) -> Option<Status> {
        let mut bytes = [0; SLOT_BYTES];
        (0..READS_MAX).find_map(|_| {
            let got = rustix::io::pread(&self.file, &mut bytes, (slot * SLOT_BYTES) as u64).ok()?;
            Status::decode(&bytes[..got])
        })
    }
}

impl Agent {
    /// Tells mpirun where our ranks are.
    pub(super) fn tell_whereabouts(&mut self, question: u32) {
        let of_world = |world: &World| {
            let ranks = world.ranks.iter().enumerate().map(|(local, rank)| self.find(world, local, rank));
            (world.member(0).world, ranks.collect())
        };
        let worlds = self.worlds.iter().map(of_world).collect();
        self.report(ToFront::Whereabouts { question, worlds }, &[]);
    }

    fn find(&self, world: &World, local: usize, rank: &Rank) -> Found {
        let Rank { number, pid, running, .. } = rank;
        let talks_pmix = self.pmix.as_ref().is_some_and(|pmix| pmix.is_talking(*number));
        let is_in_pmix_fence = self.pmix.as_ref().is_some_and(|pmix| pmix.is_in_fence(*number));
        let pmi = match world.server.state(*number) {
            State::Silent if is_in_pmix_fence => Pmi::Fence,
            State::Silent if talks_pmix => Pmi::Active,
            State::Silent => Pmi::Silent,
            State::Active | State::Gone => Pmi::Active,
            State::InBarrier => Pmi::Fence,
            State::Finalized => Pmi::Finalized,
        };
        let status = world.board.as_ref().and_then(|board| board.read(local));
        let age = match (&status, &world.board) {
            (Some(status), _) => now().saturating_sub(status.since),
            (None, Some(board)) => board.made.elapsed(),
            (None, None) => Duration::ZERO,
        };
        let seen = if *running { Seen::of(*pid) } else { Seen::gone() };
        Found {
            rank: *number,
            pid: pid.as_raw_nonzero().get().unsigned_abs(),
            process: seen.process,
            kernel: seen.kernel,
            call: seen.call,
            tracer: seen.tracer,
            busy_threads: seen.busy_threads,
            pmi,
            status,
            age,
        }
    }
}

fn now() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}
