//! What providers say while they look for devices, heard for as long as somebody listens.
//!
//! `fi_getinfo` answers "no data available" for a dozen different reasons; the reason itself goes to the log, which nobody
//! reads. libfabric lets a program take the log over (`fi_import_log`, fi_ext.h; since 1.15). We do, unless the user has set
//! `FI_LOG_LEVEL`, and keep what is said on the thread that is inside [`hear`]; everything else stays as quiet as it
//! is by default.

use std::cell::RefCell;
use std::ffi::{c_char, c_int, c_void};

use super::*;

/// Something that a provider has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    /// Name of the provider.
    pub(crate) provider: String,
    /// Whether it was a warning, or only information.
    pub(crate) is_warning: bool,
    /// Its words.
    pub(crate) words: String,
}

/// Most that is kept of one conversation. Providers repeat themselves for each device and each kind of endpoint.
const HEARD_MAX: usize = 256;

thread_local! {
    /// What was heard on this thread; `None` when nobody listens.
    static EAR: RefCell<Option<Vec<Heard>>> = const { RefCell::new(None) };
}

/// Calls `ask`, and returns what providers said meanwhile on this thread beside its result.
pub(crate) fn hear<T>(ask: impl FnOnce() -> T) -> (T, Vec<Heard>) {
    let outer = EAR.replace(Some(Vec::new()));
    let result = ask();
    let heard = EAR.replace(outer).unwrap_or_default();
    (result, heard)
}

/// The sentences among the heard that are about something that went wrong, the first two of them: cause and consequence, as
/// providers speak. `None` when there is none.
pub(crate) fn complaint<'a>(heard: impl IntoIterator<Item = &'a Heard>) -> Option<String> {
    const WRONG: [&str; 8] =
        ["fail", "error", "cannot", "unable", "invalid", "required", "not an efa device", "no such"];
    // Off EC2 a file with the name of the host is missing, which the provider only wants for its own messages.
    const HARMLESS: &str = "host id file";
    // The library itself says of every provider that it was skipped.
    let is_complaint = |heard: &&Heard| {
        let words = heard.words.to_lowercase();
        heard.provider != "core"
            && !words.contains(HARMLESS)
            && WRONG.iter().any(|wrong| words.contains(wrong))
    };
    let words: Vec<&str> =
        heard.into_iter().filter(is_complaint).map(|heard| heard.words.as_str()).take(2).collect();
    (!words.is_empty()).then(|| words.join("; "))
}

/// `struct fi_provider`, as far as its name.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct FiProvider {
    pub(crate) version: u32,
    pub(crate) fi_version: u32,
    pub(crate) context: [*mut c_void; 4],
    pub(crate) name: *const c_char,
}

/// `struct fi_ops_log`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct LogOps {
    pub(crate) size: usize,
    pub(crate) enabled: extern "C" fn(*const FiProvider, c_int, c_int, u64) -> c_int,
    pub(crate) ready: extern "C" fn(*const FiProvider, c_int, c_int, u64, *mut u64) -> c_int,
    pub(crate) log:
        unsafe extern "C" fn(*const FiProvider, c_int, c_int, *const c_char, c_int, *const c_char),
}

/// `struct fid_logging`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct FidLogging {
    pub(crate) fid: Fid,
    pub(crate) ops: *const LogOps,
}

static EARS: LogOps = LogOps { size: size_of::<LogOps>(), enabled, ready, log };

/// Takes over the log of a library. `false` when it is too old for that, or somebody else has taken it.
pub(crate) fn listen(exports: &Exports, api_version: u32) -> bool {
    let Some(open) = exports.open else { return false };
    let mut opened: *mut Fid = std::ptr::null_mut();
    let (name, none) = (c"logging".as_ptr(), std::ptr::null_mut());
    // SAFETY: a name, no attributes, and room for the result.
    let status = unsafe { open(api_version, name, none, 0, 0, &mut opened, none) };
    if status != 0 || opened.is_null() {
        return false;
    }
    // Kept for as long as the library, which is for ever.
    let fid = Fid { fclass: FI_CLASS_LOG, context: std::ptr::null_mut(), ops: std::ptr::null() };
    let ours = Box::leak(Box::new(FidLogging { fid, ops: &EARS }));
    // SAFETY: opened just now; ours lives for ever and is of the class that this object binds.
    let status = unsafe { bind(opened, &mut ours.fid, 0) };
    // SAFETY: opened just now; what was bound to it stays without it (fi_import in fi_ext.h does the same).
    unsafe { close(opened) };
    status == 0
}

