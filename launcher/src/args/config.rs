//! Files of blocks: `-configfile F` of hydra, `--app F` of Open MPI. Each line is a block; `#` begins a comment, quotes
//! and backslashes are as in a shell.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use super::options::Word;
use super::{Line, Usage};

impl Line<'_> {
    /// The rest of the line is what stands in the file.
    pub(super) fn read_blocks(&mut self, word: &mut Word<'_>) -> Result<(), Usage> {
        let path = self.value(word, "a file with a block in each line")?;
        let path = Path::new(&path);
        let trouble = |why: String| Usage(format!("{} {}: {why}", word.written.display(), path.display()));
        if self.in_file {
            return Err(trouble("a file of blocks cannot name another".into()));
        }
        if let Some(more) = self.words.front() {
            return Err(trouble(format!(
                "the program is in the file, so nothing may follow, and {:?} does",
                more.display()
            )));
        }
        let bytes = (self.read)(path).map_err(|error| trouble(error.to_string()))?;
        self.words = words(&bytes).map_err(trouble)?;
        self.in_file = true;
        Ok(())
    }
}

/// The words of all lines, with a colon between two lines.
fn words(bytes: &[u8]) -> Result<VecDeque<OsString>, String> {
    let mut all = VecDeque::new();
    for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        let mut words = line_words(line).map_err(|why| format!("line {number}: {why}"))?;
        // Blocks of a command line that was broken up may still have their colons.
        if words.last().is_some_and(|last| last == ":") {
            words.pop();
        }
        if words.is_empty() {
            continue;
        }
        if !all.is_empty() {
            all.push_back(":".into());
        }
        all.extend(words);
    }
    Ok(all)
}

fn line_words(line: &[u8]) -> Result<Vec<OsString>, String> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quote = None;
    let mut bytes = line.iter().copied();
    while let Some(byte) = bytes.next() {
        match (byte, quote) {
            (b'\\', None | Some(b'"')) => {
                let next = bytes.next().ok_or("nothing follows the backslash; a block stands in one line")?;
                word.get_or_insert_default().push(next);
            }
            (_, Some(open)) if byte == open => quote = None,
            (_, Some(_)) => word.get_or_insert_default().push(byte),
            (b'\'' | b'"', None) => {
                word.get_or_insert_default();
                quote = Some(byte);
            }
            (b'#', None) if word.is_none() => break,
            (b' ' | b'\t' | b'\r', None) => words.extend(word.take()),
            (_, None) => word.get_or_insert_default().push(byte),
        }
    }
    if let Some(open) = quote {
        return Err(format!("the quote {} is not closed", char::from(open)));
    }
    words.extend(word);
    Ok(words.into_iter().map(OsString::from_vec).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &str) -> Result<String, String> {
        let words = words(text.as_bytes())?;
        Ok(words.iter().map(|word| word.display().to_string()).collect::<Vec<_>>().join("|"))
    }

    #[test]
    fn each_line_is_a_block() {
        let text = "# all of it\n-n 2 one # two ranks\n\n  -n 1 two a\\ b 'c # d' \"e\\\"f\"\r\n: \n";
        assert_eq!(shown(text).unwrap(), "-n|2|one|:|-n|1|two|a b|c # d|e\"f");
        assert_eq!(shown("a : \nb\n").unwrap(), "a|:|b");
        assert_eq!(shown("a ''\n").unwrap(), "a|");
        assert_eq!(shown("a b#c\n").unwrap(), "a|b#c");
        assert_eq!(shown("# nothing\n").unwrap(), "");
    }

    #[test]
    fn what_is_not_closed_is_named() {
        assert!(shown("a\nb 'c\n").unwrap_err().starts_with("line 2: the quote '"));
        assert!(shown("a \\\nb").unwrap_err().contains("backslash"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_file_is_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = words(&bytes);
        }
    }
}
