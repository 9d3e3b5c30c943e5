//! In which order ranks are dealt to hosts and their parts, and in which they are numbered: `--map-by` and `--rank-by`,
//! as Open MPI writes them and hydra in part.

use crate::args::Usage;
use crate::cores::Binding;
use crate::topology::Level;

/// `--map-by`, and the other spellings of the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MapBy {
    /// Where the next rank goes.
    pub deal: Deal,
    /// `:SPAN`: all hosts are treated as one.
    pub span: bool,
    /// `:PE=n`: cores for each rank.
    pub cores_per_rank: Option<u32>,
    /// `:HWTCPUS`: hardware threads count as cores.
    pub threads_are_cores: bool,
    /// `:OVERSUBSCRIBE` and `:NOOVERSUBSCRIBE`, or the options of that name.
    pub oversubscribe: Oversubscribe,
}

/// Where the next rank goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deal {
    /// Nobody said: as `Slot`, and cores are shared out evenly.
    #[default]
    Unsaid,
    /// To the same host until its slots are taken.
    Slot,
    /// To the next host ([`Level::Node`]), or the next part of the same host until the host's slots are taken.
    Round(Level),
    /// To the same part until it has so many: `ppr:4:socket`, `-ppn 4`.
    Each(u32, Level),
}

impl Deal {
    /// The parts that ranks are dealt to.
    pub(super) fn level(self) -> Level {
        match self {
            Deal::Unsaid | Deal::Slot => Level::Node,
            Deal::Round(level) | Deal::Each(_, level) => level,
        }
    }
}

/// What is done about more ranks than slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Oversubscribe {
    /// A remark.
    #[default]
    Remark,
    /// Nothing.
    Silent,
    /// The job is refused.
    Refuse,
}

/// `--rank-by`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RankBy {
    /// In the order in which ranks were dealt.
    #[default]
    Dealt,
    /// Host by host, and on each in the order in which they were dealt.
    Slot,
    /// Host by host, and on each part by part.
    Fill,
    /// Host by host, and on each in turn over its parts; over all hosts in turn for [`Level::Node`].
    Round(Level),
    /// In turn over the parts of all hosts; over those that ranks were dealt to where no other is said.
    Span(Option<Level>),
}

/// Most ranks for one part, most cores for one rank.
const COUNT_MAX: u32 = 1 << 20;

impl MapBy {
    /// Follows the words of one `--map-by`. Settings of others, such as `:OVERSUBSCRIBE` in an earlier one, stay.
    ///
    /// # Errors
    /// What is wrong and what there is instead, without the option's name.
    pub(crate) fn follow(&mut self, text: &str) -> Result<(), Usage> {
        let words: Vec<String> = text.split([':', ',']).map(str::to_ascii_lowercase).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (deal, modifiers) = match words[..] {
            ["ppr", count, level, ref rest @ ..] => {
                let count = self::count(count).ok_or_else(|| {
                    Usage::new(format!("{text:?}: ppr:N:WHERE expected, such as ppr:2:socket"))
                })?;
                (Deal::Each(count, level_of(level).ok_or_else(|| no_level(text, level))?), rest)
            }
            ["ppr", ..] => {
                return Err(Usage::new(format!("{text:?}: ppr:N:WHERE expected, such as ppr:2:socket")));
            }
            ["slot", ref rest @ ..] => (Deal::Slot, rest),
            ["", ref rest @ ..] if !rest.is_empty() => (self.deal, rest),
            [what, ref rest @ ..] => (Deal::Round(level_of(what).ok_or_else(|| no_level(text, what))?), rest),
            [] => unreachable!("splitting gives at least one word"),
        };
        self.deal = deal;
        modifiers.iter().try_for_each(|modifier| self.modify(text, modifier))
    }

