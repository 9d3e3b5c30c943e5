//! What is wrong with a schedule, as values.

use std::fmt;

use crate::{Rank, Slice, Space, StepIndex};

/// The five things a set of schedules must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Duty {
    /// Slices lie inside their spaces, `Input` is not written, elements are not cut.
    Bounds,
    /// Every send has exactly one receive of the same label and length.
    Pairing,
    /// No step waits for itself through others, even when every send waits for its receive.
    Progress,
    /// Steps that may run at the same time do not touch the same bytes, unless both only read.
    Hazards,
    /// Every output byte is what the collective promises.
    Result,
}

/// A schedule breaks a [`Duty`]: where and why. Prints as one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Flaw {
    /// Whose schedule.
    pub rank: Rank,
    /// Which step, where it is one step's fault.
    pub step: Option<StepIndex>,
    /// What is wrong.
    pub why: Why,
}

impl Flaw {
    /// The duty it breaks.
    pub fn duty(&self) -> Duty {
        self.why.duty()
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.rank)?;
        if let Some(step) = self.step {
            write!(f, ", step {step}")?;
        }
        write!(f, ": {}", self.why)
    }
}

/// Contributions found in, or wanted for, a range of bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provenance {
    /// Whose contributions are reduced into it, as half-open ranges of ranks in ascending order; one rank where data is
    /// only moved.
    pub ranks: Vec<(u32, u32)>,
    /// The offset in their `Input` (in the root's `Output` for a broadcast).
    pub offset: u64,
}

impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {} of ", self.offset)?;
        for (index, &(first, end)) in self.ranks.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match end - first {
                1 => write!(f, "{comma}{first}")?,
                _ => write!(f, "{comma}{first}..{end}")?,
            }
        }
        Ok(())
    }
}

/// What is wrong with a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// There are not as many schedules as ranks.
    ScheduleCount {
        /// Schedules given.
        schedules: usize,
        /// Ranks in the shape.
        ranks: u32,
    },
    /// The shape cannot be asked for ([`crate::Shape::is_valid`]).
    InvalidShape,
    /// A slice reaches behind its space.
    Outside {
        /// The slice.
        slice: Slice,
        /// Bytes in the space.
        bytes: u64,
    },
    /// `Input` is the caller's.
    WritesInput(Slice),
    /// Both slices of a copy or reduction have one length.
    UnequalLengths(Slice, Slice),
    /// The two slices of a copy or reduction have bytes in common.
    Overlap(Slice, Slice),
    /// A reduction starts or ends inside an element.
    CutsElement(Slice),
    /// Nothing is reduced in this collective.
    NothingToReduce,
    /// A message to or from a rank that does not exist, or oneself.
    NoSuchPartner(Rank),
    /// A send that nobody receives.
    NotReceived {
        /// To whom.
        to: Rank,
        /// Its label.
        label: u32,
    },
    /// A receive that nobody sends.
    NotSent {
        /// From whom.
        from: Rank,
        /// Its label.
        label: u32,
    },
    /// Two messages between the same ranks in the same direction have one label.
    LabelTwice {
        /// The other rank.
        partner: Rank,
        /// The label.
        label: u32,
        /// The other step.
        other: StepIndex,
    },
    /// Sender and receiver do not agree on the length.
    UnequalMessage {
        /// Bytes sent.
        sent: u64,
        /// The receiver, and the step there.
        to: (Rank, StepIndex),
        /// Bytes expected there.
        expected: u64,
    },
    /// Steps wait for each other in a circle; each for the one before it, the first for the last.
    Circle(Vec<(Rank, StepIndex)>),
    /// Two steps that may run at the same time, at least one of which writes.
    Race {
        /// The other step.
        other: StepIndex,
        /// What this step touches.
        slice: Slice,
        /// What the other step touches.
        other_slice: Slice,
    },
    /// Bytes are used that were never written.
    Undefined(Slice),
    /// Two elements are reduced that do not belong together.
    DifferentElements(Provenance, Provenance),
    /// A contribution would be in the sum twice.
    Twice(Provenance, Provenance),
    /// Operands that do not commute would change places: the right one does not continue the left one.
    OutOfOrder(Provenance, Provenance),
    /// The result is something else than promised.
    WrongResult {
        /// Part of `Output`.
        slice: Slice,
        /// What is there.
        found: Provenance,
        /// What should be.
        wanted: Provenance,
    },
    /// The rank may leave the barrier before that one has entered.
    LeavesEarly(Rank),
}

