//! What killed ranks of other libraries leave in `/dev/shm`. Alone in its program: what one job leaves there would be seen by
//! others that run beside it.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use std::path::Path;
use std::process::Command;

use common::{Folder, eventually, mpirun, read_lines};
use rustix::process::{Pid, Signal, kill_process};

/// A program of another library, whose ranks share memory that has a name. Needs no header of it.
const MPICH: &str = "
#include <stdio.h>
#include <unistd.h>
int MPI_Init(int *, char ***);
int MPI_Finalize(void);
int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    puts(\"ready\");
    fflush(stdout);
    sleep(1000);
    return MPI_Finalize();
}
";

#[test]
fn files_that_killed_ranks_of_mpich_leave_in_dev_shm_are_taken_away() {
    let folder = Folder::new("mpich");
    let (source, program) = (folder.file("m.c", MPICH, 0o644), folder.0.join("m"));
    let wheel = std::env::var("SELVEDGE_TEST_LIBFABRIC_2").unwrap_or_else(|_| {
        panic!("SELVEDGE_TEST_LIBFABRIC_2 is not set; `cargo xtask test` brings MPICH's wheel and sets it to a library in it")
    });
    let lib = Path::new(&wheel).parent().and_then(Path::parent).unwrap();
    let mut cc = Command::new("cc");
    cc.arg("-o").arg(&program).arg(&source).arg(lib.join("libmpi.so.12"));
    cc.arg("-Wl,--allow-shlib-undefined").arg(format!("-Wl,-rpath,{}", lib.display()));
    let built =
        cc.status().unwrap_or_else(|error| panic!("the test needs a C compiler, install gcc: {error}"));
    assert!(built.success());
    for who in ["a rank", "mpirun", "all, asked"] {
        let mut job = mpirun(["-n", "2", "--pmi", "1", program.to_str().unwrap()]).undisturbed().start();
        read_lines(&mut job, 2);
        match who {
            "a rank" => {
                let agent = job.agent().as_raw_nonzero().get();
                let rank = eventually("a rank", || job.others().into_iter().find(|pid| *pid != agent));
                kill_process(Pid::from_raw(rank).unwrap(), Signal::KILL).unwrap();
                assert_eq!(job.finish().code(), 137);
            }
            "mpirun" => {
                job.signal(Signal::KILL);
                job.child.wait().unwrap();
                job.assert_nothing_left();
            }
            _ => {
                job.signal(Signal::TERM);
                assert_eq!(job.finish().code(), 143);
            }
        }
    }
}
