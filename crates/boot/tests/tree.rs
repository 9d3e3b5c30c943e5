//! Many servers are one: a job over a tree of nodes, all in this process, whose messages and ranks take turns in a
//! random order. What the ranks see is held against what PMI promises.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what should happen")]

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use proptest::prelude::*;
use selvedge_boot::tree::{Card, FenceEnd};
use selvedge_boot::{Down, Event, Job, NodeMap, Server, Up};

/// Servers and the connections between them.
struct Tree {
    servers: Vec<Server>,
    parent: Vec<usize>,
    /// Number of a node among its parent's children.
    number: Vec<u32>,
    children: Vec<Vec<usize>>,
    up: Vec<VecDeque<Up>>,
    down: Vec<VecDeque<Down>>,
    home: Vec<usize>,
    read: Vec<Vec<u8>>,
    events: Vec<(usize, Event)>,
    /// How often each value has crossed each edge, whichever way.
    crossings: HashMap<(usize, String), u32>,
}

impl Tree {
    /// `parents[i]` picks the parent of node `i + 1` among those before it, `homes` the node of each rank.
    fn new(parents: &[usize], homes: &[usize]) -> Tree {
        let nodes = parents.len() + 1;
        let parent: Vec<usize> =
            std::iter::once(0).chain(parents.iter().enumerate().map(|(i, p)| p % (i + 1))).collect();
        let mut children = vec![Vec::new(); nodes];
        let mut number = vec![0; nodes];
        for node in 1..nodes {
            number[node] = children[parent[node]].len() as u32;
            children[parent[node]].push(node);
        }
        let home: Vec<usize> = homes.iter().map(|home| home % nodes).collect();
        let job = Job::new("job".into(), vec![0; home.len()], NodeMap::one_node(home.len() as u32));
        let server = |node: usize| {
            let local =
                (0u32..).zip(&home).filter(|(_, home)| **home == node).map(|(rank, _)| rank).collect();
            Server::on_node(job.clone(), local, children[node].len() as u32, node > 0)
        };
        let mut tree = Tree {
            servers: (0..nodes).map(server).collect(),
            read: vec![Vec::new(); home.len()],
            up: vec![VecDeque::new(); nodes],
            down: vec![VecDeque::new(); nodes],
            events: Vec::new(),
            crossings: HashMap::new(),
            parent,
            number,
            children,
            home,
        };
        (0..nodes).for_each(|node| tree.collect(node));
        tree
    }

    /// Takes what a server has to say to where it goes.
    fn collect(&mut self, node: usize) {
        while let Some(output) = self.servers[node].poll_output() {
            assert_eq!(self.home[output.rank as usize], node, "only a node's own ranks");
            self.read[output.rank as usize].extend(output.bytes);
        }
        while let Some(event) = self.servers[node].poll_event() {
            self.events.push((node, event));
        }
        while let Some(up) = self.servers[node].poll_up() {
            assert!(node > 0, "the root has nobody above");
            let cards = if let Up::Cards(cards) = &up { cards.as_slice() } else { &[] };
            cards.iter().for_each(|card| self.count(node, &card.value));
            self.up[node].push_back(carried(&up));
        }
        while let Some((child, down)) = self.servers[node].poll_down() {
            let child = self.children[node][child as usize];
            match &down {
                Down::Cards(cards) => cards.iter().for_each(|card| self.count(child, &card.value)),
                Down::Value { value: Some(value), .. } => self.count(child, value),
                _ => {}
            }
            self.down[child].push_back(carried(&down));
        }
    }

    fn count(&mut self, edge: usize, value: &str) {
        *self.crossings.entry((edge, value.to_owned())).or_default() += 1;
    }

