//! `selvedge`: see the library of this package.

use std::process::ExitCode;

fn main() -> ExitCode {
    selvedge_doctor::main()
}
