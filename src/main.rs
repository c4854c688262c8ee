//! The `raida` program; what it can do is in `raida::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    raida::cli::main()
}
