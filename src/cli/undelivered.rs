//! Outcomes that no majority could be told of: each is a file in the state directory until a later
//! `once` has delivered it. A claim stays its executor's, so that it is never too late to say how it
//! ended, unless an operator or another attempt was faster.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::embedded::{make, state_dir};
use super::problem::Problem;
use crate::network::Network;
use crate::task::{ClaimId, Failure, Outcome, TaskError, Tasks};

/// More are not kept: something is wrong for long, and nobody looks.
const RECORDS_MAX: usize = 10_000;

/// The most that one call delivers, so that none takes long.
const DELIVERED_AT_ONCE_MAX: usize = 100;

/// What a record takes at most.
const RECORD_BYTES_MAX: u64 = 16 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Record {
    cluster: String,
    namespace: String,
    task: String,
    claim: String,
    outcome: Ended,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Ended {
    ExitCode(i32),
    Signal(i32),
    Error(String),
}

impl Record {
    pub(super) fn new(
        cluster: &str,
        namespace: &str,
        task: &str,
        claim: ClaimId,
        outcome: &Outcome,
    ) -> Self {
        Self {
            cluster: cluster.into(),
            namespace: namespace.into(),
            task: task.into(),
            claim: claim.to_string(),
            outcome: match outcome {
                Outcome::Succeeded { code } => Ended::ExitCode(*code),
                Outcome::Failed(Failure::Exit(code)) => Ended::ExitCode(*code),
                Outcome::Failed(Failure::Signal(signal)) => Ended::Signal(*signal),
                Outcome::Failed(Failure::Error(reason)) => Ended::Error(reason.clone()),
            },
        }
    }

    fn outcome(&self) -> Outcome {
        match &self.outcome {
            Ended::ExitCode(0) => Outcome::SUCCESS,
            Ended::ExitCode(code) => Outcome::Failed(Failure::Exit(*code)),
            Ended::Signal(signal) => Outcome::Failed(Failure::Signal(*signal)),
            Ended::Error(reason) => Outcome::Failed(Failure::Error(reason.clone())),
        }
    }

    /// Keeps it for later. The path of its file.
    pub(super) fn keep(&self) -> Result<PathBuf, Problem> {
        let folder = folder()?;
        make(&folder)?;
        let path = folder.join(&self.claim);
        self.write(&folder, &path)
            .map_err(|error| Problem::io("cannot write", &path, &error))?;
        Ok(path)
    }

    fn write(&self, folder: &Path, path: &Path) -> io::Result<()> {
        if fs::read_dir(folder)?.count() >= RECORDS_MAX {
            return Err(io::Error::other(
                "there are 10,000 outcomes already that were not delivered",
            ));
        }
        let new = path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(folder)?.sync_all()
    }

    async fn deliver(&self, network: &Network) -> Result<(), TaskError> {
        let Ok(claim) = self.claim.parse() else {
            return Ok(());
        };
        let task = Tasks::new(network, &self.namespace).task(&self.task);
        match task.finish(claim, self.outcome()).await {
            Err(error @ (TaskError::Offline | TaskError::NetworkDown | TaskError::Busy)) => {
                Err(error)
            }
            // What is refused now is so for good.
            _ => Ok(()),
        }
    }
}

fn folder() -> Result<PathBuf, Problem> {
    Ok(state_dir()?.join("undelivered"))
}

/// Delivers what is kept for this cluster. What cannot be delivered stays for another time.
pub(super) async fn deliver(network: &Network, cluster: &str) {
    let Ok(entries) = folder().map(fs::read_dir) else {
        return;
    };
    let all = entries.into_iter().flatten().flatten();
    let ours = all.filter_map(|entry| {
        let path = entry.path();
        let record = read(&path).filter(|record| record.cluster == cluster)?;
        Some((path, record))
    });
    for (path, record) in ours.take(DELIVERED_AT_ONCE_MAX) {
        if record.deliver(network).await.is_err() {
            return;
        }
        // If it stays it is delivered again, which changes nothing.
        let _ = fs::remove_file(path);
    }
}

fn read(path: &Path) -> Option<Record> {
    if path.extension().is_some() || fs::metadata(path).ok()?.len() > RECORD_BYTES_MAX {
        return None;
    }
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}
