//! Values that libpmix gives, read once and given back.

use std::ffi::CStr;

use super::exports::Exports;
use super::*;

/// What stands under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Got {
    /// Any integer, whatever its width: servers do not agree about it.
    Number(i64),
    Text(String),
    Bytes(Vec<u8>),
    /// A type that we never ask for.
    Other(u16),
}

impl Got {
    /// For messages.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Got::Number(_) => "a number",
            Got::Text(_) => "a text",
            Got::Bytes(_) => "bytes",
            Got::Other(_) => "something else than bytes",
        }
    }
}

/// Reads a value.
///
/// # Safety
/// `value` was filled in by libpmix: its kind says which field of the union is there, and what that points to is.
unsafe fn read(value: &Value) -> Got {
    let number = match value.kind {
        // SAFETY: every field of the union is a plain number or pointer, and the kind says that this one was written.
        PMIX_SIZE => i64::try_from(unsafe { value.data.size }).unwrap_or(i64::MAX),
        // SAFETY: as above.
        PMIX_PID | PMIX_INT | PMIX_INT32 => i64::from(unsafe { value.data.int32 }),
        // SAFETY: as above.
        PMIX_INT8 => i64::from(unsafe { value.data.int8 }),
        // SAFETY: as above.
        PMIX_INT16 => i64::from(unsafe { value.data.int16 }),
        // SAFETY: as above.
        PMIX_INT64 => unsafe { value.data.int64 },
        // SAFETY: as above.
        PMIX_UINT8 => i64::from(unsafe { value.data.uint8 }),
        // SAFETY: as above.
        PMIX_UINT16 => i64::from(unsafe { value.data.uint16 }),
        // SAFETY: as above.
        PMIX_UINT | PMIX_UINT32 | PMIX_PROC_RANK => i64::from(unsafe { value.data.uint32 }),
        // SAFETY: as above.
        PMIX_UINT64 => i64::try_from(unsafe { value.data.uint64 }).unwrap_or(i64::MAX),
        PMIX_STRING => {
            // SAFETY: as above.
            let string = unsafe { value.data.string };
            // SAFETY: a string of this kind ends in a zero; the caller holds the value meanwhile.
            return Got::Text(unsafe { selvedge_dlopen::text(string) }.unwrap_or_default());
        }
        PMIX_BYTE_OBJECT => {
            // SAFETY: as above.
            let object = unsafe { value.data.bo };
            // SAFETY: an object says its length; the caller holds the value meanwhile.
            return Got::Bytes(unsafe { bytes(object.bytes, object.size) });
        }
        other => return Got::Other(other),
    };
    Got::Number(number)
}

/// A copy of `size` bytes; none where there is no address.
///
/// # Safety
/// If `bytes` is not null, `size` bytes lie there and are not changed meanwhile.
pub(super) unsafe fn bytes(bytes: *const c_char, size: usize) -> Vec<u8> {
    if bytes.is_null() || size == 0 {
        return Vec::new();
    }
    // SAFETY: the caller's promise is the call's.
    let bytes: &[u8] = unsafe { std::slice::from_raw_parts(bytes.cast(), size) };
    bytes.to_vec()
}

impl Exports {
    /// What `process` has left under `key`, or what the server knows about it.
    pub(crate) fn get(&self, process: &Proc, key: &CStr, mut how: Infos) -> Result<Got, Status> {
        let (infos, count) = how.as_raw();
        let mut value: *mut Value = std::ptr::null_mut();
        // SAFETY: every pointer is to something alive until the call returns; `value` is written where the answer is 0.
        let status = unsafe { (self.get)(process, key.as_ptr(), infos, count, &mut value) };
        if status != PMIX_SUCCESS {
            return Err(status);
        }
        if value.is_null() {
            return Err(PMIX_ERR_NOT_FOUND);
        }
        // SAFETY: the call has given us a value of its own making, ours until it is freed below.
        let value_ref = unsafe { &*value };
        // SAFETY: libpmix has filled it in.
        let got = unsafe { read(value_ref) };
        // SAFETY: it is not used any more.
        unsafe { self.free(value) };
        Ok(got)
    }

    /// Frees a value that `PMIx_Get` has given: what hangs on it, then itself (the macro `PMIX_VALUE_RELEASE`).
    ///
    /// # Safety
    /// `value` is one, and nobody uses it afterwards.
    unsafe fn free(&self, value: *mut Value) {
        // Before 4.2 there was no such function; what hangs on values, a few bytes of each, then stays.
        if let Some(destruct) = self.value_destruct {
            // SAFETY: the caller's promise.
            unsafe { destruct(value) };
        }
        // SAFETY: values are allocated with malloc, which the macro for programs relies on.
        unsafe { libc::free(value.cast()) };
    }
}
