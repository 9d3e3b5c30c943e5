//! What libpmix calls on its own thread, and how it is answered. Every function here puts an event into the queue and
//! returns; nothing else of ours runs on that thread.
//!
//! Its functions get no argument of ours, so the one server of the process is found through a static: libpmix itself has
//! no more than one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::value::bytes;
use super::*;
use crate::queue::{Event, Queue, Ticket};

static SHARED: Mutex<Option<Arc<Shared>>> = Mutex::new(None);

/// What a server and its upcalls have in common.
pub(crate) struct Shared {
    /// Any rank of the job: what counts is its namespace.
    job: Proc,
    size: u32,
    state: Mutex<State>,
}

struct State {
    queue: Queue,
    open: HashMap<u64, Reply>,
    next_ticket: u64,
    open_max: usize,
}

/// Where an answer goes.
pub(crate) struct Reply {
    callback: unsafe extern "C" fn(Status, *const c_char, usize, *mut c_void, ReleaseCallback, *mut c_void),
    argument: *mut c_void,
    /// What is answered when there is no answer.
    refusal: Status,
}

// SAFETY: libpmix takes answers on any thread and moves them to its own (pmix_server.h: upcalls may be completed later,
// by whoever has the answer); the argument is nothing but its key.
unsafe impl Send for Reply {}

