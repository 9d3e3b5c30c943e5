//! Who started us? Read from the environment alone, in the order that never takes one of N ranks for a job of its own.

use std::os::fd::RawFd;

use crate::BootError;

/// How to reach the launcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// An inherited, connected socket.
    Fd { fd: RawFd, rank: u32, size: u32 },
    /// A port to connect to.
    Port { address: String, id: u32 },
    /// A PMIx server.
    Pmix,
    /// Nobody: a job of one rank.
    Alone,
}

pub(crate) const USE_OURS: &str = "start it with Selvedge's mpirun, or with any launcher that speaks PMI-1 (mpiexec of MPICH or \
                        Intel MPI, srun --mpi=pmi2)";

/// Who speaks PMIx.
pub(crate) const PMIX_LAUNCHERS: &str = "Open MPI's mpirun, PRRTE or srun --mpi=pmix";

/// Decides from the environment. `alive` tells whether a descriptor is a connected socket: a `PMI_FD` that a wrapper
/// inherited and closed names nothing, or something else.
pub(crate) fn detect(
    env: &dyn Fn(&str) -> Option<String>,
    alive: impl Fn(RawFd) -> bool,
) -> Result<Found, BootError> {
    let number = |name, expected| parse(env, name, expected);
    let mut stale = None;
    if env("PMI_FD").is_some() {
        let fd = number("PMI_FD", "the number of a descriptor")?.unwrap_or(u32::MAX);
        let (rank, size) = rank_and_size(env)?;
        match RawFd::try_from(fd) {
            Ok(fd) if alive(fd) => return Ok(Found::Fd { fd, rank, size }),
            _ => stale = Some((fd, size)),
        }
    }
    if let (Some(address), Some(id)) = (env("PMI_PORT"), number("PMI_ID", "a rank")?) {
        return Ok(Found::Port { address, id });
    }
    let foreign = |launcher, missing: &str, advice| {
        Err(BootError::Foreign { launcher, missing: missing.to_owned(), advice })
    };
    let tasks = parse_lenient(env, "SLURM_NTASKS").or(parse_lenient(env, "SLURM_NPROCS"));
    let pmix = ["PMIX_NAMESPACE", "PMIX_RANK", "PRTE_LAUNCHED"].iter().any(|name| env(name).is_some());
    let pmix_size = parse_lenient(env, "OMPI_COMM_WORLD_SIZE").or(tasks.filter(|_| pmix));
    if pmix_size.map_or(pmix, |size| size > 1) {
        if ["PMIX_NAMESPACE", "PMIX_RANK"].iter().all(|name| env(name).is_some()) {
            return Ok(Found::Pmix);
        }
        let missing = "PMIX_NAMESPACE and PMIX_RANK are not in its environment";
        return foreign(PMIX_LAUNCHERS, missing, USE_OURS);
    }
    if let Some((fd, size)) = stale.filter(|(_, size)| *size > 1) {
        return Err(BootError::Foreign {
            launcher: "a PMI-1 launcher",
            missing: format!("descriptor {fd} (PMI_FD) is not its connection to the job of {size} ranks"),
            advice: "a wrapper between mpirun and this program seems to have closed it; to run this program by \
                     itself inside the job, unset PMI_FD, PMI_RANK and PMI_SIZE",
        });
    }
    let launchers = [("SELVEDGE_SIZE", "Selvedge's mpirun"), ("PMI_SIZE", "a PMI launcher")];
    let many = |name| parse_lenient(env, name).is_some_and(|size| size > 1);
    if let Some((_, launcher)) = launchers.into_iter().find(|(name, _)| stale.is_none() && many(name)) {
        return foreign(
            launcher,
            "PMI_FD is not in its environment",
            "something between the launcher and this program took it away, or the launcher speaks no PMI-1; let \
             PMI_FD, PMI_RANK and PMI_SIZE through, or unset SELVEDGE_SIZE and PMI_SIZE to run it alone",
        );
    }
    if env("SLURM_PROCID").is_some() && tasks.is_some_and(|tasks| tasks > 1) && in_a_step(env) {
        return foreign(
            "srun",
            "it was told to offer no PMI",
            "use srun --mpi=pmi2, or mpirun inside the job",
        );
    }
    Ok(Found::Alone)
}

/// A batch script also has SLURM_PROCID=0 and SLURM_NTASKS=N, and is alone all the same: only `srun` makes more than
/// one of us, and it names the tasks of its step.
fn in_a_step(env: &dyn Fn(&str) -> Option<String>) -> bool {
    match parse_lenient(env, "SLURM_STEP_NUM_TASKS") {
        Some(tasks) => tasks > 1,
        None => env("SLURM_STEP_ID").is_some() || env("SLURM_STEPID").is_some(),
    }
}

fn rank_and_size(env: &dyn Fn(&str) -> Option<String>) -> Result<(u32, u32), BootError> {
    let needed = |name, expected| {
        parse(env, name, expected)?.ok_or(BootError::Variable { name, value: String::new(), expected })
    };
    let size = needed("PMI_SIZE", "the number of ranks")?;
    let rank = needed("PMI_RANK", "a rank")?;
    if rank >= size {
        let value = rank.to_string();
        return Err(BootError::Variable { name: "PMI_RANK", value, expected: "a number below PMI_SIZE" });
    }
    Ok((rank, size))
}

