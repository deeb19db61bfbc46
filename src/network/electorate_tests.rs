use super::*;

fn list(voters: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |&(name, addr): &(&str, &str)| (name.to_owned(), addr.to_owned());
    voters.iter().map(owned).collect()
}

fn abc() -> Electorate {
    Electorate::new(list(&[("a", "h:1"), ("b", "h:2"), ("c", "h:3")])).unwrap()
}

fn refused(voters: &[(&str, &str)]) -> String {
    Electorate::new(list(voters)).unwrap_err().to_string()
}

fn numbered(count: usize) -> Vec<(String, String)> {
    (0..count)
        .map(|n| (format!("v{n}"), format!("h:{n}")))
        .collect()
}

/// Fixtures kept for ever: other ids would orphan every log on every disk.
#[test]
fn ids_digest_and_preference_never_change() {
    let electorate = abc();
    let ids: Vec<_> = ["a", "b", "c"]
        .map(|name| electorate.by_name(name).unwrap().id.to_string())
        .into();
    assert_eq!(
        ids,
        ["d4c257790a90efb9", "cfa7037bc48f6a3e", "e440147494308c97"]
    );
    let digest = GroupId::from_bytes(electorate.digest("orders")).to_string();
    assert_eq!(
        digest,
        "4ecf563fe1a552dcc2db4637b764138c6b7ea280f80638249005f7f0ba20eae8"
    );
    let names = |ids: Vec<NodeId>| -> String {
        ids.into_iter()
            .map(|id| &*electorate.get(id).unwrap().name)
            .collect()
    };
    let groups = [1, 2, 3, 4].map(|n| GroupId::from_bytes([n; 32]));
    let leaders = groups.map(|group| names(electorate.preference(&group)));
    assert_eq!(leaders, ["cba", "cab", "cba", "cba"]);
    let observer = NodeId::from_u64(7);
    let followed = groups.map(|group| names(electorate.preference_for(&group, observer)));
    assert_eq!(followed, ["acb", "bac", "cba", "cba"]);
}

#[test]
fn order_and_addresses_change_neither_ids_nor_digest_nor_preference() {
    let one = abc();
    let two =
        Electorate::new(list(&[("c", "x:9"), ("a", "[::1]:8"), ("b", "10.0.0.1:7")])).unwrap();
    assert_eq!(one.digest("orders"), two.digest("orders"));
    let ids = |electorate: &Electorate| -> Vec<NodeId> {
        electorate.voters().iter().map(|voter| voter.id).collect()
    };
    assert_eq!(ids(&one), ids(&two));
    assert!(ids(&one).is_sorted());
    let group = GroupId::from_bytes([9; 32]);
    assert_eq!(one.preference(&group), two.preference(&group));
}

#[test]
fn another_name_or_network_is_another_digest() {
    let one = abc().digest("orders");
    let other = Electorate::new(list(&[("a", "h:1"), ("b", "h:2"), ("d", "h:3")])).unwrap();
    assert_ne!(one, other.digest("orders"));
    assert_ne!(one, abc().digest("order"));
    // Lengths are inside: characters cannot move from one name to the next.
    let glued = |names: [&str; 3]| {
        let voters = names.iter().enumerate();
        let voters = voters.map(|(n, name)| (name.to_string(), format!("h:{n}")));
        Electorate::new(voters.collect()).unwrap().digest("n")
    };
    assert_ne!(glued(["ab", "c", "d"]), glued(["a", "bc", "d"]));
}

#[test]
fn one_three_and_five_voters_are_an_electorate() {
    for count in [1, 3, 5] {
        let electorate = Electorate::new(numbered(count)).unwrap();
        assert_eq!(electorate.voters().len(), count);
    }
}

#[test]
fn every_other_size_is_refused_with_its_reason() {
    let text = |count| Electorate::new(numbered(count)).unwrap_err().to_string();
    assert!(text(0).contains("is empty"));
    assert!(text(2).contains("electorate of 2 tolerates no more failures than one of 1"));
    assert!(text(4).contains("electorate of 4 tolerates no more failures than one of 3"));
    assert!(text(6).contains("electorate of 6 is too large"));
    assert!(text(7).contains("the disks of 4 voters"));
}

