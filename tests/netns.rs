//! Real cuts: voters and an observer in network namespaces of their own, between which links are
//! taken away and given back. Needs root and `ip`; where namespaces are forbidden the tests say so
//! and pass (the same is shown on the simulated network).
#![cfg(target_os = "linux")]

mod process;

use process::netns::{Netns, must, sweep};
use process::{Node, Reply, SECRET, Spec, until};
use tempfile::TempDir;

#[test]
fn child_entry() {
    process::child_entry();
}

const PORT: u16 = 7400;

const NAMES: [&str; 3] = ["a", "b", "c"];
const OBSERVER: usize = 3;

/// Three voters and an observer, each in a namespace.
struct Lab {
    // In this order: the processes end before their namespaces and folders go.
    nodes: Vec<Node>,
    spaces: Vec<Netns>,
    /// Where the bridge is, if there is one.
    switch: Option<Netns>,
    dir: TempDir,
}

impl Lab {
    /// Four namespaces, or why there can be none.
    fn spaces() -> Option<Vec<Netns>> {
        sweep();
        match (0..4).map(|_| Netns::new()).collect() {
            Ok(spaces) => Some(spaces),
            Err(error) => {
                println!("skipped: no network namespaces here: {error}");
                None
            }
        }
    }

    /// All on one bridge, at 10.77.1.1 and so on.
    fn bridged() -> Option<Self> {
        let spaces = Self::spaces()?;
        let switch = Netns::new().expect("as the others");
        must(&format!("-n {} link add br0 type bridge", switch.0));
        must(&format!("-n {} link set br0 up", switch.0));
        for (at, space) in spaces.iter().enumerate() {
            let (space, switch) = (&space.0, &switch.0);
            must(&format!(
                "-n {space} link add eth0 type veth peer name port{at} netns {switch}"
            ));
            must(&format!(
                "-n {space} addr add 10.77.1.{}/24 dev eth0",
                at + 1
            ));
            must(&format!("-n {space} link set eth0 up"));
            must(&format!("-n {switch} link set port{at} master br0 up"));
        }
        let mut lab = Self::empty(spaces, Some(switch));
        lab.start("10.77.1");
        Some(lab)
    }

    /// A wire between every two, and an address of each, 10.77.2.1 and so on, reached over it.
    fn wired() -> Option<Self> {
        let lab = Self::empty(Self::spaces()?, None);
        for (at, space) in lab.spaces.iter().enumerate() {
            must(&format!(
                "-n {} addr add 10.77.2.{}/32 dev lo",
                space.0,
                at + 1
            ));
        }
        for one in 0..4 {
            for two in one + 1..4 {
                let (here, there) = (&lab.spaces[one].0, &lab.spaces[two].0);
                must(&format!(
                    "-n {here} link add to{two} type veth peer name to{one} netns {there}"
                ));
                lab.mend(one, two);
            }
        }
        let mut lab = lab;
        lab.start("10.77.2");
        Some(lab)
    }

