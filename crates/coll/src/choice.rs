//! Algorithms that somebody asks for by name, and why one does not fit.

use std::fmt;
use std::ops::{Bound, RangeBounds};
use std::str::FromStr;

use crate::{Algorithm, Shape, UnknownAlgorithm};

/// Why an algorithm cannot do what is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It is a way to do another collective.
    #[error("it is a way to do another collective")]
    Collective,
    /// It knows powers of two only.
    #[error("it works among a power of two of ranks")]
    Ranks,
    /// It changes the order of operands, and the operation does not commute.
    #[error("it changes the order of operands, and the operation does not commute")]
    Order,
    /// A radix below 2, or a segment or window of nothing.
    #[error("its parameter is out of range")]
    Parameter,
}

/// Which algorithm is wanted for which messages; where nothing is said, [`select`](crate::select) says.
///
/// Written as a list with commas of names, each with the sizes it is for behind an `@`: bytes that each rank contributes,
/// from the first up to, but not including, the second. Of several that speak of a message the first counts. The same on all
/// ranks.
///
/// ```
/// use selvedge_coll::{Algorithm, Choices, Collective, Shape};
/// let choices: Choices = "allreduce/ring@64KiB.., allreduce/doubling, broadcast/knomial:4@1KiB..1MiB".parse()?;
/// let shape = |count| Shape { collective: Collective::Allreduce, ranks: 8, count, element_bytes: 8, commutative: true };
/// assert_eq!(choices.find(&shape(1 << 20)), Some(Algorithm::AllreduceRing));
/// assert_eq!(choices.find(&shape(1)), Some(Algorithm::AllreduceDoubling));
/// assert_eq!(choices.find(&Shape { collective: Collective::Barrier, ..shape(0) }), None);
/// # Ok::<(), selvedge_coll::ChoiceError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choices {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    algorithm: Algorithm,
    bytes_min: u64,
    /// The first size that is too large.
    bytes_end: Option<u64>,
}

impl Choices {
    /// Nothing is said yet.
    pub const fn new() -> Choices {
        Choices { rules: Vec::new() }
    }

    /// Also this algorithm, for messages of so many bytes; what was said before comes first.
    pub fn and(mut self, algorithm: Algorithm, bytes: impl RangeBounds<u64>) -> Choices {
        let bytes_min = match bytes.start_bound() {
            Bound::Included(&first) => first,
            Bound::Excluded(&before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let bytes_end = match bytes.end_bound() {
            Bound::Included(&last) => last.checked_add(1),
            Bound::Excluded(&end) => Some(end),
            Bound::Unbounded => None,
        };
        self.rules.push(Rule { algorithm, bytes_min, bytes_end });
        self
    }

    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The algorithm that is wanted for `shape`, whether it [fits](Algorithm::fits) or not. A pure function.
    pub fn find(&self, shape: &Shape) -> Option<Algorithm> {
        let bytes = shape.bytes();
        let speaks = |rule: &&Rule| {
            rule.algorithm.fits(shape) != Err(Unfit::Collective)
                && bytes >= rule.bytes_min
                && rule.bytes_end.is_none_or(|end| bytes < end)
        };
        self.rules.iter().find(speaks).map(|rule| rule.algorithm)
    }
}

impl From<Algorithm> for Choices {
    /// This one, for messages of all sizes.
    fn from(algorithm: Algorithm) -> Choices {
        Choices::new().and(algorithm, ..)
    }
}

impl fmt::Display for Choices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Rule { algorithm, bytes_min, bytes_end }) in self.rules.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{algorithm}")?;
            match (bytes_min, bytes_end) {
                (0, None) => {}
                (from, None) => write!(f, "@{from}..")?,
                (from, Some(end)) => write!(f, "@{from}..{end}")?,
            }
        }
        Ok(())
    }
}

/// A list of choices that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// A name that no algorithm has.
    #[error(transparent)]
    Unknown(#[from] UnknownAlgorithm),
    /// Sizes that are none.
    #[error("{0:?} are no sizes; write @FROM..END, @FROM.. or @..END, in bytes or with KiB, MiB or GiB")]
    Sizes(String),
}

impl FromStr for Choices {
    type Err = ChoiceError;

    fn from_str(text: &str) -> Result<Choices, ChoiceError> {
        let mut choices = Choices::new();
        for one in text.split(',').map(str::trim).filter(|one| !one.is_empty()) {
            let (name, range) = match one.split_once('@') {
                None => (one, (0, None)),
                Some((name, text)) => (name, sizes(text).ok_or_else(|| ChoiceError::Sizes(text.to_owned()))?),
            };
            let (bytes_min, bytes_end) = range;
            choices.rules.push(Rule { algorithm: name.trim().parse()?, bytes_min, bytes_end });
        }
        Ok(choices)
    }
}

/// `FROM..END`, either of which may be missing.
fn sizes(text: &str) -> Option<(u64, Option<u64>)> {
    let (from, end) = text.split_once("..")?;
    let (from, end) = (from.trim(), end.trim());
    let from = if from.is_empty() { 0 } else { parse_bytes(from)? };
    let end = if end.is_empty() { None } else { Some(parse_bytes(end)?) };
    end.is_none_or(|end| from < end).then_some((from, end))
}

