//! A collective is a value: a pure function (shape, rank) -> [`Schedule`].
#![forbid(unsafe_code)]

mod algorithm;
mod bruck;
mod builder;
mod butterfly;
mod generate;
mod pairwise;
mod ring;
mod scatter;
mod schedule;
mod select;
mod shape;
mod text;
mod tree;
mod verify;

pub use algorithm::{Algorithm, FLAT, UnknownAlgorithm};
pub use generate::{generate, generate_all};
pub use schedule::{Action, Schedule, Side, Slice, Space, StepIndex};
pub use select::select;
pub use shape::{Collective, Rank, Shape};
pub use text::{ParseError, ParseWhy};
pub use verify::{Duty, Flaw, Provenance, Why, verify};
