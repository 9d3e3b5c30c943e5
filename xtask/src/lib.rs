//! The tools of the house, run as `cargo xtask COMMAND`: `demo` shows it, `test` proves it, `facts` counts it,
//! `peers` holds it against others, `interop` starts others' programs and is started by their launchers.
//!
//! Read [`stages`] first: the list of everything `cargo xtask test` runs. [`rules`] holds the house rules, which
//! `tests/house.rs` runs as tests; they read the tree with [`source`] and [`manifests`].
//!
//! What is *not* here: anything a user's program needs. Nothing depends on this crate, it contains no unsafe code, and it
//! only ever writes under the target directory.

#![forbid(unsafe_code)]

pub mod cluster;
pub mod count;
pub mod demo;
pub mod fabric;
pub mod facts;
pub mod functions;
pub(crate) mod hosts;
pub mod interop;
pub mod manifests;
pub(crate) mod osu;
pub mod pages;
pub mod peers;
pub mod picture;
pub mod rules;
pub mod shell;
pub(crate) mod softefa;
pub mod source;
pub mod stages;
pub mod texts;
pub mod tools;
pub mod wheels;
