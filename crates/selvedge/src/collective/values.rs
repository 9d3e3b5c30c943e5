//! Collectives of values: anything that serde can encode, of any length, a different one on each rank.
//!
//! Values travel as postcard. Up and down binomial trees they go as bundles ([`bundle`]), whose lengths nobody has to know
//! before. A rank whose value cannot be encoded takes part all the same and says that it has nothing to give, so that
//! nobody waits for it: the others are told who it was.

mod bundle;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use self::bundle::encode;
use self::bundle::{NOTHING, decode, pop, push};
use crate::collective::steps::{Steps, make_room};
use crate::communicator::Communicator;
use crate::error::{Misuse, Refused, Result};

/// Bytes of the first message of a broadcast: the length, and the value if it is as short as that. As fast as 8 bytes.
const HEAD_BYTES: usize = 256;
/// Of them, the value's.
const HEAD_VALUE_BYTES: usize = HEAD_BYTES - size_of::<u64>();

/// Values of any type that serde knows. Slices of numbers travel faster in the calls of the same names without `value`: no
/// copy, no encoding.
///
/// All ranks call the same with the same types. Errors of all of them: [`Misuse::Encoding`] for a value of this rank's
/// that serde refuses, [`Misuse::NothingGiven`] with the rank when it was another's, [`Misuse::NoValue`] with the rank whose
/// bytes are no such value, [`Misuse::NoRoom`] for more bytes than there is memory, and [`Fault`](crate::Error::Fault) for ranks that died.
/// After the first three the communicator is in order and others are not kept waiting.
impl Communicator {
    /// Gives every rank the root's value, `Some` there and `None` elsewhere (MPI_Bcast, MPI 5.0 section 6.4). The root gets
    /// its own back.
    ///
    /// Cost: one broadcast of 256 bytes, and one of the rest for longer values.
    ///
    /// ```
    /// selvedge::local::run(3, |world| {
    ///     let names = (world.rank() == 1).then(|| vec!["warp".to_owned(), "weft".to_owned()]);
    ///     assert_eq!(world.broadcast_value(names, 1).unwrap(), ["warp", "weft"]);
    /// });
    /// ```
    ///
    /// # Errors
    /// [`Misuse::RootValue`] when the root gives none or another rank one; the rest as above.
    #[doc(alias = "MPI_Bcast")]
    pub fn broadcast_value<V: Serialize + DeserializeOwned>(
        &self,
        value: Option<V>,
        root: usize,
    ) -> Result<V> {
        self.existing_root(root)?;
        if self.rank() != root {
            let bytes = self.broadcast_bytes(None, root)?;
            let bytes = bytes.ok_or(Misuse::NothingGiven { source_rank: root }).refused_by(self)?;
            let received = decode(&bytes, root).refused_by(self)?;
            let nothing_misplaced = if value.is_some() { Err(self.root_value(root)) } else { Ok(received) };
            return nothing_misplaced.refused_by(self);
        }
        let mut encoded = value.as_ref().ok_or_else(|| self.root_value(root)).and_then(encode);
        self.broadcast_bytes(Some(encoded.as_deref_mut().ok()), root)?;
        encoded.refused_by(self)?;
        Ok(value.expect("a value was encoded"))
    }

    /// Gives the root everybody's value in order of ranks, `Some` there and `None` elsewhere (MPI_Gather, MPI 5.0 section
    /// 6.5).
    ///
    /// Cost: log2(ranks) messages to the root, up a binomial tree; the root's memory holds all values encoded.
    ///
    /// ```
    /// selvedge::local::run(3, |world| {
    ///     let mine = "x".repeat(world.rank());
    ///     let all = world.gather_values(mine, 0).unwrap();
    ///     assert_eq!(all.is_some(), world.rank() == 0);
    ///     assert!(all.is_none_or(|all| all == ["", "x", "xx"]));
    /// });
    /// ```
    ///
    /// # Errors
    /// As above. Of a value that is none only the root is told.
    #[doc(alias = "MPI_Gather")]
    pub fn gather_values<V: Serialize + DeserializeOwned>(
        &self,
        value: V,
        root: usize,
    ) -> Result<Option<Vec<V>>> {
        self.existing_root(root)?;
        let encoded = encode(&value);
        let bundle = self.gather_bundle(encoded.as_deref().ok(), root)?;
        encoded.refused_by(self)?;
        let Some(bundle) = bundle else { return Ok(None) };
        let mut values = self.unpack(&bundle, root, Some(value)).refused_by(self)?;
        values.rotate_right(root);
        Ok(Some(values))
    }

