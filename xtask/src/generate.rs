//! `cargo xtask generate`: the Rust code of the agent's protocol, made of its description. No
//! `protoc`: the description is compiled by a library, which only this command builds (it is behind
//! the feature `generate`).

use anyhow::Result;

use crate::process::workspace;

/// What `cargo xtask generate` is asked for.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Change nothing; fail when the committed code is not what the description gives
    #[arg(long)]
    check: bool,
}

/// Generates, in a build of this program that can.
#[cfg(not(feature = "generate"))]
pub fn run(options: &Options) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = std::process::Command::new(cargo);
    command.args(["run", "--quiet", "--package", "xtask", "--features", "generate", "--"]);
    command.arg("generate").args(options.check.then_some("--check"));
    let status = command.current_dir(workspace()).status()?;
    anyhow::ensure!(status.success(), "the protocol's code was not generated");
    Ok(())
}

/// Generates.
#[cfg(feature = "generate")]
pub fn run(options: &Options) -> Result<()> {
    use anyhow::Context;

    let folder = workspace().join("tracer/src/agent");
    let description = folder.join("agent.proto");
    let compiled = protox::compile([&description], [&folder]).context("compile agent.proto")?;
    let out = workspace().join("target/generated");
    std::fs::create_dir_all(&out)?;
    tonic_prost_build::configure()
        .build_transport(false)
        .bytes(".podtrace.agent.Payload")
        .out_dir(&out)
        .compile_fds(compiled)
        .context("generate the code")?;
    let made = out.join("podtrace.agent.rs");
    let source = std::fs::read(&description)?;
    let code = format!(
        "// Made of agent.proto by `cargo xtask generate`; not to be edited.\n// agent.proto: \
         {:016x}\n{}",
        fnv1a(&source),
        std::fs::read_to_string(&made)?
    );
    std::fs::write(&made, code)?;
    let formatted =
        std::process::Command::new("rustfmt").args(["--edition", "2024"]).arg(&made).status()?;
    anyhow::ensure!(formatted.success(), "rustfmt failed");
    let code = std::fs::read(&made)?;
    let target = folder.join("proto.rs");
    if !options.check {
        std::fs::write(&target, code)?;
    } else if std::fs::read(&target).ok().as_deref() != Some(&code) {
        anyhow::bail!(
            "{} is not what agent.proto gives: run cargo xtask generate",
            target.display()
        );
    }
    Ok(())
}

/// FNV-1a, 64 bits: what podtrace's own test recognises the description by.
#[cfg(feature = "generate")]
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
