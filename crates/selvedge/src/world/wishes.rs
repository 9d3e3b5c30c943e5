//! What the user asked of the roads, in variables that `mpirun` sets from its options and that work under any launcher.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use selvedge_coll::Choices;

use crate::error::ErrorHandler;

/// A way for the bytes between two ranks, as users name it, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum RoadName {
    Shm,
    EfaDirect,
    Efa,
    Tcp,
}

impl RoadName {
    pub(crate) const ALL: [RoadName; 4] = [RoadName::Shm, RoadName::EfaDirect, RoadName::Efa, RoadName::Tcp];

    /// Those that leave a host, the best first.
    pub(crate) const NETWORKS: [RoadName; 3] = [RoadName::EfaDirect, RoadName::Efa, RoadName::Tcp];

    pub(crate) fn name(self) -> &'static str {
        match self {
            RoadName::Shm => "shm",
            RoadName::EfaDirect => "efa-direct",
            RoadName::Efa => "efa",
            RoadName::Tcp => "tcp",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<RoadName> {
        RoadName::ALL.into_iter().find(|road| road.name() == name)
    }

    /// Whether a demand for this road is met by `taken`: who demands `efa` means the device, and `efa-direct` is the
    /// shorter way to it.
    pub(crate) fn is_met_by(self, taken: RoadName) -> bool {
        self == taken || (self == RoadName::Efa && taken == RoadName::EfaDirect)
    }
}

/// Where the report of the start goes, and how it looks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum ReportWish {
    /// Text on standard error, when there is something worth saying.
    #[default]
    Default,
    /// Nothing is said.
    Quiet,
    /// Text on standard error, always.
    Text,
    /// JSON, on standard error or in a file.
    Json(Option<PathBuf>),
}

/// What the user asked for. The same on all ranks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wishes {
    /// `SELVEDGE_TRANSPORT`: no other roads than these.
    pub(crate) transports: Option<Vec<RoadName>>,
    /// `SELVEDGE_REQUIRE`: one of these or no start; empty for no demand.
    pub(crate) required: Vec<RoadName>,
    /// `SELVEDGE_REPORT` and `SELVEDGE_QUIET`.
    pub(crate) report: ReportWish,
    /// `SELVEDGE_HOST`: this rank counts as on a host of this name.
    pub(crate) host: Option<String>,
    /// `SELVEDGE_LIBFABRIC`: the library, or the folder it is in.
    pub(crate) libfabric: Option<PathBuf>,
    /// `SELVEDGE_INTERFACE`: the network interface that tcp goes by, by name or address.
    pub(crate) interface: Option<String>,
    /// `SELVEDGE_DEVICES`: no other EFA devices than these.
    pub(crate) devices: Vec<String>,
    /// `SELVEDGE_ERRORS`: what the world does about errors.
    pub(crate) errors: ErrorHandler,
    /// `SELVEDGE_ALGORITHM`: algorithms for collectives.
    pub(crate) algorithms: Choices,
    /// `SELVEDGE_CHECK`: ranks compare what they call.
    pub(crate) check: bool,
}

impl Wishes {
    /// Reads them; a variable that is empty counts as not set.
    ///
    /// # Errors
    /// One sentence that names the variable, the value, and what may stand there.
    pub(crate) fn from_env(env: impl Fn(&str) -> Option<String>) -> Result<Wishes, String> {
        let env = |name: &str| env(name).filter(|value| !value.is_empty());
        let quiet = env("SELVEDGE_QUIET").is_some_and(|value| value != "0");
        Ok(Wishes {
            transports: env("SELVEDGE_TRANSPORT")
                .map(|list| names("SELVEDGE_TRANSPORT", &list))
                .transpose()?,
            required: env("SELVEDGE_REQUIRE")
                .map(|list| names("SELVEDGE_REQUIRE", &list))
                .transpose()?
                .unwrap_or_default(),
            report: match env("SELVEDGE_REPORT") {
                Some(wish) => report(&wish)?,
                None if quiet => ReportWish::Quiet,
                None => ReportWish::Default,
            },
            host: env("SELVEDGE_HOST"),
            libfabric: env("SELVEDGE_LIBFABRIC").map(PathBuf::from),
            interface: env("SELVEDGE_INTERFACE"),
            devices: env("SELVEDGE_DEVICES")
                .map_or_else(Vec::new, |list| list.split(',').map(|name| name.trim().to_owned()).collect()),
            errors: env("SELVEDGE_ERRORS").map(|name| errors(&name)).transpose()?.unwrap_or_default(),
            algorithms: env("SELVEDGE_ALGORITHM")
                .map(|list| algorithms(&list))
                .transpose()?
                .unwrap_or_default(),
            check: env("SELVEDGE_CHECK").is_some_and(|value| value != "0"),
        })
    }

    pub(crate) fn allows(&self, road: RoadName) -> bool {
        self.transports.as_ref().is_none_or(|roads| roads.contains(&road))
    }

    /// Whether a demand, if there is one, is met by a road.
    pub(crate) fn accepts(&self, taken: RoadName) -> bool {
        self.required.is_empty() || self.required.iter().any(|required| required.is_met_by(taken))
    }

    /// Whether ranks of one host that share memory are all that this job could want.
    pub(crate) fn shared_memory_will_do(&self) -> bool {
        self.allows(RoadName::Shm) && self.accepts(RoadName::Shm)
    }

