//! The info key `soft`: how many ranks are enough, as MPI writes it (MPI 5.0, 11.8.4, "Reserved Keys").

/// Numbers of ranks, each of which will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Soft(Vec<Triplet>);

/// From, to, step: `2`, `1:8`, `1:8:2`, `8:1:-2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Triplet {
    from: i64,
    to: i64,
    step: i64,
}

impl Soft {
    /// A list of numbers and ranges with commas between them.
    ///
    /// # Errors
    /// What is no such thing.
    pub(super) fn parse(text: &str) -> Result<Soft, String> {
        let triplet = |part: &str| {
            let numbers: Option<Vec<i64>> =
                part.split(':').map(|n| n.trim().parse::<i32>().ok().map(i64::from)).collect();
            match numbers.as_deref() {
                Some([one]) => Ok(Triplet { from: *one, to: *one, step: 1 }),
                Some([from, to]) => Ok(Triplet { from: *from, to: *to, step: 1 }),
                Some([from, to, step]) if *step != 0 => Ok(Triplet { from: *from, to: *to, step: *step }),
                _ => Err(format!("{part:?} is no number and no range FROM:TO:STEP")),
            }
        };
        text.split(',').map(triplet).collect::<Result<_, _>>().map(Soft)
    }

    /// The largest of the numbers that is not above `ranks`; `ranks` where none is from 1 to that.
    pub(super) fn most(&self, ranks: u32) -> u32 {
        let most = self.0.iter().filter_map(|triplet| triplet.most(ranks)).max();
        most.unwrap_or(ranks)
    }
}

impl Triplet {
    /// The largest of the numbers that is from 1 to `ranks`.
    fn most(self, ranks: u32) -> Option<u32> {
        let Triplet { from, to, step } = self;
        if (to - from).signum() * step.signum() < 0 {
            return None;
        }
        let last = from + (to - from) / step * step;
        let (low, high) = (from.min(last), from.max(last));
        let limit = high.min(i64::from(ranks));
        let most = low + (limit - low).div_euclid(step.abs()) * step.abs();
        u32::try_from(most).ok().filter(|most| *most > 0 && limit >= low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn most(text: &str, ranks: u32) -> u32 {
        Soft::parse(text).unwrap().most(ranks)
    }

    #[test]
    fn the_largest_number_that_was_asked_for_and_will_do_is_taken() {
        assert_eq!(most("1:8", 5), 5);
        assert_eq!(most("1:8:2", 6), 5);
        assert_eq!(most("2,4,16", 8), 4);
        assert_eq!(most("8:1:-3", 6), 5);
        assert_eq!(most("0:100:4", 7), 4);
        assert_eq!(most("1:3,10:20", 30), 20);
    }

    #[test]
    fn where_none_will_do_what_was_asked_for_is_taken() {
        for text in ["9", "9:20", "0", "-4:-1", "3:1", "1:3:-1"] {
            assert_eq!(most(text, 8), 8, "{text}");
        }
    }

    #[test]
    fn what_is_no_range_is_named() {
        for text in ["", "a", "1:2:0", "1:2:3:4", "1,,2", "99999999999"] {
            assert!(Soft::parse(text).is_err(), "{text}");
        }
    }
}