    fn modify(&mut self, text: &str, modifier: &str) -> Result<(), Usage> {
        match modifier {
            "span" => self.span = true,
            "oversubscribe" => self.oversubscribe = Oversubscribe::Silent,
            "nooversubscribe" => self.oversubscribe = Oversubscribe::Refuse,
            "hwtcpus" => self.threads_are_cores = true,
            "corecpus" => self.threads_are_cores = false,
            _ => match modifier.strip_prefix("pe=").map(count) {
                Some(Some(cores)) => self.cores_per_rank = Some(cores),
                Some(None) => {
                    return Err(Usage::new(format!("{text:?}: PE=N expected, N cores for each rank")));
                }
                None => {
                    return Err(Usage::new(format!(
                        "{text:?}: {modifier:?} is none of SPAN, PE=N, OVERSUBSCRIBE, NOOVERSUBSCRIBE, HWTCPUS, CORECPUS"
                    )));
                }
            },
        }
        Ok(())
    }
}

impl RankBy {
    /// # Errors
    /// What is wrong and what there is instead, without the option's name.
    pub(crate) fn parse(text: &str) -> Result<RankBy, Usage> {
        let lower = text.to_ascii_lowercase();
        match lower.split_once(':').unwrap_or((&lower, "")) {
            ("slot", "") => Ok(RankBy::Slot),
            ("fill", "") => Ok(RankBy::Fill),
            ("span", "") => Ok(RankBy::Span(None)),
            (what, "" | "fill") if level_of(what).is_some() => Ok(match level_of(what) {
                Some(level) if lower.ends_with(":fill") && level != Level::Node => RankBy::Fill,
                Some(level) => RankBy::Round(level),
                None => unreachable!("asked above"),
            }),
            (what, "span") => {
                level_of(what).map(|level| RankBy::Span(Some(level))).ok_or_else(|| no_level(text, what))
            }
            (what, "" | "fill") => Err(Usage::new(format!(
                "{text:?}: {what:?} is none of slot, fill, span, node, socket, numa, core and hwthread"
            ))),
            (_, modifier) => Err(Usage::new(format!("{text:?}: {modifier:?} is none of SPAN and FILL"))),
        }
    }
}

impl Binding {
    /// `--bind-to`, and the cores for each rank where it has such a count, as `core:2` of hydra.
    ///
    /// # Errors
    /// What is wrong and what there is instead, without the option's name.
    pub(crate) fn parse(text: &str) -> Result<(Binding, Option<u32>), Usage> {
        let lower = text.to_ascii_lowercase();
        let mut words = lower.split(':');
        let what = words.next().unwrap_or_default();
        let binding = match (what, level_of(what)) {
            ("share", _) => Binding::Share,
            ("none", _) => Binding::None,
            (_, Some(Level::Core)) => Binding::Core,
            (_, Some(Level::Thread)) => Binding::Thread,
            (_, Some(Level::Numa)) => Binding::Numa,
            (_, Some(Level::Socket)) => Binding::Socket,
            _ => return Err(no_binding(text)),
        };
        let mut cores = None;
        for word in words {
            match count(word) {
                Some(n) if binding == Binding::Core => cores = Some(n),
                // How we bind in any case.
                None if ["overload-allowed", "if-supported"].contains(&word) => {}
                _ => return Err(no_binding(text)),
            }
        }
        Ok((binding, cores))
    }
}

fn no_binding(text: &str) -> Usage {
    Usage::new(format!("{text:?} is none of share, core, core:N, hwthread, numa, socket and none"))
}

/// A part of a host by any of its names.
fn level_of(name: &str) -> Option<Level> {
    Some(match name {
        "node" | "host" | "machine" => Level::Node,
        "socket" | "package" => Level::Socket,
        "numa" => Level::Numa,
        "core" => Level::Core,
        "hwthread" | "hwt" | "thread" => Level::Thread,
        _ => return None,
    })
}

fn no_level(text: &str, word: &str) -> Usage {
    let hint = match word {
        "l1cache" | "l2cache" | "l3cache" => "; caches are not looked at here, numa is the nearest",
        "rankfile" => "; write --rankfile FILE",
        "seq" | "dist" | "likwid" => "; write --rankfile FILE for any other order",
        _ => "",
    };
    Usage::new(format!("{text:?}: {word:?} is none of slot, core, hwthread, numa, socket and node{hint}"))
}

