//! By which name a client asks. A web page can have its own name lead to 127.0.0.1 (DNS rebinding), and its reader's browser then lets it read
//! what is served there; but the browser says by which name it asks.

use std::net::{IpAddr, SocketAddr};

use hyper::header::HOST;
use hyper::{HeaderMap, Uri};

/// Is a request that came to `local` meant for it? A client that says no name, and one that comes over the network, may ask by any.
pub(super) fn is_meant(local: SocketAddr, uri: &Uri, headers: &HeaderMap) -> bool {
    if !local.ip().is_loopback() {
        return true;
    }
    let is_own = |host: &str| is_own(host, local.ip());
    uri.host().is_none_or(is_own)
        && headers.get_all(HOST).iter().all(|value| value.to_str().is_ok_and(|host| is_own(without_port(host))))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    }
}

fn is_own(host: &str, local: IpAddr) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    name.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback() || address == local)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn is_let_in(local: &str, uri: &str, host: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_str(host).unwrap());
        is_meant(local.parse().unwrap(), &uri.parse().unwrap(), &headers)
    }

    #[test]
    fn names_that_others_may_have_are_none_of_loopbacks() {
        let on_loopback = |host: &str| is_let_in("127.0.0.1:8917", "/metrics", host);
        for own in [
            "localhost",
            "LocalHost:8917",
            "localhost.",
            "127.0.0.1",
            "127.0.0.1:8917",
            "127.1.2.3",
            "[::1]",
            "[::1]:1",
        ] {
            assert!(on_loopback(own), "{own}");
        }
        for other in [
            "example.net",
            "example.net:8917",
            "localhost.example.net",
            "127.0.0.1.example.net",
            "x",
            "",
            ":8917",
            "192.0.2.1",
            "[2001:db8::1]:8917",
            "localhost,example.net",
            "evil@localhost",
        ] {
            assert!(!on_loopback(other), "{other}");
        }
        assert!(is_let_in("192.0.2.1:8917", "/metrics", "example.net"), "its names over the network are not known");
    }

    #[test]
    fn every_name_counts() {
        assert!(!is_let_in("[::1]:8917", "http://example.net/metrics", "localhost"));
        assert!(is_let_in("[::1]:8917", "http://localhost:8917/metrics", "localhost"));
        let mut headers = HeaderMap::new();
        let local = "127.0.0.1:8917".parse().unwrap();
        assert!(is_meant(local, &"/metrics".parse().unwrap(), &headers), "HTTP/1.0 has none, and no browser speaks it");
        headers.append(HOST, HeaderValue::from_static("localhost"));
        headers.append(HOST, HeaderValue::from_static("example.net"));
        assert!(!is_meant(local, &"/metrics".parse().unwrap(), &headers));
    }
}
