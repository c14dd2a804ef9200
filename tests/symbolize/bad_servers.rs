//! Servers that are dead, slow, lying, endless or redirecting: no wrong name, no end without an end, and nothing of theirs is kept.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crate::lab::{Lab, Server, free_port, names};

/// Answers every connection in this way, on a thread that ends with the test's process.
fn serve(answer: impl Fn(&mut TcpStream, &str) + Clone + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (answer, mut stream) = (answer.clone(), stream.unwrap());
            thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let request = lines.next().and_then(Result::ok).unwrap_or_default();
                while lines.next().and_then(Result::ok).is_some_and(|line| !line.is_empty()) {}
                answer(&mut stream, &request);
            });
        }
    });
    url
}

/// Sends a body with its length. Whoever asked may be gone.
fn send(stream: &mut TcpStream, body: &[u8]) {
    let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let _ = stream.write_all(body);
}

/// Names nothing with this server, keeps nothing of it, and says why.
fn names_nothing(lab: &Lab, url: &str, why: &str) {
    let record = lab.record(&[lab.addresses()[3]]);
    // One that answers has time for it on a busy machine.
    let (timeout, most) = if why.contains("did not answer") { ("1", "4") } else { ("30", "60") };
    let bounds = [("DEBUGINFOD_TIMEOUT", timeout), ("DEBUGINFOD_MAXTIME", most), ("DEBUGINFOD_MAXSIZE", "1000000")];
    let variables = [&bounds[..], &[("DEBUGINFOD_URLS", url)]].concat();
    let (named, said) = lab.symbolize(std::slice::from_ref(&record), &variables);
    assert_eq!(named, [record], "{said}");
    assert!(said.contains(why), "{said}");
    assert!(lab.fetched().is_empty(), "{:?}", lab.fetched());
}

#[test]
fn a_dead_server_names_nothing() {
    names_nothing(&Lab::new("dead"), &format!("http://127.0.0.1:{}", free_port()), "a server did not answer");
}

#[test]
fn a_silent_server_is_given_up() {
    let url = serve(|_, _| {
        loop {
            thread::park();
        }
    });
    names_nothing(&Lab::new("silent"), &url, "a server did not answer, or too slowly");
}

#[test]
fn a_server_that_trickles_is_given_up() {
    let url = serve(|stream, _| {
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\n");
        while stream.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(50));
        }
    });
    names_nothing(&Lab::new("trickles"), &url, "a server did not answer, or too slowly");
}

#[test]
fn headers_without_an_end_are_given_up() {
    let url = serve(|stream, _| {
        let _ = write!(stream, "HTTP/1.1 200 OK\r\n");
        while stream.write_all(b"X-More: of the same and the same and the same\r\n").is_ok() {}
    });
    names_nothing(&Lab::new("headers"), &url, "a server answered with an error");
}

#[test]
fn a_body_without_an_end_is_too_long() {
    let url = serve(|stream, _| {
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        let chunk = [b"10000\r\n".as_slice(), &[0; 0x10000], b"\r\n"].concat();
        while stream.write_all(&chunk).is_ok() {}
    });
    names_nothing(&Lab::new("endless"), &url, "it is longer than it may be");
}

#[test]
fn a_length_that_is_too_much_is_not_waited_for() {
    let url = serve(|stream, _| {
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 1000001\r\n\r\n");
        loop {
            thread::park();
        }
    });
    names_nothing(&Lab::new("long"), &url, "it is longer than it may be");
}

#[test]
fn another_file_is_not_taken() {
    let (lab, other) = (Lab::new("lied-to"), Lab::new("lie"));
    let (program, debug) = (fs::read(&other.program).unwrap(), fs::read(&other.debug).unwrap());
    let url = serve(move |stream, request| {
        send(stream, if request.contains("/executable ") { &program } else { &debug });
    });
    names_nothing(&lab, &url, "a server sent another file");
}

#[test]
fn another_file_in_the_cache_is_not_believed() {
    let (lab, other) = (Lab::new("cached-lie"), Lab::new("cached-other"));
    let folder = lab.cache().join(&lab.build_id);
    fs::create_dir_all(&folder).unwrap();
    fs::copy(&other.program, folder.join("executable")).unwrap();
    fs::copy(&other.debug, folder.join("debuginfo")).unwrap();
    let record = lab.record(&[lab.addresses()[3]]);
    let url = format!("http://127.0.0.1:{}", free_port());
    let (named, _) = lab.symbolize(std::slice::from_ref(&record), &[("DEBUGINFOD_URLS", &url)]);
    assert_eq!(named, [record]);
    fs::copy(&lab.program, folder.join("executable")).unwrap();
    fs::copy(&lab.debug, folder.join("debuginfo")).unwrap();
    let address = lab.addresses()[3];
    let (named, _) = lab.symbolize(&[lab.record(&[address])], &[("DEBUGINFOD_URLS", &url)]);
    assert_eq!(names(&named[0]), [lab.oracle(address)], "the right ones are");
}

#[test]
fn what_is_no_file_is_not_taken() {
    let url = serve(|stream, _| send(stream, b"<html>welcome</html>"));
    names_nothing(&Lab::new("html"), &url, "a server sent another file");
}

#[test]
fn a_file_that_is_cut_is_not_taken() {
    let lab = Lab::new("cut");
    let debug = fs::read(&lab.debug).unwrap();
    let url = serve(move |stream, _| {
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", debug.len());
        let _ = stream.write_all(&debug[..debug.len() / 2]);
    });
    names_nothing(&lab, &url, "a server did not answer, or too slowly");
}

#[test]
fn redirects_in_a_circle_end() {
    let url = serve(|stream, request| {
        let path = request.split(' ').nth(1).unwrap_or("/");
        let _ = write!(stream, "HTTP/1.1 302 Found\r\nLocation: {path}\r\nContent-Length: 0\r\n\r\n");
    });
    names_nothing(&Lab::new("circle"), &url, "a server answered with an error");
}

#[test]
fn an_error_is_said() {
    let url = serve(|stream, _| {
        let _ = write!(stream, "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n");
    });
    names_nothing(&Lab::new("error"), &url, "a server answered with an error");
}

#[test]
fn a_good_server_behind_bad_ones_serves() {
    let lab = Lab::new("behind");
    let good = Server::of(&lab);
    let lying = serve(|stream, _| send(stream, b"\x7fELF"));
    let good_url = good.url.clone();
    let redirecting = serve(move |stream, request| {
        let path = request.split(' ').nth(1).unwrap_or("/");
        let _ = write!(stream, "HTTP/1.1 301 Moved\r\nLocation: {good_url}{path}\r\nContent-Length: 0\r\n\r\n");
    });
    let urls = format!("http://127.0.0.1:{} {lying} {redirecting}", free_port());
    let address = lab.addresses()[3];
    let (named, said) = lab.symbolize(&[lab.record(&[address])], &[("DEBUGINFOD_URLS", &urls)]);
    assert_eq!(names(&named[0]), [lab.oracle(address)], "{said}");
}

#[test]
fn what_no_server_has_is_not_asked_for_again() {
    let lab = Lab::new("missing");
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = asked.clone();
    let url = serve(move |stream, _| {
        counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let _ = write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    });
    let record = lab.record(&[lab.addresses()[3]]);
    for _ in 0..2 {
        let (named, _) = lab.symbolize(std::slice::from_ref(&record), &[("DEBUGINFOD_URLS", &url)]);
        assert_eq!(named, std::slice::from_ref(&record));
    }
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 2, "the file and its debug file, once each");
}
