//! `pi`, `sort`, `cg` and `sgd` as their users run them: any number of ranks has the same answer.

mod support;

use std::fs;
use std::process::Command;

use support::{alone, mpirun, scratch};

const PI: &str = env!("CARGO_BIN_EXE_pi");
const SORT: &str = env!("CARGO_BIN_EXE_sort");
const CG: &str = env!("CARGO_BIN_EXE_cg");
const SGD: &str = env!("CARGO_BIN_EXE_sgd");
const CANTILEVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/cantilever.mtx");

#[test]
fn pi_has_ten_digits_on_any_number_of_ranks() {
    for ranks in [1, 2, 4] {
        assert_eq!(mpirun(ranks, PI, &[]).ok(), format!("pi is 3.1415926536, by {ranks} ranks\n"));
    }
}

/// What the system's own `sort` makes of a file.
fn sorted(path: &str) -> Vec<u8> {
    let output = Command::new("sort").env("LC_ALL", "C").arg(path).output().expect("there is a sort");
    assert!(output.status.success());
    output.stdout
}

#[test]
fn lines_are_sorted_as_by_sort_on_any_number_of_ranks() {
    let (file, out) = (scratch("lines.txt"), scratch("sorted.txt"));
    let (file, out) = (file.to_str().unwrap(), out.to_str().unwrap());
    // Lines of all lengths, many of them equal, the last one without its end.
    let mut state = 1_u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    };
    let line = |random: &mut dyn FnMut(u64) -> u64| {
        let bytes: Vec<u8> = (0..random(9) * random(2)).map(|_| random(250) as u8 + 1).collect();
        bytes.into_iter().filter(|byte| *byte != b'\n').collect::<Vec<u8>>()
    };
    let lines: Vec<Vec<u8>> = (0..3000).map(|_| line(&mut random)).collect();
    for text in [lines.join(&b'\n'), b"only one".to_vec(), Vec::new(), b"\n\nb\na\n".to_vec()] {
        fs::write(file, &text).unwrap();
        for ranks in [1, 2, 4] {
            mpirun(ranks, SORT, &[file, "--out", out]).ok();
            assert!(fs::read(out).unwrap() == sorted(file), "{} bytes on {ranks} ranks", text.len());
        }
    }
}

#[test]
fn a_file_may_be_sorted_into_itself_and_trouble_is_said_once() {
    let file = scratch("itself.txt");
    let file = file.to_str().unwrap();
    fs::write(file, "weft\nwarp\nselvedge\nheddle\n").unwrap();
    mpirun(3, SORT, &[file, "--out", file]).ok();
    assert_eq!(fs::read_to_string(file).unwrap(), "heddle\nselvedge\nwarp\nweft\n");
    mpirun(2, SORT, &["no-such-text", "--out", file]).refused(1, "sort: cannot read no-such-text");
    mpirun(2, SORT, &[file, "--out", "/no/such/folder"]).refused(1, "sort: cannot write /no/such/folder");
}

/// The words of a line that are numbers.
fn numbers(line: &str) -> Vec<f64> {
    line.split([' ', ',']).filter_map(|word| word.parse().ok()).collect()
}

#[test]
fn a_beam_is_solved_alike_on_any_number_of_ranks() {
    let iterations = [1, 2, 4].map(|ranks| {
        let solved = mpirun(ranks, CG, &[CANTILEVER]).ok();
        let lines: Vec<Vec<f64>> = solved.lines().map(numbers).collect();
        let ([unknowns, iterations, on], [residual, error]) = (&lines[0][..], &lines[1][..]) else {
            panic!("{solved}")
        };
        assert_eq!((*unknowns, *on), (240.0, ranks as f64), "{solved}");
        assert!(*residual <= 1e-10 && *error < 1e-6, "{solved}");
        *iterations
    });
    // Sums are rounded in another order, so an iteration more or less may do.
    assert!(iterations.iter().all(|it| (it - iterations[0]).abs() <= 2.0), "{iterations:?}");
}

#[test]
fn matrices_of_a_few_rows_are_solved_by_more_ranks_than_rows() {
    let path = scratch("two.mtx");
    fs::write(&path, "%%MatrixMarket matrix coordinate real general\n2 2 4\n1 1 2\n1 2 1\n2 1 1\n2 2 2\n")
        .unwrap();
    let solved = mpirun(4, CG, &[path.to_str().unwrap()]).ok();
    assert!(solved.starts_with("2 unknowns,"), "{solved}");
}

#[test]
fn what_cannot_be_solved_is_one_error_and_exit_code_1() {
    let path = scratch("indefinite.mtx");
    fs::write(&path, "%%MatrixMarket matrix coordinate real symmetric\n2 2 2\n1 1 1\n2 2 -3\n").unwrap();
    mpirun(2, CG, &[path.to_str().unwrap()]).refused(1, "cg: the matrix is not positive definite");
    mpirun(2, CG, &["no-such-matrix"]).refused(1, "cg: cannot read no-such-matrix");
    mpirun(2, CG, &[CANTILEVER, "--limit", "3"]).refused(1, "cg: not solved after 3 iterations");
}

#[test]
fn irises_are_learnt_alike_on_any_number_of_ranks() {
    let serial = alone(SGD, &[]).ok();
    let serial: Vec<Vec<f64>> = serial.lines().map(numbers).collect();
    assert!(serial[2][0] >= 28.0 && serial[2][1] == 30.0, "{serial:?}");
    for ranks in [1, 2, 4] {
        let learnt = mpirun(ranks, SGD, &[]).ok();
        let learnt: Vec<Vec<f64>> = learnt.lines().map(numbers).collect();
        assert_eq!(learnt[0], [150.0, 3.0, ranks as f64]);
        let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 2e-6;
        assert!(
            learnt[1..].iter().flatten().zip(serial[1..].iter().flatten()).all(close),
            "{learnt:?} {serial:?}"
        );
    }
}

#[test]
fn a_table_that_is_none_is_one_error_and_exit_code_1() {
    let path = scratch("words.csv");
    fs::write(&path, "a,b\n1,x\none,y\n").unwrap();
    mpirun(2, SGD, &[path.to_str().unwrap()]).refused(1, "words.csv, line 3: not numbers and a name");
}

/// Under mpirun this test is a rank: a program of two libraries, each of which joins the job by itself.
#[test]
fn libraries_of_one_program_join_without_knowing_of_each_other() {
    const NAME: &str = "libraries_of_one_program_join_without_knowing_of_each_other";
    if std::env::var_os("PMI_FD").is_none() {
        let this = std::env::current_exe().unwrap();
        for ranks in [1, 2] {
            mpirun(ranks, this.to_str().unwrap(), &["--exact", NAME]).ok();
        }
        return;
    }
    let (one, two) = (selvedge::init().unwrap(), selvedge::init().unwrap());
    assert_eq!((one.rank(), one.size()), (two.rank(), two.size()));
    let refused = std::thread::spawn(|| selvedge::init().map(drop).unwrap_err().to_string()).join().unwrap();
    assert!(refused.contains("has joined its job already, in thread \"libraries_of_one"), "{refused}");
    one.send(&[1u8], one.rank(), 0).unwrap();
    assert!(two.iprobe(selvedge::ANY_SOURCE, 0).unwrap().is_none());
    one.recv(&mut [0u8], one.rank(), 0).unwrap();
    drop(one);
    two.barrier().unwrap();
    drop(two);
    let refused = selvedge::init().map(drop).unwrap_err().to_string();
    assert!(refused.contains("launchers take nobody back"), "{refused}");
}
