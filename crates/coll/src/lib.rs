//! A collective is a value: a pure function (shape, rank) -> [`Schedule`].
mod schedule;
mod shape;
pub use schedule::{Action, Schedule, Side, Slice, Space, StepIndex};
pub use shape::{Collective, Rank, Shape};
