//! A completion queue, read in batches.

use std::ffi::{CStr, c_char, c_void};
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::sync::Arc;

use crate::error::{Code, Error};
use crate::rail::fabric::{Domain, Object};
use crate::sys;

/// Entries that one call reads. More saves nothing measurable, and the batch should stay within a few cache lines.
const BATCH: usize = 16;

/// An operation that has failed.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// The operation, free again; `None` for failures that belong to none.
    pub(crate) operation: Option<u32>,
    /// An errno or one of libfabric's own codes, positive.
    pub(crate) code: i32,
    /// The provider's own code.
    pub(crate) provider_code: i32,
    /// What the provider says about it.
    pub(crate) words: String,
}

/// Where operations are reported complete.
#[derive(Debug)]
pub(crate) struct CompletionQueue {
    object: Object<sys::FidCq>,
    read: sys::CqRead,
    read_failure: sys::CqReadErr,
    words: Option<sys::CqStrError>,
    batch: [MaybeUninit<sys::FiCqDataEntry>; BATCH],
    next: usize,
    filled: usize,
    wait_fd: Option<RawFd>,
    domain: Arc<Domain>,
}

// SAFETY: the pointers in the batch are addresses that are compared and never followed.
unsafe impl Send for CompletionQueue {}

impl CompletionQueue {
    /// Opens a queue with room for `size` entries. With `sleeping` it has a descriptor to sleep on, if the provider can.
    pub(crate) fn open(domain: &Arc<Domain>, size: usize, sleeping: bool) -> Result<CompletionQueue, Error> {
        let (object, sleeping) = match sleeping.then(|| open(domain, size, sys::FI_WAIT_FD)) {
            Some(Ok(object)) => (object, true),
            // No descriptor, or not asked for one. A queue that is only polled every provider has.
            Some(Err(_)) | None => (open(domain, size, sys::FI_WAIT_NONE)?, false),
        };
        // SAFETY: opened just now.
        let calls = unsafe { sys::queue_calls(object.as_ptr()) };
        let (read, read_failure) =
            calls.ok_or_else(|| domain.library().error("fi_cq_open", Code(libc::ENOSYS)))?;
        // SAFETY: opened just now.
        let words = unsafe { sys::queue_words(object.as_ptr()) };
        let mut queue = CompletionQueue {
            read,
            read_failure,
            words,
            object,
            batch: [MaybeUninit::uninit(); BATCH],
            next: 0,
            filled: 0,
            wait_fd: None,
            domain: domain.clone(),
        };
        if sleeping {
            queue.wait_fd = queue.ask_wait_fd();
        }
        Ok(queue)
    }

    fn ask_wait_fd(&self) -> Option<RawFd> {
        let mut fd: RawFd = -1;
        let at: *mut c_void = std::ptr::from_mut(&mut fd).cast();
        // SAFETY: the queue is alive and was opened with FI_WAIT_FD, for which the argument is a pointer to an int (fi_cq(3)).
        let status = unsafe { sys::control(self.object.fid(), sys::FI_GETWAIT, at) };
        (status == 0 && fd >= 0).then_some(fd)
    }

    /// Its head, for binding.
    pub(crate) fn fid(&self) -> *mut sys::Fid {
        self.object.fid()
    }

    /// The next completion. `Code::AGAIN`: there is none; `FI_EAVAIL`: there is a [`CompletionQueue::failure`].
    #[inline]
    pub(crate) fn next(&mut self) -> Result<sys::FiCqDataEntry, Code> {
        if self.next == self.filled {
            let (queue, into) = (self.object.as_ptr(), self.batch.as_mut_ptr().cast());
            // SAFETY: the queue is alive, its entries have the format of the batch, and there is room for that many.
            let answer = unsafe { (self.read)(queue, into, BATCH) };
            (self.next, self.filled) = (0, Code::check(answer)?);
            if self.filled == 0 {
                return Err(Code::AGAIN);
            }
            assert!(self.filled <= BATCH, "the provider has written {} entries into {BATCH}", self.filled);
        }
        let entry = self.batch[self.next];
        self.next += 1;
        // SAFETY: the call has written the first `filled` entries.
        Ok(unsafe { entry.assume_init() })
    }

    /// The operation that has failed, by its context, and why.
    #[cold]
    pub(crate) fn failure(&mut self) -> Result<(*mut c_void, Failure), Code> {
        let mut entry = MaybeUninit::<sys::FiCqErrEntry>::zeroed();
        // SAFETY: the queue is alive; the entry is zeroed (no room for error data of our own, so the provider lends its own) and
        // longer than that of any version.
        let answer = unsafe { (self.read_failure)(self.object.as_ptr(), entry.as_mut_ptr(), 0) };
        if Code::check(answer)? == 0 {
            return Err(Code::AGAIN);
        }
        // SAFETY: all of it was zeroed or written, and every field may be any bits.
        let entry = unsafe { entry.assume_init() };
        let failure = Failure {
            operation: None,
            code: entry.err,
            provider_code: entry.prov_errno,
            words: self.words_of(&entry),
        };
        Ok((entry.op_context, failure))
    }

    /// What the provider says about a failure, or libfabric's name for it.
    fn words_of(&self, entry: &sys::FiCqErrEntry) -> String {
        let plain = || self.domain.library().error("", Code(entry.err)).words;
        let Some(ask) = self.words else { return plain() };
        let mut room = [0u8; 256];
        let into = room.as_mut_ptr().cast::<c_char>();
        let (queue, code, data) = (self.object.as_ptr(), entry.prov_errno, entry.err_data);
        // SAFETY: the queue is alive, the error data is what it has just lent, the room has that length.
        let words = unsafe { ask(queue, code, data, into, room.len()) };
        if words.is_null() {
            return plain();
        }
        // SAFETY: not null; a string of the provider, or in our room, valid until the queue is read again.
        let words = unsafe { CStr::from_ptr(words) }.to_string_lossy().trim().to_owned();
        if words.is_empty() { plain() } else { words }
    }

    /// The descriptor that becomes readable when there is something to read.
    pub(crate) fn wait_fd(&self) -> Option<RawFd> {
        self.wait_fd
    }

    /// Whether it is safe to sleep on that descriptor.
    pub(crate) fn may_sleep(&self) -> bool {
        self.next == self.filled && self.domain.fabric().may_sleep(&self.object)
    }
}

fn open(domain: &Arc<Domain>, size: usize, wait_obj: i32) -> Result<Object<sys::FidCq>, Error> {
    let mut attr = sys::FiCqAttr {
        size,
        flags: 0,
        format: sys::FI_CQ_FORMAT_DATA,
        wait_obj,
        signaling_vector: 0,
        wait_cond: 0,
        wait_set: std::ptr::null_mut(),
    };
    let open = |opened: &mut *mut sys::FidCq| {
        // SAFETY: the domain is alive.
        unsafe { sys::cq_open(domain.as_ptr(), &mut attr, opened) }
    };
    // SAFETY: written by the call when it says 0.
    unsafe { Object::open(domain.library(), "fi_cq_open", open) }
}
