//! Every atomic, lock and thread of this crate comes from here, so that one switch (`--cfg loom`) puts them all under a model.

use std::sync::{PoisonError, TryLockError};

#[cfg(loom)]
pub(crate) use loom::{
    sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering, fence},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread::yield_now,
};
#[cfg(not(loom))]
pub(crate) use std::{
    sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering, fence},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread::yield_now,
};

/// A moment for somebody else.
pub(crate) fn pause() {
    #[cfg(not(loom))]
    (0..8).for_each(|_| std::hint::spin_loop());
    #[cfg(loom)]
    yield_now();
}

/// Tells this thread from all others; never 0.
#[cfg(not(loom))]
pub(crate) fn this_thread() -> usize {
    thread_local!(static HERE: u8 = const { 0 });
    HERE.with(|here| std::ptr::from_ref(here).addr())
}

/// A panic in the gate has left the value as a panic behind a `RefCell` does: the next one goes in.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The lock, if nobody holds it. Under the model never: there, who tries waits for who holds it.
pub(crate) fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    if cfg!(loom) {
        return None;
    }
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}
