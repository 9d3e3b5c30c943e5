//! Measurements of Selvedge: what the binaries of this folder are made of.
//!
//! [`osu`] is the suite that everybody knows, with the flags and the columns of the OSU micro-benchmarks. The other
//! binary, `storm`, keeps its parts to itself.

pub mod osu;
