use http::HeaderValue;
use proptest::prelude::*;

use super::*;

fn rules() -> Rules {
    Rules {
        trusted: vec!["10.0.0.0/8".parse().unwrap()],
        headers: ProxyHeaders::XForwarded,
        scheme: Scheme::Http,
    }
}

fn read(host: &str, extra: &[(&'static str, &str)], peer: &str) -> Result<Origin, OriginError> {
    let mut headers = HeaderMap::new();
    headers.insert(HOST, HeaderValue::from_bytes(host.as_bytes()).unwrap());
    for (name, value) in extra {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    read_by(headers, peer, &rules())
}

fn read_by(headers: HeaderMap, peer: &str, rules: &Rules) -> Result<Origin, OriginError> {
    Origin::read(None, &headers, peer.parse().unwrap(), Scheme::Http, rules)
}

fn is_local(host: &str, extra: &[(&'static str, &str)], peer: &str) -> bool {
    read(host, extra, peer).is_ok_and(|origin| origin.local)
}

#[test]
fn loopback_peers_with_local_hosts_are_local() {
    for host in [
        "localhost",
        "localhost:5000",
        "LOCALHOST:1",
        "127.0.0.1:5000",
        "127.8.8.8",
        "[::1]:5000",
        "acme.localhost",
    ] {
        assert!(is_local(host, &[], "127.0.0.1"), "{host}");
    }
    assert!(is_local("localhost", &[], "::1"));
}

#[test]
fn everything_that_hints_at_a_proxy_or_another_machine_is_not() {
    for host in [
        "registry.example.com",
        "localhost.example.com",
        "10.0.0.1:5000",
        "",
        "evil:localhost",
        "localhost:1@example.com",
        "localhost@example.com",
        "[::1]example.com",
        "[::1]5000",
        "[::1",
        "evillocalhost",
    ] {
        assert!(!is_local(host, &[], "127.0.0.1"), "{host}");
    }
    for peer in ["10.0.0.1", "192.0.2.1", "::ffff:10.0.0.1"] {
        assert!(!is_local("localhost", &[], peer), "{peer}");
    }
    for header in [
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-forwarded-port",
    ] {
        assert!(!is_local("localhost", &[(header, "x")], "127.0.0.1"), "{header}");
    }
    assert_eq!(
        Origin::read(
            None,
            &HeaderMap::new(),
            [127, 0, 0, 1].into(),
            Scheme::Http,
            &rules()
        ),
        Err(OriginError::None)
    );
}

#[test]
fn a_request_that_names_two_hosts_is_refused() {
    let mut headers = HeaderMap::new();
    headers.insert(HOST, HeaderValue::from_static("acme.localhost"));
    let both = Origin::read(
        Some("other.localhost"),
        &headers,
        [127, 0, 0, 1].into(),
        Scheme::Http,
        &rules(),
    );
    assert_eq!(both, Err(OriginError::Several));
    assert!(
        Origin::read(
            Some("ACME.localhost"),
            &headers,
            [127, 0, 0, 1].into(),
            Scheme::Http,
            &rules()
        )
        .is_ok()
    );
    headers.append(HOST, HeaderValue::from_static("other.localhost"));
    assert_eq!(
        Origin::read(None, &headers, [127, 0, 0, 1].into(), Scheme::Http, &rules()),
        Err(OriginError::Several)
    );
}

#[test]
fn forwarded_headers_count_from_trusted_proxies_alone() {
    let forwarded = [
        ("x-forwarded-host", "acme.example.com"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-for", "198.51.100.7, 10.9.9.9"),
    ];
    let believed = read("internal:5000", &forwarded, "10.0.0.1").unwrap();
    assert_eq!(
        (believed.host.as_str(), believed.scheme),
        ("acme.example.com", Scheme::Https)
    );
    assert_eq!(believed.address, IpAddr::from([198, 51, 100, 7]));
    assert_eq!(believed.link("/v2/token"), "https://acme.example.com/v2/token");

    let ignored = read("internal:5000", &forwarded, "192.0.2.1").unwrap();
    assert_eq!(
        (ignored.host.as_str(), ignored.scheme),
        ("internal", Scheme::Http)
    );
    assert_eq!(ignored.address, IpAddr::from([192, 0, 2, 1]));
    assert_eq!(ignored.link("/"), "http://internal:5000/");
}

#[test]
fn the_client_is_the_last_address_that_no_trusted_proxy_has() {
    let client = |chain: &str| {
        read("a", &[("x-forwarded-for", chain)], "10.0.0.1")
            .unwrap()
            .address
            .to_string()
    };
    // What the client itself has written stands to the left.
    assert_eq!(client("203.0.113.1, 198.51.100.7, 10.2.2.2"), "198.51.100.7");
    assert_eq!(client("10.3.3.3, 10.2.2.2"), "10.3.3.3");
    assert_eq!(client("unknown"), "10.0.0.1");
    assert_eq!(client("[2001:db8::1]:443"), "2001:db8::1");
}

#[test]
fn one_sort_of_headers_is_believed_and_the_other_may_be_the_clients() {
    let headers = || {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("host", "a"),
            (
                "forwarded",
                "for=198.51.100.7;host=acme.example.com;proto=https, for=\"10.1.1.1:80\"",
            ),
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-host", "other.example.com"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        headers
    };
    for (which, address, host, scheme) in [
        (
            ProxyHeaders::XForwarded,
            "203.0.113.9",
            "other.example.com",
            Scheme::Http,
        ),
        (
            ProxyHeaders::Forwarded,
            "198.51.100.7",
            "acme.example.com",
            Scheme::Https,
        ),
    ] {
        let rules = Rules {
            headers: which,
            ..rules()
        };
        let origin = read_by(headers(), "10.0.0.1", &rules).unwrap();
        assert_eq!(origin.address.to_string(), address);
        assert_eq!((origin.host.as_str(), origin.scheme), (host, scheme));
    }
}

proptest! {
    #[test]
    fn no_header_panics_and_a_host_is_plain(host in "[ -~]{0,40}", forwarded in "[ -~]{0,60}") {
        if let Ok(origin) = read(&host, &[("forwarded", &forwarded), ("x-forwarded-for", &forwarded)], "192.0.2.1") {
            prop_assert!(!origin.host.is_empty());
            prop_assert!(origin.host.bytes().all(|b| !b.is_ascii_uppercase() && b != b'/' && b != b'@' && b != b' '));
        }
        for which in [ProxyHeaders::XForwarded, ProxyHeaders::Forwarded] {
            let mut headers = HeaderMap::new();
            for (name, value) in [("host", &host), ("forwarded", &forwarded), ("x-forwarded-host", &forwarded)] {
                headers.append(name, HeaderValue::from_str(value).unwrap());
            }
            let rules = Rules { headers: which, ..rules() };
            let _ = read_by(headers, "10.0.0.1", &rules);
        }
    }
}

#[test]
fn at_a_host_that_no_edge_stands_for_it_counts_how_the_request_has_come() {
    let outside = Rules {
        scheme: Scheme::Https,
        ..rules()
    };
    let link = |host: &str, extra: Option<&str>, peer: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_str(host).unwrap());
        if let Some(proto) = extra {
            headers.insert("x-forwarded-proto", HeaderValue::from_str(proto).unwrap());
        }
        let origin = Origin::read(None, &headers, peer.parse().unwrap(), Scheme::Http, &outside);
        origin.unwrap().direct
    };
    for host in [
        "10.96.3.4:80",
        "[fd00::1]:80",
        "localhost:5000",
        "berth",
        "berth.berth-system.svc",
        "berth.berth-system.svc.cluster.local:80",
    ] {
        assert_eq!(link(host, None, "192.0.2.1"), Scheme::Http, "{host}");
    }
    for host in [
        "acme.registry.example.com",
        "registry.example.com",
        "svc.example.com",
    ] {
        assert_eq!(link(host, None, "192.0.2.1"), Scheme::Https, "{host}");
    }
    // A trusted proxy knows better.
    assert_eq!(link("10.96.3.4", Some("https"), "10.0.0.1"), Scheme::Https);
}
