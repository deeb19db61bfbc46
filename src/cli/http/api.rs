//! The API: jobs as `once jobs` has them, how this voter stands, and a page that shows it all. What it
//! answers is described in `openapi.json`, which a test holds against it.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, LOCATION};
use hyper::{Method, Request, StatusCode};
use serde_json::{Value, json};
use url::form_urlencoded;

use super::guard::{self, Token};
use super::{Port, Reply, Within};
use crate::cli::jobs::JOB_BYTES_MAX;
use crate::cli::resource::Resource;
use crate::cli::serve::as_json;
use crate::job::{Execution, JobId, Jobs, JobsError, Status};
use crate::network::Network;
use crate::task::Tasks;

const WITHIN: Within = Within {
    head: Duration::from_secs(5),
    all: Duration::from_secs(60),
};

/// How many are listed, if nothing else is asked for, and at most.
const LIMIT: usize = 100;
const LIMIT_MAX: usize = 1_000;

/// How much of a body that is too long is read, in bytes.
const DISCARDED_BYTES_MAX: usize = 1024 * 1024;

/// The longest name of a namespace, in bytes.
const NAMESPACE_BYTES_MAX: usize = 256;

/// With the same key a job is created once.
const KEY: &str = "idempotency-key";

const OPENAPI: &str = include_str!("openapi.json");
const PAGE: &str = include_str!("page.html");
const SCRIPT: &str = include_str!("page.js");

/// The page loads its script, asks this API, and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'unsafe-inline'; \
                      form-action 'none'; frame-ancestors 'none'; base-uri 'none'";

/// What is answered about, and to whom.
pub(in crate::cli) struct Api {
    pub(in crate::cli) network: Network,
    /// The one that is meant if none is named.
    pub(in crate::cli) namespace: String,
    pub(in crate::cli) token: Option<Token>,
    /// In whose name jobs are created, paused and deleted.
    pub(in crate::cli) who: String,
}

type Answer = Result<Reply, Reply>;

impl Api {
    /// Answers, for ever.
    pub(in crate::cli) async fn answer(self, port: &Port) {
        let api = Arc::new(self);
        let answer = move |request| {
            let api = api.clone();
            async move { api.reply(request).await.unwrap_or_else(|error| error) }
        };
        port.answer(WITHIN, answer).await;
    }

    async fn reply(&self, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        // These hold nothing secret, and ask for the token where one is needed.
        if let Some(reply) = page(&head.method, path) {
            return Ok(reply);
        }
        guard::check(&head.headers, self.token)?;
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let Some(("api", parts)) = parts.split_first().map(|(first, rest)| (*first, rest)) else {
            return Err(missing(
                "there are /, /api/status, /api/tasks, /api/jobs and /api/openapi.json",
            ));
        };
        let is_list = matches!(parts, ["jobs" | "tasks"]);
        let asked = Asked::read(head.uri.query().unwrap_or(""), is_list)?;
        let namespace = asked.namespace.as_deref().unwrap_or(&self.namespace);
        let jobs = || Jobs::new(&self.network, namespace).named(&self.who);
        match (&head.method, parts) {
            (&Method::GET, ["status"]) => Ok(Reply::json(
                StatusCode::OK,
                &as_json(&self.network.status()),
            )),
            (_, ["status"]) => Err(Reply::not_allowed("GET")),
            (&Method::GET, ["tasks"]) => self.tasks(namespace, &asked).await,
            (_, ["tasks"]) => Err(Reply::not_allowed("GET")),
            (&Method::GET, ["jobs"]) => list(&jobs(), &asked).await,
            (&Method::POST, ["jobs"]) => create(&jobs(), &head.headers, body).await,
            (_, ["jobs"]) => Err(Reply::not_allowed("GET, POST")),
            (method, ["jobs", id, verb @ ..]) => {
                let id = id
                    .parse()
                    .map_err(|_| bad("id", format!("{id:?} is no number of a job")))?;
                of_job(&jobs(), method, id, verb).await
            }
            _ => Err(missing(
                "there are /api/status, /api/tasks, /api/jobs and /api/openapi.json",
            )),
        }
    }

    async fn tasks(&self, namespace: &str, asked: &Asked) -> Answer {
        let tasks = Tasks::new(&self.network, namespace);
        let page = tasks.page(&asked.from, asked.limit).await;
        let (page, next) = page.map_err(|error| {
            Reply::error(StatusCode::SERVICE_UNAVAILABLE, "", error.to_string())
        })?;
        let page = page.iter().map(|status| Resource::of(namespace, status));
        let page: Vec<_> = page.collect();
        Ok(Reply::json(
            StatusCode::OK,
            &json!({"tasks": page, "next": next}),
        ))
    }
}

/// The page with its script, and the description.
fn page(method: &Method, path: &str) -> Option<Reply> {
    let (kind, text) = match path {
        "/" => ("text/html; charset=utf-8", PAGE),
        "/page.js" => ("text/javascript; charset=utf-8", SCRIPT),
        "/api/openapi.json" => ("application/json", OPENAPI),
        _ => return None,
    };
    Some(match *method {
        Method::GET => Reply::new(StatusCode::OK, kind, text)
            .with(CONTENT_SECURITY_POLICY.as_str(), POLICY)
            // Of this build, and of no other.
            .with(CACHE_CONTROL.as_str(), "no-cache"),
        _ => Reply::not_allowed("GET"),
    })
}

/// What is asked for behind the question mark.
struct Asked {
    namespace: Option<String>,
    from: String,
    limit: usize,
}

