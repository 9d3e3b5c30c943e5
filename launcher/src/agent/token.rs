//! What an agent's epoll is asked about, in the 64 bits that it hands back.

use rustix::event::epoll::EventData;

use super::world::Place;
use crate::proto::Stream;

/// What an epoll event is about; travels as its 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// The parent has said something.
    Parent,
    /// There is room for what the parent is to hear.
    ParentRoom,
    /// Something has happened at a link to an agent below.
    Links,
    Signals,
    Outputs,
    /// A reader of standard input has room, or is gone.
    Input(Place),
    /// The PMIx server has something to say.
    Pmix,
    /// Something has happened at the port where ranks connect.
    Port,
    /// The PMI connection of a rank.
    Pmi(Place),
    /// The same for an output.
    Output(Place, Stream),
}

/// Bits of a place among the ranks of a host: Linux has 22 for all processes.
const LOCAL_BITS: u32 = 24;

impl Token {
    pub(super) fn data(self) -> EventData {
        let nobody = Place { world: 0, local: 0 };
        let (kind, Place { world, local }) = match self {
            Token::Parent => (0, nobody),
            Token::Signals => (1, nobody),
            Token::Outputs => (2, nobody),
            Token::Input(place) => (3, place),
            Token::Pmi(place) => (4, place),
            Token::Output(place, Stream::Out) => (5, place),
            Token::Output(place, Stream::Err) => (6, place),
            Token::ParentRoom => (7, nobody),
            Token::Links => (8, nobody),
            Token::Pmix => (9, nobody),
            Token::Port => (10, nobody),
        };
        debug_assert!(local >> LOCAL_BITS == 0, "a host has fewer processes");
        EventData::new_u64(u64::from(world) << (8 + LOCAL_BITS) | u64::from(local) << 8 | kind)
    }

    pub(super) fn of(data: EventData) -> Token {
        let data = data.u64();
        let world = u32::try_from(data >> (8 + LOCAL_BITS)).expect("32 bits are left");
        let local = u32::try_from(data >> 8 & ((1 << LOCAL_BITS) - 1)).expect("24 bits");
        let place = Place { world, local };
        match data & 0xff {
            0 => Token::Parent,
            1 => Token::Signals,
            2 => Token::Outputs,
            3 => Token::Input(place),
            4 => Token::Pmi(place),
            5 => Token::Output(place, Stream::Out),
            6 => Token::Output(place, Stream::Err),
            7 => Token::ParentRoom,
            9 => Token::Pmix,
            10 => Token::Port,
            _ => Token::Links,
        }
    }
}
