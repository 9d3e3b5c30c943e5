//! `peer --library LIBMPI BENCH [flags]`, started by that library's own mpiexec: see `peer --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    selvedge_benches::peer::main()
}
