//! Variables that hurt: looked at before libfabric is asked anything, because some of them make it end the process without
//! saying whose they were.
//!
//! Pure: variables come as an argument. The table is what the efa provider's own messages say (its `efa_env.c` and
//! `efa_fork_support.c`, the same from 1.17 to 2.6 where nothing else is said) and fabric(7).

use std::fmt;

use crate::discover::Provider;

/// How much a variable hurts, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The provider ends the process as soon as it starts.
    Aborts,
    /// The provider ends the process on some devices.
    MayAbort,
    /// A road that was wanted will not be there.
    Excludes,
    /// It works, and is slower or less robust than it could be.
    Slows,
}

/// A variable that hurts: what it does, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its name.
    pub variable: String,
    /// Its value.
    pub value: String,
    /// How much it hurts.
    pub severity: Severity,
    /// What it does, in a sentence.
    pub effect: String,
    /// What to do about it, in a sentence.
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}: {}; {}", self.variable, self.value, self.effect, self.remedy)
    }
}

/// What of the environment hurts, for somebody who wants to go by `wanted`; the worst first. Variables that are not Unicode
/// may be given as what is readable of them.
///
/// ```
/// use selvedge_ofi::environment::{Severity, explain};
/// use selvedge_ofi::Provider;
///
/// let variables = [("FI_EFA_MTU_SIZE", "8192"), ("PATH", "/bin")];
/// let findings = explain(variables, &[Provider::Efa]);
/// assert_eq!(findings.len(), 1);
/// assert_eq!(findings[0].severity, Severity::Aborts);
/// assert!(findings[0].remedy.contains("unset FI_EFA_MTU_SIZE"));
/// ```
pub fn explain<N: AsRef<str>, V: AsRef<str>>(
    variables: impl IntoIterator<Item = (N, V)>,
    wanted: &[Provider],
) -> Vec<Finding> {
    let all: Vec<(String, String)> =
        variables.into_iter().map(|(name, value)| (name.as_ref().into(), value.as_ref().into())).collect();
    let efa = wanted.iter().any(|provider| provider.is_efa());
    let mut findings: Vec<Finding> =
        all.iter().filter_map(|(name, value)| look_at(name, value, wanted, efa)).collect();
    findings.extend(huge_pages_with_fork_support(&all));
    findings.sort_by_key(|finding| finding.severity);
    findings
}

/// Whether the list in `FI_PROVIDER` leaves out a provider of libfabric, layers (`tcp;ofi_rxm`) included. Names are compared as
/// libfabric does, without case; a list that starts with `^` names what is left out.
pub fn is_excluded(list: &str, provider: &str) -> bool {
    let (negated, list) = match list.strip_prefix('^') {
        Some(list) => (true, list),
        None => (false, list),
    };
    let named = |layer: &str| list.split([',', ';']).any(|name| name.trim().eq_ignore_ascii_case(layer));
    if list.trim().is_empty() {
        return false;
    }
    if negated {
        return provider.split(';').any(named);
    }
    // A layer over it needs not be named (seen in 1.17).
    !provider.split(';').next().is_some_and(named)
}

