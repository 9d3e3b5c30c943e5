//! Hosts that a batch system has given us: Slurm, PBS, LSF, Grid Engine and Cobalt say so in the environment.

use std::ffi::OsString;
use std::path::Path;

use super::{HostWish, Read, Slots, list, nodelist};
use crate::args::Usage;

/// A batch system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manager {
    /// Slurm.
    Slurm,
    /// PBS, Torque and their relatives.
    Pbs,
    /// LSF.
    Lsf,
    /// Grid Engine in any of its names.
    GridEngine,
    /// Cobalt.
    Cobalt,
}

/// What a batch system has given us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// Who.
    pub manager: Manager,
    /// The hosts, each with the number of ranks that it was asked for.
    pub hosts: Vec<HostWish>,
}

/// The variables that say which hosts there are, and whose they are.
const MANAGERS: &[(&str, Manager)] = &[
    ("SLURM_JOB_NODELIST", Manager::Slurm),
    ("SLURM_NODELIST", Manager::Slurm),
    ("PBS_NODEFILE", Manager::Pbs),
    ("LSB_MCPU_HOSTS", Manager::Lsf),
    ("PE_HOSTFILE", Manager::GridEngine),
    ("COBALT_NODEFILE", Manager::Cobalt),
];

/// What a batch system has given us; `None` where we are in no job of any.
///
/// # Errors
/// One sentence that names the variable or the file that cannot be understood.
pub fn allocation(
    env: &dyn Fn(&str) -> Option<OsString>,
    read: Read<'_>,
) -> Result<Option<Allocation>, Usage> {
    let said = |name: &str| env(name).filter(|value| !value.is_empty());
    let Some((variable, manager, value)) =
        MANAGERS.iter().find_map(|&(variable, manager)| Some((variable, manager, said(variable)?)))
    else {
        return Ok(None);
    };
    let wrong = |why: String| Usage::new(format!("{variable}={}: {why}", value.display()));
    let file = || {
        let bytes = read(Path::new(&value)).map_err(|error| wrong(error.to_string()))?;
        String::from_utf8(bytes).map_err(|_| wrong("the file is not text".to_owned()))
    };
    let text = value.to_str().ok_or_else(|| wrong("this is not text".to_owned()))?;
    let hosts = match manager {
        Manager::Slurm => slurm(text, said("SLURM_TASKS_PER_NODE")).map_err(wrong)?,
        Manager::Lsf => lsf(text).map_err(wrong)?,
        Manager::GridEngine => grid_engine(&file()?).map_err(wrong)?,
        Manager::Pbs | Manager::Cobalt => {
            let hosts = file()?.split_whitespace().map(|name| host(name, 1)).collect::<Result<_, _>>();
            hosts.map_err(wrong)?
        }
    };
    if hosts.is_empty() {
        return Err(wrong("no host is named there".to_owned()));
    }
    Ok(Some(Allocation { manager, hosts: super::merge(hosts) }))
}

fn host(name: &str, slots: u32) -> Result<HostWish, String> {
    let host = list::host(name, Slots::Cores)?.into_iter().next().ok_or("no host is named there")?;
    Ok(HostWish { slots: Slots::Stated(slots), ..host })
}

fn slurm(nodes: &str, tasks: Option<OsString>) -> Result<Vec<HostWish>, String> {
    let hosts = nodelist::expand_list(nodes)?.into_iter().map(|name| host(&name, 1));
    let mut hosts = hosts.collect::<Result<Vec<_>, _>>()?;
    let counts = match tasks {
        Some(tasks) => {
            let tasks = tasks.to_string_lossy();
            nodelist::counts(&tasks).map_err(|why| format!("SLURM_TASKS_PER_NODE={tasks}: {why}"))?
        }
        None => Vec::new(),
    };
    // In a step (`srun --pty bash`) the counts are about the step, the hosts about the job.
    let known = counts.len() == hosts.len();
    let slots = |at: usize| if known { Slots::Stated(counts[at]) } else { Slots::Cores };
    hosts.iter_mut().enumerate().for_each(|(at, host)| host.slots = slots(at));
    Ok(hosts)
}

/// `host1 2 host2 4`.
fn lsf(text: &str) -> Result<Vec<HostWish>, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let pairs = words.chunks(2).map(|pair| match *pair {
        [name, count] => host(name, list::slots(count).ok_or_else(|| format!("{count:?} is no number"))?),
        _ => Err("there is a host without a number".to_owned()),
    });
    pairs.collect()
}

