//! What a job may leave behind on this machine beside processes: shared memory, sockets, files.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The machine before a job, and the folder that the job has for its temporary files.
pub struct Traces {
    tmp: PathBuf,
    shared: BTreeSet<OsString>,
}

impl Traces {
    /// To be made before the job of this marker starts, with [`Traces::tmp`] as its `TMPDIR`.
    pub fn before(marker: &str) -> Traces {
        let tmp = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tmp-{marker}"));
        std::fs::create_dir_all(&tmp).unwrap();
        Traces { tmp, shared: entries(Path::new("/dev/shm")) }
    }

    pub fn tmp(&self) -> &Path {
        &self.tmp
    }

    /// What the job whose mpirun has this number has left; in words.
    pub fn left(&self, mpirun: u32) -> Vec<String> {
        // A software device of a killed process: its folder goes with the next one's, as those of ours do with `tmp`.
        let is_of_device = |name: &OsString| name.to_string_lossy().starts_with("softefa-tree-");
        let files = entries(&self.tmp).into_iter().filter(|name| !is_of_device(name));
        let files = files.map(|name| format!("file {}", name.display()));
        let sockets = sockets_of(mpirun).into_iter().map(|name| format!("socket {name}"));
        files.chain(sockets).chain(self.shared_memory_left()).collect()
    }

    /// New in `/dev/shm`, ours, and used by nobody: other jobs that run meanwhile use theirs, or take it away again.
    fn shared_memory_left(&self) -> Vec<String> {
        let now = entries(Path::new("/dev/shm"));
        let new: Vec<&OsString> = now.difference(&self.shared).collect();
        if new.is_empty() {
            return Vec::new();
        }
        let me = rustix::process::getuid().as_raw();
        let in_use = files_in_use();
        let is_left = |name: &&&OsString| {
            let meta = std::fs::metadata(Path::new("/dev/shm").join(name));
            meta.is_ok_and(|meta| meta.uid() == me && !in_use.contains(&(meta.dev(), meta.ino())))
        };
        new.iter().filter(is_left).map(|name| format!("/dev/shm/{}", name.display())).collect()
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.tmp);
    }
}

fn entries(folder: &Path) -> BTreeSet<OsString> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name()).collect()
}

/// Unix sockets with a name, which has the number of mpirun in it.
fn sockets_of(mpirun: u32) -> Vec<String> {
    let listing = std::fs::read_to_string("/proc/net/unix").unwrap();
    let names = listing.lines().filter_map(|line| line.split_whitespace().nth(7));
    let wanted = format!("selvedge-{mpirun}-");
    names.filter(|name| name.contains(&wanted)).map(str::to_owned).collect()
}

/// Device and inode of every file that some process has open or mapped.
fn files_in_use() -> BTreeSet<(u64, u64)> {
    let mut used = BTreeSet::new();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        for part in ["fd", "map_files"] {
            let open = std::fs::read_dir(process.path().join(part)).into_iter().flatten().flatten();
            let metas = open.filter_map(|entry| std::fs::metadata(entry.path()).ok());
            used.extend(metas.map(|meta| (meta.dev(), meta.ino())));
        }
    }
    used
}