impl Why {
    /// The duty it breaks.
    pub fn duty(&self) -> Duty {
        match self {
            Why::ScheduleCount { .. }
            | Why::InvalidShape
            | Why::Outside { .. }
            | Why::WritesInput(_)
            | Why::UnequalLengths(..)
            | Why::Overlap(..)
            | Why::CutsElement(_)
            | Why::NothingToReduce
            | Why::NoSuchPartner(_) => Duty::Bounds,
            Why::NotReceived { .. }
            | Why::NotSent { .. }
            | Why::LabelTwice { .. }
            | Why::UnequalMessage { .. } => Duty::Pairing,
            Why::Circle(_) => Duty::Progress,
            Why::Race { .. } => Duty::Hazards,
            Why::Undefined(_)
            | Why::DifferentElements(..)
            | Why::Twice(..)
            | Why::OutOfOrder(..)
            | Why::WrongResult { .. }
            | Why::LeavesEarly(_) => Duty::Result,
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::ScheduleCount { schedules, ranks } => write!(f, "{schedules} schedules for {ranks} ranks"),
            Why::InvalidShape => write!(f, "nobody can ask for this shape"),
            Why::Outside { slice, bytes } => {
                let space = match slice.space {
                    Space::Input => "input",
                    Space::Output => "output",
                    Space::Scratch => "scratch",
                };
                write!(f, "{slice} is outside of the {bytes} bytes of {space}")
            }
            Why::WritesInput(slice) => write!(f, "writes {slice}, which is the caller's"),
            Why::UnequalLengths(from, into) => write!(f, "{from} and {into} have different lengths"),
            Why::Overlap(from, into) => write!(f, "{from} and {into} overlap"),
            Why::CutsElement(slice) => write!(f, "{slice} starts or ends inside an element"),
            Why::NothingToReduce => write!(f, "reduces, but this collective does not"),
            Why::NoSuchPartner(rank) => write!(f, "{rank:?} is no partner"),
            Why::NotReceived { to, label } => write!(f, "{to:?} does not receive message #{label}"),
            Why::NotSent { from, label } => write!(f, "{from:?} does not send message #{label}"),
            Why::LabelTwice { partner, label, other } => {
                write!(f, "the message with {partner:?} is called #{label}, as that of step {other}")
            }
            Why::UnequalMessage { sent, to: (rank, step), expected } => {
                write!(f, "sends {sent} bytes, but step {step} of {rank:?} expects {expected}")
            }
            Why::Circle(steps) => {
                write!(f, "waits for itself, by way of")?;
                for (index, (rank, step)) in steps.iter().enumerate() {
                    write!(f, "{} step {step} of {rank:?}", if index == 0 { "" } else { "," })?;
                }
                Ok(())
            }
            Why::Race { other, slice, other_slice } => {
                write!(
                    f,
                    "touches {slice} while step {other} may touch {other_slice}, and one of them writes"
                )
            }
            Why::Undefined(slice) => write!(f, "{slice} was never written"),
            Why::DifferentElements(a, b) => write!(f, "reduces different elements: {a}, and {b}"),
            Why::Twice(a, b) => write!(f, "a contribution would count twice: {a}, and {b}"),
            Why::OutOfOrder(left, right) => write!(f, "operands out of order: {right}, right of {left}"),
            Why::WrongResult { slice, found, wanted } => write!(f, "{slice} is {found}, should be {wanted}"),
            Why::LeavesEarly(rank) => write!(f, "may leave before {rank:?} has entered"),
        }
    }
}
