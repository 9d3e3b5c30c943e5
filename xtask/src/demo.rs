//! `cargo xtask demo`: the main job on this machine, then what a message costs beside what the machine allows.

use std::fs;
use std::io::IsTerminal;
use std::path::Path;

use serde_json::Value;

use crate::manifests::Workspace;
use crate::picture;
use crate::shell::{Outcome, Run};

/// Sizes shown, in bytes: one per kind of road (a cache line, a ring slot, a large copy).
const SIZES_SHOWN: &[u64] = &[1, 8, 64, 512, 4_096, 32_768, 262_144, 1_048_576, 4_194_304];

/// What the machine allows, measured in the same run.
#[derive(Debug, PartialEq)]
struct Floor {
    cache_line_us: f64,
    /// Bytes and microseconds of one warm memcpy.
    memcpy: Vec<(u64, f64)>,
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
    let floor = parse_floor(&measured(Run::new(workspace.release("osu"), ["floor", "--json", "-"]))?)?;
    let words = ["-n".into(), "2".into(), workspace.release("osu").into_os_string()];
    let bench = ["latency", "-m", "1:4194304", "--json", "-"].map(Into::into);
    let rows = measured(Run::new(workspace.release("mpirun"), words.into_iter().chain(bench)))?;
    print!("\n{}", table(&parse_latency(&rows)?, &floor));
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

fn parse_floor(answer: &Value) -> Result<Floor, String> {
    let cache_line_us = answer["cache_line_us"].as_f64().ok_or("osu floor printed no cache_line_us")?;
    let rows = answer["memcpy"].as_array().ok_or("osu floor printed no memcpy rows")?;
    let pair = |row: &Value| Some((row["bytes"].as_u64()?, row["us"].as_f64()?));
    Ok(Floor { cache_line_us, memcpy: rows.iter().filter_map(pair).collect() })
}

fn parse_latency(answer: &Value) -> Result<Vec<(u64, f64)>, String> {
    let rows = answer["rows"].as_array().ok_or("osu latency printed no rows")?;
    let pair = |row: &Value| Some((row["bytes"].as_u64()?, row["avg_us"].as_f64()?));
    Ok(rows.iter().filter_map(pair).collect())
}

impl Floor {
    /// The least a message of that size can cost when it is handed over in one piece: a cache line from core to core, or
    /// one copy, whichever is more. `None` where that copy was not measured.
    fn at(&self, bytes: u64) -> Option<f64> {
        if bytes <= 64 {
            return Some(self.cache_line_us);
        }
        let copy = self.memcpy.iter().find(|(size, _)| *size == bytes)?;
        Some(copy.1.max(self.cache_line_us))
    }
}

fn table(rows: &[(u64, f64)], floor: &Floor) -> String {
    let mut text = format!("{:>10} {:>12} {:>12} {:>8}\n", "bytes", "one way, us", "floor, us", "times");
    for (bytes, us) in rows.iter().filter(|(bytes, _)| SIZES_SHOWN.contains(bytes)) {
        let (least, times) = match floor.at(*bytes) {
            Some(least) => (format!("{least:.2}"), format!("{:.1}", us / least)),
            None => ("-".to_string(), "-".to_string()),
        };
        text.push_str(&format!("{bytes:>10} {us:>12.2} {least:>12} {times:>8}\n"));
    }
    text.push_str(
        "\nOne way: half of the average round trip between two ranks on this host.\n\
         Floor: one cache line from core to core (64 bytes and less), else one warm memcpy of that size, measured\n\
         just before on this machine. Large messages can beat it: both ranks copy at the same time.\n\
         Other programs running now make both columns worse.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_answers_of_osu_are_understood() {
        let floor =
            json!({"bench": "floor", "cache_line_us": 0.16, "memcpy": [{"bytes": 4_194_304, "us": 330.0}]});
        let floor = parse_floor(&floor).expect("complete");
        assert_eq!((floor.at(8), floor.at(4_194_304), floor.at(512)), (Some(0.16), Some(330.0), None));
        let rows = json!({"bench": "latency", "ranks": 2, "rows": [{"bytes": 8, "avg_us": 0.32}]});
        let text = table(&parse_latency(&rows).expect("complete"), &floor);
        assert!(text.contains("         8         0.32         0.16      2.0\n"), "{text}");
    }

    #[test]
    fn an_answer_without_figures_is_an_error_not_an_empty_table() {
        assert!(parse_floor(&json!({})).is_err());
        assert!(parse_latency(&json!({"bench": "latency"})).is_err());
    }
}
