//! `softefa run -- COMMAND` runs a program on software EFA devices; `softefa counters` shows what they counted.

fn main() {}
