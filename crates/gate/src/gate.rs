//! The gate itself: who may touch the value, and how a thread waits there.

use std::cell::UnsafeCell;
use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};

use crate::crew::{Crew, Mail, Seat};
#[cfg(not(loom))]
use crate::sync::this_thread;
use crate::sync::{
    Arc, AtomicBool, AtomicU32, AtomicUsize, Mutex, MutexGuard, Ordering, fence, lock, pause, try_lock,
    yield_now,
};
use crate::{Alarm, Inside, Slept};

/// In [`Gate::bias`]: nobody is inside, and the owner may go in without the lock. Also the owner's key.
const OPEN: u32 = 1;
/// In [`Gate::bias`]: the owner is inside, without the lock.
const ENTERED: u32 = 2;
/// In [`Gate::bias`]: whoever goes in takes the lock.
const LOCKED: u32 = 3;
/// The key of all who are not the owner. Fits nothing.
const MEMBER: u32 = 4;

/// How often a leader looks before it yields, and a follower for mail before it sleeps, while there is a core for every thread:
/// some tens of microseconds, as long as it takes to be woken.
const SPINS: u32 = if cfg!(loom) { 0 } else { 200 };
/// How often a leader yields before it sleeps: some hundred microseconds where nobody else wants to run. The lock is free
/// meanwhile, and who has work goes on with it.
const YIELDS: u32 = if cfg!(loom) { 0 } else { 300 };
/// How often a leader that was called out looks whether those who called it are in. Not a promise to them, a courtesy: they
/// stand at the lock, which wakes them.
const COURTESY: u32 = if cfg!(loom) { 1 } else { 64 };

struct Gate<V: Inside, A> {
    /// Written by the owner's thread only.
    bias: AtomicU32,
    /// Passes, and doors made of passes.
    others: AtomicUsize,
    /// Threads that found the lock taken and want in.
    entrants: AtomicUsize,
    /// The leader sleeps inside, or is about to.
    is_asleep: AtomicBool,
    /// Threads for which there is a core.
    cores: usize,
    alarm: A,
    /// The thread that holds the lock, so that one which asks for it twice is told instead of waiting for itself.
    holder: AtomicUsize,
    crew: Mutex<Crew<V>>,
    value: UnsafeCell<V>,
}

/// The lock, held.
struct Held<'a, V: Inside> {
    holder: &'a AtomicUsize,
    crew: MutexGuard<'a, Crew<V>>,
}

impl<V: Inside> Drop for Held<'_, V> {
    fn drop(&mut self) {
        self.holder.store(0, Ordering::Relaxed);
    }
}

// SAFETY: the value is touched by one thread at a time: by the owner's while nobody else has a door or a pass, else by who
// holds the lock; so that it need be `Send` and not `Sync`. Ends that are handed over are `Send` too. All other fields are
// atomics, a lock and an alarm, which is `Sync`.
unsafe impl<V: Inside + Send, A: Alarm> Sync for Gate<V, A>
where
    V::Name: Send,
    V::End: Send,
{
}

/// One thread's way in. Not `Send`: that is what makes the owner's thread the owner's.
pub struct Door<V: Inside, A: Alarm> {
    gate: Arc<Gate<V, A>>,
    key: u32,
    thread: PhantomData<*const ()>,
}

/// A door for any thread that it is given to.
pub struct Pass<V: Inside, A: Alarm> {
    gate: Arc<Gate<V, A>>,
}

/// The owner's [`Door`] that does not keep the value: while another one does, or a pass, it can be had again.
#[cfg(not(loom))]
pub struct WeakDoor<V: Inside, A: Alarm> {
    gate: std::sync::Weak<Gate<V, A>>,
    /// It is the owner's, and stays with its thread.
    thread: PhantomData<*const ()>,
}

#[cfg(not(loom))]
impl<V: Inside, A: Alarm> WeakDoor<V, A> {
    /// The door, if the value is still there.
    pub fn upgrade(&self) -> Option<Door<V, A>> {
        self.gate.upgrade().map(|gate| Door { gate, key: OPEN, thread: PhantomData })
    }
}

#[cfg(not(loom))]
impl<V: Inside, A: Alarm> fmt::Debug for WeakDoor<V, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WeakDoor")
    }
}

/// The value, lent to one thread.
pub struct Entered<'a, V: Inside, A: Alarm> {
    gate: &'a Gate<V, A>,
    /// Nothing for the owner while nobody else has a pass. Dropped by hand, so that it is looked at once.
    held: ManuallyDrop<Option<Held<'a, V>>>,
    thread: PhantomData<*const ()>,
}

