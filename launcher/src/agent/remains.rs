//! What killed ranks leave in `/dev/shm`: libraries that give their shared memory a name there take it away when they
//! finalize, and a rank that was killed never does. Selvedge's own memory has no name, so this is for programs of others.
//!
//! A file is taken away only if all of this is so: one of our ranks had it mapped when the job began to end, which the kernel
//! told us; its name is one that a communication library gives; it is ours; it is still the same file; and no process that we
//! can see has it mapped any more. A file whose only user was killed before anybody looked is not known to be ours, and stays.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, getuid};

/// Where they are.
const PLACE: &str = "/dev/shm/";
/// What names begin with: of MPICH's, of Open MPI's.
const FAMILIES: &[&str] = &["mpich_shm_", "sm_segment.", "vader_segment."];
/// Digits of the three hexadecimal numbers that names of libfabric's efa provider end with, each after a `_`: of a queue pair,
/// a key and a user.
const EFA_NUMBERS: [usize; 3] = [4, 8, 4];

/// Files that our ranks use.
#[derive(Debug, Default)]
pub(super) struct Remains {
    /// By inode: where.
    files: BTreeMap<u64, PathBuf>,
    was_noted: bool,
}

impl Remains {
    /// Takes note of what a rank uses, while it is still there. Cost: one read of its map.
    pub(super) fn note(&mut self, rank: Pid) {
        self.was_noted = true;
        let map = fs::read_to_string(format!("/proc/{rank}/maps")).unwrap_or_default();
        self.files.extend(map.lines().filter_map(mapped).map(|(inode, path)| (inode, path.to_owned())));
    }

    /// Whether nobody has looked yet.
    pub(super) fn is_empty(&self) -> bool {
        !self.was_noted
    }

    /// Takes away what is left of it. All ranks have ended.
    pub(super) fn remove(self) {
        let is_left = |inode: u64, path: &Path| {
            fs::symlink_metadata(path)
                .is_ok_and(|meta| meta.is_file() && meta.ino() == inode && meta.uid() == getuid().as_raw())
        };
        let left: Vec<_> = self.files.into_iter().filter(|(inode, path)| is_left(*inode, path)).collect();
        if left.is_empty() {
            return;
        }
        let used = in_use();
        for (_, path) in left.into_iter().filter(|(inode, _)| !used.contains_key(inode)) {
            // Somebody else may have been quicker.
            let _ = fs::remove_file(path);
        }
    }
}

/// What any process that we may look at has mapped.
fn in_use() -> BTreeMap<u64, PathBuf> {
    let mut used = Remains::default();
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter_map(Pid::from_raw);
    pids.for_each(|pid| used.note(pid));
    used.files
}

/// Inode and path out of a line of `/proc/PID/maps`, where that is one of these files.
fn mapped(line: &str) -> Option<(u64, &Path)> {
    // Range, rights, offset, device, inode, path.
    let inode = line.split_ascii_whitespace().nth(4)?.parse().ok()?;
    let path = Path::new(&line[line.find(PLACE)?..]);
    let name = path.strip_prefix(PLACE).ok()?.as_os_str().as_bytes();
    let is_known = FAMILIES.iter().any(|family| name.starts_with(family.as_bytes())) || is_of_efa(name);
    (is_known && !name.contains(&b'/') && !name.ends_with(b" (deleted)")).then_some((inode, path))
}

fn is_of_efa(name: &[u8]) -> bool {
    let mut words = name.rsplit(|byte| *byte == b'_');
    let is_number = |digits: &usize| {
        words.next().is_some_and(|word| word.len() == *digits && word.iter().all(u8::is_ascii_hexdigit))
    };
    EFA_NUMBERS.iter().rev().all(is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str) -> String {
        format!("7f0000000000-7f0000001000 rw-s 00000000 00:1c 4711                       /dev/shm/{name}")
    }

    #[test]
    fn only_files_of_communication_libraries_are_noted() {
        for name in ["mpich_shm_a1b2c3", "sm_segment.ant.0.3be20001.0", "::ffff:127.0.0.1_4080_536901b7_0000"]
        {
            let line = line(name);
            assert_eq!(mapped(&line), Some((4711, Path::new(&format!("/dev/shm/{name}")))), "{name}");
        }
        for name in
            ["results", "my_4080_5369_0000", "mpich_shm_x (deleted)", "mpich_shm_x/y", "_zzzz_536901b7_0000"]
        {
            assert_eq!(mapped(&line(name)), None, "{name}");
        }
        assert_eq!(mapped("7f0-7f1 r-xp 0 00:1c 12 /usr/lib/mpich_shm_x"), None);
        assert_eq!(mapped(""), None);
    }

    #[test]
    fn a_file_that_is_still_mapped_or_another_by_now_stays() {
        let path = PathBuf::from(format!("/dev/shm/mpich_shm_test{}", std::process::id()));
        fs::write(&path, "x").unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        let remains = |inode| Remains { files: BTreeMap::from([(inode, path.clone())]), was_noted: true };
        remains(inode + 1).remove();
        assert!(path.exists());
        remains(inode).remove();
        assert!(!path.exists());
    }
}
