//! What a worker is to do about a job: decided from how the job stands and what the clock says, and
//! nothing else.

use jiff::Timestamp;

use super::schedule::Schedule;
use crate::machine::job::{Job, Phase, Slot, Tick};

/// For how long a tick may be late and is run all the same, in milliseconds.
pub(super) const LATE_MS_MAX: u64 = 60_000;

/// For how long it may be late because the one before it was tried until then, at least once, in
/// milliseconds.
const TRIED_MS_MAX: u64 = 5 * 60_000;

// So that those that are on time by any rule are found within it.
const _: () = assert!(LATE_MS_MAX + CLOCKS_APART_MS <= TRIED_MS_MAX);

/// How far the clocks of two nodes may be apart, with the delays of claims, in milliseconds. A tick
/// that is further behind was missed: whoever was there when it was due has claimed it by any clock.
pub(super) const CLOCKS_APART_MS: u64 = 185_000;

/// For how long a worker that has just come waits before it says that a tick was missed, in
/// milliseconds.
const SETTLE_MS: u64 = 5_000;

/// The most missed ticks of a job that are recorded at once; of more, the last ones.
const MISSED_MAX: usize = 8;

/// What a worker knows of the time, in milliseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    pub(super) now_ms: u64,
    /// Since when it has been there.
    pub(super) since_ms: u64,
    /// How much later than due it claims, so that not all do at once.
    pub(super) delay_ms: u64,
    /// How far it was ahead of the leader's clock when that was told, `CLOCKS_APART_MS` at most: by that one
    /// nothing is late that is not late there.
    pub(super) ahead_ms: u64,
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Plan {
    /// Nothing, until the job changes.
    Nothing,
    /// Look again at this time.
    At(u64),
    Claim(Slot, u32),
    /// These were missed, oldest first, with when they were due.
    Miss(Vec<(Tick, u64)>),
    /// Somebody is at it: ask the leader whether it still hears of them.
    Look,
}

pub(super) fn plan(job: &Job, schedule: &Schedule, clock: Clock) -> Plan {
    let open = job.open().next().filter(|_| job.is_at_least_once());
    if let Some(open) = open {
        let is_paused = job.is_paused && matches!(open.slot, Slot::Tick(_));
        return match job.phase(open) {
            Phase::Waiting if is_paused => Plan::Nothing,
            Phase::Waiting => Plan::Claim(open.slot, open.attempt + 1),
            _ => Plan::Look,
        };
    }
    if let Some(asked) = job.asked.filter(|asked| !asked.is_taken) {
        return Plan::Claim(Slot::Now(asked.version), 1);
    }
    if job.is_paused || job.is_over {
        return Plan::Nothing;
    }
    of_ticks(job, schedule, clock)
}

fn of_ticks(job: &Job, schedule: &Schedule, clock: Clock) -> Plan {
    let due_ms = |tick: Tick| {
        let due = schedule.due(tick)?.as_millisecond();
        u64::try_from(due).ok()
    };
    let Some((first, first_ms)) = schedule
        .next(job.last)
        .and_then(|first| Some((first, due_ms(first)?)))
    else {
        return Plan::Nothing;
    };
    if first_ms + clock.delay_ms > clock.now_ms {
        return Plan::At(first_ms + clock.delay_ms);
    }
    // What came while the tick before it was still tried was not missed, whoever was there.
    let tried = job.last_run().filter(|_| job.is_at_least_once());
    let tried = tried.and_then(|run| Some(run.at_ms.saturating_add(run.end.as_ref()?.took_ms)));
    let is_on_time = |tick: &Tick| {
        due_ms(*tick).is_some_and(|due_ms| {
            let late_ms = clock.now_ms.saturating_sub(due_ms + clock.ahead_ms);
            match tried {
                Some(until_ms) if due_ms <= until_ms => late_ms <= TRIED_MS_MAX,
                _ => due_ms >= clock.since_ms && late_ms <= LATE_MS_MAX,
            }
        })
    };
    if is_on_time(&first) {
        return Plan::Claim(Slot::Tick(first), 1);
    }
    let due = match job.spec.is_recurring {
        true => last_due(job, schedule, clock),
        false => vec![first],
    };
    let on_time = due.iter().position(is_on_time);
    let mut missed = due[..on_time.unwrap_or(due.len())].to_vec();
    let Some(last) = missed.last().copied() else {
        return match on_time {
            // More were missed than are recorded.
            Some(at) => Plan::Claim(Slot::Tick(due[at]), 1),
            None => Plan::Nothing,
        };
    };
    // While a later one is to be claimed, the leader's clock says whether anybody else's may be behind.
    let settled_ms = due_ms(last).unwrap_or(0) + CLOCKS_APART_MS;
    let settled_ms = settled_ms.max(clock.since_ms + SETTLE_MS);
    if on_time.is_none() && clock.now_ms < settled_ms {
        return Plan::At(settled_ms);
    }
    if job.is_at_least_once() {
        // The last one is run.
        missed.pop();
        if missed.is_empty() {
            return Plan::Claim(Slot::Tick(last), 1);
        }
    }
    let missed = missed
        .split_off(missed.len().saturating_sub(MISSED_MAX))
        .into_iter();
    Plan::Miss(
        missed
            .filter_map(|tick| Some((tick, due_ms(tick)?)))
            .collect(),
    )
}

