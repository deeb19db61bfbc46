//! Where the nodes of a life are: a network namespace and a small disk each, as far as the machine
//! allows it; else ports of loopback and ordinary folders.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::process::netns::{self, Netns, must, must_all};
use crate::process::{SECRET, Spec, announce, free_addr};

pub const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

const PORT: u16 = 7400;

/// A voter's disk. Its log is a few segments, its checkpoint a KiB for each cell of a life.
const DISK_BYTES: u64 = 48 * 1024 * 1024;

/// Nodes take proposals for so long before they hand them back.
pub const WRITE_TIMEOUT_MS: u64 = 5_000;

/// So small that a life sees many of them begin and go.
const SEGMENT_BYTES: u64 = 128 * 1024;

/// What the processes log: an `EnvFilter`, `raft_once=debug` for all that helps with a failure.
const LOG: &str = "RAFT_ONCE_FAULT_LOG";

const FOLDER_PREFIX: &str = "raft-once-faults-";

/// Nobody has it: what is sent to it is lost in silence.
const MAC_OF_NOBODY: &str = "02:00:00:00:ff:ff";

pub struct Lab {
    pub voters: usize,
    /// Voters and observers.
    pub nodes: usize,
    spaces: Option<Spaces>,
    ports: Vec<String>,
    disks: Vec<Tmpfs>,
    // Last: the disks are mounted in it.
    dir: TempDir,
}

struct Spaces {
    nodes: Vec<Netns>,
    switch: Netns,
    hosts: PathBuf,
    /// Which of its addresses a node has.
    nets: Vec<u8>,
}

/// A file system in memory, gone when dropped.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: PathBuf) -> Result<Self, String> {
        fs::create_dir_all(&at).map_err(|error| error.to_string())?;
        let size = format!("size={DISK_BYTES}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "none"]).arg(&at);
        let output = mount.output().map_err(|error| error.to_string())?;
        match output.status.success() {
            true => Ok(Self(at)),
            false => Err(String::from_utf8_lossy(&output.stderr).trim().into()),
        }
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        unmount(&self.0);
    }
}

fn unmount(at: &Path) {
    // Lazily: a process that is about to end may have a file of it open.
    let _ = Command::new("umount").arg("-l").arg(at).output();
}

/// What runs that were killed have left behind.
pub fn sweep() {
    netns::sweep();
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    for at in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
        if is_left_behind(Path::new(at)) {
            unmount(Path::new(at));
        }
    }
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten() {
        let Ok(path) = entry.map(|entry| entry.path()) else {
            continue;
        };
        if is_left_behind(&path) {
            let _ = fs::remove_dir_all(path);
        }
    }
}

fn is_left_behind(path: &Path) -> bool {
    let pid = path.components().find_map(|part| {
        let rest = part.as_os_str().to_str()?.strip_prefix(FOLDER_PREFIX)?;
        rest.split('-').next()
    });
    pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists())
}

impl Lab {
    pub fn new(voters: usize, observers: usize, in_spaces: bool) -> Self {
        let prefix = format!("{FOLDER_PREFIX}{}-", std::process::id());
        let dir = tempfile::Builder::new().prefix(&prefix).tempdir();
        let dir = dir.expect("a temporary folder");
        let nodes = voters + observers;
        fs::create_dir(dir.path().join("history")).expect("the folder is ours");
        let spaces = in_spaces.then(|| Spaces::new(nodes, dir.path().join("hosts")));
        let spaces = spaces.and_then(|spaces| match spaces {
            Ok(spaces) => Some(spaces),
            Err(error) => {
                announce(&format!(
                    "LEFT OUT: no network namespaces here ({error}): links are cut inside the \
                     transport, and no address changes"
                ));
                None
            }
        });
        let disks = NAMES[..voters].iter();
        let disks = disks.map(|name| Tmpfs::mount(dir.path().join(format!("disk-{name}"))));
        let disks = disks
            .collect::<Result<Vec<_>, _>>()
            .unwrap_or_else(|error| {
                announce(&format!(
                    "LEFT OUT: no file system can be mounted here ({error}): no disk is filled"
                ));
                Vec::new()
            });
        Self {
            voters,
            nodes,
            ports: (0..voters).map(|_| free_addr()).collect(),
            spaces,
            disks,
            dir,
        }
    }

