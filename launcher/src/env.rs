//! The environment of the ranks: the user's, without what other launchers left in it, with what `-x` asks for.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use crate::args::{BlockWish, Export, Inherit, JobWish};

/// Variables by which a launcher tells a process its place. Left over from an outer job they would make our ranks
/// believe that they are somebody else's, or several jobs at once.
const PLACES: &[&str] = &[
    "PMI_FD",
    "PMI_PORT",
    "PMI_ID",
    "PMI_RANK",
    "PMI_SIZE",
    "PMI_JOBID",
    "PMI_SPAWNED",
    "PMI_HOSTNAME",
    "PRTE_LAUNCHED",
    "OMPI_UNIVERSE_SIZE",
    "OMPI_FILE_LOCATION",
    "MPI_LOCALRANKID",
    "MPI_LOCALNRANKS",
    "MPIR_CVAR_CH3_INTERFACE_HOSTNAME",
    "SELVEDGE_RANK",
    "SELVEDGE_SIZE",
    "SELVEDGE_LOCAL_RANK",
    "SELVEDGE_JOB",
    "SELVEDGE_MPIRUN",
    "SELVEDGE_STATUS",
];

/// Families of such variables.
const PLACE_FAMILIES: &[&str] = &[
    "PMI2_",
    "PMIX_",
    "OMPI_COMM_WORLD_",
    "OMPI_WORLD_",
    "HYDI_",
    "HYDRA_BSTRAP_",
    "SLURM_PMI2_",
    "SLURM_PMIX",
];

/// Settings of the user that look like one of [`PLACE_FAMILIES`].
const SETTINGS: &[&str] = &["PMIX_MCA_"];

/// Variables that a container system gives each host, with other values on each: AWS Batch and ECS, whose addresses of
/// credentials are of use on one host only, and Kubernetes. The last is our own, for trying on one machine.
pub const OF_A_HOST: &[&str] = &[
    "AWS_BATCH_JOB_NODE_INDEX",
    "AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "ECS_AGENT_URI",
    "ECS_CONTAINER_METADATA_URI",
    "ECS_CONTAINER_METADATA_URI_V4",
    "HOSTNAME",
    "JOB_COMPLETION_INDEX",
    "SELVEDGE_HOST",
];

/// Whether a variable is one of [`OF_A_HOST`].
pub fn is_of_a_host(name: &OsStr) -> bool {
    OF_A_HOST.iter().any(|known| name == *known)
}

/// Whether a variable is another launcher's, and no rank of ours may see it.
pub fn is_a_place(name: &OsStr) -> bool {
    let starts = |prefixes: &[&str]| prefixes.iter().any(|p| name.as_bytes().starts_with(p.as_bytes()));
    PLACES.iter().any(|place| name == *place) || (starts(PLACE_FAMILIES) && !starts(SETTINGS))
}

/// The environment of the ranks of one block, out of ours (`here`): what the block or else the job passes on, then what
/// the job sets, then what the block sets. Names what `-x NAME` asked for and is not set.
pub fn for_block(
    here: &[(OsString, OsString)],
    job: &JobWish,
    block: &BlockWish,
) -> (Vec<(OsString, OsString)>, Vec<OsString>) {
    let inherit = block.inherit.as_ref().unwrap_or(&job.inherit);
    let passed = |name: &OsString| match inherit {
        Inherit::All => true,
        Inherit::Only(names) => names.contains(name),
    };
    let exports: Vec<Export> = job.exports.iter().chain(&block.exports).cloned().collect();
    let (set, missing) = for_ranks(here.iter().cloned(), &exports);
    let is_export = |name: &OsString| {
        exports.iter().any(|export| match export {
            Export::Same(known) | Export::Value(known, _) => known == name,
            Export::Prefix(prefix) => name.as_bytes().starts_with(prefix.as_bytes()),
        })
    };
    (set.into_iter().filter(|(name, _)| passed(name) || is_export(name)).collect(), missing)
}

