//! Why a testbed could not be set up.

use std::fmt;
use std::io;
use std::process::{Command, Output};

use thiserror::Error;

/// Why a testbed could not be set up. Its `Debug` is the sentence too, so that `unwrap` in a test says it.
#[derive(Error)]
pub enum Error {
    /// Namespaces need rights.
    #[error(
        "hosts made of network namespaces need root, and this process runs as user {uid}; run the tests as root"
    )]
    NotRoot {
        /// Who we are.
        uid: u32,
    },
    /// A program that is not installed.
    #[error("{program} is missing; install the package that Debian calls {package}")]
    Missing {
        /// The program.
        program: String,
        /// Where it comes from.
        package: &'static str,
    },
    /// A system call that failed.
    #[error("cannot {doing}: {cause}")]
    System {
        /// What was tried.
        doing: String,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// A program that failed.
    #[error("{command} failed: {said}")]
    Failed {
        /// The command line.
        command: String,
        /// What it wrote, or how it ended.
        said: String,
    },
    /// Something that did not come up in time.
    #[error("{what} did not come up within {seconds} s: {last}")]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
        /// What was seen last.
        last: String,
    },
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Says what was being done when the system refused.
pub(crate) trait Doing<T> {
    /// `what` completes the sentence "cannot ...".
    fn doing(self, what: impl Into<String>) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl Into<String>) -> Result<T, Error> {
        self.map_err(|cause| Error::System { doing: what.into(), cause: cause.into() })
    }
}

/// The output of `command` if it ended well.
pub(crate) fn succeeded(
    output: io::Result<Output>,
    command: &Command,
    package: &'static str,
) -> Result<Output, Error> {
    let output = output.map_err(|cause| not_started(command, cause, package))?;
    if output.status.success() {
        return Ok(output);
    }
    let said = [&output.stderr, &output.stdout].map(|text| String::from_utf8_lossy(text).trim().to_string());
    Err(Error::Failed {
        command: format!("{command:?}"),
        said: format!("{}: {}", output.status, said.join(" ")),
    })
}

/// A program that could not be started, most likely because it is not there.
pub(crate) fn not_started(command: &Command, cause: io::Error, package: &'static str) -> Error {
    let program = command.get_program().to_string_lossy().into_owned();
    match cause.kind() {
        io::ErrorKind::NotFound => Error::Missing { program, package },
        _ => Error::System { doing: format!("start {program}"), cause },
    }
}
