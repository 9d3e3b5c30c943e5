//! Who talks with whom in which round: every host with every other, nobody with two at once.

/// The rounds of a tournament of `hosts` hosts; in each, every host talks with at most one other. Of each pair the lower
/// comes first. Cost: `hosts` rounds at most.
///
/// One stays in its place and all others move on by one seat (the circle method); with an odd number, whoever sits
/// opposite the empty chair rests.
///
/// ```
/// // What every pair of four takes: three rounds of two.
/// let rounds = selvedge_doctor::tournament(4);
/// assert_eq!(rounds, [[(0, 3), (1, 2)], [(0, 2), (1, 3)], [(0, 1), (2, 3)]]);
/// ```
pub fn tournament(hosts: usize) -> Vec<Vec<(usize, usize)>> {
    let chairs = hosts.next_multiple_of(2);
    let moving = chairs.saturating_sub(1);
    let sitting = |round: usize, chair: usize| match chair {
        0 => 0,
        chair => 1 + (chair - 1 + moving - round) % moving,
    };
    let round = |round: usize| {
        let opposite = |chair: usize| {
            let (one, other) = (sitting(round, chair), sitting(round, chairs - 1 - chair));
            (one.min(other), one.max(other))
        };
        let mut pairs: Vec<_> = (0..chairs / 2).map(opposite).filter(|pair| pair.1 < hosts).collect();
        pairs.sort_unstable();
        pairs
    };
    (0..moving).map(round).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn everybody_meets_everybody_once_and_nobody_two_at_once() {
        for hosts in 0..=17 {
            let rounds = tournament(hosts);
            let mut met = BTreeSet::new();
            for round in &rounds {
                let mut busy = BTreeSet::new();
                for &(one, other) in round {
                    assert!(one < other && other < hosts);
                    assert!(busy.insert(one) && busy.insert(other), "{hosts} hosts: {round:?}");
                    assert!(met.insert((one, other)), "{hosts} hosts: {one} and {other} meet twice");
                }
            }
            assert_eq!(met.len(), hosts * hosts.saturating_sub(1) / 2, "{hosts} hosts");
            assert!(rounds.len() <= hosts);
        }
    }
}
