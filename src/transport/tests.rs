//! What both tenants of the seam have in common, and what only QUIC can show.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use iroh::endpoint::presets;
use iroh::{Endpoint, EndpointAddr, PublicKey, RelayMode, TransportAddr};

use super::sim::SimNet;
use super::*;

const FRAME_MAX: usize = 1 << 20;

fn seed(n: u8) -> [u8; 32] {
    [n; 32]
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

async fn quic(n: u8) -> Arc<dyn Transport> {
    let bound = IrohTransport::bind(seed(n), loopback(), LinkConfig::default()).await;
    Arc::new(bound.unwrap())
}

/// A dialer with seed 1 and an acceptor with seed 2, on each tenant in turn.
async fn on_both<F, R>(test: F)
where
    F: Fn(Arc<dyn Transport>, Arc<dyn Transport>) -> R,
    R: Future<Output = ()>,
{
    let net = SimNet::new(1);
    let a: Arc<dyn Transport> = Arc::new(net.bind(seed(1), loopback()).unwrap());
    let b: Arc<dyn Transport> = Arc::new(net.bind(seed(2), loopback()).unwrap());
    test(a, b).await;
    let (a, b) = (quic(1).await, quic(2).await);
    test(Arc::clone(&a), Arc::clone(&b)).await;
    a.close().await;
    b.close().await;
}

type Pair = (Arc<dyn Connection>, Arc<dyn Connection>);

async fn connect(a: &dyn Transport, b: &dyn Transport) -> Pair {
    let (dialed, accepted) = tokio::join!(a.dial(b.local_key(), b.local_addr()), b.accept());
    let pair = (dialed.unwrap(), accepted.unwrap());
    for connection in [&pair.0, &pair.1] {
        connection.allow(Allowance {
            streams_max: 256,
            receive_window_bytes: 8 << 20,
        });
    }
    pair
}

/// Answers every request with its frame, reversed, until the connection ends.
fn serve(connection: Arc<dyn Connection>) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        while let Ok(mut incoming) = connection.incoming().await {
            tokio::spawn(async move {
                if let Ok(mut frame) = incoming.read(FRAME_MAX).await {
                    frame.reverse();
                    let _ = incoming.reply(frame).await;
                }
            });
        }
    })
}

#[tokio::test]
async fn requests_and_replies_pass_both_ways() {
    on_both(|a, b| async move {
        let (dialed, accepted) = connect(&*a, &*b).await;
        assert_eq!(dialed.remote_key(), b.local_key());
        assert_eq!(accepted.remote_key(), a.local_key());
        assert_eq!(accepted.remote_addr(), Some(a.local_addr()));
        assert_eq!(dialed.remote_addr(), Some(b.local_addr()));
        serve(Arc::clone(&accepted));
        serve(Arc::clone(&dialed));
        let reply = dialed.request(b"abc".to_vec(), FRAME_MAX).await;
        assert_eq!(reply.unwrap(), b"cba");
        let reply = accepted.request(Vec::new(), FRAME_MAX).await;
        assert_eq!(reply.unwrap(), b"");
        let large: Vec<u8> = (0..FRAME_MAX).map(|i| i as u8).collect();
        let mut reply = dialed.request(large.clone(), FRAME_MAX).await.unwrap();
        reply.reverse();
        assert!(reply == large);
    })
    .await;
}

#[tokio::test]
async fn the_public_key_of_a_seed_is_that_of_the_transport() {
    on_both(|a, _b| async move { assert_eq!(a.local_key(), public_key(&seed(1))) }).await;
}

