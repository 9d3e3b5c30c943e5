//! The suite of the contract, over threads of this process, with single and with double copy.

use std::sync::Arc;
use std::time::{Duration, Instant};

use selvedge_shm::{Config, CopyMode, Segment, Shm};
use selvedge_transport::Peer;
use selvedge_transport::conformance::{Gathering, Group, Harness, Program, drive_alone};

/// A thread for each peer, over one segment.
struct Threads {
    copy: CopyMode,
}

impl Harness for Threads {
    fn run(&self, group: Group, program: &Program<'_>) {
        let peers = u32::try_from(group.peers).expect("a handful");
        let segment = Arc::new(Segment::create(peers, &Config { copy: self.copy }).expect("a segment"));
        let joined: Vec<_> = (0..peers).map(|me| segment.join(Peer(me)).expect("a free seat")).collect();
        let gathering = Gathering::new(group.peers);
        std::thread::scope(|scope| {
            for joined in joined {
                let gathering = &gathering;
                scope.spawn(move || play(joined.open().expect("all have joined"), group, gathering, program));
            }
        });
    }

    fn can_kill(&self) -> bool {
        true
    }
}

fn play(mut shm: Shm, group: Group, gathering: &Gathering, program: &Program<'_>) {
    let start = Instant::now();
    let me = Some(selvedge_transport::Transport::me(&shm));
    let (dies, goes) = (group.dies == me, group.dies == me || group.leaves == me);
    drive_alone(&mut shm, &|| start.elapsed(), program, gathering, goes, Duration::from_secs(60));
    if dies {
        // The death of a thread is a panic that drops its transport on the way.
        let panic = std::panic::AssertUnwindSafe(|| {
            let _shm = shm;
            std::panic::resume_unwind(Box::new("this rank dies"));
        });
        std::panic::catch_unwind(panic).expect_err("it panics");
    }
}

mod with_single_copy {
    use super::*;

    selvedge_transport::conformance_tests!(Threads { copy: CopyMode::Single });
}

mod with_double_copy {
    use super::*;

    selvedge_transport::conformance_tests!(Threads { copy: CopyMode::Never });
}
