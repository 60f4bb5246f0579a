//! Builds the eBPF programs and puts the object where podtrace's build script takes it from.

use std::ffi::OsStr;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::machine::Machine;
use crate::process::{self, foreign_cargo, run_step, workspace};
use crate::toolchain::{self, Toolchain};

const TARGET: &str = "bpfel-unknown-none";

/// What builds the eBPF crate.
#[derive(Clone, Debug)]
pub struct Compiler {
    toolchain: Toolchain,
    linker: PathBuf,
    cargo_home: PathBuf,
}

impl Compiler {
    /// The one of this machine.
    ///
    /// # Errors
    /// When it has none.
    pub fn find(machine: &Machine) -> Result<Self> {
        let toolchain = toolchain::choose(machine)?;
        let linker = toolchain::linker(machine);
        match (toolchain, linker) {
            (Some(toolchain), Some(linker)) => {
                Ok(Self { toolchain, linker, cargo_home: machine.cargo_home.clone() })
            }
            _ => bail!("no toolchain here can build the eBPF programs: run `cargo xtask setup`"),
        }
    }

    /// As shown to a person.
    pub fn describe(&self) -> String {
        format!("{} and {}", self.toolchain.name, self.linker.display())
    }

    /// For rustc, in Cargo's encoding.
    fn flags(&self) -> String {
        let mut flags = vec![
            format!("-Clinker={}", self.linker.display()),
            "-Clink-arg=--btf".to_owned(),
            // 32-bit registers and comparisons, since Linux 5.1: shifts to and fro without.
            "-Ctarget-cpu=v3".to_owned(),
            "-Cdebuginfo=2".to_owned(),
        ];
        // The object shall not depend on where it was built.
        for (path, name) in [
            (&self.cargo_home, "cargo"),
            (&self.toolchain.sysroot, "rust"),
            (&workspace().into(), ""),
        ] {
            flags.push(format!("--remap-path-prefix={}={name}", path.display()));
        }
        flags.join("\x1f")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = foreign_cargo(&self.toolchain.program(program));
        command
            .current_dir(workspace().join("tracer-ebpf"))
            .env("CARGO", self.toolchain.program("cargo"))
            .env("RUSTC", self.toolchain.program("rustc"))
            // -Z build-std; a nightly needs no permission, a stable compiler does.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", self.flags());
        command
    }

    fn arguments(command: &mut Command) -> &mut Command {
        command
            .args(["--release", "--locked", "-Zbuild-std=core", "--target", TARGET, "--target-dir"])
            .arg(target_dir())
    }
}

fn target_dir() -> PathBuf {
    workspace().join("target/ebpf-build")
}

/// The object that podtrace embeds; tracer/build.rs knows this path too.
pub fn object() -> PathBuf {
    workspace().join("target/bpf/podtrace.o")
}

/// Builds the programs, unless they are up to date.
///
/// # Errors
/// When there is no toolchain, or the programs do not compile.
pub fn build(machine: &Machine) -> Result<()> {
    let compiler = Compiler::find(machine)?;
    // Not beside the object: tracer/build.rs watches that directory.
    let stamp_file = target_dir().join("podtrace.stamp");
    let stamp = stamp(&compiler)?;
    let built_as = fs::read_to_string(&stamp_file).unwrap_or_default();
    if built_as == stamp && object().is_file() {
        println!("eBPF programs: up to date");
        return Ok(());
    }
    let first = !target_dir().exists();
    let long = if first { " (the first time about 2 minutes)" } else { "" };
    println!("eBPF programs: with {}", compiler.describe());
    let mut command = compiler.command("cargo");
    Compiler::arguments(command.arg("build"));
    run_step(&format!("build the eBPF programs{long}"), &mut command)?;
    let built = target_dir().join(TARGET).join("release/podtrace-ebpf");
    let bytes = fs::read(&built).with_context(|| format!("read {}", built.display()))?;
    replace(&object(), &bytes)?;
    replace(&stamp_file, stamp.as_bytes())
}