fn look_at(name: &str, value: &str, wanted: &[Provider], efa: bool) -> Option<Finding> {
    use Severity::{Aborts, Excludes, MayAbort, Slows};
    let is_on = on(value) == Some(true);
    let unset = || format!("unset {name}");
    let (severity, effect, remedy) = match name {
        "FI_EFA_MTU_SIZE" | "FI_EFA_TX_IOV_LIMIT" | "FI_EFA_RX_IOV_LIMIT" => {
            (Aborts, "the efa provider of libfabric 2 ends the process when this is set, whatever its value".into(), unset())
        }
        "FI_EFA_SHM_MAX_MEDIUM_SIZE" => {
            (Aborts, "the efa provider of libfabric 1.17 ends the process when this is set".into(), unset())
        }
        "FI_EFA_TX_MIN_CREDITS" if !value.trim().parse::<i64>().is_ok_and(|credits| credits > 0) => {
            (Aborts, "the efa provider of libfabric 2 ends the process when this is not a positive number".into(), unset())
        }
        "FI_EFA_IFACE" if value.trim().is_empty() => {
            (Aborts, "the efa provider of libfabric 2 ends the process when this is empty".into(), "unset FI_EFA_IFACE, or set it to all".into())
        }
        "FI_EFA_IFACE" if efa && value.trim() != "all" => {
            (Slows, format!("only the NICs named here are used: {value}"), unset())
        }
        "FI_EFA_USE_DEVICE_RDMA" if on(value).is_none() => {
            (Aborts, "the efa provider ends the process when this is neither yes nor no".into(), unset())
        }
        "FI_EFA_USE_DEVICE_RDMA" if is_on => (
            MayAbort,
            "the efa provider ends the process on a device without RDMA read (c5n, p3dn, hpc6a)".into(),
            "unset it: RDMA is used by default where the device has it".into(),
        ),
        "FI_EFA_USE_DEVICE_RDMA" if efa => {
            (Slows, "RDMA is not used although the device may have it, so large messages are copied".into(), unset())
        }
        "FI_EFA_USE_DATA_PATH_DIRECT" if efa && on(value) == Some(false) => {
            (Slows, "each message goes through rdma-core instead of straight to the device".into(), unset())
        }
        "FI_EFA_FORK_SAFE" | "RDMAV_FORK_SAFE" | "IBV_FORK_SAFE" if efa && (is_on || name != "FI_EFA_FORK_SAFE") => (
            Slows,
            "registering memory becomes slower and huge pages are not used; kernels from 5.13 on need no such thing".into(),
            format!("unset {name} on kernels from 5.13 on"),
        ),
        "FI_PROVIDER" => {
            let left_out: Vec<&str> = wanted.iter().filter(|p| p.is_left_out_by(value)).map(|p| p.name()).collect();
            if left_out.is_empty() {
                return None;
            }
            let effect = format!("it leaves out {}", left_out.join(" and "));
            (Excludes, effect, "unset FI_PROVIDER: selvedge chooses the provider itself, see --transport".into())
        }
        "FI_PROVIDER_PATH" if efa => (
            Slows,
            "plug-ins are looked for here only, so that those next to libfabric may be missed".into(),
            "unset it unless it is meant for this libfabric".into(),
        ),
        "FI_TCP_IFACE" if wanted.contains(&Provider::Tcp) => (
            Slows,
            format!("tcp uses the interface {value} only, whatever interface is asked for"),
            "unset FI_TCP_IFACE, and choose the interface with selvedge's own setting".into(),
        ),
        "FI_HOOK" => (Slows, "every call goes through a hook".into(), unset()),
        "FI_LOG_LEVEL" if matches!(value, "info" | "debug" | "trace") => {
            (Slows, "libfabric writes about every message".into(), "unset FI_LOG_LEVEL, or set it to warn".into())
        }
        _ => return None,
    };
    Some(Finding { variable: name.into(), value: value.into(), severity, effect, remedy })
}

/// Two variables that are harmless each and end the process together.
fn huge_pages_with_fork_support(all: &[(String, String)]) -> Option<Finding> {
    let forced =
        all.iter().find(|(name, value)| name == "FI_EFA_USE_HUGE_PAGE" && on(value) == Some(true))?;
    let fork = all.iter().find(|(name, value)| match name.as_str() {
        // rdma-core looks whether it is there, not what it is.
        "RDMAV_FORK_SAFE" | "IBV_FORK_SAFE" => true,
        "FI_EFA_FORK_SAFE" => on(value) == Some(true),
        _ => false,
    })?;
    Some(Finding {
        variable: forced.0.clone(),
        value: forced.1.clone(),
        severity: Severity::Aborts,
        effect: format!("the efa provider ends the process when {} is set as well", fork.0),
        remedy: format!("unset FI_EFA_USE_HUGE_PAGE, or {} on kernels from 5.13 on", fork.0),
    })
}