fn parse(
    env: &dyn Fn(&str) -> Option<String>,
    name: &'static str,
    expected: &'static str,
) -> Result<Option<u32>, BootError> {
    let Some(value) = env(name) else { return Ok(None) };
    match value.parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => Err(BootError::Variable { name, value, expected }),
    }
}

fn parse_lenient(env: &dyn Fn(&str) -> Option<String>, name: &str) -> Option<u32> {
    env(name)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(vars: &[(&str, &str)]) -> Result<Found, BootError> {
        let env = |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string());
        detect(&env, |fd| fd == 5)
    }

    fn foreign(vars: &[(&str, &str)]) -> String {
        match found(vars) {
            Err(fault @ BootError::Foreign { .. }) => fault.to_string(),
            other => panic!("{vars:?} gave {other:?}"),
        }
    }

    #[test]
    fn nothing_at_all_is_a_job_of_one() {
        assert_eq!(found(&[]).unwrap(), Found::Alone);
    }

    #[test]
    fn a_live_descriptor_comes_before_a_port() {
        let vars =
            [("PMI_FD", "5"), ("PMI_RANK", "1"), ("PMI_SIZE", "2"), ("PMI_PORT", "h:1"), ("PMI_ID", "1")];
        assert_eq!(found(&vars).unwrap(), Found::Fd { fd: 5, rank: 1, size: 2 });
        assert_eq!(found(&vars[3..]).unwrap(), Found::Port { address: "h:1".into(), id: 1 });
    }

    #[test]
    fn a_dead_descriptor_of_a_larger_job_is_an_error_and_of_a_job_of_one_is_nothing() {
        let text = foreign(&[("PMI_FD", "9"), ("PMI_RANK", "1"), ("PMI_SIZE", "2")]);
        assert!(text.contains("descriptor 9") && text.contains("unset PMI_FD"), "{text}");
        assert_eq!(found(&[("PMI_FD", "9"), ("PMI_RANK", "0"), ("PMI_SIZE", "1")]).unwrap(), Found::Alone);
    }

    #[test]
    fn launchers_without_pmi_1_are_named_instead_of_starting_singletons() {
        for vars in [&[("PRTE_LAUNCHED", "1")][..], &[("OMPI_COMM_WORLD_SIZE", "2")]] {
            assert!(foreign(vars).contains("PMIX_NAMESPACE"), "{vars:?}");
        }
        let srun = [("SLURM_PROCID", "1"), ("SLURM_NTASKS", "4"), ("SLURM_STEP_ID", "0")];
        assert!(foreign(&srun).contains("--mpi=pmi2"));
        assert!(foreign(&[("SELVEDGE_SIZE", "2"), ("SELVEDGE_RANK", "0")]).contains("PMI_FD"));
        // Cray's PALS offers PMI as a library only.
        assert!(
            foreign(&[("PMI_SIZE", "2"), ("PMI_RANK", "0")]).contains("PMI_FD is not in its environment")
        );
    }

    #[test]
    fn pmix_is_spoken_where_no_pmi_1_is_alive() {
        let pmix = [("PMIX_NAMESPACE", "x"), ("PMIX_RANK", "1")];
        assert_eq!(found(&pmix).unwrap(), Found::Pmix);
        let with = |fd| [pmix[0], pmix[1], ("PMI_FD", fd), ("PMI_SIZE", "2"), ("PMI_RANK", "0")];
        assert_eq!(found(&with("9")).unwrap(), Found::Pmix, "that descriptor is not alive");
        assert!(matches!(found(&with("5")).unwrap(), Found::Fd { fd: 5, .. }));
    }

    #[test]
    fn one_task_and_a_batch_script_are_alone() {
        assert_eq!(found(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "1")]).unwrap(), Found::Alone);
        assert_eq!(found(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "8")]).unwrap(), Found::Alone);
        let step = [("PMIX_NAMESPACE", "x"), ("PMIX_RANK", "0"), ("SLURM_NTASKS", "1")];
        assert_eq!(found(&step).unwrap(), Found::Alone);
        let one = [("PMIX_NAMESPACE", "x"), ("PMIX_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "1")];
        assert_eq!(found(&one).unwrap(), Found::Alone);
    }

    #[test]
    fn nonsense_in_a_variable_names_the_variable() {
        for (vars, name) in [
            (&[("PMI_FD", "five")][..], "PMI_FD"),
            (&[("PMI_FD", "5"), ("PMI_SIZE", "2")], "PMI_RANK"),
            (&[("PMI_FD", "5"), ("PMI_SIZE", "2"), ("PMI_RANK", "2")], "PMI_RANK"),
            (&[("PMI_FD", "5"), ("PMI_SIZE", "-1"), ("PMI_RANK", "0")], "PMI_SIZE"),
            (&[("PMI_PORT", "h:1"), ("PMI_ID", "x")], "PMI_ID"),
        ] {
            let text = found(vars).unwrap_err().to_string();
            assert!(text.contains(name), "{vars:?}: {text}");
        }
    }
}
