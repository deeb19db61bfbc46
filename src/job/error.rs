//! Why something about a job could not be done.

use super::JobError;
use crate::once::NoAnswer;

/// Why something about a job was not done, or is not known to be.
///
/// Exhaustive, so that a `match` handles every case.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobsError {
    /// The job is not one: the field, and what is wrong with it. Nothing was sent.
    #[error("{0}")]
    Refused(JobError),
    /// No leader could be asked, or confirmed it, within the network's write timeout. It may be
    /// committed yet: look before asking again to create a job or to run one.
    #[error(
        "no leader of the jobs has answered in time; it may be done yet: try again when a majority \
         of the voters is up and connected"
    )]
    Offline,
    /// There is no such job.
    #[error("there is no such job; it was never created, or was deleted since")]
    Missing,
    /// The namespace holds as many jobs as it may.
    #[error(
        "the namespace holds as many jobs as may be, 10,000 or 16 MiB: delete some, or use another \
         namespace"
    )]
    Full,
    /// Somebody has asked already for the job to be run now, and no worker has begun yet.
    #[error("the job was asked to run already, and no worker has begun yet")]
    Asked,
    /// The clock here and the leader's are hours apart.
    #[error("the clock of this machine and that of the leader are far apart: set them")]
    Clock,
    /// The job changes all the time; nothing was done.
    #[error("others change the job all the time; nothing was done")]
    Busy,
    /// The network was shut down.
    #[error("the network was shut down")]
    NetworkDown,
}

impl From<NoAnswer> for JobsError {
    fn from(answer: NoAnswer) -> Self {
        match answer {
            NoAnswer::Offline => Self::Offline,
            NoAnswer::NetworkDown => Self::NetworkDown,
        }
    }
}