    /// Delivers one message that is under way, if any.
    fn deliver(&mut self, pick: usize) -> bool {
        let nodes = self.servers.len();
        let waiting = |at: &usize| {
            let (node, up) = (at / 2, at.is_multiple_of(2));
            if up { !self.up[node].is_empty() } else { !self.down[node].is_empty() }
        };
        let busy: Vec<usize> = (0..2 * nodes).filter(waiting).collect();
        let Some(at) = busy.get(pick % busy.len().max(1)) else { return false };
        let node = at / 2;
        if at.is_multiple_of(2) {
            let up = self.up[node].pop_front().unwrap();
            self.servers[self.parent[node]].handle_up(self.number[node], up);
            self.collect(self.parent[node]);
        } else {
            let down = self.down[node].pop_front().unwrap();
            self.servers[node].handle_down(down);
            self.collect(node);
        }
        true
    }

    fn say(&mut self, rank: u32, line: &str) {
        let node = self.home[rank as usize];
        self.servers[node].handle_bytes(rank, format!("{line}\n").as_bytes());
        self.collect(node);
    }

    fn hang_up(&mut self, rank: u32) {
        let node = self.home[rank as usize];
        self.servers[node].handle_eof(rank);
        self.collect(node);
    }

    fn reply(&mut self, rank: u32) -> Option<String> {
        let read = &mut self.read[rank as usize];
        let end = read.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = read.drain(..=end).collect();
        Some(String::from_utf8(line).unwrap().trim_end().to_owned())
    }

    /// Says it, delivers all there is, and gives the reply.
    fn ask(&mut self, rank: u32, line: &str) -> String {
        self.say(rank, line);
        while self.deliver(0) {}
        self.reply(rank).unwrap_or_default()
    }
}

/// What arrives is what its bytes say.
fn carried<T: serde::Serialize + serde::de::DeserializeOwned>(message: &T) -> T {
    postcard::from_bytes(&postcard::to_stdvec(message).unwrap()).unwrap()
}

#[derive(Clone, Debug)]
enum Step {
    /// Puts a key of its own (the lower half) or one that all put.
    Put(u8),
    /// Gets a key of this rank.
    Get(prop::sample::Index, u8),
    Group(Vec<u32>),
    Fence,
}

/// One rank at work.
struct Worker {
    script: VecDeque<Step>,
    epoch: u32,
    waits: Option<Step>,
    asked: String,
}

/// What the ranks have done, and so what they may see.
#[derive(Default)]
struct Truth {
    serial: u32,
    /// Key, epoch, rank: what it put last there.
    puts: BTreeMap<(String, u32), BTreeMap<u32, String>>,
    /// Everything ever put of a key in an epoch.
    all: HashMap<(String, u32), HashSet<String>>,
    /// Where several have put one key: whose everybody saw.
    winners: HashMap<(String, u32), String>,
    /// Ranks that have entered fence number n.
    entered: HashMap<u32, u32>,
    groups: HashMap<(Vec<u32>, u32), u32>,
}

impl Truth {
    fn check_got(&mut self, key: &str, epoch: u32, got: Option<&str>) {
        let racing = self.all.get(&(key.to_owned(), epoch));
        if let (Some(got), Some(racing)) = (got, racing)
            && racing.contains(got)
        {
            return;
        }
        let Some(settled) = (0..epoch).rev().find(|e| self.puts.contains_key(&(key.to_owned(), *e))) else {
            return assert_eq!(got, None, "{key} was never put before a fence");
        };
        let at = (key.to_owned(), settled);
        let got =
            got.unwrap_or_else(|| panic!("{key} was put in epoch {settled}, and is not found in {epoch}"));
        let last: Vec<&String> = self.puts[&at].values().collect();
        assert!(last.iter().any(|value| *value == got), "{key} in epoch {epoch}: {got:.20} is out of date");
        let winner = self.winners.entry(at).or_insert_with(|| got.to_owned());
        assert_eq!(winner, got, "everybody sees the same {key}");
    }
}

#[derive(Clone, Debug)]
struct Plan {
    parents: Vec<usize>,
    homes: Vec<usize>,
    /// Of each rank and epoch.
    steps: Vec<Vec<Vec<Step>>>,
    groups: Vec<Option<Vec<u32>>>,
    value_bytes: usize,
    turns: Vec<usize>,
    quits: Option<(usize, usize)>,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..4u8).prop_map(Step::Put),
        (any::<prop::sample::Index>(), 0..4u8).prop_map(|(whose, key)| Step::Get(whose, key)),
        (any::<prop::sample::Index>(), 0..4u8).prop_map(|(whose, key)| Step::Get(whose, key)),
    ]
}

