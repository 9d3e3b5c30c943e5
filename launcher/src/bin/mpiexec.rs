//! `mpirun` by its other name.

fn main() -> std::process::ExitCode {
    selvedge_launcher::main()
}
