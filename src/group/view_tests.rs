//! What a view is told, and whom it tells.

use super::*;
use crate::id::ProposalId;
use crate::machine::Proposal;

fn record(n: u8, version: u64) -> Arc<Record> {
    Arc::new(Record {
        proposal: Proposal {
            id: ProposalId::new([n; 16], NodeId::of_voter("a"), [0; 16], &[n]),
            value: Arc::from([n].as_slice()),
            proposed_at_ms: 0,
        },
        version: Version::new(version),
    })
}

fn view() -> View {
    View::new(GroupId::from_bytes([7; 32]), CancellationToken::new())
}

#[derive(Default)]
struct Seen(Mutex<Vec<u64>>);
impl Sink for Seen {
    fn decided(&self, record: &Arc<Record>) {
        self.0.lock().unwrap().push(record.version.as_u64());
    }
}

#[test]
fn a_version_never_runs_backwards() {
    let view = view();
    view.observe(Version::new(5), None);
    view.observe(Version::new(3), None);
    assert_eq!(view.version(), Version::new(5));
}

#[test]
fn a_sink_hears_of_the_record_once_whether_it_came_before_or_after() {
    let view = view();
    let (early, late) = (Arc::new(Seen::default()), Arc::new(Seen::default()));
    view.attach(&(early.clone() as Arc<dyn Sink>));
    view.observe(Version::new(2), Some(&record(1, 2)));
    view.observe(Version::new(3), Some(&record(1, 2)));
    view.attach(&(late.clone() as Arc<dyn Sink>));
    assert_eq!(*early.0.lock().unwrap(), [2]);
    assert_eq!(*late.0.lock().unwrap(), [2]);
}

#[test]
fn who_is_handed_the_record_is_told_no_older_version() {
    struct Asks(Arc<View>, Mutex<Vec<Version>>);
    impl Sink for Asks {
        fn decided(&self, _: &Arc<Record>) {
            self.1.lock().unwrap().push(self.0.version());
        }
    }
    let view = Arc::new(view());
    let sink = Arc::new(Asks(view.clone(), Mutex::default()));
    view.attach(&(sink.clone() as Arc<dyn Sink>));
    view.observe(Version::new(2), Some(&record(1, 2)));
    assert_eq!(*sink.1.lock().unwrap(), [Version::new(2)]);
}

#[test]
#[should_panic(expected = "agreement broken")]
fn a_second_record_is_never_taken() {
    let view = view();
    view.observe(Version::new(2), Some(&record(1, 2)));
    view.observe(Version::new(3), Some(&record(2, 3)));
}

/// Both pass a barrier of their own, and the second may not.
#[test]
fn a_request_to_subscribe_that_arrives_twice_and_fails_once_ends_nothing() {
    let (view, peer) = (view(), NodeId::of_voter("a"));
    let pusher = Arc::new(Pusher::new(peer, Arc::default()));
    for number in [3, 3] {
        view.subscribe(peer, number, pusher.clone(), (Scope::All, None));
    }
    assert!(view.answer_subscription(peer, 3, false));
    assert!(!view.give_up_subscription(peer, 3));
    view.subscribe(peer, 3, pusher.clone(), (Scope::All, None));
    assert!(!view.give_up_subscription(peer, 3), "nor a third time");
    assert_eq!(view.subscription(peer), Some(3));

    // One that nobody was told of ends, and is not answered well afterwards.
    view.subscribe(peer, 4, pusher.clone(), (Scope::All, None));
    assert!(view.give_up_subscription(peer, 4));
    assert!(!view.answer_subscription(peer, 4, false));
    assert!(view.is_idle());
}

#[test]
fn a_barrier_passed_before_a_loss_does_not_count() {
    let view = view();
    view.add_interest();
    let losses = view.start_joining().unwrap();
    assert!(view.start_joining().is_none(), "one at a time");
    view.go_offline();
    assert!(!view.finish_joining(losses));
    assert!(!view.is_online());
    let losses = view.start_joining().unwrap();
    assert!(view.finish_joining(losses));
    assert!(view.is_online());
}
