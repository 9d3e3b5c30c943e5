//! Whether all ranks call the same collective: what each calls, in words and as a signature, gathered before it begins.

use selvedge_coll::Shape;

use crate::collective::op::Reducer;
use crate::communicator::Communicator;
use crate::datatype::Datatype;
use crate::datatype::signature::{STAMP_BYTES, Stamp};
use crate::error::{Misuse, Result};

/// What this rank is about to call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Called<'a> {
    shape: &'a Shape,
    reducer: Option<&'a Reducer>,
    /// What so many of its elements are made of.
    stamp: fn(usize) -> Stamp,
}

/// Bytes in which ranks say what they call, but for the types; what is longer is compared up to here.
const WORDS_BYTES: usize = 120;

/// What a rank tells the others: words, and what its elements are made of.
const CALL_BYTES: usize = WORDS_BYTES + STAMP_BYTES;

impl<'a> Called<'a> {
    #[inline(always)]
    pub(crate) fn of<T: Datatype>(shape: &'a Shape, reducer: Option<&'a Reducer>) -> Called<'a> {
        Called { shape, reducer, stamp: Stamp::of::<T> }
    }

    pub(crate) fn shape(&self) -> &'a Shape {
        self.shape
    }

    fn stamp(&self) -> Stamp {
        (self.stamp)(usize::try_from(self.shape.count).expect("it is the length of a slice"))
    }
}

impl Communicator {
    /// Compares what this rank is about to call with what the others are, where that is wanted.
    #[cold]
    pub(crate) fn compare_calls(&self, call: Called<'_>) -> Result<()> {
        if !self.plans.begin_comparing() {
            return Ok(());
        }
        let outcome = self.compare_now(call);
        self.plans.compared();
        outcome
    }

    fn compare_now(&self, call: Called<'_>) -> Result<()> {
        let (words, stamp) = (self.in_words(call), call.stamp());
        let mut mine = [[0; CALL_BYTES]];
        let (said, made_of) = mine[0].split_at_mut(WORDS_BYTES);
        let bytes = words.len().min(WORDS_BYTES);
        said[..bytes].copy_from_slice(&words.as_bytes()[..bytes]);
        made_of.copy_from_slice(&stamp.encode());
        let mut all = vec![[0; CALL_BYTES]; self.size()];
        self.allgather(&mine, &mut all)?;
        let theirs = |rank: usize| (&all[rank][..WORDS_BYTES], Stamp::decode(&all[rank][WORDS_BYTES..]));
        let is_same = |rank: &usize| {
            let (said, made_of) = theirs(*rank);
            said == &mine[0][..WORDS_BYTES] && made_of.is_some_and(|made_of| made_of.fits(&stamp).is_ok())
        };
        let Some(source_rank) = (0..self.size()).find(|rank| !is_same(rank)) else { return Ok(()) };
        let (said, made_of) = theirs(source_rank);
        let said = String::from_utf8_lossy(said);
        let theirs = with_type(said.trim_end_matches('\0'), made_of.as_ref());
        Err(self.refuse(Misuse::DifferentCalls {
            source_rank,
            theirs,
            ours: with_type(&words, Some(&stamp)),
        }))
    }

    fn in_words(&self, Called { shape, reducer, .. }: Called<'_>) -> String {
        let algorithm = self.plans.wanted().name(shape, &self.plans.machine());
        let root = shape.root().map_or_else(String::new, |root| format!(" at root {}", root.0));
        let by = reducer.map_or_else(String::new, |reducer| format!(" by {}", reducer.name()));
        let order = if shape.commutative { "" } else { " in order" };
        format!("{algorithm} of {} x {} bytes{root}{by}{order}", shape.count, shape.element_bytes)
    }
}

fn with_type(words: &str, stamp: Option<&Stamp>) -> String {
    match stamp {
        Some(stamp) if stamp.count > 0 => format!("{words} ({})", stamp.type_name()),
        _ => words.to_owned(),
    }
}