    /// Whether somebody wants to see what the processes log.
    pub fn logs(&self) -> bool {
        std::env::var_os(LOG).is_some()
    }

    pub fn has_spaces(&self) -> bool {
        self.spaces.is_some()
    }

    pub fn has_disks(&self) -> bool {
        !self.disks.is_empty()
    }

    pub fn histories(&self) -> PathBuf {
        self.dir.path().join("history")
    }

    /// What all clients of this life have noted. A last line that was cut short by the death of
    /// its process never counted: what it tells of had not begun, or was never answered.
    pub fn history_lines(&self) -> String {
        let mut lines = String::new();
        for entry in fs::read_dir(self.histories()).expect("the folder is ours") {
            let path = entry.expect("the folder is ours").path();
            let text = fs::read_to_string(path).expect("it is text");
            let whole = text.rfind('\n').map_or(0, |end| end + 1);
            lines += &text[..whole];
        }
        lines
    }

    pub fn name(&self, node: usize) -> String {
        match node < self.voters {
            true => NAMES[node].into(),
            false => format!("observer {}", node - self.voters),
        }
    }

    /// What a node's process is to run. `anywhere`: it binds all its addresses.
    pub fn spec(&self, network: &str, node: usize, anywhere: bool) -> Spec {
        let names = NAMES[..self.voters].iter();
        let voters = names.zip(&self.ports).map(|(name, port)| {
            let addr = match self.spaces {
                Some(_) => format!("voter-{name}:{PORT}"),
                None => port.clone(),
            };
            (name.to_string(), addr)
        });
        let is_voter = node < self.voters;
        let bind = self.spaces.as_ref().map(|spaces| match anywhere {
            true => format!("0.0.0.0:{PORT}"),
            false => format!("{}:{PORT}", spaces.ip(node)),
        });
        Spec {
            network: network.into(),
            voters: voters.collect(),
            voter: is_voter.then(|| self.name(node)),
            dir: is_voter.then(|| self.disk(node).join("data")),
            secret: Some(SECRET.into()),
            bind,
            write_timeout_ms: Some(WRITE_TIMEOUT_MS),
            segment_bytes: Some(SEGMENT_BYTES),
            log: std::env::var(LOG).ok(),
            log_times: true,
            netns: self.spaces.as_ref().map(|s| s.nodes[node].0.clone()),
            hosts: self.spaces.as_ref().map(|spaces| spaces.hosts.clone()),
            ..Spec::default()
        }
    }

    fn disk(&self, voter: usize) -> PathBuf {
        self.dir.path().join(format!("disk-{}", NAMES[voter]))
    }

    /// Leaves no byte free on a voter's disk.
    pub fn fill_disk(&self, voter: usize) {
        let ballast = fs::File::create(self.disk(voter).join("ballast"));
        let mut ballast = ballast.expect("a ballast can be begun");
        for bytes in [1024 * 1024, 4096, 1] {
            let zeros = vec![0; bytes];
            let full = loop {
                if let Err(error) = ballast.write_all(&zeros) {
                    break error;
                }
            };
            assert_eq!(full.kind(), std::io::ErrorKind::StorageFull, "{full}");
        }
    }

    pub fn empty_disk(&self, voter: usize) {
        fs::remove_file(self.disk(voter).join("ballast")).expect("the ballast is there");
    }

    fn spaces(&self) -> &Spaces {
        self.spaces.as_ref().expect("there are namespaces")
    }

    /// What one node sends to another is lost, in silence; or arrives again.
    pub fn cut(&self, from: usize, to: usize, cut: bool) {
        let spaces = self.spaces();
        let mac = match cut {
            true => MAC_OF_NOBODY.into(),
            false => mac(to),
        };
        must_all(&spaces.nodes[from].0, &neighbours(to, &mac));
    }

