//! The calls of a client.

use std::ffi::CStr;

use super::exports::Exports;
use super::*;

impl Exports {
    /// Finds the server; answers which process we are.
    pub(crate) fn init(&self) -> Result<Proc, Status> {
        let mut me = Proc::new("", 0);
        // SAFETY: `me` is a process to be filled in; no infos.
        let status = unsafe { (self.init)(&mut me, std::ptr::null_mut(), 0) };
        if status == PMIX_SUCCESS { Ok(me) } else { Err(status) }
    }

    /// Leaves bytes for every rank, here until the next [`Exports::commit`].
    pub(crate) fn put(&self, key: &CStr, bytes: &[u8]) -> Status {
        let bo = ByteObject { bytes: bytes.as_ptr().cast_mut().cast(), size: bytes.len() };
        let mut value = Value { kind: PMIX_BYTE_OBJECT, data: Data { bo } };
        // SAFETY: key and value live until the call returns; it copies both, and writes to neither.
        unsafe { (self.put)(PMIX_GLOBAL, key.as_ptr(), &mut value) }
    }

    /// Hands what was put to the server.
    pub(crate) fn commit(&self) -> Status {
        // SAFETY: it takes nothing.
        unsafe { (self.commit)() }
    }

    /// Waits for all ranks of the namespace of `all`.
    pub(crate) fn fence(&self, all: &Proc, mut how: Infos) -> Status {
        let (infos, count) = how.as_raw();
        // SAFETY: one process, and infos that live until the call returns.
        unsafe { (self.fence)(all, 1, infos, count) }
    }

    /// Asks the server to end the job.
    pub(crate) fn abort(&self, code: i32, message: &CStr) -> Status {
        // SAFETY: the message lives until the call returns; no processes stands for all.
        unsafe { (self.abort)(code, message.as_ptr(), std::ptr::null_mut(), 0) }
    }

    /// Says goodbye.
    pub(crate) fn finalize(&self) -> Status {
        // SAFETY: no infos.
        unsafe { (self.finalize)(std::ptr::null(), 0) }
    }
}