    /// Gives each rank its value of the root's, which gives `Some` of as many as there are ranks, in order of ranks; others
    /// give `None` (MPI_Scatter, MPI 5.0 section 6.6).
    ///
    /// Cost: log2(ranks) messages from the root, down a binomial tree.
    ///
    /// ```
    /// selvedge::local::run(3, |world| {
    ///     let all = (world.rank() == 2).then(|| vec![Some('a'), None, Some('c')]);
    ///     let mine = world.scatter_values(all, 2).unwrap();
    ///     assert_eq!(mine, [Some('a'), None, Some('c')][world.rank()]);
    /// });
    /// ```
    ///
    /// # Errors
    /// [`Misuse::RootValue`] and [`Misuse::Length`] on the root, [`Misuse::NothingGiven`] then elsewhere; the rest as above.
    #[doc(alias = "MPI_Scatter")]
    pub fn scatter_values<V: Serialize + DeserializeOwned>(
        &self,
        values: Option<Vec<V>>,
        root: usize,
    ) -> Result<V> {
        self.existing_root(root)?;
        if self.rank() != root {
            let bundle = self.scatter_bundle(None, root)?;
            let mine = pop(&mut &bundle[..], root)
                .and_then(|mine| mine.ok_or(Misuse::NothingGiven { source_rank: root }));
            let received = mine.and_then(|mine| decode(mine, root)).refused_by(self)?;
            let nothing_misplaced = if values.is_some() { Err(self.root_value(root)) } else { Ok(received) };
            return nothing_misplaced.refused_by(self);
        }
        let values = values.ok_or_else(|| self.root_value(root)).and_then(|values| self.one_each(values));
        let encoded = values.and_then(|values| Ok((encode_all(&values, root)?, values)));
        let bundle = match &encoded {
            Ok((encoded, _)) => bundle_of(encoded.iter().map(|bytes| Some(&bytes[..]))),
            Err(_) => bundle_of((0..self.size()).map(|_| None)),
        };
        self.scatter_bundle(Some(bundle), root)?;
        let (_, mut values) = encoded.refused_by(self)?;
        Ok(values.swap_remove(root))
    }

    /// Gives every rank everybody's value in order of ranks (MPI_Allgather, MPI 5.0 section 6.7).
    ///
    /// Cost: up a binomial tree to rank 0, then a broadcast of all values; each rank's memory holds all of them encoded.
    ///
    /// ```
    /// selvedge::local::run(3, |world| {
    ///     let hosts = world.all_gather_values(world.host_of(world.rank()).to_owned()).unwrap();
    ///     assert_eq!(hosts.len(), 3);
    /// });
    /// ```
    ///
    /// # Errors
    /// As above.
    #[doc(alias = "MPI_Allgather")]
    pub fn all_gather_values<V: Serialize + DeserializeOwned>(&self, value: V) -> Result<Vec<V>> {
        let encoded = encode(&value);
        let mut bundle = self.gather_bundle(encoded.as_deref().ok(), 0)?;
        let received = self.broadcast_bytes(bundle.as_deref_mut().map(Some), 0)?;
        encoded.refused_by(self)?;
        let bundle = bundle.or(received).ok_or(Misuse::NothingGiven { source_rank: 0 });
        bundle.and_then(|bundle| self.unpack(&bundle, 0, Some(value))).refused_by(self)
    }

    /// Gives rank `i` the `i`-th value of everybody, in order of ranks; `values` has one for each rank (MPI_Alltoall, MPI 5.0
    /// section 6.8).
    ///
    /// Cost: an all-to-all of 8 bytes for the lengths, then ranks - 1 rounds with one partner each.
    ///
    /// ```
    /// selvedge::local::run(3, |world| {
    ///     let letters: Vec<String> = (0..3).map(|to| format!("{} to {to}", world.rank())).collect();
    ///     let received = world.all_to_all_values(letters).unwrap();
    ///     assert_eq!(received[2], format!("2 to {}", world.rank()));
    /// });
    /// ```
    ///
    /// # Errors
    /// [`Misuse::Length`] when there is not a value for each rank, [`Misuse::NothingGiven`] then elsewhere; the rest as above.
    #[doc(alias = "MPI_Alltoall")]
    pub fn all_to_all_values<V: Serialize + DeserializeOwned>(&self, values: Vec<V>) -> Result<Vec<V>> {
        let (me, size) = (self.rank(), self.size());
        let encoded = self.one_each(values).and_then(|values| Ok((encode_all(&values, me)?, values)));
        let lengths = match &encoded {
            Ok((encoded, _)) => encoded.iter().map(|bytes| bytes.len() as u64).collect(),
            Err(_) => vec![NOTHING; size],
        };
        let mut announced = vec![0; size];
        self.alltoall(&lengths, &mut announced)?;

        let steps = self.steps()?;
        let mut received = vec![Vec::new(); size];
        for distance in 1..size {
            let (to, from) = ((me + distance) % size, (me + size - distance) % size);
            let bytes = encoded.as_ref().map_or(&[][..], |(encoded, _)| &encoded[to]);
            if announced[from] != NOTHING {
                make_room(&mut received[from], announced[from], from).refused_by(self)?;
            }
            steps.exchange(bytes, to, &mut received[from], from)?;
        }
        let (_, values) = encoded.refused_by(self)?;
        let own = values.into_iter().enumerate().nth(me).map(|(_, value)| value);
        let mut own = own.into_iter();
        (0..size)
            .map(|rank| match announced[rank] {
                _ if rank == me => Ok(own.next().expect("there is one value for each rank")),
                NOTHING => Err(Misuse::NothingGiven { source_rank: rank }),
                _ => decode(&received[rank], rank),
            })
            .collect::<Result<_, Misuse>>()
            .refused_by(self)
    }

