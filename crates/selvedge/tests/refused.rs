//! What safe Rust does not let anybody do with buffers, requests, scopes and threads, and with which error.
//!
//! The files in `refused/` are programs with a mistake in every function; the line where the compiler finds it ends with
//! `//~` and the error. The compiler runs once for each file, so that sixty mistakes cost seconds: a doc test each would cost a
//! minute. Types are looked at before borrows, so there is a file for each.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Line and error code; `lifetime` where a lifetime "may not live long enough", which has none.
type Finding = (usize, String);

#[test]
fn mistakes_with_types_and_threads_are_found_where_they_are_made() {
    check("types.rs");
}

#[test]
fn mistakes_with_buffers_and_requests_are_found_where_they_are_made() {
    check("borrows.rs");
}

#[track_caller]
fn check(name: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/refused").join(name);
    let expected = marks(&std::fs::read_to_string(&file).unwrap());
    assert!(expected.len() > 10, "{name} has its marks");
    let found = findings(&file);
    let missed: Vec<&Finding> = expected.difference(&found).collect();
    let surplus: Vec<&Finding> = found.difference(&expected).collect();
    assert!(missed.is_empty() && surplus.is_empty(), "{name}: compiles: {missed:?}; not marked: {surplus:?}");
}

/// The lines that end with `//~ CODE`.
fn marks(text: &str) -> BTreeSet<Finding> {
    let marked = |(line, text): (usize, &str)| Some((line, text.split_once("//~ ")?.1.trim().to_owned()));
    (1..).zip(text.lines()).filter_map(marked).collect()
}

/// The compiler's errors, each at the first place of it that it calls primary.
fn findings(file: &Path) -> BTreeSet<Finding> {
    let folder = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let done = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args([
            "--edition=2024",
            "--crate-type=lib",
            "--emit=metadata",
            "-o",
            "/dev/null",
            "--error-format=short",
        ])
        .arg("-L")
        .arg(format!("dependency={}", folder.display()))
        .arg("--extern")
        .arg(format!("selvedge={}", library(&folder).display()))
        .arg(file)
        .output()
        .unwrap();
    let text = String::from_utf8(done.stderr).unwrap();
    let name = file.file_name().unwrap().to_str().unwrap();
    let finding = |line: &str| {
        // .../types.rs:12:9: error[E0277]: ...
        let (_, place) = line.split_once(&format!("{name}:"))?;
        let (number, rest) = place.split_once(':')?;
        let code = match rest.split_once("error[") {
            Some((_, code)) => code.split_once(']')?.0,
            // The only one of these that has no code.
            None => rest.split_once(" error: ")?.1.split(' ').next().filter(|word| *word == "lifetime")?,
        };
        Some((number.parse().ok()?, code.to_owned()))
    };
    let found: BTreeSet<Finding> = text.lines().filter_map(finding).collect();
    assert!(!found.is_empty(), "the compiler says: {text}");
    found
}

/// The library that this test was linked with, or one like it: cargo has put it beside us.
fn library(folder: &Path) -> PathBuf {
    let named = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("libselvedge-") && name.ends_with(".rlib")
    };
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(named);
    files
        .max_by_key(|path| path.metadata().unwrap().modified().unwrap())
        .expect("cargo builds the library first")
}
