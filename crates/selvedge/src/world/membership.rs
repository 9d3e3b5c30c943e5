//! A process joins its job once, and may ask for a world as often as it likes: who has joined, and what a second
//! [`init`](crate::init) finds.
//!
//! The launcher knows a process by one conversation, which has one beginning and one end. So whether this process is in its job is
//! a fact of the process. What leads there belongs to a thread, as every communicator does, and is remembered without being
//! kept open: leaving is still dropping.

use std::cell::RefCell;
use std::sync::{Mutex, MutexGuard, PoisonError};

use selvedge_boot::Boot;

use crate::error::{Error, Result};
use crate::runtime::station::{Entrance, WeakEntrance};

/// How this process stands with the job that a launcher started it in.
#[derive(Debug)]
enum Standing {
    /// It has not joined, or there is no launcher.
    Outside,
    /// A thread has joined it.
    Joined { thread: String },
    /// It was there.
    Left,
}

static STANDING: Mutex<Standing> = Mutex::new(Standing::Outside);

thread_local! {
    /// What leads to the job that this thread has joined last, while it lasts.
    static HERE: RefCell<Option<WeakEntrance>> = const { RefCell::new(None) };
}

/// Why a process cannot join its job once more.
#[derive(Debug, thiserror::Error)]
enum NoSecond {
    #[error(
        "this process has joined its job already, in thread {thread}, and a job is joined by one thread: call init there, \
         or give this thread a Team (Communicator::team)"
    )]
    Elsewhere { thread: String },
    #[error(
        "this process was in its job and left it when its last communicator was dropped, and launchers take nobody back: \
         keep a World for as long as anything communicates"
    )]
    Left,
}

/// This process is in the job of a launcher. Dropped, it has left.
#[derive(Debug)]
pub(crate) struct Membership(());

impl Drop for Membership {
    fn drop(&mut self) {
        *standing() = Standing::Left;
    }
}

fn standing() -> MutexGuard<'static, Standing> {
    STANDING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Finds the launcher by `find`, unless this process has done so before. Without a launcher each job is one of its own, of which a
/// process can have several.
pub(crate) fn join(find: impl FnOnce() -> Result<Boot>) -> Result<(Boot, Option<Membership>)> {
    let mut standing = standing();
    let refused = match &*standing {
        Standing::Outside => None,
        Standing::Joined { thread } => Some(NoSecond::Elsewhere { thread: thread.clone() }),
        Standing::Left => Some(NoSecond::Left),
    };
    if let Some(refused) = refused {
        return Err(Error::Start(refused.to_string()));
    }
    let boot = find()?;
    if !boot.has_launcher() {
        return Ok((boot, None));
    }
    let thread = std::thread::current();
    let name = thread.name().map_or_else(|| format!("{:?}", thread.id()), |name| format!("{name:?}"));
    *standing = Standing::Joined { thread: name };
    Ok((boot, Some(Membership(()))))
}

/// Remembers what leads to the job of this thread.
pub(crate) fn remember(runtime: &Entrance) {
    HERE.set(Some(runtime.downgrade()));
}

/// What leads to the job of this thread, if it is in one.
pub(crate) fn here() -> Option<Entrance> {
    HERE.with_borrow(|here| here.as_ref().and_then(WeakEntrance::upgrade))
}
