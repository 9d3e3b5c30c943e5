//! Files for what ranks write: `-outfile-pattern`, `-errfile-pattern`, `--output-filename`. Which file is whose; the
//! writing is the sink's.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use crate::proto::{Member, Stream};

/// The name of a file for each rank: `%r` is the rank (`1.0`: rank 0 of the first spawn), `%h` its host, `%%` a percent sign. There is a `%r` in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(OsString);

impl Pattern {
    /// `None` where `%r` is missing, or something else follows a percent sign.
    pub fn new(text: &OsStr) -> Option<Pattern> {
        let mut bytes = text.as_bytes().iter();
        let mut has_rank = false;
        while let Some(byte) = bytes.next() {
            if *byte == b'%' {
                match bytes.next() {
                    Some(b'r') => has_rank = true,
                    Some(b'h' | b'%') => {}
                    _ => return None,
                }
            }
        }
        has_rank.then(|| Pattern(text.to_owned()))
    }

    /// `FILE.RANK.ENDING`, whatever is in FILE.
    pub fn beside(file: &OsStr, ending: &str) -> Pattern {
        let mut text: Vec<u8> = Vec::new();
        for &byte in file.as_bytes() {
            text.push(byte);
            if byte == b'%' {
                text.push(b'%');
            }
        }
        text.extend_from_slice(b".%r.");
        text.extend_from_slice(ending.as_bytes());
        Pattern(OsString::from_vec(text))
    }

    /// The file of one rank.
    pub fn file(&self, rank: Member, host: &str) -> PathBuf {
        let mut path = Vec::new();
        let mut bytes = self.0.as_bytes().iter();
        while let Some(&byte) = bytes.next() {
            match (byte, if byte == b'%' { bytes.next() } else { None }) {
                (b'%', Some(b'r')) => path.extend_from_slice(rank.to_string().as_bytes()),
                (b'%', Some(b'h')) => path.extend_from_slice(host.as_bytes()),
                (b'%', Some(&other)) => path.push(other),
                (byte, _) => path.push(byte),
            }
        }
        OsString::from_vec(path).into()
    }
}

/// Which output goes into files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// Standard output.
    pub out: Option<Pattern>,
    /// Standard error.
    pub err: Option<Pattern>,
}

impl Files {
    /// The file for what `rank` on `host` writes to `stream`; `None` where it goes to our own output.
    pub fn file(&self, rank: Member, host: &str, stream: Stream) -> Option<PathBuf> {
        let pattern = if stream == Stream::Out { &self.out } else { &self.err };
        pattern.as_ref().map(|pattern| pattern.file(rank, host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(pattern: &str) -> Option<String> {
        let pattern = Pattern::new(OsStr::new(pattern))?;
        Some(pattern.file(Member { world: 0, rank: 7 }, "node1").display().to_string())
    }

    #[test]
    fn the_rank_and_the_host_stand_in_the_name() {
        assert_eq!(file("o.%r").as_deref(), Some("o.7"));
        assert_eq!(file("%h/%r.%r%%").as_deref(), Some("node1/7.7%"));
    }

    #[test]
    fn a_name_without_the_rank_is_none() {
        for pattern in ["", "o", "o%%r", "%h", "%r%", "%r%x"] {
            assert_eq!(file(pattern), None, "{pattern}");
        }
    }

    #[test]
    fn a_pair_of_files_stands_beside_any_name() {
        let files = Files { out: Some(Pattern::beside(OsStr::new("a%r"), "out")), err: None };
        let (first, spawned) = (Member { world: 0, rank: 3 }, Member { world: 1, rank: 3 });
        assert_eq!(files.file(first, "h", Stream::Out), Some("a%r.3.out".into()));
        assert_eq!(files.file(spawned, "h", Stream::Out), Some("a%r.1.3.out".into()));
        assert_eq!(files.file(first, "h", Stream::Err), None);
    }
}