fn plan() -> impl Strategy<Value = Plan> {
    let tree = (prop::collection::vec(any::<usize>(), 0..40), prop::collection::vec(any::<usize>(), 1..20));
    (tree, 1..5usize).prop_flat_map(|((parents, homes), epochs)| {
        let ranks = homes.len();
        let steps =
            prop::collection::vec(prop::collection::vec(prop::collection::vec(step(), 0..5), epochs), ranks);
        let group = prop::option::of(prop::collection::btree_set(0..ranks as u32, 1..=ranks));
        let groups = prop::collection::vec(group.prop_map(|g| g.map(|g| g.into_iter().collect())), epochs);
        let turns = prop::collection::vec(any::<usize>(), 50..400);
        let quits = prop::option::weighted(0.3, (0..ranks, 0..12usize));
        let bytes = prop_oneof![Just(1), Just(3000), Just(30_000)];
        (Just(parents), Just(homes), steps, groups, bytes, turns, quits).prop_map(
            |(parents, homes, steps, groups, value_bytes, turns, quits)| Plan {
                parents,
                homes,
                steps,
                groups,
                value_bytes,
                turns,
                quits,
            },
        )
    })
}

fn key_name(rank: u32, key: u8) -> String {
    if key < 2 { format!("own-{rank}-{key}") } else { format!("shared-{key}") }
}

/// A job at work over a tree.
struct Run {
    tree: Tree,
    workers: Vec<Worker>,
    truth: Truth,
    value_bytes: usize,
    shared: HashSet<String>,
}

impl Run {
    fn new(plan: &Plan) -> Run {
        let workers = plan.steps.iter().zip(0u32..).map(|(epochs, rank)| {
            let mut script = VecDeque::new();
            for (steps, group) in epochs.iter().zip(&plan.groups) {
                script.extend(steps.iter().cloned());
                script.extend(group.iter().filter(|group| group.contains(&rank)).cloned().map(Step::Group));
                script.push_back(Step::Fence);
            }
            if let Some((_, after)) = plan.quits.filter(|(who, _)| *who == rank as usize) {
                script.truncate(after);
            }
            Worker { script, epoch: 0, waits: None, asked: String::new() }
        });
        Run {
            tree: Tree::new(&plan.parents, &plan.homes),
            workers: workers.collect(),
            truth: Truth::default(),
            value_bytes: plan.value_bytes,
            shared: HashSet::new(),
        }
    }

    /// One rank takes its next step, or its answer. Whether there was anything to do.
    fn work(&mut self, rank: u32) -> bool {
        if self.workers[rank as usize].waits.is_some() {
            let Some(reply) = self.tree.reply(rank) else { return false };
            self.take(rank, &reply);
            return true;
        }
        let size = self.workers.len();
        let worker = &mut self.workers[rank as usize];
        let Some(step) = worker.script.pop_front() else { return false };
        let epoch = worker.epoch;
        let line = match &step {
            Step::Put(key) => {
                let name = key_name(rank, *key);
                self.truth.serial += 1;
                let value = format!("{:0width$}", self.truth.serial, width = self.value_bytes);
                if *key >= 2 {
                    self.shared.insert(value.clone());
                }
                let line = format!("cmd=put kvsname=job key={name} value={value}");
                self.truth.all.entry((name.clone(), epoch)).or_default().insert(value.clone());
                self.truth.puts.entry((name, epoch)).or_default().insert(rank, value);
                line
            }
            Step::Get(whose, key) => {
                worker.asked = key_name(whose.index(size) as u32, *key);
                format!("cmd=get kvsname=job key={}", worker.asked)
            }
            Step::Group(members) => {
                *self.truth.groups.entry((members.clone(), epoch)).or_default() += 1;
                let list: Vec<String> = members.iter().map(u32::to_string).collect();
                format!("cmd=barrier_in group={}:{epoch}", list.join(","))
            }
            Step::Fence => {
                *self.truth.entered.entry(epoch).or_default() += 1;
                "cmd=barrier_in".to_owned()
            }
        };
        worker.waits = Some(step);
        self.tree.say(rank, &line);
        true
    }

