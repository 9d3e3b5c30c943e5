//! What the nodes of a job say to each other, so that many servers are one.
//!
//! The nodes form a tree. Each has a [`Server`](crate::Server) for the ranks on it; what its
//! [`poll_up`](crate::Server::poll_up) and [`poll_down`](crate::Server::poll_down) give out is for whoever starts the
//! nodes to carry, in order and unchanged, to the server above or below. The values are plain data.
//!
//! ```text
//!        Cards* Fence          collected on the way up, each card once per edge
//!   node ------------> parent
//!        <------------         Cards* or Stale*, then Fence: everybody is in
//!
//!        Ask                   goes up as far as nobody knows the key
//!   node ------------> parent
//!        <------------         Value, kept by each node on its way
//! ```

use serde::{Deserialize, Serialize};

/// A key and its value, as a rank has put them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// Name of the value.
    pub key: String,
    /// The value, as written.
    pub value: String,
}

impl Card {
    /// On the way, with the lengths of both.
    pub(crate) fn bytes(&self) -> usize {
        self.key.len() + self.value.len() + 2 * LENGTH_BYTES
    }
}

/// Values and keys travel in parts of about this many bytes, so that a connection carries other things between.
pub(crate) const PART_BYTES: usize = 64 << 10;
/// What a length or a rank takes in most encodings; postcard needs up to 5 for either.
pub(crate) const LENGTH_BYTES: usize = 5;
/// No [`Up`] or [`Down`] that a server gives out takes more bytes than this in a compact encoding such as postcard, as
/// long as no node has more than 32,768 ranks of a group: a part of cards of which the last is as large as may be, or
/// the name of a group and its ranks.
pub const MESSAGE_BYTES_MAX: usize = 256 << 10;
const _: () = assert!(PART_BYTES + crate::PAIR_BYTES_MAX + 4 * LENGTH_BYTES < MESSAGE_BYTES_MAX);
const _: () = assert!(crate::PAIR_BYTES_MAX + 32_768 * LENGTH_BYTES + 4 * LENGTH_BYTES < MESSAGE_BYTES_MAX);

/// From a node to the one above it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Up {
    /// Part of what was put below since the last fence; [`Up::Fence`] ends it.
    Cards(Vec<Card>),
    /// All ranks of this node and below are in the fence.
    Fence {
        /// More was put than a job may; the fence must fail.
        overflow: bool,
    },
    /// Somebody wants this value, and nobody here or below knows it.
    Ask {
        /// Name of the value.
        key: String,
    },
    /// Some ranks have entered the barrier of a group.
    Group {
        /// The group and its tag, in one spelling for all.
        group: String,
        /// Who has entered, as far as not said before.
        ranks: Vec<u32>,
    },
    /// A rank has left the job, or its connection.
    Left {
        /// Who.
        rank: u32,
        /// Without saying goodbye.
        dead: bool,
    },
    /// A rank waits in a fence, and [`Down::Left`] has said that somebody left.
    Waiting {
        /// Who waits.
        rank: u32,
    },
}

/// From a node to one below it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Down {
    /// Values to know, new or in place of old ones.
    Cards(Vec<Card>),
    /// Keys that have new values: what is known of them is out of date.
    Stale(Vec<String>),
    /// Everybody is in the fence.
    Fence(FenceEnd),
    /// Answer to [`Up::Ask`].
    Value {
        /// Name of the value.
        key: String,
        /// `None`: nobody has put it before the last fence.
        value: Option<String>,
    },
    /// Answer to [`Up::Group`].
    Group {
        /// The group and its tag, as it was sent up.
        group: String,
        /// Too many groups wait at once; nobody has entered.
        full: bool,
    },
    /// Somebody has left the job: from now on it matters who waits.
    Left {
        /// The first to leave.
        rank: u32,
    },
}

/// How a fence has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FenceEnd {
    /// All that was put is known everywhere now: it has come down as [`Down::Cards`].
    Known,
    /// It was too much for that. Values are asked for when they are wanted.
    Asked,
    /// More was put than a job may. Nothing of it counts.
    Full,
}
