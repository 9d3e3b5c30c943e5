//! What the examples share, so that each shows what it is about: starting, failing together, and the files they read.
//!
//! Read the examples themselves first: `src/bin/pi.rs` is the smallest, `src/bin/heat2d.rs` the one with a picture.

pub mod field;
pub mod matrix;
pub mod samples;
pub mod text;

use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use selvedge::{Communicator, Error, Op, World};

/// Why a program ends before its end.
#[derive(Debug)]
pub enum Failure {
    /// All ranks know, and one has said why.
    Together,
    /// Only this rank knows: a message could not be sent or received.
    Alone(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Alone(error)
    }
}

/// Joins the job, parses the command line and runs `program`. Only rank 0 prints help or complains about the command
/// line (exit code 2). A failure is exit code 1 on every rank.
pub fn main<Args: Parser>(program: impl FnOnce(&World, Args) -> Result<(), Failure>) -> ExitCode {
    let world = match selvedge::init() {
        Ok(world) => world,
        Err(error) => {
            eprintln!("{}: {error}", own_name());
            return ExitCode::FAILURE;
        }
    };
    let outcome = match Args::try_parse() {
        Ok(args) => program(&world, args),
        Err(error) => {
            if world.rank() == 0 {
                // When even this cannot be printed there is nobody to tell.
                let _ = error.print();
            }
            // Until everybody is here rank 0 may not have finished its sentence.
            let code = if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
            return if world.barrier().is_ok() { code } else { ExitCode::FAILURE };
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Together) => ExitCode::FAILURE,
        Err(Failure::Alone(error)) => {
            eprintln!("{}: rank {}: {error}", own_name(), world.rank());
            world.abort(1)
        }
    }
}

/// Collective. Passes `result` on if every rank has an `Ok`; else the lowest rank that has none prints its error, and
/// all ranks get [`Failure::Together`]. So nobody waits for a message from a rank that gave up.
pub fn agree<T, E: Display>(world: &Communicator, result: Result<T, E>) -> Result<T, Failure> {
    let mut first_failed = [0];
    let mine = if result.is_ok() { world.size() } else { world.rank() };
    world.allreduce(&[mine], &mut first_failed, &Op::min())?;
    match result {
        Ok(value) if first_failed[0] == world.size() => return Ok(value),
        Err(error) if first_failed[0] == world.rank() => eprintln!("{}: {error}", own_name()),
        _ => {}
    }
    world.barrier()?;
    Err(Failure::Together)
}

/// The name this program was started by.
fn own_name() -> String {
    let path = std::env::args_os().next().unwrap_or_default();
    Path::new(&path).file_name().unwrap_or_default().to_string_lossy().into_owned()
}
