//! What is compared: how each is started, asked, and killed.

pub mod etcd;
#[cfg(feature = "mosaik")]
pub mod mosaik;
#[cfg(feature = "mosaik")]
pub mod mosaik_node;
pub mod raft_once;
pub mod redis;
pub mod voter;

use std::path::PathBuf;

use crate::child::find;

/// Which of them can run here, and for those that cannot, what to do about it.
pub struct Available {
    pub etcd: Option<PathBuf>,
    pub redis: Option<PathBuf>,
    pub mosaik: bool,
    /// A line for each that is missing.
    pub missing: Vec<String>,
}

impl Available {
    /// `isolated`: nothing but loopback can be reached from here.
    pub fn look(isolated: bool) -> Self {
        let mut missing = Vec::new();
        let mut program = |name: &str, system: &str, packages: &str| {
            let found = find(name);
            if found.is_none() {
                missing.push(format!(
                    "{system} was skipped: `{name}` is not installed. \
                     `apt-get install {packages}` brings it."
                ));
            }
            found
        };
        let etcd = program("etcd", "etcd", "etcd-server");
        let redis = program("redis-server", "Redis", "redis-server");
        let mosaik = cfg!(feature = "mosaik");
        if !mosaik {
            missing.push("mosaik was skipped: this was built without the feature `mosaik`.".into());
        } else if !isolated {
            missing.push(
                "mosaik was skipped: its nodes look for servers on the internet, so they run only \
                 where nothing but loopback can be reached, and no network namespace could be made \
                 here. `apt-get install iproute2 util-linux`, and root or unprivileged user \
                 namespaces, make that possible."
                    .into(),
            );
        }
        Self {
            etcd,
            redis,
            mosaik: mosaik && isolated,
            missing,
        }
    }
}