    fn empty(spaces: Vec<Netns>, switch: Option<Netns>) -> Self {
        Self {
            nodes: Vec::new(),
            spaces,
            switch,
            dir: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    fn start(&mut self, net: &str) {
        let host = |at: usize| format!("{net}.{}:{PORT}", at + 1);
        let voters = NAMES.iter().enumerate();
        let voters: Vec<_> = voters
            .map(|(at, name)| (name.to_string(), host(at)))
            .collect();
        for at in 0..4 {
            let voter = NAMES.get(at).map(|name| name.to_string());
            self.nodes.push(Node::spawn(&Spec {
                network: "lab".into(),
                voters: voters.clone(),
                dir: voter.as_ref().map(|name| self.dir.path().join(name)),
                voter,
                secret: Some(SECRET.into()),
                bind: Some(host(at)),
                write_timeout_ms: Some(3_000),
                netns: Some(self.spaces[at].0.clone()),
                ..Spec::default()
            }));
        }
        for node in &self.nodes {
            node.ready();
        }
        for node in &self.nodes {
            node.linked_to(&NAMES);
        }
    }

    /// Pulls a node's plug out of the bridge: what it sends vanishes.
    fn unplug(&self, at: usize) {
        let switch = &self.switch.as_ref().expect("there is a bridge").0;
        must(&format!("-n {switch} link set port{at} nomaster"));
    }

    fn plug(&self, at: usize) {
        let switch = &self.switch.as_ref().expect("there is a bridge").0;
        must(&format!("-n {switch} link set port{at} master br0"));
    }

    /// Takes the wire between two nodes down: both are told by the system.
    fn cut(&self, one: usize, two: usize) {
        must(&format!("-n {} link set to{two} down", self.spaces[one].0));
        must(&format!("-n {} link set to{one} down", self.spaces[two].0));
    }

    /// Takes it up, with the routes that went with it.
    fn mend(&self, one: usize, two: usize) {
        for (at, other) in [(one, two), (two, one)] {
            must(&format!("-n {} link set to{other} up", self.spaces[at].0));
        }
        for (at, other) in [(one, two), (two, one)] {
            must(&format!(
                "-n {} route replace 10.77.2.{}/32 dev to{other} src 10.77.2.{}",
                self.spaces[at].0,
                other + 1,
                at + 1
            ));
        }
    }

    /// Waits until neither of two voters has a link to the other.
    fn parted(&self, one: usize, two: usize) {
        for (at, other) in [(one, two), (two, one)] {
            let name = NAMES[other];
            until(format!("{} loses {name}", self.nodes[at].name), || {
                let (linked, trouble) = self.nodes[at].status().voters[name].clone();
                !linked && !trouble.is_empty()
            });
        }
    }

    fn claim(&self, at: usize, cell: &str, value: &str) -> Reply {
        self.nodes[at].claim(cell, value)
    }

    fn all_read(&self, cell: &str, value: &str) {
        for node in &self.nodes {
            assert_eq!(
                node.call(&["wait", cell]),
                ["some", value],
                "{cell} on {}",
                node.name
            );
        }
    }
}

#[test]
fn a_minority_hands_back_and_the_majority_decides() {
    let Some(lab) = Lab::bridged() else { return };
    assert_eq!(lab.claim(0, "before", "all")[0], "won");
    lab.all_read("before", "all");
    for minority in 0..3 {
        let (one, two) = ((minority + 1) % 3, (minority + 2) % 3);
        lab.unplug(minority);
        lab.parted(minority, one);
        lab.parted(minority, two);
        let alone = &lab.nodes[minority];
        until("the minority is out of touch", || !alone.status().in_touch);

        let (cell, other) = (format!("cell-{minority}"), format!("other-{minority}"));
        // Asked of both sides at once.
        let offered = alone.begin(&["write", &cell, "minority"]);
        let claimed = alone.begin(&["claim", &other, "minority"]);
        let won = lab.claim(one, &cell, "majority");
        assert_eq!(won[0], "won", "{won:?}");
        let offered = alone.receive("write", &offered).expect("it lives");
        assert_eq!(offered, ["offline", "minority"]);
        let claimed = alone.receive("claim", &claimed).expect("it lives");
        assert_eq!(claimed, ["offline", "minority"]);
        assert_eq!(alone.call(&["linear", &cell]), ["offline"]);
        assert_eq!(alone.call(&["read", &cell]), ["none"]);
        assert_eq!(alone.call(&["read", "before"]), ["some", "all"]);
        assert_eq!(lab.nodes[two].linear(&cell), ["some", "majority"]);
        assert_eq!(lab.nodes[OBSERVER].linear(&cell), ["some", "majority"]);
        let lost = lab.claim(OBSERVER, &cell, "late");
        assert_eq!(lost[0], "lost", "{lost:?}");
        assert_eq!(lab.claim(two, &other, "majority")[0], "won");

        lab.plug(minority);
        for at in 0..3 {
            lab.nodes[at].linked_to(&NAMES);
        }
        lab.all_read(&cell, "majority");
        // The claim it was handed back has lost, and it learns that.
        let fate = lab.claim(minority, &other, "minority");
        assert_eq!((&*fate[0], &*fate[2]), ("lost", "majority"));
        assert_eq!(fate[1], won_version(&lab, two, &other));
    }
}

fn won_version(lab: &Lab, at: usize, cell: &str) -> String {
    lab.nodes[at].call(&["decision", cell])[1].clone()
}

#[test]
fn an_observer_that_loses_its_voter_follows_another() {
    let Some(lab) = Lab::wired() else { return };
    let observer = &lab.nodes[OBSERVER];
    for cell in 0..6 {
        assert_eq!(
            observer.call(&["online", &format!("cell-{cell}")]),
            ["Reached"]
        );
    }
    for (lost, name) in NAMES.iter().enumerate().take(2) {
        lab.cut(lost, OBSERVER);
        until("the observer notices", || {
            !observer.status().voters[*name].0
        });
    }
    // Whomever it had followed, it hears what is decided, and can have things decided.
    for cell in 0..6 {
        let cell = format!("cell-{cell}");
        assert_eq!(lab.claim(0, &cell, "value")[0], "won");
        assert_eq!(observer.call(&["wait", &cell]), ["some", "value"]);
    }
    assert_eq!(lab.claim(OBSERVER, "own", "observer")[0], "won");
    lab.all_read("own", "observer");

    lab.cut(2, OBSERVER);
    until("the observer is alone", || !observer.status().in_touch);
    assert_eq!(
        observer.call(&["write", "alone", "mine"]),
        ["offline", "mine"]
    );
    assert_eq!(observer.call(&["read", "own"]), ["some", "observer"]);
    assert_eq!(lab.claim(1, "meanwhile", "majority")[0], "won");
    for voter in 0..3 {
        lab.mend(voter, OBSERVER);
    }
    observer.linked_to(&NAMES);
    lab.all_read("meanwhile", "majority");
}

#[test]
fn two_voters_that_only_see_the_third_still_write() {
    let Some(lab) = Lab::wired() else { return };
    for (one, two) in [(0, 1), (1, 2), (0, 2)] {
        // Led by whomever before the cut, and by whomever it suits after it.
        let old = |n: usize| format!("old-{one}{two}-{n}");
        for n in 0..3 {
            assert_eq!(lab.claim(n, &old(n), "before")[0], "won");
        }
        lab.cut(one, two);
        lab.parted(one, two);
        for n in 0..9 {
            let (at, cell) = (n % 3, format!("new-{one}{two}-{n}"));
            let won = lab.claim(at, &cell, "through");
            assert_eq!(won[0], "won", "{cell} at {}: {won:?}", NAMES[at]);
            lab.all_read(&cell, "through");
        }
        for n in 0..3 {
            for at in 0..4 {
                let ignored = lab.nodes[at].answered(&["write", &old(n), "after"]);
                assert_eq!(ignored[0], "ok", "{} at node {at}: {ignored:?}", old(n));
            }
            lab.all_read(&old(n), "before");
        }
        lab.mend(one, two);
        for at in 0..3 {
            lab.nodes[at].linked_to(&NAMES);
        }
        lab.all_read(&format!("new-{one}{two}-8"), "through");
    }
}
