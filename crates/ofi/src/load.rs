//! Where libfabric is looked for, and what is said when there is none.
//!
//! A laptop has none, a distribution has an old one, EC2 has its own under the EFA installer's prefix, and every MPI brings
//! another. So nothing is linked: [`Library::open`] looks, in this order, at
//!
//! 1. the path that was given (a file, or a folder with one in it), and then at nothing else;
//! 2. the EFA installer's prefix, because that is the one that goes with the EFA driver of the machine;
//! 3. whatever the dynamic loader finds under `libfabric.so.1` (`LD_LIBRARY_PATH`, the loader's cache);
//! 4. folders of distributions that the loader may not know.
//!
//! One process should use one libfabric: a second one would find the plug-ins of the first.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use selvedge_dlopen::{LoadError, Loaded, Names, Wanted};

use crate::error::{Code, Error};
use crate::info::Info;
use crate::sys::{self, Exports, Heard};

/// Every libfabric of versions 1 and 2.
static WANTED: Wanted = Wanted {
    name: "libfabric",
    file: "libfabric.so.1",
    remedy: "On EC2 run the EFA installer; elsewhere install libfabric1 (Debian, Ubuntu) or libfabric (Fedora, Amazon Linux); \
             or name one with SELVEDGE_LIBFABRIC",
    remedy_given: "Name a libfabric.so.1 of version 1.9 or newer, or a folder that has one, or none at all",
};

/// Where the EFA installer puts it (`/opt/amazon/efa`, lib64 on Amazon Linux and RHEL, lib on Debian and Ubuntu).
const EFA_INSTALLER: [&str; 2] = ["/opt/amazon/efa/lib64", "/opt/amazon/efa/lib"];

/// Where distributions and `make install` put it.
const DISTRIBUTIONS: [&str; 7] = [
    "/usr/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib",
    "/usr/local/lib64",
    "/usr/local/lib",
    "/opt/libfabric/lib",
];

/// The oldest version whose structures have every field we use (ABI 1.3, see `sys.rs`).
const VERSION_MIN: (u32, u32) = (1, 9);

/// The newest version of the interface that we know and ask for. Newer libraries still speak it.
const API_MAX: (u32, u32) = (2, 1);

impl PlugIn {
    /// Whether it is that of the efa provider.
    pub(crate) fn is_efa(&self) -> bool {
        self.path.file_name() == Some(OsStr::new("libefa-fi.so"))
    }
}

/// A loaded libfabric. Cheap to clone; stays loaded until the process ends.
#[derive(Clone)]
pub struct Library(Arc<Inner>);

struct Inner {
    path: PathBuf,
    version: (u32, u32),
    exports: Exports,
    plug_ins: Vec<PlugIn>,
    /// Filled in by the first question, which starts the providers.
    start: OnceLock<Start>,
}

/// What the start of the providers has shown.
#[derive(Debug)]
pub(crate) struct Start {
    /// The providers there are.
    pub(crate) providers: Vec<String>,
    /// What they said.
    pub(crate) heard: Vec<Heard>,
}

/// A provider's plug-in that lies around the library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlugIn {
    /// The file.
    pub(crate) path: PathBuf,
    /// What the dynamic loader said when it would not load.
    pub(crate) refused: Option<String>,
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "libfabric {}.{} from {}", self.0.version.0, self.0.version.1, self.0.path.display())
    }
}

impl Library {
    /// Loads libfabric: the one at `given` (a file or a folder), or the first that can be used of [`candidates`].
    ///
    /// Nothing is asked of it yet, so no device is touched. Variables that make it abort must be looked at before the first
    /// question ([`crate::environment::explain`]).
    ///
    /// # Errors
    /// What was tried, what each said, and what to install.
    pub fn open(given: Option<&Path>) -> Result<Library, LoadError> {
        WANTED.find(given, places(), Library::load)
    }

    fn load(path: &Path) -> Result<Library, String> {
        let (exports, path) = Exports::load(path)?;
        let version = exports.version();
        if version < VERSION_MIN {
            let ((major, minor), (major_min, minor_min)) = (version, VERSION_MIN);
            return Err(format!("version {major}.{minor} is older than {major_min}.{minor_min}"));
        }
        let plug_ins = bring_plug_ins(&path);
        let library = Library(Arc::new(Inner { path, version, exports, plug_ins, start: OnceLock::new() }));
        library.fields_are_where_we_think()?;
        Ok(library)
    }

