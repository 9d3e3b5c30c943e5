//! A text in a file, in shares: each rank reads its own and nothing else.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// The words or lines that start in bytes `len * part / parts .. len * (part + 1) / parts` of the file: every one is in
/// exactly one part, whole. `ends`: which bytes end one.
///
/// # Errors
/// What the file says.
pub fn share(path: &Path, part: usize, parts: usize, ends: impl Fn(u8) -> bool) -> io::Result<Vec<u8>> {
    let (part, parts) = (part as u64, parts as u64);
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    let (from, to) = (len * part / parts, len * (part + 1) / parts);
    // From one byte before, to see whether a word is under way: then it belongs to the rank before.
    file.seek(SeekFrom::Start(from.saturating_sub(1)))?;
    let mut bytes = Vec::new();
    let mut file = io::BufReader::new(file);
    file.by_ref().take(to - from.saturating_sub(1)).read_to_end(&mut bytes)?;
    // To the end of the last word, which may be ours only in part.
    while bytes.last().is_some_and(|byte| !ends(*byte)) && read_on(&mut file, &mut bytes)? {}
    if from > 0 {
        let foreign = bytes.iter().position(|byte| ends(*byte)).map_or(bytes.len(), |end| end + 1);
        bytes.drain(..foreign);
    }
    Ok(bytes)
}

/// Appends the next byte; false at the end of the file.
fn read_on(file: &mut impl Read, bytes: &mut Vec<u8>) -> io::Result<bool> {
    Ok(file.take(1).read_to_end(bytes)? == 1)
}
