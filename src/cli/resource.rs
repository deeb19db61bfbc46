//! A task as a resource: what manifests say, and what `get -o yaml` prints.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use super::board::words;
use super::problem::{Problem, USAGE};
use super::say;
use crate::job::duration;
use crate::machine::task::{Spec, check_name};
use crate::task::{Failure, Outcome, Policy, State, Status};

const API_VERSION: &str = "konductor.io/v1";
const KIND: &str = "Once";

/// The largest manifest, in bytes.
pub(super) const MANIFEST_BYTES_MAX: u64 = 4 * 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Resource {
    #[serde(deserialize_with = "api_version")]
    api_version: String,
    #[serde(deserialize_with = "kind")]
    kind: String,
    pub(super) metadata: Metadata,
    #[serde(default, deserialize_with = "checked")]
    spec: SpecOf,
    /// As it stood; of no meaning in a manifest.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "ignored"
    )]
    status: Option<StatusOf>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Metadata {
    #[serde(deserialize_with = "task_name")]
    pub(super) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) namespace: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SpecOf {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttl: Option<Long>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    policy: Option<Named>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retries: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    backoff: Option<Long>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    backoff_max: Option<Long>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Named {
    AtMostOnce,
    AtLeastOnce,
}

/// A duration in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Long(Duration);

impl Serialize for Long {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&duration::format(self.0))
    }
}

impl<'de> Deserialize<'de> for Long {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        duration::parse(&text).map(Self).map_err(D::Error::custom)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusOf {
    executed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    executor: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    executed_at: Option<String>,
    phase: String,
    state: String,
    attempt: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resolved_by: Option<String>,
    created_by: String,
    created_at: String,
    generation: u64,
    version: u64,
    conditions: Vec<ConditionOf>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct ConditionOf {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    message: String,
}

fn exactly<'de, D: Deserializer<'de>>(
    deserializer: D,
    what: &str,
    wanted: &str,
) -> Result<String, D::Error> {
    let found = String::deserialize(deserializer)?;
    match found == wanted {
        true => Ok(found),
        false => Err(D::Error::custom(format!(
            "{what} is {found:?}, and only {wanted} can be applied"
        ))),
    }
}

fn api_version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    exactly(deserializer, "apiVersion", API_VERSION)
}

fn kind<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    exactly(deserializer, "kind", KIND)
}

fn task_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    check_name(&name).map_err(D::Error::custom)?;
    Ok(name)
}

fn checked<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SpecOf, D::Error> {
    let spec = SpecOf::deserialize(deserializer)?;
    spec.resolve().map_err(D::Error::custom)?;
    Ok(spec)
}

fn ignored<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<StatusOf>, D::Error> {
    serde::de::IgnoredAny::deserialize(deserializer)?;
    Ok(None)
}

impl Resource {
    pub(super) fn of(namespace: &str, status: &Status) -> Self {
        let (policy, retries, backoff, backoff_max) = match status.policy {
            Policy::AtMostOnce => (None, None, None, None),
            Policy::AtLeastOnce {
                retries_max,
                backoff_first_ms,
                backoff_max_ms,
            } => {
                let long = |ms| Some(Long(Duration::from_millis(ms)));
                (
                    Some(Named::AtLeastOnce),
                    Some(retries_max),
                    long(backoff_first_ms),
                    long(backoff_max_ms),
                )
            }
        };
        Self {
            api_version: API_VERSION.into(),
            kind: KIND.into(),
            metadata: Metadata {
                name: status.name.clone(),
                namespace: Some(namespace.into()),
            },
            spec: SpecOf {
                ttl: status.ttl.map(Long),
                policy,
                retries,
                backoff,
                backoff_max,
            },
            status: Some(StatusOf::of(status)),
        }
    }

    pub(super) fn spec(&self) -> Result<Spec, Problem> {
        let spec = self.spec.resolve();
        spec.map_err(|reason| Problem::usage(format!("{}: {reason}", self.metadata.name)))
    }
}

impl SpecOf {
    fn resolve(&self) -> Result<Spec, String> {
        let spec = self;
        let has_retries =
            spec.retries.is_some() || spec.backoff.is_some() || spec.backoff_max.is_some();
        let policy = match spec.policy {
            Some(Named::AtLeastOnce) => {
                let ms = |long: Option<Long>, default: u64| {
                    long.map_or(default, |long| long.0.as_millis() as u64)
                };
                Policy::AtLeastOnce {
                    retries_max: spec.retries.unwrap_or(3),
                    backoff_first_ms: ms(spec.backoff, 1_000),
                    backoff_max_ms: ms(spec.backoff_max, 300_000),
                }
            }
            _ if has_retries => {
                return Err("retries and backoff belong to policy: AtLeastOnce".into());
            }
            _ => Policy::AtMostOnce,
        };
        let ttl_ms = spec.ttl.map(|ttl| ttl.0.as_millis() as u64);
        let spec = Spec { policy, ttl_ms };
        spec.check()?;
        Ok(spec)
    }
}

impl StatusOf {
    fn of(status: &Status) -> Self {
        let (exit_code, error) = match &status.outcome {
            None => (None, None),
            Some(Outcome::Succeeded { code } | Outcome::Failed(Failure::Exit(code))) => {
                (Some(*code), None)
            }
            Some(outcome @ Outcome::Failed(_)) => (None, Some(words(outcome))),
        };
        let conditions = status
            .conditions()
            .into_iter()
            .map(|condition| ConditionOf {
                kind: condition.kind.into(),
                status: if condition.holds { "True" } else { "False" }.into(),
                reason: condition.reason.into(),
                message: condition.message,
            });
        let state = match status.state {
            State::Pending => "pending",
            State::Running => "running",
            State::Succeeded => "succeeded",
            State::Failed => "failed",
            State::Abandoned => "abandoned",
        };
        Self {
            executed: status.executed(),
            executor: status.executor.clone(),
            executed_at: status.executed_at.map(say::time),
            phase: if status.executed() {
                "Executed"
            } else {
                "Pending"
            }
            .into(),
            state: state.into(),
            attempt: status.attempt,
            ended_at: status.ended_at.map(say::time),
            exit_code,
            error,
            resolved_by: status.resolved_by.clone(),
            created_by: status.created_by.clone(),
            created_at: say::time(status.created_at),
            generation: status.generation.as_u64(),
            version: status.version.as_u64(),
            conditions: conditions.collect(),
        }
    }
}

/// Reads all documents of a manifest. `file` is what it is called in an error.
pub(super) fn read(file: &str, text: &str) -> Result<Vec<Resource>, Problem> {
    let refused = |error: serde_saphyr::Error| {
        let reason = error.without_snippet().to_string();
        // The place stands in front.
        let reason = reason.split(" at line ").next().unwrap_or_default();
        let place = error.location().map_or(String::new(), |at| {
            format!(":{}:{}", at.line(), at.column())
        });
        Problem::new(USAGE, format!("{file}{place}: {reason}"))
    };
    let resources: Vec<Resource> = serde_saphyr::from_multiple(text).map_err(refused)?;
    if resources.is_empty() {
        return Err(Problem::usage(format!("{file}: there is nothing in it")));
    }
    Ok(resources)
}

pub(super) fn yaml(resource: &Resource) -> Result<String, Problem> {
    serde_saphyr::to_string(resource).map_err(|error| Problem::usage(error.to_string()))
}
