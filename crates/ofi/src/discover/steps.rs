//! The steps by which an EFA device is opened: how the one that failed is recognized, and what to do about it.
//!
//! libfabric answers a dozen different failures with the same code. What its provider says meanwhile is heard
//! (`sys/listen.rs`) and names the call of the verbs more or less; of some calls it says nothing at all, and those are known by
//! the call of libfabric that they belong to. The words are those of 1.17, 2.4, 2.5 and 2.6.

use crate::error::Error;

/// One step.
#[derive(Debug)]
struct Step {
    /// What the provider's words hold when it fails, in lower case.
    marks: &'static [&'static str],
    /// What failed, in our words, with the call.
    what: &'static str,
    /// What to do.
    remedy: &'static str,
}

const FIT: &str = "look at: dmesg | grep -i efa; the EFA installer brings a driver, rdma-core and libfabric that fit each other";
const OPEN: &str = "let this user read and write /dev/infiniband/uverbs*, and give a container those files; see `selvedge doctor`";
const ROOM: &str = "see who else has queues on the device: rdma resource show; end other jobs on this host or start fewer ranks \
                    there";
const LOCK: &str = "raise the limit on locked memory (ulimit -l unlimited), or use huge pages";
const HANDLE: &str =
    "look at: dmesg | grep -i efa; restart the instance's EFA interface when the device refuses for good";

/// In the order in which a device is opened: the first that is recognized counts.
const STEPS: &[Step] = &[
    Step { marks: &["ibv_open_device"], what: "the device cannot be opened (ibv_open_device)", remedy: OPEN },
    Step {
        marks: &["efadv_query_device", "not an efa device"],
        what: "the device does not say that it is an EFA device (efadv_query_device)",
        remedy: FIT,
    },
    Step {
        marks: &["ibv_query_device"],
        what: "the device does not tell its limits (ibv_query_device)",
        remedy: FIT,
    },
    Step {
        marks: &["ibv_query_port"],
        what: "the device does not tell the state of its port (ibv_query_port)",
        remedy: FIT,
    },
    Step { marks: &["ibv_query_gid"], what: "the device has no address (ibv_query_gid)", remedy: FIT },
    Step {
        marks: &["ibv_fork_init"],
        what: "rdma-core cannot be made safe for fork (ibv_fork_init)",
        remedy: FIT,
    },
    Step {
        marks: &["ibv_reg_mr", "register mr", "registration"],
        what: "the device registers no memory (ibv_reg_mr)",
        remedy: LOCK,
    },
    Step {
        marks: &["ibv_alloc_pd", "ibv_pd", "ibv pd"],
        what: "the device gives no protection domain (ibv_alloc_pd)",
        remedy: ROOM,
    },
    Step {
        marks: &["device info for rdm"],
        what: "the kernel's files on the device are not there (/sys/class/infiniband_verbs)",
        remedy: "give the container the host's /sys, and see that SYSFS_PATH is not set",
    },
    Step {
        marks: &["extended cq", "create_cq"],
        what: "the device gives no completion queue (efadv_create_cq)",
        remedy: ROOM,
    },
    Step {
        marks: &["ibv_create_qp", "create_qp_ex"],
        what: "the device gives no queue pair (efadv_create_qp_ex)",
        remedy: ROOM,
    },
    Step {
        marks: &["create ah", "create_ah", "query_ah"],
        what: "the device takes no address, not even its own (ibv_create_ah, efadv_query_ah)",
        remedy: HANDLE,
    },
];

/// Steps of which the provider says nothing, by the call of libfabric that takes them.
const SILENT: &[(&str, Step)] = &[
    (
        "fi_domain",
        Step {
            marks: &[],
            what: "the device gives no protection domain, or registers no memory (ibv_alloc_pd, ibv_reg_mr)",
            remedy: LOCK,
        },
    ),
    (
        "fi_enable",
        Step {
            marks: &[],
            what: "the device gives a queue pair and does not make it ready (ibv_modify_qp)",
            remedy: FIT,
        },
    ),
    (
        "fi_av_insert",
        Step {
            marks: &[],
            what: "the device takes no address, not even its own (ibv_create_ah, efadv_query_ah)",
            remedy: HANDLE,
        },
    ),
];

/// What to do when it cannot be told which step it was.
const LOOK: &str = "look at: dmesg | grep -i efa, and run it again with FI_LOG_LEVEL=info FI_LOG_PROV=efa";

/// The step that `words` of the efa provider are about, and what to do about it.
fn of_words(words: &str) -> Option<&'static Step> {
    let words = words.to_lowercase();
    STEPS.iter().find(|step| step.marks.iter().any(|mark| words.contains(mark)))
}

/// What failed, from words that the efa provider said while devices were looked for; and what to do about it.
pub(crate) fn of_complaint(complaint: &str) -> (Option<&'static str>, &'static str) {
    of_words(complaint).map_or((None, LOOK), |step| (Some(step.what), step.remedy))
}

/// What failed while an endpoint was opened on an EFA device, and what to do about it.
pub(crate) fn of_error(error: &Error) -> (Option<&'static str>, &'static str) {
    let silent = || SILENT.iter().find(|(call, _)| *call == error.call).map(|(_, step)| step);
    of_words(&error.words).or_else(silent).map_or((None, LOOK), |step| (Some(step.what), step.remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(call: &'static str, words: &str) -> Error {
        Error { call, code: 22, words: words.to_owned() }
    }

    #[test]
    fn a_step_is_known_by_the_providers_words_however_its_version_puts_them() {
        for (said, call) in [
            ("ibv_open_device failed! errno: 5", "ibv_open_device"),
            ("Not an EFA device. Will not initialize.", "efadv_query_device"),
            ("Failed to allocated ibv_pd: 12", "ibv_alloc_pd"),
            ("Failed to allocate ibv pd: 12", "ibv_alloc_pd"),
            ("Unable to register MR: Invalid argument", "ibv_reg_mr"),
            ("Unable to create extended CQ: Function not implemented", "efadv_create_cq"),
            ("ibv_create_qp failed. errno: 22", "efadv_create_qp_ex"),
            ("Endpoint cannot create ah for its own address", "ibv_create_ah"),
            ("Unexpected error during ibv_reg_mr in efa_fork_support_is_enabled()", "ibv_reg_mr"),
        ] {
            let (what, remedy) = of_complaint(said);
            assert!(what.is_some_and(|what| what.contains(call)) && !remedy.is_empty(), "{said}: {what:?}");
        }
        assert_eq!(of_complaint("the moon is full"), (None, LOOK));
    }

    #[test]
    fn a_step_of_which_nothing_is_said_is_known_by_its_call() {
        let what = |call| of_error(&error(call, "Invalid argument")).0.unwrap_or_default();
        assert!(what("fi_enable").contains("ibv_modify_qp"));
        assert!(what("fi_domain").contains("ibv_reg_mr"));
        assert!(what("fi_av_insert").contains("ibv_create_ah"));
        assert_eq!(what("fi_getname"), "");
    }

    #[test]
    fn what_is_said_counts_more_than_the_call() {
        let error = error("fi_enable", "Invalid argument, because ibv_create_qp failed");
        assert!(of_error(&error).0.is_some_and(|what| what.contains("efadv_create_qp_ex")));
    }
}
