//! The start of a job: `init`, which says how long it took, and `hello`, which says that it went well.

use selvedge::{Communicator, Result};

use super::cli::{Bench, Plan};
use super::stats::Spread;
use super::table::{Column, Row};

/// The columns of [`init`]; `hello` has none.
pub(crate) fn columns(plan: &Plan) -> Vec<Column> {
    let column = |title, key| Column { title, key };
    match plan.bench {
        Bench::Init => vec![
            column("Avg Init(ms)", "avg_ms"),
            column("Min Init(ms)", "min_rank_ms"),
            column("Max Init(ms)", "max_rank_ms"),
        ],
        _ => Vec::new(),
    }
}

/// The row of `init`, the same on all ranks, where `init` took this one `us` microseconds: from the call until the rank could
/// communicate, without what the system and the launcher did before.
pub(crate) fn init(world: &Communicator, us: f64) -> Result<Row> {
    let Spread { mean, min, max } = Spread::over_ranks(world, us / 1e3)?;
    Ok(Row { bytes: 0, values: vec![mean, min, max], iterations: 1, valid: None })
}

/// What `hello` says, in OSU's words.
pub(crate) fn hello(ranks: usize) -> String {
    format!("This is a test with {ranks} processes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[selvedge::test(ranks = [1, 3])]
    fn the_quickest_and_the_slowest_rank_are_told_apart(world: selvedge::World) {
        let row = init(&world, 1000.0 * (world.rank() + 1) as f64).unwrap();
        let ranks = world.size() as f64;
        assert_eq!(row.values, [(ranks + 1.0) / 2.0, 1.0, ranks]);
    }
}
