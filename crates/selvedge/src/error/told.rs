//! What this rank was told last, for those who wait in vain afterwards.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::ThreadId;

use crate::error::Error;

/// Errors that calls of this rank have ended in: how many, and the last one.
#[derive(Debug, Default)]
pub(crate) struct Told {
    count: AtomicU32,
    last: Mutex<Option<(ThreadId, Error)>>,
}

impl Told {
    /// How many there were.
    #[inline]
    pub(crate) fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    #[cold]
    pub(crate) fn note(&self, error: &Error) {
        let last = (std::thread::current().id(), error.clone());
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// The last one, if it was this thread's.
    #[cold]
    pub(crate) fn last(&self) -> Option<Error> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref()
            .filter(|(thread, _)| *thread == std::thread::current().id())
            .map(|(_, error)| error.clone())
    }
}
