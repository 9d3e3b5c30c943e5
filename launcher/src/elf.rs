//! What shared libraries a program asks for, read from the program itself: which MPI it was linked with.
//!
//! Only what the program names is seen, not what its libraries need in their turn, nor what it opens at run time. Files are
//! whatever the user calls a program: everything read is checked, and reading is bounded.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Segments that are looked at; linkers make about a dozen.
const SEGMENTS_MAX: u64 = 256;
/// Bytes of the dynamic section that are looked at: 4,096 entries.
const DYNAMIC_BYTES_MAX: u64 = 64 << 10;
/// Longest name of a library.
const NAME_BYTES_MAX: usize = 255;

const HEADER_BYTES: usize = 64;
const SEGMENT_BYTES: usize = 56;
const ENTRY_BYTES: usize = 16;

/// `p_type` and `d_tag` of the ELF specification, figures 5-2 and 5-10.
const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;

/// Whether a program is made for PMIx: it needs Open MPI 5 (or 4) or libpmix itself. No for scripts, and for whatever cannot
/// be read.
pub fn needs_pmix(program: &Path) -> bool {
    let Ok(file) = File::open(program) else { return false };
    let is_file = file.metadata().is_ok_and(|meta| meta.is_file());
    let read = |at: u64, bytes: usize| {
        let mut buffer = vec![0; bytes];
        let mut got = 0;
        while got < bytes {
            match file.read_at(&mut buffer[got..], at.checked_add(got as u64)?) {
                Ok(0) | Err(_) => break,
                Ok(more) => got += more,
            }
        }
        buffer.truncate(got);
        Some(buffer)
    };
    is_file && needed(&read).unwrap_or_default().iter().any(|name| speaks_pmix(name))
}

/// Whether a library is Open MPI's or libpmix. MPICH's and Intel's are `libmpi.so.12`.
fn speaks_pmix(library: &[u8]) -> bool {
    let Ok(name) = std::str::from_utf8(library) else { return false };
    let is_open_mpi =
        (name.starts_with("libmpi") || name.starts_with("liboshmem")) && name.contains(".so.40");
    is_open_mpi || name.starts_with("libopen-pal.so") || name.starts_with("libpmix.so")
}

/// The names of the libraries that a program needs, in its order. `read(at, bytes)`: as many bytes of the file from there
/// on, fewer at its end. `None` where it is not a 64-bit little-endian ELF file, or a broken one.
fn needed(read: &dyn Fn(u64, usize) -> Option<Vec<u8>>) -> Option<Vec<Vec<u8>>> {
    let header = read(0, HEADER_BYTES)?;
    if header.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let (table, size, count) = (u64_at(&header, 32)?, u16_at(&header, 54)?, u16_at(&header, 56)?);
    let segment = |index: u64| {
        let bytes = read(table.checked_add(index.checked_mul(size.into())?)?, SEGMENT_BYTES)?;
        Some(Segment {
            kind: u32_at(&bytes, 0)?,
            at: u64_at(&bytes, 8)?,
            address: u64_at(&bytes, 16)?,
            bytes: u64_at(&bytes, 32)?,
        })
    };
    let segments: Vec<Segment> = (0..u64::from(count).min(SEGMENTS_MAX)).map_while(segment).collect();
    let dynamic = segments.iter().find(|segment| segment.kind == PT_DYNAMIC)?;
    let entries = read(dynamic.at, usize::try_from(dynamic.bytes.min(DYNAMIC_BYTES_MAX)).ok()?)?;
    let entries: Vec<(u64, u64)> = entries
        .chunks_exact(ENTRY_BYTES)
        .map_while(|entry| Some((u64_at(entry, 0)?, u64_at(entry, 8)?)))
        .take_while(|(tag, _)| *tag != DT_NULL)
        .collect();
    let (_, strings) = entries.iter().find(|(tag, _)| *tag == DT_STRTAB)?;
    // The section says where it will be in memory; the segments say what of the file goes there.
    let strings = segments.iter().find_map(|segment| segment.place_of(*strings))?;
    let name = |offset: u64| {
        let mut name = read(strings.checked_add(offset)?, NAME_BYTES_MAX + 1)?;
        name.truncate(name.iter().position(|byte| *byte == 0)?);
        Some(name)
    };
    let names = entries.iter().filter(|(tag, _)| *tag == DT_NEEDED);
    Some(names.filter_map(|(_, offset)| name(*offset)).collect())
}

