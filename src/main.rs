//! The `faultline` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    faultline::main()
}