    /// Combines everybody's value into one, `Some` on the root and `None` elsewhere (MPI_Reduce, MPI 5.0 section 6.9.1).
    /// `op(left, right)` must associate; it need not commute, because what is in `left` always comes from lower ranks.
    ///
    /// Cost: log2(ranks) messages and calls of `op` up a binomial tree, and one message more where the root is not rank 0.
    ///
    /// ```
    /// selvedge::local::run(4, |world| {
    ///     let words = ["over", "under", "over", "under"][world.rank()].to_owned();
    ///     let pattern = world.reduce_value(words, |left, right| left + " " + &right, 0).unwrap();
    ///     assert!(pattern.is_none_or(|it| it == "over under over under"));
    /// });
    /// ```
    ///
    /// # Errors
    /// As above, on this rank, the root and the ranks between.
    #[doc(alias = "MPI_Reduce")]
    pub fn reduce_value<V: Serialize + DeserializeOwned>(
        &self,
        value: V,
        op: impl Fn(V, V) -> V,
        root: usize,
    ) -> Result<Option<V>> {
        self.existing_root(root)?;
        let steps = self.steps()?;
        const TO_THE_ROOT: u32 = 1;
        let given = match self.reduce_to_first(&steps, value, op)? {
            Reduced::First(partial) if root == 0 => return Ok(Some(whole(partial).refused_by(self)?)),
            Reduced::First(partial) => {
                let (frame, given) = frame_of(&partial, self.rank());
                steps.send(&frame, root, TO_THE_ROOT)?;
                given
            }
            Reduced::PassedOn(given) => given,
        };
        let mut frame = Vec::new();
        if self.rank() == root && root != 0 {
            steps.recv(&mut frame, 0, TO_THE_ROOT)?;
        }
        given.refused_by(self)?;
        if self.rank() == root {
            Ok(Some(decode(&frame, 0).and_then(whole).refused_by(self)?))
        } else {
            Ok(None)
        }
    }

    /// As [`Communicator::reduce_value`], and every rank gets the result (MPI_Allreduce, MPI 5.0 section 6.9.6).
    ///
    /// Cost: that of the reduction to rank 0, and a broadcast.
    ///
    /// ```
    /// use std::collections::BTreeSet;
    ///
    /// selvedge::local::run(4, |world| {
    ///     let mine = BTreeSet::from([world.rank() / 2]);
    ///     let all = world.all_reduce_value(mine, |left, right| &left | &right).unwrap();
    ///     assert_eq!(all, BTreeSet::from([0, 1]));
    /// });
    /// ```
    ///
    /// # Errors
    /// As above, on every rank.
    #[doc(alias = "MPI_Allreduce")]
    pub fn all_reduce_value<V: Serialize + DeserializeOwned>(
        &self,
        value: V,
        op: impl Fn(V, V) -> V,
    ) -> Result<V> {
        // The steps are one collective and the broadcast is another: the first is over when the second begins.
        let reduced = self.steps().and_then(|steps| self.reduce_to_first(&steps, value, op))?;
        match reduced {
            Reduced::First(partial) => {
                let (mut frame, given) = frame_of(&partial, self.rank());
                self.broadcast_bytes(Some(Some(&mut frame)), 0)?;
                given.refused_by(self)?;
                whole(partial).refused_by(self)
            }
            Reduced::PassedOn(given) => {
                let frame = self.broadcast_bytes(None, 0)?;
                let frame = frame.ok_or(Misuse::NothingGiven { source_rank: 0 }).refused_by(self)?;
                given.refused_by(self)?;
                decode(&frame, 0).and_then(whole).refused_by(self)
            }
        }
    }

