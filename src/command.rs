//! `-- COMMAND`: started when everything is attached, watched from its first instruction, and its status is ours.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

/// What a shell exits with if a command isn't there.
const NOT_FOUND: u8 = 127;

/// And if it is there and can't be executed.
const NOT_EXECUTABLE: u8 = 126;

/// The command can't be started.
#[derive(Debug, thiserror::Error)]
#[error("failed to run `{name}`")]
pub(crate) struct NotStarted {
    name: String,
    source: io::Error,
}

impl NotStarted {
    /// What to exit with, as a shell does.
    pub(crate) fn exit_code(&self) -> u8 {
        if self.source.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE }
    }
}

/// The command while it runs.
pub(crate) struct Running {
    child: Child,
    name: String,
}

impl Running {
    /// Starts the command with our standard streams, and without the signals blocked that [`crate::watch`] takes as events.
    ///
    /// # Errors
    /// [`NotStarted`] if it isn't there or can't be executed.
    pub(crate) fn start(command: &[OsString]) -> Result<Self> {
        let (program, arguments) = command.split_first().context("failed to run the command: there is none")?;
        let name = program.to_string_lossy().into_owned();
        let mut command = Command::new(program);
        command.args(arguments);
        // SAFETY: the closure runs between fork and exec, where only async-signal-safe calls are allowed: sigprocmask is
        // one (signal-safety(7)), and turning its error into an io::Error does not allocate.
        unsafe {
            command.pre_exec(|| SigSet::empty().thread_set_mask().map_err(std::io::Error::from));
        }
        match command.spawn() {
            Ok(child) => Ok(Self { child, name }),
            Err(source) => bail!(NotStarted { name, source }),
        }
    }

    /// The command's process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The command as it was typed.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The command's status if it has ended.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("failed to wait for `{}`", self.name))
    }

    /// Hands a signal on to the command. One that has ended meanwhile is no error: its status is to come.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

/// The status that a shell would report: the exit code, or 128 and the signal's number.
pub(crate) fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(2);
    u8::try_from(code).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_a_shells() {
        assert_eq!(exit_code(ExitStatus::from_raw(0)), 0);
        assert_eq!(exit_code(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(exit_code(ExitStatus::from_raw(11 | 0x80)), 139);
    }

    #[test]
    fn a_missing_command_is_named() {
        let error = Running::start(&["./no-such-command".into()]).map(drop).unwrap_err();
        assert_eq!(format!("{error:#}"), "failed to run `./no-such-command`: No such file or directory (os error 2)");
        assert_eq!(error.downcast_ref().map(NotStarted::exit_code), Some(127));
        let error = Running::start(&["/".into()]).map(drop).unwrap_err();
        assert_eq!(error.downcast_ref().map(NotStarted::exit_code), Some(126), "{error:#}");
    }
}
