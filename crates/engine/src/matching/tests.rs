//! Matching against the simple algorithm, and what it costs.

use proptest::prelude::*;

use super::*;

/// The simple algorithm.
#[derive(Default)]
struct Oracle {
    posted: Vec<(Pattern, u32)>,
    unexpected: Vec<(Name, u32)>,
}

impl Oracle {
    fn arrive(&mut self, name: &Name) -> Option<u32> {
        let at = self.posted.iter().position(|(pattern, _)| pattern.matches(name))?;
        Some(self.posted.remove(at).1)
    }

    fn peek(&self, pattern: &Pattern) -> Option<(Name, u32)> {
        self.unexpected.iter().find(|(name, _)| pattern.matches(name)).copied()
    }

    fn take(&mut self, pattern: &Pattern) -> Option<(Name, u32)> {
        let at = self.unexpected.iter().position(|(name, _)| pattern.matches(name))?;
        Some(self.unexpected.remove(at))
    }
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Receive(Pattern),
    Arrive(Name),
    Peek(Pattern),
    Withdraw(prop::sample::Index),
    Borrow(Pattern),
    PutBack(prop::sample::Index),
    TakeOdd(Name),
}

fn name() -> impl Strategy<Value = Name> {
    (0..2_u32, 0..3_u32, 0..3_u64).prop_map(|(context, source, tag)| Name {
        context: Context(context),
        source: Peer(source),
        tag: Tag(tag << 31),
    })
}

fn pattern() -> impl Strategy<Value = Pattern> {
    (name(), any::<bool>(), any::<bool>()).prop_map(|(name, source, tag)| Pattern {
        context: name.context,
        source: source.then_some(name.source),
        tag: tag.then_some(name.tag),
    })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => pattern().prop_map(Op::Receive),
        4 => name().prop_map(Op::Arrive),
        1 => pattern().prop_map(Op::Peek),
        1 => any::<prop::sample::Index>().prop_map(Op::Withdraw),
        1 => pattern().prop_map(Op::Borrow),
        1 => any::<prop::sample::Index>().prop_map(Op::PutBack),
        1 => name().prop_map(Op::TakeOdd),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn matching_agrees_with_a_scan_of_two_lists(ops in proptest::collection::vec(op(), 0..120)) {
        let mut oracle = Oracle::default();
        let mut matching = Matching::<u32, u32>::default();
        let mut live: Vec<(u32, Posted)> = Vec::new();
        let mut borrowed: Vec<(Arrival, Name, u32)> = Vec::new();
        for (id, op) in (0..).zip(ops) {
            match op {
                Op::Receive(pattern) => {
                    let expected = oracle.take(&pattern);
                    prop_assert_eq!(matching.take(&pattern), expected);
                    if expected.is_none() {
                        oracle.posted.push((pattern, id));
                        live.push((id, matching.post(pattern, id)));
                    }
                }
                Op::Arrive(name) => {
                    let expected = oracle.arrive(&name);
                    prop_assert_eq!(matching.arrive(&name), expected);
                    match expected {
                        Some(gone) => live.retain(|(id, _)| *id != gone),
                        None => {
                            oracle.unexpected.push((name, id));
                            matching.keep(name, id);
                        }
                    }
                }
                Op::Peek(pattern) => {
                    let seen = matching.peek(&pattern).map(|(name, id)| (name, *id));
                    prop_assert_eq!(seen, oracle.peek(&pattern));
                }
                Op::Withdraw(index) => {
                    if !live.is_empty() {
                        let (id, posted) = live.swap_remove(index.index(live.len()));
                        prop_assert_eq!(matching.withdraw(posted), id);
                        oracle.posted.retain(|(_, posted)| *posted != id);
                    }
                }
                Op::Borrow(pattern) => {
                    let got = matching.borrow(&pattern);
                    prop_assert_eq!(got.map(|(_, name, id)| (name, id)), oracle.take(&pattern));
                    borrowed.extend(got);
                }
                Op::PutBack(index) => {
                    if !borrowed.is_empty() {
                        let (arrival, name, id) = borrowed.swap_remove(index.index(borrowed.len()));
                        let expected = oracle.arrive(&name);
                        prop_assert_eq!(matching.arrive(&name), expected);
                        match expected {
                            Some(gone) => live.retain(|(id, _)| *id != gone),
                            None => {
                                oracle.unexpected.push((name, id));
                                // Numbers grow with time.
                                oracle.unexpected.sort_by_key(|(_, id)| *id);
                                matching.put_back(arrival, name, id);
                            }
                        }
                    }
                }
                Op::TakeOdd(name) => {
                    let is_it = |(other, id): &(Name, u32)| *other == name && id % 2 == 1;
                    let at = oracle.unexpected.iter().position(is_it);
                    let expected = at.map(|at| oracle.unexpected.remove(at).1);
                    prop_assert_eq!(matching.take_if(&name, |id| id % 2 == 1), expected);
                }
            }
            prop_assert_eq!(matching.posted_len(), oracle.posted.len());
            prop_assert_eq!(matching.unexpected_len(), oracle.unexpected.len());
        }
    }
}

