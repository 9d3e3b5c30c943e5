//! `heat2d` as its users run it: the answer does not depend on the ranks, and bad input hangs nobody.

mod support;

use std::fs;
use std::path::Path;
use std::process::Stdio;

use image::GrayImage;
use support::{alone, mpirun, scratch};

const HEAT2D: &str = env!("CARGO_BIN_EXE_heat2d");

fn text(path: &Path) -> &str {
    path.to_str().expect("scratch paths are UTF-8")
}

/// All but the first line, which says how many ranks there were and how long it took.
fn results(stdout: &str) -> Vec<&str> {
    stdout.lines().skip(1).collect()
}

#[test]
fn any_number_of_ranks_gives_the_serial_result_to_the_last_bit() {
    let picture = scratch("serial.png");
    let serial = alone(HEAT2D, &["--steps", "40", "--check", "--out", text(&picture)]).ok();
    let serial_picture = fs::read(picture).unwrap();
    assert!(serial.contains("identical to the serial run"), "{serial}");
    for ranks in [1, 2, 3, 4] {
        let picture = scratch(&format!("ranks-{ranks}.png"));
        let stdout = mpirun(ranks, HEAT2D, &["--steps", "40", "--check", "--out", text(&picture)]).ok();
        assert!(stdout.contains(&format!("on {ranks} ranks")), "{stdout}");
        assert_eq!(results(&stdout), results(&serial), "{ranks} ranks");
        assert!(fs::read(picture).unwrap() == serial_picture, "the picture of {ranks} ranks differs");
    }
}

#[test]
fn pictures_of_a_few_cells_work_down_to_a_row_per_rank() {
    for (width, height) in [(1, 1), (1, 4), (2, 2), (5, 1), (3, 7)] {
        let path = scratch(&format!("small-{width}x{height}.png"));
        GrayImage::from_fn(width, height, |x, y| image::Luma([(40 * x + 30 * y) as u8])).save(&path).unwrap();
        for ranks in [1, 2, 4].into_iter().filter(|ranks| *ranks <= height as usize) {
            let stdout = mpirun(ranks, HEAT2D, &[text(&path), "--steps", "9", "--check"]).ok();
            assert!(
                stdout.contains("identical to the serial run"),
                "{width} x {height} on {ranks}: {stdout}"
            );
        }
    }
}

#[test]
fn the_energy_of_an_insulated_field_stays() {
    let stdout = mpirun(2, HEAT2D, &["--steps", "300"]).ok();
    let line = stdout.lines().find(|line| line.starts_with("energy")).unwrap();
    let numbers: Vec<f64> = line.split([' ', ',']).filter_map(|word| word.parse().ok()).collect();
    assert!((numbers[0] - numbers[1]).abs() < 1e-6 * numbers[0], "{line}");
}

#[test]
fn progress_through_a_pipe_is_a_few_plain_lines() {
    let finished = mpirun(2, HEAT2D, &["--steps", "50"]);
    assert_eq!(finished.stderr.matches("steps").count(), 10, "{}", finished.stderr);
    assert!(!finished.stderr.contains('\u{1b}'), "no escape sequences");
}

#[test]
fn a_picture_that_is_not_there_is_one_error_and_exit_code_1() {
    for ranks in [1, 4] {
        mpirun(ranks, HEAT2D, &["no-such-picture.png"]).refused(1, "heat2d: cannot read no-such-picture.png");
    }
}

#[test]
fn a_file_that_is_no_picture_is_one_error_and_exit_code_1() {
    let words = scratch("words.png");
    fs::write(&words, "these are words").unwrap();
    let torn = scratch("torn.png");
    let whole = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("data/cloth.png")).unwrap();
    fs::write(&torn, &whole[..whole.len() / 2]).unwrap();
    for path in [words, torn] {
        mpirun(4, HEAT2D, &[text(&path)]).refused(1, "is not a picture");
    }
}

#[test]
fn more_ranks_than_rows_are_refused() {
    let path = scratch("two-rows.png");
    GrayImage::new(9, 2).save(&path).unwrap();
    mpirun(3, HEAT2D, &[text(&path)]).refused(1, "2 rows are too few for 3 ranks");
}

#[test]
fn a_result_that_cannot_be_written_is_noticed_before_anything_is_computed() {
    let started = std::time::Instant::now();
    mpirun(2, HEAT2D, &["--steps", "1000000000", "--out", "no/such/folder/warm.png"])
        .refused(1, "cannot write");
    assert!(started.elapsed().as_secs() < 60);
}

#[test]
fn more_ranks_than_a_look_visits_wait_for_no_clock() {
    let started = std::time::Instant::now();
    mpirun(48, HEAT2D, &["--steps", "2", "--check"]).ok();
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

#[test]
fn a_reader_that_has_gone_away_is_a_sentence_and_no_panic() {
    let mut child = std::process::Command::new(HEAT2D);
    let mut child =
        child.args(["--steps", "20"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("heat2d: cannot write the report"), "{said}");
}

#[test]
fn a_command_line_that_makes_no_sense_is_one_error_and_exit_code_2() {
    mpirun(3, HEAT2D, &["--steps", "many"]).refused(2, "'--steps <STEPS>'");
    mpirun(3, HEAT2D, &["--steps", "0"]).refused(2, "'--steps <STEPS>'");
}

#[test]
fn help_is_printed_once() {
    let stdout = mpirun(3, HEAT2D, &["--help"]).ok();
    assert_eq!(stdout.matches("Usage:").count(), 1, "{stdout}");
}
