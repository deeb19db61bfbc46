//! What it was measured on and with.

use std::os::linux::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use crate::child::find;
use crate::report::format;
use crate::systems::Available;

/// The versions that this program was built with.
const LOCK: &str = include_str!("../../Cargo.lock");

/// Lines of `name: what it is`, for the page.
pub fn describe(data: &Path, available: &Available, isolated: bool) -> Vec<(String, String)> {
    let mut lines: Vec<(String, String)> = Vec::new();
    let mut line = |name: &str, value: String| lines.push((name.into(), value));
    line("Date", said("date", &["-u", "+%Y-%m-%d"]));
    line("Processor", processor());
    line("Memory", memory());
    line(
        "Kernel",
        format!("Linux {}", read("/proc/sys/kernel/osrelease")),
    );
    line("Disk", disk(data));
    line(
        "Network",
        match isolated {
            true => "loopback, in a network namespace that has nothing else".into(),
            false => "loopback".into(),
        },
    );
    line("Busy before the run", load_average());
    line("raft-once", commit());
    line("Compiler", said("rustc", &["--version"]));
    let first_line = |program: &Path| {
        let version = said(&program.display().to_string(), &["--version"]);
        version.lines().next().unwrap_or_default().to_string()
    };
    if let Some(etcd) = &available.etcd {
        line("etcd", first_line(etcd));
    }
    if let Some(redis) = &available.redis {
        line("Redis", first_line(redis));
    }
    if available.mosaik {
        line("mosaik", locked("mosaik"));
    }
    let crates = ["openraft", "iroh", "redb", "tokio", "etcd-client", "redis"];
    let crates = crates.map(|name| format!("{name} {}", locked(name)));
    line("Crates", crates.join(", "));
    lines
}

/// Settings that differ from what a system does by default; everything else is as it comes.
pub fn settings() -> Vec<(&'static str, &'static str)> {
    vec![
        (
            "raft-once",
            "three voters, each a process with a `data_dir`; an observer in the process that \
             measures; links encrypted, as they always are",
        ),
        (
            "etcd",
            "three members, each a process with a `--data-dir`; plain HTTP; `--log-level=error`",
        ),
        (
            "Redis",
            "one server; `--appendonly yes --appendfsync always --save \"\"`; plain TCP",
        ),
        (
            "mosaik",
            "three nodes, each a process, in memory; a relay server on loopback; no DHT",
        ),
    ]
}

fn processor() -> String {
    let info = read("/proc/cpuinfo");
    let names = info.lines().filter_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == "model name").then(|| value.trim().to_string())
    });
    let names: Vec<String> = names.collect();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let name = names.first().map_or("of an unnamed kind", String::as_str);
    format!("{cores} cores, {name}")
}

fn memory() -> String {
    let info = read("/proc/meminfo");
    let kib = info
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| {
            rest.trim()
                .trim_end_matches("kB")
                .trim()
                .parse::<f64>()
                .ok()
        });
    kib.map_or("unknown".into(), |kib| {
        format!("{} GiB", format::digits(kib / 1024.0 / 1024.0))
    })
}

fn load_average() -> String {
    let load = read("/proc/loadavg");
    let minute = load.split(' ').next().unwrap_or("?").to_string();
    format!("load average {minute} over the last minute")
}

/// The file system that the data lies on, and the kind of disk below.
fn disk(data: &Path) -> String {
    let Ok(metadata) = std::fs::metadata(data) else {
        return "unknown".into();
    };
    let device = metadata.st_dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let mounts = read("/proc/self/mountinfo");
    let file_system = mounts.lines().find_map(|line| {
        let of_device = line.split(' ').nth(2)? == format!("{major}:{minor}");
        let kind = line.split_once(" - ")?.1.split(' ').next()?;
        of_device.then(|| kind.to_string())
    });
    // A partition has no queue of its own: that of its disk is one folder up.
    let block = format!("/sys/dev/block/{major}:{minor}");
    let queues = ["queue/rotational", "../queue/rotational"];
    let rotational = queues.map(|queue| read(&format!("{block}/{queue}")));
    let kind = match rotational.iter().find(|text| !text.is_empty()) {
        Some(text) if text == "0" => "does not rotate",
        Some(_) => "says that it rotates, as virtual ones do too",
        None => "of an unknown kind",
    };
    let name = std::fs::canonicalize(&block).ok();
    let name = name.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    format!(
        "{} on {}, which {kind}",
        file_system.unwrap_or("an unknown file system".into()),
        name.unwrap_or("an unknown device".into()),
    )
}

fn commit() -> String {
    let folder = env!("CARGO_MANIFEST_DIR");
    let git = |args: &[&str]| said("git", &[&["-C", folder], args].concat());
    let commit = git(&["rev-parse", "--short=10", "HEAD"]);
    if commit == UNKNOWN {
        return locked("raft-once");
    }
    let changed = git(&[
        "status",
        "--porcelain",
        "--",
        "../../src",
        "../../Cargo.toml",
    ]);
    let changed = if changed.is_empty() {
        ""
    } else {
        ", changed since"
    };
    format!("{}, commit {commit}{changed}", locked("raft-once"))
}

/// The version of a crate that is used. Of several, the highest comes last.
fn locked(name: &str) -> String {
    let entry = format!("name = \"{name}\"\nversion = \"");
    let after = LOCK.rsplit_once(&entry).map(|(_, after)| after);
    let version = after.and_then(|after| after.split('"').next());
    version.unwrap_or(UNKNOWN).into()
}

const UNKNOWN: &str = "unknown";

fn said(program: &str, args: &[&str]) -> String {
    let program = find(program).unwrap_or(program.into());
    match Command::new(program).args(args).output() {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().into()
        }
        _ => UNKNOWN.into(),
    }
}

fn read(path: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.trim().into()
}