impl Asked {
    fn read(query: &str, is_list: bool) -> Result<Self, Reply> {
        let mut asked = Self {
            namespace: None,
            from: String::new(),
            limit: LIMIT,
        };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "namespace" if (1..=NAMESPACE_BYTES_MAX).contains(&value.len()) => {
                    asked.namespace = Some(value.into_owned());
                }
                "namespace" => return Err(bad("namespace", "a namespace has 1 to 256 bytes")),
                "from" if is_list => asked.from = value.into_owned(),
                "limit" if is_list => {
                    let limit = value
                        .parse()
                        .ok()
                        .filter(|limit| (1..=LIMIT_MAX).contains(limit));
                    asked.limit =
                        limit.ok_or_else(|| bad("limit", "this is a number from 1 to 1000"))?;
                }
                name => return Err(bad(name, "there is no such parameter here")),
            }
        }
        Ok(asked)
    }
}

async fn list(jobs: &Jobs, asked: &Asked) -> Answer {
    let from = match asked.from.as_str() {
        "" => JobId::default(),
        from => from.parse().map_err(|_| {
            let what = "this is the number of a job, as `next` of the page before";
            bad("from", what)
        })?,
    };
    let (page, next) = jobs.page(from, asked.limit).await.map_err(error)?;
    let page: Vec<Value> = page.iter().map(Status::to_json).collect();
    let next = next.map(JobId::as_u64);
    Ok(Reply::json(
        StatusCode::OK,
        &json!({"jobs": page, "next": next}),
    ))
}

async fn create(jobs: &Jobs, headers: &HeaderMap, body: Incoming) -> Answer {
    // What a page of another site may send without asking is none of these.
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or("");
    if !kind.trim().eq_ignore_ascii_case("application/json") {
        let what = "a job is sent with the header Content-Type: application/json";
        return Err(Reply::error(StatusCode::UNSUPPORTED_MEDIA_TYPE, "", what));
    }
    let bytes = read(body).await?;
    let text = std::str::from_utf8(&bytes).map_err(|_| bad("", "a job is JSON in UTF-8"))?;
    let created = match headers.get(KEY) {
        None => jobs.create(text).await,
        Some(key) => {
            let key = key
                .to_str()
                .map_err(|_| bad(KEY, "a key is a text of printable ASCII"))?;
            jobs.create_once(key, text).await
        }
    };
    let created = created.map_err(error)?;
    let place = format!("/api/jobs/{}", created.id());
    Ok(Reply::json(StatusCode::CREATED, &created.to_json()).with(LOCATION.as_str(), &place))
}

/// Also what is too long is read, within limits: who still sends would not hear why it is refused.
async fn read(mut body: Incoming) -> Result<Vec<u8>, Reply> {
    let (mut bytes, mut count) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| bad("", format!("the job did not arrive: {error}")))?;
        let piece = frame.into_data().unwrap_or_default();
        count += piece.len();
        if count <= JOB_BYTES_MAX as usize {
            bytes.extend(piece);
        }
        if count > DISCARDED_BYTES_MAX {
            break;
        }
    }
    match count <= JOB_BYTES_MAX as usize {
        true => Ok(bytes),
        false => {
            let what = format!("a job has {JOB_BYTES_MAX} bytes at most");
            Err(Reply::error(StatusCode::PAYLOAD_TOO_LARGE, "", what))
        }
    }
}

async fn of_job(jobs: &Jobs, method: &Method, id: JobId, verb: &[&str]) -> Answer {
    let done = match (method, verb) {
        (&Method::GET, []) => get(jobs, id).await.map(|job| job.to_json()),
        (&Method::DELETE, []) => {
            // Whoever deletes what is not there is told so, unless somebody else deletes it just now.
            get(jobs, id).await.map_err(error)?;
            jobs.delete(id).await.map_err(error)?;
            return Ok(Reply::empty());
        }
        (_, []) => return Err(Reply::not_allowed("GET, DELETE")),
        (&Method::GET, ["history"]) => get(jobs, id).await.map(|job| {
            let history = job.history();
            history.iter().map(Execution::to_json).collect()
        }),
        (_, ["history"]) => return Err(Reply::not_allowed("GET")),
        (&Method::POST, ["pause"]) => jobs.pause(id).await.map(|job| job.to_json()),
        (&Method::POST, ["resume"]) => jobs.resume(id).await.map(|job| job.to_json()),
        (&Method::POST, ["run-now"]) => jobs.run_now(id).await.map(|job| job.to_json()),
        (_, ["pause" | "resume" | "run-now"]) => return Err(Reply::not_allowed("POST")),
        _ => {
            return Err(missing(
                "of a job there are history, pause, resume and run-now",
            ));
        }
    };
    let done = done.map_err(error)?;
    Ok(Reply::json(StatusCode::OK, &done))
}

async fn get(jobs: &Jobs, id: JobId) -> Result<Status, JobsError> {
    jobs.get(id).await?.ok_or(JobsError::Missing)
}

fn bad(field: &str, message: impl Into<String>) -> Reply {
    Reply::error(StatusCode::BAD_REQUEST, field, message)
}

fn missing(message: &str) -> Reply {
    Reply::error(StatusCode::NOT_FOUND, "", message)
}

fn error(error: JobsError) -> Reply {
    let status = match &error {
        JobsError::Refused(refused) => return bad(&refused.field, &refused.message),
        JobsError::Missing => StatusCode::NOT_FOUND,
        JobsError::Asked | JobsError::Busy | JobsError::Clock => StatusCode::CONFLICT,
        JobsError::Full => StatusCode::INSUFFICIENT_STORAGE,
        JobsError::Offline | JobsError::NetworkDown => StatusCode::SERVICE_UNAVAILABLE,
    };
    Reply::error(status, "", error.to_string())
}
