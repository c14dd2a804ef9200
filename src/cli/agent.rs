//! `faultline agent` as it is typed.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::agent::Options;
use crate::output::{Listen, Serve, check_web_config};
use crate::{crash, options};
use anyhow::Result;
use clap::Args;
use nix::unistd::User;

use super::common::{ADVANCED, Common, LIMITS, OUTPUT, SHOW, Servers, Signals, Symbols, Which, interval};
use super::crash::{CrashWays, GroupLimits};
use super::{config, memory, pagefault, signal};

/// `faultline agent`
#[derive(Args, Debug)]
#[command(mut_arg("format", |arg| arg.default_value("json")))]
pub(crate) struct AgentArgs {
    #[command(flatten)]
    which: Which,

    /// Write a summary every TIME (10, 1m)
    #[arg(long, value_name = "TIME", default_value = "10", value_parser = interval, help_heading = SHOW)]
    interval: Duration,

    #[command(flatten)]
    signals: Signals,

    /// Write signals that the process handled or ignored, too; without this flag they are only counted
    #[arg(long, help_heading = SHOW)]
    handled: bool,

    /// Count who sends which signal to whom, too
    #[arg(long, alias = "signals", help_heading = SHOW)]
    watch_signals: bool,

    /// Count page faults by process, too
    #[arg(long, help_heading = SHOW)]
    pagefaults: bool,

    /// Count which processes make anonymous memory executable, too
    #[arg(long = "exec-memory", help_heading = SHOW)]
    executable_memory: bool,

    #[command(flatten)]
    common: Common<CrashWays>,

    /// Serve /metrics (OpenMetrics) and /healthz at this address; a port alone listens on 127.0.0.1 only, unix:PATH on a socket
    #[arg(long, value_name = "[ADDR:]PORT", value_parser = listen, help_heading = OUTPUT)]
    metrics_listen: Option<Listen>,

    /// Answer only this user of this machine (name or uid), root and the agent's own user (repeatable)
    #[arg(long, value_name = "USER", value_parser = user, requires = "metrics_listen", help_heading = OUTPUT)]
    metrics_allow_user: Vec<u32>,

    /// Serve metrics by TLS, and only to clients with a password or a certificate, as FILE says (YAML, the format of Prometheus' exporters)
    #[arg(long = "web.config.file", value_name = "FILE", requires = "metrics_listen", help_heading = OUTPUT)]
    web_config: Option<PathBuf>,

    /// Give at most N executables a label of their own in metrics; the others share `other`
    #[arg(long, value_name = "N", default_value_t = 100, help_heading = LIMITS, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    max_executables: u32,

    /// Write the first N deaths of each group, then one after --sample-interval, and each time after twice as long; all are counted
    #[arg(long, value_name = "N", default_value_t = 3, help_heading = LIMITS, value_parser = clap::value_parser!(u32).range(1..))]
    samples_per_group: u32,

    /// Write at most N deaths a second of all groups; all are counted
    #[arg(long, value_name = "N", default_value_t = 100, help_heading = LIMITS, value_parser = clap::value_parser!(u32).range(1..))]
    samples_per_second: u32,

    #[command(flatten)]
    table: GroupLimits,

    #[command(flatten)]
    servers: Servers,

    #[command(flatten)]
    symbols: Symbols,

    /// Read flags from FILE as well (TOML, a key for each flag; a flag that is typed wins); the default is /etc/faultline.toml, if it is there
    #[arg(long, value_name = "FILE", help_heading = ADVANCED)]
    config: Option<PathBuf>,

    /// Check the flags and the files of --config and --web.config.file, and do nothing else
    #[arg(long, help_heading = ADVANCED)]
    check_config: bool,
}

impl AgentArgs {
    /// Runs the agent, or checks what it was given.
    pub(super) fn run(self) -> Result<ExitCode> {
        if !self.check_config {
            return crate::agent::run(&self.into());
        }
        let file = self.config.clone().unwrap_or_else(|| config::DEFAULT.into());
        // Whatever it says was understood before.
        let read = if file.exists() { format!(", `{}` included", file.display()) } else { String::new() };
        let options: Options = self.into();
        if let Some(file) = options.serve.and_then(|serve| serve.web_config) {
            check_web_config(&file)?;
        }
        say!("faultline: the configuration is valid{read}");
        Ok(ExitCode::SUCCESS)
    }
}

