//! A real Prometheus scrapes a running agent, and a query returns the number of crashes that were caused. Needs root, and the packages
//! that ci/install installs for tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A process that is killed when this is dropped, whatever became of the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn folder(name: &str) -> Folder {
    let path = std::env::temp_dir().join(format!("faultline-fleet-{name}-{}", std::process::id()));
    fs::create_dir(&path).unwrap();
    Folder(path)
}

/// An agent, and the URL of its metrics without the scheme: `127.0.0.1:PORT`.
fn agent(arguments: &[&str], scheme: &str) -> (Running, String) {
    let mut agent = Running(
        Command::new(env!("CARGO_BIN_EXE_faultline"))
            .args(["agent", "--interval", "0.5", "--metrics-listen", "0", "-o", "/dev/null"])
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut said = BufReader::new(agent.0.stderr.take().unwrap()).lines();
    let address = said.find_map(|line| {
        let line = line.unwrap();
        let (_, rest) = line.split_once(&format!("metrics on {scheme}://"))?;
        Some(rest.trim_end_matches("/metrics").to_owned())
    });
    (agent, address.expect("the agent did not start"))
}

/// A Prometheus with these jobs, and its address.
fn prometheus(folder: &Folder, jobs: &str) -> (Running, String) {
    fs::write(folder.0.join("prometheus.yml"), format!("scrape_configs:\n{jobs}")).unwrap();
    let listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let prometheus = Command::new("prometheus")
        .arg(format!("--config.file={}", folder.0.join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", folder.0.join("data").display()))
        .arg(format!("--web.listen-address={listen}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("prometheus is needed: ci/install test installs it");
    let running = Running(prometheus);
    wait_until("waited for Prometheus", || TcpStream::connect(&listen).is_ok());
    (running, listen)
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// The value of a query that returns one sample; `None` means that there is none yet.
fn query(prometheus: &str, expression: &str) -> Option<f64> {
    let encoded: String = expression.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let answer: Value = serde_json::from_str(&get(prometheus, &format!("/api/v1/query?query={encoded}"))).ok()?;
    answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} in vain");
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn many_deaths(folder: &Path) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let programs = here.join("target/programs");
    let made = Command::new("make")
        .args(["-s", "-C"])
        .arg(here.join("tests/programs"))
        .arg(format!("OUT={}", programs.display()))
        .status()
        .unwrap();
    assert!(made.success());
    let program = folder.join("fleet-app-8c");
    // Not by this process: a fork of it would hold the file open for writing, and it could not be executed (ETXTBSY).
    assert!(Command::new("cp").arg(programs.join("many-deaths")).arg(&program).status().unwrap().success());
    program
}

#[test]
fn prometheus_counts_what_was_injected() {
    let folder = folder("counts");
    let program = many_deaths(&folder.0);
    let (_agent, address) = agent(&["-n", "fleet-app-8c"], "http");
    let job = format!("- job_name: faultline\n  scrape_interval: 1s\n  static_configs:\n  - targets: ['{address}']\n");
    let (_prometheus, listen) = prometheus(&folder, &job);

    const SELECTOR: &str =
        "faultline_crashes_total{executable=\"fleet-app-8c\",signal=\"SIGSEGV\",code=\"SEGV_MAPERR\"}";
    // A counter must exist before it rises, or there is no rate.
    assert!(Command::new(&program).args(["10", "0"]).status().unwrap().success());
    wait_until("waited for the first 10", || query(&listen, SELECTOR) == Some(10.0));
    std::thread::sleep(Duration::from_secs(2));
    assert!(Command::new(&program).args(["700", "20"]).status().unwrap().success());
    wait_until("waited for all 730", || query(&listen, SELECTOR) == Some(730.0));
    // Crashes per second by executable, as a dashboard asks for; irate() and rate() extrapolate, so that the sum is only near.
    let rate = format!("sum by (executable) (rate({SELECTOR}[30s])) * 30");
    wait_until("waited for the rate", || query(&listen, &rate).is_some_and(|crashes| crashes > 0.0));
    let crashes = query(&listen, &rate).unwrap();
    assert!((600.0..2000.0).contains(&crashes), "720 crashes came within these 30 s, the rate says {crashes}");
    assert_eq!(query(&listen, "up{job=\"faultline\"}"), Some(1.0));
    // Prometheus asks for OpenMetrics, takes all of it, and knows when the series was 0.
    let created = query(&listen, &SELECTOR.replace("_total", "_created")).unwrap();
    let start = query(&listen, "process_start_time_seconds{job=\"faultline\"}").unwrap();
    let now = query(&listen, "vector(time())").unwrap();
    assert!(start - 1.0 <= created && created < now, "{start} {created} {now}");
    assert!(query(&listen, "process_resident_memory_bytes{job=\"faultline\"}").is_some_and(|bytes| bytes > 1e6));

    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(get(&address, "/metrics").as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The file that the exporters take, as promtool checks it, and the client settings that Prometheus has for them.
#[test]
fn prometheus_scrapes_by_tls_with_a_password() {
    let folder = folder("tls");
    let path = |name: &str| folder.0.join(name).display().to_string();
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(path("server.crt"), cert.pem()).unwrap();
    fs::write(path("server.key"), signing_key.serialize_pem()).unwrap();
    let hash = bcrypt::hash("geheim", 10).unwrap();
    let web = format!(
        "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\nbasic_auth_users:\n  prometheus: {hash}\n"
    );
    fs::write(path("web.yml"), web).unwrap();
    let checked = Command::new("promtool").args(["check", "web-config", &path("web.yml")]).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let (_agent, address) = agent(&["-n", "no-such-name", "--web.config.file", &path("web.yml")], "https");
    let job = |name: &str, password: &str| {
        format!(
            "- job_name: {name}\n  scrape_interval: 1s\n  scheme: https\n  \
             tls_config: {{ca_file: '{}', server_name: localhost}}\n  \
             basic_auth: {{username: prometheus, password: {password}}}\n  static_configs:\n  - targets: ['{address}']\n",
            path("server.crt")
        )
    };
    let (_prometheus, listen) = prometheus(&folder, &(job("right", "geheim") + &job("wrong", "falsch")));
    wait_until("waited for a scrape", || query(&listen, "up{job=\"right\"}") == Some(1.0));
    wait_until("waited for a refusal", || query(&listen, "up{job=\"wrong\"}") == Some(0.0));
    assert!(query(&listen, "faultline_build_info{job=\"right\"}").is_some());
    assert_eq!(query(&listen, "faultline_build_info{job=\"wrong\"}"), None);
}

/// Clients' certificates, as Prometheus and curl show them.
#[test]
fn prometheus_and_curl_are_let_in_by_their_certificates() {
    let folder = folder("certificates");
    let path = |name: &str| folder.0.join(name).display().to_string();
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(path("server.crt"), cert.pem()).unwrap();
    fs::write(path("server.key"), signing_key.serialize_pem()).unwrap();
    let mut authority = rcgen::CertificateParams::default();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = rcgen::CertifiedIssuer::self_signed(authority, rcgen::KeyPair::generate().unwrap()).unwrap();
    fs::write(path("clients.crt"), authority.pem()).unwrap();
    for name in ["prometheus.example", "other.example"] {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
        fs::write(path(&format!("{name}.crt")), params.signed_by(&key, &authority).unwrap().pem()).unwrap();
        fs::write(path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }
    let web = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n  client_ca_file: clients.crt\n  \
               client_auth_type: RequireAndVerifyClientCert\n  min_version: TLS12\n";
    fs::write(path("web.yml"), web).unwrap();
    let checked = Command::new("promtool").args(["check", "web-config", &path("web.yml")]).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    // Debian's promtool is older than this one.
    fs::write(path("web.yml"), format!("{web}  client_allowed_sans: [prometheus.example]\n")).unwrap();
    let (_agent, address) = agent(&["-n", "no-such-name", "--web.config.file", &path("web.yml")], "https");
    let port = address.rsplit_once(':').unwrap().1;
    let curl = |name: Option<&str>| {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--max-time", "20", "--cacert", &path("server.crt")]);
        if let Some(name) = name {
            curl.args(["--cert", &path(&format!("{name}.crt")), "--key", &path(&format!("{name}.key"))]);
        }
        curl.arg(format!("https://localhost:{port}/metrics"));
        String::from_utf8(curl.output().unwrap().stdout).unwrap().contains("faultline_build_info")
    };
    assert!(curl(Some("prometheus.example")) && !curl(Some("other.example")) && !curl(None));
    let job = |name: &str, more: &str| {
        format!(
            "- job_name: {name}\n  scrape_interval: 1s\n  scheme: https\n  \
             tls_config: {{ca_file: '{}', server_name: localhost{more}}}\n  static_configs:\n  - targets: ['{address}']\n",
            path("server.crt")
        )
    };
    let own =
        format!(", cert_file: '{}', key_file: '{}'", path("prometheus.example.crt"), path("prometheus.example.key"));
    let (_prometheus, listen) = prometheus(&folder, &(job("with", &own) + &job("without", "")));
    wait_until("waited for a scrape", || query(&listen, "up{job=\"with\"}") == Some(1.0));
    wait_until("waited for a refusal", || query(&listen, "up{job=\"without\"}") == Some(0.0));
}
