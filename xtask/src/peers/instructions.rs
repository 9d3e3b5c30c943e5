//! `cargo xtask peers --instructions`: instructions that one rank spends on a message, by library.
//!
//! Seconds on a device made of software say nothing about a card; instructions outside of it do. Rank 0 of a ping-pong runs
//! under callgrind, rank 1 as always: it answers before rank 0 has looked twice, so that little of the count is waiting.
//! Each job runs with two numbers of round trips, and the difference leaves start and end out. Waiting can only add, and
//! does so at random: of a few runs the one with the least counts.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::callgrind::Profile;
use super::contender::Contender;
use super::road::Road;
use crate::manifests::Workspace;
use crate::osu::answer_of;
use crate::tools;

/// Round trips of the two runs.
const TURNS: [u64; 2] = [200, 10_200];
/// Runs of which the least counts.
const TRIES: usize = 3;
/// What is sent.
const SIZES: [u64; 2] = [8, 4 << 10];

/// Where instructions were spent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Spent {
    /// In the program and its MPI library.
    library: f64,
    /// In libfabric.
    libfabric: f64,
    /// Everywhere but in the device.
    all: f64,
    /// In the device and below it.
    device: f64,
}

/// Counts for every contender and prints a table. What could not be counted is said in its line.
pub(super) fn run(
    workspace: &Workspace,
    road: Road,
    contenders: &[Contender],
    limit: Duration,
) -> Result<(), String> {
    tools::valgrind()?;
    let folder = workspace.target.join("callgrind");
    fs::create_dir_all(&folder).map_err(|e| format!("creating {}: {e}", folder.display()))?;
    println!(
        "\nInstructions of one rank for a message sent and one received\n{:<30}{:>10}{:>12}{:>8}{:>8}{:>11}",
        "", "library", "libfabric", "else", "all", "in device"
    );
    for bytes in SIZES {
        for contender in contenders {
            let what = format!("{bytes} B, {}", contender.name);
            match count(contender, road, bytes, &folder.join("profile"), limit) {
                Ok(spent) => println!("{}", row(&what, spent)),
                Err(reason) => println!("{what:<30}  not counted: {reason}"),
            }
        }
    }
    println!(
        "Library: the program and its MPI library, which with Selvedge are one. Else: libc for either. Of {TRIES} runs\n\
         the least; rank 0 under callgrind, what it waits included."
    );
    Ok(())
}

fn row(what: &str, spent: Spent) -> String {
    let Spent { library, libfabric, all, device } = spent;
    let rest = all - library - libfabric;
    format!("{what:<30}{library:>10.0}{libfabric:>12.0}{rest:>8.0}{all:>8.0}{device:>11.0}")
}

/// For one more round trip: from the difference of two runs.
fn count(
    contender: &Contender,
    road: Road,
    bytes: u64,
    file: &PathBuf,
    limit: Duration,
) -> Result<Spent, String> {
    let mut least: [Option<Profile>; 2] = [None, None];
    for _ in 0..TRIES {
        for (turns, least) in TURNS.into_iter().zip(&mut least) {
            answer_of(contender.counted(bytes, turns, file, limit))?;
            let text = fs::read_to_string(file).map_err(|e| format!("callgrind left no profile: {e}"))?;
            let profile = Profile::parse(&text, road.device())?;
            if least.as_ref().is_none_or(|least| profile.outside() < least.outside()) {
                *least = Some(profile);
            }
        }
    }
    let [Some(short), Some(long)] = least else { return Err("nothing was run".to_string()) };
    Ok(difference(&short, &long, TURNS[1] - TURNS[0]))
}

fn difference(short: &Profile, long: &Profile, turns: u64) -> Spent {
    let each = |of: &dyn Fn(&Profile) -> u64| (of(long) as f64 - of(short) as f64) / turns as f64;
    Spent {
        library: each(&|profile| profile.of(&["osu", "peer", "libmpi", "libopen-pal", "mca_"])),
        // libefa-fi is the efa provider of those that keep it in a file of its own.
        libfabric: each(&|profile| profile.of(&["libfabric", "libefa-fi"])),
        all: each(&Profile::outside),
        device: each(&Profile::below),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_start_and_end_take_does_not_count() {
        let run = |turns: u64| {
            let text =
                format!("ob=(1) osu\n0 {}\nob=(2) libfabric.so.1\n0 {}\n", 5000 + 300 * turns, 100 * turns);
            Profile::parse(&text, None).expect("well formed")
        };
        let spent = difference(&run(200), &run(1200), 1000);
        assert_eq!(spent, Spent { library: 300.0, libfabric: 100.0, all: 400.0, device: 0.0 });
        assert!(
            row("8 B, Selvedge", spent)
                .split_whitespace()
                .eq(["8", "B,", "Selvedge", "300", "100", "0", "400", "0"])
        );
    }
}
