//! A job as people and programs write it: JSON, read whole or refused with the field named.

use std::fmt;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Map, Value};

use super::schedule::{Schedule, tick_at};
use super::{duration, json};
use crate::machine::job::{
    ARGUMENTS_MAX, Action, Call, SPEC_BYTES_MAX, Spec, TIMEOUT_MS_MAX, TIMEOUT_MS_MIN,
};
use crate::machine::task::Policy;

/// What `type` may be.
pub(crate) const AT_MOST_ONCE: &str = "AT_MOST_ONCE";
pub(crate) const AT_LEAST_ONCE: &str = "AT_LEAST_ONCE";

const FIELDS: [&str; 12] = [
    "schedule",
    "timezone",
    "api",
    "method",
    "headers",
    "body",
    "command",
    "type",
    "isRecurring",
    "maxRetryCount",
    "timeout",
    "description",
];

/// Those that belong to `api`.
const FIELDS_OF_CALLS: [&str; 3] = ["method", "headers", "body"];

const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

/// Headers that are made of the call itself.
const HEADERS_OURS: [&str; 5] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "idempotency-key",
];

const TIMEOUT_MS: u64 = 30_000;
const RETRIES_MAX: u64 = 1_000;
const DESCRIPTION_BYTES_MAX: usize = 1_024;

/// Why a job is refused: the field, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobError {
    /// The field's name; empty if it is about the document as a whole.
    pub field: String,
    /// What is wrong, in words.
    pub message: String,
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field.as_str() {
            "" => f.write_str(&self.message),
            field => write!(f, "{field}: {}", self.message),
        }
    }
}

impl std::error::Error for JobError {}

type Result<T> = std::result::Result<T, JobError>;

fn wrong<T>(field: &str, message: impl Into<String>) -> Result<T> {
    Err(JobError {
        field: field.into(),
        message: message.into(),
    })
}

/// Reads a job that is made now.
pub(crate) fn read(text: &str, now: Timestamp) -> Result<Spec> {
    match json::read(text) {
        Ok((_, Some(twice))) => wrong(&twice, "this stands there twice"),
        Ok((Value::Object(fields), None)) => spec(&Fields(fields), now),
        Ok(_) => wrong("", "a job is a JSON object"),
        Err(error) => wrong("", format!("this is no JSON: {error}")),
    }
}

fn spec(fields: &Fields, now: Timestamp) -> Result<Spec> {
    if let Some(unknown) = fields
        .0
        .keys()
        .find(|name| !FIELDS.contains(&name.as_str()))
    {
        let known = FIELDS.join(", ");
        return wrong(unknown, format!("a job has no such field; it has {known}"));
    }
    let text = fields.needed("schedule")?;
    let zone_name = fields.text("timezone")?.unwrap_or("UTC");
    let zone = TimeZone::get(zone_name).or_else(|_| {
        wrong(
            "timezone",
            format!("{zone_name:?} is no time zone: use a name of the IANA database, as UTC or Europe/Berlin"),
        )
    })?;
    let schedule = Schedule::parse(text, zone.clone()).or_else(|what| wrong("schedule", what))?;
    let Some(after) = tick_at(&zone, now) else {
        return wrong("", "the clock of this machine is not set");
    };
    if schedule.next(after).is_none() {
        return wrong(
            "schedule",
            format!("{text:?} is never due: there is no such date"),
        );
    }
    let spec = Spec {
        schedule: text.into(),
        zone: zone_name.into(),
        after,
        policy: policy(fields)?,
        is_recurring: match fields.0.get("isRecurring") {
            None => false,
            Some(Value::Bool(is_recurring)) => *is_recurring,
            Some(_) => return wrong("isRecurring", "this is true or false"),
        },
        timeout_ms: timeout_ms(fields)?,
        description: fields.text("description")?.unwrap_or("").into(),
        action: action(fields)?,
    };
    if spec.description.len() > DESCRIPTION_BYTES_MAX {
        return wrong("description", "a description has 1,024 bytes at most");
    }
    if spec.bytes() > SPEC_BYTES_MAX {
        return wrong("", "a job has 8 KiB at most, its headers and body included");
    }
    spec.check().or_else(|what| wrong("", what))?;
    Ok(spec)
}

fn policy(fields: &Fields) -> Result<Policy> {
    let retries = match fields.0.get("maxRetryCount") {
        None => None,
        Some(count) => match count.as_u64().filter(|count| *count <= RETRIES_MAX) {
            Some(count) => Some(count as u32),
            None => return wrong("maxRetryCount", "this is a number from 0 to 1000"),
        },
    };
    match (fields.needed("type")?, retries) {
        (AT_MOST_ONCE, None | Some(0)) => Ok(Policy::AtMostOnce),
        (AT_MOST_ONCE, Some(_)) => wrong(
            "maxRetryCount",
            "an AT_MOST_ONCE job is never retried: leave this out, or use AT_LEAST_ONCE",
        ),
        (AT_LEAST_ONCE, retries) => {
            let mut policy = Policy::at_least_once();
            if let (Policy::AtLeastOnce { retries_max, .. }, Some(retries)) = (&mut policy, retries)
            {
                *retries_max = retries;
            }
            Ok(policy)
        }
        (other, _) => wrong(
            "type",
            format!("{other:?} is no type: use {AT_MOST_ONCE} or {AT_LEAST_ONCE}"),
        ),
    }
}

