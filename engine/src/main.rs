//! The binary: hands the process's arguments, environment and output to [`alluvium::cli`], and returns its exit code.

use std::process::ExitCode;

use alluvium::cli::console::Console;
use alluvium::config::Environment;

fn main() -> ExitCode {
    alluvium::heap::settle();
    let environment = Environment::new(std::env::vars_os());
    let console = Console::standard(&environment);
    ExitCode::from(alluvium::cli::main(std::env::args_os(), &environment, console).code())
}
