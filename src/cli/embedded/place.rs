//! Where the embedded store is.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::sys::statfs::statfs;

use crate::cli::problem::Problem;

/// Names the folder of the store.
const VARIABLE: &str = "ONCE_STATE_DIR";

/// The longest name of a namespace, in bytes: each may become three in a file's name.
const NAMESPACE_BYTES_MAX: usize = 80;

/// File systems whose locks or syncs other machines share, or may not: the magic numbers of statfs(2).
const REMOTE: [(i64, &str); 12] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "kAFS"),
    (0x7375_7245, "Coda"),
    (0x00c3_6400, "Ceph"),
    (0x0102_1997, "9P"),
    (0x0bd0_0bd0, "Lustre"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
];

/// The folder that all namespaces of this user are in.
pub(in crate::cli) fn state_dir() -> Result<PathBuf, Problem> {
    let from = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(folder) = from(VARIABLE) {
        return Ok(folder);
    }
    if let Some(state) = from("XDG_STATE_HOME").filter(|state| state.is_absolute()) {
        return Ok(state.join("once"));
    }
    let home = from("HOME").filter(|home| home.is_absolute());
    let home = home.ok_or_else(|| {
        Problem::usage(format!(
            "there is no HOME to keep the state in: set {VARIABLE} to a folder on a local disk"
        ))
    })?;
    Ok(home.join(".local/state/once"))
}

/// The folder of a namespace, which exists when this returns.
pub(super) fn folder_of(state: &Path, namespace: &str) -> Result<PathBuf, Problem> {
    let folder = state.join("tasks").join(file_name(namespace)?);
    make(&folder)?;
    Ok(folder)
}

/// Makes a folder for this user alone, on a file system that will do.
pub(in crate::cli) fn make(folder: &Path) -> Result<(), Problem> {
    if folder.is_dir() {
        return check(folder);
    }
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder);
    made.map_err(|error| Problem::io("cannot make the folder", folder, &error))?;
    check(folder)?;
    sync_above(folder);
    Ok(())
}

/// So that the folders themselves are there after a crash.
pub(super) fn sync_above(folder: &Path) {
    for folder in folder
        .ancestors()
        .take(4)
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        if let Ok(opened) = fs::File::open(folder) {
            // One that is not ours may refuse it, and was there before.
            let _ = opened.sync_all();
        }
    }
}

fn check(folder: &Path) -> Result<(), Problem> {
    let failed =
        |error: nix::Error| Problem::io("cannot look at the file system of", folder, &error.into());
    let kind = statfs(folder).map_err(failed)?.filesystem_type();
    // The kernel's numbers have 32 bits, and a sign on some machines.
    let kind = i64::from(kind.0 as u32);
    match REMOTE.iter().find(|(magic, _)| *magic == kind) {
        Some((_, name)) => Err(Problem::new(
            crate::cli::problem::UNAVAILABLE,
            format!(
                "{} is on a network file system ({name}), whose locks cannot be relied on: set {VARIABLE} to a \
                 folder on a local disk, or use a cluster (--ticket-file)",
                folder.display()
            ),
        )),
        None => Ok(()),
    }
}

fn file_name(namespace: &str) -> Result<String, Problem> {
    let is_good = !namespace.is_empty()
        && namespace.len() <= NAMESPACE_BYTES_MAX
        && !namespace.chars().any(char::is_control);
    if !is_good {
        return Err(Problem::usage(
            "a namespace has 1 to 80 bytes and no control characters",
        ));
    }
    let encoded = namespace.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
        _ => format!("%{byte:02x}"),
    });
    Ok(encoded.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_namespace_leads_out_of_the_folder() {
        assert_eq!(file_name("default").unwrap(), "default");
        assert_eq!(file_name("..").unwrap(), "%2e%2e");
        assert_eq!(file_name("a/b").unwrap(), "a%2fb");
        assert!(file_name("").is_err());
        assert!(file_name("a\nb").is_err());
        assert!(file_name(&"x".repeat(81)).is_err());
    }
}