    /// Roads that may be taken to other hosts, the best first.
    pub(crate) fn networks(&self) -> impl Iterator<Item = RoadName> + '_ {
        let demands_network = self.required.iter().any(|&road| road != RoadName::Shm);
        let allowed = move |road: &RoadName| self.allows(*road) && (!demands_network || self.accepts(*road));
        RoadName::NETWORKS.into_iter().filter(allowed)
    }
}

fn names(variable: &str, list: &str) -> Result<Vec<RoadName>, String> {
    let parse = |name: &str| {
        RoadName::parse(name.trim()).ok_or_else(|| {
            let known = RoadName::ALL.map(RoadName::name).join(", ");
            format!("{variable}={list}: there is no transport {:?}; there are {known}", name.trim())
        })
    };
    list.split(',').map(parse).collect()
}

fn errors(name: &str) -> Result<ErrorHandler, String> {
    ErrorHandler::parse(name).ok_or_else(|| format!("SELVEDGE_ERRORS={name}: expected return or abort"))
}

fn algorithms(list: &str) -> Result<Choices, String> {
    list.parse().map_err(|error| format!("SELVEDGE_ALGORITHM={list}: {error}"))
}

fn report(wish: &str) -> Result<ReportWish, String> {
    match wish.split_once(':') {
        None if wish == "text" => Ok(ReportWish::Text),
        None if wish == "json" => Ok(ReportWish::Json(None)),
        Some(("json", path)) if !path.is_empty() => Ok(ReportWish::Json(Some(path.into()))),
        _ => Err(format!("SELVEDGE_REPORT={wish}: expected text, json, or json: and the name of a file")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wishes(vars: &[(&str, &str)]) -> Result<Wishes, String> {
        Wishes::from_env(|name| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string()))
    }

    #[test]
    fn nothing_asked_for_allows_everything_and_demands_nothing() {
        let wishes = wishes(&[("SELVEDGE_TRANSPORT", "")]).unwrap();
        assert_eq!(wishes.report, ReportWish::Default);
        assert!(wishes.shared_memory_will_do());
        assert_eq!(wishes.networks().collect::<Vec<_>>(), RoadName::NETWORKS);
    }

    #[test]
    fn a_name_that_is_none_gets_the_list_of_those_there_are() {
        for variable in ["SELVEDGE_TRANSPORT", "SELVEDGE_REQUIRE"] {
            let said = wishes(&[(variable, "shm,ib")]).unwrap_err();
            assert_eq!(
                said,
                format!(
                    "{variable}=shm,ib: there is no transport \"ib\"; there are shm, efa-direct, efa, tcp"
                )
            );
        }
    }

    #[test]
    fn a_list_restricts_and_a_demand_restricts_what_leaves_the_host() {
        let only_tcp = wishes(&[("SELVEDGE_TRANSPORT", "tcp")]).unwrap();
        assert!(!only_tcp.shared_memory_will_do());
        assert_eq!(only_tcp.networks().collect::<Vec<_>>(), [RoadName::Tcp]);
        let efa = wishes(&[("SELVEDGE_REQUIRE", "efa")]).unwrap();
        assert_eq!(efa.networks().collect::<Vec<_>>(), [RoadName::EfaDirect, RoadName::Efa]);
        assert!(!efa.shared_memory_will_do() && efa.allows(RoadName::Shm));
        let shm = wishes(&[("SELVEDGE_REQUIRE", "shm , tcp")]).unwrap();
        assert!(shm.shared_memory_will_do());
        assert_eq!(shm.networks().collect::<Vec<_>>(), [RoadName::Tcp]);
    }

    #[test]
    fn errors_are_returned_unless_they_shall_end_the_job() {
        let errors = |value| wishes(&[("SELVEDGE_ERRORS", value)]).map(|wishes| wishes.errors);
        assert!(matches!(errors(""), Ok(ErrorHandler::Return)));
        assert!(matches!(errors("return"), Ok(ErrorHandler::Return)));
        assert!(matches!(errors("abort"), Ok(ErrorHandler::Abort)));
        assert_eq!(errors("fatal").unwrap_err(), "SELVEDGE_ERRORS=fatal: expected return or abort");
    }

    #[test]
    fn an_algorithm_that_there_is_not_gets_the_nearest_one() {
        let algorithms = |list| wishes(&[("SELVEDGE_ALGORITHM", list)]).map(|wishes| wishes.algorithms);
        assert_eq!(algorithms("allreduce/ring@1KiB..").unwrap().to_string(), "allreduce/ring@1024..");
        assert_eq!(
            algorithms("allreduce/rings").unwrap_err(),
            "SELVEDGE_ALGORITHM=allreduce/rings: no algorithm is called \"allreduce/rings\"; is allreduce/ring meant?"
        );
    }

    #[test]
    fn a_report_is_text_or_json_somewhere() {
        let report = |value| wishes(&[("SELVEDGE_REPORT", value), ("SELVEDGE_QUIET", "1")]).map(|w| w.report);
        assert_eq!(report("text"), Ok(ReportWish::Text));
        assert_eq!(report("json"), Ok(ReportWish::Json(None)));
        assert_eq!(report("json:a:b"), Ok(ReportWish::Json(Some("a:b".into()))));
        assert_eq!(report(""), Ok(ReportWish::Quiet));
        assert!(report("xml").is_err() && report("json:").is_err());
    }
}