    /// Takes a node's plug out of the switch, or puts it back.
    pub fn unplug(&self, node: usize, unplug: bool) {
        let switch = &self.spaces().switch.0;
        let master = match unplug {
            true => "nomaster",
            false => "master br0",
        };
        must(&format!("-n {switch} link set port{node} {master}"));
    }

    /// Gives a node its other address, also where its name is looked up.
    pub fn renumber(&mut self, node: usize) {
        let spaces = self.spaces.as_mut().expect("there are namespaces");
        let old = spaces.ip(node);
        spaces.nets[node] = 3 - spaces.nets[node];
        let commands = [
            format!("addr del {old}/16 dev eth0"),
            format!("addr add {}/16 dev eth0", spaces.ip(node)),
        ];
        must_all(&spaces.nodes[node].0, &commands);
        spaces.write_hosts(self.voters);
    }

    /// Takes a node's address away, or gives it back.
    pub fn bare(&self, node: usize, bare: bool) {
        let spaces = self.spaces();
        let change = if bare { "del" } else { "add" };
        let (space, ip) = (&spaces.nodes[node].0, spaces.ip(node));
        must(&format!("-n {space} addr {change} {ip}/16 dev eth0"));
    }

    /// The address that the system says a node has.
    pub fn has_ip(&self, node: usize) -> bool {
        let spaces = self.spaces();
        let shown = netns::ip(&format!("-n {} addr show dev eth0", spaces.nodes[node].0));
        let shown = shown.expect("the namespace is there");
        shown.contains(&format!(" {}/16 ", spaces.ip(node)))
    }
}

fn mac(node: usize) -> String {
    format!("02:00:00:00:00:{:02x}", node + 1)
}

/// Both addresses of a node are found there, and nobody ever asks for them.
fn neighbours(node: usize, mac: &str) -> Vec<String> {
    let ips = [1, 2].map(|net| format!("10.77.{net}.{}", node + 1));
    ips.map(|ip| format!("neigh replace {ip} lladdr {mac} dev eth0 nud permanent"))
        .into()
}

impl Spaces {
    fn new(count: usize, hosts: PathBuf) -> Result<Self, String> {
        let nodes: Vec<_> = (0..count).map(|_| Netns::new()).collect::<Result<_, _>>()?;
        let switch = Netns::new()?;
        let spaces = Self {
            nodes,
            switch,
            hosts,
            nets: vec![1; count],
        };
        let switch = &spaces.switch.0;
        must(&format!("-n {switch} link add br0 type bridge"));
        must(&format!("-n {switch} link set br0 up"));
        for (node, space) in spaces.nodes.iter().enumerate() {
            let mut commands = vec![
                format!("link add eth0 type veth peer name port{node} netns {switch}"),
                format!("link set eth0 address {} up", mac(node)),
                format!("addr add {}/16 dev eth0", spaces.ip(node)),
            ];
            for other in (0..count).filter(|other| *other != node) {
                commands.extend(neighbours(other, &mac(other)));
            }
            must_all(&space.0, &commands);
            must(&format!("-n {switch} link set port{node} master br0 up"));
        }
        spaces.write_hosts(NAMES.len().min(count));
        Ok(spaces)
    }

    fn ip(&self, node: usize) -> String {
        format!("10.77.{}.{}", self.nets[node], node + 1)
    }

    /// In place: the file is mounted in the processes. A name that is looked up meanwhile may
    /// not be found, and is looked up again.
    fn write_hosts(&self, voters: usize) {
        let lines = NAMES[..voters].iter().enumerate();
        let lines = lines.map(|(voter, name)| format!("{} voter-{name}\n", self.ip(voter)));
        let text = format!("127.0.0.1 localhost\n{}", lines.collect::<String>());
        fs::write(&self.hosts, text).expect("the folder is ours");
    }
}
