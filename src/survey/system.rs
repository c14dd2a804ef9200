//! Where the system that this host runs has its debug packages and its server of debug files.

use std::fs;

/// What says which system it is: os-release(5).
const OS_RELEASE: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];

/// The servers that distributions run for their own packages, by the system's ID.
const SERVERS: [(&str, &str); 8] = [
    ("debian", "https://debuginfod.debian.net"),
    ("ubuntu", "https://debuginfod.ubuntu.com"),
    ("fedora", "https://debuginfod.fedoraproject.org"),
    ("centos", "https://debuginfod.centos.org"),
    ("arch", "https://debuginfod.archlinux.org"),
    ("opensuse-leap", "https://debuginfod.opensuse.org"),
    ("opensuse-tumbleweed", "https://debuginfod.opensuse.org"),
    ("void", "https://debuginfod.s.voidlinux.org"),
];

/// A distribution.
pub(super) struct System {
    id: String,
    /// `None` means that it has none, as a rolling one.
    codename: Option<String>,
}

impl System {
    /// `None` means that it doesn't say what it is.
    pub(super) fn of_this_host() -> Option<Self> {
        Self::of(&OS_RELEASE.iter().find_map(|path| fs::read_to_string(path).ok())?)
    }

    fn of(text: &str) -> Option<Self> {
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
            let is_word = |text: &&str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
            Some(line.trim_matches(['"', '\'']).to_owned()).filter(|text| !text.is_empty() && is_word(&text.as_str()))
        };
        Some(Self { id: value("ID")?, codename: value("VERSION_CODENAME") })
    }

    /// Its server.
    pub(super) fn server(&self) -> Option<&'static str> {
        SERVERS.iter().find(|(id, _)| *id == self.id).map(|(_, url)| *url)
    }

    /// What to add to the sources of apt, whose index then has the package. MIRROR is the one of Debian that the system uses.
    pub(super) fn archive(&self) -> Option<String> {
        let codename = self.codename.as_deref()?;
        let line = match self.id.as_str() {
            "debian" => format!("deb MIRROR/debian-debug {codename}-debug main"),
            "ubuntu" => format!("deb http://ddebs.ubuntu.com {codename} main universe"),
            _ => return None,
        };
        Some(format!(
            "its debug package, if the system has one: add `{line}` to the sources of apt, apt-get update, and ask again"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_says_where_its_debug_files_are() {
        let debian = System::of("NAME=\"Debian GNU/Linux\"\nVERSION_CODENAME=bookworm\nID=debian\n").unwrap();
        assert_eq!(debian.server(), Some("https://debuginfod.debian.net"));
        assert!(debian.archive().unwrap().contains("`deb MIRROR/debian-debug bookworm-debug main`"));
        let fedora = System::of("ID=\"fedora\"\nVERSION_CODENAME=\"\"\n").unwrap();
        assert_eq!((fedora.server(), fedora.archive()), (Some("https://debuginfod.fedoraproject.org"), None));
        let own = System::of("ID=own\nVERSION_CODENAME=one").unwrap();
        assert_eq!((own.server(), own.archive()), (None, None));
        for nothing in ["", "ID=", "ID='a; rm'", "VERSION_ID=1"] {
            assert!(System::of(nothing).is_none(), "{nothing}");
        }
    }
}