/// Bytes as people write them; `None` where it is no such text.
///
/// ```
/// use selvedge_coll::parse_bytes;
/// assert_eq!(["65536", "64KiB", "64K"].map(parse_bytes), [Some(65536); 3]);
/// assert_eq!(parse_bytes("64 kilobytes"), None);
/// ```
pub fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match &text[digits.len()..] {
        "" | "B" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// What to say of a name that no algorithm has: the nearest one, or those of its collective.
pub(crate) fn advice(name: &str) -> String {
    const LETTERS_MAX: usize = 60;
    let known: Vec<String> = Algorithm::known().map(|algorithm| algorithm.to_string()).collect();
    let near = known.iter().map(|known| (distance(name, known), known)).min();
    if let Some((distance, nearest)) = near
        && name.len() <= LETTERS_MAX
        && distance <= name.len() / 3
    {
        return format!("is {nearest} meant?");
    }
    let family = name.split('/').next().unwrap_or_default();
    let of_family = |known: &&String| known.split('/').next() == Some(family);
    let siblings: Vec<&str> = known.iter().filter(of_family).map(String::as_str).collect();
    match siblings.is_empty() {
        true => "names look like allreduce/ring, broadcast/knomial:4".to_owned(),
        false => format!("there are {}", siblings.join(", ")),
    }
}

/// Letters to insert, delete or replace.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Collective, Rank};

    fn shape(collective: Collective, ranks: u32, count: u64) -> Shape {
        Shape { collective, ranks, count, element_bytes: 1, commutative: true }
    }

    #[test]
    fn the_first_rule_that_speaks_of_a_message_counts() {
        let choices: Choices =
            "allreduce/ring@64K..1MiB, allreduce/direct@..8,allreduce/doubling".parse().unwrap();
        let of = |count| choices.find(&shape(Collective::Allreduce, 4, count));
        assert_eq!(of(65_535), Some(Algorithm::AllreduceDoubling));
        assert_eq!(of(65_536), Some(Algorithm::AllreduceRing));
        assert_eq!(of(1 << 20), Some(Algorithm::AllreduceDoubling));
        assert_eq!((of(7), of(8)), (Some(Algorithm::AllreduceDirect), Some(Algorithm::AllreduceDoubling)));
        assert_eq!(choices.find(&shape(Collective::Reduce { root: Rank(0) }, 4, 9)), None);
    }

    #[test]
    fn an_algorithm_that_does_not_fit_is_found_and_says_why() {
        let choices = Choices::from(Algorithm::AllgatherDoubling);
        let three = shape(Collective::Allgather, 3, 1);
        assert_eq!(choices.find(&three), Some(Algorithm::AllgatherDoubling));
        assert_eq!(Algorithm::AllgatherDoubling.fits(&three), Err(Unfit::Ranks));
        let ordered = Shape { commutative: false, ..shape(Collective::Allreduce, 4, 1) };
        assert_eq!(Algorithm::AllreduceRing.fits(&ordered), Err(Unfit::Order));
        assert_eq!(Algorithm::AllreduceTree { radix: 1 }.fits(&ordered), Err(Unfit::Parameter));
    }

    #[test]
    fn a_list_is_read_back_as_it_was_printed() {
        let choices = Choices::new()
            .and(Algorithm::BroadcastChain { segment_bytes: 4096 }, 1 << 20..)
            .and(Algorithm::BroadcastTree { radix: 4 }, ..=1023)
            .and(Algorithm::AlltoallBruck, ..);
        assert_eq!(
            choices.to_string(),
            "broadcast/chain:4096@1048576..,broadcast/knomial:4@0..1024,alltoall/bruck"
        );
        assert_eq!(choices.to_string().parse(), Ok(choices));
        assert!("".parse::<Choices>().unwrap().is_empty());
    }

    #[test]
    fn a_wrong_name_gets_the_nearest_or_those_of_its_collective() {
        let said = |text: &str| text.parse::<Choices>().unwrap_err().to_string();
        assert_eq!(
            said("allreduce/rnig"),
            "no algorithm is called \"allreduce/rnig\"; is allreduce/ring meant?"
        );
        assert!(said("alltoall/hypercube").ends_with(
            "there are alltoall/linear, alltoall/scattered:32, alltoall/pairwise, alltoall/bruck"
        ));
        assert!(said("x").ends_with("names look like allreduce/ring, broadcast/knomial:4"));
    }

    #[test]
    fn every_algorithm_stands_in_the_guide() {
        let guide = include_str!("../../../docs/guide-algorithms.md");
        for algorithm in Algorithm::known() {
            let name = algorithm.to_string();
            // Of those with a parameter one stands for all.
            let name = name.split_once(':').map_or(format!("`{name}`"), |(name, _)| format!("`{name}:"));
            assert!(guide.contains(&name), "{algorithm} is not in docs/guide-algorithms.md");
        }
    }

    #[test]
    fn sizes_that_are_none_are_refused() {
        for sizes in ["", "8", "8..8", "9..8", "..-1", "1kb..", "99999999999G.."] {
            let error = format!("allreduce/ring@{sizes}").parse::<Choices>().unwrap_err();
            assert_eq!(error, ChoiceError::Sizes(sizes.to_owned()));
        }
    }
}
