//! Partitioned messages: one message whose parts are filled, and read, by several threads (MPI 5.0 section 4.2).
//!
//! The thread that makes them begins each round and has its request; markers of the partitions go to other threads. A
//! sender's partition is written through its marker and leaves when the marker is spent, so that nobody can write to what is
//! on its way. A receiver's partitions are read through a view that shows those that are here. What moves them is below, in
//! `channel.rs`; the two ends are in `send.rs` and `receive.rs`.

mod receive;
mod send;

use std::sync::Arc;

use selvedge_gate::Pass;
use selvedge_transport::Buf;

pub use self::receive::{PartitionView, PartitionedRecv};
pub use self::send::{Partition, PartitionedSend, Partitions, ready_all};
use crate::communicator::{Communicator, Core};
use crate::datatype::Datatype;
use crate::error::{Misuse, Refused, Result};
use crate::message::Address;
use crate::request::owned::OwnedRequest;
use crate::request::persistent::Shared;
use crate::request::scope::Scope;
use crate::runtime::station::{Alarm, Station};
use crate::runtime::{Arrival, Board, ChannelId, Ends, PARTITIONS_MAX, hello};

/// The way to the channel below, from any thread.
struct Line {
    pass: Pass<Station, Alarm>,
    channel: ChannelId,
    /// Whose handler sees what goes wrong.
    core: Arc<Core>,
}

impl Line {
    fn open(communicator: &Communicator, open: impl FnOnce(&mut Station) -> ChannelId) -> Line {
        let pass = communicator.runtime.pass();
        let channel = open(&mut communicator.runtime.enter());
        Line { pass, channel, core: Arc::clone(&communicator.core) }
    }

    /// Says of a partition that it may leave.
    fn mark(&self, partition: usize, is_withheld: bool) {
        self.pass.door().enter().mark(self.channel, partition, is_withheld);
    }

    fn close(&self, communicator: &Communicator) {
        // Inside of a reduction of the user's nobody can go in again: the channel stays for as long as the world.
        if let Some(mut runtime) = communicator.runtime.try_enter() {
            runtime.close_channel(self.channel);
        }
    }
}

/// A claim on all of a message.
///
/// # Safety
/// As for [`Buf::claim`], partition by partition; and what arrives becomes values of `T` before it is shown.
unsafe fn whole<T: Datatype>(elements: &Shared<'_, T>) -> Buf {
    let _has_no_padding = T::PLAIN;
    // SAFETY: so many elements lie there; the caller answers for the rest. The address is that which all other accesses
    // are derived from, so that none of them ends the claim.
    unsafe { Buf::claim(elements.start().cast(), elements.count() * size_of::<T>()) }
}

/// Partitioned messages (MPI 5.0 section 4.2). The sending and the receiving end meet by rank, tag and the order in which
/// they were made, each among its own kind; they never meet other messages. There are no wildcards.
impl<'scope, 'env> Scope<'scope, 'env> {
    /// A send of `message` in so many equal partitions, to be started many times (MPI_Psend_init).
    ///
    /// # Errors
    /// [`Misuse::Length`] when the elements cannot be divided so; a rank or tag out of range as for a send.
    #[doc(alias = "MPI_Psend_init")]
    pub fn psend_init<T: Datatype>(
        &'scope self,
        message: &'scope mut [T],
        partitions: usize,
        dest: impl Into<Option<usize>>,
        tag: i32,
    ) -> Result<PartitionedSend<'scope, 'env, T>> {
        let communicator = self.communicator;
        let to = communicator.destination(dest.into(), tag)?;
        divisible(message.len(), partitions).refused_by(communicator)?;
        let bytes = size_of_val(message);
        let line = to.map(|to| {
            let (number, ends) = (communicator.next_channel(), self.ends(to));
            let line =
                Line::open(communicator, |runtime| runtime.open_sender(ends, number, bytes, partitions));
            let said = hello(number, bytes, partitions).to_vec();
            // Dropped at once: the communicator sees to it that it leaves.
            drop(OwnedRequest::send_plain(communicator, said, Ok(Some(to)), |runtime, (peer, tag), body| {
                runtime.send_body(peer, ends.context, tag, body)
            }));
            line
        });
        Ok(PartitionedSend { scope: self, elements: Shared::new(message), partitions, line, round: None })
    }

    /// A receive into `message` in so many equal partitions, to be started many times (MPI_Precv_init).
    ///
    /// # Errors
    /// As [`Scope::psend_init`].
    #[doc(alias = "MPI_Precv_init")]
    pub fn precv_init<T: Datatype>(
        &'scope self,
        message: &'scope mut [T],
        partitions: usize,
        source: impl Into<Option<usize>>,
        tag: i32,
    ) -> Result<PartitionedRecv<'scope, 'env, T>> {
        let from = self.communicator.destination(source.into(), tag)?;
        divisible(message.len(), partitions).refused_by(self.communicator)?;
        let arrival = if from.is_some() { Arrival::Awaited } else { Arrival::Here };
        let board = Board::new(partitions, arrival);
        let line = from.map(|from| {
            let (ends, bytes, board) = (self.ends(from), size_of_val(message), Arc::clone(&board));
            Line::open(self.communicator, |runtime| runtime.open_receiver(ends, bytes, size_of::<T>(), board))
        });
        Ok(PartitionedRecv { scope: self, elements: Shared::new(message), board, line, round: None })
    }

    fn ends(&self, (peer, tag): Address) -> Ends {
        Ends { peer, context: self.communicator.partitioned_context(), tag }
    }
}

fn divisible(elements: usize, partitions: usize) -> Result<(), Misuse> {
    if (1..=PARTITIONS_MAX).contains(&partitions) && elements.is_multiple_of(partitions) {
        return Ok(());
    }
    let expected = elements.next_multiple_of(partitions.clamp(1, PARTITIONS_MAX));
    let why = "as many in each partition, of which there are 1 to 2^24";
    Err(Misuse::Length { what: "message", given: elements, expected, why })
}
