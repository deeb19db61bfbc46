//! What a run has: its plan, its systems, its folder, and numbers that nobody has used.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::load::Load;
use crate::plan::Plan;
use crate::systems::Available;

pub struct Run {
    pub plan: Plan,
    pub available: Available,
    folder: TempDir,
    folders: u32,
    next: u64,
}

impl Run {
    pub fn new(plan: Plan, available: Available) -> Result<Self> {
        let root = data_root()?;
        std::fs::create_dir_all(&root)?;
        sweep(&root)?;
        let folder = tempfile::Builder::new()
            .prefix(&format!("{}-", std::process::id()))
            .tempdir_in(&root)?;
        on_a_real_disk(folder.path())?;
        Ok(Self {
            plan,
            available,
            folder,
            folders: 0,
            next: 0,
        })
    }

    /// Where all data lies.
    pub fn data(&self) -> &Path {
        self.folder.path()
    }

    /// A new folder for a system.
    pub fn folder(&mut self, system: &str) -> PathBuf {
        self.folders += 1;
        self.data().join(format!("{system}-{}", self.folders))
    }

    /// So many numbers that no other measurement has.
    pub fn numbers(&mut self, count: u64) -> u64 {
        let first = self.next;
        self.next += count;
        first
    }

    pub fn load(&mut self, count: u64, within: Duration, clients: u64) -> Load {
        Load {
            first: self.numbers(count),
            count,
            within,
            clients,
        }
    }

    /// A measurement of the plan's size.
    pub fn measure(&mut self, clients: u64) -> Load {
        self.load(self.plan.operations, self.plan.within, clients)
    }

    /// What comes before it.
    pub fn warm_up(&mut self, clients: u64) -> Load {
        let count = self.plan.warm_up.max(clients);
        self.load(count, self.plan.within, clients)
    }

    /// All of them, whatever time they take within reason.
    pub fn all(&mut self, count: u64, clients: u64) -> Load {
        self.load(count, Duration::from_secs(60), clients)
    }
}

/// In the target folder of this program, wherever that was put: on the disk that people build on.
fn data_root() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.parent().and_then(Path::parent);
    Ok(target.context("a program in a folder")?.join("peers-data"))
}

/// Removes what runs have left that were killed outright.
fn sweep(root: &Path) -> Result<()> {
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let pid = name.split('-').next().unwrap_or_default();
        if !Path::new("/proc").join(pid).exists() {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn on_a_real_disk(folder: &Path) -> Result<()> {
    // Magic numbers of Linux: tmpfs and ramfs.
    const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];
    let kind = rustix::fs::statfs(folder)?.f_type;
    ensure!(
        !IN_MEMORY.contains(&kind),
        "{} is in memory, where a sync costs nothing: set CARGO_TARGET_DIR to a place on a disk",
        folder.display()
    );
    Ok(())
}
