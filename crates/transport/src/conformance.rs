//! The suite that every transport runs: the promises of [`Transport`](crate::Transport), each as a case named by a sentence.
//!
//! A transport joins by writing a [`Harness`], which makes a group of connected endpoints and drives a program on each
//! of them, and one line in a test file:
//!
//! ```
//! use selvedge_transport::conformance::{Group, Harness, Program, drive_together};
//! use selvedge_transport::{Sim, SimConfig};
//!
//! struct Simulated;
//!
//! impl Harness for Simulated {
//!     fn run(&self, group: Group, program: &Program<'_>) {
//!         let sim = Sim::new(SimConfig { peers: group.peers, ..SimConfig::default() });
//!         let ended = |peer| {
//!             if group.leaves == Some(peer) {
//!                 sim.leave(peer);
//!             }
//!         };
//!         drive_together(&mut sim.ports(), &|| sim.now(), program, &ended);
//!     }
//! }
//!
//! selvedge_transport::conformance_tests!(Simulated);
//! # fn main() { selvedge_transport::conformance::run_all(&Simulated) }
//! ```
//!
//! The last line becomes one `#[test]` per case. [`run_all`] runs the same cases in a loop, for harnesses with seeds.
//!
//! A program is an `async` function over a [`Seat`]. It awaits nothing but its turn, so that the same case runs with
//! all peers stepped round-robin in one thread ([`drive_together`], for the simulated network) and with a thread or a
//! process for each ([`drive_alone`]).
//!
//! That the suite sees is tested too: decorators that lose, repeat, damage, borrow, mislead or hang are each caught.

pub mod death;
mod driver;
pub mod leaving;
pub mod one_sided;
pub mod packets;
mod seat;
pub mod slots;
pub mod waiting;

use std::fmt;
use std::future::Future;
use std::pin::Pin;

pub use driver::{Gathering, drive_alone, drive_together};
pub use seat::Seat;

use crate::Peer;

/// A transport under test: how to make connected endpoints of it and run a program on each.
pub trait Harness {
    /// Makes a fresh group of connected endpoints and runs `program` on each to its end. Panics when one of them does.
    ///
    /// Endpoints stay open, and polled, until all programs have ended; the drivers see to that. When `group.dies` is
    /// somebody, its endpoint is ended as if its process had been killed as soon as its program returns; when
    /// `group.leaves` is, its endpoint is dropped then.
    fn run(&self, group: Group, program: &Program<'_>);

    /// Whether it can end an endpoint as if its process had been killed. Without it the cases of [`death`] do nothing.
    fn can_kill(&self) -> bool {
        false
    }
}

/// The peers of one case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// How many.
    pub peers: usize,
    /// Who is killed when its program returns.
    pub dies: Option<Peer>,
    /// Who leaves in order when its program returns.
    pub leaves: Option<Peer>,
}

impl Group {
    /// `peers` peers, all of which stay to the end.
    pub fn of(peers: usize) -> Group {
        Group { peers, dies: None, leaves: None }
    }
}

/// What each peer does in a case. The same for all; it looks at [`Seat::me`]. It owns whatever it captures.
pub type Program<'p> = dyn for<'a> Fn(Seat<'a>) -> Play<'a> + Sync + 'p;

/// A program under way.
pub type Play<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// One promise and its proof.
#[derive(Clone, Copy)]
pub struct Case {
    /// The promise as a sentence.
    pub name: &'static str,
    /// Panics when the transport breaks it.
    pub run: fn(&dyn Harness),
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Every case there is.
pub const CASES: &[Case] = crate::__conformance_cases!(__conformance_list,);

/// Runs every case; panics at the first promise that is broken.
pub fn run_all(harness: &dyn Harness) {
    for case in CASES {
        (case.run)(harness);
    }
}

/// Makes one `#[test]` of each conformance case. `$harness` is evaluated in each of them.
#[macro_export]
macro_rules! conformance_tests {
    ($harness:expr) => {
        $crate::__conformance_cases!(__conformance_test, $harness);
    };
}

/// The one list of cases, handed to the macro `$then`.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_cases {
    ($then:ident, $($argument:tt)*) => {
        $crate::$then! { [$($argument)*]
            packets: limits_are_those_of_the_contract;
            packets: packets_of_every_size_arrive_once_whole_and_unchanged;
            packets: header_and_payload_arrive_as_one;
            packets: a_packet_to_oneself_arrives;
            packets: packets_of_many_senders_arrive_with_the_right_name;
            packets: everybody_may_talk_to_everybody_at_once;
            packets: a_long_conversation_loses_nothing;
            packets: a_refused_packet_was_not_sent_and_busy_ends;
            packets: a_send_borrows_nothing;
            packets: a_packet_that_is_too_long_is_a_panic;
            slots: slots_on_loan_keep_their_bytes_while_others_come_and_go;
            slots: slots_may_be_given_back_in_any_order;
            slots: with_all_but_one_slot_on_loan_every_sender_makes_progress;
            slots: with_every_slot_on_loan_no_more_are_lent_and_nothing_is_lost;
            waiting: a_quiet_transport_says_nothing_and_wait_ends_in_time;
            waiting: a_packet_that_is_there_ends_the_wait;
            waiting: a_waiting_peer_is_woken_by_a_packet;
            waiting: a_waiting_sender_is_woken_by_room;
            one_sided: a_read_brings_bytes_of_every_size_and_alignment_and_no_others;
            one_sided: a_write_puts_bytes_of_every_size_and_alignment_and_no_others;
            one_sided: the_longest_read_and_write_arrive_whole;
            one_sided: as_many_as_promised_are_in_flight_and_the_next_is_busy;
            one_sided: one_may_read_and_write_oneself;
            one_sided: reads_writes_and_packets_go_both_ways_at_once;
            one_sided: memory_may_be_registered_again;
            one_sided: a_read_or_write_that_is_too_long_is_a_panic;
            death: a_death_is_said_once_to_each_survivor;
            death: survivors_go_on;
            death: packets_to_a_dead_peer_are_accepted_and_dropped;
            death: one_sided_operations_with_a_dead_peer_end;
            leaving: a_peer_that_left_is_told_after_its_last_packet;
            leaving: packets_to_a_peer_that_left_are_accepted_and_dropped;
            leaving: one_sided_operations_with_a_peer_that_left_fail;
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_list {
    ([] $($family:ident: $case:ident;)*) => {
        &[$($crate::conformance::Case {
            name: stringify!($case),
            run: $crate::conformance::$family::$case,
        }),*]
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_test {
    ([$harness:expr] $($family:ident: $case:ident;)*) => {
        $(#[test]
        fn $case() {
            $crate::conformance::$family::$case(&$harness);
        })*
    };
}

#[cfg(test)]
mod tests;
