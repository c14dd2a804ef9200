//! The config file of `faultline agent`. Each of its flags has its key, the long name, as clap's definition has it: there is no second list.
//! What the file says stands in front of what was typed, and what was typed wins.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, CommandFactory};
use nix::unistd::geteuid;
use toml::de::{DeTable, DeValue};

use super::Cli;

/// It is read if it is there, unless `--config` names another.
pub(super) const DEFAULT: &str = "/etc/faultline.toml";

const COMMAND: &str = "agent";
/// These say where the file is, and what to do with it.
const NO_KEYS: [&str; 4] = ["config", "check-config", "help", "version"];
const LARGEST: u64 = 1 << 20;

/// The arguments, with those of the config file.
pub(super) struct Arguments {
    /// What is to be parsed.
    pub(super) all: Vec<OsString>,
    /// The file, and the lines of the keys that are in force.
    file: Option<(PathBuf, BTreeMap<String, usize>)>,
}

impl Arguments {
    /// Reads these arguments, the name of the program in front. Only `agent` has a file.
    ///
    /// # Errors
    /// If the file can't be read, is somebody else's to write, or says something that is no flag.
    pub(super) fn new(typed: Vec<OsString>) -> Result<Self> {
        let none = |typed| Ok(Self { all: typed, file: None });
        if typed.get(1).is_none_or(|command| command != COMMAND) {
            return none(typed);
        }
        // Errors in them are reported later. Until then the file may have what they lack.
        let Ok(matches) = Cli::command().ignore_errors(true).try_get_matches_from(&typed) else { return none(typed) };
        let Some(matches) = matches.subcommand_matches(COMMAND) else { return none(typed) };
        let named = matches.try_get_one::<PathBuf>("config").ok().flatten();
        let path = named.cloned().unwrap_or_else(|| DEFAULT.into());
        let text = match read(&path) {
            Err(error) if named.is_none() && is_missing(&error) => return none(typed),
            text => text?,
        };
        let mut keys = Keys::new(&path, &text)?;
        keys.set.retain(|key| matches.value_source(&key.id) != Some(ValueSource::CommandLine));
        let mut all: Vec<OsString> = typed.iter().take(2).cloned().collect();
        all.extend(keys.set.iter().flat_map(|key| key.arguments.iter().map(OsString::from)));
        all.extend(typed.into_iter().skip(2));
        let lines = keys.set.into_iter().map(|key| (key.name, key.line)).collect();
        Ok(Self { all, file: Some((path, lines)) })
    }

    /// Where a wrong value stands, if it stands in the file: `/etc/faultline.toml:3: `.
    pub(super) fn place(&self, error: &clap::Error) -> String {
        let Some((path, lines)) = &self.file else { return String::new() };
        let of = match error.get(ContextKind::InvalidArg) {
            Some(ContextValue::String(argument)) => argument.split(['=', ' ']).next(),
            _ => None,
        };
        let line = of.and_then(|flag| lines.get(flag.trim_start_matches('-')));
        line.map(|line| format!("{}:{line}: ", path.display())).unwrap_or_default()
    }
}

fn is_missing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::NotFound)
}

/// Where the agent of this host writes, if its file says so and may be read.
pub(super) fn log() -> Option<PathBuf> {
    let text = read(Path::new(DEFAULT)).ok()?;
    let table = DeTable::parse(&text).ok()?;
    let output = table.get_ref().iter().find(|(name, _)| name.get_ref() == "output")?.1;
    output.get_ref().as_str().map(PathBuf::from)
}

/// The text of a file that nobody else can have written: an agent that root starts does what it says.
fn read(path: &Path) -> Result<String> {
    let what = || format!("failed to read `{}`", path.display());
    // A pipe that nobody writes to would be waited for.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).with_context(what)?;
    let metadata = file.metadata().with_context(what)?;
    if !metadata.is_file() {
        bail!("{}: it is no regular file", what());
    }
    let is_ours = metadata.uid() == 0 || metadata.uid() == geteuid().as_raw();
    if !is_ours || metadata.mode() & 0o022 != 0 {
        bail!("{}: others than root may write to it: chown root {1} && chmod go-w {1}", what(), path.display());
    }
    let mut text = String::new();
    file.take(LARGEST + 1).read_to_string(&mut text).with_context(what)?;
    if text.len() as u64 > LARGEST {
        bail!("{}: it is larger than {} MiB", what(), LARGEST >> 20);
    }
    Ok(text)
}

/// What a file says.
struct Keys<'a> {
    path: &'a Path,
    text: &'a str,
    /// What may be in it.
    known: Vec<Arg>,
    set: Vec<Key>,
}

/// A key, and the arguments that mean the same.
struct Key {
    id: String,
    name: String,
    line: usize,
    arguments: Vec<String>,
}

