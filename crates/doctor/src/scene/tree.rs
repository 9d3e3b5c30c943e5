//! A host's files below a root of the caller's choice.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The root that `/proc`, `/sys`, `/dev` and `/etc` are looked for in.
#[derive(Clone, Debug)]
pub struct Tree {
    root: PathBuf,
    /// Stands for `/sys`, where that lies elsewhere.
    sys: Option<PathBuf>,
}

impl Tree {
    /// Below `root`; `/` is this host.
    pub fn new(root: impl Into<PathBuf>) -> Tree {
        Tree { root: root.into(), sys: None }
    }

    /// The same with `folder` for `/sys`.
    pub fn with_sys(self, folder: impl Into<PathBuf>) -> Tree {
        Tree { sys: Some(folder.into()), ..self }
    }

    /// A path of the host, such as `/proc/stat`, as it can be opened.
    pub fn path(&self, path: &str) -> PathBuf {
        match (&self.sys, path.strip_prefix("/sys/")) {
            (Some(sys), Some(below)) => sys.join(below),
            _ => self.root.join(path.trim_start_matches('/')),
        }
    }

    /// A file's text without the blanks at its ends; `None` when it cannot be read.
    pub fn text(&self, path: &str) -> Option<String> {
        let bytes = fs::read(self.path(path)).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// The number a file holds, in decimal.
    pub fn number<T: FromStr>(&self, path: &str) -> Option<T> {
        self.text(path)?.parse().ok()
    }

    /// The number a file holds, as `0x1d0f`.
    pub fn hex(&self, path: &str) -> Option<u32> {
        let text = self.text(path)?;
        u32::from_str_radix(text.strip_prefix("0x").unwrap_or(&text), 16).ok()
    }

    /// Names in a folder, sorted; none when there is no such folder.
    pub fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Whether there is anything of this name.
    pub fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// Last part of the name of what a link leads to: the driver behind `.../driver`, the address behind `.../device`.
    pub fn target_name(&self, path: &str) -> Option<String> {
        let target = fs::canonicalize(self.path(path)).ok()?;
        Some(Path::file_name(&target)?.to_string_lossy().into_owned())
    }
}
