//! docs/ERRORS.md against the code: every text that an error can have is on the page, and every text on the page is one that
//! the code has.

use std::collections::{BTreeMap, BTreeSet};

use crate::rules::House;
use crate::source::read;

/// The page.
const PAGE: &str = "docs/ERRORS.md";

/// The files in which errors get their words. A string of theirs is a text when it has [`WORDS_MIN`] words or more.
const FILES: &[&str] = &[
    "crates/boot/src/detect.rs",
    "crates/boot/src/error.rs",
    "crates/boot/src/lex.rs",
    "crates/boot/src/map.rs",
    "crates/engine/src/faults.rs",
    "crates/ofi/src/efa.rs",
    "crates/ofi/src/faults.rs",
    "crates/selvedge/src/world/cards.rs",
    "crates/selvedge/src/error.rs",
    "crates/selvedge/src/world/membership.rs",
    "crates/selvedge/src/communicator/spawn.rs",
    "crates/selvedge/src/world/wishes.rs",
    "crates/shm/src/faults.rs",
];

/// Fewer words are glue around what is filled in.
const WORDS_MIN: usize = 3;

impl House {
    /// Texts that are in the code and not on the page, or the other way round.
    pub fn errors_without_a_remedy(&self) -> Vec<String> {
        let root = &self.workspace.root;
        let in_code: BTreeMap<String, &str> = FILES
            .iter()
            .flat_map(|file| texts_of(&read(root, file)).into_iter().map(move |text| (text, *file)))
            .collect();
        let on_page = texts_on(&read(root, PAGE));
        let missing = in_code
            .iter()
            .filter(|(text, _)| !on_page.contains(*text))
            .map(|(text, file)| format!("{file}: {text:?} is not on {PAGE}"));
        let stale = on_page
            .iter()
            .filter(|text| !in_code.contains_key(*text))
            .map(|text| format!("{PAGE}: nobody says {text:?}"));
        missing.chain(stale).collect()
    }
}

/// The texts of a Rust file: its string literals, without those of its tests, its comments and its assertions.
fn texts_of(source: &str) -> BTreeSet<String> {
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    let code: String = code.lines().map(|line| format!("{}\n", without_comment(line))).collect();
    let mut texts = BTreeSet::new();
    let mut rest = &code[..];
    while let Some(open) = rest.find('"') {
        let (before, literal) = (&rest[..open], &rest[open + 1..]);
        let Some(close) = closing_quote(literal) else { break };
        let text = joined(&literal[..close]);
        if !before.trim_end().ends_with("expect(") && is_text(&text) {
            texts.insert(text);
        }
        rest = &literal[close + 1..];
    }
    texts
}

/// A line up to its comment. In these files no string has two slashes.
fn without_comment(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

fn closing_quote(literal: &str) -> Option<usize> {
    let mut escaped = false;
    literal.char_indices().find_map(|(at, c)| {
        let closes = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        closes.then_some(at)
    })
}

/// A literal as it is said: lines that go on are one, and quotes are quotes.
fn joined(literal: &str) -> String {
    let mut pieces = literal.split("\\\n");
    let first = pieces.next().unwrap_or_default().to_owned();
    let text = pieces.fold(first, |text, piece| text + piece.trim_start());
    text.replace("\\\"", "\"").trim().to_owned()
}

/// What stands between two backticks in the tables of the page.
fn texts_on(page: &str) -> BTreeSet<String> {
    let rows = page.lines().filter(|line| !line.starts_with("```"));
    let quoted = rows.flat_map(|line| line.split('`').skip(1).step_by(2));
    quoted.map(|text| text.replace("\\|", "|")).filter(|text| is_text(text)).collect()
}

fn is_text(text: &str) -> bool {
    let is_word = |word: &&str| {
        let word = word.trim_end_matches([',', ';', ':', '.', '?']);
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphabetic())
    };
    text.split_whitespace().filter(is_word).count() >= WORDS_MIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_found_across_lines_and_not_in_comments_tests_and_assertions() {
        let source = r#"
            #[error("tag {0} is \"not\" \
                     here")]
            // "this is no text at all"
            let a = b.expect("this is an assertion");
            let glue = "{} ({})";
            #[cfg(test)]
            const T: &str = "this is a test";
        "#;
        assert_eq!(texts_of(source), BTreeSet::from(["tag {0} is \"not\" here".to_owned()]));
    }

    #[test]
    fn the_page_says_its_texts_between_backticks() {
        let page =
            "| `dmesg \\| look at it` | see `ulimit -n` | `a text of words`, `another text of words` |\n";
        let texts = ["dmesg | look at it", "a text of words", "another text of words"].map(str::to_owned);
        assert_eq!(texts_on(page), BTreeSet::from(texts));
    }
}
