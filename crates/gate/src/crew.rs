//! Those who wait: one leads, the others sit beside the gate until they have mail.

use std::fmt;
use std::sync::PoisonError;

use crate::Inside;
use crate::sync::{Arc, AtomicBool, Condvar, Mutex, Ordering, lock, pause};

/// Where one thread sits while another leads. Made once for a thread and used for all its waits.
pub struct Seat<E> {
    letterbox: Mutex<Letterbox<E>>,
    /// There is mail. To be looked at without the lock.
    has_mail: AtomicBool,
    bell: Condvar,
}

struct Letterbox<E> {
    mail: Option<Mail<E>>,
    /// Nobody is woken who does not sleep: that would cost a system call.
    is_asleep: bool,
}

impl<E> fmt::Debug for Seat<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seat")
    }
}

impl<E> Default for Seat<E> {
    fn default() -> Seat<E> {
        Seat {
            letterbox: Mutex::new(Letterbox { mail: None, is_asleep: false }),
            has_mail: AtomicBool::new(false),
            bell: Condvar::new(),
        }
    }
}

/// What a thread that sits is told.
#[derive(Debug)]
pub(crate) enum Mail<E> {
    /// What it waits for has ended, and this is left of it.
    End(E),
    /// There may be something for it: it goes in and looks, and leads if nobody does.
    Look,
}

impl<E> Seat<E> {
    fn post(&self, mail: Mail<E>) {
        let mut letterbox = lock(&self.letterbox);
        letterbox.mail = Some(mail);
        let is_asleep = letterbox.is_asleep;
        drop(letterbox);
        // SYNC: pairs with the load in `receive`. Only a hint: what was posted is behind the lock.
        self.has_mail.store(true, Ordering::Release);
        if is_asleep {
            self.bell.notify_one();
        }
    }

    /// Waits for mail; looks for it `looks` times before it sleeps.
    pub(crate) fn receive(&self, looks: u32) -> Mail<E> {
        for _ in 0..looks {
            // SYNC: pairs with the store in `post`.
            if self.has_mail.load(Ordering::Acquire) {
                break;
            }
            pause();
        }
        let mut letterbox = lock(&self.letterbox);
        loop {
            if let Some(mail) = letterbox.mail.take() {
                self.has_mail.store(false, Ordering::Relaxed);
                return mail;
            }
            letterbox.is_asleep = true;
            letterbox = self.bell.wait(letterbox).unwrap_or_else(PoisonError::into_inner);
            letterbox.is_asleep = false;
        }
    }
}

/// Those who wait at one gate, behind its lock. Bound: the threads that wait.
pub(crate) struct Crew<V: Inside> {
    pub(crate) is_led: bool,
    /// In order of arrival.
    followers: Vec<Follower<V>>,
    /// [`Inside::stamp`] when the mail was last delivered.
    stamp: u64,
}

struct Follower<V: Inside> {
    waits_for: Option<V::Name>,
    seat: Arc<Seat<V::End>>,
}

impl<V: Inside> Crew<V> {
    pub(crate) fn new() -> Crew<V> {
        Crew { is_led: false, followers: Vec::new(), stamp: 0 }
    }

    /// Takes a seat. `waits_for`: nothing for who waits for anything.
    pub(crate) fn sit_down(&mut self, waits_for: Option<V::Name>, seat: &Arc<Seat<V::End>>) {
        self.followers.push(Follower { waits_for, seat: Arc::clone(seat) });
    }

    /// Hands out what there is for those who sit. Says whether there is anything new at all.
    #[inline]
    pub(crate) fn deliver(&mut self, value: &mut V) -> bool {
        let stamp = value.stamp();
        let is_new = std::mem::replace(&mut self.stamp, stamp) != stamp;
        if !self.followers.is_empty() {
            self.deliver_to_followers(value, is_new);
        }
        is_new
    }

    fn deliver_to_followers(&mut self, value: &mut V, is_new: bool) {
        self.followers.retain(|follower| {
            let mail = match follower.waits_for {
                Some(name) => value.take_end(name).map(Mail::End),
                None => is_new.then_some(Mail::Look),
            };
            mail.map(|mail| follower.seat.post(mail)).is_none()
        });
    }

    /// Everybody goes in and looks.
    #[cold]
    pub(crate) fn call_all(&mut self) {
        self.followers.drain(..).for_each(|follower| follower.seat.post(Mail::Look));
    }

    /// The leader has what it wanted: the one who has waited longest is the next.
    pub(crate) fn resign(&mut self) {
        self.is_led = false;
        if !self.followers.is_empty() {
            self.followers.remove(0).seat.post(Mail::Look);
        }
    }
}
