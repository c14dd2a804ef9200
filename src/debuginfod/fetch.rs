//! Asks one server after another, each through a child of its own.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::Kind;
use super::cache::{Cache, Known};
use super::child::{FETCHER, Order, Status};
use super::settings::Settings;
use crate::hex::digits;
use crate::nowhere;

/// A server that did not answer, or not well, is left alone for so long.
const PAUSE: Duration = Duration::from_secs(60);

/// How often it is looked whether a child has ended.
const LOOK: Duration = Duration::from_millis(10);

/// A shorter build id is no hash of anything, and a longer one is no build id.
const BUILD_ID_BYTES: std::ops::RangeInclusive<usize> = 4..=64;

/// The environment variables that a child gets: proxies, and the certificates that it trusts.
const PASSED: [&str; 9] = [
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The file is in the cache.
    Here,
    /// No server has it.
    Missing,
    /// At least one server gave no answer, or sent something that can't be used.
    Failed(&'static str),
}

/// Fetches files into the cache.
#[derive(Debug)]
pub(crate) struct Client {
    settings: Settings,
    cache: Cache,
    /// When a server has failed last.
    failed: HashMap<String, Instant>,
}

impl Client {
    /// One that fetches into the cache of `settings`, which is made if it isn't there.
    ///
    /// # Errors
    /// If the folder can't be made, or isn't ours alone.
    pub(crate) fn new(settings: Settings) -> Result<Self> {
        let cache = Cache::open(&settings.cache)?;
        Ok(Self { settings, cache, failed: HashMap::new() })
    }

    /// The folder of what was fetched.
    pub(crate) fn folder(&self) -> &Path {
        &self.settings.cache
    }

    /// Fetches a file, unless it is there already.
    pub(crate) fn fetch(&mut self, build_id: &[u8], kind: Kind) -> Outcome {
        if !BUILD_ID_BYTES.contains(&build_id.len()) {
            return Outcome::Missing;
        }
        match self.cache.look(build_id, kind) {
            Known::Here => return Outcome::Here,
            Known::Missing => return Outcome::Missing,
            Known::Nothing => {}
        }
        let until = Instant::now() + self.settings.max_time;
        let mut outcome = Outcome::Missing;
        for url in self.settings.urls.clone() {
            if self.failed.get(&url).is_some_and(|when| when.elapsed() < PAUSE) {
                outcome = Outcome::Failed("a server did not answer lately");
                continue;
            }
            outcome = match self.ask(&url, build_id, kind, until) {
                Status::Found => return Outcome::Here,
                Status::Missing => continue,
                Status::TooLong => Outcome::Failed("it is longer than it may be"),
                Status::OtherFile => Outcome::Failed("a server sent another file"),
                Status::Silent => self.give_up(url, "a server did not answer, or too slowly"),
                Status::Refused => self.give_up(url, "a server answered with an error"),
                Status::Died => self.give_up(url, "it could not be received in time"),
            };
        }
        if outcome == Outcome::Missing {
            self.cache.miss(build_id, kind);
        }
        outcome
    }

    fn give_up(&mut self, url: String, why: &'static str) -> Outcome {
        self.failed.insert(url, Instant::now());
        Outcome::Failed(why)
    }

    fn ask(&self, url: &str, build_id: &[u8], kind: Kind, until: Instant) -> Status {
        let Ok(begun) = self.cache.begin(build_id, kind) else { return Status::Died };
        let order = Order {
            url: url.to_owned(),
            kind,
            build_id: digits(build_id),
            timeout: self.settings.timeout,
            max_size: self.settings.max_size,
        };
        let Ok(to) = begun.file.try_clone() else { return Status::Died };
        let mut command = Command::new("/proc/self/exe");
        command.arg(FETCHER).args(order.arguments()).env_clear().current_dir("/");
        command.envs(PASSED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        let (Ok(input), Ok(output)) = (nowhere::input(), nowhere::output()) else { return Status::Died };
        command.stdin(input).stdout(Stdio::from(to)).stderr(output);
        let Ok(child) = command.spawn() else { return Status::Died };
        match wait(child, until) {
            Status::Found if self.cache.keep(&begun).is_err() => Status::Died,
            status => status,
        }
    }
}

/// Waits for a child, and ends it when the time is up.
fn wait(mut child: Child, until: Instant) -> Status {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => {
                let known = Status::ALL.into_iter().find(|known| status.code() == Some(*known as i32));
                return known.unwrap_or(Status::Died);
            }
            Ok(None) if Instant::now() < until => std::thread::sleep(LOOK),
            _ => {
                // It may have ended by itself.
                let _ = child.kill();
                let _ = child.wait();
                return Status::Died;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_takes_too_long_is_ended() {
        let child = Command::new("sleep").arg("600").spawn().unwrap();
        let id = child.id();
        assert_eq!(wait(child, Instant::now()), Status::Died);
        assert!(!Path::new("/proc").join(id.to_string()).exists());
    }

    #[test]
    fn an_exit_status_says_what_came_of_it() {
        for status in Status::ALL {
            let child = Command::new("sh").args(["-c", &format!("exit {}", status as i32)]).spawn().unwrap();
            assert_eq!(wait(child, Instant::now() + Duration::from_secs(60)), status);
        }
    }
}
