//! A C program on plain verbs against the strictness of the device.

#[allow(dead_code, reason = "each test file uses its part")]
mod common;

use std::path::Path;
use std::process::Command;

use common::{Bench, Fabric, Folder};

fn compiled(folder: &Folder) -> String {
    let program = folder.0.join("verbs");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verbs.c");
    let mut cc = Command::new("cc");
    cc.args(["-Wall", "-Wextra", "-Werror", "-o"]).args([&program, &source]).args(["-libverbs", "-lefa"]);
    let output = cc.output().expect("no cc: install the packages gcc and libibverbs-dev (Debian, Ubuntu)");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "install the package libibverbs-dev (Debian, Ubuntu): {errors}");
    program.to_str().expect("ASCII").to_string()
}

#[test]
fn the_device_is_as_strict_as_the_card_where_a_program_on_verbs_can_see_it() {
    let folder = Folder::new();
    let program = compiled(&folder);
    let outcome = Bench::new(Fabric::Distribution).with(&["--set", "MEMLOCK=200k"]).run(&[&program]);
    assert!(outcome.is_ok(), "{}", outcome.text());
}

#[test]
fn a_completion_queue_that_runs_over_ends_the_process_and_says_so() {
    let folder = Folder::new();
    let program = compiled(&folder);
    let outcome = Bench::new(Fabric::Distribution).run(&[&program, "overrun"]);
    assert!(outcome.stderr.contains("a completion queue has run over"), "{}", outcome.text());
    assert_eq!(outcome.status.and_then(|status| status.code()), Some(128 + 6), "{}", outcome.text());
}