fn exact(source: u32, tag: u64) -> (Name, Pattern) {
    let (context, source, tag) = (Context(7), Peer(source), Tag(tag));
    (Name { context, source, tag }, Pattern { context, source: Some(source), tag: Some(tag) })
}

/// Bins looked at by a hundred rounds of post, arrive, keep, take and a wildcard pair, with `others` receives and
/// messages on other keys lying around.
fn steps_beside(others: u32) -> usize {
    let mut matching = Matching::<u32, u32>::default();
    for other in 0..others {
        let (name, pattern) = exact(other % 1_000, 1_000 + u64::from(other / 1_000));
        let elsewhere = Pattern { context: Context(8), ..pattern };
        matching.keep(name, other);
        matching.post(elsewhere, other);
        matching.post(Pattern { source: None, ..elsewhere }, other);
    }
    let (name, pattern) = exact(3, 5);
    let any_tag = Pattern { tag: None, source: Some(Peer(5_000)), ..pattern };
    matching.peek(&any_tag);
    let before = matching.posted.steps() + matching.unexpected.steps();
    for _ in 0..100 {
        matching.post(pattern, 1);
        assert_eq!(matching.arrive(&name), Some(1));
        matching.keep(name, 2);
        assert_eq!(matching.take(&pattern), Some((name, 2)));
        matching.post(any_tag, 3);
        assert_eq!(matching.arrive(&Name { source: Peer(5_000), ..name }), Some(3));
    }
    matching.posted.steps() + matching.unexpected.steps() - before
}

#[test]
fn cost_does_not_grow_with_what_lies_on_other_keys() {
    // A chain has less than one stranger on average; five lookups see a few at most.
    for others in [1, 10, 1_000, 100_000] {
        let steps = steps_beside(others) as f64 / 100.0;
        assert!(steps <= 20.0, "{steps} bins per round beside {others} others");
    }
}

#[test]
fn tags_that_are_used_once_leave_nothing_behind() {
    let mut matching = Matching::<u32, u32>::default();
    for tag in 0..10_000 {
        let (name, pattern) = exact(1, tag << 20);
        matching.post(pattern, 0);
        matching.post(pattern, 1);
        assert_eq!([matching.arrive(&name), matching.arrive(&name)], [Some(0), Some(1)]);
        matching.keep(name, 0);
        assert_eq!(matching.take(&Pattern { source: None, ..pattern }), Some((name, 0)));
    }
    assert_eq!(matching.posted.len(), (2, 1));
    assert_eq!(matching.unexpected.len(), (1, 2));
}

#[test]
fn one_receive_at_a_time_needs_no_queue() {
    let mut matching = Matching::<u32, u32>::default();
    for tag in 0..100 {
        let (name, pattern) = exact(1, tag);
        let posted = matching.post(pattern, 0);
        assert_eq!(matching.withdraw(posted), 0);
        matching.post(Pattern { source: None, ..pattern }, 1);
        assert_eq!((matching.arrive(&name), matching.posted_len()), (Some(1), 0));
    }
    assert_eq!(matching.posted.len(), (1, 0));
}

#[test]
fn a_message_goes_to_the_earliest_receive_whatever_its_class() {
    let mut matching = Matching::<u32, u32>::default();
    let (name, pattern) = exact(1, 2);
    let patterns = [
        Pattern { source: None, ..pattern },
        pattern,
        Pattern { source: None, tag: None, ..pattern },
        Pattern { tag: None, ..pattern },
    ];
    for (id, pattern) in (0..).zip(patterns) {
        matching.post(pattern, id);
    }
    for id in 0..4 {
        assert_eq!(matching.arrive(&name), Some(id));
    }
    assert_eq!(matching.arrive(&name), None);
}