    /// Fills in an `fi_info` and reads what the library prints of it. A field that prints another number than was written
    /// is not where we think it is; one that is not printed at all proves nothing.
    fn fields_are_where_we_think(&self) -> Result<(), String> {
        let Some(printed) = Info::pattern(self).and_then(|info| info.to_text()) else { return Ok(()) };
        let wrong = pattern_broken(&printed);
        match wrong {
            Some(field) => Err(format!("its structures are not those of libfabric 1 and 2: {field}")),
            None => Ok(()),
        }
    }

    /// The plug-ins around it, as far as they are of providers we use.
    pub(crate) fn plug_ins(&self) -> &[PlugIn] {
        &self.0.plug_ins
    }

    /// Starts the providers, once, and tells what came of it.
    pub(crate) fn start(&self) -> &Start {
        self.0.start.get_or_init(|| {
            // Who sets the level wants to read it all, where it always stands.
            if std::env::var_os("FI_LOG_LEVEL").is_none() {
                sys::listen(self.exports(), self.api_version());
            }
            let (providers, heard) = sys::hear(|| Info::providers(self));
            Start { providers: providers.into_iter().map(|(name, _)| name).collect(), heard }
        })
    }

    /// The file it came from.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Its version, (major, minor).
    pub fn version(&self) -> (u32, u32) {
        self.0.version
    }

    /// Whether the efa provider was compiled in or lies beside it, working or not. A library does not say so, but it has
    /// the names of that provider's settings in it. Reads the file; only for finding reasons.
    pub(crate) fn knows_efa(&self) -> bool {
        const SETTING: &[u8] = b"use_device_rdma";
        let inside =
            || std::fs::read(self.path()).is_ok_and(|file| file.windows(SETTING.len()).any(|w| w == SETTING));
        self.plug_ins().iter().any(PlugIn::is_efa) || inside()
    }

    /// The version of the interface that we speak with it: `FI_VERSION` of the older of the two.
    pub(crate) fn api_version(&self) -> u32 {
        let (major, minor) = self.0.version.min(API_MAX);
        sys::fi_version(major, minor)
    }

    /// Its functions.
    pub(crate) fn exports(&self) -> &Exports {
        &self.0.exports
    }

    /// The error `code` of `call`, with its words.
    #[cold]
    pub(crate) fn error(&self, call: &'static str, code: Code) -> Error {
        Error { call, code: code.0, words: self.0.exports.strerror(code.0) }
    }

    /// The answer of a call that says 0 when it went well and a negative code when not.
    pub(crate) fn check(&self, call: &'static str, status: i32) -> Result<(), Error> {
        if status == 0 { Ok(()) } else { Err(self.error(call, Code(status.saturating_abs()))) }
    }
}

/// Every libfabric of the machine that would be tried, in order, without repeats; nothing is loaded. More than one is worth a
/// word: which one is used decides whether EFA works.
pub fn candidates(given: Option<&Path>) -> Vec<PathBuf> {
    let library_path = std::env::var_os("LD_LIBRARY_PATH");
    let mut found: Vec<PathBuf> = Vec::new();
    let mut seen = Vec::new();
    for path in paths_with(given, library_path.as_deref()) {
        let Ok(real) = path.canonicalize() else { continue };
        if !seen.contains(&real) {
            seen.push(real);
            found.push(path);
        }
    }
    found
}

/// Where `open` looks: files that are there, and the bare name for the loader to find.
fn places() -> impl Iterator<Item = PathBuf> {
    let loaders = [PathBuf::from(WANTED.file)];
    WANTED.there(EFA_INSTALLER).chain(loaders).chain(WANTED.there(DISTRIBUTIONS))
}

