//! docs/FAILURES.md names a test for everything that goes wrong: each is there.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::collections::BTreeSet;
use std::path::Path;

#[test]
fn every_test_that_the_page_of_failures_names_is_there() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(here.join("../docs/FAILURES.md")).unwrap();
    let files = std::fs::read_dir(here.join("tests")).unwrap().flatten().map(|entry| entry.path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let text: String = files.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    // The odd pieces stand between two backticks.
    let named: BTreeSet<&str> = page.split('`').skip(1).step_by(2).filter(|word| is_name(word)).collect();
    assert!(named.len() > 50, "{named:?}");
    let missing: Vec<&&str> = named.iter().filter(|name| !text.contains(&format!("fn {name}()"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// Names of tests are sentences; nothing else on the page has as many words.
fn is_name(word: &str) -> bool {
    word.matches('_').count() >= 3
        && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}
