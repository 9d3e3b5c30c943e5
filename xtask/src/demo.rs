//! `cargo xtask demo`: the main job on this machine, then what a message costs beside what the machine allows.

use std::fs;
use std::io::IsTerminal;
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::manifests::Workspace;
use crate::osu;
use crate::picture;
use crate::shell::{Outcome, Run};

/// Sizes shown, in bytes: one per kind of road (a cache line, a ring slot, a large copy).
const SIZES_SHOWN: &[u64] = &[1, 8, 64, 1_024, 4_096, 32_768, 262_144, 1_048_576, 4_194_304];

/// One memcpy, timed.
#[derive(Debug, PartialEq)]
struct Copied {
    bytes: u64,
    /// All of it warm in one's own caches.
    us: f64,
    /// The source just written by another core.
    remote_us: Option<f64>,
}

/// What the machine allows, measured in the same run.
#[derive(Debug, PartialEq)]
pub(crate) struct Floor {
    cache_line_us: f64,
    memcpy: Vec<Copied>,
}

/// Builds, runs the heat equation on 4 ranks, shows its picture and the latency table. Whether all of it worked; if not, the last line
/// says what did not.
pub fn run() -> bool {
    match steps(&Workspace::load()) {
        Ok(()) => true,
        Err(reason) => {
            eprintln!("\ndemo: {reason}");
            false
        }
    }
}

fn steps(workspace: &Workspace) -> Result<(), String> {
    heading("Building in release mode");
    let packages = ["-p", "selvedge-launcher", "-p", "selvedge-examples", "-p", "selvedge-benches"];
    let words = ["build", "--release", "--locked"].into_iter().chain(packages);
    succeeded(Run::cargo(words).inside(&workspace.root).in_the_open())?;

    heading("The heat equation on 4 ranks");
    let folder = workspace.target.join("demo");
    fs::create_dir_all(&folder).map_err(|e| format!("creating {}: {e}", folder.display()))?;
    heat(workspace, &folder)?;

    heading("What a message costs here");
    let others = others_running();
    let floor = parse_floor(&measured(Run::new(workspace.release("osu"), ["floor", "--json", "-"]))?)?;
    let words = ["-n".into(), "2".into(), workspace.release("osu").into_os_string()];
    let bench = ["latency", "-m", "1:4194304", "--json", "-"].map(Into::into);
    let rows = measured(Run::new(workspace.release("mpirun"), words.into_iter().chain(bench)))?;
    print!("\n{}", table(&osu::parse_rows(&rows, "avg_us")?, &floor));
    match others {
        0 => println!("Nothing else was running when this was measured."),
        _ => println!(
            "The machine is busy ({others} of others' threads were running): all figures are worse for it, those of small \
             messages most."
        ),
    }
    Ok(())
}

fn heat(workspace: &Workspace, folder: &Path) -> Result<(), String> {
    let picture = folder.join("heat2d.png");
    let words = ["-n".into(), "4".into(), workspace.release("heat2d").into_os_string()];
    let options = ["--check".into(), "--out".into(), picture.clone().into_os_string()];
    let run = Run::new(workspace.release("mpirun"), words.into_iter().chain(options));
    succeeded(run.inside(&workspace.root).in_the_open())?;
    let size = fs::metadata(&picture).map_err(|e| format!("heat2d left no picture: {e}"))?.len();
    if std::io::stdout().is_terminal() {
        print!("\n{}", picture::for_terminal(&picture)?);
    }
    println!("\nThe picture: {} ({} KiB)", picture.display(), size.div_ceil(1024));
    Ok(())
}

/// Threads of others that want a processor right now: the fewest of a few looks, so that a passing one does not count.
pub(crate) fn others_running() -> usize {
    let look = |_| {
        thread::sleep(Duration::from_millis(50));
        let load = fs::read_to_string("/proc/loadavg").ok()?;
        let running: usize = load.split_whitespace().nth(3)?.split('/').next()?.parse().ok()?;
        Some(running.saturating_sub(1))
    };
    (0..5).filter_map(look).min().unwrap_or(0)
}

fn heading(text: &str) {
    println!("\n== {text}");
}

fn succeeded(outcome: Outcome) -> Result<(), String> {
    if outcome.is_ok() { Ok(()) } else { Err(format!("that command failed: {}", outcome.why)) }
}