/// The same with the loader's search written out, as far as that can be done without loading.
fn paths_with(given: Option<&Path>, library_path: Option<&OsStr>) -> Vec<PathBuf> {
    let given = given.map(|given| WANTED.file_of(given));
    let installer = EFA_INSTALLER.iter().map(PathBuf::from);
    let loader = library_path.map(std::env::split_paths).into_iter().flatten();
    let distribution = DISTRIBUTIONS.iter().map(PathBuf::from);
    let folders = installer.chain(loader).chain(distribution);
    given.into_iter().chain(folders.map(|folder| folder.join(WANTED.file))).collect()
}

/// Loads the plug-ins that lie around the library, so that it finds them by name. Some packages put them where nobody looks
/// (next to the library, without a run path, the compiled-in folder being that of somebody's build machine); a plug-in
/// already in memory is found by its name wherever it came from. Not done where the user says in `FI_PROVIDER_PATH` which
/// there are.
fn bring_plug_ins(library: &Path) -> Vec<PlugIn> {
    if std::env::var_os("FI_PROVIDER_PATH").is_some() {
        return Vec::new();
    }
    // One that does not load (EFA's without rdma-core) is one that libfabric would not have had either.
    let load = |path: PathBuf| PlugIn { refused: Loaded::open(&path, Names::Own).err(), path };
    plug_ins(library).into_iter().map(load).collect()
}

/// Provider plug-ins around a library: `lib*-fi.so` next to it and in the folder `libfabric` beside it.
fn plug_ins(library: &Path) -> Vec<PathBuf> {
    let Some(folder) = library.parent() else { return Vec::new() };
    let mut found = Vec::new();
    for folder in [folder.join("libfabric"), folder.to_path_buf()] {
        let Ok(entries) = folder.read_dir() else { continue };
        let names = entries.filter_map(|entry| Some(entry.ok()?.path()));
        found.extend(names.filter(|path| wanted_plug_in(path)));
    }
    found.sort();
    found
}

/// Whether a file is the plug-in of a provider we use. Others are not ours to load.
fn wanted_plug_in(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str);
    matches!(name, Some("libefa-fi.so" | "libtcp-fi.so" | "librxm-fi.so" | "libnet-fi.so"))
}

/// What `Info::pattern` has written: section, field, value.
const WRITTEN: [(&str, &str, &str); 17] = [
    ("fi_tx_attr", "inject_size", "4001"),
    ("fi_tx_attr", "size", "4002"),
    ("fi_tx_attr", "iov_limit", "4003"),
    ("fi_tx_attr", "rma_iov_limit", "4004"),
    ("fi_rx_attr", "size", "4102"),
    ("fi_rx_attr", "iov_limit", "4103"),
    ("fi_ep_attr", "protocol_version", "4201"),
    ("fi_ep_attr", "max_msg_size", "4202"),
    ("fi_ep_attr", "msg_prefix_size", "4203"),
    ("fi_domain_attr", "mr_key_size", "4301"),
    ("fi_domain_attr", "cq_data_size", "4302"),
    ("fi_domain_attr", "cq_cnt", "4303"),
    ("fi_domain_attr", "ep_cnt", "4304"),
    ("fi_domain_attr", "mr_iov_limit", "4305"),
    ("fi_domain_attr", "mr_cnt", "4306"),
    ("fi_domain_attr", "name", "cloth"),
    ("fi_fabric_attr", "prov_name", "pattern"),
];