impl Shared {
    /// For a job of `size` ranks of which `ranks_here` are ours.
    pub(crate) fn new(job: Proc, size: u32, ranks_here: usize, queue: Queue) -> Shared {
        // Questions that may be open: a rank's threads may each be in a fence or a get of its own, and each is one.
        let open_max = 1024 * (ranks_here + 1);
        let state = State { queue, open: HashMap::new(), next_ticket: 0, open_max };
        Shared { job, size, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next event.
    pub(crate) fn pop(&self) -> Option<Event> {
        self.state().queue.pop()
    }

    /// The reply to a ticket: there is only one.
    pub(crate) fn close(&self, ticket: Ticket) -> Option<Reply> {
        self.state().open.remove(&ticket.0)
    }

    /// All replies that are still owed.
    pub(crate) fn close_all(&self) -> Vec<Reply> {
        self.state().open.drain().map(|(_, reply)| reply).collect()
    }

    fn post(&self, event: Event) {
        self.state().queue.push(event);
    }

    /// Puts a question into the queue.
    fn ask(&self, reply: Reply, event: impl FnOnce(Ticket) -> Event) -> Status {
        let mut state = self.state();
        if state.open.len() >= state.open_max {
            return PMIX_ERR_OUT_OF_RESOURCE;
        }
        let ticket = Ticket(state.next_ticket);
        state.next_ticket += 1;
        state.open.insert(ticket.0, reply);
        state.queue.push(event(ticket));
        PMIX_SUCCESS
    }

    /// Who takes part in a fence, ascending; `None` for all. An error for processes of other jobs: we know of none.
    fn participants(&self, processes: &[Proc]) -> Result<Option<Vec<u32>>, Status> {
        if processes.iter().any(|process| !process.is_sibling_of(&self.job)) {
            return Err(PMIX_ERR_NOT_SUPPORTED);
        }
        if processes.iter().any(|process| process.rank == PMIX_RANK_WILDCARD) {
            return Ok(None);
        }
        let mut ranks: Vec<u32> = processes.iter().map(|process| process.rank).collect();
        ranks.sort_unstable();
        ranks.dedup();
        Ok(Some(ranks).filter(|ranks| ranks.len() != self.size as usize))
    }
}

impl Reply {
    /// Answers with a blob, which libpmix gives back when it has read it.
    pub(crate) fn give(self, blob: Vec<u8>) {
        let blob = Box::new(blob);
        let (start, length) = (blob.as_ptr().cast(), blob.len());
        let owner = Box::into_raw(blob).cast();
        // SAFETY: callback and argument are those of the question, and this is its only answer; the blob stays until
        // `release` is called with its owner.
        unsafe { (self.callback)(PMIX_SUCCESS, start, length, self.argument, Some(release), owner) };
    }

    /// Answers that there is no answer.
    pub(crate) fn refuse(self) {
        let nothing = std::ptr::null_mut();
        // SAFETY: as above; nothing is lent.
        unsafe { (self.callback)(self.refusal, std::ptr::null(), 0, self.argument, None, nothing) };
    }
}

/// Takes a blob of [`Reply::give`] back.
///
/// # Safety
/// Called once with the owner that `give` has handed over.
unsafe extern "C" fn release(owner: *mut c_void) {
    // SAFETY: the owner that `give` has handed out; it comes back once.
    drop(unsafe { Box::from_raw(owner.cast::<Vec<u8>>()) });
}

/// From here on upcalls go to `shared`.
pub(super) fn attach(shared: Arc<Shared>) {
    *SHARED.lock().unwrap_or_else(PoisonError::into_inner) = Some(shared);
}

/// From here on upcalls go nowhere.
pub(super) fn detach() {
    *SHARED.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

fn shared() -> Option<Arc<Shared>> {
    SHARED.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// The table of our functions.
pub(super) fn module() -> Module {
    Module {
        client_connected: None,
        client_finalized: Some(finalized),
        abort: Some(aborted),
        fence_nb: Some(fenced),
        direct_modex: Some(wanted),
        without: [None; 6],
        register_events: Some(events_wanted),
        deregister_events: Some(events_unwanted),
        without_more: [None; 6],
        job_control: Some(job_controlled),
        without_last: [None; 7],
        client_connected2: Some(connected),
        room: [None; 100],
    }
}

/// The rank behind a pointer to a process, if it is one of our job.
///
/// # Safety
/// `process` is null or points to a process that stays until the call returns.
unsafe fn rank_of(process: *const Proc, shared: &Shared) -> Option<u32> {
    if process.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    let process = unsafe { &*process };
    process.is_sibling_of(&shared.job).then_some(process.rank)
}

/// Tells libpmix that it may go on with the rank.
///
/// # Safety
/// `callback` and `argument` came with one upcall, and this is its answer.
unsafe fn acknowledge(callback: OpCallback, argument: *mut c_void) -> Status {
    if let Some(callback) = callback {
        // SAFETY: the caller's promise.
        unsafe { callback(PMIX_SUCCESS, argument) };
    }
    PMIX_SUCCESS
}

/// Puts what has happened to a rank into the queue, and lets libpmix go on.
///
/// # Safety
/// As for [`rank_of`] and [`acknowledge`].
unsafe fn happened(
    process: *const Proc,
    callback: OpCallback,
    argument: *mut c_void,
    event: impl FnOnce(u32) -> Event,
) -> Status {
    let Some(shared) = shared() else { return PMIX_ERROR };
    // SAFETY: the caller's promise.
    let Some(rank) = (unsafe { rank_of(process, &shared) }) else { return PMIX_ERR_NOT_SUPPORTED };
    shared.post(event(rank));
    // SAFETY: the caller's promise.
    unsafe { acknowledge(callback, argument) }
}

/// A rank has called `PMIx_Init`.
///
/// # Safety
/// Called by libpmix, with what `pmix_server.h` says that it passes.
unsafe extern "C" fn connected(
    process: *const Proc,
    _object: *mut c_void,
    _infos: *mut Info,
    _count: usize,
    callback: OpCallback,
    argument: *mut c_void,
) -> Status {
    // SAFETY: libpmix lends the process for the call, and wants one answer.
    unsafe { happened(process, callback, argument, |rank| Event::Connected { rank }) }
}

/// A rank has called `PMIx_Finalize`.
///
/// # Safety
/// Called by libpmix, with what `pmix_server.h` says that it passes.
unsafe extern "C" fn finalized(
    process: *const Proc,
    _object: *mut c_void,
    callback: OpCallback,
    argument: *mut c_void,
) -> Status {
    // SAFETY: libpmix lends the process for the call, and wants one answer.
    unsafe { happened(process, callback, argument, |rank| Event::Finalized { rank }) }
}

/// A rank has called `PMIx_Abort`.
///
/// # Safety
/// Called by libpmix, with what `pmix_server.h` says that it passes.
unsafe extern "C" fn aborted(
    process: *const Proc,
    _object: *mut c_void,
    status: i32,
    message: *const c_char,
    _processes: *mut Proc,
    _count: usize,
    callback: OpCallback,
    argument: *mut c_void,
) -> Status {
    // SAFETY: libpmix lends the message for the call.
    let message = unsafe { selvedge_dlopen::text(message) }.unwrap_or_default();
    // SAFETY: libpmix lends the process for the call, and wants one answer.
    unsafe { happened(process, callback, argument, |rank| Event::Abort { rank, status, message }) }
}

/// All our participants are in a fence that others take part in.
///
/// # Safety
/// Called by libpmix, with what `pmix_server.h` says that it passes.
unsafe extern "C" fn fenced(
    processes: *const Proc,
    count: usize,
    _infos: *const Info,
    _info_count: usize,
    data: *mut c_char,
    length: usize,
    callback: ModexCallback,
    argument: *mut c_void,
) -> Status {
    let (Some(shared), Some(callback)) = (shared(), callback) else { return PMIX_ERROR };
    if processes.is_null() {
        return PMIX_ERR_NOT_SUPPORTED;
    }
    // SAFETY: libpmix lends so many processes for the call.
    let processes = unsafe { std::slice::from_raw_parts(processes, count) };
    let participants = match shared.participants(processes) {
        Ok(participants) => participants,
        Err(status) => return status,
    };
    // SAFETY: so many bytes lie there.
    let blob = unsafe { bytes(data, length) };
    let reply = Reply { callback, argument, refusal: PMIX_ERR_LOST_CONNECTION };
    let status = shared.ask(reply, |ticket| Event::Fence { ticket, participants, blob });
    if status == PMIX_SUCCESS {
        // SAFETY: who accepts the question owns its bytes, which are malloc's; null is allowed.
        unsafe { libc::free(data.cast()) };
    }
    status
}

/// A rank wants what a rank elsewhere has left.
///
/// # Safety
/// Called by libpmix, with what `pmix_server.h` says that it passes.
unsafe extern "C" fn wanted(
    process: *const Proc,
    _infos: *const Info,
    _count: usize,
    callback: ModexCallback,
    argument: *mut c_void,
) -> Status {
    let (Some(shared), Some(callback)) = (shared(), callback) else { return PMIX_ERROR };
    // SAFETY: libpmix lends the process for the call.
    let Some(rank) = (unsafe { rank_of(process, &shared) }) else { return PMIX_ERR_NOT_FOUND };
    if rank >= shared.size {
        return PMIX_ERR_NOT_FOUND;
    }
    let reply = Reply { callback, argument, refusal: PMIX_ERR_NOT_FOUND };
    shared.ask(reply, |ticket| Event::Wanted { ticket, rank })
}

/// Ranks may ask for events of the system; we tell of none.
///
/// # Safety
/// Touches nothing.
unsafe extern "C" fn events_wanted(
    _codes: *mut Status,
    _count: usize,
    _infos: *const Info,
    _info_count: usize,
    _callback: OpCallback,
    _argument: *mut c_void,
) -> Status {
    PMIX_OPERATION_SUCCEEDED
}

/// The same the other way.
///
/// # Safety
/// Touches nothing.
unsafe extern "C" fn events_unwanted(
    _codes: *mut Status,
    _count: usize,
    _callback: OpCallback,
    _argument: *mut c_void,
) -> Status {
    PMIX_OPERATION_SUCCEEDED
}

/// Ranks may say which files are to be removed when they have gone: libpmix sees to that itself, but only where there is
/// somebody for the rest of such requests. The rest we do not do.
///
/// # Safety
/// Touches nothing.
unsafe extern "C" fn job_controlled(
    _requestor: *const Proc,
    _targets: *const Proc,
    _target_count: usize,
    _directives: *const Info,
    _directive_count: usize,
    _callback: *const c_void,
    _argument: *mut c_void,
) -> Status {
    PMIX_ERR_NOT_SUPPORTED
}

/// Who asked for what a rank has left.
struct Question {
    token: u64,
    shared: Arc<Shared>,
}

/// The argument of [`found`].
pub(super) fn question(token: u64, shared: Arc<Shared>) -> *mut c_void {
    Box::into_raw(Box::new(Question { token, shared })).cast()
}

/// Takes the argument of [`found`] back.
///
/// # Safety
/// It is one, and `found` will not be called with it.
pub(super) unsafe fn withdraw(argument: *mut c_void) {
    // SAFETY: the caller's promise.
    drop(unsafe { Box::from_raw(argument.cast::<Question>()) });
}

/// The answer to a question about a rank of ours.
///
/// # Safety
/// Called by libpmix, once with each argument that [`question`] has made, with so many bytes as it says.
pub(super) unsafe extern "C" fn found(
    status: Status,
    data: *mut c_char,
    length: usize,
    argument: *mut c_void,
) {
    // SAFETY: the argument is a question of ours, which is answered once.
    let question = unsafe { Box::from_raw(argument.cast::<Question>()) };
    // SAFETY: libpmix lends so many bytes for the call.
    let blob = (status == PMIX_SUCCESS).then(|| unsafe { bytes(data, length) });
    question.shared.post(Event::Found { token: question.token, blob });
}
