//! Messages between two ranks as claims: where they lie, or, while types are checked, as a copy with a stamp in front. And
//! messages of collectives in several places, which have to be brought together.

use std::any::type_name;
use std::fmt;
use std::marker::PhantomData;
use std::mem::size_of;
use std::ptr::NonNull;

use selvedge_engine::{Context, Matched, Tag};
use selvedge_transport::{Buf, Peer, Places, Scattered, Transport};

use crate::communicator::Communicator;
use crate::datatype::Datatype;
use crate::datatype::memory::{
    Aftermath, Invalid, Settle, Settled, Unfit, bytes_of, check, claim, claim_mut,
};
use crate::datatype::signature::{Misfit, STAMP_BYTES, Stamp};
use crate::datatype::view::{View, ViewMut};
use crate::runtime::{Runtime, Started};

impl Communicator {
    /// The elements of a message that leaves from where they are, in one piece: the short way, which asks nothing else.
    #[inline(always)]
    pub(crate) fn direct<'a, T: Datatype>(&self, message: &View<'a, T>) -> Option<&'a [T]> {
        if self.stamp_bytes == 0 { message.as_slice() } else { None }
    }

    /// As [`Communicator::direct`], of a message that is received where its elements are.
    #[inline(always)]
    pub(crate) fn direct_mut<'a, T: Datatype>(
        &self,
        message: ViewMut<'a, T>,
    ) -> Result<&'a mut [T], ViewMut<'a, T>> {
        if self.stamp_bytes == 0 { message.into_slice() } else { Err(message) }
    }

    /// As [`Communicator::outgoing`], of elements in one piece.
    ///
    /// # Safety
    /// As for [`Communicator::outgoing`].
    #[inline(always)]
    pub(crate) unsafe fn outgoing_slice<T: Datatype>(&self, elements: &[T]) -> (Buf, Aftermath) {
        if self.stamp_bytes > 0 {
            return stamped(&View::from(elements));
        }
        // SAFETY: the caller's promise.
        (unsafe { claim(elements) }, Aftermath::NOTHING)
    }

    /// As [`Communicator::incoming`], of room in one piece.
    ///
    /// # Safety
    /// As for [`claim_mut`].
    #[inline(always)]
    pub(crate) unsafe fn incoming_slice<T: Datatype>(&self, room: &mut [T]) -> (Buf, Aftermath) {
        if self.stamp_bytes > 0 {
            // SAFETY: the caller's promise.
            return unsafe { stamped_room(ViewMut::from(room)) };
        }
        // SAFETY: the caller's promise.
        unsafe { claim_mut(room) }
    }

    /// Claims a message to another rank, and says what is left to do when it has left.
    ///
    /// # Safety
    /// As for [`claim`]; and the [`Aftermath`] must be kept until the operation is complete.
    #[inline(always)]
    pub(crate) unsafe fn outgoing<T: Datatype>(&self, message: &View<'_, T>) -> (Body, Aftermath) {
        if self.stamp_bytes > 0 {
            let (buf, aftermath) = stamped(message);
            return (Body::One(buf), aftermath);
        }
        match message.as_slice() {
            // SAFETY: the caller's promise.
            Some(slice) => (Body::One(unsafe { claim(slice) }), Aftermath::NOTHING),
            None => {
                let (start, places) = message.places().expect("what is no slice is in several places");
                // SAFETY: the caller keeps the shared borrow of just these elements; the operation does not write.
                let from = unsafe { Scattered::claim(start.as_ptr().cast(), size_of::<T>(), places.clone()) };
                (Body::Many(Box::new(from)), Aftermath::NOTHING)
            }
        }
    }

    /// Claims room for a message of another rank, and says what is left to do when it is here.
    ///
    /// # Safety
    /// As for [`claim_mut`].
    #[inline(always)]
    pub(crate) unsafe fn incoming<T: Datatype>(&self, message: ViewMut<'_, T>) -> (Body, Aftermath) {
        if self.stamp_bytes > 0 {
            // SAFETY: the caller's promise.
            let (buf, aftermath) = unsafe { stamped_room(message) };
            return (Body::One(buf), aftermath);
        }
        match message.into_slice() {
            Ok(slice) => {
                // SAFETY: the caller's promise.
                let (buf, aftermath) = unsafe { claim_mut(slice) };
                (Body::One(buf), aftermath)
            }
            Err(message) => {
                // SAFETY: the caller's promise.
                let to = unsafe { claim_places(&message) };
                let aftermath = if T::PLAIN { Aftermath::NOTHING } else { Aftermath::of(Mend::<T>::of(&to)) };
                (Body::Many(Box::new(to)), aftermath)
            }
        }
    }
}

/// The bytes of a message between two ranks, or room for one.
#[derive(Debug)]
pub(crate) enum Body {
    /// In one piece.
    One(Buf),
    /// In several.
    Many(Box<Scattered>),
}

impl Body {
    pub(crate) fn len(&self) -> usize {
        match self {
            Body::One(buf) => buf.len(),
            Body::Many(places) => places.len(),
        }
    }

