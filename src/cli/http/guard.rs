//! Who may ask: whoever has the token, or a program of this machine; no page of another site that
//! somebody here looks at.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, ORIGIN, WWW_AUTHENTICATE};
use hyper::{StatusCode, Uri};

use super::Reply;
use crate::cli::board::read_secret;
use crate::cli::problem::Problem;

/// The length of a token, in bytes.
const TOKEN_BYTES_MIN: usize = 16;
const TOKEN_BYTES_MAX: u64 = 1_024;

const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What whoever asks has to know. By its hash, so that it is compared in constant time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) struct Token(blake3::Hash);

impl Token {
    fn of(token: &str) -> Self {
        Self(blake3::hash(token.as_bytes()))
    }

    pub(in crate::cli) fn read(path: &Path) -> Result<Self, Problem> {
        let text = read_secret(path, TOKEN_BYTES_MAX)?;
        let token = text.trim();
        if token.len() < TOKEN_BYTES_MIN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Problem::usage(format!(
                "the token in {} is to have {TOKEN_BYTES_MIN} bytes at least, all printable ASCII without spaces; \
                 `once secret` makes one",
                path.display()
            )));
        }
        Ok(Self::of(token))
    }
}

/// Without a token, only this machine may be able to ask.
pub(in crate::cli) fn check_addr(addr: SocketAddr, token: Option<Token>) -> Result<(), Problem> {
    match token.is_some() || addr.ip().is_loopback() {
        true => Ok(()),
        false => Err(Problem::usage(format!(
            "{addr} can be asked from elsewhere, to run commands here: name the file of a token with \
             --http-token-file, or use 127.0.0.1"
        ))),
    }
}

/// Why this request is not answered, if it is not.
pub(super) fn check(headers: &HeaderMap, token: Option<Token>) -> Result<(), Reply> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(HOST).unwrap_or("");
    let forbidden = |why: &str| Err(Reply::error(StatusCode::FORBIDDEN, "", why));
    // A browser says for whom it asks: always since 2023, of requests that change something since ever.
    let of_this_site = [None, Some("same-origin"), Some("none")];
    if !of_this_site.contains(&text(SITE)) {
        return forbidden("this does not answer pages of other sites");
    }
    if let Some(origin) = headers.get(ORIGIN) {
        let asks = origin
            .to_str()
            .ok()
            .and_then(|origin| origin.parse::<Uri>().ok());
        let asks = asks.as_ref().and_then(Uri::authority);
        if asks.is_none_or(|asks| !asks.as_str().eq_ignore_ascii_case(host)) {
            return forbidden("this does not answer pages of other sites");
        }
    }
    let Some(token) = token else {
        // A name of somebody else may lead here by now.
        return match is_of_this_machine(host) {
            true => Ok(()),
            false => forbidden("without a token this answers to localhost and to addresses"),
        };
    };
    let given = text(AUTHORIZATION).and_then(|given| {
        let (scheme, given) = given.split_once(' ')?;
        scheme
            .eq_ignore_ascii_case("Bearer")
            .then_some(given.trim())
    });
    match given.is_some_and(|given| Token::of(given) == token) {
        true => Ok(()),
        false => {
            let why = "this needs the header Authorization: Bearer with the token of this voter";
            let reply = Reply::error(StatusCode::UNAUTHORIZED, "", why);
            Err(reply.with(WWW_AUTHENTICATE.as_str(), "Bearer"))
        }
    }
}

fn is_of_this_machine(host: &str) -> bool {
    let Ok(uri) = host.parse::<Uri>() else {
        return false;
    };
    uri.host().is_some_and(|host| {
        let addr = host.trim_start_matches('[').trim_end_matches(']');
        host.eq_ignore_ascii_case("localhost") || addr.parse::<IpAddr>().is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(token: Option<&str>, headers: &[(HeaderName, &str)]) -> u16 {
        let headers = headers.iter();
        let headers = headers.map(|(name, value)| (name.clone(), value.parse().unwrap()));
        match check(&headers.collect(), token.map(Token::of)) {
            Ok(()) => 200,
            Err(reply) => reply.0.status().as_u16(),
        }
    }

    #[test]
    fn without_a_token_this_machine_asks_and_no_page_of_another_site() {
        for host in ["localhost:80", "127.0.0.1:80", "[::1]:80", "LOCALHOST"] {
            assert_eq!(asked(None, &[(HOST, host)]), 200, "{host}");
        }
        for host in ["evil.example:80", "127.0.0.1.evil.example", "", "a b"] {
            assert_eq!(asked(None, &[(HOST, host)]), 403, "{host}");
        }
        assert_eq!(asked(None, &[]), 403);
        let host = (HOST, "127.0.0.1:80");
        let with = |origin| asked(None, &[host.clone(), (ORIGIN, origin)]);
        assert_eq!(with("http://127.0.0.1:80"), 200);
        for (site, status) in [
            ("none", 200),
            ("same-origin", 200),
            ("cross-site", 403),
            ("same-site", 403),
        ] {
            assert_eq!(asked(None, &[host.clone(), (SITE, site)]), status, "{site}");
        }
        for origin in ["http://evil.example", "null", "http://127.0.0.1:81", ""] {
            assert_eq!(with(origin), 403, "{origin}");
        }
    }

    #[test]
    fn with_a_token_whoever_has_it_asks() {
        let with = |given| asked(Some("0123456789abcdef"), &[(AUTHORIZATION, given)]);
        assert_eq!(with("Bearer 0123456789abcdef"), 200);
        assert_eq!(with("bearer 0123456789abcdef"), 200);
        for given in [
            "Bearer 0123456789abcdeg",
            "0123456789abcdef",
            "Basic 0123456789abcdef",
            "Bearer ",
        ] {
            assert_eq!(with(given), 401, "{given}");
        }
        assert_eq!(asked(Some("0123456789abcdef"), &[(HOST, "localhost")]), 401);
        let other = [
            (AUTHORIZATION, "Bearer 0123456789abcdef"),
            (ORIGIN, "http://evil.example"),
        ];
        assert_eq!(asked(Some("0123456789abcdef"), &other), 403);
    }

    #[test]
    fn what_can_be_asked_from_elsewhere_needs_a_token() {
        let token = Some(Token::of("0123456789abcdef"));
        for (addr, is_local) in [
            ("127.0.0.1:1", true),
            ("[::1]:1", true),
            ("0.0.0.0:1", false),
            ("10.0.0.1:1", false),
        ] {
            let addr = addr.parse().unwrap();
            assert_eq!(check_addr(addr, None).is_ok(), is_local, "{addr}");
            assert!(check_addr(addr, token).is_ok());
        }
    }
}
