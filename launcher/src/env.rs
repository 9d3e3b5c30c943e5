//! The environment of the ranks: the user's, without what other launchers left in it, with what `-x` asks for.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use crate::args::Export;

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

/// Whether a variable is another launcher's, and no rank of ours may see it.
pub fn is_a_place(name: &OsStr) -> bool {
    let starts = |prefixes: &[&str]| prefixes.iter().any(|p| name.as_bytes().starts_with(p.as_bytes()));
    PLACES.iter().any(|place| name == *place) || (starts(PLACE_FAMILIES) && !starts(SETTINGS))
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
}