fn count(text: &str) -> Option<u32> {
    text.parse().ok().filter(|count| (1..=COUNT_MAX).contains(count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map_by(text: &str) -> Result<MapBy, String> {
        let mut map = MapBy::default();
        map.follow(text).map_err(|why| why.to_string())?;
        Ok(map)
    }

    #[test]
    fn every_part_of_a_host_can_be_mapped_by() {
        for (text, deal) in [
            ("slot", Deal::Slot),
            ("node", Deal::Round(Level::Node)),
            ("socket", Deal::Round(Level::Socket)),
            ("package", Deal::Round(Level::Socket)),
            ("NUMA", Deal::Round(Level::Numa)),
            ("core", Deal::Round(Level::Core)),
            ("hwthread", Deal::Round(Level::Thread)),
            ("ppr:4:node", Deal::Each(4, Level::Node)),
            ("ppr:1:socket", Deal::Each(1, Level::Socket)),
        ] {
            assert_eq!(map_by(text), Ok(MapBy { deal, ..MapBy::default() }), "{text}");
        }
    }

    #[test]
    fn modifiers_follow_after_colons() {
        let map = map_by("socket:PE=2:SPAN,oversubscribe").unwrap();
        assert_eq!((map.deal, map.cores_per_rank, map.span), (Deal::Round(Level::Socket), Some(2), true));
        assert_eq!(map.oversubscribe, Oversubscribe::Silent);
        assert_eq!(map_by("ppr:2:numa:pe=3").unwrap().cores_per_rank, Some(3));
        assert_eq!(map_by(":nooversubscribe").unwrap().oversubscribe, Oversubscribe::Refuse);
        assert!(map_by("core:HWTCPUS").unwrap().threads_are_cores);
    }

    #[test]
    fn what_there_is_not_gets_the_list_of_what_there_is() {
        for (text, part) in [
            ("", "none of slot, core"),
            ("l3cache", "numa is the nearest"),
            ("seq", "--rankfile"),
            ("ppr:x:node", "ppr:2:socket"),
            ("ppr", "ppr:2:socket"),
            ("ppr:2:board", "\"board\" is none of"),
            ("core:PE=0", "PE=N"),
            ("core:fast", "none of SPAN"),
        ] {
            let why = map_by(text).expect_err(text);
            assert!(why.contains(part), "{text}: {why}");
        }
        assert!(RankBy::parse("board").unwrap_err().to_string().contains("none of slot, fill, span"));
        assert!(RankBy::parse("core:fast").unwrap_err().to_string().contains("SPAN"));
        assert!(Binding::parse("board").unwrap_err().to_string().contains("hwthread, numa"));
        assert!(Binding::parse("socket:2").is_err());
    }

    #[test]
    fn ranks_can_be_numbered_by_any_part_too() {
        assert_eq!(RankBy::parse("slot"), Ok(RankBy::Slot));
        assert_eq!(RankBy::parse("fill"), Ok(RankBy::Fill));
        assert_eq!(RankBy::parse("span"), Ok(RankBy::Span(None)));
        assert_eq!(RankBy::parse("node"), Ok(RankBy::Round(Level::Node)));
        assert_eq!(RankBy::parse("socket:SPAN"), Ok(RankBy::Span(Some(Level::Socket))));
        assert_eq!(RankBy::parse("package:fill"), Ok(RankBy::Fill));
    }

    #[test]
    fn bindings_may_have_a_number_of_cores() {
        assert_eq!(Binding::parse("core:4"), Ok((Binding::Core, Some(4))));
        assert_eq!(Binding::parse("core:overload-allowed"), Ok((Binding::Core, None)));
        assert_eq!(Binding::parse("package"), Ok((Binding::Socket, None)));
        assert_eq!(Binding::parse("hwthread"), Ok((Binding::Thread, None)));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_text_is_too_strange(text in "(ppr|:|,|core|node|PE=|[0-9]|\\PC){0,12}") {
            let _ = (map_by(&text), RankBy::parse(&text), Binding::parse(&text));
        }
    }
}