impl From<AgentArgs> for Options {
    fn from(args: AgentArgs) -> Self {
        let (common, attach) = args.common.meant(args.which);
        let (table, samples) = args.table.meant(Some(args.samples_per_group), Some(args.samples_per_second));
        // What is counted beside crashes writes where they are written, and ends with them.
        let beside = options::Common {
            filter: common.filter.clone(),
            btf: common.btf.clone(),
            format: common.format,
            ..options::Common::default()
        };
        Self {
            signals: args.watch_signals.then(|| signal::counting(beside.clone(), args.interval)),
            pagefaults: args.pagefaults.then(|| pagefault::counting(beside.clone(), args.interval)),
            executable_memory: args.executable_memory.then(|| memory::counting(beside)),
            crash: crash::Options {
                common,
                signals: args.signals.signal,
                handled: args.handled,
                // They are few, and nobody is there to ask again.
                registers: true,
                stack_trace: true,
                max_stack_depth: 32,
                // What a budgeted sample may take of a ring that others need, too.
                stack_bytes: 16_384,
                summary: Some(args.interval),
                table,
                samples,
                attach,
                debug_dirs: args.symbols.debug_dirs,
                debuginfod: args.servers.debuginfod,
            },
            interval: args.interval,
            serve: args.metrics_listen.map(|listen| Serve {
                listen,
                web_config: args.web_config,
                allowed_users: BTreeSet::from_iter(args.metrics_allow_user),
            }),
            max_executables: args.max_executables as usize,
        }
    }
}

/// `9464`, `:9464` and `127.0.0.1:9464` are the same; another address must be typed. Brackets may be around an address of either kind:
/// `[$(NODE_IP)]:8917` is right on each node.
fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let port = text.strip_prefix(':').unwrap_or(text);
    if let Ok(port) = port.parse() {
        return Ok(SocketAddr::from(([127, 0, 0, 1], port)));
    }
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.split_once("]:"));
    if let Some((Ok(address), Ok(port))) = bracketed.map(|(address, port)| (address.parse::<Ipv4Addr>(), port.parse()))
    {
        return Ok(SocketAddr::from((address, port)));
    }
    text.parse().map_err(|_| format!("`{text}` is no address to listen on, as 127.0.0.1:9464 or [::1]:9464"))
}

/// The same, or `unix:PATH`.
fn listen(text: &str) -> Result<Listen, String> {
    match text.strip_prefix("unix:") {
        Some(path) if path.starts_with('/') => Ok(Listen::Unix(path.into())),
        Some(path) => Err(format!("`{path}` must begin with a slash, as unix:/run/faultline/metrics")),
        None => listen_address(text).map(Listen::Tcp),
    }
}

/// A user's number, by name or as such.
fn user(text: &str) -> Result<u32, String> {
    if let Ok(uid) = text.parse() {
        return Ok(uid);
    }
    match User::from_name(text) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        _ => Err(format!("there is no user `{text}` on this machine")),
    }
}

#[cfg(test)]
mod tests {
    use crate::output::Format;
    use clap::{CommandFactory as _, Parser as _};

    use super::super::{Cli, Command};
    use super::*;

    fn agent(line: &str) -> Options {
        match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Command::Agent(args) => (*args).into(),
            _ => panic!("not agent"),
        }
    }

    #[test]
    fn an_agent_writes_json() {
        assert_eq!(agent("faultline agent").crash.common.format, Format::Json);
        assert_eq!(agent("faultline agent --format text").crash.common.format, Format::Text);
    }

    #[test]
    fn an_agent_watches_signals_under_the_old_name_as_well_which_is_hidden() {
        for (flags, wanted) in [("", false), (" --watch-signals", true), (" --signals", true)] {
            assert_eq!(agent(&format!("faultline agent{flags}")).signals.is_some(), wanted, "{flags}");
        }
        let help = Cli::command().find_subcommand_mut("agent").unwrap().render_long_help().to_string();
        assert!(help.contains("--watch-signals") && !help.contains("--signals"), "{help}");
    }

    #[test]
    fn a_port_alone_is_this_machines() {
        for text in ["9464", ":9464", "127.0.0.1:9464"] {
            assert_eq!(listen_address(text), Ok(SocketAddr::from(([127, 0, 0, 1], 9464))), "{text}");
        }
        assert_eq!(listen_address("0.0.0.0:1"), Ok(SocketAddr::from(([0, 0, 0, 0], 1))));
        for (text, wanted) in [("[192.0.2.7]:8917", "192.0.2.7:8917"), ("[2001:db8::7]:8917", "[2001:db8::7]:8917")] {
            assert_eq!(listen_address(text), Ok(wanted.parse().unwrap()), "{text}");
        }
        for text in ["", "localhost:1", "65536", "1.2.3.4", "[1.2.3.4]", "[1.2.3.4]:", "2001:db8::7:8917"] {
            assert!(listen_address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn users_and_sockets_are_understood() {
        let all =
            agent("faultline agent --metrics-listen unix:/run/x --metrics-allow-user root --metrics-allow-user 7");
        let serve = all.serve.unwrap();
        assert_eq!(serve.listen, Listen::Unix("/run/x".into()));
        assert_eq!(serve.allowed_users, BTreeSet::from([0, 7]));
        assert!(listen("unix:x").unwrap_err().contains("must begin with a slash"));
        assert!(user("no such user").unwrap_err().contains("there is no user"));
        assert!(Cli::try_parse_from(["faultline", "agent", "--metrics-allow-user", "0"]).is_err(), "nothing is served");
    }
}