    /// Up a binomial tree to rank 0. Each partial result is that of neighbouring ranks, so the order is
    /// kept.
    fn reduce_to_first<V: Serialize + DeserializeOwned>(
        &self,
        steps: &Steps<'_>,
        value: V,
        op: impl Fn(V, V) -> V,
    ) -> Result<Reduced<V>> {
        let (me, size) = (self.rank(), self.size());
        let mut partial = Ok(value);
        let mut distance = 1;
        while distance < size {
            if me & distance != 0 {
                let (frame, given) = frame_of(&partial, me);
                steps.send(&frame, me - distance, 0)?;
                return Ok(Reduced::PassedOn(given));
            }
            if me + distance < size {
                let mut frame = Vec::new();
                steps.recv(&mut frame, me + distance, 0)?;
                let theirs = decode::<Partial<V>>(&frame, me + distance);
                let theirs = theirs.unwrap_or_else(|error| Err(Broken::at(me + distance, &error)));
                partial = match (partial, theirs) {
                    (Ok(left), Ok(right)) => Ok(op(left, right)),
                    (Err(broken), _) | (_, Err(broken)) => Err(broken),
                };
            }
            distance *= 2;
        }
        Ok(Reduced::First(partial))
    }

    /// Gives every rank the root's bytes, of a length that only the root knows. `bytes`: `Some` on the root, and `Some(None)`
    /// when it has none to give, which the others get as `None`. The root gets nothing back.
    fn broadcast_bytes(&self, bytes: Option<Option<&mut [u8]>>, root: usize) -> Result<Option<Vec<u8>>> {
        let mut head = [0; HEAD_BYTES];
        if let Some(bytes) = bytes {
            let length = bytes.as_ref().map_or(NOTHING, |bytes| bytes.len() as u64);
            let (first, rest) = split_head(bytes.unwrap_or_default());
            head[..size_of::<u64>()].copy_from_slice(&length.to_le_bytes());
            head[size_of::<u64>()..][..first.len()].copy_from_slice(first);
            self.broadcast(&mut head, root)?;
            self.broadcast(rest, root)?;
            return Ok(None);
        }
        self.broadcast(&mut head, root)?;
        let (length, first) = head.split_at(size_of::<u64>());
        let length = u64::from_le_bytes(length.try_into().expect("that many bytes were cut off"));
        if length == NOTHING {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        make_room(&mut bytes, length, root).refused_by(self)?;
        let (start, rest) = split_head(&mut bytes);
        start.copy_from_slice(&first[..start.len()]);
        self.broadcast(rest, root)?;
        Ok(Some(bytes))
    }

    /// Everybody's frames, in order of ranks counted from the root, up a binomial tree; `Some` on the root.
    fn gather_bundle(&self, value: Option<&[u8]>, root: usize) -> Result<Option<Vec<u8>>> {
        let (steps, size) = (self.steps()?, self.size());
        let me = (self.rank() + size - root) % size;
        let mut bundle = Vec::new();
        push(&mut bundle, value);
        let mut distance = 1;
        while distance < size {
            if me & distance != 0 {
                steps.send(&bundle, (me - distance + root) % size, 0)?;
                return Ok(None);
            }
            if me + distance < size {
                steps.recv(&mut bundle, (me + distance + root) % size, 0)?;
            }
            distance *= 2;
        }
        Ok(Some(bundle))
    }

    /// The root's bundle (frames in order of ranks), cut down a binomial tree: to this rank its own frame, first.
    fn scatter_bundle(&self, bundle: Option<Vec<u8>>, root: usize) -> Result<Vec<u8>> {
        let (steps, size) = (self.steps()?, self.size());
        let me = (self.rank() + size - root) % size;
        // The lowest bit of a rank is the distance to its parent; below it are its own children, the furthest first.
        let mut distance = if me == 0 { size.next_power_of_two() } else { me & me.wrapping_neg() };
        let mut bundle = match bundle {
            Some(bundle) => rotated(&bundle, root).refused_by(self)?,
            None => {
                let mut bundle = Vec::new();
                steps.recv(&mut bundle, (me - distance + root) % size, 0)?;
                bundle
            }
        };
        while distance > 1 {
            distance /= 2;
            if me + distance < size {
                let mut rest = &bundle[..];
                for rank in me..me + distance {
                    pop(&mut rest, (rank + root) % size).refused_by(self)?;
                }
                steps.send(rest, (me + distance + root) % size, 0)?;
                bundle.truncate(bundle.len() - rest.len());
            }
        }
        Ok(bundle)
    }

    /// The values of a bundle whose first frame is that of rank `first`. `own`: this rank's value, which is not decoded.
    fn unpack<V: DeserializeOwned>(
        &self,
        bundle: &[u8],
        first: usize,
        own: Option<V>,
    ) -> Result<Vec<V>, Misuse> {
        let mut rest = bundle;
        let mut own = own;
        (0..self.size())
            .map(|place| {
                let rank = (first + place) % self.size();
                let frame = pop(&mut rest, rank)?.ok_or(Misuse::NothingGiven { source_rank: rank })?;
                match own.take_if(|_| rank == self.rank()) {
                    Some(own) => Ok(own),
                    None => decode(frame, rank),
                }
            })
            .collect()
    }

    fn existing_root(&self, root: usize) -> Result<()> {
        if root >= self.size() {
            return Err(self.refuse(Misuse::RankOutOfRange { what: "root", given: root, size: self.size() }));
        }
        Ok(())
    }

    fn root_value(&self, root: usize) -> Misuse {
        Misuse::RootValue { rank: self.rank(), root }
    }

    fn one_each<V>(&self, values: Vec<V>) -> Result<Vec<V>, Misuse> {
        if values.len() != self.size() {
            let (given, expected) = (values.len(), self.size());
            return Err(Misuse::Length { what: "values", given, expected, why: "one for each rank" });
        }
        Ok(values)
    }
}

/// A partial result of a reduction, or who could not give one.
type Partial<V> = Result<V, Broken>;

/// What came of this rank's part of a reduction.
enum Reduced<V> {
    /// It is rank 0 and has the result.
    First(Partial<V>),
    /// It has passed on what it had, or that it had nothing.
    PassedOn(Result<(), Misuse>),
}

/// Why a reduction of values has no result; travels in its place.
#[derive(Debug, Clone, Serialize, serde::Deserialize)]
struct Broken {
    rank: u32,
    /// What serde says of the bytes that came from there; nothing where it could not encode its value.
    why: Option<String>,
}

impl Broken {
    fn at(rank: usize, error: &Misuse) -> Broken {
        Broken { rank: rank as u32, why: Some(error.to_string()) }
    }
}

impl From<Broken> for Misuse {
    fn from(broken: Broken) -> Misuse {
        match broken.why {
            None => Misuse::NothingGiven { source_rank: broken.rank as usize },
            Some(why) => Misuse::Encoding(why),
        }
    }
}

/// A partial result that should be the whole.
fn whole<V>(partial: Partial<V>) -> Result<V, Misuse> {
    partial.map_err(Misuse::from)
}

/// What a rank passes on, and whether it could.
fn frame_of<V: Serialize>(partial: &Partial<V>, me: usize) -> (Vec<u8>, Result<(), Misuse>) {
    match postcard::to_allocvec(partial) {
        Ok(frame) => (frame, Ok(())),
        Err(error) => {
            let broken: Partial<()> = Err(Broken { rank: me as u32, why: None });
            let frame = postcard::to_allocvec(&broken).expect("a number and no text can be encoded");
            (frame, Err(Misuse::Encoding(format!("the value to give cannot be encoded: {error}"))))
        }
    }
}

/// Each value as bytes. That of `own` stays empty: it goes nowhere.
fn encode_all<V: Serialize>(values: &[V], own: usize) -> Result<Vec<Vec<u8>>, Misuse> {
    let encode_other = |(rank, value)| if rank == own { Ok(Vec::new()) } else { encode(value) };
    values.iter().enumerate().map(encode_other).collect()
}

fn bundle_of<'a>(values: impl Iterator<Item = Option<&'a [u8]>>) -> Vec<u8> {
    let mut bundle = Vec::new();
    values.for_each(|value| push(&mut bundle, value));
    bundle
}

/// A bundle in order of ranks as one that begins with the root.
fn rotated(bundle: &[u8], root: usize) -> Result<Vec<u8>, Misuse> {
    let mut rest = bundle;
    for rank in 0..root {
        pop(&mut rest, rank)?;
    }
    Ok([rest, &bundle[..bundle.len() - rest.len()]].concat())
}

/// What goes into the first message of a broadcast, and the rest.
fn split_head(bytes: &mut [u8]) -> (&mut [u8], &mut [u8]) {
    let first = bytes.len().min(HEAD_VALUE_BYTES);
    bytes.split_at_mut(first)
}
