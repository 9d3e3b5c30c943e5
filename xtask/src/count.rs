//! Counting tests from what `cargo test` prints.

/// What a run of tests came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Score {
    /// Tests that ran and held.
    pub passed: usize,
    /// Tests that ran and did not, and parts that could not be run at all.
    pub failed: usize,
    /// Tests that were marked as not to be run.
    pub ignored: usize,
    /// What else is worth a word in the summary.
    pub notes: Vec<String>,
    /// Why, for each failure.
    pub reasons: Vec<String>,
}

impl Score {
    /// Nothing was counted and nothing is wrong: formatting, lints, a build.
    pub fn clean() -> Score {
        Score::default()
    }

    /// One failure and its reason.
    pub fn failure(reason: impl Into<String>) -> Score {
        Score { failed: 1, reasons: vec![reason.into()], ..Score::default() }
    }

    /// The same with something worth a word.
    pub fn with_note(mut self, note: impl Into<String>) -> Score {
        self.notes.push(note.into());
        self
    }

    /// Counts one check: passed, or failed with a reason.
    pub fn check(&mut self, name: &str, result: Result<(), String>) {
        match result {
            Ok(()) => self.passed += 1,
            Err(reason) => {
                self.failed += 1;
                self.reasons.push(format!("{name}: {reason}"));
            }
        }
    }

    /// Adds another score to this one.
    pub fn add(&mut self, other: Score) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.notes.extend(other.notes);
        self.reasons.extend(other.reasons);
    }
}

/// Counts the `test result:` lines of `cargo test` and names the tests that failed.
pub fn cargo_test(output: &str) -> Score {
    let mut score = Score::default();
    for line in output.lines() {
        if let Some(result) = line.trim_start().strip_prefix("test result: ") {
            score.passed += number_before(result, " passed");
            score.failed += number_before(result, " failed");
            score.ignored += number_before(result, " ignored");
        }
        let name = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED"));
        score.reasons.extend(name.map(|name| format!("test {name} failed")));
    }
    score
}

/// The number that stands directly before `word`, or 0.
pub fn number_before(text: &str, word: &str) -> usize {
    let Some(end) = text.find(word) else { return 0 };
    let start = text[..end].rfind(|c: char| !c.is_ascii_digit() && c != ',').map_or(0, |at| at + 1);
    text[start..end].replace(',', "").parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_summed_over_all_test_programs() {
        let output = "running 2 tests\ntest a ... ok\ntest b::c ... FAILED\n\
            test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
            test result: ok. 40 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        let score = cargo_test(output);
        assert_eq!((score.passed, score.failed, score.ignored), (41, 1, 2));
        assert_eq!(score.reasons, ["test b::c failed"]);
    }

    #[test]
    fn numbers_with_commas_are_numbers() {
        assert_eq!(number_before("storm: 10,000 seeds in 3 s", " seeds"), 10_000);
        assert_eq!(number_before("no such word", " seeds"), 0);
    }
}
