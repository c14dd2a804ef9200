//! `faultline doctor` as it is typed.

use clap::Args;

use super::common::Look;

/// `faultline doctor`
#[derive(Args, Debug)]
pub struct DoctorArgs {
    #[command(flatten)]
    pub look: Look,

    /// Exit with 1 if `faultline crash` doesn't work, or if doctor can't find out
    #[arg(long)]
    pub strict: bool,
}
