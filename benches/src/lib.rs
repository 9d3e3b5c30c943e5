//! Measurements of Selvedge: what the binaries of this folder are made of.
//!
//! [`osu`] is the suite that everybody knows, with the flags and the columns of the OSU micro-benchmarks. [`peer`] runs two
//! of its loops through another MPI library. [`wireup`] prices what it costs ranks to find each other, and its binary
//! measures it. `storm` keeps its parts to itself.

pub mod osu;
pub mod peer;
pub mod wireup;