fn measured(run: Run) -> Result<Value, String> {
    println!("$ {}", run.shown());
    let outcome = run.quiet().collect();
    if !outcome.is_ok() {
        return Err(outcome.reason());
    }
    serde_json::from_str(&outcome.text).map_err(|e| format!("osu printed something else than JSON: {e}"))
}

pub(crate) fn parse_floor(answer: &Value) -> Result<Floor, String> {
    let cache_line_us = answer["cache_line_us"].as_f64().ok_or("osu floor printed no cache_line_us")?;
    let rows = answer["memcpy"].as_array().ok_or("osu floor printed no memcpy rows")?;
    let copied = |row: &Value| {
        Some(Copied {
            bytes: row["bytes"].as_u64()?,
            us: row["us"].as_f64()?,
            remote_us: row["remote_us"].as_f64(),
        })
    };
    Ok(Floor { cache_line_us, memcpy: rows.iter().filter_map(copied).collect() })
}

impl Floor {
    fn copy(&self, bytes: u64) -> Option<&Copied> {
        self.memcpy.iter().find(|copied| copied.bytes == bytes)
    }

    /// The least a message of that size can cost when it is handed over in one piece: a cache line from core to core, or
    /// one warm copy, whichever is more. `None` where that copy was not measured.
    pub(crate) fn at(&self, bytes: u64) -> Option<f64> {
        if bytes <= 64 {
            Some(self.cache_line_us)
        } else {
            Some(self.copy(bytes)?.us.max(self.cache_line_us))
        }
    }
}

fn table(rows: &[(u64, f64)], floor: &Floor) -> String {
    let figure = |us: Option<f64>, digits: usize| us.map_or("-".to_string(), |us| format!("{us:.digits$}"));
    let mut text = format!(
        "{:>9} {:>12} {:>11} {:>7} {:>12}\n",
        "bytes", "one way, us", "floor, us", "times", "remote, us"
    );
    for (bytes, us) in rows.iter().filter(|(bytes, _)| SIZES_SHOWN.contains(bytes)) {
        let least = floor.at(*bytes);
        let times = figure(least.map(|least| us / least), 1);
        let remote = figure(floor.copy(*bytes).and_then(|copied| copied.remote_us), 2);
        text.push_str(&format!("{bytes:>9} {us:>12.2} {:>11} {times:>7} {remote:>12}\n", figure(least, 2)));
    }
    text.push_str(
        "\nOne way: half of the average round trip between two ranks on this host.\n\
         Floor: one cache line from core to core (64 bytes and less), else one memcpy of that size with everything warm\n\
         in one core's caches, measured just before. Times: the one over the other.\n\
         Remote: one memcpy of bytes that another core has just written, as those of a message are.\n\
         Large messages can beat both: the two ranks copy at the same time.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_answers_of_osu_are_understood() {
        let rows = json!([{"bytes": 1024, "us": 0.006, "remote_us": 0.2}, {"bytes": 4_194_304, "us": 330.0}]);
        let floor = json!({"bench": "floor", "cache_line_us": 0.16, "memcpy": rows});
        let floor = parse_floor(&floor).expect("complete");
        assert_eq!((floor.at(8), floor.at(1024), floor.at(4_194_304)), (Some(0.16), Some(0.16), Some(330.0)));
        assert_eq!(floor.at(4096), None);
        let rows = json!([{"bytes": 8, "avg_us": 0.32}, {"bytes": 1024, "avg_us": 0.8}, {"bytes": 2048, "avg_us": 9}]);
        let rows = json!({"bench": "latency", "ranks": 2, "rows": rows});
        let text = table(&osu::parse_rows(&rows, "avg_us").expect("complete"), &floor);
        let lines: Vec<_> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
        assert_eq!(lines[1], ["8", "0.32", "0.16", "2.0", "-"]);
        assert_eq!(lines[2], ["1024", "0.80", "0.16", "5.0", "0.20"]);
        assert!(lines[3].is_empty(), "{text}");
    }

    #[test]
    fn an_answer_without_figures_is_an_error_not_an_empty_table() {
        assert!(parse_floor(&json!({})).is_err());
        assert!(osu::parse_rows(&json!({"bench": "latency"}), "avg_us").is_err());
    }
}