/// What libfabric takes a word for: yes, no, or neither.
fn on(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Some(true),
        "0" | "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Provider; 3] = [Provider::EfaDirect, Provider::Efa, Provider::Tcp];

    fn severity(name: &str, value: &str) -> Option<Severity> {
        let findings = explain([(name, value)], &ALL);
        assert!(findings.len() <= 1);
        findings.first().map(|finding| finding.severity)
    }

    #[test]
    fn every_variable_that_ends_the_process_is_named() {
        let deadly = [
            ("FI_EFA_MTU_SIZE", "8192"),
            ("FI_EFA_TX_IOV_LIMIT", ""),
            ("FI_EFA_RX_IOV_LIMIT", "4"),
            ("FI_EFA_SHM_MAX_MEDIUM_SIZE", "1"),
            ("FI_EFA_IFACE", ""),
            ("FI_EFA_TX_MIN_CREDITS", "0"),
            ("FI_EFA_TX_MIN_CREDITS", "many"),
            ("FI_EFA_USE_DEVICE_RDMA", "maybe"),
        ];
        for (name, value) in deadly {
            assert_eq!(severity(name, value), Some(Severity::Aborts), "{name}={value}");
        }
        assert_eq!(severity("FI_EFA_USE_DEVICE_RDMA", "1"), Some(Severity::MayAbort));
    }

    #[test]
    fn they_end_the_process_also_of_those_who_want_tcp() {
        // The provider reads them when libfabric starts, whoever is asked for then.
        let findings = explain([("FI_EFA_MTU_SIZE", "8192")], &[Provider::Tcp]);
        assert_eq!(findings[0].severity, Severity::Aborts);
    }

    #[test]
    fn huge_pages_and_fork_support_are_deadly_only_together() {
        assert_eq!(severity("FI_EFA_USE_HUGE_PAGE", "1"), None);
        assert_eq!(severity("RDMAV_FORK_SAFE", "1"), Some(Severity::Slows));
        let both = explain([("RDMAV_FORK_SAFE", "1"), ("FI_EFA_USE_HUGE_PAGE", "yes")], &ALL);
        assert_eq!(both[0].severity, Severity::Aborts);
        assert!(both[0].effect.contains("RDMAV_FORK_SAFE"), "{}", both[0]);
        assert_eq!(both.len(), 2, "the worst comes first");
    }

    #[test]
    fn a_list_of_providers_that_leaves_out_what_is_wanted_is_told() {
        let left_out = |list: &str| explain([("FI_PROVIDER", list)], &ALL).first().map(|f| f.effect.clone());
        assert_eq!(left_out("tcp").unwrap(), "it leaves out efa-direct and efa");
        assert_eq!(left_out("efa").unwrap(), "it leaves out tcp");
        assert_eq!(left_out("^efa").unwrap(), "it leaves out efa-direct and efa");
        assert_eq!(left_out("efa,tcp"), None);
        assert_eq!(left_out("EFA,tcp;ofi_rxm"), None);
        assert_eq!(left_out("^shm,verbs"), None);
        assert_eq!(left_out(""), None);
    }

    #[test]
    fn layers_are_compared_as_libfabric_does() {
        assert!(!is_excluded("tcp", "tcp;ofi_rxm"));
        assert!(is_excluded("^ofi_rxm", "tcp;ofi_rxm"));
        assert!(is_excluded("shm,efa", "tcp"));
    }

    #[test]
    fn what_does_not_hurt_is_not_mentioned() {
        for (name, value) in [
            ("FI_EFA_FORK_SAFE", "0"),
            ("FI_LOG_LEVEL", "warn"),
            ("FI_EFA_IFACE", "all"),
            ("FI_EFA_TX_MIN_CREDITS", "32"),
            ("FI_UNIVERSE_SIZE", "256"),
            ("PATH", "/usr/bin"),
        ] {
            assert_eq!(severity(name, value), None, "{name}={value}");
        }
    }

    #[test]
    fn what_concerns_efa_only_is_not_told_to_those_who_want_tcp() {
        assert_eq!(explain([("RDMAV_FORK_SAFE", "1")], &[Provider::Tcp]), []);
        assert_eq!(explain([("FI_TCP_IFACE", "eth1")], &[Provider::Efa]), []);
    }

    #[test]
    fn a_finding_is_one_line_with_what_and_what_to_do() {
        let findings = explain([("FI_EFA_IFACE", "")], &ALL);
        assert_eq!(
            findings[0].to_string(),
            "FI_EFA_IFACE=: the efa provider of libfabric 2 ends the process when this is empty; unset FI_EFA_IFACE, or set it to all"
        );
    }
}
