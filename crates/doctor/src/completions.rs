//! `selvedge completions`: what makes a shell complete our programs' words. `selvedge` is described by clap, `mpirun` describes
//! itself and is asked.

use std::ffi::OsString;
use std::process::{Command, ExitCode, Stdio};

use clap::ValueEnum;
use clap_complete::aot;

use crate::cli::FAILED;

/// A shell that both know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    /// bash 4.4 and later
    Bash,
    /// zsh with its completion system on
    Zsh,
    /// fish 3 and later
    Fish,
}

/// Prints both scripts, one after the other. Nothing is printed where one of them is missing: half of it in a shell's start-up
/// file would look like all of it.
pub(crate) fn print(shell: Shell, selvedge: &mut clap::Command) -> ExitCode {
    let (name, ours) = match shell {
        Shell::Bash => ("bash", aot::Shell::Bash),
        Shell::Zsh => ("zsh", aot::Shell::Zsh),
        Shell::Fish => ("fish", aot::Shell::Fish),
    };
    let theirs = match of_mpirun(name) {
        Ok(script) => script,
        Err(why) => {
            eprintln!("selvedge: {why}");
            return ExitCode::from(FAILED);
        }
    };
    let mut text = theirs;
    aot::generate(ours, selvedge, "selvedge", &mut text);
    crate::cli::answer(&text, ExitCode::SUCCESS)
}

/// What mpirun prints for this shell.
fn of_mpirun(shell: &str) -> Result<Vec<u8>, String> {
    let beside =
        std::env::current_exe().ok().map(|own| own.with_file_name("mpirun")).filter(|path| path.exists());
    let program = beside.map_or_else(|| OsString::from("mpirun"), OsString::from);
    let asked = Command::new(&program).args(["--completions", shell]).stdin(Stdio::null()).output();
    let shown = program.display();
    let done = asked
        .map_err(|error| format!("cannot ask {shown}: {error}; both programs belong into one folder"))?;
    if done.status.success() {
        return Ok(done.stdout);
    }
    Err(format!(
        "{shown} does not know --completions; is it the mpirun of Selvedge? It has to be beside this program"
    ))
}