/// Part of a program's file, and where it goes in memory.
struct Segment {
    kind: u32,
    at: u64,
    address: u64,
    bytes: u64,
}

impl Segment {
    /// Where in the file an address comes from.
    fn place_of(&self, address: u64) -> Option<u64> {
        let offset = address.checked_sub(self.address).filter(|offset| *offset < self.bytes)?;
        (self.kind == PT_LOAD).then(|| self.at.checked_add(offset))?
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn needed_by(file: &[u8]) -> Option<Vec<String>> {
        let read = |at: u64, bytes: usize| {
            let at = usize::try_from(at).ok()?.min(file.len());
            Some(file[at..at.saturating_add(bytes).min(file.len())].to_vec())
        };
        let names = needed(&read)?;
        Some(names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect())
    }

    /// A file with one segment at 0x1000 that holds all of it, and two libraries.
    fn program(libraries: [&str; 2]) -> Vec<u8> {
        let mut file = vec![0; 64 + 2 * 56];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[32..40].copy_from_slice(&64u64.to_le_bytes());
        file[54..56].copy_from_slice(&56u16.to_le_bytes());
        file[56..58].copy_from_slice(&2u16.to_le_bytes());
        let dynamic = file.len() as u64;
        let strings = dynamic + 4 * 16;
        let second = 1 + libraries[0].len() as u64 + 1;
        for (tag, value) in [(1, 1), (1, second), (5, 0x1000 + strings), (0, 0)] {
            file.extend([tag, value].iter().flat_map(|word: &u64| word.to_le_bytes()));
        }
        file.push(0);
        for library in libraries {
            file.extend(library.bytes().chain([0]));
        }
        let all = file.len() as u64;
        for (at, kind, from, address, bytes) in
            [(64, 1u32, 0, 0x1000, all), (120, 2, dynamic, 0x1000 + dynamic, 64)]
        {
            file[at..at + 4].copy_from_slice(&kind.to_le_bytes());
            for (field, value) in [(8, from), (16, address), (32, bytes)] {
                file[at + field..at + field + 8].copy_from_slice(&u64::to_le_bytes(value));
            }
        }
        file
    }

    #[test]
    fn a_program_names_the_libraries_that_it_needs() {
        let file = program(["libmpi.so.40", "libc.so.6"]);
        assert_eq!(needed_by(&file).unwrap(), ["libmpi.so.40", "libc.so.6"]);
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(needed_by(&own).unwrap().iter().any(|name| name.starts_with("libc.so")));
    }

    #[test]
    fn open_mpi_and_libpmix_speak_pmix_and_others_do_not() {
        for name in
            ["libmpi.so.40", "libmpi_mpifh.so.40", "liboshmem.so.40", "libopen-pal.so.80", "libpmix.so.2"]
        {
            assert!(speaks_pmix(name.as_bytes()), "{name}");
        }
        for name in ["libmpi.so.12", "libmpicxx.so.12", "libmpifort.so.12", "libpmi.so.0", "libc.so.6", ""] {
            assert!(!speaks_pmix(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn scripts_folders_and_what_is_not_there_need_nothing() {
        for path in ["/", "/no/such/program", "/dev/zero"] {
            assert!(!needs_pmix(Path::new(path)), "{path}");
        }
        assert_eq!(needed_by(b"#!/bin/sh\nexec true\n"), None);
        assert_eq!(needed_by(b""), None);
    }

    proptest! {
        #[test]
        fn broken_files_are_read_without_harm(cut in 0usize..400, changes in prop::collection::vec((0usize..300, any::<u8>()), 0..8)) {
            let mut file = program(["libmpi.so.40", "libc.so.6"]);
            for (at, byte) in changes {
                let at = at % file.len();
                file[at] = byte;
            }
            file.truncate(cut);
            let _ = needed_by(&file);
        }
    }
}
