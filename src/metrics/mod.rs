//! What a node counts. Each figure stands in the table below and nowhere else: from it come the
//! number itself, the series that is reported through the `metrics` facade, and the field of
//! [`Figures`] that `Network::status` shows. The only room that names that crate.

#[cfg(feature = "jobs")]
mod by_job;
mod series;

use ::metrics::{Key, KeyName, Label, Level, Metadata, NoopRecorder, Recorder, Unit};

pub use series::Distribution;
pub(crate) use series::{Counter, Gauge, Sizes};

static METADATA: Metadata<'static> = Metadata::new("raft_once", Level::INFO, None);

/// What is said of the series that have a label of their own; of all others their field says it.
const FAMILIES: [(&str, &str); 7] = [
    (
        "raft_once_claims_total",
        "Claims that were answered, by outcome.",
    ),
    (
        "raft_once_job_executions_total",
        "Executions of jobs that this node ran or found missed, by outcome.",
    ),
    (
        "raft_once_wakes_total",
        "Replicas that were woken, by what woke them.",
    ),
    ("raft_once_links", "Admitted links, by what the peer is."),
    (
        "raft_once_links_made_total",
        "Links that were made, by what the peer is.",
    ),
    (
        "raft_once_links_lost_total",
        "Links that have ended, by what the peer was.",
    ),
    (
        "raft_once_refusals_total",
        "Peers and requests that this node refused, by reason.",
    ),
];

