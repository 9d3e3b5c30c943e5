//! Names that are different for each rank: files for what they write (`-outfile-pattern`, `-errfile-pattern`,
//! `--output-filename`, `--output dir=`), and what stands before their lines (`-prepend-pattern`). The writing is the sink's.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use crate::proto::{Member, Stream};

/// A text for each rank, such as the name of its file: `%r` is the rank (`1.0`: rank 0 of the first spawn), `%h` its host, `%p`
/// that host's index, `%g` the world it is in, `%%` a percent sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(OsString);

impl Pattern {
    /// The name of a file. `None` where `%r` is missing, or something else follows a percent sign.
    pub fn new(text: &OsStr) -> Option<Pattern> {
        Pattern::read(text).filter(|(_, has_rank)| *has_rank).map(|(pattern, _)| pattern)
    }

    /// What stands before a line. `None` where something else follows a percent sign.
    pub fn label(text: &OsStr) -> Option<Pattern> {
        Pattern::read(text).map(|(pattern, _)| pattern)
    }

    /// And whether `%r` is in it.
    fn read(text: &OsStr) -> Option<(Pattern, bool)> {
        let mut bytes = text.as_bytes().iter();
        let mut has_rank = false;
        while let Some(byte) = bytes.next() {
            if *byte == b'%' {
                match bytes.next() {
                    Some(b'r') => has_rank = true,
                    Some(b'h' | b'p' | b'g' | b'%') => {}
                    _ => return None,
                }
            }
        }
        Some((Pattern(text.to_owned()), has_rank))
    }

    /// `FILE.RANK.ENDING`, whatever is in FILE.
    pub fn beside(file: &OsStr, ending: &str) -> Pattern {
        Pattern(OsString::from_vec([&literal(file)[..], b".%r.", ending.as_bytes()].concat()))
    }

    /// `FOLDER/rank.RANK/NAME`, whatever is in FOLDER.
    pub fn inside(folder: &OsStr, name: &str) -> Pattern {
        Pattern(OsString::from_vec([&literal(folder)[..], b"/rank.%r/", name.as_bytes()].concat()))
    }

    /// What stands before the lines of a rank on host number `index`.
    pub fn text(&self, rank: Member, host: &str, index: u32) -> String {
        self.file(rank, host, index).to_string_lossy().into_owned()
    }

    /// The file of one rank on host number `index`.
    pub fn file(&self, rank: Member, host: &str, index: u32) -> PathBuf {
        let mut path = Vec::new();
        let mut bytes = self.0.as_bytes().iter();
        while let Some(&byte) = bytes.next() {
            match (byte, if byte == b'%' { bytes.next() } else { None }) {
                (b'%', Some(b'r')) => path.extend_from_slice(rank.to_string().as_bytes()),
                (b'%', Some(b'h')) => path.extend_from_slice(host.as_bytes()),
                (b'%', Some(b'p')) => path.extend_from_slice(index.to_string().as_bytes()),
                (b'%', Some(b'g')) => path.extend_from_slice(rank.world.to_string().as_bytes()),
                (b'%', Some(&other)) => path.push(other),
                (byte, _) => path.push(byte),
            }
        }
        OsString::from_vec(path).into()
    }
}

/// With every percent sign twice.
fn literal(text: &OsStr) -> Vec<u8> {
    let twice = |&byte: &u8| std::iter::repeat_n(byte, if byte == b'%' { 2 } else { 1 });
    text.as_bytes().iter().flat_map(twice).collect()
}

/// Which output goes into files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// Standard output.
    pub out: Option<Pattern>,
    /// Standard error.
    pub err: Option<Pattern>,
    /// Folders that are not there are made.
    pub with_folders: bool,
}

impl Files {
    /// The file for what `rank` on `host`, which is number `index`, writes to `stream`; `None` where it goes to our own output.
    pub fn file(&self, rank: Member, host: &str, index: u32, stream: Stream) -> Option<PathBuf> {
        let pattern = if stream == Stream::Out { &self.out } else { &self.err };
        pattern.as_ref().map(|pattern| pattern.file(rank, host, index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(pattern: &str) -> Option<String> {
        let pattern = Pattern::new(OsStr::new(pattern))?;
        Some(pattern.file(Member { world: 0, rank: 7 }, "node1", 3).display().to_string())
    }

    #[test]
    fn the_rank_and_the_host_stand_in_the_name() {
        assert_eq!(file("o.%r").as_deref(), Some("o.7"));
        assert_eq!(file("%p.%g.%r").as_deref(), Some("3.0.7"));
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
        let files = Files { out: Some(Pattern::beside(OsStr::new("a%r"), "out")), ..Files::default() };
        let inside = Pattern::inside(OsStr::new("d%"), "stdout");
        let (first, spawned) = (Member { world: 0, rank: 3 }, Member { world: 1, rank: 3 });
        assert_eq!(files.file(first, "h", 0, Stream::Out), Some("a%r.3.out".into()));
        assert_eq!(files.file(spawned, "h", 0, Stream::Out), Some("a%r.1.3.out".into()));
        assert_eq!(files.file(first, "h", 0, Stream::Err), None);
        assert_eq!(inside.file(spawned, "h", 0), std::path::Path::new("d%/rank.1.3/stdout"));
    }
}
