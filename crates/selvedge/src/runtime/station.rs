//! What several threads of a rank have in common: the runtime behind its gate, how each of them waits there, and what calls
//! out the one that sleeps inside.

use std::cell::OnceCell;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Instant;

use selvedge_gate::{Door, Entered, Inside, Pass, Seat, Slept as Asleep, WeakDoor};
use selvedge_transport::Fault;

use crate::communicator::Road;
use crate::request::blocking::{Outlook, SLEEP_MAX};
use crate::runtime::{End, Operation, Runtime};
use crate::world::job::Job;
use crate::world::roads::Roads;

/// The runtime of this rank, and the job that it may not outlive.
#[derive(Debug)]
pub(crate) struct Station {
    runtime: Runtime<Road>,
    /// While a rank is gone: since when nothing has happened, and the stamp of that time.
    quiet: Option<(Instant, u64)>,
    /// Sleeps after which everybody who waits should look whether it waits in vain.
    bad_sleeps: u32,
    /// Behind the runtime, so that it is dropped after it: the launcher hears goodbye when the peers have their answers.
    job: Arc<Job>,
}

impl Station {
    /// The job that this rank is in.
    pub(crate) fn job(&self) -> &Arc<Job> {
        &self.job
    }

    /// Whether there was a bad sleep since `known` was last updated.
    pub(crate) fn slept_badly_since(&self, known: &mut Option<u32>) -> bool {
        known.replace(self.bad_sleeps).is_some_and(|known| known != self.bad_sleeps)
    }
}

impl Station {
    /// Whether nothing has happened for [`SLEEP_MAX`], which then begins anew.
    #[cold]
    fn was_quiet_for_long(&mut self) -> bool {
        let (now, stamp) = (Instant::now(), self.stamp());
        match self.quiet {
            Some((since, before)) if before == stamp => {
                let is_long = now - since >= SLEEP_MAX;
                if is_long {
                    self.quiet = None;
                }
                is_long
            }
            _ => {
                self.quiet = Some((now, stamp));
                false
            }
        }
    }
}

impl Deref for Station {
    type Target = Runtime<Road>;

    #[inline]
    fn deref(&self) -> &Runtime<Road> {
        &self.runtime
    }
}

impl DerefMut for Station {
    #[inline]
    fn deref_mut(&mut self) -> &mut Runtime<Road> {
        &mut self.runtime
    }
}

impl Drop for Station {
    /// Lets peers have the answers that they may be waiting for.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.runtime.answer();
        }
    }
}

impl Inside for Station {
    type Name = Operation;
    type End = End;

    fn poll(&mut self) {
        self.runtime.progress();
    }

    fn take_end(&mut self, operation: Operation) -> Option<End> {
        self.runtime.end(operation)
    }

    fn stamp(&self) -> u64 {
        self.runtime.stamp()
    }

    fn sleep(&mut self, operation: Option<Operation>) -> Asleep {
        self.runtime.transport_mut().lose_patience();
        self.runtime.wait_in(operation, SLEEP_MAX);
        if self.runtime.engine().has_faulty_peers() && self.was_quiet_for_long() {
            self.bad_sleeps = self.bad_sleeps.wrapping_add(1);
            return Asleep::Badly;
        }
        Asleep::Lightly
    }
}

/// What calls a thread out of its sleep on the roads.
#[derive(Debug)]
pub(crate) struct Alarm {
    near: Option<selvedge_shm::Alarm>,
    far: Option<selvedge_ofi::Alarm>,
}

impl Alarm {
    fn of(road: &mut Road) -> Result<Alarm, Box<Fault>> {
        let (near, far) = match road {
            Roads::Near(near) => (Some(near.alarm()), None),
            Roads::Far(far) => (None, Some(far.inner_mut().alarm()?)),
            Roads::Both(both) => {
                let (near, far) = both.ways();
                (Some(near.alarm()), Some(far.inner_mut().alarm()?))
            }
        };
        Ok(Alarm { near, far })
    }
}

