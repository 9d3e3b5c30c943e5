//! The symbols that libfabric exports, found at run time.

use std::ffi::{c_char, c_int, c_void};
use std::path::{Path, PathBuf};

use selvedge_dlopen::{Loaded, Names};

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
    ($library:expr, $name:literal, $type:ty) => {
        // SAFETY: the symbol is a function of this type in every libfabric since 1.9 (rdma/fabric.h, fi_errno.h).
        unsafe { $library.function::<$type>($name) }
    };
}

impl Exports {
    /// Loads `file`: a path, or a bare name that the dynamic loader looks for. Where it came from is the second value.
    ///
    /// # Errors
    /// What the dynamic loader said, or which symbol is missing.
    pub(crate) fn load(file: &Path) -> Result<(Exports, PathBuf), String> {
        let library = Loaded::open(file, Names::Own)?;
        let exports = Exports {
            getinfo: symbol!(library, c"fi_getinfo", GetInfo)?,
            freeinfo: symbol!(library, c"fi_freeinfo", FreeInfo)?,
            dupinfo: symbol!(library, c"fi_dupinfo", DupInfo)?,
            fabric: symbol!(library, c"fi_fabric", OpenFabric)?,
            version: symbol!(library, c"fi_version", Version)?,
            strerror: symbol!(library, c"fi_strerror", StrError)?,
            open: symbol!(library, c"fi_open", Open).ok(),
            tostr_r: symbol!(library, c"fi_tostr_r", ToStr).ok(),
        };
        let path = library.file(c"fi_version").unwrap_or_else(|| file.to_path_buf());
        Ok((exports, path))
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