#[test]
fn every_bad_name_is_refused_with_its_reason() {
    assert!(refused(&[("", "h:1")]).contains("empty name"));
    let long = "n".repeat(NAME_BYTES_MAX + 1);
    assert!(refused(&[(&long, "h:1")]).contains("longer than 64 bytes"));
    assert!(Electorate::new(list(&[(&long[1..], "h:1")])).is_ok());
    let twice = [("a", "h:1"), ("b", "h:2"), ("a", "h:3")];
    assert!(refused(&twice).contains("two voters are called \"a\""));
    let colliding = ["a", "b", "c"].map(|name| Voter {
        name: name.to_owned(),
        id: NodeId::from_u64(if name == "a" { 1 } else { 2 }),
        addr: format!("{name}:1"),
    });
    let error = Electorate::of_voters(colliding.into()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("\"b\" and \"c\" have the same node id"),
        "{error}"
    );
}

#[test]
fn a_network_name_has_one_to_sixty_four_bytes() {
    assert!(check_network_name("orders").is_ok());
    assert!(check_network_name(&"n".repeat(64)).is_ok());
    for bad in [String::new(), "n".repeat(65)] {
        let error = check_network_name(&bad).unwrap_err().to_string();
        assert!(error.contains("1 to 64 bytes"), "{error}");
    }
}

#[test]
fn two_voters_at_one_address_are_refused_however_it_is_spelled() {
    for (one, two) in [
        ("host:7", "host:7"),
        ("host:7", "HOST:07"),
        ("[::1]:7", "[0:0:0:0:0:0:0:1]:7"),
    ] {
        let text = refused(&[("a", one), ("b", "other:1"), ("c", two)]);
        assert!(
            text.contains("\"a\" and \"c\" have the same address"),
            "{text}"
        );
    }
}

#[test]
fn every_bad_address_is_refused_with_its_reason() {
    let long = format!("{}:1", "h".repeat(HOST_BYTES_MAX + 1));
    for (addr, reason) in [
        ("", "has no port"),
        ("host", "has no port"),
        ("host:", "has no port"),
        (":80", "has no host"),
        ("host:65536", "not a number from 0 to 65535"),
        ("host:-1", "not a number from 0 to 65535"),
        ("host:+1", "not a number from 0 to 65535"),
        ("host:http", "not a number from 0 to 65535"),
        ("::1:80", "without brackets"),
        ("http://host:80", "without brackets or two ports"),
        ("[::1:80", "not an IPv6 address"),
        ("[host]:80", "not an IPv6 address"),
        ("[::1]x:80", "not an IPv6 address"),
        ("a host:80", "character that no host name has"),
        ("a..b:80", "empty part"),
        (".:80", "empty part"),
        ("10.0.0.300:80", "not an IPv4 address"),
        ("1234:80", "not an IPv4 address"),
        (&long, "longer than 253 bytes"),
    ] {
        let text = refused(&[("a", addr)]);
        assert!(
            text.contains(reason) && text.contains("write host:port"),
            "{addr}: {text}"
        );
    }
    for addr in [
        "host:0",
        "a-b_c.example.:65535",
        "10.0.0.1:7400",
        "[::1]:1",
        "[fe80::1%2]:1",
    ] {
        assert!(Electorate::new(list(&[("a", addr)])).is_ok(), "{addr}");
    }
}

#[test]
fn leaders_and_followers_spread_over_the_voters() {
    let electorate = abc();
    let mut led = std::collections::BTreeMap::<_, u32>::new();
    let mut followed = led.clone();
    let one_group = GroupId::from_bytes([1; 32]);
    for n in 1..=3_000_u64 {
        let group = GroupId::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes());
        *led.entry(electorate.preference(&group)[0]).or_default() += 1;
        let order = electorate.preference_for(&one_group, NodeId::from_u64(n));
        *followed.entry(order[0]).or_default() += 1;
    }
    let even = |counts: &std::collections::BTreeMap<NodeId, u32>| {
        counts.len() == 3 && counts.values().all(|n| (900..1100).contains(n))
    };
    assert!(even(&led) && even(&followed), "{led:?} {followed:?}");
}