/// Lints the eBPF crate, for its own target: elsewhere it would not compile.
///
/// # Errors
/// When clippy has something to say, or is missing.
pub fn clippy(machine: &Machine) -> Result<()> {
    let compiler = Compiler::find(machine)?;
    if !compiler.toolchain.has_clippy() {
        bail!("{} has no clippy: run `cargo xtask setup`", compiler.toolchain.name);
    }
    // Not `cargo clippy`: Cargo would take the first cargo-clippy that it finds, which may be
    // another toolchain's.
    let mut command = compiler.command("cargo-clippy");
    command.env("CLIPPY_CONF_DIR", workspace());
    Compiler::arguments(command.arg("clippy")).args(["--", "-Dwarnings"]);
    run_step("clippy on the eBPF crate", &mut command)
}

/// Checks the eBPF crate's format; any rustfmt can.
///
/// # Errors
/// When it is not as rustfmt would have it.
pub fn format() -> Result<()> {
    let mut command = process::cargo();
    command.current_dir(workspace().join("tracer-ebpf")).args(["fmt", "--check"]);
    run_step("cargo fmt --check, eBPF crate", &mut command)
}

/// Everything that decides what the object becomes, in one line.
fn stamp(compiler: &Compiler) -> Result<String> {
    let root = workspace();
    let mut files = vec![root.join("Cargo.toml")];
    for dir in ["tracer-ebpf", "tracer-common"] {
        collect(&root.join(dir), &mut files)?;
    }
    files.sort();
    let mut hasher = DefaultHasher::new();
    for file in &files {
        file.strip_prefix(root).unwrap_or(file).hash(&mut hasher);
        fs::read(file).with_context(|| format!("read {}", file.display()))?.hash(&mut hasher);
    }
    for program in ["rustc", "cargo"] {
        toolchain::fingerprint(&compiler.toolchain.program(program)).hash(&mut hasher);
    }
    toolchain::fingerprint(&compiler.linker).hash(&mut hasher);
    compiler.flags().hash(&mut hasher);
    Ok(format!("{:016x}\n", hasher.finish()))
}

/// The source files below a crate's directory.
fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let read = || format!("read {}", dir.display());
    for entry in fs::read_dir(dir).with_context(read)? {
        let entry = entry.with_context(read)?;
        let kind = entry.file_type().with_context(read)?;
        if kind.is_dir() {
            if entry.file_name() != "target" {
                collect(&entry.path(), files)?;
            }
        } else if matches!(
            entry.path().extension().and_then(OsStr::to_str),
            Some("rs" | "toml" | "lock")
        ) {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// Makes `file` hold `bytes`, at once, and leaves it alone when it does already: what depends on
/// its time is then not built again.
fn replace(file: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(file).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let write = || -> io::Result<()> {
        if let Some(dir) = file.parent() {
            fs::create_dir_all(dir)?;
        }
        let mut name = file.as_os_str().to_owned();
        name.push(format!(".{}", std::process::id()));
        fs::write(&name, bytes)?;
        fs::rename(&name, file)
    };
    write().with_context(|| format!("write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_equal_file_keeps_its_time() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("bpf/podtrace.o");
        replace(&file, b"one").unwrap();
        let before = fs::metadata(&file).unwrap().modified().unwrap();
        replace(&file, b"one").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), before);
        replace(&file, b"two").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two");
        assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn sources_are_found_and_build_output_is_not() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["Cargo.toml", "Cargo.lock", "src/a.rs", "target/b.rs", "README.md"] {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        let mut files = Vec::new();
        collect(dir.path(), &mut files).unwrap();
        files.sort();
        let expected = ["Cargo.lock", "Cargo.toml", "src/a.rs"].map(|f| dir.path().join(f));
        assert_eq!(files, expected);
    }
}
