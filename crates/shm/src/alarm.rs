//! What one thread of a rank calls another with that sleeps in [`Shm::wait`](crate::Shm).

use std::fmt;
use std::sync::Arc;

use crate::map::Mapped;
use crate::segment::Bell;
use crate::sync::{AtomicU32, Fences, Ordering};

/// Ends the wait of one rank, from any thread of its process: the wait under way, or else the next.
#[derive(Clone)]
pub struct Alarm {
    rung: Arc<AtomicU32>,
    /// The rank's own.
    bell: Arc<Mapped<Bell>>,
    fences: Fences,
}

impl Alarm {
    pub(crate) fn new(bell: Mapped<Bell>, fences: Fences) -> Alarm {
        Alarm { rung: Arc::new(AtomicU32::new(0)), bell: Arc::new(bell), fences }
    }

    /// Rings. Cost: two words; a system call where the rank sleeps in the kernel.
    pub fn ring(&self) {
        // The doorbell orders this before its look whether somebody sleeps, as it does everything that one is rung for.
        self.rung.store(1, Ordering::Relaxed);
        self.bell.doorbell(self.fences).ring();
    }

    #[inline]
    pub(crate) fn is_rung(&self) -> bool {
        self.rung.load(Ordering::Relaxed) != 0
    }

    pub(crate) fn stop(&self) {
        self.rung.store(0, Ordering::Relaxed);
    }
}

impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Alarm(rung: {})", self.is_rung())
    }
}
