//! The gate under loom: every interleaving of two or three threads, of which some wait and some bring news.

use loom::cell::UnsafeCell;
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use crate::{Alarm, Door, Inside, Seat, Slept};

/// What wakes the sleeper of the model: a flag that outlives the moment, as of a doorbell.
#[derive(Clone, Default)]
struct Bell(Arc<(Mutex<bool>, Condvar)>);

impl Alarm for Bell {
    fn ring(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_one();
    }
}

/// A network in the model: numbers that have arrived from outside, and those that were waited for and are here.
#[derive(Clone, Default)]
struct Wire {
    arrived: Arc<Mutex<Vec<usize>>>,
    bell: Bell,
}

impl Wire {
    /// Somebody outside of this process sends.
    fn bring(&self, number: usize) {
        self.arrived.lock().unwrap().push(number);
        self.bell.ring();
    }
}

/// The value behind the gate. A cell that loom watches: two threads inside at once are reported.
struct Station {
    wire: Wire,
    here: UnsafeCell<Vec<usize>>,
    stamp: u64,
}

impl Station {
    fn on(wire: &Wire) -> Station {
        Station { wire: wire.clone(), here: UnsafeCell::new(Vec::new()), stamp: 0 }
    }

    fn here<R>(&self, f: impl FnOnce(&mut Vec<usize>) -> R) -> R {
        self.here.with_mut(|here| {
            // SAFETY: loom panics where another access overlaps with this one.
            f(unsafe { &mut *here })
        })
    }
}

impl Inside for Station {
    type Name = usize;
    type End = usize;

    fn poll(&mut self) {
        let arrived = std::mem::take(&mut *self.wire.arrived.lock().unwrap());
        self.stamp += arrived.len() as u64;
        self.here(|here| here.extend(arrived));
    }

    fn take_end(&mut self, name: usize) -> Option<usize> {
        self.here(|here| here.iter().position(|&number| number == name).map(|found| here.swap_remove(found)))
    }

    fn stamp(&self) -> u64 {
        self.stamp
    }

    fn sleep(&mut self, _: Option<usize>) -> Slept {
        self.here(|_| ());
        let Bell(bell) = &self.wire.bell;
        let mut rung = bell.0.lock().unwrap();
        while !*rung {
            rung = bell.1.wait(rung).unwrap();
        }
        *rung = false;
        Slept::Lightly
    }
}

fn check(preemptions: usize, f: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(f);
}

fn seat() -> Arc<Seat<usize>> {
    Arc::new(Seat::default())
}

fn door(wire: &Wire) -> Door<Station, Bell> {
    Door::new(Station::on(wire), wire.bell.clone(), 1)
}

#[test]
fn loom_two_threads_that_wait_both_get_what_they_wait_for() {
    check(3, || {
        let wire = Wire::default();
        let owner = door(&wire);
        let pass = owner.pass();
        let other = thread::spawn(move || {
            let door = pass.door();
            assert_eq!(door.wait_for(&seat(), 1, |station| station.take_end(1)), 1);
        });
        wire.bring(1);
        wire.bring(2);
        assert_eq!(owner.wait_for(&seat(), 2, |station| station.take_end(2)), 2);
        other.join().unwrap();
    });
}

#[test]
fn loom_who_waits_for_what_another_thread_brings_by_going_in_is_told() {
    check(3, || {
        let wire = Wire::default();
        let owner = door(&wire);
        let pass = owner.pass();
        let other = thread::spawn(move || {
            let door = pass.door();
            let mut entered = door.enter();
            entered.stamp += 1;
            entered.here(|here| here.push(7));
        });
        assert_eq!(owner.wait_for(&seat(), 7, |station| station.take_end(7)), 7);
        other.join().unwrap();
    });
}

#[test]
fn loom_who_waits_for_anything_sees_what_came() {
    check(2, || {
        let wire = Wire::default();
        let owner = door(&wire);
        let pass = owner.pass();
        let other = thread::spawn(move || {
            let door = pass.door();
            let seen = |station: &mut Station| station.here(|here| here.contains(&1).then_some(()));
            door.wait_until(&seat(), seen);
            // Only now goes the owner's: the one who waits for anything has taken nothing away.
            door.enter().wire.bring(2);
        });
        wire.bring(1);
        assert_eq!(owner.wait_for(&seat(), 2, |station| station.take_end(2)), 2);
        other.join().unwrap();
    });
}

#[test]
fn loom_the_lead_passes_on_until_nobody_waits() {
    check(2, || {
        let wire = Wire::default();
        let owner = door(&wire);
        let pass = owner.pass();
        let others: Vec<_> = (1..3)
            .map(|number| {
                let pass = pass.clone();
                thread::spawn(move || {
                    assert_eq!(
                        pass.door().wait_for(&seat(), number, |station| station.take_end(number)),
                        number
                    )
                })
            })
            .collect();
        drop(pass);
        wire.bring(2);
        wire.bring(1);
        others.into_iter().for_each(|other| other.join().unwrap());
        owner.enter().here(|here| assert!(here.is_empty()));
    });
}

#[test]
fn loom_who_is_called_to_lead_and_has_no_need_to_lets_the_next_one_lead() {
    check(2, || {
        let wire = Wire::default();
        let owner = door(&wire);
        let pass = owner.pass();
        // Each brings, from outside, what another one waits for, and does not go in again.
        let (second, wire_2) = (pass.clone(), wire.clone());
        let second = thread::spawn(move || {
            second.door().wait_for(&seat(), 2, |station| station.take_end(2));
            wire_2.bring(3);
        });
        let (third, wire_1) = (pass.clone(), wire.clone());
        let third = thread::spawn(move || {
            wire_1.bring(1);
            third.door().wait_for(&seat(), 3, |station| station.take_end(3));
        });
        owner.wait_for(&seat(), 1, |station| station.take_end(1));
        wire.bring(2);
        second.join().unwrap();
        third.join().unwrap();
    });
}

#[test]
fn loom_when_the_last_pass_is_gone_the_owner_needs_no_lock() {
    check(3, || {
        let wire = Wire::default();
        let owner = door(&wire);
        let pass = owner.pass();
        let other = thread::spawn(move || {
            let door = pass.door();
            drop(pass);
            door.enter().here(|here| here.push(1));
        });
        // Once with the other thread, perhaps, and once surely after it.
        owner.enter().here(|here| here.push(2));
        other.join().unwrap();
        let entered = owner.enter();
        assert!(!entered.is_shared());
        entered.here(|here| assert_eq!(here.len(), 2));
    });
}
