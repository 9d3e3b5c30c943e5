//! Proves the schedules of all ranks, or says which step of which rank is wrong and why.
//!
//! Five duties ([`Duty`]), each in a module of its own and each relying on those before it: bounds (here), pairing and
//! progress (`pairing.rs`), hazards (`hazard.rs`), result (`result.rs`). Nothing is run and no byte is moved: the proof
//! works on intervals, so its cost depends on steps, not on bytes. About 1 us per step for a few dozen ranks; hazards
//! take steps^2 / 64 words of memory for one rank at a time.

mod flaw;
mod hazard;
mod pairing;
mod result;

pub use flaw::{Duty, Flaw, Provenance, Why};
pub(crate) use pairing::Pairing;

use crate::{Action, Rank, Schedule, Shape, Slice, Space};

/// Proves that `schedules` (one per rank, in order of ranks) do what `shape` asks, in whatever order steps run and
/// messages arrive, and even when a send waits for its receive.
///
/// # Errors
/// The first [`Flaw`] found, duty by duty, rank by rank.
///
/// ```
/// use selvedge_coll::{Algorithm, Collective, Duty, Schedule, Shape, generate_all, verify};
/// let shape = Shape { collective: Collective::Allgather, ranks: 7, count: 3, element_bytes: 4, commutative: true };
/// let mut schedules = generate_all(Algorithm::AllgatherBruck, &shape);
/// assert_eq!(verify(&shape, &schedules), Ok(()));
/// schedules[2] = Schedule::default();
/// let flaw = verify(&shape, &schedules).unwrap_err();
/// assert_eq!(flaw.duty(), Duty::Pairing);
/// assert_eq!(flaw.to_string(), "rank 0, step 4: rank 2 does not send message #2");
/// ```
pub fn verify(shape: &Shape, schedules: &[Schedule]) -> Result<(), Box<Flaw>> {
    check_bounds(shape, schedules)?;
    let pairing = pairing::Pairing::new(schedules)?;
    let order = pairing.order(schedules)?;
    for (rank, schedule) in all(schedules) {
        hazard::check(rank, schedule)?;
    }
    result::check(shape, schedules, &pairing, &order)
}

/// Schedules with their ranks.
fn all(schedules: &[Schedule]) -> impl Iterator<Item = (Rank, &Schedule)> {
    (0..).map(Rank).zip(schedules)
}

fn check_bounds(shape: &Shape, schedules: &[Schedule]) -> Result<(), Box<Flaw>> {
    let overall = |why| Box::new(Flaw { rank: Rank(0), step: None, why });
    if !shape.is_valid() {
        return Err(overall(Why::InvalidShape));
    }
    if schedules.len() != shape.ranks as usize {
        return Err(overall(Why::ScheduleCount { schedules: schedules.len(), ranks: shape.ranks }));
    }
    for (rank, schedule) in all(schedules) {
        for (step, action, _) in schedule.iter() {
            check_action(shape, rank, schedule, action)
                .map_err(|why| Box::new(Flaw { rank, step: Some(step), why }))?;
        }
    }
    Ok(())
}

fn check_action(shape: &Shape, rank: Rank, schedule: &Schedule, action: Action) -> Result<(), Why> {
    let inside = |slice: Slice| {
        let bytes = match slice.space {
            Space::Input => shape.input_bytes(rank),
            Space::Output => shape.output_bytes(rank),
            Space::Scratch => schedule.scratch_bytes(),
        };
        match slice.offset.checked_add(slice.len) {
            Some(end) if end <= bytes => Ok(()),
            _ => Err(Why::Outside { slice, bytes }),
        }
    };
    let writable = |slice: Slice| {
        inside(slice)?;
        if slice.space == Space::Input && slice.len > 0 { Err(Why::WritesInput(slice)) } else { Ok(()) }
    };
    let partner = |other: Rank| {
        if other == rank || other.0 >= shape.ranks { Err(Why::NoSuchPartner(other)) } else { Ok(()) }
    };
    let whole_elements = |slice: Slice| {
        let each = u64::from(shape.element_bytes);
        if slice.offset.is_multiple_of(each) && slice.len.is_multiple_of(each) {
            Ok(())
        } else {
            Err(Why::CutsElement(slice))
        }
    };
    let pair = |from: Slice, into: Slice| {
        inside(from)?;
        writable(into)?;
        if from.len != into.len {
            return Err(Why::UnequalLengths(from, into));
        }
        if from.overlaps(into) { Err(Why::Overlap(from, into)) } else { Ok(()) }
    };
    match action {
        Action::Send { to, from, .. } => partner(to).and_then(|()| inside(from)),
        Action::Recv { from, into, .. } => partner(from).and_then(|()| writable(into)),
        Action::Copy { from, into } => pair(from, into),
        Action::Reduce { from, into, .. } => {
            if !shape.reduces() {
                return Err(Why::NothingToReduce);
            }
            pair(from, into)?;
            whole_elements(from)?;
            whole_elements(into)
        }
    }
}
