//! `wordcount` as its users run it: any number of ranks counts what one pass over the text counts.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use support::{alone, mpirun, scratch};

const WORDCOUNT: &str = env!("CARGO_BIN_EXE_wordcount");
const ALICE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/alice.txt");

/// What the program should print, counted by a single pass, character by character.
fn oracle(text: &str, top: usize) -> String {
    let mut counts = BTreeMap::<String, u64>::new();
    let mut word = String::new();
    for c in text.chars().chain([' ']) {
        if c.is_alphanumeric() || c == '\'' {
            word.push(c);
            continue;
        }
        let found = std::mem::take(&mut word).trim_matches('\'').to_lowercase();
        if !found.is_empty() {
            *counts.entry(found).or_default() += 1;
        }
    }
    let mut lines = format!("{} words, {} different\n", counts.values().sum::<u64>(), counts.len());
    let mut counts: Vec<(String, u64)> = counts.into_iter().collect();
    counts.sort_by_key(|(_, times)| std::cmp::Reverse(*times));
    counts.iter().take(top).for_each(|(word, times)| lines += &format!("{times:>8} {word}\n"));
    lines
}

#[track_caller]
fn agrees_with_the_oracle(path: &Path, text: &str, ranks: &[usize]) {
    for &ranks in ranks {
        let counted =
            mpirun(ranks, WORDCOUNT, &[path.to_str().expect("scratch paths are UTF-8"), "--top", "1000"])
                .ok();
        assert_eq!(counted, oracle(text, 1000), "{ranks} ranks");
    }
}

#[test]
fn a_chapter_has_the_same_words_on_any_number_of_ranks() {
    let text = fs::read_to_string(ALICE).unwrap();
    assert!(text.len() > 10 << 10);
    agrees_with_the_oracle(ALICE.as_ref(), &text, &[1, 2, 3, 4, 7]);
}

#[test]
fn without_a_launcher_one_rank_counts_everything() {
    let stdout = alone(WORDCOUNT, &[ALICE, "--top", "3"]).ok();
    assert_eq!(stdout, oracle(&fs::read_to_string(ALICE).unwrap(), 3));
}

#[test]
fn only_the_top_words_are_printed() {
    let stdout = mpirun(2, WORDCOUNT, &[ALICE, "--top", "3"]).ok();
    assert_eq!(stdout, oracle(&fs::read_to_string(ALICE).unwrap(), 3));
    assert_eq!(stdout.lines().count(), 4);
}

#[test]
fn a_word_cut_by_the_border_between_two_ranks_is_counted_once() {
    let path = scratch("borders.txt");
    for text in [
        "aa bb",
        "a bb",
        "aaaaaaaaaaaaa b",
        "a bbbbbbbbbbbbb",
        " aaa ",
        "süß süß süß süß",
        "日本 語 日本",
        "",
    ] {
        fs::write(&path, text).unwrap();
        agrees_with_the_oracle(&path, text, &[2, 3, 5]);
    }
}

#[test]
fn bytes_that_are_no_text_separate_words() {
    let path = scratch("bytes.txt");
    fs::write(&path, b"one\xff\xfetwo one").unwrap();
    let stdout = mpirun(2, WORDCOUNT, &[path.to_str().unwrap()]).ok();
    assert_eq!(stdout, "3 words, 2 different\n       2 one\n       1 two\n");
}

#[test]
fn a_text_that_cannot_be_read_is_one_error_and_exit_code_1() {
    mpirun(4, WORDCOUNT, &["no-such-text"]).refused(1, "wordcount: cannot read no-such-text");
    mpirun(4, WORDCOUNT, &[env!("CARGO_MANIFEST_DIR")]).refused(1, "cannot read");
}

#[test]
fn a_missing_argument_is_one_error_and_exit_code_2() {
    mpirun(4, WORDCOUNT, &[]).refused(2, "required arguments");
}
