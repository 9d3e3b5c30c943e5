//! The engine on the simulated network: what it promises, shown one sentence at a time, and random programs against a
//! naive oracle. Nothing here reads a clock: a seed repeats everything.

mod directed;
mod faults;
mod mutants;
mod oracle;
mod program;
mod world;