impl selvedge_gate::Alarm for Alarm {
    fn ring(&self) {
        if let Some(near) = &self.near {
            near.ring();
        }
        if let Some(far) = &self.far {
            far.ring();
        }
    }
}

/// One thread's way to the runtime of its rank. As of a `RefCell`, one borrow at a time; where several threads have one, the
/// borrow is a lock.
#[derive(Debug, Clone)]
pub(crate) struct Entrance {
    door: Door<Station, Alarm>,
    /// Where this thread waits while another leads. Made when it first does.
    seat: OnceCell<Arc<Seat<End>>>,
}

/// An [`Entrance`] of the thread that has joined the job, which does not keep it there.
#[derive(Debug)]
pub(crate) struct WeakEntrance(WeakDoor<Station, Alarm>);

impl WeakEntrance {
    /// The entrance, while anything else keeps the job.
    pub(crate) fn upgrade(&self) -> Option<Entrance> {
        self.0.upgrade().map(|door| Entrance { door, seat: OnceCell::new() })
    }
}

/// The runtime, lent.
pub(crate) type Inner<'a> = Entered<'a, Station, Alarm>;

impl Entrance {
    /// The first, for the thread that has joined the job. `processors`: those of this host for each of its ranks.
    ///
    /// # Errors
    /// A [`Fault`] when there is no descriptor left to be called by.
    pub(crate) fn new(
        mut runtime: Runtime<Road>,
        job: Arc<Job>,
        processors: usize,
    ) -> Result<Entrance, Box<Fault>> {
        let alarm = Alarm::of(runtime.transport_mut())?;
        let station = Station { runtime, quiet: None, bad_sleeps: 0, job };
        Ok(Entrance { door: Door::new(station, alarm, processors), seat: OnceCell::new() })
    }

    /// Goes in. Panics when this thread is inside already: a user's reduction that communicates.
    #[inline]
    pub(crate) fn enter(&self) -> Inner<'_> {
        self.door.enter()
    }

    /// As [`Entrance::enter`]; `None` when this thread is inside already.
    pub(crate) fn try_enter(&self) -> Option<Inner<'_>> {
        self.door.try_enter()
    }

    /// What can be given to other threads.
    pub(crate) fn pass(&self) -> Pass<Station, Alarm> {
        self.door.pass()
    }

    /// The same, which does not keep the job. Of the thread that has joined it.
    pub(crate) fn downgrade(&self) -> WeakEntrance {
        WeakEntrance(self.door.downgrade())
    }

    /// The way of another thread.
    pub(crate) fn by(pass: &Pass<Station, Alarm>) -> Entrance {
        Entrance { door: pass.door(), seat: OnceCell::new() }
    }

    /// Waits for the end of an operation among other threads, one of which polls for all. `waits_in_vain` is asked when a rank
    /// is gone and nothing has happened for long; it ends the operation if it would never end.
    #[cold]
    pub(crate) fn wait_for(
        &self,
        operation: Operation,
        mut waits_in_vain: impl FnMut(&mut Runtime<Road>),
    ) -> End {
        let mut known = None;
        self.door.wait_for(self.seat(), operation, |station| {
            if station.slept_badly_since(&mut known) {
                waits_in_vain(station);
            }
            station.end(operation)
        })
    }

    /// Waits among other threads until `look` finds something.
    #[cold]
    pub(crate) fn wait_until<R>(&self, mut look: impl FnMut(&mut Runtime<Road>, Outlook) -> Option<R>) -> R {
        let mut known = None;
        self.door.wait_until(self.seat(), |station| {
            let outlook = match station.slept_badly_since(&mut known) {
                true => Outlook::AmongTheGone,
                false => Outlook::Fair,
            };
            look(station, outlook)
        })
    }

    fn seat(&self) -> &Arc<Seat<End>> {
        self.seat.get_or_init(Arc::default)
    }
}
