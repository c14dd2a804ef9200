//! `faultline doctor` as it is typed.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::common::{ADVANCED, Appearance, OUTPUT, SHOW};
use super::strictly;
use crate::doctor;
use crate::output::{OutputTarget, Writer};
use crate::survey;

/// `faultline doctor`
#[derive(Args, Debug)]
pub(super) struct DoctorArgs {
    /// Report for the file at PATH, or for each file that the process PID runs, what names of functions come from, what is missing, and
    /// what would get it
    #[arg(long, value_name = "PATH|PID", help_heading = SHOW)]
    symbols: Option<String>,

    #[command(flatten)]
    look: Appearance,

    /// With --symbols: look for debug files in DIR first (repeatable)
    #[arg(long = "debug-dir", value_name = "DIR", requires = "symbols", help_heading = ADVANCED)]
    debug_dirs: Vec<PathBuf>,

    /// Exit with 1 if `faultline crash` doesn't work, or if doctor can't find out; with --symbols, if anything is missing
    #[arg(long, help_heading = OUTPUT)]
    strict: bool,
}

impl DoctorArgs {
    /// Prints the report.
    pub(super) fn run(self) -> Result<ExitCode> {
        let mut writer = Writer::open(&OutputTarget::default(), self.look.format)?;
        if let Some(target) = &self.symbols {
            let survey = survey::examine(target, self.debug_dirs)?;
            writer.write(&survey)?;
            writer.flush()?;
            return Ok(strictly(self.strict, survey.is_whole()));
        }
        let report = doctor::examine();
        writer.write(&report)?;
        writer.flush()?;
        Ok(strictly(self.strict, report.crash == doctor::Status::Yes))
    }
}
