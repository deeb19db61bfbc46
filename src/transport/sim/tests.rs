//! What tests can do to a simulated network, all on a paused clock.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::super::{Closed, Connection, Transport, TransportError, public_key};
use super::{SimNet, SimTransport};

fn addr(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn node(net: &SimNet, n: u8) -> SimTransport {
    net.bind([n; 32], addr(n.into())).unwrap()
}

type Pair = (Arc<dyn Connection>, Arc<dyn Connection>);

async fn connect(a: &SimTransport, b: &SimTransport) -> Pair {
    let (dialed, accepted) = tokio::join!(a.dial(b.local_key(), b.local_addr()), b.accept());
    (dialed.unwrap(), accepted.unwrap())
}

fn serve(connection: Arc<dyn Connection>) -> tokio::task::JoinHandle<u32> {
    tokio::spawn(async move {
        let mut served = 0;
        while let Ok(mut incoming) = connection.incoming().await {
            let frame = incoming.read(100).await.unwrap();
            served += 1;
            let _ = incoming.reply(frame).await;
        }
        served
    })
}

const SECOND: Duration = Duration::from_secs(1);
const IDLE: Duration = Duration::from_millis(1_500);

#[tokio::test(start_paused = true)]
async fn a_cut_link_hangs_and_dies_of_the_idle_timeout() {
    let net = SimNet::new(1);
    let (a, b) = (node(&net, 1), node(&net, 2));
    let (dialed, accepted) = connect(&a, &b).await;
    serve(Arc::clone(&accepted));
    net.cut(a.addr, b.addr);
    let start = Instant::now();
    let err = dialed.request(vec![1], 1).await.unwrap_err();
    assert_eq!(err, TransportError::Closed(Closed::silence()));
    assert_eq!(start.elapsed(), IDLE);
    assert_eq!(accepted.closed().await, Closed::silence());
    assert_eq!(dialed.closed().await, Closed::silence());
    let start = Instant::now();
    let err = a.dial(b.key, b.addr).await.err();
    assert_eq!(err, Some(TransportError::TimedOut));
    assert_eq!(start.elapsed(), 3 * SECOND);
    net.heal(a.addr, b.addr);
    connect(&a, &b).await;
}

#[tokio::test(start_paused = true)]
async fn a_link_that_heals_in_time_delivers_late_and_once() {
    let net = SimNet::new(1);
    let (a, b) = (node(&net, 1), node(&net, 2));
    let (dialed, accepted) = connect(&a, &b).await;
    let served = serve(accepted);
    net.cut(a.addr, b.addr);
    let (waiting, heal) = (dialed.request(vec![1], 1), async {
        tokio::time::sleep(SECOND).await;
        net.heal(a.addr, b.addr);
    });
    let start = Instant::now();
    let (reply, ()) = tokio::join!(waiting, heal);
    assert_eq!(reply.unwrap(), [1]);
    assert_eq!(start.elapsed(), SECOND);
    // The silence is over: its timeout does nothing, and a new one starts anew.
    net.cut(a.addr, b.addr);
    tokio::time::sleep(SECOND).await;
    net.heal_all();
    tokio::time::sleep(2 * IDLE).await;
    assert!(dialed.request(vec![2], 1).await.is_ok());
    dialed.close(0, "");
    assert_eq!(served.await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_dial_goes_through_when_the_link_heals() {
    let net = SimNet::new(1);
    let (a, b) = (node(&net, 1), node(&net, 2));
    net.cut_one_way(b.addr, a.addr);
    let heal = async {
        tokio::time::sleep(SECOND).await;
        net.heal(a.addr, b.addr);
    };
    tokio::join!(connect(&a, &b), heal);
}

#[tokio::test(start_paused = true)]
async fn a_one_way_cut_lets_requests_pass_and_holds_replies() {
    let net = SimNet::new(1);
    let (a, b) = (node(&net, 1), node(&net, 2));
    let (dialed, accepted) = connect(&a, &b).await;
    let served = serve(accepted);
    net.cut_one_way(b.addr, a.addr);
    let start = Instant::now();
    assert!(dialed.request(vec![1], 1).await.is_err());
    assert_eq!(start.elapsed(), IDLE);
    assert_eq!(served.await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn lost_replies_leave_the_request_executed_and_the_link_up() {
    let net = SimNet::new(1);
    let (a, b) = (node(&net, 1), node(&net, 2));
    let (dialed, accepted) = connect(&a, &b).await;
    let served = serve(Arc::clone(&accepted));
    net.drop_replies(b.addr, a.addr);
    let unanswered = timeout(10 * SECOND, dialed.request(vec![1], 1)).await;
    assert!(unanswered.is_err());
    // The other way round requests are answered, and a heal ends it.
    serve(Arc::clone(&dialed));
    assert!(accepted.request(vec![2], 1).await.is_ok());
    net.heal(a.addr, b.addr);
    assert!(dialed.request(vec![3], 1).await.is_ok());
    dialed.close(0, "");
    assert_eq!(served.await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_isolated_node_reaches_nobody_until_healed() {
    let net = SimNet::new(1);
    let (a, b, c) = (node(&net, 1), node(&net, 2), node(&net, 3));
    let (to_b, at_b) = connect(&a, &b).await;
    net.isolate(a.addr);
    assert_eq!(at_b.closed().await, Closed::silence());
    assert_eq!(to_b.closed().await, Closed::silence());
    let late = net.bind([4; 32], addr(0)).unwrap();
    for other in [&b, &late] {
        assert!(a.dial(other.key, other.addr).await.is_err());
        assert!(other.dial(a.key, a.addr).await.is_err());
    }
    connect(&b, &c).await;
    net.heal(b.addr, a.addr);
    connect(&a, &b).await;
    assert!(a.dial(c.key, c.addr).await.is_err());
    net.heal_all();
    connect(&late, &a).await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_node_is_noticed_by_its_silence_and_a_closed_one_at_once() {
    let net = SimNet::new(1);
    let (a, b, c) = (node(&net, 1), node(&net, 2), node(&net, 3));
    let (to_b, at_b) = connect(&a, &b).await;
    let (to_c, _at_c) = connect(&a, &c).await;
    let start = Instant::now();
    drop(b);
    c.close().await;
    let closed = to_c.closed().await;
    assert_eq!((closed.code, closed.by_peer), (Some(0), true));
    assert_eq!(start.elapsed(), Duration::ZERO);
    // The process is dead: nothing it still does gets out.
    at_b.close(9, "unheard");
    assert_eq!(to_b.closed().await, Closed::silence());
    assert_eq!(start.elapsed(), IDLE);
    for n in [2, 3] {
        let err = a.dial(public_key(&[n; 32]), addr(n.into())).await.err();
        assert!(matches!(err, Some(TransportError::Unreachable { .. })));
    }
    // Its address is free for its successor, who has nothing to do with its connections.
    let b = node(&net, 2);
    connect(&a, &b).await;
    net.kill(b.addr);
    assert!(b.accept().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_address_is_bound_once_and_port_zero_is_a_free_one() {
    let net = SimNet::new(1);
    let a = node(&net, 1);
    let err = net.bind([2; 32], a.addr).err().unwrap();
    assert!(matches!(err, TransportError::Bind { addr, .. } if addr == a.addr));
    let (b, c) = (net.bind([2; 32], addr(0)), net.bind([3; 32], addr(0)));
    let (b, c) = (b.unwrap(), c.unwrap());
    assert!(b.addr != c.addr && b.addr.port() != 0);
}

#[tokio::test(start_paused = true)]
async fn delays_are_in_range_and_the_same_for_the_same_seed() {
    let times = async |seed| {
        let net = SimNet::new(seed);
        net.set_delay(Duration::from_millis(10), Duration::from_millis(20));
        let (a, b) = (node(&net, 1), node(&net, 2));
        let (dialed, accepted) = connect(&a, &b).await;
        serve(accepted);
        let mut times = Vec::new();
        for _ in 0..20 {
            let start = Instant::now();
            dialed.request(vec![1], 1).await.unwrap();
            times.push(start.elapsed());
        }
        times
    };
    let first = times(5).await;
    let (min, max) = (Duration::from_millis(20), Duration::from_millis(42));
    assert!(
        first.iter().all(|time| (min..=max).contains(time)),
        "{first:?}"
    );
    assert_eq!(times(5).await, first);
    assert_ne!(times(6).await, first);
}

#[tokio::test(start_paused = true)]
async fn requests_that_overtake_each_other_and_their_ends_are_sorted_out() {
    let net = SimNet::new(1);
    net.set_delay(Duration::ZERO, Duration::from_millis(50));
    let (a, b) = (node(&net, 1), node(&net, 2));
    let (dialed, accepted) = connect(&a, &b).await;
    serve(accepted);
    for n in 0..200 {
        let request = dialed.request(vec![n], 1);
        if let Ok(reply) = timeout(Duration::from_millis(20), request).await {
            assert_eq!(reply.unwrap(), [n]);
        }
    }
    assert_eq!(dialed.request(vec![7], 1).await.unwrap(), [7]);
}

#[tokio::test(start_paused = true)]
async fn counts_show_that_an_idle_link_is_silent() {
    let net = SimNet::new(1);
    let (a, b) = (node(&net, 1), node(&net, 2));
    let (dialed, accepted) = connect(&a, &b).await;
    serve(accepted);
    dialed.request(vec![1], 1).await.unwrap();
    let counts = net.counts();
    assert_eq!(
        (counts.delivered, counts.dropped, counts.connections),
        (2, 0, 1)
    );
    tokio::time::sleep(600 * SECOND).await;
    assert_eq!(net.counts(), counts);
    net.drop_replies(b.addr, a.addr);
    let _ = timeout(SECOND, dialed.request(vec![1], 1)).await;
    assert_eq!(net.counts().dropped, 1);
}