    fn take(&mut self, rank: u32, reply: &str) {
        let size = self.workers.len() as u32;
        let worker = &mut self.workers[rank as usize];
        let epoch = worker.epoch;
        match worker.waits.take().unwrap() {
            Step::Put(_) => assert_eq!(reply, "cmd=put_result rc=0"),
            Step::Get(..) => {
                let got = reply.strip_prefix("cmd=get_result rc=0 value=");
                assert!(got.is_some() || reply == "cmd=get_result rc=1 msg=key_not_found", "{reply:.60}");
                self.truth.check_got(&worker.asked, epoch, got);
            }
            Step::Group(members) => {
                assert_eq!(reply, format!("cmd=barrier_out rc=0 tag={epoch}"));
                assert_eq!(
                    self.truth.groups[&(members.clone(), epoch)],
                    members.len() as u32,
                    "a group came out early"
                );
            }
            Step::Fence => {
                assert_eq!(reply, "cmd=barrier_out rc=0");
                assert_eq!(self.truth.entered[&epoch], size, "a fence came out early");
                worker.epoch += 1;
            }
        }
    }

    /// Until nothing moves any more.
    fn go_on(&mut self, plan: &Plan) {
        let ranks = self.workers.len();
        let mut turns = plan.turns.iter().cycle();
        let mut idle = 0;
        let mut left = vec![false; ranks];
        while idle < 3 * (ranks + 1) {
            let turn = *turns.next().unwrap();
            let rank = turn % (2 * ranks + 1);
            let moved = if rank < ranks {
                let moved = self.work(rank as u32);
                let worker = &self.workers[rank];
                let done = !moved && worker.waits.is_none() && !std::mem::replace(&mut left[rank], true);
                if done {
                    self.leave(rank as u32, plan.quits.is_none_or(|(who, _)| who != rank));
                }
                moved || done
            } else {
                self.tree.deliver(turn / 7)
            };
            idle = if moved { 0 } else { idle + 1 };
            if idle > ranks {
                // The random turns may miss the one that can still move.
                let all = (0..ranks as u32).any(|rank| self.work(rank)) || self.tree.deliver(turn);
                let late = (0..ranks).find(|r| {
                    !left[*r] && self.workers[*r].waits.is_none() && self.workers[*r].script.is_empty()
                });
                if let Some(late) = late {
                    left[late] = true;
                    self.leave(late as u32, plan.quits.is_none_or(|(who, _)| who != late));
                }
                idle = if all || late.is_some() { 0 } else { idle + 1 };
            }
        }
    }

