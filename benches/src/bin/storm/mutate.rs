//! Defects put into schedules on purpose.

use selvedge_coll::{Action, Schedule, Side, Slice, StepIndex};
use selvedge_transport::Rng;

/// A small mistake that an author of schedules could make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScheduleMutant {
    /// One step no longer waits for one of those it waited for.
    ForgetsDependency,
    /// One reduction takes its operands the other way round.
    SwapsOperands,
    /// One copy or reduction reads from the next byte.
    ShiftsSource,
    /// One receive and its bytes go missing.
    ForgetsReceive,
}

impl ScheduleMutant {
    /// All of them.
    pub(crate) const ALL: [ScheduleMutant; 4] = [
        ScheduleMutant::ForgetsDependency,
        ScheduleMutant::SwapsOperands,
        ScheduleMutant::ShiftsSource,
        ScheduleMutant::ForgetsReceive,
    ];

    /// The schedule with the mistake in one place, drawn from those where it can be made; unchanged where there is none.
    pub(crate) fn apply(self, schedule: &Schedule, rng: &mut Rng) -> Schedule {
        let places: Vec<StepIndex> = schedule
            .iter()
            .filter(|(_, action, after)| match self {
                ScheduleMutant::ForgetsDependency => !after.is_empty(),
                ScheduleMutant::SwapsOperands => matches!(action, Action::Reduce { .. }),
                ScheduleMutant::ShiftsSource => match action {
                    Action::Copy { from, .. } | Action::Reduce { from, .. } => from.offset >= 8,
                    _ => false,
                },
                ScheduleMutant::ForgetsReceive => matches!(action, Action::Recv { .. }),
            })
            .map(|(step, _, _)| step)
            .collect();
        let Some(&place) = (!places.is_empty()).then(|| rng.pick(&places)) else { return schedule.clone() };
        let mut mutant = Schedule::new(schedule.scratch_bytes());
        for (step, action, after) in schedule.iter() {
            let (action, after) =
                if step == place { self.mistake(action, after, rng) } else { (action, after.to_vec()) };
            mutant.push(action, &after);
        }
        mutant
    }

    fn mistake(self, action: Action, after: &[StepIndex], rng: &mut Rng) -> (Action, Vec<StepIndex>) {
        let mut after = after.to_vec();
        let action = match (self, action) {
            (ScheduleMutant::ForgetsDependency, action) => {
                after.swap_remove(rng.index(after.len()));
                action
            }
            (ScheduleMutant::SwapsOperands, Action::Reduce { from, into, side }) => {
                let side = if side == Side::Left { Side::Right } else { Side::Left };
                Action::Reduce { from, into, side }
            }
            (ScheduleMutant::ShiftsSource, Action::Copy { from, into }) => {
                Action::Copy { from: shift(from), into }
            }
            (ScheduleMutant::ShiftsSource, Action::Reduce { from, into, side }) => {
                Action::Reduce { from: shift(from), into, side }
            }
            // A copy of nothing: the step stays, so that the indices of the others do.
            (ScheduleMutant::ForgetsReceive, Action::Recv { into, .. }) => {
                let nothing = Slice { len: 0, ..into };
                Action::Copy { from: nothing, into: nothing }
            }
            (_, action) => action,
        };
        (action, after)
    }
}

fn shift(slice: Slice) -> Slice {
    Slice { offset: slice.offset - 8, ..slice }
}