impl<V: Inside, A: Alarm> Door<V, A> {
    /// The owner's door to `value`. `alarm` ends its sleep; `cores` is the number of threads that can run at the same time.
    pub fn new(value: V, alarm: A, cores: usize) -> Door<V, A> {
        let gate = Gate {
            bias: AtomicU32::new(OPEN),
            others: AtomicUsize::new(0),
            entrants: AtomicUsize::new(0),
            is_asleep: AtomicBool::new(false),
            cores,
            alarm,
            holder: AtomicUsize::new(0),
            crew: Mutex::new(Crew::new()),
            value: UnsafeCell::new(value),
        };
        Door { gate: Arc::new(gate), key: OPEN, thread: PhantomData }
    }

    /// Goes in. Cost: a comparison and a store while there is no pass; else a lock, after having called out who sleeps inside.
    ///
    /// # Panics
    /// When this thread is inside already.
    #[inline]
    pub fn enter(&self) -> Entered<'_, V, A> {
        let gate = &*self.gate;
        // Relaxed: a key of `OPEN` is in the hands of one thread, which is also the only one that writes here.
        if gate.bias.load(Ordering::Relaxed) == self.key {
            gate.bias.store(ENTERED, Ordering::Relaxed);
            return Entered { gate, held: ManuallyDrop::new(None), thread: PhantomData };
        }
        self.enter_by_lock()
    }

    /// As [`Door::enter`]; `None` when the owner is inside already.
    pub fn try_enter(&self) -> Option<Entered<'_, V, A>> {
        let is_inside = self.key == OPEN && self.gate.bias.load(Ordering::Relaxed) == ENTERED;
        (!is_inside).then(|| self.enter())
    }

    #[cold]
    #[inline(never)]
    fn enter_by_lock(&self) -> Entered<'_, V, A> {
        let gate = &*self.gate;
        if self.key == OPEN {
            if gate.bias.load(Ordering::Relaxed) == ENTERED {
                is_inside_already();
            }
            // SYNC: pairs with `one_less`: what others have done inside is behind us.
            if gate.others.load(Ordering::Acquire) == 0 {
                // Of those who may hold the lock only this thread is left.
                if cfg!(not(loom)) && try_lock(&gate.crew).is_none() {
                    is_inside_already();
                }
                gate.bias.store(ENTERED, Ordering::Relaxed);
                return Entered { gate, held: ManuallyDrop::new(None), thread: PhantomData };
            }
        }
        Entered { gate, held: ManuallyDrop::new(Some(gate.lock())), thread: PhantomData }
    }

    /// What other threads can be given. From now on everybody takes the lock, until all passes are gone, and all doors made of
    /// them.
    ///
    /// # Panics
    /// When the owner is inside.
    pub fn pass(&self) -> Pass<V, A> {
        if self.key == OPEN {
            assert_ne!(self.gate.bias.load(Ordering::Relaxed), ENTERED, "a pass is made outside");
            self.gate.bias.store(LOCKED, Ordering::Relaxed);
        }
        Pass::new(&self.gate)
    }

    /// The same, which does not keep the value.
    ///
    /// # Panics
    /// When this is not the owner's door: one made of a pass counts for as long as it is there.
    #[cfg(not(loom))]
    pub fn downgrade(&self) -> WeakDoor<V, A> {
        assert_eq!(self.key, OPEN, "the owner's door");
        WeakDoor { gate: Arc::downgrade(&self.gate), thread: PhantomData }
    }

    /// Number of doors and passes that lead here.
    pub fn count(&self) -> usize {
        Arc::strong_count(&self.gate)
    }

    /// Waits until something has ended. `look` is what takes its end while this thread looks for it: [`Inside::take_end`] for
    /// the most, and whatever else there is to see to. `seat` belongs to this thread.
    pub fn wait_for(
        &self,
        seat: &Arc<Seat<V::End>>,
        name: V::Name,
        look: impl FnMut(&mut V) -> Option<V::End>,
    ) -> V::End {
        self.wait(seat, Some(name), look, |end| end)
    }

    /// Waits until `look` finds what it looks for. It is called after every poll that brought anything new. `seat` belongs to
    /// this thread.
    pub fn wait_until<R>(&self, seat: &Arc<Seat<V::End>>, look: impl FnMut(&mut V) -> Option<R>) -> R {
        self.wait(seat, None, look, |_| unreachable!("nothing was waited for by name"))
    }

    fn wait<R>(
        &self,
        seat: &Arc<Seat<V::End>>,
        name: Option<V::Name>,
        look: impl FnMut(&mut V) -> Option<R>,
        ended: impl Fn(V::End) -> R,
    ) -> R {
        if self.key == OPEN {
            assert_ne!(self.gate.bias.load(Ordering::Relaxed), ENTERED, "a thread waits outside");
            self.gate.bias.store(LOCKED, Ordering::Relaxed);
        }
        self.gate.wait(seat, name, look, ended)
    }
}

