//! `mpirun -n N osu BENCH [flags]`: see `osu --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    selvedge_benches::osu::main()
}
