//! The program under test: the same entry as the released binary's, built beside the tests that start it.

use std::process::ExitCode;

use alluvium::cli::console::Console;
use alluvium::config::Environment;

fn main() -> ExitCode {
    let environment = Environment::new(std::env::vars_os());
    let console = Console::standard(&environment);
    ExitCode::from(alluvium::cli::main(std::env::args_os(), &environment, console).code())
}