fn timeout_ms(fields: &Fields) -> Result<u64> {
    let ms = match fields.0.get("timeout") {
        None => TIMEOUT_MS,
        Some(Value::String(text)) => match duration::parse(text) {
            Ok(timeout) => timeout.as_millis() as u64,
            Err(what) => return wrong("timeout", what),
        },
        Some(other) => match other.as_u64() {
            Some(seconds) => seconds.saturating_mul(1_000),
            None => {
                return wrong(
                    "timeout",
                    "this is a duration, as \"30s\", or a number of seconds",
                );
            }
        },
    };
    match (TIMEOUT_MS_MIN..=TIMEOUT_MS_MAX).contains(&ms) {
        true => Ok(ms),
        false => wrong("timeout", "a timeout is from 100ms to 1h"),
    }
}

fn action(fields: &Fields) -> Result<Action> {
    match (fields.text("api")?, fields.0.get("command")) {
        (Some(_), Some(_)) => wrong("command", "a job has an api or a command, and not both"),
        (None, None) => wrong("api", "a job needs an api to call, or a command to run"),
        (Some(url), None) => call(fields, url).map(Action::Call),
        (None, Some(argv)) => {
            if let Some(field) = FIELDS_OF_CALLS
                .iter()
                .find(|name| fields.0.contains_key(**name))
            {
                return wrong(field, "this belongs to an api, and the job has a command");
            }
            command(argv).map(Action::Command)
        }
    }
}

fn command(argv: &Value) -> Result<Vec<String>> {
    const WHAT: &str = "a command is a list of 1 to 64 texts, the program first";
    let Some(argv) = argv
        .as_array()
        .filter(|argv| (1..=ARGUMENTS_MAX).contains(&argv.len()))
    else {
        return wrong("command", WHAT);
    };
    let argv: Option<Vec<String>> = argv
        .iter()
        .map(|arg| arg.as_str().map(String::from))
        .collect();
    match argv {
        Some(argv) if argv.iter().any(|arg| arg.contains('\0')) || argv[0].is_empty() => wrong(
            "command",
            "the program has a name, and no argument has a NUL byte",
        ),
        Some(argv) => Ok(argv),
        None => wrong("command", WHAT),
    }
}

fn call(fields: &Fields, url: &str) -> Result<Call> {
    match url::Url::parse(url) {
        Err(error) => return wrong("api", format!("{url:?} is no URL: {error}")),
        Ok(parsed) if !matches!(parsed.scheme(), "http" | "https") => {
            let scheme = parsed.scheme();
            return wrong(
                "api",
                format!("{scheme:?} is not called: use http or https"),
            );
        }
        Ok(parsed) if !parsed.username().is_empty() || parsed.password().is_some() => {
            return wrong(
                "api",
                "no user and password in a URL: use the header Authorization",
            );
        }
        Ok(_) => {}
    }
    let method = fields.text("method")?.unwrap_or("POST");
    if !METHODS.contains(&method) {
        return wrong(
            "method",
            format!("{method:?} is none of {}", METHODS.join(", ")),
        );
    }
    let mut headers = headers(fields)?;
    let body = match fields.0.get("body") {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(json) => {
            if !headers
                .iter()
                .any(|(name, _)| name.eq_ignore_ascii_case("content-type"))
            {
                headers.push(("Content-Type".into(), "application/json".into()));
            }
            json.to_string()
        }
    };
    if !body.is_empty() && matches!(method, "GET" | "HEAD") {
        return wrong("body", format!("a {method} has no body"));
    }
    Ok(Call {
        method: method.into(),
        url: url.into(),
        headers,
        body,
    })
}

fn headers(fields: &Fields) -> Result<Vec<(String, String)>> {
    let mut headers = Vec::new();
    let all = match fields.0.get("headers") {
        None => return Ok(headers),
        Some(Value::Object(all)) if all.len() < ARGUMENTS_MAX => all,
        Some(_) => return wrong("headers", "this is an object of up to 63 names and texts"),
    };
    for (name, value) in all {
        let field = format!("headers.{name}");
        let is_token =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_token) {
            return wrong(&field, "this is no name of a header");
        }
        if HEADERS_OURS
            .iter()
            .any(|ours| name.eq_ignore_ascii_case(ours))
        {
            return wrong(&field, "this header is set by the call itself");
        }
        match value.as_str() {
            Some(value)
                if value
                    .bytes()
                    .all(|byte| byte == b'\t' || (0x20..0x7f).contains(&byte)) =>
            {
                headers.push((name.clone(), value.into()));
            }
            _ => return wrong(&field, "a header is a text of printable ASCII"),
        }
    }
    Ok(headers)
}

struct Fields(Map<String, Value>);

impl Fields {
    fn text(&self, name: &str) -> Result<Option<&str>> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => wrong(name, "this is a text"),
        }
    }

    fn needed(&self, name: &str) -> Result<&str> {
        match self.text(name)? {
            Some(text) => Ok(text),
            None => wrong(name, "a job needs this field"),
        }
    }
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