#[cold]
fn is_inside_already() -> ! {
    panic!("this thread is inside already: what runs inside, such as a user's reduction, cannot go in again")
}

impl<V: Inside, A: Alarm> Gate<V, A> {
    /// The lock. Calls out who sleeps inside.
    fn lock(&self) -> Held<'_, V> {
        let crew = try_lock(&self.crew).unwrap_or_else(|| self.lock_slowly());
        #[cfg(not(loom))]
        self.holder.store(this_thread(), Ordering::Relaxed);
        Held { holder: &self.holder, crew }
    }

    #[cold]
    fn lock_slowly(&self) -> MutexGuard<'_, Crew<V>> {
        // A thread that reads its own name here holds the lock: it was the last to write it, and would have erased it.
        #[cfg(not(loom))]
        if self.holder.load(Ordering::Relaxed) == this_thread() {
            is_inside_already();
        }
        // SYNC: pairs with `sleep`, which writes and reads the same two words the other way round (Dekker): either this thread
        // sees that somebody sleeps, or that one sees that somebody wants in.
        self.entrants.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.is_asleep.load(Ordering::Relaxed) {
            self.alarm.ring();
        }
        let crew = lock(&self.crew);
        self.entrants.fetch_sub(1, Ordering::Relaxed);
        crew
    }

    /// Shows `f` the value, and those who wait.
    fn with<R>(&self, crew: &mut Crew<V>, f: impl FnOnce(&mut V, &mut Crew<V>) -> R) -> R {
        // SAFETY: the crew is behind the lock, so the caller holds it, and no other reference is made of it meanwhile, since
        // this one has the crew's. The owner goes in without the lock only while there is nobody else to wait here.
        let value = unsafe { &mut *self.value.get() };
        f(value, crew)
    }

    /// A pass, or a door made of one, is gone.
    fn one_less(&self) {
        // SYNC: pairs with the load in `enter_by_lock`.
        self.others.fetch_sub(1, Ordering::Release);
    }

    fn wait<R>(
        &self,
        seat: &Arc<Seat<V::End>>,
        name: Option<V::Name>,
        mut look: impl FnMut(&mut V) -> Option<R>,
        ended: impl Fn(V::End) -> R,
    ) -> R {
        let mut waiting = Waiting { gate: self, crew: Some(self.lock()), leads: false };
        let mut idle = 0;
        loop {
            let (found, is_new, is_led) = self.with(waiting.crew(), |value, crew| {
                value.poll();
                (look(value), crew.deliver(value), crew.is_led)
            });
            if let Some(found) = found {
                return found;
            }
            if is_led && !waiting.leads {
                waiting.crew().sit_down(name, seat);
                waiting.crew = None;
                if let Mail::End(end) = seat.receive(self.spins()) {
                    return ended(end);
                }
                waiting.crew = Some(self.lock());
                continue;
            }
            if is_new {
                idle = 0;
            }
            waiting.crew().is_led = true;
            waiting.leads = true;
            waiting.rest(idle, name);
            idle += 1;
        }
    }

    /// Looks in a row while there is a core for every thread.
    fn spins(&self) -> u32 {
        if self.others.load(Ordering::Relaxed) > self.cores { 0 } else { SPINS }
    }
}

/// A thread that waits. Dropping it is going on, or unwinding: either way others can lead.
struct Waiting<'a, V: Inside, A: Alarm> {
    gate: &'a Gate<V, A>,
    /// Nothing while it is outside.
    crew: Option<Held<'a, V>>,
    leads: bool,
}

