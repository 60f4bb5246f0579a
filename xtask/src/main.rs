//! Builds, tests and demonstrates podtrace: `cargo xtask help`.

mod bench;
mod demo;
mod ebpf;
mod generate;
mod machine;
mod picture;
mod podtrace;
mod process;
mod setup;
mod test;
mod toolchain;
mod ui;
mod vm;

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
    /// Build podtrace, and trace a packet through a lab, healthy and broken (as root)
    Demo,
    /// Format, lints, unit tests, and the tests on real namespaces (as root)
    Test(test::TestArgs),
    /// Draw the README's picture of the live view from a real run (as root)
    Picture,
    /// Measure what watching costs, and write docs/performance.md (as root)
    Bench(bench::Options),
    /// Make the code of the agent's protocol of its description, after that was changed
    Generate(generate::Options),
    /// Tests on Debian's kernels 6.1 and 6.12, in emulated machines
    Vm(vm::Options),
}

fn main() -> ExitCode {
    if let Some(code) = test::fuzz::as_rustc() {
        return code;
    }
    if vm::guest::is_init() {
        vm::guest::main();
    }
    let machine = Machine::this();
    match run(&machine, Arguments::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(machine: &Machine, task: Task) -> anyhow::Result<ExitCode> {
    match task {
        Task::Setup => {
            setup::run(machine)?;
            println!("setup: nothing is missing");
        }
        Task::BuildEbpf => ebpf::build(machine)?,
        Task::Build { release } => {
            let binary = podtrace::build(machine, release)?;
            println!("podtrace: {}", binary.display());
        }
        Task::Demo => demo::run(machine)?,
        Task::Test(args) => return test::run(machine, &args),
        Task::Picture => picture::run(machine)?,
        Task::Bench(options) => bench::run(machine, &options)?,
        Task::Generate(options) => generate::run(&options)?,
        Task::Vm(options) => vm::run(machine, &options)?,
    }
    Ok(ExitCode::SUCCESS)
}
