use super::*;
use crate::args::{self, Wish};

/// A secret file of this test's own; removed with it.
struct SecretFile(std::path::PathBuf);

impl SecretFile {
    fn new(test: &str) -> SecretFile {
        let path = std::env::temp_dir().join(format!("selvedge-join-{test}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        Secret::create(&path).unwrap();
        SecretFile(path)
    }
}

impl Drop for SecretFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn joined(line: &str, env: &[(&str, &str)], secret: &SecretFile) -> Result<Option<Join>, String> {
    let line = line.replace("SECRET", &format!("--secret-file {}", secret.0.display()));
    let Wish::Job(job) = args::parse(line.split_whitespace().map(OsString::from)).unwrap() else {
        panic!("{line} is no job");
    };
    let env = |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
    wished(&job, &env).map_err(|usage| usage.to_string())
}

#[test]
fn an_address_may_have_a_port_and_a_name_may_too() {
    let place = |text: &str| parse_place(text).map(|(name, port)| (name.unwrap_or("?".into()), port));
    for (text, name, port) in [
        ("node1", "node1", PORT),
        ("job-0.svc:99", "job-0.svc", 99),
        ("10.0.0.1", "10.0.0.1", PORT),
        ("10.0.0.1:1", "10.0.0.1", 1),
        ("fe80::1", "fe80::1", PORT),
        ("[fe80::1]", "fe80::1", PORT),
        ("[fe80::1]:7", "fe80::1", 7),
        ("auto", "?", PORT),
        ("auto:7", "?", 7),
    ] {
        assert_eq!(place(text), Some((name.to_owned(), port)), "{text}");
    }
    for text in
        ["", ":7", "node1:", "node1:0", "node1:x", "node1:70000", "[fe80::1", "[a:b]:7", "-x", "a b", "a:b:c"]
    {
        assert_eq!(place(text), None, "{text}");
    }
}

#[test]
fn the_command_line_says_it_all_or_the_container_system_says_the_rest() {
    let secret = SecretFile::new("wished");
    assert!(joined("-n 2 prog", &[], &secret).unwrap().is_none());
    let join = joined("--join node1:7 --join-hosts 3 SECRET prog", &[], &secret).unwrap().unwrap();
    assert_eq!((join.place.to_string().as_str(), join.hosts, join.index), ("node1:7", 3, None));
    let kubernetes = [("JOB_COMPLETION_INDEX", "2")];
    let join = joined("--join job-0.svc --join-hosts 3 SECRET prog", &kubernetes, &secret).unwrap().unwrap();
    assert_eq!((join.place.to_string().as_str(), join.index), ("job-0.svc:17358", Some(2)));
    let join =
        joined("--join a --join-hosts 3 --join-index 1 SECRET prog", &kubernetes, &secret).unwrap().unwrap();
    assert_eq!(join.index, Some(1), "who is nearer to the user wins");
    let node = [
        ("AWS_BATCH_JOB_NUM_NODES", "4"),
        ("AWS_BATCH_JOB_NODE_INDEX", "3"),
        ("AWS_BATCH_JOB_MAIN_NODE_INDEX", "0"),
        ("AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS", "10.0.3.4"),
    ];
    let join = joined("--join auto SECRET prog", &node, &secret).unwrap().unwrap();
    assert_eq!((join.place.to_string().as_str(), join.hosts, join.index), ("10.0.3.4:17358", 4, Some(3)));
    let main = [
        ("AWS_BATCH_JOB_NUM_NODES", "4"),
        ("AWS_BATCH_JOB_NODE_INDEX", "0"),
        ("AWS_BATCH_JOB_MAIN_NODE_INDEX", "0"),
    ];
    let join = joined("--join auto:9 SECRET prog", &main, &secret).unwrap().unwrap();
    assert_eq!((join.place.name, join.place.port, join.hosts, join.index), (None, 9, 4, Some(0)));
}

#[test]
fn the_main_node_of_a_batch_job_is_the_first_whatever_its_number() {
    let index = |ours: &str| {
        let env = [
            ("AWS_BATCH_JOB_NUM_NODES", "4"),
            ("AWS_BATCH_JOB_NODE_INDEX", ours),
            ("AWS_BATCH_JOB_MAIN_NODE_INDEX", "2"),
            ("AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS", "10.0.3.4"),
        ];
        let env = |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        Batch::of(&env).unwrap().unwrap().index
    };
    assert_eq!(["0", "1", "2", "3"].map(index), [1, 2, 0, 3]);
}

#[test]
fn what_is_missing_or_does_not_fit_is_said_with_what_to_write() {
    let secret = SecretFile::new("refused");
    for (line, env, said) in [
        ("--join-hosts 2 prog", &[][..], "go with --join"),
        ("--join a SECRET prog", &[], "--join-hosts N"),
        ("--join a --join-hosts 2 prog", &[], "--new-secret"),
        ("--join a --join-hosts 5000 SECRET prog", &[], "at most 4096"),
        ("--join a --join-hosts 2 --join-index 2 SECRET prog", &[], "count from 0"),
        ("--join auto --join-hosts 2 SECRET prog", &[], "AWS Batch"),
        ("--join a: --join-hosts 2 SECRET prog", &[], "node1:17358"),
        ("--join a --join-hosts 2 SECRET -H b prog", &[], "leave -host"),
        ("--join a --join-hosts 2 SECRET --agent ssh prog", &[], "leave --agent"),
        ("--join a --join-hosts 2 SECRET prog", &[("JOB_COMPLETION_INDEX", "x")], "is no number"),
    ] {
        let text = joined(line, env, &secret).map(|_| ()).unwrap_err();
        assert!(text.contains(said), "{line}: {text}");
    }
}

#[test]
fn who_is_first_follows_from_the_index_or_from_the_address() {
    let secret = SecretFile::new("role");
    let role = |line: &str| {
        let join = joined(line, &[], &secret).unwrap().unwrap();
        join.role(Duration::ZERO)
    };
    // Documentation addresses (RFC 5737) are nobody's.
    assert!(matches!(role("--join 192.0.2.1 --join-hosts 2 SECRET prog"), Ok(Role::Other)));
    assert!(matches!(role("--join 127.0.0.1 --join-hosts 2 --join-index 1 SECRET prog"), Ok(Role::Other)));
    let Ok(Role::First(address)) = role("--join 127.0.0.1:9 --join-hosts 2 SECRET prog") else { panic!() };
    assert_eq!(address, "127.0.0.1:9".parse().unwrap());
    let text = role("--join 192.0.2.1 --join-hosts 2 --join-index 0 SECRET prog").unwrap_err();
    assert!(text.contains("index 0") && text.contains("192.0.2.1 is no address of it"), "{text}");
}