macro_rules! figures {
    (
        counters { $($(#[doc = $c_doc:literal])+ $c:ident: $c_name:literal
            $([$c_label:literal = $c_value:literal])?;)+ }
        gauges { $($(#[doc = $g_doc:literal])+ $g:ident: $g_name:literal
            $([$g_label:literal = $g_value:literal])?, $g_unit:ident;)+ }
        sizes { $($(#[doc = $s_doc:literal])+ $s:ident: $s_name:literal, $s_unit:ident;)+ }
    ) => {
        /// The figures of one node, shared by all its parts.
        pub(crate) struct Counts {
            #[cfg(feature = "jobs")]
            pub(crate) by_job: by_job::ByJob,
            $(pub(crate) $c: Counter,)+
            $(pub(crate) $g: Gauge,)+
            $(pub(crate) $s: Sizes,)+
        }

        /// What a node has counted since it started, and what it has now. The same figures are
        /// reported through the [`metrics`](https://docs.rs/metrics) facade, under the names that
        /// the operations manual lists. Each is exact; all together are not of one moment.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Figures {
            $($(#[doc = $c_doc])+ pub $c: u64,)+
            $($(#[doc = $g_doc])+ pub $g: u64,)+
            $($(#[doc = $s_doc])+ pub $s: Distribution,)+
        }

        impl Counts {
            fn on(recorder: &dyn Recorder, network: &str, node: &str) -> Self {
                let key = |name: &'static str, label: Option<(&'static str, &'static str)>| {
                    let mut labels = vec![
                        Label::new("network", network.to_owned()),
                        Label::new("node", node.to_owned()),
                    ];
                    labels.extend(label.map(|(key, value)| Label::from_static_parts(key, value)));
                    Key::from_parts(name, labels)
                };
                $(
                    recorder.describe_counter(
                        KeyName::from_const_str($c_name),
                        Some(Unit::Count),
                        said_of($c_name, concat!($($c_doc),+)).into(),
                    );
                )+
                $(
                    recorder.describe_gauge(
                        KeyName::from_const_str($g_name),
                        Some(Unit::$g_unit),
                        said_of($g_name, concat!($($g_doc),+)).into(),
                    );
                )+
                $(
                    recorder.describe_histogram(
                        KeyName::from_const_str($s_name),
                        Some(Unit::$s_unit),
                        said_of($s_name, concat!($($s_doc),+)).into(),
                    );
                )+
                Self {
                    #[cfg(feature = "jobs")]
                    by_job: by_job::ByJob::on(recorder, network, node),
                    $($c: Counter::new(recorder.register_counter(
                        &key($c_name, label!($($c_label, $c_value)?)), &METADATA)),)+
                    $($g: Gauge::new(recorder.register_gauge(
                        &key($g_name, label!($($g_label, $g_value)?)), &METADATA)),)+
                    $($s: Sizes::new(recorder.register_histogram(&key($s_name, None), &METADATA)),)+
                }
            }

            pub(crate) fn figures(&self) -> Figures {
                Figures {
                    $($c: self.$c.get(),)+
                    $($g: self.$g.get(),)+
                    $($s: self.$s.get(),)+
                }
            }
        }

        /// The name of every series, and its label.
        #[cfg(test)]
        const SERIES: &[(&str, Option<(&str, &str)>)] = &[
            $(($c_name, label!($($c_label, $c_value)?)),)+
            $(($g_name, label!($($g_label, $g_value)?)),)+
            $(($s_name, None),)+
        ];
    };
}

macro_rules! label {
    () => {
        None
    };
    ($label:literal, $value:literal) => {
        Some(($label, $value))
    };
}

figures! {
    counters {
        /// Values and touches that this node's program offered: writes, claims and initialisers
        /// that were sent off. One that is retried by the library is counted once.
        proposals: "raft_once_proposals_total";
        /// Those of them that were confirmed as committed, also if another value had won.
        proposals_committed: "raft_once_proposals_committed_total";
        /// Those of them that could not be confirmed in time (`Offline`), or that the program gave up.
        proposals_unconfirmed: "raft_once_proposals_unconfirmed_total";
        /// Proposals that other nodes asked this voter to commit, each time that one was handed to it.
        proposals_of_others: "raft_once_proposals_of_others_total";
        /// Claims of this node's program that won.
        claims_won: "raft_once_claims_total" ["outcome" = "won"];
        /// Claims of this node's program that lost: another one had won.
        claims_lost: "raft_once_claims_total" ["outcome" = "lost"];
        /// Claims of this node's program that nobody confirmed in time; they may still win.
        claims_offline: "raft_once_claims_total" ["outcome" = "offline"];
        /// Executions of jobs that this node ran and that ended well.
        job_executions_succeeded: "raft_once_job_executions_total" ["outcome" = "succeeded"];
        /// Executions of jobs that this node ran and that failed, each attempt counted.
        job_executions_failed: "raft_once_job_executions_total" ["outcome" = "failed"];
        /// Ticks of jobs that this node found missed.
        job_executions_missed: "raft_once_job_executions_total" ["outcome" = "missed"];
        /// Committed commands that this voter's replicas have applied, ignored writes included.
        commands_applied: "raft_once_commands_applied_total";
        /// Slots that were decided by them. A voter that takes a decision in with a snapshot does
        /// not count it.
        decisions: "raft_once_decisions_total";
        /// Elections that this voter started, each with a vote asked for in advance.
        elections_started: "raft_once_elections_started_total";
        /// Searches for a leader that ended with this voter elected.
        elections_won: "raft_once_elections_won_total";
        /// Newborn groups that this voter led without an election.
        leaderships_by_birth: "raft_once_leaderships_by_birth_total";
        /// Groups that this voter had led when they fell asleep, and went on leading.
        leaderships_resumed: "raft_once_leaderships_resumed_total";
        /// Replicas woken by a message of Raft of another voter.
        wakes_by_message: "raft_once_wakes_total" ["cause" = "message"];
        /// Replicas woken by a proposal.
        wakes_by_proposal: "raft_once_wakes_total" ["cause" = "proposal"];
        /// Replicas woken by the first proposal of their group, which this voter leads by birth.
        wakes_by_birth: "raft_once_wakes_total" ["cause" = "birth"];
        /// Replicas woken because somebody has to know what may be committed.
        wakes_by_settling: "raft_once_wakes_total" ["cause" = "settling"];
        /// Replicas woken to help a voter that was away to catch up.
        wakes_by_help: "raft_once_wakes_total" ["cause" = "help"];
        /// Replicas put to sleep.
        sleeps: "raft_once_sleeps_total";
        /// Updates that subscribers have confirmed.
        updates_pushed: "raft_once_updates_pushed_total";
        /// Links to voters that were made.
        voter_links_made: "raft_once_links_made_total" ["kind" = "voter"];
        /// Links to observers that were made.
        observer_links_made: "raft_once_links_made_total" ["kind" = "observer"];
        /// Links to voters that have ended, replaced ones and those of a shutdown included.
        voter_links_lost: "raft_once_links_lost_total" ["kind" = "voter"];
        /// Links to observers that have ended.
        observer_links_lost: "raft_once_links_lost_total" ["kind" = "observer"];
        /// Times that a linked voter was suspected to be gone, since it left something unanswered.
        voters_suspected: "raft_once_voters_suspected_total";
        /// Peers refused because they do not prove this network's secret, or a ticket's key.
        refused_secret: "raft_once_refusals_total" ["reason" = "secret"];
        /// Peers refused because they speak another version, have another epoch or electorate, ask
        /// to vote without a voter's key, or say what makes no sense.
        refused_terms: "raft_once_refusals_total" ["reason" = "terms"];
        /// Voters refused because their disk lost its past.
        refused_past: "raft_once_refusals_total" ["reason" = "past"];
        /// Observers refused because `observer_links_max` are linked.
        refused_observer_links: "raft_once_refusals_total" ["reason" = "observer_links"];
        /// Peers sent away for a moment: this node could not judge them yet, or they were linked
        /// meanwhile.
        refused_not_ready: "raft_once_refusals_total" ["reason" = "not_ready"];
        /// Requests that cannot be understood.
        refused_malformed: "raft_once_refusals_total" ["reason" = "malformed"];
        /// Requests, and answers to them, beyond the bytes that the peer may make this node hold.
        refused_bytes: "raft_once_refusals_total" ["reason" = "bytes"];
        /// Requests about a group while as many are kept here for others as may be.
        refused_groups_in_use: "raft_once_refusals_total" ["reason" = "groups_in_use"];
        /// Subscriptions beyond what a peer may have.
        refused_subscriptions: "raft_once_refusals_total" ["reason" = "subscriptions"];
        /// Wakes refused because as many replicas were awake as may be for their cause.
        refused_awake_groups: "raft_once_refusals_total" ["reason" = "awake_groups"];
        /// New groups refused because as many are stored here as may be.
        refused_groups_stored: "raft_once_refusals_total" ["reason" = "groups_stored"];
        /// New groups refused to an observer that asks for too many at a time.
        refused_births: "raft_once_refusals_total" ["reason" = "births"];
        /// Proposals sent elsewhere because too many bytes wait for this voter's disk.
        refused_disk_queue: "raft_once_refusals_total" ["reason" = "disk_queue"];
        /// Proposals sent elsewhere because too many bytes of values wait here for a commit.
        refused_proposed_bytes: "raft_once_refusals_total" ["reason" = "proposed_bytes"];
        /// Group commits that this voter's log has synced. A voter in memory has none.
        store_syncs: "raft_once_store_syncs_total";
        /// Those of them for which nobody waited.
        store_lazy_syncs: "raft_once_store_lazy_syncs_total";
        /// Checkpoints taken.
        store_checkpoints: "raft_once_store_checkpoints_total";
    }
    gauges {
        /// Replicas that are awake, wake or fall asleep; `awake_groups_max` limits it.
        groups_awake: "raft_once_groups_awake", Count;
        /// Groups on this voter's disk; `groups_stored_max` limits it.
        groups_stored: "raft_once_groups_stored", Count;
        /// Groups that are kept in memory for other nodes.
        groups_of_others: "raft_once_groups_of_others", Count;
        /// Groups that other nodes follow at this voter, each counted once for each that does.
        subscriptions: "raft_once_subscriptions", Count;
        /// Links to other voters that are up.
        voter_links: "raft_once_links" ["kind" = "voter"], Count;
        /// Links to observers that are up; `observer_links_max` limits it.
        observer_links: "raft_once_links" ["kind" = "observer"], Count;
        /// Bytes that wait for this voter's disk; above `disk_queue_bytes_max` it takes no proposals.
        store_queue_bytes: "raft_once_store_queue_bytes", Bytes;
    }
    sizes {
        /// Batches that were synced together.
        sync_batches: "raft_once_store_sync_batches", Count;
        /// Bytes of keys and values that were synced together.
        sync_bytes: "raft_once_store_sync_bytes", Bytes;
    }
}

fn said_of(name: &str, field: &'static str) -> &'static str {
    let family = FAMILIES.iter().find(|(family, _)| *family == name);
    family.map_or(field.trim(), |(_, said)| said)
}

impl Counts {
    /// Reports to the recorder that is in force now. The handles are made once: with no recorder
    /// they are empty, and counting is a few additions.
    pub(crate) fn new(network: &str, node: &str) -> Self {
        ::metrics::with_recorder(|recorder| Self::on(recorder, network, node))
    }

    pub(crate) fn link_made(&self, is_voter: bool) {
        let (made, up) = match is_voter {
            true => (&self.voter_links_made, &self.voter_links),
            false => (&self.observer_links_made, &self.observer_links),
        };
        made.one();
        up.add(1);
    }

    pub(crate) fn link_lost(&self, is_voter: bool) {
        let (lost, up) = match is_voter {
            true => (&self.voter_links_lost, &self.voter_links),
            false => (&self.observer_links_lost, &self.observer_links),
        };
        lost.one();
        up.sub(1);
    }
}

/// Reported to nobody.
impl Default for Counts {
    fn default() -> Self {
        Self::on(&NoopRecorder, "", "")
    }
}

impl std::fmt::Debug for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.figures().fmt(f)
    }
}

impl Figures {
    /// Groups on this voter's disk whose replica is not awake. One that was woken and has never
    /// been written is awake and not stored: while there are such, the true number is higher by as
    /// many.
    pub fn groups_asleep(&self) -> u64 {
        self.groups_stored.saturating_sub(self.groups_awake)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_series_has_its_own_name_and_label() {
        let all: BTreeSet<_> = SERIES.iter().collect();
        assert_eq!(all.len(), SERIES.len());
        for (name, label) in SERIES {
            assert!(name.starts_with("raft_once_"), "{name}");
            let is_family = FAMILIES.iter().any(|(family, _)| family == name);
            assert_eq!(is_family, label.is_some(), "{name}");
        }
    }

    /// The table there is written by hand.
    #[test]
    fn the_operations_manual_lists_every_series() {
        let manual = include_str!("../../docs/operations.md");
        for (name, label) in SERIES {
            let row = manual.lines().find(|line| {
                let cell = line.split('|').nth(1).unwrap_or_default();
                cell.trim().trim_matches('`') == *name
            });
            let row = row.unwrap_or_else(|| panic!("{name} has no row"));
            if let Some((_, value)) = label {
                assert!(row.contains(&format!("`{value}`")), "{name}: {value}");
            }
        }
    }

    #[test]
    fn what_is_counted_is_what_is_shown() {
        let counts = Counts::default();
        counts.proposals.add(2);
        counts.groups_awake.add(3);
        counts.groups_stored.add(10);
        counts.sync_batches.record(7);
        let figures = counts.figures();
        assert_eq!((figures.proposals, figures.decisions), (2, 0));
        assert_eq!((figures.groups_awake, figures.groups_asleep()), (3, 7));
        assert_eq!(figures.sync_batches.sum, 7);
    }
}
