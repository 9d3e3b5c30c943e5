//! A collective is a value: a pure function (algorithm, shape, rank) -> [`Schedule`].
//!
//! A [`Shape`] says what is asked: which collective, how many ranks, how many elements of how many bytes. An
//! [`Algorithm`] is a way to do it. [`generate`] makes of both what one rank has to do: a graph of sends, receives,
//! copies and reductions over named slices of memory. Everything else works on that value:
//!
//! | function | answers |
//! |---|---|
//! | [`generate`] | what does this rank do? |
//! | [`verify`] | do all ranks together do what was asked, in any order, without a hang or a race? |
//! | [`price`] | how long does it take on this machine? |
//! | [`Choices`] | which algorithm was asked for by name, and for which sizes? |
//! | [`select`], [`explain`] | which algorithm should be fastest, and what would the others cost? |
//! | `Display`, `FromStr` | what does it look like; what does this text mean? |
//!
//! Read [`Schedule`] first, then [`Shape`], then `tree.rs`, the family that everything else resembles.
//!
//! What is *not* here: bytes, pointers, operators, threads, clocks, a network. Invariants of absence: no unsafe code,
//! nothing is executed, and no function depends on anything but its arguments, so all ranks get the same answers.
//!
//! # A schedule by hand
//!
//! Schedules need not come from a generator. This one is a broadcast from rank 0 to two others, one of which gets its
//! bytes from the other:
//!
//! ```
//! use selvedge_coll::{Action, Collective, Rank, Schedule, Shape, Slice, Space, verify};
//!
//! let shape = Shape {
//!     collective: Collective::Broadcast { root: Rank(0) },
//!     ranks: 3,
//!     count: 10,
//!     element_bytes: 8,
//!     commutative: true,
//! };
//! let whole = Slice::new(Space::Output, 0, 80);
//!
//! let mut first = Schedule::new(0);
//! first.push(Action::Send { to: Rank(1), from: whole, label: 0 }, &[]);
//!
//! let mut second = Schedule::new(0);
//! let got = second.push(Action::Recv { from: Rank(0), into: whole, label: 0 }, &[]);
//! second.push(Action::Send { to: Rank(2), from: whole, label: 0 }, &[got]);
//!
//! let third: Schedule = "scratch 0\n0: recv out[0..80] <- 1 #0".parse()?;
//! assert_eq!(verify(&shape, &[first.clone(), second, third.clone()]), Ok(()));
//!
//! // Without the dependency rank 1 may pass on what it does not have yet.
//! let hasty: Schedule = "scratch 0\n0: recv out[0..80] <- 0 #0\n1: send out[0..80] -> 2 #0".parse()?;
//! let flaw = verify(&shape, &[first, hasty, third]).unwrap_err();
//! assert_eq!(
//!     flaw.to_string(),
//!     "rank 1, step 1: touches out[0..80] while step 0 may touch out[0..80], and one of them writes",
//! );
//! # Ok::<(), selvedge_coll::ParseError>(())
//! ```
//!
//! # How to add an algorithm
//!
//! 1. Write the generator into the file of its family (or a new one): a function `(&Shape, Rank) -> Schedule` that
//!    calls `send`, `recv`, `copy` and `reduce` of a `Builder` in the order in which a sequential program would run
//!    them. The builder derives all dependencies from the bytes; give more only to hold something back.
//! 2. Add a variant to [`Algorithm`], with its name, and say in [`Algorithm::applies`] what it cannot do.
//! 3. Add a line to [`generate`].
//! 4. Add its cost in closed form to `estimate.rs`, and the variant to the list of [`Algorithm::all_for`].
//! 5. Run the tests. They prove it for every number of ranks up to 64 and some primes, spoil its schedules and expect
//!    the verifier to notice, and hold the closed form against the simulated price. Nothing has to be added to them.
#![forbid(unsafe_code)]

mod algorithm;
mod bruck;
mod builder;
mod butterfly;
mod choice;
mod estimate;
mod generate;
mod pairwise;
mod price;
mod ring;
mod scatter;
mod schedule;
mod select;
mod shape;
mod text;
mod tree;
mod verify;

pub use algorithm::{Algorithm, FLAT, UnknownAlgorithm};
pub use choice::{ChoiceError, Choices, Unfit, parse_bytes};
pub use estimate::estimate;
pub use generate::{generate, generate_all};
pub use price::{Nanoseconds, price};
pub use schedule::{Action, Schedule, Side, Slice, Space, StepIndex};
pub use select::{explain, select};
pub use shape::{Collective, Rank, Shape};
pub use text::{ParseError, ParseWhy};
pub use verify::{Duty, Flaw, Provenance, Why, verify};
