//! What C holds pointers to: the C structure first, our part behind it.

use std::cell::Cell;
use std::mem::offset_of;
use std::sync::Arc;

use crate::abi;
use crate::cq::{Channel, Entry};
use crate::device::Card;
use crate::opened::Opened;
use crate::srd::Gid;

/// A structure of ours that holds, at [`Handle::OFFSET`], what C knows.
///
/// # Safety
///
/// At that offset of `Self` there is a field of type `Part`.
pub(super) unsafe trait Handle: Sized {
    /// What C knows.
    type Part;
    /// Where it is.
    const OFFSET: usize;

    /// Gives the object to C; [`take`] gets it back.
    fn hand_out(self) -> *mut Self::Part {
        let whole = Box::into_raw(Box::new(self));
        whole.wrapping_byte_add(Self::OFFSET).cast()
    }
}

/// The object behind a pointer that C passed.
///
/// # Safety
///
/// `part` is null or came from [`Handle::hand_out`] of the same type and was not taken back; it is not while the reference lives.
pub(super) unsafe fn seen<'a, T: Handle>(part: *mut T::Part) -> Option<&'a T> {
    if part.is_null() {
        return None;
    }
    let whole: *const T = part.wrapping_byte_sub(T::OFFSET).cast_const().cast();
    // SAFETY: by the caller's promise this is what `hand_out` made, and nobody has a unique reference to it.
    Some(unsafe { &*whole })
}

/// Takes an object back from C.
///
/// # Safety
///
/// As for [`seen`], and no reference to the object is left.
pub(super) unsafe fn take<T: Handle>(part: *mut T::Part) -> Option<Box<T>> {
    if part.is_null() {
        return None;
    }
    let whole: *mut T = part.wrapping_byte_sub(T::OFFSET).cast();
    // SAFETY: by the caller's promise this is what `hand_out` made of a box, once.
    Some(unsafe { Box::from_raw(whole) })
}

/// `struct ibv_device`.
#[repr(C)]
pub(super) struct DeviceObject {
    pub(super) part: abi::Device,
    pub(super) card: Arc<Card>,
}

/// `struct ibv_context`, the last field of `struct verbs_context`.
#[repr(C)]
pub(super) struct ContextObject {
    pub(super) part: abi::VerbsContext,
    pub(super) opened: Arc<Opened>,
}

/// `struct ibv_pd`.
#[repr(C)]
pub(super) struct DomainObject {
    pub(super) part: abi::Pd,
    pub(super) opened: Arc<Opened>,
}

/// `struct ibv_mr`.
#[repr(C)]
pub(super) struct RegionObject {
    pub(super) part: abi::Mr,
    pub(super) opened: Arc<Opened>,
}

/// `struct ibv_ah`.
#[repr(C)]
pub(super) struct HandleObject {
    pub(super) part: abi::Ah,
    pub(super) opened: Arc<Opened>,
    pub(super) gid: Gid,
    pub(super) number: u16,
}

/// `struct ibv_comp_channel`.
#[repr(C)]
pub(super) struct ChannelObject {
    pub(super) part: abi::CompChannel,
    pub(super) channel: Arc<Channel>,
}

/// `struct ibv_cq_ex` and `struct efadv_cq`.
#[repr(C)]
pub(super) struct QueueObject {
    pub(super) part: abi::CqEx,
    pub(super) efa: abi::EfaCq,
    pub(super) opened: Arc<Opened>,
    pub(super) place: Cell<usize>,
    /// The completion that is open for reading. It stays readable until the next is opened, whatever happens to its
    /// queue pair.
    pub(super) current: Cell<Entry>,
}

/// `struct efadv_cq` inside a [`QueueObject`].
#[repr(transparent)]
pub(super) struct EfaQueue(pub(super) QueueObject);

/// `struct ibv_qp_ex`.
#[repr(C)]
pub(super) struct PairObject {
    pub(super) part: abi::QpEx,
    pub(super) opened: Arc<Opened>,
    pub(super) place: usize,
}

macro_rules! handles {
    ($($object:ty => $part:ty,)*) => {$(
        // SAFETY: the field `part` is the first.
        unsafe impl Handle for $object {
            type Part = $part;
            const OFFSET: usize = offset_of!($object, part);
        }
    )*};
}

handles! {
    DeviceObject => abi::Device,
    DomainObject => abi::Pd,
    RegionObject => abi::Mr,
    HandleObject => abi::Ah,
    ChannelObject => abi::CompChannel,
    QueueObject => abi::CqEx,
    PairObject => abi::QpEx,
}

// SAFETY: `part.context` is a field of that type.
unsafe impl Handle for ContextObject {
    type Part = abi::Context;
    const OFFSET: usize = offset_of!(ContextObject, part.context);
}

// SAFETY: an EfaQueue is a QueueObject, whose field `efa` is of that type.
unsafe impl Handle for EfaQueue {
    type Part = abi::EfaCq;
    const OFFSET: usize = offset_of!(QueueObject, efa);
}

/// The queue pair behind a pointer of verbs.
macro_rules! pair {
    ($pair:expr $(, $otherwise:expr)?) => {{
        // SAFETY: the caller passes a queue pair of ours which it does not destroy meanwhile, or null.
        match unsafe { $crate::exports::objects::seen::<$crate::exports::objects::PairObject>($pair) } {
            Some(object) => object,
            None => return $($otherwise)?,
        }
    }};
}

pub(super) use pair;
