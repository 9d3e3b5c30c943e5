//! A private folder for libpmix's files, removed with its owner, and by the next one when the owner was killed.
//!
//! Ranks map files of their server by name, so there must be names while a job runs. Each folder is locked by the process
//! that made it; the kernel gives the lock back however that process ends. So a folder of ours without a lock is nobody's.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// How every such folder begins.
const PREFIX: &str = "selvedge-pmix-";

/// The folder, and the lock on it.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    _lock: File,
}

impl Scratch {
    /// Makes one in `base` that nobody else may enter, after removing those of dead owners.
    pub(crate) fn new(base: &Path) -> io::Result<Scratch> {
        sweep(base);
        // Names that are taken are somebody's of this process's number, in another container.
        let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
        for attempt in 0..100 {
            let path = base.join(format!("{PREFIX}{}-{attempt}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {
                    let lock = File::open(&path)?;
                    flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
                    return Ok(Scratch { path, _lock: lock });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now, the next owner tries again.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes the folders of owners that were killed. Best effort: what does not go is not in the way.
fn sweep(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else { return };
    let me = rustix::process::geteuid().as_raw();
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let is_ours = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
        if is_ours && path.symlink_metadata().is_ok_and(|it| it.is_dir() && it.uid() == me && is_old(&it)) {
            let Ok(folder) = File::open(&path) else { continue };
            if flock(&folder, FlockOperation::NonBlockingLockExclusive).is_ok() {
                let _ = fs::remove_dir_all(&path);
            }
        }
    }
}

/// Whether the moment between making a folder and locking it is over.
fn is_old(folder: &fs::Metadata) -> bool {
    folder.modified().is_ok_and(|made| made.elapsed().is_ok_and(|age| age.as_secs() >= 10))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    fn base(name: &str) -> PathBuf {
        let base = std::env::temp_dir().join(format!("pmix-scratch-{name}-{}", std::process::id()));
        fs::create_dir_all(&base).unwrap();
        base
    }

    fn age(path: &Path) {
        let hour_ago = SystemTime::now() - Duration::from_secs(3600);
        File::open(path).unwrap().set_modified(hour_ago).unwrap();
    }

    #[test]
    fn it_is_private_and_goes_with_its_owner() {
        let base = base("private");
        let scratch = Scratch::new(&base).unwrap();
        let path = scratch.path().to_owned();
        fs::write(path.join("file"), "x").unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o700);
        drop(scratch);
        assert!(!path.exists());
        fs::remove_dir(&base).unwrap();
    }

    #[test]
    fn those_of_dead_owners_are_removed_and_those_of_the_living_are_not() {
        let base = base("dead");
        let alive = Scratch::new(&base).unwrap();
        let (dead, other) = (base.join(format!("{PREFIX}1-0")), base.join("other"));
        for path in [&dead, &other] {
            fs::create_dir(path).unwrap();
            age(path);
        }
        age(alive.path());
        let next = Scratch::new(&base).unwrap();
        assert!(!dead.exists() && other.exists() && alive.path().exists());
        drop((alive, next));
        fs::remove_dir_all(&base).unwrap();
    }
}