/// Lines of `host slots queue processors`.
fn grid_engine(text: &str) -> Result<Vec<HostWish>, String> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let hosts = lines.map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [name, count, ..] => host(name, list::slots(count).ok_or_else(|| format!("{count:?} is no number"))?),
        _ => Err(format!("the line {line:?} is not like: host slots queue processors")),
    });
    hosts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn asked(vars: &[(&str, &str)], file: &str) -> Result<Option<Allocation>, Usage> {
        let env = |name: &str| vars.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        allocation(&env, &|_| Ok(file.as_bytes().to_vec()))
    }

    fn given(vars: &[(&str, &str)], file: &str) -> (Manager, Vec<(String, Slots)>) {
        let allocation = asked(vars, file).unwrap().unwrap();
        (allocation.manager, allocation.hosts.into_iter().map(|host| (host.name, host.slots)).collect())
    }

    fn stated(hosts: &[(&str, u32)]) -> Vec<(String, Slots)> {
        hosts.iter().map(|&(name, slots)| (name.to_owned(), Slots::Stated(slots))).collect()
    }

    #[test]
    fn slurm_says_hosts_and_tasks_in_short() {
        let vars = [("SLURM_JOB_NODELIST", "n[1-3],m"), ("SLURM_TASKS_PER_NODE", "2(x3),1")];
        assert_eq!(given(&vars, ""), (Manager::Slurm, stated(&[("n1", 2), ("n2", 2), ("n3", 2), ("m", 1)])));
        let (_, hosts) = given(&[("SLURM_NODELIST", "n1")], "");
        assert_eq!(hosts, [("n1".to_owned(), Slots::Cores)]);
    }

    #[test]
    fn counts_of_a_step_of_slurms_say_nothing_about_the_hosts_of_the_job() {
        let vars = [("SLURM_JOB_NODELIST", "n[1-2]"), ("SLURM_TASKS_PER_NODE", "1")];
        let cores = |name: &str| (name.to_owned(), Slots::Cores);
        assert_eq!(given(&vars, "").1, [cores("n1"), cores("n2")]);
    }

    #[test]
    fn pbs_and_cobalt_have_a_line_for_each_slot() {
        let hosts = stated(&[("a", 2), ("b", 1)]);
        assert_eq!(given(&[("PBS_NODEFILE", "/f")], "a\na\nb\n"), (Manager::Pbs, hosts.clone()));
        assert_eq!(given(&[("COBALT_NODEFILE", "/f")], "a\nb\na\n"), (Manager::Cobalt, hosts));
    }

    #[test]
    fn lsf_and_grid_engine_have_counts() {
        let hosts = stated(&[("a", 2), ("b", 4)]);
        assert_eq!(given(&[("LSB_MCPU_HOSTS", "a 2 b 4 ")], ""), (Manager::Lsf, hosts.clone()));
        let file = "a 2 all.q@a UNDEFINED\nb 4 all.q@b <NULL>\n";
        assert_eq!(given(&[("PE_HOSTFILE", "/f")], file), (Manager::GridEngine, hosts));
    }

    #[test]
    fn outside_of_a_job_nothing_is_given() {
        assert_eq!(asked(&[], ""), Ok(None));
        assert_eq!(asked(&[("SLURM_JOB_NODELIST", "")], ""), Ok(None));
    }

    #[test]
    fn what_cannot_be_understood_is_named() {
        for (vars, file, part) in [
            (&[("SLURM_JOB_NODELIST", "n[1-")][..], "", "SLURM_JOB_NODELIST=n[1-"),
            (&[("SLURM_JOB_NODELIST", "n[1-2]"), ("SLURM_TASKS_PER_NODE", "2(x")], "", "not like 2(x3)"),
            (&[("LSB_MCPU_HOSTS", "a 2 b")], "", "without a number"),
            (&[("PE_HOSTFILE", "/f")], "a\n", "not like"),
            (&[("PBS_NODEFILE", "/f")], "", "no host"),
        ] {
            let why = asked(vars, file).expect_err(part).to_string();
            assert!(why.contains(part), "{why}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_batch_system_is_too_strange(value in "\\PC{0,40}", tasks in "\\PC{0,20}", which in 0..MANAGERS.len()) {
            let _ = asked(&[(MANAGERS[which].0, &value), ("SLURM_TASKS_PER_NODE", &tasks)], &value);
        }
    }
}
