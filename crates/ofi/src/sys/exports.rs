//! The symbols that libfabric exports, found at run time.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::signals::keeping_handlers;
use super::*;

type GetInfo =
    unsafe extern "C" fn(u32, *const c_char, *const c_char, u64, *const FiInfo, *mut *mut FiInfo) -> c_int;
type FreeInfo = unsafe extern "C" fn(*mut FiInfo);
type DupInfo = unsafe extern "C" fn(*const FiInfo) -> *mut FiInfo;
type OpenFabric = unsafe extern "C" fn(*mut FiFabricAttr, *mut *mut FidFabric, *mut c_void) -> c_int;
type Version = unsafe extern "C" fn() -> u32;
type StrError = unsafe extern "C" fn(c_int) -> *const c_char;
type Open =
    unsafe extern "C" fn(u32, *const c_char, *mut c_void, usize, u64, *mut *mut Fid, *mut c_void) -> c_int;
type ToStr = unsafe extern "C" fn(*mut c_char, usize, *const c_void, c_int) -> *mut c_char;

/// The functions of one loaded libfabric. Never unloaded: providers start threads and register handlers that cannot be
/// taken back, so a library that has been asked once stays until the process ends.
#[derive(Clone, Debug)]
pub(crate) struct Exports {
    pub(crate) getinfo: GetInfo,
    pub(crate) freeinfo: FreeInfo,
    pub(crate) dupinfo: DupInfo,
    pub(crate) fabric: OpenFabric,
    pub(crate) version: Version,
    pub(crate) strerror: StrError,
    /// Since 1.13.
    pub(crate) open: Option<Open>,
    /// Since 1.12. The older `fi_tostr` writes into memory that all threads share.
    pub(crate) tostr_r: Option<ToStr>,
}

/// Finds one function. `$type` must be its C type.
macro_rules! symbol {
    ($handle:expr, $name:literal, $type:ty) => {{
        // SAFETY: the handle came from dlopen and was never closed; the name ends in a zero.
        let address = unsafe { libc::dlsym($handle, concat!($name, "\0").as_ptr().cast()) };
        if address.is_null() {
            Err(concat!("it has no ", $name, ", so it is not libfabric"))
        } else {
            // SAFETY: the symbol is a function of this type in every libfabric since 1.9 (rdma/fabric.h, fi_errno.h).
            Ok(unsafe { std::mem::transmute::<*mut c_void, $type>(address) })
        }
    }};
}

impl Exports {
    /// Loads `file`: a path, or a bare name that the dynamic loader looks for. Where it came from is the second value.
    ///
    /// # Errors
    /// What the dynamic loader said, or which symbol is missing.
    pub(crate) fn load(file: &Path) -> Result<(Exports, PathBuf), String> {
        let name = CString::new(file.as_os_str().as_bytes()).map_err(|_| "a zero in the path".to_owned())?;
        let handle = open(&name);
        if handle.is_null() {
            return Err(loader_error());
        }
        let exports = Exports {
            getinfo: symbol!(handle, "fi_getinfo", GetInfo)?,
            freeinfo: symbol!(handle, "fi_freeinfo", FreeInfo)?,
            dupinfo: symbol!(handle, "fi_dupinfo", DupInfo)?,
            fabric: symbol!(handle, "fi_fabric", OpenFabric)?,
            version: symbol!(handle, "fi_version", Version)?,
            strerror: symbol!(handle, "fi_strerror", StrError)?,
            open: symbol!(handle, "fi_open", Open).ok(),
            tostr_r: symbol!(handle, "fi_tostr_r", ToStr).ok(),
        };
        let path = exports.file().unwrap_or_else(|| file.to_path_buf());
        Ok((exports, path))
    }

    /// The file that the dynamic loader took.
    fn file(&self) -> Option<PathBuf> {
        let mut found = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
        // SAFETY: any address may be asked for; the result is written into our own memory.
        let known = unsafe { libc::dladdr(self.version as *const c_void, found.as_mut_ptr()) };
        if known == 0 {
            return None;
        }
        // SAFETY: it was zeroed, and the call has filled it in.
        let name = unsafe { found.assume_init() }.dli_fname;
        // SAFETY: the loader keeps the names of what is loaded.
        let name = unsafe { text(name) };
        name.map(PathBuf::from)
    }

    /// `fi_version()` as (major, minor).
    pub(crate) fn version(&self) -> (u32, u32) {
        // SAFETY: takes nothing and returns a number.
        let version = unsafe { (self.version)() };
        (version >> 16, version & 0xFFFF)
    }

    /// What libfabric calls the error `code` (positive).
    pub(crate) fn strerror(&self, code: i32) -> String {
        // SAFETY: any number may be asked for.
        let words = unsafe { (self.strerror)(code) };
        // SAFETY: a constant of the library.
        let words = unsafe { text(words) };
        words.unwrap_or_else(|| format!("error {code}"))
    }

    /// An empty `fi_info` with all that hangs on it, or null when memory is out.
    pub(crate) fn allocate(&self) -> *mut FiInfo {
        // SAFETY: a null argument asks for an empty one.
        unsafe { (self.dupinfo)(std::ptr::null()) }
    }
}

/// A C string as a value; `None` for a null pointer.
///
/// # Safety
/// If not null, `words` is a string that ends in a zero and is not freed or changed meanwhile.
pub(crate) unsafe fn text(words: *const c_char) -> Option<String> {
    if words.is_null() {
        return None;
    }
    // SAFETY: the caller's promise is the call's.
    let words = unsafe { CStr::from_ptr(words) };
    Some(words.to_string_lossy().into_owned())
}

/// Loads a provider's plug-in, so that libfabric finds it by its name. It stays.
///
/// # Errors
/// What the dynamic loader said.
pub(crate) fn load_plug_in(path: &Path) -> Result<(), String> {
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| "a zero in the path".to_owned())?;
    let handle = open(&name);
    if handle.is_null() { Err(loader_error()) } else { Ok(()) }
}

/// Loads a library; null when it cannot be. The signals stay with whom they were.
fn open(name: &CStr) -> *mut c_void {
    // SAFETY: loading a library runs its initialisers. The callers ask for libfabric, and for what it would load itself.
    keeping_handlers(|| unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) })
}

fn loader_error() -> String {
    // SAFETY: the answer, if any, belongs to this thread until its next call.
    let words = unsafe { libc::dlerror() };
    // SAFETY: a string of this thread.
    let words = unsafe { text(words) };
    words.unwrap_or_else(|| "the dynamic loader does not say why".to_owned())
}
