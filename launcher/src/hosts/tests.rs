use super::*;
use crate::args;

/// What a command line names, with these variables and files.
fn wished_for(line: &str, vars: &[(&str, &str)], files: &[(&str, &str)]) -> Result<String, Usage> {
    let env = |name: &str| vars.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
    let read = |path: &Path| {
        let file = files.iter().find(|(name, _)| Path::new(name) == path);
        file.map(|(_, text)| text.as_bytes().to_vec()).ok_or_else(|| io::ErrorKind::NotFound.into())
    };
    let args::Wish::Job(job) = args::parse_with(line.split_whitespace().map(OsString::from), &read)? else {
        panic!("{line}: no job");
    };
    let hosts = wished(&job, &env, &read)?;
    let show = |host: HostWish| match host.slots {
        Slots::Cores => host.name,
        Slots::Mentioned(slots) => format!("{}:x{slots}", host.name),
        Slots::Stated(slots) => format!("{}:{slots}", host.name),
    };
    Ok(hosts.into_iter().map(show).collect::<Vec<_>>().join(" "))
}

const SLURM: &[(&str, &str)] = &[("SLURM_JOB_NODELIST", "s[1-2]"), ("SLURM_TASKS_PER_NODE", "8(x2)")];

#[test]
fn without_a_wish_it_is_this_host_only() {
    assert_eq!(wished_for("-n 2 prog", &[], &[]).unwrap(), "");
}

#[test]
fn whoever_is_nearer_to_the_user_wins() {
    let files = [("f", "f1:4\nf2:4\n"), ("d", "d1:2\n"), ("h", "h1:3\n")];
    let hydra = [("HYDRA_HOST_FILE", "h"), SLURM[0], SLURM[1]];
    let wished = |line, vars: &[_]| wished_for(line, vars, &files).unwrap();
    assert_eq!(wished("-H a,b prog", SLURM), "a:x1 b:x1");
    assert_eq!(wished("-f f prog", SLURM), "f1:4 f2:4");
    assert_eq!(wished("prog", SLURM), "s1:8 s2:8");
    assert_eq!(wished("prog", &hydra), "h1:3");
    assert_eq!(wished("--default-hostfile d prog", SLURM), "s1:8 s2:8");
    assert_eq!(wished("--default-hostfile d prog", &[]), "d1:2");
    assert_eq!(wished("prog", &[("OMPI_MCA_orte_default_hostfile", "d")]), "d1:2");
}

#[test]
fn a_list_beside_a_file_chooses_among_its_hosts() {
    let files = [("f", "f1:4\nf2.cluster:6 user=me\n")];
    assert_eq!(wished_for("-hostfile f -H f2:*,f1:2 prog", &[], &files).unwrap(), "f2:6 f1:2");
    let why = wished_for("-H f3 --hostfile f prog", &[], &files).unwrap_err().to_string();
    assert!(why.contains("f3 is not in the host file"), "{why}");
}

#[test]
fn what_the_command_line_leaves_open_the_batch_system_knows() {
    assert_eq!(wished_for("-hosts s2:*,x:* prog", SLURM, &[]).unwrap(), "s2:8 x");
    assert_eq!(wished_for("-H s2:* prog", SLURM, &[]).unwrap(), "s2:8");
}

#[test]
fn a_part_of_the_command_line_may_have_hosts_of_its_own() {
    let parts = "-n 2 -H a,b one : -n 1 two : -H c:4 -n 1 three";
    assert_eq!(wished_for(parts, &[], &[]).unwrap(), "a:x1 b:x1 c:4");
    assert_eq!(wished_for(parts, SLURM, &[]).unwrap(), "s1:8 s2:8 a:x1 b:x1 c:4");
    assert_eq!(wished_for("-n 2 -H a one : -H a:2,b two", SLURM, &[]).unwrap(), "a:x1 b:x1");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let why = wished_for("-f nope prog", &[], &[]).unwrap_err().to_string();
    assert!(why.starts_with("cannot read the host file nope: "), "{why}");
    let why = wished_for("prog", &[("HYDRA_HOST_FILE", "no")], &[]).unwrap_err().to_string();
    assert!(why.contains("host file no:"), "{why}");
}

#[test]
fn names_with_and_without_their_domain_are_one_host() {
    assert!(same_name("n1", "N1.cluster"));
    assert!(same_name("n1.cluster", "n1.cluster"));
    assert!(!same_name("n1.a", "n1.b"));
    assert!(!same_name("n1", "n10"));
    assert!(!same_name("10.0.0.1", "10.0.0.2"));
    assert!(!same_name("10", "10.0.0.1"));
}