impl<'a> Keys<'a> {
    fn new(path: &'a Path, text: &'a str) -> Result<Self> {
        let mut keys = Self { path, text, known: known(), set: Vec::new() };
        let table = match DeTable::parse(text) {
            Ok(table) => table.into_inner(),
            Err(error) => {
                bail!("{}{}", keys.place(&error.span().unwrap_or_default()), error.message().replace('\n', " "))
            }
        };
        keys.take("", &table)?;
        Ok(keys)
    }

    /// A table in the table is a key with a dot in it.
    fn take(&mut self, prefix: &str, table: &DeTable<'_>) -> Result<()> {
        for (name, value) in table {
            let place = self.place(&name.span());
            let name = format!("{prefix}{}", name.get_ref());
            let known = self.known.iter().find(|known| known.get_long() == Some(name.as_str())).cloned();
            match (known, value.get_ref()) {
                (Some(known), of) => {
                    let arguments = self
                        .arguments(&known, &name, of, &value.span())
                        .with_context(|| format!("{place}key `{name}`"))?;
                    let line = self.line(value.span().start);
                    self.set.push(Key { id: known.get_id().to_string(), name, line, arguments });
                }
                (None, DeValue::Table(inner)) if !inner.is_empty() => self.take(&format!("{name}."), inner)?,
                (None, _) => bail!("{place}no key is called `{name}`: the nearest is `{}`", self.nearest(&name)),
            }
        }
        Ok(())
    }

    /// What would be typed.
    fn arguments(&self, known: &Arg, name: &str, value: &DeValue<'_>, span: &Range<usize>) -> Result<Vec<String>> {
        let typed = |text: String| format!("--{name}={text}");
        match (known.get_action(), value) {
            (ArgAction::SetTrue, DeValue::Boolean(true)) => Ok(vec![format!("--{name}")]),
            (ArgAction::SetTrue, DeValue::Boolean(false)) => Ok(Vec::new()),
            (ArgAction::SetTrue, other) => bail!("it is true or false, and no {}", other.type_str()),
            (ArgAction::Append, DeValue::Array(values)) => {
                values.iter().map(|value| self.scalar(known, value.get_ref(), &value.span()).map(typed)).collect()
            }
            (ArgAction::Append | ArgAction::Set, value) => Ok(vec![typed(self.scalar(known, value, span)?)]),
            (action, _) => bail!("flags of the kind {action:?} can't be in a file"),
        }
    }

    /// A number as it stands in the file, so that who reads it decides what a number is.
    fn scalar(&self, known: &Arg, value: &DeValue<'_>, span: &Range<usize>) -> Result<String> {
        let parsed = known.get_value_parser().type_id();
        let is_text = parsed == TypeId::of::<PathBuf>() || parsed == TypeId::of::<String>();
        match value {
            DeValue::String(text) => Ok(text.to_string()),
            DeValue::Integer(_) | DeValue::Float(_) if !is_text => {
                Ok(self.text.get(span.clone()).unwrap_or_default().to_owned())
            }
            other if is_text => bail!("it is a string, and no {}", other.type_str()),
            other => bail!("it is a string or a number, and no {}", other.type_str()),
        }
    }

    fn nearest(&self, name: &str) -> &str {
        let longs = self.known.iter().filter_map(Arg::get_long);
        let likeness = |long: &&str| strsim::normalized_damerau_levenshtein(name, long);
        longs.max_by(|one, other| likeness(one).total_cmp(&likeness(other))).unwrap_or_default()
    }

    fn line(&self, at: usize) -> usize {
        1 + self.text.as_bytes().iter().take(at).filter(|&&byte| byte == b'\n').count()
    }

    fn place(&self, span: &Range<usize>) -> String {
        format!("{}:{}: ", self.path.display(), self.line(span.start))
    }
}

