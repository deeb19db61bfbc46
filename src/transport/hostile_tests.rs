//! What a stranger can make a connection hold, and what it cannot.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::raw::{self, Raw, framed};
use super::*;

const FRAME_MAX: usize = 1 << 20;

/// How long anything may take. Nothing here asserts on speed: this only ends a hanging test.
const DEADLINE: Duration = Duration::from_secs(60);

/// What did not happen until now is taken not to happen.
const NEVER: Duration = Duration::from_millis(200);

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work).await.expect("in vain")
}

async fn never<T>(work: impl Future<Output = T>) {
    assert!(tokio::time::timeout(NEVER, work).await.is_err());
}

async fn acceptor() -> IrohTransport {
    acceptor_with(LinkConfig::default()).await
}

async fn acceptor_with(config: LinkConfig) -> IrohTransport {
    let addr = SocketAddr::from(([127, 0, 0, 1], 0));
    IrohTransport::bind([2; 32], addr, config).await.unwrap()
}

async fn dialed(to: &IrohTransport) -> (Raw, Arc<dyn Connection>) {
    let dial = Raw::dial([1; 32], to.local_key(), to.local_addr());
    let (raw, accepted) = within(async { tokio::join!(dial, to.accept()) }).await;
    (raw, accepted.unwrap())
}

#[tokio::test]
async fn a_stranger_has_two_streams_until_more_is_allowed() {
    let to = acceptor().await;
    let (raw, accepted) = dialed(&to).await;
    let _first = raw.send(&[1]).await.unwrap();
    let _second = raw.send(&[1]).await.unwrap();
    never(raw.send(&[1])).await;
    accepted.allow(Allowance {
        streams_max: 4,
        ..Allowance::STRANGER
    });
    let _third = within(raw.send(&[1])).await.unwrap();
    let _fourth = within(raw.send(&[1])).await.unwrap();
    never(raw.send(&[1])).await;
    to.close().await;
}

#[tokio::test]
async fn a_stranger_has_a_small_window_until_more_is_allowed() {
    let to = acceptor().await;
    let (raw, accepted) = dialed(&to).await;
    let window = Allowance::STRANGER.receive_window_bytes as usize;
    // Nobody reads it, so no credit comes back.
    let mut stream = within(raw.send(&vec![0; window])).await.unwrap();
    never(stream.more(&[0])).await;
    let mut other = within(raw.send(&[])).await.unwrap();
    never(other.more(&[0])).await;
    accepted.allow(Allowance {
        streams_max: 2,
        receive_window_bytes: 1 << 20,
    });
    let rest = vec![0; (1 << 20) - window];
    within(stream.more(&rest[2..])).await.unwrap();
    never(stream.more(&[0; 3])).await;
    to.close().await;
}

#[tokio::test]
async fn more_than_the_window_passes_when_it_is_read() {
    let to = acceptor().await;
    let (raw, accepted) = dialed(&to).await;
    let answering = async {
        let mut incoming = accepted.incoming().await.unwrap();
        let frame = incoming.read(FRAME_MAX).await.unwrap();
        incoming.reply(frame).await.unwrap();
    };
    let frame = vec![7; 300 * 1024];
    let (reply, ()) = within(async { tokio::join!(raw.request(&frame), answering) }).await;
    assert!(reply.unwrap() == frame);
    to.close().await;
}

#[tokio::test]
async fn a_frame_is_charged_while_it_is_on_its_way_and_refused_at_once_beyond_the_budget() {
    let to = acceptor().await;
    let (raw, accepted) = dialed(&to).await;
    accepted.allow(Allowance {
        streams_max: 9,
        ..Allowance::STRANGER
    });
    let budget = Budget::alone(1_000);
    // Announced and never sent: it counts in full.
    let announced = raw.send(&600_u32.to_le_bytes()).await.unwrap();
    let mut half = within(accepted.incoming()).await.unwrap();
    let reading = budget.clone();
    let reading = tokio::spawn(async move { half.read_within(FRAME_MAX, &reading).await.err() });
    while budget.take(401).is_some() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // The next is refused when its length is there, and only it.
    let mut second = raw.send(&401_u32.to_le_bytes()).await.unwrap();
    let mut incoming = within(accepted.incoming()).await.unwrap();
    let refused = within(incoming.read_within(FRAME_MAX, &budget)).await;
    let refused = refused.err().unwrap();
    assert_eq!(refused, TransportError::OverBudget { bytes: 401 });
    drop(incoming);
    within(second.refused()).await;
    let third = raw.send(&framed(&[7; 400])).await.unwrap();
    let mut third = (third, within(accepted.incoming()).await.unwrap());
    third.0.finish();
    let (frame, charge) = within(third.1.read_within(FRAME_MAX, &budget))
        .await
        .unwrap();
    assert_eq!(frame, [7; 400]);
    assert!(budget.take(1).is_none());
    drop(charge);
    // The first is given up, and what it held is free again.
    drop(announced);
    assert!(within(reading).await.unwrap().is_some());
    assert!(budget.take(1_000).is_some());
    to.close().await;
}

/// Between a dialer and `to`: passes on the first packet of the dialer and, after a retry, the
/// next one, then nothing that it sends. What is left is a handshake that goes nowhere, which is
/// counted once the acceptor has answered.
async fn half_a_handshake(to: SocketAddr, begun: Arc<AtomicUsize>) -> SocketAddr {
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    let near = tokio::net::UdpSocket::bind(local).await.unwrap();
    let far = tokio::net::UdpSocket::bind(local).await.unwrap();
    let addr = near.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut packet, mut answer) = (vec![0; 2_048], vec![0; 2_048]);
        let (mut may_pass, mut dialer, mut counted) = (true, None, false);
        loop {
            tokio::select! {
                Ok((bytes, from)) = near.recv_from(&mut packet) => {
                    dialer = Some(from);
                    if std::mem::take(&mut may_pass) {
                        let _ = far.send_to(&packet[..bytes], to).await;
                    }
                }
                Ok((bytes, _)) = far.recv_from(&mut answer) => {
                    // A long header of type 3 is a retry.
                    let is_retry = answer[0] & 0xf0 == 0xf0;
                    may_pass |= is_retry;
                    if !is_retry && !std::mem::replace(&mut counted, true) {
                        begun.fetch_add(1, Ordering::Relaxed);
                    }
                    if let Some(dialer) = dialer {
                        let _ = near.send_to(&answer[..bytes], dialer).await;
                    }
                }
            }
        }
    });
    addr
}

#[tokio::test]
async fn handshakes_that_go_nowhere_do_not_keep_out_those_that_do() {
    // They do not go away by themselves.
    let patient = LinkConfig {
        handshake_timeout_ms: 600_000,
        idle_timeout_ms: 600_000,
        ..LinkConfig::default()
    };
    let to = acceptor_with(patient).await;
    let begun = Arc::new(AtomicUsize::new(0));
    let count = HANDSHAKES_MAX + 20;
    let mut silent = Vec::new();
    for n in 0..count {
        let through = half_a_handshake(to.local_addr(), begun.clone()).await;
        let (endpoint, key) = (raw::endpoint([n as u8 + 10; 32]).await, to.local_key());
        silent.push(tokio::spawn(async move {
            // It takes the handshake for done, which the acceptor never hears.
            if let Some(raw) = Raw::dial_from(&endpoint, key, through).await {
                raw.closed().await;
            }
        }));
    }
    within(async {
        while begun.load(Ordering::Relaxed) < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let (raw, _accepted) = dialed(&to).await;
    assert!(!raw.is_closed());
    for dialing in silent {
        dialing.abort();
    }
    to.close().await;
}
