//! Each mistake that an engine can be told to make is noticed by the random programs.

use std::panic::{AssertUnwindSafe, catch_unwind};

use selvedge_engine::Mutant;

use crate::{faults, leaving, program};

/// Programs tried before a mutant is declared alive.
const SEEDS: u64 = 3_000;

fn assert_caught(mutant: Mutant) {
    let run = |seed| match mutant {
        Mutant::WildcardsNotTold => faults::run(seed, Some(mutant)),
        Mutant::WildcardsToldOfLeaving => leaving::run(seed, Some(mutant)),
        _ => program::run(seed, Some(mutant)),
    };
    let caught = (0..SEEDS).find_map(|seed| match catch_unwind(AssertUnwindSafe(|| run(seed))) {
        Ok(Ok(())) => None,
        Ok(Err(wrong)) => Some((seed, wrong)),
        Err(_) => Some((seed, "a panic".to_owned())),
    });
    let (seed, wrong) = caught.unwrap_or_else(|| panic!("{mutant:?} survived {SEEDS} programs"));
    println!("{mutant:?}: seed {seed}: {wrong}");
}

/// A test for each, and the list of them.
macro_rules! caught {
    ($($test:ident: $mutant:ident,)*) => {
        $(#[test] fn $test() { assert_caught(Mutant::$mutant); })*
        const CAUGHT: &[Mutant] = &[$(Mutant::$mutant),*];
    };
}

caught! {
    an_engine_that_skips_the_order_window_is_caught: SkipOrderWindow,
    an_engine_that_takes_unexpected_messages_last_in_first_out_is_caught: UnexpectedLifo,
    an_engine_that_cuts_unordered_tags_is_caught: UnorderedTagCut,
    an_engine_that_loses_credit_is_caught: CreditLost,
    an_engine_that_says_fin_before_it_has_read_is_caught: FinBeforeRead,
    an_engine_that_says_written_before_it_has_written_is_caught: WrittenBeforeWrite,
    an_engine_that_reads_pieces_from_the_wrong_place_is_caught: PieceOffset,
    an_engine_that_gives_memory_back_before_fin_is_caught: DoneBeforeFin,
    an_engine_that_forgets_to_extend_windows_is_caught: GrantForgotten,
    an_engine_that_hides_truncation_is_caught: TruncationHidden,
    an_engine_that_puts_a_part_of_a_train_in_the_wrong_place_is_caught: PartMisplaced,
    an_engine_that_forgets_parts_that_came_before_their_receive_is_caught: PartsForgotten,
    an_engine_that_ends_a_train_of_which_parts_are_missing_is_caught: TrainEndsEarly,
    an_engine_that_returns_the_credit_of_a_train_twice_is_caught: TrainCreditTwice,
    an_engine_that_never_returns_the_credit_of_a_train_is_caught: TrainCreditLost,
    an_engine_that_answers_a_synchronous_message_before_it_is_matched_is_caught: AnsweredUnmatched,
    an_engine_that_does_not_tell_wildcards_of_a_dead_peer_is_caught: WildcardsNotTold,
    an_engine_that_fails_wildcards_when_a_peer_leaves_in_order_is_caught: WildcardsToldOfLeaving,
}

/// Mistakes of what is built on the engine: the storm of the whole library notices them.
const ABOVE: &[Mutant] =
    &[Mutant::ChannelForgotten, Mutant::RoundForgotten, Mutant::NumberOfOneself, Mutant::NumberInUse];

#[test]
fn every_mutant_has_a_test_of_its_own() {
    for mutant in Mutant::ALL {
        let tests = CAUGHT.iter().chain(ABOVE).filter(|&&tested| tested == mutant).count();
        assert_eq!(tests, 1, "{mutant:?}");
    }
}