/// The flags of `agent`.
fn known() -> Vec<Arg> {
    let cli = Cli::command();
    let flags = cli.find_subcommand(COMMAND).into_iter().flat_map(clap::Command::get_arguments);
    flags.filter(|flag| flag.get_long().is_some_and(|long| !NO_KEYS.contains(&long))).cloned().collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::Command;
    use super::*;
    use crate::agent::Options;

    /// A file of this name with this text, while `work` is done.
    fn with_file<T>(name: &str, text: &str, work: impl FnOnce(&str) -> T) -> T {
        let path = std::env::temp_dir().join(format!("faultline-config-{name}-{}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        let result = work(path.to_str().unwrap());
        std::fs::remove_file(&path).unwrap();
        result
    }

    fn arguments(path: &str, typed: &str) -> Result<Arguments> {
        let line = format!("faultline agent --config {path} {typed}");
        Arguments::new(line.split_whitespace().map(OsString::from).collect())
    }

    fn options(path: &str, typed: &str) -> Options {
        match Cli::try_parse_from(arguments(path, typed).unwrap().all).unwrap().command {
            Command::Agent(args) => (*args).into(),
            _ => panic!("not agent"),
        }
    }

    /// Why the file is refused.
    fn refusal(name: &str, text: &str) -> String {
        with_file(name, text, |path| {
            let said = match arguments(path, "") {
                Err(error) => format!("{error:#}"),
                Ok(arguments) => {
                    let error = Cli::try_parse_from(&arguments.all).unwrap_err();
                    format!("{}{}", arguments.place(&error), error.render())
                }
            };
            said.replace(path, "FILE")
        })
    }

    #[test]
    fn every_flag_of_the_agent_is_a_key() {
        let names: Vec<String> = known().iter().filter_map(|flag| flag.get_long().map(str::to_owned)).collect();
        for name in ["interval", "metrics-listen", "web.config.file", "output", "mode", "pid", "strict", "max-groups"] {
            assert!(names.iter().any(|known| known == name), "{name}: {names:?}");
        }
        let strange: Vec<_> = known()
            .into_iter()
            .filter(|flag| !matches!(flag.get_action(), ArgAction::Set | ArgAction::SetTrue | ArgAction::Append))
            .collect();
        assert!(strange.is_empty(), "these have no way into a file: {strange:?}");
    }

    #[test]
    fn the_file_says_what_flags_say_and_flags_win() {
        let text = "interval = 2.5 # seconds\noutput = \"/tmp/x\"\nappend = true\nmode = \"0640\"\nhandled = false\npid = [7, 8]\n\
                    signal = [\"TERM\", 9]\nmetrics-listen = 9000\nweb.config.file = \"web.yml\"\nmax-executables = 5\n";
        with_file("wins", text, |path| {
            let said = options(path, "");
            let target = &said.crash.common.target;
            assert_eq!(
                (said.interval.as_millis(), target.mode, target.append, said.crash.handled),
                (2500, 0o640, true, false)
            );
            assert_eq!(
                (said.crash.common.filter.pids.as_slice(), said.crash.signals.as_slice()),
                (&[7, 8][..], &[15, 9][..])
            );
            assert_eq!(said.serve.unwrap().web_config, Some("web.yml".into()));
            assert_eq!(said.max_executables, 5);
            let typed = options(path, "--interval 7 -p 1 --output /tmp/y");
            assert_eq!((typed.interval.as_secs(), typed.crash.common.filter.pids.as_slice()), (7, &[1][..]));
            assert_eq!(typed.crash.common.target.path, Some("/tmp/y".into()));
        });
    }

    /// With all that is commented out, too.
    #[test]
    fn the_file_that_is_shipped_says_what_the_agent_understands() {
        let shipped = include_str!("../../dist/faultline.toml");
        let with_all: Vec<&str> = shipped
            .lines()
            .map(|line| line.strip_prefix("# ").filter(|line| line.contains(" = ")).unwrap_or(line))
            .collect();
        for (name, text) in [("shipped", shipped), ("uncommented", &with_all.join("\n"))] {
            with_file(name, text, |path| {
                // Who may scrape is a user that this machine may lack.
                let said = options(path, "--metrics-allow-user 0");
                assert_eq!(said.crash.common.target.path, Some("/var/log/faultline/faultline.jsonl".into()));
            });
        }
        assert!(with_all.iter().any(|line| line.starts_with("cgroup = ")));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_key() {
        assert_eq!(
            refusal("key", "\n\nintervall = 1"),
            "FILE:3: no key is called `intervall`: the nearest is `interval`"
        );
        assert_eq!(
            refusal("table", "[web]\nconfig.fil = \"x\""),
            "FILE:2: no key is called `web.config.fil`: the nearest is `web.config.file`"
        );
        assert_eq!(refusal("no-key", "config = \"x\"").split(':').nth(2), Some(" no key is called `config`"));
        assert_eq!(refusal("bool", "strict = \"yes\""), "FILE:1: key `strict`: it is true or false, and no string");
        assert_eq!(refusal("text", "output = 5"), "FILE:1: key `output`: it is a string, and no integer");
        assert_eq!(
            refusal("list", "interval = [1]"),
            "FILE:1: key `interval`: it is a string or a number, and no array"
        );
        assert!(refusal("value", "append = true\noutput = \"x\"\ninterval = \"soon\"").starts_with("FILE:3: "));
        // 0o640 is 416, and 0416 is another mode.
        assert!(refusal("octal", "output = \"x\"\nmode = 0o640").starts_with("FILE:2: "));
        assert!(refusal("syntax", "interval = 1\nappend = maybe").starts_with("FILE:2: "));
        assert!(refusal("twice", "interval = 1\ninterval = 2").starts_with("FILE:2: "));
    }

    #[test]
    fn a_file_that_others_may_write_to_is_refused_with_the_cure() {
        with_file("mode", "interval = 1", |path| {
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
            let said = format!("{:#}", arguments(path, "").err().unwrap());
            assert!(said.contains(&format!("chown root {path} && chmod go-w {path}")), "{said}");
        });
        assert!(arguments("/dev/null", "").is_err(), "it is no regular file");
        assert!(arguments("/no/such/file", "").is_err(), "it was asked for");
        let all = |line: &str| Arguments::new(line.split(' ').map(OsString::from).collect()).unwrap();
        assert_eq!(all("faultline crash --config /no/such/file").all.len(), 4, "only the agent has one");
    }
}