    /// Overwrites its first bytes.
    pub(crate) fn fill_from(&self, bytes: &[u8]) {
        match self {
            Body::One(buf) => buf.fill_from(bytes),
            Body::Many(places) => places.scatter(0, bytes),
        }
    }

    /// The same claim once more.
    pub(crate) fn again(&self) -> Body {
        match self {
            Body::One(buf) => Body::One(*buf),
            Body::Many(places) => Body::Many(places.clone()),
        }
    }
}

impl<T: Transport> Runtime<T> {
    /// [`Runtime::send`], wherever the message lies.
    #[inline(always)]
    pub(crate) fn send_body(&mut self, to: Peer, context: Context, tag: Tag, body: Body) -> Started {
        match body {
            Body::One(buf) => self.send(to, context, tag, buf),
            Body::Many(places) => self.send_scattered(to, context, tag, false, *places),
        }
    }

    /// [`Runtime::send_sync`], wherever the message lies.
    #[inline(always)]
    pub(crate) fn send_body_sync(&mut self, to: Peer, context: Context, tag: Tag, body: Body) -> Started {
        match body {
            Body::One(buf) => self.send_sync(to, context, tag, buf),
            Body::Many(places) => self.send_scattered(to, context, tag, true, *places),
        }
    }

    /// [`Runtime::recv`], wherever the message goes.
    #[inline(always)]
    pub(crate) fn recv_body(
        &mut self,
        source: Option<Peer>,
        context: Context,
        tag: Option<Tag>,
        body: Body,
    ) -> Started {
        match body {
            Body::One(buf) => self.recv(source, context, tag, buf),
            Body::Many(places) => self.recv_scattered(source, context, tag, *places),
        }
    }

    /// [`Runtime::recv_matched`], wherever the message goes.
    pub(crate) fn recv_matched_body(&mut self, matched: Matched, body: Body) -> Started {
        match body {
            Body::One(buf) => self.recv_matched(matched, buf),
            Body::Many(places) => self.recv_matched_scattered(matched, *places),
        }
    }
}

/// Claims elements in several places.
///
/// # Safety
/// As for [`claim_mut`].
unsafe fn claim_places<T: Datatype>(message: &ViewMut<'_, T>) -> Scattered {
    let (start, places) = message.places().expect("what is no slice is in several places");
    // SAFETY: the caller keeps the exclusive borrow of just these elements.
    unsafe { Scattered::claim(start.as_ptr().cast(), size_of::<T>(), places.clone()) }
}

/// Claims a copy of a message with a stamp in front.
#[cold]
fn stamped<T: Datatype>(message: &View<'_, T>) -> (Buf, Aftermath) {
    let mut bytes = Stamp::of::<T>(message.len()).encode().to_vec();
    bytes.resize(STAMP_BYTES + message.len() * size_of::<T>(), 0);
    // SAFETY: the bytes are on the heap, and the aftermath keeps them.
    let (buf, _) = unsafe { claim_mut(&mut bytes) };
    copy_to(message, buf.slice(STAMP_BYTES..buf.len()));
    (buf, Aftermath::keep(bytes))
}

/// Claims memory for a message of a collective, which begins with what is there and will then be put in several places.
///
/// # Safety
/// As for [`claim_mut`].
#[cold]
pub(crate) unsafe fn scattered_room<T: Datatype>(message: ViewMut<'_, T>) -> (Buf, Aftermath) {
    // SAFETY: the caller's promise.
    let to = unsafe { claim_places(&message) };
    room(Unpack::<T> { bytes: Vec::new(), front: 0, count: message.len(), to, element: PhantomData })
}

/// Claims memory for a message with a stamp in front.
///
/// # Safety
/// As for [`claim_mut`].
#[cold]
unsafe fn stamped_room<T: Datatype>(message: ViewMut<'_, T>) -> (Buf, Aftermath) {
    let count = message.len();
    let (start, places) = match message.places() {
        Some((start, places)) => (start, places.clone()),
        None => {
            let slice = message.into_slice().expect("what is not in several places is a slice");
            (NonNull::from(slice).cast(), Places::of([(0, count)]))
        }
    };
    // SAFETY: the caller keeps the exclusive borrow of just these elements.
    let to = unsafe { Scattered::claim(start.as_ptr().cast(), size_of::<T>(), places) };
    room(Unpack::<T> { bytes: Vec::new(), front: STAMP_BYTES, count, to, element: PhantomData })
}

/// As [`Communicator::incoming`] while types are checked, for room that is claimed already, of whole elements.
pub(crate) fn stamped_claim<T: Datatype>(place: Buf) -> (Buf, Aftermath) {
    let count = place.len().checked_div(size_of::<T>()).unwrap_or(0);
    // SAFETY: the claim is on so many elements in a row.
    let to = unsafe { Scattered::claim(place.as_ptr(), size_of::<T>(), Places::of([(0, count)])) };
    room(Unpack::<T> { bytes: Vec::new(), front: STAMP_BYTES, count, to, element: PhantomData })
}

