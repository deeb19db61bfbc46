//! What the document of AT_MOST_ONCE jobs says of them, told over days: its three examples and its
//! three error scenarios. Real calls are in `job/tests.rs`.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::jobs::{Lab, history, simulated, until_second};
use crate::job::{Execution, JobId, State};
use crate::machine::task::{Failure, Outcome};

const HOUR: u64 = 60 * 60;
const NOON: u64 = 12 * HOUR;
const DAY: u64 = 24 * HOUR;

const ONE_TIME: &str = r#"{
  "schedule": "0 0 12 * * *",
  "api": "https://example.com/send-notification",
  "type": "AT_MOST_ONCE",
  "isRecurring": false,
  "description": "Send one-time notification"
}"#;

const RECURRING: &str = r#"{
  "schedule": "0 0 12 * * MON-FRI",
  "api": "https://example.com/daily-report",
  "type": "AT_MOST_ONCE",
  "isRecurring": true,
  "description": "Daily report (at most once per day)"
}"#;

/// The simulation begins at midnight, on a Thursday.
fn noon_of(day: u32) -> String {
    format!("2026-01-0{day}T12:00:00")
}

fn failed(reason: &str) -> Outcome {
    Outcome::Failed(Failure::Error(reason.into()))
}

async fn create(lab: &mut Lab, json: &str) -> JobId {
    let made = lab.jobs(0).create(json).await.unwrap();
    lab.hire(None);
    made.id()
}

/// The one execution of a job whose schedule is gone by the next day, and how often it was called.
async fn one_time(lab: &mut Lab, job: JobId) -> (Execution, usize) {
    until_second(DAY + NOON + HOUR).await;
    let status = lab.jobs(0).get(job).await.unwrap().unwrap();
    assert!(status.is_over(), "the schedule is gone");
    let mut all = status.history();
    assert_eq!(all.len(), 1, "{all:?}");
    (all.remove(0), lab.called(job).len())
}

#[test]
fn example_1_a_call_that_succeeds_is_made_once_and_the_schedule_is_gone() {
    simulated(1, 1, async |lab| {
        let job = create(lab, ONE_TIME).await;
        until_second(NOON - 1).await;
        assert!(lab.called(job).is_empty());
        let (execution, calls) = one_time(lab, job).await;
        assert_eq!((execution.state, calls), (State::Succeeded, 1));
        assert_eq!(execution.slot.to_string(), noon_of(1));
        let json = execution.to_json();
        assert_eq!(json["id"], job.as_u64());
        assert_eq!(
            (&json["status"], &json["retryCount"]),
            (&"SUCCESS".into(), &0.into())
        );
        assert_eq!(json["executionTime"], "2026-01-01T12:00:00Z");
    });
}

#[test]
fn example_2_a_call_that_fails_is_not_made_again_and_the_schedule_is_gone() {
    simulated(2, 1, async |lab| {
        lab.answer = Arc::new(|_| Box::pin(async { failed("API call failed") }));
        let job = create(lab, ONE_TIME).await;
        let (execution, calls) = one_time(lab, job).await;
        assert_eq!((execution.state, calls), (State::Failed, 1));
        let json = execution.to_json();
        assert_eq!(
            (&json["status"], &json["retryCount"]),
            (&"FAILED".into(), &0.into())
        );
        assert_eq!(json["error"], "API call failed");
    });
}

#[test]
fn example_3_each_working_day_has_its_call_whatever_came_of_the_one_before() {
    simulated(3, 1, async |lab| {
        lab.answer = Arc::new(|key| {
            let is_friday = key.ends_with(&noon_of(2));
            Box::pin(async move {
                match is_friday {
                    true => failed("API call failed"),
                    false => Outcome::SUCCESS,
                }
            })
        });
        let job = create(lab, RECURRING).await;
        // Thursday, Friday, and over the weekend to Monday.
        until_second(4 * DAY + NOON + HOUR).await;
        assert_eq!(lab.called(job), [1, 2, 5].map(noon_of));
        let all = history(&lab.jobs(0), job).await;
        let states: Vec<_> = all.iter().map(|execution| execution.state).collect();
        assert_eq!(states, [State::Succeeded, State::Failed, State::Succeeded]);
    });
}

#[test]
fn scenario_1_what_came_while_the_system_was_down_is_missed_and_not_called() {
    simulated(4, 1, async |lab| {
        let job = create(lab, ONE_TIME).await;
        until_second(NOON - 60).await;
        lab.world.crash(0, true);
        until_second(NOON + 60).await;
        lab.world.power_up(0);
        while lab.world.networks().is_empty() {
            sleep(Duration::from_millis(100)).await;
        }
        lab.hire(None);
        let (execution, calls) = one_time(lab, job).await;
        assert_eq!((execution.state, calls), (State::Missed, 0));
    });
}

#[test]
fn scenario_2_a_target_that_is_unavailable_for_a_moment_is_not_called_again() {
    simulated(5, 1, async |lab| {
        lab.answer = Arc::new(|_| Box::pin(async { failed("HTTP 503 Service Unavailable") }));
        let job = create(lab, ONE_TIME).await;
        until_second(NOON + 1).await;
        lab.answer = Arc::new(|_| Box::pin(async { Outcome::SUCCESS }));
        let (execution, calls) = one_time(lab, job).await;
        assert_eq!((execution.state, calls), (State::Failed, 1));
        assert_eq!(execution.error.unwrap(), "HTTP 503 Service Unavailable");
    });
}

#[test]
fn scenario_3_a_call_that_times_out_after_thirty_seconds_is_not_made_again() {
    simulated(6, 1, async |lab| {
        lab.answer = Arc::new(|_| Box::pin(pending()));
        let job = create(lab, ONE_TIME).await;
        until_second(NOON + 29).await;
        assert_eq!(history(&lab.jobs(0), job).await[0].state, State::Running);
        let (execution, calls) = one_time(lab, job).await;
        assert_eq!((execution.state, calls), (State::Failed, 1));
        assert_eq!(execution.error.unwrap(), "timed out after 30s");
        assert_eq!(execution.duration.unwrap().as_secs(), 30);
    });
}