/// The first line of `printed` that shows another value than was written.
fn pattern_broken(printed: &str) -> Option<String> {
    let mut section = "";
    for line in printed.lines().map(str::trim) {
        let Some((key, value)) = line.split_once(':') else { continue };
        let (key, value) = (key.trim(), value.trim());
        if key.starts_with("fi_") {
            section = key;
            continue;
        }
        let written = WRITTEN.iter().find(|(of, name, _)| *of == section && *name == key);
        if let Some((_, _, expected)) = written
            && *expected != value
        {
            return Some(format!("{section}: {key} should be {expected} and is {value}"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_prints_another_value_is_found() {
        let right = "fi_info:\n    fi_tx_attr:\n        size: 4002\n    fi_rx_attr:\n        size: 4102\n";
        assert_eq!(pattern_broken(right), None);
        let shifted = right.replace("4102", "0");
        assert_eq!(pattern_broken(&shifted).unwrap(), "fi_rx_attr: size should be 4102 and is 0");
    }

    #[test]
    fn the_library_prints_every_field_that_was_written() {
        let given = std::env::var_os("SELVEDGE_LIBFABRIC").map(PathBuf::from);
        let library =
            Library::open(given.as_deref()).unwrap_or_else(|error| panic!("install libfabric1: {error}"));
        let printed = Info::pattern(&library).unwrap().to_text().expect("fi_tostr_r is there since 1.12");
        for (section, field, value) in WRITTEN {
            let after =
                printed.split(&format!("{section}:")).nth(1).unwrap_or_else(|| panic!("no {section}"));
            assert!(after.contains(&format!("{field}: {value}")), "{section}: {field}: {value} in {printed}");
        }
        assert_eq!(pattern_broken(&printed), None);
    }

    /// A library with the names of libfabric's functions in it, compiled by the test.
    fn pretender(name: &str, version: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("selvedge-ofi-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut program = format!("unsigned fi_version(void) {{ return {version}; }}\n");
        for call in ["getinfo", "freeinfo", "dupinfo", "fabric", "strerror"] {
            program += &format!("void *fi_{call}(void) {{ return 0; }}\n");
        }
        let source = folder.join("pretender.c");
        std::fs::write(&source, program).unwrap();
        let mut cc = std::process::Command::new("cc");
        cc.args(["-shared", "-fPIC", "-o"]).arg(folder.join(WANTED.file)).arg(source);
        let status =
            cc.status().unwrap_or_else(|error| panic!("the test needs a C compiler, install gcc: {error}"));
        assert!(status.success());
        folder
    }

    #[test]
    fn a_library_that_is_too_old_is_refused_with_its_version() {
        let folder = pretender("old", "1 << 16 | 8");
        let error = Library::open(Some(&folder)).unwrap_err().to_string();
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(error.contains("version 1.8 is older than 1.9"), "{error}");
    }

    #[test]
    fn a_library_that_was_named_is_the_one_that_is_used_and_says_where_it_is() {
        let folder = pretender("named", "3 << 16 | 7");
        let library = Library::open(Some(&folder)).unwrap();
        assert_eq!(library.version(), (3, 7));
        assert_eq!(library.api_version(), sys::fi_version(2, 1), "we speak no newer interface than we know");
        assert_eq!(library.path(), folder.join(WANTED.file));
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_folder_without_a_library_is_refused_and_nothing_else_is_tried() {
        let error = Library::open(Some(&std::env::temp_dir().join("."))).unwrap_err();
        assert_eq!(error.tried.len(), 1);
        assert!(error.to_string().contains(WANTED.file), "{error}");
    }

    #[test]
    fn a_given_path_is_the_only_one_tried_and_the_error_says_what_the_loader_said() {
        let error = Library::open(Some(Path::new("/nowhere/libfabric.so.1"))).unwrap_err();
        assert_eq!(error.tried.len(), 1);
        let words = error.to_string();
        assert!(words.contains("/nowhere/libfabric.so.1"), "{words}");
        assert!(words.contains("No such file"), "{words}");
        assert!(words.contains("version 1.9 or newer"), "{words}");
    }

    #[test]
    fn a_library_that_is_not_libfabric_is_refused_by_name_of_what_it_lacks() {
        let error = Library::open(Some(Path::new("libc.so.6"))).unwrap_err();
        assert!(error.to_string().contains("no fi_getinfo"), "{error}");
    }

    #[test]
    fn the_installers_prefix_comes_before_the_loaders_path_and_a_given_file_before_both() {
        let paths = paths_with(Some(Path::new("/mine/lf.so")), Some(OsStr::new("/one:/two")));
        let place = |wanted: &str| paths.iter().position(|path| path == Path::new(wanted)).unwrap();
        assert_eq!(place("/mine/lf.so"), 0);
        assert!(place("/opt/amazon/efa/lib64/libfabric.so.1") < place("/one/libfabric.so.1"));
        assert!(place("/one/libfabric.so.1") < place("/two/libfabric.so.1"));
        assert!(place("/two/libfabric.so.1") < place("/usr/lib64/libfabric.so.1"));
    }
}