#[tokio::test]
async fn another_key_at_the_address_is_refused() {
    on_both(|a, b| async move {
        let accepting = Arc::clone(&b);
        let accepting = tokio::spawn(async move { accepting.accept().await.is_some() });
        let dialed = a.dial(public_key(&seed(3)), b.local_addr()).await;
        let err = dialed.err().unwrap();
        assert!(matches!(err, TransportError::Handshake { .. }), "{err}");
        // And nothing reaches the acceptor, whose next dialer is the right one.
        assert!(!accepting.is_finished());
        let dialed = a.dial(b.local_key(), b.local_addr()).await;
        assert!(dialed.is_ok());
        assert!(accepting.await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn an_oversize_request_is_refused_by_the_responder() {
    on_both(|a, b| async move {
        let (dialed, accepted) = connect(&*a, &*b).await;
        let refusing = async {
            let mut incoming = accepted.incoming().await.unwrap();
            incoming.read(99).await.unwrap_err()
        };
        let (reply, refused) = tokio::join!(dialed.request(vec![7; 100], 0), refusing);
        assert_eq!(
            refused,
            TransportError::FrameTooLarge {
                bytes: 100,
                bytes_max: 99
            }
        );
        assert_eq!(reply.unwrap_err(), TransportError::Reset);
        serve(accepted);
        assert!(dialed.request(b"on".to_vec(), 2).await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn an_oversize_reply_is_refused_by_the_requester() {
    on_both(|a, b| async move {
        let (dialed, accepted) = connect(&*a, &*b).await;
        serve(accepted);
        let refused = dialed.request(vec![7; 100], 99).await.unwrap_err();
        assert_eq!(
            refused,
            TransportError::FrameTooLarge {
                bytes: 100,
                bytes_max: 99
            }
        );
        assert!(dialed.request(b"on".to_vec(), 2).await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn a_request_that_is_dropped_unanswered_fails_at_once() {
    on_both(|a, b| async move {
        let (dialed, accepted) = connect(&*a, &*b).await;
        let dropping = async { drop(accepted.incoming().await.unwrap()) };
        let (reply, ()) = tokio::join!(dialed.request(b"x".to_vec(), 1), dropping);
        assert_eq!(reply.unwrap_err(), TransportError::Reset);
        let dropping = async {
            let mut incoming = accepted.incoming().await.unwrap();
            incoming.read(1).await.unwrap();
        };
        let (reply, ()) = tokio::join!(dialed.request(b"x".to_vec(), 1), dropping);
        assert_eq!(reply.unwrap_err(), TransportError::Reset);
    })
    .await;
}

#[tokio::test]
async fn a_dropped_request_leaves_the_connection_usable() {
    on_both(|a, b| async move {
        let (dialed, accepted) = connect(&*a, &*b).await;
        let soon = Duration::from_millis(20);
        for _ in 0..300 {
            // More than `streams_max` of them: abandoned streams are given back.
            let request = dialed.request(vec![1; 10], 10);
            let _ = tokio::time::timeout(Duration::ZERO, request).await;
        }
        let request = dialed.request(vec![1; 10], 10);
        assert!(tokio::time::timeout(soon, request).await.is_err());
        serve(accepted);
        assert!(dialed.request(b"on".to_vec(), 2).await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn incoming_is_cancel_safe() {
    on_both(|a, b| async move {
        let (dialed, accepted) = connect(&*a, &*b).await;
        for _ in 0..3 {
            let soon = Duration::from_millis(2);
            let none = tokio::time::timeout(soon, accepted.incoming()).await;
            assert!(none.is_err());
        }
        serve(accepted);
        assert!(dialed.request(b"on".to_vec(), 2).await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn the_reason_of_a_close_reaches_the_peer_and_every_waiter() {
    on_both(|a, b| async move {
        let (dialed, accepted) = connect(&*a, &*b).await;
        let waiting = Arc::clone(&accepted);
        let waiting = tokio::spawn(async move { waiting.request(vec![1], 1).await });
        let incoming = Arc::clone(&accepted);
        let incoming = tokio::spawn(async move { incoming.incoming().await.err() });
        let unanswered = dialed.incoming().await.unwrap();
        dialed.close(7, "electorates differ");
        let by_peer = Closed {
            code: Some(7),
            reason: "electorates differ".into(),
            by_peer: true,
        };
        assert_eq!(accepted.closed().await, by_peer);
        let by_peer = TransportError::Closed(by_peer);
        assert_eq!(waiting.await.unwrap().unwrap_err(), by_peer);
        assert_eq!(incoming.await.unwrap().unwrap(), by_peer);
        let here = Closed::locally(7, "electorates differ");
        assert_eq!(dialed.closed().await, here);
        let here = TransportError::Closed(here);
        assert_eq!(dialed.request(vec![], 0).await.unwrap_err(), here);
        assert_eq!(dialed.incoming().await.err().unwrap(), here);
        drop(unanswered);
    })
    .await;
}

#[tokio::test]
async fn a_dropped_connection_is_closed() {
    on_both(|a, b| async move {
        let (dialed, accepted) = connect(&*a, &*b).await;
        drop(dialed);
        let closed = accepted.closed().await;
        assert_eq!((closed.code, closed.by_peer), (Some(0), true));
    })
    .await;
}

#[tokio::test]
async fn sixty_four_requests_at_once_are_all_answered() {
    on_both(|a, b| async move {
        let (dialed, accepted) = connect(&*a, &*b).await;
        serve(accepted);
        let requests = (0..64u8).map(|n| dialed.request(vec![n, 200], 2));
        for (n, reply) in join_all(requests).await.into_iter().enumerate() {
            assert_eq!(reply.unwrap(), [200, n as u8]);
        }
    })
    .await;
}

#[tokio::test]
async fn a_binding_is_the_same_on_both_sides_and_of_one_connection_only() {
    on_both(|a, b| async move {
        let (dialed, accepted) = connect(&*a, &*b).await;
        let (again, _accepted) = connect(&*a, &*b).await;
        let binding = dialed.binding().unwrap();
        assert_eq!(binding, accepted.binding().unwrap());
        assert_ne!(binding, again.binding().unwrap());
    })
    .await;
}

#[tokio::test]
async fn a_bind_error_names_the_address_and_a_closed_one_is_free_at_once() {
    on_both(|a, b| async move {
        let (dialed, accepted) = connect(&*a, &*b).await;
        b.close().await;
        assert!(b.accept().await.is_none());
        let closed = dialed.closed().await;
        assert_eq!((closed.code, closed.by_peer), (Some(0), true));
        assert!(!accepted.closed().await.by_peer);
        assert!(b.dial(a.local_key(), a.local_addr()).await.is_err());
        b.close().await;
    })
    .await;

    let (a, b) = (quic(1).await, quic(3).await);
    let addr = a.local_addr();
    // Handles that are still held do not keep the socket open.
    let (dialed, accepted) = connect(&*b, &*a).await;
    let serving = serve(Arc::clone(&accepted));
    let waiting = tokio::spawn(async move { accepted.request(vec![], 0).await });
    let taken = IrohTransport::bind(seed(2), addr, LinkConfig::default()).await;
    let err = taken.err().unwrap();
    assert!(matches!(err, TransportError::Bind { addr: named, .. } if named == addr));
    assert!(err.to_string().contains(&addr.to_string()), "{err}");
    a.close().await;
    drop(std::net::UdpSocket::bind(addr).unwrap());
    let again = IrohTransport::bind(seed(2), addr, LinkConfig::default()).await;
    again.unwrap().close().await;
    assert!(waiting.await.unwrap().is_err());
    assert!(dialed.closed().await.by_peer);
    serving.await.unwrap();
    b.close().await;
}

#[tokio::test]
async fn close_ends_a_waiting_accept_and_a_dial_and_waits_for_no_peer() {
    // Who waits for one of these to pass does not come back before the test is given up.
    let patient = LinkConfig {
        idle_timeout_ms: 3_600_000,
        handshake_timeout_ms: 3_600_000,
        ..LinkConfig::default()
    };
    let bind = async |n| {
        let bound = IrohTransport::bind(seed(n), loopback(), patient).await;
        Arc::new(bound.unwrap()) as Arc<dyn Transport>
    };
    let (a, b) = (bind(1).await, bind(2).await);
    let _pair = connect(&*a, &*b).await;
    // The peer is gone without a word.
    let silent = bind(3).await;
    let _gone = connect(&*silent, &*b).await;
    drop(silent);
    let accepting = Arc::clone(&b);
    let accepting = tokio::spawn(async move { accepting.accept().await.is_none() });
    // And one handshake goes nowhere: it is under way when its first packet is here.
    let nobody = tokio::net::UdpSocket::bind(loopback()).await.unwrap();
    let (dialing, to) = (Arc::clone(&b), nobody.local_addr().unwrap());
    let dialing = tokio::spawn(async move { dialing.dial(public_key(&seed(9)), to).await.err() });
    nobody.recv_from(&mut [0; 2_048]).await.unwrap();
    let ended = async {
        b.close().await;
        assert!(accepting.await.unwrap());
        let ended = dialing.await.unwrap().unwrap();
        assert_ne!(ended, TransportError::TimedOut);
    };
    let ended = tokio::time::timeout(Duration::from_secs(60), ended).await;
    ended.expect("nobody is waited for");
    a.close().await;
}

#[tokio::test]
async fn a_dial_that_nobody_answers_times_out() {
    let a = quic(1).await;
    let nobody = std::net::UdpSocket::bind(loopback()).unwrap();
    let err = a
        .dial(public_key(&seed(2)), nobody.local_addr().unwrap())
        .await;
    assert_eq!(err.err(), Some(TransportError::TimedOut));
    a.close().await;
}

#[tokio::test]
async fn only_the_given_address_is_bound() {
    let a = IrohTransport::bind(seed(1), loopback(), LinkConfig::default()).await;
    let a = a.unwrap();
    assert_eq!(a.bound(), [a.local_addr()]);
    assert!(a.local_addr().ip().is_loopback());
    a.close().await;
}

/// A peer that speaks QUIC but not our frames.
async fn stranger(to: &dyn Transport) -> (Endpoint, iroh::endpoint::Connection) {
    let endpoint = Endpoint::builder(presets::Minimal)
        .relay_mode(RelayMode::Disabled)
        .clear_ip_transports()
        .bind_addr(loopback())
        .unwrap()
        .bind()
        .await
        .unwrap();
    let id = PublicKey::from_bytes(&to.local_key().0).unwrap();
    let addr = EndpointAddr::from_parts(id, [TransportAddr::Ip(to.local_addr())]);
    let connection = endpoint.connect(addr, b"raft-once/1").await.unwrap();
    (endpoint, connection)
}

#[tokio::test]
async fn bytes_behind_a_frame_and_cut_frames_are_refused() {
    let b = quic(2).await;
    let ((endpoint, raw), accepted) = tokio::join!(stranger(&*b), b.accept());
    let accepted = accepted.unwrap();
    let (behind, short) = ([1, 0, 0, 0, 7, 7], [9, 0, 0, 0, 7]);
    for stream in [&behind[..], &short[..]] {
        let (mut send, mut recv) = raw.open_bi().await.unwrap();
        send.write_all(stream).await.unwrap();
        send.finish().unwrap();
        let mut incoming = accepted.incoming().await.unwrap();
        let err = incoming.read(FRAME_MAX).await.unwrap_err();
        assert!(matches!(err, TransportError::Malformed(_)), "{err}");
        drop(incoming);
        assert!(recv.read_to_end(9).await.is_err());
    }
    let (mut send, _recv) = raw.open_bi().await.unwrap();
    send.write_all(&[9, 0, 0, 0, 7]).await.unwrap();
    let mut incoming = accepted.incoming().await.unwrap();
    send.reset(1u32.into()).unwrap();
    let err = incoming.read(FRAME_MAX).await.unwrap_err();
    assert_eq!(err, TransportError::Reset);
    endpoint.close().await;
    b.close().await;
}

#[tokio::test]
async fn unidirectional_streams_and_datagrams_are_refused() {
    let b = quic(2).await;
    let ((endpoint, raw), _accepted) = tokio::join!(stranger(&*b), b.accept());
    assert!(raw.max_datagram_size().is_none());
    let soon = Duration::from_millis(50);
    assert!(tokio::time::timeout(soon, raw.open_uni()).await.is_err());
    endpoint.close().await;
    b.close().await;
}

#[tokio::test]
async fn silent_dialers_do_not_hold_up_others() {
    let (a, b) = (quic(1).await, quic(2).await);
    // Long headers of a QUIC version that exists, with nothing behind them.
    let noise = std::net::UdpSocket::bind(loopback()).unwrap();
    for n in 0..200u8 {
        let mut packet = vec![n; 1_200];
        packet[..6].copy_from_slice(&[0xc0, 0, 0, 0, 1, 8]);
        noise.send_to(&packet, b.local_addr()).unwrap();
    }
    let start = Instant::now();
    let _pair = connect(&*a, &*b).await;
    assert!(start.elapsed() < Duration::from_secs(1));
    a.close().await;
    b.close().await;
}