extern "C" fn enabled(_: *const FiProvider, level: c_int, _: c_int, _: u64) -> c_int {
    let listens = EAR.try_with(|ear| ear.try_borrow().is_ok_and(|ear| ear.is_some())).unwrap_or(false);
    c_int::from(listens && (level == FI_LOG_WARN || level == FI_LOG_INFO))
}

extern "C" fn ready(
    provider: *const FiProvider,
    level: c_int,
    subsystem: c_int,
    flags: u64,
    _: *mut u64,
) -> c_int {
    enabled(provider, level, subsystem, flags)
}

/// # Safety
/// Called by libfabric only: the provider is alive, the words end in a zero.
unsafe extern "C" fn log(
    provider: *const FiProvider,
    level: c_int,
    _: c_int,
    _: *const c_char,
    _: c_int,
    words: *const c_char,
) {
    // SAFETY: null or a live provider.
    let name = unsafe { provider.as_ref() }.map_or(std::ptr::null(), |provider| provider.name);
    // SAFETY: null or the name of a live provider.
    let provider = unsafe { text(name) }.unwrap_or_default();
    // SAFETY: null or a string of the call.
    let words = unsafe { text(words) }.unwrap_or_default().trim().to_owned();
    // Each reading of a setting is announced, hundreds of them.
    if words.starts_with("variable ") || words.starts_with("read ") {
        return;
    }
    let heard = Heard { provider, is_warning: level == FI_LOG_WARN, words };
    // A thread that is ending, or that is heard already, is not heard: no panic may pass through C.
    let _ = EAR.try_with(|ear| {
        if let Ok(mut ear) = ear.try_borrow_mut()
            && let Some(ear) = ear.as_mut()
            && ear.len() < HEARD_MAX
            && !ear.contains(&heard)
        {
            ear.push(heard);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(provider: &str, words: &str) -> Heard {
        Heard { provider: provider.to_owned(), is_warning: false, words: words.to_owned() }
    }

    #[test]
    fn of_all_that_is_said_the_complaints_are_kept() {
        let said = [
            heard("efa", "Opened ibv device with ibv_ctx 0x1"),
            heard("efa", "FI_HMEM_CUDA is not initialized"),
            heard("efa", "Cannot open host id file: /sys/devices/virtual/dmi/id/board_asset_tag"),
            heard("core", "Skipping efa;ofi_rxm layering after an error"),
            heard("efa", "ibv_query_port: Invalid argument(22)"),
            heard("efa", "efa_device_construct_gid failed for device_idx 0, err=-22"),
            heard("efa", "and nothing else failed"),
        ];
        let complaint = complaint(&said).unwrap();
        assert_eq!(
            complaint,
            "ibv_query_port: Invalid argument(22); efa_device_construct_gid failed for device_idx 0, err=-22"
        );
        assert_eq!(super::complaint(&said[..4]), None);
    }

    fn say(words: &std::ffi::CStr) {
        let name = c"weaver".as_ptr();
        let provider = FiProvider { version: 0, fi_version: 0, context: [std::ptr::null_mut(); 4], name };
        // SAFETY: a live provider, and words that end in a zero.
        unsafe { log(&provider, FI_LOG_INFO, 0, std::ptr::null(), 0, words.as_ptr()) };
    }

    #[test]
    fn what_is_said_is_heard_once_and_only_while_somebody_listens() {
        say(c"to nobody");
        assert_eq!(enabled(std::ptr::null(), FI_LOG_WARN, 0, 0), 0);
        let (answer, said) = hear(|| {
            assert_eq!(enabled(std::ptr::null(), FI_LOG_WARN, 0, 0), 1);
            say(c"the thread is torn");
            say(c"the thread is torn");
            say(c"variable colour=<not set>");
            let ((), inner) = hear(|| say(c"inside"));
            assert_eq!(inner.len(), 1);
            7
        });
        assert_eq!((answer, said), (7, vec![heard("weaver", "the thread is torn")]));
    }
}