/// The last ticks that are due and that nobody has taken, oldest first.
fn last_due(job: &Job, schedule: &Schedule, clock: Clock) -> Vec<Tick> {
    let now = i64::try_from(clock.now_ms).unwrap_or(i64::MAX);
    let now = Timestamp::from_millisecond(now).unwrap_or(Timestamp::MAX);
    let mut next = schedule.last_due(now);
    let mut due = Vec::new();
    // Those that are on time are behind those that were missed.
    let most = MISSED_MAX + TRIED_MS_MAX as usize / 1_000;
    while let Some(tick) = next.filter(|tick| *tick > job.last && due.len() < most) {
        due.push(tick);
        next = schedule.previous(tick);
    }
    due.reverse();
    due
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::id::Version;
    use crate::job::document;
    use crate::machine::job::{Board, Changes, Command, JobId, Step};
    use crate::machine::task::{ClaimId, Failure, Outcome};

    const NOON_MS: u64 = 1_704_110_400_000;

    /// A job, and what workers do about it; its board is the whole cluster.
    struct Story {
        board: Board,
        schedule: Schedule,
        version: u64,
        id: JobId,
        ahead_ms: u64,
    }

    impl Story {
        fn new(schedule: &str, kind: &str, is_recurring: bool) -> Self {
            let json = format!(
                r#"{{"schedule": "{schedule}", "api": "http://x/", "type": "{kind}", "isRecurring": {is_recurring}}}"#
            );
            // An hour before noon.
            let now = Timestamp::from_millisecond(NOON_MS as i64 - 3_600_000).unwrap();
            let spec = document::read(&json, now).unwrap();
            let zone = jiff::tz::TimeZone::get(&spec.zone).unwrap();
            let mut story = Self {
                board: Board::default(),
                schedule: Schedule::parse(&spec.schedule, zone).unwrap(),
                version: 0,
                id: JobId::of(Version::new(1)),
                ahead_ms: 0,
            };
            story.put(0, NOON_MS, Step::Create(spec.into()));
            story
        }

        fn put(&mut self, n: u8, at_ms: u64, step: Step) -> bool {
            self.version += 1;
            let command = Command {
                job: self.id,
                id: ClaimId([n; 16]),
                by: format!("node {n}"),
                seen: Version::new(self.version),
                at_ms,
                step,
            };
            let version = Version::new(self.version);
            let answer = self.board.apply(version, &command, &mut Changes::default());
            answer.refused.is_none()
        }

        fn job(&self) -> Arc<Job> {
            self.board.get(self.id).unwrap().clone()
        }

        fn plan(&self, now_ms: u64, since_ms: u64) -> Plan {
            let clock = Clock {
                now_ms,
                since_ms,
                delay_ms: 0,
                ahead_ms: self.ahead_ms,
            };
            plan(&self.job(), &self.schedule, clock)
        }

        /// Does all that there is to do at a time; what was called.
        fn act(&mut self, now_ms: u64, since_ms: u64, success: bool) -> Vec<String> {
            self.act_under(now_ms, now_ms, since_ms, success)
        }

        fn act_under(
            &mut self,
            leader_ms: u64,
            now_ms: u64,
            since_ms: u64,
            success: bool,
        ) -> Vec<String> {
            let mut called = Vec::new();
            loop {
                match self.plan(now_ms, since_ms) {
                    Plan::Claim(slot, attempt) => {
                        let n = (self.version % 90) as u8 + 1;
                        assert!(self.put(n, now_ms, Step::Claim { slot, attempt }));
                        called.push(slot.to_string());
                        let outcome = match success {
                            true => Outcome::SUCCESS,
                            false => Outcome::Failed(Failure::Error("HTTP 503".into())),
                        };
                        assert!(self.put(n, now_ms, Step::Finish { slot, outcome }));
                    }
                    Plan::Miss(ticks) => {
                        for (tick, due_ms) in ticks {
                            // As a leader judges.
                            if due_ms + 5_000 > leader_ms {
                                return called;
                            }
                            assert!(self.put(99, now_ms, Step::Miss { tick, due_ms }));
                        }
                    }
                    _ => return called,
                }
            }
        }

        /// What was due until then is over.
        fn schedule_until(&mut self, ms: u64) {
            let after = Tick::of_utc(ms).unwrap();
            assert!(self.put(98, ms, Step::Pause));
            assert!(self.put(97, ms, Step::Resume { after }));
        }

        fn missed(&self) -> usize {
            let job = self.job();
            let executions = job.executions.iter();
            executions
                .filter(|execution| job.phase(execution) == Phase::Missed)
                .count()
        }
    }

    const MINUTE: u64 = 60_000;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;

    #[test]
    fn a_tick_is_run_when_it_is_due_and_the_next_one_is_waited_for() {
        for success in [true, false] {
            let mut story = Story::new("0 0 12 * * MON-FRI", "AT_MOST_ONCE", true);
            let since = NOON_MS - HOUR;
            assert_eq!(story.plan(NOON_MS - 1, since), Plan::At(NOON_MS));
            // A Monday, a Tuesday, and so on: whatever the one before did.
            assert_eq!(story.act(NOON_MS, since, success), ["2024-01-01T12:00:00"]);
            assert_eq!(story.plan(NOON_MS, since), Plan::At(NOON_MS + DAY));
            let next = story.act(NOON_MS + DAY + 5_000, since, success);
            assert_eq!(next, ["2024-01-02T12:00:00"]);
        }
    }

    #[test]
    fn what_does_not_recur_is_run_once_after_success_and_after_failure() {
        for success in [true, false] {
            let mut story = Story::new("0 0 12 * * *", "AT_MOST_ONCE", false);
            assert_eq!(story.act(NOON_MS, NOON_MS - HOUR, success).len(), 1);
            assert_eq!(story.plan(NOON_MS + 10 * DAY, NOON_MS), Plan::Nothing);
        }
    }

    #[test]
    fn what_came_while_nobody_was_there_is_recorded_and_not_run() {
        let mut story = Story::new("0 0 12 * * *", "AT_MOST_ONCE", false);
        let since = NOON_MS + 1_000;
        // Somebody whose clock is behind may be there.
        assert_eq!(
            story.plan(since, since),
            Plan::At(NOON_MS + CLOCKS_APART_MS)
        );
        assert!(story.act(NOON_MS + CLOCKS_APART_MS, since, true).is_empty());
        assert_eq!(story.missed(), 1);
        assert_eq!(story.plan(NOON_MS + 10 * DAY, since), Plan::Nothing);
    }

    #[test]
    fn of_what_was_missed_the_last_one_is_run_at_least_once() {
        let mut story = Story::new("0 0 12 * * *", "AT_LEAST_ONCE", true);
        let since = NOON_MS + 3 * DAY + HOUR;
        assert_eq!(
            story.act(since + 5_000, since, true),
            ["2024-01-04T12:00:00"]
        );
        assert_eq!(story.missed(), 3);
        let plan = story.plan(since + 6_000, since);
        assert_eq!(plan, Plan::At(NOON_MS + 4 * DAY));
    }

    #[test]
    fn of_very_many_missed_ticks_the_last_ones_are_recorded() {
        let mut story = Story::new("* * * * * *", "AT_MOST_ONCE", true);
        let since = NOON_MS + 30 * DAY;
        // The first that is on time is run, and nothing before it.
        let called = story.act(since + 6_000, since, true);
        assert_eq!(called.len(), 7);
        assert_eq!(called[0], "2024-01-31T12:00:00");
        assert!(story.missed() > 3, "{}", story.missed());
    }

    #[test]
    fn clocks_that_are_apart_call_once_a_tick() {
        let apart = CLOCKS_APART_MS as i64 - 5_000;
        for (ahead, leader) in [
            ([0_i64, 90_000, -90_000], 0),
            ([90_000, -90_000, 0], 0),
            ([90_000, -90_000, 0], -90_000),
            ([apart, 0, 0], 0),
            ([30_000, 0, -30_000], 0),
            ([90_000, -90_000, 0], 90_000),
        ] {
            for (schedule, every) in [("0 * * * * *", 60), ("*/10 * * * * *", 10)] {
                let mut story = Story::new(schedule, "AT_MOST_ONCE", true);
                story.schedule_until(NOON_MS - 1_000 * every);
                let mut called = Vec::new();
                // All start at once, just before a tick.
                let start = NOON_MS - 5_000;
                for second in 0..900 {
                    let at = |clock: i64, ms: u64| ms.saturating_add_signed(clock);
                    let now = start + second * 1_000;
                    for clock in ahead {
                        let (now_ms, since_ms) = (at(clock, now), at(clock, start));
                        called.extend(story.act_under(at(leader, now), now_ms, since_ms, true));
                    }
                }
                // Each from noon on, and none is passed over, but at the start by a leader that is ahead.
                let tick = |n: u64| {
                    Tick::of_utc(NOON_MS + n * every * 1_000)
                        .unwrap()
                        .to_string()
                };
                let passed = if leader > 0 { 90 / every } else { 0 };
                let all: Vec<_> = (0..called.len() as u64 + passed).map(tick).collect();
                let run = all.iter().filter(|tick| called.contains(tick)).count();
                assert_eq!(run, called.len(), "{schedule}, ahead {ahead:?}, {leader}");
                assert!(called.is_sorted() && called.len() as u64 >= 890 / every - passed);
                if passed == 0 {
                    assert_eq!(
                        (called, story.missed()),
                        (all, 0),
                        "{schedule}, ahead {ahead:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn whoever_comes_after_an_outage_goes_on_at_once_and_records_what_was_missed() {
        for kind in ["AT_MOST_ONCE", "AT_LEAST_ONCE"] {
            let mut story = Story::new("* * * * * *", kind, true);
            story.schedule_until(NOON_MS);
            let since = NOON_MS + 10_000;
            assert!(story.act(since - 1, since, true).is_empty());
            // Not before it is sure that nobody is there.
            assert!(story.act(since, since, true).is_empty());
            let called = story.act(since + 5_000, since, true);
            assert_eq!(called.last().unwrap(), "2024-01-01T12:00:15");
            assert!((6..=7).contains(&called.len()), "{called:?}");
            assert!(story.missed() >= 8, "{}", story.missed());
        }
    }

    #[test]
    fn what_came_while_the_tick_before_it_was_tried_is_run_at_least_once() {
        let mut story = Story::new("*/10 * * * * *", "AT_LEAST_ONCE", true);
        story.schedule_until(NOON_MS - 10_000);
        let claim = Step::Claim {
            slot: Slot::Tick(Tick::of_utc(NOON_MS).unwrap()),
            attempt: 1,
        };
        assert!(story.put(1, NOON_MS, claim));
        let slot = Slot::Tick(Tick::of_utc(NOON_MS).unwrap());
        // Its worker dies, and the one that goes on has come since.
        let now = NOON_MS + 45_000;
        assert!(story.put(1, now, Step::Expire { slot }));
        let claim = Step::Claim { slot, attempt: 2 };
        assert!(story.put(2, now, claim));
        let outcome = Outcome::SUCCESS;
        assert!(story.put(2, now, Step::Finish { slot, outcome }));
        assert_eq!(story.act(now, now, true).len(), 4);
        assert_eq!(story.missed(), 0);
        // Not for ever.
        let mut story = Story::new("*/10 * * * * *", "AT_LEAST_ONCE", true);
        story.schedule_until(NOON_MS - 10_000);
        assert!(story.put(1, NOON_MS, Step::Claim { slot, attempt: 1 }));
        let now = NOON_MS + 2 * TRIED_MS_MAX;
        let outcome = Outcome::SUCCESS;
        assert!(story.put(1, now, Step::Finish { slot, outcome }));
        let called = story.act(now, NOON_MS - HOUR, true);
        // The last of those that were missed, and what came within five minutes.
        assert!((30..=32).contains(&called.len()), "{called:?}");
    }

    #[test]
    fn a_leader_whose_clock_is_behind_holds_up_no_ticks_for_long() {
        let mut story = Story::new("* * * * * *", "AT_MOST_ONCE", true);
        story.schedule_until(NOON_MS);
        let (since, behind) = (NOON_MS + 10_000, 120_000);
        let mut called = 0;
        for second in 0..240 {
            let now = since + second * 1_000;
            let run = story.act_under(now - behind, now, since, true);
            called += run.len();
            // It was told so.
            story.ahead_ms = behind;
        }
        // All that came since, when those before it are known to be missed.
        assert!(called > 200, "{called}");
    }

    #[test]
    fn an_attempt_that_failed_is_followed_by_the_next_and_a_running_one_is_looked_after() {
        let mut story = Story::new("0 0 12 * * *", "AT_LEAST_ONCE", true);
        let since = NOON_MS - HOUR;
        let Plan::Claim(slot, 1) = story.plan(NOON_MS, since) else {
            panic!("it is due");
        };
        assert!(story.put(1, NOON_MS, Step::Claim { slot, attempt: 1 }));
        assert_eq!(story.plan(NOON_MS + 2 * DAY, since), Plan::Look);
        assert!(story.put(1, NOON_MS, Step::Expire { slot }));
        assert_eq!(story.plan(NOON_MS, since), Plan::Claim(slot, 2));
        story.put(9, NOON_MS, Step::Pause);
        assert_eq!(story.plan(NOON_MS, since), Plan::Nothing);
    }
}
