//! The engine on the simulated network: what it promises, shown one sentence at a time, and random programs against a
//! naive oracle. Nothing here reads a clock: a seed repeats everything.

mod crowd;
mod directed;
mod faults;
mod leaving;
mod matched;
mod mutants;
mod nonsense;
mod oracle;
mod program;
mod sync;
mod world;
