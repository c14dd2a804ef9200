//! The environment variables of debuginfod(8)'s clients.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};

/// A server that sends less than [`LEAST_BYTES`] in this time is given up, unless DEBUGINFOD_TIMEOUT says otherwise.
const TIMEOUT: Duration = Duration::from_secs(90);

/// See [`TIMEOUT`].
pub(super) const LEAST_BYTES: u64 = 100 << 10;

/// One file takes no longer, unless DEBUGINFOD_MAXTIME says otherwise.
const MAX_TIME: Duration = Duration::from_secs(600);

/// No file is longer, unless DEBUGINFOD_MAXSIZE says otherwise.
const MAX_SIZE: u64 = 1 << 30;

/// So many servers are asked.
const SERVERS_MAX: usize = 16;

/// What the environment asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The servers, in the order in which they are asked, without a slash at the end.
    pub urls: Vec<String>,
    /// The folder of what was fetched.
    pub cache: PathBuf,
    /// In each such time a server must send 100 KiB.
    pub timeout: Duration,
    /// One file takes no longer.
    pub max_time: Duration,
    /// No file is longer, bytes.
    pub max_size: u64,
}

impl Settings {
    /// The settings in this process's environment; `None` means that DEBUGINFOD_URLS names no server.
    ///
    /// # Errors
    /// If a variable can't be understood, or nothing says where the cache is.
    pub(crate) fn from_environment() -> Result<Option<Self>> {
        Self::from(&|name| std::env::var_os(name))
    }

    fn from(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Option<Self>> {
        let text = |name: &str| variable(name).map(|value| value.to_string_lossy().trim().to_owned());
        let urls: Vec<String> = text("DEBUGINFOD_URLS")
            .unwrap_or_default()
            .split_whitespace()
            // elfutils' marks of how signatures are checked are no servers; nor is a folder one.
            .filter(|url| url.starts_with("http://") || url.starts_with("https://"))
            .map(|url| url.trim_end_matches('/').to_owned())
            .take(SERVERS_MAX)
            .collect();
        if urls.is_empty() {
            return Ok(None);
        }
        let number = |name: &str| match text(name).filter(|value| !value.is_empty()) {
            None => Ok(None),
            Some(value) => match value.parse::<u64>() {
                Ok(number) => Ok(Some(number).filter(|number| *number > 0)),
                Err(_) => bail!("failed to read {name}: `{value}` is no number"),
            },
        };
        let seconds = |name: &str| number(name).map(|number| number.map(Duration::from_secs));
        Ok(Some(Self {
            urls,
            cache: cache(variable)?,
            timeout: seconds("DEBUGINFOD_TIMEOUT")?.unwrap_or(TIMEOUT),
            max_time: seconds("DEBUGINFOD_MAXTIME")?.unwrap_or(MAX_TIME),
            max_size: number("DEBUGINFOD_MAXSIZE")?.unwrap_or(MAX_SIZE),
        }))
    }
}

/// The folder that elfutils uses: an old one if it is there.
fn cache(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<PathBuf> {
    let folder = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(cache) = folder("DEBUGINFOD_CACHE_PATH") {
        return Ok(cache);
    }
    let home = folder("HOME");
    let old = home.as_ref().map(|home| home.join(".debuginfod_client_cache"));
    if let Some(old) = old.filter(|old| old.is_dir()) {
        return Ok(old);
    }
    let caches = folder("XDG_CACHE_HOME").or_else(|| home.map(|home| home.join(".cache")));
    match caches {
        Some(caches) => Ok(caches.join("debuginfod_client")),
        None => bail!("failed to find the cache of debuginfod: set DEBUGINFOD_CACHE_PATH"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Option<Settings>> {
        let of = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        Settings::from(&of)
    }

    #[test]
    fn no_server_means_nothing_is_asked() {
        for urls in ["", "  ", "ima:enforcing", "file:///srv", "ftp://x"] {
            assert_eq!(settings(&[("DEBUGINFOD_URLS", urls)]).unwrap(), None, "{urls:?}");
        }
        assert_eq!(settings(&[]).unwrap(), None);
    }

    #[test]
    fn the_variables_are_those_of_elfutils() {
        let found = settings(&[
            ("DEBUGINFOD_URLS", "ima:enforcing https://one.example/  http://two.example:8002"),
            ("DEBUGINFOD_CACHE_PATH", "/c"),
            ("DEBUGINFOD_TIMEOUT", "5"),
            ("DEBUGINFOD_MAXTIME", "7"),
            ("DEBUGINFOD_MAXSIZE", "1000"),
        ]);
        let wanted = Settings {
            urls: vec!["https://one.example".to_owned(), "http://two.example:8002".to_owned()],
            cache: "/c".into(),
            timeout: Duration::from_secs(5),
            max_time: Duration::from_secs(7),
            max_size: 1000,
        };
        assert_eq!(found.unwrap(), Some(wanted));
    }

    #[test]
    fn what_is_not_set_has_a_bound_all_the_same() {
        let url = ("DEBUGINFOD_URLS", "http://x");
        let found = settings(&[url, ("HOME", "/nonexistent"), ("DEBUGINFOD_MAXSIZE", "0")]).unwrap().unwrap();
        assert_eq!((found.timeout, found.max_time, found.max_size), (TIMEOUT, MAX_TIME, MAX_SIZE));
        assert_eq!(found.cache, PathBuf::from("/nonexistent/.cache/debuginfod_client"));
        let other = settings(&[url, ("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]).unwrap().unwrap();
        assert_eq!(other.cache, PathBuf::from("/x/debuginfod_client"));
        assert!(settings(&[url]).unwrap_err().to_string().contains("set DEBUGINFOD_CACHE_PATH"));
        assert!(settings(&[url, ("HOME", "/h"), ("DEBUGINFOD_TIMEOUT", "soon")]).is_err());
    }
}
