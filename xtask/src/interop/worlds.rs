//! Ranks that start ranks, and ranks that find each other by name: the same mpi4py script under its library's own mpiexec and
//! under our mpirun must say the same. On one host: three ranks on two namespaces were seen to hang under either launcher, in
//! MPICH and in Intel MPI, without a spawn. Spawns over hosts are tested with ranks that are scripts, in the launcher.
//!
//! The script is `worlds.py`; what it plays is in [`PLAYS`].

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use selvedge_testbed::Hosts;

use super::parts::{Launcher, Parts, Program};
use crate::count::Score;
use crate::shell::{Outcome, Run};

const SCRIPT: &str = include_str!("worlds.py");

/// Longest that one of these small jobs may take on a busy machine.
const JOB_MAX: Duration = Duration::from_secs(60);

/// A part of the script, or several side by side.
struct Play {
    name: &'static str,
    /// For each block of the command line: ranks, and the script's arguments.
    blocks: &'static [(&'static str, &'static [&'static str])],
    /// What is said where there is nothing to compare with: hydra hangs.
    alone: Option<&'static [&'static str]>,
}

const PLAYS: [Play; 7] = [
    Play { name: "one rank spawns two", blocks: &[("1", &["parent_of_some", "2"])], alone: None },
    Play { name: "three ranks spawn four", blocks: &[("3", &["parent_of_some", "4"])], alone: None },
    Play { name: "two commands in one spawn", blocks: &[("2", &["parent_of_two_kinds"])], alone: None },
    Play { name: "children spawn children", blocks: &[("1", &["ancestor", "2"])], alone: None },
    Play { name: "groups meet by name", blocks: &[("2", &["server"]), ("3", &["client"])], alone: None },
    Play { name: "an abort of a child ends all", blocks: &[("2", &["parent_of_a_quitter"])], alone: None },
    Play {
        name: "a spawn that fails harms nobody",
        blocks: &[("2", &["parent_of_nobody"])],
        alone: Some(&["rank 0 goes on", "rank 1 goes on"]),
    },
];

/// Runs all plays with MPICH and Intel MPI. Nothing starts once `limit` has passed.
pub(super) fn run(parts: &Parts, limit: Duration) -> Score {
    let began = Instant::now();
    let hosts = match Hosts::new(1) {
        Ok(hosts) => hosts,
        Err(error) => return Score::failure(format!("interop: {error}")),
    };
    let script = parts.ours.target.join("worlds.py");
    if let Err(error) = std::fs::write(&script, SCRIPT) {
        return Score::failure(format!("interop: writing {}: {error}", script.display()));
    }
    let mut score = Score::default();
    for (program, theirs) in [(Program::Mpich, Launcher::Hydra5), (Program::Intel, Launcher::Intel)] {
        if program == Program::Intel && parts.intel.is_none() {
            continue;
        }
        for play in &PLAYS {
            let name = format!("interop: {}, {}", play.name, program.name());
            let stage = Stage { parts, hosts: &hosts, script: &script, program };
            let in_time = began.elapsed() < limit;
            let result = if in_time { stage.compare(play, theirs) } else { Err("no time was left".into()) };
            println!("{name}: {}", result.as_ref().map_or_else(String::as_str, |()| "the same"));
            score.check(&name, result);
        }
    }
    score
}

/// Where plays are played.
struct Stage<'a> {
    parts: &'a Parts,
    hosts: &'a Hosts,
    script: &'a Path,
    program: Program,
}

/// What came of it: the exit code, and the lines in order of the alphabet.
type Said = (Option<i32>, Vec<String>);

impl Stage<'_> {
    fn compare(&self, play: &Play, theirs: Launcher) -> Result<(), String> {
        let ours = self.play(play, Launcher::Ours)?;
        let under_ours = said(&ours);
        let expected: Said = match play.alone {
            Some(lines) => (Some(0), lines.iter().map(|line| (*line).to_owned()).collect()),
            None => self.reference(play, theirs)?,
        };
        if under_ours == expected {
            return Ok(());
        }
        Err(format!("under ours {under_ours:?}, not {expected:?}; {}", ours.errors.trim()))
    }

    /// What the library's own launcher makes of it. Intel's was seen to crash in an abort of a child, once in some fifteen:
    /// that says nothing about the play, which is played again.
    fn reference(&self, play: &Play, theirs: Launcher) -> Result<Said, String> {
        const TRIES: usize = 3;
        for _ in 0..TRIES {
            let heard = said(&self.play(play, theirs)?);
            if heard.0.is_some() {
                return Ok(heard);
            }
        }
        Err(format!("its own launcher was ended by a signal {TRIES} times"))
    }

    fn play(&self, play: &Play, launcher: Launcher) -> Result<Outcome, String> {
        let Some((starter, words)) = launcher.words(self.parts, self.hosts.count(), &self.hosts.rsh()) else {
            return Err("the launcher is not there".into());
        };
        let mut command = self.hosts.command("node1", starter);
        // The number of ranks, which comes last, is the play's.
        command.args(&words[..words.len() - 2]).envs(launcher.env().iter().copied()).envs(self.env());
        for (at, (ranks, words)) in play.blocks.iter().enumerate() {
            let between = if at > 0 { &[":"][..] } else { &[] };
            let script = [self.parts.mpich.program("python").into(), OsString::from(self.script)];
            command.args(between).args(["-n", ranks]).args(script).args(*words);
        }
        Ok(Run::of(command).quiet().at_most(JOB_MAX).collect())
    }

    /// mpi4py takes the library that it is told; the library a road that leads to ranks that come later.
    fn env(&self) -> BTreeMap<&'static str, OsString> {
        let library = match (self.program, &self.parts.intel) {
            (Program::Intel, Some(intel)) => intel,
            _ => &self.parts.mpich,
        };
        let mut env = BTreeMap::from([("MPI4PY_LIBMPI", library.libmpi().into())]);
        env.extend([("MPIR_CVAR_CH4_NETMOD", "ofi".into()), ("FI_PROVIDER", OsString::from("tcp"))]);
        if self.program == Program::Intel {
            env.extend([("I_MPI_SPAWN", "1".into()), ("I_MPI_FABRICS", OsString::from("ofi"))]);
            env.extend([("I_MPI_PIN", OsString::from("0"))]);
            // It asks for libfabric by name alone, and would get the system's.
            env.extend(library.libfabric().parent().map(|own| ("LD_LIBRARY_PATH", own.into())));
        }
        env
    }
}

fn said(outcome: &Outcome) -> Said {
    let mut lines: Vec<String> = outcome.text.lines().map(str::to_owned).collect();
    lines.sort();
    (outcome.code, lines)
}