    fn leave(&mut self, rank: u32, politely: bool) {
        if politely {
            self.tree.say(rank, "cmd=finalize");
        }
        self.tree.hang_up(rank);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_tree_of_servers_keeps_every_promise_of_pmi(plan in plan()) {
        let mut run = Run::new(&plan);
        run.go_on(&plan);
        let waiting: Vec<u32> = (0u32..).zip(&run.workers)
            .filter(|(_, worker)| matches!(worker.waits, Some(Step::Fence))).map(|(rank, _)| rank).collect();
        let stuck: Vec<_> = run.tree.events.iter().filter_map(|(node, event)| match event {
            Event::Stuck { waiting, absent } => Some((*node, *waiting, *absent)),
            _ => None,
        }).collect();
        match plan.quits {
            None => {
                prop_assert!(run.workers.iter().all(|w| w.script.is_empty() && w.waits.is_none()), "nobody is left behind");
                prop_assert_eq!(&stuck, &vec![]);
            }
            Some(_) if waiting.is_empty() => prop_assert_eq!(&stuck, &vec![]),
            Some((quitter, _)) => {
                let [(0, waits, absent)] = stuck[..] else { return Err(TestCaseError::fail(format!("{stuck:?}"))) };
                prop_assert!(waiting.contains(&waits));
                prop_assert_eq!(absent as usize, quitter);
            }
        }
        // One card crosses each edge once. Where several put one key, the one that counts may come back.
        for ((edge, value), times) in &run.tree.crossings {
            prop_assert!(*times == 1 || run.shared.contains(value), "{:.20} crossed edge {} {} times", value, edge, times);
        }
    }

    #[test]
    fn whatever_nodes_say_to_each_other_no_server_panics(
        messages in prop::collection::vec((0..3u32, message()), 0..40), root in any::<bool>()
    ) {
        let job = Job::new("job".into(), vec![0; 4], NodeMap::one_node(4));
        let mut server = Server::on_node(job, vec![1, 3], 2, !root);
        for (child, message) in messages {
            match message {
                Message::Up(up) => server.handle_up(child, up),
                Message::Down(down) => server.handle_down(down),
                Message::Gone => server.handle_child_gone(child),
                Message::Line(line) => server.handle_bytes(1, line.as_bytes()),
            }
            while server.poll_output().is_some() || server.poll_event().is_some() {}
            while let Some(up) = server.poll_up() {
                prop_assert!(!root, "{up:?}");
            }
            while let Some((child, _)) = server.poll_down() {
                prop_assert!(child < 2);
            }
        }
    }

    #[test]
    fn random_bytes_are_no_message_or_a_harmless_one(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let job = Job::new("job".into(), vec![0; 4], NodeMap::one_node(4));
        let mut server = Server::on_node(job, vec![1, 3], 2, true);
        if let Ok(up) = postcard::from_bytes::<Up>(&bytes) {
            server.handle_up(0, up);
        }
        if let Ok(down) = postcard::from_bytes::<Down>(&bytes) {
            server.handle_down(down);
        }
    }
}

/// A root without ranks, two nodes below it, and one below the second of them; ranks 0, 1 on the first, 2 on the second,
/// 3 on the last.
fn small() -> Tree {
    Tree::new(&[0, 0, 2], &[1, 1, 2, 3])
}

#[test]
fn a_question_that_is_with_another_node_does_not_change_the_order_of_answers() {
    let mut tree = small();
    tree.say(3, "cmd=get kvsname=job key=nobody\ncmd=get_appnum\ncmd=get kvsname=job key=none\ncmd=finalize");
    assert_eq!(tree.reply(3), None);
    while tree.deliver(0) {}
    let replies: Vec<String> = std::iter::from_fn(|| tree.reply(3)).collect();
    let commands: Vec<&str> = replies.iter().filter_map(|reply| reply.split(' ').next()).collect();
    assert_eq!(commands, ["cmd=get_result", "cmd=appnum", "cmd=get_result", "cmd=finalize_ack"]);
}

#[test]
fn the_dead_are_known_on_all_nodes_and_those_who_said_goodbye_are_not_among_them() {
    let mut tree = small();
    assert_eq!(tree.ask(3, "cmd=get kvsname=job key=PMI_dead_processes"), "cmd=get_result rc=0 value=");
    tree.ask(0, "cmd=finalize");
    tree.hang_up(0);
    for rank in [2, 1] {
        tree.ask(rank, "cmd=get_appnum");
        tree.hang_up(rank);
    }
    assert_eq!(tree.ask(3, "cmd=get kvsname=job key=PMI_dead_processes"), "cmd=get_result rc=0 value=1,2");
}

#[test]
fn a_group_on_one_node_troubles_no_other_and_one_on_several_is_counted_by_the_root() {
    let mut tree = small();
    tree.say(0, "cmd=barrier_in group=1,0:7");
    tree.say(1, "cmd=barrier_in group=0,1:7");
    assert_eq!((tree.reply(0), tree.reply(1)).0.as_deref(), Some("cmd=barrier_out rc=0 tag=7"));
    assert!(!tree.deliver(0), "nothing was said to others");
    for rank in [3, 0, 2] {
        assert_eq!(tree.ask(rank, "cmd=barrier_in group=WORLD:8"), "");
    }
    assert_eq!(tree.ask(1, "cmd=barrier_in group=WORLD:8"), "cmd=barrier_out rc=0 tag=8");
    assert_eq!(tree.reply(3).as_deref(), Some("cmd=barrier_out rc=0 tag=8"));
}

#[test]
fn a_lost_node_is_neither_spoken_to_nor_listened_to_and_the_fence_waits_for_it() {
    let mut tree = small();
    tree.ask(3, "cmd=barrier_in");
    tree.say(2, "cmd=get kvsname=job key=k");
    tree.servers[2].handle_child_gone(0);
    tree.servers[2].handle_up(0, Up::Fence { overflow: false });
    while tree.deliver(0) {}
    assert!(tree.reply(2).is_some());
    for rank in [0, 1, 2] {
        assert_eq!(tree.ask(rank, "cmd=barrier_in"), "");
    }
    assert_eq!(tree.reply(3), None);
}

#[test]
fn pairs_of_the_launcher_are_there_before_anybody_has_put_anything() {
    let mut job = Job::new("job".into(), vec![0; 2], NodeMap::one_node(2));
    job.preput = vec![("PARENT_ROOT_PORT_NAME".into(), "tag#0$x".into())];
    let mut server = Server::on_node(job, vec![1], 0, true);
    server.handle_bytes(1, b"cmd=get kvsname=job key=PARENT_ROOT_PORT_NAME\n");
    assert_eq!(server.poll_output().unwrap().bytes, b"cmd=get_result rc=0 value=tag#0$x\n");
}

#[derive(Clone, Debug)]
enum Message {
    Up(Up),
    Down(Down),
    Gone,
    Line(String),
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-c]",
        "(WORLD|NODE|@[0-2]|[0-5](,[0-5]){0,3}|x)(:[0-9a-]{0,2})?",
        "PMI_dead_processes|universeSize"
    ]
}

