//! Calls to servers that answer what they are told to.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;

use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::*;
use crate::job::document;

type Heads = Arc<Mutex<Vec<String>>>;

/// Answers each connection by what its path is given, and keeps the heads of the requests. With `tls`
/// it speaks https.
fn serve(
    tls: Option<Arc<ServerConfig>>,
    answer: impl Fn(&str) -> String + Send + 'static,
) -> (SocketAddr, Heads) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let heads = Heads::default();
    let seen = heads.clone();
    // It ends with the process of the tests.
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let _ = match &tls {
                Some(config) => {
                    let connection = ServerConnection::new(config.clone()).unwrap();
                    talk(StreamOwned::new(connection, stream), &seen, &answer)
                }
                None => talk(stream, &seen, &answer),
            };
        }
    });
    (addr, heads)
}

fn talk(
    mut stream: impl Read + Write,
    heads: &Heads,
    answer: impl Fn(&str) -> String,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    heads.lock().unwrap().push(head.clone());
    let path = head.split(' ').nth(1).unwrap_or_default();
    stream.write_all(answer(path).as_bytes())?;
    stream.flush()
}

fn ok() -> String {
    "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".into()
}

fn to(status: &str, url: &str) -> String {
    format!("HTTP/1.1 {status}\r\nlocation: {url}\r\ncontent-length: 0\r\n\r\n")
}

/// What comes of a call, and why it failed.
async fn call(caller: &Caller, url: &str, more: &str) -> Result<(), String> {
    let json =
        format!(r#"{{"schedule": "0 0 12 * * *", "api": "{url}", "type": "AT_MOST_ONCE"{more}}}"#);
    let now = "2024-01-01T00:00:00Z".parse().unwrap();
    let spec = document::read(&json, now).unwrap();
    match caller.run(&spec, "7-a-now-9", 1).await {
        Outcome::Failed(failure) => Err(failure.to_string()),
        Outcome::Succeeded { .. } => Ok(()),
    }
}

#[tokio::test]
async fn a_redirect_is_followed_where_the_same_call_is_made_at_the_same_place() {
    let (elsewhere, there) = serve(None, |_| ok());
    let (addr, heads) = serve(None, move |path| match path {
        "/302" => to("302 Found", "/ok"),
        "/303" => to("303 See Other", "/ok"),
        "/307" => to("307 Temporary Redirect", "/308"),
        "/308" => to("308 Permanent Redirect", "/ok"),
        "/away" => to("307 Temporary Redirect", &format!("http://{elsewhere}/")),
        "/same" => "HTTP/1.1 304 Not Modified\r\n\r\n".into(),
        _ => ok(),
    });
    let caller = Caller::new();
    let said = |path: &'static str, more: &'static str| {
        let (caller, url) = (caller.clone(), format!("http://{addr}{path}"));
        async move { call(&caller, &url, more).await }
    };
    let secret = r#", "headers": {"X-Api-Key": "k", "Authorization": "me"}, "body": {"a": 1}"#;
    assert_eq!(said("/307", secret).await, Ok(()));
    {
        let heads = heads.lock().unwrap();
        let all: Vec<_> = heads
            .iter()
            .map(|head| head.split(' ').take(2).collect::<Vec<_>>())
            .collect();
        assert_eq!(all, [["post", "/307"], ["post", "/308"], ["post", "/ok"]]);
        assert!(heads.iter().all(|head| {
            head.contains("x-api-key: k")
                && head.contains("idempotency-key: 7-a-now-9")
                && !head.contains("referer")
        }));
    }
    for path in ["/302", "/303"] {
        let error = said(path, secret).await.unwrap_err();
        assert!(
            error.contains("not followed: that would make a GET of the POST"),
            "{error}"
        );
        assert_eq!(said(path, r#", "method": "GET""#).await, Ok(()));
    }
    let error = said("/away", secret).await.unwrap_err();
    assert!(
        error.starts_with("HTTP 307 Temporary Redirect to another place"),
        "{error}"
    );
    assert!(there.lock().unwrap().is_empty());
    assert_eq!(said("/same", "").await, Err("HTTP 304 Not Modified".into()));
}

#[test]
fn another_place_is_another_host_scheme_or_port_but_for_https_in_place_of_http() {
    let may = |from: &str, to: &str| {
        let from = Url::parse(from).unwrap();
        redirect(
            &Method::POST,
            &from,
            StatusCode::TEMPORARY_REDIRECT,
            Some(to),
        )
        .is_ok()
    };
    assert!(may("http://a/x", "http://a/y"));
    assert!(may("http://a/x", "http://a:80/y"));
    assert!(may("http://a/x", "https://a/y"));
    assert!(!may("https://a/x", "http://a/y"));
    assert!(!may("http://a/x", "http://b/y"));
    assert!(!may("http://a/x", "https://b/y"));
    assert!(!may("http://a/x", "http://a:81/y"));
    assert!(!may("http://a:81/x", "https://a/y"));
    assert!(!may("http://a/x", "https://a:444/y"));
    assert!(!may("http://a/x", "file:///etc/passwd"));
}

#[tokio::test]
async fn success_is_what_the_status_says_whatever_becomes_of_the_body() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut kept: Vec<TcpStream> = Vec::new();
        while let Ok((mut stream, _)) = listener.accept() {
            let begin = |_: &str| "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nx".into();
            let _ = talk(&mut stream, &Heads::default(), begin);
            kept.push(stream);
        }
    });
    let url = format!("http://{addr}/");
    let more = r#", "timeout": "2s""#;
    assert_eq!(call(&Caller::new(), &url, more).await, Ok(()));
}

fn certified() -> (Arc<ServerConfig>, RootCertStore) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (Arc::new(config), roots)
}

#[tokio::test]
async fn a_call_by_https_is_made_to_whom_is_trusted_alone() {
    let (config, roots) = certified();
    let (addr, heads) = serve(Some(config), |_| ok());
    let url = format!("https://localhost:{}/pay", addr.port());
    let trusting = Caller::with(trusting_only(roots));
    assert_eq!(call(&trusting, &url, "").await, Ok(()));
    assert!(heads.lock().unwrap()[0].starts_with("post /pay "));
    let (_, others) = certified();
    let error = call(&Caller::with(trusting_only(others)), &url, "")
        .await
        .unwrap_err();
    assert!(
        error.starts_with("cannot connect: invalid peer certificate"),
        "{error}"
    );
    assert_eq!(heads.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn where_nobody_is_trusted_only_https_fails() {
    let (addr, _) = serve(None, |_| ok());
    let mut caller = Caller::new();
    caller.trusts_nobody = Some("there are no CA certificates".into());
    assert_eq!(call(&caller, &format!("http://{addr}/"), "").await, Ok(()));
    let error = call(&caller, &format!("https://{addr}/"), "").await;
    assert_eq!(
        error,
        Err("no call by https can be made from here: there are no CA certificates".into())
    );
    let argv = ["true".to_string()];
    assert_eq!(command(&argv, "k", 1).await, Outcome::SUCCESS);
}
