//! Command line: arguments, commands, exit status.

pub mod agent;
pub mod args;
pub mod bundle;
pub mod causes;
mod check;
pub mod export;
pub mod fault;
pub mod inspect;
pub mod lab;
mod output;
mod privileges;
pub mod replay;
mod save;
mod screen;
mod signals;
mod trace;

use std::process::ExitCode;

use clap::Parser;

use crate::endpoint::EndpointError;
use crate::expect::ExpectError;
use crate::inventory::InventoryError;
use crate::session::SpecError;

/// podtrace itself failed.
const FAILED: u8 = 1;
/// Used wrongly.
const USAGE: u8 = 2;

/// Wrong use that clap cannot see.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Parses the command line and runs it. Errors are one line on standard error.
pub fn main() -> ExitCode {
    let cli = match args::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; neither is a reader that has gone.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    let outcome = match cli.command {
        None => trace::run(&cli.trace),
        Some(args::Command::Replay(args)) => args.run(),
        Some(args::Command::Export(args)) => args.run(),
        Some(args::Command::Bundle(args)) => args.run(),
        Some(args::Command::Lab(args)) => lab::run(args),
        Some(args::Command::Check(args)) => args.run(),
        Some(args::Command::Interfaces(args)) => args.run(),
        Some(args::Command::Pods(args)) => args.run(),
        Some(args::Command::Nodes(args)) => args.run(),
        Some(args::Command::Causes(args)) => args.run(),
        Some(args::Command::Agent(args)) => args.run(),
    };
    match outcome {
        Ok(status) => ExitCode::from(status),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("podtrace: {error:#}");
            ExitCode::from(exit_code_of(&error))
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|e| {
        e.downcast_ref::<std::io::Error>()
            .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

/// 2 where the user can mend the command line or the inventory, else 1.
fn exit_code_of(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if cause.is::<Usage>() {
            return USAGE;
        }
        if cause.is::<SpecError>() {
            return USAGE;
        }
        if let Some(error) = cause.downcast_ref::<InventoryError>() {
            return if error.is_usage() { USAGE } else { FAILED };
        }
        if let Some(error) = cause.downcast_ref::<EndpointError>() {
            return if error.is_usage() { USAGE } else { FAILED };
        }
        if let Some(error) = cause.downcast_ref::<ExpectError>() {
            return if error.is_usage() { USAGE } else { FAILED };
        }
    }
    FAILED
}
