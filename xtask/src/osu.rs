//! What a run of `osu` or `peer` printed, and what somebody must have carried for it.

use std::fs;

use serde_json::Value;

use crate::shell::{Outcome, Run};

/// Messages of one window of `bw`, osu's default.
const WINDOW: u64 = 64;

/// Runs a benchmark that prints one JSON document. What the launcher may print around it is left out.
///
/// # Errors
/// Why it failed, or what else it printed.
pub(crate) fn answer_of(run: Run) -> Result<Value, String> {
    let outcome = run.quiet().collect();
    if outcome.is_ok() { answer_in(&outcome) } else { Err(outcome.reason()) }
}

/// The results in what a benchmark has printed.
///
/// # Errors
/// What else it printed.
pub(crate) fn answer_in(outcome: &Outcome) -> Result<Value, String> {
    let mut documents = outcome.text.lines().filter(|line| line.starts_with('{'));
    match (documents.next(), documents.next()) {
        (Some(one), None) => serde_json::from_str(one).map_err(|e| format!("that is not JSON: {e}")),
        (None, _) => Err(format!("it printed no results: {:?}", outcome.text)),
        (Some(_), Some(_)) => {
            Err("it printed several results: its ranks did not find each other".to_string())
        }
    }
}

/// Sizes in bytes and the figure called `key`.
pub(crate) fn parse_rows(answer: &Value, key: &str) -> Result<Vec<(u64, f64)>, String> {
    let rows = answer["rows"].as_array().ok_or("the benchmark printed no rows")?;
    let pair = |row: &Value| Some((row["bytes"].as_u64()?, row[key].as_f64()?));
    Ok(rows.iter().filter_map(pair).collect())
}

/// The least that the ranks of a job received from each other, by the rows it printed.
///
/// # Errors
/// What is missing there.
pub(crate) fn received_bytes(answer: &Value) -> Result<u64, String> {
    let rows = answer["rows"].as_array().ok_or("the benchmark printed no rows")?;
    let ranks = answer["ranks"].as_u64().ok_or("the benchmark did not say on how many ranks it ran")?;
    // Both ends of a ping-pong, and every rank of a collective but the root, receive this much at least.
    let messages = match answer["bench"].as_str() {
        Some("bw") => WINDOW,
        Some("bcast") => ranks.saturating_sub(1),
        _ => ranks,
    };
    let of_row = |row: &Value| Some(messages * row["bytes"].as_u64()? * row["iterations"].as_u64()?);
    rows.iter().map(of_row).sum::<Option<u64>>().ok_or_else(|| "a row lacks its iterations".to_string())
}

/// Bytes that arrived on the loopback interface since it came up.
///
/// # Errors
/// The kernel does not say.
pub(crate) fn loopback_bytes() -> Result<u64, String> {
    let table = fs::read_to_string("/proc/net/dev").map_err(|e| format!("reading /proc/net/dev: {e}"))?;
    parse_loopback(&table).ok_or_else(|| "/proc/net/dev has no line of lo".to_string())
}

/// The first figure behind `lo:` (proc_net_dev(5): bytes received).
fn parse_loopback(table: &str) -> Option<u64> {
    let line = table.lines().find_map(|line| line.trim_start().strip_prefix("lo:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_launcher_prints_around_the_results_is_left_out_and_two_results_are_refused() {
        let said = |text: &str| answer_of(Run::new("printf", ["%b".to_string(), text.to_string()]));
        assert_eq!(said("a warning\\n{\"ranks\":2}\\n").map(|answer| answer["ranks"].clone()), Ok(json!(2)));
        assert!(said("{\"ranks\":1}\\n{\"ranks\":1}\\n").expect_err("two").contains("find each other"));
        assert!(said("").expect_err("none").contains("no results"));
    }

    #[test]
    fn what_ranks_received_is_read_from_the_rows() {
        let rows = json!([{"bytes": 8, "iterations": 10}, {"bytes": 16, "iterations": 5}]);
        let of = |bench: &str| received_bytes(&json!({"bench": bench, "ranks": 2, "rows": rows}));
        assert_eq!((of("latency"), of("bcast"), of("bw")), (Ok(320), Ok(160), Ok(64 * 160)));
        assert!(received_bytes(&json!({"bench": "bw", "ranks": 2, "rows": [{"bytes": 8}]})).is_err());
    }

    #[test]
    fn the_bytes_of_loopback_are_found_in_the_table_of_interfaces() {
        let table = "Inter-| Receive\n face |bytes packets\n    lo:  286507168   72143    0\n  eth0: 5 1\n";
        assert_eq!(parse_loopback(table), Some(286_507_168));
        assert_eq!(parse_loopback(" eth0: 5 1\n"), None);
    }
}