impl<V: Inside, A: Alarm> Waiting<'_, V, A> {
    fn crew(&mut self) -> &mut Crew<V> {
        &mut self.crew.as_mut().expect("inside").crew
    }

    /// What a leader does after a look in vain, the `idle`th in a row: spin and yield outside, then sleep inside.
    fn rest(&mut self, idle: u32, name: Option<V::Name>) {
        let spins = self.gate.spins();
        if idle < spins + YIELDS {
            self.crew = None;
            if idle < spins { pause() } else { yield_now() }
        } else {
            self.sleep(name);
        }
        if self.crew.is_none() {
            self.crew = Some(self.gate.lock());
        }
    }

    fn sleep(&mut self, name: Option<V::Name>) {
        let gate = self.gate;
        gate.is_asleep.store(true, Ordering::Relaxed);
        // SYNC: pairs with `lock`.
        fence(Ordering::SeqCst);
        if gate.entrants.load(Ordering::Relaxed) == 0 {
            gate.with(self.crew(), |value, crew| {
                if value.sleep(name) == Slept::Badly {
                    crew.call_all();
                }
            });
        }
        gate.is_asleep.store(false, Ordering::Relaxed);
        if gate.entrants.load(Ordering::Relaxed) == 0 {
            return;
        }
        self.crew = None;
        for _ in 0..COURTESY {
            if gate.entrants.load(Ordering::Relaxed) == 0 {
                break;
            }
            yield_now();
        }
    }
}

impl<V: Inside, A: Alarm> Drop for Waiting<'_, V, A> {
    fn drop(&mut self) {
        if self.leads && self.crew.is_none() {
            self.crew = Some(self.gate.lock());
        }
        // Also who does not lead sees to it that somebody does: called to lead, it may have found what it waited for.
        if let Some(held) = &mut self.crew
            && (self.leads || !held.crew.is_led)
        {
            held.crew.resign();
        }
    }
}

impl<V: Inside, A: Alarm> Entered<'_, V, A> {
    /// Whether other threads may want in: who is going to wait does so with [`Door::wait_for`], outside.
    #[inline]
    pub fn is_shared(&self) -> bool {
        self.held.is_some()
    }

    #[cold]
    #[inline(never)]
    fn leave(&mut self) {
        if let Some(mut held) = self.held.take() {
            self.gate.with(&mut held.crew, |value, crew| crew.deliver(value));
        }
    }
}

impl<V: Inside, A: Alarm> Deref for Entered<'_, V, A> {
    type Target = V;

    #[inline]
    fn deref(&self) -> &V {
        // SAFETY: this thread is inside: it holds the lock, or is the owner's and has found the gate open, and others cannot
        // get a pass before it leaves. There is one `Entered` at a time, whose borrow this is.
        unsafe { &*self.gate.value.get() }
    }
}

impl<V: Inside, A: Alarm> DerefMut for Entered<'_, V, A> {
    #[inline]
    fn deref_mut(&mut self) -> &mut V {
        // SAFETY: as in `deref`, and borrowed exclusively.
        unsafe { &mut *self.gate.value.get() }
    }
}

impl<V: Inside, A: Alarm> Drop for Entered<'_, V, A> {
    #[inline]
    fn drop(&mut self) {
        match self.is_shared() {
            false => self.gate.bias.store(OPEN, Ordering::Relaxed),
            true => self.leave(),
        }
    }
}

impl<V: Inside, A: Alarm> Clone for Door<V, A> {
    fn clone(&self) -> Door<V, A> {
        if self.key == MEMBER {
            self.gate.others.fetch_add(1, Ordering::Relaxed);
        }
        Door { gate: Arc::clone(&self.gate), key: self.key, thread: PhantomData }
    }
}

impl<V: Inside, A: Alarm> Drop for Door<V, A> {
    fn drop(&mut self) {
        if self.key == MEMBER {
            self.gate.one_less();
        }
    }
}

impl<V: Inside, A: Alarm> Pass<V, A> {
    fn new(gate: &Arc<Gate<V, A>>) -> Pass<V, A> {
        gate.others.fetch_add(1, Ordering::Relaxed);
        Pass { gate: Arc::clone(gate) }
    }

    /// A door for this thread.
    pub fn door(&self) -> Door<V, A> {
        self.gate.others.fetch_add(1, Ordering::Relaxed);
        Door { gate: Arc::clone(&self.gate), key: MEMBER, thread: PhantomData }
    }
}

impl<V: Inside, A: Alarm> Clone for Pass<V, A> {
    fn clone(&self) -> Pass<V, A> {
        Pass::new(&self.gate)
    }
}

impl<V: Inside, A: Alarm> Drop for Pass<V, A> {
    fn drop(&mut self) {
        self.gate.one_less();
    }
}

impl<V: Inside, A: Alarm> fmt::Debug for Door<V, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.key == MEMBER { "Door(of a pass)" } else { "Door(the owner's)" })
    }
}

impl<V: Inside, A: Alarm> fmt::Debug for Pass<V, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pass")
    }
}

impl<V: Inside, A: Alarm> fmt::Debug for Entered<'_, V, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_shared() { "Entered(by the lock)" } else { "Entered" })
    }
}
