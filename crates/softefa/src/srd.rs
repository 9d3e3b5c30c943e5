//! Scalable reliable datagrams: the protocol as a value.
//!
//! [`Srd`] is one queue pair. It does no input or output and reads no clock: packets and the time go in, packets and
//! completions come out. `handle_*` takes what came in, `poll_*` gives what must go out or be told; after any call, poll
//! both until they are empty. The same calls with the same seed give the same packets.
//!
//! # The protocol
//!
//! A **flow** leads from one queue pair to another. It is named by the sender's device, number and **epoch**: a random
//! number per queue pair, so that a number (which is a UDP port) used again is another flow. On a flow every packet that asks
//! for something (SEND, WRITE, WRITE_IMM, READ) carries a sequence number. The number gives no order; packets are acted upon
//! as they arrive. It only makes sure that each is acted upon once: the receiver keeps the lowest number that it
//! has not seen and a bitmap of [`WINDOW`] numbers above it. The sender says in each packet how far below it everything is
//! settled, which lets the receiver slide over numbers that the sender has given up.
//!
//! **A number is offered once.** When it first arrives it is accepted or refused, for ever: a refused number is refused with the
//! same words however late another copy of it comes. After a refusal for want of a posted receive (RNR) the sender tries again
//! under a *new* number. A send can so never be both refused and, by a late copy, delivered.
//!
//! - SEND: one datagram with all bytes; takes a posted receive.
//! - WRITE: one piece of a write. The bytes are put in place on arrival, once (a late copy could undo a later write).
//! - WRITE_IMM: takes a posted receive unless that is not wanted. It carries the bytes of a write that fits into one packet;
//!   otherwise it is sent after all WRITE packets have been acknowledged, empty.
//! - READ: asks for one piece. READ_RSP with the bytes is its answer. It may be asked again, since looking changes nothing, and
//!   the answer is taken once.
//! - ACK: all numbers below a base and those of a bitmap have been accepted. Every packet to a peer carries what there is to
//!   acknowledge to it; an ACK of its own goes out when there was none for [`Config::ack_delay`].
//! - NACK: one number was refused, and why.
//!
//! Each asking packet carries the sender's time and each answer sends one back: that is the round trip without guesses, and it
//! tells that packets sent clearly earlier than an answered one are lost. What has no later packet to betray it is found by
//! a timer that follows the round trip. The window in bytes halves with a loss and grows back.
//!
//! Silence for [`Config::peer_timeout`] ends all work on a flow; the socket's "nobody listens there" does at once.

mod config;
mod host;
mod status;
mod work;

use std::sync::Arc;

pub use config::{Config, Service};
pub use host::{Access, Host, Receive};
pub use status::Status;
pub use work::{
    Address, Body, Completion, Done, Full, Gid, INLINE_MAX, Inline, Nanos, Node, Payload, SPANS_MAX, Span,
    Spans, Transmit, Work,
};

use crate::counters::Counters;
use crate::faults::Faults;

/// Numbers of one flow that can be open at a time.
pub const WINDOW: u64 = 512;

/// One queue pair. See the module for how it is driven.
#[derive(Debug)]
pub struct Srd {
    config: Config,
    me: Address,
    counters: Arc<Counters>,
    faults: Faults,
}

impl Srd {
    /// A queue pair called `me`. `epoch` must differ from those of earlier queue pairs of the same node; 0 is reserved.
    pub fn new(config: Config, me: Address, epoch: u32, faults: Faults, counters: Arc<Counters>) -> Srd {
        let _ = epoch;
        Srd { config, me, counters, faults }
    }

    /// Its address.
    pub fn me(&self) -> Address {
        self.me
    }

    /// How often a send is tried again when no receive is posted there (`ibv_modify_qp`, RNR_RETRY); `None` for ever.
    pub fn set_rnr_retries(&mut self, retries: Option<u8>) {
        self.config.rnr_retries = retries;
    }

    /// The queue key that packets to us must carry (`ibv_modify_qp`, QKEY).
    pub fn set_qkey(&mut self, qkey: u32) {
        self.me.qkey = qkey;
    }

    /// Starts work towards `to`. It ends with exactly one completion named `wr_id`. Lengths and the service are checked
    /// here and tell their error by that completion; local keys are the caller's to check.
    pub fn post(&mut self, wr_id: u64, to: Address, work: Work, now: Nanos) -> Result<(), Full> {
        let _ = (wr_id, to, work, now);
        Err(Full)
    }

    /// Takes a datagram from the network. Anything that is not a packet of this protocol is counted and dropped.
    pub fn handle_packet(&mut self, datagram: &[u8], now: Nanos, host: &mut impl Host) {
        let _ = (datagram, now, host);
    }

    /// The network says that nobody listens at this port of the hosts for which `is_there` is true.
    pub fn handle_unreachable(&mut self, is_there: impl Fn(Gid) -> bool, qpn: u16, now: Nanos) {
        let _ = (is_there(Gid::default()), qpn, now);
    }

    /// Does what time asks for. Call it when [`Srd::next_deadline`] has passed; calling it early costs a comparison.
    pub fn handle_timeout(&mut self, now: Nanos) {
        let _ = now;
    }

    /// The next packet that must go out now. Its body may point into memory, so send (or copy) it before anything else
    /// is asked of this queue pair or of the memory's owner.
    pub fn poll_transmit(&mut self, now: Nanos, host: &impl Host) -> Option<Transmit> {
        let _ = (now, host);
        None
    }

    /// The next thing to tell whoever polls the completion queue.
    pub fn poll_completion(&mut self) -> Option<Completion> {
        None
    }

    /// When [`Srd::handle_timeout`] wants to be called and [`Srd::poll_transmit`] polled, if nothing else happens before.
    pub fn next_deadline(&self) -> Option<Nanos> {
        None
    }

    /// Ends all open work with [`Status::Flushed`], as the error state does.
    pub fn flush(&mut self) {}

    /// The queue pair is being destroyed: open work is forgotten without completions, nothing new is accepted
    /// ([`Status::BadQueuePair`] to who asks), and acknowledgements that are owed can still be polled. A peer whose last
    /// packet was accepted so still hears of it; keep a closed queue pair for a moment where that matters.
    pub fn close(&mut self) {}
}
