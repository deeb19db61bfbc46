//! Three voters on this machine, each in a process and with a disk of its own.

use std::path::PathBuf;

use tempfile::TempDir;

use super::{Node, SECRET, Spec, free_addr};

pub const NAMES: [&str; 3] = ["a", "b", "c"];

pub struct Cluster {
    // Before the folder, so that the processes end first.
    nodes: [Option<Node>; 3],
    pub spec: Spec,
    dir: TempDir,
}

impl Cluster {
    /// Nothing is started yet.
    pub fn new(network: &str) -> Self {
        Self::with(Spec {
            network: network.into(),
            voters: NAMES.map(|name| (name.into(), free_addr())).into(),
            secret: Some(SECRET.into()),
            ..Spec::default()
        })
    }

    /// With another kind of node than usual.
    pub fn with(spec: Spec) -> Self {
        Self {
            nodes: Default::default(),
            spec,
            dir: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    pub fn data_dir(&self, at: usize) -> PathBuf {
        self.dir.path().join(NAMES[at])
    }

    /// Starts a voter's process, which may not be ready yet.
    pub fn spawn(&mut self, at: usize) {
        let spec = Spec {
            voter: Some(NAMES[at].into()),
            dir: Some(self.data_dir(at)),
            ..self.spec.clone()
        };
        self.nodes[at] = Some(Node::spawn(&spec));
    }

    pub fn start(&mut self, at: usize) {
        self.spawn(at);
        self.node(at).ready();
    }

    /// Starts all voters that are down, in this order, and waits until each sees all.
    pub fn start_all(&mut self, order: [usize; 3]) {
        let down: Vec<_> = order
            .into_iter()
            .filter(|at| self.nodes[*at].is_none())
            .collect();
        for at in &down {
            self.spawn(*at);
        }
        for at in &down {
            self.node(*at).ready();
        }
        for at in 0..3 {
            self.node(at).linked_to(&NAMES);
        }
    }

    /// An observer, linked to every voter that is up.
    pub fn observer(&self) -> Node {
        let node = Node::spawn(&self.spec);
        node.ready();
        let up = NAMES.into_iter().zip(&self.nodes);
        let up: Vec<_> = up
            .filter(|(_, node)| node.is_some())
            .map(|(name, _)| name)
            .collect();
        node.linked_to(&up);
        node
    }

    pub fn node(&self, at: usize) -> &Node {
        self.nodes[at].as_ref().expect("the voter was started")
    }

    pub fn up(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().flatten()
    }

    /// SIGKILL.
    pub fn kill(&mut self, at: usize) {
        if let Some(node) = self.nodes[at].take() {
            node.kill();
        }
    }

    /// An orderly shutdown; returns what the voter had logged.
    pub fn end(&mut self, at: usize) -> String {
        self.nodes[at].take().expect("the voter was started").end()
    }
}
