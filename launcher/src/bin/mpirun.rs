//! Starts the ranks of a job; see the library of this crate.

fn main() -> std::process::ExitCode {
    selvedge_launcher::main()
}