fn message() -> impl Strategy<Value = Message> {
    let cards = || prop::collection::vec((text(), text()).prop_map(|(key, value)| Card { key, value }), 0..4);
    let rank = prop_oneof![0..6u32, any::<u32>()];
    let up = prop_oneof![
        cards().prop_map(Up::Cards),
        any::<bool>().prop_map(|overflow| Up::Fence { overflow }),
        text().prop_map(|key| Up::Ask { key }),
        (text(), prop::collection::vec(rank.clone(), 0..4))
            .prop_map(|(group, ranks)| Up::Group { group, ranks }),
        (rank.clone(), any::<bool>()).prop_map(|(rank, dead)| Up::Left { rank, dead }),
        rank.clone().prop_map(|rank| Up::Waiting { rank }),
    ];
    let end = prop::sample::select(&[FenceEnd::Known, FenceEnd::Asked, FenceEnd::Full][..]);
    let down = prop_oneof![
        cards().prop_map(Down::Cards),
        prop::collection::vec(text(), 0..4).prop_map(Down::Stale),
        end.prop_map(Down::Fence),
        (text(), prop::option::of(text())).prop_map(|(key, value)| Down::Value { key, value }),
        (text(), any::<bool>()).prop_map(|(group, full)| Down::Group { group, full }),
        rank.prop_map(|rank| Down::Left { rank }),
    ];
    let line = prop_oneof![
        Just("cmd=barrier_in\n".to_owned()),
        text().prop_map(|group| format!("cmd=barrier_in group={group}\n")),
        text().prop_map(|key| format!("cmd=get kvsname=job key={key}\n")),
        (text(), text()).prop_map(|(key, value)| format!("cmd=put kvsname=job key={key} value={value}\n")),
        (text(), text())
            .prop_map(|(service, port)| format!("cmd=publish_name service={service} port={port}\n")),
    ];
    prop_oneof![
        4 => up.prop_map(Message::Up),
        4 => down.prop_map(Message::Down),
        1 => Just(Message::Gone),
        6 => line.prop_map(Message::Line),
    ]
}