/// The ranks' environment, out of ours (`here`) and the exports of the command line. Names what `-x NAME` asked for and
/// is not set.
pub fn for_ranks(
    here: impl IntoIterator<Item = (OsString, OsString)>,
    exports: &[Export],
) -> (Vec<(OsString, OsString)>, Vec<OsString>) {
    let here: Vec<_> = here.into_iter().collect();
    let mut env: Vec<_> = here.iter().filter(|(name, _)| !is_a_place(name)).cloned().collect();
    let mut missing = Vec::new();
    let mut set = |name: &OsStr, value: &OsStr| {
        env.retain(|(known, _)| known != name);
        env.push((name.to_owned(), value.to_owned()));
    };
    for export in exports {
        match export {
            Export::Value(name, value) => set(name, value),
            Export::Same(name) => match here.iter().find(|(known, _)| known == name) {
                Some((name, value)) => set(name, value),
                None => missing.push(name.clone()),
            },
            Export::Prefix(prefix) => here
                .iter()
                .filter(|(name, _)| name.as_bytes().starts_with(prefix.as_bytes()))
                .for_each(|(name, value)| set(name, value)),
        }
    }
    (env, missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(here: &[(&str, &str)], exports: &[Export]) -> (Vec<String>, Vec<OsString>) {
        let here = here.iter().map(|(name, value)| (name.into(), value.into()));
        let (env, missing) = for_ranks(here, exports);
        let show = |(name, value): (OsString, OsString)| format!("{}={}", name.display(), value.display());
        (env.into_iter().map(show).collect(), missing)
    }

    #[test]
    fn places_of_other_launchers_are_gone_and_the_users_settings_stay() {
        let here = [
            ("PMI_RANK", "1"),
            ("PMIX_NAMESPACE", "x"),
            ("PMIX_MCA_gds", "hash"),
            ("OMPI_COMM_WORLD_SIZE", "2"),
            ("OMPI_MCA_btl", "tcp"),
            ("SLURM_JOB_ID", "7"),
            ("SLURM_PMIX_MAPPING_SERV", "x"),
            ("HYDI_CONTROL_FD", "3"),
            ("HOME", "/root"),
        ];
        let (env, _) = env(&here, &[]);
        assert_eq!(env, ["PMIX_MCA_gds=hash", "OMPI_MCA_btl=tcp", "SLURM_JOB_ID=7", "HOME=/root"]);
    }

    #[test]
    fn exports_replace_in_order_and_the_missing_are_named() {
        let here = [("A", "1"), ("AB", "2"), ("C", "3")];
        let exports = [
            Export::Value("C".into(), "4".into()),
            Export::Same("C".into()),
            Export::Same("NOPE".into()),
            Export::Prefix("A".into()),
            Export::Value("AB".into(), "5".into()),
        ];
        let (env, missing) = env(&here, &exports);
        assert_eq!(env, ["C=3", "A=1", "AB=5"]);
        assert_eq!(missing, ["NOPE"]);
    }

    #[test]
    fn a_block_passes_on_what_it_says_or_else_what_the_job_says() {
        let line = "-genvlist A,PMI_RANK -genv G 1 -x D* one : -envall two : -envnone -env A 9 -x C three";
        let wish = crate::args::parse(line.split(' ').map(OsString::from)).unwrap();
        let crate::args::Wish::Job(job) = wish else { panic!("{wish:?}") };
        let here = [("A", "1"), ("B", "2"), ("C", "3"), ("DD", "4"), ("PMI_RANK", "5")];
        let here = here.map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let of_block = |at: usize| {
            let (env, missing) = for_block(&here, &job, &job.blocks[at]);
            assert_eq!(missing, [""; 0]);
            let show =
                |(name, value): (OsString, OsString)| format!("{}={}", name.display(), value.display());
            let mut shown: Vec<String> = env.into_iter().map(show).collect();
            shown.sort();
            shown.join(" ")
        };
        assert_eq!(of_block(0), "A=1 C=3 DD=4 G=1");
        assert_eq!(of_block(1), "A=1 B=2 C=3 DD=4 G=1");
        assert_eq!(of_block(2), "A=9 C=3 DD=4 G=1");
    }
}
