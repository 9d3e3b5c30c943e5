//! The command `selvedge`, for people who run jobs. Its first verb is `doctor`: the checks before a job.
//!
//! ```sh
//! selvedge doctor --ranks 192 --require efa
//! ```
//!
//! Facts and verdicts are apart. [`Scene`] is what there is on this host, read once; a [`Check`] is a pure function from
//! a scene and what is asked of it ([`Ask`]) to a [`Finding`]: pass, warn or fail, what was read and where, and the
//! command that cures it. So every verdict is tested with made-up hosts that nobody here has.
//!
//! Read first: [`Scene`], then [`CHECKS`]. A new check is a function and a row there, and a section of `docs/EC2.md` that
//! carries its name; a test holds the last two together.
//!
//! Other verbs ask jobs that run: `ps` lists them, `where` says who holds whom up. The answers are mpirun's. `algorithms` says
//! what a job would choose.
//!
//! What is *not* here: nothing is repaired, nothing is changed, nothing is sent anywhere except between the ranks of
//! `doctor --pairs`. The only unsafe code is in `pairs/sys.rs`.

#![deny(unsafe_code)]

mod algorithms;
mod check;
mod cli;
mod completions;
mod instances;
mod jobs;
mod live;
mod pairs;
mod report;
mod scene;

pub use check::{Ask, CHECKS, Check, Examined, Finding, Verdict, examine};
pub use cli::main;
pub use instances::{INSTANCES, Instance};
pub use pairs::{Meeting, PairReport, tournament};
pub use report::{Report, json, table};
pub use scene::*;
