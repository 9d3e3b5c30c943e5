//! Messages that a probe has found and that nobody else receives (MPI 5.0 section 3.8.2, "Matching Probe").

use std::fmt;
use std::mem::size_of;

use selvedge_engine::Matched;

use crate::communicator::Communicator;
use crate::datatype::Datatype;
use crate::datatype::memory::Arriving;
use crate::datatype::view::BufferMut;
use crate::error::{Misuse, Refused, Result};
use crate::message::{Source, Status, Tag};

/// A message that is here, or announced, and that only its holder can receive (MPI_Message).
///
/// Receiving it spends it, so that it is received once. Dropping it puts it back: it is again the message it was, before all
/// that arrived after it, and goes to the next receive that matches. While it is held, the sender of a long message waits.
///
/// ```
/// selvedge::local::run(1, |world| {
///     world.send(&['a', 'b'], 0, 3).unwrap();
///     let message = world.mprobe(selvedge::ANY_SOURCE, 3).unwrap();
///     assert_eq!(message.status().count::<char>(), 2);
///     assert_eq!(message.recv_vec::<char>().unwrap().0, ['a', 'b']);
/// });
/// ```
#[doc(alias = "MPI_Message")]
#[must_use = "a message that is dropped is put back, as if it had not been probed"]
pub struct Message<'c> {
    communicator: &'c Communicator,
    /// Nothing when it is from nobody ([`crate::PROC_NULL`]), and when it has been received.
    matched: Option<Matched>,
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Message").field(&self.status()).finish()
    }
}

impl Drop for Message<'_> {
    fn drop(&mut self) {
        if let Some(matched) = self.matched.take() {
            self.communicator.runtime.enter().put_back(matched);
        }
    }
}

impl Communicator {
    /// Waits until a message that matches is here and takes it out, so that no other receive gets it (MPI_Mprobe).
    ///
    /// ```
    /// selvedge::local::run(2, |world| {
    ///     if world.rank() == 0 {
    ///         world.send(&[1.5f64; 3], 1, 7).unwrap();
    ///     } else {
    ///         let message = world.mprobe(0, 7).unwrap();
    ///         let mut into = vec![0.0f64; message.status().count::<f64>()];
    ///         message.recv(&mut into).unwrap();
    ///         assert_eq!(into, [1.5; 3]);
    ///     }
    /// });
    /// ```
    ///
    /// A message is received once:
    ///
    /// ```compile_fail
    /// # selvedge::local::run(1, |world| {
    /// let message = world.mprobe(0, 7).unwrap();
    /// message.recv(&mut [0u8; 4]).unwrap();
    /// message.recv(&mut [0u8; 4]).unwrap();
    /// # });
    /// ```
    ///
    /// # Errors
    /// As [`Communicator::recv`], without truncation.
    #[doc(alias = "MPI_Mprobe")]
    pub fn mprobe(&self, source: impl Into<Source>, tag: impl Into<Tag>) -> Result<Message<'_>> {
        let pattern = self.pattern(source.into(), tag.into())?;
        let matched = pattern.map(|pattern| self.mprobe_and_wait(pattern)).transpose()?;
        Ok(Message { communicator: self, matched })
    }

    /// As [`Communicator::mprobe`], but does not wait (MPI_Improbe). Fails when waiting would.
    ///
    /// ```
    /// selvedge::local::run(1, |world| {
    ///     assert!(world.improbe(0, 7).unwrap().is_none());
    ///     world.send(&[1u8, 2], 0, 7).unwrap();
    ///     let message = world.improbe(0, 7).unwrap().expect("it is here");
    ///     assert!(world.iprobe(0, 7).unwrap().is_none(), "nobody else sees it");
    ///     drop(message);
    ///     assert_eq!(world.recv_vec::<u8>(0, 7).unwrap().0, [1, 2]);
    /// });
    /// ```
    ///
    /// # Errors
    /// As [`Communicator::mprobe`].
    #[doc(alias = "MPI_Improbe")]
    pub fn improbe(&self, source: impl Into<Source>, tag: impl Into<Tag>) -> Result<Option<Message<'_>>> {
        let Some((source, tag)) = self.pattern(source.into(), tag.into())? else {
            return Ok(Some(Message { communicator: self, matched: None }));
        };
        let found = self.runtime.enter().probe_matched(source, self.message_context(), tag);
        let found = found.map_err(|trouble| self.explain(trouble))?;
        Ok(found.map(|matched| Message { communicator: self, matched: Some(matched) }))
    }
}

impl<'c> Message<'c> {
    /// Who sent it, its tag and its length.
    pub fn status(&self) -> Status {
        match &self.matched {
            Some(matched) => self.communicator.status(matched.envelope()),
            None => self.communicator.null_status(),
        }
    }

    /// Receives it into `into`, which may be longer than it (MPI_Mrecv). The nonblocking form is
    /// [`Scope::imrecv`](crate::Scope::imrecv).
    ///
    /// # Errors
    /// [`crate::Error::Truncated`] when it is longer than the buffer; [`crate::Error::Fault`] when its sender is dead or has
    /// left before all of it was here.
    #[doc(alias = "MPI_Mrecv")]
    pub fn recv<B: BufferMut + ?Sized>(mut self, into: &mut B) -> Result<Status> {
        match self.matched.take() {
            Some(matched) => self.communicator.recv_matched_and_wait(into.as_view_mut(), matched),
            None => Ok(self.communicator.null_status()),
        }
    }

    /// Receives it into memory of its length. Elements of no size leave no trace in a message: of those none arrive.
    ///
    /// # Errors
    /// [`Misuse::PartialElement`] when its bytes are no whole number of `T`, [`Misuse::InvalidElement`] when they are no
    /// values of it; it is received all the same. A fault as for [`Message::recv`].
    pub fn recv_vec<T: Datatype>(mut self) -> Result<(Vec<T>, Status)> {
        let seen = self.status();
        if !seen.bytes.is_multiple_of(size_of::<T>()) {
            let communicator = self.communicator;
            self.recv(&mut vec![0u8; seen.bytes])?;
            return Err(communicator.refuse(Misuse::PartialElement {
                bytes: seen.bytes as u64,
                element_bytes: size_of::<T>(),
                source_rank: seen.source,
            }));
        }
        let Some(matched) = self.matched.take() else { return Ok((Vec::new(), seen)) };
        let mut message = Arriving::new(seen.count::<T>());
        let status = self.communicator.recv_matched_arriving(&mut message, matched)?;
        let message = message.finish().map_err(|invalid| invalid.from(status.source));
        Ok((message.refused_by(self.communicator)?, status))
    }

    /// What is to be received on `communicator`; nothing for a message from nobody.
    pub(crate) fn into_matched(mut self, communicator: &Communicator) -> Result<Option<Matched>> {
        if !std::ptr::eq(self.communicator, communicator) {
            let (probed, given) = (format!("{:?}", self.communicator), format!("{communicator:?}"));
            return Err(communicator.refuse(Misuse::OtherCommunicator { probed, given }));
        }
        Ok(self.matched.take())
    }
}