fn room<T: Datatype>(mut unpack: Unpack<T>) -> (Buf, Aftermath) {
    unpack.bytes = vec![0; unpack.front + unpack.to.len()];
    unpack.bytes[..unpack.front].fill(NOTHING_CAME);
    let front = unpack.front;
    // SAFETY: the bytes are on the heap, and the aftermath keeps them.
    let (buf, _) = unsafe { claim_mut(&mut unpack.bytes) };
    // What does not arrive stays as it is.
    unpack.to.gather(0, buf.slice(front..buf.len()));
    (buf, Aftermath::of(unpack))
}

/// Copies a message to where a claim is, which is as long.
pub(crate) fn copy_to<T: Datatype>(message: &View<'_, T>, place: Buf) {
    match message.places() {
        None => {
            let slice = message.as_slice().expect("what is not in several places is a slice");
            // SAFETY: the claim is given up when the copy has been made, before the borrow ends.
            unsafe { claim(slice) }.copy_to_buf(place);
        }
        Some((start, places)) => {
            // SAFETY: the claim is given up when the copy has been made, before the borrow ends; nothing is written to it.
            let from = unsafe { Scattered::claim(start.as_ptr().cast(), size_of::<T>(), places.clone()) };
            from.gather(0, place);
        }
    }
}

/// Where a stamp will be, until one has come.
const NOTHING_CAME: u8 = 0xff;

/// Puts what has arrived in its places, but for elements that are no values; first looks at its stamp, if it has one.
struct Unpack<T> {
    bytes: Vec<u8>,
    /// Bytes of the stamp.
    front: usize,
    count: usize,
    to: Scattered,
    element: PhantomData<fn() -> T>,
}

impl<T> fmt::Debug for Unpack<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unpack({:?} of {})", self.to, type_name::<T>())
    }
}

impl<T: Datatype> Settle for Unpack<T> {
    fn settle(&mut self) -> Settled {
        let fits = self.compare();
        // Of a message that is too long there is as much as there is room for; of other types nothing is.
        let is_of_types = matches!(&fits, Ok(()) | Err(Unfit::Mismatch { why: Misfit::Room, .. }));
        if is_of_types {
            self.unpack()?;
        }
        fits.map_err(Box::new)
    }
}

impl<T: Datatype> Unpack<T> {
    #[expect(clippy::result_large_err, reason = "on the way of errors only, and boxed one call up")]
    fn compare(&self) -> Result<(), Unfit> {
        let front = &self.bytes[..self.front];
        if front.iter().all(|&byte| byte == NOTHING_CAME) {
            return Ok(());
        }
        let receive = Stamp::of::<T>(self.count);
        let sent = Stamp::decode(front);
        match sent.as_ref().map_or(Err(Misfit::Unstamped), |sent| sent.fits(&receive)) {
            Ok(()) => Ok(()),
            Err(why) => Err(Unfit::Mismatch { sent, receive, why }),
        }
    }

    fn unpack(&mut self) -> Result<(), Box<Unfit>> {
        // SAFETY: the bytes are here for as long as the claim is used.
        let (all, _) = unsafe { claim_mut(&mut self.bytes) };
        let arrived = all.slice(self.front..all.len());
        let Err(invalid) = check::<T>(arrived) else {
            self.to.scatter(0, bytes_of(&arrived));
            return Ok(());
        };
        let mut before = vec![0u8; size_of::<T>()];
        // SAFETY: the bytes are here for as long as the claim is used.
        let (first, _) = unsafe { claim_mut(&mut before) };
        self.to.gather(0, first);
        for (index, element) in bytes_of(&arrived).chunks_exact(size_of::<T>()).enumerate() {
            let value = if T::is_valid(element) { element } else { bytes_of(&first) };
            self.to.scatter(index * size_of::<T>(), value);
        }
        Err(invalid.into())
    }
}

/// Looks for elements in several places that are no values, and makes them what the first one was.
struct Mend<T> {
    written: Scattered,
    /// Bytes of a value.
    first: Vec<u8>,
    element: PhantomData<fn() -> T>,
}

impl<T> fmt::Debug for Mend<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mend({:?} of {})", self.written, type_name::<T>())
    }
}

impl<T: Datatype> Mend<T> {
    /// What is there is read now: nothing has been written yet.
    fn of(written: &Scattered) -> Mend<T> {
        let mut first = vec![0u8; size_of::<T>()];
        // SAFETY: the bytes are here for as long as the claim is used.
        let (place, _) = unsafe { claim_mut(&mut first) };
        written.gather(0, place);
        Mend { written: written.clone(), first, element: PhantomData }
    }
}

impl<T: Datatype> Settle for Mend<T> {
    fn settle(&mut self) -> Settled {
        let mut invalid = None;
        let mut index = 0;
        for run in self.written.runs() {
            for at in (0..run.len()).step_by(size_of::<T>()) {
                let element = run.slice(at..at + size_of::<T>());
                if !T::is_valid(bytes_of(&element)) {
                    element.fill_from(&self.first);
                    invalid.get_or_insert(Invalid { index, type_name: type_name::<T>() });
                }
                index += 1;
            }
        }
        invalid.map_or(Ok(()), |invalid| Err(invalid.into()))
    }
}
