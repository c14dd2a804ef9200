//! `faultline doctor` as it is typed.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::common::Appearance;
use super::strictly;
use crate::doctor;
use crate::output::{OutputTarget, Writer};

/// `faultline doctor`
#[derive(Args, Debug)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    look: Appearance,

    /// Exit with 1 if `faultline crash` doesn't work, or if doctor can't find out
    #[arg(long)]
    strict: bool,
}

impl DoctorArgs {
    /// Prints the report.
    pub(super) fn run(self) -> Result<ExitCode> {
        let report = doctor::examine();
        let mut writer = Writer::open(&OutputTarget::default(), self.look.format)?;
        writer.write(&report)?;
        writer.flush()?;
        Ok(strictly(self.strict, report.crash == doctor::Status::Yes))
    }
}
