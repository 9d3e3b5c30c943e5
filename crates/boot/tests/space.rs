//! A place in a job that somebody else's library keeps, PMIx's way: a store for each rank.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what should happen")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use selvedge_boot::{Boot, BootError, KeyValueSpace, NodeMap, SpaceFault};

/// What the library of this test keeps for all ranks.
#[derive(Default)]
struct Kept {
    values: HashMap<(u32, String), Vec<u8>>,
    aborted: Option<(i32, String)>,
    gone: Vec<u32>,
}

struct Space {
    rank: u32,
    size: u32,
    kept: Arc<Mutex<Kept>>,
}

impl KeyValueSpace for Space {
    fn rank(&self) -> u32 {
        self.rank
    }

    fn size(&self) -> u32 {
        self.size
    }

    fn appnum(&self) -> Option<u32> {
        Some(3)
    }

    fn job(&self) -> String {
        "job".to_owned()
    }

    fn map(&self) -> Option<NodeMap> {
        Some(NodeMap::of_names(&["a", "b", "a"]))
    }

    fn put(&mut self, key: &str, value: &[u8]) -> Result<(), SpaceFault> {
        self.kept.lock().unwrap().values.insert((self.rank, key.to_owned()), value.to_owned());
        Ok(())
    }

    fn fence(&mut self) -> Result<(), SpaceFault> {
        match self.kept.lock().unwrap().gone.is_empty() {
            true => Ok(()),
            false => Err("a rank is gone".into()),
        }
    }

    fn get(&mut self, rank: u32, key: &str) -> Result<Option<Vec<u8>>, SpaceFault> {
        Ok(self.kept.lock().unwrap().values.get(&(rank, key.to_owned())).cloned())
    }

    fn abort(&mut self, code: i32, message: &str) {
        self.kept.lock().unwrap().aborted = Some((code, message.to_owned()));
    }

    fn finalize(self: Box<Self>) -> Result<(), SpaceFault> {
        self.kept.lock().unwrap().gone.push(self.rank);
        Ok(())
    }
}

fn ranks(size: u32) -> (Vec<Boot>, Arc<Mutex<Kept>>) {
    let kept = Arc::new(Mutex::new(Kept::default()));
    let space = |rank| Box::new(Space { rank, size, kept: kept.clone() });
    ((0..size).map(|rank| Boot::through(space(rank))).collect(), kept)
}

#[test]
fn every_word_goes_through_the_space() {
    let (mut boots, kept) = ranks(3);
    for boot in &mut boots {
        let (rank, value) = (boot.rank(), vec![boot.rank() as u8; 100_000]);
        boot.put(&format!("card.{rank}"), &value).unwrap();
    }
    boots[0].fence().unwrap();
    assert_eq!(boots[0].get_from(2, "card.2").unwrap(), Some(vec![2; 100_000]));
    assert_eq!(boots[0].get_from(1, "card.2").unwrap(), None, "each rank has a store of its own");
    assert_eq!(boots[0].get("card.2").unwrap(), Some(vec![2; 100_000]), "all are looked through");
    assert_eq!(boots[0].get("card.3").unwrap(), None);
    assert_eq!((boots[1].rank(), boots[1].size(), boots[1].appnum(), boots[1].job()), (1, 3, Some(3), "job"));
    let map = boots[1].map().unwrap();
    assert_eq!((map.nodes(), map.node(0) == map.node(2), map.node(0) == map.node(1)), (2, true, false));
    boots[1].abort(7, "enough");
    assert_eq!(kept.lock().unwrap().aborted, Some((7, "enough".to_owned())));
    boots.pop().unwrap().finalize().unwrap();
    assert_eq!(kept.lock().unwrap().gone, [2]);
    let fault = boots[0].fence().unwrap_err();
    assert!(matches!(fault, BootError::Space { during: "fence", .. }), "{fault:?}");
}

#[test]
fn the_promises_about_keys_and_values_are_the_same() {
    let (mut boots, _) = ranks(1);
    assert!(matches!(boots[0].put("no key", b""), Err(BootError::Key { .. })));
    let large = vec![0; selvedge_boot::VALUE_BYTES_MAX + 1];
    assert!(matches!(boots[0].put("k", &large), Err(BootError::Value { .. })));
}

#[test]
fn a_rank_of_a_pmix_launcher_asks_for_pmix_and_says_so_where_there_is_none() {
    let env = |name: &str| {
        let vars = [("PMIX_NAMESPACE", "job"), ("PMIX_RANK", "1")];
        vars.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string())
    };
    let no_descriptor = |_| unreachable!("there is no descriptor to duplicate");
    let boot = Boot::from_env_or_pmix(env, no_descriptor, || {
        Ok(Box::new(Space { rank: 1, size: 2, kept: Arc::default() }))
    });
    assert_eq!(boot.unwrap().rank(), 1);
    let fault = Boot::from_env_or_pmix(env, no_descriptor, || Err("no libpmix".into())).unwrap_err();
    assert!(matches!(fault, BootError::Space { during: "start", .. }), "{fault:?}");
    let text = Boot::from_env(env, no_descriptor).unwrap_err().to_string();
    assert!(text.contains("speaks only PMIx"), "{text}");
}
