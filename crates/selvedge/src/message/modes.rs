//! The modes of a send (MPI 5.0 section 3.4): standard is [`Communicator::send`], the others are here and in
//! [`SendBuffer`](crate::SendBuffer).

use crate::communicator::Communicator;
use crate::datatype::view::Buffer;
use crate::error::Result;

impl Communicator {
    /// Sends `message` to rank `dest` and returns when a receive has met it (MPI_Ssend, synchronous mode). For handing
    /// over, and for finding out whether a program depends on sends that return early.
    ///
    /// ```
    /// selvedge::local::run(2, |world| {
    ///     if world.rank() == 0 {
    ///         world.ssend(&[1u8], 1, 0).unwrap();
    ///         // Here rank 1 has begun to receive.
    ///     } else {
    ///         assert_eq!(world.recv_vec::<u8>(0, 0).unwrap().0, [1]);
    ///     }
    /// });
    /// ```
    ///
    /// Cost: a message that fits a packet takes one packet more, back; a longer one is announced, as it most often is
    /// anyway.
    ///
    /// # Errors
    /// As [`Communicator::send`]; to oneself it always waits for itself, unless a receive has been started.
    #[doc(alias = "MPI_Ssend")]
    pub fn ssend<B: Buffer + ?Sized>(
        &self,
        message: &B,
        dest: impl Into<Option<usize>>,
        tag: i32,
    ) -> Result<()> {
        match self.destination(dest.into(), tag)? {
            Some((peer, tag)) => self.ssend_and_wait(message.as_view(), peer, tag),
            None => Ok(()),
        }
    }

    /// Sends `message` to rank `dest`, of which the caller knows that it has started a receive that matches (MPI_Rsend,
    /// ready mode).
    ///
    /// ```
    /// selvedge::local::run(2, |world| {
    ///     let (mut got, other) = ([0u8], 1 - world.rank());
    ///     world.scope(|scope| {
    ///         let receive = scope.irecv(&mut got, other, 0).unwrap();
    ///         world.barrier().unwrap();
    ///         // Everybody has started to receive.
    ///         world.rsend(&[7u8], other, 0).unwrap();
    ///         receive.wait().unwrap();
    ///     });
    ///     assert_eq!(got, [7]);
    /// });
    /// ```
    ///
    /// It is [`Communicator::send`] by another name, as MPI permits, and correct also where the receive is not there. What it
    /// says is worth nothing here: a short message leaves at once in any case, and for a long one the receiver has to say
    /// where its memory is, which the sender cannot know from the promise.
    ///
    /// # Errors
    /// As [`Communicator::send`].
    #[doc(alias = "MPI_Rsend")]
    #[inline]
    pub fn rsend<B: Buffer + ?Sized>(
        &self,
        message: &B,
        dest: impl Into<Option<usize>>,
        tag: i32,
    ) -> Result<()> {
        self.send(message, dest, tag)
    }
}
