//! Builds, tests and demonstrates podtrace: `cargo xtask help`.

mod ebpf;
mod machine;
mod podtrace;
mod process;
mod setup;
mod toolchain;
mod ui;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use machine::Machine;

/// Builds, tests and demonstrates podtrace
#[derive(Parser, Debug)]
#[command(bin_name = "cargo xtask", disable_version_flag = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand, Debug)]
enum Task {
    /// Install what building and testing needs, or say what is missing
    Setup,
    /// Build the eBPF programs that the next build of podtrace embeds
    BuildEbpf,
    /// Build podtrace with its eBPF programs
    Build {
        /// Optimised
        #[arg(long)]
        release: bool,
    },
}

fn main() -> ExitCode {
    let machine = Machine::this();
    let result = match Arguments::parse().task {
        Task::Setup => setup::run(&machine).map(|()| println!("setup: nothing is missing")),
        Task::BuildEbpf => ebpf::build(&machine),
        Task::Build { release } => podtrace::build(&machine, release)
            .map(|binary| println!("podtrace: {}", binary.display())),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
